"""The Lyra 2 generator: seconds per chunk of 80 frames, share of the card's bf16 ceiling, peak memory against the plan.

``python -m tests.benchmarks.lyra2 [--quick] [--device cuda] [--plan 80 24] [--variants exact fp8 ...] [--write FILE.md]`` builds
the network, Wan's codec and a depth model with random weights at full size on the card (832 x 480 px; weights do not change what
a pass costs), walks through rooms that are ray-cast exactly, and times one chunk through the generator's own functions. A variant
is the memory plan's network with approximations by name (see speed.py), or 'distilled'. Denoising is timed over a few steps and
multiplied, but for variants with 'cache', which run all of them; random weights say what a skipped pass saves, not how many
trained ones allow. ``--all-steps`` multiplies nothing. ``--quick`` is the same at tiny size, for a CPU.

Before anything is timed it is proven right: a placed network must agree with the plain one, and the operations that the share of
the ceiling rests on with torch's own counter.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lyra_core.config import GenerateCfg, Lyra2Cfg
from lyra_core.depth.depth_anything import DepthAnything
from lyra_core.generate.lyra2.components import Components
from lyra_core.generate.lyra2.conditioning import ChunkInputs
from lyra_core.generate.lyra2.generator import GeneratorLyra2
from lyra_core.generate.lyra2.plans import MemoryPlan, place, plan_for, token_count
from lyra_core.generate.lyra2.samplers import (
    DISTILLED_STEPS,
    TRAIN_STEPS,
    Velocity,
    chunk_noise,
    flow_schedule,
    sample_distilled,
    sample_unipc,
)
from lyra_core.generate.lyra2.speed import SKIP_BELOW, speed_names, weights_of
from lyra_core.io.files import write_bytes
from lyra_core.memory.lyra2 import MemoryLyra2
from lyra_core.types import Frame
from tests.benchmarks.lyra2_parts import (
    CHUNK,
    FULL,
    QUICK,
    Clock,
    CodecTimed,
    Scale,
    Scene,
    ceiling,
    pass_operations,
    prove,
    random_codec,
    random_depth,
    random_network,
)
from tests.benchmarks.tables import number, table

VARIANTS = ("exact", "fp8", "fp8+skip_guidance", "distilled", "distilled+fp8")
STAGES = ("retrieval", "warp", "VAE", "denoise", "depth")
AIMS = {"exact": 270, "fp8": 220, "cache": 150, "distilled": 25}
"""Seconds per chunk on one H200 that were asked for."""
PLANNED = {"warp": ["condition"], "denoise": ["denoise"], "VAE": ["condition", "decode", "encode"], "depth": ["depth"]}
"""Stage here -> stages of the memory plan."""


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
    """Of one velocity (with all steps: of the latents), relative to the exact one of the same plan."""

    @property
    def label(self) -> str:
        """Plan and variant."""
        return self.variant if self.expected is None else f"{self.plan}: {self.variant}"

    @property
    def aim(self) -> float | None:
        """Seconds that were asked for of such a variant on a card."""
        names = () if self.expected is None else ("distilled", "cache", "fp8", "exact")
        return next((AIMS[name] for name in names if name in self.variant.split("+")), None)

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
        self, scale: Scale, device: torch.device, plan: str, scene: Scene, depth: DepthAnything, *, timed_steps: int,
        all_steps: bool,
    ) -> None:
        self.scale, self.device, self.plan, self.scene, self.depth = scale, device, plan, scene, depth
        self.timed_steps, self.all_steps = timed_steps, all_steps
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
            torch.manual_seed(0)
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
        sampled, passes, timed, compared = self._denoise(generator, inputs, cfg, clock)
        if generator._cache is not None:
            generator._cache.remove()
        frames, _ = generator._extend(stream, sampled)
        made = [Frame(rgb, np.full(rgb.shape[:2], np.nan, np.float32), scene.first.camera, T, np.zeros(rgb.shape[:2], np.uint8))
                for rgb, T in zip(frames, request.trajectory.T_world_camera, strict=True)][3::4]
        self.depth.estimate_frames(made[:1], history=[request.newest])
        with clock.stage("depth"):
            self.depth.estimate_frames(made, history=[request.newest, *request.retrieved])
        difference = None
        if variant in ("exact", "distilled"):
            self._exact = compared
        elif self._exact is not None:
            difference = float((compared - self._exact).norm() / self._exact.norm())
        operations = pass_operations(self.scale.network, self.scale.height, self.scale.width)
        share = passes * operations / clock.seconds["denoise"] / 1e12 / ceiling_tflops
        seconds = {name: clock.seconds[name] for name in STAGES}
        return Result(self.plan, variant, seconds, passes, timed, share, clock.peaks, plan, difference)

    @torch.no_grad()
    def _denoise(
        self, generator: GeneratorLyra2, inputs: ChunkInputs, cfg: Lyra2Cfg, clock: Clock
    ) -> tuple[Tensor, int, str, Tensor]:
        """Return latents, passes per chunk, how they were timed, and what is compared: the latents, or one velocity."""
        parts = generator.components
        texts = [parts.encode_text("")] + ([] if cfg.distilled else [parts.negative_text(None)])
        shape = (inputs.history.shape[0], generator.packing.new_length, *inputs.history.shape[2:])
        noises = chunk_noise(0, (DISTILLED_STEPS, *shape)).to(self.device)

        def make() -> Velocity:
            return generator._velocity(inputs, texts, parts.encode_image(noises))

        velocity = make()
        made = velocity(noises[0], 900.0)
        velocity(noises[0], 900.0)
        total, skipped = passes_of(cfg), 0
        if self.all_steps or "cache" in speed_names(cfg.speed):
            velocity = make()
            with clock.stage("denoise"):
                sampled = sample(velocity, noises, cfg)
            if generator._cache is not None:
                # One more was skipped before, for the same state twice.
                skipped = generator._cache.skipped - len(texts)
            return sampled, total - skipped, f"all steps, {skipped} of {total} passes skipped", sampled if self.all_steps else made
        with clock.stage("denoise"):
            for i in range(self.timed_steps):
                velocity(noises[0], 999.0 - i)
        timed = self.timed_steps * len(texts)
        clock.seconds["denoise"] *= total / timed
        return noises[0], total, f"{timed} passes x {total / timed:.1f}", made


def sample(velocity: Velocity, noises: Tensor, cfg: Lyra2Cfg) -> Tensor:
    """Return latents as the generator samples them."""
    if cfg.distilled:
        return sample_distilled(velocity, noises[0], list(noises[1:]))
    return sample_unipc(velocity, noises[0], steps=cfg.steps, shift=cfg.shift)


def report(results: list[Result], conditions: str, tflops: float, scale: Scale) -> str:
    """Return the tables as Markdown."""
    rows = [
        [r.label, *(number(r.seconds[stage], 2) for stage in STAGES), number(r.total), number(r.aim, 0), f"{100 * r.share:.0f} %",
         "-" if r.difference is None else f"{100 * r.difference:.2f} %", r.timed]
        for r in results
    ]
    lines = [
        conditions, "",
        f"Ceiling: {tflops:.2f} TFLOP/s, of a {scale.ceiling} x {scale.ceiling} product. Seconds per chunk of {CHUNK} frames; aim: "
        "on one H200; share: of the ceiling, while denoising; difference: from the exact variant before, of one velocity (with "
        "--all-steps, of the latents).", "",
        table(["plan: variant", *STAGES, "total", "aim", "share", "difference", "denoise timed"], rows),
    ]
    planned = [(r, r.expected.peaks) for r in results if r.expected is not None]
    if planned:
        header = "Peak memory in use [GiB], counted by torch / expected by the plan."
        cells = [
            [r.label, *(f"{r.peaks[stage]:.1f} / {max(expected[name] for name in names):.1f}" for stage, names in PLANNED.items())]
            for r, expected in planned
        ]
        lines += ["", header, "", table(["plan: variant", *PLANNED], cells)]
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
    parser.add_argument("--all-steps", action="store_true", help="run all steps, and compare latents in place of velocities")
    parser.add_argument("--write", type=Path, help="Markdown file for the tables")
    options = parser.parse_args()
    scale, device = QUICK if options.quick else FULL, torch.device(options.device)
    if device.type == "cpu" and not options.quick:
        raise SystemExit("a full-size pass takes hours on a CPU: use --quick")
    if device.type == "cpu":
        # Tiny layers are slower on several threads.
        torch.set_num_threads(1)
    prove(device)
    print("proven: operations as torch counts them; placed networks agree", flush=True)
    tflops = ceiling(device, scale.ceiling)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    tokens, size = token_count(scale.network, scale.height, scale.width), "tiny network" if options.quick else "full size"
    conditions = (f"{datetime.date.today()}: {name}, torch {torch.__version__}, {scale.width} x {scale.height} px, {tokens} "
                  f"tokens, {options.steps} steps with guidance; random weights, {size}")
    scene, results = Scene.make(scale), []
    with tempfile.TemporaryDirectory() as folder:
        depth = random_depth(scale, Path(folder))
        for plan in options.plan:
            bench = Bench(scale, device, plan, scene, depth, timed_steps=options.timed_steps, all_steps=options.all_steps)
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
