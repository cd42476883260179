"""What decides whether a stage is made anew."""

from types import SimpleNamespace

import numpy as np
import pytest

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.trajectories import look_around
from lyra_core.stages import Context
from lyra_core.types import Camera, Trajectory

CAMERA, START = Camera.from_focal(200, 208, 120), from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.0)


def digest(path: Trajectory, chunk: int = 0) -> str:
    return Context._camera_digest(SimpleNamespace(path=path), chunk)


def path_of(T_world_camera: np.ndarray) -> Trajectory:
    return Trajectory(T_world_camera, np.repeat(CAMERA.K[None], len(T_world_camera), 0), CAMERA.width, CAMERA.height)


def test_a_turn_the_other_way_round_is_another_path():
    left, right = (look_around(CAMERA, START, 81, turn=turn) for turn in (2 * np.pi, -2 * np.pi))
    # The two have the same sum of poses, so no digest of sums can tell them apart.
    assert np.allclose(left.T_world_camera.sum(0), right.T_world_camera.sum(0))
    assert digest(left) != digest(right)


@pytest.mark.parametrize("frame", [0, 40, 80])
def test_every_camera_of_the_chunk_counts_and_no_other(frame):
    path = look_around(CAMERA, START, 161)
    T = path.T_world_camera.copy()
    T[frame, 0, 3] += 1e-3
    assert digest(path_of(T)) != digest(path)
    assert (digest(path_of(T), 1) != digest(path, 1)) == (frame == 80)


def test_rounding_of_a_file_round_trip_does_not_count():
    path = look_around(CAMERA, START, 81)
    assert digest(path_of(path.T_world_camera + 1e-12)) == digest(path)
    assert digest(path_of(np.where(path.T_world_camera == 0, -0.0, path.T_world_camera))) == digest(path)
