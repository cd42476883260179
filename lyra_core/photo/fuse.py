"""The learned prior and the classical evidence of a photo made one labelling."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.floor import HORIZON_SINK
from lyra_core.photo.prior import CLASSES, Prior
from lyra_core.photo.superpixels import Superpixels
from lyra_core.types import Label

_CLASSICAL = 0.6
"""Log odds that lines and colours give the class they found, beside the prior's."""
_SCENE = 1.5
"""Weight of the prior's sky and ceiling beside the other evidence of the kind of place."""


def fused_labels(classical: np.ndarray, prior: Prior, regions: Superpixels, rays: UprightRays, *, outdoor: bool) -> np.ndarray:
    """Return (H, W) uint8 labels: per superpixel the likeliest class by both.

    Args:
        classical: (H, W) uint8 labels without the prior.
    """
    score = np.stack([np.log(np.maximum(regions.mean_of(prior.odds[..., k]), 1e-3)) for k in range(len(CLASSES))], 1)
    for k, label in enumerate(CLASSES):
        score[:, k] += _CLASSICAL * regions.mean_of((classical == label).astype(np.float32))
    sink = regions.mean_of(rays.sink)
    score[:, CLASSES.index(Label.FLOOR)] -= 20.0 * (sink < HORIZON_SINK)
    score[:, CLASSES.index(Label.CEILING)] -= 20.0 * ((sink > -HORIZON_SINK) | outdoor)
    score[:, CLASSES.index(Label.SKY)] -= 20.0 * ((sink > HORIZON_SINK) | (not outdoor))
    return np.array(CLASSES, np.uint8)[score.argmax(1)][regions.index]


def prior_scene_odds(prior: Prior) -> float:
    """Return the log odds, positive for outdoors, that the prior's sky and ceiling speak."""
    sky, ceiling = (float(prior.odds[..., CLASSES.index(label)].mean()) for label in (Label.SKY, Label.CEILING))
    return _SCENE * float(np.clip(np.log((sky + 0.02) / (ceiling + 0.02)), -2, 2))


def prior_confidence(prior: Prior, labels: np.ndarray, classical: np.ndarray, rays: UprightRays) -> dict[str, float]:
    """Return how sure the prior is below the horizon, and how far the classical evidence finds the same floor; both in [0, 1].

    Args:
        labels: (H, W) uint8, fused.
        classical: (H, W) uint8, without the prior.
    """
    below = rays.sink > HORIZON_SINK
    certain = float(prior.odds.max(-1)[below].mean()) if below.any() else 0.0
    a, b = labels == Label.FLOOR, classical == Label.FLOOR
    depth = float(np.exp(-np.median(prior.sigma[below]))) if below.any() else 0.0
    return {"prior_certainty": certain, "prior_depth": depth, "floor_agreement": float((a & b).sum() / max((a | b).sum(), 1))}


def with_said_floor(labels: np.ndarray, floor: np.ndarray, rays: UprightRays) -> np.ndarray:
    """Return labels (H, W) with floor where the user says, (H, W) bool, and nowhere else."""
    out = np.where((labels == Label.FLOOR) & ~floor, np.uint8(Label.OBSTACLE), labels)
    out[floor & (rays.sink > HORIZON_SINK)] = Label.FLOOR
    return out
