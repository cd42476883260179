"""Things lifted from measured depth: the world equals the scene that the depth was taken of, from the photo and from above."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import trimesh

from lyra_core.generate.procedural.columns import column_boxes, merged_rectangles
from lyra_core.generate.procedural.layout import build_layout
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.relief import _silhouette, find_things
from lyra_core.generate.procedural.sightlines import CELL, Sightlines
from lyra_core.io.meshes import merge_parts
from lyra_core.navigation.rasterise import footprint
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.scenes import blocked, ground_height, sample_scene
from lyra_core.scenes.render import render_truth
from lyra_core.types import Camera, DepthEstimate, Label

SCENES = (("furnished_room", 21), ("office", 5), ("warehouse", 8))


def source_of(depth, labels, camera, T, *, measured=True):
    rgb = np.random.default_rng(0).integers(0, 255, (*depth.shape, 3), np.uint8)
    known = np.isfinite(depth) if measured else None
    return PhotoSource(rgb, DepthEstimate(depth, labels, camera, T, None, "file", 0.02, measured=known))


@cache
def scene_world(kind, seed):
    """Return a world built from a scene's true depth, with 1 % noise, and the scene."""
    case = sample_scene(seed, kind)
    scale = 384 / max(case.camera.width, case.camera.height)
    case = case.resized(round(case.camera.width * scale), round(case.camera.height * scale))
    depth, labels = render_truth(case.scene, case.camera, case.T_world_camera)
    depth *= 1 + 0.01 * np.random.default_rng(1).standard_normal(depth.shape).astype(np.float32)
    T = np.linalg.inv(case.T_scene_world) @ case.T_world_camera
    labels = np.where(labels == Label.DOOR, Label.WALL, labels).astype(np.uint8)
    source = source_of(depth, labels, case.camera, T)
    return SimpleNamespace(case=case, source=source, world=build_layout(source, indoor=True, seed=0, atlas_size=512))


@pytest.mark.parametrize(("kind", "seed"), SCENES)
def test_the_photos_view_has_the_measured_depth(kind, seed):
    w = scene_world(kind, seed)
    e, mesh = w.source.estimate, w.world.mesh
    hits = cast_camera(make_ray_tracer(mesh.vertices, mesh.faces), e.camera, e.T_world_camera)
    error = np.abs(hits.t.reshape(e.depth.shape) / e.depth - 1)[np.isfinite(e.depth)]
    assert np.median(error) < 0.015 and error.mean() < 0.03 and (error < 0.1).mean() > 0.95


@pytest.mark.parametrize(("kind", "seed"), SCENES)
def test_colliders_stand_where_the_scenes_solids_stand(kind, seed):
    """Of the floor-plan cells in view: those with seen solids are blocked, and hardly any with seen floor is."""
    w = scene_world(kind, seed)
    points, labels = w.source.world_points(), w.source.estimate.labels
    triangles = np.concatenate([p.vertices[p.faces] for p in w.world.parts]).astype(float)
    cell, origin, shape = 0.1, np.array([0.0, -3.0]), (60, 50)
    ours = footprint(triangles, origin, cell, shape, (0.15, 1.8))
    row, col = np.mgrid[: shape[0], : shape[1]]
    xy = np.stack([origin[0] + (col + 0.5) * cell, origin[1] + (row + 0.5) * cell], -1).reshape(-1, 2)
    T = w.case.T_scene_world
    theirs = blocked(w.case.scene, xy @ T[:2, :2].T + T[:2, 3]).reshape(shape)
    seen = {}
    for name, chosen in (("floor", labels == Label.FLOOR), ("thing", (points[..., 2] > 0.2) & (points[..., 2] < 1.7))):
        at = np.floor((points[chosen][:, :2] - origin) / cell).astype(int)
        at = at[((at >= 0) & (at < shape[::-1])).all(1)]
        seen[name] = np.bincount(at[:, 1] * shape[1] + at[:, 0], minlength=shape[0] * shape[1]).reshape(shape) >= 4
    wide = np.pad(ours, 1)
    near = np.max([wide[i : i + shape[0], j : j + shape[1]] for i in range(3) for j in range(3)], axis=0)
    there, free = seen["thing"] & theirs, seen["floor"] & ~seen["thing"] & ~theirs
    assert there.sum() > 20 and free.sum() > 50
    assert near[there].mean() > 0.95 and ours[free].mean() < 0.15
    assert np.isfinite(ground_height(w.case.scene, xy @ T[:2, :2].T + T[:2, 3]).reshape(shape)[free]).all()


@pytest.mark.parametrize(("kind", "seed"), SCENES)
def test_things_are_closed(kind, seed):
    w = scene_world(kind, seed)
    solids = [p for p in w.world.parts if p.kind == "solid"]
    assert len(solids) > 3
    for part in solids:
        boxes = trimesh.Trimesh(part.vertices, part.faces, process=False)
        assert boxes.is_watertight and boxes.is_winding_consistent and boxes.volume > 0


def scene_of_boxes(boxes, *, size=(160, 120), height=1.4, labels=None):
    """Return depth, labels, camera and pose of boxes [(low, high)] on a floor before a wall at x = 6, looking down 20 degrees."""
    camera, pitch, T = Camera.from_focal(0.7 * size[0], *size), np.deg2rad(20), np.eye(4)
    forward = np.array([np.cos(pitch), 0, -np.sin(pitch)])
    T[:3, :3] = np.stack([[0.0, -1.0, 0.0], np.cross(forward, [0.0, -1.0, 0.0]), forward], 1)
    T[2, 3] = height
    rays = camera.rays().astype(float) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        floor = np.where(rays[..., 2] < 0, -height / rays[..., 2], np.inf)
        wall = 6.0 / rays[..., 0]
        depth = np.minimum(floor, wall)
        out = np.where(floor < wall, Label.FLOOR, Label.WALL).astype(np.uint8)
        for low, high in boxes:
            slabs = np.sort(np.stack([(np.array(b) - T[:3, 3]) / rays for b in (low, high)]), axis=0)
            enter, leave = slabs[0].max(-1), slabs[1].min(-1)
            hit = (enter < leave) & (enter > 0) & (enter < depth)
            depth, out = np.where(hit, enter, depth), np.where(hit, Label.OBSTACLE, out).astype(np.uint8)
    return source_of(depth.astype(np.float32), out, camera, T)


def with_far_walls(source):
    return source.with_first_hit(np.where(source.estimate.labels == Label.FLOOR, source.estimate.depth, 30.0),
                                 standing=np.zeros(source.estimate.depth.shape, bool))


def test_things_that_touch_in_the_picture_are_told_apart_and_one_thing_is_not_cut():
    near, far = ((1.8, 0.0, 0.0), (2.1, 0.4, 0.6)), ((3.0, -0.2, 0.0), (3.4, 0.2, 1.0))
    slanted = ((2.0, -1.2, 0.0), (4.5, -0.8, 0.9))
    source = scene_of_boxes([near, far, slanted])
    points = source.world_points()
    things = find_things(with_far_walls(source), points)
    inside = [((points > np.array(low) - 1e-3) & (points < np.array(high) + 1e-3)).all(-1) for low, high in (near, far, slanted)]
    names = [np.unique(things[mask & (things > 0)]) for mask in inside]
    assert [len(n) for n in names] == [1, 1, 1] and len({int(n[0]) for n in names}) == 3


def test_noise_does_not_cut_a_thing():
    source = scene_of_boxes([((2.0, -0.8, 0.0), (4.0, 0.8, 0.7))])
    e = source.estimate
    rough = e.depth * (1 + 0.01 * np.random.default_rng(0).standard_normal(e.depth.shape)).astype(np.float32)
    noisy = source_of(rough, e.labels, e.camera, e.T_world_camera)
    things = find_things(with_far_walls(noisy), noisy.world_points())
    sizes = np.bincount(things[e.labels == Label.OBSTACLE])[1:]
    assert sizes.max() > 0.98 * sizes.sum()


def test_a_table_is_open_below_where_the_floor_is_seen():
    top = ((1.6, -0.6, 0.66), (2.6, 0.6, 0.72))
    legs = [((x, y, 0.0), (x + 0.06, y + 0.06, 0.7)) for x in (1.6, 2.5) for y in (-0.6, 0.54)]
    source = scene_of_boxes([top, *legs], size=(640, 480))
    world = build_layout(source, indoor=True, seed=0, atlas_size=256)
    tracer = make_ray_tracer(*merge_parts(world.parts))
    e = source.estimate
    hits = cast_camera(tracer, e.camera, e.T_world_camera).t.reshape(e.depth.shape)
    below = (e.labels == Label.FLOOR) & (np.abs(source.world_points()[..., 1]) < 0.45) & (source.world_points()[..., 0] < 2.4)
    assert below.sum() > 300
    assert (np.abs(hits / e.depth - 1)[below] < 0.03).mean() > 0.9
    table = e.labels == Label.OBSTACLE
    assert (np.abs(hits / e.depth - 1)[table] < 0.05).mean() > 0.9


def test_lowest_line_of_sight_behind_a_box_is_its_shadow():
    source = scene_of_boxes([((2.0, -3.0, 0.0), (2.4, 3.0, 0.5))], size=(640, 480))
    lines = Sightlines(source, source.world_points())
    x = np.arange(2.6, 3.6, 0.1)
    # The line over the box's far upper edge: from (0, 1.4) through (2.4, 0.5).
    expected = np.maximum(1.4 - (1.4 - 0.5) / 2.4 * x, 0.0)
    assert np.allclose(lines.over(np.stack([x, 0 * x], 1)), expected, atol=0.06)
    assert lines.over(np.array([1.8, 0.0])) < 0.1 and lines.over(np.array([100.0, 0.0])) == np.inf


def test_columns_end_where_the_eye_sees_past():
    eye, cell = np.array([0.0, 0.0, 1.4]), CELL
    y, z = np.meshgrid(np.arange(-0.3, 0.3, cell / 4), np.arange(0.02, 0.8, 0.01))
    front = np.stack([np.full(y.size, 2.0), y.ravel(), z.ravel()], 1)

    depth, labels = np.full((8, 8), np.nan, np.float32), np.full((8, 8), Label.SKY, np.uint8)
    nothing = source_of(depth, labels, Camera.from_focal(8, 8, 8), np.eye(4))
    unseen = Sightlines(nothing, nothing.world_points())
    found = column_boxes(front, np.full(len(front), 5.0), eye, unseen, finest=0.0, thickness=0.4)
    assert found is not None
    vertices, faces = found
    boxes = trimesh.Trimesh(vertices, faces, process=False)
    assert boxes.is_watertight and np.allclose(boxes.bounds, [[2.0, -0.39, 0], [2.4, 0.36, 0.8]], atol=0.08)
    shallow = column_boxes(front, np.full(len(front), 0.1), eye, unseen, finest=0.0, thickness=0.4)
    assert shallow is not None and shallow[0][:, 0].max() < 2.15
    assert column_boxes(front * [1, 1, 0.05], np.full(len(front), 5.0), eye, unseen, finest=0.0, thickness=0.4) is None


def test_rectangles_cover_the_cells_once():
    rng = np.random.default_rng(2)
    top, bottom = rng.integers(0, 3, (30, 40)).astype(float), np.zeros((30, 40))
    count = np.zeros((30, 40), int)
    for rows, cols in merged_rectangles(bottom, top):
        count[rows, cols] += 1
        assert np.ptp(top[rows, cols]) == 0
    assert (count == (top > 0)).all()


def test_silhouette_has_the_masks_area_and_its_holes():
    v, u = np.mgrid[:120, :160]
    mask = (np.hypot(u - 80, v - 60) < 50) & (np.hypot(u - 70, v - 60) > 14)
    positions, faces = _silhouette(mask, 5)
    a, b, c = (positions[faces[:, k]] for k in range(3))
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (area > 0).all() and area.sum() == pytest.approx(mask.sum(), rel=0.03)
    edges, count = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0, return_counts=True)
    border = edges[count == 1]
    assert len(trimesh.graph.connected_components(border)) == 2
