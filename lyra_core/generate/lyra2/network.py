"""The Lyra 2.0 network: Wan 2.1 image-to-video blocks with a packed history, ray channels and correspondences.

It differs from diffusers' WanTransformer3DModel, whose modules it is made of, in three places: every history segment has its own
patch embedding, its rotary angles are averages, and each block adds a bias to what its queries and keys are made from (not to the
values), so that camera rays and warped coordinates decide where a token looks and never what it shows.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention, WanTimeTextImageEmbedding, WanTransformerBlock
from torch import Tensor, nn

from lyra_core.generate.lyra2.packing import (
    PATCH,
    PUBLISHED_PACKING,
    Packing,
    camera_tokens,
    correspondence_tokens,
    patch_of,
    rope_angles,
    segment_size,
    segment_tokens,
    unfold,
)

CAMERA_CHANNELS = 384
"""Ray channels per latent pixel: 6 x 8 x 8."""
SLOT_CHANNELS = 256
"""Correspondence channels per latent pixel and retrieved frame: 4 x 8 x 8."""
BUFFER_CHANNELS = 5 * SLOT_CHANNELS
"""The same of the published packing's five frames."""
OCTAVES = 2
"""Frequencies of the sine and cosine encoding of correspondences."""


@dataclass(frozen=True)
class Conditions:
    """What a chunk's cameras and warped coordinates say to every block; computed once per chunk."""

    camera: Tensor
    """(B, n, 1536) pooled ray channels per token."""
    correspondence: Tensor
    """(B, n, 20480) encoded correspondences, 0 where there are none."""
    squeezed: dict[int, Tensor] | None = field(default=None)
    """Block index -> (B, n, squeeze): the blocks' first projections, kept after the first step; None keeps nothing (training)."""
    parts: dict[tuple[int, int], Conditions] = field(default_factory=dict)
    """Of ranks that share the tokens; made by ``part``."""

    def part(self, tokens: slice) -> Conditions:
        """Return the conditions of some tokens; the same object each time, so that what it keeps is kept."""
        key = (tokens.start, tokens.stop)
        if key not in self.parts:
            keep = None if self.squeezed is None else {}
            self.parts[key] = Conditions(self.camera[:, tokens], self.correspondence[:, tokens], keep)
        return self.parts[key]


class SelfAttentionProcessor:
    """Self attention whose queries and keys see a bias that the values do not (WanAttention calls it)."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self, attn: WanAttention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None, rotary_emb: tuple[Tensor, Tensor] | None = None, bias: Tensor | None = None,
    ) -> Tensor:
        """Return (B, n, D). rotary_emb: cos and sin, each (1, n, 1, head_dim / 2) float32; bias: (B, n, D)."""
        routed = hidden_states if bias is None else hidden_states + bias
        query = attn.norm_q(attn.to_q(routed)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(routed)).unflatten(2, (attn.heads, -1))
        value = attn.to_v(hidden_states).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query, key = rotated(query, *rotary_emb), rotated(key, *rotary_emb)
        out = self.attend(query, key, value)
        return attn.to_out[1](attn.to_out[0](out.flatten(2, 3).type_as(query)))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax attention of (B, n, heads, head_dim) tensors."""
        return dispatch_attention_fn(query, key, value, backend=self._attention_backend, parallel_config=self._parallel_config)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate interleaved pairs of the last axis of (B, n, heads, head_dim) by angles (1, n, 1, head_dim / 2), in float32."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2).type_as(x)


class Lyra2Block(WanTransformerBlock):
    """A Wan block with encoders of camera rays and correspondences for its self attention."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, squeeze: int, *, slots: int, eps: float, index: int) -> None:
        super().__init__(dim, ffn_dim, heads, "rms_norm_across_heads", True, eps, dim)
        self.index = index
        self.attn1.set_processor(SelfAttentionProcessor())
        self.cam_encoder = nn.Linear(CAMERA_CHANNELS * PATCH * PATCH, dim, bias=False)
        encoded = SLOT_CHANNELS * slots * PATCH * PATCH * 2 * OCTAVES
        self.buffer_encoder = nn.Sequential(nn.Linear(encoded, squeeze, bias=False), nn.Linear(squeeze, dim, bias=False))

    def forward(
        self, hidden_states: Tensor, context: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor],
        conditions: Conditions | None = None,
    ) -> Tensor:
        """Return tokens (B, n, D).

        Args:
            hidden_states: (B, n, D) tokens.
            context: (B, 257 + 512, D) image tokens, then text tokens.
            modulation: (B, 6, D) projected time embedding.
            rotary: cos and sin, each (1, n, 1, head_dim / 2).
            conditions: of this chunk; None is the plain Wan block.
        """
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.scale_shift_table + modulation.float()).chunk(6, dim=1)
        z = (self.norm1(hidden_states.float()) * (1 + scale) + shift).type_as(hidden_states)
        bias = None if conditions is None else self.routing(conditions)
        attended = self.attn1(z, None, None, rotary, bias=bias)
        hidden_states = (hidden_states.float() + attended * gate).type_as(hidden_states)
        z = self.norm2(hidden_states.float()).type_as(hidden_states)
        hidden_states = hidden_states + self.attn2(z, context, None, None)
        z = (self.norm3(hidden_states.float()) * (1 + ffn_scale) + ffn_shift).type_as(hidden_states)
        return (hidden_states.float() + self.ffn(z).float() * ffn_gate).type_as(hidden_states)

    # Compiled, it would be traced anew for every block's number, and past torch's limit of eight blocks would run uncompiled.
    @torch.compiler.disable
    def routing(self, conditions: Conditions) -> Tensor:
        """Return the bias (B, n, D) of what queries and keys are made from."""
        return self.cam_encoder(conditions.camera) + self.buffer_encoder[1](self._squeezed(conditions))

    def _squeezed(self, conditions: Conditions) -> Tensor:
        """Return the first projection of the correspondences; the same in every step of a chunk."""
        if conditions.squeezed is None:
            return self.buffer_encoder[0](conditions.correspondence)
        if self.index not in conditions.squeezed:
            conditions.squeezed[self.index] = self.buffer_encoder[0](conditions.correspondence)
        return conditions.squeezed[self.index]


class Sinusoid(nn.Module):
    """Sinusoidal time embedding [cos, sin], computed in float64 as the reference does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timestep: Tensor) -> Tensor:
        """Return (B, channels) float32 of timesteps (B,) in 0..1000."""
        half = self.channels // 2
        frequencies = 1e4 ** (-torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
        angles = timestep.double()[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], -1).float()


class Lyra2Network(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):
    """Velocity (noise - clean latents) of the new latents, given the packed history.

    The defaults are the published 14B configuration. With the packing ``gN`` and without conditions it is Wan 2.1's own network.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("Lyra2Block",)
    _repeated_blocks = ("Lyra2Block",)
    _skip_layerwise_casting_patterns = ("patch_embedding", "clean_patch_embeddings", "condition_embedder", "norm")

    @register_to_config
    def __init__(
        self, num_attention_heads: int = 40, attention_head_dim: int = 128, ffn_dim: int = 13824, num_layers: int = 40,
        text_dim: int = 4096, image_dim: int = 1280, freq_dim: int = 256, buffer_squeeze: int = 256, in_channels: int = 36,
        out_channels: int = 16, eps: float = 1e-6, packing: str = PUBLISHED_PACKING,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        self.packing = Packing.parse(packing)
        self.patch_embedding = nn.Linear(in_channels * PATCH * PATCH, dim)
        self.clean_patch_embeddings = nn.ModuleList(
            nn.Linear(in_channels * math.prod(patch_of(segment)), dim) for segment in self.packing.history
        )
        self.condition_embedder = WanTimeTextImageEmbedding(dim, freq_dim, dim * 6, text_dim, image_dim)
        self.condition_embedder.timesteps_proj = Sinusoid(freq_dim)
        # A packing without retrieved frames never asks for correspondences; its encoders keep the published size.
        slots = self.packing.spatial_slots or BUFFER_CHANNELS // SLOT_CHANNELS
        self.blocks = nn.ModuleList(
            Lyra2Block(dim, ffn_dim, num_attention_heads, buffer_squeeze, slots=slots, eps=eps, index=i) for i in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, out_channels * PATCH * PATCH)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.gradient_checkpointing = False

    def prepare(self, plucker: Tensor, buffer: Tensor, *, keep: bool = True) -> Conditions:
        """Return what the blocks need of a chunk's cameras and correspondences; the same for every step of the chunk.

        Args:
            plucker: (B, 384, T, h, w) ray channels in packed order.
            buffer: (B, 256 per retrieved frame, T, h, w) correspondence channels in packed order; those of history in time are
                not read.
            keep: keep each block's first projection after its first use (inference). The weights must then stay as they are.
        """
        correspondence, validity = correspondence_tokens(buffer, self.packing)
        waves = []
        for octave in range(OCTAVES):
            phase = correspondence.float() * (math.pi * 2**octave)
            # Tokens without correspondence are 0 here instead of being masked after the projections, which have no bias.
            waves += [(phase.sin() * validity).to(self.dtype), (phase.cos() * validity).to(self.dtype)]
        return Conditions(camera_tokens(plucker, self.packing).to(self.dtype), torch.cat(waves, -1), {} if keep else None)

    def rotary(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Return cos and sin (1, n, 1, head_dim / 2) float32 of all tokens for latents of height h and width w."""
        angles = rope_angles(self.packing, h, w, self.config.attention_head_dim).to(self.device)[None, :, None]
        return angles.cos(), angles.sin()

    def embed(self, x: Tensor) -> Tensor:
        """Return tokens (B, n, D) of latents with their condition channels (B, 36, T, h, w), segment by segment."""
        layers = [*self.clean_patch_embeddings, self.patch_embedding]
        return torch.cat([layer(segment_tokens(x, s)) for layer, s in zip(layers, self.packing.segments, strict=True)], 1)

    def embed_context(self, timestep: Tensor, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return time embedding (B, D), its projection (B, 6, D), and context (B, 257 + 512, D)."""
        time, modulation, text, seen = self.condition_embedder(timestep, text, image)
        return time, modulation.unflatten(1, (6, -1)), torch.cat([seen, text], 1)

    def forward(
        self, latents: Tensor, condition: Tensor, timestep: Tensor, text: Tensor, image: Tensor,
        conditions: Conditions | None = None, *, rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the velocity (B, 16, new, h, w) of the new latents.

        Args:
            latents: (B, 16, T, h, w) clean history, then the noisy new latents, in packed order.
            condition: (B, 20, T, h, w): 4 mask channels, then the condition latents.
            timestep: (B,) in 0..1000.
            text: (B, 512, text_dim) embedded prompt, zeros after its end; every row is attended.
            image: (B, 257, image_dim) tokens of the newest frame.
            conditions: of ``prepare``; None for plain Wan.
            rotary: of ``rotary``, where the caller keeps it.
        """
        _, _, _, h, w = latents.shape
        x = torch.cat([latents, condition], 1).to(self.dtype)
        rotary = rotary or self.rotary(h, w)
        time, modulation, context = self.embed_context(timestep, text.to(self.dtype), image.to(self.dtype))
        tokens = self.run_blocks(self.embed(x), context, modulation, rotary, conditions)
        shift, scale = (self.scale_shift_table.float() + time.float()[:, None]).chunk(2, 1)
        new = self.packing.segments[-1]
        tokens = tokens[:, -segment_size(new, h, w):]
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).to(self.dtype)
        return unfold(self.proj_out(tokens), (new.length, h, w), self.config.out_channels)

    def run_blocks(
        self, tokens: Tensor, context: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor], conditions: Conditions | None
    ) -> Tensor:
        """Return the tokens after all blocks."""
        for block in self.blocks:
            arguments = (tokens, context, modulation, rotary, conditions)
            checkpointed = torch.is_grad_enabled() and self.gradient_checkpointing
            run = self._gradient_checkpointing_func if checkpointed else None
            tokens = block(*arguments) if run is None else run(block, *arguments)
        return tokens
