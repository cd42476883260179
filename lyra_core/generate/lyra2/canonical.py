"""Lyra 2.0's correspondence channels: where each pixel of the new frames lies in the retrieved ones (arXiv 2604.13036).

Every retrieved frame carries a picture of its own canonical coordinates x, y, z in [-1, 1], z naming its slot. Warped into the
new cameras together with its depth it tells the network which retrieved pixel shows the same place.

Cameras here follow the reference: K has pixel centres at integers. The half pixel to ``camera.splat`` is added in ``_centred``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.camera._torch_splat import (
    Matrices,
    continuous_depth,
    depth_extent,
    draw_torch,
    lift_torch,
    on_device_of,
    splat_torch,
    to_host,
)
from lyra_core.camera.splat import BATCH, largest_depths, place_targets
from lyra_core.errors import InputError

FOLD = 8
"""Pixels that a latent spans along a side."""
CHANNELS = 4
"""x, y, z and depth."""


def warp_main(
    rgb: Tensor, depth: Tensor, K: Matrices, T_world_camera: Matrices, target_K: Matrices, target_T_world_camera: Matrices, *,
    batch: int = BATCH,
) -> Tensor:
    """Warp rgb (3, H, W) in [-1, 1] with depth (H, W) [m] (0 or NaN: unknown) into N cameras: the main condition.

    Returns:
        (3, N, H, W) float32 in [-1, 1]; -1 in holes.
    """
    values, _, covered = splat_torch(
        rgb, depth, continuous_depth(depth), _centred(K), T_world_camera, _centred(target_K), target_T_world_camera, batch=batch,
    )
    return torch.where(covered[:, None], values.clamp(-1.0, 1.0), -1.0).transpose(0, 1)


@torch.no_grad()
def canonical_buffer(
    depths: Sequence[Tensor],
    Ks: Sequence[Matrices],
    T_world_cameras: Sequence[Matrices],
    target_K: Matrices,
    target_T_world_camera: Matrices,
    *,
    height: int,
    width: int,
    slots: int = 5,
    group: int = 4,
    batch: int = BATCH,
) -> Tensor:
    """Return the correspondence channels of the new latents, (256 slots, N / group, H / 8, W / 8) float32.

    A latent shows the last of its ``group`` frames, so only those are drawn; the others share in the largest depth of their
    batch and in the range by which the warped depth is normalised, as in the reference, which draws all.

    Args:
        depths: (H, W) z-depth [m] of at most ``slots`` retrieved frames, best first; 0 or NaN: unknown.
        Ks: (3, 3) of those frames, ``target_K`` (N, 3, 3) [px], pixel centres at integers.
        T_world_cameras: (4, 4) of those frames, ``target_T_world_camera`` (N, 4, 4).

    Raises:
        InputError: too many frames, depths of another size, or sizes that do not divide.
    """
    count = len(target_K)
    _check(depths, height, width, slots, count, group)
    rows = list(range(group - 1, count, group))
    device = depths[0].device if depths else (target_K.device if isinstance(target_K, Tensor) else torch.device("cpu"))
    out = torch.full((slots, CHANNELS, len(rows), height, width), -1.0, device=device)
    # Missing frames: coordinates -1, depth 1.
    out[len(depths) :, 3] = 1.0
    low, high = float("inf"), 0.0
    plane = canonical_coordinates(height, width, slots)[0, :2].to(device)
    for slot, (depth, K, T) in enumerate(zip(depths, Ks, T_world_cameras, strict=True)):
        with on_device_of(depth):
            source = lift_torch(plane, depth, continuous_depth(depth), _centred(K), T)
            targets = place_targets(_centred(target_K), to_host(target_T_world_camera), width, height, batch)
            largest = largest_depths(source, targets)
            values, warped, covered = draw_torch(source, targets, rows, largest=largest)
            # The reference takes the range over all frames and slots, so what is known of it saves work in the next slot.
            low, high = depth_extent(source, targets, warped, rows, largest=largest, known=(low, high))
        holes = ~covered
        out[slot, :2] = values.clamp(-1.0, 1.0).transpose(0, 1).masked_fill(holes, -1.0)
        out[slot, 2] = torch.where(holes, -1.0, slot_z(slot, slots))
        out[slot, 3] = torch.nan_to_num(warped, nan=0.0)
    if depths:
        used = out[: len(depths), 3]
        used.copy_(2 * (used - low) / max(high - low, 1e-6) - 1)
    return folded(out)


def history_buffer(height: int, width: int, *, slots: int = 5) -> Tensor:
    """Return the correspondence channels of the retrieved frames themselves, (256 slots, slots, H / 8, W / 8) float32.

    A frame lies in itself: its own coordinates with depth -1 in the first slot, and with depth 1 in the others. Positions
    are in packed order, worst frame first.
    """
    coordinates = canonical_coordinates(height, width, slots).transpose(0, 1)
    nearest, other = (torch.cat([coordinates, torch.full_like(coordinates[:1], depth)]) for depth in (-1.0, 1.0))
    return folded(torch.stack([nearest] + [other] * (slots - 1)))


def canonical_coordinates(height: int, width: int, slots: int) -> Tensor:
    """Return x, y, z (slots, 3, H, W) float32 in [-1, 1], worst slot first: the best frame has z = 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    z = torch.linspace(-1, 1, slots) if slots > 1 else torch.zeros(1)
    return torch.stack([torch.stack([x, y, z[slot].expand_as(x)]) for slot in range(slots)])


def slot_z(rank: int, slots: int) -> float:
    """Return the canonical z of the rank-th best frame: 1 for the best, whatever the number of frames."""
    return 1.0 - 2.0 * rank / (slots - 1) if slots > 1 else 0.0


def folded(planes: Tensor) -> Tensor:
    """Return planes (slots, C, T, H, W) as (slots * C * 64, T, H / 8, W / 8), channel order (slot, c, h8, w8)."""
    return F.pixel_unshuffle(planes.transpose(1, 2), FOLD).transpose(1, 2).flatten(0, 1)


def _check(depths: Sequence[Tensor], height: int, width: int, slots: int, count: int, group: int) -> None:
    if len(depths) > slots:
        raise InputError(f"canonical_buffer: depths: got {len(depths)} frames, expected at most {slots}")
    for depth in depths:
        if tuple(depth.shape) != (height, width):
            raise InputError(f"canonical_buffer: depths: got shape {tuple(depth.shape)}, expected {(height, width)}")
    if height % FOLD or width % FOLD or count % group:
        raise InputError(
            f"canonical_buffer: got {height} x {width} px and {count} targets, expected multiples of {FOLD} and of {group}"
        )


def _centred(K: Matrices) -> np.ndarray:
    """Return K (..., 3, 3) in float64 with pixel centres at +0.5, from pixel centres at integers."""
    K = to_host(K).copy()
    K[..., :2, 2] += 0.5
    return K
