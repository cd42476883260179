"""Metrics by hand, and motion that never enters geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lyra_core.config import NavigationCfg
from lyra_core.errors import InputError
from lyra_core.io.meshes import merge_parts
from lyra_core.navigation import DiscSpace, free_space
from lyra_tasks.metrics import soft_spl, spl
from lyra_tasks.motion import ControlDiscrete, ControlVelocity, RobotState, advance
from tests.tasks.worlds import floor, two_rooms


def test_spl_and_soft_spl_by_hand():
    assert spl(True, 6.0, 8.0) == 0.75
    assert spl(False, 6.0, 8.0) == 0.0
    assert spl(True, 6.0, 5.9) == 1.0, "a path that stops short of the goal is not rewarded twice"
    assert soft_spl(2.0, 8.0, 10.0) == pytest.approx(0.75 * 0.8)
    assert soft_spl(0.0, 8.0, 8.0) == 1.0
    assert soft_spl(9.0, 8.0, 1.0) == 0.0


@pytest.fixture(scope="module")
def parts():
    return two_rooms()


@pytest.fixture(scope="module")
def disc(parts):
    return DiscSpace(free_space(parts, cfg=NavigationCfg()), 0.3)


def test_open_moves_are_exact(disc):
    place, touched = advance(disc, np.array([[0.0, 0.0]]), np.array([[0.2, -0.15]]))
    np.testing.assert_allclose(place, [[0.2, -0.15]], atol=1e-12)
    assert not touched[0]


def test_contact_stops_at_the_wall_and_sliding_goes_on_along_it(disc):
    start, move = np.array([[-1.5, -2.0]]), np.array([[0.5, -3.0]])
    stopped, touched = advance(disc, start, move)
    assert touched[0] and -2.7 - 1e-9 <= stopped[0, 1] <= -2.6
    assert stopped[0, 0] == pytest.approx(-1.5 + 0.5 * (stopped[0, 1] + 2.0) / -3.0, abs=1e-3), "still on the straight line"
    slid, touched = advance(disc, start, move, sliding=True)
    assert touched[0] and slid[0, 0] == pytest.approx(-1.0, abs=0.03) and disc.contains(slid)[0]


def test_fast_moves_do_not_tunnel(disc):
    place, touched = advance(disc, np.array([[3.0, -2.0], [0.0, 0.8]]), np.array([[6.0, 0.0], [30.0, 0.0]]))
    assert touched.all() and place[0, 0] < 3.75 and place[1, 0] < 1.25


def distance_to_triangles(points, triangles):
    """Return the exact horizontal distance of points (N, 2) to triangles (F, 3, 2) whose projection is a segment or convex."""
    best = np.full(len(points), np.inf)
    for triangle in triangles:
        for a, b in ((0, 1), (1, 2), (2, 0)):
            edge = triangle[b] - triangle[a]
            t = np.clip((points - triangle[a]) @ edge / max(edge @ edge, 1e-18), 0, 1)
            best = np.minimum(best, np.linalg.norm(points - triangle[a] - t[:, None] * edge, axis=1))
    return best


@pytest.mark.parametrize(("control", "sliding", "steps"), [
    (ControlDiscrete(), False, 5000), (ControlDiscrete(), True, 1500),
    (ControlVelocity(), False, 1500), (ControlVelocity(), True, 1000),
])
def test_no_body_is_ever_inside_geometry_in_5000_random_steps(parts, disc, control, sliding, steps):
    rng = np.random.default_rng(11)
    state, track, touches = RobotState(np.array([0.0, 0.0]), 0.3), [], 0
    for _ in range(steps):
        action = rng.choice([1, 1, 1, 2, 3]) if isinstance(control, ControlDiscrete) else rng.uniform([0.1, -1], [1, 1])
        state, touched, _ = control.apply(disc, state, action, sliding=sliding)
        track.append(state.position)
        touches += touched
    track = np.array(track)
    vertices, faces = merge_parts([p for p in parts if p.label.name in ("WALL", "OBSTACLE") and p.name != "lintel"])
    assert distance_to_triangles(track, vertices[faces][..., :2].astype(float)).min() >= 0.3 - 1e-6
    assert touches > steps / 25, "the test would be idle without contacts"
    assert (np.ptp(track, axis=0) > 2.0).all()


def test_controls_match_their_description():
    disc = DiscSpace(free_space([floor(-5, 5, -5, 5)], cfg=NavigationCfg()), 0.3)
    state = RobotState(np.zeros(2), 0.0)
    discrete, velocity = ControlDiscrete(), ControlVelocity()
    moved, _, stop = discrete.apply(disc, state, 1, sliding=False)
    np.testing.assert_allclose(moved.position, [0.25, 0], atol=1e-12)
    assert not stop and discrete.apply(disc, state, 0, sliding=False)[2]
    assert discrete.apply(disc, state, 2, sliding=False)[0].yaw == pytest.approx(math.radians(10))
    assert discrete.apply(disc, state, 3, sliding=False)[0].yaw == pytest.approx(math.radians(350))
    for _ in range(36):
        state, _, _ = discrete.apply(disc, state, 2, sliding=False)
    assert math.remainder(state.yaw, 2 * math.pi) == pytest.approx(0, abs=1e-9)
    # A circle: 16 periods at full v and w turn by 2 pi and come back; radius v / w = 0.637 m.
    state, track = RobotState(np.zeros(2), 0.0), []
    for _ in range(16):
        state, _, stop = velocity.apply(disc, state, np.array([1.0, 1.0]), sliding=False)
        track.append(state.position)
        assert not stop
    np.testing.assert_allclose(state.position, 0, atol=1e-9)
    assert np.ptp(np.array(track)[:, 1]) == pytest.approx(2 * 2 / math.pi, rel=0.01)
    assert velocity.apply(disc, state, np.array([0.04, -0.04]), sliding=False)[2], "hardly moving is STOP"
    assert not velocity.apply(disc, state, np.array([0.0, 0.06]), sliding=False)[2]
    for array in (np.int64(2), np.array(2), np.array([2], np.int32)):
        assert discrete.apply(disc, state, array, sliding=False)[0].yaw == pytest.approx(state.yaw + math.radians(10))
    for control, bad in ((discrete, 4), (discrete, 1.5), (discrete, None), (discrete, np.zeros(2, int)),
                         (velocity, np.array([np.nan, 0])), (velocity, np.zeros(3))):
        with pytest.raises(InputError, match="action"):
            control.apply(disc, state, bad, sliding=False)
