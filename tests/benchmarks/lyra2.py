"""The Lyra 2 generator: seconds per chunk of 80 frames, share of the card's bf16 ceiling, peak memory against the plan.

``python -m tests.benchmarks.lyra2 [--quick] [--device cuda] [--plan 80 24] [--variants exact fp8 ...] [--write FILE.md]`` builds
the network, Wan's codec and a depth model with random weights at full size on the card (832 x 480 px; weights do not change what
a pass costs), walks through rooms that are ray-cast exactly, and times one chunk through the generator's own functions. A variant
is the memory plan's network with approximations by name (see speed.py), or 'distilled'. Denoising is timed over a few steps and
multiplied, but for variants with 'cache', which run all of them; random weights say what a skipped pass saves, not how many
trained ones allow. ``--quick`` is the same at tiny size, for a CPU.

Before anything is timed it is proven right: a placed network must agree with the plain one, and the operations that the share of
the ceiling rests on with torch's own counter.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
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

from lyra_core.config import DepthCfg, GenerateCfg, Lyra2Cfg
from lyra_core.depth.depth_anything import DepthAnything
from lyra_core.generate.base import ChunkRequest
from lyra_core.generate.lyra2.checkpoint import empty_network, without_weights
from lyra_core.generate.lyra2.components import Components
from lyra_core.generate.lyra2.conditioning import ChunkInputs
from lyra_core.generate.lyra2.generator import GeneratorLyra2
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.plans import GIB, MemoryPlan, place, placed_codec, plan_for, token_count
from lyra_core.generate.lyra2.samplers import DISTILLED_STEPS, TRAIN_STEPS, chunk_noise, flow_schedule, sample_unipc
from lyra_core.generate.lyra2.speed import SKIP_BELOW, speed_names, weights_of
from lyra_core.generate.lyra2.vae import CodecWan, State, VideoCodec
from lyra_core.io.files import write_bytes
from lyra_core.memory.cache import FrameCache
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.types import Camera, Frame, Trajectory
from tests.benchmarks.tables import number, table
from tests.memory import truth_rooms

VARIANTS = ("exact", "fp8", "fp8+skip_guidance", "distilled", "distilled+fp8")
STAGES = ("retrieval", "warp", "VAE", "denoise", "depth")
AIMS = {"exact": 270, "fp8": 220, "cache": 150, "distilled": 25}
"""Seconds per chunk on one H200 that were asked for."""
CHUNK = 80


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
        twin.to(dtype)
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


@dataclass(frozen=True)
class Result:
    """One variant under one plan."""

    plan: str
    variant: str
    seconds: dict[str, float]
    passes: int
    timed: str
    share: float
    """Of the ceiling, while denoising."""
    peaks: dict[str, float]
    expected: MemoryPlan | None
    difference: float | None
    """Of the velocity, relative to the exact one of the same plan."""

    @property
    def total(self) -> float:
        """Seconds per chunk."""
        return sum(self.seconds.values())


def settings_of(variant: str, steps: int) -> Lyra2Cfg:
    """Return the generator's settings of a variant."""
    names = variant.split("+")
    speed = "+".join(name for name in names if name not in ("exact", "distilled")) or "exact"
    return Lyra2Cfg(preset="custom", distilled="distilled" in names, steps=steps, speed=speed)


def passes_of(cfg: Lyra2Cfg) -> int:
    """Return the network's passes per chunk, without those a cache skips."""
    if cfg.distilled:
        return DISTILLED_STEPS
    below = SKIP_BELOW if "skip_guidance" in speed_names(cfg.speed) else 0.0
    return sum(1 if t < TRAIN_STEPS * below else 2 for t in flow_schedule(cfg.steps, cfg.shift)[1])


class Bench:
    """One plan: a network placed once per precision, and the chunk that its variants make."""

    def __init__(
        self, scale: Scale, device: torch.device, plan: str, scene: Scene, depth: DepthAnything, timed_steps: int
    ) -> None:
        self.scale, self.device, self.plan, self.scene, self.depth = scale, device, plan, scene, depth
        self.timed_steps = timed_steps
        self._built: tuple[str, Components, MemoryPlan | None] | None = None
        self._exact: Tensor | None = None

    def components(self, cfg: Lyra2Cfg, clock: Clock) -> tuple[Components, MemoryPlan | None]:
        """Return random parts placed for these settings; the last ones if the precision is theirs."""
        names = speed_names(cfg.speed)
        weights = weights_of(names)
        if self._built is None or self._built[0] != weights:
            self._built = None
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            plan = None
            if self.device.type == "cuda":
                plan = plan_for(self.plan, self.scale.network, self.scale.height, self.scale.width, weights=weights, cache=True)
                print(plan.table(), flush=True)
            network = random_network(self.scale, plan, self.device)
            if plan is None and weights != "bf16":
                place(network, plan_for(80, self.scale.network, self.scale.height, self.scale.width, weights=weights), self.device)
            text, image = (torch.randn(n, c) for n, c in ((512, network.config.text_dim), (257, network.config.image_dim)))
            codec = random_codec(self.scale, plan, self.device)
            parts = Components(network, codec, lambda prompt: text, lambda prompt: -text, lambda frame: image, self.device)
            self._built = weights, parts, plan
        _, parts, plan = self._built
        return replace(parts, codec=CodecTimed(parts.codec, clock)), plan

    def run(self, variant: str, ceiling_tflops: float, steps: int) -> Result:
        """Time one chunk."""
        cfg, clock = settings_of(variant, steps), Clock(self.device)
        parts, plan = self.components(cfg, clock)
        generator = GeneratorLyra2(cfg=GenerateCfg(generator="lyra2", lyra2=cfg), components=parts)
        scene = self.scene
        torch.manual_seed(0)
        stream = generator._begin(scene.first)
        with clock.stage("retrieval"):
            ids = MemoryLyra2().retrieve(scene.cache, scene.request.trajectory[slice(CHUNK - 1, None)], count=5)
            request = replace(scene.request, retrieved=tuple(scene.cache.frame(i) for i in ids))
        # Kernels are compiled once per process; the chunk that is timed is not the first.
        generator._inputs(request, scene.first, stream)
        clock.seconds.pop("VAE")
        with clock.stage("warp"):
            inputs = generator._inputs(request, scene.first, stream)
        clock.seconds["warp"] -= clock.seconds["VAE"]
        sampled, passes, timed, velocity = self._denoise(generator, inputs, cfg, clock)
        frames, _ = generator._extend(stream, sampled)
        made = [Frame(rgb, np.full(rgb.shape[:2], np.nan, np.float32), scene.first.camera, T, np.zeros(rgb.shape[:2], np.uint8))
                for rgb, T in zip(frames, request.trajectory.T_world_camera, strict=True)][3::4]
        self.depth.estimate_frames(made[:1], history=[request.newest])
        with clock.stage("depth"):
            self.depth.estimate_frames(made, history=[request.newest, *request.retrieved])
        difference = None
        if variant in ("exact", "distilled"):
            self._exact = velocity
        elif self._exact is not None:
            difference = float((velocity - self._exact).norm() / self._exact.norm())
        operations = pass_operations(self.scale.network, self.scale.height, self.scale.width)
        share = passes * operations / clock.seconds["denoise"] / 1e12 / ceiling_tflops
        seconds = {name: clock.seconds[name] for name in STAGES}
        return Result(self.plan, variant, seconds, passes, timed, share, clock.peaks, plan, difference)

    @torch.no_grad()
    def _denoise(
        self, generator: GeneratorLyra2, inputs: ChunkInputs, cfg: Lyra2Cfg, clock: Clock
    ) -> tuple[Tensor, int, str, Tensor]:
        """Return latents, passes per chunk, how they were timed, and one velocity."""
        parts = generator.components
        texts = [parts.encode_text("")] + ([] if cfg.distilled else [parts.negative_text(None)])
        make: Callable[[], Any] = lambda: generator._velocity(inputs, texts, parts.encode_image(torch.zeros(1)))  # noqa: E731
        noise = chunk_noise(0, (inputs.history.shape[0], generator.packing.new_length, *inputs.history.shape[2:])).to(self.device)
        velocity = make()
        made = velocity(noise, 900.0)
        velocity(noise, 900.0)
        total = passes_of(cfg)
        if "cache" in speed_names(cfg.speed):
            velocity = make()
            before = generator._cache.skipped if generator._cache else 0
            with clock.stage("denoise"):
                sampled = sample_unipc(velocity, noise, steps=cfg.steps, shift=cfg.shift)
            skipped = generator._cache.skipped - before if generator._cache else 0
            return sampled, total - skipped, f"all steps, {skipped} of {total} passes skipped", made
        state = noise
        with clock.stage("denoise"):
            for i in range(self.timed_steps):
                state = noise - 0.1 * velocity(state, 999.0 - i)
        timed = self.timed_steps * len(texts)
        clock.seconds["denoise"] *= total / timed
        return noise, total, f"{timed} passes x {total / timed:.1f}", made


def report(results: list[Result], conditions: str, tflops: float, scale: Scale) -> str:
    """Return the tables as Markdown."""
    rows = [
        [f"{r.plan} GB: {r.variant}", *(number(r.seconds[stage], 2) for stage in STAGES), number(r.total), f"{100 * r.share:.0f} %",
         "-" if r.difference is None else f"{100 * r.difference:.2f} %", r.timed]
        for r in results
    ]
    lines = [
        conditions, "", f"Ceiling: {tflops:.2f} TFLOP/s, measured on a {scale.ceiling} x {scale.ceiling} product. Seconds per chunk "
        f"of {CHUNK} frames; share of the ceiling while denoising; difference of one velocity, relative to the exact one.", "",
        table(["plan: variant", *STAGES, "total", "share", "difference", "denoise timed"], rows),
    ]
    peaks = [r for r in results if r.expected is not None and r.peaks]
    if peaks:
        pairs = {"warp": ["condition"], "denoise": ["denoise"], "VAE": ["condition", "decode", "encode"], "depth": ["depth"]}
        cells = [
            [f"{r.plan} GB: {r.variant}",
             *(f"{r.peaks[stage]:.1f} / {max(r.expected.peaks[name] for name in names):.1f}" for stage, names in pairs.items())]
            for r in peaks if r.expected is not None
        ]
        lines += ["", "Peak memory in use [GiB], counted by torch / expected by the plan.", "", table(["plan: variant", *pairs], cells)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Prove, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny network, codec and frames")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plan", nargs="+", default=["80"], help="memory plans: auto, 24, 48, 80 or a number of GiB")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--timed-steps", type=int, default=3, help="denoising steps that are timed")
    parser.add_argument("--write", type=Path, help="Markdown file for the tables")
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    scale, device = QUICK if options.quick else FULL, torch.device(options.device)
    if device.type == "cpu" and not options.quick:
        raise SystemExit("a full-size pass takes hours on a CPU: use --quick")
    prove(device)
    print("proven: operations as torch counts them; placed networks agree", flush=True)
    tflops = ceiling(device, scale.ceiling)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tokens = token_count(scale.network, scale.height, scale.width)
    conditions = (f"{datetime.date.today()}: {name}, torch {torch.__version__}, {scale.width} x {scale.height} px, {tokens} tokens, "
                  f"{options.steps} steps with guidance, random weights" + (", tiny network" if options.quick else ""))
    scene, results = Scene.make(scale), []
    with tempfile.TemporaryDirectory() as folder:
        depth = random_depth(scale, Path(folder))
        for plan in options.plan:
            bench = Bench(scale, device, plan, scene, depth, options.timed_steps)
            for variant in options.variants:
                results.append(bench.run(variant, tflops, options.steps))
                print(f"{plan}: {variant}: {results[-1].total:.1f} s ({results[-1].timed})", flush=True)
    text = report(results, conditions, tflops, scale)
    print(text)
    if options.write:
        write_bytes(options.write, text.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
