"""Obstacles from above on a hand-made place, and the camera's meter."""

from dataclasses import replace

import numpy as np
import pytest

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.scenes import Effects, blocked, ground_height, render, sample_scene
from lyra_core.scenes.render import PLAIN
from lyra_core.scenes.scene import Light, Material, SceneBuilder, Sky, place
from lyra_core.types import Camera, Label

GREY = Material("plain", (0.5, 0.5, 0.5))


def yard():
    b, eye = SceneBuilder(), np.eye(4)
    b.box(eye, (0, 0, -0.5), (20, 20, 1), GREY, label=Label.FLOOR)
    b.box(eye, (5, 0, 0.05), (2, 2, 0.12), GREY, label=Label.FLOOR)
    b.box(eye, (0, 0, 0.72), (1, 1, 0.04), GREY)
    b.box(eye, (0, 3, 1.5), (1, 0.2, 3), GREY, label=Label.WALL)
    b.ellipsoid(eye, (3, 3, 2.5), (0.5, 0.5, 0.4), GREY)
    b.cone(eye, (-3, 0, 0), (0.5, 0.1), 1.0, GREY)
    b.box(eye, (-3, 3, 0.05), (1, 1, 0.1), GREY)
    b.box(eye, (5, 0, 1.89), (0.4, 0.4, 0.1), GREY)
    b.box(eye, (0, 0, 4), (20, 20, 0.1), GREY, label=Label.CEILING)
    return b.build(sky=Sky(), ambient=(0.3, 0.3, 0.3), walkable=(0, 0, 1, 1))


@pytest.mark.parametrize(("x", "y", "ground", "hit"), [
    (0, 0, 0.0, True),  # below a table top
    (0.6, 0, 0.0, False),  # beside it
    (0, 3, 0.0, True),  # inside a wall that is higher than the band
    (3, 3, 0.0, False),  # a lamp above heads
    (-3, 0.3, 0.0, True), (-3, 0.45, 0.0, False),  # a cone: 0.37 m wide at 0.32, thinner than 0.45 above 0.15 m
    (-3, 3, 0.0, False),  # a low mat-like box below the band
    (5, 0.5, 0.11, False),  # on a low platform
    (5, 0, 0.11, True),  # heads on the platform meet what heads on the floor would not
    (15, 0, np.nan, True),  # no ground
])  # fmt: skip
def test_blocked_by_hand(x, y, ground, hit):
    scene, at = yard(), np.array([[x, y]], float)
    assert ground_height(scene, at)[0] == pytest.approx(ground, nan_ok=True)
    assert blocked(scene, at)[0] == hit


def test_a_camera_stands_on_free_ground_that_the_grid_agrees_with():
    for kind in ("furnished_room", "courtyard"):
        case = sample_scene(5, kind)
        eye = case.T_world_camera[:3, 3]
        assert not blocked(case.scene, eye[None, :2], high=case.camera_height)[0]
        assert ground_height(case.scene, eye[None, :2])[0] == pytest.approx(eye[2] - case.camera_height)


def test_the_meter_undoes_the_strength_of_the_light_and_tint_changes_colour():
    camera, T = Camera.from_focal(50.0, 48, 36), from_yaw_pitch(np.array([3.0, 1.5, 1.5]), np.pi + 0.4, -0.9)
    scene = replace(yard(), lights=(Light("sphere", (1, 1, 3), (4, 4, 4)),), sky=Sky(lights=False, strength=0.0))
    bright = replace(scene, lights=(Light("sphere", (1, 1, 3), (16, 16, 16)),), ambient=(1.2, 1.2, 1.2))
    metered = replace(PLAIN, metered=0.16, bounce_samples=0)
    a, b = (render(s, camera, T, effects=metered).rgb.astype(int) for s in (scene, bright))
    assert np.abs(a - b).max() <= 2
    assert np.abs(render(bright, camera, T, effects=replace(metered, metered=0.0)).rgb.astype(int) - b).mean() > 10
    warm = render(scene, camera, T, effects=replace(metered, tint=(1.3, 1.0, 0.7))).rgb.astype(int)
    assert (warm[..., 0] - warm[..., 2]).mean() > (a[..., 0] - a[..., 2]).mean() + 10
    assert Effects().metered == 0.0 and Effects().tint == (1.0, 1.0, 1.0)


def test_ramps_count_as_floor_up_to_ten_degrees():
    from lyra_core.scenes.corridors import add_ramp

    for rise, label in ((0.16, Label.FLOOR), (0.2, Label.OBSTACLE)):
        b = SceneBuilder()
        b.box(np.eye(4), (0, 0, -0.5), (9, 9, 1), GREY, label=Label.FLOOR)
        add_ramp(b, place(0, 0), width=1.0, run=1.0, rise=rise, material=GREY)
        scene = b.build(sky=Sky(), ambient=(0, 0, 0), walkable=(0, 0, 1, 1))
        assert scene.label[1] == label
        expected = [0.0, 0.5 * rise] if label == Label.FLOOR else [0.0, 0.0]
        assert np.allclose(ground_height(scene, np.array([[-0.5, 0], [0.5, 0]])), expected, atol=1e-9)
