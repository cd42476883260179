"""Seeded cases: buildable everywhere, cameras at plausible places, truth that agrees with the solids' triangles."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lyra_core.errors import ConfigError
from lyra_core.rays import cast_camera, make_ray_tracer, sphere_directions
from lyra_core.scenes import KINDS, SceneCase, benchmark_cases, render, render_truth, sample_scene
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.placing import CLEARANCE, clearance
from lyra_core.types import Label

SEEDS = (3, 14)
FLOOR_RISE = 0.16
"""Largest |slope| of a floor pixel's normal off vertical that the rule allows, as sine, is sin 10 degrees."""


sampled = cache(sample_scene)


def small(case: SceneCase, long: int = 56) -> SceneCase:
    scale = long / max(case.camera.width, case.camera.height)
    return case.resized(round(case.camera.width * scale), round(case.camera.height * scale))


@pytest.fixture(scope="module", params=[(kind, seed) for kind in KINDS for seed in SEEDS], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request) -> SceneCase:
    kind, seed = request.param
    return small(sampled(seed, kind))


def check_placed(case: SceneCase) -> None:
    """Assert what a photographer can do: stand on floor, clear of solids, hold a camera as people do."""
    assert clearance(case.scene, case.T_world_camera[:3, 3]).min() >= CLEARANCE
    assert 0.9 <= case.camera_height <= 1.8
    R = case.T_world_camera[:3, :3]
    assert np.abs(R @ R.T - np.eye(3)).max() < 1e-12 and np.linalg.det(R) > 0
    down, roll = np.degrees(np.arcsin(-R[2, 2])), np.degrees(np.arctan2(R[2, 0], -R[2, 1]))
    assert -8.01 <= down <= 35.01 and abs(roll) <= 6.01
    assert 0.6 <= case.camera.K[0, 0] / max(case.camera.width, case.camera.height) <= 1.4
    assert len(case.scene) <= 400 and len(case.scene.lights) <= 10


def check_truth(case: SceneCase) -> None:
    """Assert depth and labels against the triangles, and floor pixels against the floor's height and slope."""
    depth, labels = render_truth(case.scene, case.camera, case.T_world_camera)
    vertices, faces, owner = scene_mesh(case.scene, segments=48)
    tracer = make_ray_tracer(vertices, faces)
    hits = cast_camera(tracer, case.camera, case.T_world_camera)
    meshed, solid = hits.t.reshape(depth.shape), np.where(hits.face >= 0, owner[hits.face], -1).reshape(depth.shape)
    both = np.isfinite(depth) & np.isfinite(meshed)
    assert (np.isnan(depth) == ~np.isfinite(meshed)).mean() > 0.99
    assert (np.abs(depth - meshed)[both] < 3e-3 * depth[both]).mean() > 0.96
    assert (case.scene.label[solid] == labels)[both].mean() > 0.975
    assert ((labels == Label.SKY) == np.isnan(depth)).all()
    rays = case.camera.rays() @ case.T_world_camera[:3, :3].T
    height = case.T_world_camera[2, 3] + depth * rays[..., 2]
    floor = labels == Label.FLOOR
    assert height[floor].min(initial=0) > -0.12 and height[floor].max(initial=0) < 0.45
    assert (height[labels == Label.CEILING] > 1.9).all()
    origins = np.tile(case.T_world_camera[:3, 3], (400, 1)).astype(np.float32)
    assert tracer.cast(origins, sphere_directions(400).astype(np.float32)).t.min() > CLEARANCE - 0.01


def test_camera_stands_where_a_person_can(case):
    check_placed(case)


def test_truth_agrees_with_the_triangles_and_the_floor_rule(case):
    check_truth(case)


def test_the_checks_bite():
    case = small(sampled(3, "furnished_room"))
    T = case.T_world_camera.copy()
    T[:3, 3] = case.scene.T_world_local[0, :3, 3]
    with pytest.raises(AssertionError):
        check_placed(replace(case, T_world_camera=T))
    label = case.scene.label.copy()
    label[label == Label.WALL] = Label.FLOOR
    with pytest.raises(AssertionError):
        check_truth(replace(case, scene=replace(case.scene, label=label)))


def test_floor_pixels_face_up_or_are_low_edges(case):
    """Floor normals are within 10 degrees of vertical, but for the edges of rugs, kerbs and steps of at most 0.15 m."""
    seen = render(case.scene, case.camera, case.T_world_camera, effects=replace(case.effects, bounce_samples=0, filter_levels=0))
    floor, up = seen.labels == Label.FLOOR, seen.normals[..., 2]
    assert (up[floor] > -1e-6).all()
    steep = floor & (up < np.cos(np.radians(10.01)))
    edges = case.scene.T_world_local[seen.solid[steep], 2, 3] + np.abs(case.scene.size[seen.solid[steep], 2])
    assert steep.sum() <= 0.12 * max(floor.sum(), 40) and (edges < 0.42).all()
    assert seen.rgb.std() > 4 and (seen.rgb.max((0, 1)) > 20).all()


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes_and_other_seeds_differ(kind):
    first, other = (sampled(seed, kind) for seed in SEEDS)
    again = sample_scene(SEEDS[0], kind)
    for name in ("kind", "T_world_local", "size", "extra", "material", "label", "casts"):
        assert getattr(first.scene, name).tobytes() == getattr(again.scene, name).tobytes()
    assert first.scene.materials == again.scene.materials and first.scene.lights == again.scene.lights
    assert first.T_world_camera.tobytes() == again.T_world_camera.tobytes()
    assert (first.effects, first.tags, first.exif_focal, first.name) == (again.effects, again.tags, again.exif_focal, again.name)
    assert first.scene.materials != other.scene.materials and not np.allclose(first.T_world_camera, other.T_world_camera)


def test_kind_is_drawn_from_the_seed_and_names_are_checked():
    kinds = [np.random.default_rng([seed, 0]).integers(len(KINDS)) for seed in range(60)]
    assert len(set(kinds)) == len(KINDS)
    case = sample_scene(0)
    assert case.kind == KINDS[kinds[0]] and case.name == f"{case.kind}-0"
    with pytest.raises(ConfigError, match="kind: got 'attic', expected one of furnished_room"):
        sample_scene(0, "attic")
    with pytest.raises(ConfigError, match="seed: got -1"):
        sample_scene(-1)
    with pytest.raises(ConfigError, match="count: got 0"):
        benchmark_cases(0)


def test_the_photos_world_has_its_origin_on_the_ground_below_the_lens(case):
    T = np.linalg.inv(case.T_scene_world) @ case.T_world_camera
    assert np.allclose(T[:3, 3], [0, 0, case.camera_height], atol=1e-9)
    assert T[1, 2] == pytest.approx(0, abs=1e-12) and T[0, 2] > 0


@pytest.mark.slow
def test_benchmark_cases_cover_what_they_claim():
    cases = [small(c, 32) for c in benchmark_cases()]
    assert Counter(c.kind for c in cases) == dict.fromkeys(KINDS, 14)
    assert len({c.name for c in cases}) == 84
    for c in cases:
        check_placed(c)
    floor = np.array([(render_truth(c.scene, c.camera, c.T_world_camera)[1] == Label.FLOOR).mean() for c in cases])
    assert 0.8 <= (floor >= 0.05).mean() <= 0.98
    assert 0.35 <= np.mean([c.exif_focal for c in cases]) <= 0.65
    tags = Counter(tag for c in cases for tag in set(c.tags))
    for tag in (
        "dark",
        "overexposed",
        "noisy",
        "warm",
        "cold",
        "portrait",
        "mirror",
        "stairs",
        "ramp",
        "person",
        "looks_down",
        "looks_up",
    ):
        assert tags[tag] >= 2, tag


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_seeds_build(kind):
    for seed in range(500, 540):
        case = small(sample_scene(seed, kind), 40)
        check_placed(case)
        check_truth(case)
