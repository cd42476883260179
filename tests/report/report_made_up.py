"""A made-up room for the report's tests: floor, back wall, one box, exact depth."""

from __future__ import annotations

import numpy as np

from lyra_core.report import ReportInputs
from lyra_core.types import Camera, DepthEstimate, Episode, Frame, FreeSpace, Label, Photo, PhotoReading, Provenance

HEIGHT = 1.5
R_WORLD_CAMERA = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""A level camera that looks along world +x."""


def pitched(pitch: float) -> np.ndarray:
    """Return T_world_camera of the camera at HEIGHT, turned down by pitch [rad]."""
    c, s = np.cos(pitch), np.sin(pitch)
    T = np.eye(4)
    T[:3, :3] = R_WORLD_CAMERA @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
    T[2, 3] = HEIGHT
    return T


def room(camera: Camera, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (H, W) float32 [m] and labels (H, W) uint8 of a floor, a wall at x = 6 m and a box at x = 3 m."""
    rays = camera.rays() @ T[:3, :3].T
    origin = T[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = np.where(rays[..., 2] < 0, -origin[2] / rays[..., 2], np.inf)
        wall = np.where(rays[..., 0] > 0, 6.0 / rays[..., 0], np.inf)
        box = np.where(rays[..., 0] > 0, 3.0 / rays[..., 0], np.inf)
    at = origin + rays * np.where(np.isfinite(box), box, 0)[..., None]
    box = np.where((abs(at[..., 1] - 0.8) < 0.4) & (at[..., 2] > 0) & (at[..., 2] < 0.9), box, np.inf)
    height = origin[2] + rays[..., 2] * np.where(np.isfinite(wall), wall, 0)
    sky = height > 2.6
    every = np.stack([floor, wall, box])
    labels = np.array([Label.FLOOR, Label.WALL, Label.OBSTACLE], np.uint8)[every.argmin(0)]
    depth = every.min(0).astype(np.float32)
    labels[sky & (labels == Label.WALL)], depth[sky & (labels == Label.WALL)] = Label.SKY, np.nan
    depth[labels == Label.SKY] = np.nan
    return depth, labels


def inputs(*, width: int = 320, height: int = 200, pitch: float = 0.1, findings: tuple[str, ...] = ()) -> ReportInputs:
    """Make everything a report needs."""
    camera, T = Camera.from_focal(0.8 * max(width, height), width, height), pitched(pitch)
    depth, labels = room(camera, T)
    shade = np.clip(230 - 25 * np.nan_to_num(depth, nan=1.0), 30, 240)[..., None]
    tint = np.array([[0.9, 0.9, 0.9], [0.8, 0.7, 0.55], [0.85, 0.85, 0.8], [1, 1, 1], [0.5, 0.35, 0.3], [0.6, 0.8, 1.0], [1, 1, 1]])
    rgb = np.clip(shade * tint[labels], 0, 255).astype(np.uint8)
    lines = np.array([[0, height - 1, width / 2, height / 2], [width - 1, height - 1, width / 2, height / 2]], np.float32)
    reading = PhotoReading(camera, T, labels, "indoor", lines,
                           {"overall": 0.62, "line_support": 0.71, "floor_separation": 0.5, "visible_floor_m2": 11.3}, 0.15,
                           ("The focal length is estimated from vanishing points.",
                            "The camera height of 1.5 m is assumed, not measured."))
    estimate = DepthEstimate(depth, labels, camera, T, None, "geometric", 0.15, ("The depth behind <the box> is a guess.",))
    views = []
    for i in range(8):
        pose = pitched(pitch)
        pose[0, 3] = 0.3 * i
        provenance = np.zeros((height, width), np.uint8)
        provenance[:, width * i // 8:] = Provenance.CONTINUED
        provenance[: height // 4] = Provenance.INVENTED
        views.append(Frame(np.roll(rgb, 20 * i, 1), depth, camera, pose, provenance))
    photo = Photo(rgb, "ab" * 32, "made_up.jpg", licence="CC0-1.0")
    episodes = [Episode("0", np.array([0.5, -1, 0]), 0.0, np.array([8.0, 2.0, 0]), 8.1, 0.3)]
    path = np.array([[0.5, -1], [4.0, -1.2], [8.0, 2.0]])
    numbers = {"triangles": 12034, "splats": 250000, "walkable_m2": 74.25, "mesh": {"texture_px": 2048, "closed": True}}
    return ReportInputs(photo, reading, estimate, grid(), views, episodes, numbers, list(findings), [path])


def grid() -> FreeSpace:
    """Return 12 x 8 m of floor at 0.1 m: x < 4 seen, x < 7 continued, the rest invented; a box of 1 m stands in it."""
    free = np.ones((80, 120), bool)
    free[:2] = free[-2:] = free[:, :2] = free[:, -2:] = False
    free[44:54, 40:50] = False
    provenance = np.full((80, 120), Provenance.SEEN, np.uint8)
    provenance[:, 50:] = Provenance.CONTINUED
    provenance[:, 80:] = Provenance.INVENTED
    provenance[:12, 90:] = 255
    return FreeSpace(np.array([-1.0, -4.0]), 0.1, free & (provenance != 255), free.astype(np.float32), provenance, 1.5)
