"""Retrieval against numbers of the reference, against true visibility, and on long paths."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import truth_rooms

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.generate.loop import spread_views
from lyra_core.memory.cache import FrameCache
from lyra_core.memory.lyra2 import MemoryLyra2, greedy_coverage
from lyra_core.memory.none import MemoryNone
from lyra_core.memory.visibility import ViewBuffer
from lyra_core.types import Camera, Frame, Trajectory

RECORDED = Path(os.environ.get("LYRA2_GOLDEN") or Path(__file__).resolve().parents[1] / "assets" / "lyra2_golden") / "retrieval.npz"
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
with np.load(RECORDED, allow_pickle=False) as _file:
    CASES = [name.removesuffix("_selected_ids") for name in _file.files if name.endswith("_selected_ids")]
STRIDE = 2


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(RECORDED, allow_pickle=False))


def golden_case(golden, case):
    """Return cache and target cameras of a recorded case."""
    cache = FrameCache(point_subsampling=4)
    height, width = (4 * n for n in golden["depth_stride4"].shape[1:])
    position = {int(frame_id): i for i, frame_id in enumerate(golden["frame_ids"])}
    for frame_id in golden[f"{case}_cache_ids"].tolist():
        i = position[frame_id] if frame_id >= 0 else -frame_id - 1
        depth = np.kron(golden["depth_stride4"][i], np.ones((4, 4), np.float32))
        camera = Camera(golden["K"][i].astype(float) + HALF, width, height)
        T = np.linalg.inv(golden["w2c"][i].astype(float))
        cache.add(frame_id, Frame(np.zeros((height, width, 3), np.uint8), depth, camera, T, np.zeros((height, width), np.uint8)))
    K = golden[f"{case}_target_K"].astype(float) + HALF
    return cache, Trajectory(np.linalg.inv(golden[f"{case}_target_w2c"].astype(float)), K, width, height)


@pytest.mark.parametrize("culling", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_reference_numbers(golden, case, culling):
    cache, cameras = golden_case(golden, case)
    memory = MemoryLyra2(culling=culling)
    positions, masks = memory.visibility(cache, cameras)
    full = np.zeros((len(cache), masks.shape[1]), bool)
    full[positions] = masks
    assert np.abs(full.sum(1) - golden[f"{case}_visible_pixels"]).max() <= 3
    if f"{case}_mask" in golden:
        assert np.array_equal(full, golden[f"{case}_mask"].reshape(full.shape).astype(bool))
    wanted, stable = golden[f"{case}_selected_ids"][::-1].tolist(), int(golden[f"{case}_stable_steps"][0])
    asked = re.search(r"_n(\d+)$", case)
    got = memory.retrieve(cache, cameras, count=int(asked[1]) if asked else 5)
    assert len(got) == len(wanted) and got[:stable] == wanted[:stable]


def test_reference_points(golden):
    cache, _ = golden_case(golden, CASES[0])
    np.testing.assert_allclose(cache.points(0).reshape(golden["all_points0"].shape), golden["all_points0"], atol=1e-5)


def test_greedy_coverage_by_hand():
    masks = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 1]], bool)
    assert greedy_coverage(masks, np.zeros(5, bool), 5) == [1, 3]
    assert greedy_coverage(masks, np.array([0, 1, 0, 0, 0], bool), 5) == [1, 3]
    assert greedy_coverage(masks, np.array([0, 1, 1, 1, 0], bool), 1) == [3]
    assert greedy_coverage(np.array([[1, 1], [1, 1]], bool), np.zeros(2, bool), 2) == [0]
    assert greedy_coverage(masks, np.ones(5, bool), 5) == []


@pytest.fixture(scope="module")
def rooms():
    """Three rooms, 60 frames out and back, with ids 0, 8, 16, ..."""
    tracer = truth_rooms.build(3)
    frames = [truth_rooms.frame(tracer, T, i) for i, T in enumerate(truth_rooms.walk(3, 10))]
    return tracer, frames, FrameCache.rebuild([(8 * i, f) for i, f in enumerate(frames)], point_subsampling=STRIDE)


def target_of(tracer, position, yaw, pitch=-0.15):
    T = from_yaw_pitch(np.array(position), yaw, pitch)
    camera = truth_rooms.CAMERA
    return truth_rooms.frame(tracer, T), Trajectory(T[None], camera.K[None], camera.width, camera.height)


VIEWS = [((1.0, -1.0, 1.4), 0.2), ((3.5, 1.2, 1.4), 2.5), ((7.0, 0.5, 1.4), 0.4), ((8.0, -1.0, 1.2), 3.0), ((13.5, 0.2, 1.5), 3.1)]


@pytest.mark.parametrize(("position", "yaw"), VIEWS)
def test_retrieved_frames_truly_see_the_place(rooms, position, yaw):
    tracer, frames, cache = rooms
    target, cameras = target_of(tracer, position, yaw)
    truth = np.stack([truth_rooms.truly_seen(tracer, target, frame, stride=STRIDE) for frame in frames])
    got = MemoryLyra2().retrieve(cache, cameras, count=5)
    chosen = [frame_id // 8 for frame_id in got]
    newest = len(frames) - 1
    assert got and newest not in chosen
    gains = [truth[chosen[:k + 1]].any(0).sum() - truth[chosen[:k]].any(0).sum() for k in range(len(chosen))]
    assert truth[chosen].sum(1).min() > 0 and gains[0] > 0
    # The best possible greedy choice, made with the rays themselves.
    best = greedy_coverage(np.delete(truth, newest, 0), truth[newest], 5)
    covered, possible = truth[chosen].any(0) | truth[newest], truth[best].any(0) | truth[newest]
    assert covered.sum() >= 0.93 * possible.sum()


def test_occlusion_is_what_keeps_other_rooms_out(rooms):
    """Frames behind the wall cover nothing; break the depth test and they cover a good part of the view."""
    tracer, frames, cache = rooms
    target, cameras = target_of(tracer, *VIEWS[3])
    unseen = [i for i, f in enumerate(frames) if not truth_rooms.truly_seen(tracer, target, f, stride=STRIDE).any()]
    share = {}
    for tolerance in (0.1, 100.0):
        positions, masks = MemoryLyra2(occlusion_tolerance=tolerance).visibility(cache, cameras)
        share[tolerance] = masks[np.isin(positions, unseen)].mean(1).max(initial=0)
    assert len(unseen) >= 10
    assert share[0.1] == 0 and share[100.0] > 0.2


def same_visibility(cache, cameras, tolerance=0.1) -> np.ndarray:
    """Require the fast version to see what the readable one does; return the masks."""
    fast, slow = (MemoryLyra2(occlusion_tolerance=tolerance, culling=culling) for culling in (True, False))
    positions, masks = fast.visibility(cache, cameras)
    assert all(np.array_equal(a, b) for a, b in zip((positions, masks), slow.visibility(cache, cameras), strict=True))
    assert fast.retrieve(cache, cameras, count=5) == slow.retrieve(cache, cameras, count=5)
    assert np.array_equal(fast.sampling_weights(cache, cameras), slow.sampling_weights(cache, cameras))
    return masks


@pytest.mark.parametrize(("position", "yaw"), VIEWS)
def test_culling_changes_nothing(rooms, position, yaw):
    tracer, _, cache = rooms
    _, cameras = target_of(tracer, position, yaw)
    assert same_visibility(cache, cameras).any()


@pytest.mark.parametrize("seed", range(12))
def test_culling_changes_nothing_for_any_camera(seed):
    """Clouds of noise and slanted planes with holes, skewed cameras of several sizes, in all directions, some in each other."""
    rng = np.random.default_rng(seed)
    cache = FrameCache(point_subsampling=int(rng.integers(1, 4)))
    for i in range(40):
        width, height = rng.integers(5, 60, 2).tolist()
        slant = np.tensordot(rng.normal(size=2) / 60, np.mgrid[:height, :width], 1)
        depth = (rng.uniform(0.1, 6, (height, width)) if i % 3 else rng.uniform(1, 5) + slant).astype(np.float32)
        depth[rng.random(depth.shape) < rng.choice([0, 0.3, 1], p=[0.5, 0.4, 0.1])] = rng.choice([np.nan, 0, -1])
        cache.add(8 * i - 80, Frame(np.zeros((height, width, 3), np.uint8), depth, any_camera(rng, width, height), any_pose(rng),
                                    np.zeros(depth.shape, np.uint8)))
    count = int(rng.integers(1, 4))
    K = np.stack([any_camera(rng, 45, 37).K for _ in range(count)])
    cameras = Trajectory(np.stack([any_pose(rng) for _ in range(count)]), K, 45, 37)
    assert same_visibility(cache, cameras, float(rng.choice([0.0, 0.1, 1.0]))).any()


def any_camera(rng, width, height) -> Camera:
    camera = Camera.from_focal(rng.uniform(0.4, 2) * width, width, height)
    camera.K[0, 1:] = rng.normal() * 0.2 * width, rng.uniform(-0.2, 1.2) * width
    camera.K[1, 1] *= rng.uniform(0.7, 1.3)
    return camera


def any_pose(rng) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T[:3, :3] *= np.sign(np.linalg.det(T[:3, :3]))
    T[:3, 3] = rng.normal(size=3) * 2
    return T


def test_pixels_of_front_most_frames_as_recorded(golden):
    """Training draws frames by how many pixels they are front-most in; a frame without any keeps 2 % of the largest."""
    for case in CASES:
        cache, cameras = golden_case(golden, case)
        owned = golden[f"{case}_owner_pixels"].astype(float)
        weights = MemoryLyra2().sampling_weights(cache, cameras)
        np.testing.assert_allclose(weights, owned + 0.02 * owned.max(), atol=3.1)
        assert (weights >= 0.02 * (owned.max() - 3)).all()
    assert MemoryLyra2().sampling_weights(FrameCache(), cameras).shape == (0,)


def test_front_most_frame_by_hand():
    """Two frames at one pose share no pixel: the nearer wall owns its half, the older frame the other, where both are alike."""
    camera = Camera.from_focal(8.0, 8, 8)
    far, near = np.full((8, 8), 3.0, np.float32), np.full((8, 8), 3.0, np.float32)
    near[:, :2] = 1.0
    cache = FrameCache(point_subsampling=1)
    for frame_id, depth in ((0, far), (8, near)):
        cache.add(frame_id, Frame(np.zeros((8, 8, 3), np.uint8), depth, camera, np.eye(4), np.zeros((8, 8), np.uint8)))
    twice = Trajectory(np.stack([np.eye(4)] * 2), np.stack([camera.K] * 2), 8, 8)
    assert MemoryLyra2().sampling_weights(cache, twice[:1]).tolist() == [48 + 0.96, 16 + 0.96]
    assert MemoryLyra2().sampling_weights(cache, twice).tolist() == [96 + 1.92, 32 + 1.92]


def test_views_are_joined(rooms):
    tracer, _, cache = rooms
    cameras = [target_of(tracer, *view)[1] for view in VIEWS[:3]]
    both = Trajectory(np.concatenate([c.T_world_camera for c in cameras]), np.concatenate([c.K for c in cameras]), 48, 32)
    positions, masks = MemoryLyra2().visibility(cache, both)
    for i, camera in enumerate(cameras):
        alone_positions, alone = MemoryLyra2().visibility(cache, camera)
        part = masks.reshape(len(positions), 3, -1)[:, i]
        assert np.array_equal(part[np.searchsorted(positions, alone_positions)], alone)
        assert part.sum() == alone.sum()


@pytest.mark.parametrize(("count", "expected"), [(1, [79]), (2, [39, 79]), (5, [15, 31, 47, 63, 79]), (80, list(range(80)))])
def test_views_of_a_chunk(count, expected):
    T = np.tile(np.eye(4), (80, 1, 1))
    T[:, 0, 3] = np.arange(80)
    K = np.tile(truth_rooms.CAMERA.K, (80, 1, 1)) + np.arange(80)[:, None, None]
    views = spread_views(Trajectory(T, K, 48, 32), count)
    assert views.T_world_camera[:, 0, 3].tolist() == expected and np.array_equal(views.K, K[expected])
    assert (views.width, views.height) == (48, 32)


def test_returning_after_a_long_walk(monkeypatch):
    """2,000 frames through 50 rooms and back: the first room is found again, and the work hardly grows with the walk.

    Work is counted in frames whose tiles are looked at, in both passes; the readable version projects all frames.
    """
    work = []
    launch = ViewBuffer._launch
    monkeypatch.setattr(ViewBuffer, "_launch", lambda self, kernel, size, *rest: (
        work.append(size[0] if isinstance(size, tuple) else 0), launch(self, kernel, size, *rest))[1])
    tracer = truth_rooms.build(50)
    poses = truth_rooms.walk(50, 20)
    nearby = np.flatnonzero(poses[:, 0, 3] < 2 * truth_rooms.SIDE)
    target, cameras = target_of(tracer, *VIEWS[0])
    looked_at = {}
    for count in (250, 2000):
        # The shorter walk turns round earlier: its first and last frames are those of the longer one.
        kept = np.r_[0 : count // 2, 2000 - count // 2 : 2000]
        cache = FrameCache(point_subsampling=4)
        for i in kept:
            cache.add(int(8 * i), truth_rooms.frame(tracer, poses[i]))
        work.clear()
        got = MemoryLyra2().retrieve(cache, cameras, count=5)
        looked_at[count] = sum(work)
        assert got == MemoryLyra2(culling=False).retrieve(cache, cameras, count=5)
        seen = [truth_rooms.truly_seen(tracer, target, cache.frame(i), stride=4).sum() for i in got]
        assert len(got) >= 2 and min(seen) > 0 and set(np.array(got) // 8) <= set(nearby.tolist())
    assert 0 < looked_at[2000] < 1.5 * looked_at[250]
    assert looked_at[2000] < 0.1 * 2 * 2000


def test_nothing_to_retrieve():
    camera = truth_rooms.CAMERA
    cameras = Trajectory(np.eye(4)[None], camera.K[None], 48, 32)
    cache = FrameCache()
    assert MemoryLyra2().retrieve(cache, cameras, count=5) == [] == MemoryNone().retrieve(cache, cameras, count=5)
    blank = np.full((32, 48), np.nan, np.float32)
    cache.add(0, Frame(np.zeros((32, 48, 3), np.uint8), blank, camera, np.eye(4), np.full((32, 48), 255, np.uint8)))
    assert MemoryLyra2().retrieve(cache, cameras, count=5) == []
