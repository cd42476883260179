"""The loop that drives every generator: retrieve from the cache, generate 80 frames, update the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.config import GenerateCfg
from lyra_core.errors import InputError
from lyra_core.generate.base import ChunkRequest, Generator
from lyra_core.io.images import decode_depth, encode_depth
from lyra_core.types import Frame, Trajectory

FrameDepth = Callable[[Frame | None, Sequence[Frame]], Sequence[np.ndarray]]
"""Depth for a generator that makes none: (the newest frame before, new frames) -> one (H, W) float32 z-depth [m] per frame."""


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


def generate_chunks(
    generator: Generator,
    trajectory: Trajectory,
    cache: Cache,
    memory: Memory,
    *,
    cfg: GenerateCfg,
    seed: int,
    depth_provider: FrameDepth | None = None,
    start_chunk: int = 0,
    newest: Frame | None = None,
) -> Iterator[Chunk]:
    """Generate the frames of a trajectory chunk by chunk, and keep every ``cfg.cache_stride``-th in the cache.

    The generator must be prepared. The newest frame is the main condition of a chunk, frames that saw the same place are
    retrieved for the chunk's last camera. Chunk k uses seed + k and depends only on the cache and the newest frame, so a
    cache rebuilt from disk continues a run with the same frames.

    Args:
        trajectory: cameras of frames 0 to 80 n.
        cache: empty at chunk 0 (but for views given beside the photo, under negative ids), else rebuilt from stored frames.
        start_chunk: first chunk to make.
        newest: frame 80 * start_chunk; taken from the cache if None.

    Raises:
        InputError: the trajectory is not 1 + 80 n frames long, the newest frame of a resumed run is missing, or the
            generator makes no depth and no depth_provider is given.
    """
    chunks, rest = divmod(len(trajectory) - 1, CHUNK_FRAMES)
    if rest or chunks < 0:
        raise InputError(f"trajectory: got {len(trajectory)} frames, expected 1 + {CHUNK_FRAMES} k")
    opening: tuple[Frame, ...] = ()
    if start_chunk == 0:
        (newest,) = opening = _finished([generator.first_frame(trajectory[:1])], None, generator.name, depth_provider)
        cache.add(0, newest)
    elif newest is None:
        newest = _newest_cached(cache, start_chunk * CHUNK_FRAMES)
    if chunks == 0 and opening:
        yield Chunk(0, (0,), opening, ())
    for index in range(start_chunk, chunks):
        first = 1 + index * CHUNK_FRAMES
        cameras = trajectory[first : first + CHUNK_FRAMES]
        retrieved = memory.retrieve(cache, cameras[-1:], count=cfg.retrieved_frames)
        context = tuple(cache.frame(frame_id) for frame_id in retrieved)
        made = generator.generate(ChunkRequest(index, cameras, newest, context, cfg.prompt, seed + index))
        if len(made) != CHUNK_FRAMES:
            raise InputError(f"generator {generator.name!r}: chunk {index}: got {len(made)} frames, expected {CHUNK_FRAMES}")
        frames = _finished(made, newest, generator.name, depth_provider)
        for frame_id, frame in enumerate(frames, first):
            if frame_id % cfg.cache_stride == 0:
                cache.add(frame_id, frame)
        newest = frames[-1]
        yield Chunk(index, tuple(range(first - len(opening), first + CHUNK_FRAMES)), opening + frames, tuple(retrieved))
        opening = ()


def _newest_cached(cache: Cache, frame_id: int) -> Frame:
    if frame_id not in cache.ids:
        raise InputError(f"generate_chunks: to go on after frame {frame_id} it must be given as newest or be in the cache")
    return cache.frame(frame_id)


def _finished(frames: list[Frame], newest: Frame | None, name: str, depth_provider: FrameDepth | None) -> tuple[Frame, ...]:
    """Return frames with depth, rounded as on disk, so that a resumed run sees the same numbers as an uninterrupted one."""
    # One frame may look at nothing but sky; a generator without depth has none in any of them.
    if all(np.isnan(frame.depth).all() for frame in frames):
        if depth_provider is None:
            raise InputError(f"generator {name!r} makes no depth (all of it is NaN): expected a depth_provider for its frames")
        depths = depth_provider(newest, frames)
        if len(depths) != len(frames):
            raise InputError(f"depth_provider: got {len(depths)} depths, expected one for each of {len(frames)} frames")
        frames = [replace(frame, depth=depth) for frame, depth in zip(frames, depths, strict=True)]
    return tuple(replace(frame, depth=decode_depth(encode_depth(frame.depth))) for frame in frames)
