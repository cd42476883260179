"""The forward warp against numbers of the reference and against hand-computed cases."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lyra_core.camera.warp import continuous_depth, forward_warp, planar_depth, project, unproject
from lyra_core.errors import InputError
from lyra_core.types import Camera, Trajectory

RECORDED = Path(os.environ.get("LYRA2_GOLDEN") or Path(__file__).resolve().parents[1] / "assets" / "lyra2_golden")
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
"""From pixel centres at integers to pixel centres at +0.5."""


@pytest.fixture(scope="module")
def golden():
    data = dict(np.load(RECORDED / "forward_warp.npz", allow_pickle=False))
    # The reference puts unknown depth at its clamp of 10 km and splats it; ours would leave it out.
    depth = np.where(data["depth_raw"] == -9999, np.float32(1e4), data["depth_raw"])
    height, width = depth.shape
    camera = Camera(data["src_K"].astype(float) + HALF, width, height)
    T = np.linalg.inv(data["src_w2c"].astype(float))
    targets = Trajectory(np.linalg.inv(data["tgt_w2c"].astype(float)), data["tgt_K"].astype(float) + HALF, width, height)
    return data, depth, camera, T, targets


def warp(golden, rows, mask):
    data, depth, camera, T, targets = golden
    return forward_warp(data["image"].transpose(1, 2, 0), depth, camera, T, targets[rows], mask=mask)


def close(warped, image, depth):
    """Return the shares of image values and depths within 1e-3 of the reference (holes: -1 and 0)."""
    ours = np.where(warped.covered[..., None], np.clip(warped.values, -1, 1), -1).transpose(0, 3, 1, 2)
    ours_depth = np.where(warped.covered, warped.depth, 0)
    return (np.abs(ours - image) < 1e-3).mean(), (np.abs(ours_depth - depth) < 1e-3).mean()


def test_reference_numbers(golden):
    data, depth, _, _, _ = golden
    reliable = continuous_depth(depth)
    assert np.array_equal(reliable, data["reliable_mask"].astype(bool))
    for mask, case in ((reliable, "clean"), (np.ones_like(reliable), "raw")):
        warped = warp(golden, slice(None), mask)
        assert min(close(warped, data[f"{case}_image"], data[f"{case}_depth"])) >= 0.999
        assert np.array_equal(warped.covered, data[f"{case}_mask"][:, 0].astype(bool))
    for i in range(len(data["tgt_K"])):
        single = warp(golden, slice(i, i + 1), reliable)
        assert min(close(single, data[f"single{i}_image"][None], data[f"single{i}_depth"][None])) >= 0.999


def test_a_wrong_half_pixel_would_be_noticed(golden):
    data, depth, camera, T, targets = golden
    shifted = (data, depth, Camera(camera.K - HALF, camera.width, camera.height), T, targets)
    warped = warp(shifted, slice(None), continuous_depth(depth))
    assert max(close(warped, data["clean_image"], data["clean_depth"])) < 0.9


def test_identity_warp_returns_the_picture():
    rng = np.random.default_rng(0)
    camera, T = Camera.from_focal(20.0, 16, 12), np.eye(4)
    values, depth = rng.random((12, 16, 2), np.float32), np.full((12, 16), 3.0, np.float32)
    out = forward_warp(values, depth, camera, T, Trajectory(T[None], camera.K[None], 16, 12), mask=depth > 0)
    assert out.covered.all()
    np.testing.assert_allclose(out.values[0], values, atol=1e-6)
    np.testing.assert_allclose(out.depth[0], depth, rtol=1e-6)


def test_nearer_surface_wins_and_moves_by_focal_over_depth():
    camera = Camera.from_focal(16.0, 32, 8)
    depth = np.full((8, 32), 8.0, np.float32)
    depth[:, 16:20] = 2.0
    T = np.eye(4)
    T[0, 3] = 0.5  # camera to the right: near pixels go 16 * 0.5 / 2 = 4 px left, far ones 1 px
    out = forward_warp(depth[..., None], depth, camera, np.eye(4), Trajectory(T[None], camera.K[None], 32, 8), mask=depth > 0)
    expected = np.full(32, 8.0)
    expected[12:16] = 2.0
    expected[[16, 17, 18, 31]] = np.nan  # uncovered behind the near strip, and at the border
    np.testing.assert_allclose(out.depth[0, 4], expected, atol=1e-2)
    assert np.isnan(out.depth[0, 4]).tolist() == np.isnan(expected).tolist()


def test_unknown_depth_is_left_out():
    camera, depth = Camera.from_focal(20.0, 8, 8), np.full((8, 8), 2.0, np.float32)
    depth[2, 3] = np.nan
    targets = Trajectory(np.eye(4)[None], camera.K[None], 8, 8)
    out = forward_warp(depth[..., None], depth, camera, np.eye(4), targets, mask=np.ones((8, 8), bool))
    assert np.argwhere(~out.covered[0]).tolist() == [[2, 3]]


def test_project_inverts_unproject_with_skew():
    camera = Camera(np.array([[30.0, 1.5, 9.2], [0, 28.0, 5.1], [0, 0, 1]]), 20, 12)
    T = np.eye(4)
    T[:3, 3] = 1, -2, 3
    points = unproject(np.full((12, 20), 2.5), camera, T).reshape(-1, 3)
    u, v, z = project(points, camera, np.linalg.inv(T))
    np.testing.assert_allclose(u.reshape(12, 20), np.tile(np.arange(20) + 0.5, (12, 1)), atol=1e-9)
    np.testing.assert_allclose(v.reshape(12, 20), np.tile(np.arange(12)[:, None] + 0.5, (1, 20)), atol=1e-9)
    np.testing.assert_allclose(z, 2.5)


def test_at_the_border_the_mean_counts_the_outside_as_nothing():
    depth = np.full((9, 9), 2.0, np.float32)
    depth[4, 4] = 2.07  # 3.5 % more: within 5 % of the full mean, beyond it where only 15 of 25 pixels are there
    assert continuous_depth(depth).all()
    depth = np.roll(depth, 4, 1)
    assert np.argwhere(~continuous_depth(depth)).tolist() == [[row, 8] for row in range(2, 7)]


def test_planar_depth_keeps_a_grazing_floor_and_drops_a_silhouette():
    rows = np.arange(40)[:, None] + 0.5
    floor = np.tile(60.0 / (rows + 2), (1, 50)).astype(np.float32)
    assert planar_depth(floor).all() and not continuous_depth(floor)[:20].any()
    box = floor.copy()
    box[25:35, 20:30] = 0.9
    kept = planar_depth(box)
    assert not kept[30, 19:21].any() and kept[30, 22:28].all() and kept[30, :18].all()


def test_wrong_sizes_are_named():
    camera = Camera.from_focal(20.0, 8, 6)
    with pytest.raises(InputError, match=r"depth: got shape \(5, 8\), expected \(6, 8\)"):
        forward_warp(np.zeros((6, 8, 1)), np.zeros((5, 8)), camera, np.eye(4), Trajectory(np.eye(4)[None], camera.K[None], 8, 6),
                     mask=np.ones((6, 8), bool))
