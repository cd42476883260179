"""Clean label regions: no speckle, obstacles that stand on something."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.types import Label

SPECKLE = 0.001
"""Regions below this share of the picture join their surroundings."""


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
