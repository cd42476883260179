"""A disc-shaped robot on the grid: exact distances for continuous positions."""

from __future__ import annotations

import numpy as np

from lyra_core.types import FreeSpace

TOLERANCE = 1e-9
"""Slack of comparisons [m]."""


class DiscSpace:
    """The places of a disc's centre: its cell is traversable and no blocked cell is nearer than the radius."""

    def __init__(self, space: FreeSpace, radius: float) -> None:
        self.space, self.radius = space, radius
        self.traversable = space.traversable(radius)
        """(rows, cols) bool."""
        self._reach = int(np.ceil(radius / space.cell)) + 1
        offset = np.arange(-self._reach, self._reach + 1)
        self._rows, self._cols = (a.ravel() for a in np.meshgrid(offset, offset, indexing="ij"))
        self._blocked = np.pad(~space.free, self._reach, constant_values=True)

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return row and column (N,) of points (N, 2) [m], clipped to the grid (whose rim is never free)."""
        ij = np.floor((points - self.space.origin) / self.space.cell).astype(np.int64)
        return np.clip(ij[:, 1], 0, self.traversable.shape[0] - 1), np.clip(ij[:, 0], 0, self.traversable.shape[1] - 1)

    def centres(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Return cell centres (N, 2) [m]."""
        return self.space.origin + (np.stack([cols, rows], -1) + 0.5) * self.space.cell

    def slack(self, points: np.ndarray) -> np.ndarray:
        """Return the distance to the nearest blocked cell minus the radius, (N,) [m].

        Exact below one cell; above, a lower bound that can safely be moved.
        """
        rows, cols = self.cells(points)
        offset = np.linalg.norm(points - self.centres(rows, cols), axis=1)
        # Clearance changes by at most the distance moved (it is 1-Lipschitz), which settles most points.
        out = self.space.clearance[rows, cols] - offset - self.radius
        near = np.flatnonzero(out < self.space.cell)
        if len(near):
            out[near] = self.nearest_blocked(points[near])[0] - self.radius
        return out

    def nearest_blocked(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return distance (N,) and place (N, 2) of the nearest point of a blocked cell [m].

        Searched within the radius plus one cell; further away the distance is that bound and the place is the point.
        """
        cell, reach = self.space.cell, self._reach
        rows, cols = self.cells(points)
        row, col = rows[:, None] + self._rows, cols[:, None] + self._cols
        blocked = self._blocked[row + reach, col + reach]
        low = self.space.origin + np.stack([col, row], -1) * cell
        place = np.clip(points[:, None, :], low, low + cell)
        distance = np.where(blocked, np.linalg.norm(place - points[:, None, :], axis=2), np.inf)
        best = distance.argmin(1)
        pick = np.arange(len(points))
        found, bound = distance[pick, best], self.radius + cell
        hit = found < bound
        return np.where(hit, found, bound), np.where(hit[:, None], place[pick, best], points)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Tell for points (N, 2) whether the disc can be there, (N,) bool."""
        rows, cols = self.cells(points)
        out = self.traversable[rows, cols]
        bound = self.space.clearance[rows, cols] - np.linalg.norm(points - self.centres(rows, cols), axis=1) - self.radius
        doubt = np.flatnonzero(out & (bound < 0))
        if len(doubt):
            out[doubt] = self.nearest_blocked(points[doubt])[0] >= self.radius - TOLERANCE
        return out

    def segment_free(self, start: np.ndarray, end: np.ndarray) -> bool:
        """Tell whether the disc can move straight from start to end (2,), sampled every quarter of a cell."""
        count = int(np.ceil(np.linalg.norm(end - start) / (0.25 * self.space.cell))) + 1
        points = start + np.linspace(0.0, 1.0, count)[:, None] * (end - start)
        rows, cols = self.cells(points)
        return bool(self.traversable[rows, cols].all() and self.contains(points).all())
