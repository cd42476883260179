"""KHR_gaussian_splatting: round trip, every component type of the extension, node transforms, SPZ inside, paths that escape."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splat_clouds import assert_within, covariances, make_cloud
from splat_third_party import SPZ

from lyra_core.errors import InputError
from lyra_core.splats.khr_gltf import read_khr_gltf, write_khr_gltf
from lyra_core.splats.spz import decode_spz
from lyra_core.splats.transform import flipped, transformed

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "splats"
NAME = "KHR_gaussian_splatting"


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20:20 + size]), data[28 + size:]


def as_gltf(tmp_path: Path, uri: str | None = None, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """Write make_cloud(6) as .gltf; changes overwrite entries of its node."""
    write_khr_gltf(tmp_path / "a.glb", make_cloud(6))
    tree, binary = split(tmp_path / "a.glb")
    tree["buffers"][0]["uri"] = uri or "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    tree["nodes"][0] |= changes
    (tmp_path / "a.bin").write_bytes(binary)
    (tmp_path / "a.gltf").write_text(json.dumps(tree))
    return tmp_path / "a.gltf", tree


def put(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    cloud = make_cloud(degree=degree)
    write_khr_gltf(tmp_path / "a.glb", cloud)
    again = read_khr_gltf(tmp_path / "a.glb")
    for name in ("means", "scales", "opacities", "sh", "provenance"):
        assert np.array_equal(getattr(cloud, name), getattr(again, name)), name
    assert_within(cloud, again)


def test_what_the_specification_asks_of_a_file(tmp_path):
    write_khr_gltf(tmp_path / "a.glb", make_cloud())
    tree, _ = split(tmp_path / "a.glb")
    primitive = tree["meshes"][0]["primitives"][0]
    assert tree["extensionsUsed"] == [NAME] and primitive["mode"] == 0
    assert primitive["extensions"][NAME]["kernel"] == "ellipse"
    assert primitive["extensions"][NAME]["colorSpace"] == "srgb_rec709_display"
    wanted = {"POSITION", f"{NAME}:ROTATION", f"{NAME}:SCALE", f"{NAME}:OPACITY", "COLOR_0"}
    wanted |= {f"{NAME}:SH_DEGREE_{d}_COEF_{i}" for d in range(4) for i in range(2 * d + 1)}
    assert wanted == {name for name in primitive["attributes"] if not name.startswith("_")}
    for index in primitive["attributes"].values():
        view = tree["bufferViews"][tree["accessors"][index]["bufferView"]]
        assert view["byteOffset"] % 4 == 0 and view.get("byteStride", 4) % 4 == 0


def test_trimesh_reads_the_points(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    cloud = make_cloud(20)
    write_khr_gltf(tmp_path / "a.glb", cloud)
    scene = trimesh.load(tmp_path / "a.glb")
    points = next(iter(scene.geometry.values()))
    assert np.abs(points.vertices - cloud.means).max() < 1e-6


@pytest.mark.parametrize("uri", [None, "a.bin", "./a.bin", "%61.bin"])
def test_gltf_with_buffers_inside_or_beside(tmp_path, uri):
    path, _ = as_gltf(tmp_path, uri)
    assert_within(make_cloud(6), read_khr_gltf(path))


@pytest.mark.parametrize("uri", ["../secret.bin", "sub/../../secret.bin", "/etc/passwd", "file:///etc/passwd", "http://h/a.bin",
                                 "%2e%2e/secret.bin", "link.bin", "missing.bin",
                                 "data:,abc", "data:;base64,@@", "\0", "x" * 5000, "."])
def test_buffers_elsewhere_are_refused(tmp_path, uri):
    folder = tmp_path / "folder"
    folder.mkdir()
    path, _ = as_gltf(folder, uri)
    (tmp_path / "secret.bin").write_bytes((folder / "a.bin").read_bytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match=r"a\.gltf: buffers 0"):
        read_khr_gltf(path)


def test_nodes_place_turn_and_scale(tmp_path):
    path, tree = as_gltf(tmp_path, translation=[1, 2, 3], rotation=[0.5, 0.5, 0.5, 0.5], scale=[2, 2, 2])
    tree["nodes"].append({"children": [0], "matrix": [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]})
    tree["scenes"][0]["nodes"] = [1]
    T_inner = np.array([[0, 0, 2, 1], [2, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1.0]])
    T_outer = np.array([[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    want, got = transformed(make_cloud(6), T_outer @ T_inner), read_khr_gltf(put(path, tree))
    assert_within(want, got, means=4e-6)
    assert np.abs(covariances(want) - covariances(got)).max() < 1e-5


def test_a_mesh_shown_twice_is_there_twice(tmp_path):
    path, tree = as_gltf(tmp_path)
    tree["nodes"].append({"mesh": 0, "translation": [0, 0, 9]})
    tree["scenes"][0]["nodes"] = [0, 1]
    got = read_khr_gltf(put(path, tree))
    assert len(got.means) == 12 and np.allclose(got.means[6:] - got.means[:6], [0, 0, 9], atol=1e-5)


@pytest.mark.parametrize(("attribute", "component", "normalized", "stored", "want"), [
    ("ROTATION", 5120, True, np.array([[127, 0, 0, 0]] * 6, "i1"), [0, 1, 0, 0]),
    ("ROTATION", 5122, True, np.array([[0, -32767, 0, 0]] * 6, "<i2"), [0, 0, -1, 0]),
    ("SCALE", 5121, False, np.array([[1, 2, 3, 0]] * 6, "u1"), [1, 2, 3]),
    ("SCALE", 5121, True, np.array([[51, 255, 102, 0]] * 6, "u1"), [0.2, 1, 0.4]),
    ("SCALE", 5123, False, np.array([[1, 2, 300, 0]] * 6, "<u2"), [1, 2, 300]),
    ("SCALE", 5123, True, np.array([[65535, 13107, 65535, 0]] * 6, "<u2"), [1, 0.2, 1]),
    ("OPACITY", 5121, True, np.array([[255, 0, 0, 0]] * 6, "u1"), 1.0),
    ("OPACITY", 5123, True, np.array([[13107, 0]] * 6, "<u2"), 0.2)])
def test_component_types(tmp_path, attribute, component, normalized, stored, want):
    path, tree = as_gltf(tmp_path)
    data = stored.tobytes()
    tree["buffers"].append({"byteLength": len(data), "uri": "data:;base64," + base64.b64encode(data).decode()})
    tree["bufferViews"].append({"buffer": 1, "byteLength": len(data), "byteStride": len(data) // 6})
    kind = {"ROTATION": "VEC4", "SCALE": "VEC3", "OPACITY": "SCALAR"}[attribute]
    tree["accessors"].append({"bufferView": len(tree["bufferViews"]) - 1, "componentType": component, "count": 6, "type": kind,
                              "normalized": normalized})
    tree["meshes"][0]["primitives"][0]["attributes"][f"{NAME}:{attribute}"] = len(tree["accessors"]) - 1
    cloud = read_khr_gltf(put(path, tree))
    got = {"ROTATION": cloud.quats_wxyz, "SCALE": cloud.scales, "OPACITY": cloud.opacities}[attribute]
    assert np.allclose(got, want, atol=1e-6)


def test_linear_colours_become_srgb(tmp_path):
    path, tree = as_gltf(tmp_path)
    tree["meshes"][0]["primitives"][0]["extensions"][NAME]["colorSpace"] = "lin_rec709_display"
    got, cloud = read_khr_gltf(put(path, tree)), make_cloud(6)
    linear = np.clip(0.5 + 0.2820948 * cloud.sh[:, 0].astype(np.float64), 0, 1)
    want = np.where(linear > 0.0031308, 1.055 * linear**(1 / 2.4) - 0.055, 12.92 * linear)
    assert np.allclose(0.5 + 0.2820948 * got.sh[:, 0], want, atol=1e-5)
    # Half of the light is 0.735 on the sRGB scale, where the curve rises by 0.6 to 0.65.
    slope = got.sh[:, 1] / cloud.sh[:, 1]
    assert (slope > 0.3).all()


@pytest.mark.parametrize("name", ["KHR_gaussian_splatting_compression_spz_2", "KHR_gaussian_splatting_compression_spz"])
def test_spz_inside(tmp_path, name):
    path, tree = as_gltf(tmp_path)
    tree["buffers"].append({"byteLength": len(SPZ), "uri": "data:;base64," + base64.b64encode(SPZ).decode()})
    tree["bufferViews"].append({"buffer": 1, "byteLength": len(SPZ)})
    extension = tree["meshes"][0]["primitives"][0]["extensions"][NAME]
    extension["extensions"] = {name: {"bufferView": len(tree["bufferViews"]) - 1}}
    tree["extensionsRequired"] = [NAME, name]
    assert_within(flipped(decode_spz("x", SPZ), (-1, -1, 1)), read_khr_gltf(put(path, tree)))


def faults() -> dict[str, Any]:
    attributes = lambda t: t["meshes"][0]["primitives"][0]["attributes"]  # noqa: E731
    return {
        "one scale per axis": lambda t: t["nodes"][0].update(scale=[1, 2, 1]),
        "a mirror": lambda t: t["nodes"][0].update(scale=[-1, -1, -1]),
        "scale zero": lambda t: t["nodes"][0].update(scale=[0, 0, 0]),
        "matrix of text": lambda t: t["nodes"][0].update(matrix=["a"] * 16),
        "matrix too short": lambda t: t["nodes"][0].update(matrix=[1] * 15),
        "rotation zero": lambda t: t["nodes"][0].update(rotation=[0, 0, 0, 0]),
        "its own child": lambda t: t["nodes"][0].update(children=[0]),
        "children of text": lambda t: t["nodes"][0].update(children="ab"),
        "missing child": lambda t: t["nodes"][0].update(children=[99]),
        "missing mesh": lambda t: t["nodes"][0].update(mesh=7),
        "mesh is true": lambda t: t["nodes"][0].update(mesh=True),
        "no scene": lambda t: t.update(scene=3),
        "scenes of text": lambda t: t.update(scenes="x"),
        "nodes is an object": lambda t: t.update(nodes={}),
        "triangles": lambda t: t["meshes"][0]["primitives"][0].update(mode=4),
        "no attributes": lambda t: t["meshes"][0]["primitives"][0].pop("attributes"),
        "no extension": lambda t: t["meshes"][0]["primitives"][0].update(extensions={}),
        "no opacity": lambda t: attributes(t).pop(f"{NAME}:OPACITY"),
        "no position": lambda t: attributes(t).pop("POSITION"),
        "half a degree": lambda t: attributes(t).pop(f"{NAME}:SH_DEGREE_2_COEF_3"),
        "wrong accessor type": lambda t: attributes(t).update({f"{NAME}:SCALE": attributes(t)[f"{NAME}:OPACITY"]}),
        "count too high": lambda t: t["accessors"][0].update(count=7),
        "count huge": lambda t: t["accessors"][0].update(count=1 << 60),
        "counts differ": lambda t: t["accessors"][0].update(count=5),
        "count negative": lambda t: t["accessors"][0].update(count=-1),
        "count a float": lambda t: t["accessors"][0].update(count=6.5),
        "offset huge": lambda t: t["accessors"][0].update(byteOffset=1 << 61),
        "sparse": lambda t: t["accessors"][0].update(sparse={}),
        "no view": lambda t: t["accessors"][0].pop("bufferView"),
        "component unknown": lambda t: t["accessors"][0].update(componentType=[1]),
        "type a list": lambda t: t["accessors"][0].update(type=["VEC3"]),
        "view too long": lambda t: t["bufferViews"][0].update(byteLength=1 << 40),
        "stride small": lambda t: t["bufferViews"][0].update(byteStride=4),
        "stride huge": lambda t: t["bufferViews"][0].update(byteStride=1 << 61),
        "meshopt": lambda t: t["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}),
        "buffer too long": lambda t: t["buffers"][0].update(byteLength=1 << 40),
        "uri a number": lambda t: t["buffers"][0].update(uri=5),
        "required unknown": lambda t: t.update(extensionsRequired=["EXT_other"]),
        "required a number": lambda t: t.update(extensionsRequired=5),
        "glTF 1": lambda t: t["asset"].update(version="1.0"),
        "asset gone": lambda t: t.pop("asset"),
        "spz view missing": lambda t: t["meshes"][0]["primitives"][0]["extensions"][NAME].update(
            extensions={"KHR_gaussian_splatting_compression_spz_2": {}}),
        "spz is no spz": lambda t: t["meshes"][0]["primitives"][0]["extensions"][NAME].update(
            extensions={"KHR_gaussian_splatting_compression_spz_2": {"bufferView": 0}}),
        "endless repeats": lambda t: (t["nodes"].extend({"mesh": 0} for _ in range(20_000)),
                                      t["scenes"][0].update(nodes=list(range(20_001)))),
        "deep": lambda t: (t["nodes"].extend({"children": [i]} for i in range(3000)), t["scenes"][0].update(nodes=[3000])),
    }


@pytest.mark.parametrize("fault", list(faults()))
def test_files_that_lie_are_refused_by_name(tmp_path, fault):
    path, tree = as_gltf(tmp_path)
    faults()[fault](tree)
    with pytest.raises(InputError, match=r"a\.gltf"):
        read_khr_gltf(put(path, tree))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"asset": []}'])
def test_json_that_is_no_gltf(tmp_path, text):
    (tmp_path / "a.gltf").write_text(text)
    with pytest.raises(InputError, match=r"a\.gltf"):
        read_khr_gltf(tmp_path / "a.gltf")


@pytest.mark.skipif(not (DATA / "khr_extensible_fallback.gltf").is_file(), reason="evaluation data is not here")
def test_fixtures_of_another_project():
    """The fallback file has an unknown kernel, so the ellipse stands in; the matrix has negative scales (logarithms of a draft)."""
    cloud = read_khr_gltf(DATA / "khr_extensible_fallback.gltf")
    assert np.allclose(cloud.means, [[1, 2, 3]]) and np.allclose(cloud.opacities, [0.5])
    with pytest.raises(InputError, match=r"SCALE: got -0\.5, expected linear"):
        read_khr_gltf(DATA / "khr_conformance_matrix.glb")
