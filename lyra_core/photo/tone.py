"""What a picture looks like apart from its frame and its exposure: reading must not depend on either."""

from __future__ import annotations

import cv2
import numpy as np

FRAME = 0.06
"""A frame is at most this wide, as a share of the picture's sides."""
LEAST_FRAME = 0.6
"""Share of a side along which a frame must run."""
MIDDLE_GREY = 0.18
"""Geometric mean of the light that a picture is brought to (linear, 1 = white)."""
GAINS = (0.6, 6.0)
_GAMMA, _SHOULDER = 2.2, 0.35


def without_frame(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 with a black or white frame overwritten by the nearest pixels inside it.

    Rectified pictures of cameras with lens distortion, scans and letterboxed videos have one; its border is no line of the place.
    """
    frame = find_frame(rgb)
    if not frame.any():
        return rgb
    _, nearest = cv2.distanceTransformWithLabels(frame.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = nearest.astype(np.int64)
    table = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    table[nearest[~frame]] = rgb[~frame]
    return np.where(frame[..., None], table[nearest], rgb)


def find_frame(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: almost black or white pixels that hang together with the border and stay close to it."""
    height, width = rgb.shape[:2]
    reach_v, reach_u = max(1, int(FRAME * height)), max(1, int(FRAME * width))
    out = np.zeros((height, width), bool)
    for flat in ((rgb >= 244).all(-1), (rgb <= 10).all(-1)):
        near = np.ones((height, width), bool)
        near[reach_v:-reach_v, reach_u:-reach_u] = False
        _, index = cv2.connectedComponents((flat & near).astype(np.uint8), connectivity=4)
        sides = (index[0], index[-1], index[:, 0], index[:, -1])
        keep = np.unique(np.concatenate([side for side in sides if (side > 0).mean() >= LEAST_FRAME] or [np.zeros(1, int)]))
        frame = np.isin(index, keep[keep > 0])
        # What goes on far into the picture, a white wall or a black sky, is no frame.
        inner = cv2.dilate(frame.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if (inner & flat & ~near).sum() <= 0.02 * max(int(frame.sum()), 1):
            grown = cv2.dilate(frame.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            out |= grown & near if frame.any() else frame
    return out


def even_exposure(rgb: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 brought to a middle exposure: dark corners keep their contrast, and two stops make no difference.

    The gain brings the geometric mean of the light to middle grey (Reinhard et al., Photographic Tone Reproduction, 2002);
    highlights are compressed by x / (1 + a x).
    """
    table = (np.arange(256) / 255.0) ** _GAMMA
    light = table[rgb]
    luminance = light @ np.array([0.2126, 0.7152, 0.0722])
    mean = float(np.exp(np.log(luminance + 1e-3).mean()))
    gain = float(np.clip(MIDDLE_GREY / mean, *GAINS))
    curve = table * gain
    curve = curve / (1 + _SHOULDER * curve)
    return np.rint(255 * np.clip(curve, 0, 1) ** (1 / _GAMMA)).astype(np.uint8)[rgb]
