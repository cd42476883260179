"""Reading must not depend on a picture's frame or exposure."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.photo.tone import even_exposure, find_frame, without_frame
from lyra_core.scenes import sample_scene
from lyra_core.scenes.render import Effects, render


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """An office, 160 px wide."""
    case = sample_scene(1, "office")
    case = case.resized(160, round(160 * case.camera.height / case.camera.width))
    return render(case.scene, case.camera, case.T_world_camera, effects=Effects(light_samples=1, bounce_samples=0)).rgb


@pytest.mark.parametrize("colour", [0, 255])
def test_a_frame_is_found_and_overwritten_from_inside(picture, colour):
    framed = picture.copy()
    framed[:5], framed[-3:], framed[:, :4], framed[:, -6:] = colour, colour, colour, colour
    frame = find_frame(framed)
    assert frame[:5].all() and frame[-3:].all() and frame[:, :4].all() and frame[:, -6:].all()
    assert frame[12:-12, 12:-12].sum() == 0
    out = without_frame(framed)
    assert np.abs(out[:5].astype(int) - colour).mean() > 20, "the frame is gone"
    assert np.array_equal(out[12:-12, 12:-12], picture[12:-12, 12:-12])


def test_white_walls_and_black_skies_are_no_frames(picture):
    for colour in (0, 255):
        sky = picture.copy()
        sky[: len(sky) // 2] = colour
        assert not find_frame(sky).any()
    assert without_frame(picture) is picture


def test_two_stops_make_little_difference(picture):
    light = (picture / 255.0) ** 2.2
    darker = np.rint(255 * (light / 4) ** (1 / 2.2)).astype(np.uint8)
    before = np.abs(picture.astype(int) - darker).mean()
    after = np.abs(even_exposure(picture).astype(int) - even_exposure(darker)).mean()
    assert before > 40 and after < before / 6


def test_black_and_white_stay_what_they_are():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, -1)
    out = even_exposure(np.tile(ramp, (8, 1, 1)))[0, :, 0].astype(int)
    assert out[0] == 0 and out[255] > 230 and (np.diff(out) >= 0).all()
