"""The Warp renderer: truth against the analytic caster and trimesh, light by hand, patterns and pictures against the reference."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.errors import BackendUnavailable, ConfigError
from lyra_core.scenes import KINDS, PLAIN, Effects, render, render_truth, sample_scene
from lyra_core.scenes.intersect import cast
from lyra_core.scenes.materials import PATTERNS, encoded
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.render import _look
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, Sky, place, rotation
from lyra_core.scenes.warp_render import WarpRenderer, render_fast
from lyra_core.scenes.warp_render_effects import PhotoEffects, encode, photographed, through_lens
from lyra_core.types import Camera, Label

pytest.importorskip("warp")
GREY, WHITE = Material("plain", (0.5, 0.5, 0.5)), Material("plain", (1.0, 1.0, 1.0))
CAMERA = Camera.from_focal(60.0, 96, 72)
EYE = from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.0, 0.0)
LEVEL = from_yaw_pitch(np.zeros(3), 0.0, 0.0)
NIGHT = Sky(strength=0.0)


@pytest.fixture(scope="module")
def renderer() -> WarpRenderer:
    return WarpRenderer()


def built(b: SceneBuilder, sky: Sky = NIGHT, ambient: tuple[float, ...] = (0, 0, 0)) -> Scene:
    return b.build(sky=sky, ambient=ambient, walkable=(0, 0, 0, 0))


def jumble(distance: float, count: int = 60, size: float = 1.0) -> Scene:
    """Solids of all kinds, turned at random, some way in front of the origin."""
    rng, b = np.random.default_rng(3), SceneBuilder()
    for i in range(count):
        T = place(distance + rng.uniform(-2, 2), rng.uniform(-3, 3), rng.uniform(0, 6), rng.uniform(-2, 2))
        turn, extent = rotation("x", rng.uniform(0, 3)), size * rng.uniform(0.3, 1.2, 3)
        if i % 4 < 2:
            b.box(T, (0, 0, 0), extent, GREY, turn=turn, rounding=(i % 2) * rng.uniform(0.02, 0.5) * extent.min())
        elif i % 4 == 2:
            b.ellipsoid(T, (0, 0, 0), extent / 2, GREY, turn=turn)
        else:
            b.cone(T, (0, 0, 0), (extent[0] / 2, extent[1] / 2 * (i % 3)), extent[2], GREY, turn=turn)
    return built(b)


def same_solid(scene: Scene, T_world_camera: np.ndarray, seen, solid: np.ndarray) -> np.ndarray:
    """Say where the solids agree; where two lie in one plane, as walls at corners do, either will do."""
    same = seen.solid == solid
    for i in np.unique(solid[~same & (solid >= 0)]):
        rows = ~same & (solid == i)
        d = seen.direction[rows].astype(float)
        t = cast(scene, np.broadcast_to(T_world_camera[:3, 3], d.shape), d, solids=np.array([i])).t
        same[rows] = np.abs(t - seen.t[rows]) < 1e-6
    return same


@pytest.mark.parametrize("kind", KINDS)
def test_truth_is_the_reference_renderers(renderer, kind):
    for seed in (7, 8):
        case = sample_scene(seed, kind).resized(160, 120)
        depth, labels = render_truth(case.scene, case.camera, case.T_world_camera)
        seen = _look(case.scene, case.camera, case.T_world_camera, coloured=False)
        fast = renderer.render(case.scene, case.camera, case.T_world_camera, effects=replace(PLAIN, bounce_samples=0))
        sky = np.isnan(depth)
        same = np.where(sky | np.isnan(fast.depth), sky == np.isnan(fast.depth), np.abs(depth - fast.depth) < 1e-3)
        assert same.mean() >= 0.999
        assert (labels == fast.labels).mean() >= 0.999
        assert same_solid(case.scene, case.T_world_camera, seen, fast.solid).mean() >= 0.999
        assert (np.abs(seen.normal - fast.normals).max(-1) < 2e-3).mean() >= 0.998
        alone = renderer.truth(case.scene, case.camera, case.T_world_camera)
        assert np.array_equal(alone[0], fast.depth, equal_nan=True) and np.array_equal(alone[1], fast.labels)


def test_depth_is_trimeshs_on_the_triangles(renderer):
    scene = jumble(8.0)
    depth, _ = renderer.truth(scene, CAMERA, LEVEL)
    vertices, faces, _ = scene_mesh(scene, segments=256)
    rays = (CAMERA.rays().reshape(-1, 3) @ LEVEL[:3, :3].T).astype(float)
    points, index, _ = trimesh.Trimesh(vertices, faces, process=False).ray.intersects_location(
        np.zeros_like(rays), rays, multiple_hits=False
    )
    meshed = np.full(len(rays), np.nan)
    meshed[index] = points @ LEVEL[:3, 2]
    meshed = meshed.reshape(depth.shape)
    assert 0.1 < np.isfinite(meshed).mean() < 0.9
    assert (np.isnan(depth) == np.isnan(meshed)).mean() > 0.998
    both = np.isfinite(depth) & np.isfinite(meshed)
    assert (np.abs(depth - meshed)[both] < 2e-3).mean() > 0.997


def test_far_thin_things_keep_their_shape(renderer):
    """A naive quadratic in single precision loses a 2 cm tube 80 m away."""
    scene = jumble(80.0, size=0.02, count=400)
    camera = replace(CAMERA, K=np.array([[2000.0, 0, 48], [0, 2000.0, 36], [0, 0, 1]]))
    depth, _ = render_truth(scene, camera, LEVEL)
    fast, _ = renderer.truth(scene, camera, LEVEL)
    assert 0.002 < np.isfinite(depth).mean() < 0.9
    assert (np.isnan(depth) == np.isnan(fast)).mean() >= 0.999
    assert np.nanmax(np.abs(depth - fast)) < 2e-3


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_is_the_references(renderer, name):
    b = SceneBuilder()
    material = Material(name, (0.6, 0.4, 0.3), (0.3, 0.35, 0.2), scale=0.3)
    b.box(place(4, 0.4, 0.3), (0, 0, 0.3), (1.6, 2.4, 2.1), material)
    b.cone(place(3, -1.6), (0, 0, -0.7), (0.5, 0.3), 1.2, material)
    b.box(np.eye(4), (10, 0, -2), (60, 60, 2), replace(material, space="world"))
    scene = built(b)
    expected = encoded(_look(scene, CAMERA, LEVEL).albedo)
    layer = renderer._see(renderer._upload(scene), "coarse", CAMERA, LEVEL, coloured=True)
    got = encoded(layer.seen.albedo.numpy().reshape(expected.shape))
    off = np.abs(expected - got).max(-1) * 255
    # Pixels that lie on a joint may fall to either side of it.
    assert (off <= 2).mean() > 0.99 and off.mean() < 0.3
    assert name == "plain" or expected.std() > 0.01


def floor_value(renderer: WarpRenderer, light: Light, *, blocker: bool = False) -> float:
    """Return the grey of a white floor below the middle of the picture, straight down from 4 m."""
    b = SceneBuilder()
    b.box(np.eye(4), (0, 0, -0.5), (40, 40, 1), WHITE)
    if blocker:
        b.box(np.eye(4), (0, 0, 1.0), (0.6, 0.6, 0.1), WHITE)
    b.lights.append(light)
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    T[:3, 3] = 0, 0, 0.5
    effects = replace(PLAIN, light_samples=4, bounce_samples=0)
    rgb = renderer.render(built(b), Camera.from_focal(50, 5, 5), T, effects=effects).rgb
    return float(rgb[2, 2].mean())


def developed(radiance: float) -> float:
    film = radiance * (2.51 * radiance + 0.03) / (radiance * (2.43 * radiance + 0.59) + 0.14)
    return 255 * float(encoded(np.array(min(film, 1.0))))


def test_irradiance_by_hand(renderer):
    """Radiance of a white floor: lamp I / (pi d^2), sun E cos / pi, small square L A / (pi d^2); none from behind or in shadow."""
    lamp = Light("sphere", (0, 0, 2), (2, 2, 2), radius=0.01)
    square = Light("rect", (0, 0, 3), (30, 30, 30), edge_u=(0.2, 0, 0), edge_v=(0, -0.2, 0))
    assert floor_value(renderer, lamp) == pytest.approx(developed(2 / 4 / np.pi), abs=1.5)
    sun = Light("sun", (1, 0, 1), (1, 1, 1), radius=0.001)
    assert floor_value(renderer, sun) == pytest.approx(developed(np.sqrt(0.5) / np.pi), abs=1.5)
    assert floor_value(renderer, square) == pytest.approx(developed(30 * 0.04 / 9 / np.pi), abs=1.5)
    assert floor_value(renderer, replace(square, edge_v=(0, 0.2, 0))) == 0
    assert floor_value(renderer, square, blocker=True) == 0


def test_ambient_occlusion_by_hand(renderer):
    """Below an open uniform sky a white floor is as bright as the sky; at the foot of a black wall half as bright."""
    sky = Sky((0.5,) * 3, (0.5,) * 3, (0.5,) * 3)
    T = np.diag([1.0, -1.0, -1.0, 1.0])
    values = []
    for wall in (False, True):
        b = SceneBuilder()
        b.box(np.eye(4), (0, 0, -0.5), (400, 400, 1), WHITE)
        if wall:
            b.box(np.eye(4), (-5.005, 0, 50), (10, 400, 100), Material("plain", (0.0, 0.0, 0.0)))
        T[:3, 3] = 0.02, 0, 0.5
        effects = replace(PLAIN, bounce_samples=256)
        rgb = renderer.render(built(b, sky), Camera.from_focal(500, 5, 5), T, effects=effects).rgb
        values.append(float(rgb.mean()))
    # Clouds brighten the sky by up to a few percent.
    assert developed(0.5) - 1 < values[0] < developed(0.62)
    assert developed(0.23) < values[1] < developed(0.31)


def test_a_mirror_shows_what_stands_before_it(renderer):
    b = SceneBuilder()
    b.box(np.eye(4), (4, 0, 0), (0.1, 8, 8), Material("plain", (0.5, 0.5, 0.5), gloss=1.0, roughness=0.0))
    b.box(np.eye(4), (-3, 1.5, 0), (0.2, 1.0, 6), Material("plain", (1.0, 0.0, 0.0)), label=Label.WALL)
    shown = renderer.render(built(b, ambient=(0.5, 0.5, 0.5)), CAMERA, LEVEL, effects=PLAIN)
    x = 3.95 * 48 / 60
    red = (shown.rgb[36, :, 0].astype(int) - shown.rgb[36, :, 1]) > 100
    # The image of the board stands 3.95 + 3.95 + 2.9 m away, at y = 1 to 2, on the left of the picture.
    expected = 48 - 60 * np.array([2.0, 1.0]) / (2 * 3.95 + 2.9)
    assert abs(np.flatnonzero(red)[0] - expected[0]) <= 1.5 and abs(np.flatnonzero(red)[-1] + 1 - expected[1]) <= 1.5
    assert x > 1 and np.allclose(shown.depth[np.abs(shown.depth - 3.95) < 0.5], 3.95, atol=1e-4)


@pytest.mark.parametrize("kind", ("furnished_room", "street"))
def test_picture_is_close_to_the_references(renderer, kind):
    case = sample_scene(12, kind).resized(160, 120)
    picture = case.scene, case.camera, case.T_world_camera
    expected = render(*picture, effects=case.effects).rgb.astype(float)
    assert np.abs(renderer.render(*picture, effects=case.effects).rgb - expected).mean() < 1.5
    shadowless = replace(case.scene, casts=np.zeros(len(case.scene), bool))
    assert np.abs(renderer.render(shadowless, *picture[1:], effects=case.effects).rgb - expected).mean() > 4.5


def test_shared_light_is_close_to_light_of_every_sample(renderer):
    case = sample_scene(12, "furnished_room").resized(160, 120)
    picture, effects = (case.scene, case.camera, case.T_world_camera), replace(case.effects, bounce_samples=16, noise=0)
    own, shared, single = (
        renderer.render(*picture, samples=n, effects=effects, share_light=share).rgb.astype(float)
        for n, share in ((4, False), (4, True), (1, True))
    )
    assert np.abs(own - shared).mean() < 3.5
    assert np.abs(own - shared).mean() < 0.6 * np.abs(own - single).mean()


def test_same_seed_same_bytes_whatever_came_before(renderer):
    case = sample_scene(3, "office").resized(64, 48)
    picture = case.scene, case.camera, case.T_world_camera
    first = renderer.render(*picture, samples=4, effects=Effects(seed=5))
    renderer.render(jumble(8.0), CAMERA, LEVEL, samples=9)
    again = renderer.render(*picture, samples=4, effects=Effects(seed=5))
    for other in (again, render_fast(*picture, samples=4, effects=Effects(seed=5))):
        for name in ("rgb", "depth", "labels", "normals", "solid"):
            assert np.array_equal(getattr(first, name), getattr(other, name), equal_nan=name in ("depth", "normals"))
    assert not np.array_equal(first.rgb, renderer.render(*picture, samples=4, effects=Effects(seed=6)).rgb)


def test_what_cannot_be_rendered_is_refused(renderer):
    with pytest.raises(ConfigError, match="samples: got 3"):
        renderer.render(jumble(8.0), CAMERA, LEVEL, samples=3)
    b = SceneBuilder()
    b.box(np.eye(4), (4, 0, 0), (1, 1, 1), Material("marble", (1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match="pattern: got marble"):
        renderer.truth(built(b), CAMERA, LEVEL)
    with pytest.raises(BackendUnavailable, match="'tpu' is not there"):
        WarpRenderer("tpu")


def disc() -> np.ndarray:
    y, x = np.mgrid[:120, :160]
    return np.repeat((np.hypot(x - 79.5, y - 59.5) < 50).astype(np.float32)[..., None], 3, 2)


def test_lens_does_what_it_says():
    light = disc()
    assert np.array_equal(through_lens(light, 1, Effects()), light)
    assert np.allclose(through_lens(light, 1, PhotoEffects()), light, atol=1e-5)
    soft = through_lens(light, 1, PhotoEffects(blur=1.5))
    assert abs(soft.sum() / light.sum() - 1) < 1e-3 and np.abs(np.diff(soft, axis=1)).max() < 0.35
    # An edge blurred by a Gaussian has its density as slope.
    assert np.abs(np.diff(soft[60, :, 1])).max() == pytest.approx(1 / (1.5 * np.sqrt(2 * np.pi)), rel=0.05)
    parted = through_lens(light, 1, PhotoEffects(chromatic=4.0))
    radius = np.sqrt(parted.sum((0, 1)) / np.pi)
    # Half of 4 px each way in the corners, 100 px out; the disc's edge is 50 px out.
    assert radius[0] - radius[1] == pytest.approx(1, abs=0.1) and radius[1] - radius[2] == pytest.approx(1, abs=0.1)
    glare = through_lens(light, 1, PhotoEffects(bloom=0.1))
    assert 0 < glare[60, 25, 0] < 0.06 and abs(glare.sum() / light.sum() - 1) < 0.01


def test_sensor_and_file_do_what_they_say():
    flat = np.full((100, 100, 3), 0.4, np.float32)
    flat[:50] = 0.1
    for k in (1, 2):
        big = np.repeat(np.repeat(flat, k, 0), k, 1)
        noisy = through_lens(big, k, PhotoEffects(shot=0.05)).reshape(100, k, 100, k, 3).mean((1, 3))
        # Photon noise grows with the root of brightness; 0.05 at the mean brightness of 0.25.
        assert noisy[:50].std() == pytest.approx(0.05 * np.sqrt(0.1 * 0.25), rel=0.06)
        assert noisy[50:].std() == pytest.approx(0.05 * np.sqrt(0.4 * 0.25), rel=0.06)
    hard = through_lens(flat, 1, PhotoEffects(contrast=2.0))
    assert hard[60, 0, 0] / hard[0, 0, 0] == pytest.approx(16, rel=0.01)
    red = np.full((4, 4, 3), (0.5, 0.1, 0.1), np.float32)
    assert np.allclose(np.ptp(through_lens(red, 1, PhotoEffects(saturation=0.0)), axis=2), 0, atol=1e-6)
    rgb = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    assert encode(rgb, PhotoEffects()) is rgb
    squeezed = encode(rgb, PhotoEffects(jpeg=60))
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 60])
    assert np.array_equal(squeezed[..., ::-1], cv2.imdecode(data, cv2.IMREAD_COLOR)) and not np.array_equal(squeezed, rgb)


def test_drawn_cameras_are_seeded_and_keep_the_cases_effects():
    base = Effects(exposure=0.7, noise=3.0, seed=9)
    a, b, other = (photographed(base, np.random.default_rng(seed), width=256) for seed in (1, 1, 2))
    assert a == b != other and (a.exposure, a.noise, a.seed) == (0.7, 3.0, 9)
    for name, value in (("jpeg", 101), ("blur", -1.0), ("contrast", 0.0)):
        with pytest.raises(ConfigError, match=f"PhotoEffects.{name}"):
            PhotoEffects(**{name: value})
