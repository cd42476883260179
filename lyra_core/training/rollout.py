"""Rollouts along a path whose true frames are known: what the network makes of one picture, chunk after chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.conditioning import Cameras, ChunkInputs, View, assemble, timeline_frames
from lyra_core.generate.lyra2.packing import SUBFRAMES, Packing
from lyra_core.generate.lyra2.samplers import chunk_noise, sample_unipc
from lyra_core.generate.lyra2.vae import State, VideoCodec
from lyra_core.memory.cache import FrameCache
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.training.clips import Clip
from lyra_core.training.step import TrainingNetwork
from lyra_core.types import Frame


@dataclass(frozen=True)
class Start:
    """One rollout to make."""

    clip: Clip
    """Its first frame is given, its depths and cameras are used, its other frames are the truth."""
    seed: int = 0


@dataclass
class _Walk:
    """A rollout under way."""

    clip: Clip
    seed: int
    frames: Tensor
    """(3, n, H, W) so far, rounded to 8 bit as they would be stored."""
    depths: np.ndarray
    """(n, H, W) of the whole path [m]; 0 = unknown."""
    cameras: Cameras
    latents: Tensor
    encoder: State
    decoder: State
    cache: FrameCache
    retrieved: list[list[int]] = field(default_factory=list)


@torch.no_grad()
def roll_out(
    network: TrainingNetwork, codec: VideoCodec, paths: Sequence[Start], *, encode_text: Callable[[str], Tensor],
    encode_image: Callable[[Tensor], Tensor], chunks: int, steps: int = 10, shift: float = 5.0, retrieval: bool = True,
    memory_stride: int = 8, point_subsampling: int = 4, given: int = 0,
) -> list[tuple[Tensor, list[list[int]]]]:
    """Generate ``chunks`` chunks along every path, all paths at once; the depth of new frames is the clip's.

    Args:
        retrieval: False leaves the memory's places to the first frame.
        memory_stride: every n-th frame enters the cache.
        given: so many chunks are the clip's own frames; the others are generated after them.

    Returns:
        Per path: frames (3, 1 + chunks * n, H, W) in [-1, 1], and the ids retrieved for every generated chunk.

    Raises:
        InputError: a clip is too short.
    """
    packing, memory, device = network.network.packing, MemoryLyra2(), network.network.device
    walks = [_begin(packing, codec, path, chunks, given, memory_stride, point_subsampling, device) for path in paths]
    for number in range(given, chunks):
        inputs = [_inputs(packing, codec, walk, number, memory if retrieval else None) for walk in walks]
        texts = [encode_text(walk.clip.captions.get(walk.clip.caption_key(1) or 0, "")) for walk in walks]
        images = [encode_image(walk.frames[:, -1]) for walk in walks]
        shape = (codec.channels, packing.new_length, *walks[0].latents.shape[2:])
        noise = torch.stack([chunk_noise(walk.seed + number, shape) for walk in walks])
        velocity = _velocity(network, inputs, torch.stack(texts).to(device), torch.stack(images).to(device))
        sampled = sample_unipc(velocity, noise.to(inputs[0].history), steps=steps, shift=shift)
        for walk, latents in zip(walks, sampled, strict=True):
            _extend(packing, codec, walk, latents, memory_stride)
    return [(walk.frames.cpu(), walk.retrieved) for walk in walks]


def _begin(
    packing: Packing, codec: VideoCodec, path: Start, chunks: int, given: int, stride: int, subsampling: int, device: torch.device
) -> _Walk:
    clip, count = path.clip, 1 + chunks * packing.chunk_frames
    if len(clip) < count:
        raise InputError(f"{clip.name}: got {len(clip)} frames, expected {count} for {chunks} chunks of packing {packing.text!r}")
    frames = clip.rgb(range(1 + given * packing.chunk_frames)).to(device)
    front = frames[:, :1].expand(-1, SUBFRAMES * (packing.history_length - 1), -1, -1)
    latents, encoder = codec.encode(torch.cat([front, frames], 1)[None])
    _, decoder = codec.decode(latents)
    cache = FrameCache(point_subsampling=subsampling)
    depths, cameras = clip.depth(range(count)), clip.cameras().to(device)
    walk = _Walk(clip, path.seed, frames, depths, cameras, latents[0].to(device), encoder, decoder, cache)
    for frame in range(0, frames.shape[1], stride):
        _remember(walk, frame)
    return walk


def _view(walk: _Walk, frame: int) -> View:
    return View(walk.frames[:, frame], torch.from_numpy(walk.depths[frame]).to(walk.frames.device), walk.cameras[[frame]])


def _inputs(packing: Packing, codec: VideoCodec, walk: _Walk, number: int, memory: MemoryLyra2 | None) -> ChunkInputs:
    newest = number * packing.chunk_frames
    targets = slice(newest + 1, newest + 1 + packing.chunk_frames)
    ids = [] if memory is None else memory.retrieve(walk.cache, walk.clip.trajectory[targets][-1:], count=packing.spatial_slots)
    walk.retrieved.append(ids)
    retrieved = [_view(walk, i) for i in ids]
    return assemble(
        packing, codec, first=_view(walk, 0), newest=_view(walk, newest), retrieved=retrieved, latents=walk.latents,
        time_cameras=walk.cameras[timeline_frames(packing, newest)], targets=walk.cameras[targets],
    )


def _extend(packing: Packing, codec: VideoCodec, walk: _Walk, latents: Tensor, stride: int) -> None:
    video, walk.decoder = codec.decode(latents[None], walk.decoder)
    new = (((video[0].clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1).to(walk.frames)
    encoded, walk.encoder = codec.encode(new[None], walk.encoder)
    first, count = walk.frames.shape[1], len(packing.temporal_positions)
    walk.frames = torch.cat([walk.frames, new], 1)
    newest = torch.cat([walk.latents[:, 1:], encoded[0].to(walk.latents)], 1)[:, -max(count, packing.new_length) :]
    walk.latents = torch.cat([walk.latents[:, :1], newest], 1)
    for frame in range(first, walk.frames.shape[1]):
        if frame % stride == 0:
            _remember(walk, frame)


def _remember(walk: _Walk, frame: int) -> None:
    rgb = ((walk.frames[:, frame] + 1) * 127.5).round().byte().permute(1, 2, 0).cpu().numpy()
    depth, path = walk.depths[frame], walk.clip.trajectory
    known = np.where(depth > 0, depth, np.nan)
    walk.cache.add(frame, Frame(rgb, known, path.camera(frame), path.T_world_camera[frame], np.zeros(depth.shape, np.uint8)))


def _velocity(
    network: TrainingNetwork, inputs: list[ChunkInputs], text: Tensor, image: Tensor
) -> Callable[[Tensor, float], Tensor]:
    history, condition = (torch.stack([getattr(i, name) for i in inputs]) for name in ("history", "condition"))
    net = network.network
    conditions = net.prepare(torch.stack([i.plucker for i in inputs]), torch.stack([i.buffer for i in inputs]))
    rotary = net.rotary(*history.shape[3:])

    def velocity(state: Tensor, timestep: float) -> Tensor:
        time = torch.full((len(inputs),), timestep, device=state.device)
        return net(torch.cat([history, state.to(history)], 2), condition, time, text, image, conditions, rotary=rotary).float()

    return velocity
