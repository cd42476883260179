"""The written stage in Newton and in PhysX: the same statements for both, with faulty stages that must fail them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from room_world import BOXES, DOOR, X0, X1, Y0, Y1

from lyra_core.errors import BackendUnavailable, ConfigError, InputError, WorldError
from lyra_core.physics.base import PhysicsEngine, make_physics_engine

RADIUS, SINK = 0.3, 0.02


@pytest.fixture(params=["newton", pytest.param("physx", marks=pytest.mark.physx)], scope="module")
def engine(request: pytest.FixtureRequest) -> PhysicsEngine:
    try:
        return make_physics_engine(request.param)
    except BackendUnavailable as error:
        pytest.skip(str(error))


def free_points(count: int) -> np.ndarray:
    """Points 0.5 m above the floor, 0.15 m clear of walls and boxes."""
    rng = np.random.default_rng(0)
    points = rng.uniform([X0 + 0.15, Y0 + 0.15, 0.5], [X1 - 0.15, Y1 - 0.15, 0.5], (4 * count, 3))
    inside = np.zeros(len(points), bool)
    for low, high in BOXES.values():
        inside |= ((points[:, :2] > np.array(low[:2]) - 0.15) & (points[:, :2] < np.array(high[:2]) + 0.15)).all(1)
    return points[~inside][:count]


def test_500_bodies_come_to_rest_on_the_floor(engine: PhysicsEngine, room: Path) -> None:
    points = free_points(500)
    result = engine.drop(room, points, radius=0.1, seconds=1.5)
    assert not result.fell_through().any()
    np.testing.assert_allclose(result.rest_positions[:, 2], 0.1, atol=2e-3)
    rolled = np.abs(result.rest_positions[:, :2] - points[:, :2]).max()
    assert rolled < 0.3, "a sphere that lands on an edge may roll, not fly"


def test_bodies_on_the_table_rest_on_the_table(engine: PhysicsEngine, room: Path) -> None:
    (x0, y0, _), (x1, y1, top) = BOXES["table"]
    result = engine.drop(room, np.array([[(x0 + x1) / 2, (y0 + y1) / 2, 1.2]]), radius=0.1, seconds=1.5)
    assert result.rest_positions[0, 2] == pytest.approx(top + 0.1, abs=5e-3)


def test_inverted_floor_lets_bodies_fall(engine: PhysicsEngine, room_inverted_floor: Path) -> None:
    result = engine.drop(room_inverted_floor, free_points(50), seconds=1.5)
    assert result.fell_through().all()


def test_driven_body_stays_out_of_walls_boxes_and_door(engine: PhysicsEngine, room: Path) -> None:
    table = BOXES["table"][0][0]
    starts = np.array([[0, 0], [0, 0], [0, -2.0], [0, 0], [0, 1.2], [-0.5, 2.0]])
    targets = np.array([[-6, 0], [0, 6], [0, -6], [6, 0], [4, 1.2], [-6, 6]])
    result = engine.drive(room, starts, targets, radius=RADIUS, speed=1.0, seconds=7.0)
    x, y = result.path[:, :, 0], result.path[:, :, 1]
    assert x.min() >= X0 + RADIUS - SINK
    assert y.min() >= Y0 + RADIUS - SINK and y.max() <= Y1 - RADIUS + SINK
    assert result.path[-1, 3, 0] == pytest.approx(X1 + 0.6 - RADIUS, abs=SINK), "through the doorway, up to the door leaf"
    assert np.delete(x, 3, axis=1).max() <= X1 - RADIUS + SINK
    assert result.path[-1, 4, 0] == pytest.approx(table - RADIUS, abs=SINK), "blocked by the table"
    assert (result.travelled()[:4] > [2.6, 2.1, 0.15, 3.2]).all(), "each one got to its wall"
    assert DOOR[0] + RADIUS - SINK <= result.path[-1, 3, 1] <= DOOR[1] - RADIUS + SINK
    np.testing.assert_allclose(result.path[-1, :, 2], 0.5, atol=0.01)


def test_without_obstacles_the_body_passes(engine: PhysicsEngine, room_without_obstacles: Path) -> None:
    result = engine.drive(room_without_obstacles, np.array([[0, 1.2]]), np.array([[4, 1.2]]), speed=1.0, seconds=4.0)
    assert result.path[-1, 0, 0] == pytest.approx(X1 - RADIUS, abs=SINK)


def test_engine_refuses_what_it_cannot_use(engine: PhysicsEngine, room: Path, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no such stage"):
        engine.drop(tmp_path / "world.usda", np.zeros((1, 3)))
    with pytest.raises(InputError, match="points"):
        engine.drop(room, np.array([[0, 0, np.nan]]))
    with pytest.raises(InputError, match="targets"):
        engine.drive(room, np.zeros((2, 2)), np.zeros((1, 2)))


def test_unknown_engine_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="newton"):
        make_physics_engine("havok")


def test_missing_environment_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LYRA_PHYSX_PYTHON", str(tmp_path / "python"))
    with pytest.raises(BackendUnavailable, match="make env-physx"):
        make_physics_engine("physx")
