"""Rectangles that lie on the floor of a known room: rugs and mats.

Their sides run along the room's directions, and the floor goes on below their near side; what stands shows its front there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.room import LevelView, edge_evidence, level_directions
from lyra_core.types import RoomBox

_DEPTHS, _WIDTHS = 40, 96
_NEAREST = 1.0
"""[m]"""
_CLEAR = 0.2
"""Distance from the walls [m]: their own feet are edges along the floor too."""
_SMALLEST = 0.6
"""Side of a rug [m]."""
_LEAST_SIDE = 0.12
"""Edge support that the near, the left and the right side each need (texture gives 0, a clear line about 0.5); the far side is
often hidden."""
_LEAST_SEEN = 0.06
"""Height in the level view (slope) that a rectangle must have, and half its width."""
_LEAST_FLOOR, _MOST_FLOOR = 0.6, 0.5
"""Shares of what looks like floor right below the near side, and within."""


@dataclass(frozen=True)
class FloorRectangle:
    """A rectangle on the floor in the room's directions, from the floor point below the camera [m]."""

    yaw: float
    near: float
    far: float
    right: float
    """Along the left axis; negative = to the right."""
    left: float

    def contains(self, rays: UprightRays, camera_height: float) -> np.ndarray:
        """Return (H, W) bool: floor points of pixels that lie inside."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(rays.down > 1e-3, camera_height / rays.down, np.nan)
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        along, across = ahead * (c - s * rays.right), ahead * (-s - c * rays.right)
        return (along > self.near) & (along < self.far) & (across > self.right) & (across < self.left)


def find_rug(view: LevelView, floor: np.ndarray, room: RoomBox, camera_height: float) -> FloorRectangle | None:
    """Return the best supported rectangle on the floor, or None.

    Args:
        floor: (R, C) bool in the level view: what looks like floor.
    """
    unit = camera_height / 1.5
    along = np.geomspace(_NEAREST * unit, max(room.front - _CLEAR * unit, 1.5 * unit), _DEPTHS)
    right, left = (max(min(offset - _CLEAR * unit, 4 * unit), 0.0) for offset in (room.right, room.left))
    across = np.linspace(-right, left, _WIDTHS)
    size = np.ones((5, 5), np.uint8)
    row, col, inside = _grid(view, along, across, room.yaw, camera_height)
    across_view, into_view = level_directions(view, room.yaw)
    upright = edge_evidence(view, 0.0)  # says nothing of what lies
    wide = [cv2.dilate(support, size) for support in (across_view, np.maximum(into_view - upright, 0.0))]
    level, deep = (np.where(inside, support[row, col] - cv2.blur(support, (21, 21))[row, col], 0.0) for support in wide)
    row_here, col_here = row, col
    row, col, known = _grid(view, along - 0.1 * unit, across, room.yaw, camera_height)
    below = np.where(known, floor[row, col], False)
    sum_level, sum_below, sum_seen = (_running(x, 1) for x in (level, below, inside))
    sum_deep, sum_rows = _running(deep, 0), _running(inside, 0)
    a, b = np.triu_indices(_DEPTHS, 2)
    c, d = np.triu_indices(_WIDTHS, 2)
    width = np.maximum(sum_seen[a][:, d] - sum_seen[a][:, c], 1)
    near = (sum_level[a][:, d] - sum_level[a][:, c]) / width
    under = (sum_below[a][:, d] - sum_below[a][:, c]) / width
    far = (sum_level[b][:, d] - sum_level[b][:, c]) / np.maximum(sum_seen[b][:, d] - sum_seen[b][:, c], 1)
    side = (sum_deep[b] - sum_deep[a]) / np.maximum(sum_rows[b] - sum_rows[a], 1)
    weakest = np.minimum(near, np.minimum(side[:, c], side[:, d]))
    wide = (across[d] - across[c] > _SMALLEST * unit)[None] & (along[b] - along[a] > _SMALLEST * unit)[:, None]
    on_floor = np.where(inside, floor[row_here, col_here], False)
    beside = _running(on_floor, 0)
    beside = (beside[b] - beside[a]) / np.maximum(sum_rows[b] - sum_rows[a], 1)
    outside = (beside[:, np.maximum(c - 3, 0)] + beside[:, np.minimum(d + 3, _WIDTHS - 1)]) / 2
    filled, seen = (_running(_running(x, 0), 1) for x in (on_floor, inside))
    within = _between(filled, a, b, c, d) / np.maximum(_between(seen, a, b, c, d), 1)
    ok = wide & (weakest > _LEAST_SIDE) & (under > _LEAST_FLOOR) & (within < _MOST_FLOOR) & (outside > within)
    high = camera_height * (1 / along[a] - 1 / along[b])  # as seen: a side of few samples is supported by chance
    broad = (across[d] - across[c])[None] / along[a][:, None]
    ok &= (high > _LEAST_SEEN)[:, None] & (broad > 2 * _LEAST_SEEN)
    score = np.where(ok, (near + side[:, c] + side[:, d] + 0.5 * far + outside - within) * (high[:, None] * broad) ** 0.25, -np.inf)
    i, j = np.unravel_index(int(score.argmax()), score.shape)
    if not ok[i, j]:
        return None
    return FloorRectangle(room.yaw, float(along[a[i]]), float(along[b[i]]), float(across[c[j]]), float(across[d[j]]))


def _grid(view: LevelView, along: np.ndarray, across: np.ndarray, yaw: float,
          camera_height: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns (P, Q) of floor points in the level view, and whether they are in the picture."""
    p, q = along[:, None], across[None]
    x, y = p * np.cos(yaw) - q * np.sin(yaw), p * np.sin(yaw) + q * np.cos(yaw)
    ahead = np.maximum(x, 0.05)
    row = np.rint((camera_height / ahead - view.down[0]) / (view.down[1] - view.down[0])).astype(int)
    col = np.rint((-y / ahead - view.right[0]) / (view.right[1] - view.right[0])).astype(int)
    ok = (x > 0.3) & (row >= 0) & (row < len(view.down)) & (col >= 0) & (col < len(view.right))
    row, col = np.clip(row, 0, len(view.down) - 1), np.clip(col, 0, len(view.right) - 1)
    return row, col, ok & view.inside[row, col]


def _between(table: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return (A, C) sums over rows a to b and columns c to d of a summed-area table."""
    rows = table[b] - table[a]
    return rows[:, d] - rows[:, c]


def _running(values: np.ndarray, axis: int) -> np.ndarray:
    pad = [(1, 0) if k == axis else (0, 0) for k in range(2)]
    return np.pad(np.cumsum(values.astype(np.float32), axis), pad)
