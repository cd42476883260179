"""Differences of exposure between frames, found where they show the same surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.types import Frame

POINTS_PER_FRAME = 400
AGREEMENT = 0.03
"""Depths within this share of each other are of one surface."""
DARK, BRIGHT = 8, 247
"""Grey levels outside of this are clipped and say nothing."""
LARGEST_GAIN, LARGEST_OFFSET = 2.0, 25.0
PULL = 0.02
"""Towards gain 1 and offset 0, beside the observations of a frame."""
ROUNDS = 3
"""Of reweighting by residual: moving shadows and highlights count little."""
FAIR = 8.0
"""Residual [grey levels] that counts half."""


def exposure_corrections(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Solve gain and offset per frame and channel so that gain * rgb + offset is alike wherever frames share a surface.

    Linear least squares with each point's own colour eliminated (the gain compensation of Brown and Lowe 2007, with an offset);
    the mean over all frames stays as it is.

    Returns:
        gains (F, 3) and offsets (F, 3) [grey levels].
    """
    count = len(frames)
    values = _observations(frames)
    gains, offsets = np.ones((count, 3)), np.zeros((count, 3))
    if count < 2 or len(values) < 10:
        return gains, offsets
    for channel in range(3):
        gains[:, channel], offsets[:, channel] = _solve(values[..., channel])
    return np.clip(gains, 1 / LARGEST_GAIN, LARGEST_GAIN), np.clip(offsets, -LARGEST_OFFSET, LARGEST_OFFSET)


def evened_exposure(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames with gains and offsets applied."""
    gains, offsets = exposure_corrections(frames)
    return [replace(frame, rgb=np.clip(np.rint(frame.rgb * gain + offset), 0, 255).astype(np.uint8))
            for frame, gain, offset in zip(frames, gains, offsets, strict=True)]


def _observations(frames: Sequence[Frame]) -> np.ndarray:
    """Return colours (V, F, 3) of points in the frames that see them, NaN elsewhere; each is seen at least twice."""
    blurred = [cv2.blur(frame.rgb, (3, 3)) for frame in frames]
    out = []
    for frame in frames:
        step = max(1, int(np.sqrt(frame.depth.size / POINTS_PER_FRAME)))
        points = frame.points()[step // 2 :: step, step // 2 :: step].reshape(-1, 3)
        points = points[np.isfinite(points).all(1)].astype(np.float64)
        seen = np.full((len(points), len(frames), 3), np.nan)
        for k, other in enumerate(frames):
            T = inverse(other.T_world_camera)
            x, y, z = (points @ T[:3, :3].T + T[:3, 3]).T
            safe = np.where(z > 0.01, z, 1)
            u, v = x / safe * other.camera.K[0, 0] + other.camera.K[0, 2], y / safe * other.camera.K[1, 1] + other.camera.K[1, 2]
            rows = np.flatnonzero((z > 0.01) & (u >= 0) & (v >= 0) & (u < other.camera.width) & (v < other.camera.height))
            at = v[rows].astype(int), u[rows].astype(int)
            color = blurred[k][at].astype(np.float64)
            with np.errstate(invalid="ignore"):
                good = (np.abs(other.depth[at] - z[rows]) <= AGREEMENT * z[rows]) & ((color > DARK) & (color < BRIGHT)).all(1)
            seen[rows[good], k] = color[good]
        out.append(seen[np.isfinite(seen[..., 0]).sum(1) >= 2])
    return np.concatenate(out)


def _solve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return gains and offsets (F,) for one channel's observations (V, F), NaN = not seen."""
    count = values.shape[1]
    known, value = np.isfinite(values), np.nan_to_num(values) / 255
    trust = known.astype(np.float64)
    gain, offset = np.ones(count), np.zeros(count)
    for _ in range(ROUNDS):
        share = trust / np.maximum(trust.sum(1, keepdims=True), 1e-9)
        # Unknowns x = (gain - 1, offset). A point's colour is the trusted mean of its corrected observations.
        A, b = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
        X, S = np.concatenate([value, known], 1), np.concatenate([share * value, share], 1)
        W = np.concatenate([trust, trust], 1)
        cross = S.T @ X
        for blocks in np.ndindex(2, 2):
            part = tuple(slice(k * count, (k + 1) * count) for k in blocks)
            A[part] = np.diag((trust * X[:, part[0]] * X[:, part[1]]).sum(0))
        A -= (W * X).T @ S
        del cross
        mean = (share * value).sum(1, keepdims=True)
        b = (W * X * np.concatenate([mean - value] * 2, 1)).sum(0)
        pull = PULL * np.concatenate([trust.sum(0)] * 2) + 1e-6
        x = np.linalg.solve(A + np.diag(pull), b)
        gain, offset = 1 + x[:count], x[count:]
        fixed = known * (gain * value + offset)
        mean = (share * fixed).sum(1, keepdims=True)
        trust = known / (1 + ((fixed - mean) * 255 / FAIR) ** 2)
    gain = gain / gain.mean()
    return gain, (offset - offset.mean()) * 255
