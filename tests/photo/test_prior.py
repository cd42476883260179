"""The learned prior as it is shipped: on scenes that it has not seen, mirrored, and fused with the classical evidence."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lyra_core.camera.backdrop import Edge, column_centres
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.upright import upright_rays
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.depth.learned import thing_distances, wall_edge
from lyra_core.errors import InputError
from lyra_core.photo.fuse import fused_labels, prior_scene_odds, with_said_floor
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
        overlap.append((floor & seen).sum() / (floor | seen).sum())
        right.append((found == np.where(shown.labels == Label.DOOR, Label.WALL, shown.labels)).mean())
        known = np.isfinite(shown.depth)
        error.append(np.median(np.abs(height * prior.depth[known] / shown.depth[known] - 1)))
        assert np.abs(prior.odds.sum(-1) - 1).max() < 1e-4 and (prior.sigma > 0).all()
    assert np.median(overlap) > 0.75 and np.median(right) > 0.75 and np.median(error) < 0.2


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
    return Prior(odds, depth.astype(np.float32), np.full(label_map.shape, 0.1, np.float32))


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
    sky, lid = (prior_of(np.full((72, 96), label, np.uint8), flat) for label in (Label.SKY, Label.CEILING))
    inside, outside = (fused_labels(everywhere, sky, regions, rays, outdoor=o) for o in (False, True))
    assert (inside != Label.SKY).all() and (outside[:30] == Label.SKY).mean() > 0.95
    assert prior_scene_odds(sky) > 1 > -1 > prior_scene_odds(lid)
    said = with_said_floor(inside, np.zeros((72, 96), bool))
    assert not (said == Label.FLOOR).any()


def test_things_stand_where_they_meet_the_floor():
    """The prior is 10 % short of a box at 4.5 m; the floor below it says where it stands."""
    camera, _, rays = level()
    h, box = 1.5, np.zeros((72, 96), bool)
    foot = int(np.ceil(camera.K[1, 2] + camera.K[1, 1] * h / 4.5))
    box[30:foot, 40:60] = True
    labels = np.where(box, Label.OBSTACLE, np.where(rays.sink > 0.02, Label.FLOOR, Label.WALL)).astype(np.uint8)
    distance = thing_distances(labels, np.full((72, 96), 0.9 * 4.5 / h, np.float32), rays, np.full((72, 96), 0.1))
    assert np.isnan(distance[~box]).all() and np.allclose(h * distance[box], 4.5, rtol=0.03)
    wall = thing_distances(labels, np.full((72, 96), 9.0, np.float32), rays, np.full((72, 96), h / 3.2))
    assert (h * wall[box] < 3.2).all()


def test_walls_stand_where_prior_and_floor_say():
    _, _, rays = level()
    h, right = 1.5, column_centres(rays)
    labels = np.where(rays.down > h / 4.0, Label.FLOOR, Label.WALL).astype(np.uint8)
    nothing = Edge(right, np.full(len(right), np.nan), np.zeros(len(right), bool))
    seen = replace(nothing, down=np.full(len(right), h / 4.0))
    far = np.full((72, 96), 5.0 / h, np.float32)
    alone, both, doubted = (e.down[np.isfinite(e.down)] for e in (
        wall_edge(nothing, labels, far, rays), wall_edge(seen, labels, far, rays), wall_edge(seen, labels, 3 * far, rays)))
    assert len(alone) > 90 and np.allclose(alone, h / 5.0, rtol=1e-3)
    assert ((both > h / 5.0 - 1e-6) & (both < h / 4.0 + 1e-6)).all() and np.median(both) < 0.98 * h / 4.0
    # A floor's edge that the prior does not believe at all is no wall's foot.
    assert np.isclose(doubted, h / 15.0, rtol=1e-3).mean() > 0.7


def test_missing_weights_are_named(tmp_path):
    shown, T, _ = rendered(*UNSEEN[0])
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        read_prior(shown.rgb, shown.camera, T, weights=tmp_path / "gone.safetensors")
