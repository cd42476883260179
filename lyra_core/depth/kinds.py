"""What an array that is called depth really holds: metres, something normalised for viewing, or inverse depth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

_VIEWED = (1.0, 255.0, 65535.0)
"""Where numbers end that were stretched for viewing."""
_FROM_ZERO = 0.005
"""They begin nearer to zero than this, as a share of their end: 0.3 m of 65.535."""
_SIDE = 384
"""Pixels of the long side that are looked at."""
_STEPS = (32, 16, 8)
"""Parts of the long side over which the bend of surfaces is measured."""
_RISE = (0.15, 0.8)
"""Change along such a step by which a surface is slanted, yet seen well, as a share of its middle."""
_SLANTED = 0.02
"""Slanted places with which the kind can be told, as a share of the pixels."""


def looks_normalised(values: np.ndarray) -> bool:
    """True if the numbers of an array, NaN or 0 = unknown, fill a range that pictures are stretched to."""
    known = values[np.isfinite(values) & (values > 0)] if values.dtype.kind == "f" else values[values > 0]
    if not known.size:
        return False
    low, high = float(known.min()), float(known.max())
    return any(abs(high / end - 1) < 1e-4 for end in _VIEWED) and low < _FROM_ZERO * high


def looks_inverse(values: np.ndarray) -> bool:
    """True if values (h, w), NaN = unknown, are clearly inverse depth or a disparity: affine along surfaces, not smaller below.

    On a plane the inverse of depth is affine in the pixel's coordinates. For depths a, b, c at equally spaced pixels of one
    surface (a + c) / b - 2 is therefore half the square of (a - c) / b, and for inverse depths 0, whatever their unit and offset.
    """
    stride = max(1, round(max(values.shape) / _SIDE))
    values = values[::stride, ::stride].astype(np.float64)
    bends = np.concatenate([_bends(values, axis, max(values.shape) // parts) for parts in _STEPS for axis in (0, 1)])
    third = values.shape[0] // 3
    above, below = values[:third][np.isfinite(values[:third])], values[2 * third :][np.isfinite(values[2 * third :])]
    if len(bends) < _SLANTED * values.size or not (above.size and below.size):
        return False
    half, most = np.percentile(bends, (50, 75))
    return bool(half < 0.25 and most < 0.9 and np.median(below) > 0.8 * np.median(above))


def _bends(values: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Return the bends (n,) of slanted surfaces along an axis over steps of so many pixels: 1 for depth, 0 for inverse depth."""
    quarter, length = max(1, step // 2), values.shape[axis]
    if length <= 4 * quarter:
        return np.zeros(0)
    row = [np.take(values, range(i * quarter, length - (4 - i) * quarter), axis) for i in range(5)]
    with np.errstate(invalid="ignore", divide="ignore"):
        rise, bend = (row[0] - row[4]) / row[2], (row[0] + row[4]) / row[2] - 2
        # On one surface every quarter goes the same way, and none takes nearly half of it.
        one = (np.abs(rise) > _RISE[0]) & (np.abs(rise) < _RISE[1])
        for before, after in pairwise(row):
            part = (before - after) / row[2] / rise
            one &= (part > 0) & (part < 0.45)
    return bend[one] / (rise[one] ** 2 / 2)
