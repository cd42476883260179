"""What fits on a card: where weights wait, in how many bits, and the peak that follows. Arithmetic alone; nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.network import BUFFER_CHANNELS, CAMERA_CHANNELS, OCTAVES, Lyra2Network
from lyra_core.generate.lyra2.packing import PATCH, PUBLISHED_PACKING, SUBFRAMES, Packing, segment_size

GIB = float(2**30)
MARGIN = 0.92
"""Share of a card's memory that a plan uses: the rest is the CUDA context, workspaces and fragments."""
PLANS = ("auto", "24", "48", "80")
TEXT_ENCODER = 5.68e9 * 2 / GIB
IMAGE_ENCODER = 0.63e9 * 2 / GIB
"""umT5-xxl's encoder and CLIP ViT-H's picture half in bfloat16 [GiB]."""
SMALLEST_TILE = 32


@dataclass(frozen=True)
class MemoryPlan:
    """How a network is placed on a card of ``budget`` GiB."""

    budget: float
    """[GiB] that may be used."""
    weights: Literal["bf16", "fp8", "int8"]
    resident: int
    """Blocks that stay on the card; the others wait in main memory and are copied one ahead of their turn."""
    blocks: int
    tile: int | None
    """Side of the codec's tiles [latent pixels]; None: whole pictures."""
    encoders: Literal["gpu", "cpu"]
    """Where prompts and frames are embedded."""
    peaks: dict[str, float] = field(default_factory=dict)
    """Stage -> expected peak [GiB]."""

    @property
    def peak(self) -> float:
        """The largest of the stages [GiB]."""
        return max(self.peaks.values())

    def table(self) -> str:
        """Return the plan for people."""
        where = "all on the card" if self.resident == self.blocks else f"{self.resident} of {self.blocks} on the card, the others copied in turn"
        lines = [
            f"Memory plan for {self.budget:.0f} GiB: {self.weights} weights, blocks: {where}",
            f"  codec {'in whole pictures' if self.tile is None else f'in tiles of {8 * self.tile} px'}, encoders on the {self.encoders}",
            *(f"  {stage:<10} {peak:6.1f} GiB" for stage, peak in self.peaks.items()),
        ]
        return "\n".join(lines)


def plan_for(vram: str | float, config: dict[str, Any], height: int, width: int, *, fp8: bool = False, ranks: int = 1) -> MemoryPlan:
    """Return the plan with the fewest compromises that fits; exactness first: blocks wait before weights lose bits.

    Args:
        vram: 'auto' (what is free on the card now), or GiB.
        config: of the network (Lyra2Network's arguments).
        height, width: of the frames [px].
        fp8: 8-bit floating point weights are asked for (an approximation, see speed.py).
        ranks: GPUs that share the tokens of a pass.

    Raises:
        ConfigError: an unknown name, or too little memory; the smallest peak is named.
    """
    budget = _budget(vram)
    weights: Literal["bf16", "fp8"] = "fp8" if fp8 else "bf16"
    blocks = config.get("num_layers", 40)
    sizes = network_sizes(config, 1 if fp8 else 2)
    compute = activation_size(config, height, width, ranks=ranks)
    best = None
    for tile in (None, 64, SMALLEST_TILE):
        codec = codec_size(height, width, tile=tile)
        for encoders in ("gpu", "cpu"):
            for resident in range(blocks, -1, -1):
                # Two more blocks are on the card at any time: the running one and the one being copied.
                count = blocks if resident == blocks else min(blocks, resident + 2)
                kept = sizes["outside"] + count * sizes["block"]
                peaks = {
                    "encode": sizes["outside"] + resident * sizes["block"] + (TEXT_ENCODER + IMAGE_ENCODER + 0.5 if encoders == "gpu" else 0),
                    "denoise": kept + compute + codec["states"],
                    "codec": kept + codec["states"] + codec["work"],
                }
                plan = MemoryPlan(budget, weights, resident, blocks, tile, encoders, peaks)
                if plan.peak <= budget:
                    return plan
                if best is None or plan.peak < best.peak:
                    best = plan
    assert best is not None
    raise ConfigError(
        f"vram: got {budget:.1f} GiB, expected at least {best.peak:.1f} for {width}x{height} px with {weights} weights; "
        "use smaller frames (--quality standard) or more ranks"
    )


def _budget(vram: str | float) -> float:
    if isinstance(vram, str) and vram not in PLANS:
        try:
            vram = float(vram)
        except ValueError:
            raise ConfigError(f"vram: got {vram!r}, expected one of {', '.join(PLANS)} or a number of GiB") from None
    if vram == "auto":
        if not torch.cuda.is_available():
            raise ConfigError("vram: got 'auto' without a CUDA device; expected a number of GiB")
        return torch.cuda.mem_get_info()[0] / GIB * MARGIN
    return float(vram) * MARGIN


def network_sizes(config: dict[str, Any], linear_bytes: int) -> dict[str, float]:
    """Return GiB of one block's weights and of everything outside the blocks, counted on the network itself (meta device)."""
    with torch.device("meta"):
        network = Lyra2Network(**{**config, "num_layers": 1})
    block = sum(
        p.numel() * (linear_bytes if name.startswith(("attn1.", "attn2.", "ffn.")) and name.endswith("weight") and p.ndim == 2 else 2)
        for name, p in network.blocks[0].named_parameters()
    )
    outside = sum(p.numel() * 2 for name, p in network.named_parameters() if not name.startswith("blocks."))
    return {"block": block / GIB, "outside": outside / GIB}


def activation_size(config: dict[str, Any], height: int, width: int, *, ranks: int = 1) -> float:
    """Return the peak GiB of denoising beside the weights, in bfloat16: conditions, and what one block holds at its worst moment.

    The worst moments are the rotation of queries and keys, which is done in float32, and the feed-forward's hidden layer.
    """
    heads, head_dim = config.get("num_attention_heads", 40), config.get("attention_head_dim", 128)
    dim, ffn = heads * head_dim, config.get("ffn_dim", 13824)
    tokens = token_count(config, height, width) / ranks
    encoded = BUFFER_CHANNELS * PATCH * PATCH * 2 * OCTAVES
    squeezed = config.get("buffer_squeeze", 256) * config.get("num_layers", 40)
    conditions = tokens * 2 * (encoded + CAMERA_CHANNELS * PATCH * PATCH + squeezed)
    packing = Packing.parse(config.get("packing", PUBLISHED_PACKING))
    latents = (packing.history_length + packing.new_length) * (height // 8) * (width // 8)
    inputs = latents * 4 * (BUFFER_CHANNELS + CAMERA_CHANNELS + 6 * 16)
    attention = tokens * dim * (2 * 6 + 4 * 4)
    if ranks > 1:
        attention += tokens * ranks * dim * 2 * 4
    feed_forward = tokens * (dim * (2 * 3 + 4 * 2) + ffn * 2 * 2)
    return (conditions + inputs + max(attention, feed_forward)) / GIB


def token_count(config: dict[str, Any], height: int, width: int) -> int:
    """Return the tokens of a pass."""
    packing = Packing.parse(config.get("packing", PUBLISHED_PACKING))
    return sum(segment_size(segment, height // 8, width // 8) for segment in packing.segments)


def codec_size(height: int, width: int, *, tile: int | None, base: int = 96) -> dict[str, float]:
    """Return GiB of Wan's codec in bfloat16: causal states of encoder and decoder, and the working memory of one step.

    Each causal convolution keeps two frames of its input. Stages of the encoder have widths 1, 2, 4, 4 times the base with two residual
    blocks of two convolutions, at 1, 1/2, 1/4, 1/8 of the size; the decoder has three blocks per stage.
    """
    pixels = height * width
    widths = (base, 2 * base, 4 * base, 4 * base)
    encoder = sum(2 * 2 * w * pixels / 4**i for i, w in enumerate(widths)) + 4 * widths[3] * pixels / 64
    decoder = sum(3 * 2 * w * pixels / 4**i for i, w in enumerate(widths)) + 4 * widths[3] * pixels / 64
    overlap = 1.0 if tile is None else (tile / (tile - 8)) ** 2
    states = (encoder + decoder) * 2 * 2 * overlap
    share = 1.0 if tile is None else min(1.0, (8 * tile) ** 2 / pixels)
    # A residual block of the finest stage holds its input, its normalised copy in float32, and two outputs, of four frames.
    work = SUBFRAMES * base * pixels * share * (2 * 3 + 4)
    return {"states": states / GIB, "work": work / GIB}


def place(network: Lyra2Network, plan: MemoryPlan, device: torch.device | str) -> None:
    """Put a network that was read into main memory where its plan wants it: in fewer bits, on the card, or waiting for its turn."""
    from lyra_core.generate.lyra2.offload import BlockOffload
    from lyra_core.generate.lyra2.quantize import quantize_

    if plan.weights != "bf16":
        quantize_(network, plan.weights)
    blocks = network.blocks
    for name, child in network.named_children():
        if name != "blocks":
            child.to(device)
    network.scale_shift_table.data = network.scale_shift_table.data.to(device)
    for block in blocks[: plan.resident]:
        block.to(device)
    if plan.resident < plan.blocks:
        BlockOffload(blocks, device, resident=plan.resident)
