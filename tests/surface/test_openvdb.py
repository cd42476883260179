"""OpenVDB in its own process: the same surface as the built-in field, .vdb files both ways, and what damage does."""

from __future__ import annotations

import json
import subprocess
import time

import numpy as np
import pytest
import trimesh
from surface_scenes import LIVINGROOM, livingroom, open_edges, room_distance, room_frames, sphere_frames

from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.surface import openvdb
from lyra_core.surface.base import fuse
from lyra_core.surface.blocks import FusionBlocks
from lyra_core.surface.distance import closest_points
from lyra_core.surface.nanovdb import SparseVoxels, known_voxels
from lyra_core.surface.openvdb import FusionOpenVdb, find_openvdb, mesh_to_vdb, read_vdb, vdb_to_mesh, write_vdb
from lyra_core.types import Frame


@pytest.fixture(scope="module", autouse=True)
def _needs_openvdb():
    try:
        find_openvdb()
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def box_file(tmp_path_factory):
    """A box 1 x 0.8 x 0.6 m in a .vdb file."""
    box, path = trimesh.creation.box((1.0, 0.8, 0.6)), tmp_path_factory.mktemp("vdb") / "box.vdb"
    mesh_to_vdb(box.vertices, box.faces, path, voxel=0.02)
    return path


def both(frames: list[Frame], voxel: float) -> tuple:
    out = []
    for fusion in (FusionBlocks(voxel), FusionOpenVdb(voxel)):
        fuse(fusion, frames)
        out.append(fusion.extract())
    return tuple(out)


def gaps(a: tuple, b: tuple, voxel: float) -> np.ndarray:
    """Return how far each of two surfaces' vertices are from the other, in cells: median and 99th percentile (2, 2)."""
    pairs = ((a, b), (b, a))
    return np.array([np.percentile(closest_points(x[0], x[1], y[0]).distance, [50, 99]) for x, y in pairs]) / voxel


def area_vector(vertices: np.ndarray, faces: np.ndarray, axis: int) -> float:
    """Return the area that looks along +axis less that which looks along -axis."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((np.cross(b - a, c - a) / 2)[:, axis].sum())


def test_same_surface_as_the_built_in_field_in_a_room():
    """Marching cubes and OpenVDB's dual polygons of one field differ by a fraction of a cell, at the borders too."""
    voxel = 0.06
    ours, theirs = both(room_frames()[::2], voxel)
    found = gaps(ours, theirs, voxel)
    assert found[:, 0].max() < 0.1 and found[:, 1].max() < 1, found
    assert np.median(room_distance(theirs[0])) < voxel / 20
    floor = [np.abs(mesh[0][:, 2]) < 0.02 for mesh in (ours, theirs)]
    assert np.abs(np.median(ours[2][floor[0]], axis=0) - np.median(theirs[2][floor[1]], axis=0)).max() < 12
    flat = np.abs(theirs[0][theirs[1]][:, :, 2]).max(1) < 0.02
    assert area_vector(theirs[0], theirs[1][flat], 2) == pytest.approx(
        trimesh.Trimesh(theirs[0], theirs[1][flat], process=False).area, rel=0.01), "the floor looks up"


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="no shared data")
def test_same_surface_as_the_built_in_field_in_a_living_room():
    """Frames that see only parts: no walls between the known and what nobody saw, nothing missing."""
    ours, theirs = both(livingroom(9, 320, 240), 0.05)
    found = gaps(ours, theirs, 0.05)
    assert found[:, 0].max() < 0.1 and found[:, 1].max() < 1, found
    area = [trimesh.Trimesh(v, f, process=False).area for v, f, _ in (ours, theirs)]
    assert area[1] == pytest.approx(area[0], rel=0.05)


def test_closed_sphere_and_its_file(tmp_path):
    with FusionOpenVdb(0.05) as fusion:
        fuse(fusion, sphere_frames())
        vertices, faces, _ = fusion.extract()
        fusion.save(tmp_path / "sphere.vdb")
    assert open_edges(faces) == 0 and trimesh.Trimesh(vertices, faces, process=False).volume == pytest.approx(4.19, rel=0.02)
    again, triangles = vdb_to_mesh(tmp_path / "sphere.vdb")
    assert len(triangles) == len(faces) and open_edges(triangles) == 0, "no second wall behind the known"
    assert closest_points(vertices, faces, again).distance.max() < 1e-5
    facts = said_by_openvdb(tmp_path / "sphere.vdb")
    assert facts["names"] == ["color", "surface", "weight"] and facts["class"] == "level set"
    assert facts["meta"] == {"generator": "lyra-worlds", "unit": "metre", "up": "+z"}
    assert facts["place"] == pytest.approx([0.025, 0.025, 0.025]) and facts["voxel"] == pytest.approx([0.05] * 3)
    assert 0 < facts["background"] == pytest.approx(0.125) and facts["active"] < 40_000, "the band alone is active"
    with pytest.raises(BackendUnavailable, match="stopped"):
        fusion.extract()


def said_by_openvdb(path) -> dict:
    """Return what OpenVDB itself says of a file."""
    code = (f"import json, pyopenvdb as v; g = v.read({str(path)!r}, 'surface'); "
            f"print(json.dumps(dict(names=[x.name for x in v.readAllGridMetadata({str(path)!r})], "
            "meta={k: g.metadata[k] for k in ('generator', 'unit', 'up')}, place=g.transform.indexToWorld((0, 0, 0)), "
            "voxel=g.transform.voxelSize(), background=g.background, active=g.activeVoxelCount(), **{'class': str(g.gridClass)})))")
    out = subprocess.run([find_openvdb().path, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30)
    return json.loads(out.stdout)


def test_adaptive_polygons_are_fewer_and_as_true():
    meshes = []
    for adaptivity in (0.0, 0.5):
        with FusionOpenVdb(0.08, adaptivity=adaptivity) as fusion:
            fuse(fusion, room_frames()[::3])
            meshes.append(fusion.extract())
    assert len(meshes[1][1]) < 0.4 * len(meshes[0][1])
    assert gaps(meshes[0], meshes[1], 0.08)[:, 1].max() < 1


def test_mesh_to_level_set_and_back(box_file):
    vertices, faces = vdb_to_mesh(box_file)
    mesh = trimesh.Trimesh(vertices, faces)
    assert mesh.is_watertight and mesh.volume == pytest.approx(0.48, rel=0.02)
    few = vdb_to_mesh(box_file, adaptivity=1.0)[1]
    assert len(few) < len(faces) / 5
    outside = vdb_to_mesh(box_file, isovalue=0.04)[0]
    assert np.abs(outside).max() == pytest.approx(0.54, abs=0.01)


def test_voxels_return_exactly(box_file, tmp_path):
    voxels = read_vdb(box_file)
    x = np.abs(voxels.points()) - [0.5, 0.4, 0.3]
    truth = np.linalg.norm(np.maximum(x, 0), axis=1) + np.minimum(x.max(1), 0)
    # The closest of several equally near triangles decides inside the box's edges alone.
    assert voxels.voxel == pytest.approx(0.02) and np.abs(voxels.values - truth).max() < 1e-3
    write_vdb(tmp_path / "again.vdb", voxels)
    again = read_vdb(tmp_path / "again.vdb")
    a, b = np.lexsort(voxels.ijk.T), np.lexsort(again.ijk.T)
    assert (voxels.ijk[a] == again.ijk[b]).all() and (voxels.values[a] == again.values[b]).all()
    assert again.background == pytest.approx(voxels.background) and again.origin == pytest.approx(voxels.origin)
    far = SparseVoxels(np.array([[0, 0, 0], [-9000, 5, 70_000]]), np.array([0.5, -0.5], np.float32), 1.0, np.zeros(3), 2.0)
    write_vdb(tmp_path / "far.vdb", far)
    assert sorted(read_vdb(tmp_path / "far.vdb").ijk.tolist()) == [[-9000, 5, 70_000], [0, 0, 0]]


def test_the_built_in_field_as_a_vdb_file(tmp_path):
    fusion = FusionBlocks(0.05)
    fuse(fusion, sphere_frames())
    write_vdb(tmp_path / "blocks.vdb", known_voxels(fusion.grid()))
    vertices = fusion.extract()[0]
    again, triangles = vdb_to_mesh(tmp_path / "blocks.vdb")
    assert np.percentile(closest_points(again, triangles, vertices).distance, 99) < 0.01


def test_damaged_files_are_one_error(box_file, tmp_path):
    data, bad = box_file.read_bytes(), tmp_path / "bad.vdb"
    places = data.index(b"Tree_float_5_4_3") + 20
    for content in (b"", b"VDB", b"\0" * 5000, data[:200], data[:-1], data[: len(data) // 2], data[:62] + b"\xff" * 4 + data[66:],
                    data[:8] + b"\xff" * 4 + data[12:], data[:places] + b"\xff" * 24 + data[places + 24:]):
        bad.write_bytes(content)
        start = time.monotonic()
        with pytest.raises(InputError, match=r"bad\.vdb") as raised:
            vdb_to_mesh(bad)
        assert "\n" not in str(raised.value) and time.monotonic() - start < 0.5, "seen before a process is started"
    for start in (len(data) // 3, len(data) // 2):
        bad.write_bytes(data[:start] + b"\xff" * 4000 + data[start + 4000:])
        for read in (vdb_to_mesh, read_vdb):
            with pytest.raises(InputError, match=r"bad\.vdb"):
                read(bad, timeout=10)
    with pytest.raises(InputError, match="no such file"):
        vdb_to_mesh(tmp_path / "none.vdb")
    with pytest.raises(InputError, match="no surface"):
        vdb_to_mesh(box_file, isovalue=5.0)
    with pytest.raises(InputError, match=r"over 0\.01 s"):
        vdb_to_mesh(box_file, timeout=0.01)


def test_bad_meshes_are_one_error(tmp_path):
    box, path = trimesh.creation.box(), tmp_path / "x.vdb"
    for vertices, faces, voxel, why in (
        (box.vertices, box.faces, 1e-9, "cells"), (box.vertices, box.faces, 0.0, "voxel"),
        (box.vertices, box.faces + 1, 0.1, "indices"), (box.vertices * np.nan, box.faces, 0.1, "finite"),
        (box.vertices, box.faces[:0], 0.1, "faces"), (box.vertices, box.faces[:2], 0.1, "inside"),
    ):
        with pytest.raises(InputError, match=why):
            mesh_to_vdb(vertices, faces, path, voxel=voxel)
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_a_dead_process_and_bad_numbers_are_one_error():
    fusion, frame = FusionOpenVdb(0.1), sphere_frames()[0]
    nowhere = Frame(frame.rgb, frame.depth, frame.camera, frame.T_world_camera * np.nan, frame.provenance)
    with pytest.raises(InputError, match="T_world_camera"):
        fusion.integrate(nowhere)
    assert not len(fusion.extract()[1]), "empty, and still alive"
    fusion._worker._process.kill()
    with pytest.raises(BackendUnavailable, match="stopped with code -9"):
        fusion.integrate(frame)
    with pytest.raises(ConfigError, match="adaptivity"):
        FusionOpenVdb(0.1, adaptivity=2.0)
    with pytest.raises(ConfigError, match="voxel"):
        FusionOpenVdb(0.0)


def test_the_process_ends_with_the_object():
    fusion = FusionOpenVdb(0.1)
    process = fusion._worker._process
    del fusion
    assert process.poll() is not None


@pytest.mark.parametrize("python", ["/bin/false", "/no/such/python"])
def test_without_openvdb_the_error_says_what_to_install(monkeypatch, python):
    find_openvdb.cache_clear()
    monkeypatch.setenv(openvdb.ENVIRONMENT, python)
    try:
        with pytest.raises(BackendUnavailable, match="python3-openvdb") as raised:
            FusionOpenVdb(0.1)
        assert python in str(raised.value)
    finally:
        find_openvdb.cache_clear()
