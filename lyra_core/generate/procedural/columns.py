"""What a robot touches of a thing: upright boxes over a grid of the floor plan, as few as hold the same heights."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.sightlines import Sightlines

CELL = 0.05
"""Side of a column [m]; at a distance the width of two pixels."""
TALLEST = 2.5
"""Columns end there; nothing that drives reaches higher [m]."""
_STEP = 0.06
"""Columns whose heights differ by less are joined [m]."""
_UNDERSIDE = 0.02
"""A column is open where a line of sight passes at least this far below its lowest point [m]."""
_FEWEST = 3
"""Pixels that make a column."""
_LOWEST = 0.1
"""Points below this are no obstacle's [m]."""
_THINNEST = 0.02
"""Side of a box [m]."""

_CORNERS = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
_FACES = np.array([[0, 2, 3], [0, 3, 1], [4, 5, 7], [4, 7, 6], [0, 1, 5], [0, 5, 4],
                   [2, 6, 7], [2, 7, 3], [0, 4, 6], [0, 6, 2], [1, 3, 7], [1, 7, 5]])  # fmt: skip
"""Of a box by its corners, outward."""


def column_boxes(seen: np.ndarray, room: np.ndarray, eye: np.ndarray, sightlines: Sightlines, *,
                 finest: float, thickness: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the columns of one thing as boxes: vertices (8 B, 3) [m] and faces (12 B, 3) outward; None if there are none.

    Every point fills its column from the floor to its height; behind the front the columns go on for ``thickness`` [m]. What lines
    of sight pass through stays empty: below a table top, behind a low thing.

    Args:
        seen: (N, 3) the thing's world points [m].
        room: (N,) horizontal distance to the plan's surface behind each [m].
        eye: (3,) position of the camera [m].
        finest: width of two pixels at the thing's distance [m].
    """
    sight = seen[:, :2] - eye[:2]
    reach = np.hypot(*sight.T)
    cell = max(CELL, finest)
    used = (seen[:, 2] > _LOWEST) & (seen[:, 2] < TALLEST)
    if not used.any():
        return None
    seen, way, room = seen[used], (sight / np.maximum(reach, 1e-6)[:, None])[used], np.maximum(room[used], 0.0)
    low = np.floor((seen[:, :2].min(0) - thickness) / cell).astype(int) - 1
    high = np.floor((seen[:, :2].max(0) + thickness) / cell).astype(int) + 2
    grid = _Columns(low, cell, (int(high[0] - low[0]), int(high[1] - low[1])))
    lowest = sightlines.over((np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), -1) + low + 0.5) * cell)
    grid.add(seen)
    bottom, front = grid.bottom.copy(), grid.count >= _FEWEST
    grid.clear(~front)
    hidden = ~front & (lowest > _LOWEST)
    for step in np.arange(cell, thickness + 1e-9, cell):
        go = room >= step
        beyond = seen[go] + np.insert(way[go] * step, 2, 0.0, axis=1)
        grid.add(beyond[hidden[grid.index(beyond)]])
    top = np.where(hidden, np.minimum(grid.top, lowest), grid.top)
    filled = hidden & (grid.count > 0) & (top > _LOWEST)
    top = np.where(front | filled, top, 0.0)
    hangs = front & (lowest < bottom - _UNDERSIDE)
    below = np.where(hangs & (lowest > 2 * _LOWEST), lowest - 2 * _UNDERSIDE, 0.0)
    pieces = [grid.boxes(np.where(hangs, bottom, 0.0), top), grid.boxes(np.zeros(grid.shape), below)]
    return joined_boxes(np.concatenate(pieces))


class _Columns:
    """Highest, lowest and outermost points over each cell of a grid of the floor plan."""

    def __init__(self, low: np.ndarray, cell: float, shape: tuple[int, int]) -> None:
        """Begin empty, with the first cell's number ``low`` (2,), the cell's side [m] and the number of cells."""
        self.low, self.cell, self.shape = low, cell, shape
        self.top, self.bottom = np.full(shape, -np.inf), np.full(shape, np.inf)
        self.nearest, self.farthest = np.full((*shape, 2), np.inf), np.full((*shape, 2), -np.inf)
        self.count = np.zeros(shape, int)

    def index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cell of each point (N, 2 or more) [m]."""
        index = np.floor(points[:, :2] / self.cell).astype(int) - self.low
        return index[:, 0], index[:, 1]

    def add(self, points: np.ndarray) -> None:
        """Take in points (N, 3) [m] within the grid."""
        at = self.index(points)
        np.maximum.at(self.top, at, points[:, 2])
        np.minimum.at(self.bottom, at, points[:, 2])
        np.minimum.at(self.nearest, at, points[:, :2])
        np.maximum.at(self.farthest, at, points[:, :2])
        np.add.at(self.count, at, 1)

    def clear(self, cells: np.ndarray) -> None:
        """Forget the points in cells (bool)."""
        self.top[cells], self.bottom[cells], self.count[cells] = -np.inf, np.inf, 0
        self.nearest[cells], self.farthest[cells] = np.inf, -np.inf

    def boxes(self, bottom: np.ndarray, top: np.ndarray) -> np.ndarray:
        """Return the columns between two heights [m] as boxes no wider than their points: (B, 2, 3), lower and upper corners.

        Neighbours of nearly the same heights share a box.
        """
        rectangles = merged_rectangles(np.floor(bottom / _STEP), np.where(top > bottom, np.ceil(top / _STEP), -1.0))
        out = np.empty((len(rectangles), 2, 3))
        for box, (rows, cols) in zip(out, rectangles, strict=True):
            box[0, :2], box[1, :2] = self.nearest[rows, cols].min((0, 1)), self.farthest[rows, cols].max((0, 1))
            box[0, 2], box[1, 2] = bottom[rows, cols].min(), top[rows, cols].max()
        return out


def joined_boxes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return boxes (B, 2, 3) as vertices (8 B, 3) and faces (12 B, 3); None without any."""
    if not len(boxes):
        return None
    middle, half = boxes.mean(1), np.maximum((boxes[:, 1] - boxes[:, 0]) / 2, _THINNEST / 2)
    vertices = (middle[:, None] + (2 * _CORNERS - 1) * half[:, None]).reshape(-1, 3)
    return vertices, (np.arange(len(boxes))[:, None, None] * 8 + _FACES).reshape(-1, 3)


def merged_rectangles(bottom: np.ndarray, top: np.ndarray) -> list[tuple[slice, slice]]:
    """Return cells of equal heights joined to rectangles (rows, columns), greedily; cells without height are left out."""
    left, out = top > bottom, []
    for i, j in zip(*np.nonzero(left), strict=True):
        if not left[i, j]:
            continue
        same = left & (bottom == bottom[i, j]) & (top == top[i, j])
        wide = j + int(np.argmin(np.append(same[i, j:], False)))
        tall = i + int(np.argmin(np.append(same[i:, j:wide].all(1), False)))
        left[i:tall, j:wide] = False
        out.append((slice(int(i), tall), slice(int(j), wide)))
    return out
