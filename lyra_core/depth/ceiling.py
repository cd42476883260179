"""Ceiling height: where the tops of the walls, taken as one level, follow edges of the picture."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.upright import UprightRays, upright_pixels
from lyra_core.types import Camera

HEIGHTS = np.arange(2.1, 6.01, 0.05)
"""Candidates above the floor [m]."""
USUAL = 2.6
_ACCEPT = 1.35
"""Edge support of the best height over the median of all."""
IMPLAUSIBLE_WALL = 3.3
"""Walls that are seen higher than this indoors get a ceiling even without edges [m]."""


def find_ceiling(rgb: np.ndarray, rays: UprightRays, camera: Camera, T_world_camera: np.ndarray, right: np.ndarray,
                 wall: np.ndarray) -> tuple[float | None, bool]:
    """Return the ceiling height above the floor [m] or None, and whether edges support it.

    Args:
        rgb: (H, W, 3) uint8 at the camera's size.
        right, wall: (C,) upright columns and the ``down`` at which the wall stands.
    """
    camera_height = float(T_world_camera[2, 3])
    distance = camera_height / wall
    top = np.nanmin(rays.down)
    visible = camera_height - top * np.percentile(distance, 70)
    if visible < HEIGHTS[0]:
        return None, False
    support = np.array([_edge_support(rgb, camera, T_world_camera, right, (camera_height - h) / distance) for h in HEIGHTS])
    prior = np.exp(-0.5 * (np.log(HEIGHTS / USUAL) / 0.3) ** 2)
    score = support * (0.35 + prior)
    best = int(score.argmax())
    found = support[best] > _ACCEPT * max(float(np.median(support[support > 0])) if (support > 0).any() else 0.0, 1e-6)
    if found and support[best] > 0:
        return float(round(HEIGHTS[best], 3)), True
    return (USUAL, False) if visible > IMPLAUSIBLE_WALL else (None, False)


def _edge_support(rgb: np.ndarray, camera: Camera, T_world_camera: np.ndarray, right: np.ndarray,
                  down: np.ndarray) -> float:
    """Return the mean contrast across the curve (right, down), clipped per column; 0 if under a third of it is in the picture."""
    gap = 0.012
    values = []
    for shift in (-2 * gap, -gap, gap, 2 * gap):
        u, v = upright_pixels(camera, T_world_camera, right, down + shift)
        inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
        row = np.clip(np.nan_to_num(v), 0, camera.height - 1).astype(int)
        col = np.clip(np.nan_to_num(u), 0, camera.width - 1).astype(int)
        values.append(np.where(inside[:, None], rgb[row, col].astype(float), np.nan))
    across = np.abs((values[0] + values[1] - values[2] - values[3]) / 2).max(1)
    good = np.isfinite(across)
    if good.sum() < len(right) / 3:
        return 0.0
    return float(np.minimum(across[good], 30.0).mean())


def smoothed(rgb: np.ndarray) -> np.ndarray:
    """Return the picture without fine texture, for edge support."""
    return cv2.medianBlur(rgb, 5)
