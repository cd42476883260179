"""Gravity and floor of metric depth: level and upright planes are told apart together, and nothing lies far below a floor.

A table top is a larger and flatter plane than the floor around it in many pictures of desks, so size does not decide. Walls
are upright: they give gravity where no floor is seen, and steady it where little of it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lyra_core.depth.planes import Plane, find_planes, fit_plane, surface_normals, tolerance

MAX_PITCH, MAX_ROLL = np.deg2rad(50.0), np.deg2rad(25.0)
"""Cameras are held within this of level."""
CAMERA_HEIGHTS = (0.75, 2.6)
"""Of hands and robots [m]; tables are nearer than the lower one."""
_ANY_HEIGHT = (0.02, 200.0)
_SAMPLES = 16_000
_MAX_BELOW = 0.006
"""Share of points that may lie below a floor: reflections and noise."""
_MIN_FLOOR = 0.008
_STEP_DOWN = 0.2
"""Kerbs and stages lead down from a floor by no more than this [m]; from a table it is farther."""
_NEAR = 1.5
"""What is within this many times the distance of the nearest tenth of the floors decides."""
_SHARP = np.deg2rad(4.0)
_ACCEPTED = np.deg2rad(8.0)
_FLOOR_SIGMA, _LEVEL_SIGMA, _WALL_SIGMA, _PRIOR_SIGMA = np.deg2rad([0.25, 1.0, 1.0, 6.0])
"""How well floors, other level surfaces and walls are built, and how well gravity is read from lines."""
_ROUNDS = 8
_CORRELATED = 50.0
"""Neighbouring depths err alike: so many count as one."""


@dataclass(frozen=True)
class Ground:
    """What depth says about gravity and the floor."""

    down: np.ndarray
    """(3,) unit gravity in the camera frame."""
    height: float | None
    """Of the camera above the floor [m]; None = no floor in view."""
    planes: tuple[Plane, ...]
    level: int
    """Number of level planes, the floor among them."""
    walls: int
    """Number of upright planes."""
    lowest: float | None = None
    """Without a floor: how far below the camera the lowest level surface lies [m], at no height of a camera."""


def find_ground(points: np.ndarray, prior_down: np.ndarray, *, heights: tuple[float, float] = CAMERA_HEIGHTS,
                floor_mask: np.ndarray | None = None) -> Ground:
    """Return gravity and floor of points (H, W, 3) in the camera frame [m], NaN = unknown.

    Args:
        prior_down: (3,) gravity as read from the photo, good to several degrees or wrong.
        heights: least and greatest height of the camera above the floor [m].
        floor_mask: (H, W) bool, the only places where floor is looked for.
    """
    normals = surface_normals(points)
    step = max(1, round(np.sqrt(points.shape[0] * points.shape[1] / _SAMPLES)))
    grid = np.s_[step // 2 :: step, step // 2 :: step]
    known = np.isfinite(points[grid][..., 2])
    cloud, cloud_normals = points[grid][known].astype(float), normals[grid][known].astype(float)
    may_be_floor = np.ones(len(cloud), bool) if floor_mask is None else floor_mask[grid][known]
    sure = np.isfinite(cloud_normals[:, 0])
    planes = tuple(find_planes(cloud[sure], cloud_normals[sure])) if sure.sum() > 200 else ()
    down = refined(_best_direction(planes, prior_down), planes, prior_down)
    for _ in range(2):
        floor = None if floor_mask is not None else _level_stood_on(planes, cloud, down, heights)
        floor = floor or _find_floor(cloud, cloud_normals, down, heights, may_be_floor, lonely=floor_mask is not None)
        if floor is None:
            break
        down = refined(down, planes, prior_down, floor=floor)
    else:
        return Ground(down, _offset(cloud[may_be_floor], cloud_normals[may_be_floor], down, floor), planes, *_count(planes, down))
    lowest = _level_stood_on(planes, cloud, down, _ANY_HEIGHT)
    return Ground(down, None, planes, *_count(planes, down), None if lowest is None else lowest.offset)


def _best_direction(planes: tuple[Plane, ...], prior: np.ndarray) -> np.ndarray:
    """Return the gravity (3,) for which most of the planes are level or upright."""
    candidates = [prior, *(sign * p.normal for p in planes for sign in (1.0, -1.0))]
    for a, b in combinations(planes[:8], 2):
        cross = np.cross(a.normal, b.normal)
        if np.linalg.norm(cross) > 0.35:
            candidates += [cross / np.linalg.norm(cross), -cross / np.linalg.norm(cross)]
    return max((c for c in candidates if _held(c) or c is prior), key=lambda c: _agreement(c, planes, prior))


def _held(down: np.ndarray) -> bool:
    return bool(abs(np.arcsin(np.clip(down[2], -1, 1))) < MAX_PITCH and abs(np.arctan2(down[0], down[1])) < MAX_ROLL)


def _agreement(down: np.ndarray, planes: tuple[Plane, ...], prior: np.ndarray) -> float:
    """Return the share of points on level or upright planes, with a little for usual cameras and for what the photo says."""
    pitch, roll = np.arcsin(np.clip(down[2], -1, 1)), np.arctan2(down[0], down[1])
    usual = -0.02 * ((pitch - np.deg2rad(10)) / np.deg2rad(25)) ** 2 - 0.02 * (roll / np.deg2rad(10)) ** 2
    read = 0.1 * np.exp(-((_angle(down, prior) / np.deg2rad(10)) ** 2))
    off = [min(_angle(down, p.normal), _angle(down, -p.normal)) for p in planes]
    fits = [np.exp(-((a / _SHARP) ** 2)) + np.exp(-(((np.pi / 2 - a) / _SHARP) ** 2)) for a in off]
    return float(usual + read + sum(p.share * fit for p, fit in zip(planes, fits, strict=True)))


def refined(down: np.ndarray, planes: tuple[Plane, ...], prior: np.ndarray, *, floor: Plane | None = None) -> np.ndarray:
    """Return gravity by weighted least squares: at right angles to walls and to directions within level planes.

    The smallest eigenvector of a sum of squared cosines; each over the variance of how things are built and how they were fitted.
    Planes that disagree with the rest count less (Cauchy weights): of three walls one may lean.
    """
    for _ in range(_ROUNDS):
        # What the photo says is left out where it is plainly wrong.
        believed = _angle(down, prior) < 3 * _PRIOR_SIGMA
        total = (np.eye(3) - np.outer(prior, prior)) / _PRIOR_SIGMA**2 if believed else np.zeros((3, 3))
        if floor is not None:
            total = total + _within(floor, _FLOOR_SIGMA)
        for plane in planes:
            angle = _angle(down, plane.normal)
            off, lean = min(angle, np.pi - angle), abs(angle - np.pi / 2)
            if off < _ACCEPTED:
                total = total + _within(plane, _LEVEL_SIGMA) / (1 + (off / _LEVEL_SIGMA) ** 2)
            elif lean < _ACCEPTED:
                variance = _WALL_SIGMA**2 + 1 / max(float(down @ plane.spread @ down) / _CORRELATED, 1e-9)
                total = total + np.outer(plane.normal, plane.normal) / (variance + lean**2)
        if not total.any():
            return down
        found = np.linalg.eigh(total)[1][:, 0]
        down = found * (1.0 if found @ down > 0 else -1.0)
    return down


def _within(plane: Plane, sigma: float) -> np.ndarray:
    """Return (3, 3): what a level plane says about gravity, no more than its flatness ``sigma`` [rad] allows in any direction."""
    values, vectors = np.linalg.eigh(plane.spread / _CORRELATED)
    values = 1 / (sigma**2 + 1 / np.maximum(values, 1e-9))
    values[0] = 0.0  # across the plane: a level plane says nothing about lengths along gravity
    return (vectors * values) @ vectors.T


def _level_stood_on(planes: tuple[Plane, ...], points: np.ndarray, down: np.ndarray, heights: tuple[float, float]) -> Plane | None:
    """Return the level plane next to the camera's foot, of those that no more than a step leads down from; None without one.

    A road and its pavement are both floors; the nearest points tell on which the camera stands.
    """
    found = [p for p in planes if _angle(p.normal, down) < _ACCEPTED and heights[0] <= p.offset <= heights[1]
             and (points @ p.normal - p.offset > _STEP_DOWN + _clearance(points)).mean() < _MAX_BELOW]
    if not found:
        return None
    drop = points @ down
    away = np.sqrt(np.maximum((points**2).sum(1) - drop**2, 0))
    on = [np.abs(points @ p.normal - p.offset) < tolerance(points[:, 2]) for p in found]
    near = away < _NEAR * np.percentile(away[np.any(on, 0)], 10)
    return found[int(np.argmax([(o & near).sum() for o in on]))]


def _clearance(points: np.ndarray) -> np.ndarray:
    """Return how far below a floor a point is no noise any more [m]."""
    return 0.06 + 0.02 * points[:, 2]


def _find_floor(points: np.ndarray, normals: np.ndarray, down: np.ndarray, heights: tuple[float, float], may_be: np.ndarray, *,
                lonely: bool) -> Plane | None:
    """Return the level surface that most points lie on and next to none lie below; None without one.

    Args:
        lonely: the user said where the floor is: what lies below it does not count against it.
    """
    if len(points) == 0:
        return None
    drop, slack = points @ down, tolerance(points[:, 2])
    flat = may_be & ~(normals @ down < np.cos(np.deg2rad(20)))
    sure = flat & np.isfinite(normals[:, 0])
    offsets = np.arange(heights[0], heights[1] + 1e-9, 0.01)
    low, high = np.sort(drop[sure] - slack[sure]), np.sort(drop[sure] + slack[sure])
    on = np.searchsorted(low, offsets, side="right") - np.searchsorted(high, offsets, side="left")
    far_below = np.sort(drop - _clearance(points))
    below = (len(points) - np.searchsorted(far_below, offsets, side="right")) / len(points)
    on = np.where((below < _MAX_BELOW) | lonely, on, 0)
    if on.max() < max(40, _MIN_FLOOR * len(points)):
        return None
    best = float(offsets[np.flatnonzero(on == on.max())].mean())
    plane = fit_plane(points[flat], normals[flat], down, best, total=len(points))
    return plane if plane is not None and _angle(plane.normal, down) < _ACCEPTED else None


def _offset(points: np.ndarray, normals: np.ndarray, down: np.ndarray, floor: Plane) -> float:
    """Return the camera's height [m]: the weighted mean drop of points on the floor, measured along the final gravity."""
    drop = points @ down
    near = (np.abs(points @ floor.normal - floor.offset) < tolerance(points[:, 2])) & ~(normals @ down < 0.9)
    return float(np.average(drop[near], weights=1 / tolerance(points[near, 2]) ** 2))


def _count(planes: tuple[Plane, ...], down: np.ndarray) -> tuple[int, int]:
    angles = [_angle(down, p.normal) for p in planes]
    return (sum(min(a, np.pi - a) < _ACCEPTED for a in angles), sum(abs(a - np.pi / 2) < _ACCEPTED for a in angles))


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.arccos(np.clip(a @ b, -1, 1)))
