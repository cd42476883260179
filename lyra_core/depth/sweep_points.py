"""Sparse points of posed pictures, and what they say about a plane sweep: neighbours and the range of depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import project

if TYPE_CHECKING:
    from lyra_core.depth.plane_sweep import SweptView

_BEST_ANGLE = np.deg2rad(7.0)
"""Angle between two views' rays at which a sweep is most useful: less is inexact, more looks different."""
_NARROW, _WIDE = np.deg2rad(3.0), np.deg2rad(9.0)
"""Spread of the preference below and above the best angle."""
_EPIPOLAR_PX = 1.5
_MIN_ANGLE = np.deg2rad(1.0)
_PARTNERS = 6
"""Views that each view's features are matched with."""


def best_neighbours(views: list[SweptView], points: np.ndarray, count: int) -> list[list[int]]:
    """Return for each view the indices of up to count others that share most points (N, 3) at useful angles, best first."""
    centres = np.stack([view.T_world_camera[:3, 3] for view in views])
    seen = np.stack([_inside(view, points) for view in views])
    rays = points[None] - centres[:, None]
    rays /= np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
    out = []
    for i in range(len(views)):
        angle = np.arccos(np.clip((rays[i] * rays).sum(-1), -1, 1))
        spread = np.where(angle < _BEST_ANGLE, _NARROW, _WIDE)
        score = (np.exp(-0.5 * ((angle - _BEST_ANGLE) / spread) ** 2) * (seen[i] & seen)).sum(1)
        score[i] = 0
        order = np.argsort(-score, kind="stable")[:count]
        out.append([int(j) for j in order if score[j] > 0.02 * max(seen[i].sum(), 1)])
    return out


def depth_range(view: SweptView, points: np.ndarray) -> tuple[float, float]:
    """Return nearest and farthest z-depth to sweep: the 1st and 99th percentile of the points in view, with a margin."""
    _, _, z = project(points, view.camera, inverse(view.T_world_camera))
    inside = _inside(view, points)
    z = z[inside] if inside.sum() >= 8 else z[z > 0]
    if not len(z):
        z = np.linalg.norm(points - view.T_world_camera[:3, 3], axis=1)
    near, far = np.percentile(z, [1, 99])
    return float(near) * 0.6, float(max(far, near * 1.2)) * 1.3


def triangulated_points(views: list[SweptView]) -> np.ndarray:
    """Return (N, 3) points of SIFT features (Lowe 2004) matched between views of known poses."""
    detector = cv2.SIFT_create(2000, contrastThreshold=0.02)
    features = [detector.detectAndCompute(view.grey.astype(np.uint8), None) for view in views]
    found = [np.zeros((0, 3))]
    for i, j in _pairs(views):
        found.append(_pair_points(views[i], views[j], features[i], features[j]))
    return np.concatenate(found)


def _pairs(views: list[SweptView]) -> list[tuple[int, int]]:
    """Return index pairs i < j of views that stand apart and look in similar directions, the nearest first."""
    centres = np.stack([view.T_world_camera[:3, 3] for view in views])
    forward = np.stack([view.T_world_camera[:3, 2] for view in views])
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    typical = np.median(distance[distance > 0]) if (distance > 0).any() else 1.0
    cost = distance / typical + np.arccos(np.clip(forward @ forward.T, -1, 1))
    cost[(distance < 1e-3 * typical) | (forward @ forward.T < 0.6)] = np.inf
    pairs = {(min(i, int(j)), max(i, int(j))) for i in range(len(views)) for j in np.argsort(cost[i])[:_PARTNERS]
             if np.isfinite(cost[i, j])}
    return sorted(pairs)


def _pair_points(a: SweptView, b: SweptView, features_a: tuple, features_b: tuple) -> np.ndarray:
    """Return (n, 3) world points of features that match, obey the epipolar line and lie in front at a useful angle."""
    (keys_a, codes_a), (keys_b, codes_b) = features_a, features_b
    if codes_a is None or codes_b is None or len(codes_b) < 2:
        return np.zeros((0, 3))
    matches = [m for m, *n in cv2.BFMatcher().knnMatch(codes_a, codes_b, k=2) if n and m.distance < 0.75 * n[0].distance]
    if not matches:
        return np.zeros((0, 3))
    # OpenCV counts features from pixel centres.
    uv_a = np.array([keys_a[m.queryIdx].pt for m in matches]) + 0.5
    uv_b = np.array([keys_b[m.trainIdx].pt for m in matches]) + 0.5
    T_a, T_b = inverse(a.T_world_camera), inverse(b.T_world_camera)
    homogeneous = cv2.triangulatePoints(a.camera.K @ T_a[:3], b.camera.K @ T_b[:3], uv_a.T, uv_b.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (homogeneous[:3] / homogeneous[3]).T
    keep = np.isfinite(points).all(1)
    points, uv_a, uv_b = points[keep], uv_a[keep], uv_b[keep]
    off = [np.hypot(u - uv[:, 0], v - uv[:, 1]) + np.where(z > 0, 0, np.inf)
           for view, uv, T in ((a, uv_a, T_a), (b, uv_b, T_b)) for u, v, z in [project(points, view.camera, T)]]
    rays = [points - view.T_world_camera[:3, 3] for view in (a, b)]
    cosine = (rays[0] * rays[1]).sum(1) / np.maximum(np.prod([np.linalg.norm(r, axis=1) for r in rays], 0), 1e-12)
    return points[(np.maximum(*off) < _EPIPOLAR_PX) & (np.arccos(np.clip(cosine, -1, 1)) > _MIN_ANGLE)]


def _inside(view: SweptView, points: np.ndarray) -> np.ndarray:
    """Return (N,) bool: in front of the view and in its picture."""
    u, v, z = project(points, view.camera, inverse(view.T_world_camera))
    with np.errstate(invalid="ignore"):
        return (z > 0) & (u >= 0) & (v >= 0) & (u < view.camera.width) & (v < view.camera.height)
