"""The image features of Depth Anything 3 (Lin et al. 2025): a DINOv2 transformer whose later blocks look at all views in turn.

Module names are those of the published checkpoints, so that their tensors load by name.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH = 14
"""Side of a patch [px]; pictures have multiples of it."""
ROPE_BASE = 100.0


@dataclass(frozen=True)
class DA3Size:
    """Sizes of the network; the defaults are the main branch of the published nested giant-large model."""

    dim: int = 1536
    depth: int = 40
    heads: int = 24
    camera_heads: int = 16
    out_layers: tuple[int, ...] = (19, 27, 33, 39)
    """Blocks whose outputs are the features."""
    alternate_from: int = 13
    """From this block on, odd blocks look at all views together; here the camera token enters and positions rotate."""
    gated: bool = True
    """SwiGLU instead of GELU in the feed-forward layers."""
    position_grid: int = 37
    """Learned positions cover grid x grid patches; others are interpolated."""
    features: int = 256
    """Channels of the fusion pyramid of both heads."""
    channels: tuple[int, ...] = (256, 512, 1024, 1024)
    """Channels of its four levels before fusion."""


class Backbone(nn.Module):
    """Features of all views at once."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__()
        self.pretrained = Transformer(size)

    def forward(self, images: Tensor, camera_tokens: Tensor) -> list[Tensor]:
        """Return one (V, patches, 2 dim) tensor per output layer.

        Args:
            images: (V, 3, H, W), normalised as for ImageNet; H and W are multiples of 14.
            camera_tokens: (V, dim) of the camera encoder; the first view is the reference.
        """
        return self.pretrained(images, camera_tokens)


class Transformer(nn.Module):
    """Patches and one token per view through all blocks: first each view alone, then in turn alone and all together."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__()
        self.size = size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.camera_token = nn.Parameter(torch.zeros(1, 2, size.dim))  # stands in for unknown cameras; ours are known
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.position_grid**2, size.dim))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, size.dim, PATCH, PATCH)
        self.blocks = nn.ModuleList(
            Block(size.dim, size.heads, gated=size.gated, qk_norm=i >= size.alternate_from, eps=1e-6) for i in range(size.depth)
        )
        self.norm = nn.LayerNorm(size.dim)

    def forward(self, images: Tensor, camera_tokens: Tensor) -> list[Tensor]:
        rows, columns = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self._positions(rows, columns)
        alone, together = self._rotations(rows, columns, len(x))
        views, tokens, dim = x.shape
        last_alone, out = x, []
        for i, block in enumerate(self.blocks):
            alternates = i >= self.size.alternate_from
            if i == self.size.alternate_from:
                x = torch.cat([camera_tokens[:, None].to(x.dtype), x[:, 1:]], 1)
            if alternates and i % 2:
                x = block(x.reshape(1, views * tokens, dim), together).reshape(views, tokens, dim)
            else:
                x = last_alone = block(x, alone if alternates else None)
            if i in self.size.out_layers:
                out.append(torch.cat([last_alone, self.norm(x)], -1)[:, 1:])
        return out

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Learned positions (1, 1 + rows columns, dim), resampled to another grid.

        DINOv2 interpolates by a factor with 0.1 patches added, which shifts the samples a little; weights expect that.
        """
        grid = self.size.position_grid
        if rows == columns == grid:
            return self.pos_embed
        learned = self.pos_embed.float()
        square = learned[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factor = ((rows + 0.1) / grid, (columns + 0.1) / grid)
        patches = F.interpolate(square, scale_factor=factor, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([learned[:, :1], patches], 1)

    def _rotations(self, rows: int, columns: int, views: int) -> tuple[Tensor, Tensor]:
        """Rotary tables for a view alone, and for all views together, where every patch has the same place."""
        device, head = self.pos_embed.device, self.size.dim // self.size.heads
        y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
        patches = torch.stack([y, x], -1).reshape(-1, 2) + 1
        token = torch.zeros(1, 2, dtype=patches.dtype, device=device)
        alone = rotary_table(torch.cat([token, patches]), head)
        together = rotary_table(torch.cat([token, torch.ones_like(patches)]), head)
        return alone, together.repeat(1, views, 1)


def rotary_table(places: Tensor, head: int) -> Tensor:
    """Return (2, N, head) cosines and sines for places (N, 2): half of the channels turn with rows, half with columns."""
    frequency = ROPE_BASE ** -(torch.arange(0, head // 2, 2, device=places.device).float() / (head // 2))
    angles = (places.float()[..., None] * frequency).repeat(1, 1, 2).flatten(1)
    return torch.stack([angles.cos(), angles.sin()])


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Turn queries or keys (B, heads, N, head) by a rotary table (2, N, head)."""
    row, column = x.chunk(2, -1)
    turned = torch.cat([part for half in (row, column) for part in (-half.chunk(2, -1)[1], half.chunk(2, -1)[0])], -1)
    return x * table[0].to(x.dtype) + turned * table[1].to(x.dtype)


class Block(nn.Module):
    """Pre-norm transformer block with scaled residuals (Touvron et al. 2021)."""

    def __init__(self, dim: int, heads: int, *, gated: bool, qk_norm: bool, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = SwiGLU(dim) if gated else MLP(dim, 4 * dim, dim)
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor, table: Tensor | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), table))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Multi-head self-attention; queries and keys may be normalised and turned."""

    def __init__(self, dim: int, heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, table: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if table is not None:
            q, k = rotated(q, table), rotated(k, table)
        out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(out.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class MLP(nn.Module):
    """Two layers with a GELU."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020) with two thirds of 4 dim, rounded up to a multiple of 8."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = (int(4 * dim * 2 / 3) + 7) // 8 * 8
        self.w12, self.w3 = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(F.silu(gate) * value)


class CameraEncoder(nn.Module):
    """One token per known camera."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(Block(size.dim, size.camera_heads, gated=False, qk_norm=False, eps=1e-5) for _ in range(4))
        )
        self.token_norm, self.trunk_norm = nn.LayerNorm(size.dim), nn.LayerNorm(size.dim)
        self.pose_branch = MLP(9, size.dim // 2, size.dim)

    def forward(self, T_first_camera: Tensor, K: Tensor, picture: Sequence[int]) -> Tensor:
        """Return (V, dim) tokens.

        Args:
            T_first_camera: (V, 4, 4), camera to the first view's frame, in the network's unit.
            K: (V, 3, 3) [px].
            picture: height and width [px].
        """
        height, width = picture
        angles = torch.stack([2 * torch.atan(height / 2 / K[:, 1, 1]), 2 * torch.atan(width / 2 / K[:, 0, 0])], 1)
        code = torch.cat([T_first_camera[:, :3, 3], quats_xyzw(T_first_camera[:, :3, :3]), angles], 1).float()
        return self.trunk_norm(self.trunk(self.token_norm(self.pose_branch(code))[None]))[0]


def quats_xyzw(R: Tensor) -> Tensor:
    """Return (N, 4) unit quaternions x, y, z, w of rotations (N, 3, 3), w >= 0 (Shepperd 1978)."""
    a, b, c = R[:, 0, 0], R[:, 1, 1], R[:, 2, 2]
    squares = torch.stack([1 + a - b - c, 1 - a + b - c, 1 - a - b + c, 1 + a + b + c], 1)
    yx, zx, zy = R[:, 1, 0] + R[:, 0, 1], R[:, 2, 0] + R[:, 0, 2], R[:, 2, 1] + R[:, 1, 2]
    xw, yw, zw = R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]
    rows = torch.stack(
        [
            torch.stack([squares[:, 0], yx, zx, xw], 1),
            torch.stack([yx, squares[:, 1], zy, yw], 1),
            torch.stack([zx, zy, squares[:, 2], zw], 1),
            torch.stack([xw, yw, zw, squares[:, 3]], 1),
        ],
        1,
    )
    best = squares.argmax(1)
    q = F.normalize(rows[torch.arange(len(R), device=R.device), best], dim=1)
    return torch.where(q[:, 3:] < 0, -q, q)
