"""Codecs that need less memory on the card: tile by tile, and with states that wait in main memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.vae import State, VideoCodec

FOLD = 8
"""Pixels that a latent spans along a side."""
OVERLAP = 8
"""Of neighbouring tiles [latent pixels]."""


class CodecTiled:
    """Any codec, tile by tile. The causal state of every tile is kept, so chunks stream as they do without tiles.

    Inside an overlap the tiles are blended linearly. Beyond the reach of the codec's convolutions from a seam, results are those
    of the plain codec; Wan's attention in the middle sees one tile instead of the picture, so with it tiles differ everywhere.
    """

    def __init__(self, codec: VideoCodec, *, tile: int = 32, overlap: int = OVERLAP) -> None:
        """Wrap a codec.

        Args:
            tile: largest side of a tile [latent pixels].
            overlap: of neighbouring tiles [latent pixels].

        Raises:
            ConfigError: a tile that would be all overlap.
        """
        # However the tiles are dealt out, each must have a part of its own.
        if not 0 <= 3 * overlap <= tile:
            raise ConfigError(f"CodecTiled: got tile {tile} and overlap {overlap}, expected an overlap of at most a third")
        self.codec, self.tile, self.overlap = codec, tile, overlap
        self.channels, self.receptive_latents = codec.channels, codec.receptive_latents

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode the next frames (B, 3, F, H, W)."""
        return self._run(video, state, video.shape[3] // FOLD, video.shape[4] // FOLD, decode=False)

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next latents (B, C, T, h, w)."""
        return self._run(latents, state, *latents.shape[3:], decode=True)

    def _run(self, x: Tensor, state: State | None, h: int, w: int, *, decode: bool) -> tuple[Tensor, State]:
        given, made = (1, FOLD) if decode else (FOLD, 1)
        rows, columns = tile_sides(h, self.tile, self.overlap), tile_sides(w, self.tile, self.overlap)
        call = self.codec.decode if decode else self.codec.encode
        out: list[Tensor] = []
        states = []
        for top, bottom in rows:
            for left, right in columns:
                part = x[..., top * given : bottom * given, left * given : right * given]
                values, after = call(part, None if state is None else state[len(states)])
                states.append(after)
                if not out:
                    out.append(values.new_zeros(*values.shape[:3], h * made, w * made))
                ramp = blend(rows, (top, bottom), made)[:, None] * blend(columns, (left, right), made)
                out[0][..., top * made : bottom * made, left * made : right * made] += values * ramp.to(values)
        return out[0], tuple(states)


class CodecParked:
    """Any codec, whose states wait in main memory between calls."""

    def __init__(self, codec: VideoCodec) -> None:
        self.codec = codec
        self.channels, self.receptive_latents = codec.channels, codec.receptive_latents

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode the next frames (B, 3, F, H, W)."""
        latents, after = self.codec.encode(video, moved(state, getattr(self.codec, "device", video.device)))
        return latents, moved(after, torch.device("cpu"))

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next latents (B, C, T, h, w)."""
        video, after = self.codec.decode(latents, moved(state, getattr(self.codec, "device", latents.device)))
        return video, moved(after, torch.device("cpu"))


def moved(state: Any, device: torch.device) -> Any:
    """Return a codec's state with its tensors on a device."""
    if isinstance(state, tuple):
        return tuple(moved(part, device) for part in state)
    return state.to(device) if isinstance(state, Tensor) else state


def tile_sides(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Return begin and end of tiles along a side: as few as cover it, as equal as can be, each pair overlapping by ``overlap``."""
    if size <= tile:
        return [(0, size)]
    count = math.ceil((size - overlap) / (tile - overlap))
    # What the tiles add up to, overlaps counted twice, dealt out evenly.
    total = size + (count - 1) * overlap
    ends = [math.ceil(total * (i + 1) / count) - i * overlap for i in range(count)]
    return list(zip([0, *(end - overlap for end in ends[:-1])], ends, strict=True))


def blend(sides: list[tuple[int, int]], side: tuple[int, int], scale: int) -> Tensor:
    """Return a tile's weights (n,) along one side: rising and falling over overlaps, with the neighbour's adding up to one."""
    begin, end = side[0] * scale, side[1] * scale
    i = sides.index(side)
    weights = torch.ones(end - begin)
    if i > 0 and (width := sides[i - 1][1] * scale - begin):
        weights[:width] = (torch.arange(width) + 0.5) / width
    if i + 1 < len(sides) and (width := end - sides[i + 1][0] * scale):
        weights[-width:] = 1 - (torch.arange(width) + 0.5) / width
    return weights
