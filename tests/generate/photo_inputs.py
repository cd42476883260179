"""Analytic photos for the procedural generator: boxes in a room or between two rows of houses, with exact depth and labels."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.upright import rotation_from_down
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.types import Camera, DepthEstimate, Label

WIDTH, HEIGHT = 288, 216
ROOM = np.array([[-1.5, -2.4, 0.0], [4.8, 2.1, 2.6]])
ROOM_BOXES = np.array([[[2.6, 0.5, 0.0], [3.3, 1.3, 0.8]], [[3.9, -1.6, 0.0], [4.5, -0.5, 1.1]]])
STREET = np.array([[-20.0, -7.0, 0.0], [45.0, 6.0, 7.0]])
STREET_BOXES = np.array([[[8.0, 2.5, 0.0], [11.5, 4.2, 1.5]]])
COLOURS = {Label.FLOOR: (120, 90, 65), Label.WALL: (200, 195, 180), Label.CEILING: (236, 235, 230), Label.OBSTACLE: (45, 75, 130),
           Label.SKY: (130, 170, 220)}  # fmt: skip


def photo(*, indoor: bool = True, pitch: float = 9.0, camera_height: float = 1.5) -> PhotoSource:
    """Render the room, or the street with open sky above its 7 m high fronts, by slab tests."""
    camera, T = Camera.from_focal(0.75 * WIDTH, WIDTH, HEIGHT), np.eye(4)
    tilt = np.deg2rad(pitch)
    T[:3, :3] = rotation_from_down(np.array([0.0, np.cos(tilt), np.sin(tilt)]))
    T[2, 3] = camera_height
    hull, boxes = (ROOM, ROOM_BOXES) if indoor else (STREET, STREET_BOXES)
    rays = camera.rays().astype(float) @ T[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        exits = np.where(rays > 0, (hull[1] - T[:3, 3]) / rays, (hull[0] - T[:3, 3]) / rays)
    axis, depth = exits.argmin(-1), exits.min(-1)
    labels = np.full(depth.shape, Label.WALL, np.uint8)
    labels[(axis == 2) & (rays[..., 2] < 0)] = Label.FLOOR
    labels[(axis == 2) & (rays[..., 2] > 0)] = Label.CEILING if indoor else Label.SKY
    for box in boxes:
        with np.errstate(divide="ignore", invalid="ignore"):
            slabs = np.sort(np.stack([(box[k] - T[:3, 3]) / rays for k in (0, 1)]), axis=0)
        enter, leave = slabs[0].max(-1), slabs[1].min(-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth, axis = np.where(hit, enter, depth), np.where(hit, slabs[0].argmax(-1), axis)
        labels[hit] = Label.OBSTACLE
    rgb = _painted(rays * depth[..., None] + T[:3, 3], labels, axis)
    depth = np.where(labels == Label.SKY, np.nan, depth).astype(np.float32)
    ceiling = float(ROOM[1, 2]) if indoor else None
    return PhotoSource(rgb, DepthEstimate(depth, labels, camera, T, ceiling, "analytic", 0.0))


def mirrored(source: PhotoSource) -> PhotoSource:
    """Return the picture seen in a mirror; the camera is level across and centred, so its pose stays."""
    e = source.estimate
    depth, labels = np.ascontiguousarray(e.depth[:, ::-1]), np.ascontiguousarray(e.labels[:, ::-1])
    flipped = DepthEstimate(depth, labels, e.camera, e.T_world_camera, e.ceiling_height, e.source, e.scale_sigma)
    return PhotoSource(np.ascontiguousarray(source.rgb[:, ::-1]), flipped)


def _painted(points: np.ndarray, labels: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Planks, panels and grain, soft enough to survive resampling."""
    out = np.zeros((*labels.shape, 3))
    for label, colour in COLOURS.items():
        out[labels == label] = colour
    out *= np.array([0.88, 1.0, 1.0])[axis][..., None]
    x, y, z = np.moveaxis(points, -1, 0)
    along = np.where(axis == 0, y, x)
    wave = np.where(labels == Label.FLOOR, 0.25 * np.sin(2 * np.pi * y / 0.5), 0.2 * np.sin(2 * np.pi * along / 0.8))
    wave = np.where(labels == Label.SKY, 0.0, wave + np.where(labels == Label.WALL, 0.15 * np.sin(2 * np.pi * z / 0.7), 0.0))
    grain = np.random.default_rng(5).normal(0, 2.5, (*labels.shape, 1))
    return np.clip(out * (1 + wave)[..., None] + grain, 0, 255).astype(np.uint8)
