"""Geodesic distance: the length of the shortest path of a disc on the grid, up and down with the ground, and that path."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from lyra_core.errors import InputError
from lyra_core.navigation.disc import DiscSpace

_EIGHT = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
_KNIGHT = [(a * s, b * t) for a, b in ((1, 2), (2, 1)) for s in (1, -1) for t in (1, -1)]
DIRECTIONS = np.array(_EIGHT + _KNIGHT)
"""(16, 2) row and column steps; the longest detour of any straight line on them is 2.7 %."""
VISIBLE = 0.5
"""Within this distance of the goal and in sight of it, the straight line is the geodesic [m]."""


@dataclass(frozen=True)
class GeodesicField:
    """Distances to one goal."""

    disc: DiscSpace
    goal: np.ndarray
    """(2,) [m]."""
    distance: np.ndarray
    """(rows, cols) float64 from each cell centre [m]; inf = unreachable."""

    def at(self, points: np.ndarray) -> np.ndarray:
        """Return the distance of points (N, 2) to the goal, (N,) [m].

        The best of the nine cells round the point, reached straight; near the goal and in sight of it, the straight line.
        """
        rows, cols = self.disc.cells(points)
        row, col = rows[:, None] + _NINE[:, 0], cols[:, None] + _NINE[:, 1]
        inside = (row >= 0) & (col >= 0) & (row < self.distance.shape[0]) & (col < self.distance.shape[1])
        near = np.where(inside, self.distance[row * inside, col * inside], np.inf)
        offset = np.linalg.norm(self.disc.centres(row, col) - points[:, None, :], axis=2)
        straight = np.linalg.norm(points - self.goal, axis=1)
        space = self.disc.space
        if not space.is_level and space.height is not None:
            here, there = space.height_at(points), space.height_at(self.goal[None])
            rise = np.nan_to_num(space.height[row * inside, col * inside].astype(np.float64) - here[:, None])
            offset, straight = np.hypot(offset, rise), np.hypot(straight, np.nan_to_num(here - there))
        out = (near + offset).min(1)
        for i in np.flatnonzero(straight <= VISIBLE):
            if self.disc.segment_free(points[i], self.goal):
                out[i] = straight[i]
        return out


_NINE = np.array([(0, 0)] + _EIGHT)


class GeodesicGraph:
    """The traversable cells of a disc joined to sixteen neighbours; built once, asked for many goals.

    A diagonal or knight's move needs the cells that it passes between to be traversable too, so no path cuts a corner.
    """

    def __init__(self, disc: DiscSpace, *, weight: np.ndarray | None = None) -> None:
        """Build the graph. weight: (rows, cols) cost per metre, mean of both ends (None = 1, true length)."""
        self.disc = disc
        free = disc.traversable
        self._node = np.full(free.shape, -1, np.int32)
        self._node[free] = np.arange(np.count_nonzero(free), dtype=np.int32)
        row, col = np.nonzero(free)
        padded = np.pad(self._node, 2, constant_values=-1)
        targets, costs = [], []
        for di, dj in DIRECTIONS:
            to = padded[row + 2 + di, col + 2 + dj]
            for pi, pj in _between(di, dj):
                to = np.where(padded[row + 2 + pi, col + 2 + pj] >= 0, to, -1)
            length = np.full(len(row), np.hypot(di, dj) * disc.space.cell)
            end = np.clip(row + di, 0, free.shape[0] - 1), np.clip(col + dj, 0, free.shape[1] - 1)
            if not disc.space.is_level and disc.space.height is not None:
                rise = disc.space.height[end].astype(np.float64) - disc.space.height[row, col]
                # A target without ground is no edge; the number only has to be finite.
                length = np.hypot(length, np.nan_to_num(rise))
            costs.append(length if weight is None else length * 0.5 * (weight[row, col] + weight[end]))
            targets.append(to)
        target, cost = np.stack(targets, 1), np.stack(costs, 1)
        open_ = target >= 0
        indptr = np.concatenate([[0], np.cumsum(open_.sum(1))]).astype(np.int32)
        self._graph = csr_matrix((cost[open_], target[open_], indptr), shape=(len(row), len(row)))

    def field(self, goal: np.ndarray, *, limit: float = np.inf) -> GeodesicField:
        """Return distances to goal (2,) [m]; cells further than limit [m] are inf.

        Raises:
            InputError: the disc does not fit at the goal.
        """
        goal = np.asarray(goal, np.float64)
        distance = np.full(self._node.shape, np.inf)
        distance[self.disc.traversable] = dijkstra(self._graph, indices=self._at(goal, "goal"), limit=limit)
        return GeodesicField(self.disc, goal, distance)

    def path(self, field: GeodesicField, start: np.ndarray) -> np.ndarray:
        """Return the shortest path from start (2,) to the field's goal as corners (N, 2) [m], pulled tight.

        Raises:
            InputError: the disc does not fit at the start, or the goal cannot be reached.
        """
        start = np.asarray(start, np.float64)
        node, values = self._at(start, "start"), field.distance[self.disc.traversable]
        if not np.isfinite(values[node]):
            raise InputError(f"path: got start {start.round(3).tolist()}, expected a place connected to the goal "
                             f"{field.goal.round(3).tolist()}")
        nodes = [node]
        while values[node] > 0:
            edges = slice(self._graph.indptr[node], self._graph.indptr[node + 1])
            node = int(self._graph.indices[edges][np.argmin(values[self._graph.indices[edges]] + self._graph.data[edges])])
            nodes.append(node)
        rows, cols = np.nonzero(self.disc.traversable)
        middle = self.disc.centres(rows[nodes], cols[nodes])
        path = np.concatenate([start[None], middle, field.goal[None]])
        tight = pull_tight(self.disc, path)
        # Straight in plan can lead over a hump that the path on the grid goes round.
        return tight if self.length(tight) <= self.length(path) else path

    def length(self, path: np.ndarray) -> float:
        """Return the length of a path (N, 2) laid on the ground [m]."""
        space = self.disc.space
        if space.is_level:
            return path_length(path)
        fine = _subdivide(path, 0.25 * space.cell)
        return path_length(np.column_stack([fine, space.height_at(fine)]))

    def _at(self, point: np.ndarray, name: str) -> int:
        rows, cols = self.disc.cells(point[None])
        node = int(self._node[rows[0], cols[0]])
        if node < 0:
            raise InputError(f"{name}: got {point.round(3).tolist()} m, expected a place where a disc of {self.disc.radius} m fits")
        return node


def pull_tight(disc: DiscSpace, path: np.ndarray) -> np.ndarray:
    """Shorten a path (N, 2) like a string until it stops getting shorter by 0.1 %.

    New pieces are traversable; those kept from the grid run between two traversable centres and may graze the corner of
    a blocked cell by their sagitta, (sqrt(5) cell)^2 / (8 radius): 5 mm for 0.3 m and cells of 5 cm.
    """
    length = path_length(path)
    for _ in range(8):
        path = _shortcut(disc, path)
        path = _shortcut(disc, _subdivide(path, 2 * disc.space.cell)[::-1])[::-1]
        shorter = path_length(path)
        if shorter > 0.999 * length:
            break
        length, path = shorter, _subdivide(path, 2 * disc.space.cell)
    return _shortcut(disc, path)


def path_length(path: np.ndarray) -> float:
    """Return the length of a polyline (N, 2) or (N, 3) [m]."""
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


def _shortcut(disc: DiscSpace, path: np.ndarray) -> np.ndarray:
    """Keep from each corner the furthest visible one, found by doubling and halving the stride."""
    keep, last = [0], len(path) - 1
    while keep[-1] < last:
        anchor, stride = keep[-1], 1
        while anchor + stride < last and disc.segment_free(path[anchor], path[min(anchor + 2 * stride, last)]):
            stride *= 2
        low, high = min(anchor + stride, last), min(anchor + 2 * stride, last + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if disc.segment_free(path[anchor], path[middle]) else (low, middle)
        keep.append(low)
    return path[keep]


def _subdivide(path: np.ndarray, spacing: float) -> np.ndarray:
    pieces = []
    for a, b in itertools.pairwise(path):
        count = max(int(np.ceil(np.linalg.norm(b - a) / spacing)), 1)
        pieces.append(a + (np.arange(count) / count)[:, None] * (b - a))
    return np.concatenate(pieces + [path[-1:]])


def _between(di: int, dj: int) -> list[tuple[int, int]]:
    """Return the cells that a move passes between or through."""
    if abs(di) + abs(dj) == 1:
        return []
    if abs(di) == abs(dj):
        return [(di, 0), (0, dj)]
    half = (int(di / 2), int(dj / 2))
    return [half, (di - half[0], dj - half[1])]
