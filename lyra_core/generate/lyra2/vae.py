"""Video codecs that stream: encoder and decoder keep their causal state from chunk to chunk.

A state is a value: every call takes one and returns a new one, so that a chunk can be made again from the state before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, WanCausalConv3d
from torch import Tensor

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.packing import SUBFRAMES

State = tuple[Any, ...]
"""Causal features of a stream; opaque to callers."""


class VideoCodec(Protocol):
    """Pixels (B, 3, F, H, W) in [-1, 1] to normalised latents (B, C, T, H / 8, W / 8) and back, four frames per latent."""

    @property
    def channels(self) -> int:
        """C."""
        ...

    @property
    def receptive_latents(self) -> int:
        """Latents after which nothing of what came before is left in either state."""
        ...

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode the next frames: 1 + 4 k at the start of a stream (state None), else 4 k."""
        ...

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next latents: 4 frames each, but 1 for the first latent of a stream. Not clamped."""
        ...


class CodecWan:
    """Wan 2.1's VAE (AutoencoderKLWan) as a stream. Streaming and one-shot results agree bit for bit."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.vae = vae
        self.channels = int(vae.config.z_dim)
        self.receptive_latents = 40
        """The decoder's 36 latents (two convolutions of three steps per residual block, over three time scales), rounded up."""
        parts = {"encoder": vae.encoder, "decoder": vae.decoder}
        self._counts = {name: sum(isinstance(m, WanCausalConv3d) for m in part.modules()) for name, part in parts.items()}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.vae.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.vae.parameters()).dtype

    def _statistics(self) -> tuple[Tensor, Tensor]:
        values = torch.tensor([self.vae.config.latents_mean, self.vae.config.latents_std], dtype=torch.float32, device=self.device)
        return values[0].view(1, -1, 1, 1, 1), values[1].view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return normalised mean latents (B, C, T, h, w) float32 and the next state.

        Raises:
            InputError: a frame count that is not 1 + 4 k at the start, or 4 k later.
        """
        windows = frame_windows(video.shape[2], start=state is None)
        features = list(state) if state is not None else [None] * self._counts["encoder"]
        video, out = video.to(self.device, self.dtype), []
        for begin, end in windows:
            out.append(self.vae.quant_conv(self.vae.encoder(video[:, :, begin:end], feat_cache=features, feat_idx=[0])))
        mean, std = self._statistics()
        return (torch.cat(out, 2)[:, : self.channels].float() - mean) / std, tuple(features)

    @torch.no_grad()
    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return frames (B, 3, F, H, W) float32, not clamped, and the next state."""
        features = list(state) if state is not None else [None] * self._counts["decoder"]
        mean, std = self._statistics()
        z = self.vae.post_quant_conv((latents.to(self.device).float() * std + mean).to(self.dtype))
        out = []
        for i in range(z.shape[2]):
            start = state is None and i == 0
            out.append(self.vae.decoder(z[:, :, i : i + 1], feat_cache=features, feat_idx=[0], first_chunk=start))
        return torch.cat(out, 2).float(), tuple(features)


@dataclass(frozen=True)
class CodecPatch:
    """A fixed codec without weights: the lowest frequencies of the orthonormal cosine transform of 4 x 8 x 8 pixels.

    With 768 channels it is invertible; with fewer it is a low pass. It stands in for the VAE where no weights exist (training from
    nothing, tests). The first latent of a stream repeats its one frame. There is no state but the knowledge of having begun.
    """

    channels: int = 768
    gain: float = 0.25
    """Scale of the coefficients, so that latents have about unit variance."""
    receptive_latents: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 768:
            raise InputError(f"CodecPatch.channels: got {self.channels}, expected 1..768")

    def _basis(self, like: Tensor) -> Tensor:
        """Return (channels, 768) orthonormal rows, lowest frequencies first, on the device of ``like``."""
        t, y = cosine_basis(SUBFRAMES), cosine_basis(8)
        basis = torch.einsum("at,by,cx->abctyx", t, y, y).reshape(-1, SUBFRAMES * 64)
        order = torch.tensor(sorted(range(256), key=lambda i: (i // 64 / 2 + i // 8 % 8 + i % 8, i)))
        colour = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
        colour = colour / colour.norm(dim=1, keepdim=True)
        rows = torch.einsum("kp,cd->kcdp", basis[order], colour).reshape(768, 768)
        return rows[: self.channels].to(like)

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return latents (B, channels, T, h, w) of frames (B, 3, F, H, W) and the state."""
        frame_windows(video.shape[2], start=state is None)
        if state is None:
            video = torch.cat([video[:, :, :1].expand(-1, -1, SUBFRAMES - 1, -1, -1), video], 2)
        b, _, f, height, width = video.shape
        blocks = video.float().reshape(b, 3, f // SUBFRAMES, SUBFRAMES, height // 8, 8, width // 8, 8)
        blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return (blocks @ self._basis(blocks).T * self.gain).permute(0, 4, 1, 2, 3).contiguous(), ("begun",)

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return frames (B, 3, F, H, W) and the state."""
        b, _, t, h, w = latents.shape
        values = latents.float().permute(0, 2, 3, 4, 1) / self.gain
        blocks = (values @ self._basis(values)).reshape(b, t, h, w, 3, SUBFRAMES, 8, 8)
        video = blocks.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, 3, t * SUBFRAMES, h * 8, w * 8)
        return (video if state is not None else video[:, :, SUBFRAMES - 1 :]), ("begun",)


def cosine_basis(n: int) -> Tensor:
    """Return the orthonormal DCT-II matrix (n, n): rows are frequencies."""
    k, i = torch.arange(n).view(-1, 1), torch.arange(n).view(1, -1)
    basis = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


def frame_windows(frames: int, *, start: bool) -> list[tuple[int, int]]:
    """Return the encoder's steps as (begin, end): one frame first at the start of a stream, else four at a time.

    Raises:
        InputError: frames that do not fill the last step; the causal downsampling cannot take them.
    """
    first = 1 if start else 0
    if frames < 1 or (frames - first) % SUBFRAMES:
        raise InputError(f"video: got {frames} frames, expected {f'1 + {SUBFRAMES} k' if start else f'a multiple of {SUBFRAMES}'}")
    steps = [(i, i + SUBFRAMES) for i in range(first, frames, SUBFRAMES)]
    return [(0, 1), *steps] if start else steps


def encode_stills(codec: VideoCodec, pictures: Tensor) -> Tensor:
    """Encode pictures (N, 3, H, W), each as a video of one frame; returns (C, N, h, w)."""
    latents = [codec.encode(picture[None, :, None])[0][0] for picture in pictures]
    return torch.cat(latents, 1)
