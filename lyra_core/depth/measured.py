"""What dense metric depth says about a photo's place: gravity, floor, ceiling, walls and obstacles, by geometry alone."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.backdrop import column_centres, column_of
from lyra_core.camera.upright import UprightRays, rotation_from_down, upright_rays
from lyra_core.depth.ground import CAMERA_HEIGHTS, Ground, find_ground
from lyra_core.depth.planes import on_plane, surface_normals, tolerance
from lyra_core.depth.regions import components, without_speckle
from lyra_core.types import Camera, DepthEstimate, Label, PhotoReading

_STEEP = np.cos(np.deg2rad(35.0))
"""Surfaces near the floor that are steeper are feet of walls and things; farther than the next value noise hides that."""
_STEEP_WITHIN = 4.0
_STEP = 0.15
"""What is farther than this from the floor [m] is none, whatever the user's mask says."""
_LYING = np.cos(np.deg2rad(50.0))
"""Surfaces that face up more than this are seats and tops, never walls."""
_SMALLEST_FLOOR = 5e-4
"""Share of the picture."""
_IN_FRONT = (0.85, 0.2)
"""Without a wall plane behind it, an obstacle is nearer than this share of the wall's distance, less this many metres."""
_MAX_OBSTACLE_HEIGHT = 2.2
"""A taller measured surface is a wall [m]."""
_OUT_OF_REACH = 1.8
"""What hangs higher than this is in nobody's way [m]."""
_WALL_TOP, _WALL_WIDTH = 1.5, 0.6
"""Least height of the top and least width of a plane that is a wall [m]; lower ones are fronts of things."""
_BEHIND_WALL = 0.12
"""Share of the points that may be seen behind a wall, through doors and windows, unless it is taller than things are."""


def from_metric_depth(depth: np.ndarray, reading: PhotoReading, *, source: str, sigma: float, called: str,
                      camera: Camera | None = None, floor_mask: np.ndarray | None = None) -> DepthEstimate:
    """Correct gravity, camera height and labels of a reading by metric depth (H, W) [m], NaN = unknown.

    Args:
        source: name of the provider.
        sigma: relative standard deviation of the depth's scale.
        called: what the depth is called in notes.
        camera: where it is known better than the reading's.
        floor_mask: (H, W) bool, where the user says floor is.
    """
    camera, called_within = camera or reading.camera, called[0].lower() + called[1:]
    points, known = (camera.rays() * depth[..., None]).astype(np.float32), np.isfinite(depth)
    prior, assumed = -reading.T_world_camera[2, :3], float(reading.T_world_camera[2, 3])
    # A wrong scale bends the height as well; and who says that the camera is lower or higher than usual is believed.
    low = min(CAMERA_HEIGHTS[0], 0.6 * assumed) / (1 + 2 * sigma)
    high = max(CAMERA_HEIGHTS[1], 1.6 * assumed) * (1 + 2 * sigma)
    ground = find_ground(points, prior, heights=(low, high), floor_mask=floor_mask)
    T = np.eye(4)
    T[:3, :3], T[2, 3] = rotation_from_down(ground.down), assumed if ground.height is None else ground.height
    notes = _ground_notes(ground, called_within, assumed)
    normals = surface_normals(points)
    height, level = _heights(points, T), normals @ ground.down.astype(np.float32)
    ceiling_height, ceiling = _find_ceiling(height, level, float(T[2, 3]))
    floor = _floor(depth, height, level) if floor_mask is None else floor_mask & (np.abs(height) < _STEP + 0.02 * depth)
    if ground.height is None and floor_mask is None:
        floor = np.zeros_like(floor)
    labels = _labels(depth, points, normals, height, level, floor, ceiling, ground, camera, T, reading.labels == Label.SKY)
    unknown = float((labels == Label.UNLABELED).mean())
    if unknown > 0.02:
        notes.append(f"{called} leaves {100 * unknown:.0f} % of the picture unknown.")
    return DepthEstimate(depth, labels, camera, T, ceiling_height, source, sigma, tuple(notes), known)


def _ground_notes(ground: Ground, called: str, assumed: float) -> list[str]:
    if ground.height is not None:
        return [f"{called[0].upper()}{called[1:]} sets the scale, and the camera's height above the floor: {ground.height:.2f} m."]
    found = (f"{ground.level} level and {ground.walls} upright surfaces" if ground.level and ground.walls else
             "level surfaces" if ground.level else "upright surfaces" if ground.walls else "")
    tilt = f"the camera's tilt is corrected by {found}" if found else "the camera's tilt is that read from the photo"
    said = f"No floor was found in {called}: {tilt}, and the floor is placed {assumed:g} m below the camera."
    if ground.lowest is not None:
        said += (f" The lowest level surface lies {ground.lowest:.2g} m below it: if that is the floor, "
                 "the depth has another unit or the camera another height.")
    return [said]


def _heights(points: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return (H, W) world z of camera-frame points."""
    return (points[..., 0] * T[2, 0] + points[..., 1] * T[2, 1] + points[..., 2] * T[2, 2] + T[2, 3]).astype(np.float32)


def _floor(depth: np.ndarray, height: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: at floor height within the depth's noise, not steep where it is near, and no specks.

    Args:
        level: (H, W) upward component of the normal towards the camera; NaN = unknown.
    """
    flat = np.abs(height) < np.clip(0.03 + 0.01 * depth, 0.04, 0.12)
    floor = flat & ~((level < _STEEP) & (depth < _STEEP_WITHIN))
    # Holes of a pixel or two in noisy depth do not take a floor apart.
    whole = flat & (cv2.morphologyEx(floor.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)
    index = cv2.connectedComponents(whole.astype(np.uint8), connectivity=8)[1]
    return whole & (np.bincount(index.ravel()) > _SMALLEST_FLOOR * floor.size)[index]


def _find_ceiling(height: np.ndarray, level: np.ndarray, camera_height: float) -> tuple[float | None, np.ndarray]:
    """Return the height of the largest level surface seen from below, above the camera and 1.9 m, and its (H, W) mask.

    Where the normal is not known, as along the picture's border, the height decides.
    """
    flat = (level < -0.9) & (height > max(1.9, camera_height + 0.2)) & (height < 12.0)
    if flat.sum() < 0.01 * height.size:
        return None, np.zeros(height.shape, bool)
    counts, edges = np.histogram(height[flat], bins=np.arange(1.9, 12.1, 0.1))
    near = flat & (np.abs(height - (edges[counts.argmax()] + 0.05)) < 0.15)
    value = float(np.median(height[near]))
    ceiling = ~(level > -0.7) & (np.abs(height - value) < 0.1)
    ceiling = cv2.morphologyEx(ceiling.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return round(value, 3), ceiling & (np.abs(height - value) < 0.15)


def _labels(depth: np.ndarray, points: np.ndarray, normals: np.ndarray, height: np.ndarray, level: np.ndarray,
            floor: np.ndarray, ceiling: np.ndarray, ground: Ground, camera: Camera, T: np.ndarray, sky: np.ndarray) -> np.ndarray:
    known = np.isfinite(depth)
    wall, before_wall, backed = _walls(points, normals, height, ground)
    rays = upright_rays(camera, T)
    ahead = depth * rays.ahead
    in_front = np.where(backed, before_wall, ahead < wall_distance(ahead, height, rays) * _IN_FRONT[0] - _IN_FRONT[1])
    lying = (level > _LYING) & (height < _MAX_OBSTACLE_HEIGHT)
    standing = known & ((in_front & ~wall) | lying) & ~floor & ~ceiling
    # What no wall is seen behind may be a far wall or a thing: things end below the height of walls, within the picture.
    rest = known & ~standing & ~wall & ~backed & ~floor & ~ceiling
    for part in components(rest, order=height):
        standing[part] = height[part].max() < _MAX_OBSTACLE_HEIGHT and not part[0].any()
    labels = np.full(depth.shape, Label.WALL, np.uint8)
    labels[standing] = Label.OBSTACLE
    labels[ceiling] = Label.CEILING
    labels[floor] = Label.FLOOR
    unknown = np.where(sky, np.uint8(Label.SKY), np.uint8(Label.UNLABELED))
    labels = without_speckle(np.where(known, labels, unknown))
    for part in components(labels == Label.OBSTACLE, order=height):
        low, high = np.nanpercentile(height[part], (5, 98))
        if low > _OUT_OF_REACH or (high > _MAX_OBSTACLE_HEIGHT and backed[part].mean() < 0.5):
            labels[part] = Label.WALL
    labels[known & np.isin(labels, (Label.SKY, Label.UNLABELED))] = Label.WALL
    labels[known & (labels == Label.FLOOR) & ~floor] = Label.OBSTACLE  # specks above the floor are still in the way
    return np.where(known, labels, unknown).astype(np.uint8)


def _walls(points: np.ndarray, normals: np.ndarray, height: np.ndarray,
           ground: Ground) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return three (H, W) bool: on a wall; clearly before the wall that is seen around it; such a wall is there at all."""
    wall, before, backed = (np.zeros(height.shape, bool) for _ in range(3))
    for plane in ground.planes:
        if abs(plane.normal @ ground.down) > 0.15:
            continue
        on = on_plane(points, normals, plane, slack=1.5)
        along = points @ np.cross(ground.down, plane.normal)
        beyond = points @ plane.normal - plane.offset
        if not _is_wall(on, along, beyond, height):
            continue
        span = np.percentile(along[on], (2, 98))
        # Where the ray through a pixel meets the plane decides whether the wall stands behind it.
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = plane.offset / (points @ plane.normal)
            behind = (reach > 1) & (along * reach > span[0]) & (along * reach < span[1])
        wall |= on
        backed |= behind | (on & np.isfinite(beyond))
        before |= behind & (beyond < -np.maximum(0.08, 2 * tolerance(points[..., 2])))
    return wall, before, backed


def _is_wall(on: np.ndarray, along: np.ndarray, beyond: np.ndarray, height: np.ndarray) -> bool:
    """True for a plane's pixels that are wide, tall, and either taller than things or with little behind them."""
    if on.sum() < 100:
        return False
    top, width = float(np.percentile(height[on], 85)), float(np.ptp(np.percentile(along[on], (5, 95))))
    if top < _WALL_TOP or width < _WALL_WIDTH:
        return False
    return top > _MAX_OBSTACLE_HEIGHT or float((beyond > 0.3).sum() / np.isfinite(beyond).sum()) < _BEHIND_WALL


def wall_distance(ahead: np.ndarray, height: np.ndarray, rays: UprightRays) -> np.ndarray:
    """Return (H, W) forward distance of the farthest upright surface in each pixel's column [m] (85th percentile above 0.3 m)."""
    right = column_centres(rays)
    column = column_of(rays, right)
    used = np.isfinite(ahead) & (height > 0.3) & np.isfinite(rays.right)
    order = np.lexsort((ahead[used], column[used]))
    columns, values = column[used][order], ahead[used][order]
    start, stop = np.searchsorted(columns, np.arange(len(right))), np.searchsorted(columns, np.arange(len(right)), side="right")
    out = np.full(len(right), np.inf)
    have = np.flatnonzero(stop > start)
    out[have] = values[start[have] + ((stop - start)[have] * 0.85).astype(int)]
    if len(have) == 0:
        return np.zeros(ahead.shape, np.float32)
    out = np.interp(np.arange(len(right)), have, out[have])
    return out[column].astype(np.float32)
