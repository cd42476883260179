"""Space that the photo sees through: nothing stands where a line of sight passes on its way to what it meets."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.types import Label

CELL = 0.05
"""Of the grid of the floor plan [m]."""
REACH = 8.0
"""Half side of the grid, in front of the camera [m]; beyond, one pixel's line no longer stands for its neighbours'."""
_STRIDE = 3
"""Every so many pixels one line of sight is followed."""
_SHORT = (0.08, 0.02)
"""Lines end this much [m], plus this share of their length, before what they meet; on the floor not."""


class Sightlines:
    """The lowest line of sight over each cell of the floor plan."""

    def __init__(self, source: PhotoSource, points: np.ndarray) -> None:
        """Follow the lines of sight from the photo's camera to its world points (H, W, 3) [m], NaN = sky."""
        self._origin = source.position[:2] - [1.0, REACH]
        self.lowest = np.full((round((1.0 + REACH) / CELL), round(2 * REACH / CELL)), np.inf)
        """(rows along x, columns along y) height [m]; inf = none passes."""
        ends = points[::_STRIDE, ::_STRIDE].reshape(-1, 3)
        known = np.isfinite(ends[:, 0])
        floor = (source.estimate.labels[::_STRIDE, ::_STRIDE].ravel() == Label.FLOOR)[known]
        eye = source.position
        ends = ends[known] - eye
        length = np.hypot(ends[:, 0], ends[:, 1])
        free = np.minimum(np.where(floor, length, length * (1 - _SHORT[1]) - _SHORT[0]), REACH)
        ends, length, free = ends[free > 0], length[free > 0], free[free > 0]
        slope = ends / length[:, None]
        for step in np.arange(CELL, REACH, 0.8 * CELL):
            on = free >= step
            if not on.any():
                break
            at = eye + slope[on] * step
            ix, iy = self._index(at)
            inside = (ix >= 0) & (iy >= 0) & (ix < self.lowest.shape[0]) & (iy < self.lowest.shape[1])
            np.minimum.at(self.lowest, (ix[inside], iy[inside]), at[inside, 2])

    def over(self, xy: np.ndarray) -> np.ndarray:
        """Return the height [m] of the lowest line over floor-plan points (..., 2) [m]; inf where none passes or is known."""
        ix, iy = self._index(xy)
        inside = (ix >= 0) & (iy >= 0) & (ix < self.lowest.shape[0]) & (iy < self.lowest.shape[1])
        found = self.lowest[np.clip(ix, 0, self.lowest.shape[0] - 1), np.clip(iy, 0, self.lowest.shape[1] - 1)]
        return np.where(inside, found, np.inf)

    def _index(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.floor((points[..., :2] - self._origin) / CELL).astype(int)
        return index[..., 0], index[..., 1]
