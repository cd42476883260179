"""Mesh formats, read back by trimesh, OpenUSD and PIL: extent, orientation, triangles, colours, colliders."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
from pathlib import Path

import export_worlds
import numpy as np
import pytest
import trimesh
from PIL import Image

from lyra_core.errors import InputError
from lyra_core.exports import export_world
from lyra_core.io.meshes import merge_parts, save_levels
from lyra_core.types import DetailLevel
from lyra_core.world import World

LOW, HIGH = np.array([-2.0, -3.0, 0.0]), np.array([10.0, 3.0, 2.5])
Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])


def extent_y_up() -> np.ndarray:
    return np.sort(np.stack([LOW, HIGH]) @ Y_UP.T, axis=0)


def area_of(world: World) -> float:
    return trimesh.Trimesh(world.mesh.vertices, world.mesh.faces, process=False).area


def glb_tree(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20:20 + size]), data[28 + size:]


@pytest.fixture(scope="module")
def glb(export_source: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_world(export_source, tmp_path_factory.mktemp("glb") / "w.glb")[0]


def test_glb_is_the_same_room_upright(export_source: World, glb: Path) -> None:
    scene = trimesh.load(glb)
    visual = {name: mesh for name, mesh in scene.geometry.items() if not name.startswith("collision/")}
    assert {"floor", "floor_behind", "wall_0", "ceiling", "crate", "bench"} <= set(visual)
    assert np.allclose(scene.bounds, extent_y_up(), atol=1e-4)
    assert sum(len(mesh.faces) for mesh in visual.values()) == len(export_source.mesh.faces)
    assert np.isclose(sum(mesh.area for mesh in visual.values()), area_of(export_source), rtol=1e-5)
    assert np.allclose(visual["floor"].face_normals, [0, 1, 0], atol=1e-6)
    assert np.allclose(visual["floor"].vertex_normals, [0, 1, 0], atol=1e-6)
    assert np.allclose(visual["ceiling"].face_normals, [0, -1, 0], atol=1e-6)


def test_glb_texture_is_exact_and_unlit(export_source: World, glb: Path) -> None:
    tree, binary = glb_tree(glb)
    view = tree["bufferViews"][tree["images"][0]["bufferView"]]
    picture = np.asarray(Image.open(io.BytesIO(binary[view["byteOffset"]:view["byteOffset"] + view["byteLength"]])))
    assert np.array_equal(picture, export_source.mesh.texture)
    assert "KHR_materials_unlit" in tree["materials"][0]["extensions"]
    assert tree["asset"]["generator"].startswith("lyra-worlds") and "CC BY 4.0, (c) J. D\u00f6rfler" in tree["asset"]["copyright"]
    assert tree["asset"]["extras"]["licences"] == export_worlds.LICENCES


def test_glb_colours_return_through_the_texture(glb: Path) -> None:
    floor = trimesh.load(glb).geometry["floor"]
    uv = floor.visual.uv.mean(0)
    image = np.asarray(floor.visual.material.baseColorTexture)
    rgb = image[int((1 - uv[1]) * image.shape[0]), int(uv[0] * image.shape[1])]
    assert np.abs(rgb[:3].astype(int) - export_worlds.COLOURS[1]).max() <= 24


def test_glb_colliders_are_apart_and_hidden(export_source: World, glb: Path) -> None:
    tree, _ = glb_tree(glb)
    group = next(node for node in tree["nodes"] if node["name"] == "Collision")
    assert group["extensions"]["KHR_node_visibility"] == {"visible": False} and "KHR_node_visibility" in tree["extensionsUsed"]
    nodes = [tree["nodes"][i] for i in group["children"]]
    assert len(nodes) == len(export_source.collision_parts) and all(node["name"].startswith("collision/") for node in nodes)
    material = tree["materials"][tree["meshes"][nodes[0]["mesh"]]["primitives"][0]["material"]]
    assert material["alphaMode"] == "MASK" and material["pbrMetallicRoughness"]["baseColorFactor"][3] == 0
    scene = trimesh.load(glb)
    crate = scene.geometry["collision/crate"]
    assert np.isclose(trimesh.Trimesh(crate.vertices, crate.faces).volume, 0.8, atol=1e-5)


def test_glb_for_unreal_has_convex_pieces_with_its_names(export_source: World, tmp_path: Path) -> None:
    scene = trimesh.load(export_world(export_source, tmp_path / "u.glb", collider_names="ucx")[0])
    pieces = {name: mesh for name, mesh in scene.geometry.items() if name.startswith("UCX_")}
    assert {"UCX_floor_00", "UCX_wall_0_00", "UCX_crate_00", "UCX_bench_00"} <= set(pieces)
    for name, mesh in pieces.items():
        solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
        assert solid.is_watertight and solid.is_convex and solid.volume > 0, name
        assert name[4:].rsplit("_", 1)[0] in scene.geometry, "each belongs to a visual mesh"


def test_glb_without_colliders_and_with_a_small_texture(export_source: World, tmp_path: Path) -> None:
    path = export_world(export_source, tmp_path / "n.glb", with_colliders=False, max_texture=16)[0]
    scene = trimesh.load(path)
    assert not any(name.startswith("collision/") for name in scene.geometry)
    assert scene.geometry["floor"].visual.material.baseColorTexture.size == (16, 4)


@pytest.mark.parametrize("up", ["y", "z"])
def test_obj(export_source: World, tmp_path: Path, up: str) -> None:
    written = export_world(export_source, tmp_path / "my room.obj", up=up)
    assert [path.name for path in written] == ["my room.obj", "my_room.mtl", "my_room.png"]
    mesh = trimesh.load(written[0], process=False, force="mesh")
    assert np.allclose(mesh.bounds, extent_y_up() if up == "y" else [LOW, HIGH], atol=1e-4)
    assert len(mesh.faces) == len(export_source.mesh.faces) and np.isclose(mesh.area, area_of(export_source), rtol=1e-5)
    floor = mesh.triangles_center[:, 1 if up == "y" else 2] < 1e-6
    upward = mesh.face_normals[floor][:, 1 if up == "y" else 2]
    assert (upward > 0.999).sum() == 4, "two floors look up, the undersides of the solids down"
    text = written[0].read_text()
    assert f"{up.upper()} up" in text.splitlines()[1] and "o wall_0" in text and "mtllib my_room.mtl" in text
    assert np.array_equal(np.asarray(Image.open(written[2])), export_source.mesh.texture)
    assert "map_Kd my_room.png" in written[1].read_text()


def test_ply_mesh_has_the_textures_colours(export_source: World, tmp_path: Path) -> None:
    mesh = trimesh.load(export_world(export_source, tmp_path / "w.ply")[0], process=False)
    assert np.allclose(mesh.bounds, [LOW, HIGH], atol=1e-4) and len(mesh.faces) == len(export_source.mesh.faces)
    assert np.isclose(mesh.area, area_of(export_source), rtol=1e-5)
    top = mesh.face_normals[:, 2] > 0.99
    floor = np.unique(mesh.faces[top & (mesh.triangles_center[:, 2] < 0.01)])
    rgb = mesh.visual.vertex_colors[floor, :3].astype(int)
    assert np.abs(rgb - export_worlds.COLOURS[1]).max() <= 24
    assert np.allclose(mesh.vertex_normals[floor], [0, 0, 1], atol=1e-5)


@pytest.mark.parametrize("up", ["z", "y"])
def test_stl_is_what_a_robot_touches(export_source: World, tmp_path: Path, up: str) -> None:
    mesh = trimesh.load(export_world(export_source, tmp_path / "w.stl", up=up)[0])
    assert np.allclose(mesh.bounds, extent_y_up() if up == "y" else [LOW, HIGH], atol=1e-4)
    assert len(mesh.faces) == sum(len(part.faces) for part in export_source.collision_parts)
    data = (tmp_path / "w.stl").read_bytes()
    assert b"unit metre" in data[:80] and not data.startswith(b"solid")


@pytest.mark.parametrize("up", ["y", "z"])
def test_usdz_opens_alone(export_source: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: str) -> None:
    pytest.importorskip("pxr")
    from pxr import Sdf, Usd, UsdGeom, UsdPhysics, UsdShade, UsdUtils

    from lyra_core.usd.validate import validate_stage

    path = export_world(export_source, tmp_path / "a" / "w.usdz", up=up)[0]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "moved.usdz"
    os.replace(path, moved)
    stage = Usd.Stage.Open("moved.usdz")
    assert UsdGeom.GetStageUpAxis(stage) == up.upper() and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    meshes = [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
    visual = [mesh for mesh in meshes if mesh.ComputePurpose() == "default"]
    assert len(meshes) - len(visual) == len(export_source.collision_parts)
    assert sum(len(mesh.GetFaceVertexCountsAttr().Get()) for mesh in visual) == len(export_source.mesh.faces)
    box = UsdGeom.BBoxCache(Usd.TimeCode.Default(), ["default"]).ComputeWorldBound(stage.GetDefaultPrim()).ComputeAlignedRange()
    assert np.allclose([box.GetMin(), box.GetMax()], extent_y_up() if up == "y" else [LOW, HIGH], atol=1e-4)
    floor = UsdGeom.Mesh(stage.GetPrimAtPath("/World/Geometry/Floor"))
    assert np.allclose(floor.GetNormalsAttr().Get(), [0, 1, 0] if up == "y" else [0, 0, 1], atol=1e-5)
    gravity = UsdPhysics.Scene(stage.GetPrimAtPath("/World/PhysicsScene")).GetGravityDirectionAttr().Get()
    assert np.allclose(gravity, [0, -1, 0] if up == "y" else [0, 0, -1])
    layers, assets, unresolved = UsdUtils.ComputeAllDependencies(str(moved))
    assert len(layers) == 1 and [asset.rsplit("[", 1)[1] for asset in assets] == ["textures/atlas.png]"] and not unresolved
    package = Sdf.ZipFile.Open(str(moved))
    assert package.GetFileNames()[0] == "world.usdc"
    assert all(package.GetFileInfo(name).dataOffset % 64 == 0 for name in package.GetFileNames())
    sampler = UsdShade.Shader(stage.GetPrimAtPath("/World/Looks/Atlas/Texture")).GetInput("file").Get().path
    assert sampler == "textures/atlas.png"
    assert validate_stage(moved, nvidia=False) == []


def test_coarser_copy_has_colours_at_its_vertices(export_source: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(export_source.folder, tmp_path / "world"))
    parts = [part for part in world.collision_parts if part.name in ("floor", "crate")]
    vertices, faces = merge_parts(parts)
    rgb = np.tile(np.uint8([[200, 100, 50]]), (len(vertices), 1))
    label = np.repeat([1, 4], [2, len(faces) - 2]).astype(np.uint8)
    save_levels(world.folder / "mesh_levels.npz", [DetailLevel(vertices, faces, rgb, label, label * 0, 0.0, 0.0)])
    scene = trimesh.load(export_world(world, tmp_path / "l.glb", level="0", with_colliders=False)[0])
    assert set(scene.geometry) == {"floor", "obstacle"} and len(scene.geometry["obstacle"].faces) == 12
    tree, binary = glb_tree(tmp_path / "l.glb")
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    linear = np.frombuffer(binary, "<f4", 3, tree["bufferViews"][accessor["bufferView"]]["byteOffset"])
    assert np.allclose(linear, ((np.array([200, 100, 50]) / 255 + 0.055) / 1.055) ** 2.4, atol=1e-6), "glTF's are linear"
    ply = trimesh.load(export_world(world, tmp_path / "l.ply", level="0")[0], process=False)
    assert len(ply.faces) == len(faces) and (ply.visual.vertex_colors[:, :3] == [200, 100, 50]).all()
    export_world(world, tmp_path / "l.las", level="0")
    with pytest.raises(InputError, match="full, 0"):
        export_world(world, tmp_path / "m.glb", level="1")
