"""Episodes in Habitat's file and frame, its sampling rules, and the ROS map read by another reader."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from lyra_core.config import NavigationCfg
from lyra_core.errors import InputError, WorldError
from lyra_core.navigation import (
    DiscSpace,
    GeodesicGraph,
    free_space,
    home_island,
    load_episodes,
    sample_episodes,
    save_episodes,
    save_occupancy_map,
)
from lyra_core.types import Episode
from tests.tasks.worlds import floor, two_rooms


@pytest.fixture(scope="module")
def space():
    return free_space(two_rooms(), cfg=NavigationCfg())


def test_episodes_obey_the_rules(space):
    episodes = sample_episodes(space, np.random.default_rng(0), count=40, radius=0.3, min_distance=2.0, max_distance=9.0)
    disc = DiscSpace(space, 0.3)
    graph, home = GeodesicGraph(disc), home_island(space, 0.3)
    assert [e.episode_id for e in episodes] == [str(i) for i in range(40)]
    ratios = []
    for e in episodes:
        rows, cols = disc.cells(np.stack([e.start[:2], e.goal[:2]]))
        assert home[rows, cols].all() and disc.contains(np.stack([e.start[:2], e.goal[:2]])).all()
        assert 2.0 <= e.geodesic_distance <= 9.0 and 0 <= e.start_yaw < 2 * math.pi and e.start[2] == e.goal[2] == 0
        field = graph.field(e.goal[:2]).at(e.start[None, :2])[0]
        assert e.geodesic_distance <= field + 1e-9 and field <= 1.03 * e.geodesic_distance + 0.1
        ratios.append(e.geodesic_distance / np.linalg.norm(e.start - e.goal))
    assert min(ratios) >= 1 - 1e-9 and np.mean(np.array(ratios) > 1.03) > 0.3, "straight starts are mostly rejected"


def test_same_seed_gives_the_same_bytes_and_another_seed_others(space, tmp_path):
    paths = [tmp_path / f"{i}.json.gz" for i in range(3)]
    for path, seed in zip(paths, (7, 7, 8), strict=True):
        save_episodes(path, sample_episodes(space, np.random.default_rng(seed), count=5))
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


def test_too_small_a_world_is_one_clear_error():
    tiny = free_space([floor(-0.5, 0.5, -0.5, 0.5)], cfg=NavigationCfg())
    for radius in (0.2, 0.6):
        with pytest.raises(InputError, match="episodes"):
            sample_episodes(tiny, np.random.default_rng(0), count=1, radius=radius)
    with pytest.raises(InputError, match="min < max"):
        sample_episodes(tiny, np.random.default_rng(0), count=1, min_distance=3, max_distance=2)


def test_round_trip_and_frame_on_a_pose_without_symmetry(tmp_path):
    start, goal = np.array([1.25, -2.5, 0.0]), np.array([-3.5, 4.75, 0.0])
    episode = Episode("a7", start, math.radians(37.0), goal, 11.5, 0.25, {"difficulty": "easy"})
    path = tmp_path / "episodes.json.gz"
    save_episodes(path, [episode])
    raw = json.loads(gzip.decompress(path.read_bytes()))["episodes"][0]
    # Y up, as in the .glb files: (x, y, z) -> (x, z, -y).
    assert raw["start_position"] == [1.25, 0.0, 2.5] and raw["goals"] == [{"position": [-3.5, 0.0, -4.75], "radius": 0.2}]
    # Habitat's agent looks along -Z; scipy's quaternions are xyzw too. Our heading (cos, sin, 0) must come out.
    look = Rotation.from_quat(raw["start_rotation"]).apply([0, 0, -1])
    np.testing.assert_allclose(look, [math.cos(math.radians(37)), 0, -math.sin(math.radians(37))], atol=1e-12)
    up = Rotation.from_quat(raw["start_rotation"]).apply([0, 1, 0])
    np.testing.assert_allclose(up, [0, 1, 0], atol=1e-12)
    back = load_episodes(path)[0]
    np.testing.assert_array_equal(back.start, episode.start)
    np.testing.assert_array_equal(back.goal, episode.goal)
    assert back.start_yaw == pytest.approx(episode.start_yaw, abs=1e-12)
    assert (back.episode_id, back.geodesic_distance, back.radius, back.info) == ("a7", 11.5, 0.25, {"difficulty": "easy"})


def test_file_has_exactly_the_fields_that_habitat_constructs(tmp_path):
    save_episodes(tmp_path / "e.json.gz", [Episode("0", np.zeros(3), 0.0, np.array([1.0, 0, 0]), 1.0, 0.3)])
    document = json.loads(gzip.decompress((tmp_path / "e.json.gz").read_bytes()))
    # NavigationEpisode(**episode) and NavigationGoal(**goal) of habitat-lab refuse anything else.
    allowed = {"episode_id", "scene_id", "start_position", "start_rotation", "info", "goals", "shortest_paths", "start_room",
               "scene_dataset_config", "additional_obj_config_paths"}
    assert document.keys() == {"episodes"} and document["episodes"][0].keys() <= allowed


@pytest.mark.parametrize(("field", "value"), [
    ("start_position", [0, 1]), ("start_position", [0, 0, float("nan")]), ("start_rotation", [0, 0, 0, 2]), ("start_rotation", "x"),
    ("goals", []), ("goals", [{"radius": 1}]), ("info", {"geodesic_distance": None}), ("info", {"geodesic_distance": -1}),
    ("info", None), ("info", {"geodesic_distance": 1, "robot_radius": True}),
])
def test_damaged_episodes_are_refused_by_name(tmp_path, field, value):
    path = tmp_path / "e.json.gz"
    save_episodes(path, [Episode("0", np.zeros(3), 0.0, np.array([1.0, 0, 0]), 1.0, 0.3)])
    document = json.loads(gzip.decompress(path.read_bytes()))
    document["episodes"][0][field] = value
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    with pytest.raises(WorldError, match=rf"episodes\[0\].*{field}"):
        load_episodes(path)


def test_other_damage_is_refused(tmp_path):
    path = tmp_path / "e.json.gz"
    for data in (b"", b"junk", gzip.compress(b"{"), gzip.compress(b"[]"), gzip.compress(b'{"episodes": [3]}')):
        path.write_bytes(data)
        with pytest.raises(WorldError, match=r"e\.json\.gz"):
            load_episodes(path)
    save_episodes(path, [Episode("0", np.zeros(3), 0.0, np.array([1.0, 0, 0]), 1.0, 0.3)] * 2)
    with pytest.raises(WorldError, match="unique"):
        load_episodes(path)


def ros_map(folder):
    """Read a map as map_server does: +1 occupied, 0 free, -1 unknown; and world -> cell."""
    meta = yaml.safe_load((folder / "map.yaml").read_text())
    pixels = cv2.imread(str(folder / meta["image"]), cv2.IMREAD_GRAYSCALE).astype(float)
    occupancy = pixels / 255 if meta["negate"] else (255 - pixels) / 255
    value = np.full(pixels.shape, -1)
    value[occupancy > meta["occupied_thresh"]] = 1
    value[occupancy < meta["free_thresh"]] = 0
    value = value[::-1]
    return lambda x, y: value[int((y - meta["origin"][1]) / meta["resolution"]), int((x - meta["origin"][0]) / meta["resolution"])]


def test_map_read_by_an_independent_ros_reader(space, tmp_path):
    save_occupancy_map(tmp_path / "occupancy_map", space)
    look = ros_map(tmp_path / "occupancy_map")
    assert look(0, 0) == 0 and look(8, 2) == 0 and look(4.07, 0.4) == 0
    assert look(2.0, 0.8) == 1, "crate"
    assert look(2.0, -0.8) == 0, "and not its mirror image"
    assert look(4.07, -2.0) == 1, "divider"
    assert look(10.04, 0.0) == 1, "the rim of the floor"
    for row, col in np.argwhere(space.free)[::97]:
        x, y = space.origin + (np.array([col, row]) + 0.5) * space.cell
        assert look(x, y) == 0


def test_no_free_cell_of_the_map_touches_an_unknown_one(space, tmp_path):
    # Three rooms whose walls lie between cells: nothing in the grid but floor and no floor.
    bare = dataclasses.replace(space, free=space.provenance != 255)
    save_occupancy_map(tmp_path, bare)
    picture = cv2.imread(str(tmp_path / "map.png"), cv2.IMREAD_GRAYSCALE)[::-1]
    near_free = cv2.dilate((picture == 254).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert ((picture == 254) == bare.free).all()
    assert (picture == 0).any() and not (near_free & (picture == 205)).any()
