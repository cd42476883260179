"""The same place photographed a little differently is read as the same place: mirror, crop, exposure and size."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.scenes.demo import DEMO_PHOTO
from lyra_core.types import Label, Photo

SIZE = 512


@cache
def picture():
    photo = load_photo(DEMO_PHOTO)
    scale = SIZE / max(photo.rgb.shape[:2])
    rgb = cv2.resize(photo.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    focal = None if photo.focal_px is None else photo.focal_px * scale
    return rgb, focal


def read(rgb, focal):
    photo = Photo(np.ascontiguousarray(rgb), "0", "p.png", focal_px=focal, focal_source="none" if focal is None else "exif")
    reading = read_photo(photo, PhotoCfg(), size=SIZE)
    return DepthGeometric(DepthCfg()).estimate(photo, reading)


@cache
def original():
    return read(*picture())


def down(estimate):
    return -estimate.T_world_camera[2, :3]


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b, -1, 1)))


def compared(other, crop=(0, 0, 0, 0), *, mirrored=False):
    """Return floor overlap and |ln| of the median depth ratio of another reading, on the original's pixels less a crop [px]."""
    first = original()
    top, bottom, left, right = crop
    h, w = first.depth.shape
    window = np.s_[top : h - bottom, left : w - right]
    size = (w - left - right, h - top - bottom)
    depth, labels = (cv2.resize(x, size, interpolation=cv2.INTER_NEAREST) for x in (other.depth, other.labels))
    if mirrored:
        depth, labels = depth[:, ::-1], labels[:, ::-1]
    a, b = first.labels[window] == Label.FLOOR, labels == Label.FLOOR
    known = np.isfinite(depth) & np.isfinite(first.depth[window])
    return (a & b).sum() / (a | b).sum(), abs(float(np.log(np.median(depth[known] / first.depth[window][known]))))


def test_a_mirrored_photo_gives_the_mirrored_layout():
    rgb, focal = picture()
    other = read(rgb[:, ::-1], focal)
    overlap, scale = compared(other, mirrored=True)
    assert angle(down(original()), down(other) * [-1, 1, 1]) < 1 and overlap > 0.9 and scale < 0.1


@pytest.mark.parametrize("side", range(4))
def test_a_crop_of_five_percent_moves_little(side):
    rgb, focal = picture()
    crop = [0] * 4
    crop[side] = round(0.05 * rgb.shape[0 if side < 2 else 1])
    h, w = rgb.shape[:2]
    other = read(rgb[crop[0] : h - crop[1], crop[2] : w - crop[3]], focal)
    overlap, scale = compared(other, crop)
    # The crop also moves the middle, which is taken for the principal point: 2.5 % of the picture is over a degree by itself.
    centre = np.array([(crop[2] - crop[3]) / 2, (crop[0] - crop[1]) / 2]) / original().camera.K[0, 0]
    true = down(original()) @ np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1.0]])
    assert min(angle(down(original()), down(other)), angle(true / np.linalg.norm(true), down(other))) < 1
    assert overlap > 0.85 and scale < 0.1


@pytest.mark.parametrize("stops", [-1, 1])
def test_a_stop_of_exposure_moves_little(stops):
    rgb, focal = picture()
    other = read((255 * np.clip((rgb / 255.0) ** 2.2 * 2.0**stops, 0, 1) ** (1 / 2.2)).astype(np.uint8), focal)
    overlap, scale = compared(other)
    assert angle(down(original()), down(other)) < 1 and overlap > 0.85 and scale < 0.1


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_another_size_moves_little(scale):
    rgb, focal = picture()
    resized = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    other = read(resized, None if focal is None else focal * scale)
    overlap, ratio = compared(other)
    assert angle(down(original()), down(other)) < 1 and overlap > 0.85 and ratio < 0.1
