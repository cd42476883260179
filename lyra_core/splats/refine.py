"""Fit Gaussians to pictures: colours on the CPU, everything by gradient descent where torch is."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.splats.clean import scene_size
from lyra_core.splats.tiles import SplatTiles
from lyra_core.types import Frame, GaussianCloud

SH_C0 = 0.28209479177387814
FAINTEST = 0.005
"""Opacity up to which a refined Gaussian is left out."""
SMALLEST = 1e-4
"""Thickness that is left over the usual one."""


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


def fit_colors(cloud: GaussianCloud, frames: Sequence[Frame], *, rounds: int = 4, pull: float = 0.3, hold_out: int = 8,
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
    held, fitted = _held_out(frames, hold_out)
    tiles = SplatTiles(cloud, device=device)
    start = np.clip(0.5 + SH_C0 * cloud.sh[:, 0], 0, 1).astype(np.float32)
    rgb, judges = start.copy(), held or fitted
    before = _quality(tiles, cloud, start, [frames[i] for i in judges])
    for _ in range(rounds):
        step, total = pull * (start - rgb), np.full(len(rgb), pull, np.float32)
        for i in fitted:
            frame = frames[i]
            gradient, weight = tiles.compare(rgb + _view_part(cloud, frame), _target(frame), frame.camera, frame.T_world_camera)
            step, total = step + gradient, total + weight
        rgb = np.clip(rgb + step / total[:, None], 0, 1)
    after = _quality(tiles, cloud, rgb, [frames[i] for i in judges])
    kept = bool(after > before)
    if not kept:
        return cloud, FitReport(before, after, False, held)
    sh = cloud.sh.copy()
    sh[:, 0] = (rgb - 0.5) / SH_C0
    return replace(cloud, sh=sh), FitReport(before, after, True, held)


def refine_splats(cloud: GaussianCloud, frames: Sequence[Frame], *, steps: int = 1000, hold_out: int = 8, device: str = "cuda",
                  rng: np.random.Generator | None = None) -> tuple[GaussianCloud, FitReport]:
    """Improve places, shapes, opacities and constant colours by Adam on L1 + SSIM against the frames (Kerbl et al. 2023).

    Higher bands of the harmonics come back as zero; what is faint afterwards is left out. Never returns a worse cloud: frames held
    back judge it, and their PSNR must rise.

    Args:
        steps: one frame each.
        device: 'cuda' renders with gsplat; 'cpu' with the readable renderer, for small clouds.
        rng: order of the frames; None = the same every time.

    Raises:
        InputError: no frames or Gaussians. ConfigError: another device. BackendUnavailable: torch, CUDA or gsplat is missing.
    """
    held, fitted = _held_out(frames, hold_out)
    if not len(cloud.means) or steps < 1:
        raise InputError(f"refine: got {len(cloud.means)} Gaussians and {steps} steps, expected at least 1 of both")
    torch_device, renderer = _torch_device(device)
    from lyra_core.splats._torch_refine import Descent

    descent, judges = Descent(cloud, frames, device=torch_device, renderer=renderer), held or fitted
    before = descent.psnr(judges)
    rng = np.random.default_rng(0) if rng is None else rng
    order = np.concatenate([rng.permutation(fitted) for _ in range(-(-steps // len(fitted)))])[:steps]
    descent.run([int(i) for i in order], size=scene_size(cloud.means))
    after, arrays = descent.psnr(judges), descent.arrays()
    if not (after > before and all(np.isfinite(value).all() for value in arrays.values())):
        return cloud, FitReport(before, after, False, held)
    rows = arrays["opacities"] > FAINTEST
    sh = ((arrays.pop("rgb") - 0.5) / SH_C0)[:, None]
    arrays["scales"] = np.maximum(arrays["scales"], SMALLEST * float(np.median(cloud.scales)))
    out = GaussianCloud(**{name: value[rows] for name, value in arrays.items()}, sh=sh[rows], provenance=cloud.provenance[rows])
    return out, FitReport(before, after, True, held)


def _torch_device(device: str) -> tuple[Any, str]:
    """Return torch's device and the renderer for it."""
    if device not in ("cuda", "cpu"):
        raise ConfigError(f"refine: device: got {device!r}, expected 'cuda' or 'cpu'")
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable("refining splats", reason="torch is not installed",
                                 install="pip install torch gsplat, and a CUDA GPU")
    import torch

    from lyra_core.splats._torch_render import pick_renderer

    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("refining splats", reason="torch finds no CUDA GPU",
                                 install="a CUDA GPU and pip install gsplat, or device='cpu' for a small cloud")
    chosen = torch.device(device)
    return chosen, pick_renderer("gsplat" if device == "cuda" else "torch", chosen)


def _held_out(frames: Sequence[Frame], hold_out: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the frames that judge, and the others; none are held back of few."""
    if not len(frames):
        raise InputError("fit: got no frames, expected at least 1")
    held = tuple(range(hold_out // 2, len(frames), hold_out)) if hold_out > 1 and len(frames) >= 2 * hold_out else ()
    return held, tuple(sorted(set(range(len(frames))) - set(held)))


def _view_part(cloud: GaussianCloud, frame: Frame) -> np.ndarray | float:
    """Return what the higher bands of the harmonics add to the colours (N, 3) from a frame's eye."""
    if cloud.sh.shape[1] == 1:
        return 0.0
    from lyra_core.splats.render import splat_colors

    return splat_colors(cloud, frame.T_world_camera[:3, 3]) - (0.5 + SH_C0 * cloud.sh[:, 0])


def _target(frame: Frame) -> np.ndarray:
    """Return the picture in [0, 1], NaN where the depth is unknown."""
    return np.where(np.isfinite(frame.depth)[..., None], frame.rgb / np.float32(255), np.nan).astype(np.float32)


def _quality(tiles: SplatTiles, cloud: GaussianCloud, rgb: np.ndarray, frames: Sequence[Frame]) -> float:
    total, count = 0.0, 0
    for frame in frames:
        drawn = tiles.draw(rgb + _view_part(cloud, frame), frame.camera, frame.T_world_camera).rgb
        gap = (drawn - _target(frame))[np.isfinite(frame.depth)]
        total, count = total + float((gap.astype(np.float64) ** 2).sum()), count + gap.size
    return float(-10 * np.log10(max(total / max(count, 1), 1e-10)))
