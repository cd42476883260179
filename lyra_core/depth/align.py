"""Bring depth and poses of a model into the scale of what is known: similarity transforms, scales, disparities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lyra_core.camera.splat import splat_frames
from lyra_core.camera.warp import planar_depth
from lyra_core.errors import InputError
from lyra_core.types import Frame, Trajectory

RANSAC_VIEWS = 10
"""From this many views on, outliers among the poses are searched for."""
RANSAC_TRIALS = 200
MIN_OVERLAP = 0.05
"""A frame that known depth covers less than this takes its neighbours' fit."""
STANDING_STILL = 1e-10
"""Variance of camera positions [m2] below which they fix no scale."""


@dataclass(frozen=True)
class Similarity:
    """target = scale * rotation @ source + translation."""

    scale: float
    rotation: np.ndarray
    """(3, 3)"""
    translation: np.ndarray
    """(3,)"""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return transformed points (N, 3)."""
        return self.scale * points @ self.rotation.T + self.translation


def umeyama(source: np.ndarray, target: np.ndarray, *, weights: np.ndarray | None = None) -> Similarity:
    """Return the least-squares similarity from points (N, 3) to points (N, 3) (Umeyama 1991).

    Raises:
        InputError: fewer than two points, or source points that all coincide.
    """
    if len(source) < 2 or source.shape != target.shape:
        raise InputError(f"umeyama: got shapes {source.shape} and {target.shape}, expected the same (N, 3) with N >= 2")
    w = np.full(len(source), 1.0 / len(source)) if weights is None else weights / weights.sum()
    centre_s, centre_t = w @ source, w @ target
    s, t = source - centre_s, target - centre_t
    variance = float(w @ (s**2).sum(1))
    if variance < 1e-20:
        raise InputError("umeyama: got source points that all coincide, expected some spread")
    U, D, Vt = np.linalg.svd((t * w[:, None]).T @ s)
    sign = np.ones(3)
    sign[2] = np.sign(np.linalg.det(U) * np.linalg.det(Vt)) or 1.0
    R = U @ np.diag(sign) @ Vt
    scale = float((D * sign).sum() / variance)
    return Similarity(scale, R, centre_t - scale * R @ centre_s)


def umeyama_ransac(source: np.ndarray, target: np.ndarray, *, rng: np.random.Generator, tolerance: float = 0.05) -> Similarity:
    """Return a similarity that most points agree with, refitted to those.

    Args:
        tolerance: a point agrees within this share of the target's extent.
    """
    limit = tolerance * max(float(np.linalg.norm(target - target.mean(0), axis=1).max()), 1e-12)
    best, inliers = -1, np.ones(len(source), bool)
    for _ in range(RANSAC_TRIALS):
        pick = rng.choice(len(source), 3, replace=False)
        if float(((source[pick] - source[pick].mean(0)) ** 2).sum()) < 1e-18:
            continue
        close = np.linalg.norm(umeyama(source[pick], target[pick])(source) - target, axis=1) < limit
        if close.sum() > best:
            best, inliers = int(close.sum()), close
    return umeyama(source[inliers], target[inliers]) if best >= 3 else umeyama(source, target)


def pose_scale(predicted: np.ndarray, known: np.ndarray, *, rng: np.random.Generator) -> float | None:
    """Return metres per unit of a model's poses from camera centres (N, 3); None where the known camera stands still."""
    if len(known) < 2 or float(known.var(0).sum()) < STANDING_STILL or float(predicted.var(0).sum()) < STANDING_STILL:
        return None
    fitted = umeyama_ransac(predicted, known, rng=rng) if len(known) >= RANSAC_VIEWS else umeyama(predicted, known)
    return fitted.scale if fitted.scale > 0 else None


def inverse_depth_scale(depth: np.ndarray, reference: np.ndarray) -> float | None:
    """Return s such that depth / s fits the reference, by least squares on inverse depth over pixels known in both.

    s = sum(1/depth * 1/reference) / sum(1/depth^2), as Lyra 2.0 aligns its seed depth to MoGe. None below 10 common pixels.
    """
    both = np.isfinite(depth) & np.isfinite(reference) & (depth > 0) & (reference > 0)
    if both.sum() <= 10:
        return None
    a, b = 1.0 / depth[both].astype(np.float64), 1.0 / reference[both].astype(np.float64)
    return float((a * b).sum() / max((a * a).sum(), 1e-6))


def depth_scale(depth: np.ndarray, known: np.ndarray) -> float | None:
    """Return the factor that brings depth (H, W) to known depth (H, W, NaN = unknown): the median ratio; None without overlap."""
    both = np.isfinite(known) & np.isfinite(depth) & (depth > 0)
    if both.mean() < MIN_OVERLAP:
        return None
    return float(np.median(known[both] / depth[both]))


def disparity_fit(disparity: np.ndarray, known: np.ndarray) -> tuple[float, float] | None:
    """Return a, b with 1 / known = a * disparity + b; None without overlap or with a <= 0.

    The line through two pixels that most pixels lie near (least median of absolute residuals), refined by reweighted least
    squares: wrong pixels have the largest disparities, and would draw a plain fit to themselves.
    """
    both = np.isfinite(known) & np.isfinite(disparity) & (known > 0)
    if both.mean() < MIN_OVERLAP:
        return None
    x, y = disparity[both].astype(np.float64), 1.0 / known[both].astype(np.float64)
    rng = np.random.default_rng(0)
    sample = rng.integers(len(x), size=2000)
    best, (a, b) = np.inf, (0.0, float(np.median(y)))
    for i, j in rng.integers(len(x), size=(RANSAC_TRIALS, 2)):
        if abs(x[i] - x[j]) < 1e-9:
            continue
        slope = (y[i] - y[j]) / (x[i] - x[j])
        error = float(np.median(np.abs(y[sample] - y[i] - slope * (x[sample] - x[i]))))
        if slope > 0 and error < best:
            best, a, b = error, float(slope), float(y[i] - slope * x[i])
    for _ in range(10):
        residual = np.abs(y - a * x - b)
        weights = 1.0 / (residual**2 + (0.5 * np.median(residual)) ** 2 + 1e-12)
        mx, my = np.average(x, weights=weights), np.average(y, weights=weights)
        variance = float(np.average((x - mx) ** 2, weights=weights))
        if variance < 1e-12:
            return None
        a = float(np.average((x - mx) * (y - my), weights=weights) / variance)
        b = float(my - a * mx)
    return (a, b) if a > 0 else None


def known_depth(frames: Sequence[Frame], history: Sequence[Frame]) -> np.ndarray:
    """Return what earlier frames say about the depth of new ones, (N, H, W) float32 [m], NaN = nothing: the nearest surface."""
    first = frames[0].camera
    targets = Trajectory(
        np.stack([f.T_world_camera for f in frames]), np.stack([f.camera.K for f in frames]), first.width, first.height
    )
    out = np.full((len(frames), first.height, first.width), np.inf, np.float32)
    for frame in history:
        mask = planar_depth(frame.depth)
        warped = splat_frames(frame.depth[..., None], frame.depth, mask, frame.camera, frame.T_world_camera, targets)
        out = np.fmin(out, np.where(warped.covered, warped.depth, np.inf))
    return np.where(np.isfinite(out), out, np.nan).astype(np.float32)


def smoothed(values: Sequence[np.ndarray | None], fallback: np.ndarray) -> np.ndarray:
    """Return per-frame fits (N, k) without gaps and flicker: gaps interpolated, then a running median and mean over five frames.

    Without any fit all rows are the fallback (k,).
    """
    known = [i for i, value in enumerate(values) if value is not None]
    if not known:
        return np.tile(fallback, (len(values), 1))
    table = np.stack([np.asarray(values[i], np.float64) for i in known])
    rows = np.stack([np.interp(np.arange(len(values)), known, column) for column in table.T], 1)
    for combine in (np.median, np.mean):
        padded = np.pad(rows, ((2, 2), (0, 0)), mode="edge")
        rows = combine(np.stack([padded[i : i + len(values)] for i in range(5)]), axis=0)
    return rows
