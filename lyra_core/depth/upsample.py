"""Small depth images brought to a photo's size: surfaces are continued as planes, and the photo's edges decide where each ends."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.io.images import resized

_SAME_SURFACE = 1.06
"""Inverse depths within this factor belong to one surface."""
_REACH = 0.7
"""Standard deviation of the weight by distance, in pixels of the small image."""
_COLOUR = 25.0
"""Of the weight by colour, in levels of 255."""


def upsampled_depth(depth: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Return depth (h, w) at the size of the photo rgb (H, W, 3) uint8, (H, W) float32.

    Joint bilateral upsampling (Kopf et al. 2007) of inverse depth, which is affine on planes: each of the 3 x 3 nearest pixels
    continues its own plane, weighted by distance and by how well its colour fits; the surface with the most weight is taken, and
    its members are averaged. Nothing is mixed across edges. A pixel whose nearest one is unknown stays unknown, as NaN.
    """
    height, width = rgb.shape[:2]
    h, w = depth.shape
    guide = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    small = cv2.cvtColor(resized(rgb, w, h), cv2.COLOR_RGB2LAB).astype(np.float32)
    inverse = np.where(np.isfinite(depth), 1 / depth, np.nan).astype(np.float32)
    slope_u, slope_v = _slope(inverse, 1), _slope(inverse, 0)
    u, v = (np.arange(width) + 0.5) * w / width - 0.5, (np.arange(height) + 0.5) * h / height - 0.5
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    values, weights = [], []
    for dv in (-1, 0, 1):
        for du in (-1, 0, 1):
            i, j = np.clip(row + dv, 0, h - 1), np.clip(column + du, 0, w - 1)
            at = np.ix_(i, j)
            off_v, off_u = (v - i)[:, None].astype(np.float32), (u - j)[None].astype(np.float32)
            value = inverse[at] + slope_u[at] * off_u + slope_v[at] * off_v
            colour = ((guide - small[at]) ** 2).sum(-1)
            weight = np.exp(-(off_u**2 + off_v**2) / (2 * _REACH**2) - colour / (2 * _COLOUR**2)) + 1e-6
            known = value > 0
            values.append(np.where(known, value, np.nan).astype(np.float32))
            weights.append(np.where(known, weight, 0).astype(np.float32))
    best = _strongest_surface(values, weights)
    hole = ~np.isfinite(depth[np.ix_(np.clip(row, 0, h - 1), np.clip(column, 0, w - 1))])
    return np.where(hole | ~(best > 0), np.nan, 1 / np.where(best > 0, best, 1)).astype(np.float32)


def _strongest_surface(values: list[np.ndarray], weights: list[np.ndarray]) -> np.ndarray:
    """Return (H, W) the weighted mean of the values that agree with the one most weight agrees with; NaN without any."""
    most, best = np.zeros(values[0].shape, np.float32), np.full(values[0].shape, np.nan, np.float32)
    for candidate in values:
        support, total = np.zeros_like(most), np.zeros_like(most)
        for value, weight in zip(values, weights, strict=True):
            agrees = (value < candidate * _SAME_SURFACE) & (candidate < value * _SAME_SURFACE)
            support += np.where(agrees, weight, 0)
            total += np.where(agrees, weight * value, 0)
        better = support > most
        most = np.where(better, support, most)
        best = np.where(better, total / np.maximum(support, 1e-12), best)
    return best


def _slope(inverse: np.ndarray, axis: int) -> np.ndarray:
    """Return (h, w) change per pixel along an axis: the mean of both sides on one surface, else of the smoother; 0 alone.

    Steep surfaces are known by the same change on both sides.
    """
    ahead, behind = (np.full_like(inverse, np.nan) for _ in range(2))
    step = np.diff(inverse, axis=axis)
    ahead[tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))] = step
    behind[tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))] = step
    limit = (_SAME_SURFACE - 1) * inverse
    even = np.abs(ahead - behind) < 0.2 * np.abs(ahead)
    ahead, behind = (np.where((np.abs(s) < limit) | even, s, np.nan) for s in (ahead, behind))
    both = np.where(np.isnan(ahead), behind, np.where(np.isnan(behind), ahead, (ahead + behind) / 2))
    return np.nan_to_num(both).astype(np.float32)
