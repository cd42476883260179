"""The hand-made room of tests/usd, written once as a stage, with two faulty twins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "usd"))


def _write(folder: Path, **changes: bool) -> Path:
    pytest.importorskip("pxr")
    from room_world import PROVENANCE, make_mesh, make_parts

    from lyra_core.usd.stage import write_stage

    write_stage(folder, make_mesh(side=64), make_parts(**changes), None, provenance=PROVENANCE)
    return folder / "world.usda"


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="session")
def room_inverted_floor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("inverted"), floor_up=False)


@pytest.fixture(scope="session")
def room_without_obstacles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("empty"), obstacles=False)
