"""Exact distances of points to a mesh, by a bounding volume hierarchy (Warp)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.camera.warp_package import load_warp


@dataclass(frozen=True)
class Closest:
    """The nearest point of a mesh for each query."""

    distance: np.ndarray
    """(N,) float32 [m]; inf = none within the limit."""
    face: np.ndarray
    """(N,) int32; -1 = none."""
    place: np.ndarray
    """(N, 3) float32 [m]."""


def closest_points(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, *, limit: float = 1e3) -> Closest:
    """Find for points (N, 3) the nearest point of a mesh within limit [m]."""
    count = len(points)
    if not count or not len(faces):
        return Closest(np.full(count, np.inf, np.float32), np.full(count, -1, np.int32), np.zeros((count, 3), np.float32))
    wp = load_warp("distance to a mesh")
    from lyra_core.surface import _warp_distance_kernels as kernels

    mesh = wp.Mesh(points=wp.array(np.ascontiguousarray(vertices, np.float32), dtype=wp.vec3f, device="cpu"),
                   indices=wp.array(np.ascontiguousarray(faces, np.int32).reshape(-1), dtype=wp.int32, device="cpu"))
    distance, face = wp.zeros(count, dtype=wp.float32, device="cpu"), wp.zeros(count, dtype=wp.int32, device="cpu")
    place = wp.zeros(count, dtype=wp.vec3f, device="cpu")
    queries = wp.array(np.ascontiguousarray(points, np.float32), dtype=wp.vec3f, device="cpu")
    wp.launch(kernels.closest, dim=count, inputs=[mesh.id, queries, float(limit)], outputs=[distance, face, place], device="cpu")
    return Closest(distance.numpy(), face.numpy(), place.numpy())


def sample_surface(vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 3) float64 spread evenly over a mesh by area, and the face of each (count,)."""
    corners = np.asarray(vertices, np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    face = np.searchsorted(np.cumsum(area), rng.random(count) * area.sum(), side="right").clip(0, len(faces) - 1)
    a, b = rng.random((2, count))
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    c = corners[face]
    return c[:, 0] + a[:, None] * (c[:, 1] - c[:, 0]) + b[:, None] * (c[:, 2] - c[:, 0]), face
