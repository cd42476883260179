"""One handmade world for all exports; nobody writes into it."""

from __future__ import annotations

from pathlib import Path

import export_worlds
import pytest

from lyra_core.world import World


@pytest.fixture(scope="session")
def export_source(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(export_worlds.build(tmp_path_factory.mktemp("export") / "world"))


@pytest.fixture(scope="session")
def frameless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_worlds.build(tmp_path_factory.mktemp("export_frameless") / "world", frames=False)
