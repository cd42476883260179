"""A codec that works on overlapping tiles, so that its features of one tile are all that is in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.vae import State, VideoCodec


@dataclass(frozen=True)
class CodecTiled:
    """Any codec, tile by tile. The causal state of every tile is kept, so chunks stream as they do without tiles.

    Away from the overlaps, and as far as the codec's convolutions reach into a tile, results are those of the plain codec; inside
    an overlap the two tiles are blended linearly. Wan's attention in the middle of the codec sees one tile instead of the picture, so
    with it tiles differ slightly everywhere.
    """

    codec: VideoCodec
    tile: int = 32
    """Side of a tile [latent pixels]."""
    overlap: int = 8
    """Of neighbouring tiles [latent pixels]."""

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(f"CodecTiled: got tile {self.tile} and overlap {self.overlap}, expected 0 <= overlap < tile")

    @property
    def channels(self) -> int:
        """Latent channels."""
        return self.codec.channels

    @property
    def receptive_latents(self) -> int:
        """As of the codec."""
        return self.codec.receptive_latents

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode the next frames (B, 3, F, H, W)."""
        h, w = video.shape[3] // 8, video.shape[4] // 8
        return self._run(video, state, h, w, scale=8, out_scale=1, decode=False)

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next latents (B, C, T, h, w)."""
        return self._run(latents, state, *latents.shape[3:], scale=1, out_scale=8, decode=True)

    def _run(
        self, x: Tensor, state: State | None, h: int, w: int, *, scale: int, out_scale: int, decode: bool
    ) -> tuple[Tensor, State]:
        total = weights = None
        states = []
        for number, (top, left) in enumerate((t, s) for t in self._starts(h) for s in self._starts(w)):
            bottom, right = min(top + self.tile, h), min(left + self.tile, w)
            part = x[..., top * scale : bottom * scale, left * scale : right * scale]
            before = None if state is None else state[number]
            made, after = self.codec.decode(part, before) if decode else self.codec.encode(part, before)
            states.append(after)
            ramp = self._ramp(top, bottom, h, out_scale)[:, None] * self._ramp(left, right, w, out_scale)[None]
            ramp = ramp.to(made)
            if total is None or weights is None:
                size = (h * out_scale, w * out_scale)
                total, weights = made.new_zeros(*made.shape[:3], *size), made.new_zeros(size)
            window = (slice(top * out_scale, bottom * out_scale), slice(left * out_scale, right * out_scale))
            total[..., window[0], window[1]] += made * ramp
            weights[window] += ramp
        assert total is not None and weights is not None
        return total / weights, tuple(states)

    def _starts(self, size: int) -> list[int]:
        step = self.tile - self.overlap
        return [0] if size <= self.tile else [*range(0, size - self.tile, step), size - self.tile]

    def _ramp(self, start: int, stop: int, size: int, scale: int) -> Tensor:
        """Return weights that rise over the overlap at inner borders."""
        n = (stop - start) * scale
        width = max(1, self.overlap * scale)
        position = torch.arange(n) + 0.5
        rise = torch.ones(n) if start == 0 else (position / width).clamp(max=1)
        fall = torch.ones(n) if stop == size else ((n - position) / width).clamp(max=1)
        return torch.minimum(rise, fall)
