"""A Manhattan room as upright planes around the camera: where its walls, corners and ceiling are seen."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.backdrop import down_limits
from lyra_core.types import RoomBox


def wall_normals(yaw: float) -> np.ndarray:
    """Return (3, 2): outward normals (world x, y) of the front, left and right wall of a room turned left by ``yaw`` [rad]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([(c, s), (-s, c), (s, -c)])


def facing(yaw: float, right: np.ndarray) -> np.ndarray:
    """Return (3, *right.shape): how much each wall faces the ray (1, -right).

    The foot of a wall is seen at ``down`` = camera height / its offset * this.
    """
    normals = wall_normals(yaw)
    return np.stack([x - y * right for x, y in normals])


def box_walls(room: RoomBox, right: np.ndarray, camera_height: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``down`` at which the room's walls meet the floor at columns ``right``, and the wall's index (front, left, right)."""
    shape = (3,) + (1,) * np.ndim(right)
    value = facing(room.yaw, right) * (camera_height / np.array([room.front, room.left, room.right]).reshape(shape))
    return value.max(0), value.argmax(0)


def room_wall(room: RoomBox, right: np.ndarray, camera_height: float) -> np.ndarray:
    """Return (C,) ``down`` at which the room's walls meet the floor, within the bounds of indoor walls."""
    limits = down_limits("indoor", camera_height)
    return np.clip(box_walls(room, right, camera_height)[0], limits["farthest"], limits["nearest"])


def corner_column(yaw: float, front: np.ndarray, side: np.ndarray, *, left: bool) -> np.ndarray:
    """Return ``right`` of the corner between the front wall and a side wall at the given offsets [m] (broadcast together)."""
    normals = wall_normals(yaw)
    (fx, fy), (sx, sy) = normals[0], normals[1 if left else 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return (fx / front - sx / side) / (fy / front - sy / side)
