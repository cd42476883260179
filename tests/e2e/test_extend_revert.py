"""Worlds that are walked on, cut back, and kept small for training."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from e2e_worlds import STAGES, Watcher, assert_same_bytes, build, draft, file_hashes

from lyra_core.camera.formats import load_trajectory, save_trajectory
from lyra_core.errors import Cancelled, ConfigError, InputError, LyraError, WorldError
from lyra_core.pipeline import build_world, extend_world, revert_world
from lyra_core.world import World

TRAINING_BYTES = 20_000_000
LOAD_SECONDS = 0.3


def frames_of(folder: Path) -> list[str]:
    """Return the names of the frames in the folder."""
    return sorted(path.name for path in (folder / "frames").iterdir())


def test_extend_is_killed_repeated_and_reverted(world_copy: Path, finished_hashes: dict[str, str]) -> None:
    for stop_at in (3, 4, 6):
        watcher = Watcher(stop_at=stop_at)
        with pytest.raises(Cancelled):
            extend_world(world_copy, trajectory="walk_forward", frames=81, progress=watcher)
        assert "frames_0" not in watcher.ran
    watcher = Watcher()
    world = extend_world(world_copy, trajectory="walk_forward", frames=81, progress=watcher)
    assert watcher.ran[0] == "lift" and watcher.skipped[:6] == [*STAGES[:5], "frames_1"]
    assert world.manifest["status"] == "complete" and "extension" not in world.manifest
    assert world.manifest["statistics"]["frames"] == len(frames_of(world_copy)) == 161
    path = load_trajectory(world_copy / "trajectory.npz", width=208, height=120)
    step = np.linalg.norm(np.diff(path.T_world_camera[:, :3, 3], axis=0), axis=1)
    assert len(path) == 161 and 0.0 < step[80:].sum() <= 2.01 and step[80:].max() < 0.1

    reverted = revert_world(world_copy, chunk=1)
    assert len(frames_of(world_copy)) == 81 and reverted.manifest["statistics"]["frames"] == 81
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


def test_create_takes_a_stopped_extension_back(photo: Path, world_copy: Path, finished_hashes: dict[str, str]) -> None:
    with pytest.raises(Cancelled):
        extend_world(world_copy, trajectory="look_around", frames=81, progress=Watcher(stop_at=6))
    assert "frames_1" in World(world_copy).manifest["stages"]
    build(photo, world_copy)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


@pytest.mark.parametrize(
    ("trajectory", "frames", "kind", "says"),
    [
        ("walk_forwards", 81, ConfigError, "trajectory: got 'walk_forwards'"),
        ("walk_forward", 80, ConfigError, "frames: got 80, expected 1 \\+ 80 k"),
        ("missing.npz", 81, InputError, "missing.npz: no such file"),
    ],
)
def test_a_refused_extension_leaves_the_world(
    finished: Path, finished_hashes: dict[str, str], trajectory: str, frames: int, kind: type[LyraError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        extend_world(finished, trajectory=trajectory, frames=frames)
    assert_same_bytes(finished_hashes, file_hashes(finished))


def test_a_refused_revert_leaves_the_world(finished: Path, finished_hashes: dict[str, str]) -> None:
    for chunk in (-1, 2):
        with pytest.raises(ConfigError, match=rf"chunk: got {chunk}, expected 0\.\.1"):
            revert_world(finished, chunk=chunk)
    assert_same_bytes(finished_hashes, file_hashes(finished))


def test_extend_before_the_photo_is_stored_says_what_to_run(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        build_world(photo, tmp_path / "world", draft(), progress=Watcher(stop_at=0))
    with pytest.raises(WorldError, match="run create again with the photo"):
        extend_world(tmp_path / "world", trajectory="orbit", frames=81)
    with pytest.raises(WorldError, match="not a world folder"):
        extend_world(tmp_path, trajectory="orbit", frames=81)


def test_training_world_is_small_loads_at_once_and_is_walked_in(photo: Path, world_copy: Path) -> None:
    world, watcher = build(photo, world_copy, keep="training")
    # Fewer Gaussians are allowed: what depends on their number is made anew, the frames are not.
    assert watcher.ran == ["lift", "usd", "report"]
    assert not any((world_copy / name).exists() for name in ("frames", "depth", "build", "video.mp4", "captions.json"))
    size = sum(path.stat().st_size for path in world_copy.rglob("*") if path.is_file())
    start = time.perf_counter()
    assert len(world.mesh.faces) and len(world.collision_parts) and world.free_space.free.any()
    seconds = time.perf_counter() - start
    assert size <= TRAINING_BYTES and seconds <= LOAD_SECONDS, (size, seconds)

    import gymnasium

    import lyra_tasks  # noqa: F401 - registers the environments

    env = gymnasium.make("LyraWorlds/PointNav-v0", world=world_copy)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    for _ in range(10):
        _, _, terminated, truncated, _ = env.step(1)
    assert not truncated and terminated in (True, False)
    env.close()

    before = file_hashes(world_copy)
    with pytest.raises(WorldError, match=r"its frames were dropped \(--keep training\); create it again with --keep all"):
        extend_world(world_copy, trajectory="orbit", frames=81)
    assert_same_bytes(before, file_hashes(world_copy))
    assert build(photo, world_copy, keep="training")[1].skipped == []


@pytest.mark.slow
def test_training_made_at_once_equals_training_cut_down_and_all_comes_back(
    photo: Path, world_copy: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    build(photo, world_copy, keep="training")
    build(photo, tmp_path / "small", keep="training")
    assert_same_bytes(file_hashes(tmp_path / "small"), file_hashes(world_copy))
    (world_copy / "mesh.npz").unlink()
    _, watcher = build(photo, world_copy, keep="training")
    assert "lift" in watcher.ran
    assert_same_bytes(file_hashes(tmp_path / "small"), file_hashes(world_copy))
    build(photo, world_copy)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


@pytest.mark.slow
def test_a_lyra_file_extends_and_every_chunk_can_be_gone_back_to(
    photo: Path, world_copy: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    longer = load_trajectory(world_copy / "trajectory.npz", width=832, height=480)
    save_trajectory(tmp_path / "path.npz", longer)
    with pytest.raises(Cancelled):
        extend_world(world_copy, trajectory=str(tmp_path / "path.npz"), frames=81, progress=Watcher(stop_at=3))
    extend_world(world_copy, trajectory=str(tmp_path / "path.npz"), frames=81)
    one = file_hashes(world_copy)
    assert "build/trajectory_1.npz" in one
    extend_world(world_copy, trajectory="look_around", frames=161)
    assert len(frames_of(world_copy)) == 321
    revert_world(world_copy, chunk=2)
    assert_same_bytes(one, file_hashes(world_copy))
    revert_world(world_copy, chunk=1)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))
    revert_world(world_copy, chunk=0)
    assert frames_of(world_copy) == ["00000.png"]
    extend_world(world_copy, trajectory="orbit", frames=81)
    assert len(frames_of(world_copy)) == 81
    build(photo, world_copy)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


@pytest.mark.slow
def test_damage_in_two_chunks_is_repaired_around_the_good_one(world_copy: Path) -> None:
    extend_world(world_copy, trajectory="look_around", frames=161)
    whole = file_hashes(world_copy)
    for number in (5, 200):
        (world_copy / "frames" / f"{number:05d}.png").unlink()
    watcher = Watcher()
    revert_world(world_copy, chunk=3, progress=watcher)
    assert watcher.ran[:2] == ["frames_0", "frames_2"]
    recipe_free = {name: value for name, value in file_hashes(world_copy).items() if name.startswith(("frames/", "depth/"))}
    assert recipe_free == {name: value for name, value in whole.items() if name in recipe_free}
