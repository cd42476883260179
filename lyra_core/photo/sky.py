"""Sky: the smooth bright or blue region that hangs from the top of the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.superpixels import Superpixels, log_ratio, minimum_cut

_BANDWIDTH = np.array([16.0, 5.0, 6.0, 5.0])
MIN_SHARE = 0.004
"""Smaller regions of the picture are not sky."""


@dataclass(frozen=True)
class Sky:
    """The sky region and how much it looks like sky."""

    mask: np.ndarray
    """(H, W) bool."""
    share: float
    """Of the picture."""
    blueness: float
    """Mean of 128 - b (Lab) over the region: positive = blue, negative = warm."""
    contrast: float
    """Median lightness of the region minus the 90th percentile of the rest: an outdoor sky outshines the ground."""




def find_sky(regions: Superpixels, rays: UprightRays) -> Sky:
    """Return the sky among the regions above the horizon that hang together with the picture's top edge."""
    light, _, b, texture = regions.features.T
    sink = regions.mean_of(rays.sink)
    above = sink < -0.01
    blue = (b < 121) & (light > 70) & (texture < 14)
    white = (light > 195) & (b < 131) & (np.abs(regions.features[:, 1] - 128) < 7) & (texture < 9)
    top = np.zeros(regions.index.shape, bool)
    top[:2] = True
    seeds = above & (blue | white) & (regions.touching(top) | (regions.center[:, 1] < -0.1))
    if not (seeds & regions.touching(top)).any():
        return Sky(np.zeros(regions.index.shape, bool), 0.0, 0.0, 0.0)
    points = regions.features
    odds = log_ratio(points, regions.area * seeds, regions.area * ~seeds, _BANDWIDTH, limit=4.0)
    odds = odds + np.where(seeds, 1.5, -0.5) - 0.08 * np.maximum(texture - 8, 0)
    odds = np.where(above, odds, -20.0)
    mask = minimum_cut(odds, regions, smoothness=1.2)[regions.index]
    return _describe(_hanging(mask), regions)


def _hanging(mask: np.ndarray) -> np.ndarray:
    """Keep the parts of the mask that reach the top, or lie between such parts and are large (sky through branches)."""
    count, index, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    index, keep = index.astype(np.int32), np.zeros(count, bool)
    keep[np.unique(index[:2])] = True
    if keep[1:].any():
        lowest = (stats[keep][1:, 1] + stats[keep][1:, 3]).max() if keep[0] else (stats[keep][:, 1] + stats[keep][:, 3]).max()
        keep |= (stats[:, 1] + stats[:, 3] <= lowest) & (stats[:, 4] > 0.001 * mask.size)
    keep[0] = False
    return keep[index]


def _describe(mask: np.ndarray, regions: Superpixels) -> Sky:
    share = float(mask.mean())
    if share < MIN_SHARE:
        return Sky(np.zeros_like(mask), 0.0, 0.0, 0.0)
    inside = regions.mean_of(mask) > 0.5
    weight = regions.area * inside
    blueness = float(((128 - regions.features[:, 2]) * weight).sum() / max(weight.sum(), 1.0))
    light = regions.features[:, 0]
    if not inside.any() or inside.all():
        return Sky(mask, share, blueness, 0.0)
    return Sky(mask, share, blueness, float(np.median(light[inside]) - np.percentile(light[~inside], 90)))
