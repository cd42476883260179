"""Frames as queries of an explicit textured world."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.types import Camera, Frame, Label, SurfaceMesh

UNKNOWN = 255
"""Provenance value where the depth is unknown."""


class WorldView:
    """Renders a SurfaceMesh: first hit, bilinear texture, exact depth. Sky faces give colour but no depth."""

    def __init__(self, mesh: SurfaceMesh) -> None:
        self._mesh = mesh
        self._tracer = make_ray_tracer(mesh.vertices, mesh.faces)
        size = np.array([mesh.texture.shape[1], mesh.texture.shape[0]], np.float32)
        texels = np.stack([mesh.uv[:, 0], 1.0 - mesh.uv[:, 1]], 1) * size - 0.5
        self._corner_texels = texels[mesh.faces].astype(np.float32)

    def render(self, camera: Camera, T_world_camera: np.ndarray) -> Frame:
        """Return the frame at a pose (4, 4)."""
        mesh, shape = self._mesh, (camera.height, camera.width)
        hits = cast_camera(self._tracer, camera, T_world_camera)
        face, (u, v) = np.maximum(hits.face, 0), hits.barycentric.T
        corners = self._corner_texels[face]
        texel = corners[:, 0] * (1 - u - v)[:, None] + corners[:, 1] * u[:, None] + corners[:, 2] * v[:, None]
        grid = texel.reshape(*shape, 2).astype(np.float32)
        rgb = cv2.remap(mesh.texture, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        solid = (hits.face >= 0) & (mesh.face_label[face] != Label.SKY)
        depth = np.where(solid, hits.t, np.nan).astype(np.float32).reshape(shape)
        provenance = np.where(solid, mesh.face_provenance[face], UNKNOWN).astype(np.uint8).reshape(shape)
        rgb[(hits.face < 0).reshape(shape)] = 0
        return Frame(rgb, depth, camera, np.asarray(T_world_camera, float), provenance)
