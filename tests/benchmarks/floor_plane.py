"""The floor plane of a depth map: RANSAC near a known down direction, then least squares."""

from __future__ import annotations

import numpy as np

_TRIALS = 600
_MAX_TILT = np.cos(np.deg2rad(30))
_MIN_SHARE = 0.02
"""Of the points that must lie on the floor."""
_BELOW_WEIGHT = 3.0
"""A point below the plane speaks this much more against it than one on it speaks for it."""


def fit_floor(points: np.ndarray, down: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float] | None:
    """Return the unit normal that points down (3,) and the distance of the camera above the floor [m]; None without a floor.

    Args:
        points: (N, 3) in the camera frame [m].
        down: (3,) expected gravity direction in the camera frame; the floor is within 30 degrees of it.
        rng: decides the trials.
    """
    if len(points) < 50:
        return None
    points = points[rng.permutation(len(points))[:12_000]].astype(np.float64)
    tolerance = 0.015 + 0.01 * points[:, 2]
    best_score, best = 0.0, None
    for triple in points[rng.integers(len(points), size=(_TRIALS, 3))]:
        normal = np.cross(triple[1] - triple[0], triple[2] - triple[0])
        length = float(np.linalg.norm(normal))
        if length < 1e-6:
            continue
        normal = normal / length * (1.0 if normal @ down > 0 else -1.0)
        offset = float(triple[0] @ normal)
        if normal @ down < _MAX_TILT or offset < 0.15:
            continue
        distance = _along(points, normal) - offset
        score = float((np.abs(distance) < tolerance).mean() - _BELOW_WEIGHT * (distance > 3 * tolerance).mean())
        if score > best_score:
            best_score, best = score, (normal, offset)
    if best is None or best_score < _MIN_SHARE:
        return None
    return _least_squares(points, tolerance, *best)


def _least_squares(points: np.ndarray, tolerance: np.ndarray, normal: np.ndarray, offset: float) -> tuple[np.ndarray, float]:
    """Return the plane refitted to its inliers, five times."""
    for _ in range(5):
        inlier = np.abs(_along(points, normal) - offset) < tolerance
        centre = points[inlier].mean(0)
        local = (points[inlier] - centre) / tolerance[inlier, None]
        covariance = np.array([[(local[:, i] * local[:, j]).sum() for j in range(3)] for i in range(3)])
        fitted = np.linalg.eigh(covariance)[1][:, 0]
        normal = fitted * (1.0 if fitted @ normal > 0 else -1.0)
        offset = float(centre @ normal)
    return normal, offset


def _along(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    return points[:, 0] * normal[0] + points[:, 1] * normal[1] + points[:, 2] * normal[2]
