"""A robot on two driven wheels follows polylines in Newton, and is stopped by what a path ignores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.physics.base import make_physics_engine
from lyra_core.physics.pursuit import PurePursuit, path_length

AROUND = np.array([[-0.7, -2.0], [0.2, -1.8], [0.2, 0.0], [1.7, 0.0]])
THROUGH_TABLE = np.array([[0.0, 1.2, 0.0], [2.4, 1.2, 0.0]])


@pytest.fixture(scope="module")
def newton():
    try:
        return make_physics_engine("newton")
    except BackendUnavailable as error:
        pytest.skip(str(error))


def test_wheels_carry_the_robot_along_its_path_and_the_table_stops_it(newton, room: Path) -> None:
    good, into_table, door = newton.follow(room, [AROUND, THROUGH_TABLE, np.array([[1.0, 0.0], [3.2, 0.0]])], seconds=13.0)
    assert good.arrived and good.final_distance <= 0.1 and door.arrived
    nearest = np.array([distance_to(AROUND, p) for p in good.path[:, :2]])
    assert nearest.max() < 0.2, "stays on its path"
    assert np.abs(good.path[:, 2]).max() < 0.02, "on its wheels, on the floor"
    assert not into_table.arrived and into_table.path[:, 0].max() == pytest.approx(0.8 - 0.3, abs=0.02)


def test_without_obstacles_the_same_path_arrives(newton, room_without_obstacles: Path) -> None:
    (result,) = newton.follow(room_without_obstacles, [THROUGH_TABLE])
    assert result.arrived


def test_without_floor_nobody_arrives(newton, room_inverted_floor: Path) -> None:
    (result,) = newton.follow(room_inverted_floor, [AROUND], seconds=3.0)
    assert not result.arrived and result.path[-1, 2] < -1.0


def test_no_path_no_result_and_bad_paths_are_named(newton, room: Path) -> None:
    assert newton.follow(room, []) == []
    with pytest.raises(InputError, match=r"paths\[1\]"):
        newton.follow(room, [AROUND, np.zeros((3, 4))])


def test_pure_pursuit_of_an_ideal_unicycle_reaches_the_goal() -> None:
    pursuit = PurePursuit([AROUND], speed=0.5)
    state, track = np.array([*AROUND[0], 2.0]), []
    for _ in range(600):
        forward, turn = pursuit.command(state[None, :2], state[2:])
        state = state + [forward[0] * np.cos(state[2]) / 30, forward[0] * np.sin(state[2]) / 30, turn[0] / 30]
        track.append(distance_to(AROUND, state[:2]))
    assert pursuit.arrived.all() and max(track) < 0.15
    assert path_length(AROUND) == pytest.approx(np.hypot(0.9, 0.2) + 1.8 + 1.5)


def distance_to(path: np.ndarray, point: np.ndarray) -> float:
    a, b = path[:-1, :2], path[1:, :2]
    t = np.clip(((point - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1), 0, 1)[:, None]
    return float(np.linalg.norm(a + t * (b - a) - point, axis=1).min())
