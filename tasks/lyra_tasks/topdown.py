"""The map picture that people see beside the robot's view."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.types import FreeSpace, Provenance

COLOURS = {Provenance.SEEN: (236, 240, 232), Provenance.CONTINUED: (214, 226, 240), Provenance.INVENTED: (240, 226, 204)}
"""Floor by origin: seen greenish white, continued blueish, invented sand."""
BLOCKED, OUTSIDE = (96, 96, 104), (40, 42, 48)
PATH, SHORTEST, START, GOAL, ROBOT = (30, 110, 220), (120, 170, 120), (60, 60, 60), (210, 50, 40), (20, 60, 160)


class TopDownMap:
    """Draws episodes over the free space; x points right, y up, square pixels."""

    def __init__(self, space: FreeSpace, height: int, width: int) -> None:
        self.height, self.width = height, width
        rows, cols = np.nonzero(space.provenance != 255)
        low = space.origin + (np.array([cols.min(), rows.min()]) - 1) * space.cell
        high = space.origin + (np.array([cols.max(), rows.max()]) + 2) * space.cell
        self.scale = min(width / (high[0] - low[0]), height / (high[1] - low[1]))
        # The world's middle comes to the picture's middle.
        self.corner = (low + high) / 2 - np.array([width, height]) / (2 * self.scale)
        self.base = self._draw_base(space)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Return (N, 2) float pixel coordinates of world points (N, 2) [m]."""
        uv = (points - self.corner) * self.scale
        return np.stack([uv[:, 0], self.height - uv[:, 1]], 1)

    def draw(self, *, start: np.ndarray, goal: np.ndarray, track: np.ndarray, yaw: float, radius: float,
             shortest: np.ndarray | None = None) -> np.ndarray:
        """Return (height, width, 3) uint8 with the episode drawn in.

        Args:
            start, goal: (2,) [m].
            track: (N, 2) places so far, the last is the robot [m].
            yaw: robot heading [rad].
            radius: robot radius [m].
            shortest: (N, 2) shortest path [m], or None.
        """
        picture = self.base.copy()
        if shortest is not None:
            self._polyline(picture, shortest, SHORTEST, 1)
        self._polyline(picture, track, PATH, 2)
        self._disc(picture, start, max(0.12 * self.scale, 3), START)
        self._disc(picture, goal, max(0.2 * self.scale, 4), GOAL)
        self._disc(picture, track[-1], max(radius * self.scale, 4), ROBOT)
        nose = track[-1] + 1.8 * max(radius, 4 / self.scale) * np.array([np.cos(yaw), np.sin(yaw)])
        self._polyline(picture, np.stack([track[-1], nose]), ROBOT, 2)
        return picture

    def _draw_base(self, space: FreeSpace) -> np.ndarray:
        v, u = np.mgrid[: self.height, : self.width] + 0.5
        x, y = self.corner[0] + u / self.scale, self.corner[1] + (self.height - v) / self.scale
        col, row = (np.floor((a - o) / space.cell).astype(int) for a, o in ((x, space.origin[0]), (y, space.origin[1])))
        inside = (col >= 0) & (row >= 0) & (col < space.free.shape[1]) & (row < space.free.shape[0])
        col, row = col * inside, row * inside
        provenance, free = space.provenance[row, col], space.free[row, col]
        out = np.full((self.height, self.width, 3), OUTSIDE, np.uint8)
        out[inside & (provenance != 255)] = BLOCKED
        for kind, colour in COLOURS.items():
            out[inside & free & (provenance == kind)] = colour
        return out

    def _polyline(self, picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
        fixed = np.rint(self.pixels(points) * 16 - 8).astype(np.int32)
        cv2.polylines(picture, [fixed[:, None]], False, colour, thickness, cv2.LINE_AA, 4)

    def _disc(self, picture: np.ndarray, centre: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        u, v = np.rint(self.pixels(centre[None])[0] * 16 - 8).astype(int)
        cv2.circle(picture, (int(u), int(v)), round(radius * 16), colour, -1, cv2.LINE_AA, 4)
