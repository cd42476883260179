"""The same photo, settings and seed give the same bytes: other process, folder, thread count, no network."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from e2e_worlds import assert_same_bytes, build, draft, file_hashes, plain_bytes, run_code

from lyra_core.build import WorldBuild
from lyra_core.io.files import read_npz
from lyra_core.io.images import read_image
from lyra_core.types import Provenance
from lyra_core.world import World

ALONE = """
import socket, sys, threading
def refuse(*arguments, **options):
    raise AssertionError("a socket was opened")
for name in ("socket", "create_connection", "getaddrinfo", "socketpair", "create_server"):
    setattr(socket, name, refuse)
import cv2
cv2.setNumThreads(int(sys.argv[3]))
from pathlib import Path
from lyra_core.config import from_dict
from lyra_core.pipeline import build_world
build_world(Path(sys.argv[1]), Path(sys.argv[2]), from_dict({"quality": "draft"}))
assert cv2.getNumThreads() == int(sys.argv[3])
"""
"""Builds a draft with blocked sockets and a number of OpenCV threads."""


def _built_apart(photo: Path, folder: Path, threads: int, **env: str) -> None:
    count = str(threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    done = run_code(ALONE, str(photo), str(folder), count, **dict.fromkeys(names, count), **env)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def another_seed(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same photo with another seed."""
    return build(photo, tmp_path_factory.mktemp("seed") / "world", draft(seed=1))[0]


def test_one_thread_without_network_in_another_process_and_folder(
    photo: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    _built_apart(photo, tmp_path / "a folder's nam\u00e9" / "w", 1, PYTHONHASHSEED="7", LC_ALL="C", TZ="Asia/Tokyo")
    assert_same_bytes(finished_hashes, file_hashes(tmp_path / "a folder's nam\u00e9" / "w"))


@pytest.mark.slow
def test_two_threads(photo: Path, finished_hashes: dict[str, str], tmp_path: Path) -> None:
    _built_apart(photo, tmp_path / "w", 2, PYTHONHASHSEED="8")
    assert_same_bytes(finished_hashes, file_hashes(tmp_path / "w"))


def test_no_place_of_this_machine_is_written_down(finished: Path, photo: Path) -> None:
    places = [str(finished), str(finished.parent), str(photo.parent), str(Path.home()) + "/", os.getcwd()]
    for name, data in plain_bytes(finished).items():
        found = [place for place in places if place.encode() in data]
        assert not found, (name, found)


def test_no_time_is_written_down(finished: Path) -> None:
    manifest = (finished / "world.json").read_text()
    assert not re.search(r"20[2-9]\d-[01]\d-[0-3]\d", manifest)
    assert set(json.loads((finished / "build_log.json").read_text())) == set(json.loads(manifest)["stages"])


def test_another_seed_keeps_what_is_seen_and_changes_what_is_not(finished: Path, another_seed: World) -> None:
    one, other = World(finished), another_seed
    pictures = [read_image(world.folder / "frames" / "00000.png") for world in (one, other)]
    labels = [read_image(world.folder / "build" / "provenance" / "00000.png")[..., 0] for world in (one, other)]
    depths = [(world.folder / "depth" / "00000.png").read_bytes() for world in (one, other)]
    seen = labels[0] == Provenance.SEEN
    assert seen.mean() > 0.5
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(pictures[0][seen], pictures[1][seen])
    assert depths[0] == depths[1]
    parts = [{p.name: p for p in world.collision_parts if p.provenance == Provenance.SEEN} for world in (one, other)]
    assert parts[0] and parts[0].keys() == parts[1].keys()
    for name, part in parts[0].items():
        np.testing.assert_array_equal(part.vertices, parts[1][name].vertices)
        np.testing.assert_array_equal(part.faces, parts[1][name].faces)
    a, b = ([p for p in world.collision_parts if p.provenance == Provenance.INVENTED] for world in (one, other))
    assert [p.vertices.tobytes() for p in a] != [p.vertices.tobytes() for p in b]
    assert one.manifest["recipe_id"] != other.manifest["recipe_id"]


def test_every_number_is_finite(finished: Path) -> None:
    for path in sorted(finished.rglob("*.npz")):
        for name, array in read_npz(path).items():
            unknown = (path.name, name) in {("estimate.npz", "depth")}
            assert array.dtype.kind != "f" or unknown or np.isfinite(array).all(), (path.name, name)
    for path in sorted(finished.rglob("*.json")):
        json.loads(path.read_text(), parse_constant=lambda word, path=path: pytest.fail(f"{path}: {word}"))


def test_the_manifest_owns_every_file(finished: Path) -> None:
    build_ = WorldBuild.open(finished)
    owned = {file for record in build_.manifest["stages"].values() for file in record["files"]}
    there = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert there - owned == {"world.json", "build_log.json"} and owned <= there
