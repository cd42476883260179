"""Clutter on a known floor: what lies flat (rug, shadow, reflection) and what stands.

Once the walls' feet are known, everything in front of them that does not look like floor is one of the two. Upright edges and
a look that continues above the walls' feet speak for standing; edges that run along the floor, and nothing else, for lying.
"""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.floor import HORIZON_SINK, clean_floor
from lyra_core.photo.superpixels import Superpixels, density, geodesic_distance, log_ratio, minimum_cut

_BANDWIDTH = np.array([14.0, 5.0, 5.0, 8.0, 0.2, 0.2])
"""Of L, a, b, texture, u, v: a thing looks alike nearby."""
_W_UPRIGHT, _W_LEVEL, _BIAS = 2.5, 0.8, 0.0
"""Evidence of upright edges and of edges along the floor; above 0, doubt goes to what stands."""
_ITERATIONS = 2


def lying_flat(regions: Superpixels, rays: UprightRays, floor: np.ndarray, foot: np.ndarray, upright_edges: np.ndarray,
               level_edges: np.ndarray, rug: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two (H, W) bool: what lies on the floor in front of the walls, the floor itself included, and what stands there.

    Args:
        floor: (H, W) bool that looks like floor.
        foot: (H, W) ``down`` of the wall's foot behind each pixel.
        upright_edges, level_edges: (H, W) float, 1 on edges that are only upright, or only along a horizontal direction.
        rug: (H, W) bool: inside a rectangle on the floor.
    """
    in_front = np.where(np.isfinite(rays.down), rays.down > foot, rays.sink > 0) & (rays.sink > HORIZON_SINK)
    inside, is_floor = regions.mean_of(in_front) > 0.5, regions.mean_of(floor & in_front) > 0.5
    open_ = inside & ~is_floor
    if not (open_.any() and is_floor.any()):
        return clean_floor(floor & in_front, rays), in_front & ~floor
    behind = ~inside & (regions.mean_of(np.abs(np.nan_to_num(rays.down) - foot) < 0.5 * foot) > 0.2)
    to_floor, to_wall = geodesic_distance(regions, is_floor), geodesic_distance(regions, behind)
    upright = np.minimum(regions.mean_of(upright_edges) * 8.0, 1.0)
    level = np.minimum(regions.mean_of(level_edges) * 8.0, 1.0) * (1 - upright)
    walk = np.clip(0.5 * (np.nan_to_num(to_floor, posinf=9.0) - np.nan_to_num(to_wall, posinf=9.0)), -2.0, 2.0)
    evidence = _W_UPRIGHT * upright - _W_LEVEL * level + walk + _BIAS
    on_rug = regions.mean_of(rug) > 0.5
    evidence = np.where(on_rug, 0.6 * unlike_border(regions, rug) + upright - 2.0, evidence)
    stands = _cut(evidence, regions, open_, is_floor, behind)
    points = np.concatenate([regions.features, regions.center], 1)
    for _ in range(_ITERATIONS):
        belief = 0.5 * stands + 0.5 / (1 + np.exp(-evidence))
        look = log_ratio(points, regions.area * (belief * open_), regions.area * ((1 - belief) * open_ + is_floor), _BANDWIDTH,
                         limit=2.0)
        stands = _cut(evidence + look, regions, open_, is_floor, behind)
    flat = clean_floor((floor | (open_ & ~stands)[regions.index]) & in_front, rays)
    return flat, (open_ & stands)[regions.index] & ~flat


def unlike_border(regions: Superpixels, rug: np.ndarray) -> np.ndarray:
    """Return (N,) in [0, 4]: how little a region looks like what lies along the inside of a rug's border."""
    inner = cv2.erode(rug.astype(np.uint8), np.ones((3, 3), np.uint8), iterations=max(2, rug.shape[1] // 40), borderValue=0) > 0
    ring = regions.mean_of(rug & ~inner) > 0.5
    if not ring.any():
        return np.zeros(len(regions))
    like = density(regions.features, regions.area * ring, regions.features, _BANDWIDTH[:4])
    usual = float(np.median(like[ring]))
    return np.clip(-np.log(np.maximum(like, 1e-9) / max(usual, 1e-9)) - 1.0, 0.0, 4.0)


def _cut(evidence: np.ndarray, regions: Superpixels, open_: np.ndarray, floor: np.ndarray, behind: np.ndarray) -> np.ndarray:
    odds = np.where(open_, evidence, np.where(floor, -1.5, np.where(behind, 0.6, 0.0)))
    return minimum_cut(odds, regions, smoothness=2.5)
