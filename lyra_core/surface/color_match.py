"""Even out the frames' exposure and the seams between their patches on a mesh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg

from lyra_core.surface.texture import agrees, project, sample_color
from lyra_core.types import Frame

LARGEST_GAIN = 2.0
PRIOR = 0.02
"""Pull of the gains towards 1, beside one observation."""
SMOOTH = 0.3
"""Weight of an even correction inside a patch, beside no step at its seams."""
MOST_POINTS = 20_000
_DARK, _BRIGHT = 12, 245
"""Colours outside of this say nothing about exposure."""


def exposure_gains(points: np.ndarray, frames: Sequence[Frame], *, tolerance: float) -> np.ndarray:
    """Return the factor (N, 3) by which each frame's colours are to be multiplied so that all show points (V, 3) alike.

    Least squares of log colours over the points that several frames see (as Brown and Lowe 2007 do for panoramas), per channel,
    with a prior of no change; the mean over the frames stays.
    """
    count = len(frames)
    points = points[:: max(1, len(points) // MOST_POINTS)]
    logs, seen = np.zeros((len(points), count, 3)), np.zeros((len(points), count), bool)
    for k, frame in enumerate(frames):
        u, v, z = project(points, frame)
        rows = np.flatnonzero(agrees(frame, u, v, z, tolerance))
        color = sample_color(cv2.blur(frame.rgb, (3, 3)), u[rows], v[rows]).astype(np.float64)
        good = ((color > _DARK) & (color < _BRIGHT)).all(1)
        logs[rows[good], k], seen[rows[good], k] = np.log(color[good]), True
    several = seen.sum(1) >= 2
    logs, seen = logs[several], seen[several].astype(np.float64)
    if not len(logs):
        return np.ones((count, 3))
    share = seen / seen.sum(1, keepdims=True)
    # Eliminating each point's own colour leaves a Laplacian over the frames.
    A = np.diag(seen.sum(0)) - seen.T @ share
    A += (PRIOR * max(float(np.trace(A)) / count, 1e-9)) * np.eye(count)
    mean = np.einsum("vk,vkc->vc", share, logs)
    b = np.einsum("vk,vkc->kc", seen, mean[:, None] - logs * (seen > 0)[..., None])
    gains = np.linalg.solve(A, b)
    return np.clip(np.exp(gains - gains.mean(0)), 1 / LARGEST_GAIN, LARGEST_GAIN)


def exposed(frame: Frame, gain: np.ndarray) -> Frame:
    """Return the frame with its colours multiplied by gain (3,)."""
    if np.abs(gain - 1).max() < 0.01:
        return frame
    return replace(frame, rgb=np.clip(np.rint(frame.rgb * gain), 0, 255).astype(np.uint8))


def seam_corrections(vertices: np.ndarray, faces: np.ndarray, best: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    """Return what to add to each face's colours at its corners, (F, 3, 3) float32 (corner, channel), so that patches meet evenly.

    The global seam levelling of Waechter et al. 2014: at a vertex between patches of two frames, their corrected colours are
    equal; inside a patch the correction is smooth. best (F,) is the frame of each face, -1 = none (left alone).
    """
    out = np.zeros((len(faces), 3, 3), np.float32)
    rows = np.flatnonzero(best >= 0)
    if not len(rows):
        return out
    corner = np.stack([faces[rows].reshape(-1), np.repeat(best[rows], 3)], 1).astype(np.int64)
    pairs, index = np.unique(corner[:, 0] * len(frames) + corner[:, 1], return_inverse=True)
    vertex, label = pairs // len(frames), pairs % len(frames)
    first = np.flatnonzero(np.diff(vertex) == 0)
    if not len(first):
        return out
    color = _vertex_colors(vertices, vertex, label, frames)
    seam = _difference(first, first + 1, len(pairs))
    step = color[first + 1] - color[first]
    index = index.reshape(-1, 3)
    edges = np.unique(np.sort(index[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    smooth = _difference(edges[:, 0], edges[:, 1], len(pairs))
    A = seam.T @ seam + SMOOTH**2 * (smooth.T @ smooth) + 1e-4 * diags_array(np.ones(len(pairs)))
    b = seam.T @ step
    weights = diags_array(1 / A.diagonal())
    solved = np.stack([cg(A, b[:, c], rtol=1e-4, maxiter=300, M=weights)[0] for c in range(3)], 1)
    out[rows] = np.clip(solved, -60, 60)[index]
    return out


def _difference(a: np.ndarray, b: np.ndarray, count: int) -> csr_array:
    """Return the matrix that takes x to x[a] - x[b]."""
    n = np.arange(len(a))
    values = np.concatenate([np.ones(len(a)), -np.ones(len(a))])
    return csr_array((values, (np.concatenate([n, n]), np.concatenate([a, b]))), (len(a), count))


def _vertex_colors(vertices: np.ndarray, vertex: np.ndarray, label: np.ndarray, frames: Sequence[Frame]) -> np.ndarray:
    out = np.zeros((len(vertex), 3))
    for k, frame in enumerate(frames):
        rows = np.flatnonzero(label == k)
        if len(rows):
            u, v, _ = project(vertices[vertex[rows]], frame)
            u, v = np.clip(u, 0, frame.camera.width), np.clip(v, 0, frame.camera.height)
            out[rows] = sample_color(cv2.blur(frame.rgb, (3, 3)), u, v)
    return out
