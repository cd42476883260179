"""Self-augmented history: the network learns the next chunk after one that it has spoilt itself (Lyra 2.0, arXiv 2604.13036).

Stage A noises the true latents of a chunk to a middle level, lets the network denoise them in one step and decodes the result.
Stage B learns the chunk after it, whose target stays clean, with those frames as history. So the network sees errors of its own
kind during training and learns to take them back instead of passing them on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lyra_core.generate.lyra2.packing import SUBFRAMES, Packing
from lyra_core.generate.lyra2.samplers import TRAIN_STEPS
from lyra_core.generate.lyra2.vae import State, VideoCodec
from lyra_core.training.flow import TrainSchedule, noised


@dataclass(frozen=True)
class Timeline:
    """Latents of a video's history, and where the encoder stands after it."""

    latents: Tensor
    """(C, n, h, w): the first latent, then the newest ones without a gap."""
    encoder: State
    whole: bool
    """Whether there is no gap behind the first latent either."""


def encode_timeline(codec: VideoCodec, packing: Packing, video: Tensor, *, newest: int) -> Timeline:
    """Encode the history (3, 1 + 4 k, H, W) of a chunk; in front of it the first frame is repeated until the packing is full.

    The encoder is causal and forgets, so of a long history only the end is run: what comes out is the same.

    Args:
        newest: latents wanted at the end.
    """
    front = SUBFRAMES * (packing.history_length - 1)
    count = packing.history_length + (video.shape[1] - 1) // SUBFRAMES
    begin = max(0, count - newest - codec.receptive_latents)
    frames = torch.arange(SUBFRAMES * begin, front + video.shape[1]) - front
    latents, state = codec.encode(video[:, frames.clamp(min=0)][None])
    if begin == 0:
        return Timeline(latents[0], state, True)
    first = codec.encode(video[:, :1][None])[0][0]
    return Timeline(torch.cat([first, latents[0, :, codec.receptive_latents :]], 1), state, False)


def spoiling_level(schedule: TrainSchedule, draw: Tensor, *, max_timestep: float) -> float:
    """Return the noise level of stage A for a draw (1,) in (0, 1): a training timestep scaled down and snapped to the schedule."""
    timestep = float(schedule.timesteps[schedule.index_of_draw(draw)][0])
    scaled = max(1.0, float(int(timestep * (max_timestep / TRAIN_STEPS))))
    return float(schedule.sigmas[schedule.nearest_index(scaled)])


def denoised_once(velocity: Callable[[Tensor, Tensor], Tensor], clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Return latents (B, C, T, h, w) noised to levels (B,) and brought back in one step.

    Args:
        velocity: (noisy latents, timesteps (B,)) -> velocity; the timesteps are whole numbers, as in sampling.
    """
    state = noised(clean, noise, sigmas)
    level = sigmas.to(clean).view(-1, 1, 1, 1, 1)
    return state - level * velocity(state, (sigmas.double() * TRAIN_STEPS).floor().float())


def decoded_end(codec: VideoCodec, latents: Tensor, *, frames: int) -> Tensor:
    """Decode the last frames of a timeline's latents (C, n, h, w); returns (3, frames, H, W), not clamped.

    The decoder is causal and forgets, so only the latents that reach these frames are run.
    """
    reach = -(-frames // SUBFRAMES) + codec.receptive_latents
    video, _ = codec.decode(latents[None, :, max(0, latents.shape[1] - reach) :])
    return video[0, :, -frames:]


def written_back(video: Tensor, decoded: Tensor, *, end: int) -> Tensor:
    """Return a video (3, F, H, W) whose frames in front of number ``end`` are replaced by decoded ones, clamped to [-1, 1]."""
    count = min(end, decoded.shape[1])
    return torch.cat([video[:, : end - count], decoded[:, decoded.shape[1] - count :].clamp(-1, 1).to(video), video[:, end:]], 1)
