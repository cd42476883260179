"""keep_clear against planted obstacles, measured by trimesh's exact distances."""

import numpy as np
import pytest
import trimesh

from lyra_core.camera.collision import keep_clear, relief
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.trajectories import PRESETS, tour, walk_forward
from lyra_core.rays import make_ray_tracer
from lyra_core.types import Camera

CAMERA = Camera.from_focal(300.0, 416, 240)
START = from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.0)


def box(lower, upper) -> trimesh.Trimesh:
    return trimesh.creation.box(bounds=np.array([lower, upper], float))


def tracer(mesh: trimesh.Trimesh):
    return make_ray_tracer(mesh.vertices, mesh.faces)


def distance(mesh: trimesh.Trimesh, path) -> np.ndarray:
    centres, f = path.T_world_camera[:, :3, 3], len(mesh.faces)
    pairs = np.repeat(centres, f, 0)
    nearest = trimesh.triangles.closest_point(np.tile(mesh.triangles, (len(centres), 1, 1)), pairs)
    return np.linalg.norm(nearest - pairs, axis=1).reshape(-1, f).min(1)


def crosses(mesh: trimesh.Trimesh, path) -> bool:
    centres = path.T_world_camera[:, :3, 3]
    hits = tracer(mesh).cast(np.float32(centres[:-1]), np.float32(np.diff(centres, axis=0)))
    return bool((hits.t <= 1).any())


def test_wall_stops_a_walk():
    mesh = box([1.5, -5, 0], [1.6, 5, 3])
    planned = walk_forward(CAMERA, START, 81, distance=4.0)
    assert crosses(mesh, planned)
    path, altered = keep_clear(planned, tracer(mesh))
    assert len(path) == 81 and 40 < altered <= 80
    assert np.array_equal(path.T_world_camera[0], START)
    assert distance(mesh, path).min() >= 0.249
    x = path.T_world_camera[:, 0, 3]
    assert 1.0 < x[-1] <= 1.2501
    assert (np.diff(x) >= -1e-9).all() and x[-1] - x[-2] < 0.3 * np.diff(x).max()


def test_slanted_wall_is_slid_along():
    mesh = box([1.5, -8, 0], [1.6, 8, 3])
    mesh.apply_transform(trimesh.transformations.rotation_matrix(0.9, [0, 0, 1], [1.5, 0, 0]))
    path, _ = keep_clear(walk_forward(CAMERA, START, 81, distance=4.0), tracer(mesh))
    assert distance(mesh, path).min() >= 0.249
    assert np.linalg.norm(path.T_world_camera[-1, :2, 3]) > 1.8


@pytest.mark.parametrize("offset", [0.05, -0.12])
def test_thin_pole_is_passed(offset):
    mesh = trimesh.creation.cylinder(0.02, 3.0, transform=trimesh.transformations.translation_matrix([2, offset, 1.5]))
    path, altered = keep_clear(walk_forward(CAMERA, START, 161, distance=4.0), tracer(mesh))
    assert altered > 5
    assert distance(mesh, path).min() >= 0.248
    assert np.allclose(path.T_world_camera[-1, :3, 3], [4, 0, 1.5], atol=0.05)
    assert np.linalg.norm(np.diff(path.T_world_camera[:, :3, 3], axis=0), axis=1).max() < 0.1


def test_thin_pole_head_on_is_not_touched():
    mesh = trimesh.creation.cylinder(0.01, 3.0, transform=trimesh.transformations.translation_matrix([2, 0, 1.5]))
    path, _ = keep_clear(walk_forward(CAMERA, START, 81, distance=4.0), tracer(mesh))
    assert distance(mesh, path).min() >= 0.248 and not crosses(mesh, path)


def test_a_door_leaves_the_path_untouched():
    sides = [box([2, -5, 0], [2.1, -0.45, 3]), box([2, 0.45, 0], [2.1, 5, 3])]
    wall = trimesh.util.concatenate([*sides, box([2, -0.45, 2], [2.1, 0.45, 3])])
    straight = walk_forward(CAMERA, START, 81, distance=4.0)
    for planned in (straight, tour(CAMERA, START, 81, waypoints=np.array([[2, 0], [4, 1.0]]))):
        path, altered = keep_clear(planned, tracer(wall))
        assert altered == 0 and path is planned


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("tour", "spline")])
def test_a_closed_box_is_never_left(name):
    mesh = box([-0.7, -0.8, 0], [0.9, 0.6, 2.4])
    planned = PRESETS[name](CAMERA, START, 81)
    path, _ = keep_clear(planned, tracer(mesh))
    assert len(path) == 81
    steps = [np.linalg.norm(np.diff(p.T_world_camera[:, :3, 3], axis=0), axis=1).max() for p in (planned, path)]
    assert steps[1] <= 1.6 * steps[0] + 1e-9
    assert np.linalg.norm(np.diff(path.T_world_camera[:, :3, 2], axis=0), axis=1).max() < 0.25
    centres = path.T_world_camera[:, :3, 3]
    assert (centres > mesh.bounds[0]).all() and (centres < mesh.bounds[1]).all()
    assert distance(mesh, path).min() >= 0.248
    assert not crosses(mesh, path)
    assert np.array_equal(path.T_world_camera[0], START)


def test_a_start_too_near_never_moves_and_comes_no_nearer():
    mesh = box([0.1, -5, 0], [0.2, 5, 3])
    path, altered = keep_clear(walk_forward(CAMERA, START, 81), tracer(mesh))
    assert altered and np.array_equal(path.T_world_camera[0], START)
    assert distance(mesh, path).min() >= 0.0999


def test_relief_of_a_depth_picture_stops_the_camera_before_what_the_photo_shows() -> None:
    camera = Camera.from_focal(60.0, 120, 80)
    depth = np.full((80, 120), 3.0, np.float32)
    depth[:, :20] = np.nan
    depth[:, 100:] = 9.0
    T = from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.0)
    vertices, faces = relief(depth, camera, T)
    used = vertices[faces]
    assert np.isfinite(used).all()
    # Nothing bridges the unknown region or the jump from 3 m to 9 m.
    assert set(np.round(used[..., 0], 6).ravel()) == {3.0, 9.0}
    assert (np.ptp(used[..., 0], axis=1) < 1e-6).all()
    path, changed = keep_clear(walk_forward(camera, T, 81, distance=5.0), make_ray_tracer(vertices, faces))
    assert changed > 0 and path.T_world_camera[:, 0, 3].max() <= 2.75 + 1e-3
