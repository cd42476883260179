"""Scenes and their pictures: exact truth, right labels, reproducible bytes."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lyra_core.camera.se3 import from_yaw_pitch, inverse
from lyra_core.errors import ConfigError, InputError
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.scenes import PLAIN, SCENES, Effects, render, render_truth
from lyra_core.scenes.demo import DEMO_PHOTO, FOCAL_35MM, HEIGHT, WIDTH, demo_camera, demo_scene, jpeg_bytes
from lyra_core.scenes.lighting import Illumination, Shaded
from lyra_core.scenes.materials import PATTERNS, Surface, albedo
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.scene import Light, Material, SceneBuilder, Sky
from lyra_core.types import Camera, Label

CAMERA = Camera.from_focal(90.0, 120, 80)
T = from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.05, -0.1)
DARK = Sky(strength=0.0)


@pytest.fixture(scope="module", params=sorted(SCENES))
def scene(request):
    return SCENES[request.param](np.random.default_rng(4))


def test_truth_agrees_with_the_triangles(scene):
    depth, labels = render_truth(scene, CAMERA, T)
    vertices, faces, owner = scene_mesh(scene, segments=64)
    hits = cast_camera(make_ray_tracer(vertices, faces), CAMERA, T)
    meshed = hits.t.reshape(depth.shape)
    sky = ~np.isfinite(meshed)
    assert (np.isnan(depth) == sky).mean() > 0.997
    assert (labels[np.isnan(depth)] == Label.SKY).all()
    both = ~np.isnan(depth) & ~sky
    assert (np.abs(depth - meshed)[both] < 2e-3 * depth[both]).mean() > 0.98
    solid = np.where(hits.face >= 0, owner[hits.face], -1).reshape(depth.shape)
    assert (scene.label[solid] == labels)[both].mean() > 0.985


def test_floor_depth_and_label_by_hand(scene):
    depth, labels = render_truth(scene, CAMERA, T)
    rays = CAMERA.rays() @ T[:3, :3].T
    z = 1.5 + depth * rays[..., 2]
    flat = labels == Label.FLOOR
    assert flat.mean() > 0.1
    assert z[flat].min() > -1e-4 and z[flat].max() < 0.15
    assert (z[labels == Label.CEILING] > 2.3).all()
    assert {Label.WALL, Label.OBSTACLE} <= set(np.unique(labels))


@pytest.mark.parametrize("name", sorted(SCENES))
def test_same_seed_same_bytes(name):
    make = SCENES[name]
    a, b, other = (make(np.random.default_rng(seed)) for seed in (1, 1, 2))
    pictures = [render(s, CAMERA.resized(60, 40), T, effects=Effects(seed=5)).rgb for s in (a, b, other)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() > 3
    assert pictures[0].std() > 15
    x0, y0, x1, y1 = a.walkable
    assert x0 < x1 and y0 < y1


def test_truth_does_not_depend_on_samples_or_effects():
    scene = SCENES["furnished_room"](np.random.default_rng(0))
    camera = CAMERA.resized(48, 32)
    plain, fine = render(scene, camera, T, effects=PLAIN), render(scene, camera, T, samples=4, effects=Effects(noise=9.0))
    for name in ("depth", "labels", "normals", "solid"):
        assert np.array_equal(getattr(plain, name), getattr(fine, name), equal_nan=name in ("depth", "normals"))
    assert not np.array_equal(plain.rgb, fine.rgb)
    assert np.array_equal(plain.depth, render_truth(scene, camera, T)[0], equal_nan=True)
    with pytest.raises(ConfigError, match="samples: got 3"):
        render(scene, camera, T, samples=3)


def lit(light: Light, *, blocker: bool = False, samples: int = 400) -> np.ndarray:
    b = SceneBuilder()
    b.box(np.eye(4), (0, 0, -0.5), (40, 40, 1), Material("plain", (1.0, 1.0, 1.0)))
    if blocker:
        b.box(np.eye(4), (0, 0, 1.0), (1, 1, 0.1), Material("plain", (1.0, 1.0, 1.0)))
    b.lights.append(light)
    scene = b.build(sky=DARK, ambient=(0, 0, 0), walkable=(0, 0, 1, 1))
    at = Shaded(np.float32([[0, 0, 0.003]]), np.float32([[0, 0, 1]]), np.arange(1))
    return Illumination(scene).direct(at, samples)[0] * np.pi


def test_irradiance_by_hand():
    """Point light: I / d^2. Sun: E cos. Small square light overhead: L A / d^2. Behind an obstacle: nothing."""
    assert np.allclose(lit(Light("sphere", (0, 0, 2), (8, 4, 2), radius=0.01)), [2, 1, 0.5], rtol=0.01)
    assert np.allclose(lit(Light("sun", (1, 0, 1), (3, 3, 3), radius=0.001)), 3 / np.sqrt(2), rtol=0.01)
    square = Light("rect", (0, 0, 3), (9, 9, 9), edge_u=(0.2, 0, 0), edge_v=(0, -0.2, 0))
    assert np.allclose(lit(square), 9 * 0.04 / 9, rtol=0.01)
    assert np.allclose(lit(replace(square, edge_v=(0, 0.2, 0))), 0)
    assert np.allclose(lit(square, blocker=True), 0)


def test_every_pattern_is_a_colour():
    rng = np.random.default_rng(0)
    u, v = rng.uniform(-3, 3, (2, 5000))
    surface = Surface(u, v, np.full(5000, 3.0), np.full(5000, 3.0), np.arange(5000) % 3)
    for name in PATTERNS:
        values = albedo(Material(name, (0.6, 0.4, 0.3), (0.3, 0.3, 0.2), scale=0.3), surface)
        assert values.shape == (5000, 3) and values.dtype == np.float32
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1
        assert name == "plain" or values.std(0).min() > 1e-4


def test_a_scene_with_wrong_shapes_is_refused():
    scene = SCENES["corridor"](np.random.default_rng(0))
    with pytest.raises(InputError, match=r"Scene\.size"):
        replace(scene, size=scene.size[:3])


def test_demo_picture_is_there_and_shows_the_scene():
    data = DEMO_PHOTO.read_bytes()
    assert len(data) <= 300_000
    picture = Image.open(io.BytesIO(data))
    assert picture.size == (WIDTH, HEIGHT)
    assert picture.getexif().get_ifd(0x8769)[0xA405] == FOCAL_35MM
    assert "Apache-2.0" in picture.getexif()[0x8298]
    camera, T_world_camera = demo_camera(width=180, height=120)
    assert camera.K[0, 0] == pytest.approx(FOCAL_35MM / 36 * 180)
    assert np.allclose(T_world_camera[:3, 3], [0, 0, 1.5])
    # The committed file is this scene: a small fresh rendering looks alike.
    fresh = render(demo_scene(), camera, T_world_camera, samples=4, effects=Effects(exposure=0.88, noise=0)).rgb.astype(float)
    stored = np.asarray(picture.resize((180, 120), Image.Resampling.BOX), float)
    assert np.corrcoef(fresh.ravel(), stored.ravel())[0, 1] > 0.97
    for fault in (fresh[:, ::-1], np.roll(fresh, 4, 1)):
        assert np.corrcoef(fault.ravel(), stored.ravel())[0, 1] < 0.95
    _, labels = render_truth(demo_scene(), camera, T_world_camera)
    assert 0.25 < (labels == Label.FLOOR).mean() < 0.45 and (labels == Label.CEILING).mean() > 0.05
    assert (labels == Label.DOOR).any() and (labels == Label.SKY).any()


def test_jpeg_is_reproducible():
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    assert jpeg_bytes(rgb) == jpeg_bytes(rgb)


def test_poses_are_rigid_frames():
    scene = SCENES["office"](np.random.default_rng(0))
    assert np.abs(inverse(scene.T_world_local) @ scene.T_world_local - np.eye(4)).max() < 1e-9
    assert (np.linalg.det(scene.T_world_local[:, :3, :3]) > 0.999).all()
