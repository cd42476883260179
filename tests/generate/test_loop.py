"""The loop: what enters the cache, what the generator is given, and that a resumed run makes the same frames."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from lyra_core.backends import GENERATORS, resolve
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.config import GenerateCfg
from lyra_core.errors import ConfigError, InputError
from lyra_core.generate.loop import generate_chunks
from lyra_core.generate.warp_fill import GeneratorWarpFill
from lyra_core.io.images import read_depth, read_image, write_depth, write_image
from lyra_core.memory.cache import FrameCache
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.memory.none import MemoryNone
from lyra_core.rays.base import cast_camera, make_ray_tracer
from lyra_core.types import Camera, DepthEstimate, Frame, Photo, Trajectory

CAMERA = Camera.from_focal(34.0, 52, 30)
CFG = GenerateCfg(point_subsampling=2)


class GeneratorRoom:
    """An explicit world: a room with a box, its colour a function of the place, ray-cast."""

    name = "room"

    def __init__(self):
        room, box = [[-2, -2.5, 0], [5, 2.5, 2.6]], [[2.2, 0.3, 0], [3, 1.1, 0.9]]
        mesh = trimesh.util.concatenate([trimesh.creation.box(bounds=bounds) for bounds in (room, box)])
        self.tracer = make_ray_tracer(np.asarray(mesh.vertices), np.asarray(mesh.faces))
        self.requests = []

    def query(self, camera, T) -> Frame:
        hits = cast_camera(self.tracer, camera, T)
        depth = np.where(np.isfinite(hits.t), hits.t, np.nan).astype(np.float32).reshape(camera.height, camera.width)
        blank = np.zeros(depth.shape, np.uint8)
        frame = Frame(np.zeros((*depth.shape, 3), np.uint8), depth, camera, T, blank)
        waves = np.sin(frame.points() * np.array([3.1, 4.3, 5.7], np.float32))
        return replace(frame, rgb=np.clip(128 + 100 * waves, 0, 255).astype(np.uint8))

    def first_frame(self, trajectory):
        return self.query(trajectory.camera(0), trajectory.T_world_camera[0])

    def generate(self, request):
        self.requests.append(request)
        cameras = request.trajectory
        return [self.query(cameras.camera(i), T) for i, T in enumerate(cameras.T_world_camera)]


def path(frames: int) -> Trajectory:
    """Return a path that goes ahead and looks round, and comes back every 160 frames."""
    a = 2 * np.pi * np.arange(frames) / 160
    T = np.stack([from_yaw_pitch(np.array([1 - np.cos(x), 0.5 * np.sin(x), 1.4]), 0.6 * np.sin(x), -0.1) for x in a])
    return Trajectory(T, np.repeat(CAMERA.K[None], frames, 0), CAMERA.width, CAMERA.height)


def make(name: str):
    """Return a prepared generator: the room itself, or warp_fill with one view of it as the photo."""
    room = GeneratorRoom()
    if name == "room":
        return room
    big = CAMERA.resized(104, 60)
    T = path(1).T_world_camera[0]
    view = room.query(big, T)
    generator = GeneratorWarpFill()
    estimate = DepthEstimate(view.depth, np.zeros(view.depth.shape, np.uint8), big, T, 2.6, "exact", 0.0)
    generator.prepare(Photo(view.rgb, "0" * 64, "room"), estimate, seed=0, indoor=True)
    return generator


def run(generator, trajectory, cache=None, **options):
    cache = FrameCache(point_subsampling=2) if cache is None else cache
    memory = options.pop("memory", MemoryLyra2())
    return list(generate_chunks(generator, trajectory, cache, memory, cfg=CFG, seed=options.pop("seed", 7), **options)), cache


def same(a: Frame, b: Frame) -> bool:
    names = ("rgb", "depth", "provenance", "T_world_camera")
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n == "depth") for n in names)


def test_what_the_generator_is_given():
    generator = make("room")
    chunks, cache = run(generator, path(241))
    assert [c.index for c in chunks] == [0, 1, 2]
    assert [i for c in chunks for i in c.frame_ids] == list(range(241)) and chunks[0].frame_ids[:2] == (0, 1)
    assert cache.ids == list(range(0, 241, 8))
    frames = [f for c in chunks for f in c.frames]
    for request, chunk in zip(generator.requests, chunks, strict=True):
        assert request.seed == 7 + request.index and len(request.trajectory) == 80
        assert same(request.newest, frames[80 * request.index])
        assert all(same(f, frames[i]) for f, i in zip(request.retrieved, chunk.retrieved, strict=True))
        assert all(i % 8 == 0 and i <= 80 * chunk.index for i in chunk.retrieved) and len(chunk.retrieved) <= 5
    assert chunks[0].retrieved == (0,)
    # Frame 160 is back at the photo's pose: what is given sees what frame 160 sees, and is not only the newest frames.
    assert chunks[1].retrieved and 80 not in chunks[1].retrieved
    assert np.abs(np.nan_to_num(frames[0].depth - frames[160].depth)).max() < 1e-3


@pytest.mark.parametrize("name", ["room", "warp_fill"])
@pytest.mark.parametrize("newest_given", [True, False])
def test_resumed_run_makes_the_same_frames(name, newest_given, tmp_path):
    """Write the first chunk as a world folder does, rebuild the cache from the files in a new run, and go on."""
    whole, _ = run(make(name), path(241))
    for frame_id, frame in zip(whole[0].frame_ids, whole[0].frames, strict=True):
        write_image(tmp_path / f"{frame_id}.png", frame.rgb)
        write_image(tmp_path / f"{frame_id}_provenance.png", frame.provenance)
        write_depth(tmp_path / f"{frame_id}_depth.png", frame.depth)

    def load(i: int) -> Frame:
        provenance = cv2.imread(str(tmp_path / f"{i}_provenance.png"), cv2.IMREAD_GRAYSCALE)
        T = path(241).T_world_camera[i]
        return Frame(read_image(tmp_path / f"{i}.png"), read_depth(tmp_path / f"{i}_depth.png"), CAMERA, T, provenance)

    cache = FrameCache.rebuild(((i, load(i)) for i in range(0, 81, 8)), point_subsampling=2)
    newest = load(80) if newest_given else None
    rest, _ = run(make(name), path(241), cache, start_chunk=1, newest=newest)
    assert [c.index for c in rest] == [1, 2]
    for a, b in zip(whole[1:], rest, strict=True):
        assert a.frame_ids == b.frame_ids and a.retrieved == b.retrieved
        assert all(same(x, y) for x, y in zip(a.frames, b.frames, strict=True))


def test_resume_would_notice_a_changed_frame():
    """Plant a fault: one pixel block of the newest frame changed changes what warp_fill makes of it."""
    whole, cache = run(make("warp_fill"), path(161))
    newest = whole[0].frames[-1]
    kept = FrameCache.rebuild([(i, cache.frame(i)) for i in cache.ids if i <= 80], point_subsampling=2)
    changed = replace(newest, rgb=255 - newest.rgb)
    rest, _ = run(make("warp_fill"), path(161), kept, start_chunk=1, newest=changed)
    assert not all(same(x, y) for x, y in zip(whole[1].frames, rest[0].frames, strict=True))


def test_depth_comes_from_the_generator_or_a_provider():
    class Blind(GeneratorRoom):
        name = "blind"

        def query(self, camera, T):
            frame = super().query(camera, T)
            return replace(frame, depth=np.full_like(frame.depth, np.nan))

    with pytest.raises(InputError, match="generator 'blind' makes no depth"):
        run(Blind(), path(81))
    calls, truth = [], GeneratorRoom()

    def provider(frames, history):
        calls.append((history, len(frames)))
        return [truth.query(f.camera, f.T_world_camera).depth for f in frames]

    chunks, _ = run(Blind(), path(161), depth_provider=provider)
    assert [count for _, count in calls] == [1, 80, 80] and calls[0][0] == ()
    assert calls[2][0][0] is chunks[0].frames[-1] and len(calls[2][0]) == 1 + len(chunks[1].retrieved)
    exact, _ = run(GeneratorRoom(), path(161))
    assert all(np.array_equal(a.depth, b.depth, equal_nan=True) for x, y in zip(chunks, exact, strict=True)
               for a, b in zip(x.frames, y.frames, strict=True))
    with pytest.raises(InputError, match="got 0 depths, expected one for each of 1"):
        run(Blind(), path(81), depth_provider=lambda frames, history: [])
    calls.clear()
    (sparse,), cache = run(Blind(), path(81), depth_provider=provider, depth_stride=4)
    assert [count for _, count in calls] == [1, 20]
    assert [np.isfinite(f.depth).any() for f in sparse.frames] == [i % 4 == 0 for i in range(81)]
    assert all((f.provenance == 255).all() for i, f in enumerate(sparse.frames) if i % 4) and len(cache) == 11
    with pytest.raises(ConfigError, match="frame_stride: got 5"):
        run(Blind(), path(81), depth_provider=provider, depth_stride=5)


def test_one_frame_of_sky_is_not_a_generator_without_depth():
    class Skyward(GeneratorRoom):
        def generate(self, request):
            frames = super().generate(request)
            return [replace(frames[0], depth=np.full_like(frames[0].depth, np.nan)), *frames[1:]]

    chunks, _ = run(Skyward(), path(81))
    assert np.isnan(chunks[0].frames[1].depth).all() and not np.isnan(chunks[0].frames[2].depth).any()


def test_stored_depth_is_close_and_stable():
    generator = make("room")
    chunks, _ = run(generator, path(81))
    for frame in chunks[0].frames[::20]:
        exact = generator.query(frame.camera, frame.T_world_camera).depth
        assert np.abs(frame.depth - exact).max() < 0.004


def test_wrong_calls_are_named():
    for frames in (80, 100):
        with pytest.raises(InputError, match=f"got {frames} frames, expected 1 \\+ 80 k"):
            run(make("room"), path(frames))
    with pytest.raises(InputError, match="after frame 80"):
        run(make("room"), path(161), start_chunk=1)
    short = GeneratorRoom()
    short.generate = lambda request: []
    with pytest.raises(InputError, match="generator 'room': chunk 0: got 0 frames, expected 80"):
        run(short, path(81))
    chunks, cache = run(make("room"), path(1))
    assert [c.frame_ids for c in chunks] == [(0,)] and cache.ids == [0]


def test_without_memory_nothing_is_retrieved():
    chunks, _ = run(make("room"), path(161), memory=MemoryNone())
    assert [c.retrieved for c in chunks] == [(), ()]


def test_warp_fill_is_registered_and_repeats_itself():
    assert "warp_fill" in GENERATORS and resolve("generator", "warp_fill") is GeneratorWarpFill
    first, second = run(make("warp_fill"), path(161))[0], run(make("warp_fill"), path(161), seed=8)[0]
    assert all(same(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a.frames, b.frames, strict=True))
