"""Pure pursuit: the speed and turn rate that bring a differential-drive robot along a polyline."""

from __future__ import annotations

import numpy as np

STEP = 0.02
"""Spacing of the resampled paths [m]."""


class PurePursuit:
    """Steers many robots, each along its own polyline.

    Each robot aims at the point of its path ``lookahead`` metres ahead of its progress and drives the arc that leads there
    (Coulter, "Implementation of the Pure Pursuit Path Tracking Algorithm", CMU-RI-TR-92-01, section 2); it turns on the spot
    while the point is more than 45 degrees aside, as a robot with two driven wheels can.
    """

    def __init__(self, paths: list[np.ndarray], *, speed: float, turn_rate: float = 1.5, lookahead: float = 0.25,
                 goal_tolerance: float = 0.1) -> None:
        self._paths = [_resampled(path) for path in paths]
        self._progress = np.zeros(len(paths), int)
        self.goals = np.array([path[-1] for path in self._paths])
        self.arrived = np.zeros(len(paths), bool)
        self._speed, self._turn_rate, self._ahead, self._tolerance = speed, turn_rate, round(lookahead / STEP), goal_tolerance

    def command(self, positions: np.ndarray, yaws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (N,) forward speed [m/s] and (N,) turn rate [rad/s] for positions (N, 2) [m] and yaws (N,) [rad]."""
        target = np.empty_like(positions)
        for i, path in enumerate(self._paths):
            low = self._progress[i]
            # Progress only grows, and only along the next metre: where a path passes itself, the robot does not jump ahead.
            window = path[low:low + round(1.0 / STEP)]
            self._progress[i] = low + int(np.argmin(((window - positions[i]) ** 2).sum(1)))
            target[i] = path[min(self._progress[i] + self._ahead, len(path) - 1)]
        gap = np.linalg.norm(self.goals - positions, axis=1)
        self.arrived |= gap <= self._tolerance
        offset = target - positions
        distance = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
        bearing = np.arctan2(offset[:, 1], offset[:, 0]) - yaws
        bearing = (bearing + np.pi) % (2 * np.pi) - np.pi
        forward = np.where(np.abs(bearing) > np.pi / 4, 0.0, self._speed * np.cos(bearing) ** 2 * np.minimum(1.0, gap / 0.2 + 0.2))
        turn = np.where(forward > 0, 2 * np.sin(bearing) / distance * forward, 2.0 * bearing)
        turn = np.clip(turn, -self._turn_rate, self._turn_rate)
        return np.where(self.arrived, 0.0, forward), np.where(self.arrived, 0.0, turn)


def path_length(path: np.ndarray) -> float:
    """Return the horizontal length of a polyline (M, 2 or 3) [m]."""
    return float(np.linalg.norm(np.diff(np.asarray(path, np.float64)[:, :2], axis=0), axis=1).sum())


def _resampled(path: np.ndarray) -> np.ndarray:
    xy = np.asarray(path, np.float64)[:, :2]
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])
    at = np.linspace(0, along[-1], max(2, int(np.ceil(along[-1] / STEP)) + 1))
    return np.stack([np.interp(at, along, xy[:, k]) for k in range(2)], 1)
