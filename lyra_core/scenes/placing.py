"""Where a photographer may stand and look: free places on the floor, views that show something."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.scenes.intersect import SceneHits, cast, near_solids, rotate
from lyra_core.scenes.scene import Scene, rotation
from lyra_core.types import Camera, Label

CLEARANCE = 0.3
"""The lens keeps at least this distance from every solid [m]."""
PROBE = (16, 12)
"""Rays across and down that judge a view."""


def clearance(scene: Scene, point: np.ndarray) -> np.ndarray:
    """Return (P,) distances of a point (3,) from every solid [m], 0 inside; exact but for ellipsoids: a lower bound."""
    off = point - scene.T_world_local[:, :3, 3]
    p = np.einsum("nji,nj->ni", scene.T_world_local[:, :3, :3], off)
    inner = scene.size - scene.extra[:, None]
    box = np.linalg.norm(np.maximum(np.abs(p) - inner, 0), axis=1) - scene.extra
    radii = np.maximum(scene.size, 1e-9)
    around = np.linalg.norm(np.maximum(np.abs(p) - radii, 0), axis=1)
    ellipsoid = np.maximum((np.linalg.norm(p / radii, axis=1) - 1) * radii.min(1), around)
    return np.maximum(np.choose(scene.kind, [box, ellipsoid, _from_cone(p, scene.size)]), 0.0)


def _from_cone(p: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Return distances from truncated cones: from the segments of the outline in the half plane of radius and height."""
    r, z = np.hypot(p[:, 0], p[:, 1]), p[:, 2]
    bottom, top, half = size.T
    inside = (np.abs(z) <= half) & (r <= (bottom + top) / 2 + (top - bottom) / 2 * z / half)
    corners = [(np.zeros_like(half), -half), (bottom, -half), (top, half), (np.zeros_like(half), half)]
    best = np.full(len(p), np.inf)
    for (r0, z0), (r1, z1) in pairwise(corners):
        dr, dz = r1 - r0, z1 - z0
        t = np.clip(((r - r0) * dr + (z - z0) * dz) / np.maximum(dr * dr + dz * dz, 1e-18), 0, 1)
        best = np.minimum(best, np.hypot(r - r0 - t * dr, z - z0 - t * dz))
    return np.where(inside, 0.0, best)


def ground_below(scene: Scene, point: np.ndarray) -> tuple[float, int]:
    """Return height [m] and label of the first surface straight below a point (3,); NaN and SKY where there is none."""
    down = np.array([[0.0, 0.0, -1.0]])
    hit = cast(scene, point[None], down, solids=near_solids(scene, point, down))
    if hit.solid[0] < 0:
        return float("nan"), int(Label.SKY)
    return float(point[2] - hit.t[0]), int(scene.label[hit.solid[0]])


def probe(scene: Scene, camera: Camera, T_world_camera: np.ndarray) -> tuple[SceneHits, np.ndarray]:
    """Return the hits and labels (n,) of a coarse grid of the camera's rays."""
    small = camera.resized(*(PROBE if camera.width >= camera.height else PROBE[::-1]))
    d = rotate(T_world_camera[:3, :3], small.rays().reshape(-1, 3))
    hits = cast(scene, np.broadcast_to(T_world_camera[:3, 3], d.shape), d, solids=near_solids(scene, T_world_camera[:3, 3], d))
    return hits, np.where(hits.solid >= 0, scene.label[hits.solid], np.uint8(Label.SKY))


def standing_place(rng: np.random.Generator, scene: Scene, height: float, *, tries: int = 60) -> np.ndarray | None:
    """Return a place (3,) for a lens at this height [m] above the floor below it, clear of all solids, or None."""
    x0, y0, x1, y1 = scene.walkable
    for _ in range(tries):
        top = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), 2.2])
        if clearance(scene, top).min() <= 0:
            continue
        ground, label = ground_below(scene, top)
        if label != Label.FLOOR:
            continue
        eye, knee = top.copy(), top.copy()
        eye[2], knee[2] = ground + height, ground + 0.5
        if clearance(scene, eye).min() >= CLEARANCE and clearance(scene, knee).min() >= 0.15:
            return eye
    return None


def choose_view(
    rng: np.random.Generator,
    scene: Scene,
    camera: Camera,
    *,
    height: float,
    pitch: float,
    roll: float,
    show_floor: bool,
    tries: int = 9,
) -> np.ndarray:
    """Return T_world_camera (4, 4): the best of some standing places and directions; pitch [rad] is downwards.

    Raises:
        RuntimeError: the scene has no place to stand, which is a fault of its maker.
    """
    views: list[tuple[float, np.ndarray]] = []
    for i in range(4 * tries):
        eye = standing_place(rng, scene, height)
        if eye is None:
            continue
        T = from_yaw_pitch(eye, _open_direction(rng, scene, eye), -pitch)
        T[:3, :3] = T[:3, :3] @ rotation("z", roll)
        views.append((_interest(scene, camera, T, show_floor), T))
        if i + 1 >= tries and max(score for score, _ in views) > 0.3:
            break
    if not views:
        raise RuntimeError("choose_view: the scene has no free place to stand")
    return max(views, key=lambda view: view[0])[1]


def _open_direction(rng: np.random.Generator, scene: Scene, eye: np.ndarray) -> float:
    """Return a random yaw [rad], likelier where the view reaches far: people look across a room, not at the next wall."""
    yaw = rng.uniform(-np.pi, np.pi) + np.arange(12) * (np.pi / 6)
    d = np.stack([np.cos(yaw), np.sin(yaw), np.full(12, -0.08)], -1)
    reach = np.minimum(cast(scene, np.broadcast_to(eye, d.shape), d).t, 12.0) ** 1.5
    chosen = float(yaw[rng.choice(12, p=reach / reach.sum())])
    if rng.random() < 0.3:
        return round(chosen / (np.pi / 2)) * np.pi / 2 + float(rng.normal(0, 0.03))
    return chosen


def _interest(scene: Scene, camera: Camera, T: np.ndarray, show_floor: bool) -> float:
    """Return a score: positive for a view that shows several things at some distance."""
    hits, labels = probe(scene, camera, T)
    depth = np.where(hits.solid >= 0, hits.t, 50.0)
    solids, counts = np.unique(hits.solid[(hits.solid >= 0) & (labels != Label.FLOOR)], return_counts=True)
    largest = counts.max() / len(labels) if len(solids) else 0.0
    floor, obstacle, sky = (float((labels == label).mean()) for label in (Label.FLOOR, Label.OBSTACLE, Label.SKY))
    faults = (
        max(0.0, 2.0 - float(np.median(depth))),
        max(0.0, float((depth < 0.9).mean()) - 0.04) * 3,
        max(0.0, largest - 0.4) * 2,
        max(0.0, 0.1 - obstacle) * 4,
        max(0.0, 0.14 - floor if show_floor else floor - 0.04) * 8,
        max(0.0, floor - 0.5) * 3,
        max(0.0, sky - 0.4) * 3,
    )
    merits = 0.02 * min(len(solids), 25) + 0.8 * min(obstacle, 0.35) + 0.5 * min(floor, 0.3) * show_floor
    return merits - float(sum(faults))
