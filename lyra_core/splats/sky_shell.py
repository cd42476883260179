"""Sky around an outdoor cloud: Gaussians on a far dome where pictures show sky and no frame has depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lyra_core.errors import InputError
from lyra_core.splats.from_frames import FLATNESS, SH_C0, SPREAD, quats_from_axes
from lyra_core.types import Frame, GaussianCloud, Provenance

DIRECTIONS = 20_000
"""On the whole sphere: one per 1.4 degrees, finer than the sky's colours change."""
LEAST_SKY = 0.03
"""Share of all frames' pixels that must be sky; less are holes of an indoor scan."""
SMOOTH = 14.0
"""Median difference of neighbouring sky pixels [grey levels] up to which it is sky and no wall without depth."""
BRIGHT = 60.0
"""Median brightness of a sky by day [grey levels]; darker regions are holes."""
FAR = 10.0
"""Radius over the reach of the cloud, where none is asked for."""


def sky_mask(frame: Frame) -> np.ndarray:
    """Return which pixels (H, W) bool have no depth and hang together with the top of the picture."""
    labels = np.zeros(frame.depth.shape, np.int32)
    ndimage.label(~np.isfinite(frame.depth), output=labels)
    top = np.unique(labels[0])
    return np.isin(labels, top[top > 0])


def is_outdoor(frames: Sequence[Frame]) -> bool:
    """Return whether what has no depth above is sky: large, bright and smooth."""
    pixels = sum(frame.depth.size for frame in frames)
    levels, steps, count = [], [], 0
    for frame in frames:
        mask = sky_mask(frame)
        count += int(mask.sum())
        if mask.any():
            grey = frame.rgb.mean(-1)
            levels.append(grey[mask])
            steps.append(np.abs(np.diff(grey, axis=1))[mask[:, 1:] & mask[:, :-1]])
    if not pixels or count < LEAST_SKY * pixels:
        return False
    return bool(np.median(np.concatenate(levels)) >= BRIGHT and np.median(np.concatenate(steps)) <= SMOOTH)


def add_sky_shell(cloud: GaussianCloud, frames: Sequence[Frame], radius: float | None = None, *,
                  outdoor: bool | None = None) -> GaussianCloud:
    """Add Gaussians on a dome around the frames' middle, only in directions that some frame shows as sky and none fills.

    Args:
        radius: of the dome [m]; None = FAR times the reach of the cloud.
        outdoor: False leaves the cloud as it is; None = judged from the frames.

    Raises:
        InputError: a radius that is not positive.
    """
    if radius is not None and not (0 < radius < np.inf):
        raise InputError(f"sky: radius: got {radius}, expected positive metres")
    if not len(frames) or not (is_outdoor(frames) if outdoor is None else outdoor):
        return cloud
    directions = _sphere(DIRECTIONS)
    rgb, seen, filled, provenance = _look_up(directions, frames)
    rows = np.flatnonzero((seen > 0) & (filled == 0))
    if not len(rows):
        return cloud
    middle = np.mean([frame.T_world_camera[:3, 3] for frame in frames], axis=0)
    if radius is None:
        radius = FAR * float(np.linalg.norm(cloud.means - middle, axis=1).max()) if len(cloud.means) else 100.0
    normal = -directions[rows]
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal), 1)])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    # A dome of n places has one per 4 pi / n of solid angle.
    spread = SPREAD * radius * np.sqrt(4 * np.pi / DIRECTIONS) * 1.4
    n = len(rows)
    sh = np.zeros((n, cloud.sh.shape[1], 3), np.float32)
    sh[:, 0] = (rgb[rows] / 255 - 0.5) / SH_C0
    axes = np.stack([side, np.cross(normal, side), normal], 2)
    shell = ((middle + radius * directions[rows]).astype(np.float32), quats_from_axes(axes),
             np.tile(np.array([spread, spread, FLATNESS * spread], np.float32), (n, 1)),
             np.full(n, 0.99, np.float32), sh, provenance[rows])
    names = ("means", "quats_wxyz", "scales", "opacities", "sh", "provenance")
    return GaussianCloud(*(np.concatenate([getattr(cloud, name), part]) for name, part in zip(names, shell, strict=True)))


def _look_up(directions: np.ndarray, frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return per direction the mean sky colour (N, 3), frames that show sky there (N,), frames with depth there, and provenance."""
    n = len(directions)
    total, seen, filled = np.zeros((n, 3)), np.zeros(n, int), np.zeros(n, int)
    provenance = np.full(n, int(Provenance.INVENTED), np.uint8)
    for frame in frames:
        x, y, z = (directions @ frame.T_world_camera[:3, :3]).T
        K, safe = frame.camera.K, np.where(z > 1e-3, z, 1)
        u, v = x / safe * K[0, 0] + K[0, 2], y / safe * K[1, 1] + K[1, 2]
        rows = np.flatnonzero((z > 1e-3) & (u >= 0) & (v >= 0) & (u < frame.camera.width) & (v < frame.camera.height))
        at = v[rows].astype(int), u[rows].astype(int)
        sky = sky_mask(frame)[at]
        total[rows[sky]] += frame.rgb[at][sky]
        seen[rows[sky]] += 1
        filled[rows] += np.isfinite(frame.depth[at])
        known = frame.provenance[np.isfinite(frame.depth)]
        provenance[rows[sky]] = np.minimum(provenance[rows[sky]], known.min() if len(known) else int(Provenance.SEEN))
    return total / np.maximum(seen, 1)[:, None], seen, filled, provenance


def _sphere(count: int) -> np.ndarray:
    """Return unit vectors (count, 3) spread evenly, on a Fibonacci spiral."""
    k = np.arange(count) + 0.5
    height, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)
