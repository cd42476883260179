"""Reprojection with inpainting against an analytic room: where it can be right it is, and it says where it made things up."""

from __future__ import annotations

import numpy as np
import pytest
from test_loop import CAMERA, GeneratorRoom, make, path, run

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import project
from lyra_core.errors import InputError
from lyra_core.generate.warp_fill import GeneratorWarpFill, fill_depth
from lyra_core.types import DepthEstimate, Label, Photo, Provenance, Trajectory


@pytest.fixture(scope="module")
def chunks():
    return run(make("warp_fill"), path(241))[0]


def psnr(a, b, where):
    return 10 * np.log10(255**2 / np.mean((a[where].astype(float) - b[where]) ** 2))


def test_first_frame_and_return_are_the_photo(chunks):
    frames = [f for c in chunks for f in c.frames]
    truth = GeneratorRoom().first_frame(path(1))
    everywhere = np.ones(truth.depth.shape, bool)
    assert psnr(frames[0].rgb, truth.rgb, everywhere) > 28
    assert (frames[0].provenance == Provenance.SEEN).all()
    assert np.array_equal(frames[160].rgb, frames[0].rgb)


def test_seen_pixels_agree_with_the_truth(chunks):
    room, trajectory = GeneratorRoom(), path(241)
    errors, scores = [], []
    for frame_id, frame in zip(chunks[0].frame_ids[::10], chunks[0].frames[::10], strict=True):
        truth = room.query(trajectory.camera(frame_id), trajectory.T_world_camera[frame_id])
        seen = frame.provenance == Provenance.SEEN
        assert seen.mean() > 0.3 and frame.rgb.shape == (30, 52, 3)
        errors.append(np.quantile(np.abs(frame.depth / truth.depth - 1)[seen], [0.5, 0.9]))
        scores.append(psnr(frame.rgb, truth.rgb, seen))
    assert np.max(errors, 0)[0] < 0.02 and np.max(errors, 0)[1] < 0.06 and np.median(scores) > 22


def test_labels_are_honest(chunks):
    """Nothing invented becomes seen or continued by being warped again."""
    room, trajectory = GeneratorRoom(), path(241)
    photo = room.first_frame(trajectory)
    T_photo_world, checked = inverse(photo.T_world_camera), 0
    for frame_id, frame in zip(chunks[2].frame_ids[::8], chunks[2].frames[::8], strict=True):
        truth = room.query(trajectory.camera(frame_id), trajectory.T_world_camera[frame_id])
        u, v, z = project(truth.points().reshape(-1, 3), CAMERA, T_photo_world)
        # Two pixels of slack: splatting spreads a photo pixel over its neighbours.
        outside = ((z <= 0) | (u < -2) | (u > CAMERA.width + 2) | (v < -2) | (v > CAMERA.height + 2)).reshape(truth.depth.shape)
        checked += outside.sum()
        assert (frame.provenance[outside] == Provenance.INVENTED).sum() >= 0.97 * outside.sum()
        assert set(np.unique(frame.provenance)) <= {0, 1, 2} and np.isfinite(frame.depth).all()
    assert checked > 1000


def test_sky_stays_sky():
    camera = CAMERA
    depth = np.tile((40.0 / np.maximum(np.arange(30)[:, None] - 9.5, 0.1)).astype(np.float32), (1, 52))
    labels = np.full((30, 52), Label.FLOOR, np.uint8)
    labels[:11] = Label.SKY
    depth[:11] = np.nan
    rgb = np.where(labels[..., None] == Label.SKY, np.uint8([90, 140, 230]), np.uint8([110, 100, 90]))
    generator = GeneratorWarpFill()
    T = path(1).T_world_camera[0]
    estimate = DepthEstimate(depth, labels, camera, T, None, "exact", 0.0)
    generator.prepare(Photo(rgb, "0" * 64, "street"), estimate, seed=0, indoor=False)
    ahead = np.stack([T] * 81)
    ahead[:, 0, 3] += np.linspace(0, 0.8, 81)
    frames = run(generator, Trajectory(ahead, np.repeat(camera.K[None], 81, 0), camera.width, camera.height))[0][0].frames
    assert np.isnan(frames[0].depth[:11]).all() and np.isfinite(frames[0].depth[11:]).all()
    for frame in frames[::20]:
        top = frame.depth[:4]
        colour = frame.rgb[:4][np.isnan(top)].astype(int)
        assert np.isnan(top).mean() > 0.8 and (np.abs(colour - [90, 140, 230]).max(1) < 12).mean() > 0.9
        assert (frame.provenance[np.isnan(frame.depth)] == 255).all()


def test_fill_depth_closes_a_hole_in_a_plane():
    v, u = np.mgrid[:40, :60] + 0.5
    plane = (30.0 / (8 + v + 0.2 * u)).astype(np.float32)
    known = np.ones(plane.shape, bool)
    known[12:22, 20:34] = False
    filled = fill_depth(np.where(known, plane, np.nan).astype(np.float32), known)
    assert np.array_equal(filled[known], plane[known])
    assert np.abs(filled / plane - 1).max() < 0.12
    assert (fill_depth(plane, np.zeros_like(known)) == 5.0).all()


def test_unprepared_is_named():
    with pytest.raises(InputError, match="prepare"):
        GeneratorWarpFill().first_frame(path(1))
