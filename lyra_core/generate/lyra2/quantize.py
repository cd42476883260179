"""Linear layers with 8-bit weights, for cards that the bf16 network does not fit.

int8: weight only, one scale per output channel; the product is computed in the activation's type. fp8: e4m3 weights with one scale per
output channel and e4m3 activations with one scale per token (dynamic), multiplied by the tensor cores on CUDA from compute capability
8.9; elsewhere the same rounding in plain arithmetic. Only the blocks' attention and feed-forward projections are replaced: encoders of
cameras and correspondences, embeddings, norms and the head stay as they are.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lyra_core.errors import ConfigError

Scheme = Literal["int8", "fp8"]
LARGEST = {"int8": 127.0, "fp8": 448.0}
DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
QUANTIZED = ("attn1.", "attn2.", "ffn.")
"""Parts of a block whose linear layers are replaced."""


def quantized(values: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return values (..., n) rounded to 8 bit and their scales (..., 1) float32: values ~ rounded * scale."""
    scale = values.float().abs().amax(-1, keepdim=True).clamp_min(1e-12) / LARGEST[scheme]
    scaled = values.float() / scale
    return (scaled.round() if scheme == "int8" else scaled).clamp(-LARGEST[scheme], LARGEST[scheme]).to(DTYPES[scheme]), scale


class LinearQuantized(nn.Module):
    """A linear layer with an 8-bit weight (out, in), scales (out, 1) and the bias as it was."""

    def __init__(self, linear: nn.Linear, scheme: Scheme) -> None:
        super().__init__()
        self.scheme: Scheme = scheme
        weight, scale = quantized(linear.weight.detach(), scheme)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) in the type of x (..., in)."""
        if self.scheme == "int8":
            # The scale is applied to the product: it is one number per output channel.
            out = F.linear(x, self.weight.to(x.dtype)) * self.scale[:, 0].to(x.dtype)
        else:
            out = self._fp8(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _fp8(self, x: Tensor) -> Tensor:
        rounded, scale = quantized(x, "fp8")
        if x.is_cuda:
            return torch._scaled_mm(
                rounded, self.weight.t(), scale_a=scale, scale_b=self.scale.t(), out_dtype=torch.bfloat16, use_fast_accum=True
            ).to(x.dtype)
        return (F.linear(rounded.float(), self.weight.float()) * scale * self.scale.t()).to(x.dtype)


def quantize_(network: nn.Module, scheme: Scheme) -> int:
    """Replace the blocks' attention and feed-forward projections in place, one at a time; returns how many.

    Raises:
        ConfigError: an unknown scheme, or fp8 on a card without it.
    """
    if scheme not in DTYPES:
        raise ConfigError(f"weights: got {scheme!r}, expected one of {', '.join(DTYPES)}")
    device = next(network.parameters()).device
    if scheme == "fp8" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise ConfigError(f"weights: fp8 needs compute capability 8.9, {torch.cuda.get_device_name(device)} has less; use int8")
    count = 0
    for block in network.blocks:
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear) and name.startswith(QUANTIZED):
                parent, _, child = name.rpartition(".")
                setattr(block.get_submodule(parent), child, LinearQuantized(module, scheme))
                count += 1
    return count
