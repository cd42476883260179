"""The package's metadata: what it asks for, what it ships, and that Isaac Sim's own packages stay as they are."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import lyra_core

requirements = pytest.importorskip("packaging.requirements")
setuptools = pytest.importorskip("setuptools")
ROOT = Path(__file__).resolve().parents[1]
ISAAC = {"isaacsim-5.1": "3.11", "isaacsim-6.0": "3.12"}
"""Package list of an Isaac Sim release -> its Python."""
NOT_IN_KIT = {"torch", "torchvision", "usd-core", "usd-exchange", "diffusers", "transformers", "newton", "mujoco", "ray", "viser"}
"""A second pxr or torch keeps Kit from starting; the rest is large and has pins of its own."""


@pytest.fixture(scope="module")
def metadata() -> dict:
    """Run setup.py with setup() caught; return its arguments."""
    caught: dict = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(setuptools, "setup", lambda **arguments: caught.update(arguments))
    patch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    patch.undo()
    return caught


def pins(path: Path) -> dict[str, str]:
    """Read NAME==VERSION lines; names in lower case with dashes."""
    rows = [line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return {name.lower().replace("_", "-"): version for name, version in (row.split("==") for row in rows if row)}


def refused(asked: list[str], have: dict[str, str]) -> list[str]:
    """Return the requirements that installed versions do not satisfy."""
    rows = [requirements.Requirement(text) for text in asked]
    return [str(row) for row in rows if row.name.lower().replace("_", "-") in have
            and not row.specifier.contains(have[row.name.lower().replace("_", "-")], prereleases=True)]


def test_name_version_licence_and_command(metadata: dict) -> None:
    assert (metadata["name"], metadata["version"], metadata["license"]) == ("lyra-worlds", lyra_core.__version__, "Apache-2.0")
    assert metadata["entry_points"] == {"console_scripts": ["lyra-worlds=lyra_core.cli:main"]}
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert (ROOT / "CHANGELOG.md").read_text().split("## ")[1].startswith("Unreleased")


def test_every_package_folder_is_shipped_and_exists(metadata: dict) -> None:
    for name in metadata["packages"]:
        top, _, rest = name.partition(".")
        folder = ROOT / metadata["package_dir"][top] / rest.replace(".", "/")
        assert (folder / "__init__.py").is_file(), name
    for top, source in metadata["package_dir"].items():
        if not (ROOT / source / "__init__.py").is_file():
            continue
        for path in (ROOT / source).rglob("*.py"):
            package = ".".join([top, *path.parent.relative_to(ROOT / source).parts])
            assert package in metadata["packages"], f"{path}: its folder has no __init__.py"


def test_the_base_install_is_light(metadata: dict) -> None:
    names = {requirements.Requirement(text).name for text in metadata["install_requires"]}
    assert not names & NOT_IN_KIT
    assert "usd-core" in {requirements.Requirement(text).name for text in metadata["extras_require"]["standalone"]}


def test_embree_is_asked_for_only_where_its_wheel_exists(metadata: dict) -> None:
    [row] = [row for row in map(requirements.Requirement, metadata["install_requires"]) if row.name == "embreex"]
    wheels = {"x86_64": True, "AMD64": True, "arm64": True, "aarch64": False}
    assert {machine: row.marker.evaluate({"platform_machine": machine}) for machine in wheels} == wheels


def test_constraints_pin_only_what_the_ranges_admit(metadata: dict) -> None:
    asked = metadata["install_requires"] + [row for rows in metadata["extras_require"].values() for row in rows]
    tested = pins(ROOT / "constraints.txt")
    assert refused(asked, tested) == []
    base = {requirements.Requirement(text).name.lower().replace("_", "-") for text in metadata["install_requires"]}
    assert base <= set(tested), f"not pinned: {base - set(tested)}"
    assert (tested["torch"], tested["newton"], tested["gymnasium"]) == ("2.13.0", "1.8.0", "1.2.2")


@pytest.mark.parametrize("release", ISAAC)
def test_ranges_admit_what_isaac_sim_has(metadata: dict, release: str) -> None:
    assert refused(metadata["install_requires"], pins(ROOT / f"requirements/{release}.txt")) == []


def test_a_range_that_would_change_isaac_sim_is_found() -> None:
    have = pins(ROOT / "requirements/isaacsim-5.1.txt")
    assert refused(["numpy>=2", "pillow<11.3", "scipy>=1.11", "unknown>=1"], have) == ["numpy>=2", "pillow<11.3"]


def test_python_range_covers_both_isaac_sims(metadata: dict) -> None:
    from packaging.specifiers import SpecifierSet

    python = SpecifierSet(metadata["python_requires"])
    assert all(python.contains(f"{version}.0") for version in ISAAC.values()) and not python.contains("3.10.9")


def test_makefile_targets_and_ci() -> None:
    text = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "test-slow", "env-physx", "system-deps", "clean"):
        assert re.search(rf"^{target}:", text, re.M), target
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/usr/bin/env bash")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def fake_environment(folder: Path, have: dict[str, str]) -> Path:
    """Make a virtual environment in which pip believes these packages are installed; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    for name, version in have.items():
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("")
    return folder / "bin/python"


def would_install(python: Path, *asked: str) -> dict[str, str]:
    """Return name -> version of what pip would install or replace."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--dry-run", "--quiet", "--report", "-", *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd="/")
    if done.returncode and re.search(r"name resolution|NewConnectionError|found for setuptools", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    rows = [row["metadata"] for row in json.loads(done.stdout)["install"]]
    return {row["name"].lower().replace("_", "-"): row["version"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("release", [None, *ISAAC])
def test_installing_changes_nothing_that_is_there(tmp_path: Path, release: str | None) -> None:
    have = pins(ROOT / f"requirements/{release}.txt") if release else {}
    new = would_install(fake_environment(tmp_path / "env", have), str(ROOT))
    assert "lyra-worlds" in new
    assert not set(new) & (set(have) | NOT_IN_KIT)


@pytest.mark.slow
def test_the_dry_run_notices_a_change(tmp_path: Path) -> None:
    have = pins(ROOT / "requirements/isaacsim-5.1.txt")
    new = would_install(fake_environment(tmp_path / "env", have), "typeguard>=4.4.3")
    assert "typing-extensions" in new


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["standalone", "newton", "mujoco", "validate", "lyra2", "rl", "explore", "cluster"])
def test_every_extra_resolves_under_the_constraints(tmp_path: Path, extra: str) -> None:
    new = would_install(fake_environment(tmp_path / "env", {}), f"{ROOT}[{extra}]", "-c", str(ROOT / "constraints.txt"))
    assert "lyra-worlds" in new


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_packages_and_their_data(tmp_path: Path, metadata: dict) -> None:
    if not importlib.util.find_spec("wheel") and int(setuptools.__version__.split(".")[0]) < 71:
        pytest.skip("this setuptools needs the package wheel")
    code = "import setuptools.build_meta as build, sys; out = sys.argv[1]; build.build_wheel(out); build.build_sdist(out)"
    copy = tmp_path / "source"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in metadata["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in names
    assert {"lyra_configs/worlds/draft.yaml", "lyra_core/report/style.css"} <= names
    assert not any(name.startswith(("tests/", "tasks/", "configs/")) for name in names)
    [sdist] = tmp_path.glob("*.tar.gz")
    assert any(name.endswith("/lyra_core/report/style.css") for name in tarfile.open(sdist).getnames())
