"""Baselines: random, forward, and an oracle that follows the geodesic. Each drives both controls."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from lyra_core.errors import ConfigError
from lyra_core.navigation import DiscSpace, GeodesicField, GeodesicGraph
from lyra_tasks.envs.pointnav import SUCCESS_DISTANCE, PointNavEnv
from lyra_tasks.motion import ControlDiscrete, ControlVelocity, advance

HEADINGS = 36
"""Directions that the oracle tries; 10 degrees apart, the discrete control's turns."""
TURN_COST = 0.004
"""What a turn of 10 degrees must gain in distance [m], so that the oracle does not wiggle."""
WALL_MARGIN, WALL_WEIGHT = 0.15, 1.0
"""The oracle's path costs up to twice its length nearer than this to the contact [m]: it cannot steer exactly."""


class Agent(Protocol):
    """Chooses actions."""

    def reset(self) -> None:
        """Begin the environment's current episode."""
        ...

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        """Return an action."""
        ...


def make_agent(name: str, env: PointNavEnv, *, seed: int = 0) -> Agent:
    """Return a baseline by name: 'random', 'forward' or 'oracle'. env is the unwrapped environment."""
    if name not in AGENTS:
        raise ConfigError(f"agent: got {name!r}, expected one of {', '.join(AGENTS)}")
    return AGENTS[name](env, seed)


def _stop(env: PointNavEnv) -> Any:
    return ControlDiscrete.STOP if isinstance(env.control, ControlDiscrete) else np.zeros(2, np.float32)


class AgentRandom:
    """Move at random and stop at the goal (Habitat's RandomAgent: STOP is not drawn, it would end at once)."""

    def __init__(self, env: PointNavEnv, seed: int) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)

    def reset(self) -> None:
        """Begin an episode; nothing is remembered."""

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        """Return a random motion, or STOP within the success distance."""
        if observation["pointgoal"][0] < SUCCESS_DISTANCE:
            return _stop(self.env)
        if isinstance(self.env.control, ControlDiscrete):
            return int(self.rng.integers(1, 4))
        return np.array([self.rng.uniform(self.env.control.stop_below, 1.0), self.rng.uniform(-1.0, 1.0)], np.float32)


class AgentForward:
    """Go straight and stop at the goal (Habitat's ForwardOnlyAgent)."""

    def __init__(self, env: PointNavEnv, seed: int) -> None:
        self.env = env

    def reset(self) -> None:
        """Begin an episode; nothing is remembered."""

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        """Return forward, or STOP within the success distance."""
        if observation["pointgoal"][0] < SUCCESS_DISTANCE:
            return _stop(self.env)
        return ControlDiscrete.FORWARD if isinstance(self.env.control, ControlDiscrete) else np.array([1.0, 0.0], np.float32)


class AgentOracle:
    """Follow the geodesic with knowledge of the map.

    Tries a 0.25 m move in 36 directions with the robot's own motion model and takes the one that ends nearest to the
    goal by a geodesic distance that keeps off the walls. Where no single move helps it looks two moves ahead.
    """

    def __init__(self, env: PointNavEnv, seed: int) -> None:
        self.env = env
        self._graphs: dict[float, GeodesicGraph] = {}
        self.field: GeodesicField

    def reset(self) -> None:
        """Compute the distance field of the episode's goal."""
        disc = self.env.disc
        if disc.radius not in self._graphs:
            self._graphs[disc.radius] = GeodesicGraph(disc, weight=wall_weight(disc))
        self.field = self._graphs[disc.radius].field(self.env.episode.goal[:2])

    def act(self, observation: dict[str, np.ndarray]) -> Any:
        """Return the next action."""
        if self.env.distance < SUCCESS_DISTANCE:
            return _stop(self.env)
        turn = self._best_turn()
        control = self.env.control
        if isinstance(control, ControlDiscrete):
            return ControlDiscrete.FORWARD if turn == 0 else ControlDiscrete.LEFT if turn > 0 else ControlDiscrete.RIGHT
        return _drive(control, turn * 2 * math.pi / HEADINGS)

    def _best_turn(self) -> int:
        """Return the number of 10 degree turns to the best direction, positive to the left."""
        here = self.env.state.position[None]
        turns = np.arange(HEADINGS) - HEADINGS // 2
        angles = self.env.state.yaw + turns * (2 * math.pi / HEADINGS)
        moves = ControlDiscrete.forward * np.stack([np.cos(angles), np.sin(angles)], 1)
        ends, _ = advance(self.env.disc, np.repeat(here, HEADINGS, 0), moves, sliding=self.env.sliding)
        value = self.field.at(ends)
        if value.min() > self.field.at(here)[0] - 0.2 * ControlDiscrete.forward:
            starts, steps = np.repeat(ends, HEADINGS, 0), np.tile(moves, (HEADINGS, 1))
            second, _ = advance(self.env.disc, starts, steps, sliding=self.env.sliding)
            value = np.minimum(value, self.field.at(second).reshape(HEADINGS, HEADINGS).min(1) + TURN_COST)
        return int(turns[np.argmin(value + TURN_COST * np.abs(turns))])


def wall_weight(disc: DiscSpace) -> np.ndarray:
    """Return the cost per metre (rows, cols): 1, rising to 2 at contact."""
    slack = disc.space.clearance.astype(np.float64) - disc.radius
    return 1.0 + WALL_WEIGHT * np.clip(1.0 - slack / WALL_MARGIN, 0.0, 1.0)


def _drive(control: ControlVelocity, angle: float) -> np.ndarray:
    """Turn on the spot towards angle [rad], then go straight."""
    most = control.max_turn_rate * control.period
    if abs(angle) > 1e-6:
        return np.array([0.0, float(np.clip(angle / most, -1.0, 1.0))], np.float32)
    return np.array([ControlDiscrete.forward / (control.max_speed * control.period), 0.0], np.float32)


AGENTS: dict[str, Any] = {"random": AgentRandom, "forward": AgentForward, "oracle": AgentOracle}
"""Baselines by name."""
