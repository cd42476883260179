"""The dense heads of Depth Anything 3: a DPT pyramid (Ranftl et al. 2021) that ends in depth or in Gaussian parameters.

Module names are those of the published checkpoints, so that their tensors load by name.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lyra_core.splats._torch_backbone import PATCH, DA3Size

NARROW = 32
"""Channels before the last layer."""
GAUSSIAN_CHANNELS = 38
"""Offsets 2, scales 3, rotation 4, spherical harmonics 3 x 9, depth offset 1, opacity 1."""
PLACE_BASE, PLACE_WEIGHT = 100.0, 0.1
"""Base of the sine codes of a pixel's place, and their weight among the features."""


class Pyramid(nn.Module):
    """Four levels of features, each resized to its scale, fused from coarse to fine."""

    def __init__(self, size: DA3Size, outputs: int, norm: nn.Module) -> None:
        super().__init__()
        wide, narrow, features = size.channels, NARROW, size.features
        self.norm = norm
        self.projects = nn.ModuleList(nn.Conv2d(2 * size.dim, channels, 1) for channels in wide)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(wide[0], wide[0], 4, 4),
                nn.ConvTranspose2d(wide[1], wide[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(wide[3], wide[3], 3, 2, 1),
            ]
        )
        self.scratch = nn.Module()
        for level, channels in enumerate(wide, 1):
            setattr(self.scratch, f"layer{level}_rn", nn.Conv2d(channels, features, 3, 1, 1, bias=False))
            setattr(self.scratch, f"refinenet{level}", Fusion(features, lateral=level < len(wide)))
        self.scratch.output_conv1 = nn.Conv2d(features, features // 2, 3, 1, 1)
        self.scratch.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, narrow, 3, 1, 1), nn.ReLU(), nn.Conv2d(narrow, outputs, 1)
        )

    def fused(self, levels: Sequence[Tensor], rows: int, columns: int) -> Tensor:
        """Return (V, features / 2, ~8 rows, ~8 columns) of four levels (V, rows columns, 2 dim)."""
        scaled = []
        for i, level in enumerate(levels):
            x = self.norm(level).transpose(1, 2).unflatten(2, (rows, columns))
            x = self.resize_layers[i](with_places(self.projects[i](x), rows, columns))
            scaled.append(getattr(self.scratch, f"layer{i + 1}_rn")(x))
        x = self.scratch.refinenet4(None, scaled[3], scaled[2].shape[2:])
        for level, (lateral, finer) in zip((3, 2), pairwise((scaled[2], scaled[1], scaled[0])), strict=True):
            x = getattr(self.scratch, f"refinenet{level}")(x, lateral, finer.shape[2:])
        x = self.scratch.refinenet1(x, scaled[0], [2 * n for n in scaled[0].shape[2:]])
        return self.scratch.output_conv1(x)


class Fusion(nn.Module):
    """Add a lateral level to the coarser ones, refine, resample."""

    def __init__(self, features: int, *, lateral: bool) -> None:
        super().__init__()
        if lateral:
            self.resConfUnit1 = Residual(features)
        self.resConfUnit2 = Residual(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, coarse: Tensor | None, level: Tensor, shape: Sequence[int]) -> Tensor:
        x = level if coarse is None else coarse + self.resConfUnit1(level)
        return self.out_conv(resampled(self.resConfUnit2(x), shape))


class Residual(nn.Module):
    """Two 3x3 convolutions before which the sign is cut."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, 1, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(F.relu(x)))) + x


class DepthHead(Pyramid):
    """Relative z-depth of each pixel. The published head also predicts rays, which known cameras make superfluous."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__(size, 2, nn.LayerNorm(2 * size.dim))

    def forward(self, levels: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """Return (V, H, W) positive depth in the network's unit, for pictures of this shape (H, W)."""
        rows, columns = shape[0] // PATCH, shape[1] // PATCH
        x = resampled(self.fused(levels, rows, columns), shape)
        return self.scratch.output_conv2(with_places(x, rows, columns))[:, 0].exp()


class GaussianHead(Pyramid):
    """Parameters of one Gaussian per output pixel, before decoding."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__(size, GAUSSIAN_CHANNELS, nn.Identity())
        wide = size.features // 2
        self.images_merger = nn.Sequential(
            nn.Conv2d(3, wide // 4, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(wide // 4, wide // 2, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(wide // 2, wide, 3, 1, 1),
            nn.GELU(),
        )

    def forward(self, levels: Sequence[Tensor], images: Tensor, downsample: int) -> Tensor:
        """Return (V, 38, H // downsample, W // downsample).

        Picture features are computed at full size and then averaged (the published "ds feature mode"): averaging the
        picture first would lose the edges that they look for.
        """
        rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        shape = output_shape(images.shape[-2:], downsample)
        x = resampled(self.fused(levels, rows, columns), shape)
        pictures = self.images_merger(images)
        x = x + (pictures if downsample == 1 else F.adaptive_avg_pool2d(pictures, list(shape)))
        return self.scratch.output_conv2(with_places(x, rows, columns))


def output_shape(shape: Sequence[int], downsample: int) -> tuple[int, int]:
    """Return rows and columns of Gaussians for a picture of this shape (H, W)."""
    return int(shape[0] / downsample), int(shape[1] / downsample)


def resampled(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Bilinear resampling with the corners' centres on each other, as the weights expect."""
    return F.interpolate(x, size=tuple(shape), mode="bilinear", align_corners=True)


def with_places(x: Tensor, rows: int, columns: int) -> Tensor:
    """Add sine codes of each pixel's place to features (V, C, h, w); the picture has rows x columns patches."""
    channels, h, w = x.shape[1:]
    diagonal = (rows**2 + columns**2) ** 0.5
    v, u = (
        torch.linspace(-(n - 1) / n, (n - 1) / n, n, device=x.device) * side / diagonal
        for n, side in ((h, rows), (w, columns))
    )
    frequency = PLACE_BASE ** -(torch.arange(channels // 4, device=x.device).float() / (channels // 4))
    code_u, code_v = (torch.cat([(p[:, None] * frequency).sin(), (p[:, None] * frequency).cos()], 1) for p in (u, v))
    code = torch.cat([code_u.T[:, None].expand(-1, h, -1), code_v.T[:, :, None].expand(-1, -1, w)])
    return x + PLACE_WEIGHT * code.to(x.dtype)
