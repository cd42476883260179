"""Planes of a depth map: normals of its points, then one plane after another from the densest directions and offsets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

MAX_PLANES = 14
MIN_SHARE = 0.008
"""Of the points that a plane holds."""
_CLOSE, _SAME = np.cos(np.deg2rad(10)), np.cos(np.deg2rad(25))
"""Normals that vote for one direction; normals that belong to a plane."""
_BIN = 0.04
"""Of offsets [m]."""
_REFITS = 5
_STARTS, _CLOSELY = (2.0, 0.35), 0.35
"""Where points are taken from first, and what is close, in tolerances."""
_SCATTER, _LEAST_SLACK = 4.5, 0.25
"""Points farther from a plane than so many median distances are not its own, nor may a plane be thinner, in tolerances."""
_THICKEST = 0.15
"""Greatest tolerance [m]."""
_CLEANEST = 0.01
"""Least variance about a plane, in squared tolerances: even exact depth is not worth more."""


@dataclass(frozen=True)
class Plane:
    """Points p with p . normal = offset, in the camera frame."""

    normal: np.ndarray
    """(3,) unit, away from the camera: a floor's points down."""
    offset: float
    """Distance from the camera [m]."""
    share: float
    """Of all points that lie on it."""
    spread: np.ndarray
    """(3, 3): sum of in-plane positions (x - mean)(x - mean)^T over the variance of the points about the plane; how firmly it
    holds its normal."""


def tolerance(z: np.ndarray) -> np.ndarray:
    """Return how far a point at z-depth z [m] may lie off its plane [m]: sensors' noise grows with distance.

    Up to a kerb's height: a floor's error is that of the camera's height, however far it is seen.
    """
    return np.minimum(0.015 + 0.01 * z, _THICKEST)


def surface_normals(points: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) float32 unit normals away from the camera of points (H, W, 3); NaN across edges and beside unknown points.

    Points are averaged over a window before differences are taken; an edge shows as a bend of the inverse depth, which is affine
    along planes.
    """
    step = max(2, points.shape[1] // 110)
    known = np.isfinite(points[..., 2])
    size = (2 * (step // 2) + 1,) * 2
    weight = cv2.blur(known.astype(np.float32), size)
    smooth = cv2.blur(np.where(known[..., None], points, 0).astype(np.float32), size)
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = np.where((weight > 0.4)[..., None], smooth / weight[..., None], np.nan)
        inverse = 1 / smooth[..., 2]
    tangents = []
    bent = np.zeros(known.shape, bool)
    for axis in (1, 0):
        ahead, behind = np.roll(smooth, -step, axis), np.roll(smooth, step, axis)
        tangents.append(ahead - behind)
        middle = np.roll(inverse, -step, axis) + np.roll(inverse, step, axis) - 2 * inverse
        bent |= ~(np.abs(middle) < (0.03 + 0.01 * smooth[..., 2]) * inverse)
    normal = np.cross(*tangents)
    normal[:step] = normal[-step:] = normal[:, :step] = normal[:, -step:] = np.nan
    normal[bent | ~known] = np.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        normal /= np.sqrt((normal**2).sum(-1, keepdims=True))
    away = (normal * points).sum(-1, keepdims=True)
    return np.where(away < 0, -normal, normal).astype(np.float32)


def find_planes(points: np.ndarray, normals: np.ndarray) -> list[Plane]:
    """Return the planes of points (N, 3) [m] with normals (N, 3), as they are found: roughly the largest first."""
    left, out = np.ones(len(points), bool), []
    for _ in range(MAX_PLANES):
        here = np.flatnonzero(left)
        if len(here) < max(50, MIN_SHARE * len(points)):
            break
        sample = normals[here[:: max(1, len(here) // 250)]]
        direction = sample[(normals[here] @ sample.T > _CLOSE).sum(0).argmax()].astype(float)
        for _ in range(2):
            direction = normals[here[normals[here] @ direction > _CLOSE]].mean(0).astype(float)
            direction /= np.linalg.norm(direction)
        voters = here[normals[here] @ direction > _CLOSE]
        offsets = points[voters] @ direction
        start = float(offsets.min())
        counts = np.bincount(((offsets - start) / _BIN).astype(int)).astype(float)
        most = int(np.convolve(counts, np.ones(3), "same").argmax())
        most = max(range(max(most - 1, 0), min(most + 2, len(counts))), key=counts.__getitem__)
        peak = start + (most + 0.5) * _BIN
        plane = fit_plane(points[here], normals[here], direction, peak, total=len(points))
        used = here[on_plane(points[here], normals[here], plane, slack=1.5)] if plane else voters[np.abs(offsets - peak) < _BIN]
        left[used if len(used) else voters] = False
        if plane is not None and plane.share >= MIN_SHARE:
            out.append(plane)
    return out


def on_plane(points: np.ndarray, normals: np.ndarray, plane: Plane, *, slack: float = 1.0) -> np.ndarray:
    """Return (...) bool: points (..., 3) of the plane, by position and, where it is known, by normal."""
    near = np.abs(points @ plane.normal - plane.offset) < slack * tolerance(points[..., 2])
    along = normals @ plane.normal
    return near & (np.isnan(along) | (along > _SAME))


def fit_plane(points: np.ndarray, normals: np.ndarray, normal: np.ndarray, offset: float, *, total: int) -> Plane | None:
    """Return the plane refitted to points within tolerance; None if they are too few.

    A road and its pavement lie within tolerance of one tilted plane. Of a wide and a narrow start the fit that more points lie
    closely on is taken.

    Args:
        total: number of points of which the plane's share counts.
    """
    fits = [_refitted(points, normals, normal, offset, slack) for slack in _STARTS]
    found = [(int(on_plane(points, normals, plane, slack=_CLOSELY).sum()), plane) for plane in fits if plane is not None]
    if not found:
        return None
    best = max(found, key=lambda fit: fit[0])[1]
    return replace(best, share=float(on_plane(points, normals, best).sum()) / total)


def _refitted(points: np.ndarray, normals: np.ndarray, normal: np.ndarray, offset: float, slack: float) -> Plane | None:
    """Return the plane of the points within ``slack`` tolerances, by least squares in units of the tolerance, then of its own.

    Where the points lie closer to the plane than their tolerance, so must all.
    """
    values, vectors, count = np.zeros(3), np.eye(3), 0
    for _ in range(_REFITS):
        inlier = on_plane(points, normals, Plane(normal, offset, 0.0, np.eye(3)), slack=slack)
        count = int(inlier.sum())
        if count < 30:
            return None
        kept, weight = points[inlier].astype(float), 1 / tolerance(points[inlier, 2].astype(float)) ** 2
        centre = (kept * weight[:, None]).sum(0) / weight.sum()
        local = (kept - centre) * np.sqrt(weight)[:, None]
        values, vectors = np.linalg.eigh(local.T @ local)
        normal = vectors[:, 0] * (1.0 if vectors[:, 0] @ centre > 0 else -1.0)
        offset = float(centre @ normal)
        slack = float(np.clip(_SCATTER * np.median(np.abs(local @ normal)), _LEAST_SLACK, 1.0))
    variance = max(float(values[0]) / count, _CLEANEST)
    return Plane(normal, offset, 0.0, (vectors[:, 1:] * values[1:] / variance) @ vectors[:, 1:].T)
