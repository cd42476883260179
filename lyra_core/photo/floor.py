"""Floor: what looks like the ground in front of the camera, lies below the horizon and carries no vertical edges."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.superpixels import Superpixels, density, geodesic_distance, log_ratio, minimum_cut

_BANDWIDTH = np.array([14.0, 4.5, 5.5, 5.5, 0.25, 0.6])
"""Of L, a, b, texture, u, v: appearance is compared mostly with what is near in the picture."""
_NOVELTY = 0.03
_COMMON = 0.4
_ITERATIONS = 4
HORIZON_SINK = 0.02
"""Floor begins this far below the horizon (ray slope)."""


@dataclass(frozen=True)
class Floor:
    """The floor region."""

    mask: np.ndarray
    """(H, W) bool."""
    odds: np.ndarray
    """(N,) log odds per superpixel, appearance and geometry together."""
    separation: float
    """Mean certainty below the horizon, in [0, 1]."""


def find_floor(regions: Superpixels, rays: UprightRays, sky: np.ndarray, upright_edges: np.ndarray) -> Floor:
    """Return the floor of a picture.

    The densities of floor and non-floor appearance are re-estimated from the labelling, as GrabCut does (Rother et al.,
    2004), but over superpixels, with position among the features and an exact cut.

    Args:
        sky: (H, W) bool.
        upright_edges: (H, W) float, 1 on edges of vertical things.
    """
    sink = regions.mean_of(rays.sink)
    blocked = (sink < HORIZON_SINK) | (regions.mean_of(sky) > 0.5)
    reach = np.clip(sink / max(float(rays.sink.max()), 1e-6), 0.0, 1.0)
    edges = np.minimum(regions.mean_of(upright_edges) * 8.0, 1.0)
    geometry = np.clip(3.0 * (reach - 0.4), -1.2, 0.7) - 2.2 * edges * (1.2 - reach)
    central = np.exp(-0.5 * (regions.center[:, 0] / 0.2) ** 2)
    belief = np.where(blocked, 0.0, np.clip(reach * 1.6 - 0.45, 0, 1) * (0.2 + 0.8 * central) * (1 - 0.8 * edges))
    belief = belief * _consensus(regions, belief)
    points = np.concatenate([regions.features, regions.center], 1)
    away = geodesic_distance(regions, belief > 0.6 * belief.max())
    rising = geodesic_distance(regions, (sink < -0.02) & (regions.mean_of(sky) < 0.5))
    walk = np.clip(0.6 * (rising - away), -2.5, 0.0) - np.clip(0.4 * (away - 2.0), 0.0, 1.6)
    geometry = geometry + np.nan_to_num(walk)
    odds, labels = geometry, belief > 0.5
    for _ in range(_ITERATIONS):
        other = (1 - belief) * np.where(sky_like(regions, sky), 0.1, 1.0)
        appearance = log_ratio(points, regions.area * belief, regions.area * other, _BANDWIDTH, limit=3.5, novelty=_NOVELTY)
        odds = np.where(blocked, -20.0, appearance + geometry)
        labels = minimum_cut(odds, regions, smoothness=6.0)
        belief = 0.5 * labels + 0.5 / (1 + np.exp(-odds))
    mask = clean_floor(labels[regions.index], rays)
    weight = regions.area * ~blocked
    separation = float((np.tanh(np.abs(odds) / 3) * weight).sum() / max(weight.sum(), 1.0)) if weight.any() else 0.0
    return Floor(mask, odds, separation)


def _consensus(regions: Superpixels, belief: np.ndarray) -> np.ndarray:
    """Return (N,) in [0, 1]: low for regions that look like little of what is believed to be floor (a box standing on it)."""
    common = density(regions.features, regions.area * belief, regions.features, 1.5 * _BANDWIDTH[:4])
    strongest = float(np.max(common * (belief > 0.3), initial=0.0))
    return np.clip(common / max(_COMMON * strongest, 1e-12), 0.0, 1.0) ** 2


def sky_like(regions: Superpixels, sky: np.ndarray) -> np.ndarray:
    """Return (N,) bool: regions that lie in the sky."""
    return regions.mean_of(sky) > 0.5


def clean_floor(mask: np.ndarray, rays: UprightRays) -> np.ndarray:
    """Keep large parts and those at the bottom of the view; fill small holes."""
    mask = mask & (rays.sink > HORIZON_SINK)
    _, index, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, 4] > 0.02 * mask.size
    index = index.astype(np.int32)
    keep[np.unique(index[-2:])] = True
    keep &= stats[:, 4] > 0.002 * mask.size
    keep[0] = False
    mask = keep[index]
    _, index, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    holes = stats[:, 4] < 0.0015 * mask.size
    holes[0] = False
    return mask | holes[index.astype(np.int32)]
