"""What training does for rollouts, on our own procedural worlds: ``python -m tests.benchmarks.training [--quick]``.

Two questions, each with five seeds and error bars. (1) Does self-augmented history make a rollout of ten chunks drift less? One
network is trained with it and one without, from the same start, with the same clips, the same number of steps and the same share of
image-to-video samples; both then walk through worlds that neither has seen. (2) Does retrieval bring a place back that has left the
temporal history? The camera turns away and returns; the same network walks once with and once without retrieved frames: after true
frames of the place, where the truth can be met, and after frames of its own, where only agreement with them can be asked.

The truth is exact: every world renders its own frames along the path. Drift is measured per chunk as PSNR against what the codec
can show of the true frames, and as the distance of the pictures' mean and spread of colour, which blur and discolouring change and
which a wrong but plausible picture does not.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.generate.lyra2.packing import Packing
from lyra_core.io.files import write_json
from lyra_core.training.clips import Clip
from lyra_core.training.data import build_source
from lyra_core.training.network import build_codec, build_encoders
from lyra_core.training.procedural import EYE_HEIGHT, PlayWorld, ProceduralSource, camera_of
from lyra_core.training.rollout import Start, roll_out
from lyra_core.training.sampling import Sampler
from lyra_core.training.settings import HistoryCfg, TrainCfg, load_train_config
from lyra_core.training.trainer import Trainer
from lyra_core.types import Trajectory
from tests.benchmarks.curves import Curve, draw_curves
from tests.benchmarks.tables import number, table

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs" / "train"
CHUNKS, RETURN_CHUNKS, TRUE_CHUNKS = 10, 11, 5
"""Chunks of a walk, of a returning path, and of its beginning that is given as true frames in one of the two ways."""
HELD_OUT = 1000
"""Seed of the first world that no network is trained on."""
TURN = np.radians(100.0)
"""How far the returning path turns; a picture shows 80 degrees."""
REVISITED = 4
"""Frames at the end of the returning path that have exactly the poses of earlier ones."""


@dataclass(frozen=True)
class Plan:
    """Sizes of a benchmark."""

    config: str
    seeds: int
    base_steps: int
    """Steps without self-augmentation that both networks of a seed share."""
    branch_steps: int
    """Steps after which they are compared."""
    worlds: int
    """Held-out worlds."""
    walks: int
    """Walks per world."""
    sampler_steps: int


PLANS = {
    "cpu": Plan("lyra2_tiny.yaml", 5, 400, 400, 6, 2, 8),
    "quick": Plan("lyra2_tiny.yaml", 1, 20, 10, 1, 1, 4),
    "gpu": Plan("lyra2_one_gpu.yaml", 1, 0, 10**6, 6, 2, 20),
}
"""'gpu' trains each network for the minutes of its settings per call, and goes on at the next: equal time, not equal steps."""


def without(history: HistoryCfg) -> HistoryCfg:
    """Return the settings without self-augmentation; everything else, the share of image-to-video samples too, stays."""
    return replace(history, probability=0.0)


def trained_pair(cfg: TrainCfg, plan: Plan, folder: Path, clips: Sampler) -> dict[str, Trainer]:
    """Train a common start, and from it one network with self-augmented history and one without."""
    start = None
    if plan.base_steps:
        base = _run(cfg, without(cfg.history), plan.base_steps, folder / "base", clips, None)
        start = {name: value.detach().clone() for name, value in base.network.state_dict().items()}
    return {
        name: _run(replace(cfg, seed=cfg.seed + 100), history, plan.branch_steps, folder / name, clips, start)
        for name, history in (("without", without(cfg.history)), ("with", cfg.history))
    }


def _run(
    cfg: TrainCfg, history: HistoryCfg, steps: int, folder: Path, clips: Sampler, start: dict[str, Tensor] | None
) -> Trainer:
    run = replace(cfg.run, iterations=steps, save_every=min(cfg.run.save_every, max(1, steps // 4)))
    trainer = Trainer(replace(cfg, output=str(folder), history=history, run=run), sampler=clips.like(history, seed=cfg.seed))
    if start is not None:
        trainer.network.load_state_dict(start)
    began = time.perf_counter()
    trainer.run(resume=True)
    losses = [entry["loss"] for entry in trainer.log]
    seconds = time.perf_counter() - began
    print(f"{folder}: {trainer.step} steps, the last of them in {seconds:.0f} s, loss {np.mean(losses[-50:]):.3f}", flush=True)
    return trainer


def walks(cfg: TrainCfg, plan: Plan) -> list[Start]:
    """Return walks through held-out worlds."""
    frames = 1 + CHUNKS * Packing.parse(cfg.network.packing).chunk_frames
    folder = Path(cfg.data.path) / "held_out" if cfg.data.path else None
    source = ProceduralSource(folder, cfg.data.width, cfg.data.height, frames, plan.worlds * plan.walks, plan.worlds, HELD_OUT)
    return [Start(source.load(i), seed=31 * i) for i in range(len(source))]


def turning_path(cfg: TrainCfg, frames: int, yaw: float, place: np.ndarray) -> Trajectory:
    """Turn from ``yaw`` by TURN, away again beyond where it began, and back, so that the end repeats an earlier hold."""
    at = np.array([0.0, 0.32, 0.40, 0.66, 0.70, 0.95, 1.0]) * (frames - 1)
    to = np.array([0.0, 1.0, 1.0, -0.3, -0.3, 1.0, 1.0]) * TURN
    i = np.arange(frames)
    k = np.clip(np.searchsorted(at, i, side="right") - 1, 0, len(at) - 2)
    u = (i - at[k]) / (at[k + 1] - at[k])
    yaws = yaw + to[k] + (to[k + 1] - to[k]) * u * u * (3 - 2 * u)
    camera, position = camera_of(cfg.data.width, cfg.data.height), np.append(place, EYE_HEIGHT)
    T = np.stack([from_yaw_pitch(position, angle) for angle in yaws])
    return Trajectory(T, np.repeat(camera.K[None], frames, 0), camera.width, camera.height)


def returns(cfg: TrainCfg, plan: Plan) -> tuple[list[Start], np.ndarray]:
    """Return returning paths in held-out worlds, and the frames of the first visit that the last REVISITED ones repeat."""
    frames = 1 + RETURN_CHUNKS * Packing.parse(cfg.network.packing).chunk_frames
    hold = round(0.36 * (frames - 1))
    starts = []
    for i in range(plan.worlds):
        world = PlayWorld.make(HELD_OUT + i)
        for k in range(plan.walks):
            path = turning_path(cfg, frames, 2 * np.pi * k / plan.walks + 0.4 * i, world.places[0])
            rgb, depth = world.frames(path)
            # The default arguments bind this walk's arrays.
            clip = Clip(f"return-{i}-{k}", path, lambda ids, rgb=rgb: rgb[list(ids)], lambda ids, depth=depth: depth[list(ids)])
            starts.append(Start(clip, seed=1000 + 31 * len(starts)))
    return starts, np.full(REVISITED, hold)


def rolled(
    trainer: Trainer, starts: list[Start], chunks: int, plan: Plan, *, retrieval: bool = True, given: int = 0
) -> list[Tensor]:
    """Return the frames of rollouts."""
    cfg = trainer.cfg
    text, image = build_encoders(cfg.network, trainer.parts.device)
    made = roll_out(
        trainer.network.eval(), trainer.parts.codec, starts, encode_text=text, encode_image=image, chunks=chunks,
        steps=plan.sampler_steps, shift=cfg.optim.shift, retrieval=retrieval, memory_stride=cfg.history.memory_stride,
        point_subsampling=cfg.history.point_subsampling, given=given,
    )
    return [frames for frames, _ in made]


def shown(cfg: TrainCfg, video: Tensor) -> Tensor:
    """Return what the codec can show of a video (3, F, H, W)."""
    codec = build_codec(cfg.network, torch.device("cpu"))
    return codec.decode(codec.encode(video[None])[0])[0][0].clamp(-1, 1)


def psnr(a: Tensor, b: Tensor) -> float:
    """Return the PSNR of videos in [-1, 1] [dB]."""
    return float(-10 * torch.log10(((a - b) ** 2).mean() / 4))


def colour_distance(a: Tensor, b: Tensor) -> float:
    """Return how far mean and spread of colour of frames (3, n, H, W) lie apart: root mean square over the six numbers."""
    statistics = [torch.cat([x.flatten(2).mean(2), x.flatten(2).std(2)]) for x in (a, b)]
    return float(((statistics[0] - statistics[1]) ** 2).mean().sqrt())


def drift(cfg: TrainCfg, starts: list[Start], made: list[Tensor]) -> dict[str, list[float]]:
    """Return PSNR and colour distance per chunk, means over walks."""
    size = Packing.parse(cfg.network.packing).chunk_frames
    rows: dict[str, list[list[float]]] = {"psnr": [], "colour": []}
    for start, frames in zip(starts, made, strict=True):
        truth = shown(cfg, start.clip.rgb(range(frames.shape[1])))
        parts = [slice(1 + size * c, 1 + size * (c + 1)) for c in range((frames.shape[1] - 1) // size)]
        rows["psnr"].append([psnr(frames[:, p], truth[:, p]) for p in parts])
        rows["colour"].append([colour_distance(frames[:, p], truth[:, p]) for p in parts])
    return {name: np.mean(values, 0).tolist() for name, values in rows.items()}


def agreement(made: list[Tensor], earlier: np.ndarray) -> float:
    """Return the PSNR of the revisited frames against what was generated at the same poses before, mean over walks."""
    return float(np.mean([psnr(frames[:, -REVISITED:], frames[:, earlier.tolist()]) for frames in made]))


def contact_sheet(path: Path, cfg: TrainCfg, starts: list[Start], rows: dict[str, list[Tensor]], *, walks_shown: int = 3) -> None:
    """Write a picture: for some walks the truth as the codec shows it, and each variant below it, one frame per chunk."""
    size, lines = Packing.parse(cfg.network.packing).chunk_frames, []
    for i in range(min(walks_shown, len(starts))):
        count = next(iter(rows.values()))[i].shape[1]
        for video in [shown(cfg, starts[i].clip.rgb(range(count))), *(made[i] for made in rows.values())]:
            frames = ((video[:, ::size] + 1) * 127.5).clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()
            lines.append(np.concatenate(list(frames), 1))
    sheet = cv2.resize(np.concatenate(lines), None, fx=1.5, fy=1.5, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(path), sheet[..., ::-1])


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Train, roll out, measure; returns everything that the figure and the table show."""
    results: dict[str, Any] = {"plan": vars(plan), "seeds": []}
    settings = load_train_config(CONFIGS / plan.config)
    settings = replace(settings, data=replace(settings.data, path=str(folder.parent / f"clips-{settings.data.width}")))
    packing = Packing.parse(settings.network.packing)
    clips = Sampler(build_source(settings.data), packing, settings.history, seed=0, pool=settings.data.pool)
    for seed in range(plan.seeds):
        cfg = replace(settings, seed=seed)
        pair = trained_pair(cfg, plan, folder / f"seed-{seed}", clips)
        starts = walks(cfg, plan)
        made = {name: rolled(trainer, starts, CHUNKS, plan) for name, trainer in pair.items()}
        back, earlier = returns(cfg, plan)
        own, known = (
            {name: rolled(pair["with"], back, RETURN_CHUNKS, plan, retrieval=name == "on", given=given) for name in ("off", "on")}
            for given in (0, TRUE_CHUNKS)
        )
        contact_sheet(folder / f"drift-{seed}.png", cfg, starts, made)
        contact_sheet(folder / f"return-own-{seed}.png", cfg, back, own)
        contact_sheet(folder / f"return-true-{seed}.png", cfg, back, known)
        results["seeds"].append({
            "seed": seed,
            "drift": {name: drift(cfg, starts, videos) for name, videos in made.items()},
            "return": {
                name: {"agreement": agreement(own[name], earlier), "truth": drift(cfg, back, known[name])["psnr"][TRUE_CHUNKS:]}
                for name in ("off", "on")
            },
        })
        write_json(folder / "training.json", results)
    return results


def series(results: dict[str, Any], *keys: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error over seeds of a list or number found by keys."""
    values = []
    for entry in results["seeds"]:
        for key in keys:
            entry = entry[key]
        values.append(np.atleast_1d(np.asarray(entry, float)))
    rows = np.array(values)
    error = rows.std(0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(rows.shape[1])
    return rows.mean(0), error


def figure(results: dict[str, Any], path: Path) -> None:
    """Draw both questions side by side."""
    x = np.arange(1, CHUNKS + 1)
    panels = [
        ("Drift: PSNR against the truth [dB]", "chunk", [
            Curve(f"{name} self-augmentation", x, *series(results, "drift", name, "psnr")) for name in ("without", "with")]),
        ("Drift: distance of colour statistics", "chunk", [
            Curve(f"{name} self-augmentation", x, *series(results, "drift", name, "colour")) for name in ("without", "with")]),
        ("Returning after true frames: PSNR [dB]", "chunk", [
            Curve(f"retrieval {name}", np.arange(TRUE_CHUNKS + 1, RETURN_CHUNKS + 1), *series(results, "return", name, "truth"))
            for name in ("off", "on")]),
    ]
    draw_curves(path, panels)


def report(results: dict[str, Any]) -> str:
    """Return the table."""
    def cell(*keys: str, at: int = -1, digits: int = 2) -> str:
        mean, error = series(results, *keys)
        return f"{number(float(mean[at]), digits)} +- {number(float(error[at]), digits)}"

    rows = [
        [f"{what}, {name}", cell(*keys, at=0, digits=digits), cell(*keys, digits=digits)]
        for what, key, digits in (("PSNR [dB]", "psnr", 2), ("colour distance", "colour", 3))
        for name in ("without", "with") for keys in [("drift", name, key)]
    ]
    rows += [[f"return after true frames, retrieval {name}: PSNR [dB]", cell("return", name, "truth", at=0),
              cell("return", name, "truth")] for name in ("off", "on")]
    rows += [[f"return after own frames, retrieval {name}: agreement with them [dB]", "-", cell("return", name, "agreement")]
             for name in ("off", "on")]
    return table(["measure (mean +- standard error over seeds)", "first chunk", "last chunk"], rows)


def main() -> None:
    """Run the benchmark and write training.json, the contact sheets and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it runs; the numbers mean nothing")
    parser.add_argument("--gpu", action="store_true", help="100 M parameters on one GPU, twice eight minutes with resume")
    parser.add_argument("--branch-steps", type=int, help="steps after the common start, in place of the plan's")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "training")
    parser.add_argument("--figure", type=Path, help="where the figure goes; default: beside the results")
    args = parser.parse_args()
    plan = PLANS["quick" if args.quick else "gpu" if args.gpu else "cpu"]
    folder = args.out / ("quick" if args.quick else "gpu" if args.gpu else "cpu")
    if args.branch_steps:
        plan, folder = replace(plan, branch_steps=args.branch_steps), folder.with_name(f"{folder.name}-{args.branch_steps}")
    folder.mkdir(parents=True, exist_ok=True)
    results = measure(plan, folder)
    figure(results, args.figure or folder / "training.png")
    print(report(results))
    print(json.dumps({"results": str(folder / "training.json")}))


if __name__ == "__main__":
    main()
