"""What generators without depth of their own share: the photo as frame 0, provenance, and how alike two pictures are."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.camera.splat import splat_frames
from lyra_core.camera.warp import planar_depth
from lyra_core.io.images import decode_depth, encode_depth, resized
from lyra_core.types import DepthEstimate, Frame, Photo, Provenance, Trajectory

COARSE = (64, 36)
"""Width, height at which pictures are compared."""
SHIFT = 8
"""Largest shift between compared pictures [px of COARSE]: about 9 degrees of turning."""


def photo_frame(photo: Photo, estimate: DepthEstimate, trajectory: Trajectory) -> Frame:
    """Return the photo as frame 0: resampled to the camera of trajectory[0], SEEN wherever its depth is known.

    Its depth is rounded as it is stored, so that what is made from it is the same when it comes back from disk.
    """
    size = (trajectory.width, trajectory.height)
    depth = decode_depth(encode_depth(cv2.resize(estimate.depth, size, interpolation=cv2.INTER_NEAREST)))
    provenance = np.where(np.isnan(depth), 255, Provenance.SEEN).astype(np.uint8)
    return Frame(resized(photo.rgb, *size), depth, trajectory.camera(0), trajectory.T_world_camera[0], provenance)


def with_provenance(pictures: np.ndarray, first: Frame, trajectory: Trajectory) -> list[Frame]:
    """Return pictures (N, H, W, 3) as frames without depth: CONTINUED where the photo's warp covers them, else INVENTED."""
    ones = np.ones((*first.depth.shape, 1), np.float32)
    warped = splat_frames(ones, first.depth, planar_depth(first.depth), first.camera, first.T_world_camera, trajectory)
    labels = np.where(warped.covered, Provenance.CONTINUED, Provenance.INVENTED).astype(np.uint8)
    unknown = np.full((trajectory.height, trajectory.width), np.nan, np.float32)
    return [
        Frame(picture, unknown, trajectory.camera(i), trajectory.T_world_camera[i], labels[i]) for i, picture in enumerate(pictures)
    ]


def unlikeness(a: np.ndarray, b: np.ndarray) -> float:
    """Return how unlike two pictures (H, W, 3) uint8 are: 0 = the same, about 1 = of different places.

    Mean absolute difference of their coarse grey values over their mean contrast, at the shift that makes it smallest.
    """
    grey = [cv2.resize(x, COARSE, interpolation=cv2.INTER_AREA).astype(np.float32).mean(-1) for x in (a, b)]
    contrast = max(float(np.mean([x.std() for x in grey])), 4.0)
    inner = grey[1][SHIFT:-SHIFT, SHIFT:-SHIFT]
    windows = np.lib.stride_tricks.sliding_window_view(grey[0], inner.shape)
    return float(np.abs(windows - inner).mean((-1, -2)).min() / contrast)
