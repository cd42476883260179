"""Presets: exact ends, rigid poses, smoothness, known geometry."""

import numpy as np
import pytest

from lyra_core.camera import trajectories as tr
from lyra_core.camera.se3 import from_yaw_pitch, inverse
from lyra_core.errors import ConfigError
from lyra_core.types import Camera

CAMERA = Camera.from_focal(300.0, 416, 240)
WAYS = np.array([[2.0, 0.0], [3.0, 1.5], [5.0, 1.5], [5.0, 4.0]])


def start() -> np.ndarray:
    T = from_yaw_pitch(np.array([0.1, -0.2, 1.5]), 0.05, -0.15)
    roll = np.eye(4)
    roll[:2, :2] = [[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]]
    return T @ roll


def poses() -> np.ndarray:
    return np.array([from_yaw_pitch(np.array([i * 0.7, np.sin(i), 1.5]), 0.4 * i, 0.1) for i in range(1, 5)])


def make(name: str, frames: int = 161, T: np.ndarray | None = None):
    ways = {"tour": WAYS, "spline": poses()}.get(name)
    return tr.make_trajectory(name, CAMERA, start() if T is None else T, frames, waypoints=ways)


@pytest.mark.parametrize("name", tr.PRESETS)
def test_axioms(name):
    path = make(name)
    T = path.T_world_camera
    assert len(path) == 161
    assert np.array_equal(T[0], start())
    R = T[:, :3, :3]
    assert np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max() < 1e-12
    assert np.linalg.det(R).min() > 0.999
    assert np.abs(inverse(T) @ T - np.eye(4)).max() < 1e-12
    assert np.array_equal(path.K[7], CAMERA.K)
    assert np.array_equal(make(name).T_world_camera, T)


@pytest.mark.parametrize("name", tr.PRESETS)
def test_smooth(name):
    """Velocity is continuous: doubling the frame rate quarters second differences; a kink would only halve them."""
    bends = []
    for frames in (321, 641):
        T = make(name, frames).T_world_camera
        second = np.diff(T[:, :3, :], n=2, axis=0)
        bends.append(np.abs(second).max())
    assert bends[1] < 0.36 * bends[0]
    step = np.linalg.norm(np.diff(make(name, 81).T_world_camera[:, :3, 3], axis=0), axis=1)
    turn = np.diff(make(name, 81).T_world_camera[:, :3, 2], axis=0)
    assert step[0] < 0.2 * max(step.max(), 1e-9) + 1e-12
    assert np.linalg.norm(turn, axis=1).max() < 0.25


@pytest.mark.parametrize("name", ["loop", "look_around"])
def test_closed(name):
    T = make(name).T_world_camera
    assert np.array_equal(T[0], T[-1])
    assert np.abs(T[-1] - T[-2]).max() < 0.01
    yaw = np.unwrap(np.arctan2(T[:, 1, 2], T[:, 0, 2]))
    assert yaw[-1] - yaw[0] == pytest.approx(2 * np.pi)


def test_walk_is_level_and_as_long_as_asked():
    path = tr.walk_forward(CAMERA, start(), 81, distance=3.0)
    move = path.T_world_camera[-1, :3, 3] - path.T_world_camera[0, :3, 3]
    assert np.linalg.norm(move) == pytest.approx(3.0)
    assert np.ptp(path.T_world_camera[:, 2, 3]) < 1e-12
    assert np.allclose(path.T_world_camera[-1, :3, 1], [0, 0, -1])


def test_orbit_keeps_its_centre_in_place():
    T = start()
    centre = T[:3, 3] + 2.5 * np.array([np.cos(0.05), np.sin(0.05), 0])
    for T_world_camera in tr.orbit(CAMERA, T, 81).T_world_camera[::20]:
        local = inverse(T_world_camera)[:3] @ [*centre, 1]
        assert np.allclose(local, inverse(T)[:3] @ [*centre, 1], atol=1e-12)


def test_zoom_reaches_lyras_ends():
    T = from_yaw_pitch(np.array([0.0, 0, 1.5]), 0.0)
    x = tr.zoom_in_out(CAMERA, T, 321, depth=3.0).T_world_camera[:, :3, 3]
    assert x[:, 0].max() == pytest.approx(1.5, abs=0.01) and x[-1, 0] == pytest.approx(-4.5)
    assert x[-1, 2] - 1.5 == pytest.approx(0.15 * 4.5, abs=0.04)


def test_tour_passes_its_waypoints_and_looks_ahead():
    path = make("tour", 801)
    xy = path.T_world_camera[:, :2, 3]
    for way in WAYS:
        assert np.linalg.norm(xy - way, axis=1).min() < 0.02
    step = np.diff(xy, axis=0)
    ahead = path.T_world_camera[1:, :2, 2]
    cos = (step * ahead).sum(1) / np.linalg.norm(step, axis=1) / np.linalg.norm(ahead, axis=1)
    assert cos.min() > 0.5 and np.median(cos) > 0.95


def test_tour_can_start_backwards():
    path = tr.make_trajectory("tour", CAMERA, start(), 81, waypoints=np.array([[-2.0, 0.0], [-3.0, 1.0]]))
    turn = np.linalg.norm(np.diff(path.T_world_camera[:, :3, 2], axis=0), axis=1)
    assert turn.max() < 0.15


def test_spline_passes_its_poses():
    path = make("spline", 1601).T_world_camera
    for T in poses():
        assert np.abs(path - T).max((1, 2)).min() < 0.01


def test_looking_straight_down_works():
    path = make("walk_forward", 81, T=from_yaw_pitch(np.array([0, 0, 1.5]), 0.3, -np.pi / 2))
    assert np.isfinite(path.T_world_camera).all()


@pytest.mark.parametrize(("frames", "nearest"), [(80, 81), (1, 81), (0, 81), (200, 161), (202, 241)])
def test_frame_count(frames, nearest):
    with pytest.raises(ConfigError, match=f"got {frames}, .*nearest is {nearest}"):
        make("loop", frames)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="nearest is 'walk_forward'"):
        make("walk_foward")
    with pytest.raises(ConfigError, match="waypoints"):
        tr.make_trajectory("tour", CAMERA, start(), 81)
    with pytest.raises(ConfigError, match=r"\(2, 5\)"):
        tr.make_trajectory("tour", CAMERA, start(), 81, waypoints=np.zeros((2, 5)))
    with pytest.raises(ConfigError, match="only the start"):
        tr.make_trajectory("spline", CAMERA, start(), 81, waypoints=start()[None])
