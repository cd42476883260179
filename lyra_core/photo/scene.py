"""Indoor or outdoor, from what a picture shows."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays
from lyra_core.photo.sky import Sky
from lyra_core.photo.superpixels import Superpixels


def straight_border(sky: np.ndarray, level_edges: np.ndarray) -> float:
    """Return the share of the sky's border (without the picture's own) that runs along level edges: high for a ceiling.

    Args:
        sky: (H, W) bool.
        level_edges: (H, W) float, 1 along segments that point at a horizontal vanishing point.
    """
    reach = max(3, sky.shape[1] // 100)
    border = (cv2.dilate(sky.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & ~sky
    near = cv2.dilate((level_edges > 0).astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    return float((border & near).sum() / max(border.sum(), 1))


def scene_odds(regions: Superpixels, rays: UprightRays, sky: Sky, straight: float) -> float:
    """Return the log odds of 'outdoor'.

    Sky speaks for outdoors when it is large, blue, or outshines the ground, and less when its border is straight; vegetation
    speaks for it; a smooth bright or warm region at the top that is not sky speaks for a ceiling. Each weight is set by eye.
    """
    light, a, b, texture = regions.features.T
    above = regions.mean_of(rays.sink) < -0.02
    total = max(float(regions.area.sum()), 1.0)
    green = (a < 124) & (b > 130) & (texture > 6) & (light > 25)
    vegetation = float((regions.area * green).sum()) / total
    high = above & (regions.center[:, 1] < np.percentile(regions.center[:, 1], 20)) & (texture < 7)
    lid = float((regions.area * (high & (light > 60) & (b > 124))).sum()) / total
    rough = float((regions.area * (above & (texture > 14))).sum() / max((regions.area * above).sum(), 1.0))
    evidence = 22.0 * min(sky.share, 0.2) * (1 if sky.contrast > -10 or sky.blueness > 12 else 0.2)
    evidence += (0.08 * max(sky.blueness, 0) + 0.02 * max(sky.contrast, 0)) * min(sky.share / 0.03, 1.0)
    grey = float(np.clip((15.0 - sky.blueness) / 10.0, 0.0, 1.0))
    evidence -= 9.0 * max(straight - 0.3, 0.0) * grey * (sky.share > 0)
    return float(evidence + 8.0 * min(vegetation, 0.25) + 2.0 * (rough - 0.3) - 14.0 * lid * (sky.share < 0.08) - 1.2)
