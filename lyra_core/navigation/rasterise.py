"""Conservative footprints: every grid cell that a triangle touches inside a height band."""

from __future__ import annotations

import numpy as np

CHUNK = 50_000
"""Triangles handled at once; bounds the memory."""


def footprint(
    triangles: np.ndarray, origin: np.ndarray, cell: float, shape: tuple[int, int], band: tuple[float, float]
) -> np.ndarray:
    """Mark the cells touched by triangles between two heights.

    Each triangle is clipped to the open slab ``band[0] < z < band[1]`` [m] and its projection is scanned row by row, so a
    sheet of no thickness marks every cell that it crosses. A point on the border of two cells marks the upper one.

    Args:
        triangles: (N, 3, 3) float corners [m].
        origin: (2,) x, y of the lower corner of cell (0, 0) [m].
        cell: cell size [m].
        shape: rows, columns.
        band: lower and upper height [m].

    Returns:
        (rows, cols) bool.
    """
    low, high = band
    z = triangles[..., 2]
    triangles = np.asarray(triangles, np.float64)[(z.max(1) > low) & (z.min(1) < high)]
    marks = np.zeros((shape[0], shape[1] + 1), np.int64)
    for first in range(0, len(triangles), CHUNK):
        polygons = clip_polygons(triangles[first : first + CHUNK], axis=2, bound=low, keep_above=True)
        polygons = clip_polygons(polygons, axis=2, bound=high, keep_above=False)
        _scan((polygons[..., :2] - origin) / cell, marks)
    return np.cumsum(marks, axis=1)[:, :-1] > 0


def clip_polygons(polygons: np.ndarray, *, axis: int, bound: float, keep_above: bool) -> np.ndarray:
    """Clip convex polygons (N, M, D) by a half-space along one axis (Sutherland and Hodgman 1974).

    Returns:
        (N, M + 1, D); short polygons repeat their last corner. Every polygon must have a corner strictly inside.
    """
    sign = 1.0 if keep_above else -1.0
    here = sign * (polygons[..., axis] - bound)
    there, after = np.roll(here, -1, axis=1), np.roll(polygons, -1, axis=1)
    crosses = (here > 0) != (there > 0)
    t = np.where(crosses, here / np.where(crosses, here - there, 1.0), 0.0)
    cut = polygons + t[..., None] * (after - polygons)
    corners = np.stack([polygons, cut], 2).reshape(len(polygons), -1, polygons.shape[2])
    keep = np.stack([here > 0, crosses], 2).reshape(len(polygons), -1)
    order = np.argsort(~keep, axis=1, kind="stable")[:, : polygons.shape[1] + 1]
    slot = np.minimum(np.arange(order.shape[1])[None, :], np.maximum(keep.sum(1), 1)[:, None] - 1)
    order = np.take_along_axis(order, slot, 1)
    return np.take_along_axis(corners, order[..., None], 1)


def _scan(polygons: np.ndarray, marks: np.ndarray) -> None:
    """Add the column interval of every (polygon, row) pair to marks (rows, cols + 1), a difference array along x."""
    rows, cols = marks.shape[0], marks.shape[1] - 1
    lowest, highest = np.floor(polygons[..., 1].min(1)).astype(np.int64), np.floor(polygons[..., 1].max(1)).astype(np.int64)
    lowest, highest = np.clip(lowest, 0, rows), np.clip(highest, -1, rows - 1)
    count = np.maximum(highest - lowest + 1, 0)
    which = np.repeat(np.arange(len(polygons)), count)
    row = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + lowest[which]
    a, b = polygons[which], np.roll(polygons, -1, axis=1)[which]
    rise = b[..., 1] - a[..., 1]
    flat = rise == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t0, t1 = (row[:, None] - a[..., 1]) / rise, (row[:, None] + 1 - a[..., 1]) / rise
    t0, t1 = np.where(flat, 0.0, np.minimum(t0, t1)), np.where(flat, 1.0, np.maximum(t0, t1))
    outside = (np.maximum(a[..., 1], b[..., 1]) < row[:, None]) | (np.minimum(a[..., 1], b[..., 1]) > row[:, None] + 1)
    t = np.clip(np.stack([t0, t1]), 0.0, 1.0)
    x = a[..., 0] + t * (b[..., 0] - a[..., 0])
    left = np.floor(np.where(outside, np.inf, x).min((0, 2)))
    right = np.floor(np.where(outside, -np.inf, x).max((0, 2)))
    use = (right >= 0) & (left < cols)
    row, left, right = row[use], np.clip(left[use], 0, cols - 1).astype(np.int64), np.clip(right[use], 0, cols - 1).astype(np.int64)
    np.add.at(marks, (row, left), 1)
    np.add.at(marks, (row, right + 1), -1)
