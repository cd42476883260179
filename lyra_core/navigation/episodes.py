"""Point-goal episodes: Habitat's sampling rules and Habitat's file.

Habitat's frame is that of the world's .glb files: Y up, (x, y, z) -> (x, z, -y); an agent with the identity rotation
looks along -Z (our +y). Positions are converted here and nowhere else.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import InputError, WorldError
from lyra_core.io.files import write_gzip
from lyra_core.io.glb import to_y_up, to_z_up
from lyra_core.navigation.disc import DiscSpace
from lyra_core.navigation.freespace import home_island
from lyra_core.navigation.geodesic import GeodesicField, GeodesicGraph
from lyra_core.types import Episode, FreeSpace

RATIO_KEPT = 1.1
"""Starts whose geodesic is longer than this times the straight line are always kept (Habitat's geodesic_to_euclid_min_ratio)."""
GOAL_TRIES = 200
"""Goals without any admissible start in a row before giving up."""
STARTS_PER_GOAL = 3
"""Starts drawn per goal: a distance field costs more than all else, and three starts apart are three episodes."""
SUCCESS_DISTANCE = 0.2
"""Goal radius written to the file [m]."""
SCENE_ID = "mesh.glb"
"""Scene of the episodes, relative to the world folder."""
_FIELDS = {"episode_id", "scene_id", "start_position", "start_rotation", "info", "goals"}


def sample_episodes(
    space: FreeSpace, rng: np.random.Generator, *, count: int, radius: float = 0.3, min_distance: float = 1.0,
    max_distance: float = 30.0, graph: GeodesicGraph | None = None, info: dict[str, Any] | None = None,
) -> list[Episode]:
    """Sample point-goal episodes by Habitat's rules (generate_pointnav_episode).

    Goals lie uniformly on the home island, three starts to a goal, at the height of their ground; the geodesic distance, up and
    down with the ground, is within bounds; a start that is nearly
    straight ahead (geodesic / straight line < 1.1) is kept with probability 20 (ratio - 0.98)^2. Instead of ten tries
    per goal the accepted start is drawn directly from its distribution, so an open room costs no more than a maze.

    Args:
        space: free space.
        rng: the stream of choices.
        count: number of episodes.
        radius: robot radius [m].
        min_distance, max_distance: bounds of the geodesic distance [m].
        graph: of the space for this radius, if there is one already.
        info: kept with every episode, such as the world's scale_sigma (the distances' uncertainty).

    Raises:
        InputError: bounds that exclude each other, or a world too small for them.
    """
    if not 0 < min_distance < max_distance or count < 0 or radius <= 0:
        raise InputError(f"episodes: got count {count}, radius {radius}, distances {min_distance}..{max_distance} m; expected "
                         "count >= 0, radius > 0, 0 < min < max")
    graph = graph or GeodesicGraph(DiscSpace(space, radius))
    cells = np.argwhere(home_island(space, radius))
    episodes: list[Episode] = []
    tries = 0
    while len(episodes) < count:
        if tries == GOAL_TRIES or not len(cells):
            raise InputError(f"episodes: got {len(cells)} cells reachable for a robot of radius {radius} m and no start "
                             f"{min_distance}..{max_distance} m from any of {tries} goals; expected a larger world, a smaller "
                             "robot or wider bounds")
        found = _sample_goal(graph, cells, rng, min_distance, max_distance, starts=min(STARTS_PER_GOAL, count - len(episodes)))
        tries = 0 if found else tries + 1
        for start, goal, length in found:
            yaw = float(rng.uniform(0.0, 2.0 * math.pi))
            ends = np.column_stack([np.stack([start, goal]), space.height_at(np.stack([start, goal]))])
            episodes.append(Episode(str(len(episodes)), ends[0], yaw, ends[1], length, radius, dict(info or {})))
    return episodes


def _sample_goal(
    graph: GeodesicGraph, cells: np.ndarray, rng: np.random.Generator, low: float, high: float, *, starts: int
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return up to ``starts`` (start (2,), goal (2,), path length [m]) for one goal; none if no start is admissible."""
    places = graph.disc.centres(cells[:, 0], cells[:, 1])
    goal = places[rng.integers(len(places))]
    field = graph.field(goal, limit=high * 1.03)
    weight = np.cumsum(_acceptance(field, cells, places, low, high))
    choices = rng.uniform(size=starts)
    if weight[-1] <= 0:
        return []
    out = []
    for rank in np.searchsorted(weight, choices * weight[-1], side="right"):
        start = places[min(int(rank), len(places) - 1)]
        length = graph.length(graph.path(field, start))
        if low <= length <= high:
            out.append((start, goal, length))
    return out


def _acceptance(field: GeodesicField, cells: np.ndarray, places: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return Habitat's probability of keeping each start (N,)."""
    geodesic = field.distance[cells[:, 0], cells[:, 1]]
    straight = np.linalg.norm(places - field.goal, axis=1)
    if not field.disc.space.is_level:
        space = field.disc.space
        straight = np.hypot(straight, space.height_at(places) - space.height_at(field.goal[None]))
    ratio = np.divide(geodesic, straight, out=np.ones_like(geodesic), where=(straight > 0) & np.isfinite(geodesic))
    keep = np.where(ratio < RATIO_KEPT, 20.0 * (ratio - 0.98) ** 2, 1.0)
    return np.where((geodesic >= low) & (geodesic <= high * 1.03), np.clip(keep, 0.0, 1.0), 0.0)


def save_episodes(path: Path, episodes: list[Episode], *, scene_id: str = SCENE_ID) -> None:
    """Write episodes as Habitat's PointNav json.gz; the same episodes give the same bytes."""
    document = {"episodes": [_to_habitat(e, scene_id) for e in episodes]}
    write_gzip(path, json.dumps(document, sort_keys=True, allow_nan=False).encode())


def load_episodes(path: Path) -> list[Episode]:
    """Read a PointNav json.gz, ours or Habitat's.

    ``info.robot_radius`` is the radius [m] that distances hold for (0.1, Habitat's default agent, where it is absent).

    Raises:
        WorldError: not gzip, not JSON, or a field that is missing, of the wrong shape, or not finite; it is named.
    """
    try:
        document = json.loads(gzip.decompress(Path(path).read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise WorldError(f"{path}: not readable as json.gz: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("episodes"), list):
        raise WorldError(f"{path}: got {type(document).__name__}, expected an object with a list 'episodes'")
    episodes = [_from_habitat(value, f"{path}: episodes[{i}]") for i, value in enumerate(document["episodes"])]
    if len({e.episode_id for e in episodes}) != len(episodes):
        raise WorldError(f"{path}: episode_id: expected unique ids")
    return episodes


def yaw_to_habitat(yaw: float) -> list[float]:
    """Return the xyzw quaternion, about Habitat's +Y, of an agent that looks along yaw [rad] in the world frame."""
    half = (yaw - math.pi / 2) / 2
    return [0.0, math.sin(half), 0.0, math.cos(half)]


def yaw_from_habitat(quat_xyzw: np.ndarray) -> float:
    """Return the world yaw [rad] in [0, 2 pi) of where an agent with this Habitat rotation looks (its -Z axis)."""
    x, y, z, w = quat_xyzw / np.linalg.norm(quat_xyzw)
    look = np.array([[-2 * (x * z + w * y), -2 * (y * z - w * x), -(1 - 2 * (x * x + y * y))]])
    world = to_z_up(look)[0]
    return math.atan2(world[1], world[0]) % (2 * math.pi)


def _to_habitat(episode: Episode, scene_id: str) -> dict[str, Any]:
    start, goal = (to_y_up(np.asarray(p, np.float64)[None])[0].tolist() for p in (episode.start, episode.goal))
    return {
        "episode_id": episode.episode_id,
        "scene_id": scene_id,
        "start_position": start,
        "start_rotation": yaw_to_habitat(episode.start_yaw),
        "info": {**episode.info, "geodesic_distance": episode.geodesic_distance, "robot_radius": episode.radius},
        "goals": [{"position": goal, "radius": SUCCESS_DISTANCE}],
        "shortest_paths": None,
        "start_room": None,
    }


def _from_habitat(value: Any, where: str) -> Episode:
    if not isinstance(value, dict) or not _FIELDS <= value.keys():
        missing = sorted(_FIELDS - value.keys()) if isinstance(value, dict) else type(value).__name__
        raise WorldError(f"{where}: missing {missing}; expected {sorted(_FIELDS)}")
    goals, info = value["goals"], value["info"]
    if not isinstance(goals, list) or len(goals) != 1 or not isinstance(goals[0], dict):
        raise WorldError(f"{where}: goals: got {goals!r}, expected a list of one goal with position and radius")
    if not isinstance(info, dict):
        raise WorldError(f"{where}: info: got {type(info).__name__}, expected an object")
    start = _vector(value["start_position"], 3, f"{where}: start_position")
    goal = _vector(goals[0].get("position"), 3, f"{where}: goals[0].position")
    rotation = _vector(value["start_rotation"], 4, f"{where}: start_rotation")
    if abs(np.linalg.norm(rotation) - 1.0) > 1e-3:
        raise WorldError(f"{where}: start_rotation: got length {np.linalg.norm(rotation):.4f}, expected a unit quaternion xyzw")
    distance = _positive(info.get("geodesic_distance"), f"{where}: info.geodesic_distance")
    radius = _positive(info.get("robot_radius", 0.1), f"{where}: info.robot_radius")
    rest = {key: item for key, item in info.items() if key not in ("geodesic_distance", "robot_radius")}
    start, goal = to_z_up(np.stack([start, goal]))
    return Episode(str(value["episode_id"]), start, yaw_from_habitat(rotation), goal, distance, radius, rest)


def _vector(value: Any, size: int, where: str) -> np.ndarray:
    if not isinstance(value, list) or len(value) != size or not all(type(v) in (int, float) for v in value):
        raise WorldError(f"{where}: got {value!r}, expected {size} numbers")
    out = np.array(value, np.float64)
    if not np.isfinite(out).all():
        raise WorldError(f"{where}: got {value!r}, expected finite numbers")
    return out


def _positive(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
        raise WorldError(f"{where}: got {value!r}, expected a positive number")
    return float(value)
