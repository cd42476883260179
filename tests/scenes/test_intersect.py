"""The analytic ray caster against Embree on the solids' triangles, and against the solids' own equations."""

import numpy as np
import pytest

from lyra_core.rays import make_ray_tracer
from lyra_core.scenes.intersect import cast, near_solids
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.scene import Material, SceneBuilder, Sky, place, rotation

GREY = Material("plain", (0.5, 0.5, 0.5))


def build(*, curved: bool, count: int = 40):
    rng, b = np.random.default_rng(3), SceneBuilder()
    for i in range(count):
        T = place(*rng.uniform(-3, 3, 2), rng.uniform(0, 6), rng.uniform(0, 3))
        turn, size = rotation("x", rng.uniform(0, 3)), rng.uniform(0.3, 1.2, 3)
        if not curved:
            b.box(T, (0, 0, 0), size, GREY, turn=turn)
        elif i % 3 == 0:
            b.box(T, (0, 0, 0), size, GREY, turn=turn, rounding=rng.uniform(0.02, 0.5) * size.min())
        elif i % 3 == 1:
            b.ellipsoid(T, (0, 0, 0), size / 2, GREY, turn=turn)
        else:
            b.cone(T, (0, 0, 0), (size[0] / 2, size[1] / 2 * (i % 2)), size[2], GREY, turn=turn)
    return b.build(sky=Sky(), ambient=(0, 0, 0), walkable=(0, 0, 0, 0))


def rays(count: int):
    rng = np.random.default_rng(5)
    origins = rng.normal(size=(count, 3))
    origins *= 9 / np.linalg.norm(origins, axis=1, keepdims=True)
    return origins, rng.uniform(-3, 3, (count, 3)) - origins


@pytest.mark.parametrize(("curved", "segments", "tolerance"), [(False, 8, 1e-5), (True, 512, 1e-4)])
def test_depth_equals_embree_on_triangles(curved, segments, tolerance):
    scene = build(curved=curved, count=18 if curved else 40)
    vertices, faces, owner = scene_mesh(scene, segments=segments)
    o, d = rays(8000)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    exact, meshed = cast(scene, o, d), make_ray_tracer(vertices, faces).cast(o, d)
    both = (exact.solid >= 0) & (meshed.face >= 0)
    assert ((exact.solid >= 0) == (meshed.face >= 0)).mean() > 0.999
    same = both & (exact.solid == owner[meshed.face])
    assert same.sum() > 0.998 * both.sum()
    error = np.abs(exact.t[same] - meshed.t[same])
    facing = -(exact.normal * d).sum(1)[same]
    # A chord of the inscribed mesh lies up to its sagitta below the surface; a slanted ray sees that divided by the cosine.
    assert (error * facing).max() < tolerance and np.median(error) < tolerance / 3


def test_hits_lie_on_the_solids_and_normals_point_out():
    scene = build(curved=True)
    o, d = rays(20000)
    hits = cast(scene, o, d)
    hit = hits.solid >= 0
    assert hit.mean() > 0.3
    assert ((hits.normal * d).sum(1)[hit] < 1e-9).all()
    assert np.abs(np.linalg.norm(hits.normal[hit], axis=1) - 1).max() < 1e-9
    p, size = hits.local, np.maximum(scene.size[hits.solid], 1e-9)
    rounded = hit & (scene.kind[hits.solid] == 0)
    r = scene.extra[hits.solid][:, None]
    distance = np.linalg.norm(p - np.clip(p, r - size, size - r), axis=1) - r[:, 0]
    assert np.abs(distance[rounded]).max() < 1e-8
    ellipsoid = hit & (scene.kind[hits.solid] == 1)
    assert np.abs(((p / size) ** 2).sum(1) - 1)[ellipsoid].max() < 1e-8


def test_hand_computed():
    b = SceneBuilder()
    b.box(np.eye(4), (3, 0, 0), (1, 1, 1), GREY)
    b.ellipsoid(np.eye(4), (0, 4, 0), (1, 1, 1), GREY)
    b.cone(np.eye(4), (0, 0, -5), (1, 0), 2, GREY)
    scene = b.build(sky=Sky(), ambient=(0, 0, 0), walkable=(0, 0, 0, 0))
    d = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, -1], [-1, 0, 0]])
    hits = cast(scene, np.zeros((4, 3)), d)
    assert np.allclose(hits.t, [2.5, 1.5, 3.0, np.inf])
    assert hits.solid.tolist() == [0, 1, 2, -1]


def test_culling_changes_nothing():
    scene = build(curved=True)
    o = np.array([5.0, 1, 2])
    d = np.random.default_rng(0).normal([-1, 0, 0], 0.1, (500, 3))
    solids = near_solids(scene, o, d)
    assert len(solids) < len(scene)
    origins = np.tile(o, (500, 1))
    assert np.array_equal(cast(scene, origins, d).t, cast(scene, origins, d, solids=solids).t)


def test_triangles_are_closed_and_wound_outwards():
    scene = build(curved=True)
    for i in range(len(scene)):
        v, f, _ = scene_mesh(scene, solids=np.array([i]))
        a, b, c = (v[f[:, k]].astype(float) - scene.T_world_local[i, :3, 3] for k in range(3))
        assert np.einsum("ij,ij->", a, np.cross(b, c)) > 0
