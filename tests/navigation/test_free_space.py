"""Free space against brute force and against walls, doors and cupboards whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.config import NavigationCfg
from lyra_core.errors import WorldError
from lyra_core.navigation import (
    DiscSpace,
    area_by_provenance,
    free_space,
    free_space_stats,
    home_island,
    islands,
    load_free_space,
    save_free_space,
)
from lyra_core.navigation.freespace import clearance_of
from lyra_core.navigation.rasterise import footprint
from lyra_core.types import Label, Provenance
from tests.tasks.worlds import box, floor, quad, two_rooms

CFG = NavigationCfg()


def at(space, grid, x, y):
    """Return a grid's value at a world point."""
    col, row = np.floor((np.array([x, y]) - space.origin) / space.cell).astype(int)
    return grid[row, col]


def test_empty_floor_is_free_up_to_its_rim_and_has_the_right_area():
    space = free_space([floor(-1.013, 3.021, -2.017, 2.009)], cfg=CFG)
    assert abs(space.free.sum() * space.cell**2 - 4.034 * 4.026) < 0.05 * 2 * (4.034 + 4.026) / 2
    assert not (space.free[0].any() or space.free[-1].any() or space.free[:, 0].any() or space.free[:, -1].any())
    assert at(space, space.free, 0, 0) and abs(at(space, space.clearance, 1.0, 0.0) - 2.0) < 0.08


def test_clearance_equals_brute_force_distance_to_blocked_squares():
    free = np.random.default_rng(3).random((23, 31)) > 0.06
    got = clearance_of(free, 0.05)
    padded = np.pad(free, 1)
    blocked = np.argwhere(~padded) - 1
    for row, col in np.argwhere(free):
        gap = np.maximum(np.abs(blocked - [row, col]) - 0.5, 0)
        assert abs(got[row, col] - 0.05 * np.linalg.norm(gap, axis=1).min()) < 1e-6
    assert (got[~free] == 0).all()


def test_footprint_marks_every_cell_that_dense_samples_of_random_triangles_touch():
    rng = np.random.default_rng(0)
    triangles = rng.uniform([-1, -1, -1], [5, 4, 3], (40, 3, 3))
    triangles[:5, :, :2] = triangles[:5, :1, :2] + np.linspace(0, 2, 3)[None, :, None] * rng.normal(size=(5, 1, 2))
    marked = footprint(triangles, np.array([0.0, 0.0]), 0.1, (30, 40), (0.1, 1.5))
    b = rng.dirichlet([0.5, 0.5, 0.5], 40_000)
    expected = np.zeros_like(marked)
    for triangle in triangles:
        p = b @ triangle
        p = p[(p[:, 2] > 0.1) & (p[:, 2] < 1.5)]
        ij = np.floor(p[:, :2] / 0.1).astype(int)
        ij = ij[(ij[:, 0] >= 0) & (ij[:, 0] < 40) & (ij[:, 1] >= 0) & (ij[:, 1] < 30)]
        expected[ij[:, 1], ij[:, 0]] = True
    assert not (expected & ~marked).any()
    # Conservative but tight: what sampling misses are corners clipped by less than it can see.
    assert (marked & ~expected).sum() < 0.02 * marked.sum()


@pytest.mark.parametrize("angle", [0.0, 17.0, 45.0])
def test_wall_without_thickness_separates_two_sides(angle):
    direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    a, b = 1.02 - 9 * direction, 1.02 + 9 * direction
    wall = quad("wall", Label.WALL, Provenance.SEEN, [(*a, 0), (*b, 0), (*b, 2), (*a, 2)])
    space = free_space([floor(-3, 3, -3, 3), wall], cfg=CFG)
    side = np.array([-direction[1], direction[0]])
    here, there = 1.02 - 0.8 * side, 1.02 + 0.8 * side
    labels = islands(space, 0.1)
    assert at(space, labels, *here) > 0 and at(space, labels, *there) > 0
    assert at(space, labels, *here) != at(space, labels, *there)


@pytest.mark.parametrize(("width", "passable"), [(0.5, False), (0.58, False), (0.75, True), (0.9, True)])
def test_doorway_lets_a_disc_of_30_cm_through_only_if_wide_enough(width, passable):
    space = free_space(two_rooms(door_width=width), cfg=CFG)
    labels = islands(space, 0.3)
    assert (at(space, labels, 0, 0) == at(space, labels, 8, 0)) == passable
    narrow = islands(space, 0.15)
    assert at(space, narrow, 0, 0) == at(space, narrow, 8, 0)


def test_height_band_decides_what_blocks():
    parts = [floor(-3, 3, -3, 3), box("sill", Label.OBSTACLE, (-2.5, -2.5, 0), (-2, -2, 0.08)),
             box("table", Label.OBSTACLE, (-1, -1, 0.7), (0, 0, 0.75)), box("lamp", Label.OBSTACLE, (1, 1, 1.8), (2, 2, 2.0)),
             box("cupboard", Label.OBSTACLE, (1, -2, 0), (2, -1, 2.2))]
    space = free_space(parts, cfg=CFG)
    assert at(space, space.free, -2.25, -2.25), "the base climbs 8 cm"
    assert not at(space, space.free, -0.5, -0.5), "a table top is in the band"
    assert at(space, space.free, 1.5, 1.5), "a lamp hangs above the robot"
    assert not at(space, space.free, 1.5, -1.5), "inside a cupboard that is taller than the band"


def test_inverted_floor_is_refused_and_a_hole_is_not_free():
    down = floor(-1, 1, -1, 1)
    with pytest.raises(WorldError, match="upside down"):
        free_space([type(down)(down.name, down.label, down.kind, down.vertices, down.faces[:, ::-1], down.provenance)], cfg=CFG)
    space = free_space([floor(-3, 0, -3, 3), floor(1, 3, -3, 3)], cfg=CFG)
    assert not at(space, space.free, 0.5, 0) and islands(space, 0.2).max() == 2


def test_areas_by_provenance_are_those_of_the_rooms():
    space = free_space(two_rooms(), cfg=CFG)
    area = area_by_provenance(space, 0.3)
    # Room A: x -1.7..2 and 2..3.7, y -2.7..2.7, less the crate grown by 0.3 (half in each); room B: 4.4..9.7.
    crate = 1.6 * 1.6 - (4 - np.pi) * 0.09
    for name, expected in (("seen", 3.7 * 5.4 - crate / 2), ("continued", 1.7 * 5.4 - crate / 2), ("invented", 5.3 * 5.4)):
        assert abs(area[name] - expected) < 0.08 * expected, name
    stats = free_space_stats(space, 0.3)
    assert stats["islands"] == 1 and stats["home_share"] == 1.0 and abs(stats["walkable_m2"] - sum(area.values())) < 1e-9
    assert stats["walkable_m2"] < stats["floor_m2"] <= space.free.sum() * space.cell**2


def test_home_island_holds_the_camera_even_if_another_is_larger():
    parts = [floor(-1, 1, -1, 1), floor(3, 9, -3, 3)]
    space = free_space(parts, cfg=CFG)
    home = home_island(space, 0.3)
    assert at(space, home, 0, 0) and not at(space, home, 6, 0)
    assert at(space, islands(space, 0.3), 6, 0) == 1
    away = free_space([floor(3, 9, -3, 3), floor(11, 12, -1, 1)], cfg=CFG)
    assert at(away, home_island(away, 0.3), 6, 0)


def test_disc_space_agrees_with_brute_force_and_contains_all_traversable_centres():
    space = free_space(two_rooms(), cfg=CFG)
    disc = DiscSpace(space, 0.3)
    rows, cols = np.nonzero(disc.traversable)
    assert disc.contains(disc.centres(rows, cols)).all()
    rng = np.random.default_rng(1)
    points = rng.uniform([-2.2, -3.2], [10.2, 3.2], (600, 2))
    low = space.origin + np.argwhere(~space.free)[:, ::-1] * space.cell
    place = np.clip(points[:, None], low, low + space.cell)
    true = np.linalg.norm(place - points[:, None], axis=2).min(1)
    inside = (points > [-2, -3]).all(1) & (points < [10, 3]).all(1)
    got = disc.nearest_blocked(points)[0]
    np.testing.assert_allclose(got[inside], np.minimum(true, 0.35)[inside], atol=1e-9)
    assert (disc.slack(points)[inside] <= true[inside] - 0.3 + 1e-6).all()
    assert (true[disc.contains(points)] >= 0.3 - 1e-6).all()


def test_files_round_trip_and_damage_is_named(tmp_path):
    space = free_space(two_rooms(), cfg=CFG)
    path = tmp_path / "navigation.npz"
    save_free_space(path, space)
    first = path.read_bytes()
    again = load_free_space(path)
    for name in ("origin", "free", "clearance", "provenance"):
        np.testing.assert_array_equal(getattr(again, name), getattr(space, name))
    assert (again.cell, again.robot_height) == (space.cell, space.robot_height)
    with np.load(path) as data:
        np.testing.assert_array_equal(data["traversable_30cm"], space.traversable(0.3))
        np.testing.assert_array_equal(data["islands_50cm"], islands(space, 0.5))
        arrays = dict(data)
    save_free_space(path, space)
    assert path.read_bytes() == first
    for name, bad in (("clearance", arrays["clearance"][:-1]), ("cell", np.float64(-1)), ("provenance", arrays["provenance"] + 7)):
        np.savez(path, **{**arrays, name: bad})
        with pytest.raises(WorldError, match=name):
            load_free_space(path)
