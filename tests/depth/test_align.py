"""Similarities, scales and disparity fits against known transforms, outliers and another library."""

from __future__ import annotations

import numpy as np
import pytest
from scene_depth import depth_at
from skimage.transform import SimilarityTransform

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.depth.align import (
    depth_scale,
    disparity_fit,
    inverse_depth_scale,
    known_depth,
    pose_scale,
    smoothed,
    umeyama,
    umeyama_ransac,
)
from lyra_core.errors import InputError
from lyra_core.types import Camera, Frame

R = from_yaw_pitch(np.zeros(3), 0.7, -0.3)[:3, :3]


def moved(points, scale=2.5):
    return scale * points @ R.T + [1.0, -2.0, 0.5]


def test_umeyama_recovers_a_known_similarity_as_scikit_image_does():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(40, 3))
    target = moved(source) + rng.normal(0, 0.01, (40, 3))
    fitted = umeyama(source, target)
    peer = SimilarityTransform.from_estimate(source, target).params
    np.testing.assert_allclose(fitted.scale * fitted.rotation, peer[:3, :3], atol=1e-9)
    np.testing.assert_allclose(fitted.translation, peer[:3, 3], atol=1e-9)
    assert abs(fitted.scale - 2.5) < 0.01


def test_mirrored_points_do_not_give_a_reflection():
    source = np.random.default_rng(1).normal(size=(20, 3))
    assert np.linalg.det(umeyama(source, source * [1, 1, -1]).rotation) > 0.99


def test_ransac_ignores_wild_poses():
    rng = np.random.default_rng(2)
    source = rng.normal(size=(30, 3))
    target = moved(source)
    target[:9] += rng.normal(0, 20, (9, 3))
    assert abs(umeyama_ransac(source, target, rng=rng).scale - 2.5) < 1e-6
    assert abs(umeyama(source, target).scale - 2.5) > 0.1
    assert abs(pose_scale(source, target, rng=rng) - 2.5) < 1e-6


def test_a_camera_that_stands_still_fixes_no_scale():
    rng = np.random.default_rng(3)
    assert pose_scale(rng.normal(size=(12, 3)), np.ones((12, 3)), rng=rng) is None
    with pytest.raises(InputError, match="coincide"):
        umeyama(np.ones((5, 3)), np.ones((5, 3)))


def test_inverse_depth_scale_is_the_least_squares_solution():
    rng = np.random.default_rng(4)
    depth = rng.uniform(1, 9, (30, 40))
    assert abs(inverse_depth_scale(depth * 1.7, depth) - 1.7) < 1e-9
    noisy = depth * 1.7 * rng.lognormal(0, 0.1, depth.shape)
    wanted = np.linalg.lstsq((1 / noisy).reshape(-1, 1), (1 / depth).ravel(), rcond=None)[0][0]
    assert abs(inverse_depth_scale(noisy, depth) - wanted) < 1e-9
    assert inverse_depth_scale(depth, np.full_like(depth, np.nan)) is None


def test_scale_and_disparity_survive_outliers():
    rng = np.random.default_rng(5)
    known = rng.uniform(1, 9, (30, 40))
    wrong = rng.random(known.shape) < 0.25
    predicted = np.where(wrong, rng.uniform(0.1, 30, known.shape), known / 1.3)
    assert abs(depth_scale(predicted, known) - 1.3) < 0.02
    disparity = np.where(wrong, rng.uniform(0, 5, known.shape), (1 / known - 0.05) / 0.4)
    a, b = disparity_fit(disparity, known)
    assert abs(a - 0.4) < 0.01 and abs(b - 0.05) < 0.01
    known[:29] = np.nan
    assert depth_scale(predicted, known) is None and disparity_fit(disparity, known) is None


def test_known_depth_is_what_the_next_camera_sees():
    camera = Camera.from_focal(60.0, 96, 64)
    T = [from_yaw_pitch(np.array([0.3 * i, 0.0, 1.5]), 0.05 * i, -0.15) for i in range(3)]
    blank = np.zeros((64, 96), np.uint8)
    frames = [Frame(np.zeros((64, 96, 3), np.uint8), depth_at(camera, pose), camera, pose, blank) for pose in T]
    seen = known_depth(frames[1:], frames[:1])
    for got, frame in zip(seen, frames[1:], strict=True):
        both = np.isfinite(got) & np.isfinite(frame.depth)
        assert both.mean() > 0.6
        assert np.median(np.abs(got / frame.depth - 1)[both]) < 0.01


def test_gaps_take_their_neighbours_fit():
    rows = smoothed([np.array([1.0]), None, np.array([3.0]), None, None], np.zeros(1))
    assert rows.shape == (5, 1) and 1.0 <= rows[1, 0] <= 3.0 and rows[4, 0] > 2
    assert np.array_equal(smoothed([None, None], np.array([7.0, 1.0])), [[7, 1], [7, 1]])
    flicker = smoothed([np.array([x]) for x in (1.0, 1.0, 9.0, 1.0, 1.0)], np.zeros(1))
    assert np.allclose(flicker, 1.0), "one wild frame does not count"
