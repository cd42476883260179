"""Point-goal navigation in one world, discrete or by velocity."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from lyra_core.errors import ConfigError, InputError, WorldError
from lyra_core.navigation import DiscSpace, GeodesicField, GeodesicGraph, load_episodes
from lyra_core.types import Episode
from lyra_core.world import World
from lyra_tasks.metrics import soft_spl, spl
from lyra_tasks.motion import RobotState, make_control
from lyra_tasks.sensors import SensorRgbd
from lyra_tasks.topdown import TopDownMap

SUCCESS_DISTANCE, SLACK_REWARD, SUCCESS_REWARD = 0.2, -0.01, 2.5
"""Habitat's defaults: [m], per step, once."""
MAX_GOAL_DISTANCE = 1000.0
"""Upper bound of the observed goal distance [m]; finite so that every world shares one observation space."""
KEPT_FIELDS = 32
"""Distance fields kept for goals that come back."""


class PointNavEnv(gym.Env[dict[str, np.ndarray], Any]):
    """Reach a goal given in polar coordinates and call STOP within 0.2 m of it.

    Observation: ``depth`` (64, 64, 1) float32 in [0, 1] (10 m = 1), ``rgb`` (64, 64, 3) uint8, ``pointgoal`` (2,) float32:
    distance [m] and bearing [rad], positive to the left. Reward: decrease of the geodesic distance - 0.01 per step + 2.5
    at success. Terminated by STOP; the registered ids truncate after 500 steps. Info: world_id, episode_id,
    geodesic_distance (of the episode), distance_to_goal, path_length [m], success, spl, soft_spl, collisions {count,
    is_collision}, position (2,) [m], yaw [rad].
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own declaration)

    def __init__(
        self, world: World | Path | str | None = None, *, control: str = "discrete", episodes: Path | str | None = None,
        sliding: bool = False, image_size: int = 64, hfov_degrees: float = 90.0, mount_height: float = 1.25,
        max_depth: float = 10.0, render_mode: str | None = None, render_size: int = 256,
    ) -> None:
        """Open a world.

        Args:
            world: folder or World; None reads the environment variable LYRA_WORLD.
            control: 'discrete' (stop, forward 0.25 m, left and right 10 degrees) or 'velocity' ((v, w) in [-1, 1]).
            episodes: another episode file than the world's own.
            sliding: slide along obstacles instead of stopping at them (Habitat's allow_sliding).
            image_size, hfov_degrees, mount_height, max_depth: the camera [px, degrees, m, m].
            render_mode: None or 'rgb_array'.
            render_size: height of the rendered picture [px].

        Raises:
            ConfigError: no world was named, or a value cannot be used. WorldError: a file is missing or damaged.
        """
        if image_size < 1 or not 0 < hfov_degrees < 180 or not max_depth > 0:
            raise ConfigError(f"image_size, hfov_degrees, max_depth: got {image_size}, {hfov_degrees}, {max_depth}; expected at "
                              "least 1 px, 0 to 180 degrees, more than 0 m")
        self.world = open_world(world)
        self.control, self.sliding, self.render_mode, self.render_size = make_control(control), sliding, render_mode, render_size
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ConfigError(f"render_mode: got {render_mode!r}, expected None or one of {self.metadata['render_modes']}")
        path = Path(episodes) if episodes is not None else self.world.folder / "episodes.json.gz"
        self.episodes = {e.episode_id: e for e in load_episodes(path)}
        if not self.episodes:
            raise WorldError(f"{path}: got no episodes, expected at least one")
        self.sensor = SensorRgbd(self.world.mesh, width=image_size, height=image_size, hfov_degrees=hfov_degrees,
                                 mount_height=mount_height, max_depth=max_depth)
        self.action_space = self.control.space()
        self.observation_space = gym.spaces.Dict({
            "depth": gym.spaces.Box(0.0, 1.0, (image_size, image_size, 1), np.float32),
            "rgb": gym.spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            "pointgoal": gym.spaces.Box(np.array([0.0, -math.pi], np.float32), np.array([MAX_GOAL_DISTANCE, math.pi], np.float32)),
        })
        self._graphs: dict[float, GeodesicGraph] = {}
        self._fields: dict[tuple[float, ...], GeodesicField] = {}
        self._episode_rng: np.random.Generator | None = None
        self._view: tuple[SensorRgbd, TopDownMap] | None = None
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode: a random one, or ``options={"episode_id": ...}``.

        Raises:
            InputError: an unknown option or episode, or an episode whose start or goal is not traversable.
        """
        super().reset(seed=seed)
        if seed is not None or self._episode_rng is None:
            # Each use of randomness has its own child stream, so a new one does not change which episodes are drawn.
            self._episode_rng = self.np_random.spawn(1)[0]
        self.episode = self._pick(options or {})
        start, goal = self.episode.start[:2], self.episode.goal[:2]
        self.graph = self._graph(self.episode.radius)
        self.disc = self.graph.disc
        if not self.disc.contains(np.stack([start, goal])).all():
            raise InputError(f"episode {self.episode.episode_id}: got start {start.round(3).tolist()} and goal "
                             f"{goal.round(3).tolist()}, expected places where a disc of {self.episode.radius} m fits in "
                             f"{self.world.folder}")
        self.field = self._field(goal)
        self.state = RobotState(start.astype(np.float64), self.episode.start_yaw % (2 * math.pi))
        self.distance = float(self.field.at(start[None])[0])
        if not math.isfinite(self.distance):
            raise InputError(f"episode {self.episode.episode_id}: the goal cannot be reached from the start in {self.world.folder}")
        self._shortest: np.ndarray | None = None
        self.track, self.path_length, self.collisions = [self.state.position], 0.0, 0
        self._running = True
        return self._observation(), self._info(success=False, is_collision=False)

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Move, observe and score one action."""
        if not self._running:
            raise gym.error.ResetNeeded("the episode has ended (or not begun): call reset()")
        before = self.distance
        state, touched, stop = self.control.apply(self.disc, self.state, action, sliding=self.sliding)
        # Up and down with the ground, as the geodesic distance that it is measured against.
        self.path_length += self.graph.length(np.stack([self.state.position, state.position]))
        self.state, self.collisions = state, self.collisions + int(touched)
        self.track.append(state.position)
        self.distance = float(self.field.at(state.position[None])[0])
        success = stop and self.distance < SUCCESS_DISTANCE
        self._running = not stop
        reward = before - self.distance + SLACK_REWARD + SUCCESS_REWARD * success
        return self._observation(), reward, stop, False, self._info(success=success, is_collision=touched)

    def render(self) -> np.ndarray | None:
        """Return the robot's view beside the map, (render_size, 2 render_size, 3) uint8; None without render_mode."""
        if self.render_mode is None:
            return None
        if self._view is None:
            size = self.render_size
            sensor = SensorRgbd(self.world.mesh, width=size, height=size, mount_height=self.sensor.mount_height,
                                tracer=self.sensor.tracer)
            self._view = sensor, TopDownMap(self.world.free_space, size, size)
        sensor, board = self._view
        if self._shortest is None:
            self._shortest = self.graph.path(self.field, self.episode.start[:2])
        rgb, _ = sensor.observe(self.state.position, self.state.yaw, ground=self._ground())
        picture = board.draw(start=self.episode.start[:2], goal=self.episode.goal[:2], track=np.array(self.track),
                             yaw=self.state.yaw, radius=self.episode.radius, shortest=self._shortest)
        return np.concatenate([rgb, picture], 1)

    def _pick(self, options: dict[str, Any]) -> Episode:
        unknown = options.keys() - {"episode_id"}
        if unknown:
            raise InputError(f"reset options: got {sorted(unknown)}, expected episode_id")
        if "episode_id" in options:
            name = str(options["episode_id"])
            if name not in self.episodes:
                known = ", ".join(list(self.episodes)[:8])
                raise InputError(f"episode_id: got {name!r}, expected one of {known} ... ({len(self.episodes)})")
            return self.episodes[name]
        assert self._episode_rng is not None
        return list(self.episodes.values())[int(self._episode_rng.integers(len(self.episodes)))]

    def _ground(self) -> float:
        """Return the height of the floor under the robot [m]."""
        return float(np.nan_to_num(self.world.free_space.height_at(self.state.position[None])[0]))

    def _graph(self, radius: float) -> GeodesicGraph:
        if radius not in self._graphs:
            self._graphs[radius] = GeodesicGraph(DiscSpace(self.world.free_space, radius))
        return self._graphs[radius]

    def _field(self, goal: np.ndarray) -> GeodesicField:
        key = (self.episode.radius, float(goal[0]), float(goal[1]))
        if key not in self._fields:
            if len(self._fields) >= KEPT_FIELDS:
                del self._fields[next(iter(self._fields))]
            self._fields[key] = self.graph.field(goal)
        return self._fields[key]

    def _observation(self) -> dict[str, np.ndarray]:
        rgb, depth = self.sensor.observe(self.state.position, self.state.yaw, ground=self._ground())
        x, y = self.episode.goal[:2] - self.state.position
        bearing = math.remainder(math.atan2(y, x) - self.state.yaw, 2 * math.pi)
        goal = np.array([min(math.hypot(x, y), MAX_GOAL_DISTANCE), bearing], np.float32)
        goal[1] = np.clip(goal[1], -np.float32(math.pi), np.float32(math.pi))
        return {"depth": depth, "rgb": rgb, "pointgoal": goal}

    def _info(self, *, success: bool, is_collision: bool) -> dict[str, Any]:
        shortest = self.episode.geodesic_distance
        return {
            "world_id": self.world.folder.name,
            "episode_id": self.episode.episode_id,
            "geodesic_distance": shortest,
            "distance_to_goal": self.distance,
            "path_length": self.path_length,
            "success": success,
            "spl": spl(success, shortest, self.path_length),
            "soft_spl": soft_spl(self.distance, shortest, self.path_length),
            "collisions": {"count": self.collisions, "is_collision": is_collision},
            "position": self.state.position.copy(),
            "yaw": self.state.yaw,
        }


def open_world(world: World | Path | str | None) -> World:
    """Return a World from a World, a folder, or the environment variable LYRA_WORLD.

    Raises:
        ConfigError: none of them is given. WorldError: not a world, or one that is not finished.
    """
    if isinstance(world, World):
        return world
    folder = world if world is not None else os.environ.get("LYRA_WORLD", "")
    if str(folder) == "":
        raise ConfigError("world: got none; expected gymnasium.make(..., world='path/to/world') or the environment variable "
                          "LYRA_WORLD")
    opened = World(folder)
    if opened.manifest.get("status") == "building":
        raise WorldError(f"{folder}: not finished; the lyra-worlds command that stopped goes on when it is repeated")
    return opened
