"""What the user says about the camera and the floor wins, exactly."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lyra_core.config import PhotoCfg
from lyra_core.errors import ConfigError
from lyra_core.photo.camera import Horizon
from lyra_core.photo.load import parse_intrinsics
from lyra_core.photo.read import read_photo
from lyra_core.scenes import sample_scene
from lyra_core.scenes.render import Effects, render
from lyra_core.types import Label, Photo

CORRIDOR = 6
"""Seed of a corridor in landscape format."""


@pytest.fixture(scope="module")
def corridor():
    """A corridor, 480 px wide, with its true camera."""
    case = sample_scene(CORRIDOR, "corridor")
    case = case.resized(480, round(480 * case.camera.height / case.camera.width))
    return render(case.scene, case.camera, case.T_world_camera, effects=Effects(light_samples=1, bounce_samples=0))


def _photo(picture, **given) -> Photo:
    return Photo(picture.rgb, "0" * 64, "corridor.png", focal_source="user", **given)


def _tilt(reading, T_world_camera) -> float:
    return float(np.degrees(np.arccos(np.clip(reading.T_world_camera[2, :3] @ T_world_camera[2, :3], -1, 1))))


def test_the_principal_point_is_used(corridor):
    K, (h, w) = corridor.camera.K, corridor.rgb.shape[:2]
    whole = read_photo(_photo(corridor, focal_px=K[0, 0], intrinsics=(K[0, 0], K[1, 1], w / 2, h / 2)), PhotoCfg(), size=512)
    top = round(0.15 * h)
    cut = dataclasses.replace(corridor, rgb=corridor.rgb[top:])
    known = (K[0, 0], K[1, 1], w / 2, h / 2 - top)
    told = read_photo(_photo(cut, focal_px=K[0, 0], intrinsics=known), PhotoCfg(), size=512)
    guessed = read_photo(_photo(cut, focal_px=K[0, 0]), PhotoCfg(), size=512)
    assert _tilt(whole, corridor.T_world_camera) < 1.5
    assert _tilt(told, corridor.T_world_camera) < 2.0, "a cropped picture has the same camera"
    assert _tilt(guessed, corridor.T_world_camera) > 3.0, "which it has not when the crop is not told"
    scale = told.camera.width / w
    assert told.camera.K[1, 2] == pytest.approx(known[3] * scale, abs=0.5)


def test_the_horizon_is_used(corridor):
    K = corridor.camera.K
    reading = read_photo(_photo(corridor, focal_px=K[0, 0]), PhotoCfg(horizon="0.3,2"), size=512)
    up = reading.T_world_camera[2, :3]
    h, w = reading.labels.shape
    # The horizon holds the directions at right angles to up: solve for the row in the middle column and one pixel beside it.
    focal = reading.camera.K[0, 0]
    rows = [-(up[0] * (u - w / 2) + up[2] * focal) / up[1] + h / 2 for u in (w / 2, w / 2 + 1)]
    assert rows[0] / h == pytest.approx(0.3, abs=1e-3)
    assert np.degrees(np.arctan(rows[0] - rows[1])) == pytest.approx(2.0, abs=0.01), "it rises to the right"


def test_the_floor_mask_is_the_floor(corridor):
    h, w = corridor.rgb.shape[:2]
    mask = np.zeros((h, w), bool)
    mask[int(0.8 * h):, : w // 2] = True
    reading = read_photo(_photo(corridor, focal_px=corridor.camera.K[0, 0], floor_mask=mask), PhotoCfg(), size=w)
    floor = reading.labels == Label.FLOOR
    assert (floor & ~mask).sum() == 0 and floor.sum() > 0.9 * mask.sum()


@pytest.mark.parametrize("text", ["", "half", "0.4,", "5", "0.4,60", "nan", "0.4,1,2"])
def test_a_horizon_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="horizon: got"):
        Horizon.parse(text)


@pytest.mark.parametrize(("text", "wanted"), [
    ("500,500,320", "four numbers"), ("0,500,320,240", "positive"), ("500,700,320,240", "square pixels"),
    ("500,500,10,240", "middle half"),
])
def test_intrinsics_that_cannot_be_are_refused(text, wanted):
    with pytest.raises(ConfigError, match=wanted):
        parse_intrinsics(text, 640, 480)
