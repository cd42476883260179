"""Obstacles: what stands on the floor in front of the walls.

The far edge of the floor, column by column in upright coordinates, follows the walls; where it comes nearer for a narrow
stretch, something stands in front. That base is grown upwards into what looks like it.
"""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.superpixels import Superpixels, density, minimum_cut

_MARGIN = 1.12
"""A base stands at most at 1 / this of the wall's distance."""
USUAL_FURNITURE = 1.2
"""Most furniture is lower [m]; the walls show above it."""
LEAST_RISE = 0.3
"""Things in front of known walls rise at least this high [m]; skirtings and thresholds do not."""
MIN_HEIGHT = 0.18
"""Lower things are taken for the floor's texture [m]."""
MIN_SHARE = 0.0025
"""Smaller things stay part of what is behind them."""
MAX_HEIGHT = {"indoor": 2.1, "outdoor": 3.2}
"""Taller growth is wall [m]."""
MIN_WIDTH = {"indoor": 0.15, "outdoor": 0.4}
"""Thinner things are taken for marks on the floor [m]."""
_BANDWIDTH = np.array([16.0, 6.0, 6.0, 8.0, 0.12])


def find_obstacles(regions: Superpixels, rays: UprightRays, floor: np.ndarray, sky: np.ndarray, wall: np.ndarray,
                   right: np.ndarray, *, scene_kind: str, camera_height: float) -> np.ndarray:
    """Return (H, W) bool of obstacles.

    Args:
        floor, sky: (H, W) bool.
        wall: (C,) ``down`` at which the walls meet the floor, for the upright columns ``right`` (C,).
        scene_kind: 'indoor' or 'outdoor', bounds the height.
        camera_height: above the floor [m].
    """
    known = np.isfinite(rays.down)
    limit = np.where(known, np.interp(np.nan_to_num(rays.right), right, wall) * _MARGIN + 0.01, np.inf)
    base = known & ~floor & ~sky & (rays.down > limit)
    base = cv2.morphologyEx(base.astype(np.uint8), cv2.MORPH_OPEN, np.ones((7, 7), np.uint8)) > 0
    base = _thick(_large(base, MIN_SHARE), rays, camera_height, MIN_WIDTH[scene_kind])
    out = np.zeros(floor.shape, bool)
    count, index = cv2.connectedComponents(base.astype(np.uint8), connectivity=8)
    for i in range(1, count):
        part = index == i
        part |= _grown(part, regions, rays, floor | sky, scene_kind, camera_height)
        if scene_kind == "indoor" or not _lies_in_floor(part, floor, rays, right, wall):
            out |= _filled(part, sky)
    return out


def stand_in_room(regions: Superpixels, rays: UprightRays, floor: np.ndarray, base: np.ndarray, foot: np.ndarray,
                  camera_height: float) -> np.ndarray:
    """Return (H, W) bool of obstacles in a room whose walls are known.

    What covers a wall's foot stands, however little of it is in front of the foot; it reaches up as far as the picture does not
    look like the walls, whose look is taken from above most furniture.

    Args:
        base: (H, W) bool: what stands on the floor, as far as it is seen in front of the walls' feet.
        foot: (H, W) ``down`` of the wall's foot behind each pixel.
    """
    height = regions.mean_of(camera_height * (1 - rays.down / foot))
    unlike = _unlike_wall(regions, height)
    standing = regions.mean_of(base) > 0.5
    upper = (height > 0) & (height < MAX_HEIGHT["indoor"]) & ~standing
    odds = unlike + 0.5 - 2.0 * np.maximum(height, 0.0) / USUAL_FURNITURE
    odds = np.where(standing, np.where(height > -0.12 * camera_height, unlike + 1.0, 3.0), np.where(upper, odds, -6.0))
    odds = np.where(regions.mean_of(floor) > 0.5, -6.0, odds)
    found = minimum_cut(odds, regions, smoothness=2.0)[regions.index] & ~floor
    found = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) > 0
    out = np.zeros(floor.shape, bool)
    count, index = cv2.connectedComponents(found.astype(np.uint8), connectivity=4)
    for i in range(1, count):
        part = index == i
        down = rays.down[part & np.isfinite(rays.down)]
        rises = len(down) > 0 and camera_height * (1 - down.min() / np.percentile(down, 97)) > LEAST_RISE
        if rises and part.mean() > MIN_SHARE and (part & base).sum() > 0.02 * part.sum():
            out |= _filled(part, np.zeros_like(part)) & ~floor
    return out


def _unlike_wall(regions: Superpixels, height: np.ndarray) -> np.ndarray:
    """Return (N,) in [-1.5, 2.5]: how little a region looks like the walls above ``USUAL_FURNITURE``."""
    wall = (height > USUAL_FURNITURE) & (height < 2 * USUAL_FURNITURE)
    if not wall.any():
        return np.zeros(len(regions))
    points, unlike = np.concatenate([regions.features, regions.center[:, :1]], 1), np.full(len(regions), np.inf)
    for reach in (0.05, 0.5):  # doors go on right above, plain walls anywhere
        like = density(points, regions.area * wall, points, np.append(_BANDWIDTH[:4], reach))
        usual = float(np.median(like[wall]))
        unlike = np.minimum(unlike, -np.log(np.maximum(like, 1e-9) / max(usual, 1e-9)))
    return np.clip(unlike - 1.0, -1.5, 2.5)


def _filled(part: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Return a part without its slits and holes: a thing's light or plain faces are still the thing."""
    reach = max(3, part.shape[1] // 60) | 1
    closed = cv2.morphologyEx(part.astype(np.uint8), cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    _, index, stats, _ = cv2.connectedComponentsWithStats((closed == 0).astype(np.uint8), connectivity=4)
    x, y, w, h = (stats[:, k] for k in range(4))
    enclosed = (x > 0) & (y > 0) & (x + w < part.shape[1]) & (y + h < part.shape[0]) & (stats[:, 4] < 0.5 * part.sum())
    enclosed[0] = False
    return ((closed > 0) | enclosed[index]) & ~sky


def _lies_in_floor(part: np.ndarray, floor: np.ndarray, rays: UprightRays, right: np.ndarray, wall: np.ndarray) -> bool:
    """Tell whether a part is ringed by floor and hides nothing behind: outdoors a marking, a shadow or a puddle."""
    ring = (cv2.dilate(part.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & ~part
    hides = (rays.down < np.interp(np.nan_to_num(rays.right), right, wall)) & part
    return bool(floor[ring].mean() > 0.8 and hides.mean() < 0.05 * part.mean())


def _thick(mask: np.ndarray, rays: UprightRays, camera_height: float, width: float) -> np.ndarray:
    """Drop parts that are nowhere ``width`` [m] wide or too low: road markings, tiles, slivers along an edge."""
    sink = np.maximum(rays.sink, 1e-3)
    per_pixel = np.abs(np.nanmedian(np.diff(rays.right[rays.right.shape[0] // 2])))
    across = 2 * cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3) * per_pixel * camera_height / sink
    count, index = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    index, widest = index.astype(np.int32), np.zeros(count)
    np.maximum.at(widest, index.ravel(), across.ravel())
    keep = widest >= width
    for i in range(1, count):
        down = rays.down[index == i]
        keep[i] &= camera_height * (1 - down.min() / np.percentile(down, 97)) >= MIN_HEIGHT
    keep[0] = False
    return keep[index]


def _grown(base: np.ndarray, regions: Superpixels, rays: UprightRays, taken: np.ndarray, scene_kind: str,
           camera_height: float) -> np.ndarray:
    """Return the base with the regions above it that look like it rather than like their surroundings."""
    foot = float(np.percentile(rays.down[base], 95))
    top = (1 - MAX_HEIGHT[scene_kind] / camera_height) * foot
    left, right = float(np.percentile(rays.right[base], 1)), float(np.percentile(rays.right[base], 99))
    width = max(right - left, 1e-3)
    known = np.isfinite(rays.down)
    over = known & (rays.right > left - 0.05 * width) & (rays.right < right + 0.05 * width) & (rays.down > top) & (rays.down < foot)
    around = known & (rays.right > left - 0.6 * width) & (rays.right < right + 0.6 * width) & (rays.down < foot)
    inside = regions.mean_of(base) > 0.5
    if not inside.any():
        return np.zeros_like(base)
    candidate = (regions.mean_of(over) > 0.6) & (regions.mean_of(taken) < 0.4)
    outside = (regions.mean_of(around) > 0.3) & (~candidate & ~inside | (regions.mean_of(taken) > 0.5))
    points = np.concatenate([regions.features, regions.center[:, :1]], 1)
    like = density(points, regions.area * inside, points, _BANDWIDTH) + 2e-3
    unlike = density(points, regions.area * outside, points, _BANDWIDTH) + 6e-3
    rise = (foot - regions.mean_of(rays.down)) / max(foot - top, 1e-6)
    odds = np.clip(np.log(like / unlike), -3, 3) + 1.2 - 2.6 * rise
    odds = np.where(inside, 6.0, np.where(candidate, odds, -8.0))
    grown = minimum_cut(odds, regions, smoothness=2.5)[regions.index] & ~taken
    _, index = cv2.connectedComponents((grown | base).astype(np.uint8), connectivity=4)
    return np.isin(index, np.unique(index[base])) & (index > 0)


def _large(mask: np.ndarray, share: float) -> np.ndarray:
    _, index, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, 4] > share * mask.size
    keep[0] = False
    return keep[index.astype(np.int32)]
