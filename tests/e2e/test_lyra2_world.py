"""The whole product through the Lyra 2 generator: photo, 161 frames, world, environment; stopped anywhere, the same bytes.

The model is tiny and random, so its pictures are noise; depth and camera of the picture's own scene make the world judgeable.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import gymnasium as gym  # noqa: E402
from e2e_worlds import ROOT, assert_same_bytes, file_hashes  # noqa: E402

import lyra_tasks  # noqa: E402, F401
from lyra_core.config import WorldCfg, from_dict  # noqa: E402
from lyra_core.errors import BackendUnavailable, ConfigError, WorldError  # noqa: E402
from lyra_core.io.files import read_json, read_npz  # noqa: E402
from lyra_core.pipeline import build_world, extend_world, revert_world  # noqa: E402
from lyra_core.usd.validate import validate_stage  # noqa: E402

HERE = Path(__file__).parents[1]
sys.path[:0] = [str(HERE / "generate/lyra2"), str(HERE / "depth")]
from scene_depth import depth_at  # noqa: E402
from tiny import tiny_models  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return tiny_models(tmp_path_factory.mktemp("models") / "lyra2")


def settings(models: Path, **generate: object) -> WorldCfg:
    lyra2 = {"preset": "custom", "steps": 1, "weights": str(models), **generate.pop("lyra2", {})}  # type: ignore[dict-item]
    values = {"generator": "lyra2", "trajectory": "loop", "frames": 161, "lyra2": lyra2, **generate}
    return from_dict({"quality": "draft", "depth": {"provider": "scene_depth:DepthFromScene"}, "generate": values})


@pytest.fixture(scope="module")
def world(photo: Path, models: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lyra2") / "world"
    build_world(photo, folder, settings(models))
    return folder


def test_photo_to_environment(world: Path) -> None:
    manifest = read_json(world / "world.json")
    assert manifest["statistics"]["frames"] == 161 and manifest["statistics"]["walkable_m2"] > 3
    assert "Research" in manifest["licences"]["generator"]
    assert not validate_stage(world / "world.usda", nvidia=False)
    assert set(read_npz(world / "build/state_001.npz")) == {"sampled", "encoded"}
    captions = read_json(world / "captions.json")
    assert list(captions) == ["0", "81"] and "indoor" in captions["0"]
    env = gym.make("LyraWorlds/PointNav-v0", world=str(world))
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, *_ = env.step(1)
    assert np.isfinite(observation["depth"]).all() and observation["depth"].max() > 0


def test_the_mesh_is_the_scene(world: Path) -> None:
    """Rays of the photo's camera meet the lifted mesh where they meet the scene: the model's noise has no say in it."""
    from lyra_core.build_files import load_estimate
    from lyra_core.io.meshes import load_surface_mesh
    from lyra_core.rays import cast_camera, make_ray_tracer

    mesh, (_, estimate) = load_surface_mesh(world / "mesh.npz"), load_estimate(world)
    camera = estimate.camera.resized(104, 70)
    hits = cast_camera(make_ray_tracer(mesh.vertices, mesh.faces), camera, estimate.T_world_camera)
    truth = depth_at(camera, estimate.T_world_camera)
    both = np.isfinite(hits.t.reshape(truth.shape)) & np.isfinite(truth)
    assert both.mean() > 0.7
    assert np.median(np.abs(hits.t.reshape(truth.shape)[both] - truth[both])) < 0.05


def test_killed_after_the_first_chunk_it_goes_on_to_the_same_bytes(photo: Path, models: Path, world: Path, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\nfrom test_lyra2_world import settings\nfrom lyra_core.pipeline import build_world\n"
        f"build_world({str(photo)!r}, {str(tmp_path / 'world')!r}, settings(Path({str(models)!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 240
    while not (tmp_path / "world/build/state_000.npz").is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "world/build/state_001.npz").is_file(), "killed before its end"
    build_world(photo, tmp_path / "world", settings(models))
    assert_same_bytes(file_hashes(world), file_hashes(tmp_path / "world"))


@pytest.mark.slow
def test_revert_takes_an_extension_back(photo: Path, models: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(models.parent))
    folder = tmp_path / "world"
    build_world(photo, folder, settings(models, frames=81))
    before = file_hashes(folder)
    extend_world(folder, trajectory="look_around", frames=81)
    assert read_json(folder / "world.json")["statistics"]["frames"] == 161
    revert_world(folder, chunk=1)
    assert_same_bytes(before, file_hashes(folder))


def test_other_weights_do_not_continue_a_world(models: Path, world: Path, tmp_path: Path, monkeypatch) -> None:
    tiny_models(tmp_path / "lyra2", seed=1)
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(tmp_path))
    with pytest.raises(WorldError, match="made with weights"):
        extend_world(world, trajectory="loop", frames=81)


def test_what_is_missing_is_said_before_anything_is_written(photo: Path, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "world"
    with pytest.raises(BackendUnavailable, match=r"hf download nvidia/Lyra-2.0.*research only"):
        build_world(photo, folder, settings(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="speed: got 'warp'"):
        build_world(photo, folder, settings(models, lyra2={"speed": "warp"}))
    with pytest.raises(ConfigError, match="retrieval_views: got 3, but preset 'repo' has 1"):
        build_world(photo, folder, settings(models, retrieval_views=3, lyra2={"preset": "repo", "steps": 35}))
    with pytest.raises(BackendUnavailable, match="hf download depth-anything"):
        cfg = settings(models)
        build_world(photo, folder, from_dict({"depth": {"provider": "geometric"}}, base=cfg))
    assert not folder.exists()
