"""The cache returns what was put in, keeps contradictions apart, and stays bounded."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.camera.warp import unproject
from lyra_core.errors import InputError
from lyra_core.io.images import decode_depth, encode_depth
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.types import Camera, Frame

CAMERA = Camera.from_focal(20.0, 30, 18)


def make(seed: int, depth: np.ndarray | None = None) -> Frame:
    rng = np.random.default_rng(seed)
    T = np.eye(4)
    T[:3, 3] = rng.normal(size=3)
    depth = rng.uniform(0.5, 9, (18, 30)).astype(np.float32) if depth is None else depth
    return Frame(rng.integers(0, 256, (18, 30, 3), np.uint8), depth, CAMERA, T, rng.integers(0, 3, (18, 30), np.uint8))


def same(a: Frame, b: Frame) -> bool:
    arrays = ("rgb", "depth", "T_world_camera", "provenance")
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n == "depth") for n in arrays) and a.camera is b.camera


@pytest.mark.parametrize("resident_mb", [0, 256])
def test_frames_come_back_bit_for_bit(resident_mb):
    cache = FrameCache(resident_mb=resident_mb)
    exact, coded = make(1), make(2)
    coded = make(2, decode_depth(encode_depth(coded.depth)))
    holes = coded.depth.copy()
    holes[3:9, 4:20] = np.nan
    frames = {0: exact, 8: coded, -1: make(3, holes), 16: make(4, np.full((18, 30), np.nan, np.float32))}
    for frame_id, frame in frames.items():
        cache.add(frame_id, frame)
    assert all(same(cache.frame(i), frames[i]) for i in (16, 0, -1, 8, 0))
    assert cache.ids == [0, 8, -1, 16] and cache.newest == 16 and len(cache) == 4 and 8 in cache and 9 not in cache


def test_contradicting_frames_both_stay():
    """Two depths for the same view: nothing is averaged, removed or moved."""
    near, far = make(5, np.full((18, 30), 1.0, np.float32)), make(5, np.full((18, 30), 4.0, np.float32))
    cache = FrameCache(point_subsampling=3)
    cache.add(0, near)
    before = cache.points(0).copy()
    cache.add(8, far)
    assert same(cache.frame(0), near) and same(cache.frame(8), far) and np.array_equal(cache.points(0), before)
    np.testing.assert_allclose(cache.points(8) - far.T_world_camera[:3, 3], 4 * (before - near.T_world_camera[:3, 3]), atol=1e-5)


def test_points_are_the_thinned_pixels():
    frame = make(6)
    frame.depth[4, 6] = np.nan
    cache = FrameCache(point_subsampling=2)
    cache.add(0, frame)
    expected = frame.points()[::2, ::2].reshape(-1, 3)
    expected = expected[np.isfinite(expected).all(1)]
    assert len(expected) == 9 * 15 - 1 and cache.points(0).dtype == np.float32
    np.testing.assert_allclose(cache.points(0), expected, atol=1e-5)
    centre, radius = cache.bounds.centres[0], cache.bounds.radii[0]
    distances = np.linalg.norm(expected - centre, axis=1)
    assert distances.max() <= radius <= distances.max() + 1e-4


def test_every_point_lies_in_its_tile_and_frame_sphere():
    """Spheres touch their farthest point: a radius 0.1 % smaller would leave it out, and culling would miss it."""
    cache = FrameCache(point_subsampling=1)
    for seed in range(3):
        frame = make(seed)
        frame.depth[4, 6], frame.depth[8:16, 16:24] = np.nan, np.nan
        cache.add(seed, frame)
    clouds = cache.clouds
    for position in range(3):
        first, last = clouds.first_tile.values[position : position + 2]
        tiles, corners = clouds.depth.values[first:last], clouds.tile_corners.values[first:last]
        assert sum((tile > 0).sum() for tile in tiles) == len(cache.points(position)) == 18 * 30 - 65
        camera = Camera(clouds.K.values[position], 30, 18)
        for tile, corner, (*centre, radius) in zip(tiles, corners, clouds.tile_spheres.values[first:last], strict=True):
            depth = np.zeros((24, 32), np.float32)
            depth[corner[1] : corner[1] + 8, corner[0] : corner[0] + 8] = tile.reshape(8, 8)
            points = unproject(depth[:18, :30], camera, clouds.T_world_camera.values[position])[depth[:18, :30] > 0]
            assert (radius == -1) == (len(points) == 0) == (corner.tolist() == [16, 8])
            if len(points):
                farthest = np.linalg.norm(points.astype(np.float32) - centre, axis=1).max()
                assert 0.999 * radius < farthest <= radius
        centre, radius = cache.bounds.centres[position], cache.bounds.radii[position]
        assert 0.999 * radius < np.linalg.norm(cache.points(position) - centre, axis=1).max() <= radius


def test_strided_camera_matches_slicing():
    camera = strided_camera(CAMERA, 4)
    assert (camera.width, camera.height) == CAMERA.rays()[::4, ::4].shape[1::-1]
    np.testing.assert_allclose(camera.rays(), CAMERA.rays()[::4, ::4], atol=1e-6)


def test_rebuilt_cache_is_the_same():
    frames = [(8 * i, make(i)) for i in range(5)]
    first, again = FrameCache.rebuild(frames, point_subsampling=4), FrameCache(point_subsampling=4)
    for frame_id, frame in frames:
        again.add(frame_id, frame)
    assert first.ids == again.ids and all(np.array_equal(first.points(i), again.points(i)) for i in first.ids)


def test_errors_name_the_frame():
    cache = FrameCache()
    cache.add(8, make(0))
    with pytest.raises(InputError, match="frame 8 is already cached"):
        cache.add(8, make(1))
    with pytest.raises(InputError, match=r"frame 16 is not cached; cached are 1 frames, 8\.\.8"):
        cache.frame(16)
    with pytest.raises(InputError, match="got 0, expected at least 1"):
        FrameCache(point_subsampling=0)


def test_memory_stays_bounded():
    """A standard-quality frame of a real path costs well under its 800 kB raw size; beyond the limit nothing stays in memory."""
    camera = Camera.from_focal(300.0, 416, 240)
    y, x = np.mgrid[:240, :416]
    depth = decode_depth(encode_depth((2 + np.sin(x / 60) + y / 200).astype(np.float32)))
    rgb = np.stack([x % 256, y, (x + y) // 3 % 256], -1).astype(np.uint8)
    frame = Frame(rgb, depth, camera, np.eye(4), np.zeros((240, 416), np.uint8))
    cache = FrameCache(resident_mb=1)
    for i in range(40):
        cache.add(i, frame)
    assert cache._size / 40 < 300_000 and cache._store._rolled and same(cache.frame(17), frame)
    assert sum(cache.points(i).nbytes for i in cache.ids) / 40 < 20_000


def test_every_stored_depth_survives_being_stored_again():
    codes = np.arange(65536, dtype=np.uint16)[None]
    depth = decode_depth(codes)
    assert np.array_equal(encode_depth(depth), codes)
    assert np.isnan(depth[0, 0]) and depth[0, 65535] == np.float32(0.1)
