"""The measures on worlds made by hand, with numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lyra_core.types import Camera, Photo
from tests.benchmarks.understanding_cases import Case, ExactPlace
from tests.benchmarks.understanding_measures import Surroundings, along_lines, cut_lines, depth_scores, score, within_box
from tests.benchmarks.understanding_tables import OURS, bars_table, better, calibrate, is_wrong, middle, pooled, scale_table
from tests.benchmarks.understanding_truth import (
    FREE,
    OCCUPIED,
    SHAPE,
    UNKNOWN,
    Truth,
    cell_centres,
    draw_paths,
    find_truth,
    floats,
    ground_axes,
    looking_down,
)
from tests.benchmarks.understanding_worlds import Triangles, World, open_room

WIDTH, HEIGHT, FOCAL = 160, 120, 130.0
PITCH, EYE, WALL = 20.0, 1.5, 4.03
BOX = (1.98, 2.52, -0.63, -0.03, 0.8)
"""x from, x to, y from, y to, height [m]."""


def box(x0: float, x1: float, y0: float, y1: float, top: float) -> Triangles:
    """A closed box on the floor, faces outwards."""
    corners = np.array([(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (0.0, top)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return corners, np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])


def joined(*meshes: Triangles) -> Triangles:
    """Several meshes as one."""
    starts = np.cumsum([0] + [len(v) for v, _ in meshes[:-1]])
    return np.concatenate([v for v, _ in meshes]), np.concatenate([f + s for (_, f), s in zip(meshes, starts, strict=True)])


def make_world(*, with_box: bool = True, pitch: float = PITCH, scale: float = 1.0, focal: float = FOCAL) -> World:
    """The place as a world: floor, one wall, a box."""
    room = open_room(Camera.from_focal(focal, WIDTH, HEIGHT), looking_down(pitch), scale * EYE, scale * WALL)
    mesh = joined(room.colliders, box(*(scale * side for side in BOX))) if with_box else room.colliders
    return replace(room, visual=mesh, colliders=mesh)


def make_truth() -> Truth:
    """The truth of the same place, from its ray-cast depth."""
    camera = Camera.from_focal(FOCAL, WIDTH, HEIGHT)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    z, height = Surroundings(make_world()).first_hits("visual", (u.ravel() + 0.5) / WIDTH, (v.ravel() + 0.5) / HEIGHT)
    depth, floor = (a.reshape(HEIGHT, WIDTH) for a in (z.astype(np.float32), np.abs(height) < 1e-3))
    photo = Photo(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "", "made")
    place = ExactPlace(looking_down(PITCH), EYE, floor)
    return find_truth(Case("made", "procedural", "room", photo, camera, depth, Path("none"), place))


@pytest.fixture(scope="module")
def truth() -> Truth:
    """One truth for all."""
    return make_truth()


def test_ground_axes_of_a_level_camera():
    assert ground_axes(looking_down(0)) == pytest.approx(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]))


def test_the_grid_holds_box_and_wall_and_the_floor_between(truth):
    x, y = np.moveaxis(cell_centres(), -1, 0)
    front_of_box = (x > 1.9) & (x < 2.0) & (y > -0.6) & (y < -0.1)
    assert (truth.grid[front_of_box] == OCCUPIED).all()
    assert (truth.grid[(x > 2.0) & (x < 2.5) & (y > 0.1) & (y < 0.6)] == FREE).all()
    assert (truth.grid[(x > 4.0) & (x < 4.1) & (np.abs(y) < 0.5) & (np.hypot(x, y) < 5)] == OCCUPIED).mean() > 0.8
    behind = (x > 3.3) & (x < 3.7) & (y > -0.75) & (y < -0.25)
    assert (truth.grid[behind] == UNKNOWN).all()  # the box hides it: the ray over its top meets the floor 5.4 m ahead


def test_a_perfect_world_scores_perfectly(truth):
    got = score(truth, make_world())
    for key in ("ln_f", "absrel", "absrel_ms", "miss"):
        assert got[key] == pytest.approx(0, abs=1e-4), key
    assert got["normal"] == pytest.approx(0, abs=1e-3) and got["ln_scale"] == pytest.approx(0, abs=1e-4)
    assert (got["floor_iou"], got["recall"], got["false"]) == (1, 1, 0)
    assert (got["unseen"], got["delta1"]) == (0, 1) and got["needless"] <= 2 and got["paths"] == 500


def test_a_world_without_the_box_misses_it(truth):
    got = score(truth, make_world(with_box=False))
    x = cell_centres()[..., 0]
    thing, wall = (truth.grid == OCCUPIED) & (x < 3), (truth.grid == OCCUPIED) & (x > 3)
    assert got["recall"] == pytest.approx(wall.sum() / (wall.sum() + thing.sum()))
    assert got["crash"] > 0.2 and got["false"] == 0 and got["needless"] <= 2
    assert got["floor_iou"] < 0.95


def test_a_tilted_world(truth):
    assert score(truth, make_world(pitch=PITCH + 3))["normal"] == pytest.approx(3, abs=1e-3)


def test_a_world_of_the_wrong_scale(truth):
    got = score(truth, make_world(scale=1.2))
    assert got["ln_scale"] == pytest.approx(np.log(1.2), abs=1e-3) and got["signed_ln_scale"] > 0
    assert got["absrel"] == pytest.approx(0.2, abs=1e-3) and got["absrel_ms"] == pytest.approx(0, abs=1e-3)
    assert got["delta1"] == 1 and got["normal"] == pytest.approx(0, abs=1e-3)
    assert got["recall_s"] == 1 and got["unseen_s"] == 0  # with the camera height made right, nothing is wrong
    assert got["recall"] < 1


def test_a_wrong_focal_length(truth):
    assert score(truth, make_world(focal=FOCAL * np.e**0.3))["ln_f"] == pytest.approx(0.3)


def test_a_world_that_is_not_there_scores_worst(truth):
    got = score(truth, None)
    assert (got["normal"], got["floor_iou"], got["recall"], got["false"], got["absrel"], got["delta1"], got["miss"]) == (
        90, 0, 0, 1, 1, 0, 1)
    assert got["unseen"] + got["needless"] == got["paths"] == 500


def test_unknown_depth_is_a_miss():
    got = depth_scores(np.array([2.0, 2.0, 2.0, 4.0]), np.array([1.0, 1.0, np.nan, 1.0]))
    # metric: |1/2-1|, |1/2-1|, 1, |1/4-1|; scaled by the median ratio 2: 0, 0, 1, |2/4-1|
    assert got["miss"] == 0.25
    assert got["absrel"] == pytest.approx((0.5 + 0.5 + 1 + 0.75) / 4) and got["delta1"] == 0
    assert got["absrel_ms"] == pytest.approx((0 + 0 + 1 + 0.5) / 4) and got["delta1_ms"] == 0.5


def test_a_raised_floor_moves_the_level():
    room = make_world(with_box=False)
    vertices, faces = room.colliders
    raised = replace(room, colliders=(vertices + [0, 0, 0.1], faces))
    assert Surroundings(raised).height == pytest.approx(EYE - 0.1, abs=1e-4)
    assert Surroundings(room).height == pytest.approx(EYE, abs=1e-4)


def test_low_and_high_things_are_no_obstacles():
    room = make_world(with_box=False)
    step, lamp = box(1, 2, -0.5, 0.5, 0.12), box(1, 2, -0.5, 0.5, 0.3)
    world = replace(room, colliders=joined(room.colliders, step, (lamp[0] + [0, 0, 1.9], lamp[1])))
    occupied, hole = Surroundings(world).occupancy()
    assert not occupied[:39].any() and not hole[:39].any()


def test_the_inside_of_a_solid_is_occupied():
    room = make_world(with_box=False)
    world = replace(room, colliders=joined(room.colliders, box(1.03, 2.97, -0.97, 0.97, 2.5)))
    assert Surroundings(world).occupancy()[0][15:25, 25:35].all()


def test_cut_lines_and_their_cells():
    triangle = np.array([[[0.0, 0, 0], [2, 0, 2], [0, 0, 2]]])
    a, b = cut_lines(triangle, 1.0)
    assert sorted([a[0].tolist(), b[0].tolist()]) == [[0, 0], [1, 0]]
    a, b = within_box(np.array([[-1.0, 0.0], [-2, 5]]), np.array([[9.0, 0.0], [9, 5]]))
    assert a.tolist() == [[0, 0]] and b.tolist() == [[5, 0]]
    points = along_lines(np.array([[0.0, 0]]), np.array([[0.3, 0]]))
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == pytest.approx([0.3, 0]) and np.diff(points[:, 0]).max() < 0.031


def test_pixels_between_near_and_far_float():
    depth = np.full((5, 9), 2.0, np.float32)
    depth[:, 5:], depth[:, 4] = 4.0, 3.0
    assert floats(depth).any(0).tolist() == [False] * 4 + [True] + [False] * 4


def test_paths_end_behind_their_first_contact_and_keep_off_unknown_ground():
    grid = np.full(SHAPE, FREE, np.uint8)
    grid[25:], grid[24] = UNKNOWN, OCCUPIED
    paths, blocked = draw_paths(grid, np.random.default_rng(0))
    assert blocked.any() and (~blocked).any()
    rows = np.where(paths >= 0, paths // SHAPE[1], -1)
    assert rows[blocked].max(1).min() >= 23  # touching: next to the obstacle in row 24, the robot's radius is 0.18 m
    assert rows[blocked].max() == 26  # 0.3 m behind the contact
    assert rows[~blocked].max() == 22


ROWS = {
    "a": {"kind": "x", "confidence": 0.9, "normal": 1.0, "floor_iou": 0.8, "crash": 0.1, "unseen": 1.0, "paths": 10.0,
          "absrel_ms": 0.1, "delta1_ms": 0.9, "signed_ln_scale": 0.1, "scale_sigma": 0.15, "focal_source": "user"},
    "b": {"kind": "x", "confidence": 0.6, "normal": 9.0, "floor_iou": 0.8, "crash": 0.1, "unseen": 5.0, "paths": 10.0,
          "absrel_ms": 0.3, "delta1_ms": 0.5, "signed_ln_scale": -0.2, "scale_sigma": 0.15, "focal_source": "user"},
    "c": {"kind": "y", "confidence": 0.3, "normal": 1.0, "floor_iou": 0.2, "crash": float("nan"), "unseen": 0.0, "paths": 0.0,
          "absrel_ms": 0.2, "delta1_ms": 0.7, "signed_ln_scale": -0.4, "scale_sigma": 0.15, "focal_source": "user"},
}  # fmt: skip


def test_aggregates():
    assert middle(ROWS, "normal") == 1 and pooled(ROWS, "unseen") == pytest.approx(6 / 20)
    others = {name: {"absrel_ms": 0.25, "delta1_ms": 0.6} for name in ROWS}
    assert better(ROWS, [others]) == pytest.approx(2 / 3)


def test_the_risk_curve():
    assert [is_wrong(row) for row in ROWS.values()] == [False, True, True]
    assert is_wrong({"normal": float("nan")}) is None
    c = calibrate(ROWS)
    # surest first: right, wrong, wrong
    assert c.risk == pytest.approx([0, 1 / 2, 2 / 3]) and c.aurc == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)
    assert c.best_aurc == pytest.approx(c.aurc) and c.unsure == pytest.approx(1 / 3) and c.silent == ("b",)


def test_equal_confidence_counts_as_the_mean_of_all_orders():
    c = calibrate({name: {**row, "confidence": 0.5} for name, row in ROWS.items()})
    assert c.risk == pytest.approx([2 / 3] * 3)


def test_stated_intervals():
    lines = scale_table(ROWS).splitlines()
    assert "33 %" in lines[2] and "+-16 %" in lines[2]  # of 0.1, 0.2, 0.4 one is within 0.15; exp(0.15) - 1
    assert "67 %" in lines[3] and "+-34 %" in lines[3]  # two within 0.294


def test_a_number_that_no_case_tells_misses_its_bar():
    lines = bars_table("real", "file", {OURS: ROWS}).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["PASS", "MISS", "MISS"]
