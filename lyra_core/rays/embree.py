"""Embree through the embreex wheel: one thread, coherent packets, the default on x86-64 and arm64 Macs."""

from __future__ import annotations

import numpy as np

from lyra_core.errors import BackendUnavailable
from lyra_core.rays.base import Hits


class RayTracerEmbree:
    """First hits by Embree 4."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        try:
            from embreex import rtcore_scene
            from embreex.mesh_construction import TriangleMesh
        except ImportError as error:
            raise BackendUnavailable("ray tracer 'embree'", reason=str(error), install="pip install embreex") from error
        self._scene = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._scene, np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """Return first hits of (R, 3) rays."""
        out = self._scene.run(
            np.ascontiguousarray(origins, np.float32), np.ascontiguousarray(directions, np.float32), query="INTERSECT", output=1
        )
        face = out["primID"].astype(np.int32)
        t = np.where(face >= 0, out["tfar"], np.inf).astype(np.float32)
        return Hits(face, t, np.stack([out["u"], out["v"]], 1).astype(np.float32))
