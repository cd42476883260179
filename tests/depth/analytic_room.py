"""An analytic furnished room: exact depth, labels and camera, and a picture of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from lyra_core.camera.upright import rotation_from_down
from lyra_core.types import Camera, Label, Photo

ROOM = np.array([[-1.0, -2.6, 0.0], [5.2, 2.6, 2.7]])
BOX = np.array([[2.8, 0.3, 0.0], [3.5, 1.2, 0.85]])


def render_room(width: int = 640, height: int = 480, *, focal: float = 0.75, pitch: float = 9.0, roll: float = 1.0,
                camera_height: float = 1.5, box: bool = True) -> SimpleNamespace:
    """Return photo, camera, T_world_camera, depth and labels of the room; focal in units of the width, angles in degrees."""
    p, r = np.deg2rad(pitch), np.deg2rad(roll)
    camera, T = Camera.from_focal(focal * width, width, height), np.eye(4)
    T[:3, :3] = rotation_from_down(np.array([np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), np.sin(p)]))
    T[2, 3] = camera_height
    rays = camera.rays().astype(float) @ T[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        exits = np.where(rays > 0, (ROOM[1] - T[:3, 3]) / rays, (ROOM[0] - T[:3, 3]) / rays)
    axis, depth = exits.argmin(-1), exits.min(-1)
    labels = np.full(depth.shape, Label.WALL, np.uint8)
    labels[(axis == 2) & (rays[..., 2] < 0)], labels[(axis == 2) & (rays[..., 2] > 0)] = Label.FLOOR, Label.CEILING
    if box:
        with np.errstate(divide="ignore", invalid="ignore"):
            slabs = np.sort(np.stack([(BOX[k] - T[:3, 3]) / rays for k in (0, 1)]), axis=0)
        enter, leave = slabs[0].max(-1), slabs[1].min(-1)
        hit = (enter < leave) & (enter > 0)
        depth, labels = np.where(hit, enter, depth), np.where(hit, Label.OBSTACLE, labels).astype(np.uint8)
        axis = np.where(hit, slabs[0].argmax(-1), axis)
    points = rays * depth[..., None] + T[:3, 3]
    return SimpleNamespace(photo=Photo(_paint(points, labels, axis), "0" * 64, "room.png", focal * width, "user"), camera=camera,
                           T_world_camera=T, depth=depth.astype(np.float32), labels=labels)


def _paint(points: np.ndarray, labels: np.ndarray, axis: np.ndarray) -> np.ndarray:
    colours = {Label.FLOOR: (120, 85, 60), Label.WALL: (205, 200, 185), Label.CEILING: (235, 235, 230),
               Label.OBSTACLE: (40, 70, 130)}
    out = np.zeros((*labels.shape, 3))
    for label, colour in colours.items():
        out[labels == label] = colour
    out *= np.array([0.9, 1.0, 1.0])[axis][..., None]
    along = np.where(axis == 0, points[..., 1], points[..., 0])
    panel = (np.abs((along + 0.35) % 1.3 - 0.65) < 0.02) | (np.abs(points[..., 2] - 1.9) < 0.02) | (points[..., 2] < 0.09)
    out[(labels == Label.WALL) & panel] *= 0.6
    planks = np.abs(points[..., 1] % 0.3 - 0.15) < 0.012
    out[(labels == Label.FLOOR) & planks] *= 0.85
    noise = np.random.default_rng(5).normal(0, 3, (*labels.shape, 1))
    return np.clip(out + noise, 0, 255).astype(np.uint8)
