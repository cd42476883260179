"""What fits on a card: where weights wait, in how many bits, and the peak that follows. Arithmetic alone; nothing is loaded.

Peaks are of memory in use, as torch counts it, of uncompiled passes (compiled ones need less). Tests compare them with torch's own
memory tracker; the CUDA context, workspaces and fragments are the margin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.network import CAMERA_CHANNELS, OCTAVES, SLOT_CHANNELS, Lyra2Network
from lyra_core.generate.lyra2.offload import BlockOffload
from lyra_core.generate.lyra2.packing import PATCH, PUBLISHED_PACKING, SUBFRAMES, Packing, segment_size
from lyra_core.generate.lyra2.quantize import QUANTIZED, quantize_block_
from lyra_core.generate.lyra2.tiling import OVERLAP, CodecParked, CodecTiled, tile_sides
from lyra_core.generate.lyra2.tuning import tune
from lyra_core.generate.lyra2.vae import VideoCodec

GIB = float(2**30)
MARGIN = 0.92
"""Share of a card's memory that a plan uses: the rest is the CUDA context, workspaces and fragments."""
PLANS = ("auto", "24", "48", "80")
SLOTS = 2
"""Blocks on the card beside the resident ones: the running one and the one being copied."""
TEXT_ENCODER = 5.68e9 * 2 / GIB + 0.2
IMAGE_ENCODER = 0.63e9 * 2 / GIB + 0.2
"""umT5-xxl's encoder and CLIP ViT-H's picture half in bfloat16, with what a call needs [GiB]."""
CODEC_WEIGHTS = 0.127e9 * 2 / GIB
DEPTH_MODEL = 3.0
"""What is left for the depth of new frames [GiB]; Depth Anything V2 Large needs about half of it."""
LATENT_CHANNELS = 16
CODEC_UNITS = {"encoder": 4.0, "decoder": 7.0}
"""Frames by four, in the codec's base width and precision, that a step holds at its worst moment: a residual block at full size."""
TILE = 32
"""Side of the codec's tiles where whole pictures do not fit [latent pixels]."""

Encoders = Literal["gpu", "cpu"]
COMPROMISES: tuple[tuple[bool, int | None, Encoders], ...] = (
    (False, None, "gpu"), (True, None, "gpu"), (True, None, "cpu"), (True, TILE, "cpu"),
)
"""States parked, tile, where the encoders run: in the order in which they are given up."""


@dataclass(frozen=True)
class MemoryPlan:
    """How a network is placed on a card."""

    budget: float
    """[GiB] that may be used."""
    weights: Literal["bf16", "fp8", "int8"]
    resident: int
    """Blocks that stay on the card; the others wait in main memory and are copied one ahead of their turn."""
    blocks: int
    tile: int | None
    """Side of the codec's tiles [latent pixels]; None: whole pictures."""
    parked: bool
    """The codec's causal states wait in main memory between calls."""
    encoders: Encoders
    """Where prompts and frames are embedded; on the card they visit it for a call."""
    peaks: dict[str, float] = field(default_factory=dict)
    """Stage -> expected peak [GiB]."""
    host: float = 0.0
    """Main memory that weights and states take at most [GiB]."""

    @property
    def peak(self) -> float:
        """The largest of the stages [GiB]."""
        return max(self.peaks.values())

    def table(self) -> str:
        """Return the plan for people."""
        waiting = self.blocks - self.resident
        split = f"{self.resident} on the card, {waiting} wait in main memory and are copied in turn"
        codec = "whole pictures" if self.tile is None else f"tiles of {8 * self.tile} px"
        rows = [
            f"memory plan: {self.peak:.1f} of {self.budget:.1f} GiB on the card, {self.host:.1f} GiB of main memory",
            f"  weights   {self.weights}; blocks: {split if waiting else 'all on the card'}",
            f"  codec     {codec}; its states {'wait in main memory' if self.parked else 'stay on the card'}",
            f"  encoders  {'visit the card' if self.encoders == 'gpu' else 'run on the CPU'}",
            "  expected peak per stage",
            *(f"  {stage:<10} {peak:6.1f} GiB" for stage, peak in self.peaks.items()),
        ]
        return "\n".join(rows)


def plan_for(
    vram: str | float, config: dict[str, Any], height: int, width: int, *, weights: Literal["bf16", "fp8", "int8"] = "bf16",
    cache: bool = False, ranks: int = 1,
) -> MemoryPlan:
    """Return the plan with the fewest compromises that fits.

    What costs no exactness comes first: waiting blocks cost almost no time, as copies run beside the work; then the codec's states
    wait as well, its pictures are cut into tiles, and the encoders run on the CPU. Weights lose bits only where that is asked for.

    Args:
        vram: 'auto' (what is free on the card now), or GiB.
        config: of the network (Lyra2Network's arguments).
        height, width: of the frames [px].
        weights: precision of the blocks' attention and feed-forward layers; 8 bits are an approximation (see speed.py).
        cache: the first block's cache is on (see speed.py).
        ranks: GPUs that share the tokens of a pass.

    Raises:
        ConfigError: an unknown name, or too little memory; the smallest peak is named.
    """
    budget, least = _budget(vram), None
    sizes = network_sizes(config, 2 if weights == "bf16" else 1)
    sizes["whole"] = sizes["outside"] + config.get("num_layers", 40) * network_sizes(config, 2)["block"]
    work = work_sizes(config, height, width, ranks=ranks, cache=cache)
    work["frames"] = SUBFRAMES * _packing(config).new_length * 3 * 4 * height * width / GIB
    for parked, tile, encoders in COMPROMISES:
        codec = codec_size(height, width, tile=tile)
        for resident in range(config.get("num_layers", 40), -1, -1):
            plan = MemoryPlan(budget, weights, resident, config.get("num_layers", 40), tile, parked, encoders)
            plan = replace(plan, peaks=_peaks(plan, sizes, work, codec), host=_host(plan, sizes, codec))
            if plan.peak <= budget:
                return plan
            least = plan if least is None or plan.peak < least.peak else least
    assert least is not None
    raise ConfigError(
        f"vram: got {budget:.1f} GiB to use, expected at least {least.peak:.1f} for {width}x{height} px with {weights} weights; "
        "use smaller frames (--quality standard) or more ranks"
    )


def _peaks(plan: MemoryPlan, sizes: dict[str, float], work: dict[str, float], codec: dict[str, float]) -> dict[str, float]:
    """Return the peak of each stage of a chunk [GiB]."""
    held = plan.blocks if plan.resident == plan.blocks else min(plan.blocks, plan.resident + SLOTS)
    always = sizes["outside"] + held * sizes["block"] + CODEC_WEIGHTS + (0 if plan.parked else codec["states"])
    running, frames = always + work["inputs"], work["frames"]
    # The state before a call is kept until it ends; if it waits outside, it is brought in.
    decoder, encoder = (2 * codec[f"{part} tile"] if plan.parked else codec[part] for part in ("decoder", "encoder"))
    return {
        # A stream of its own encodes the warp of the newest frame; beside it stand the correspondences in two layouts.
        "condition": running + work["inputs"] + 2 * frames + codec["encoder tile"] + codec["encoder work"],
        "text": running + (max(TEXT_ENCODER, IMAGE_ENCODER) if plan.encoders == "gpu" else 0),
        "denoise": running + max(work["prepare"], work["conditions"] + work["pass"]),
        # Two copies of the frames, joined and as float32; then two more, rounded and as numbers again.
        "decode": running + decoder + codec["decoder work"] + 2 * frames,
        "encode": running + encoder + codec["encoder work"] + 4 * frames,
        "depth": always + DEPTH_MODEL,
    }


def _host(plan: MemoryPlan, sizes: dict[str, float], codec: dict[str, float]) -> float:
    """Return the main memory that weights and states take at most [GiB]: the network while it is read, or all that waits."""
    waiting = (plan.blocks - plan.resident) * sizes["block"] + TEXT_ENCODER + IMAGE_ENCODER
    return max(sizes["whole"], waiting + (2 * codec["states"] if plan.parked else 0))


def check_vram(vram: str | float) -> None:
    """Require 'auto' or a positive number of GiB.

    Raises:
        ConfigError: it is neither.
    """
    try:
        usable = vram == "auto" or 0 < float(vram) < math.inf
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"vram: got {vram!r}, expected one of {', '.join(PLANS)} or a number of GiB")


def _budget(vram: str | float) -> float:
    check_vram(vram)
    if vram == "auto":
        if not torch.cuda.is_available():
            raise ConfigError("vram: got 'auto' without a CUDA device; expected a number of GiB")
        return torch.cuda.mem_get_info()[0] / GIB * MARGIN
    return float(vram) * MARGIN


def _packing(config: dict[str, Any]) -> Packing:
    return Packing.parse(config.get("packing", PUBLISHED_PACKING))


def network_sizes(config: dict[str, Any], linear_bytes: int) -> dict[str, float]:
    """Return GiB of one block's weights and of everything outside the blocks, counted on the network itself (meta device)."""
    with torch.device("meta"):
        network = Lyra2Network(**{**config, "num_layers": 1})
    block = sum(_stored(name, value, linear_bytes) for name, value in network.blocks[0].named_parameters())
    outside = sum(value.numel() * 2 for name, value in network.named_parameters() if not name.startswith("blocks."))
    return {"block": block / GIB, "outside": outside / GIB}


def _stored(name: str, value: Tensor, linear_bytes: int) -> int:
    """Return the bytes of a block's parameter; 8-bit weights have a float32 scale per output channel."""
    if not (linear_bytes == 1 and name.startswith(QUANTIZED) and name.endswith(".weight") and value.ndim == 2):
        return value.numel() * 2
    return value.numel() + value.shape[0] * 4


def token_count(config: dict[str, Any], height: int, width: int) -> int:
    """Return the tokens of a pass."""
    return sum(segment_size(segment, height // 8, width // 8) for segment in _packing(config).segments)


def work_sizes(
    config: dict[str, Any], height: int, width: int, *, ranks: int = 1, cache: bool = False, bytes_per_value: int = 2
) -> dict[str, float]:
    """Return GiB of a chunk's inputs, of making its conditions, of these as they are kept, and of a pass at its worst moment.

    Correspondences, four times as wide once encoded, are held in float32, as they are and as angles; then in parts and joined.

    The worst moments of a block are the rotation of keys, which is done in float32, and the feed-forward's hidden layer. In
    units of tokens x width, the first holds the residual, the normalised and the routed tokens, the bias, queries before and after
    their rotation, keys and values in the network's precision, and the float32 copy of the keys with four half-sized terms.
    """
    heads, head_dim = config.get("num_attention_heads", 40), config.get("attention_head_dim", 128)
    dim, ffn, layers = heads * head_dim, config.get("ffn_dim", 13824), config.get("num_layers", 40)
    tokens, b = token_count(config, height, width) / ranks, bytes_per_value
    packing = _packing(config)
    channels = SLOT_CHANNELS * packing.spatial_slots
    correspondence = PATCH * PATCH * channels
    per_token = PATCH * PATCH * (channels * 2 * OCTAVES + CAMERA_CHANNELS) + config.get("buffer_squeeze", 256) * layers
    latents = (packing.history_length + packing.new_length) * (height // 8) * (width // 8)
    inputs = latents * 4 * (channels + CAMERA_CHANNELS + 2 * LATENT_CHANNELS + 4)
    attention = tokens * dim * (8 * b + (4 if b < 4 else 0) + 4 * 2)
    # Keys and values of all ranks, sent and joined.
    attention += tokens * ranks * dim * b * 4 if ranks > 1 else 0
    feed_forward = tokens * (dim * 4 * b + ffn * 2 * b)
    kept = 4 * tokens * dim * b if cache else 0
    sizes = {
        "inputs": inputs, "prepare": tokens * (2 * 4 * correspondence + 2 * b * 2 * OCTAVES * correspondence),
        "conditions": tokens * b * per_token, "pass": max(attention, feed_forward) + kept,
    }
    return {name: size / GIB for name, size in sizes.items()}


def codec_size(height: int, width: int, *, tile: int | None = None, base: int = 96, bytes_per_value: int = 2) -> dict[str, float]:
    """Return GiB of Wan's codec: causal states of encoder and decoder, of all tiles and of one, and what a step works with."""
    pixels = step = float(height * width)
    if tile is not None:
        rows, columns = (tile_sides(size // 8, tile, _overlap(tile)) for size in (height, width))
        pixels = 64.0 * sum(b - a for a, b in rows) * sum(b - a for a, b in columns)
        step = 64.0 * (rows[0][1] - rows[0][0]) * (columns[0][1] - columns[0][0])
    encoder, decoder = (values * bytes_per_value * pixels / GIB for values in state_values(base))
    unit = SUBFRAMES * base * bytes_per_value * step / GIB
    return {
        "encoder": encoder, "decoder": decoder, "states": encoder + decoder,
        "encoder tile": encoder * step / pixels, "decoder tile": decoder * step / pixels,
        "encoder work": CODEC_UNITS["encoder"] * unit, "decoder work": CODEC_UNITS["decoder"] * unit,
    }


def state_values(base: int) -> tuple[float, float]:
    """Return how many values per pixel the encoder's and the decoder's states hold.

    Each convolution of three steps keeps the last two of its input. Stages have 1, 2, 4 and 4 times the base width at 1, 1/2, 1/4
    and 1/8 of the size; a residual block has two convolutions. The encoder has two blocks per stage, the decoder three; both have
    two in the middle. Of the changes of the frame rate, the encoder's keep one step, the decoder's two.
    """
    widths = (base, 2 * base, 4 * base, 4 * base)
    middle = (2 * 4 * widths[3]) / 64
    encoder, before = 2 * 3 + middle + 2 * widths[3] / 64, base
    for i, w in enumerate(widths):
        encoder += (2 * (before + w) + 2 * 2 * w) / 4**i + (w / 4 ** (i + 1) if i in (1, 2) else 0)
        before = w
    decoder, before = 2 * LATENT_CHANNELS / 64 + middle + 2 * base, widths[3]
    for i, w in reversed(list(enumerate(widths))):
        decoder += (2 * (before + w) + 2 * 4 * w) / 4**i + (2 * w / 4**i if i in (3, 2) else 0)
        before = w // 2
    return encoder, decoder


def place(network: Lyra2Network, plan: MemoryPlan, device: torch.device | str, *, sage: bool = False) -> None:
    """Put a network that was read into main memory where its plan wants it, and choose its kernels.

    Blocks are rounded to 8 bit on the card, one at a time. For inference alone: weights can no longer be changed.

    Raises:
        ConfigError, BackendUnavailable: 8-bit products or 8-bit attention (``sage``) that cannot be done here.
    """
    device = torch.device(device)
    for name, child in network.named_children():
        if name != "blocks":
            child.to(device)
    network.scale_shift_table.data = network.scale_shift_table.data.to(device)
    for number, block in enumerate(network.blocks):
        if plan.weights != "bf16":
            quantize_block_(block.to(device), plan.weights)
        block.to(device if number < plan.resident else "cpu")
    if plan.resident < plan.blocks:
        BlockOffload(network.blocks, device, resident=plan.resident, slots=SLOTS)
    tune(network, device, sage=sage)


def placed_codec(codec: VideoCodec, plan: MemoryPlan) -> VideoCodec:
    """Return a codec that works as its plan wants it."""
    codec = CodecParked(codec) if plan.parked else codec
    return codec if plan.tile is None else CodecTiled(codec, tile=plan.tile, overlap=_overlap(plan.tile))


def _overlap(tile: int) -> int:
    return min(OVERLAP, tile // 3)
