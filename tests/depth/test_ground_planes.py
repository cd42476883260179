"""Gravity, floor and planes of measured depth, on surfaces whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_room import render_room

from lyra_core.camera.upright import rotation_from_down
from lyra_core.depth.ground import Ground, find_ground, refined
from lyra_core.depth.planes import Plane, find_planes, fit_plane, surface_normals
from lyra_core.types import Camera

CAMERA = Camera.from_focal(240.0, 320, 240)
UP, AHEAD, LEFT = np.eye(3)[2], np.eye(3)[0], np.eye(3)[1]


def down_of(pitch: float, roll: float = 0.0) -> np.ndarray:
    """Return gravity (3,) in the camera frame of a camera that looks down by pitch and is rolled [deg]."""
    p, r = np.deg2rad(pitch), np.deg2rad(roll)
    return np.array([np.sin(r) * np.cos(p), np.cos(r) * np.cos(p), np.sin(p)])


def seen(down: np.ndarray, surfaces, *, height: float = 1.5, noise: float = 0.0, camera: Camera = CAMERA) -> np.ndarray:
    """Return points (H, W, 3) of the nearest surfaces: (normal (3,) and offset [m] in the world, inside(points) -> bool)."""
    T = np.eye(4)
    T[:3, :3], T[2, 3] = rotation_from_down(down), height
    rays = camera.rays().astype(float)
    world, best = rays @ T[:3, :3].T, np.full(rays.shape[:2], np.inf)
    for normal, offset, inside in surfaces:
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (offset - T[:3, 3] @ normal) / (world @ normal)
            hit = (z > 0.1) & (z < best) & inside(world * z[..., None] + T[:3, 3])
        best[hit] = z[hit]
    best[~np.isfinite(best)] = np.nan
    best *= 1 + np.random.default_rng(0).normal(0, 1, best.shape) * noise
    return (rays * best[..., None]).astype(np.float32)


def everywhere(points):
    return np.ones(points.shape[:-1], bool)


def within(x, y):
    return lambda p: (p[..., 0] > x[0]) & (p[..., 0] < x[1]) & (p[..., 1] > y[0]) & (p[..., 1] < y[1])


FLOOR, BACK = (UP, 0.0, everywhere), (AHEAD, 5.0, everywhere)


def off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_normals_of_tilted_planes(noise):
    down = down_of(25, 4)
    points = seen(down, [FLOOR, BACK], noise=noise, camera=CAMERA.resized(768, 576))
    normals, back = surface_normals(points), rotation_from_down(down).T @ AHEAD
    known = np.isfinite(normals[..., 0])
    assert known.mean() > 0.8
    nearest = np.degrees(np.arccos(np.clip(np.maximum(normals @ down, normals @ back)[known], -1, 1)))
    assert np.median(nearest) < (0.05 if noise == 0 else 6.0)
    assert not known[:2].any() and not known[:, -2:].any(), "no normal without neighbours"


def test_normals_end_at_edges_and_holes():
    points = seen(down_of(0), [(AHEAD, 2.0, lambda p: p[..., 1] > 0), BACK])
    points[100:140, 40:90] = np.nan
    normals = surface_normals(points)
    assert not np.isfinite(normals[:, 160:162]).any(), "across an edge"
    assert not np.isfinite(normals[100:140, 40:90]).any() and np.isfinite(normals[20:80, 40:90]).all()


def test_planes_of_a_room_are_told_apart():
    room = render_room(320, 240)
    points = room.camera.rays() * room.depth[..., None]
    normals = surface_normals(points)
    sure = np.isfinite(normals[..., 0])
    world = [(room.T_world_camera[:3, :3] @ plane.normal, plane) for plane in find_planes(points[sure], normals[sure])]
    for want, offset in ((-UP, 1.5), (UP, 1.2), (AHEAD, 5.2), (LEFT, 2.6), (-LEFT, 2.6)):
        assert any(off(n, want) < 0.3 and abs(p.offset - offset) < 0.02 for n, p in world), want


def test_a_plane_is_fitted_within_its_noise():
    rng = np.random.default_rng(2)
    xy = rng.uniform(-1, 1, (4000, 2))
    points = np.column_stack([xy[:, 0], 1.5 + 0.1 * xy[:, 0] + rng.normal(0, 0.01, 4000), 3 + 2 * xy[:, 1]])
    points[:400, 1] -= rng.uniform(0.2, 1.0, 400)
    want = np.array([-0.1, 1.0, 0.0]) / np.hypot(1, 0.1)
    clean = fit_plane(points, np.full_like(points, np.nan), down_of(3), 1.5, total=5000)
    assert clean is not None and off(clean.normal, want) < 0.1 and clean.offset == pytest.approx(1.5 * want[1], abs=2e-3)
    assert clean.share == pytest.approx(0.72, abs=0.02)
    rough = points + np.column_stack([0 * xy, rng.normal(0, 0.02, 4000)])[:, [0, 2, 1]]
    noisy = fit_plane(rough, np.full_like(points, np.nan), down_of(3), 1.5, total=5000)
    assert noisy is not None and np.trace(noisy.spread) < 0.6 * np.trace(clean.spread), "noise makes its normal less firm"
    assert fit_plane(points[:20], np.full((20, 3), np.nan), down_of(3), 1.5, total=20) is None


@pytest.mark.parametrize(("noise", "prior"), [(0.0, down_of(4, -3)), (0.01, down_of(4, -3)), (0.0, down_of(-18, 9))])
def test_gravity_and_height_of_a_room(noise, prior):
    """Whether the photo's reading is good to some degrees or wrong."""
    room = render_room(320, 240)
    depth = room.depth * (1 + np.random.default_rng(1).normal(0, 1, room.depth.shape) * noise)
    ground = find_ground((room.camera.rays() * depth[..., None]).astype(np.float32), prior)
    assert off(ground.down, -room.T_world_camera[2, :3]) < (0.05 if noise == 0 else 0.3)
    assert ground.height == pytest.approx(1.5, abs=0.01) and ground.level >= 2 and ground.walls >= 3


def test_a_table_top_larger_than_the_floor_is_no_floor():
    table = (UP, 0.75, within((0.2, 2.0), (-1.5, 1.5)))
    points = seen(down_of(30), [FLOOR, BACK, table], noise=0.003)
    height = points @ -down_of(30) + 1.5
    assert (np.abs(height - 0.75) < 0.03).mean() > 2 * (np.abs(height) < 0.03).mean() > 0.05, "the table is seen more"
    ground = find_ground(points, down_of(27, 2))
    assert ground.height == pytest.approx(1.5, abs=0.02) and off(ground.down, down_of(30)) < 0.3


def test_a_table_top_alone_is_no_floor_but_gives_gravity():
    points = seen(down_of(35), [(UP, 0.9, within((0.1, 1.1), (-2, 2))), BACK], noise=0.002)
    ground = find_ground(points, down_of(31, 2))
    assert ground.height is None and ground.level >= 1 and off(ground.down, down_of(35)) < 0.5


@pytest.mark.parametrize(("edge", "height"), [(0.3, 1.5), (-0.3, 1.38)], ids=["on the road", "on the pavement"])
def test_of_a_road_and_its_pavement_the_camera_stands_on_one(edge, height):
    pavement = (UP, 0.12, within((0, 60), (edge, 9)))
    points = seen(down_of(10), [FLOOR, pavement, (LEFT, -6.0, everywhere), (AHEAD, 20.0, everywhere)], noise=0.002)
    ground = find_ground(points, down_of(11, 1))
    assert ground.height == pytest.approx(height, abs=0.02) and off(ground.down, down_of(10)) < 0.3


def test_walls_give_gravity_where_no_floor_is_seen():
    points = seen(down_of(-12, 3), [(AHEAD, 4.0, everywhere), (LEFT, 1.5, everywhere)])
    ground = find_ground(points, down_of(-8, 0))
    assert ground.height is None and ground.walls >= 2 and off(ground.down, down_of(-12, 3)) < 0.3


def test_one_leaning_wall_of_three_counts_less():
    lean = np.deg2rad(5)
    leaning = (np.array([np.cos(lean), 0, np.sin(lean)]), 4.0, everywhere)
    points = seen(down_of(5), [leaning, (LEFT, 1.5, everywhere), (LEFT, -1.5, everywhere), FLOOR])
    assert off(find_ground(points, down_of(5, 1)).down, down_of(5)) < 0.2


def test_the_floor_is_looked_for_where_the_user_says():
    """A stage of 0.5 m before the audience: the mask makes it the floor although points lie below it."""
    stage = (UP, 0.5, within((0.5, 3.0), (-4, 4)))
    points = seen(down_of(20), [FLOOR, BACK, stage])
    mask = np.abs(points @ -down_of(20) + 1.0) < 0.05
    assert find_ground(points, down_of(18)).height == pytest.approx(1.5, abs=0.02)
    assert find_ground(points, down_of(18), floor_mask=mask).height == pytest.approx(1.0, abs=0.02)


def test_nothing_known_keeps_the_photos_reading():
    ground = find_ground(np.full((240, 320, 3), np.nan, np.float32), down_of(7, 1))
    assert isinstance(ground, Ground) and ground.height is None and not ground.planes
    np.testing.assert_allclose(ground.down, down_of(7, 1), atol=1e-6)


def test_gravity_of_two_walls_is_their_common_upright():
    firm = np.eye(3) * 1e8
    down = down_of(10, 2)
    axes = rotation_from_down(down).T
    walls = tuple(Plane(axes @ n, 3.0, 0.3, firm) for n in (AHEAD, LEFT))
    assert off(refined(down_of(6, 0), walls, down_of(6, 0)), down) < 0.25
