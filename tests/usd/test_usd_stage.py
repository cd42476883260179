"""The written stage, read back with OpenUSD alone."""

from __future__ import annotations

import dataclasses
import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from room_world import PROVENANCE, make_cloud, make_mesh, make_parts

from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.io.images import read_image
from lyra_core.types import CollisionPart, Label, Provenance
from lyra_core.usd import _pxr
from lyra_core.usd.stage import write_stage

pytest.importorskip("pxr")
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics, UsdShade

LAYERS = (
    "world.usda",
    *(
        f"payloads/{name}"
        for name in (
            "geometry.usdc",
            "colliders.usdc",
            "splats.usdc",
            "materials.usda",
            "physics.usda",
            "physx.usda",
            "semantics.usda",
            "lights.usda",
        )
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_stage(folder, make_mesh(), make_parts(), make_cloud(), provenance=PROVENANCE)
    return folder


@pytest.fixture()
def stage(folder: Path) -> Usd.Stage:
    return Usd.Stage.Open(str(folder / "world.usda"))


def meshes(stage: Usd.Stage, below: str) -> list[UsdGeom.Mesh]:
    return [UsdGeom.Mesh(prim) for prim in Usd.PrimRange(stage.GetPrimAtPath(below)) if prim.IsA(UsdGeom.Mesh)]


def triangles(mesh: UsdGeom.Mesh) -> np.ndarray:
    points = np.asarray(mesh.GetPointsAttr().Get())
    return points[np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)]


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_says_its_units_and_axis(folder: Path, name: str) -> None:
    layer = Sdf.Layer.FindOrOpen(str(folder / name))
    assert layer.defaultPrim == "World"
    assert {
        key: layer.pseudoRoot.GetInfo(key) for key in ("upAxis", "metersPerUnit", "kilogramsPerUnit", "timeCodesPerSecond")
    } == {"upAxis": "Z", "metersPerUnit": 1.0, "kilogramsPerUnit": 1.0, "timeCodesPerSecond": 60.0}
    assert not [path for path in layer.GetCompositionAssetDependencies() if not path.startswith("./") or "\\" in path]


def test_visual_meshes_hold_every_triangle_with_its_texture_and_provenance(stage: Usd.Stage) -> None:
    source = make_mesh()
    found = {}
    for mesh in meshes(stage, "/World/Geometry"):
        primvars = UsdGeom.PrimvarsAPI(mesh)
        st = np.asarray(primvars.GetPrimvar("st").ComputeFlattened())[np.asarray(mesh.GetFaceVertexIndicesAttr().Get())].reshape(
            -1, 6
        )
        seen = primvars.GetPrimvar("lyra:provenance")
        assert seen.GetInterpolation() == "uniform" and mesh.GetNormalsInterpolation() == "vertex"
        for corners, uv, value in zip(triangles(mesh), st, np.asarray(seen.Get()), strict=True):
            found[tuple(np.round(corners.reshape(-1), 3))] = (uv, value)
    assert len(found) == len(source.faces)
    for face, value in zip(source.faces, source.face_provenance, strict=True):
        corners = source.vertices[face]
        options = [tuple(np.round(np.roll(corners, -k, 0).reshape(-1), 3)) for k in range(3)]
        key, k = next((key, k) for k, key in enumerate(options) if key in found)
        np.testing.assert_allclose(found[key][0], np.roll(source.uv[face], -k, 0).reshape(-1), atol=1e-6)
        assert found[key][1] == value


def test_names_labels_and_material(stage: Usd.Stage, folder: Path) -> None:
    labels = {}
    for mesh in meshes(stage, "/World/Geometry"):
        prim = mesh.GetPrim()
        assert prim.HasAPI("SemanticsLabelsAPI:class") or "SemanticsLabelsAPI:class" in prim.GetAppliedSchemas()
        labels[str(prim.GetPath())[len("/World/Geometry/") :]] = list(prim.GetAttribute("semantics:labels:class").Get())
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        shader = material.ComputeSurfaceSource()[0]
        assert shader.GetIdAttr().Get() == "UsdPreviewSurface"
        texture = UsdShade.Shader(shader.GetInput("diffuseColor").GetConnectedSource()[0].GetPrim())
        assert Path(texture.GetInput("file").Get().resolvedPath) == folder / "payloads" / "Textures" / "atlas.png"
    assert labels == {
        "Floor": ["floor"],
        "Walls": ["wall"],
        "Ceiling": ["ceiling"],
        "Doors": ["door"],
        "Obstacles/table": ["obstacle"],
        "Obstacles/chair": ["obstacle"],
    }


def test_st_zero_is_the_lower_left_of_the_texture(stage: Usd.Stage, folder: Path) -> None:
    picture = read_image(folder / "payloads/Textures/atlas.png")
    h, w = picture.shape[:2]
    for name, colour in (("Floor", (150, 120, 90)), ("Obstacles/chair", (170, 60, 60))):
        st = np.asarray(UsdGeom.PrimvarsAPI(stage.GetPrimAtPath(f"/World/Geometry/{name}")).GetPrimvar("st").ComputeFlattened())
        u, v = st.mean(0)
        pixel = picture[int((1 - v) * h), int(u * w)].astype(float)
        assert np.abs(pixel / pixel.sum() - np.array(colour) / sum(colour)).max() < 0.01


def test_colliders_are_static_guides_apart_from_the_picture(stage: Usd.Stage) -> None:
    prims = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]
    assert {str(prim.GetPath()) for prim in prims} == {f"/World/Colliders/{part.name}" for part in make_parts()}
    assert not [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.RigidBodyAPI)]
    for prim in prims:
        assert UsdGeom.Imageable(prim).ComputePurpose() == "guide"
        hull = prim.GetName() in ("table", "chair")
        assert UsdPhysics.MeshCollisionAPI(prim).GetApproximationAttr().Get() == ("convexHull" if hull else "none")
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial("physics")
        physics = UsdPhysics.MaterialAPI(material.GetPrim())
        assert [
            round(physics.GetPrim().GetAttribute(f"physics:{n}").Get(), 6)
            for n in ("staticFriction", "dynamicFriction", "restitution")
        ] == [0.8, 0.7, 0]
        assert "PhysxCollisionAPI" in prim.GetPrimTypeInfo().GetAppliedAPISchemas()
        assert prim.GetAttribute("physxCollision:contactOffset").Get() == pytest.approx(0.02)
        assert prim.GetAttribute("physxCollision:restOffset").Get() == 0.0
    scene = UsdPhysics.Scene(stage.GetPrimAtPath("/World/PhysicsScene"))
    assert scene.GetGravityDirectionAttr().Get() == Gf.Vec3f(0, 0, -1) and scene.GetGravityMagnitudeAttr().Get() == pytest.approx(
        9.81
    )


def test_only_convex_closed_solids_become_hulls(tmp_path: Path) -> None:
    rows = make_parts()
    table = next(part for part in rows if part.name == "table")
    dented = table.vertices.copy()
    dented[np.isclose(dented, [0.8, 0.6, 0.75]).all(1)] -= [-0.3, -0.3, 0.3]
    odd = [
        dataclasses.replace(table, name="dented", vertices=dented),
        dataclasses.replace(table, name="open", faces=table.faces[2:]),
        dataclasses.replace(table, name="shell", kind="shell"),
        dataclasses.replace(table, name="1 table!"),
        table,
        table,
    ]
    write_stage(tmp_path, make_mesh(side=64), rows[:1] + odd, None, provenance={})
    stage = Usd.Stage.Open(str(tmp_path / "world.usda"))
    kinds = {
        mesh.GetPrim().GetName(): UsdPhysics.MeshCollisionAPI(mesh.GetPrim()).GetApproximationAttr().Get()
        for mesh in meshes(stage, "/World/Colliders")
    }
    assert kinds == {
        "floor": "none",
        "dented": "none",
        "open": "none",
        "shell": "none",
        "_1_table_": "convexHull",
        "table": "convexHull",
        "table_1": "convexHull",
    }


def test_variants_switch_picture_splats_and_physics(stage: Usd.Stage) -> None:
    sets = stage.GetDefaultPrim().GetVariantSets()
    assert (sets.GetVariantSelection("visual"), sets.GetVariantSelection("physics")) == ("mesh", "trimesh")
    shown = {}
    for choice in sets.GetVariantSet("visual").GetVariantNames():
        sets.SetSelection("visual", choice)
        shown[choice] = (bool(stage.GetPrimAtPath("/World/Geometry")), bool(stage.GetPrimAtPath("/World/Splats")))
    assert shown == {"mesh": (True, False), "splats": (False, True), "both": (True, True)}
    sets.SetSelection("physics", "none")
    assert not [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]


@pytest.mark.parametrize(("coefficients", "degree", "stored"), [(1, 0, 1), (4, 3, 16), (9, 3, 16), (16, 3, 16)])
def test_splats_keep_every_number(tmp_path: Path, coefficients: int, degree: int, stored: int) -> None:
    cloud = make_cloud(40, coefficients=coefficients)
    write_stage(tmp_path, make_mesh(side=64), make_parts(), cloud, provenance={})
    stage = Usd.Stage.Open(str(tmp_path / "payloads/splats.usdc"))
    prim = stage.GetPrimAtPath("/World/Splats")
    assert prim.GetTypeName() == "ParticleField3DGaussianSplat"
    get = lambda name: prim.GetAttribute(name).Get()  # noqa: E731
    np.testing.assert_array_equal(np.asarray(get("positions")), cloud.means)
    np.testing.assert_array_equal(np.asarray(get("scales")), cloud.scales)
    np.testing.assert_array_equal(np.asarray(get("opacities")), cloud.opacities)
    wxyz = np.array([[q.GetReal(), *q.GetImaginary()] for q in get("orientations")])
    np.testing.assert_allclose(wxyz, cloud.quats_wxyz, atol=1e-6)
    sh = np.asarray(get("radiance:sphericalHarmonicsCoefficients")).reshape(40, stored, 3)
    np.testing.assert_array_equal(sh[:, :coefficients], cloud.sh)
    assert not sh[:, coefficients:].any() and get("radiance:sphericalHarmonicsDegree") == degree
    attribute = prim.GetAttribute("radiance:sphericalHarmonicsCoefficients")
    assert (attribute.GetMetadata("elementSize"), attribute.GetMetadata("interpolation")) == (stored, "vertex")
    low, high = np.asarray(get("extent"))
    assert (cloud.means - 3 * cloud.scales.max(1, keepdims=True) >= low - 1e-6).all() and (cloud.means <= high).all()


def test_provenance_is_in_the_layer_and_survives_referencing(folder: Path) -> None:
    layer = Sdf.Layer.FindOrOpen(str(folder / "world.usda"))
    assert layer.customLayerData["lyra"] == PROVENANCE
    other = Usd.Stage.CreateInMemory()
    other.DefinePrim("/Scene/Place").GetReferences().AddReference(str(folder / "world.usda"))
    assert other.GetPrimAtPath("/Scene/Place").GetCustomDataByKey("lyra") == PROVENANCE
    assert UsdPhysics.CollisionAPI(other.GetPrimAtPath("/Scene/Place/Colliders/floor"))


WRITE = """import sys; sys.path.insert(0, sys.argv[2])
from pathlib import Path
from room_world import *
from lyra_core.usd.stage import write_stage
write_stage(Path(sys.argv[1]), make_mesh(), make_parts(), make_cloud(), provenance=PROVENANCE)"""


def test_two_processes_write_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / seed), str(Path(__file__).parent)], env=environment, check=True)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert len(names) == len(LAYERS) + 1
    for seed in ("1", "2"):
        assert filecmp.cmpfiles(folder, tmp_path / seed, names, shallow=False)[0] == names


READ = """import json, sys
import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics
stage = Usd.Stage.Open(sys.argv[1])
up = sum(float(np.cross(t[1] - t[0], t[2] - t[0])[2] / 2) for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)
         for mesh in [UsdGeom.Mesh(prim)] for p in [np.asarray(mesh.GetPointsAttr().Get(), float)]
         for t in p[np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)]
         if abs(t[:, 2]).max() < 0.01 and "floor" in prim.GetName())
box = UsdGeom.BBoxCache(0, ["default"]).ComputeWorldBound(stage.GetPseudoRoot()).ComputeAlignedRange()
print(json.dumps({"up": up, "low": list(box.GetMin()), "high": list(box.GetMax()), "lyra": "lyra_core" in sys.modules}))"""


def test_a_reader_with_pxr_alone_sees_the_room(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", READ, str(folder / "world.usda")], cwd="/", capture_output=True, text=True, check=True
    )
    assert "rror" not in done.stderr and "arning" not in done.stderr
    seen = json.loads(done.stdout)
    assert seen["up"] == pytest.approx(6 * 5 + 0.6, abs=1e-3) and not seen["lyra"]
    np.testing.assert_allclose(seen["low"] + seen["high"], [-3, -2.5, 0, 3.6, 2.5, 2.6], atol=1e-3)


def test_rewriting_without_splats_leaves_none_behind(tmp_path: Path) -> None:
    write_stage(tmp_path, make_mesh(side=64), make_parts(), make_cloud(), provenance={})
    write_stage(tmp_path, make_mesh(side=64), make_parts(), None, provenance={})
    assert not (tmp_path / "payloads/splats.usdc").exists()
    stage = Usd.Stage.Open(str(tmp_path / "world.usda"))
    assert stage.GetDefaultPrim().GetVariantSet("visual").GetVariantNames() == ["mesh"]


def test_what_no_reader_takes_is_named(tmp_path: Path) -> None:
    flat = CollisionPart(
        "sliver", Label.WALL, "shell", np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32), Provenance.SEEN
    )
    with pytest.raises(InputError, match="sliver"):
        write_stage(tmp_path, make_mesh(side=64), [*make_parts(), flat], None, provenance={})
    with pytest.raises(InputError, match="opacities"):
        cloud = make_cloud(10)
        write_stage(
            tmp_path, make_mesh(side=64), make_parts(), dataclasses.replace(cloud, opacities=cloud.opacities * 2), provenance={}
        )
    with pytest.raises(InputError, match=r"provenance\.focal"):
        write_stage(tmp_path, make_mesh(side=64), make_parts(), None, provenance={"focal": float("nan")})
    assert not (tmp_path / "world.usda").exists()


def test_without_openusd_one_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pxr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"lyra-worlds\[standalone\]"):
        write_stage(tmp_path, make_mesh(side=64), make_parts(), None, provenance={})


def test_physx_properties_are_those_of_nvidias_schema(stage: Usd.Stage) -> None:
    """Check names and types of the raw attributes against physx-usd-schemas, which is data and needs no import."""
    python = Path(os.environ.get("LYRA_PHYSX_PYTHON", Path(__file__).resolve().parents[2] / ".venv-physx/bin/python"))
    found = sorted(
        python.parent.parent.glob("lib/python*/site-packages/physx_usd_schemas/PhysxSchema/resources/generatedSchema.usda")
    )
    if not found:
        pytest.skip("physx-usd-schemas is not installed (make env-physx)")
    schema = Sdf.Layer.FindOrOpen(str(found[0]))
    prim = stage.GetPrimAtPath("/World/Colliders/floor")
    mine = [a for a in prim.GetAttributes() if a.GetName().startswith("physx")]
    assert len(mine) == 2
    for attribute in mine:
        assert schema.GetAttributeAtPath(f"/PhysxCollisionAPI.{attribute.GetName()}").typeName == attribute.GetTypeName()
