"""Upright coordinates of a picture: what a level camera at the same place, looking the same way, would measure.

For a world direction (x, y, z): right = -y / x, down = -z / x. World verticals are lines of constant ``right``; a floor h
metres below the camera at forward distance X lies at down = h / X; every vertical plane is linear in (right, 1 / X)
(Criminisi, Reid, Zisserman, Single View Metrology, 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.types import Camera

MIN_AHEAD = 0.05
"""Rays steeper than this forward component have no upright coordinates."""


@dataclass(frozen=True)
class UprightRays:
    """Upright coordinates per pixel; NaN where a ray does not point forward."""

    ahead: np.ndarray
    """(H, W) float32 forward component of the ray with z = 1 in the camera: z-depth = X / ahead."""
    right: np.ndarray
    """(H, W) float32."""
    down: np.ndarray
    """(H, W) float32."""
    sink: np.ndarray
    """(H, W) float32 downward component of the ray with z = 1: floor z-depth = h / sink where positive."""


def upright_rays(camera: Camera, T_world_camera: np.ndarray) -> UprightRays:
    """Return the upright coordinates of all pixel centres (no BLAS, so the bytes do not depend on threads)."""
    rays, R = camera.rays(), T_world_camera[:3, :3].astype(np.float32)
    x, y, z = (rays[..., 0] * R[i, 0] + rays[..., 1] * R[i, 1] + R[i, 2] for i in range(3))
    safe = np.where(x > MIN_AHEAD, x, np.float32(np.nan))
    return UprightRays(x, -y / safe, -z / safe, -z)


def upright_pixels(camera: Camera, T_world_camera: np.ndarray, right: np.ndarray,
                   down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixel coordinates (u, v) of upright coordinates (any equal shapes); NaN behind the camera."""
    R = T_world_camera[:3, :3]
    world = (np.ones_like(right), -right, -down)
    x, y, z = (R[0, i] * world[0] + R[1, i] * world[1] + R[2, i] * world[2] for i in range(3))
    z = np.where(z > 1e-6, z, np.nan)
    K = camera.K
    return K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]


def rotation_from_down(down_camera: np.ndarray) -> np.ndarray:
    """Return R_world_camera (3, 3) from the unit gravity direction in the camera frame; world x is where it looks, levelled."""
    z = -np.asarray(down_camera, float)
    x = np.array([0.0, 0.0, 1.0]) - z[2] * z
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z])


def direction_kernels(middle: np.ndarray, tangent: np.ndarray, focal: float, directions: np.ndarray, width: float) -> np.ndarray:
    """Return (..., M) in [0, 1]: how well each segment points at each direction's vanishing point.

    Args:
        middle: (M, 2) from the principal point, in units in which ``focal`` is given.
        tangent: (M, 2) unit vectors.
        directions: (..., 3) in the camera frame.
        width: angle at which the kernel falls to 1/e [rad].
    """
    d = directions.astype(np.float32)[..., None, :]
    to_u = focal * d[..., 0] - middle[:, 0] * d[..., 2]
    to_v = focal * d[..., 1] - middle[:, 1] * d[..., 2]
    cross = to_u * tangent[:, 1] - to_v * tangent[:, 0]
    return np.exp(cross * cross / ((to_u * to_u + to_v * to_v + np.float32(1e-9)) * np.float32(-width * width)))


def manhattan_yaw(lines: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> float:
    """Return the angle in [0, 90) degrees, left of world x [rad], of the horizontal direction that most line weight points at.

    Args:
        lines: (M, 4) segments u0 v0 u1 v1 [px]; without any, the answer is 0.
    """
    if len(lines) == 0:
        return 0.0
    delta = lines[:, 2:] - lines[:, :2]
    length = np.maximum(np.hypot(delta[:, 0], delta[:, 1]), 1e-6)
    middle = (lines[:, :2] + lines[:, 2:]) / 2 - camera.K[:2, 2].astype(np.float32)
    yaws = np.deg2rad(np.arange(0, 90, 1.0))
    angles = np.concatenate([yaws, yaws + np.pi / 2])
    R = T_world_camera[:3, :3]
    directions = np.concatenate([-R[2:3], np.cos(angles)[:, None] * R[0] + np.sin(angles)[:, None] * R[1]])
    kernels = direction_kernels(middle, delta / length[:, None], float(camera.K[0, 0]), directions, np.deg2rad(2.0))
    horizontal = np.maximum(kernels[1:91], kernels[91:]) * (1 - kernels[0])
    return float(yaws[(horizontal * length).sum(1).argmax()])
