"""Merging by surface: noise falls, phantoms and flying pixels go, exposure evens out, the surest provenance stays."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from surface_scenes import LIVINGROOM, livingroom, room_distance, room_frames

from lyra_core.errors import InputError
from lyra_core.splats.exposure import evened_exposure, exposure_corrections
from lyra_core.splats.from_frames import splats_from_frames
from lyra_core.splats.merge import AGREEMENT, depth_agreement
from lyra_core.splats.render import render_splats
from lyra_core.splats.sky_shell import add_sky_shell, is_outdoor, sky_mask
from lyra_core.types import Camera, Frame, GaussianCloud


def noisy(frames, share, seed=0):
    rng = np.random.default_rng(seed)
    return [replace(f, depth=(f.depth * (1 + share * rng.normal(size=f.depth.shape))).astype(np.float32)) for f in frames]


def test_repeated_looks_average_noise_away():
    frame = room_frames()[7]
    one = splats_from_frames(noisy([frame], 0.004), max_count=10**6, block=1)
    many = splats_from_frames(noisy([frame] * 12, 0.004), max_count=10**6, block=1)
    assert len(many.means) < 1.15 * len(one.means)
    before, after = (np.median(room_distance(c.means.astype(float))) for c in (one, many))
    assert after < 0.6 * before


def test_colours_are_means_of_what_frames_show():
    frame = room_frames()[7]
    grey = [replace(frame, rgb=np.full_like(frame.rgb, level)) for level in (100, 104, 96, 108)]
    cloud = splats_from_frames(grey, max_count=10**6, block=1)
    level = 255 * (0.5 + 0.28209479 * cloud.sh[:, 0])
    assert abs(np.median(level) - 102) < 0.5


def test_a_phantom_surface_of_one_bad_frame_is_dropped():
    frames = room_frames()
    bad = frames[7].depth.copy()
    bad[50:90, 60:120] *= 0.6
    frames[7] = replace(frames[7], depth=bad)
    phantom = frames[7].points()[50:90, 60:120].reshape(-1, 3)
    cloud = splats_from_frames(frames, max_count=10**6)
    clean = splats_from_frames(room_frames(), max_count=10**6)
    far = room_distance(cloud.means.astype(float)) > 0.15
    assert (room_distance(phantom.astype(float)) > 0.15).mean() > 0.9, "the test's phantom floats in the room"
    assert far.sum() < 0.05 * phantom.shape[0] / 4
    alone = splats_from_frames(frames[7:8], max_count=10**6)
    assert (room_distance(alone.means.astype(float)) > 0.15).sum() > 500, "nothing contradicts it there"
    _, coverage = render_splats(cloud, frames[7].camera, frames[7].T_world_camera)
    assert (coverage[52:88, 62:118] > 0.8).mean() > 0.97, "what it kept from being made was made after all"
    assert len(cloud.means) < 1.1 * len(clean.means)


def test_flying_pixels_of_every_frame_are_dropped():
    frames, rng = [], np.random.default_rng(0)
    for f in room_frames():
        depth = f.depth.copy()
        jump = np.abs(np.diff(1 / depth, axis=1)) > 0.1
        rows, columns = np.nonzero(jump)
        mix = rng.uniform(0.2, 0.8, len(rows))
        depth[rows, columns] = 1 / (mix / f.depth[rows, columns] + (1 - mix) / f.depth[rows, columns + 1])
        frames.append(replace(f, depth=depth))
    float_in = sum((room_distance(f.points().reshape(-1, 3).astype(float)) > 0.1).sum() for f in frames)
    cloud = splats_from_frames(frames, max_count=10**6, block=1)
    left = (room_distance(cloud.means.astype(float)) > 0.1).sum()
    assert float_in > 300 and left < 0.75 * float_in


def test_surest_provenance_is_kept_and_opacity_follows_agreement():
    frames = room_frames()
    for order in ((6, 6 + 12), (6 + 12, 6)):
        pair = [frames[6], replace(frames[6], provenance=np.full_like(frames[6].provenance, 2))]
        cloud = splats_from_frames(pair if order[0] == 6 else pair[::-1], max_count=10**6)
        assert (cloud.provenance == 0).mean() > 0.99
    cloud = splats_from_frames(frames, max_count=10**6)
    assert cloud.opacities.max() == pytest.approx(0.95) and np.median(cloud.opacities) == pytest.approx(0.95)
    assert cloud.opacities.min() > 0.4


def test_it_is_deterministic():
    frames = noisy(room_frames()[:8], 0.01)
    a, b = (splats_from_frames(frames, max_count=10**6) for _ in range(2))
    for name in ("means", "quats_wxyz", "scales", "opacities", "sh", "provenance"):
        assert getattr(a, name).tobytes() == getattr(b, name).tobytes()


def test_agreement_follows_the_frames_noise():
    frames = room_frames()[:6]
    assert depth_agreement(frames[:1]) == AGREEMENT[0]
    assert depth_agreement([frames[0]] * 3) == AGREEMENT[0]
    assert 0.03 < depth_agreement(noisy([frames[0]] * 3, 0.01)) < 0.06


def test_exposure_is_recovered():
    frames = room_frames()[:12]
    rng = np.random.default_rng(0)
    gains, offsets = rng.uniform(0.8, 1.2, (12, 3)), rng.uniform(-8, 8, (12, 3))
    gains /= gains.mean(0)
    changed = [replace(f, rgb=np.clip(np.rint(60 + 0.4 * f.rgb) * g + o, 0, 255).astype(np.uint8))
               for f, g, o in zip(frames, gains, offsets, strict=True)]
    spread = {}
    for name, given in (("before", changed), ("after", evened_exposure(changed))):
        error = [np.abs(np.rint(60 + 0.4 * f.rgb) - g.rgb)[40:100].mean() for f, g in zip(frames, given, strict=True)]
        spread[name] = np.mean(error)
    assert spread["after"] < 0.35 * spread["before"]
    same_gain, same_offset = exposure_corrections(frames)
    assert np.abs(same_gain - 1).max() < 0.03 and np.abs(same_offset).max() < 4
    alone = exposure_corrections(frames[:1])
    assert (alone[0] == 1).all() and (alone[1] == 0).all()


def outdoor_frames(level=200) -> list[Frame]:
    camera, out = Camera.from_focal(60.0, 120, 90), []
    for yaw in np.linspace(0, 2 * np.pi, 6, endpoint=False):
        forward = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        right = np.cross(forward, [0, 0, 1.0])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = np.stack([right, np.cross(forward, right), forward], 1), [0, 0, 1.5]
        down = camera.rays()[..., 1]
        depth = np.where(down > 0.02, 1.5 / np.maximum(down, 1e-6), np.nan).astype(np.float32)
        rgb = np.where(np.isfinite(depth)[..., None], [90, 120, 60], [level // 2, level * 3 // 4, level]).astype(np.uint8)
        out.append(Frame(rgb, depth, camera, T, np.where(np.isfinite(depth), 0, 255).astype(np.uint8)))
    return out


def test_sky_fills_what_no_frame_fills():
    frames = outdoor_frames()
    ground = splats_from_frames(frames, max_count=10**5)
    cloud = add_sky_shell(ground, frames, 500.0)
    shell = cloud.means[len(ground.means):]
    assert len(shell) > 1000 and np.allclose(np.linalg.norm(shell - [0, 0, 1.5], axis=1), 500, rtol=1e-4)
    assert shell[:, 2].min() > -500 * 0.03
    first = frames[0]
    rgb, coverage = render_splats(cloud, first.camera, first.T_world_camera)
    sky = sky_mask(first)
    assert coverage[sky].min() > 0.9 and np.abs(rgb[sky].astype(int) - first.rgb[sky]).mean() < 6
    assert (cloud.provenance == 0).all()
    with pytest.raises(InputError, match="radius"):
        add_sky_shell(ground, frames, -1.0)


def test_no_sky_indoors():
    frames = room_frames()[:6]
    cloud = splats_from_frames(frames, max_count=10**5)
    assert add_sky_shell(cloud, frames) is cloud and not is_outdoor(outdoor_frames(level=40))
    assert add_sky_shell(cloud, outdoor_frames(), outdoor=False) is cloud
    rng = np.random.default_rng(0)
    holes = [replace(f, depth=np.where(np.arange(140)[:, None] < 30, np.nan, f.depth).astype(np.float32),
                     rgb=rng.integers(0, 255, f.rgb.shape).astype(np.uint8)) for f in frames]
    assert not is_outdoor(holes), "a textured wall without depth is no sky"


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="evaluation data is not here")
def test_thirty_frames_take_seconds_and_beat_plain_unprojection():
    frames = livingroom(1, 416, 240)[:30]
    splats_from_frames(frames[:2], max_count=10**7)
    start = time.process_time()
    cloud = splats_from_frames(frames, max_count=10**7, block=1)
    assert time.process_time() - start < 6 and isinstance(cloud, GaussianCloud)
    assert len(cloud.means) < 0.1 * sum(np.isfinite(f.depth).sum() for f in frames)
