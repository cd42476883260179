"""Focal length and gravity from line segments: exhaustive Manhattan search, then refinement.

Most long edges of built places point along gravity or one of two horizontal directions at right angles (Coughlan and
Yuille, Manhattan World, 1999). A hypothesis (focal, pitch, roll, yaw) is scored by the share of line weight that points at
one of its three vanishing points.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from lyra_core.camera.upright import direction_kernels, rotation_from_down
from lyra_core.errors import ConfigError
from lyra_core.photo.lines import MIN_SEGMENTS, Segments
from lyra_core.types import Camera

FOCAL_PRIOR = 0.85
"""Usual focal length in units of the long side (31 mm equivalent)."""
PITCH_PRIOR = np.deg2rad(4.0)
"""People hold cameras a little downwards [rad]."""
MIN_GROUND = 0.24
"""Share of the picture's height that usually lies below the horizon: photos of places show the ground."""
_HORIZON = re.compile(r"\s*(-?\d*\.?\d+)\s*(?:,\s*(-?\d*\.?\d+)\s*)?")
_COARSE_FOCALS = (0.5, 0.62, 0.77, 0.95, 1.18, 1.5)
_COARSE_PITCHES = np.deg2rad(np.arange(-27, 52, 3.0))
_COARSE_ROLLS = np.deg2rad(np.arange(-15, 16, 3.0))
_COARSE_YAWS = np.deg2rad(np.arange(0, 90, 3.0))
_COARSE_SEGMENTS = 240
_COARSE_WIDTH, _FINE_WIDTH = np.deg2rad(3.0), np.deg2rad(1.6)


@dataclass(frozen=True)
class CameraPose:
    """Focal length and orientation of the camera."""

    focal: float
    """In units of the picture's long side."""
    pitch: float
    """Downwards [rad]."""
    roll: float
    """[rad]; positive turns the picture's down direction to the right."""
    yaw: float
    """Direction of the nearest horizontal vanishing point, left of the viewing direction, in [0, 90) degrees [rad]."""
    line_support: float
    """Share of line weight explained beyond chance, in [0, 1]."""
    from_lines: bool
    """False: the orientation is a prior."""

    def down_camera(self) -> np.ndarray:
        """Return the unit gravity direction (3,) in the camera frame."""
        return _down(self.pitch, self.roll)


def find_camera(segments: Segments, width: int, height: int, *, focal: float | None) -> CameraPose:
    """Return the camera that explains the segments best.

    Args:
        segments: of a width x height picture whose principal point is its centre.
        focal: in units of the long side; None = estimate it.
    """
    if len(segments.ends) < MIN_SEGMENTS:
        return CameraPose(focal or FOCAL_PRIOR, PITCH_PRIOR, 0.0, 0.0, 0.0, False)
    long_side = max(width, height)
    middle = (segments.middle - np.array([width / 2, height / 2], np.float32)) / np.float32(long_side)
    tall = height / long_side
    starts = _coarse_search(middle, segments, focal, tall)
    best_value, best = np.inf, starts[0]
    for start in starts:
        free = start if focal is None else start[1:]
        result = minimize(_cost, free, args=(middle, segments, focal, tall), method="Nelder-Mead",
                          options={"xatol": 2e-4, "fatol": 2e-5, "maxfev": 260, "initial_simplex": _simplex(free)})
        if result.fun < best_value:
            best_value, best = float(result.fun), (result.x if focal is None else np.concatenate([start[:1], result.x]))
    log_focal, pitch, roll, yaw = (float(round(x, 6)) for x in best)
    explained = _explained(middle, segments, np.exp(log_focal), pitch, roll, yaw, _FINE_WIDTH)
    support = float(np.clip((explained - 0.12) / 0.6, 0.0, 1.0)) * min(1.0, len(segments.ends) / 40)
    return CameraPose(focal or float(np.exp(log_focal)), pitch, roll, float(np.mod(yaw, np.pi / 2)), support, True)


def as_if_centred(segments: Segments, camera: Camera) -> Segments:
    """Return the segments as a camera with square pixels and its principal point in the middle would see them, weights kept."""
    fx, fy = float(camera.K[0, 0]), float(camera.K[1, 1])
    focal = float(np.sqrt(fx * fy))
    scale = np.array([focal / fx, focal / fy] * 2)
    shift = np.array([camera.width / 2, camera.height / 2] * 2) - np.tile(camera.K[:2, 2], 2) * scale
    ends = (segments.ends * scale + shift).astype(np.float32)
    delta = ends[:, 2:] - ends[:, :2]
    length = np.maximum(np.hypot(delta[:, 0], delta[:, 1]), 1e-6)
    return Segments(ends, (ends[:, :2] + ends[:, 2:]) / 2, delta / length[:, None], segments.weight)


@dataclass(frozen=True)
class Horizon:
    """Where the user says the horizon is."""

    row: float
    """Where it crosses the picture's middle column, as a share of the height from the top."""
    roll: float | None
    """By how much it rises to the right [rad]; None = not said."""

    @staticmethod
    def parse(text: str) -> Horizon:
        """Read 'ROW' or 'ROW,ROLL' (share of the height, degrees).

        Raises:
            ConfigError: another form, a row outside -2..3 or a roll beyond 45 degrees.
        """
        match = _HORIZON.fullmatch(text)
        row, roll = (float(match[1]), float(match[2] or 0)) if match else (np.inf, np.inf)
        if not (-2 <= row <= 3 and abs(roll) <= 45):
            raise ConfigError(f"horizon: got {text!r}, expected ROW or ROW,ROLL: the share of the picture's height from the top at "
                              "which the horizon crosses its middle column (-2 to 3), and by how many degrees it rises to the "
                              "right (-45 to 45)")
        return Horizon(row, np.deg2rad(roll) if match and match[2] else None)

    def pitch(self, focal: float, roll: float, camera: Camera) -> float:
        """Return the pitch [rad] at which the horizon lies there; ``focal`` in units of the long side, as the segments are."""
        across = (camera.width / 2 - camera.K[0, 2]) / camera.K[0, 0]
        below = (self.row * camera.height - camera.K[1, 2]) / (focal * max(camera.width, camera.height))
        return float(-np.arctan(below * np.cos(roll) + across * np.sin(roll)))


def with_horizon(pose: CameraPose, horizon: Horizon, segments: Segments, camera: Camera, *, focal: float | None) -> CameraPose:
    """Return the pose whose horizon is the given one; what it leaves open is fitted to the segments anew.

    Args:
        segments: as if seen by a centred camera.
        camera: of the picture; its principal point counts.
        focal: in units of the long side where it is known; None = estimate it.
    """
    long_side = max(camera.width, camera.height)
    middle = (segments.middle - np.array([camera.width / 2, camera.height / 2], np.float32)) / np.float32(long_side)

    def full(free: np.ndarray) -> np.ndarray:
        log_focal = float(np.log(focal)) if focal is not None else float(free[2])
        roll = float(free[1]) if horizon.roll is None else horizon.roll
        return np.array([log_focal, horizon.pitch(np.exp(log_focal), roll, camera), roll, free[0]])

    start = np.array([pose.yaw, pose.roll, np.log(pose.focal)])
    if not pose.from_lines:
        log_focal, pitch, roll, _ = full(start)
        return replace(pose, pitch=float(pitch), roll=float(roll))
    result = min((minimize(lambda free: _cost(full(free), middle, segments, None, camera.height / long_side),
                           start + np.array([turn, 0.0, 0.0]), method="Nelder-Mead", options={"xatol": 2e-4, "fatol": 2e-5})
                  for turn in np.deg2rad([0, 22, 45, 67])), key=lambda r: float(r.fun))
    log_focal, pitch, roll, yaw = (float(round(x, 6)) for x in full(result.x))
    return replace(pose, focal=focal or float(np.exp(log_focal)), pitch=pitch, roll=roll, yaw=float(np.mod(yaw, np.pi / 2)))


def classify_segments(segments: Segments, pose: CameraPose, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two (M,) bool: segments that are upright in the world and no others, and segments that are level along an axis."""
    if not (pose.from_lines and len(segments.ends)):
        return np.zeros(len(segments.ends), bool), np.zeros(len(segments.ends), bool)
    middle = (segments.middle - np.array([width / 2, height / 2], np.float32)) / np.float32(max(width, height))
    kernels = direction_kernels(middle, segments.tangent, pose.focal, vanishing_directions(pose.pitch, pose.roll, pose.yaw),
                                np.deg2rad(3.0))
    upright, level = kernels[0], kernels[1:].max(0)
    return (upright > 0.4) & (level < 0.25), (level > 0.4) & (upright < 0.25)


def vanishing_directions(pitch: float, roll: float, yaw: float) -> np.ndarray:
    """Return (3, 3): gravity and the two horizontal directions, in the camera frame."""
    R = rotation_from_down(_down(pitch, roll))
    ahead, left = R[0], R[1]
    return np.stack([_down(pitch, roll), np.cos(yaw) * ahead + np.sin(yaw) * left, -np.sin(yaw) * ahead + np.cos(yaw) * left])


def _down(pitch: float, roll: float) -> np.ndarray:
    return np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])


def _prior_cost(log_focal: float, pitch: float, roll: float, height: float) -> float:
    """Return the cost of an unusual camera; ``height`` of the picture in units of the long side."""
    focal_term = 0.025 * ((log_focal - np.log(FOCAL_PRIOR)) / 0.35) ** 2
    pitch_term = 0.022 * np.log1p(((pitch - PITCH_PRIOR) / np.deg2rad(9)) ** 2)
    below_horizon = 0.5 + np.exp(log_focal) * np.tan(np.clip(pitch, -1.2, 1.2)) / height
    ground_term = 2.0 * max(0.0, MIN_GROUND - below_horizon)
    return float(focal_term + pitch_term + ground_term + 0.04 * np.log1p((roll / np.deg2rad(2)) ** 2))


def _explained(middle: np.ndarray, segments: Segments, focal: float, pitch: float, roll: float, yaw: float, width: float) -> float:
    kernels = direction_kernels(middle, segments.tangent, focal, vanishing_directions(pitch, roll, yaw), width)
    return float((kernels.max(0) * segments.weight).sum())


def _cost(free: np.ndarray, middle: np.ndarray, segments: Segments, focal: float | None, height: float) -> float:
    log_focal, pitch, roll, yaw = free if focal is None else (np.log(focal), *free)
    outside = max(0.0, abs(log_focal - np.log(0.9)) - np.log(2.6)) + max(0.0, abs(pitch) - 1.0) + max(0.0, abs(roll) - 0.5)
    return (_prior_cost(log_focal, pitch, roll, height) + 10 * outside
            - _explained(middle, segments, float(np.exp(log_focal)), pitch, roll, yaw, _FINE_WIDTH))


def _simplex(start: np.ndarray) -> np.ndarray:
    steps = np.array([0.12, 0.03, 0.02, 0.03])[-len(start):]
    return np.concatenate([start[None], start[None] + np.diag(steps)])


def _coarse_search(middle: np.ndarray, segments: Segments, focal: float | None, height: float) -> list[np.ndarray]:
    """Return the best distinct (log focal, pitch, roll, yaw) of the grid, best first."""
    middle, tangent = middle[:_COARSE_SEGMENTS], segments.tangent[:_COARSE_SEGMENTS]
    weight = segments.weight[:_COARSE_SEGMENTS] / segments.weight[:_COARSE_SEGMENTS].sum()
    n_yaw, rows = len(_COARSE_YAWS), []
    for f in (focal,) if focal is not None else _COARSE_FOCALS:
        for pitch in _COARSE_PITCHES:
            directions = np.stack([_fan(pitch, roll) for roll in _COARSE_ROLLS])
            kernels = direction_kernels(middle, tangent, f, directions, _COARSE_WIDTH)
            horizontal = np.maximum(kernels[:, 1:1 + n_yaw], kernels[:, 1 + n_yaw:])
            score = (np.maximum(horizontal, kernels[:, :1]) * weight).sum(-1)
            best = score.argmax(1)
            rows += [(score[i, b] - _prior_cost(np.log(f), pitch, roll, height), np.log(f), pitch, roll, _COARSE_YAWS[b])
                     for i, (roll, b) in enumerate(zip(_COARSE_ROLLS, best, strict=True))]
    table = np.array(rows)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    kept: list[np.ndarray] = []
    for row in table[:400]:
        if all(np.abs((row[1:4] - k[:3]) / (0.3, 0.12, 0.12)).max() >= 1 for k in kept):
            kept.append(row[1:])
        if len(kept) == 6:
            break
    return kept


def _fan(pitch: float, roll: float) -> np.ndarray:
    """Return (1 + 2 N, 3): gravity, then horizontal directions every 3 degrees over 180."""
    R = rotation_from_down(_down(pitch, roll))
    angles = np.concatenate([_COARSE_YAWS, _COARSE_YAWS + np.pi / 2])
    return np.concatenate([_down(pitch, roll)[None], np.cos(angles)[:, None] * R[0] + np.sin(angles)[:, None] * R[1]])
