"""Fit Gaussians to pictures: colours on the CPU, everything by gradient descent where torch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lyra_core.errors import InputError
from lyra_core.splats.tiles import SplatTiles
from lyra_core.types import Frame, GaussianCloud

SH_C0 = 0.28209479177387814


@dataclass(frozen=True)
class FitReport:
    """What a fit did, in PSNR over the pixels compared [dB]."""

    before: float
    """At the frames held back (at all frames, if there are too few to hold any back)."""
    after: float
    kept: bool
    """False: the fit was worse there and the cloud came back as it was."""
    held_out: tuple[int, ...]
    """Frames held back."""


def fit_colors(cloud: GaussianCloud, frames: Sequence[Frame], *, rounds: int = 4, pull: float = 0.05, hold_out: int = 8,
               device: str = "cpu") -> tuple[GaussianCloud, FitReport]:
    """Change the constant colours so that the rendered cloud looks like the frames; places and shapes stay.

    Rendering is linear in colours, so the residuals, spread back over the Gaussians and divided by their weights, are a step of a
    diagonally scaled descent (SIRT: Gilbert 1972), which undoes the blur that overlapping Gaussians cause. Colours that few pixels
    speak for stay near what they were.

    Args:
        rounds: over all frames.
        pull: pixels that the old colour counts for.
        hold_out: every so many frames one is not fitted but judges the fit; 0 = none.

    Raises:
        InputError: no frames. BackendUnavailable: Warp is not installed.
    """
    if not len(frames):
        raise InputError("fit: got no frames, expected at least 1")
    held = tuple(range(hold_out // 2, len(frames), hold_out)) if hold_out and len(frames) >= 2 * hold_out else ()
    tiles = SplatTiles(cloud, device=device)
    start = np.clip(0.5 + SH_C0 * cloud.sh[:, 0], 0, 1).astype(np.float32)
    rgb, judges = start.copy(), held or tuple(range(len(frames)))
    before = _quality(tiles, cloud, start, start, [frames[i] for i in judges])
    for _ in range(rounds):
        step, total = pull * (start - rgb), np.full(len(rgb), pull, np.float32)
        for i in sorted(set(range(len(frames))) - set(held)):
            frame = frames[i]
            gradient, weight = tiles.compare(rgb + _view_part(cloud, frame), _target(frame), frame.camera, frame.T_world_camera)
            step, total = step + gradient, total + weight
        rgb = np.clip(rgb + step / total[:, None], 0, 1)
    after = _quality(tiles, cloud, rgb, start, [frames[i] for i in judges])
    kept = bool(after > before)
    if not kept:
        return cloud, FitReport(before, after, False, held)
    sh = cloud.sh.copy()
    sh[:, 0] = (rgb - 0.5) / SH_C0
    return replace(cloud, sh=sh), FitReport(before, after, True, held)


def _view_part(cloud: GaussianCloud, frame: Frame) -> np.ndarray | float:
    """Return what the higher bands of the harmonics add to the colours (N, 3) from a frame's eye."""
    if cloud.sh.shape[1] == 1:
        return 0.0
    from lyra_core.splats.render import splat_colors

    return splat_colors(cloud, frame.T_world_camera[:3, 3]) - (0.5 + SH_C0 * cloud.sh[:, 0])


def _target(frame: Frame) -> np.ndarray:
    """Return the picture in [0, 1], NaN where the depth is unknown."""
    return np.where(np.isfinite(frame.depth)[..., None], frame.rgb / np.float32(255), np.nan).astype(np.float32)


def _quality(tiles: SplatTiles, cloud: GaussianCloud, rgb: np.ndarray, start: np.ndarray, frames: Sequence[Frame]) -> float:
    total, count = 0.0, 0
    for frame in frames:
        drawn = tiles.draw(rgb + _view_part(cloud, frame), frame.camera, frame.T_world_camera).rgb
        gap = (drawn - _target(frame))[np.isfinite(frame.depth)]
        total, count = total + float((gap.astype(np.float64) ** 2).sum()), count + gap.size
    return float(-10 * np.log10(max(total / max(count, 1), 1e-10)))
