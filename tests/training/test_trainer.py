"""Training the video model at tiny size: it learns, it resumes, it can be stopped, it shards, and it says what is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from clip_of_a_wall import walls  # noqa: E402

from lyra_core.errors import ConfigError, LyraError  # noqa: E402
from lyra_core.generate.lyra2.packing import Packing  # noqa: E402
from lyra_core.training.sampling import Sampler  # noqa: E402
from lyra_core.training.settings import DataCfg, HistoryCfg, NetworkCfg, OptimCfg, RunCfg, TrainCfg, load_train_config  # noqa: E402
from lyra_core.training.trainer import Trainer, learning_rate  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs" / "train"
PACKING = "f1k1f1s1f1k1_g1"
PLAIN = HistoryCfg(
    preset="custom", probability=0.0, image_share=0.0, memory_noise_std=-1.0, memory_stride=2, memory_gap=2, point_subsampling=2
)
REPO = replace(PLAIN, probability=1.0, image_share=0.3)


def tiny(
    output: Path, *, history: HistoryCfg = PLAIN, optim: OptimCfg | None = None, network: dict | None = None, **run
) -> TrainCfg:
    settings = {
        "packing": PACKING, "heads": 4, "head_dim": 16, "ffn_dim": 128, "layers": 2, "text_dim": 4, "image_dim": 3, "freq_dim": 32,
        "squeeze": 4, "codec": "patch", "codec_channels": 3, "encoders": "plain", **(network or {}),
    }
    steps = {"iterations": 6, "batch": 2, "micro_batch": 2, "save_every": 3, "precision": "no", "gradient_checkpointing": False,
             "workers": 0, "device": "cpu", "threads": 1, **run}
    return TrainCfg(
        output=str(output), network=NetworkCfg(**settings), history=history, run=RunCfg(**steps),
        data=DataCfg(kind="procedural", width=48, height=32, pool=1),
        optim=optim or OptimCfg(learning_rate=3e-3, warmup=5, clip=1.0, shift=1.0, weighting="uniform"),
    )


def trainer(cfg: TrainCfg, *, clips: int = 2, frames: int = 17) -> Trainer:
    sampler = Sampler(walls(clips, frames), Packing.parse(cfg.network.packing), cfg.history, seed=cfg.seed, pool=1)
    return Trainer(cfg, sampler=sampler)


def losses_of(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.log]


def test_one_clip_is_learned_by_heart(tmp_path: Path):
    optim = OptimCfg(learning_rate=8e-3, warmup=10, clip=1.0, shift=1.0, weighting="uniform", decay="cosine")
    run = trainer(tiny(tmp_path, optim=optim, iterations=80, batch=8, micro_batch=8, save_every=80), clips=1, frames=5)
    assert run.run()["done"]
    losses = losses_of(run)
    # 1 is the noise alone: below that, the clip itself is known.
    assert np.mean(losses[-10:]) < min(np.mean(losses[:3]) / 10, 0.3)
    assert (tmp_path / "network" / "config.json").is_file()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainCfg, list[float]]:
    cfg = tiny(tmp_path_factory.mktemp("whole"), history=REPO)
    run = trainer(cfg)
    run.run()
    return cfg, losses_of(run)


def test_every_kind_of_sample_was_drawn(uninterrupted):
    from lyra_core.training.sampling import draw_mode

    cfg, losses = uninterrupted
    assert {draw_mode(cfg.history, seed=cfg.seed, step=i) for i in range(6)} == {"plain", "self_augmented", "image"}
    assert len(losses) == 6 and np.isfinite(losses).all()


def test_a_resumed_run_has_the_same_losses(uninterrupted, tmp_path: Path):
    cfg, losses = uninterrupted
    first = replace(cfg, output=str(tmp_path), run=replace(cfg.run, iterations=3))
    trainer(first).run()
    again = trainer(replace(first, run=replace(cfg.run, iterations=6)))
    with pytest.raises(ConfigError, match="give --resume"):
        again.run()
    again.run(resume=True)
    assert losses_of(again) == losses


def test_ctrl_c_leaves_a_checkpoint(uninterrupted, tmp_path: Path):
    cfg, losses = uninterrupted
    run = trainer(replace(cfg, output=str(tmp_path), run=replace(cfg.run, save_every=100)))
    step = run.train_step

    def interrupted(samples):
        if run.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(samples)

    run.train_step = interrupted
    assert threading.current_thread() is threading.main_thread()
    said = run.run()
    assert not said["done"] and said["step"] == 2
    again = trainer(replace(cfg, output=str(tmp_path)))
    again.run(resume=True)
    assert losses_of(again) == losses


def test_another_run_is_not_resumed(uninterrupted):
    cfg, _ = uninterrupted
    other = trainer(replace(cfg, optim=replace(cfg.optim, learning_rate=1e-4)))
    with pytest.raises(ConfigError, match="other settings"):
        other.run(resume=True)


def test_average_follows_the_weights(tmp_path: Path):
    run = trainer(tiny(tmp_path, optim=OptimCfg(learning_rate=1e-2, warmup=0, ema=0.5, clip=1.0), iterations=1))
    before = {name: p.detach().clone() for name, p in run.trained.items()}
    run.run()
    for name, now in run.trained.items():
        torch.testing.assert_close(run.average.values[name], (before[name] + now.detach()) / 2)


def test_frozen_weights_stay(tmp_path: Path):
    run = trainer(tiny(tmp_path, network={"trainable": "attn1,cam_encoder,buffer_encoder,patch_embedding"}, iterations=2))
    before = {name: p.detach().clone() for name, p in run.network.named_parameters()}
    run.run()
    changed = {name for name, p in run.network.named_parameters() if not torch.equal(p, before[name])}
    parts = ("attn1", "cam_encoder", "buffer_encoder", "patch_embedding")
    assert changed and all(any(part in name for part in parts) for name in changed)


def test_gradients_do_not_depend_on_micro_batches_or_checkpointing(uninterrupted, tmp_path: Path):
    cfg, losses = uninterrupted
    run = trainer(replace(cfg, output=str(tmp_path), run=replace(cfg.run, micro_batch=1, gradient_checkpointing=True)))
    run.run()
    np.testing.assert_allclose(losses_of(run), losses, rtol=1e-4)


def test_a_gradient_that_stays_infinite_ends_the_run(tmp_path: Path):
    run = trainer(tiny(tmp_path, iterations=30))
    with torch.no_grad():
        run.network.network.proj_out.weight.fill_(float("nan"))
    with pytest.raises(LyraError, match="not finite"):
        run.run()


def test_learning_rate():
    cfg = OptimCfg(learning_rate=1.0, warmup=10, decay="cosine", final=0.1)
    assert learning_rate(cfg, 0, 100) == pytest.approx(0.1)
    assert learning_rate(cfg, 50, 100) == pytest.approx(0.55)
    assert learning_rate(cfg, 100, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("path", sorted(p for p in CONFIGS.glob("lyra2*.yaml") if "distill" not in p.name), ids=lambda p: p.stem)
def test_shipped_settings_load(path: Path):
    assert load_train_config(path).run.batch >= 1


@pytest.mark.parametrize(("text", "said"), [
    ("network: {packin: x}", "unknown key 'packin'; nearest is 'packing'"),
    ("optim: {clip: 0}", "optim: clip: got 0"),
    ("data: {path: x, width: 830}", "width: got 830, expected a multiple of 16"),
    ("data: {path: x}\nhistory: {probability: 0.4}", "preset 'repo' has 1.0"),
    ("data: {path: x}\nhistory: {preset: nobody}", "expected one of repo, paper, custom"),
    ("data: {}", "data: path: got nothing"),
])
def test_bad_settings_are_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        load_train_config(tmp_path / "c.yaml")
    assert "c.yaml" in str(error.value)


def test_presets_differ_as_documented(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("data: {path: x}\nhistory: {preset: paper}")
    paper = load_train_config(tmp_path / "c.yaml").history
    assert (paper.every, paper.image_share, paper.probability, paper.ray_noise) == (1, 0.3, 0.7, 0.1)


SHARDED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from test_trainer import REPO, tiny, trainer
run = trainer(tiny(Path({output!r}), history=REPO, iterations=5))
run.run()
assert run.accelerator.num_processes == 1 or run.accelerator.is_fsdp2
"""


@pytest.mark.slow
def test_two_sharded_processes_do_what_one_does(uninterrupted, tmp_path: Path):
    _, losses = uninterrupted
    script = tmp_path / "run.py"
    script.write_text(SHARDED.format(tests=str(Path(__file__).parent), root=str(CONFIGS.parents[1]), output=str(tmp_path / "out")))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29541", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    import json

    shared = [json.loads(line)["loss"] for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(shared, losses[:5], rtol=1e-5)
    assert len(list((tmp_path / "out" / "checkpoints" / "00000005").glob("rank-*.safetensors"))) == 2
