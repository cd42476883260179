"""Fine-tuning of the Gaussian head: losses fall on views it was not shown, a resumed run repeats them, the backbone stays."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "surface"), str(TESTS / "splats")]
from feed_forward_tiny import walk  # noqa: E402
from skimage.metrics import structural_similarity  # noqa: E402

from lyra_core.build_files import save_frame  # noqa: E402
from lyra_core.camera.formats import save_trajectory  # noqa: E402
from lyra_core.config import SplatCfg, from_dict, load_config  # noqa: E402
from lyra_core.errors import ConfigError, InputError, WorldError  # noqa: E402
from lyra_core.io.files import read_json, write_json  # noqa: E402
from lyra_core.pipeline import build_world  # noqa: E402
from lyra_core.splats.feed_forward import splats_feed_forward, weights_licence  # noqa: E402
from lyra_core.splats.render import render_splats  # noqa: E402
from lyra_core.training.gaussian_head import (  # noqa: E402
    LOG,
    RANDOM_LICENCE,
    WEIGHTS,
    GaussianHeadCfg,
    Trainer,
    held_out_windows,
    load_rollouts,
    sample_window,
    ssim,
    train,
)
from lyra_core.types import Trajectory  # noqa: E402

CONFIGS = TESTS.parent / "configs" / "train"
FRAMES = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What training reads of a world: frames of the surface tests' room, with exact depth and cameras."""
    folder, frames = tmp_path_factory.mktemp("worlds") / "room", walk(FRAMES, width=84, height=56)
    for i, frame in enumerate(frames):
        save_frame(folder, i, frame)
    path = Trajectory(np.stack([f.T_world_camera for f in frames]), np.stack([f.camera.K for f in frames]), 84, 56)
    save_trajectory(folder / "trajectory.npz", path)
    write_json(folder / "world.json", {"schema": 1, "stages": {}})
    return folder


def tiny(world: Path, output: Path, **changes) -> GaussianHeadCfg:
    values = {"size": "tiny", "context": 2, "stride": 4, "targets": 1, "held_out": 0.3, "iterations": 24, "learning_rate": 4e-3,
              "warmup": 4, "save_every": 8, "long_side": 56, "device": "cpu"}
    return GaussianHeadCfg(worlds=str(world), output=str(output), **{**values, **changes})


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[GaussianHeadCfg, dict]:
    cfg = tiny(world, tmp_path_factory.mktemp("run") / "out")
    return cfg, train(cfg)


def test_held_out_views_get_better(run):
    _, log = run
    assert log["after"]["loss"] < 0.7 * log["before"]["loss"], log
    assert log["after"]["psnr"] > log["before"]["psnr"] + 3, log
    assert len(log["losses"]) == 24 and np.mean(log["losses"][-6:]) < 0.7 * np.mean(log["losses"][:6])


def test_a_resumed_run_repeats_every_loss(run, tmp_path: Path):
    cfg, log = run
    part = replace(cfg, output=str(tmp_path / "out"), iterations=8)
    assert train(part)["losses"] == log["losses"][:8]
    again = train(replace(part, iterations=24))
    assert again["losses"] == log["losses"] and again["before"] == log["before"] and again["after"] == log["after"]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (Path(cfg.output) / WEIGHTS).read_bytes()
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(part, learning_rate=1e-3))


def test_only_the_head_changes(run):
    cfg, _ = run
    fresh = Trainer(cfg).model.state_dict()
    trained = Trainer(replace(cfg, weights=str(Path(cfg.output) / WEIGHTS))).model.state_dict()
    changed = {name.partition(".")[0] for name, t in fresh.items() if not torch.equal(t, trained[name])}
    assert changed == {"gs_head"}


def test_the_result_makes_splats(run, world: Path):
    cfg, log = run
    assert read_json(Path(cfg.output) / LOG)["after"] == log["after"]
    rollout = load_rollouts(world)[0]
    context, target = rollout.frames([0, 4]), rollout.frames([2])[0]
    settings = SplatCfg(method="feed_forward", weights=str(Path(cfg.output) / WEIGHTS))
    assert weights_licence(settings) == RANDOM_LICENCE
    rgb, coverage = render_splats(splats_feed_forward(context, settings), target.camera, target.T_world_camera)
    off = (rgb.astype(float) - target.rgb)[4:-4, 4:-4] / 255
    assert -10 * np.log10((off**2).mean()) > 14 and coverage[4:-4, 4:-4].mean() > 0.8


def test_held_out_frames_are_never_trained_on(world: Path, tmp_path: Path):
    cfg = tiny(world, tmp_path, context=3, stride=3, targets=2)
    rollouts, first = load_rollouts(world.parent), FRAMES - 9
    for step in range(200):
        window = sample_window(rollouts, cfg, np.random.default_rng([cfg.seed, step]))
        assert not set(window.context) & set(window.targets) and len(set(window.targets)) == 2
        assert max(window.context) < first
        assert min(window.context) < min(window.targets) and max(window.targets) < max(window.context)
    assert all(min(w.context) >= first for w in held_out_windows(rollouts, cfg))


def test_ssim_agrees_with_scikit_image():
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(40, 50, 3)).astype(np.float32)
    b = np.clip(a + rng.normal(size=a.shape) * 0.1, 0, 1).astype(np.float32)
    _, full = structural_similarity(a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
                                    use_sample_covariance=False, full=True)
    assert float(ssim(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(full[5:-5, 5:-5].mean(), abs=2e-3)


def test_bad_settings_are_named(world: Path, tmp_path: Path):
    for changes, error, said in (
        ({"stride": 1}, ConfigError, "stride: got 1"),
        ({"worlds": ""}, ConfigError, "worlds: got nothing"),
        ({"worlds": str(tmp_path)}, WorldError, "neither a world folder"),
        ({"context": 9}, InputError, "expected 33"),
        ({"held_out": 0.9}, InputError, "frames to train on"),
    ):
        with pytest.raises(error, match=said):
            train(replace(tiny(world, tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["gaussian_head.yaml", "gaussian_head_tiny.yaml"])
def test_shipped_settings_load(name: str):
    assert isinstance(load_config(CONFIGS / name, base=GaussianHeadCfg()), GaussianHeadCfg)


@pytest.mark.slow
def test_a_procedural_world_is_learned(tmp_path: Path):
    photo = TESTS.parent / "lyra_core" / "scenes" / "data" / "demo_room.jpg"
    build_world(photo, tmp_path / "world", from_dict({"quality": "draft"}))
    cfg = load_config(CONFIGS / "gaussian_head_tiny.yaml", base=GaussianHeadCfg())
    log = train(replace(cfg, worlds=str(tmp_path / "world"), output=str(tmp_path / "out"), iterations=60, device="cpu"))
    assert log["after"]["psnr"] > log["before"]["psnr"] + 6, log
