"""Depth of furnished rooms with exact truth: walls behind the furniture, rugs on the floor, pieces of furniture apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.depth.regions import standing_pieces
from lyra_core.io.images import resized
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.scenes import Effects, furnished_room, render, render_truth
from lyra_core.scenes.demo import DEMO_PHOTO, demo_camera, demo_scene
from lyra_core.types import Camera, Label, Photo


@pytest.fixture(scope="module")
def demo():
    photo = load_photo(DEMO_PHOTO)
    reading = read_photo(photo, PhotoCfg(), size=640)
    camera, T = demo_camera(width=reading.camera.width, height=reading.camera.height)
    return photo, reading, DepthGeometric(DepthCfg()).estimate(photo, reading), *render_truth(demo_scene(), camera, T)


def _wall_error(estimate, depth, labels) -> float:
    wall = np.isin(labels, (Label.WALL, Label.DOOR)) & np.isfinite(depth) & np.isfinite(estimate.depth)
    return float((np.abs(estimate.depth - depth) / depth)[wall].mean())


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_demo_room_is_read_right(demo):
    photo, reading, estimate, depth, labels = demo
    assert reading.room is not None and reading.room.front == pytest.approx(5.9, rel=0.08)
    assert estimate.ceiling_height == pytest.approx(2.6, abs=0.12)
    assert _wall_error(estimate, depth, labels) < 0.09
    assert _overlap(estimate.labels == Label.FLOOR, labels == Label.FLOOR) > 0.86, "the rug is floor"
    thing = labels == Label.OBSTACLE
    assert (estimate.labels[thing] == Label.OBSTACLE).mean() > 0.45
    blind = DepthGeometric(DepthCfg()).estimate(photo, dataclasses.replace(reading, room=None))
    assert _wall_error(blind, depth, labels) > 1.3 * _wall_error(estimate, depth, labels)


def test_furnished_room_has_its_walls_behind_the_furniture():
    camera, T = Camera.from_focal(320, 448, 320), from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.05, np.deg2rad(-7))
    truth = render(furnished_room(np.random.default_rng(1006)), camera, T, effects=Effects(bounce_samples=1, exposure=0.88))
    photo = Photo(truth.rgb, "0" * 64, "room.png", 320.0, "user")
    reading = read_photo(photo, PhotoCfg(scene="indoor"), size=448)
    estimate = DepthGeometric(DepthCfg()).estimate(photo, reading)
    assert reading.room is not None
    assert _wall_error(estimate, truth.depth, truth.labels) < 0.15
    assert _overlap(estimate.labels == Label.FLOOR, truth.labels == Label.FLOOR) > 0.7


def test_same_room_from_the_same_picture(demo):
    photo, reading, estimate, *_ = demo
    again = read_photo(photo, PhotoCfg(), size=640)
    assert again.room == reading.room and np.array_equal(again.labels, reading.labels)
    assert np.array_equal(DepthGeometric(DepthCfg()).estimate(photo, again).depth, estimate.depth, equal_nan=True)
    grey = dataclasses.replace(photo, rgb=resized(photo.rgb, 96, 64))
    assert read_photo(grey, PhotoCfg(), size=96).camera.width == 96, "tiny pictures are read too"


def test_things_at_different_distances_are_told_apart_but_tables_stay_whole():
    down, right = np.meshgrid(np.linspace(0, 0.8, 160), np.linspace(-0.5, 0.5, 200), indexing="ij")
    near, far = (right < 0) & (right > -0.4) & (down < 0.6), (right >= 0) & (right < 0.3) & (down < 0.4)
    pieces = standing_pieces((near | far) & (down > 0.1), right, down)
    assert len(pieces) == 2 and {round(float(down[p].max()), 1) for p in pieces} == {0.6, 0.4}
    assert (sum(p.astype(int) for p in pieces) == ((near | far) & (down > 0.1))).all(), "each pixel belongs to one piece"
    top = (np.abs(right) < 0.2) & (down > 0.25) & (down < 0.35)
    legs = (np.abs(np.abs(right) - 0.18) < 0.02) & (down > 0.25) & (down < 0.5)
    assert len(standing_pieces(top | legs, right, down)) == 1
    wide = (np.abs(right) < 0.49) & (down > 0.1) & (down < 0.25)
    assert len(standing_pieces(wide, right, down)) >= 2, "0.98 at 6 m is 5.9 m wide"
