"""Depth from a file: a phone's LiDAR, a stereo camera, or the output of any model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lyra_core.camera.backdrop import column_centres, column_of
from lyra_core.camera.upright import UprightRays, rotation_from_down, upright_rays
from lyra_core.config import DepthCfg
from lyra_core.depth.formats import read_confidence, read_depth_file, resampled_depth
from lyra_core.depth.plane import fit_floor
from lyra_core.depth.regions import components, standing_only, without_speckle
from lyra_core.errors import ConfigError, InputError
from lyra_core.types import Camera, DepthEstimate, Label, Photo, PhotoReading

_SCALE_SIGMA = 0.02
_ASPECT_TOLERANCE = 0.03
_FLOOR_BAND = 0.05
"""Heights that count as floor [m], plus 1 % of the distance."""
_IN_FRONT = (0.85, 0.2)
"""An obstacle is nearer than this share of the wall's distance, less this many metres."""
_MAX_OBSTACLE_HEIGHT = 2.2
"""A taller measured surface is a wall [m]."""


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
        depth = resampled_depth(self._read(photo), reading.camera.width, reading.camera.height)
        if self.cfg.kind == "range":
            depth = (depth / np.linalg.norm(reading.camera.rays(), axis=-1)).astype(np.float32)
        return from_metric_depth(depth, reading, source="file", sigma=_SCALE_SIGMA, called="The depth file")

    def _read(self, photo: Photo) -> np.ndarray:
        depth = read_depth_file(self.path, unit=self.cfg.unit, kind=self.cfg.kind)
        if self.cfg.confidence is not None:
            depth[~read_confidence(Path(self.cfg.confidence), depth.shape)] = np.nan
        got, want = depth.shape[1] / depth.shape[0], photo.rgb.shape[1] / photo.rgb.shape[0]
        if abs(np.log(got / want)) > _ASPECT_TOLERANCE:
            turned = abs(np.log(got * want)) <= _ASPECT_TOLERANCE and photo.orientation != 1
            hint = "; the photo is stored lying down: turn the depth file upright as the photo is" if turned else ""
            raise InputError(f"{self.path}: got {depth.shape[1]}x{depth.shape[0]} px, expected the shape of the upright photo, "
                             f"{photo.rgb.shape[1]}x{photo.rgb.shape[0]} px or a multiple{hint}")
        return depth


def from_metric_depth(depth: np.ndarray, reading: PhotoReading, *, source: str, sigma: float, called: str) -> DepthEstimate:
    """Correct gravity, camera height and labels of a reading by metric depth (H, W) [m], NaN = unknown.

    Args:
        source: name of the provider.
        sigma: relative standard deviation of the depth's scale.
        called: what the depth is called in notes.
    """
    camera, notes = reading.camera, []
    points = camera.rays() * depth[..., None]
    known = np.isfinite(depth)
    down = -reading.T_world_camera[2, :3]
    T, scale_sigma = reading.T_world_camera.copy(), reading.scale_sigma
    plane = fit_floor(points[known], down, np.random.default_rng(0))
    if plane is None:
        where = called[0].lower() + called[1:]
        notes.append(f"No floor was found in {where}: the camera's height and tilt are those read from the photo.")
    else:
        T[:3, :3] = rotation_from_down(plane[0])
        T[2, 3] = plane[1]
        scale_sigma = sigma
    height = _heights(points, T)
    ceiling_height, ceiling = _find_ceiling(height, _verticality(points, T), float(T[2, 3]))
    labels = _labels(depth, height, ceiling, camera, T, reading.labels == Label.SKY)
    unknown = float((labels == Label.UNLABELED).mean())
    if unknown > 0.02:
        notes.append(f"{called} leaves {100 * unknown:.0f} % of the picture unknown.")
    return DepthEstimate(depth, labels, camera, T, ceiling_height, source, scale_sigma, tuple(notes), measured=known)


def _heights(points: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return (H, W) world z of camera-frame points."""
    return (points[..., 0] * T[2, 0] + points[..., 1] * T[2, 1] + points[..., 2] * T[2, 2] + T[2, 3]).astype(np.float32)


def _verticality(points: np.ndarray, T: np.ndarray) -> np.ndarray:
    """Return (H, W) |z| of the surface normal in the world frame; 1 = horizontal surface, 0 = wall or unknown."""
    along_u, along_v = np.full_like(points, np.nan), np.full_like(points, np.nan)
    along_u[:, 2:-2] = points[:, 4:] - points[:, :-4]
    along_v[2:-2] = points[4:] - points[:-4]
    normal = np.cross(along_u, along_v)
    length = np.sqrt((normal**2).sum(-1))
    up = normal[..., 0] * T[2, 0] + normal[..., 1] * T[2, 1] + normal[..., 2] * T[2, 2]
    return np.nan_to_num(np.abs(up) / np.maximum(length, 1e-12)).astype(np.float32)


def _find_ceiling(height: np.ndarray, verticality: np.ndarray, camera_height: float) -> tuple[float | None, np.ndarray]:
    """Return the height of the largest level surface above the camera and 1.9 m, and its (H, W) mask."""
    level = (verticality > 0.85) & (height > max(1.9, camera_height + 0.2)) & (height < 12.0)
    if level.sum() < 0.01 * height.size:
        return None, np.zeros(height.shape, bool)
    counts, edges = np.histogram(height[level], bins=np.arange(1.9, 12.1, 0.1))
    near = level & (np.abs(height - (edges[counts.argmax()] + 0.05)) < 0.15)
    value = float(np.median(height[near]))
    ceiling = (verticality > 0.7) & (np.abs(height - value) < 0.1)
    ceiling = cv2.morphologyEx(ceiling.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0
    return round(value, 3), ceiling & (np.abs(height - value) < 0.15)


def _labels(depth: np.ndarray, height: np.ndarray, ceiling: np.ndarray, camera: Camera, T: np.ndarray,
            sky: np.ndarray) -> np.ndarray:
    known = np.isfinite(depth)
    rays = upright_rays(camera, T)
    ahead = depth * rays.ahead
    labels = np.full(depth.shape, Label.WALL, np.uint8)
    in_front = ahead < wall_distance(ahead, height, rays) * _IN_FRONT[0] - _IN_FRONT[1]
    labels[known & in_front] = Label.OBSTACLE
    labels[ceiling] = Label.CEILING
    labels[known & (np.abs(height) < _FLOOR_BAND + 0.01 * np.nan_to_num(depth))] = Label.FLOOR
    unknown = np.where(sky, np.uint8(Label.SKY), np.uint8(Label.UNLABELED))
    labels = without_speckle(np.where(known, labels, unknown))
    for part in components(labels == Label.OBSTACLE, order=height):
        if float(np.nanpercentile(height[part], 98)) > _MAX_OBSTACLE_HEIGHT:
            labels[part] = Label.WALL
    labels = without_speckle(standing_only(labels))
    relabel = known & np.isin(labels, (Label.SKY, Label.UNLABELED))
    labels[relabel] = Label.WALL
    return np.where(known, labels, unknown).astype(np.uint8)


def wall_distance(ahead: np.ndarray, height: np.ndarray, rays: UprightRays) -> np.ndarray:
    """Return (H, W) forward distance of the farthest upright surface in each pixel's column [m] (85th percentile above 0.3 m)."""
    right = column_centres(rays)
    column = column_of(rays, right)
    used = np.isfinite(ahead) & (height > 0.3) & np.isfinite(rays.right)
    order = np.lexsort((ahead[used], column[used]))
    columns, values = column[used][order], ahead[used][order]
    start, stop = np.searchsorted(columns, np.arange(len(right))), np.searchsorted(columns, np.arange(len(right)), side="right")
    out = np.full(len(right), np.inf)
    have = np.flatnonzero(stop > start)
    out[have] = values[start[have] + ((stop - start)[have] * 0.85).astype(int)]
    if len(have) == 0:
        return np.zeros(ahead.shape, np.float32)
    out = np.interp(np.arange(len(right)), have, out[have])
    return out[column].astype(np.float32)
