"""The hierarchical grid: levels by distance, surfaces that close between levels, and the fusion kernel against its formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes
from surface_scenes import open_edges, room_distance, room_frames, sphere_frames

from lyra_core.camera.depth_normals import depth_normals
from lyra_core.camera.se3 import inverse
from lyra_core.surface.base import fuse
from lyra_core.surface.blocks import BEHIND, EDGE_GRAZING, EDGE_SHARE, FREE_SHARE, GRAZING, TRUNCATION, FusionBlocks
from lyra_core.surface.distance import closest_points
from lyra_core.surface.extract import BlockGrid, extract_surface
from lyra_core.surface.levels import SIDE, Levels, pack, unpack
from lyra_core.surface.marching import CORNERS, march, triangle_table
from lyra_core.surface.topology import drop_small_pieces


def cube_samples(n: int) -> np.ndarray:
    ids = np.arange(n**3).reshape(n, n, n)
    return np.stack([ids[x:n - 1 + x, y:n - 1 + y, z:n - 1 + z].reshape(-1) for x, y, z in CORNERS], 1)


def unbalanced(faces: np.ndarray) -> int:
    """Count directed edges that no face runs the other way as often."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    there, back = edges @ [1 << 32, 1], edges @ [1, 1 << 32]
    return int((np.sort(there) != np.sort(back)).sum())


def test_any_field_gives_a_closed_surface():
    """Noise crosses every one of the 256 patterns and every ambiguous face."""
    n, rng = 24, np.random.default_rng(0)
    values = rng.normal(size=(n, n, n))
    values[[0, -1]] = values[:, [0, -1]] = values[:, :, [0, -1]] = 1
    samples = cube_samples(n)
    pattern = (values.reshape(-1)[samples] < 0) @ (1 << np.arange(8))
    assert len(np.unique(pattern)) == 256
    _, faces = march(samples, values.reshape(-1)[samples])
    assert unbalanced(faces) == 0


def test_marching_cubes_agrees_with_another_library():
    n = 30
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(float)
    values = np.linalg.norm(grid - [14.2, 15.1, 13.7], axis=1) - 9.3 + 0.8 * np.sin(grid[:, 0])
    samples = cube_samples(n)
    ends, faces = march(samples, values[samples])
    t = values[ends[:, 0]] / (values[ends[:, 0]] - values[ends[:, 1]])
    vertices = grid[ends[:, 0]] + t[:, None] * (grid[ends[:, 1]] - grid[ends[:, 0]])
    ours = trimesh.Trimesh(vertices, faces, process=False)
    verts, other, _, _ = marching_cubes(values.reshape(n, n, n), 0.0, gradient_direction="descent")
    theirs = trimesh.Trimesh(verts, other, process=False)
    assert ours.is_watertight and ours.euler_number == theirs.euler_number
    assert ours.volume == pytest.approx(theirs.volume, rel=1e-3) and ours.area == pytest.approx(theirs.area, rel=1e-2)
    assert cKDTree(verts).query(vertices)[0].max() < 1e-4 and cKDTree(vertices).query(verts)[0].max() < 1e-4


def test_table_has_the_classic_size():
    _, counts = triangle_table()
    assert counts.max() == 5 and counts[0] == counts[255] == 0 and counts[1] == 1 and counts[15] == 2


def field(levels: Levels, keys: np.ndarray, distance) -> BlockGrid:
    slots, none = np.arange(len(keys)), np.zeros((len(keys), SIDE**3))
    empty = BlockGrid(levels, keys, slots, none, none, np.zeros((len(keys), SIDE**3, 3)))
    places = empty.centres(np.arange(len(keys) * SIDE**3)).reshape(len(keys), -1, 3)
    cell = levels.size(unpack(keys)[0]) / SIDE
    values = np.clip(distance(places) / (TRUNCATION * cell[:, None]), -1, 1)
    return BlockGrid(levels, keys, slots, values, np.ones_like(values), np.full((*values.shape, 3), 99.0))


@pytest.mark.parametrize("eye", [[8.0, 0.3, 0.2], [0.0, 0.0, 0.0], [5.1, 5.2, 5.3]])
def test_sphere_over_several_levels_has_no_crack(eye):
    radius, levels = 9.0, Levels.along(0.1, np.array([eye]), near=1.5)
    directions = np.random.default_rng(1).normal(size=(200_000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    keys = np.unique(np.concatenate([levels.blocks_of(directions * r) for r in np.linspace(3, 15, 25)]))
    found = np.bincount(unpack(keys)[0])
    assert (found > 0).sum() >= 2
    vertices, faces, colors = extract_surface(field(levels, keys, lambda p: np.linalg.norm(p, axis=-1) - radius))
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert open_edges(faces) == 0 and mesh.is_watertight and mesh.euler_number == 2 and mesh.body_count == 1
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02) and (colors == 99).all()


def test_noise_over_several_levels_is_closed_too():
    """A random field in a box of blocks of three levels, free at the border: the hardest case for stitching."""
    levels = Levels.along(0.1, np.array([[0.1, 0.2, 0.3]]), near=1.0)
    span = np.stack(np.meshgrid(*[np.arange(-4, 4, 0.4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    keys = levels.blocks_of(span)
    rng = np.random.default_rng(2)
    grid = field(levels, keys, lambda p: rng.normal(size=p.shape[:-1]))
    places = grid.centres(np.arange(len(keys) * SIDE**3)).reshape(len(keys), -1, 3)
    values = np.where(np.abs(places).max(-1) > 2.6, 1.0, grid.distance)
    assert len(np.unique(unpack(keys)[0])) >= 3
    _, faces, _ = extract_surface(replace(grid, distance=values))
    assert len(faces) > 100_000 and unbalanced(faces) == 0


def test_levels_follow_the_distance_and_leave_no_gap():
    levels = Levels.along(0.02, np.array([[0.0, 0, 0], [2.0, 0, 0]]))
    points = np.random.default_rng(3).uniform(-60, 60, (20_000, 3))
    distance = np.minimum(np.linalg.norm(points, axis=1), np.linalg.norm(points - [2, 0, 0], axis=1))
    for point, far in zip(points[:300], distance, strict=False):
        key = levels.blocks_of(point[None])
        assert len(key) == 1
        level, block = unpack(key)
        size = levels.size(level[0])
        assert (block[0] * size <= point).all() and (point <= (block[0] + 1) * size).all()
        assert far >= (levels.near * 2.0 ** (level[0] - 1) if level[0] else 0)
        parent = pack(level[0] + 1, block >> 1)
        assert level[0] == levels.top or not levels.is_leaf(int(level[0]) + 1, unpack(parent)[1])[0], "as coarse as allowed"


def test_one_level_without_eyes_and_keys_return():
    levels = Levels.along(0.05, None)
    blocks = np.array([[-3, 4, 100_000], [0, 0, -1]])
    assert levels.top == 0 and np.array_equal(unpack(pack(0, blocks))[1], blocks)
    assert np.array_equal(unpack(pack(np.array([5, 2]), blocks))[0], [5, 2])


def test_kernel_computes_the_published_average():
    """Two frames of a sphere, against Curless and Levoy's running mean in double precision at every voxel."""
    frames = sphere_frames()[:2]
    fusion = FusionBlocks(0.1)
    fusion.integrate_all(frames)
    grid = fusion.grid()
    places = grid.centres(np.arange(len(grid.keys) * SIDE**3))
    total, mass = np.zeros(len(places)), np.zeros(len(places))
    for frame in frames:
        shape, K = depth_normals(frame.depth, frame.camera), frame.camera.K
        local = places @ inverse(frame.T_world_camera)[:3, :3].T + inverse(frame.T_world_camera)[:3, 3]
        u, v = (local[:, i] / local[:, 2] * K[i, i] + K[i, 2] for i in (0, 1))
        ok = (u >= 0) & (v >= 0) & (u < frame.camera.width) & (v < frame.camera.height)
        line, column = np.where(ok, v, 0).astype(int), np.where(ok, u, 0).astype(int)
        d, n = frame.depth[line, column], shape.normals[line, column]
        cosine, edge = shape.cosine[line, column], shape.edge[line, column]
        weight = cosine * np.where(edge, EDGE_SHARE, 1) / (1 + (d / 3) ** 2)
        seen = np.stack([(column + 0.5 - K[0, 2]) / K[0, 0], (line + 0.5 - K[1, 2]) / K[1, 1], np.ones(len(d))], 1) * d[:, None]
        s = ((local - seen) * n).sum(1) / (TRUNCATION * 0.1)
        ok &= np.isfinite(weight) & (cosine > np.where(edge, EDGE_GRAZING, GRAZING)) & (s > -1)
        ok &= local[:, 2] - d < BEHIND * TRUNCATION * 0.1
        weight = np.where(ok, np.where(s >= 1, FREE_SHARE * weight, weight), 0)
        total, mass = total + weight * np.where(ok, np.minimum(s, 1), 0), mass + weight
    known = grid.weight.reshape(-1) > 0
    agree = known == (mass > 0)
    assert agree.mean() > 0.999, "pixel borders round differently in single precision"
    both = agree & known
    error = np.abs(grid.distance.reshape(-1)[both] - total[both] / mass[both])
    assert both.sum() > 3000 and np.percentile(error, 99) < 1e-3


def test_coarse_cells_far_away_keep_the_room_accurate_and_smaller():
    frames = room_frames()
    one, many = FusionBlocks(0.02), FusionBlocks(0.02, eyes=np.array([f.T_world_camera[:3, 3] for f in frames]), near=1.0)
    for fusion in (one, many):
        fuse(fusion, frames)
    (a, fa, _), (b, fb, _) = one.extract(), many.extract()
    assert len(np.unique(unpack(many.keys)[0])) == 3 and len(fb) < len(fa) / 2
    assert room_distance(b).mean() < 2 * room_distance(a).mean() + 1e-4 < 0.002


def test_a_phantom_of_one_frame_is_carved_away():
    frames = room_frames()
    ghost = np.array(frames[3].depth)
    ghost[40:80, 60:140] = 0.8
    phantom = replace(frames[3], depth=ghost)
    for order in ([phantom, *frames], [*frames, phantom]):
        fusion = FusionBlocks(0.04)
        fuse(fusion, order)
        vertices, faces, _ = fusion.extract()
        faces, _ = drop_small_pieces(vertices, faces, min_area=0.05)
        used = np.unique(faces)
        assert room_distance(vertices[used]).max() < 0.15
        assert closest_points(vertices, faces, np.array([[0.0, 0.0, 0.0]])).distance[0] < 0.02, "the floor stays"
