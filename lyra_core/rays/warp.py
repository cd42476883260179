"""NVIDIA Warp's mesh query: anywhere Warp has a wheel, CPU or CUDA. Slower than Embree on a CPU."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.warp_package import load_warp
from lyra_core.rays.base import Hits


class RayTracerWarp:
    """First hits by warp.mesh_query_ray."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        wp = load_warp("ray tracer 'warp'")
        from lyra_core.rays._warp_kernels import first_hit

        self._wp, self._kernel = wp, first_hit
        self._mesh = wp.Mesh(
            points=wp.array(np.ascontiguousarray(vertices, np.float32), dtype=wp.vec3),
            indices=wp.array(np.ascontiguousarray(faces, np.int32).ravel(), dtype=wp.int32),
        )

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Return first hits of (R, 3) rays."""
        wp, count = self._wp, len(directions)
        face, t, uv = wp.empty(count, dtype=wp.int32), wp.empty(count, dtype=wp.float32), wp.empty(count, dtype=wp.vec2)
        wp.launch(self._kernel, count, [
            self._mesh.id, wp.array(np.ascontiguousarray(origins, np.float32), dtype=wp.vec3),
            wp.array(np.ascontiguousarray(directions, np.float32), dtype=wp.vec3), face, t, uv,
        ])
        return Hits(face.numpy(), t.numpy(), uv.numpy())
