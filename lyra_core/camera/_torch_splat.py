"""The forward warp on torch tensors, CPU or CUDA, without copying them (see ``camera.splat``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.camera.splat import BATCH, Source, Targets, depth_bounds, draw, lift, place_targets, warp_and_kernels
from lyra_core.camera.warp import MAX_DEPTH
from lyra_core.errors import InputError

Matrices = Tensor | np.ndarray


@torch.no_grad()
def splat_torch(
    values: Tensor,
    depth: Tensor,
    mask: Tensor,
    K: Matrices,
    T_world_camera: Matrices,
    target_K: Matrices,
    target_T_world_camera: Matrices,
    *,
    size: tuple[int, int] | None = None,
    rows: Sequence[int] | None = None,
    batch: int = BATCH,
) -> tuple[Tensor, Tensor, Tensor]:
    """Splat values (C, H, W) with depth (H, W) [m] where ``mask`` (H, W) bool into target cameras; see ``splat_frames``.

    Nothing is read back from the device, so values must be finite where the mask is set: the caller's promise.

    Args:
        K: (3, 3) of the source, ``target_K`` (N, 3, 3) [px], pixel centres at +0.5.
        T_world_camera: (4, 4) of the source, ``target_T_world_camera`` (N, 4, 4).
        size: height, width of the targets; None: as the source.
        rows: which targets to draw; the others only take part in the largest depth of their batch.

    Returns:
        values (n, C, h, w) float32, 0 in holes; depth (n, h, w) float32 [m], NaN in holes; covered (n, h, w) bool.
    """
    height, width = size or tuple(depth.shape)
    chosen = list(range(len(target_K))) if rows is None else list(rows)
    with on_device_of(depth):
        source = lift_torch(values, depth, mask, K, T_world_camera)
        targets = place_targets(to_host(target_K), to_host(target_T_world_camera), width, height, batch)
        return draw_torch(source, targets, chosen)


@contextmanager
def on_device_of(tensor: Tensor) -> Iterator[None]:
    """Let Warp work on the tensor's device, on CUDA in torch's own stream: each sees the other's results in order.

    Raises:
        InputError: torch works in another stream than its default one, where Warp frees its memory too early.
    """
    wp, _ = warp_and_kernels()
    if tensor.is_cuda:
        stream = torch.cuda.current_stream(tensor.device)
        if stream != torch.cuda.default_stream(tensor.device):
            raise InputError("splat_torch: got a side stream as torch's current one, expected the default stream")
        with wp.ScopedStream(wp.stream_from_torch(stream), sync_enter=False):
            yield
    else:
        with wp.ScopedDevice("cpu"):
            yield


def lift_torch(values: Tensor, depth: Tensor, mask: Tensor, K: Matrices, T_world_camera: Matrices) -> Source:
    """Lift values (C, H, W) with depth (H, W) where ``mask`` (H, W) into the world, within ``on_device_of``.

    Raises:
        InputError: sizes differ.
    """
    if values.shape[1:] != depth.shape or mask.shape != depth.shape:
        raise InputError(
            f"splat_torch: got values {tuple(values.shape)}, depth {tuple(depth.shape)}, mask {tuple(mask.shape)}, expected "
            "(C, H, W), (H, W), (H, W)"
        )
    wp, _ = warp_and_kernels()
    planes = torch.where(mask, values, 0).float().flatten(1).contiguous()
    largest = planes.abs().amax() if planes.numel() else planes.new_zeros(())
    largest = torch.where(largest > 0, largest, 1.0).reshape(1)
    flat_depth, flat_mask = depth.float().flatten().contiguous(), mask.flatten().contiguous()
    return lift(
        wp.from_torch(planes), wp.from_torch(largest), wp.from_torch(flat_depth), wp.from_torch(flat_mask), depth.shape[1],
        to_host(K), to_host(T_world_camera),
    )


def draw_torch(
    source: Source, targets: Targets, rows: Sequence[int], *, largest: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a lifted picture into target rows, within ``on_device_of``; returns what ``splat_torch`` does."""
    wp, _ = warp_and_kernels()
    device = wp.device_to_torch(source.points.device)
    channels, shape = source.values.shape[0], (len(rows), targets.height, targets.width)
    area = targets.height * targets.width
    values = torch.empty(len(rows), channels, area, device=device)
    depth = torch.empty(len(rows), area, device=device)
    covered = torch.empty(len(rows), area, dtype=torch.bool, device=device)
    draw(source, targets, rows, *(wp.from_torch(out) for out in (values, depth, covered)), largest=largest)
    return values.reshape(len(rows), channels, *shape[1:]), depth.reshape(shape), covered.reshape(shape)


def depth_extent(
    source: Source, targets: Targets, drawn: Tensor, rows: Sequence[int], *, largest: Any, known: tuple[float, float]
) -> tuple[float, float]:
    """Return the smallest and the largest depth of the source warped into ALL targets, holes counted as 0, and of ``known``.

    ``drawn`` (n, h, w) is the warped depth of ``rows``, NaN in holes. Another target is drawn only if its farthest point in
    view lies beyond the largest depth so far, because a mean never exceeds it: normally a few, from the far end of the path.
    """
    wp, _ = warp_and_kernels()
    low, high = joined(known, drawn)
    bounds = depth_bounds(source, targets)
    bare = replace(source, values=wp.empty((0, source.points.shape[0]), dtype=wp.float32))
    for row in sorted(set(range(len(bounds))) - set(rows), key=lambda row: -bounds[row]):
        if bounds[row] <= high and low == 0:
            break
        low, high = joined((low, high), draw_torch(bare, targets, [row], largest=largest)[1])
    return low, high


def joined(known: tuple[float, float], depth: Tensor) -> tuple[float, float]:
    """Return smallest and largest of what is known and of a depth, whose NaN counts as 0."""
    low, high = torch.nan_to_num(depth, nan=0.0).aminmax() if depth.numel() else known
    return min(known[0], float(low)), max(known[1], float(high))


def clamped_depth(depth: Tensor) -> Tensor:
    """Return depth (H, W) float32 as ``camera.warp.clamped_depth`` does: unknown 0, all within 0 .. 10 km."""
    return torch.nan_to_num(depth.float(), nan=0.0, posinf=MAX_DEPTH, neginf=0.0).clamp(0.0, MAX_DEPTH)


def continuous_depth(depth: Tensor, *, tolerance: float = 0.05) -> Tensor:
    """Return where depth (H, W) varies little in its 5x5 neighbourhood, as ``camera.warp.continuous_depth`` does."""
    depth = clamped_depth(depth)[None, None]
    spread = F.max_pool2d(depth, 5, 1, 2) + F.max_pool2d(-depth, 5, 1, 2)
    mean = F.avg_pool2d(depth, 5, 1, 2)
    return ((depth > 0) & (spread / (mean + 1e-6) < tolerance))[0, 0]


def to_host(matrices: Matrices) -> np.ndarray:
    """Return camera matrices in float64 on the host, where the reference inverts them too."""
    return (matrices.detach().cpu().double().numpy() if isinstance(matrices, Tensor) else np.asarray(matrices)).astype(np.float64)
