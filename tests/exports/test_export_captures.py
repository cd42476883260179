"""Capture folders, maps and splats: a pixel's depth lands where the world has a surface, whoever reads the files."""

from __future__ import annotations

import json
from pathlib import Path

import export_worlds
import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image

from lyra_core.camera.exchange import load_colmap, load_nerfstudio
from lyra_core.errors import InputError
from lyra_core.exports import export_world
from lyra_core.exports.splats import T_FILE_WORLD
from lyra_core.io.ply import read_vertex_ply
from lyra_core.types import Provenance
from lyra_core.world import World


def off_surface(world: World, points: np.ndarray) -> float:
    mesh = trimesh.Trimesh(world.mesh.vertices, world.mesh.faces, process=False)
    return float(trimesh.proximity.closest_point_naive(mesh, points)[1].max())


def test_nerfstudio(export_source: World, tmp_path: Path) -> None:
    written = export_world(export_source, tmp_path / "ns", format="nerfstudio")
    assert written[0] == tmp_path / "ns/transforms.json"
    path, names = load_nerfstudio(written[0])
    assert np.allclose(path.T_world_camera, export_worlds.trajectory().T_world_camera, atol=1e-9)
    tree = json.loads(written[0].read_text())
    assert tree["depth_unit_scale_factor"] == 0.001
    # By nerfstudio's own words: OpenGL camera axes, y up and looking along -z.
    frame = tree["frames"][1]
    depth = np.asarray(Image.open(tmp_path / "ns" / frame["depth_file_path"])).astype(float) * tree["depth_unit_scale_factor"]
    v, u = np.mgrid[2:48:9, 2:64:9].reshape(2, -1)
    z = depth[v, u]
    local = np.stack([(u + 0.5 - frame["cx"]) / frame["fl_x"] * z, -(v + 0.5 - frame["cy"]) / frame["fl_y"] * z, -z], 1)
    T = np.array(frame["transform_matrix"])
    assert off_surface(export_source, local @ T[:3, :3].T + T[:3, 3]) < 0.01
    picture = np.asarray(Image.open(tmp_path / "ns" / names[1]))
    assert np.array_equal(picture, np.asarray(Image.open(export_source.folder / "frames/00001.png")))
    cloud = read_vertex_ply(tmp_path / "ns" / tree["ply_file_path"])
    points = np.stack([cloud[k] for k in "xyz"], 1)
    assert len(points) > 5000 and off_surface(export_source, points[::200]) < 0.01


def test_colmap(export_source: World, tmp_path: Path) -> None:
    export_world(export_source, tmp_path / "c", format="colmap", frame_stride=2)
    path, names = load_colmap(tmp_path / "c/sparse/0")
    assert names == ["00000.png", "00002.png"] and (tmp_path / "c/images/00002.png").is_file()
    assert np.allclose(path.T_world_camera, export_worlds.trajectory().T_world_camera[::2], atol=1e-9)
    rows = [line.split() for line in (tmp_path / "c/sparse/0/points3D.txt").read_text().splitlines()]
    assert off_surface(export_source, np.array([row[1:4] for row in rows[::200]], float)) < 0.01


def test_colmap_through_pycolmap(export_source: World, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    export_world(export_source, tmp_path / "c", format="colmap")
    model = pycolmap.Reconstruction(tmp_path / "c/sparse/0")
    model.update_point_3d_errors()
    assert model.num_reg_images() == 3 and model.compute_mean_track_length() == 1
    assert model.compute_mean_reprojection_error() < 1e-3


def test_a_world_without_frames_says_so(frameless: Path, tmp_path: Path) -> None:
    for name in ("nerfstudio", "colmap"):
        with pytest.raises(InputError, match="--keep all"):
            export_world(frameless, tmp_path / name, format=name)
        assert list(tmp_path.iterdir()) == []


def test_frames_of_two_sizes_are_named(tmp_path: Path) -> None:
    folder = export_worlds.build(tmp_path / "world")
    Image.new("RGB", (32, 24)).save(folder / "frames/00001.png")
    with pytest.raises(InputError, match="frame 00001"):
        export_world(folder, tmp_path / "ns", format="nerfstudio")
    (folder / "depth/00002.png").unlink()
    with pytest.raises(InputError, match=r"depth/00002\.png"):
        export_world(folder, tmp_path / "ns", format="nerfstudio")
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_ros_map(export_source: World, tmp_path: Path) -> None:
    written = export_world(export_source, tmp_path / "ros", format="ros")
    assert {path.name for path in written} == {"map.yaml", "map.pgm", "keepout.yaml", "keepout.pgm", "README.txt", "export.json"}
    facts = yaml.safe_load(written[0].read_text())
    assert facts["mode"] == "trinary" and facts["negate"] == 0 and facts["image"] == "map.pgm"
    grey = np.asarray(Image.open(tmp_path / "ros" / facts["image"]))
    keep = np.asarray(Image.open(tmp_path / "ros/keepout.pgm"))

    def at(picture: np.ndarray, x: float, y: float) -> int:
        column = int((x - facts["origin"][0]) / facts["resolution"])
        return int(picture[picture.shape[0] - 1 - int((y - facts["origin"][1]) / facts["resolution"]), column])

    assert at(grey, 0, 0) == 254 and at(grey, 2, 0.8) == 0 and at(grey, 6.2, -1.9) == 0 and at(grey, 7.5, 2) == 254
    assert at(keep, 0, 0) == 254 and at(keep, 7.5, 2) == 0, "behind the door nothing was seen"
    occupied = (255 - grey.astype(float)) / 255 > facts["occupied_thresh"]
    assert not (occupied[::-1] & export_source.free_space.free).any()
    seen = export_source.free_space.provenance == Provenance.SEEN
    assert np.array_equal(keep[::-1] == 254, seen) and np.array_equal(np.unique(keep), [0, 205, 254])
    assert yaml.safe_load((tmp_path / "ros/keepout.yaml").read_text())["image"] == "keepout.pgm"


@pytest.mark.parametrize(("name", "up", "tolerance"), [
    ("s.ply", None, 1e-5), ("s.ply", "z", 0), ("s.compressed.ply", None, 0.02), ("s.spz", None, 1e-3), ("s.glb", None, 1e-5)])
def test_splats(export_source: World, tmp_path: Path, name: str, up: str | None, tolerance: float) -> None:
    from lyra_core.splats.formats import read_splat_file

    path = export_world(export_source, tmp_path / name, format="splats", up=up)[0]
    means = read_splat_file(path).means
    T = T_FILE_WORLD["y" if name.endswith(".glb") else up or "-y"]
    want = export_worlds.make_cloud().means @ T[:3, :3].T
    distance = np.linalg.norm(means[:, None] - want[None], axis=2)
    assert len(means) == len(want) and distance.min(1).max() <= tolerance
    # (3, 1, 2) is 3 m ahead of the photo, 1 m to its left, 2 m high.
    there = [3, 2, -1] if name.endswith(".glb") else {"z": [3, 1, 2], "-y": [-1, -2, 3]}[up or "-y"]
    assert np.allclose(T[:3, :3] @ [3, 1, 2], there)


def test_splats_are_chosen_by_suffix(export_source: World, tmp_path: Path) -> None:
    assert export_world(export_source, tmp_path / "a.spz")[0].read_bytes()[:2] == b"\x1f\x8b"
    assert b"element chunk" in export_world(export_source, tmp_path / "a.compressed.ply")[0].read_bytes()[:300]
