"""Single-view depth against exact truth, and the promises that the layout generator relies on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lyra_core.backends import resolve
from lyra_core.camera.backdrop import Edge, column_centres, fit_backdrop, floor_edge
from lyra_core.camera.upright import upright_rays
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.types import Label, Photo

PHOTOS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "photos"


def _estimate(photo, *, size=640, camera_height=1.5, **cfg):
    reading = read_photo(photo, PhotoCfg(camera_height=camera_height, **cfg), size=size)
    return reading, DepthGeometric(DepthCfg()).estimate(photo, reading)


@pytest.fixture(scope="module")
def estimated(room):
    return _estimate(room.photo)


def test_the_provider_is_the_named_one():
    assert resolve("depth", "geometric") is DepthGeometric


def test_camera_of_the_room(room, estimated):
    reading, _ = estimated
    tilt = np.degrees(np.arccos(np.clip(reading.T_world_camera[2, :3] @ room.T_world_camera[2, :3], -1, 1)))
    assert tilt < 1.0
    assert reading.scene_kind == "indoor" and reading.camera.K[0, 0] == pytest.approx(room.camera.K[0, 0])
    assert np.allclose(reading.T_world_camera[:3, 3], (0, 0, 1.5))
    assert set(reading.confidence) == {"line_support", "floor_separation", "visible_floor_m2", "overall"}
    assert 0 <= reading.confidence["overall"] <= 1


def test_floor_walls_box_and_ceiling_are_where_they_are(room, estimated):
    _, depth = estimated
    for label, least in ((Label.FLOOR, 0.9), (Label.WALL, 0.85), (Label.OBSTACLE, 0.6), (Label.CEILING, 0.7)):
        mine, true = depth.labels == label, room.labels == label
        assert (mine & true).sum() / (mine | true).sum() > least, label
    error = np.abs(depth.depth - room.depth) / room.depth
    assert np.median(error) < 0.03 and np.mean(error) < 0.08
    assert depth.ceiling_height == pytest.approx(2.7, abs=0.12)


def _promises(reading, depth):
    labels, h = depth.labels, depth.T_world_camera[2, 3]
    sky = labels == Label.SKY
    assert np.isnan(depth.depth[sky]).all()
    assert np.isfinite(depth.depth[~sky]).all() and (depth.depth[~sky] > 0).all()
    assert np.isin(labels, (Label.FLOOR, Label.WALL, Label.CEILING, Label.OBSTACLE, Label.SKY)).all()
    rays = upright_rays(depth.camera, depth.T_world_camera)
    height = h - depth.depth * rays.sink
    assert np.abs(height[labels == Label.FLOOR]).max(initial=0) < 1e-3
    ahead = depth.depth * rays.ahead
    farthest = 15.0 if reading.scene_kind == "indoor" else 40.0
    wall = (labels == Label.WALL) & np.isfinite(rays.right)
    assert ahead[wall].min(initial=9) > 1.19 and ahead[wall].max(initial=2) < farthest * 1.01
    if depth.ceiling_height is not None:
        assert np.abs(height[labels == Label.CEILING] - depth.ceiling_height).max(initial=0) < 1e-2
    count, index, stats, _ = cv2.connectedComponentsWithStats((labels == Label.OBSTACLE).astype(np.uint8), connectivity=8)
    below = np.zeros(labels.shape, bool)
    below[:-2] = labels[2:] == Label.FLOOR
    below[-3:] = True
    for i in range(1, count):
        part = index == i
        assert stats[i, 4] >= 0.001 * labels.size * 0.9
        assert (part & below).any(), "obstacles stand on the floor or reach the picture's border"
        assert np.ptp(ahead[part]) <= 1e-3 * ahead[part].max() or ahead[part].max() <= (depth.depth * rays.ahead)[wall].max() + 1e-3
        if reading.scene_kind == "indoor":
            assert height[part].max() < 2.7


def test_promises_on_the_room(estimated):
    _promises(*estimated)


def test_promises_on_pictures_without_structure():
    rng = np.random.default_rng(0)
    for picture in (rng.integers(0, 255, (300, 400, 3)), np.repeat(np.linspace(0, 60, 200)[:, None, None], 150, 1).repeat(3, 2),
                    np.full((64, 256, 3), 250) - rng.integers(0, 9, (64, 256, 3))):
        reading, depth = _estimate(Photo(picture.astype(np.uint8), "0" * 64, "x.png"), size=320, camera_height=None)
        _promises(reading, depth)
        assert reading.confidence["overall"] < 0.5
        wall = depth.depth[depth.labels == Label.WALL]
        assert len(wall) == 0 or np.median(wall) > 1.5
        assert reading.scale_sigma > 0.3, "a size that nothing tells"


def test_mirrored_photo_gives_the_mirrored_layout(room, estimated):
    mirrored = dataclasses.replace(room.photo, rgb=np.ascontiguousarray(room.photo.rgb[:, ::-1]))
    _, depth = estimated
    _, other = _estimate(mirrored)
    assert (other.labels[:, ::-1] == depth.labels).mean() > 0.95
    assert np.nanmedian(np.abs(other.depth[:, ::-1] - depth.depth) / depth.depth) < 0.05


def test_same_photo_same_bytes_whatever_the_threads(room, estimated):
    reading, depth = estimated
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1 if threads > 1 else 2)
    try:
        again_reading, again = _estimate(room.photo)
    finally:
        cv2.setNumThreads(threads)
    assert np.array_equal(again.depth, depth.depth, equal_nan=True) and np.array_equal(again.labels, depth.labels)
    assert again_reading.confidence == reading.confidence and again_reading.notes == reading.notes
    assert np.array_equal(again_reading.T_world_camera, reading.T_world_camera)


def test_camera_height_scales_everything(room, estimated):
    _, depth = estimated
    reading, double = _estimate(room.photo, camera_height=3.0)
    floor = (depth.labels == Label.FLOOR) & (double.labels == Label.FLOOR)
    assert np.allclose(double.depth[floor], 2 * depth.depth[floor], rtol=1e-4)
    assert reading.T_world_camera[2, 3] == 3.0


def test_backdrop_sees_past_what_stands_in_front_and_finds_corners():
    right = np.linspace(-0.7, 0.7, 128)
    true = np.maximum(0.3, np.where(right < -0.2, -1.5 * right, 0.0))  # a wall ahead at 5 m, one on the left 1 m away
    down = true.copy()
    down[70:86] = 0.55  # a cupboard
    fitted = fit_backdrop(Edge(right, down, np.zeros(128, bool)), 0.0, nearest=1.25, farthest=0.1, usual=0.33)
    assert np.abs(fitted / true - 1).max() < 0.12 and np.median(np.abs(fitted / true - 1)) < 0.01
    down[:] = np.nan
    assert np.allclose(fit_backdrop(Edge(right, down, np.zeros(128, bool)), 0.3, nearest=1.25, farthest=0.1, usual=0.33), 0.33)


def test_floor_edge_of_the_room_is_exact(room):
    rays = upright_rays(room.camera, room.T_world_camera)
    right = column_centres(rays)
    edge = floor_edge(room.labels == Label.FLOOR, room.labels == Label.OBSTACLE, rays, right)
    want = 1.5 / np.minimum(5.2, 2.6 / np.maximum(np.abs(right), 1e-6))
    free = np.isfinite(edge.down) & ~edge.occluded & ((right > -0.05) | (right < -0.55))
    assert np.abs(edge.down[free] / want[free] - 1).max() < 0.06


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="evaluation photos are not here")
@pytest.mark.parametrize("name", ["p15_corridor.jpg", "p08_street_lund.jpg", "p01_living_room.jpg", "p03_library_hall.jpg"])
def test_promises_on_real_photos(name):
    reading, depth = _estimate(load_photo(PHOTOS / name), size=512)
    _promises(reading, depth)
    assert reading.scene_kind == ("outdoor" if "street" in name else "indoor")


def test_portrait_and_panorama_are_read(tmp_path, room):
    for name, box in (("tall.png", (200, 0, 440, 480)), ("wide.png", (0, 240, 640, 400))):
        Image.fromarray(room.photo.rgb).crop(box).save(tmp_path / name)
        reading, depth = _estimate(load_photo(tmp_path / name), size=384)
        assert max(depth.depth.shape) == 384 and (depth.labels == Label.FLOOR).any()
        _promises(reading, depth)
