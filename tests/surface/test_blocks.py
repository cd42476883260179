"""The sparse TSDF against analytic shapes and a synthetic scan with exact depth."""

from __future__ import annotations

import time

import numpy as np
import pytest
import trimesh
from surface_scenes import LIVINGROOM, ROOM, livingroom, open_edges, room_distance, room_frames, sphere_frames

from lyra_core.backends import resolve
from lyra_core.camera.depth_normals import depth_normals
from lyra_core.errors import ConfigError
from lyra_core.rays.base import cast_camera, make_ray_tracer
from lyra_core.surface.blocks import FusionBlocks
from lyra_core.surface.distance import closest_points
from lyra_core.types import Camera


def fused(frames, voxel):
    fusion = resolve("fusion", "blocks")(voxel)
    for frame in frames:
        fusion.integrate(frame)
    return fusion


@pytest.mark.parametrize("voxel", [0.1, 0.04])
def test_sphere_is_closed_accurate_and_faces_outwards(voxel):
    vertices, faces, colors = fused(sphere_frames(), voxel).extract()
    error = np.abs(np.linalg.norm(vertices, axis=1) - 1)
    assert error.mean() < voxel / 10 and error.max() < voxel / 4
    assert open_edges(faces) == 0
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=voxel / 4), "positive: faces look at the cameras"
    assert (colors == 128).all()


def test_room_is_accurate_on_planes_and_winds_inwards():
    vertices, faces, _ = fused(room_frames(), 0.05).extract()
    distance = room_distance(vertices)
    assert distance.mean() < 0.05 / 10 and np.percentile(distance, 95) < 0.05 / 2
    centers = vertices[faces].mean(1)
    normals = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    floor = np.abs(centers[:, 2]) < 0.02
    assert floor.sum() > 1000 and (normals[floor, 2] > 0).mean() > 0.999
    wall = np.abs(centers[:, 0] - ROOM[0] / 2) < 0.02
    assert wall.sum() > 500 and (normals[wall, 0] < 0).mean() > 0.999


def test_memory_grows_with_the_surface():
    few, many = fused(sphere_frames(1.0), 0.1), fused(sphere_frames(1.0), 0.05)
    assert 2 < len(many.keys) / len(few.keys) < 6, "four times as many blocks at half the voxel, not eight"


def test_twice_the_same_frame_changes_nothing_but_weights_and_order_hardly_matters():
    frames = sphere_frames()
    once, again = fused(frames[:1], 0.1).extract(), fused(frames[:1] * 3, 0.1).extract()
    assert np.array_equal(once[1], again[1]) and np.allclose(once[0], again[0], atol=1e-4)
    a, b = fused(frames, 0.1).extract(), fused(frames[::-1], 0.1).extract()
    assert abs(len(a[0]) - len(b[0])) < 0.01 * len(a[0]), "half floats round by order"
    assert closest_points(*b[:2], a[0]).distance.max() < 1e-3


def test_same_input_same_bytes():
    a, b = fused(room_frames()[:4], 0.1).extract(), fused(room_frames()[:4], 0.1).extract()
    assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def test_unknown_depth_gives_nothing_and_bad_voxels_are_refused():
    frame = sphere_frames()[0]
    blind = type(frame)(frame.rgb, np.full_like(frame.depth, np.nan), frame.camera, frame.T_world_camera, frame.provenance)
    vertices, faces, _ = fused([blind], 0.1).extract()
    assert len(vertices) == 0 and faces.shape == (0, 3)
    for voxel in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="voxel"):
            FusionBlocks(voxel)


def test_normals_of_a_slanted_plane_are_exact():
    camera = Camera.from_focal(100.0, 80, 60)
    normal = np.array([0.3, -0.8, -0.52])
    normal /= np.linalg.norm(normal)
    depth = (-1.5 / (camera.rays() @ normal)).astype(np.float32)
    depth[depth <= 0] = np.nan
    shape = depth_normals(depth, camera)
    inside = np.isfinite(depth) & ~shape.edge
    assert inside.sum() > 2000 and np.abs(shape.normals[inside] - normal).max() < 2e-3
    step = np.where(np.arange(80) < 40, 2.0, 3.0)[None].repeat(60, 0).astype(np.float32)
    assert depth_normals(step, camera).edge[:, 39:41].all() and depth_normals(step, camera).edge.sum() == 120


@pytest.mark.skipif(not LIVINGROOM.is_dir(), reason="evaluation data is not here")
def test_living_room_agrees_with_its_own_depth():
    frames = livingroom(2, 416, 240)[:20]
    start = time.perf_counter()
    vertices, faces, _ = fused(frames, 0.05).extract()
    assert time.perf_counter() - start < 8, "20 frames at 5 cm"
    tracer = make_ray_tracer(vertices, faces)
    for frame in frames[::6]:
        error = np.abs(cast_camera(tracer, frame.camera, frame.T_world_camera).t.reshape(frame.depth.shape) - frame.depth)
        good = np.isfinite(error)
        assert good[np.isfinite(frame.depth)].mean() > 0.95 and np.median(error[good]) < 0.05 / 4
