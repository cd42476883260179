"""An RGB-D camera on the robot: rays against the world's visual mesh."""

from __future__ import annotations

import math

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.rays import Hits, RayTracer, cast_camera, make_ray_tracer
from lyra_core.types import Camera, SurfaceMesh

SKY = np.array([200, 215, 230], np.uint8)
"""Colour of rays that hit nothing."""


class SensorRgbd:
    """Colour and depth from one cast."""

    def __init__(
        self, mesh: SurfaceMesh, *, width: int = 64, height: int = 64, hfov_degrees: float = 90.0, mount_height: float = 1.25,
        max_depth: float = 10.0, tracer: RayTracer | None = None,
    ) -> None:
        """Mount a level camera above the robot's centre.

        Args:
            mesh: what is seen.
            width, height: [px].
            hfov_degrees: horizontal field of view.
            mount_height: above the floor [m]; Habitat's 1.25.
            max_depth: depth that is normalised to 1 [m].
            tracer: a tracer over the mesh that is there already.
        """
        self.mesh, self.mount_height, self.max_depth = mesh, mount_height, max_depth
        self.camera = Camera.from_focal(width / 2 / math.tan(math.radians(hfov_degrees) / 2), width, height)
        self.tracer = tracer or make_ray_tracer(mesh.vertices, mesh.faces)

    def observe(self, position: np.ndarray, yaw: float, *, ground: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Return rgb (H, W, 3) uint8 and depth (H, W, 1) float32 in [0, 1]; nothing within max_depth = 1.

        Args:
            position: (2,) world x, y [m].
            yaw: [rad].
            ground: height of the floor there [m].
        """
        T_world_camera = from_yaw_pitch(np.append(position, ground + self.mount_height), yaw)
        hits = cast_camera(self.tracer, self.camera, T_world_camera)
        size = (self.camera.height, self.camera.width)
        depth = np.minimum(hits.t / np.float32(self.max_depth), np.float32(1.0)).reshape(*size, 1)
        return shade(self.mesh, hits).reshape(*size, 3), depth.astype(np.float32)


def shade(mesh: SurfaceMesh, hits: Hits) -> np.ndarray:
    """Return the texture's colour at hits, (R, 3) uint8, bilinear; a miss is SKY."""
    out = np.broadcast_to(SKY, (len(hits.face), 3)).copy()
    hit = np.flatnonzero(hits.face >= 0)
    corner = mesh.uv[mesh.faces[hits.face[hit]]].astype(np.float64)
    b = hits.barycentric[hit, :, None].astype(np.float64)
    uv = corner[:, 0] + b[:, 0] * (corner[:, 1] - corner[:, 0]) + b[:, 1] * (corner[:, 2] - corner[:, 0])
    h, w = mesh.texture.shape[:2]
    x, y = np.clip(uv[:, 0] * w - 0.5, 0, w - 1), np.clip((1.0 - uv[:, 1]) * h - 0.5, 0, h - 1)
    x0, y0 = x.astype(np.int64), y.astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = mesh.texture[y0, x0] * (1 - fx) + mesh.texture[y0, x1] * fx
    bottom = mesh.texture[y1, x0] * (1 - fx) + mesh.texture[y1, x1] * fx
    out[hit] = np.rint(top * (1 - fy) + bottom * fy).astype(np.uint8)
    return out
