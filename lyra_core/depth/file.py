"""Depth from a file: a phone's LiDAR, a stereo camera, or the output of any model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lyra_core.config import DepthCfg
from lyra_core.depth.formats import MIN_VALID, read_confidence, read_depth_file, resampled_depth
from lyra_core.depth.measured import from_metric_depth
from lyra_core.depth.upsample import upsampled_depth
from lyra_core.errors import ConfigError, InputError
from lyra_core.io.images import resized
from lyra_core.types import DepthEstimate, Photo, PhotoReading

_SCALE_SIGMA = 0.02
_ASPECT_TOLERANCE = 0.03

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    5: lambda lying: lying.T, 6: lambda lying: np.rot90(lying, -1), 7: lambda lying: np.rot90(lying, 2).T, 8: np.rot90,
}
"""EXIF orientations that swap the sides: what turns the sensor's picture upright."""


class DepthFile:
    """Takes metric depth from ``cfg.path`` and corrects gravity, camera height and labels by it."""

    def __init__(self, cfg: DepthCfg) -> None:
        if cfg.path is None:
            raise ConfigError("depth: path: got None, expected a depth file for provider 'file'")
        self.cfg, self.path = cfg, Path(cfg.path)

    def check(self, photo: Photo) -> None:
        """Read the file and compare its shape with the photo's, before a world is begun.

        Raises:
            InputError: the file cannot be used.
        """
        self._read(photo)

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return the file's depth at the reading's size; holes stay NaN and UNLABELED (or SKY where the photo shows sky).

        Raises:
            InputError: the file cannot be used, or its shape is not that of the photo.
        """
        values, turned = self._read(photo)
        if self.cfg.kind == "range":
            # Before resampling: unlike depth, the inverse of a distance along rays is not affine on planes.
            rays = reading.camera.resized(values.shape[1], values.shape[0]).rays()
            values = (values / np.linalg.norm(rays, axis=-1)).astype(np.float32)
        width, height = reading.camera.width, reading.camera.height
        if width > values.shape[1]:
            depth = upsampled_depth(values, resized(photo.rgb, width, height))
        else:
            depth = resampled_depth(values, width, height)
        found = from_metric_depth(depth, reading, source="file", sigma=_SCALE_SIGMA, called="The depth file",
                                  floor_mask=shown_floor(photo, width, height))
        said = ("The depth file lies as the sensor saw it and was turned upright with the photo.",) if turned else ()
        return replace(found, notes=said + found.notes)

    def _read(self, photo: Photo) -> tuple[np.ndarray, bool]:
        """Return (h, w) depth in the upright photo's shape [m], and whether it had to be turned."""
        depth = read_depth_file(self.path, unit=self.cfg.unit, kind=self.cfg.kind)
        if self.cfg.confidence is not None:
            depth[~read_confidence(Path(self.cfg.confidence), depth.shape)] = np.nan
            left = float(np.isfinite(depth).mean())
            if left < MIN_VALID:
                raise InputError(f"confidence: {self.cfg.confidence}: got enough of it and depth at {100 * left:.1f} % of the "
                                 f"pixels, expected at least {100 * MIN_VALID:.0f} %")
        got, want = depth.shape[1] / depth.shape[0], photo.rgb.shape[1] / photo.rgb.shape[0]
        if abs(np.log(got / want)) <= _ASPECT_TOLERANCE:
            return depth, False
        lies = abs(np.log(got * want)) <= _ASPECT_TOLERANCE
        if lies and photo.orientation in _UPRIGHT:
            return np.ascontiguousarray(_UPRIGHT[photo.orientation](depth)), True
        hint = "; it seems to lie on its side: turn it upright as the photo is" if lies else ""
        raise InputError(f"{self.path}: got {depth.shape[1]}x{depth.shape[0]} px, expected the shape of the upright photo, "
                         f"{photo.rgb.shape[1]}x{photo.rgb.shape[0]} px or a multiple{hint}")


def shown_floor(photo: Photo, width: int, height: int) -> np.ndarray | None:
    """Return the user's floor mask at another size, (height, width) bool; None without one."""
    if photo.floor_mask is None:
        return None
    return cv2.resize(photo.floor_mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
