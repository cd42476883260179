"""The learned prior and the classical evidence of a photo made one labelling."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.floor import HORIZON_SINK
from lyra_core.photo.prior import CLASSES, Prior
from lyra_core.photo.superpixels import Superpixels
from lyra_core.types import Label

_CLASSICAL, _IN_ROOM = 0.6, 1.2
"""Log odds that lines and colours give the class they found, beside the prior's; and where they fitted a whole room."""


def fused_labels(classical: np.ndarray, prior: Prior, regions: Superpixels, rays: UprightRays, *, outdoor: bool,
                 in_room: bool = False) -> np.ndarray:
    """Return (H, W) uint8 labels: per superpixel the likeliest class by both.

    Args:
        classical: (H, W) uint8 labels without the prior.
        in_room: edges showed a whole room.
    """
    score = np.stack([np.log(np.maximum(regions.mean_of(prior.odds[..., k]), 1e-3)) for k in range(len(CLASSES))], 1)
    for k, label in enumerate(CLASSES):
        score[:, k] += (_IN_ROOM if in_room else _CLASSICAL) * regions.mean_of((classical == label).astype(np.float32))
    sink = regions.mean_of(rays.sink)
    score[:, CLASSES.index(Label.FLOOR)] -= 20.0 * (sink < HORIZON_SINK)
    score[:, CLASSES.index(Label.CEILING)] -= 20.0 * ((sink > -HORIZON_SINK) | outdoor)
    score[:, CLASSES.index(Label.SKY)] -= 20.0 * ((sink > HORIZON_SINK) | (not outdoor))
    return np.array(CLASSES, np.uint8)[score.argmax(1)][regions.index]


def with_said_floor(labels: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Return labels (H, W) with floor where the user says, (H, W) bool, and nowhere else."""
    return np.where(floor, np.uint8(Label.FLOOR), np.where(labels == Label.FLOOR, np.uint8(Label.OBSTACLE), labels))
