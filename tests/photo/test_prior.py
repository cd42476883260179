"""The learned prior as it is shipped: on scenes that it has not seen, mirrored, and fused with the classical evidence."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lyra_core.camera.backdrop import column_centres
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.upright import upright_rays
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.depth.learned import prior_ceiling, sharpened, thing_distances, wall_line
from lyra_core.errors import InputError
from lyra_core.photo.fuse import fused_labels, with_said_floor
from lyra_core.photo.prior import CLASSES, WEIGHTS, Prior, read_prior
from lyra_core.photo.read import read_photo
from lyra_core.photo.superpixels import compute_superpixels
from lyra_core.scenes import sample_scene
from lyra_core.types import Camera, Label, Photo

UNSEEN = (("furnished_room", 31), ("office", 32), ("corridor", 33), ("furnished_room", 34))
"""Kinds and seeds that neither the training nor the benchmark uses."""


@cache
def rendered(kind, seed):
    pytest.importorskip("warp")
    from lyra_core.scenes.warp_render import render_fast

    case = sample_scene(seed, kind)
    scale = 320 / max(case.camera.width, case.camera.height)
    case = case.resized(round(case.camera.width * scale), round(case.camera.height * scale))
    shown = render_fast(case.scene, case.camera, case.T_world_camera, effects=case.effects)
    T = case.T_world_camera.copy()
    T[:3, 3] = 0, 0, case.camera_height
    return shown, T, case.camera_height


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size < 8e6


def test_it_sees_floor_and_depth_of_scenes_that_it_has_not_seen():
    overlap, right, error = [], [], []
    for kind, seed in UNSEEN:
        shown, T, height = rendered(kind, seed)
        prior = read_prior(shown.rgb, shown.camera, T)
        found = np.array(CLASSES)[prior.odds.argmax(-1)]
        floor, seen = shown.labels == Label.FLOOR, found == Label.FLOOR
        overlap.append((floor & seen).sum() / (floor | seen).sum() if (floor | seen).any() else 1.0)
        right.append((found == np.where(shown.labels == Label.DOOR, Label.WALL, shown.labels)).mean())
        known = np.isfinite(shown.depth)
        error.append(np.median(np.abs(height * prior.depth[known] / shown.depth[known] - 1)))
        assert np.abs(prior.odds.sum(-1) - 1).max() < 1e-4 and (prior.sigma > 0).all()
    assert np.median(overlap) > 0.85 and np.median(right) > 0.85 and np.median(error) < 0.1


def test_it_tells_places_outdoors_from_rooms():
    places = (*UNSEEN, ("street", 35), ("courtyard", 36), ("warehouse", 37), ("street", 38))
    said = [(kind, rendered(kind, seed)) for kind, seed in places]
    odds = {kind: read_prior(shown.rgb, shown.camera, T).outdoors for kind, (shown, T, _) in said}
    assert all((value > 0) == (kind in ("street", "courtyard")) for kind, value in odds.items()), odds


def test_a_mirrored_photo_gives_the_mirrored_prior():
    shown, T, _ = rendered(*UNSEEN[0])
    flip = np.diag([-1.0, 1.0, 1.0])
    # The camera's x axis and the world's y axis change sides.
    mirrored = T.copy()
    mirrored[:3, :3] = np.diag([1.0, -1.0, 1.0]) @ T[:3, :3] @ flip
    K = shown.camera.K.copy()
    K[0, 2] = shown.camera.width - K[0, 2]
    a = read_prior(shown.rgb, shown.camera, T)
    b = read_prior(np.ascontiguousarray(shown.rgb[:, ::-1]), replace(shown.camera, K=K), mirrored)
    assert np.abs(a.odds - b.odds[:, ::-1]).max() < 0.02 and np.abs(np.log(a.depth / b.depth[:, ::-1])).max() < 0.05


def test_it_earns_its_place():
    """Depth of the whole reading, with the prior and without: never the scene's labels, nor its camera but for the focal length."""
    gain = []
    for kind, seed in UNSEEN:
        shown, _, _ = rendered(kind, seed)
        photo = Photo(shown.rgb, f"{seed}", f"{kind}.png", focal_px=float(shown.camera.K[0, 0]), focal_source="exif")
        errors = []
        for prior in ("auto", "off"):
            reading = read_photo(photo, PhotoCfg(prior=prior), size=320)
            assert (reading.prior_depth is None) == (prior == "off")
            depth = DepthGeometric(DepthCfg()).estimate(photo, reading).depth
            both = np.isfinite(depth) & np.isfinite(shown.depth)
            scale = np.median(shown.depth[both] / depth[both])
            errors.append(np.abs(scale * depth[both] / shown.depth[both] - 1).mean())
        gain.append(np.log(errors[1] / errors[0]))
    assert np.mean(gain) > 0.1, gain


def prior_of(label_map, depth):
    odds = np.full((*label_map.shape, len(CLASSES)), 0.02, np.float32)
    for k, label in enumerate(CLASSES):
        odds[..., k] += 0.9 * (label_map == label)
    return Prior(odds, depth.astype(np.float32), np.full(label_map.shape, 0.1, np.float32), 1.5, 0.1, 0.0)


def level(*, size=(96, 72), height=1.5):
    camera, T = Camera.from_focal(80, *size), from_yaw_pitch(np.array([0.0, 0.0, height]), 0.0, 0.0)
    return camera, T, upright_rays(camera, T)


def test_no_floor_above_the_horizon_and_no_sky_indoors():
    _, _, rays = level()
    v, u = np.mgrid[:72, :96]
    squares = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    regions = compute_superpixels(squares[v // 6, u // 6], count=200)
    everywhere = np.full((72, 96), Label.FLOOR, np.uint8)
    walls, flat = np.full((72, 96), Label.WALL, np.uint8), np.ones((72, 96))
    labels = fused_labels(walls, prior_of(everywhere, flat), regions, rays, outdoor=False)
    assert (labels[:30] != Label.FLOOR).all() and (labels[46:] == Label.FLOOR).mean() > 0.95
    sky = prior_of(np.full((72, 96), Label.SKY, np.uint8), flat)
    inside, outside = (fused_labels(everywhere, sky, regions, rays, outdoor=o) for o in (False, True))
    assert (inside != Label.SKY).all() and (outside[:30] == Label.SKY).mean() > 0.95
    said = with_said_floor(inside, np.zeros((72, 96), bool))
    assert not (said == Label.FLOOR).any()


def test_things_stand_where_they_meet_the_floor():
    """The prior is 10 % short of a box at 4.5 m; the floor below it says where it stands."""
    camera, _, rays = level()
    h, box = 1.5, np.zeros((72, 96), bool)
    foot = int(np.ceil(camera.K[1, 2] + camera.K[1, 1] * h / 4.5))
    box[30:foot, 40:60] = True
    labels = np.where(box, Label.OBSTACLE, np.where(rays.sink > 0.02, Label.FLOOR, Label.WALL)).astype(np.uint8)
    prior = np.full((72, 96), 0.9 * 4.5 / h, np.float32)
    far, near = np.full((72, 96), 0.1), np.full((72, 96), h / 3.2)
    distance = thing_distances(labels, prior, rays, far, overhang=0.2)
    assert np.isnan(distance[~box]).all() and np.allclose(h * distance[box], 4.5, rtol=0.04)
    assert (h * thing_distances(labels, np.full((72, 96), 9.0, np.float32), rays, near, overhang=0.2)[box] < 3.2).all()
    # What leans forward does so by the overhang at most; what the floor below cannot belong to hangs, and stays.
    prior[30:45, 40:60] = 2.0 / h
    leaning = h * thing_distances(labels, prior, rays, far, overhang=0.2)[box].reshape(-1, 20)
    assert np.allclose(leaning[:10], 4.5 - h * 0.2, rtol=0.04) and np.allclose(leaning[-1], 4.5, rtol=0.04)
    prior[box] = 2.0 / h
    assert np.allclose(h * thing_distances(labels, prior, rays, far, overhang=0.2)[box], 2.0, rtol=0.01)


def test_a_blurred_step_becomes_a_step_and_a_slope_stays():
    things = np.ones((60, 200), bool)
    ramp = np.interp(np.arange(200), [97, 103], [2.0, 4.0]).astype(np.float32) * np.ones((60, 1), np.float32)
    got = sharpened(ramp, things)
    assert np.isclose(got, 2.0).sum(1).min() > 95 and (~np.isclose(got, 2.0) & ~np.isclose(got, 4.0)).sum(1).max() <= 2
    slope = np.linspace(2, 4, 200, dtype=np.float32) * np.ones((60, 1), np.float32)
    assert np.array_equal(sharpened(slope, things), slope)
    # At a thing's outline the network's depth runs on towards the wall behind; the thing ends where it ends.
    left = np.arange(200) < 100
    got = sharpened(ramp, things & left)
    assert np.allclose(got[:, left], 2.0) and np.array_equal(got[:, ~left], ramp[:, ~left])


def room_depth(rays, h, planes):
    """z-depth over the camera's height of vertical planes n . (ahead, left) = d, the nearest before each pixel."""
    ahead = np.min([np.where(n[0] - n[1] * rays.right > 1e-3, d / (n[0] - n[1] * rays.right), np.inf) for n, d in planes], 0)
    return (ahead / rays.ahead / h).astype(np.float32)


@pytest.mark.parametrize("turned", [0.0, 0.35])
def test_walls_of_a_noisy_prior_are_the_rooms_planes(turned):
    _, _, rays = level(size=(192, 144))
    h, right = 1.5, column_centres(rays)
    ahead, left = (np.array([np.cos(a), np.sin(a)]) for a in (turned, turned + np.pi / 2))
    planes = [(ahead, 4.0), (left, 1.8), (-left, 2.2)]
    true = room_depth(rays, h, planes)
    rng = np.random.default_rng(0)
    labels = np.where(rays.sink * true > 1, Label.FLOOR, Label.WALL).astype(np.uint8)
    noisy = true * np.exp(0.03 * rng.standard_normal(true.shape)).astype(np.float32)
    got = wall_line(right, labels, noisy, rays, turned % (np.pi / 2))
    expected = np.max([(n[0] - n[1] * right) * h / d for n, d in planes], 0)
    assert got is not None and np.median(np.abs(got / expected - 1)) < 0.01 and np.abs(got / expected - 1).max() < 0.1
    bends = np.abs(np.diff(got, 2)) > 1e-9
    assert bends.sum() <= 6, "three walls have two corners"
    assert wall_line(right, np.full(labels.shape, Label.FLOOR, np.uint8), true, rays, 0.0) is None


def test_the_ceilings_height_is_what_its_depth_says():
    _, _, rays = level(size=(192, 144))
    h, high = 1.2, 2.7
    labels = np.where(rays.sink < -0.3, Label.CEILING, Label.WALL).astype(np.uint8)
    depth = np.where(rays.sink < -0.3, (high - h) / h / np.maximum(-rays.sink, 0.3), 2.0).astype(np.float32)
    got = prior_ceiling(labels, depth, rays)
    assert got is not None and np.isclose(h * got, high, rtol=0.02)
    assert prior_ceiling(np.full_like(labels, Label.WALL), depth, rays) is None


def test_the_cameras_height_is_the_users_or_what_things_sizes_say():
    shown, _, true = rendered(*UNSEEN[0])
    photo = Photo(shown.rgb, "0", "room.png", focal_px=float(shown.camera.K[0, 0]), focal_source="exif")
    settings = PhotoCfg(camera_height=0.7), PhotoCfg(), PhotoCfg(prior="off")
    said, seen, usual = (read_photo(photo, cfg, size=320) for cfg in settings)
    assert said.T_world_camera[2, 3] == 0.7 and usual.T_world_camera[2, 3] == 1.5
    assert said.scale_sigma < seen.scale_sigma < usual.scale_sigma
    assert abs(np.log(seen.T_world_camera[2, 3] / true)) < 3 * seen.scale_sigma


def test_missing_weights_are_named(tmp_path):
    shown, T, _ = rendered(*UNSEEN[0])
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        read_prior(shown.rgb, shown.camera, T, weights=tmp_path / "gone.safetensors")
