"""Line segments of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

MIN_LENGTH = 0.025
"""Shortest segment, as a share of the long side."""
MAX_WEIGHT_LENGTH = 0.25
"""Longer segments count no more than this share of the long side."""
MAX_SEGMENTS = 300
MIN_SEGMENTS = 8
"""With fewer the camera is taken from priors."""


@dataclass(frozen=True)
class Segments:
    """Straight edges, longest first."""

    ends: np.ndarray
    """(M, 4) float32 u0 v0 u1 v1 [px]."""
    middle: np.ndarray
    """(M, 2) float32 [px]."""
    tangent: np.ndarray
    """(M, 2) float32 unit vectors."""
    weight: np.ndarray
    """(M,) float32, sum 1."""


def detect_segments(rgb: np.ndarray) -> Segments:
    """Return the line segments of (H, W, 3) uint8 (LSD: von Gioi et al., 2010), without those along the picture's border."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD).detect(grey)[0]
    ends = np.zeros((0, 4), np.float32) if found is None else found.reshape(-1, 4).astype(np.float32)
    return segments_from_ends(ends + 0.5, rgb.shape[1], rgb.shape[0])


def segments_from_ends(ends: np.ndarray, width: int, height: int) -> Segments:
    """Keep the longest segments of (N, 4) end points [px] of a width x height picture."""
    long_side = max(width, height)
    delta = ends[:, 2:] - ends[:, :2]
    length = np.hypot(delta[:, 0], delta[:, 1])
    u, v = ends[:, [0, 2]], ends[:, [1, 3]]
    margin = 0.012 * long_side
    framed = ((u < margin).all(1) | (u > width - margin).all(1) | (v < margin).all(1) | (v > height - margin).all(1))
    keep = np.flatnonzero((length >= MIN_LENGTH * long_side) & ~framed)
    keep = keep[np.argsort(-length[keep], kind="stable")][:MAX_SEGMENTS]
    length = np.maximum(length[keep], 1e-6)
    weight = np.minimum(length, MAX_WEIGHT_LENGTH * long_side)
    weight = weight / max(float(weight.sum()), 1e-9)
    return Segments(ends[keep], ((ends[keep, :2] + ends[keep, 2:]) / 2).astype(np.float32),
                    (delta[keep] / length[:, None]).astype(np.float32), weight.astype(np.float32))


def draw_segments(segments: Segments, chosen: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return (height, width) float32, 1 along the chosen (M,) segments."""
    out = np.zeros((height, width), np.uint8)
    for u0, v0, u1, v1 in segments.ends[chosen]:
        cv2.line(out, (int(u0), int(v0)), (int(u1), int(v1)), 1, thickness=max(2, max(width, height) // 200))
    return out.astype(np.float32)
