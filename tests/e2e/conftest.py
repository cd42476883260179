"""One photo and one finished world for the whole run; tests that change a world get a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import e2e_worlds
import pytest


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled picture, smaller."""
    path = tmp_path_factory.mktemp("photo") / "room.jpg"
    path.write_bytes(e2e_worlds.jpeg(e2e_worlds.demo_picture(), quality=92))
    return path


@pytest.fixture(scope="session")
def finished(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished world. Do not write into it."""
    folder = tmp_path_factory.mktemp("finished") / "world"
    e2e_worlds.build(photo, folder)
    return folder


@pytest.fixture(scope="session")
def finished_hashes(finished: Path) -> dict[str, str]:
    """SHA-256 of its files."""
    return e2e_worlds.file_hashes(finished)


@pytest.fixture
def world_copy(finished: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))
