"""Other people's validators find nothing on our stage, and do find what we break; our winding check finds what they miss."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from room_world import PROVENANCE, make_cloud, make_mesh, make_parts

from lyra_core.errors import WorldError
from lyra_core.types import CollisionPart
from lyra_core.usd.check import check_winding
from lyra_core.usd.stage import write_stage
from lyra_core.usd.validate import native_available, nvidia_available, validate_stage

FREE_POINTS = np.array([[0, 0, 1], [2, -1, 0.5], [-2, 1, 1.5], [3.2, 0, 0.2]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pxr")
    folder = tmp_path_factory.mktemp("world")
    write_stage(folder, make_mesh(), make_parts(), make_cloud(), provenance=PROVENANCE)
    return folder


def edit(folder: Path, layer: str, prim: str, attribute: str, change) -> None:
    from pxr import Sdf, Usd

    opened = Sdf.Layer.FindOrOpen(str(folder / layer))
    stage = Usd.Stage.Open(opened)
    value = stage.GetPrimAtPath(prim).GetAttribute(attribute)
    value.Set(change(value.Get()))
    opened.Save()


def test_nothing_found_on_our_stage(folder: Path) -> None:
    assert validate_stage(folder / "world.usda") == []


@pytest.mark.skipif(not nvidia_available(), reason="usd-validation-nvidia is not installed")
def test_nvidia_finds_planted_faults(folder: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    edit(bad, "payloads/geometry.usdc", "/World/Geometry/Walls", "extent", lambda extent: [(0, 0, 0), (1, 1, 1)])
    edit(bad, "payloads/colliders.usdc", "/World/Colliders/floor", "faceVertexIndices", lambda index: [10**6, *index[1:]])
    edit(bad, "payloads/splats.usdc", "/World/Splats", "opacities", lambda values: [1.5, *values[1:]])
    findings = {(finding.rule, finding.location) for finding in validate_stage(bad / "world.usda")}
    assert ("ExtentsChecker", "Prim </World/Geometry/Walls>") in findings
    assert ("ValidateTopologyChecker", "Prim </World/Colliders/floor>") in findings
    assert any(rule == "GaussianSplatSchemaChecker" for rule, _ in findings)


@pytest.mark.skipif(not native_available(), reason="this OpenUSD has no UsdValidation")
def test_openusd_finds_a_missing_axis(folder: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(folder, tmp_path / "bad")
    text = (bad / "world.usda").read_text().replace('upAxis = "Z"', "").replace("metersPerUnit = 1\n", "")
    (bad / "world.usda").write_text(text)
    findings = validate_stage(bad / "world.usda", nvidia=False)
    assert len(findings) >= 2 and {finding.validator for finding in findings} == {"openusd"}


def test_a_file_that_is_no_stage_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    (tmp_path / "world.usda").write_text("no stage")
    with pytest.raises(WorldError, match=r"world\.usda"):
        validate_stage(tmp_path / "world.usda")


def inverted(part: CollisionPart) -> CollisionPart:
    return dataclasses.replace(part, faces=np.ascontiguousarray(part.faces[:, ::-1]))


def test_right_winding_passes() -> None:
    check_winding(make_parts(), FREE_POINTS)


@pytest.mark.parametrize("name", [part.name for part in make_parts()])
def test_each_inverted_part_is_named(name: str) -> None:
    parts = [inverted(part) if part.name == name else part for part in make_parts()]
    with pytest.raises(WorldError, match=f"{name}: ") as caught:
        check_winding(parts, FREE_POINTS)
    assert sum(part.name in str(caught.value) for part in parts) == 1


def test_an_inverted_floor_is_refused_even_where_no_ray_reaches_it() -> None:
    parts = make_parts(floor_up=False)
    with pytest.raises(WorldError, match="floor: its faces point down"):
        check_winding(parts, np.array([[0, 0, 2.0]]))
