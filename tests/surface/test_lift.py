"""Frames to mesh: a room of known size in a tilted world comes back level, labelled, textured and with colliders."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from surface_scenes import BOX_HIGH, LIVINGROOM, ROOM, box_distance, livingroom, room_distance, room_frames, room_mesh

from lyra_core.camera.se3 import inverse
from lyra_core.config import SurfaceCfg
from lyra_core.errors import InputError
from lyra_core.io.meshes import load_collision_parts, load_surface_mesh, merge_parts, save_collision_parts, save_surface_mesh
from lyra_core.rays.base import cast_camera, make_ray_tracer
from lyra_core.surface.gravity import find_floor
from lyra_core.surface.lift import lift_frames
from lyra_core.surface.simplify import simplify
from lyra_core.types import Frame, Label, Provenance

TILT = np.eye(4)
TILT[:3, :3] = Rotation.from_euler("xyz", [100, 15, 40], degrees=True).as_matrix()
TILT[:3, 3] = [3.0, -2.0, 5.0]


@pytest.fixture(scope="module")
def lifted():
    return lift_frames(room_frames(TILT), cfg=SurfaceCfg(voxel=0.05), atlas_side=1024)


def psnr(a, b, where):
    return 10 * np.log10(255**2 / max(float(((a.astype(float) - b)[where] ** 2).mean()), 1e-9))


def render(mesh, camera, T):
    hits = cast_camera(make_ray_tracer(mesh.vertices, mesh.faces), camera, T)
    weight = np.concatenate([1 - hits.barycentric.sum(1, keepdims=True), hits.barycentric], 1)
    uv = (mesh.uv[mesh.faces[hits.face]] * weight[..., None]).sum(1)
    h, w = mesh.texture.shape[:2]
    color = mesh.texture[np.clip(((1 - uv[:, 1]) * h).astype(int), 0, h - 1), np.clip((uv[:, 0] * w).astype(int), 0, w - 1)]
    shape = (camera.height, camera.width)
    return np.where(hits.face[:, None] >= 0, color, 0).reshape(*shape, 3), hits.t.reshape(shape), hits.face.reshape(shape)


def test_gravity_and_floor_are_found(lifted):
    up = inverse(TILT @ np.eye(4))[:3, :3] @ lifted.T_world_aligned[:3, 2]
    assert np.degrees(np.arccos(min(up[2], 1))) < 0.1
    floor = lifted.mesh.vertices[np.unique(lifted.mesh.faces[lifted.mesh.face_label == Label.FLOOR])]
    assert np.percentile(np.abs(floor[:, 2]), 97) == 0, "the floor is flat at z = 0"
    height = lifted.mesh.vertices[np.unique(lifted.mesh.faces[lifted.mesh.face_label == Label.CEILING])][:, 2]
    assert np.median(height) == pytest.approx(ROOM[2], abs=0.01)


def test_surface_lies_on_the_true_room(lifted):
    T_room_aligned = inverse(TILT) @ lifted.T_world_aligned
    points = lifted.mesh.vertices @ T_room_aligned[:3, :3].T + T_room_aligned[:3, 3]
    distance = room_distance(points)
    assert distance.mean() < 0.01 and np.percentile(distance, 95) < 0.03


def test_labels_follow_normals_and_heights(lifted):
    T = inverse(TILT) @ lifted.T_world_aligned
    mesh = lifted.mesh
    centers = mesh.vertices[mesh.faces].mean(1) @ T[:3, :3].T + T[:3, 3]
    truth = np.full(len(centers), 255)
    truth[centers[:, 2] < 0.01] = Label.FLOOR
    truth[centers[:, 2] > ROOM[2] - 0.01] = Label.CEILING
    side = np.abs(np.abs(centers[:, :2]) - ROOM[:2] / 2).min(1) < 0.01
    truth[side & (centers[:, 2] > 0.1) & (centers[:, 2] < ROOM[2] - 0.1)] = Label.WALL
    truth[(np.abs(centers[:, 2] - BOX_HIGH[2]) < 0.01) & ~side] = Label.OBSTACLE
    known = truth != 255
    assert known.mean() > 0.85 and (mesh.face_label[known] == truth[known]).mean() > 0.98


def test_parts_cover_the_mesh_and_survive_the_files(lifted, tmp_path):
    names = [part.name for part in lifted.parts]
    assert names[:4] == ["floor", "walls", "ceiling", "obstacle_00"] and tuple(names) == lifted.mesh.part_names
    assert len(merge_parts(lifted.parts)[1]) == len(lifted.mesh.faces)
    box = lifted.parts[3]
    assert box.label == Label.OBSTACLE and np.ptp(box.vertices, axis=0)[2] == pytest.approx(0.8, abs=0.1)
    save_collision_parts(tmp_path / "collision.glb", lifted.parts)
    save_surface_mesh(tmp_path / "mesh.npz", lifted.mesh)
    assert [part.name for part in load_collision_parts(tmp_path / "collision.glb")] == names
    assert np.array_equal(load_surface_mesh(tmp_path / "mesh.npz").texture, lifted.mesh.texture)


def test_every_ray_below_the_horizon_meets_the_front_of_a_face(lifted):
    vertices, faces = merge_parts(lifted.parts)
    rng = np.random.default_rng(0)
    T = inverse(lifted.T_world_aligned) @ TILT
    eyes = np.array([[-1.5, -1.0, 1.4], [2.0, 1.0, 1.4]]) @ T[:3, :3].T + T[:3, 3]
    origin = np.repeat(eyes, 2000, 0).astype(np.float32)
    direction = rng.normal(size=origin.shape).astype(np.float32)
    direction[:, 2] = -np.abs(direction[:, 2])
    hit = make_ray_tracer(vertices, faces).cast(origin, direction)
    assert (hit.face >= 0).mean() > 0.99
    face = faces[hit.face[hit.face >= 0]]
    normal = np.cross(vertices[face[:, 1]] - vertices[face[:, 0]], vertices[face[:, 2]] - vertices[face[:, 0]])
    assert ((normal * direction[hit.face >= 0]).sum(1) < 0).mean() > 0.995


def test_texture_reproduces_the_frames_and_provenance_is_carried(lifted):
    for frame in room_frames(TILT)[::5]:
        rgb, depth, face = render(lifted.mesh, frame.camera, inverse(lifted.T_world_aligned) @ frame.T_world_camera)
        where = np.isfinite(depth) & (np.abs(depth - frame.depth) < 0.05)
        assert where.mean() > 0.97 and psnr(rgb, frame.rgb, where) > 28
    seen = lifted.mesh.face_provenance[face[where]]
    assert set(np.unique(lifted.mesh.face_provenance)) <= {Provenance.SEEN, Provenance.INVENTED}
    assert (seen == Provenance.SEEN).any()
    only = [frame for frame in room_frames() if frame.provenance.max() == Provenance.INVENTED][:3]
    assert (lift_frames(only, cfg=SurfaceCfg(voxel=0.1), atlas_side=512).mesh.face_provenance == Provenance.INVENTED).all()


def test_same_frames_same_bytes_and_limits(tmp_path):
    frames = room_frames()[:8]
    for name in ("a", "b"):
        lift = lift_frames(frames, cfg=SurfaceCfg(voxel=0.08), atlas_side=512, max_triangles=3000)
        save_surface_mesh(tmp_path / f"{name}.npz", lift.mesh)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert 500 < len(lift.mesh.faces) <= 3000 and any("Simplified" in note for note in lift.notes)
    with pytest.raises(InputError, match="no surface"):
        lift_frames([Frame(f.rgb, np.full_like(f.depth, np.nan), f.camera, f.T_world_camera, f.provenance) for f in frames[:1]],
                    cfg=SurfaceCfg())


def test_floor_without_cameras_is_refused_and_odd_scale_is_noted():
    mesh = room_mesh().subdivide().subdivide()
    T = np.stack([frame.T_world_camera for frame in room_frames()[:6]])
    plane = find_floor(mesh.vertices, mesh.faces, T)
    assert plane.height == pytest.approx(0, abs=1e-6) and plane.up == pytest.approx([0, 0, 1], abs=1e-6) and not plane.notes
    far = T.copy()
    far[:, :3, 3] *= 10
    assert "not metric" in find_floor(mesh.vertices * 10, mesh.faces, far).notes[0]
    with pytest.raises(InputError, match="cameras"):
        find_floor(mesh.vertices, mesh.faces, T[:0])


def test_simplify_states_a_true_error():
    sphere = trimesh.creation.icosphere(subdivisions=6)
    for bound in (1e-3, 1e-2):
        simple = simplify(sphere.vertices, sphere.faces, max_faces=10**6, tolerance=bound)
        assert 0 < simple.error <= bound and len(simple.faces) < len(sphere.faces) / 4
        coarse = trimesh.Trimesh(simple.vertices, simple.faces, process=False)
        brute = trimesh.proximity.closest_point_naive(coarse, sphere.vertices[:100])[1]
        assert np.percentile(brute, 99) <= simple.error + 1e-6
    assert len(simplify(sphere.vertices, sphere.faces, max_faces=700).faces) <= 700
    box = trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide().subdivide()
    flat = simplify(box.vertices, box.faces, max_faces=10**6, tolerance=1e-4)
    assert len(flat.faces) <= 768 and box_distance(flat.vertices, np.full(3, -0.5), np.full(3, 0.5)).max() < 1e-4


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="evaluation data is not here")
def test_living_room_is_level_and_looks_like_its_frames():
    frames = livingroom(4, 320, 240)
    lift = lift_frames(frames, cfg=SurfaceCfg(voxel=0.05), atlas_side=1024)
    assert lift.mesh.part_names[:2] == ("floor", "walls")
    for frame in frames[::4]:
        rgb, depth, _ = render(lift.mesh, frame.camera, inverse(lift.T_world_aligned) @ frame.T_world_camera)
        where = np.isfinite(depth) & (np.abs(depth - frame.depth) < 0.1)
        assert where.mean() > 0.85 and psnr(rgb, frame.rgb, where) > 21
