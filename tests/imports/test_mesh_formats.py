"""Meshes of every format: what is read is what other readers read, in the file's frame, with its colours and textures."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_files import CUBE_F, CUBE_V, gltf_tree, obj_text, off_text, ply_bytes, stl_bytes, usda_text, zip_bytes

from lyra_core.errors import InputError, LyraError
from lyra_core.imports.base import MeshSource
from lyra_core.imports.mesh import load_mesh
from lyra_core.surface.gravity import face_geometry

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def png(rgb: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 4), rgb).save(out, "PNG")
    return out.getvalue()


def volume(mesh: MeshSource) -> float:
    corners = mesh.vertices[mesh.faces]
    return float((corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


@pytest.mark.parametrize("name", ["c.ply", "c.STL", "c.obj", "c.off", "c.gltf", "c.GLB", "t.ply", "b.ply", "t.stl"])
def test_trimesh_reads_the_same(tmp_path: Path, name: str) -> None:
    mesh, path = trimesh.creation.icosphere(2), tmp_path / name
    mesh.apply_translation([1, 2, 3])
    if name == "t.stl":
        path.write_text(trimesh.exchange.stl.export_stl_ascii(mesh))
    elif name == "t.ply":
        path.write_bytes(trimesh.exchange.ply.export_ply(mesh, encoding="ascii"))
    elif name == "b.ply":
        little = ply_bytes(mesh.vertices, mesh.faces)
        head, mark, _ = little.partition(b"end_header\n")
        rows = np.zeros(len(mesh.faces), [("n", "u1"), ("i", ">i4", 3)])
        rows["n"], rows["i"] = 3, mesh.faces
        path.write_bytes(head.replace(b"little", b"big") + mark + mesh.vertices.astype(">f4").tobytes() + rows.tobytes())
    else:
        mesh.export(path, file_type=name[2:].lower())
    got = load_mesh(path)
    want = trimesh.load(path, process=False, force="mesh")
    np.testing.assert_allclose(got.mesh.vertices[got.mesh.faces], want.triangles, atol=1e-6)
    assert volume(got.mesh) == pytest.approx(mesh.volume, rel=1e-5)
    is_gltf = name[2:].lower() in ("gltf", "glb")
    assert got.metres_per_unit == (1.0 if is_gltf else None) and (got.up is not None) == is_gltf
    assert got.kind == "mesh" and got.files[0] == path


def test_gltf_transforms_strips_and_instances(tmp_path: Path) -> None:
    tree = gltf_tree(CUBE_V, CUBE_F)
    tree["nodes"] = [{"children": [1, 2], "translation": [10, 0, 0], "rotation": [0, 0, np.sqrt(0.5), np.sqrt(0.5)]},
                     {"mesh": 0, "scale": [-2, 1, 1]}, {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 5, 0, 1]}]
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(tree))
    got, want = load_mesh(path).mesh, trimesh.load(path, process=False).to_geometry()
    assert volume(got) == pytest.approx(3.0)  # the mirrored one too has its front outside
    np.testing.assert_allclose(np.sort(got.vertices, 0), np.sort(want.vertices, 0), atol=1e-6)
    strip = gltf_tree(CUBE_V, np.array([[0, 1, 2], [3, 3, 3]]))
    strip["accessors"][1]["count"] = 4
    strip["meshes"][0]["primitives"][0]["mode"] = 5
    path.write_text(json.dumps(strip))
    assert load_mesh(path).mesh.faces.tolist() == [[0, 1, 2], [1, 3, 2]]
    strip["meshes"][0]["primitives"][0]["mode"] = 6
    path.write_text(json.dumps(strip))
    assert load_mesh(path).mesh.faces.tolist() == [[1, 2, 0], [2, 3, 0]]
    del strip["meshes"][0]["primitives"][0]["indices"]
    strip["meshes"][0]["primitives"][0]["mode"] = 4
    path.write_text(json.dumps(strip))
    assert load_mesh(path).mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_gltf_quantised_strided_sparse_and_textured(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [127, 0, 0], [0, 127, 0]], np.int8)
    rows = np.zeros(3, [("p", "i1", 4), ("uv", "<u2", 2)])
    rows["p"][:, :3], rows["uv"] = corners, [[0, 0], [65535, 0], [0, 65535]]
    sparse = np.array([2], "<u2").tobytes() + b"\0\0" + np.array([0, -127, 0, 0], np.int8).tobytes()
    data = rows.tobytes() + sparse
    tree = {
        "asset": {"version": "2.0"}, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "extensionsRequired": ["KHR_mesh_quantization"],
        "buffers": [{"byteLength": len(data), "uri": "a.bin"}],
        "bufferViews": [{"buffer": 0, "byteLength": 24, "byteStride": 8}, {"buffer": 0, "byteOffset": 24, "byteLength": 4},
                        {"buffer": 0, "byteOffset": 28, "byteLength": 4}],
        "accessors": [{"bufferView": 0, "componentType": 5120, "normalized": True, "count": 3, "type": "VEC3",
                       "sparse": {"count": 1, "indices": {"bufferView": 1, "componentType": 5123}, "values": {"bufferView": 2}}},
                      {"bufferView": 0, "byteOffset": 4, "componentType": 5123, "normalized": True, "count": 3, "type": "VEC2"}],
        "images": [{"uri": "a%20b.png"}], "textures": [{"source": 0}],
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "baseColorFactor": [0.2158605, 1, 1, 1]}}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0}]}]}
    (tmp_path / "a.bin").write_bytes(data)
    (tmp_path / "a b.png").write_bytes(png((1, 2, 3)))
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    source = load_mesh(tmp_path / "a.gltf")
    mesh = source.mesh
    np.testing.assert_allclose(mesh.vertices, [[0, 0, 0], [1, 0, 0], [0, -1, 0]])
    np.testing.assert_allclose(mesh.corner_uv[0], [[0, 1], [1, 1], [0, 0]])  # glTF's v runs down, ours up
    assert mesh.face_texture.tolist() == [0]
    assert mesh.textures[0].shape == (4, 2, 3) and mesh.textures[0][0, 0].tolist() == [1, 2, 3]
    assert mesh.face_rgb.tolist() == [[128, 255, 255]]  # linear 0.216 is the middle of sRGB
    assert {file.name for file in source.files} == {"a.gltf", "a.bin", "a b.png"}


def test_obj_polygons_materials_and_relative_indices(tmp_path: Path) -> None:
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl pic\nKd 0 0 0\nmap_Kd -s 1 1 1 p.png\n"
                                    "newmtl up\nmap_Kd ../x.png\n")
    (tmp_path / "p.png").write_bytes(png((9, 8, 7)))
    # An arrow head: a fan from its first corner would leave the polygon.
    (tmp_path / "a.obj").write_text(
        "mtllib m.mtl\nv 0 0 0\nv 2 2 0\nv 0 1 0\nv -2 2 0\nvt 0 0\nvt 1 0\nvt 0 1\n"
        "usemtl red\nf 2 3 4 1\nusemtl pic\nf -4/1 -3/2 \\\n-1/3\n"
        "usemtl up\nf 1//1 2//1 4//1\n")
    source = load_mesh(tmp_path / "a.obj")
    mesh = source.mesh
    assert face_geometry(mesh.vertices, mesh.faces)[1][:2].sum() == pytest.approx(2.0)
    assert (face_geometry(mesh.vertices, mesh.faces)[0][:2, 2] > 0).all()
    assert mesh.face_rgb.tolist() == [[255, 0, 0]] * 2 + [[255] * 3] * 2
    assert mesh.face_texture.tolist() == [-1, -1, 0, -1]
    assert mesh.corner_uv[2].tolist() == [[0, 0], [1, 0], [0, 1]]
    assert any("x.png" in note for note in source.notes)


def test_usd_features(tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    (tmp_path / "p.png").write_bytes(png((5, 6, 7)))
    text = usda_text(CUBE_V, CUBE_F, head="metersPerUnit = 0.01\n    upAxis = \"Y\"", extra='''
    uniform token orientation = "leftHanded"
    int[] holeIndices = [0, 1]
    double3 xformOp:scale = (-2, 1, 1)
    uniform token[] xformOpOrder = ["xformOp:scale"]
    texCoord2f[] primvars:st = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (1, 0), (0, 1), (1, 1)] (interpolation = "vertex")
    rel material:binding = </mat>''', tail='''def Material "mat" {
    token outputs:surface.connect = </mat/s.outputs:surface>
    def Shader "s" {
        uniform token info:id = "UsdPreviewSurface"
        color3f inputs:diffuseColor.connect = </mat/t.outputs:rgb>
        token outputs:surface
    }
    def Shader "t" {
        uniform token info:id = "UsdUVTexture"
        asset inputs:file = @p.png@
        float3 outputs:rgb
    }
}
def Cube "guide" {
    uniform token purpose = "guide"
}
def Sphere "hidden" {
    token visibility = "invisible"
}
def PointInstancer "many" {
    int[] protoIndices = [0, 0, 0]
    point3f[] positions = [(10, 0, 0), (20, 0, 0), (30, 0, 0)]
    rel prototypes = </many/box>
    def Cube "box" {
        double size = 1
        color3f[] primvars:displayColor = [(1, 0, 0)]
    }
}''')
    (tmp_path / "a.usda").write_text(text)
    source = load_mesh(tmp_path / "a.usda")
    mesh = source.mesh
    assert source.metres_per_unit == 0.01 and source.up.tolist() == [0, 1, 0] and source.unit_stated_by
    assert len(mesh.faces) == 10 + 3 * 12
    # A left-handed cube that is mirrored: both turn it, so the ten faces are wound as they are written, mirrored by the scale.
    normals = face_geometry(mesh.vertices, mesh.faces)[0]
    centers = mesh.vertices[mesh.faces].mean(1)
    np.testing.assert_allclose(centers[10:].reshape(3, 12, 3).mean(1), [[10, 0, 0], [20, 0, 0], [30, 0, 0]], atol=1e-6)
    assert ((centers[:10] - [-1, 0.5, 0.5]) * normals[:10]).sum(1).max() < 0  # left-handed fronts of this cube look inside
    assert mesh.textures[0][0, 0].tolist() == [5, 6, 7]
    assert (mesh.face_texture[:10] == 0).all() and (mesh.face_texture[10:] == -1).all()
    assert (mesh.face_rgb[10:] == [255, 0, 0]).all()
    assert any("guide" in note for note in source.notes) and any("not visible" in note for note in source.notes)
    (tmp_path / "a.usdz").write_bytes(zip_bytes([("a.usda", text.encode()), ("p.png", png((5, 6, 7)))]))
    packed = load_mesh(tmp_path / "a.usdz")
    assert packed.mesh.textures[0][0, 0].tolist() == [5, 6, 7]
    np.testing.assert_array_equal(packed.mesh.vertices, mesh.vertices)


def test_usd_without_unit_is_unknown(tmp_path: Path) -> None:
    pytest.importorskip("pxr")
    (tmp_path / "a.usda").write_text(usda_text(CUBE_V, CUBE_F, head=""))
    source = load_mesh(tmp_path / "a.usda")
    assert source.metres_per_unit is None and source.up is None and sum("does not state" in note for note in source.notes) == 2


def test_bad_faces_are_dropped_or_refused(tmp_path: Path) -> None:
    many = np.concatenate([np.tile(CUBE_F, (10, 1)), [[0, 1, 99]]])
    (tmp_path / "a.off").write_text(off_text(CUBE_V, many))
    source = load_mesh(tmp_path / "a.off")
    assert len(source.mesh.faces) == 120 and any("1 of 121" in note for note in source.notes)
    (tmp_path / "a.off").write_text(off_text(CUBE_V, many[-3:]))
    with pytest.raises(InputError, match="out of range"):
        load_mesh(tmp_path / "a.off")


def test_folder_widens_what_may_be_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\n")
    path = tmp_path / "in" / "a.obj"
    path.write_text(obj_text(CUBE_V, CUBE_F, "mtllib ../m.mtl\nusemtl red\n"))
    with pytest.raises(InputError, match=r"m\.mtl"):
        load_mesh(path)
    assert (load_mesh(path, folder=tmp_path).mesh.face_rgb == [255, 0, 0]).all()
    (tmp_path / "in" / "link.mtl").symlink_to(tmp_path / "m.mtl")
    path.write_text(obj_text(CUBE_V, CUBE_F, "mtllib link.mtl\n"))
    with pytest.raises(InputError, match=r"link\.mtl"):
        load_mesh(path)


def test_binary_stl_that_starts_with_solid(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_bytes(b"solid facet".ljust(80) + stl_bytes(CUBE_V, CUBE_F)[80:])
    assert len(load_mesh(tmp_path / "a.stl").mesh.faces) == 12


def test_real_meshes() -> None:
    if not DATA.exists():
        pytest.skip("the evaluation data is not here")
    for path in sorted((DATA / "meshes").glob("*.ply")):
        source, want = load_mesh(path), trimesh.load(path, process=False)
        np.testing.assert_array_equal(source.mesh.faces, want.faces)
        np.testing.assert_allclose(source.mesh.vertices, want.vertices, atol=1e-6)
    assert source.mesh.vertex_rgb is not None and (source.mesh.vertex_rgb == want.visual.vertex_colors[:, :3]).all()


def test_real_usd() -> None:
    pytest.importorskip("pxr")
    if not DATA.exists():
        pytest.skip("the evaluation data is not here")
    names = {"newton_physics/humanoid.usda": 9670, "usdwg_box_animated/BoxAnimated.usdz": 320,
             "usdwg_stage_composition/purpose.usda": 16, "usdwg_stage_composition/references/reference_invalid.usda": 8}
    for name, vertices in names.items():
        assert len(load_mesh(DATA / "usd" / name).mesh.vertices) == vertices, name
    with pytest.raises(LyraError, match="_parent_stage"):
        load_mesh(DATA / "usd" / "usdwg_stage_composition" / "payload" / "payload_parent_folder.usda")
    wide = DATA / "usd" / "usdwg_stage_composition"
    assert len(load_mesh(wide / "payload" / "payload_parent_folder.usda", folder=wide).mesh.faces) == 12
