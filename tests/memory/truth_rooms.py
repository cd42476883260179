"""A row of rooms with doors at alternating sides, ray-cast exactly: the truth that retrieval is checked against."""

from __future__ import annotations

import numpy as np
import trimesh

from lyra_core.camera.se3 import from_yaw_pitch, inverse
from lyra_core.camera.warp import project
from lyra_core.rays.base import cast_camera, make_ray_tracer
from lyra_core.types import Camera, Frame

SIDE, HEIGHT = 5.0, 2.6
CAMERA = Camera.from_focal(28.0, 48, 32)


def build(rooms: int):
    """Return a tracer of ``rooms`` rooms of 5 x 5 m in a row along x; the door at x = 5 k is at y = +1.5 or -1.5, 1 m wide."""
    shell = trimesh.creation.box(bounds=[[0, -SIDE / 2, 0], [rooms * SIDE, SIDE / 2, HEIGHT]])
    parts = [shell]
    for k in range(1, rooms):
        y = door_y(k)
        for low, high in ((-SIDE / 2, y - 0.5), (y + 0.5, SIDE / 2)):
            parts.append(trimesh.creation.box(bounds=[[k * SIDE - 0.05, low, 0], [k * SIDE + 0.05, high, HEIGHT]]))
    parts.append(trimesh.creation.box(bounds=[[2.2, -0.4, 0], [2.9, 0.4, 1.1]]))
    mesh = trimesh.util.concatenate(parts)
    return make_ray_tracer(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def door_y(k: int) -> float:
    return 1.5 if k % 2 else -1.5


def frame(tracer, T_world_camera: np.ndarray, shade: int = 0, *, camera: Camera = CAMERA) -> Frame:
    """Return the true frame of a pose."""
    hits = cast_camera(tracer, camera, T_world_camera)
    depth = np.where(np.isfinite(hits.t), hits.t, np.nan).astype(np.float32).reshape(camera.height, camera.width)
    return Frame(np.full((*depth.shape, 3), shade % 256, np.uint8), depth, camera, T_world_camera, np.zeros(depth.shape, np.uint8))


def walk(rooms: int, per_room: int) -> np.ndarray:
    """Return poses (N, 4, 4) from room 0 through all rooms and back, looking ahead with a slow sway."""
    corners = [np.array([0.8, -1.2])]
    for k in range(1, rooms):
        corners += [np.array([k * SIDE - 0.6, door_y(k)]), np.array([k * SIDE + 0.6, door_y(k)])]
    corners.append(np.array([rooms * SIDE - 0.8, 0.0]))
    corners += corners[-2::-1]
    line = np.array(corners)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    s = np.linspace(0, length[-1], 2 * rooms * per_room)
    xy = np.stack([np.interp(s, length, line[:, i]) for i in range(2)], 1)
    ahead = np.gradient(xy, axis=0)
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0]) + 0.3 * np.sin(s)
    return np.stack([from_yaw_pitch(np.array([x, y, 1.4]), a, -0.15) for (x, y), a in zip(xy, yaw, strict=True)])


def truly_seen(tracer, target: Frame, source: Frame, *, stride: int, tolerance: float = 0.1) -> np.ndarray:
    """Return which of the target's pixels (every stride-th) the source's camera really sees, by casting rays at them."""
    points = target.points()[::stride, ::stride].reshape(-1, 3)
    u, v, z = project(points, source.camera, inverse(source.T_world_camera))
    inside = (z > 0.01) & (u >= 0) & (u < source.camera.width) & (v >= 0) & (v < source.camera.height)
    origin = source.T_world_camera[:3, 3].astype(np.float32)
    towards = (points - origin).astype(np.float32)
    hits = tracer.cast(np.broadcast_to(origin, towards.shape), towards)
    slack = tolerance / np.maximum(np.linalg.norm(towards, axis=1), 1e-6)
    return inside & (hits.t >= 1 - slack)
