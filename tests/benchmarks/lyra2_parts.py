"""What the Lyra 2 benchmark is made of: random parts at two scales, a walk to film, a clock, and the proof that it is right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lyra_core.config import DepthCfg
from lyra_core.depth.depth_anything import DepthAnything
from lyra_core.generate.base import ChunkRequest
from lyra_core.generate.lyra2.checkpoint import empty_network, without_weights
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.plans import GIB, MemoryPlan, place, placed_codec, plan_for, token_count
from lyra_core.generate.lyra2.vae import CodecWan, State, VideoCodec
from lyra_core.memory.cache import FrameCache
from lyra_core.types import Camera, Frame, Trajectory
from tests.memory import truth_rooms

CHUNK = 80
"""Frames."""


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    width: int
    height: int
    network: dict[str, Any]
    vae: dict[str, Any]
    depth: str
    """Which Depth Anything V2 stands in."""
    ceiling: int
    """Side of the square product that the ceiling is measured on."""


FULL = Scale(832, 480, {}, {}, "small", 16384)
SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 64, "num_layers": 3, "text_dim": 16, "image_dim": 16,
         "freq_dim": 32, "buffer_squeeze": 16}
QUICK = Scale(96, 64, SMALL, {"base_dim": 3}, "tiny", 1024)


class Clock:
    """Seconds and peak memory by stage; waits for the card."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, float] = {}
        self._open: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add what happens inside to a stage; stages may stand in each other."""
        self._look()
        self._open.append(name)
        start = time.perf_counter()
        yield
        self._look()
        self._open.remove(name)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _look(self) -> None:
        """Wait for the card, and note the peak since the last look for the stages that are open."""
        if self.device.type != "cuda":
            return
        torch.cuda.synchronize(self.device)
        peak = torch.cuda.max_memory_allocated(self.device) / GIB
        for name in self._open:
            self.peaks[name] = max(self.peaks.get(name, 0.0), peak)
        torch.cuda.reset_peak_memory_stats(self.device)


@dataclass
class CodecTimed:
    """A codec whose calls count as the stage 'VAE'."""

    codec: VideoCodec
    clock: Clock
    channels: int = field(init=False)
    receptive_latents: int = field(init=False)

    def __post_init__(self) -> None:
        self.channels, self.receptive_latents = self.codec.channels, self.codec.receptive_latents

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode, timed."""
        with self.clock.stage("VAE"):
            return self.codec.encode(video, state)

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode, timed."""
        with self.clock.stage("VAE"):
            return self.codec.decode(latents, state)


@torch.no_grad()
def randomise(module: nn.Module, *, seed: int, dtype: torch.dtype, device: torch.device, keep: torch.device) -> None:
    """Give a module on the meta device random weights that keep the size of signals; drawn on ``device``, kept on ``keep``."""
    generator = torch.Generator(device).manual_seed(seed)
    for owner in module.modules():
        for name, value in list(owner._parameters.items()):
            if value is None or not value.is_meta:
                continue
            drawn = torch.empty(value.shape, dtype=dtype, device=device)
            if value.ndim > 1:
                drawn.normal_(0, float(value[0].numel()) ** -0.5, generator=generator)
            else:
                drawn.fill_(0.0 if name == "bias" else 1.0)
            owner._parameters[name] = nn.Parameter(drawn.to(keep), requires_grad=False)


def random_network(scale: Scale, plan: MemoryPlan | None, device: torch.device) -> Lyra2Network:
    """Return a network with random weights, placed by its plan; its blocks are drawn one at a time."""
    network = empty_network(scale.network)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for index, block in enumerate(network.blocks):
        waits = plan is not None and index >= plan.resident
        randomise(block, seed=index, dtype=dtype, device=device, keep=torch.device("cpu") if waits else device)
    randomise(network, seed=1000, dtype=dtype, device=device, keep=device)
    if plan is not None:
        place(network, plan, device)
    return network.eval()


def random_codec(scale: Scale, plan: MemoryPlan | None, device: torch.device) -> VideoCodec:
    """Return Wan's codec with random weights, placed by its plan."""
    vae = without_weights(lambda: AutoencoderKLWan(**scale.vae))
    randomise(vae, seed=2000, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, device=device, keep=device)
    codec = CodecWan(vae)
    return codec if plan is None else placed_codec(codec, plan)


def random_depth(scale: Scale, folder: Path) -> DepthAnything:
    """Return the depth provider with a random model: Depth Anything V2's Small size, or a tiny one."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    sizes = {"small": (384, 12, 6, [48, 96, 192, 384], 64, 518), "tiny": (24, 4, 2, [8, 8, 8, 8], 8, 70)}
    hidden, layers, heads, neck, fusion, side = sizes[scale.depth]
    taps = [f"stage{round(layers * (i + 1) / 4)}" for i in range(4)]
    backbone = transformers.Dinov2Config(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, image_size=side,
                                         patch_size=14, out_features=taps, reshape_hidden_states=False)
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=hidden, neck_hidden_sizes=neck, fusion_hidden_size=fusion,
        depth_estimation_type="metric", max_depth=20,
    )
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    size = {"height": side, "width": side}
    transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
    return DepthAnything(DepthCfg(model=str(folder)))


@dataclass(frozen=True)
class Scene:
    """A walk of two chunks; the frames of the first are known, the second is to be made."""

    request: ChunkRequest
    first: Frame
    cache: FrameCache

    @staticmethod
    def make(scale: Scale) -> Scene:
        """Ray-cast the frames that the cache holds."""
        camera = Camera.from_focal(0.7 * scale.width, scale.width, scale.height)
        tracer = truth_rooms.build(3)
        poses = truth_rooms.walk(3, 1 + 2 * CHUNK)[: 1 + 2 * CHUNK]
        path = Trajectory(poses, np.repeat(camera.K[None], len(poses), 0), scale.width, scale.height)
        cache, frames = FrameCache(point_subsampling=4), {}
        noise = np.random.default_rng(0)
        for i in range(0, CHUNK + 1, 8):
            frame = truth_rooms.frame(tracer, poses[i], camera=camera)
            frames[i] = replace(frame, rgb=noise.integers(0, 256, frame.rgb.shape, dtype=np.uint8))
            cache.add(i, frames[i])
        request = ChunkRequest(1, path[slice(CHUNK + 1, None)], path[slice(0, CHUNK + 1)], frames[CHUNK], (), "a room", 1)
        return Scene(request, frames[0], cache)


def pass_operations(network: dict[str, Any], height: int, width: int) -> float:
    """Return multiplications and additions of a pass's blocks. Correspondences' first projection is made once a chunk."""
    config = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40, "buffer_squeeze": 256}
    config.update(network)
    n, context = token_count(config, height, width), 512 + 257
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    linears = n * dim * (4 * dim + 2 * config["ffn_dim"] + 2 * dim + 1536 + config["buffer_squeeze"]) + 2 * context * dim * dim
    attention = 2 * n * n * dim + 2 * n * context * dim
    return 2.0 * config["num_layers"] * (linears + attention)


def ceiling(device: torch.device, side: int) -> float:
    """Return the TFLOP/s of a large square product, bf16 on a card, the best of five."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        clock = Clock(device)
        with clock.stage("product"):
            a @ b
        best = min(best, clock.seconds["product"])
    return 2.0 * side**3 / best / 1e12


def prove(device: torch.device) -> None:
    """Require that what is timed is right: operations as torch counts them, and placed networks that agree with the plain one."""
    config = SMALL
    network = empty_network(config)
    randomise(network, seed=0, dtype=torch.float32, device=torch.device("cpu"), keep=torch.device("cpu"))
    height, width = 64, 96
    size = (45, height // 8, width // 8)
    draw = torch.Generator().manual_seed(0)
    latents, condition, plucker, buffer = (torch.randn(1, c, *size, generator=draw) for c in (16, 20, 384, 1280))
    text, image = torch.randn(1, 512, 16, generator=draw), torch.randn(1, 257, 16, generator=draw)

    @torch.no_grad()
    def velocity(of: Lyra2Network, on: torch.device, dtype: torch.dtype) -> Tensor:
        given = [x.to(on, dtype) for x in (plucker, buffer)]
        conditions = of.prepare(*given)
        moved = [x.to(on, dtype) for x in (latents, condition)]
        time_, words = torch.tensor([700.0], device=on), [x.to(on, dtype) for x in (text, image)]
        of(*moved, time_, *words, conditions)
        # torch does not count its fused attention on a CPU.
        with FlopCounterMode(display=False) as counter, attention_backend("_native_math"):
            out = of(*moved, time_, *words, conditions).float().cpu()
        counted.append(sum(counter.get_flop_counts()["Global"].values()))
        return out

    counted: list[int] = []
    exact = velocity(network, torch.device("cpu"), torch.float32)
    blocks = counted[0] - _outside(network)
    expected = pass_operations(config, height, width)
    if abs(expected / blocks - 1) > 0.01:
        raise SystemExit(f"operations: counted {blocks:.4e}, expected {expected:.4e}")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for weights, resident, limit in (("bf16", 3, 0.03), ("bf16", 1, 0.03), ("int8", 1, 0.05), ("fp8", 1, 0.2)):
        plan = replace(plan_for(80, config, height, width, weights=weights), resident=resident)
        twin = empty_network(config)
        randomise(twin, seed=0, dtype=torch.float32, device=torch.device("cpu"), keep=torch.device("cpu"))
        nn.Module.to(twin, dtype)
        place(twin, plan, device)
        off = float((velocity(twin, device, dtype) - exact).norm() / exact.norm())
        if not off < limit:
            raise SystemExit(f"{weights}, {resident} resident blocks: got a difference of {off:.3f}, expected less than {limit}")


def _outside(network: Lyra2Network) -> float:
    """Return the operations of one pass that are not in its blocks, by torch's counter."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.embed(torch.zeros(1, 36, 45, 8, 12))
        network.embed_context(torch.zeros(1), torch.zeros(1, 512, 16), torch.zeros(1, 257, 16))
        network.proj_out(torch.zeros(1, 20 * 4 * 6, network.proj_out.in_features))
    return sum(counter.get_flop_counts()["Global"].values())
