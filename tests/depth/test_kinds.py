"""Which arrays are taken for depth when nobody says what they hold: every true depth, and hardly an inverse or stretched one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from analytic_room import render_room

from lyra_core.depth.formats import read_depth_file
from lyra_core.depth.kinds import looks_inverse, looks_normalised
from lyra_core.errors import InputError
from tests.benchmarks.sequences import DEFAULT_DATA

ROOMS = {"level": (0.0, 1.5), "down": (14.0, 1.5), "steep": (35.0, 1.6), "low": (8.0, 0.8)}
REAL = sorted((DEFAULT_DATA / "rgbd").glob("*_depth.png"))


def stretched(values: np.ndarray, end: float) -> np.ndarray:
    """Return values scaled to 0 ... end, as they are stored for looking at."""
    low, high = np.nanmin(values), np.nanmax(values)
    return np.nan_to_num((values - low) / (high - low) * end)


@pytest.fixture(scope="module", params=ROOMS)
def place(request):
    pitch, height = ROOMS[request.param]
    return render_room(320, 240, pitch=pitch, camera_height=height)


def test_depth_and_distance_along_rays_are_depth(place):
    along = place.depth * np.linalg.norm(place.camera.rays(), axis=-1)
    noisy = place.depth * (1 + np.random.default_rng(0).normal(0, 0.02, place.depth.shape))
    holes = np.where(np.random.default_rng(1).random(place.depth.shape) < 0.3, np.nan, place.depth)
    for values in (place.depth, along, noisy, holes, place.depth * 1000):
        assert not looks_inverse(values) and not looks_normalised(values)


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("factor", [1.0, 400.0])
def test_inverse_depth_and_disparity_are_told_by_their_straight_surfaces(place, offset, factor):
    assert looks_inverse(factor * (1 / place.depth + offset * (1 / place.depth).min()))


@pytest.mark.parametrize(("end", "kind"), [(1.0, np.float32), (255.0, np.float32), (65535, np.uint16)])
def test_what_is_stretched_for_viewing_is_refused_until_it_is_said(tmp_path, place, end, kind):
    for values in (place.depth, 1 / place.depth):
        np.save(tmp_path / "x.npy", stretched(values, end).astype(kind))
        with pytest.raises(InputError, match=rf"x\.npy: got numbers from about 0 to exactly {end:g}, which looks like normalised"):
            read_depth_file(tmp_path / "x.npy")
    assert np.isfinite(read_depth_file(tmp_path / "x.npy", kind="depth")).any()


def test_inverse_depth_is_refused_until_it_is_said(tmp_path, place):
    np.save(tmp_path / "x.npy", (1 / place.depth).astype(np.float32))
    with pytest.raises(InputError, match=r"x\.npy: got numbers that are straight along surfaces.*--depth-kind"):
        read_depth_file(tmp_path / "x.npy")
    np.testing.assert_allclose(read_depth_file(tmp_path / "x.npy", kind="inverse"), place.depth, rtol=1e-5)
    np.save(tmp_path / "ints.npy", np.full((20, 20), 3, np.uint16))
    with pytest.raises(InputError, match="expected floating-point numbers per metre"):
        read_depth_file(tmp_path / "ints.npy", kind="inverse")


@pytest.mark.skipif(not REAL, reason="the real depth images are not here")
def test_real_depth_is_taken_and_most_of_its_inverses_are_not():
    told = 0
    for path in REAL:
        read_depth_file(path)
        millimetres = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        depth = np.where(millimetres > 0, millimetres / 1000.0, np.nan)
        assert looks_normalised(stretched(depth, 65535).astype(np.uint16)), path.name
        told += looks_inverse(1 / depth)
    assert told >= 0.8 * len(REAL)
