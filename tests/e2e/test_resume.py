"""Stopped anywhere, damaged anywhere: the next run gives the same bytes and does not do again what is done."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from e2e_worlds import STAGES, Watcher, assert_same_bytes, build, draft, file_hashes, start_create

from lyra_core.errors import Cancelled, WorldError
from lyra_core.pipeline import build_world


def test_stopping_before_each_stage_costs_nothing(photo: Path, finished_hashes: dict[str, str], tmp_path: Path) -> None:
    done: list[str] = []
    for k in range(len(STAGES)):
        watcher = Watcher(stop_at=k)
        with pytest.raises(Cancelled, match=f"stopped before {STAGES[k]}"):
            build_world(photo, tmp_path / "world", draft(), progress=watcher)
        assert watcher.skipped == list(STAGES[: max(0, k - 1)])
        done += watcher.ran
    _, last = build(photo, tmp_path / "world")
    assert done + last.ran == list(STAGES)
    assert_same_bytes(finished_hashes, file_hashes(tmp_path / "world"))


def test_a_finished_world_is_not_written_again(photo: Path, world_copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in world_copy.rglob("*") if path.is_file()}
    _, watcher = build(photo, world_copy)
    assert watcher.ran == watcher.skipped == []
    assert {path: path.stat().st_mtime_ns for path in world_copy.rglob("*") if path.is_file()} == before


def test_damage_is_noticed_and_only_that_is_made_again(
    photo: Path, world_copy: Path, finished_hashes: dict[str, str]
) -> None:
    mesh = bytearray((world_copy / "mesh.npz").read_bytes())
    mesh[len(mesh) // 2] ^= 1
    (world_copy / "mesh.npz").write_bytes(mesh)
    (world_copy / "occupancy_map" / "map.png").unlink()
    (world_copy / "payloads" / "colliders.usdc").write_bytes(b"")
    _, watcher = build(photo, world_copy)
    assert watcher.ran == ["lift", "navigation", "usd"]
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


def test_a_deleted_frame_and_a_damaged_photo_are_made_again(
    photo: Path, world_copy: Path, finished_hashes: dict[str, str]
) -> None:
    (world_copy / "frames" / "00017.png").unlink()
    (world_copy / "photo.png").write_bytes(b"")
    _, watcher = build(photo, world_copy)
    assert watcher.ran == ["photo", "frames_0"]
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


def test_a_damaged_manifest_is_an_error_that_names_it(photo: Path, world_copy: Path) -> None:
    (world_copy / "world.json").write_text("{")
    with pytest.raises(WorldError, match=r"world\.json: not readable as JSON"):
        build(photo, world_copy)


def test_other_settings_and_back_leave_no_trace(
    photo: Path, world_copy: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    changed = draft(navigation={"episodes": 3, "robot_radius": 0.2})
    _, watcher = build(photo, world_copy, changed)
    assert watcher.ran[0] == "trajectory", "another robot takes another tour"
    build(photo, tmp_path / "fresh", changed)
    assert_same_bytes(file_hashes(tmp_path / "fresh"), file_hashes(world_copy))
    build(photo, world_copy)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


def test_other_episodes_leave_the_camera_path_and_the_mesh(photo: Path, world_copy: Path) -> None:
    _, watcher = build(photo, world_copy, draft(navigation={"episodes": 3}))
    assert watcher.ran[0] == "navigation"


def _killed_at(moments: list[float], photo: Path, folder: Path) -> int:
    """Kill a build after each number of seconds in turn, in one folder; return how many were killed before their end."""
    killed = 0
    for seconds in moments:
        process = start_create(photo, folder)
        time.sleep(seconds)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    return killed


def test_three_kills_then_a_run_give_the_same_bytes(photo: Path, finished_hashes: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "world"
    assert _killed_at([1.5, 3.0, 3.0], photo, folder) > 0
    assert start_create(photo, folder).wait() == 0
    assert_same_bytes(finished_hashes, file_hashes(folder))


def test_an_interrupt_ends_with_130_and_a_folder_that_resumes(
    photo: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "world"
    process = start_create(photo, folder)
    while not (folder / "build" / "estimate.npz").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().count("\n") == 1 and "same command goes on" in said.decode()
    _, watcher = build(photo, folder)
    assert watcher.skipped[:1] == ["photo"]
    assert_same_bytes(finished_hashes, file_hashes(folder))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_kill_at_a_random_moment(number: int, photo: Path, finished_hashes: dict[str, str], tmp_path: Path) -> None:
    start = time.perf_counter()
    assert start_create(photo, tmp_path / "whole").wait() == 0
    whole = time.perf_counter() - start
    _killed_at([random.Random(number).uniform(0.1, whole)], photo, tmp_path / "world")
    assert start_create(photo, tmp_path / "world").wait() == 0
    assert_same_bytes(finished_hashes, file_hashes(tmp_path / "world"))
