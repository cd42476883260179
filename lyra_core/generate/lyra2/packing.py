"""FramePack history: which latents a chunk sees, how coarsely, and how they become tokens.

The packing string of Lyra 2.0 is ``f1k1f4s2f1s1f16k4f2k2f1k1_g20``: segments of ``f`` latents, each patchified with a kernel that
is ``k`` times larger in time, height and width, or ``s`` times larger in height and width only (frames retrieved from the spatial
memory, which have no common time axis), then ``g`` new latents. Source: Lyra 2.0; Zhang & Agrawala 2025, FramePack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.errors import ConfigError

PUBLISHED_PACKING = "f1k1f4s2f1s1f16k4f2k2f1k1_g20"
PATCH = 2
"""Height and width of a patch [latent pixels]; its time extent is 1."""
SUBFRAMES = 4
"""Video frames per latent."""


@dataclass(frozen=True)
class Segment:
    """Consecutive latents of the packed list that share one patch kernel."""

    start: int
    """Position of the first latent in the packed list."""
    length: int
    """Latents."""
    kernel: tuple[int, int, int]
    """Tokens of the plain grid (time, height, width) that one token of this segment covers."""
    kind: str
    """'time': the newest history, in ascending time order; 'space': retrieved frames; 'new': to be generated."""

    @property
    def slice(self) -> slice:
        """Where its latents stand in the packed list."""
        return slice(self.start, self.start + self.length)


@dataclass(frozen=True)
class Packing:
    """A parsed packing string. Time segments after the first hold the last latents of the history."""

    text: str
    segments: tuple[Segment, ...]

    @staticmethod
    def parse(text: str) -> Packing:
        """Parse a packing string.

        Raises:
            ConfigError: not of the form (fNkM | fNsM)* [_] gN.
        """
        match = re.fullmatch(r"((?:f\d+[ks]\d+)*)_?g(\d+)", text)
        if match is None:
            raise ConfigError(f"packing: got {text!r}, expected segments fNkM or fNsM and then _gN, as in {PUBLISHED_PACKING}")
        segments: list[Segment] = []
        start = 0
        for length, kind, size in re.findall(r"f(\d+)([ks])(\d+)", match[1]):
            kernel = (int(size), int(size), int(size)) if kind == "k" else (1, int(size), int(size))
            segments.append(Segment(start, int(length), kernel, "time" if kind == "k" else "space"))
            start += int(length)
        segments.append(Segment(start, int(match[2]), (1, 1, 1), "new"))
        if any(s.length < 1 or min(s.kernel) < 1 for s in segments):
            raise ConfigError(f"packing: got {text!r}, expected every number to be at least 1")
        return Packing(text, tuple(segments))

    @property
    def history(self) -> tuple[Segment, ...]:
        """All segments but the new one."""
        return self.segments[:-1]

    @property
    def history_length(self) -> int:
        """Clean latents in front of the new ones."""
        return self.segments[-1].start

    @property
    def new_length(self) -> int:
        """Latents generated per chunk."""
        return self.segments[-1].length

    @property
    def chunk_frames(self) -> int:
        """Video frames generated per chunk."""
        return SUBFRAMES * self.new_length

    @property
    def spatial_slots(self) -> int:
        """Retrieved frames that fit."""
        return sum(s.length for s in self.history if s.kind == "space")

    @cached_property
    def spatial_positions(self) -> list[int]:
        """Positions of the retrieved frames in the packed list, ascending; the best frame goes to the last one."""
        return [i for s in self.history if s.kind == "space" for i in range(s.start, s.start + s.length)]

    @cached_property
    def temporal_positions(self) -> list[int]:
        """Positions of the history in time: first the video's first latent, then the newest ones in ascending order."""
        return [i for s in self.history if s.kind == "time" for i in range(s.start, s.start + s.length)]


def pad_to(x: Tensor, multiple: tuple[int, int, int]) -> Tensor:
    """Replicate the end of (B, C, t, h, w) until each axis is a multiple."""
    extra = [(-size) % unit for size, unit in zip(x.shape[2:], multiple, strict=True)]
    if not any(extra):
        return x
    return F.pad(x, (0, extra[2], 0, extra[1], 0, extra[0]), mode="replicate")


def fold(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Turn (B, C, t, h, w) into tokens (B, n, C * patch) in the order (t, h, w), channels in the order (c, pt, ph, pw)."""
    batch, channels, t, h, w = x.shape
    pt, ph, pw = patch
    x = x.reshape(batch, channels, t // pt, pt, h // ph, ph, w // pw, pw)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, channels * pt * ph * pw)


def unfold(tokens: Tensor, size: tuple[int, int, int], channels: int) -> Tensor:
    """Turn head outputs (B, n, PATCH * PATCH * channels), order (ph, pw, c), into (B, channels, t, h, w) of the given size."""
    t, h, w = size
    x = tokens.reshape(tokens.shape[0], t, h // PATCH, w // PATCH, PATCH, PATCH, channels)
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(tokens.shape[0], channels, t, h, w)


def patch_of(segment: Segment) -> tuple[int, int, int]:
    """Return the patch (time, height, width) of a segment in latent pixels."""
    kt, kh, kw = segment.kernel
    return kt, kh * PATCH, kw * PATCH


def segment_tokens(x: Tensor, segment: Segment) -> Tensor:
    """Fold the segment's latents of (B, C, T, h, w) into tokens (B, n, C * patch), ends replicated to whole patches."""
    patch = patch_of(segment)
    return fold(pad_to(x[:, :, segment.slice], patch), patch)


def pooled(grid: Tensor, segment: Segment) -> Tensor:
    """Average a token grid (B, C, t, h, w) of one segment over its kernel; returns (B, n, C)."""
    if segment.kernel != (1, 1, 1):
        grid = F.avg_pool3d(pad_to(grid, segment.kernel), segment.kernel)
    return grid.flatten(2).transpose(1, 2)


def rope_angles(packing: Packing, h: int, w: int, head_dim: int, *, theta: float = 1e4) -> Tensor:
    """Return rotary angles (tokens, head_dim / 2) float32 for latents of height h and width w.

    Wan's three axes share the head: height and width take ``head_dim // 6`` pairs each, time the rest; time counts positions of
    the packed list. A coarse token has the mean angle of the plain tokens it covers.
    """
    side = head_dim // 6
    steps = []
    for count, pairs in ((packing.segments[-1].slice.stop, head_dim // 2 - 2 * side), (h // PATCH, side), (w // PATCH, side)):
        frequencies = theta ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        steps.append(torch.outer(torch.arange(count, dtype=torch.float64), frequencies))
    times, rows, columns = steps
    out = []
    for segment in packing.segments:
        size = (segment.length, h // PATCH, w // PATCH)
        axes = (times[segment.slice].view(segment.length, 1, 1, -1), rows.view(1, size[1], 1, -1), columns.view(1, 1, size[2], -1))
        grid = torch.cat([axis.expand(*size, -1) for axis in axes], -1)
        out.append(pooled(grid.permute(3, 0, 1, 2)[None], segment)[0])
    return torch.cat(out).float()


def camera_tokens(plucker: Tensor, packing: Packing) -> Tensor:
    """Return ray channels (B, C, T, h, w) as tokens (B, n, 4 C), channel order (c, h2, w2), pooled like the angles."""
    out = []
    for segment in packing.segments:
        part = plucker[:, :, segment.slice]
        tokens = fold(part, (1, PATCH, PATCH))
        grid = tokens.transpose(1, 2).unflatten(2, (segment.length, part.shape[3] // PATCH, part.shape[4] // PATCH))
        out.append(pooled(grid, segment))
    return torch.cat(out, 1)


def correspondence_tokens(buffer: Tensor, packing: Packing) -> tuple[Tensor, Tensor]:
    """Return correspondence channels (B, C, T, h, w) as tokens (B, n, 4 C) and their validity (n, 1).

    Only retrieved and new latents have correspondences; tokens of the history in time are -1 with validity 0. Here, unlike the
    latents, coarse segments are averaged before their ends are replicated.
    """
    out, validity = [], []
    for segment in packing.segments:
        _, kh, kw = segment.kernel
        part = buffer[:, :, segment.slice]
        if segment.kind == "time":
            count = segment_size(segment, part.shape[3], part.shape[4])
            tokens = part.new_full((part.shape[0], count, part.shape[1] * PATCH * PATCH), -1.0)
        else:
            if (kh, kw) != (1, 1):
                part = F.avg_pool3d(part, (1, kh, kw))
            tokens = fold(pad_to(part, (1, PATCH, PATCH)), (1, PATCH, PATCH))
        out.append(tokens)
        validity.append(tokens.new_full((tokens.shape[1], 1), float(segment.kind != "time")))
    return torch.cat(out, 1), torch.cat(validity)


def segment_size(segment: Segment, h: int, w: int) -> int:
    """Return the number of tokens of a segment for latents of height h and width w."""
    pt, ph, pw = patch_of(segment)
    return -(-segment.length // pt) * -(-h // ph) * -(-w // pw)
