"""Gaussians read back out of USD stages: transforms, half precision, padding, instances, other people's damage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splat_clouds import assert_within, covariances, make_cloud

from lyra_core.errors import InputError
from lyra_core.splats.transform import transformed
from lyra_core.usd.read_splats import TYPE, read_usd_splats
from lyra_core.usd.splats import SPLATS, author_splats

pytest.importorskip("pxr")
SH = "radiance:sphericalHarmonicsCoefficients"


def new_stage(path: Path, degree: int = 3, count: int = 40, **metadata: Any) -> Any:
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.CreateNew(str(path))
    if "up" in metadata:
        UsdGeom.SetStageUpAxis(stage, metadata["up"])
    if "unit" in metadata:
        UsdGeom.SetStageMetersPerUnit(stage, metadata["unit"])
    author_splats(stage, make_cloud(count, degree))
    return stage


@pytest.mark.parametrize("suffix", [".usda", ".usdc"])
@pytest.mark.parametrize("degree", [0, 3])
def test_round_trip(tmp_path, suffix, degree):
    new_stage(tmp_path / f"s{suffix}", degree, up="Z", unit=0.01).Save()
    found, cloud = read_usd_splats(tmp_path / f"s{suffix}"), make_cloud(40, degree)
    assert (found.up_axis, found.metres_per_unit, found.prims) == ("Z", 0.01, (SPLATS,))
    assert_within(cloud, found.cloud)
    assert np.array_equal(found.cloud.provenance, cloud.provenance)


def test_padding_goes_back_to_the_stated_degree(tmp_path):
    """Our writer pads degree 1 to 3 and says 3; a file may also pad and say 1."""
    stage = new_stage(tmp_path / "s.usda", 1)
    stage.Save()
    padded = read_usd_splats(tmp_path / "s.usda").cloud
    assert padded.sh.shape[1] == 16 and not padded.sh[:, 4:].any()
    stage.GetPrimAtPath(SPLATS).GetAttribute("radiance:sphericalHarmonicsDegree").Set(1)
    stage.Save()
    found = read_usd_splats(tmp_path / "s.usda")
    assert_within(make_cloud(40, 1), found.cloud)
    assert found.up_axis is None and found.metres_per_unit is None


def test_local_to_world_is_applied_to_all(tmp_path):
    from pxr import Gf, UsdGeom

    stage = new_stage(tmp_path / "s.usdc")
    matrix = Gf.Matrix4d().SetScale(2.0) * Gf.Matrix4d().SetRotate(Gf.Rotation(Gf.Vec3d(1, 2, 3), 50))
    matrix.SetTranslateOnly(Gf.Vec3d(5, 6, 7))
    UsdGeom.Xform.Define(stage, "/World").AddTransformOp().Set(matrix)
    stage.Save()
    want = transformed(make_cloud(40), np.array(matrix).T)
    got = read_usd_splats(tmp_path / "s.usdc").cloud
    corner = matrix.Transform(Gf.Vec3d(*make_cloud(40).means[0].astype(float)))
    assert np.abs(got.means[0] - np.array(corner)).max() < 1e-5
    assert_within(want, got)
    assert np.abs(covariances(want) - covariances(got)).max() < 1e-5


def test_halves_time_samples_references_payloads_and_instances(tmp_path):
    from pxr import Gf, Sdf, Usd, UsdGeom, Vt

    stage = new_stage(tmp_path / "s.usda")
    prim, cloud = stage.GetPrimAtPath(SPLATS), make_cloud(40)
    prim.RemoveProperty("scales")
    halves = Vt.Vec3hArray([Gf.Vec3h(*map(float, row)) for row in cloud.scales])
    prim.CreateAttribute("scalesh", Sdf.ValueTypeNames.Half3Array).Set(halves)
    positions = prim.GetAttribute("positions").Get()
    prim.GetAttribute("positions").Clear()
    prim.GetAttribute("positions").Set(positions, 24.0)
    stage.SetDefaultPrim(stage.GetPrimAtPath("/World"))
    stage.Save()
    assert_within(cloud, read_usd_splats(tmp_path / "s.usda").cloud, log_scales=1e-3)

    entry = Usd.Stage.CreateNew(str(tmp_path / "entry.usda"))
    for i in range(2):
        held = UsdGeom.Xform.Define(entry, f"/Entry/Copy{i}")
        held.AddTranslateOp().Set(Gf.Vec3d(0, 0, 10 * i))
        held.GetPrim().GetReferences().AddReference("./s.usda")
        held.GetPrim().SetInstanceable(True)
    entry.DefinePrim("/Entry/Loaded").GetPayloads().AddPayload("./s.usda")
    entry.Save()
    found = read_usd_splats(tmp_path / "entry.usda")
    assert len(found.prims) == 3 and len(found.cloud.means) == 120
    assert np.allclose(found.cloud.means[40:80] - found.cloud.means[:40], [0, 0, 10], atol=1e-5)


def faults() -> dict[str, Any]:
    from pxr import Gf, UsdGeom, Vt

    def scaled(stage: Any) -> None:
        UsdGeom.Xform.Define(stage, "/World").AddScaleOp().Set(Gf.Vec3f(1, 2, 1))

    def attribute(name: str, value: Any) -> Any:
        return lambda stage: stage.GetPrimAtPath(SPLATS).GetAttribute(name).Set(value)

    return {
        "other type": lambda s: s.GetPrimAtPath(SPLATS).SetTypeName("Mesh"),
        "inactive": lambda s: s.GetPrimAtPath(SPLATS).SetActive(False),
        "no positions": lambda s: s.GetPrimAtPath(SPLATS).RemoveProperty("positions"),
        "no scales": lambda s: s.GetPrimAtPath(SPLATS).RemoveProperty("scales"),
        "no harmonics": lambda s: s.GetPrimAtPath(SPLATS).RemoveProperty(SH),
        "empty": attribute("positions", Vt.Vec3fArray()),
        "fewer opacities": attribute("opacities", Vt.FloatArray([0.5])),
        "opacity over 1": attribute("opacities", Vt.FloatArray([1.5] * 40)),
        "negative scale": attribute("scales", Vt.Vec3fArray([Gf.Vec3f(-1, 1, 1)] * 40)),
        "NaN": attribute("positions", Vt.Vec3fArray([Gf.Vec3f(float("nan"))] * 40)),
        "zero rotation": attribute("orientations", Vt.QuatfArray([Gf.Quatf(0)] * 40)),
        "degree too high": attribute("radiance:sphericalHarmonicsDegree", 9),
        "degree negative": attribute("radiance:sphericalHarmonicsDegree", -1),
        "fewer harmonics": attribute(SH, Vt.Vec3fArray([Gf.Vec3f(0)] * 39)),
        "provenance 7": attribute("primvars:lyra:provenance", Vt.IntArray([7] * 40)),
        "several scales": scaled,
        "zero metres": lambda s: UsdGeom.SetStageMetersPerUnit(s, 0.0),
        "missing reference": lambda s: (s.RemovePrim(SPLATS), s.OverridePrim("/World").GetReferences().AddReference("./no.usda")),
        "reference to itself": lambda s: (s.RemovePrim(SPLATS),
                                          s.OverridePrim("/World").GetReferences().AddInternalReference("/World")),
        "reference out": lambda s: (s.RemovePrim(SPLATS),
                                    s.OverridePrim("/World").GetReferences().AddReference("../../../../etc/passwd")),
    }


@pytest.mark.parametrize("fault", ["other type", "inactive", "no positions", "no scales", "no harmonics", "empty",
                                   "fewer opacities",
                                   "opacity over 1", "negative scale", "NaN", "zero rotation", "degree too high", "degree negative",
                                   "fewer harmonics", "provenance 7", "several scales", "zero metres", "missing reference",
                                   "reference to itself", "reference out"])
def test_stages_that_lie_are_refused_by_name(tmp_path, fault):
    stage = new_stage(tmp_path / "s.usda")
    faults()[fault](stage)
    stage.Save()
    with pytest.raises(InputError, match=r"s\.usda"):
        read_usd_splats(tmp_path / "s.usda")


@pytest.mark.parametrize("line", ['string positions = "abc"', "float2[] positions = [(0, 0), (1, 1)]", "int positions = 5",
                                  'asset[] positions = [@a@, @b@]', "double4[] positions = [(1, 2, 3, 4)]", "bool positions = 1"])
def test_attributes_of_other_types(tmp_path, line):
    new_stage(tmp_path / "s.usda").Save()
    text = (tmp_path / "s.usda").read_text()
    assert re.search(r"point3f\[\] positions = .*", text)
    (tmp_path / "s.usda").write_text(re.sub(r"point3f\[\] positions = .*", line, text))
    with pytest.raises(InputError, match=r"s\.usda"):
        read_usd_splats(tmp_path / "s.usda")


@pytest.mark.parametrize("suffix", [".usda", ".usdc", ".usdz", ".usd"])
@pytest.mark.parametrize("cut", [0, 1, 20, 0.3, 0.8])
def test_cut_and_foreign_files(tmp_path, suffix, cut):
    new_stage(tmp_path / "whole.usdc").Save()
    data = (tmp_path / "whole.usdc").read_bytes() if suffix != ".usda" else b"#usda 1.0\n(\n" + b"def" * 100
    path = tmp_path / f"s{suffix}"
    path.write_bytes(data[:int(cut * len(data)) if 0 < cut < 1 else int(cut)])
    with pytest.raises(InputError, match=r"s\.usd"):
        read_usd_splats(path)


def test_missing_and_folder(tmp_path):
    for path in (tmp_path / "no.usda", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_usd_splats(path)
    (tmp_path / "e.usda").write_text("#usda 1.0\n")
    with pytest.raises(InputError, match=TYPE):
        read_usd_splats(tmp_path / "e.usda")
