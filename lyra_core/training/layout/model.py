"""A small U-Net (Ronneberger, Fischer and Brox 2015) that reads a layout from a photo and its camera.

Every pixel gets a class and its depth over the camera's height, with the latter's uncertainty (Laplace; Kendall and Gal 2017).
The camera comes in as channels, so that the network need not guess it: a floor pixel's depth then stands in its input.
``lyra_core.photo.prior`` runs the same network without torch.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = ("floor", "wall", "ceiling", "obstacle", "sky")
INPUTS = 5
"""RGB, and of the ray with z = 1 in camera axes: how far it sinks and how far it runs to the right, in gravity's frame."""
OUTPUTS = len(CLASSES) + 2
"""Class logits; ln(depth / camera height) and ln of its error."""
WIDTHS = (24, 48, 96, 160)
GROUPS = 8


class Block(nn.Module):
    """Two 3 x 3 convolutions with group normalisation and a short cut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.GroupNorm(GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.short(x))


class LayoutNet(nn.Module):
    """From (B, INPUTS, H, W) to (B, OUTPUTS, H / 2, W / 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(INPUTS, WIDTHS[0], 5, stride=2, padding=2)
        self.down = nn.ModuleList([Block(WIDTHS[0], WIDTHS[0])])
        self.down.extend(Block(a, b, stride=2) for a, b in pairwise(WIDTHS))
        self.deep = Block(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(Block(a + b, a) for a, b in zip(WIDTHS[-2::-1], WIDTHS[:0:-1], strict=True))
        self.head = nn.Conv2d(WIDTHS[0], OUTPUTS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, OUTPUTS, ceil(H / 2), ceil(W / 2))."""
        y = F.relu(self.stem(x))
        seen = []
        for block in self.down:
            y = block(y)
            seen.append(y)
        y = self.deep(seen.pop())
        for block in self.up:
            other = seen.pop()
            y = F.interpolate(y, size=other.shape[-2:], mode="bilinear", align_corners=False)
            y = block(torch.cat([other, y], 1))
        return self.head(y)


def layout_loss(out: Tensor, labels: Tensor, log_depth: Tensor) -> dict[str, Tensor]:
    """Return the losses of outputs (B, OUTPUTS, h, w): cross entropy and the Laplace likelihood of depth, but for a constant.

    Args:
        labels: (B, h, w) int64 index into CLASSES, -1 = unknown.
        log_depth: (B, h, w) ln(depth / camera height), NaN = unknown.
    """
    known = torch.isfinite(log_depth)
    spread = out[:, -1].clamp(-4, 2)
    error = (out[:, -2] - torch.where(known, log_depth, 0)).abs() * torch.exp(-spread) + spread
    return {"classes": F.cross_entropy(out[:, : len(CLASSES)], labels, ignore_index=-1),
            "depth": (error * known).sum() / known.sum().clamp(min=1)}
