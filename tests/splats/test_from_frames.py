"""Gaussians from frames: they reproduce the frame, are not made twice, and stay within the limit without losing regions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from surface_scenes import LIVINGROOM, livingroom, room_distance, room_frames

from lyra_core.errors import InputError
from lyra_core.splats.from_frames import quats_from_axes, splats_from_frames
from lyra_core.splats.render import axes_from_quats, render_splats
from lyra_core.types import Camera, Frame, GaussianCloud


def psnr(a, b, where):
    return 10 * np.log10(255**2 / max(float(((a.astype(float) - b)[where] ** 2).mean()), 1e-9))


def test_own_view_is_reproduced():
    frame = room_frames()[0]
    cloud = splats_from_frames([frame], max_count=100_000)
    assert len(cloud.means) == 70 * 100, "one per 2 x 2 pixels"
    rgb, coverage = render_splats(cloud, frame.camera, frame.T_world_camera)
    assert psnr(rgb, frame.rgb, np.isfinite(frame.depth)) > 27 and coverage.mean() > 0.97


def test_first_frame_can_be_finer():
    frames = room_frames()[:6]
    fine = splats_from_frames(frames, max_count=10**6, first_block=1)
    same = splats_from_frames(frames, max_count=10**6)
    pixels = splats_from_frames(frames[:1], max_count=10**6, block=1).means
    gap = cKDTree(fine.means).query(pixels)[0]
    assert len(pixels) == 28000 and np.mean(gap < 1e-3) > 0.97, "one per pixel, but for edges that others show better"
    photo = frames[0]
    quality = [psnr(render_splats(cloud, photo.camera, photo.T_world_camera)[0], photo.rgb, np.isfinite(photo.depth))
               for cloud in (same, fine)]
    assert quality[1] > quality[0] + 1
    assert len(splats_from_frames(frames, max_count=9000, first_block=1).means) <= 9000


def test_gaussians_lie_flat_on_the_surface():
    cloud = splats_from_frames(room_frames()[:6], max_count=100_000)
    distance = room_distance(cloud.means.astype(float))
    assert np.median(distance) < 1e-4 and np.percentile(distance, 95) < 0.02
    on_floor = np.abs(cloud.means[:, 2]) < 1e-3
    normal = axes_from_quats(cloud.quats_wxyz)[:, :, 2]
    assert on_floor.sum() > 1000 and np.percentile(normal[on_floor, 2], 5) > 0.98
    assert (cloud.scales[:, 2] < 0.2 * cloud.scales[:, :2].min(1)).all()
    assert np.allclose(np.linalg.norm(cloud.quats_wxyz, axis=1), 1, atol=1e-6)


def test_nothing_is_made_twice_and_new_regions_are_added():
    frames = room_frames()
    one = len(splats_from_frames(frames[:1], max_count=10**6).means)
    assert len(splats_from_frames([frames[0]] * 4, max_count=10**6).means) <= 1.01 * one
    every = splats_from_frames(frames, max_count=10**6)
    assert one * 3 < len(every.means) < 0.6 * one * len(frames)
    assert set(np.unique(every.provenance)) == {0, 2}
    quality = []
    for frame in frames[2::7]:
        rgb, coverage = render_splats(every, frame.camera, frame.T_world_camera)
        assert (coverage > 0.8).mean() > 0.97
        quality.append(psnr(rgb, frame.rgb, coverage > 0.8))
    assert np.mean(quality) > 25 and min(quality) > 22


def test_limit_thins_everywhere():
    frames = room_frames()
    full, few = (splats_from_frames(frames, max_count=limit) for limit in (10**6, 8000))
    assert 2000 < len(few.means) <= 8000
    cells = [set(map(tuple, np.floor(cloud.means / 0.5 + 0.4).astype(int).tolist())) for cloud in (full, few)]
    assert len(cells[0] - cells[1]) < 0.05 * len(cells[0]), "no region is cut off"
    again = splats_from_frames(frames, max_count=8000)
    assert again.means.tobytes() == few.means.tobytes() and again.sh.tobytes() == few.sh.tobytes()
    tiny = splats_from_frames(frames, max_count=60)
    assert 0 < len(tiny.means) <= 60


def test_sky_is_left_out_and_no_depth_is_refused():
    frame = room_frames()[0]
    depth = frame.depth.copy()
    depth[:40] = np.nan
    half = Frame(frame.rgb, depth, frame.camera, frame.T_world_camera, np.where(np.isfinite(depth), 1, 255).astype(np.uint8))
    cloud = splats_from_frames([half], max_count=10**6)
    assert len(cloud.means) == 50 * 100 and (cloud.provenance == 1).all()
    blind = Frame(frame.rgb, np.full_like(depth, np.nan), frame.camera, frame.T_world_camera, frame.provenance)
    with pytest.raises(InputError, match="no pixel"):
        splats_from_frames([blind], max_count=10)
    with pytest.raises(InputError, match="max_count"):
        splats_from_frames([frame], max_count=0)


def test_quaternions_agree_with_scipy():
    R = Rotation.random(500, random_state=0)
    quats = quats_from_axes(R.as_matrix())
    want = R.as_quat()[:, [3, 0, 1, 2]]
    assert np.allclose(quats, want * np.where(want[:, :1] < 0, -1, 1), atol=1e-6)
    assert np.allclose(axes_from_quats(quats), R.as_matrix(), atol=1e-6)


def one_gaussian(**changes) -> GaussianCloud:
    values = {"means": [[0, 0, 2.0]], "quats_wxyz": [[1, 0, 0, 0]], "scales": [[0.1, 0.05, 0.02]], "opacities": [0.8],
              "sh": [[[(1 - 0.5) / 0.28209479, 0, -0.5 / 0.28209479]]]} | changes
    arrays = {name: np.array(value, np.float32) for name, value in values.items()}
    return GaussianCloud(**arrays, provenance=np.zeros(len(arrays["means"]), np.uint8))


def test_one_gaussian_has_the_analytic_footprint():
    camera = Camera.from_focal(200.0, 101, 81)
    rgb, alpha = render_splats(one_gaussian(), camera, np.eye(4))
    y, x = np.mgrid[:81, :101]
    exact = 0.8 * np.exp(-0.5 * ((x - 50) ** 2 / (10**2 + 0.3) + (y - 40) ** 2 / (5**2 + 0.3)))
    assert np.abs(alpha - np.where(exact >= 1 / 255, exact, 0)).max() < 1e-5
    assert rgb[40, 50].tolist() == [204, 102, 0]


def test_compositing_is_front_to_back_over_the_background():
    camera = Camera.from_focal(200.0, 21, 21)
    white, black = (1 - 0.5) / 0.28209479, -0.5 / 0.28209479
    for order in ([0, 1], [1, 0]):
        two = one_gaussian(means=np.array([[0, 0, 2.0], [0, 0, 3.0]])[order], quats_wxyz=[[1, 0, 0, 0]] * 2,
                           scales=[[0.3] * 3] * 2, opacities=np.array([0.5, 0.5]),
                           sh=np.array([[[white, black, black]], [[black, white, black]]])[order])
        rgb, alpha = render_splats(two, camera, np.eye(4), background=(0, 0, 255))
        assert rgb[10, 10].tolist() == [128, 64, 64] and alpha[10, 10] == pytest.approx(0.75, abs=1e-6)


def test_view_dependent_colour_and_behind_the_camera():
    sh = np.zeros((1, 4, 3))
    sh[0, 2, 0] = 1.0  # linear in the viewing direction's z
    cloud = one_gaussian(sh=sh, opacities=[0.99])
    camera = Camera.from_focal(200.0, 21, 21)
    front = render_splats(cloud, camera, np.eye(4))[0][10, 10, 0]
    back_pose = np.diag([1.0, -1, -1, 1])
    back_pose[2, 3] = 4
    back = render_splats(cloud, camera, back_pose)[0][10, 10, 0]
    assert front == round(255 * 0.99 * (0.5 + 0.4886)) and back == pytest.approx(255 * 0.99 * (0.5 - 0.4886), abs=1)
    assert render_splats(cloud, camera, np.diag([-1.0, 1, -1, 1]))[1].max() == 0


def test_two_hundred_thousand_gaussians_take_seconds():
    rng = np.random.default_rng(0)
    n = 200_000
    means = np.concatenate([rng.uniform(-2, 2, (n, 2)), rng.uniform(2, 6, (n, 1))], 1)
    cloud = GaussianCloud(means.astype(np.float32), np.tile(np.float32([1, 0, 0, 0]), (n, 1)), np.full((n, 3), 0.01, np.float32),
                          np.full(n, 0.9, np.float32), rng.normal(size=(n, 1, 3)).astype(np.float32), np.zeros(n, np.uint8))
    start = time.perf_counter()
    render_splats(cloud, Camera.from_focal(350.0, 416, 240), np.eye(4))
    assert time.perf_counter() - start < 8


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="evaluation data is not here")
def test_living_room():
    frames = livingroom(4, 320, 240)
    own = splats_from_frames(frames[:1], max_count=10**6)
    rgb, _ = render_splats(own, frames[0].camera, frames[0].T_world_camera)
    assert psnr(rgb, frames[0].rgb, np.isfinite(frames[0].depth)) >= 25
    every = splats_from_frames(frames, max_count=10**6)
    for frame in frames[::4]:
        rgb, coverage = render_splats(every, frame.camera, frame.T_world_camera)
        where = np.isfinite(frame.depth) & (coverage > 0.5)
        assert where[np.isfinite(frame.depth)].mean() > 0.97 and psnr(rgb, frame.rgb, where) > 22
