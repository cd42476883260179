"""mesh.npz, mesh.glb and collision.glb: round trips, a second reader (trimesh), and damage that must be named."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import trimesh

from lyra_core.errors import InputError, WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.io.meshes import (
    load_collision_parts,
    load_surface_mesh,
    merge_parts,
    save_collision_parts,
    save_mesh_glb,
    save_surface_mesh,
)
from lyra_core.types import CollisionPart, Label, Provenance, SurfaceMesh


def make_mesh(*, side: int = 64, grid: int = 8) -> SurfaceMesh:
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.linspace(0, 1, grid + 1), np.linspace(0, 1, grid + 1))
    vertices = np.stack([u, v, 0.1 * rng.random(u.shape)], -1).reshape(-1, 3).astype(np.float32)
    i = (np.arange(grid)[:, None] * (grid + 1) + np.arange(grid)).reshape(-1)
    faces = np.concatenate([np.stack([i, i + 1, i + grid + 2], 1), np.stack([i, i + grid + 2, i + grid + 1], 1)])
    rows, columns = np.mgrid[:side, :side]
    texture = np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8)
    n = len(faces)
    return SurfaceMesh(vertices, faces.astype(np.int32), np.stack([u, v], -1).reshape(-1, 2).astype(np.float32), texture,
                       np.full(n, Label.FLOOR, np.uint8), np.arange(n, dtype=np.uint8) % 3, np.arange(n, dtype=np.int32) % 2,
                       ("floor", "wall_0"))


def make_parts() -> list[CollisionPart]:
    rng = np.random.default_rng(1)
    box = trimesh.creation.box((0.5, 0.7, 1.1))
    floor = CollisionPart("floor", Label.FLOOR, "shell", rng.normal(size=(4, 3)).astype(np.float32),
                          np.array([[0, 1, 2], [0, 2, 3]], np.int32), Provenance.SEEN)
    solid = CollisionPart("obstacle_00", Label.OBSTACLE, "solid", box.vertices.astype(np.float32),
                          box.faces.astype(np.int32), Provenance.INVENTED)
    return [floor, solid]


def test_surface_mesh_round_trip_is_exact_and_deterministic(tmp_path):
    mesh = make_mesh()
    save_surface_mesh(tmp_path / "a.npz", mesh)
    save_surface_mesh(tmp_path / "b.npz", mesh)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = load_surface_mesh(tmp_path / "a.npz")
    for field in dataclasses.fields(mesh):
        got, want = getattr(again, field.name), getattr(mesh, field.name)
        assert np.array_equal(got, want), field.name
        if field.name != "part_names":
            assert got.dtype == want.dtype, field.name


def test_large_mesh_loads_fast_and_keeps_its_texture_within_jpeg(tmp_path):
    mesh = make_mesh(side=2048, grid=316)
    assert len(mesh.faces) > 199_000
    smooth = dataclasses.replace(mesh, texture=np.repeat(np.linspace(0, 255, 2048).astype(np.uint8)[:, None, None], 2048, 1)
                                 .repeat(3, 2))
    save_surface_mesh(tmp_path / "m.npz", smooth)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        again = load_surface_mesh(tmp_path / "m.npz")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.6, seconds
    assert np.abs(again.texture.astype(int) - smooth.texture).max() <= 3


@pytest.mark.parametrize("name, fault", [
    ("vertices", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 3, np.nan, a).astype(a.dtype)),
    ("uv", lambda a: np.full_like(a, np.inf)),
    ("faces", lambda a: a + 1),
    ("faces", lambda a: a - 1),
    ("faces", lambda a: a.astype(np.int64)),
    ("face_label", lambda a: a[:-1]),
    ("face_label", lambda a: a + 100),
    ("face_provenance", lambda a: a + 3),
    ("face_part", lambda a: a + 2),
    ("texture", lambda a: a[:20]),
    ("texture", lambda a: a[:0]),
])
def test_planted_fault_names_file_and_array(tmp_path, name, fault):
    save_surface_mesh(tmp_path / "mesh.npz", make_mesh())
    arrays = read_npz(tmp_path / "mesh.npz")
    arrays[name] = fault(arrays[name])
    write_npz(tmp_path / "mesh.npz", **arrays)
    with pytest.raises(WorldError, match=rf"mesh\.npz.*{name}"):
        load_surface_mesh(tmp_path / "mesh.npz")


def test_any_damage_of_the_file_is_a_world_error_or_harmless(tmp_path):
    path = tmp_path / "mesh.npz"
    save_surface_mesh(path, make_mesh(grid=3))
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(200):
        bad = bytearray(good)
        at = int(rng.integers(len(good)))
        if trial % 2:
            bad[at] ^= int(rng.integers(1, 256))
        else:
            bad = bad[:at]
        path.write_bytes(bytes(bad))
        try:
            load_surface_mesh(path)
        except WorldError:
            continue
        assert trial % 2, "a truncated file was accepted"


def test_missing_file_and_missing_array(tmp_path):
    with pytest.raises(WorldError, match=r"nothing\.npz"):
        load_surface_mesh(tmp_path / "nothing.npz")
    write_npz(tmp_path / "m.npz", vertices=np.zeros((3, 3), np.float32))
    with pytest.raises(WorldError, match="missing faces"):
        load_surface_mesh(tmp_path / "m.npz")


def test_save_refuses_what_load_would_refuse(tmp_path):
    mesh = make_mesh()
    vertices = mesh.vertices.copy()
    vertices[0, 0] = np.nan
    with pytest.raises(WorldError, match="vertices"):
        save_surface_mesh(tmp_path / "m.npz", dataclasses.replace(mesh, vertices=vertices))
    assert not list(tmp_path.iterdir())


def test_mesh_glb_as_trimesh_reads_it(tmp_path):
    mesh = make_mesh()
    save_mesh_glb(tmp_path / "a.glb", mesh)
    save_mesh_glb(tmp_path / "b.glb", mesh)
    assert (tmp_path / "a.glb").read_bytes() == (tmp_path / "b.glb").read_bytes()
    (read,) = trimesh.load(tmp_path / "a.glb", process=False).geometry.values()
    assert np.array_equal(read.faces, mesh.faces)
    assert np.array_equal(read.vertices[:, [0, 2, 1]] * [1, -1, 1], mesh.vertices)
    assert np.allclose(read.visual.uv, mesh.uv, atol=1e-6)
    picture = np.asarray(read.visual.material.baseColorTexture.convert("RGB"))
    assert np.abs(picture.astype(int) - mesh.texture).mean() < 4
    assert (read.vertices[:, 1].max() - read.vertices[:, 1].min()) < 0.11, "height is glTF's y"


def test_collision_glb_round_trip_is_exact(tmp_path):
    parts = make_parts()
    save_collision_parts(tmp_path / "c.glb", parts)
    again = load_collision_parts(tmp_path / "c.glb")
    assert len(again) == 2
    for got, want in zip(again, parts, strict=True):
        assert (got.name, got.label, got.kind, got.provenance) == (want.name, want.label, want.kind, want.provenance)
        assert got.vertices.dtype == np.float32 and got.vertices.tobytes() == want.vertices.tobytes()
        assert got.faces.dtype == np.int32 and np.array_equal(got.faces, want.faces)


def test_collision_glb_as_trimesh_reads_it(tmp_path):
    parts = make_parts()
    save_collision_parts(tmp_path / "c.glb", parts)
    scene = trimesh.load(tmp_path / "c.glb", process=False)
    assert set(scene.geometry) == {"floor", "obstacle_00"}
    box = scene.geometry["obstacle_00"]
    assert box.is_watertight and box.volume == pytest.approx(0.5 * 0.7 * 1.1, rel=1e-5)
    assert np.allclose(box.extents, [0.5, 1.1, 0.7])


def test_empty_list_and_empty_part(tmp_path):
    save_collision_parts(tmp_path / "c.glb", [])
    assert load_collision_parts(tmp_path / "c.glb") == []
    empty = dataclasses.replace(make_parts()[0], faces=np.zeros((0, 3), np.int32))
    with pytest.raises(InputError, match="floor"):
        save_collision_parts(tmp_path / "d.glb", [empty])


def test_damaged_collision_glb_is_a_world_error(tmp_path):
    path = tmp_path / "c.glb"
    save_collision_parts(path, make_parts())
    good = path.read_bytes()
    rng = np.random.default_rng(2)
    for trial in range(300):
        at = int(rng.integers(len(good)))
        bad = bytearray(good)
        bad[at] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(bad) if trial % 2 else good[:at])
        try:
            load_collision_parts(path)
        except WorldError as error:
            assert "c.glb" in str(error)
            continue
        assert trial % 2, "a truncated file was accepted"
    path.write_bytes(good.replace(b'"OBSTACLE"', b'"OBSTACLX"'))
    with pytest.raises(WorldError, match=r"obstacle_00.*OBSTACLX"):
        load_collision_parts(path)


def test_merge_parts_keeps_every_triangle():
    parts = make_parts()
    vertices, faces = merge_parts(parts)
    assert len(vertices) == 12 and len(faces) == 14 and faces.max() == 11
    assert np.array_equal(vertices[faces[2:]], parts[1].vertices[parts[1].faces])
    assert merge_parts([])[0].shape == (0, 3)
