"""Forward warp of a picture with depth into other cameras: bilinear splatting with soft occlusion, as Lyra 2 does it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.types import Camera, Trajectory

MAX_DEPTH = 1e4
"""Larger depths are clamped to this [m]."""
OCCLUSION_SHARPNESS = 50.0
"""Exponent of the occlusion weight at the largest log depth."""


@dataclass(frozen=True)
class Warped:
    """A picture warped into N target cameras."""

    values: np.ndarray
    """(N, h, w, C) float32; 0 where nothing arrived."""
    depth: np.ndarray
    """(N, h, w) float32 z-depth in the target [m]; NaN where nothing arrived."""
    covered: np.ndarray
    """(N, h, w) bool: something arrived."""


def clamped_depth(depth: np.ndarray) -> np.ndarray:
    """Return depth (H, W) float32 with unknown as 0 and everything in [0, 10 km]."""
    return np.clip(np.nan_to_num(depth, nan=0.0, posinf=MAX_DEPTH, neginf=0.0), 0.0, MAX_DEPTH).astype(np.float32)


def continuous_depth(depth: np.ndarray, *, tolerance: float = 0.05) -> np.ndarray:
    """Return where depth (H, W) varies little in its 5x5 neighbourhood: (max - min) / mean < tolerance.

    Lyra 2's cleaning of flying pixels at silhouettes. At the picture's border the neighbourhood is cut off, but its mean is
    not: what lies outside counts as 0 there, so slanted surfaces are dropped sooner. Unknown pixels are False.
    """
    depth = clamped_depth(depth)
    kernel = np.ones((5, 5), np.uint8)
    spread = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    mean = cv2.blur(depth, (5, 5), borderType=cv2.BORDER_CONSTANT)
    return (depth > 0) & (spread / (mean + 1e-6) < tolerance)


def planar_depth(depth: np.ndarray, *, tolerance: float = 0.05) -> np.ndarray:
    """Return where depth (H, W) continues its neighbours as a plane would, along rows and along columns.

    Inverse depth is linear over the picture of a plane, so its second difference times the depth is near 0 on any smooth
    surface, however slanted, and large at silhouettes. Unlike ``continuous_depth`` it keeps floors seen at a grazing angle.
    """
    depth = clamped_depth(depth)
    with np.errstate(divide="ignore"):
        inverse_depth = np.where(depth > 0, 1.0 / depth, 0.0).astype(np.float32)
    padded = cv2.copyMakeBorder(inverse_depth, 1, 1, 1, 1, cv2.BORDER_REFLECT101)
    centre = padded[1:-1, 1:-1]
    bend_u = 2 * centre - padded[1:-1, :-2] - padded[1:-1, 2:]
    bend_v = 2 * centre - padded[:-2, 1:-1] - padded[2:, 1:-1]
    # Reflection makes up a bend at the border, where a one-sided view has nothing to say.
    bend_u[:, [0, -1]] = 0
    bend_v[[0, -1]] = 0
    return (depth > 0) & (np.maximum(np.abs(bend_u), np.abs(bend_v)) * depth < tolerance)


def project(points: np.ndarray, camera: Camera, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixel coordinates u, v (pixel centres at +0.5) and z-depth [m] of world points (n, 3), each (n,) float64.

    Written term by term: a matrix product may round differently with another number of threads. Where z is 0, u and v are
    not finite.
    """
    R, t, K = T_camera_world[:3, :3], T_camera_world[:3, 3], camera.K
    x, y, z = (points[:, i].astype(np.float64) for i in range(3))
    local = [R[i, 0] * x + R[i, 1] * y + R[i, 2] * z + t[i] for i in range(3)]
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (K[0, 0] * local[0] + K[0, 1] * local[1]) / local[2] + K[0, 2]
        v = K[1, 1] * local[1] / local[2] + K[1, 2]
    return u, v, local[2]


def unproject(depth: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """Return world points (H, W, 3) float64 of a depth picture (H, W) [m], term by term (see ``project``)."""
    K, R, t = camera.K, T_world_camera[:3, :3], T_world_camera[:3, 3]
    v = (np.arange(camera.height)[:, None] + 0.5 - K[1, 2]) / K[1, 1]
    u = (np.arange(camera.width)[None, :] + 0.5 - K[0, 2] - K[0, 1] * v) / K[0, 0]
    z = depth.astype(np.float64)
    return np.stack([R[i, 0] * u * z + R[i, 1] * v * z + R[i, 2] * z + t[i] for i in range(3)], -1)


def forward_warp(
    values: np.ndarray, depth: np.ndarray, camera: Camera, T_world_camera: np.ndarray, targets: Trajectory, *, mask: np.ndarray
) -> Warped:
    """Splat values (H, W, C) with depth (H, W) [m] into every target camera.

    Each pixel of ``mask`` (H, W) bool goes to its four neighbours with bilinear weight / w(z), where w = exp(50 log1p(z) /
    max log1p(z)) + 1e-7 lets the nearer surface win (softmax splatting, Niklaus & Liu 2020, with Lyra 2's weight). The
    maximum is over all targets of the call, so a target warped alone differs in the fourth digit. This is the readable
    version; ``camera.splat`` is the fast one.

    Raises:
        InputError: values, depth or mask have another size than the camera.
    """
    size = (camera.height, camera.width)
    for name, array in (("values", values), ("depth", depth), ("mask", mask)):
        if array.shape[:2] != size:
            raise InputError(f"forward_warp: {name}: got shape {array.shape}, expected {size} as the camera")
    depth = clamped_depth(depth)
    mask = mask & (depth > 0)
    points = unproject(depth, camera, T_world_camera)[mask]
    colours = values[mask].astype(np.float64)
    T_target_world = inverse(targets.T_world_camera)
    projected = [project(points, targets.camera(i), T) for i, T in enumerate(T_target_world)]
    # Pixels without depth take part in the maximum as if they sat at the world origin, as in the reference.
    largest = 0.0 if mask.all() else max(T[2, 3] for T in T_target_world)
    largest = max([largest] + [z.max() for _, _, z in projected if len(z)])
    log_max = max(np.log1p(max(largest, 0.0)), 1e-6)
    views = [_splat(u - 0.5, v - 0.5, z, colours, log_max, targets.width, targets.height) for u, v, z in projected]
    weight = np.stack([view[..., -1] for view in views])
    covered = weight > 0
    mean = np.stack([view[..., :-1] for view in views]) / np.where(covered, weight, 1.0)[..., None]
    warped_depth = np.where(covered, mean[..., -1], np.nan).astype(np.float32)
    return Warped(mean[..., :-1].astype(np.float32), warped_depth, covered)


def _splat(u: np.ndarray, v: np.ndarray, z: np.ndarray, values: np.ndarray, log_max: float, width: int, height: int) -> np.ndarray:
    """Return weighted sums (h, w, C + 2) of the values, of z and of the weights alone; u, v count from pixel centres."""
    keep = (z > 0) & (u > -1) & (u < width) & (v > -1) & (v < height)
    u, v, z, values = u[keep], v[keep], z[keep], values[keep]
    exponent = np.minimum(OCCLUSION_SHARPNESS * np.log1p(z) / log_max, 80.0)
    nearness = 1.0 / (np.exp(exponent) + 1e-7)
    left, top = np.floor(u), np.floor(v)
    # One cell of margin all round takes what falls half outside.
    corner = (top.astype(np.int64) + 1) * (width + 2) + left.astype(np.int64) + 1
    right_share, low_share = u - left, v - top
    cells, weights = [], []
    for step, share in ((0, 1 - low_share), (width + 2, low_share)):
        cells += [corner + step, corner + step + 1]
        weights += [share * (1 - right_share) * nearness, share * right_share * nearness]
    cell, count = np.concatenate(cells), (height + 2) * (width + 2)
    columns = [*values.T, z, np.ones_like(z)]
    sums = [np.bincount(cell, np.concatenate([w * column for w in weights]), count) for column in columns]
    return np.stack(sums, -1).reshape(height + 2, width + 2, -1)[1:-1, 1:-1]
