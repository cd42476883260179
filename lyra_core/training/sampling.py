"""Which chunk of which clip a step learns, and which frames of the spatial memory it is shown.

Everything random comes from generators made of (seed, step, place in the batch), so a step is the same whoever makes it and
whenever: a resumed run needs no saved generator state, and any number of processes draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.conditioning import Cameras
from lyra_core.generate.lyra2.packing import Packing
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.training.clips import Clip, ClipSource
from lyra_core.training.geometry import ChunkGeometry
from lyra_core.training.settings import HistoryCfg
from lyra_core.types import Frame, Trajectory

Mode = Literal["plain", "self_augmented", "image"]
"""'plain': a chunk after the clip's true frames; 'self_augmented': after a chunk that the network spoilt; 'image': the first
chunk after one picture."""
MODE_STREAM, SLOT_STREAM, TORCH_STREAM, POOL_STREAM = 0, 1, 2, 3
"""Told apart in the seeds of the generators."""


@dataclass(frozen=True)
class ChunkSample:
    """What one chunk is conditioned on beside the frames before it."""

    number: int
    """Its new frames are 1 + number * n .. (number + 1) * n, counted from the sample's first frame."""
    newest_depth: Tensor
    """(H, W) z-depth of the frame before them [m]; 0 = unknown."""
    ids: tuple[int, ...]
    """Retrieved frames of the clip, best first."""
    pictures: Tensor
    """(R, 3, H, W) those frames, in [-1, 1]."""
    depths: Tensor
    """(R, H, W) their depths [m]."""
    caption: str | Tensor | None
    """Text, its embedding (512, c), or None for the empty caption."""
    channels: tuple[Tensor, Tensor] | None = None
    """Ray and correspondence channels in packed order, where they were computed before."""


@dataclass(frozen=True)
class Sample:
    """One thing to learn, as read from a clip."""

    name: str
    mode: Mode
    start: int
    """The clip's frame that is this video's first."""
    video: Tensor
    """(3, F, H, W) frames from ``start`` to the end of the chunk to learn, in [-1, 1]."""
    cameras: Cameras
    """Of all frames of the clip."""
    chunks: tuple[ChunkSample, ...]
    """The chunk to learn; when self-augmented, the chunk to spoil before it."""
    seed: tuple[int, ...]
    """Of the noise; see ``torch_generator``."""

    @property
    def target(self) -> ChunkSample:
        """The chunk to learn."""
        return self.chunks[-1]

    def geometry(self, packing: Packing, chunk: ChunkSample) -> ChunkGeometry:
        """Return the cameras and depths around one of its chunks."""
        return ChunkGeometry.of(packing, self.cameras, chunk.depths, start=self.start, number=chunk.number, ids=chunk.ids)


def draw_mode(cfg: HistoryCfg, *, seed: int, step: int) -> Mode:
    """Draw what kind of sample a step learns: one for the whole batch, so that all processes run the same passes."""
    if step % cfg.every:
        return "plain"
    rng = np.random.default_rng([seed, step, MODE_STREAM])
    if rng.random() < cfg.image_share:
        return "image"
    return "self_augmented" if rng.random() < cfg.probability else "plain"


def torch_generator(seed: Sequence[int]) -> torch.Generator:
    """Return a CPU generator of these numbers; noise is drawn on the CPU so that every device sees the same."""
    state = np.random.SeedSequence([*seed, TORCH_STREAM]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class Sampler:
    """Draws samples; ``sample(step, slot)`` is a function of the seed, the step and the slot alone."""

    def __init__(self, source: ClipSource, packing: Packing, cfg: HistoryCfg, *, seed: int, pool: int = 0) -> None:
        """Take in clips and settings.

        Args:
            pool: > 0: every chunk of every clip is drawn in so many variants that stay in memory with their ray and
                correspondence channels. For few small clips, where drawing would take longer than learning.
        """
        self.source, self.packing, self.cfg, self.seed, self.pool = source, packing, cfg, seed, pool
        self._memory = MemoryLyra2()
        self._kept: dict[tuple[int, ...], ChunkSample] = {}
        self._videos: dict[int, tuple[Tensor, Cameras]] = {}

    def like(self, cfg: HistoryCfg, *, seed: int) -> Sampler:
        """Return a sampler of the same clips with other settings or another seed, which shares the pool.

        What is drawn into the pool depends on neither of them, only on the settings of the memory, which must be the same.
        """
        other = Sampler(self.source, self.packing, cfg, seed=seed, pool=self.pool)
        other._kept, other._videos = self._kept, self._videos
        return other

    def sample(self, step: int, slot: int) -> Sample:
        """Return what place ``slot`` of the batch learns in a step.

        Raises:
            InputError: a clip is too short.
        """
        mode, seed = draw_mode(self.cfg, seed=self.seed, step=step), (self.seed, step, SLOT_STREAM, slot)
        rng = np.random.default_rng(seed)
        index = int(rng.integers(len(self.source)))
        clip = self.source.load(index)
        start = int(rng.integers(max(1, int(len(clip) * self.cfg.start_share))))
        segment = int(rng.integers(self._segments(clip, start)))
        numbers = {"plain": (segment,), "image": (0,), "self_augmented": (segment, segment + 1)}[mode]
        chunks = [self._chunk(index, clip, start, number, rng, mode == "image") for number in numbers]
        chunks = tuple(self._with_caption(chunk, clip, start, rng) for chunk in chunks)
        video, cameras = self._pictures(index, clip, start, 1 + (numbers[-1] + 1) * self.packing.chunk_frames)
        return Sample(clip.name, mode, start, video, cameras, chunks, seed)

    def _segments(self, clip: Clip, start: int) -> int:
        """Return how many chunks may be drawn: after each there is another, for self-augmentation."""
        whole = (len(clip) - start - 1) // self.packing.chunk_frames
        # Without self-augmentation one more chunk could be used; the original keeps it free in every mode, and so is this.
        spare = 1 if self.cfg.probability > 0 else 0
        if whole < 1 + spare:
            raise InputError(
                f"{clip.name}: got {len(clip) - start} frames, expected at least {1 + (1 + spare) * self.packing.chunk_frames} "
                f"for packing {self.packing.text!r}"
            )
        return min(whole - spare, self.cfg.max_segments)

    def _pictures(self, index: int, clip: Clip, start: int, count: int) -> tuple[Tensor, Cameras]:
        """Return the frames of a sample and the cameras of the clip."""
        if not self.pool:
            return clip.rgb(range(start, start + count)), clip.cameras()
        if index not in self._videos:
            self._videos[index] = clip.rgb(range(len(clip))), clip.cameras()
        video, cameras = self._videos[index]
        return video[:, start : start + count], cameras

    def _chunk(self, index: int, clip: Clip, start: int, number: int, rng: np.random.Generator, image: bool) -> ChunkSample:
        if not self.pool:
            return self.chunk(clip, start, number, rng, image=image)
        key = (index, start, number, int(image), int(rng.integers(self.pool)))
        if key not in self._kept:
            chunk = self.chunk(clip, start, number, np.random.default_rng([POOL_STREAM, *key]), image=image)
            scene = ChunkGeometry.of(self.packing, clip.cameras(), chunk.depths, start=start, number=number, ids=chunk.ids)
            size = chunk.newest_depth.shape
            self._kept[key] = replace(chunk, channels=(scene.rays(self.packing, *size), scene.correspondences(self.packing, *size)))
        return self._kept[key]

    def _with_caption(self, chunk: ChunkSample, clip: Clip, start: int, rng: np.random.Generator) -> ChunkSample:
        key = clip.caption_key(start + 1 + chunk.number * self.packing.chunk_frames)
        if rng.random() < self.cfg.text_dropout or key is None:
            return replace(chunk, caption=None)
        return replace(chunk, caption=clip.embeddings[key] if clip.embeddings else clip.captions[key])

    def chunk(self, clip: Clip, start: int, number: int, rng: np.random.Generator, *, image: bool) -> ChunkSample:
        """Return what a chunk is conditioned on, with frames drawn from the memory; ``image``: from the first frame alone."""
        first = start + 1 + number * self.packing.chunk_frames
        candidates = [start] if image else self.candidates(len(clip), first)
        ids = self.drawn(clip, candidates, first + self.packing.chunk_frames - 1, rng)
        depth = torch.from_numpy(clip.depth([first - 1])[0])
        return ChunkSample(number, depth, tuple(ids), clip.rgb(ids).transpose(0, 1), torch.from_numpy(clip.depth(ids)), None)

    def candidates(self, count: int, first: int) -> list[int]:
        """Return the frames of the memory for a chunk whose first new frame is given: all over the clip, but not near it."""
        last, gap = first + self.packing.chunk_frames - 1, self.cfg.memory_gap
        ids = range(self.cfg.memory_stride, count, self.cfg.memory_stride)
        return [i for i in ids if (i < first - gap or i > last + gap) and i != first - 1]

    def drawn(self, clip: Clip, candidates: list[int], target: int, rng: np.random.Generator) -> list[int]:
        """Draw retrieved frames for a target frame without replacement, by what they show of it, and drop some now and then."""
        if not candidates or not self.packing.spatial_slots:
            return []
        weights = self._weights(clip, candidates, target)
        if not weights.any():
            return []
        count = min(self.packing.spatial_slots, int((weights > 0).sum()))
        ids = rng.choice(candidates, count, replace=False, p=weights / weights.sum()).tolist()
        if rng.random() < self.cfg.memory_drop:
            dropped = rng.permutation(len(ids))[: rng.integers(1, len(ids) + 1)]
            ids = [frame for i, frame in enumerate(ids) if i not in dropped]
        return ids

    def _weights(self, clip: Clip, candidates: list[int], target: int) -> np.ndarray:
        stride, path = self.cfg.point_subsampling, clip.trajectory
        cache = FrameCache(point_subsampling=1)
        for frame, depth in zip(candidates, clip.depth(candidates), strict=True):
            # The thinned frame stands for the whole one: its picture is never asked for.
            thin, camera = depth[::stride, ::stride], strided_camera(path.camera(frame), stride)
            blank = np.zeros((*thin.shape, 3), np.uint8)
            known = np.where(thin > 0, thin, np.nan)
            cache.add(frame, Frame(blank, known, camera, path.T_world_camera[frame], np.zeros(thin.shape, np.uint8)))
        view = strided_camera(path.camera(target), stride)
        cameras = Trajectory(path.T_world_camera[[target]], view.K[None], view.width, view.height)
        return self._memory.sampling_weights(cache, cameras)
