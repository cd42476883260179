"""The camera is recovered from drawn lines with known vanishing points."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.camera.upright import manhattan_yaw, rotation_from_down, upright_pixels, upright_rays
from lyra_core.photo.camera import FOCAL_PRIOR, find_camera
from lyra_core.photo.lines import segments_from_ends
from lyra_core.types import Camera

WIDTH, HEIGHT = 768, 576


def _down(pitch: float, roll: float) -> np.ndarray:
    return np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])


def _segments(focal: float, pitch: float, roll: float, yaw: float, *, seed: int, noise: float = 0.4) -> np.ndarray:
    """Return edges (N, 4) of random boxes aligned with gravity and yaw, with clutter, seen by the given camera."""
    rng = np.random.default_rng(seed)
    down = _down(np.deg2rad(pitch), np.deg2rad(roll))
    R = rotation_from_down(down)
    a = np.deg2rad(yaw)
    axes = np.stack([down, np.cos(a) * R[0] + np.sin(a) * R[1], -np.sin(a) * R[0] + np.cos(a) * R[1]])
    ends = []
    for axis in axes:
        count = 0
        while count < 35:
            start = np.array([rng.uniform(-3, 3), rng.uniform(-2, 2), rng.uniform(4, 9)])
            both = np.stack([start, start + axis * rng.uniform(0.6, 2)])
            if both[:, 2].min() < 1:
                continue
            uv = focal * WIDTH * both[:, :2] / both[:, 2:] + (WIDTH / 2, HEIGHT / 2)
            if (uv > 12).all() and (uv < (WIDTH - 12, HEIGHT - 12)).all():
                ends.append(uv.ravel() + rng.normal(0, noise, 4))
                count += 1
    clutter = rng.uniform(20, 550, (25, 2))
    return np.concatenate([ends, np.concatenate([clutter, clutter + rng.normal(0, 30, (25, 2))], 1)]).astype(np.float32)


@pytest.mark.parametrize(("focal", "pitch", "roll", "yaw"), [
    (0.8, 8, 0, 30), (1.1, -7, 2, 50), (0.65, 20, -3, 25), (0.9, 3, 1, 40), (1.3, 28, 0, 60), (0.8, 2, -14, 35)])
def test_focal_and_gravity_are_recovered(focal, pitch, roll, yaw):
    segments = segments_from_ends(_segments(focal, pitch, roll, yaw, seed=3), WIDTH, HEIGHT)
    pose = find_camera(segments, WIDTH, HEIGHT, focal=None)
    true = _down(np.deg2rad(pitch), np.deg2rad(roll))
    assert np.degrees(np.arccos(np.clip(pose.down_camera() @ true, -1, 1))) < 2.0
    assert abs(np.log(pose.focal / focal)) < 0.1
    assert pose.line_support > 0.7 and pose.from_lines
    known = find_camera(segments, WIDTH, HEIGHT, focal=focal)
    assert known.focal == focal
    assert np.degrees(np.arccos(np.clip(known.down_camera() @ true, -1, 1))) < 1.0
    turn = np.degrees(known.yaw) - yaw
    assert abs((turn + 45) % 90 - 45) < 2


def test_random_segments_support_nothing():
    rng = np.random.default_rng(0)
    start = rng.uniform(20, 540, (200, 2))
    angle = rng.uniform(0, np.pi, 200)
    ends = np.concatenate([start, start + 40 * np.stack([np.cos(angle), np.sin(angle)], 1)], 1).astype(np.float32)
    assert find_camera(segments_from_ends(ends, WIDTH, HEIGHT), WIDTH, HEIGHT, focal=None).line_support < 0.3


def test_few_lines_fall_back_to_the_prior_and_say_so():
    pose = find_camera(segments_from_ends(np.zeros((0, 4), np.float32), WIDTH, HEIGHT), WIDTH, HEIGHT, focal=None)
    assert not pose.from_lines and pose.line_support == 0 and pose.focal == FOCAL_PRIOR


def test_upright_coordinates_round_trip_and_measure_the_floor():
    camera, T = Camera.from_focal(600, 160, 120), np.eye(4)
    T[:3, :3], T[2, 3] = rotation_from_down(_down(0.2, 0.05)), 1.5
    assert np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3)) and np.isclose(np.linalg.det(T[:3, :3]), 1)
    assert abs(T[1, 2]) < 1e-12 and T[0, 2] > 0, "world x is the level projection of the optical axis"
    rays = upright_rays(camera, T)
    u, v = upright_pixels(camera, T, rays.right.astype(float), rays.down.astype(float))
    grid_v, grid_u = np.mgrid[:120, :160] + 0.5
    assert np.abs(u - grid_u).max() < 0.02 and np.abs(v - grid_v).max() < 0.02
    floor = rays.sink > 0.05
    points = camera.rays() * (1.5 / rays.sink)[..., None] @ T[:3, :3].T + T[:3, 3]
    assert np.abs(points[floor][:, 2]).max() < 1e-4


def test_manhattan_yaw_from_lines():
    T = np.eye(4)
    T[:3, :3] = rotation_from_down(_down(0.1, 0.0))
    ends = _segments(0.8, np.rad2deg(0.1), 0, 33, seed=1)
    yaw = np.degrees(manhattan_yaw(ends, Camera.from_focal(0.8 * WIDTH, WIDTH, HEIGHT), T))
    assert abs((yaw - 33 + 45) % 90 - 45) <= 1.5
    assert manhattan_yaw(np.zeros((0, 4)), Camera.from_focal(600, WIDTH, HEIGHT), T) == 0.0
