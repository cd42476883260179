"""The RayTracer seam and the camera query built on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lyra_core.backends import RAY_TRACERS, resolve
from lyra_core.errors import BackendUnavailable
from lyra_core.types import Camera


@dataclass(frozen=True)
class Hits:
    """First hits of a batch of rays."""

    face: np.ndarray
    """(R,) int32 face index, -1 = miss."""
    t: np.ndarray
    """(R,) float32 ray parameter, inf = miss; in units of the direction's length."""
    barycentric: np.ndarray
    """(R, 2) float32 weights of the face's second and third vertex."""


class RayTracer(Protocol):
    """Casts rays at one fixed mesh."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None: ...

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Return first hits. origins, directions: (R, 3) float32; directions need no unit length."""
        ...


def make_ray_tracer(vertices: np.ndarray, faces: np.ndarray, *, backend: str = "auto") -> RayTracer:
    """Build a tracer over vertices (V, 3) and faces (F, 3); 'auto' takes embree where its wheel exists, else warp."""
    names = list(RAY_TRACERS) if backend == "auto" else [backend]
    reasons = []
    for name in names:
        try:
            return resolve("rays", name)(vertices, faces)
        except BackendUnavailable as error:
            reasons.append(error)
    raise reasons[-1]


def cast_camera(tracer: RayTracer, camera: Camera, T_world_camera: np.ndarray) -> Hits:
    """Cast one ray per pixel, row by row. Because rays have z = 1 in the camera frame, ``t`` is the z-depth."""
    R, origin = T_world_camera[:3, :3].astype(np.float32), T_world_camera[:3, 3].astype(np.float32)
    directions = camera.rays().reshape(-1, 3) @ R.T
    return tracer.cast(np.broadcast_to(origin, directions.shape), directions)


def sphere_directions(count: int) -> np.ndarray:
    """Return (count, 3) float32 unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    i = np.arange(count) + 0.5
    z, angle = 1 - 2 * i / count, np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], 1).astype(np.float32)
