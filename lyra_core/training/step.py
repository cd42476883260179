"""From samples to a loss: everything the network is given, the spoilt history, the corruptions, the flow-matching loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lyra_core.generate.lyra2.canonical import warp_main
from lyra_core.generate.lyra2.conditioning import MASK_CHANNELS, ChunkInputs, View, packed_history
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.packing import SUBFRAMES, Packing
from lyra_core.generate.lyra2.vae import State, VideoCodec
from lyra_core.training.flow import TrainSchedule, flow_loss, logit_normal, noised
from lyra_core.training.geometry import ray_jitter
from lyra_core.training.sampling import ChunkSample, Sample, torch_generator
from lyra_core.training.self_augmentation import (
    Timeline,
    decoded_end,
    denoised_once,
    encode_timeline,
    spoiling_level,
    written_back,
)
from lyra_core.training.settings import HistoryCfg


class TrainingNetwork(nn.Module):
    """The network with everything that has weights inside one forward, as sharded training wants it."""

    def __init__(self, network: Lyra2Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, latents: Tensor, condition: Tensor, timestep: Tensor, text: Tensor, image: Tensor, plucker: Tensor, buffer: Tensor
    ) -> Tensor:
        """Return the velocity (B, C, new, h, w); see Lyra2Network."""
        with torch.no_grad():
            conditions = self.network.prepare(plucker, buffer, keep=False)
        return self.network(latents, condition, timestep, text, image, conditions)


@dataclass(frozen=True)
class Parts:
    """What training needs beside the network."""

    packing: Packing
    codec: VideoCodec
    encode_text: Callable[[str], Tensor]
    """Caption -> (512, c)."""
    encode_image: Callable[[Tensor], Tensor]
    """Frame (3, H, W) in [-1, 1] -> (n, c)."""
    schedule: TrainSchedule
    history: HistoryCfg
    device: torch.device
    memo: dict[tuple, Any] | None = None
    """Latents of true frames, kept from step to step where clips are few and small; None keeps nothing."""

    def remembered(self, key: tuple, make: Callable[[], Any]) -> Any:
        """Return what was made under a key before, or make it."""
        if self.memo is None:
            return make()
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]


@dataclass(frozen=True)
class _Past:
    """What lies before a chunk: pictures and latents."""

    video: Tensor
    """(3, F, H, W) on the device; spoilt where stage A spoilt it."""
    latents: Tensor
    """(C, n, h, w) the first latent, then the newest."""
    true: bool
    """Whether the pictures are the clip's own."""


@dataclass(frozen=True)
class Learnable:
    """A batch with everything but noise."""

    inputs: list[ChunkInputs]
    targets: Tensor
    """(B, C, new, h, w) clean latents."""
    text: Tensor
    image: Tensor


def losses(network: nn.Module, samples: Sequence[Sample], parts: Parts) -> Tensor:
    """Return the loss of each sample (B,)."""
    generators = [torch_generator(sample.seed) for sample in samples]
    batch = learnable(network, samples, parts, generators)
    indices = parts.schedule.index_of_draw(torch.cat([logit_normal(1, g) for g in generators]))
    sigmas = parts.schedule.sigmas[indices].to(parts.device)
    noise = noise_for(batch.targets, generators)
    velocity = velocity_of(network, batch, noised(batch.targets, noise, sigmas), parts.schedule.timesteps[indices].to(parts.device))
    return flow_loss(velocity, batch.targets, noise, parts.schedule.weights[indices].to(parts.device))


@torch.no_grad()
def learnable(network: nn.Module, samples: Sequence[Sample], parts: Parts, generators: Sequence[torch.Generator]) -> Learnable:
    """Return what a batch of one mode learns; when self-augmented, after the chunk before it was spoilt."""
    modes = {sample.mode for sample in samples}
    assert len(modes) == 1, modes
    if modes == {"self_augmented"}:
        pasts, targets = _spoilt(network, samples, parts, generators)
    else:
        pasts, targets = _clean(samples, parts)
    return _with_conditions(samples, [s.target for s in samples], pasts, torch.stack(targets), parts, generators)


def chunk_inputs(
    parts: Parts, sample: Sample, chunk: ChunkSample, past: Tensor, latents: Tensor, generator: torch.Generator, *,
    true: bool = False,
) -> ChunkInputs:
    """Return what the network sees of a chunk, as ``conditioning.assemble`` does, with the corruptions of training.

    Args:
        past: (3, F, H, W) frames; those from the chunk's own on are not read.
        latents: (C, n, h, w) of the history: the first, then the newest.
        generator: of the corruptions.
        true: the past is the clip's own, so that what is made of it may be remembered.
    """
    packing, device = parts.packing, parts.device
    newest, (height, width) = chunk.number * packing.chunk_frames, chunk.newest_depth.shape
    scene = sample.geometry(packing, chunk).to(device)
    # The best frame stands last, where the packing keeps full resolution; missing ones are filled from the left.
    pictures = [_picture(sample, chunk, i, past) for i in reversed(range(len(chunk.ids)))]
    pictures = [past[:, 0]] * (packing.spatial_slots - len(pictures)) + pictures
    depth = chunk.newest_depth.to(device)
    history = packed_history(packing, latents, parts.codec, [View(picture, depth, scene.newest) for picture in pictures])
    history[:, packing.spatial_positions] += _memory_noise(history[:, packing.spatial_positions], parts.history, generator)

    def warped() -> Tensor:
        camera, targets = scene.newest, scene.targets
        video = warp_main(past[:, newest], depth, camera.K[0], camera.T_world_camera[0], targets.K, targets.T_world_camera)
        return parts.codec.encode(torch.cat([video[:, :1], video], 1)[None])[0][0, :, 1:]

    tail = parts.remembered(("warped", sample.name, sample.start, chunk.number), warped) if true else warped()
    condition = torch.cat([history, tail.to(history)], 1)
    mask = torch.ones(MASK_CHANNELS, *condition.shape[1:], device=device)
    rays, buffer = chunk.channels or (None, None)
    jitter = ray_jitter(parts.history, chunk.newest_depth, generator)
    if jitter is not None:
        rays = scene.jittered(*jitter, generator).rays(packing, height, width)
    elif rays is None:
        rays = scene.rays(packing, height, width)
    buffer = scene.correspondences(packing, height, width) if buffer is None else buffer
    return ChunkInputs(history, torch.cat([mask, condition]), rays.to(history), buffer.to(history))


def _picture(sample: Sample, chunk: ChunkSample, i: int, past: Tensor) -> Tensor:
    """Return a retrieved frame (3, H, W); where the past was spoilt, so is the picture."""
    at = chunk.ids[i] - sample.start
    return past[:, at] if 0 <= at < past.shape[1] else chunk.pictures[i].to(past)


def _encoded(sample: Sample, number: int, parts: Parts, *, newest: int) -> tuple[Timeline, Tensor, State]:
    """Return the history before a true chunk, the chunk's latents (C, new, h, w), and the encoder's state after it."""
    first, count = 1 + number * parts.packing.chunk_frames, parts.packing.chunk_frames

    def make() -> tuple[Timeline, Tensor, State]:
        video = sample.video[:, : first + count].to(parts.device)
        line = encode_timeline(parts.codec, parts.packing, video[:, :first], newest=newest)
        latents, state = parts.codec.encode(video[:, first:][None], line.encoder)
        return line, latents[0], state

    return parts.remembered(("encoded", sample.name, sample.start, number, newest), make)


def _clean(samples: Sequence[Sample], parts: Parts) -> tuple[list[_Past], list[Tensor]]:
    wanted = len(parts.packing.temporal_positions) - 1
    made = [_encoded(sample, sample.target.number, parts, newest=wanted) for sample in samples]
    pasts = [_Past(sample.video.to(parts.device), line.latents, True) for sample, (line, _, _) in zip(samples, made, strict=True)]
    return pasts, [target for _, target, _ in made]


def _spoilt(
    network: nn.Module, samples: Sequence[Sample], parts: Parts, generators: Sequence[torch.Generator]
) -> tuple[list[_Past], list[Tensor]]:
    """Run stage A: the chunk before each target is denoised by the network itself and becomes its history."""
    packing, codec = parts.packing, parts.codec
    count = packing.chunk_frames
    shown = SUBFRAMES * (packing.history_length + packing.new_length - 1) if parts.history.write_back == "history" else count
    reach = shown // SUBFRAMES + codec.receptive_latents
    made = [_encoded(sample, sample.chunks[0].number, parts, newest=reach) for sample in samples]
    true = [_Past(sample.video.to(parts.device), line.latents, True) for sample, (line, _, _) in zip(samples, made, strict=True)]
    clean = torch.stack([chunk for _, chunk, _ in made])
    batch = _with_conditions(samples, [sample.chunks[0] for sample in samples], true, clean, parts, generators)
    levels = [spoiling_level(parts.schedule, logit_normal(1, g), max_timestep=parts.history.max_timestep) for g in generators]
    sigmas, noise = torch.tensor(levels, device=parts.device), noise_for(clean, generators)
    spoilt = denoised_once(lambda state, time: velocity_of(network, batch, state, time), clean, noise, sigmas)
    pasts, targets = [], []
    for sample, past, (line, _, state), chunk in zip(samples, true, made, spoilt, strict=True):
        end = 1 + (sample.chunks[0].number + 1) * count
        # Where the timeline was cut, its first latent is not next to the others; the decoder must not see it there.
        latents = torch.cat([line.latents if line.whole else line.latents[:, 1:], chunk], 1)
        video = written_back(past.video, decoded_end(codec, latents, frames=shown), end=end)
        degraded = codec.encode(video[:, end - count : end][None], line.encoder)[0][0]
        targets.append(codec.encode(past.video[:, end : end + count][None], state)[0][0])
        pasts.append(_Past(video, torch.cat([line.latents, degraded], 1), False))
    return pasts, targets


def _with_conditions(
    samples: Sequence[Sample], chunks: Sequence[ChunkSample], pasts: Sequence[_Past], targets: Tensor, parts: Parts,
    generators: Sequence[torch.Generator],
) -> Learnable:
    inputs, texts, images = [], [], []
    for sample, chunk, past, generator in zip(samples, chunks, pasts, generators, strict=True):
        inputs.append(chunk_inputs(parts, sample, chunk, past.video, past.latents, generator, true=past.true))
        caption = chunk.caption
        texts.append((caption if isinstance(caption, Tensor) else parts.encode_text(caption or "")).to(parts.device))
        images.append(parts.encode_image(past.video[:, chunk.number * parts.packing.chunk_frames]).to(parts.device))
    return Learnable(inputs, targets, torch.stack(texts), torch.stack(images))


def velocity_of(network: nn.Module, batch: Learnable, state: Tensor, timesteps: Tensor) -> Tensor:
    """Return the network's velocity (B, C, new, h, w) float32 of new latents in a state, under a batch's conditions."""
    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(inputs, name) for inputs in batch.inputs])

    latents = torch.cat([stacked("history"), state], 2)
    return network(latents, stacked("condition"), timesteps, batch.text, batch.image, stacked("plucker"), stacked("buffer")).float()


def noise_for(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return standard normal noise shaped like (B, ...), each sample's from its own generator."""
    return torch.stack([torch.randn(like.shape[1:], generator=g) for g in generators]).to(like)


def _memory_noise(latents: Tensor, cfg: HistoryCfg, generator: torch.Generator) -> Tensor:
    """Return noise for retrieved latents (C, n, h, w); each has its own level, whose logarithm is normal."""
    if cfg.memory_noise_std < 0:
        return torch.zeros_like(latents)
    levels = torch.exp(cfg.memory_noise_mean + cfg.memory_noise_std * torch.randn(latents.shape[1], generator=generator))
    return (torch.randn(latents.shape, generator=generator) * levels.view(1, -1, 1, 1)).to(latents)
