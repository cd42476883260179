"""The ground's height and what of it can be climbed: ramps, kerbs, stairs, a raised floor and a table, with lengths by hand."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lyra_core.config import NavigationCfg, check_limits
from lyra_core.errors import ConfigError, WorldError
from lyra_core.navigation import (
    DiscSpace,
    GeodesicGraph,
    free_space,
    islands,
    load_episodes,
    load_free_space,
    sample_episodes,
    save_episodes,
    save_free_space,
    save_occupancy_map,
)
from lyra_core.types import CollisionPart, Episode, FreeSpace, Label, Provenance
from tests.tasks.worlds import box, build_world, floor, quad, two_rooms

CFG = NavigationCfg()
SEEN = Provenance.SEEN


def plate(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float | None = None, name: str = "plate") -> CollisionPart:
    """Make a rectangle that looks up, at height z0 at x0 and z1 at x1."""
    z1 = z0 if z1 is None else z1
    return quad(name, Label.FLOOR, SEEN, [(x0, y0, z0), (x1, y0, z1), (x1, y1, z1), (x0, y1, z0)])


def ramp_to_a_level(slope: float, run: float, *, turn: float = 0.0) -> list[CollisionPart]:
    """Return level ground, a ramp that begins 2 m ahead (x), and 4 m of level ground above it; turned about z [rad]."""
    top = slope * run
    parts = [plate(-3, 2, -3, 3, 0.0), plate(2, 2 + run, -3, 3, 0.0, top), plate(2 + run, 6 + run, -3, 3, top)]
    c, s = math.cos(turn), math.sin(turn)
    R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
    return [CollisionPart(p.name, p.label, p.kind, p.vertices @ R.T, p.faces, p.provenance) for p in parts]


def stage(*, with_ramp: bool) -> list[CollisionPart]:
    """Return a floor of 12 m x 8 m with a block of 3 m x 3 m, 0.3 m high, in it, and a ramp of 10 % to the block's far side."""
    parts = [floor(-2, 10, -4, 4), box("block", Label.FLOOR, (2, -1.5, 0), (5, 1.5, 0.3))]
    if with_ramp:
        parts.append(plate(5, 8, -1.0, 1.0, 0.3, 0.0, "ramp"))
        for y, face in ((-1.0, [0, 1, 2]), (1.0, [0, 2, 1])):
            corners = np.array([[8, y, 0], [5, y, 0.3], [5, y, 0]], np.float32)
            parts.append(CollisionPart("side", Label.WALL, "shell", corners, np.array([face], np.int32), SEEN))
    return parts


def stairs(count: int, *, riser: float, tread: float = 0.28, floor_below: bool) -> list[CollisionPart]:
    """Return a flight from 2 m ahead up to a landing."""
    parts = [floor(-3, 8 if floor_below else 2, -2, 2)]
    for i in range(count):
        x, z = 2 + i * tread, (i + 1) * riser
        parts.append(quad(f"riser_{i}", Label.WALL, SEEN, [(x, 2, z - riser), (x, -2, z - riser), (x, -2, z), (x, 2, z)]))
        parts.append(plate(x, x + tread if i + 1 < count else 8, -2, 2, z))
    return parts


def at(space: FreeSpace, grid: np.ndarray, x: float, y: float):
    """Return a grid's value at a world point."""
    col, row = np.floor((np.array([x, y]) - space.origin) / space.cell).astype(int)
    return grid[row, col]


def heights(space: FreeSpace) -> np.ndarray:
    assert space.height is not None
    return space.height


def shares(space: FreeSpace) -> np.ndarray:
    assert space.traversability is not None
    return space.traversability


def length(space: FreeSpace, start: tuple[float, float], goal: tuple[float, float], radius: float = 0.3) -> float:
    graph = GeodesicGraph(DiscSpace(space, radius))
    return graph.length(graph.path(graph.field(np.array(goal)), np.array(start)))


@pytest.mark.parametrize("slope", [0.08, 0.20])
def test_a_ramp_is_ground_and_its_length_is_that_of_its_surface(slope):
    run = 3.0
    space = free_space(ramp_to_a_level(slope, run), cfg=CFG)
    top = slope * run
    assert at(space, heights(space), 1.0, 0) == 0
    middle = 2 + (math.floor((3.5 - space.origin[0]) / 0.05) + 0.5) * 0.05 + space.origin[0] - 2
    assert at(space, heights(space), 3.5, 0) == pytest.approx(slope * (middle - 2), abs=2e-4)
    assert at(space, heights(space), 7.0, 0) == pytest.approx(top, abs=1e-6)
    # Level, ramp, level: 1 m + the hypotenuse + 1 m.
    exact = 1.0 + math.hypot(run, top) + 1.0
    assert length(space, (1.0, 0.5), (2 + run + 1.0, 0.5)) == pytest.approx(exact, abs=2e-3)
    field = GeodesicGraph(DiscSpace(space, 0.3)).field(np.array([6.0, 0.5]))
    assert exact - 2e-3 <= field.at(np.array([[1.0, 0.5]]))[0] <= 1.03 * exact + 0.05
    assert islands(space, 0.3).max() == 1
    # Of a limit of 15 degrees the ramp uses its own angle.
    assert at(space, shares(space), 3.5, 0) == pytest.approx(1 - math.degrees(math.atan(slope)) / 15, abs=0.01)
    assert at(space, shares(space), 0.0, 0) == 1.0


@pytest.mark.parametrize("turn", [0.0, math.radians(22.5), math.radians(45.0)])
def test_the_limit_of_the_slope_holds_in_every_direction(turn):
    for degrees, passable in ((14.0, True), (16.0, False)):
        space = free_space(ramp_to_a_level(math.tan(math.radians(degrees)), 3.0, turn=turn), cfg=CFG)
        labels, end = islands(space, 0.3), 7.0 * np.array([math.cos(turn), math.sin(turn)])
        assert (at(space, labels, 0, 0) == at(space, labels, *end) > 0) == passable, degrees
        assert at(space, space.free, 0, 0) and at(space, space.free, *end)
    steep = free_space(ramp_to_a_level(math.tan(math.radians(16)), 3.0, turn=turn), cfg=NavigationCfg(slope=20.0))
    assert islands(steep, 0.3).max() == 1


def test_a_short_steep_piece_is_a_step():
    # 8 cm at 35 degrees: a kerb as a mesh from depth shows it.
    low = free_space(ramp_to_a_level(math.tan(math.radians(35)), 0.08 / math.tan(math.radians(35))), cfg=CFG)
    assert islands(low, 0.3).max() == 1
    high = free_space(ramp_to_a_level(math.tan(math.radians(35)), 0.18 / math.tan(math.radians(35))), cfg=CFG)
    assert at(high, islands(high, 0.3), 0, 0) != at(high, islands(high, 0.3), 5, 0)


def test_a_kerb_of_5_cm_is_climbed_and_one_of_12_is_not():
    def kerb(z: float) -> list[CollisionPart]:
        face = quad("kerb", Label.WALL, SEEN, [(2, 3, 0), (2, -3, 0), (2, -3, z), (2, 3, z)])
        return [plate(-3, 2, -3, 3, 0.0), face, plate(2, 6, -3, 3, z)]

    space = free_space(kerb(0.05), cfg=CFG)
    assert islands(space, 0.3).max() == 1 and at(space, heights(space), 4, 0) == pytest.approx(0.05, abs=1e-6)
    # At least the straight line in space, at most the way along the floor and up the kerb's face.
    assert math.hypot(4.0, 0.05) - 1e-6 <= length(space, (0.0, 0.0), (4.0, 0.0)) <= 4.05 + 1e-6
    assert at(space, shares(space), 1.99, 0) == pytest.approx(0.5, abs=0.01) and at(space, shares(space), 1.0, 0) == 1
    high = free_space(kerb(0.12), cfg=CFG)
    labels = islands(high, 0.1)
    assert at(high, labels, 0, 0) > 0 and at(high, labels, 0, 0) != at(high, labels, 4, 0)
    assert islands(free_space(kerb(0.12), cfg=NavigationCfg(step=0.15)), 0.3).max() == 1
    down = free_space([plate(-3, 2, -3, 3, 0.0), plate(2, 6, -3, 3, -0.12)], cfg=CFG)
    assert islands(down, 0.1).max() == 1 and not at(down, down.free, 4, 0), "a drop of 12 cm is no way either"


@pytest.mark.parametrize("floor_below", [False, True])
def test_a_flight_of_stairs_is_known_ground_but_no_way(floor_below, tmp_path):
    space = free_space(stairs(5, riser=0.17, floor_below=floor_below), cfg=CFG)
    assert at(space, space.free, 0, 0) and not at(space, space.free, 2.14, 0) and not at(space, space.free, 6, 0)
    assert not at(space, space.free, 1.99, 0) or not at(space, space.free, 2.01, 0), "the first riser"
    save_occupancy_map(tmp_path, space)
    picture = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_GRAYSCALE)[::-1]
    assert at(space, picture, 2.14, 0) == 0 and at(space, picture, 6.0, 0) == 0 and at(space, picture, 0, 0) == 254
    if not floor_below:
        assert at(space, heights(space), 2.14, 0) == pytest.approx(0.17, abs=1e-6)
    assert islands(free_space(stairs(5, riser=0.09, tread=0.6, floor_below=floor_below), cfg=CFG), 0.3).max() == 1


def test_a_raised_floor_is_reached_by_its_ramp_alone():
    closed = free_space(stage(with_ramp=False), cfg=CFG)
    assert not at(closed, closed.free, 3.5, 0) and at(closed, closed.free, 6.5, 0)
    space = free_space(stage(with_ramp=True), cfg=CFG)
    assert at(space, heights(space), 3.5, 0) == pytest.approx(0.3, abs=1e-6) and at(space, space.free, 3.5, 0)
    assert at(space, islands(space, 0.3), 0, 0) == at(space, islands(space, 0.3), 3.5, 0)
    # From before the block the way leads round it and onto the ramp where its side is 0.1 m high: a string round three discs of
    # the robot's radius, at the block's corners (2, 1.5) and (5, 1.5) and at (7, 1); tangents, and the turning as an arc.
    start, goal, r = np.array([1.5, 0.0]), np.array([3.5, 0.0]), 0.3
    corners = np.array([[2.0, 1.5], [5.0, 1.5], [7.0, 1.0]])
    first, last = corners[0] - start, goal - corners[2]
    heading = math.atan2(first[1], first[0]) + math.asin(r / np.linalg.norm(first))
    leaving = math.atan2(last[1], last[0]) - math.asin(r / np.linalg.norm(last))
    exact = math.sqrt(first @ first - r * r) + math.sqrt(last @ last - r * r) + r * (heading - leaving)
    exact += float(np.linalg.norm(np.diff(corners, axis=0), axis=1).sum())
    assert exact < length(space, (1.5, 0.0), (3.5, 0.0)) < 1.03 * exact
    # Straight up the ramp: 1.5 m before it, 3 m of 10 %, 1.5 m on the block.
    assert length(space, (9.5, 0.0), (3.5, 0.0)) == pytest.approx(1.5 + math.hypot(3.0, 0.3) + 1.5, abs=0.01)
    for x, y in ((2.02, 0.0), (3.5, 1.48), (6.0, 0.98)):
        assert not at(space, space.free, x, y), "the upper side of an edge"


def test_a_table_is_no_ground_and_whether_it_blocks_is_the_robots_height():
    parts = [floor(-3, 3, -3, 3), box("top", Label.OBSTACLE, (0.5, -1, 0.7), (2.0, 1, 0.74))]
    parts += [box(f"leg_{i}", Label.OBSTACLE, (x, y, 0), (x + 0.05, y + 0.05, 0.7)) for i, (x, y) in
              enumerate([(0.52, -0.98), (1.93, -0.98), (0.52, 0.92), (1.93, 0.92)])]
    tall, low = free_space(parts, cfg=CFG), free_space(parts, cfg=NavigationCfg(robot_height=0.6))
    for space in (tall, low):
        assert at(space, heights(space), 1.2, 0) == 0, "the ground is the floor below"
    assert not at(tall, tall.free, 1.2, 0) and at(low, low.free, 1.2, 0) and not at(low, low.free, 0.54, -0.96)


def test_a_ramp_with_a_box_and_a_low_bar_over_it():
    ramp = ramp_to_a_level(0.1, 6.0)
    crate = box("crate", Label.OBSTACLE, (5.0, -2, 0.2), (5.5, -1, 0.9))
    parts = [*ramp, crate, box("bar", Label.OBSTACLE, (6, 1, 1.6), (6.2, 2, 1.7))]
    space = free_space(parts, cfg=CFG)
    assert not at(space, space.free, 5.25, -1.5) and at(space, space.free, 5.25, 0)
    assert not at(space, space.free, 6.1, 1.5), "1.6 m above the foot is 1.2 m above the ramp"
    assert islands(space, 0.3).max() == 1


def test_episodes_stand_on_the_ground_and_their_distances_follow_it(tmp_path):
    space = free_space(ramp_to_a_level(0.2, 3.0), cfg=CFG)
    episodes = sample_episodes(space, np.random.default_rng(3), count=30, min_distance=1.0)
    rises = [abs(e.start[2] - e.goal[2]) for e in episodes]
    assert max(rises) == pytest.approx(0.6, abs=1e-4) and min(rises) < 0.3
    for e in episodes:
        for x, _, z in (e.start, e.goal):
            assert z == pytest.approx(np.clip(0.2 * (x - 2), 0, 0.6), abs=3e-3)
        assert e.geodesic_distance >= np.linalg.norm(e.start - e.goal) - 1e-6
    save_episodes(tmp_path / "e.json.gz", episodes)
    np.testing.assert_array_equal(load_episodes(tmp_path / "e.json.gz")[0].start, episodes[0].start)


def test_a_rough_floor_as_a_fused_mesh_has_it_stays_free():
    rng, n = np.random.default_rng(0), 81
    x, y = np.meshgrid(np.linspace(-2, 2, n), np.linspace(-2, 2, n))
    z = rng.normal(0.0, 0.006, (n, n))
    index = np.arange(n * n).reshape(n, n)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    rough = CollisionPart("floor", Label.FLOOR, "shell", np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32),
                          faces.astype(np.int32), SEEN)
    space = free_space([rough], cfg=CFG)
    # 6 mm on a grid of 5 cm: single faces lean by 10 degrees and more.
    assert space.free[1:-1, 1:-1].mean() > 0.995 and islands(space, 0.3).max() == 1
    inner = np.abs(space.height_at(np.random.default_rng(1).uniform(-1.9, 1.9, (200, 2))))
    assert 0.001 < inner.mean() < 0.02
    straight = length(space, (-1.5, 0.1), (1.5, 0.1))
    assert 3.0 < straight < 3.0 * 1.06, "rough ground is a little longer than level ground"


def test_the_robots_camera_and_its_path_follow_the_ground(tmp_path):
    gymnasium = pytest.importorskip("gymnasium")
    from lyra_tasks.envs.pointnav import PointNavEnv

    parts = ramp_to_a_level(0.2, 3.0)
    world = build_world(tmp_path, parts, episodes=1)
    end = Episode("0", np.array([1.0, 0.0, 0.0]), 0.0, np.array([6.0, 0.0, 0.6]), 2 + math.hypot(3.0, 0.6), 0.3)
    save_episodes(tmp_path / "one.json.gz", [end])
    env = PointNavEnv(world, episodes=tmp_path / "one.json.gz")
    assert isinstance(env, gymnasium.Env)
    below, info = env.reset()
    observation = below
    for _ in range(20):
        observation, _, _, _, info = env.step(1)
    assert env.state.position[0] == pytest.approx(6.0, abs=0.01)
    assert info["path_length"] == pytest.approx(2 + math.hypot(3.0, 0.6), abs=5e-3)
    # The lowest row looks down by 31.5 px at a focal length of 32. From x = 1 it meets the ramp, where 1.25 - d 31.5 / 32 =
    # 0.2 (d - 1); on the upper level the camera has gone up with the ground and sees that at the usual distance.
    for depth, expected in ((below["depth"], 1.45 / (0.2 + 31.5 / 32)), (observation["depth"], 1.25 / (31.5 / 32))):
        assert depth[-1, 32, 0] == pytest.approx(expected / 10, abs=1e-4)


def test_level_worlds_are_exactly_level_and_older_files_are_too(tmp_path):
    space = free_space(two_rooms(), cfg=CFG)
    assert space.is_level and set(np.unique(shares(space))) == {0.0, 1.0}
    assert ((shares(space) > 0) == space.free).all()
    save_free_space(tmp_path / "new.npz", space)
    with np.load(tmp_path / "new.npz") as data:
        arrays = dict(data)
    assert arrays["height"].dtype == arrays["traversability"].dtype == np.float32
    np.savez(tmp_path / "old.npz", **{k: v for k, v in arrays.items() if k not in ("height", "traversability")})
    old = load_free_space(tmp_path / "old.npz")
    assert old.height is None and old.is_level and (old.height_at(np.zeros((3, 2))) == 0).all()
    assert length(old, (0, 0), (8, 0)) == length(space, (0, 0), (8, 0))
    for name, bad in (("height", np.full_like(arrays["height"], np.nan)), ("traversability", arrays["traversability"] + 1)):
        np.savez(tmp_path / "bad.npz", **{**arrays, name: bad})
        with pytest.raises(WorldError, match=name):
            load_free_space(tmp_path / "bad.npz")
    ramp = free_space(ramp_to_a_level(0.2, 3.0), cfg=CFG)
    save_free_space(tmp_path / "ramp.npz", ramp)
    np.testing.assert_array_equal(heights(load_free_space(tmp_path / "ramp.npz")), heights(ramp))


def test_a_slope_beyond_what_is_ground_at_all_is_refused():
    with pytest.raises(ConfigError, match="slope"):
        check_limits(NavigationCfg(slope=60.0))
