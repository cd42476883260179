"""Every damaged or hostile file gives a mesh or exactly one InputError, in bounded memory and time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_files import CUBE_F, CUBE_V, plain_files, usd_files, usda_text, write_all

from lyra_core.errors import InputError
from lyra_core.imports import mesh_parts, mesh_usd
from lyra_core.imports.mesh import load_mesh

LIMIT = 400 << 20


def outcome(path: Path) -> str:
    """Return 'mesh' or the error; anything but an InputError is let through."""
    try:
        source = load_mesh(path)
    except InputError as error:
        return str(error)
    mesh = source.mesh
    assert len(mesh.faces) and mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)
    assert np.isfinite(mesh.vertices[mesh.faces]).all()
    return "mesh"


def test_plain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_parts, "MAX_INSTANCES", 5_000)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    paths = write_all(folder, plain_files())
    assert len(paths) >= 120
    results, slow = {}, {}
    tracemalloc.start()
    for path in paths:
        tracemalloc.reset_peak()
        start = time.perf_counter()
        results[path.name] = outcome(path)
        slow[path.name] = time.perf_counter() - start
        assert tracemalloc.get_traced_memory()[1] < LIMIT, path.name
    tracemalloc.stop()
    assert max(slow.values()) < 10, max(slow, key=lambda name: slow[name])
    errors = {name: text for name, text in results.items() if text != "mesh"}
    assert all(name in text and "\n" not in text and len(text) < 500 for name, text in errors.items())
    for suffix in ("ply", "stl", "obj", "off", "gltf", "glb"):
        for name in ("whole", "nan", "zero_area", "duplicate", "open_inside_out", "million_times"):
            assert results[f"{name}.{suffix}"] == "mesh", name
        for name in ("all_nan", "no_faces", "empty", "cut_50"):
            assert results[f"{name}.{suffix}"] != "mesh" or (name, suffix) == ("cut_50", "obj"), (name, suffix)
        assert results[f"wrong_suffix_{suffix}.{'obj' if suffix != 'obj' else 'stl'}"] == "mesh", suffix
    for name in ("uri_up", "uri_escaped", "uri_absolute", "uri_file", "uri_http"):
        assert "path" in errors[f"{name}.gltf"]
    assert "KHR_draco_mesh_compression" in errors["draco.gltf"] and "EXT_meshopt_compression" in errors["meshopt.gltf"]
    assert "instances" in errors["instances.gltf"]
    assert "point cloud" in errors["no_faces.ply"]
    assert results["picture_bomb.gltf"] == results["picture_up.gltf"] == "mesh"


def test_usd_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pxr")
    monkeypatch.setattr(mesh_usd, "TIMEOUT_S", 6.0)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    paths = write_all(folder, usd_files())
    with ThreadPoolExecutor(2) as pool:
        results = {path.name: text for path, text in zip(paths, pool.map(outcome, paths), strict=True)}
    for name in ("nan.usda", "cycle.usda"):
        assert results[name] == "mesh", results[name]
    for name in ("index.usda", "counts.usda", "cut.usda", "reference_up.usda", "reference_http.usda", "reference_variant.usda",
                 "expression.usda", "clips.usda", "deep.usda", "bomb.usda", "garbage.usdc", "garbage.usdz", "up.usdz",
                 "absolute.usdz", "compressed.usdz", "first.usdz", "words.usd", "empty.usdz"):
        assert results[name] != "mesh" and name in results[name] and "\n" not in results[name], (name, results[name])
    for name, why in (("reference_up", "inside of"), ("reference_http", "no URL"), ("reference_variant", "/etc/hostname.usda"),
                      ("expression", "expressions"), ("clips", "/etc/hostname.usda"), ("bomb", "not done|memory|crashed")):
        assert re.search(why, results[f"{name}.usda"]), results[f"{name}.usda"]


def test_crash_and_timeout_of_openusd_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.usda"
    path.write_text(usda_text(CUBE_V, CUBE_F))

    def crash(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, -11, b"", b"Segmentation fault")

    def hang(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        raise subprocess.TimeoutExpired(command, 1)

    pytest.importorskip("pxr")
    for fake, text in ((crash, "crashed"), (hang, "was not done")):
        monkeypatch.setattr(mesh_usd.subprocess, "run", fake)
        with pytest.raises(InputError, match=text):
            load_mesh(path)
