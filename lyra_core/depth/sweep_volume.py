"""Semi-global aggregation of a volume of matching costs (Hirschmueller, PAMI 2008), and its minimum between planes."""

from __future__ import annotations

import numpy as np

SMALL, LARGE = 0.03, 0.25
"""Penalty of a change by one plane, and by more, in units of the cost (0..1)."""
_EDGE = 12.0
"""Grey difference [1/255] of neighbouring pixels at which LARGE is halved: depth jumps where the picture does."""
_MAX_COST = 0.42
"""Largest matching cost of a depth that is kept: a correlation of 0.16, mean of the two best neighbours."""


def aggregated(volume: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Return the costs (h, w, planes) summed along 8 directions; grey (h, w) float32 in 0..255 guides the jumps."""
    total = np.zeros_like(volume)
    for down in (True, False):
        for shift in (-1, 0, 1):
            _scan(volume, grey, total, shift, down)
    turned, sums = volume.transpose(1, 0, 2), total.transpose(1, 0, 2)
    for down in (True, False):
        _scan(turned, grey.T, sums, 0, down)
    return total


def lowest(total: np.ndarray, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best plane between planes, (h, w) float64, and where it is sure, (h, w) bool.

    Sure means: not at the volume's end, and the patches themselves match there.
    """
    planes = total.shape[-1]
    best = total.argmin(-1)
    inner = np.clip(best, 1, planes - 2)
    before, at, after = (np.take_along_axis(total, (inner + d)[..., None], -1)[..., 0].astype(np.float64) for d in (-1, 0, 1))
    bend = before - 2 * at + after
    offset = np.where(bend > 1e-9, 0.5 * (before - after) / np.maximum(bend, 1e-9), 0.0)
    matched = np.take_along_axis(volume, best[..., None], -1)[..., 0] < _MAX_COST
    return inner + np.clip(offset, -1, 1), matched & (best > 0) & (best < planes - 1)


def _scan(volume: np.ndarray, grey: np.ndarray, total: np.ndarray, shift: int, down: bool) -> None:
    """Add one direction's path costs to total: from row to row, each pixel coming from the column ``shift`` beside it."""
    rows = range(len(volume)) if down else range(len(volume) - 1, -1, -1)
    past, past_grey = None, None
    for row in rows:
        cost = volume[row].astype(np.float32)
        if past is not None and past_grey is not None:
            before, before_grey = (past, past_grey) if shift == 0 else (_moved(past, shift), _moved(past_grey, shift))
            jump = np.maximum(LARGE / (1 + np.abs(grey[row] - before_grey) / _EDGE), 2 * SMALL)[:, None]
            least = before.min(-1, keepdims=True)
            step = np.minimum(before, least + jump)
            np.minimum(step[:, 1:], before[:, :-1] + SMALL, out=step[:, 1:])
            np.minimum(step[:, :-1], before[:, 1:] + SMALL, out=step[:, :-1])
            cost = cost + (step - least)
        total[row] += cost
        past, past_grey = cost, grey[row]


def _moved(values: np.ndarray, shift: int) -> np.ndarray:
    """Return values whose row i is row i - shift; the border repeats."""
    return np.concatenate([values[:1], values[:-1]]) if shift > 0 else np.concatenate([values[1:], values[-1:]])
