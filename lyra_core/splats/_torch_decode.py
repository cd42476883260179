"""From the Gaussian head's numbers to Gaussians in the world."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.splats._torch_backbone import quats_xyzw

MIN_SCALE, MAX_SCALE, PIXEL_SHARE = 1e-5, 30.0, 0.1
"""Scales lie in this range, in units of a tenth of a pixel's width plus height at the Gaussian's depth."""


@dataclass(frozen=True)
class Gaussians:
    """Gaussians on a grid of views V, rows h and columns w, in the world frame."""

    means: Tensor
    """(V, h, w, 3) [m]."""
    quats_wxyz: Tensor
    """(V, h, w, 4)."""
    scales: Tensor
    """(V, h, w, 3) standard deviations [m]."""
    opacities: Tensor
    """(V, h, w) in (0, 1)."""
    dc: Tensor
    """(V, h, w, 3) constant coefficients of the spherical harmonics; rgb = 0.5 + 0.2820948 dc."""


def decode_gaussians(raw: Tensor, depth: Tensor, K: Tensor, T_world_camera: Tensor, unit: Tensor | float = 1.0) -> Gaussians:
    """Decode the head's output (V, 38, h, w).

    Two peculiarities are kept because the published weights were trained with them: depth plus predicted offset counts along
    the unit ray, so that the offset also turns z-depth into range; and the quaternion's numbers move by one place on the way
    into the world and back. View-dependent harmonics are predicted and left out, as the published export does.

    Args:
        raw: channels as listed at GAUSSIAN_CHANNELS.
        depth: (V, h, w) z-depth [m].
        K: (V, 3, 3) of the h x w grid [px].
        T_world_camera: (V, 4, 4) [m].
        unit: network units per metre; the head's depth offset is in network units.
    """
    h, w = raw.shape[-2:]
    raw = raw.permute(0, 2, 3, 1)
    offset, scales, turn, dc = raw[..., :2], raw[..., 2:5], raw[..., 5:9], raw[..., 9:36:9]
    range_m = depth + raw[..., 36] / unit
    focal, center = K[:, [0, 1], [0, 1]], K[:, :2, 2]
    y, x = torch.meshgrid(torch.arange(h, device=raw.device), torch.arange(w, device=raw.device), indexing="ij")
    pixel = torch.stack([x, y], -1) + 0.5 + offset
    ray = F.pad((pixel - center[:, None, None]) / focal[:, None, None], (0, 1), value=1.0)
    R, eye = T_world_camera[:, None, None, :3, :3], T_world_camera[:, None, None, :3, 3]
    means = eye + (R @ F.normalize(ray, dim=-1)[..., None])[..., 0] * range_m[..., None]
    footprint = PIXEL_SHARE * range_m * (1 / focal).sum(1)[:, None, None]
    scales = (MIN_SCALE + (MAX_SCALE - MIN_SCALE) * scales.sigmoid()) * footprint[..., None]
    local = rotations_xyzw(F.normalize(turn, dim=-1).roll(1, -1))
    quats = quats_xyzw((R @ local).reshape(-1, 3, 3)).reshape(*raw.shape[:3], 4)
    return Gaussians(means, quats, scales, raw[..., 37].sigmoid(), dc)


def rotations_xyzw(q: Tensor) -> Tensor:
    """Return rotations (..., 3, 3) of unit quaternions x, y, z, w (..., 4)."""
    x, y, z, w = q.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))
