"""The loop that drives every generator: retrieve from the cache, generate 80 frames, update the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.config import GenerateCfg
from lyra_core.errors import ConfigError, InputError
from lyra_core.generate.base import ChunkRequest, Generator
from lyra_core.generate.captions import caption_for_chunk
from lyra_core.io.images import decode_depth, encode_depth
from lyra_core.types import Frame, Trajectory

FrameDepth = Callable[[Sequence[Frame], Sequence[Frame]], Sequence[np.ndarray]]
"""Depth for a generator that makes none: (new frames, earlier frames with depth) -> (H, W) float32 z-depth [m] per new frame."""


class Cache(Protocol):
    """What the loop asks of a frame cache (see memory.cache.FrameCache)."""

    @property
    def ids(self) -> list[int]: ...

    def add(self, frame_id: int, frame: Frame) -> None: ...

    def frame(self, frame_id: int) -> Frame: ...


class Memory(Protocol):
    """What the loop asks of a retrieval strategy (see memory.base.MemoryStrategy)."""

    def retrieve(self, cache, cameras: Trajectory, *, count: int) -> list[int]: ...


@dataclass(frozen=True)
class Chunk:
    """One turn of the loop."""

    index: int
    """From 0."""
    frame_ids: tuple[int, ...]
    """Chunk k holds frames 80 k + 1 to 80 k + 80; the first chunk also holds frame 0, the photo's view."""
    frames: tuple[Frame, ...]
    """As they are stored: depth rounded to what the world folder's depth files hold."""
    retrieved: tuple[int, ...]
    """Ids of the cached frames the generator was given, best first."""
    prompt: str = ""
    """What the generator was told, or, if it finds its own words, what it said."""


def generate_chunks(
    generator: Generator,
    trajectory: Trajectory,
    cache: Cache,
    memory: Memory,
    *,
    cfg: GenerateCfg,
    seed: int,
    depth_provider: FrameDepth | None = None,
    depth_stride: int = 1,
    start_chunk: int = 0,
    newest: Frame | None = None,
    captions: dict[int, str] | None = None,
) -> Iterator[Chunk]:
    """Generate the frames of a trajectory chunk by chunk, and keep every ``cfg.cache_stride``-th in the cache.

    The generator must be prepared. The newest frame is the main condition of a chunk, frames that saw the same place are
    retrieved for the chunk's last camera (or several, ``cfg.retrieval_views``). Chunk k uses seed + k and depends only on the
    cache and the newest frame, so a cache rebuilt from disk continues a run with the same frames.

    Args:
        trajectory: cameras of frames 0 to 80 n.
        cache: empty at chunk 0 (but for views given beside the photo, under negative ids), else rebuilt from stored frames.
        depth_provider: asked for the depth of frames that come without: every ``depth_stride``-th id and the chunk's last. The
            others stay without depth, and are not lifted.
        start_chunk: first chunk to make.
        newest: frame 80 * start_chunk; taken from the cache if None.
        captions: frame id -> prompt from there on, in place of ``cfg.prompt``.

    Raises:
        InputError: the trajectory is not 1 + 80 n frames long, the newest frame of a resumed run is missing, or the
            generator makes no depth and no depth_provider is given.
        ConfigError: depth_stride would leave a cached frame without depth.
    """
    if depth_provider is not None:
        check_depth_stride(depth_stride, cfg)
    chunks, rest = divmod(len(trajectory) - 1, CHUNK_FRAMES)
    if rest or chunks < 0:
        raise InputError(f"trajectory: got {len(trajectory)} frames, expected 1 + {CHUNK_FRAMES} k")
    opening: tuple[Frame, ...] = ()
    if start_chunk == 0:
        photo = {0: generator.first_frame(trajectory[:1])}
        (newest,) = opening = _finished(photo, (), generator.name, depth_provider, depth_stride)
        cache.add(0, newest)
    elif newest is None:
        newest = _newest_cached(cache, start_chunk * CHUNK_FRAMES)
    if chunks == 0 and opening:
        yield Chunk(0, (0,), opening, ())
    for index in range(start_chunk, chunks):
        first = 1 + index * CHUNK_FRAMES
        cameras = trajectory[first : first + CHUNK_FRAMES]
        retrieved = memory.retrieve(cache, spread_views(cameras, cfg.retrieval_views), count=cfg.retrieved_frames)
        context = tuple(cache.frame(frame_id) for frame_id in retrieved)
        prompt = caption_for_chunk(captions, index) if captions else cfg.prompt
        made = generator.generate(ChunkRequest(index, cameras, trajectory[:first], newest, context, prompt, seed + index))
        if len(made) != CHUNK_FRAMES:
            raise InputError(f"generator {generator.name!r}: chunk {index}: got {len(made)} frames, expected {CHUNK_FRAMES}")
        new = dict(enumerate(made, first))
        frames = _finished(new, (newest, *context), generator.name, depth_provider, depth_stride)
        for frame_id, frame in enumerate(frames, first):
            if frame_id % cfg.cache_stride == 0:
                cache.add(frame_id, frame)
        newest = frames[-1]
        ids = tuple(range(first - len(opening), first + CHUNK_FRAMES))
        yield Chunk(index, ids, opening + frames, tuple(retrieved), getattr(generator, "said", prompt))
        opening = ()


def check_depth_stride(stride: int, cfg: GenerateCfg) -> None:
    """Require that every cached frame and each chunk's last one is among those that get depth.

    Raises:
        ConfigError: one would be left out.
    """
    if stride < 1 or cfg.cache_stride % stride or CHUNK_FRAMES % stride:
        expected = f"a divisor of {CHUNK_FRAMES} and of the cache's {cfg.cache_stride}"
        raise ConfigError(f"depth: frame_stride: got {stride}, expected {expected}")


def spread_views(cameras: Trajectory, count: int) -> Trajectory:
    """Return ``count`` cameras of a chunk, evenly spaced up to its last: what frames are retrieved for, as in Lyra 2.0."""
    rows = np.linspace(0, len(cameras) - 1, count + 1)[1:].astype(int)
    return replace(cameras, T_world_camera=cameras.T_world_camera[rows], K=cameras.K[rows])


def _newest_cached(cache: Cache, frame_id: int) -> Frame:
    if frame_id not in cache.ids:
        raise InputError(f"generate_chunks: to go on after frame {frame_id} it must be given as newest or be in the cache")
    return cache.frame(frame_id)


def _finished(
    frames: dict[int, Frame], history: Sequence[Frame], name: str, depth_provider: FrameDepth | None, stride: int
) -> tuple[Frame, ...]:
    """Return frames with depth, rounded as on disk, so that a resumed run sees the same numbers as an uninterrupted one."""
    # One frame may look at nothing but sky; a generator without depth has none in any of them.
    if all(np.isnan(frame.depth).all() for frame in frames.values()):
        if depth_provider is None:
            raise InputError(f"generator {name!r} makes no depth (all of it is NaN): expected a depth_provider for its frames")
        wanted = [i for i in frames if i % stride == 0]
        depths = depth_provider([frames[i] for i in wanted], history)
        if len(depths) != len(wanted):
            raise InputError(f"depth_provider: got {len(depths)} depths, expected one for each of {len(wanted)} frames")
        frames = {**frames, **{i: replace(frames[i], depth=depth) for i, depth in zip(wanted, depths, strict=True)}}
    return tuple(_rounded(frame) for frame in frames.values())


def _rounded(frame: Frame) -> Frame:
    """Return a frame as it comes back from disk; where its depth is unknown, so is its provenance."""
    depth = decode_depth(encode_depth(frame.depth))
    return replace(frame, depth=depth, provenance=np.where(np.isnan(depth), 255, frame.provenance).astype(np.uint8))
