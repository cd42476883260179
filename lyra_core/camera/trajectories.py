"""Camera paths: one function per preset. Every path starts exactly at the given camera and is smooth in position and heading."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, RotationSpline

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.errors import ConfigError
from lyra_core.types import Camera, Trajectory

CHUNK_FRAMES = 80
"""New frames per generated chunk; a trajectory has 1 + 80 k."""
DENSE = 2000
"""Samples along a waypoint path before it is re-timed."""
METRES_PER_RADIAN = 0.6
"""What a turn costs beside a walk when a tour is timed."""


def check_frame_count(frames: int) -> None:
    """Require 1 + 80 k frames with k >= 1.

    Raises:
        ConfigError: another number; the nearest valid one is named.
    """
    if frames < 1 + CHUNK_FRAMES or (frames - 1) % CHUNK_FRAMES:
        nearest = 1 + CHUNK_FRAMES * max(1, round((frames - 1) / CHUNK_FRAMES))
        raise ConfigError(f"frames: got {frames}, expected 1 + 80 k; nearest is {nearest}")


def smoothstep(x: np.ndarray | float) -> np.ndarray:
    """Return the C1 ramp 3x^2 - 2x^3 of x clamped to [0, 1]."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)


def progress(frames: int, *, ramp: float = 0.2) -> np.ndarray:
    """Return (frames,) from exactly 0 to exactly 1: speed rises and falls smoothly over a share ``ramp`` of the time."""
    u = (np.arange(frames - 1) + 0.5) / (frames - 1)
    steps = smoothstep(u / ramp) * smoothstep((1 - u) / ramp)
    out = np.concatenate([[0.0], np.cumsum(steps)])
    return out / out[-1]


def walk_forward(camera: Camera, T_world_camera: np.ndarray, frames: int, *, distance: float = 2.0) -> Trajectory:
    """Walk straight ahead on the level by distance [m] while the view levels out."""
    position, yaw, pitch, roll = _upright(T_world_camera)
    s = progress(frames)
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    keep = 1 - smoothstep(np.linspace(0, 1, frames) / 0.5)
    return _assemble(
        camera, T_world_camera, position + distance * s[:, None] * ahead, np.full(frames, yaw), pitch * keep, roll * keep
    )


def look_around(camera: Camera, T_world_camera: np.ndarray, frames: int, *, turn: float = 2 * np.pi) -> Trajectory:
    """Turn on the spot by turn [rad], counter-clockwise; levels out meanwhile and returns to the photo's pitch.

    A whole number of turns ends at the first pose bit for bit.
    """
    position, yaw, pitch, roll = _upright(T_world_camera)
    keep = _away_and_back(frames)
    path = _assemble(
        camera, T_world_camera, np.repeat(position[None], frames, 0), yaw + turn * progress(frames), pitch * keep, roll * keep
    )
    return _closed(path) if turn and turn % (2 * np.pi) == 0 else path


def orbit(camera: Camera, T_world_camera: np.ndarray, frames: int, *, radius: float = 2.5, angle: float = np.pi / 3) -> Trajectory:
    """Circle by angle [rad] about the vertical axis radius [m] ahead; rigid, so the centre stays in place in the picture."""
    position, yaw, _, _ = _upright(T_world_camera)
    centre = position + radius * np.array([np.cos(yaw), np.sin(yaw), 0.0])
    R = Rotation.from_rotvec(np.outer(angle * progress(frames), [0, 0, 1.0])).as_matrix()
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, :3, :3] = R @ T_world_camera[:3, :3]
    T[:, :3, 3] = centre + R @ (position - centre)
    return _trajectory(camera, T_world_camera, T)


def zoom_in_out(
    camera: Camera,
    T_world_camera: np.ndarray,
    frames: int,
    *,
    depth: float = 3.0,
    strength_in: float = 0.5,
    strength_out: float = 1.5,
    lift: float = 0.15,
) -> Trajectory:
    """Go in by strength_in x depth, come back and go out by strength_out x depth, rising by lift per metre behind the start.

    Lyra 2's zoom preset: parallel to the ground, always looking at the point depth x (1 + strength_in) ahead; ``depth`` [m] is
    the near quartile of the scene's depth. Lyra makes the two parts as two videos of 81 and 241 frames from the photo
    and joins them; here it is one path in the same proportion, which starts at the photo.
    """
    position, yaw, _, roll = _upright(T_world_camera)
    share = strength_in / (2 * strength_in + strength_out)
    travelled = progress(frames, ramp=0.15)
    turn_back = np.linspace(0, 1, frames)[np.searchsorted(travelled, share)]
    d = _there_and_on(frames, turn_back, strength_in * depth, -strength_out * depth)
    behind = np.maximum(-d, 0.0)
    up = lift * behind * behind / (behind + 0.2)
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    positions = position + d[:, None] * ahead + up[:, None] * np.array([0, 0, 1.0])
    target = position + T_world_camera[:3, 2] * depth * (1 + strength_in)
    view = target - positions
    pitch = np.arctan2(view[:, 2], np.hypot(view[:, 0], view[:, 1]))
    return _assemble(camera, T_world_camera, positions, np.full(frames, yaw), pitch, np.full(frames, roll))


def loop(camera: Camera, T_world_camera: np.ndarray, frames: int, *, radius: float = 0.8) -> Trajectory:
    """Walk a circle that leaves straight ahead and returns: to the left, to the right with a negative radius [m].

    Looks along the path; the last pose equals the first bit for bit.
    """
    position, yaw, pitch, roll = _upright(T_world_camera)
    theta = np.sign(radius) * 2 * np.pi * progress(frames)
    ahead, left = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    positions = position + radius * ((1 - np.cos(theta))[:, None] * left + np.sign(radius) * np.sin(np.abs(theta))[:, None] * ahead)
    keep = _away_and_back(frames)
    return _closed(_assemble(camera, T_world_camera, positions, yaw + theta, pitch * keep, roll * keep))


def tour(camera: Camera, T_world_camera: np.ndarray, frames: int, *, waypoints: np.ndarray) -> Trajectory:
    """Walk through waypoints (M, 2) or (M, 3) [m], looking along the path; bends are walked slower than straights.

    With two columns the camera keeps its height. The curve is a centripetal Catmull-Rom spline.

    Raises:
        ConfigError: no waypoint, other columns, or NaN.
    """
    position, yaw, pitch, roll = _upright(T_world_camera)
    points = _points(waypoints, position)
    curve, end = catmull_rom(points)
    x = np.linspace(0, end, DENSE)
    dense = curve(x)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(dense[:, :2], axis=0), axis=1))])
    heading = _heading_along(dense, length, yaw)
    cost = np.hypot(np.gradient(length), METRES_PER_RADIAN * np.gradient(heading)) + 1e-9
    time = np.concatenate([[0], np.cumsum((cost[1:] + cost[:-1]) / 2)])
    s = np.interp(progress(frames, ramp=0.1) * time[-1], time, x)
    keep = 1 - smoothstep(np.linspace(0, 1, frames) / 0.3)
    headings = gaussian_filter1d(np.interp(s, x, heading), 2.0, mode="nearest")
    headings += (yaw - headings[0]) * keep
    return _assemble(camera, T_world_camera, curve(s), headings, pitch * keep, roll * keep)


def spline(camera: Camera, T_world_camera: np.ndarray, frames: int, *, waypoints: np.ndarray) -> Trajectory:
    """Fly through camera poses (M, 4, 4): centripetal Catmull-Rom positions, orientations with continuous angular velocity.

    Raises:
        ConfigError: no waypoint, another shape, or NaN.
    """
    T = np.asarray(waypoints, float)
    if T.ndim != 3 or T.shape[1:] != (4, 4) or not len(T) or not np.isfinite(T).all():
        raise ConfigError(f"spline: waypoints: got shape {T.shape}, expected finite poses (M, 4, 4) with M >= 1")
    T = np.concatenate([T_world_camera[None], T])
    moved = np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1) + np.abs(np.diff(T[:, :3, :3], axis=0)).max((1, 2))
    T = T[np.concatenate([[True], moved > 1e-9])]
    if len(T) < 2:
        raise ConfigError("spline: waypoints: got only the start pose, expected at least one other pose")
    gaps = np.maximum(np.linalg.norm(np.diff(T[:, :3, 3], axis=0), axis=1), 0.05)
    curve, end = catmull_rom(T[:, :3, 3], knots=np.concatenate([[0], np.cumsum(np.sqrt(gaps))]))
    turn = RotationSpline(np.concatenate([[0], np.cumsum(np.sqrt(gaps))]), Rotation.from_matrix(T[:, :3, :3]))
    s = progress(frames, ramp=0.1) * end
    out = np.tile(np.eye(4), (frames, 1, 1))
    out[:, :3, :3], out[:, :3, 3] = turn(s).as_matrix(), curve(s)
    return _trajectory(camera, T_world_camera, out)


PRESETS: dict[str, Callable[..., Trajectory]] = {
    "walk_forward": walk_forward,
    "look_around": look_around,
    "orbit": orbit,
    "zoom_in_out": zoom_in_out,
    "loop": loop,
    "tour": tour,
    "spline": spline,
}
NEEDS_WAYPOINTS = ("tour", "spline")


def make_trajectory(
    name: str, camera: Camera, T_world_camera: np.ndarray, frames: int, *, waypoints: np.ndarray | None = None, **options: float
) -> Trajectory:
    """Make a preset path of 1 + 80 k frames from T_world_camera (4, 4); options go to the preset's function.

    Raises:
        ConfigError: unknown name (the nearest is named), wrong frame count, missing or needless waypoints.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"trajectory: got {name!r}; nearest is {near!r}; known: {', '.join(PRESETS)}")
    check_frame_count(frames)
    if (name in NEEDS_WAYPOINTS) != (waypoints is not None):
        raise ConfigError(
            f"trajectory {name!r}: waypoints: got {waypoints!r}, expected {'some' if name in NEEDS_WAYPOINTS else 'none'}"
        )
    extra = {} if waypoints is None else {"waypoints": waypoints}
    return PRESETS[name](camera, T_world_camera, frames, **extra, **options)


def catmull_rom(points: np.ndarray, *, knots: np.ndarray | None = None) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Return the C1 curve through points (M, D), M >= 2, and its last parameter; the first is 0.

    Knots are the square roots of the gaps (centripetal: no cusps, no loops; Yuksel et al. 2011) unless given.
    """
    if knots is None:
        knots = np.concatenate([[0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1)))])
    dt = np.diff(knots)[:, None]
    slope = np.diff(points, axis=0) / dt
    inner = (slope[:-1] * dt[1:] + slope[1:] * dt[:-1]) / (dt[1:] + dt[:-1])
    if len(inner):
        first, last = 1.5 * slope[0] - 0.5 * inner[0], 1.5 * slope[-1] - 0.5 * inner[-1]
    else:
        first = last = slope[0]
    return CubicHermiteSpline(knots, points, np.concatenate([first[None], inner, last[None]])), float(knots[-1])


def _points(waypoints: np.ndarray, position: np.ndarray) -> np.ndarray:
    points = np.asarray(waypoints, float)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or not np.isfinite(points).all():
        raise ConfigError(f"tour: waypoints: got shape {points.shape}, expected finite (M, 2) or (M, 3)")
    if points.shape[1] == 2:
        points = np.column_stack([points, np.full(len(points), position[2])])
    points = np.concatenate([position[None], points])
    points = points[np.concatenate([[True], np.linalg.norm(np.diff(points, axis=0), axis=1) > 1e-6])]
    if len(points) < 2:
        raise ConfigError("tour: waypoints: got only the start, expected at least one other place")
    return points


def _heading_along(dense: np.ndarray, length: np.ndarray, yaw: float) -> np.ndarray:
    """Return smooth unwrapped headings [rad] along a dense path: towards the place 0.6 m ahead, starting at yaw."""
    target = np.minimum(length + 0.6, length[-1])
    ahead = np.column_stack([np.interp(target, length, dense[:, i]) for i in range(2)]) - dense[:, :2]
    known = np.linalg.norm(ahead, axis=1) > 0.05
    if not known.any():
        return np.full(len(dense), yaw)
    last = np.flatnonzero(known)[-1]
    angle = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0])[: last + 1])
    angle = np.concatenate([angle, np.full(len(dense) - last - 1, angle[-1])])
    angle += 2 * np.pi * np.round((yaw - angle[0]) / (2 * np.pi))
    sigma = np.clip(0.3 * len(dense) / max(length[-1], 1e-6), 1, len(dense) / 8)
    angle = gaussian_filter1d(angle, sigma, mode="nearest")
    return yaw + (angle - yaw) * smoothstep(length / min(1.2, 0.5 * length[-1]))


def _away_and_back(frames: int) -> np.ndarray:
    u = np.linspace(0, 1, frames)
    return 1 - smoothstep(u / 0.3) * smoothstep((1 - u) / 0.3)


def _there_and_on(frames: int, turn_back: float, first: float, last: float) -> np.ndarray:
    u = np.linspace(0, 1, frames)
    quintic = [np.clip(x, 0, 1) for x in (u / turn_back, (u - turn_back) / (1 - turn_back))]
    a, b = (x**3 * (10 - 15 * x + 6 * x * x) for x in quintic)
    return first * a + (last - first) * b


def _upright(T_world_camera: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Return position (3,), yaw, pitch (up) and roll [rad] of a camera."""
    R = T_world_camera[:3, :3]
    forward = R[:, 2]
    level = np.hypot(forward[0], forward[1])
    yaw = float(np.arctan2(forward[1], forward[0]) if level > 1e-6 else np.arctan2(R[0, 0], -R[1, 0]))
    pitch = float(np.arctan2(forward[2], level))
    right, down = (from_yaw_pitch(np.zeros(3), yaw, pitch)[:3, i] for i in (0, 1))
    return T_world_camera[:3, 3].astype(float), yaw, pitch, float(np.arctan2(R[:, 0] @ down, R[:, 0] @ right))


def _assemble(
    camera: Camera, T_first: np.ndarray, positions: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, roll: np.ndarray
) -> Trajectory:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    forward = np.stack([cy * cp, sy * cp, sp], -1)
    right0 = np.stack([sy, -cy, np.zeros_like(sy)], -1)
    down0 = np.cross(forward, right0)
    T = np.tile(np.eye(4), (len(yaw), 1, 1))
    T[:, :3, 0] = cr[:, None] * right0 + sr[:, None] * down0
    T[:, :3, 1] = cr[:, None] * down0 - sr[:, None] * right0
    T[:, :3, 2], T[:, :3, 3] = forward, positions
    return _trajectory(camera, T_first, T)


def _trajectory(camera: Camera, T_first: np.ndarray, T: np.ndarray) -> Trajectory:
    T[0] = T_first
    return Trajectory(T, np.repeat(camera.K[None].astype(float), len(T), 0), camera.width, camera.height)


def _closed(path: Trajectory) -> Trajectory:
    path.T_world_camera[-1] = path.T_world_camera[0]
    return path
