"""Keep camera paths out of the geometry: swept clearance by ray casting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from lyra_core.camera.trajectories import smoothstep
from lyra_core.rays import RayTracer, sphere_directions
from lyra_core.types import Camera, Trajectory

SPHERE_RAYS = 2000
"""Directions all round: 4.5 degrees apart, so a 2 cm thing is met at 0.25 m."""
RING_RAYS = 256
"""Further directions on the level, where poles and door jambs stand."""
MARGIN = 0.01
"""A camera pushed away keeps this much more than the clearance, so that poses between two checked ones keep it too [m]."""
SLOW_TURN = 0.03
"""A camera that waits may turn this much per frame [rad] before the wait counts as a frame."""
PUSHES = 12
"""Attempts to slide off before a step is given up."""


def keep_clear(trajectory: Trajectory, tracer: RayTracer, *, clearance: float = 0.25) -> tuple[Trajectory, int]:
    """Return the path changed so that no camera centre comes nearer than clearance [m] to the mesh, and how many poses changed.

    Each planned step is walked in pieces of a third of the clearance; a piece that comes too near slides off along the surface,
    one that cannot is not taken. Where the camera then stands still and waits, the waiting is cut short and the path re-timed to
    the same number of frames, slowing down before an obstacle that ends it. The first pose never moves; when
    it is nearer than the clearance itself, the path may not come nearer still. A free path is returned as it is.
    """
    planned = trajectory.T_world_camera[:, :3, 3]
    probe = _Probe(tracer, clearance)
    centres = _follow(planned, probe)
    changed = np.linalg.norm(centres - planned, axis=1) > 1e-9
    if not changed.any():
        return trajectory, 0
    T = trajectory.T_world_camera.copy()
    T[:, :3, 3] = centres
    out = replace(trajectory, T_world_camera=_retimed(T, planned))
    same = (out.T_world_camera == trajectory.T_world_camera).all((1, 2))
    return out, int((~same).sum())


def relief(depth: np.ndarray, camera: Camera, T_world_camera: np.ndarray, *, stride: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return triangles (V, 3) world [m], (F, 3) of what one depth picture (H, W) [m] shows: all there is before a world is built.

    Every ``stride``-th pixel is a vertex; triangles with an unknown corner or across a jump of the depth by a quarter are left
    out.
    """
    thin = depth[::stride, ::stride].astype(float)
    rays = camera.rays()[::stride, ::stride].astype(float)
    points = rays * np.nan_to_num(thin)[..., None] @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    index = np.arange(thin.size).reshape(thin.shape)
    a, b, c, d = index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, 1:].ravel(), index[1:, :-1].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    corners = thin.ravel()[faces]
    with np.errstate(invalid="ignore"):
        whole = corners.max(1) < 1.25 * corners.min(1)
    return points.reshape(-1, 3), faces[whole]


class _Probe:
    """Answers how near the mesh is and whether a step is free."""

    def __init__(self, tracer: RayTracer, clearance: float) -> None:
        self.tracer, self.clearance = tracer, clearance
        self.directions = _directions()

    def nearest(self, centre: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the distance [m] to the nearest hit, at most the clearance, and the direction towards it."""
        origins = np.broadcast_to(centre.astype(np.float32), self.directions.shape)
        t = self.tracer.cast(origins, self.directions).t
        i = int(t.argmin())
        return float(min(t[i], self.clearance)), self.directions[i].astype(float)

    def open_between(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Return whether the segment between two centres crosses no surface."""
        if not np.any(a != b):
            return True
        hits = self.tracer.cast(np.array([a, b], np.float32), np.array([b - a, a - b], np.float32))
        return bool((hits.t > 1.0).all())


def _directions() -> np.ndarray:
    """Return (SPHERE_RAYS + RING_RAYS, 3) float32 unit vectors: all round, and once more on the level."""
    a = np.arange(RING_RAYS) * 2 * np.pi / RING_RAYS
    ring = np.column_stack([np.cos(a), np.sin(a), np.zeros(RING_RAYS)])
    return np.concatenate([sphere_directions(SPHERE_RAYS), ring]).astype(np.float32)


def _follow(planned: np.ndarray, probe: _Probe) -> np.ndarray:
    """Return the centres (N, 3) of a camera that follows the planned ones as far as it can."""
    steps = np.linalg.norm(np.diff(planned, axis=0), axis=1)
    fastest = 1.5 * steps.max(initial=0.0)
    out = np.empty_like(planned)
    out[0] = here = planned[0]
    required = probe.nearest(here)[0]
    for i in range(1, len(planned)):
        away = planned[i] - here
        far = np.linalg.norm(away)
        # A camera that fell behind catches up at 1.5 times the highest planned speed, not in one leap.
        target = planned[i] if far <= max(fastest, steps[i - 1]) else here + away * (fastest / far)
        here, required = _step(here, target, required, probe)
        out[i] = here
    return out


def _step(here: np.ndarray, target: np.ndarray, required: float, probe: _Probe) -> tuple[np.ndarray, float]:
    """Walk from here towards target in small pieces; return where it ended and the clearance to keep from there on [m]."""
    pieces = max(1, int(np.ceil(np.linalg.norm(target - here) / (probe.clearance / 3))))
    for left in range(pieces, 0, -1):
        reached = _piece(here, target if left == 1 else here + (target - here) / left, required, probe)
        if reached is None:
            break
        here = reached
        required = max(required, probe.nearest(here)[0])
    return here, required


def _piece(here: np.ndarray, wish: np.ndarray, required: float, probe: _Probe) -> np.ndarray | None:
    """Return the place nearest to wish that keeps the distance and is reached without crossing a surface; None if there is none."""
    candidate = wish
    for _ in range(PUSHES):
        if not probe.open_between(here, candidate):
            return None
        distance, towards = probe.nearest(candidate)
        if distance >= required:
            # A push that leads away from the wish is no slide: the camera would rock to and fro before a wall.
            nearer = np.linalg.norm(candidate - wish) < np.linalg.norm(here - wish)
            return candidate if nearer else None
        candidate = candidate - towards * (required + MARGIN - distance)
    return None


def _retimed(T: np.ndarray, planned: np.ndarray) -> np.ndarray:
    """Shorten the time in which the camera waits for the plan and spread the rest over the same count (N, 4, 4).

    A step that falls behind lasts as long as the share of the plan it covers, or as its turn needs.
    """
    wanted = np.linalg.norm(np.diff(planned, axis=0), axis=1)
    went = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1)
    behind = np.linalg.norm(T[1:, :3, 3] - planned[1:], axis=1) > 1e-6
    rotations = Rotation.from_matrix(T[:, :3, :3])
    turned = (rotations[:-1].inv() * rotations[1:]).magnitude()
    share = np.clip(np.maximum(went / np.maximum(wanted, 1e-9), turned / SLOW_TURN), 1e-6, 1.0)
    lasts = np.where(behind, share, 1.0)
    if lasts.min() > 0.5:
        return T
    n, time = len(T), np.concatenate([[0], np.cumsum(lasts)])
    u = np.linspace(0, 1, n)
    if lasts[-1] < 0.1:
        # The path ends before an obstacle: the speed falls over the last fifth.
        u = np.concatenate([[0], np.cumsum(smoothstep((1 - (np.arange(n - 1) + 0.5) / (n - 1)) / 0.2))])
        u /= u[-1]
    at = np.clip(u * time[-1], 0, time[-1])
    out = np.tile(np.eye(4), (n, 1, 1))
    out[:, :3, :3] = Slerp(time, rotations)(at).as_matrix()
    out[:, :3, 3] = np.column_stack([np.interp(at, time, T[:, i, 3]) for i in range(3)])
    out[0] = T[0]
    return out
