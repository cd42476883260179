"""Spatial memory and forward warp: what retrieval, caching and warping cost, proven right before they are timed.

``python -m tests.benchmarks.memory [--quick]`` fills caches with 500 and with 10,000 frames of rooms ray-cast exactly and times
retrieval at the two presets of Lyra 2.0 (paper: 5 views, one pixel in 8 x 8; repo: 1 view, one in 4 x 4; frames of 832 x 480).
Three walks: *long*, always on to new rooms and back; *house*, six rooms over and over; *one room*, where every frame truly
sees the view and has to be looked at: the worst case. Then it times the forward warp of 80 targets against the readable
version. All times are processor time, of one thread but for torch's. Exits with 1 if 10,000 frames of a long walk cost more
than 3 times what 500 cost.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.splat import splat_frames
from lyra_core.camera.warp import forward_warp
from lyra_core.io.images import decode_depth, encode_depth
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.types import Camera, Trajectory
from tests.benchmarks.tables import number, table
from tests.memory import truth_rooms

CAMERA = Camera.from_focal(580.0, 832, 480)
PRESETS = {"paper": (8, 5), "repo": (4, 1)}
"""Point subsampling and retrieved views."""
STEP = 0.12
"""Way between cached frames: 8 frames of 1.5 cm [m]."""
CHUNK_STEPS = 10
"""Cached frames per chunk of 80."""
PLACES = 6
"""Retrievals timed per cache."""
RATIO_BAR = 3.0


def long_walk(count: int) -> tuple[int, np.ndarray]:
    """Return rooms and poses: out through rooms never seen before, and back."""
    rooms = max(2, round(count * STEP / (2 * truth_rooms.SIDE)))
    return rooms, truth_rooms.walk(rooms, -(-count // (2 * rooms)))[:count]


def house_walk(count: int) -> tuple[int, np.ndarray]:
    """Return six rooms and poses that go through them and back again and again, never quite the same way."""
    rooms = 6
    once = truth_rooms.walk(rooms, round(truth_rooms.SIDE / STEP))
    poses = np.concatenate([once] * -(-count // len(once)))[:count]
    poses[:, :3, 3] += np.random.default_rng(0).normal(0, 0.05, (count, 3))
    return rooms, poses


def one_room_walk(count: int) -> tuple[int, np.ndarray]:
    """Return poses that circle in one room, looking ahead and about."""
    s = np.arange(count) * STEP / 1.7
    xy = np.stack([2.5 + 1.9 * np.cos(s), 1.7 * np.sin(1.03 * s)], 1)
    yaw = s + np.pi / 2 + 0.5 * np.sin(0.6 * s)
    return 2, np.stack([from_yaw_pitch(np.array([x, y, 1.4]), a, -0.15) for (x, y), a in zip(xy, yaw, strict=True)])


WALKS: dict[str, Callable[[int], tuple[int, np.ndarray]]] = {"long": long_walk, "house": house_walk, "one room": one_room_walk}


def fill(walk: str, count: int) -> tuple[dict[str, FrameCache], np.ndarray]:
    """Return one cache of already thinned frames per preset, and the poses."""
    rooms, poses = WALKS[walk](count)
    tracer = truth_rooms.build(rooms)
    fine = min(stride for stride, _ in PRESETS.values())
    caches = {name: FrameCache(point_subsampling=1, resident_mb=4096) for name in PRESETS}
    for i, T in enumerate(poses):
        frame = truth_rooms.frame(tracer, T, camera=strided_camera(CAMERA, fine))
        for name, (stride, _) in PRESETS.items():
            step = stride // fine
            arrays = {key: getattr(frame, key)[::step, ::step] for key in ("rgb", "depth", "provenance")}
            caches[name].add(8 * i, replace(frame, camera=strided_camera(frame.camera, step), **arrays))
    return caches, poses


def targets(poses: np.ndarray, stride: int, views: int) -> list[Trajectory]:
    """Return the views of a chunk that starts at each of some places along the walk, a hand's breadth beside it."""
    camera = strided_camera(CAMERA, stride)
    out = []
    for place in np.linspace(0.2 * len(poses), len(poses) - CHUNK_STEPS - 1, PLACES).astype(int):
        rows = place + np.linspace(0, CHUNK_STEPS, views + 1)[1:].astype(int)
        T = poses[rows].copy()
        T[:, :3, 3] += 0.04, -0.03, 0.05
        out.append(Trajectory(T, np.tile(camera.K, (views, 1, 1)), camera.width, camera.height))
    return out


def time_retrieval(cache: FrameCache, places: list[Trajectory]) -> list[float]:
    """Return processor seconds per retrieval."""
    memory, seconds = MemoryLyra2(), []
    memory.retrieve(cache, places[0], count=5)
    for cameras in places:
        start = time.process_time()
        memory.retrieve(cache, cameras, count=5)
        seconds.append(time.process_time() - start)
    return seconds


def prove_equal(caches: dict[str, FrameCache], poses: np.ndarray) -> None:
    """Require the ids that the readable version finds by projecting every frame.

    Raises:
        AssertionError: they differ.
    """
    for name, (stride, views) in PRESETS.items():
        cameras = targets(poses, stride, views)[-1]
        fast, slow = (MemoryLyra2(culling=culling).retrieve(caches[name], cameras, count=5) for culling in (True, False))
        assert fast == slow and fast, f"{name}: found {fast}, without culling {slow}"


def retrieval_table(counts: tuple[int, int]) -> bool:
    """Print what retrieval costs; return whether the bar is kept."""
    rows, kept = [], True
    for walk in WALKS:
        seconds: dict[str, list[float]] = {name: [] for name in PRESETS}
        for count in counts:
            caches, poses = fill(walk, count)
            if count == counts[0]:
                prove_equal(caches, poses)
            for name, (stride, views) in PRESETS.items():
                times = time_retrieval(caches[name], targets(poses, stride, views))
                seconds[name].append(float(np.median(times)))
                ratio = seconds[name][-1] / seconds[name][0]
                kept &= walk != "long" or ratio <= RATIO_BAR
                rows.append([f"{walk}, {name}", str(count), number(1e3 * np.median(times)), number(1e3 * max(times)),
                             number(ratio, 2), number(caches[name].clouds.nbytes / 1e6)])
    print(table(["walk, preset", "frames", "median CPU ms", "slowest", "x fewer", "points MB"], rows))
    print(f"Retrieval of 5 frames at {PLACES} places; ids equal to the readable version's with {counts[0]} frames.")
    print(f"Bar: on a long walk {counts[1]} frames cost at most {RATIO_BAR:g} times what {counts[0]} cost. Points: all memory that")
    print("grows with the cache, but for the compressed pictures (below), which go to a file beyond 256 MB.")
    return kept


def add_table(count: int) -> None:
    """Print what a whole 832 x 480 frame costs in the cache."""
    tracer, rows = truth_rooms.build(6), []
    frames = [truth_rooms.frame(tracer, T, camera=CAMERA) for T in house_walk(count)[1]]
    # As the loop stores it; a depth that is no 16-bit code is kept in full.
    frames = [replace(frame, depth=decode_depth(encode_depth(frame.depth))) for frame in frames]
    for name, (stride, _) in PRESETS.items():
        cache, start = FrameCache(point_subsampling=stride), time.process_time()
        for i, frame in enumerate(frames):
            cache.add(8 * i, frame)
        spent = (time.process_time() - start) / count
        sizes = cache.clouds.nbytes, cache.stored_bytes
        rows.append([name, number(1e3 * spent), *(number(size / 1e3 / count) for size in sizes)])
    print(table(["add a frame", "CPU ms", "points kB", "pictures kB"], rows))


def warp_table(count: int) -> None:
    """Print what warping a 832 x 480 picture into ``count`` targets costs, the readable version beside it."""
    tracer = truth_rooms.build(2)
    T = from_yaw_pitch(np.array([1.0, -1.0, 1.4]), 0.2, -0.1)
    depth = truth_rooms.frame(tracer, T, camera=CAMERA).depth
    path = np.tile(T, (count, 1, 1))
    path[:, :3, 3] += np.linspace(0, 1.2, count)[:, None] * T[:3, 2]
    cameras = Trajectory(path, np.tile(CAMERA.K, (count, 1, 1)), CAMERA.width, CAMERA.height)
    rgb = np.random.default_rng(0).uniform(-1, 1, (*depth.shape, 3)).astype(np.float32)
    splat_frames(rgb, depth, depth > 0, CAMERA, T, cameras[:1])
    start = time.process_time()
    fast = splat_frames(rgb, depth, depth > 0, CAMERA, T, cameras)
    middle = time.process_time()
    slow = [forward_warp(rgb, depth, CAMERA, T, cameras[i : i + 16], mask=depth > 0) for i in range(0, count, 16)]
    end = time.process_time()
    wrong = float(np.abs(fast.values - np.concatenate([s.values for s in slow])).max())
    assert wrong < 1e-5 and np.array_equal(fast.covered, np.concatenate([s.covered for s in slow])), wrong
    rows = [["readable (numpy)", number(end - middle, 2), "1.0"],
            ["kernel", number(middle - start, 2), number((end - middle) / (middle - start))]]
    if importlib.util.find_spec("torch"):
        rows += canonical_rows(depth, T, path, end - middle)
    print(table([f"warp into {count} targets", "CPU s", "x faster"], rows))
    print(f"Three channels and depth; largest difference {wrong:.1e}. Correspondences: five frames, every 4th target drawn.")


def canonical_rows(depth: np.ndarray, T: np.ndarray, path: np.ndarray, readable: float) -> list[list[str]]:
    """Return the rows of a chunk's correspondence channels, five times the readable warp beside them."""
    import torch

    from lyra_core.generate.lyra2.canonical import canonical_buffer

    K, start = CAMERA.K - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], time.process_time()
    canonical_buffer([torch.from_numpy(depth)] * 5, [K] * 5, [T] * 5, np.tile(K, (len(path), 1, 1)), path, height=480, width=832)
    spent = time.process_time() - start
    return [["correspondences of 5 frames", number(spent, 2), number(5 * readable / spent)]]


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="250 and 2,000 frames, 16 targets")
    args = parser.parse_args()
    kept = retrieval_table((250, 2000) if args.quick else (500, 10_000))
    add_table(10 if args.quick else 40)
    warp_table(16 if args.quick else 80)
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
