"""Cut polygons into triangles: all of them by array, the bent ones by clipping ears (Meisters 1975)."""

from __future__ import annotations

import numpy as np

MAX_CLIPPED_CORNERS = 50_000
"""Corners of polygons that are not convex and are clipped ear by ear; beyond it they are fanned, which bounds the time."""
MAX_CLIPPED_SIDES = 300
"""Sides of one polygon that is clipped; the time grows with the square."""


def triangulate_polygons(points: np.ndarray, counts: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return triangles of polygons, in the order of the polygons and with their winding.

    Args:
        points: (V, 3) float64.
        counts: (P,) int64 corners of each polygon; fewer than 3 give nothing.
        indices: (counts.sum(),) int64 into the points, in range.

    Returns:
        corners (F, 3) int64 into ``indices``, the polygon of each triangle (F,) int64, and how many polygons that are not convex
        were fanned because they are too many or too large.
    """
    start = np.cumsum(counts) - counts
    corners, owner, fanned, clipped = [], [], 0, 0
    for sides in np.unique(counts[counts >= 3]):
        rows = np.flatnonzero(counts == sides)
        if sides == 3:
            local = np.broadcast_to(np.arange(3), (len(rows), 1, 3))
        else:
            loops = points[indices[start[rows, None] + np.arange(sides)]] if sides <= MAX_CLIPPED_SIDES else None
            local = np.broadcast_to(_fan(int(sides)), (len(rows), sides - 2, 3)).copy()
            bent = np.zeros(0, np.int64) if loops is None else np.flatnonzero(~_fan_is_right(loops))
            for row in bent:
                if clipped + sides > MAX_CLIPPED_CORNERS:
                    fanned += 1
                else:
                    assert loops is not None
                    local[row] = clip_ears(flatten_loop(loops[row]))
                    clipped += int(sides)
            fanned += len(rows) if loops is None else 0
        corners.append((start[rows, None, None] + local).reshape(-1, 3))
        owner.append(np.repeat(rows, sides - 2))
    if not corners:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64), 0
    all_owner = np.concatenate(owner)
    order = np.argsort(all_owner, kind="stable")
    return np.concatenate(corners)[order], all_owner[order], fanned


def flatten_loop(loop: np.ndarray) -> np.ndarray:
    """Return (N, 2) coordinates of a loop (N, 3) in its mean plane (Newell's normal), counter-clockwise."""
    normal = np.cross(loop, np.roll(loop, -1, 0)).sum(0)
    length = np.linalg.norm(normal)
    normal = normal / length if length > 0 else np.array([0.0, 0.0, 1.0])
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    side /= np.linalg.norm(side)
    return np.stack([loop @ side, loop @ np.cross(normal, side)], 1)


def clip_ears(loop: np.ndarray) -> np.ndarray:
    """Return triangles (N - 2, 3) int64 of a counter-clockwise loop (N, 2); one that crosses itself gives some cover of it."""
    left, out = np.arange(len(loop)), []
    while len(left) > 3:
        p = loop[left]
        before, after = np.roll(p, 1, 0), np.roll(p, -1, 0)
        turn = _cross(p - before, after - p)
        for i in np.argsort(turn <= 0, kind="stable"):
            a, b, c = before[i], p[i], after[i]
            inside = (_cross(b - a, p - a) >= 0) & (_cross(c - b, p - b) >= 0) & (_cross(a - c, p - c) >= 0)
            # A corner repeated at the ear's own place (a bridge to a hole) does not block it.
            for own in (a, b, c):
                inside &= (p != own).any(1)
            if turn[i] <= 0 or not inside.any():
                break
        out.append([left[i - 1], left[i], left[(i + 1) % len(left)]])
        left = np.delete(left, i)
    out.append(left.tolist())
    return np.array(out, np.int64)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _fan(sides: int) -> np.ndarray:
    i = np.arange(1, sides - 1)
    return np.stack([np.zeros_like(i), i, i + 1], 1)


def _fan_is_right(loops: np.ndarray) -> np.ndarray:
    """Return for loops (P, N, 3) whether every triangle of the fan looks the way the polygon does."""
    loops = loops - loops[:, :1]
    a, b = loops[:, 1:-1], loops[:, 2:]
    cross = np.cross(a, b)
    return (np.einsum("pni,pi->pn", cross, cross.sum(1)) >= 0).all(1)
