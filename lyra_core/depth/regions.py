"""Clean label regions: no speckle, obstacles that stand on something."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import grey_closing

from lyra_core.types import Label

SPECKLE = 0.001
"""Regions below this share of the picture join their surroundings."""
_STRIP = 0.015
"""Width of the strips in which feet of things are compared, as slope."""
_WIDEST = 1.67
"""Widest piece in camera heights: 2.5 m for a camera at 1.5 m."""
_OVERHANG = 0.8
"""Widest gap between two legs in camera heights (1.2 m)."""


def without_speckle(labels: np.ndarray, *, share: float = SPECKLE) -> np.ndarray:
    """Return (H, W) labels whose connected regions below ``share`` of the picture took the label that borders them most."""
    out = labels.copy()
    for _ in range(2):
        changed = False
        for label in np.unique(out):
            _, index, stats, _ = cv2.connectedComponentsWithStats((out == label).astype(np.uint8), connectivity=4)
            for i in np.flatnonzero(stats[1:, 4] < share * labels.size) + 1:
                x, y, w, h = (int(n) for n in stats[i, :4])
                window = (slice(max(y - 1, 0), y + h + 1), slice(max(x - 1, 0), x + w + 1))
                part = index[window] == i
                ring = (cv2.dilate(part.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~part
                if ring.any():
                    out[window][part] = np.bincount(out[window][ring]).argmax()
                    changed = True
        if not changed:
            break
    return out


def standing_only(labels: np.ndarray) -> np.ndarray:
    """Return labels in which obstacles that touch neither floor nor the picture's lower border became wall."""
    count, index = cv2.connectedComponents((labels == Label.OBSTACLE).astype(np.uint8), connectivity=8)
    below = np.zeros_like(labels, bool)
    below[:-2] = labels[2:] == Label.FLOOR
    below[-3:] = True
    stands = np.zeros(count, bool)
    stands[np.unique(index[below])] = True
    return np.where((index > 0) & ~stands[index], np.uint8(Label.WALL), labels).astype(np.uint8)


def components(mask: np.ndarray, *, order: np.ndarray) -> list[np.ndarray]:
    """Return the 8-connected parts of a mask as (H, W) bool, sorted by their largest ``order`` value, then by position."""
    count, index = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    parts = [index == i for i in range(1, count)]
    return sorted(parts, key=lambda part: float(np.nan_to_num(order[part]).max()))


def standing_pieces(mask: np.ndarray, right: np.ndarray, down: np.ndarray, *, jump: float = 0.15) -> list[np.ndarray]:
    """Return the parts of a mask of standing things, nearest last, cut where the row at which they stand jumps.

    Args:
        right, down: (H, W) upright coordinates; a piece stands at its largest ``down``.
        jump: of that row between neighbouring columns, relative, over which two things are told apart.
    """
    pieces = []
    for part in components(mask, order=down):
        v, u = np.nonzero(part & np.isfinite(down))
        if len(v) == 0:
            pieces.append(part)
            continue
        cuts = _cuts(right[v, u], down[v, u], jump)
        which = np.digitize(np.nan_to_num(right), cuts)
        pieces += [part & (which == k) for k in range(len(cuts) + 1)]
    return [piece for piece in pieces if piece.any()]


def _cuts(right: np.ndarray, down: np.ndarray, jump: float) -> np.ndarray:
    """Return the values of ``right`` at which the foot of a part jumps or after which it would be too wide; may be empty."""
    low, high = float(right.min()), float(right.max())
    n = int(np.clip((high - low) / _STRIP, 1, 200))
    strip = np.clip(((right - low) / max(high - low, 1e-9) * n).astype(int), 0, n - 1)
    foot = np.full(n, np.nan)
    for k in range(n):
        mine = down[strip == k]
        if len(mine) > 3:
            foot[k] = np.percentile(mine, 97)
    foot = np.interp(np.arange(n), np.flatnonzero(np.isfinite(foot)), foot[np.isfinite(foot)]) if np.isfinite(foot).any() else foot
    if np.isfinite(foot).all():  # what hangs between two legs stands where they stand
        gap = int(_OVERHANG * float(foot.max()) / ((high - low) / n))
        foot = grey_closing(foot, size=max(gap, 1))
    cuts, start = [], 0
    for k in range(1, n):
        ahead = foot[k:k + 3]
        usual = float(np.median(foot[start:k]))
        jumps = k - start >= 3 and (np.abs(np.log(np.maximum(ahead, 1e-6) / max(usual, 1e-6))) > jump).all() and n - k >= 3
        wide = (k - start) * (high - low) / n > _WIDEST * usual
        if jumps or (wide and n - k >= 3):
            cuts.append(low + k * (high - low) / n)
            start = k
    return np.array(cuts)
