"""The names of ``lyra_core`` itself: there when asked for, free until then."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lyra_core

ROOT = Path(__file__).resolve().parents[1]


def test_every_public_name_is_the_one_its_module_defines() -> None:
    homes = {name: module for module, names in lyra_core._HOMES.items() for name in names}
    assert sorted(homes) == sorted(lyra_core.__all__) == sorted(set(lyra_core.__all__))
    for name, module in homes.items():
        value = getattr(lyra_core, name)
        assert value is getattr(importlib.import_module(f"lyra_core.{module}"), name)
        assert value.__module__ == f"lyra_core.{module}", "named from where it is defined"
        assert inspect.getdoc(value), name
    assert set(lyra_core.__all__) <= set(dir(lyra_core))


def test_an_unknown_name_is_an_attribute_error_and_submodules_still_import() -> None:
    with pytest.raises(AttributeError, match="'lyra_core' has no attribute 'build_wolrd'"):
        _ = lyra_core.build_wolrd
    with pytest.raises(ImportError, match="build_wolrd"):
        exec("from lyra_core import build_wolrd")
    from lyra_core import segments

    assert segments is importlib.import_module("lyra_core.segments")


@pytest.mark.parametrize(("code", "absent"), [
    ("import lyra_core; lyra_core.__version__; dir(lyra_core)", {"numpy", "lyra_core.types", "lyra_core.pipeline"}),
    ("from lyra_core import Camera, World, WorldCfg, load_config, LyraError", {"cv2", "scipy", "lyra_core.pipeline"}),
    ("from lyra_core import *; assert callable(build_world)", {"torch", "pxr"}),
])
def test_a_name_costs_what_its_module_costs(code: str, absent: set[str]) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not absent & set(done.stdout.split())


def test_a_world_shows_its_folder(tmp_path: Path) -> None:
    (tmp_path / "world.json").write_text("{}")
    assert repr(lyra_core.World(tmp_path)) == f"World({str(tmp_path)!r})"
