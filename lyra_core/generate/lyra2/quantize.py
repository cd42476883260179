"""Linear layers with 8-bit weights, for cards that the bf16 network does not fit, or for their faster products.

int8: weight only, one scale per output channel; the product is computed in the activation's type. fp8: e4m3 weights with one scale
per output channel and e4m3 activations with one scale per token (dynamic), multiplied by the tensor cores on CUDA from compute
capability 8.9 on. Only the blocks' attention and feed-forward projections are replaced: encoders of cameras and correspondences,
embeddings, norms and the head stay as they are.

The arithmetic is torchao's (the tests compare). Its weights are tensor subclasses, though; ours are plain buffers, which
safetensors stores, blocks that wait in main memory copy, and torch compiles as they are.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

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
ROWS = 8192
"""Rows that are rounded at a time: the float32 copies of a feed-forward's whole hidden layer would take 6 GiB."""
FP8_MULTIPLE = 16
"""What tensor cores want both sides of an fp8 weight to be a multiple of."""


def quantized(values: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    """Return values (..., n) rounded to 8 bit and their scales (..., 1) float32: values ~ rounded * scale."""
    # The compiler fuses all of this into one pass without copies.
    if torch.compiler.is_compiling() or values.numel() <= ROWS * values.shape[-1]:
        return _rounded(values, scheme)
    parts = [_rounded(rows, scheme) for rows in values.reshape(-1, values.shape[-1]).split(ROWS)]
    rounded, scales = (torch.cat(column) for column in zip(*parts, strict=True))
    return rounded.view(values.shape), scales.view(*values.shape[:-1], 1)


def _rounded(values: Tensor, scheme: Scheme) -> tuple[Tensor, Tensor]:
    scale = values.abs().amax(-1, keepdim=True).float().clamp_min(1e-12) / LARGEST[scheme]
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
        if self.scheme == "fp8":
            return self._fp8(x.reshape(-1, self.in_features)).reshape(*x.shape[:-1], self.out_features)
        # The scale, one number per output channel, is applied to the product, and in float32: in bfloat16 it would be off by 0.4 %.
        out = F.linear(x, self.weight.to(x.dtype)).mul_(self.scale[:, 0])
        return out if self.bias is None else out.add_(self.bias.to(x.dtype))

    def _fp8(self, x: Tensor) -> Tensor:
        rounded, scale = quantized(x, "fp8")
        # With one scale per row, tensor cores return bfloat16 alone.
        dtype = torch.bfloat16 if x.is_cuda else x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return torch._scaled_mm(
            rounded, self.weight.t(), scale_a=scale, scale_b=self.scale.t(), bias=bias, out_dtype=dtype, use_fast_accum=True
        ).to(x.dtype)


def quantize_(network: nn.Module, scheme: Scheme) -> int:
    """Replace the attention and feed-forward projections of all blocks in place, one at a time; returns how many.

    A network on the meta device is replaced as well: it can then be filled with stored 8-bit weights.

    Raises:
        ConfigError: an unknown scheme, or fp8 on a card or for layers that cannot do it.
    """
    return sum(quantize_block_(block, scheme) for block in network.blocks)  # type: ignore[union-attr, arg-type]


def quantize_block_(block: nn.Module, scheme: Scheme) -> int:
    """Replace one block's projections in place, where they are; returns how many.

    Raises:
        ConfigError: as ``quantize_``.
    """
    if scheme not in DTYPES:
        raise ConfigError(f"weights: got {scheme!r}, expected one of {', '.join(DTYPES)}")
    count = 0
    for name, module in list(block.named_modules()):
        if isinstance(module, nn.Linear) and name.startswith(QUANTIZED):
            if scheme == "fp8":
                _require_fp8(name, module)
            parent, _, child = name.rpartition(".")
            setattr(block.get_submodule(parent), child, LinearQuantized(module, scheme))
            count += 1
    return count


def _require_fp8(name: str, linear: nn.Linear) -> None:
    device = linear.weight.device
    if device.type != "cuda":
        return
    if torch.cuda.get_device_capability(device) < (8, 9):
        raise ConfigError(f"weights: fp8 needs compute capability 8.9, {torch.cuda.get_device_name(device)} has less; use int8")
    if linear.in_features % FP8_MULTIPLE or linear.out_features % FP8_MULTIPLE:
        size = f"{linear.out_features} x {linear.in_features}"
        raise ConfigError(f"weights: fp8: {name}: got {size}, expected multiples of {FP8_MULTIPLE}; use int8")
