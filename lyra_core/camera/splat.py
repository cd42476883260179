"""The forward warp of ``camera.warp`` made fast: one set of NVIDIA Warp kernels for CPU and CUDA, the same bytes every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import Warped
from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import InputError
from lyra_core.types import Camera, Trajectory

BATCH = 16
"""Target cameras that share one largest depth, as in Lyra 2."""
SCRATCH_BYTES = 1 << 27
"""Targets are drawn in groups whose sums and projections fit into this on CUDA; a CPU draws one at a time, for its cache."""


@dataclass(frozen=True)
class Source:
    """A picture lifted into the world, as Warp arrays on one device."""

    values: Any
    """(C, P) float32."""
    largest_value: Any
    """(1,) float32: the largest magnitude in values, 1 if that is 0."""
    points: Any
    """(P,) vec3d world points [m]; pixels left out lie at the world origin."""
    kept: Any
    """(P,) bool."""


@dataclass(frozen=True)
class Targets:
    """The cameras a picture is warped into, as Warp arrays on one device."""

    K: Any
    """(N,) mat33d [px], pixel centres at +0.5."""
    T_target_world: Any
    """(N,) mat44d."""
    width: int
    height: int
    batch: int
    """So many targets in a row share the largest depth."""


def warp_and_kernels() -> tuple[Any, Any]:
    """Return the warp package and this package's kernels.

    Raises:
        BackendUnavailable: warp is not installed.
    """
    wp = load_warp("the fast forward warp")
    from lyra_core.camera import _warp_splat_kernels

    return wp, _warp_splat_kernels


def splat_frames(
    values: np.ndarray,
    depth: np.ndarray,
    mask: np.ndarray,
    camera: Camera,
    T_world_camera: np.ndarray,
    targets: Trajectory,
    *,
    device: str = "auto",
    batch: int = BATCH,
) -> Warped:
    """Splat values (H, W, C) with depth (H, W) [m] where ``mask`` (H, W) bool into every target camera.

    Equal to ``camera.warp.forward_warp`` of ``batch`` targets at a time, but for the rounding of the last float32 digit.

    Args:
        device: Warp's name of a device ('cpu', 'cuda:0'); 'auto': the first CUDA device, or else the CPU.

    Raises:
        InputError: values, depth or mask have another size than the camera, or values are not finite where they are used.
        BackendUnavailable: warp is not installed.
    """
    size = (camera.height, camera.width)
    for name, array in (("values", values), ("depth", depth), ("mask", mask)):
        if array.shape[:2] != size:
            raise InputError(f"splat_frames: {name}: got shape {array.shape}, expected {size} as the camera")
    planes = np.where(mask[..., None], values, 0).astype(np.float32)
    if not np.isfinite(planes).all():
        raise InputError("splat_frames: values: got NaN or infinity inside the mask, expected finite numbers")
    wp, _ = warp_and_kernels()
    where = ("cuda:0" if wp.is_cuda_available() else "cpu") if device == "auto" else device
    largest = np.array([np.abs(planes).max(initial=0) or 1.0], np.float32)
    with wp.ScopedDevice(where):
        channels = wp.array(np.ascontiguousarray(planes.reshape(-1, values.shape[2]).T), dtype=wp.float32)
        source = lift(
            channels, wp.array(largest, dtype=wp.float32), wp.array(depth.astype(np.float32).ravel(), dtype=wp.float32),
            wp.array(np.ascontiguousarray(mask, bool).ravel(), dtype=wp.bool), camera.width, camera.K, T_world_camera,
        )
        cameras = place_targets(targets.K, targets.T_world_camera, targets.width, targets.height, batch)
        count, pixels = len(targets), targets.width * targets.height
        out = (wp.empty((count, values.shape[2], pixels), dtype=wp.float32), wp.empty((count, pixels), dtype=wp.float32),
               wp.empty((count, pixels), dtype=wp.bool))
        draw(source, cameras, range(count), *out)
        drawn, z, covered = (array.numpy() for array in out)
    shape = (count, targets.height, targets.width)
    planes = drawn.reshape(count, values.shape[2], *shape[1:])
    return Warped(np.moveaxis(planes, 1, -1), z.reshape(shape), covered.reshape(shape).astype(bool))


def lift(
    values: Any, largest_value: Any, depth: Any, mask: Any, width: int, K: np.ndarray, T_world_camera: np.ndarray
) -> Source:
    """Lift a picture, given as flat Warp arrays on the current device, into the world."""
    wp, kernels = warp_and_kernels()
    pixels = depth.shape[0]
    points, kept = wp.empty(pixels, dtype=wp.vec3d), wp.empty(pixels, dtype=wp.bool)
    camera = [wp.mat33d(*np.ravel(K).tolist()), wp.mat44d(*np.ravel(T_world_camera).tolist())]
    wp.launch(kernels.lift, pixels, [depth, mask, width, *camera, points, kept])
    return Source(values, largest_value, points, kept)


def place_targets(K: np.ndarray, T_world_camera: np.ndarray, width: int, height: int, batch: int) -> Targets:
    """Bring target cameras K (N, 3, 3) and T_world_camera (N, 4, 4) to the current device."""
    wp, _ = warp_and_kernels()
    T = inverse(np.asarray(T_world_camera, np.float64))
    return Targets(wp.array(np.asarray(K, np.float64), dtype=wp.mat33d), wp.array(T, dtype=wp.mat44d), width, height, batch)


def largest_depths(source: Source, targets: Targets) -> Any:
    """Return the largest z of every batch, (ceil(N / batch),) float64 [m], pixels left out taken at the world origin."""
    wp, kernels = warp_and_kernels()
    batches = -(-targets.K.shape[0] // targets.batch)
    largest = wp.zeros(batches, dtype=wp.float64)
    wp.launch(kernels.farthest, (batches, source.points.shape[0]), [source.points, targets.T_target_world, targets.batch, largest])
    return largest


def draw(
    source: Source, targets: Targets, rows: Sequence[int], values: Any, depth: Any, covered: Any, *, largest: Any = None
) -> None:
    """Draw the source into targets ``rows``; the others only share in their batch's largest depth.

    Args:
        values: (rows, C, pixels) float32 Warp array to fill; 0 where nothing arrives.
        depth: (rows, pixels) float32 [m]; NaN where nothing arrives.
        covered: (rows, pixels) bool.
        largest: what ``largest_depths`` returned, if it is at hand.
    """
    wp, kernels = warp_and_kernels()
    channels, pixels = source.values.shape
    area = targets.width * targets.height
    if not len(rows):
        return
    largest = largest_depths(source, targets) if largest is None else largest
    steepness = wp.empty_like(largest)
    wp.launch(kernels.steepen, len(largest), [largest, steepness])
    group = 1 if not source.points.device.is_cuda else max(1, SCRATCH_BYTES // (32 * pixels + (8 * channels + 20) * area))
    # No sum of all source pixels at the largest weight may reach 2^62.
    bits = min(40, 61 - pixels.bit_length())
    group = min(group, len(rows))
    landed = wp.empty((group, pixels), dtype=wp.vec4d)
    exponents = wp.empty((group, area), dtype=wp.int32)
    sums = wp.empty((group, channels + 2, area), dtype=wp.int64)
    size = [targets.width, targets.height]
    for first in range(0, len(rows), group):
        count = min(group, len(rows) - first)
        chosen = wp.array(np.array(rows[first : first + count], np.int32), dtype=wp.int32)
        exponents.fill_(kernels.EMPTY)
        sums.zero_()
        wp.launch(kernels.project, (count, pixels), [
            source.points, source.kept, targets.K, targets.T_target_world, chosen, targets.batch, steepness, *size, landed,
            exponents,
        ])
        scale = [source.largest_value, largest, chosen, targets.batch]
        wp.launch(kernels.accumulate, (count, pixels), [source.values, landed, exponents, *scale, bits, *size, sums])
        wp.launch(kernels.resolve, (count, area), [sums, *scale, first, values, depth, covered])


def depth_bounds(source: Source, targets: Targets) -> np.ndarray:
    """Return an upper bound of the warped depth of every target (N,) float32 [m]: its farthest point in view, 0 without."""
    wp, kernels = warp_and_kernels()
    bounds = wp.zeros(targets.K.shape[0], dtype=wp.float32)
    wp.launch(kernels.reach, (len(bounds), source.points.shape[0]), [
        source.points, source.kept, targets.K, targets.T_target_world, targets.width, targets.height, bounds,
    ])
    return bounds.numpy()
