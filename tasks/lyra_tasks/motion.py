"""Kinematic motion of a disc robot, and the two ways to command it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from lyra_core.errors import ConfigError, InputError
from lyra_core.navigation import DiscSpace

SUBSTEP = 0.01
"""Longest move between two contact checks where geometry is near [m]; a fifth of a grid cell."""
CONTACTS = 4
"""Contacts that one sliding move can go through (a corner is two)."""


@dataclass(frozen=True)
class RobotState:
    """Where the robot is."""

    position: np.ndarray
    """(2,) world x, y [m]."""
    yaw: float
    """About +z from +x [rad], in [0, 2 pi)."""


def advance(disc: DiscSpace, points: np.ndarray, moves: np.ndarray, *, sliding: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Move discs straight until they touch something.

    Each disc goes as far as the clearance allows, then in sub-steps of 1 cm; a contact is narrowed down to 1/256 of one. With
    ``sliding`` the rest of the move goes on along the contact's tangent.

    Args:
        disc: configuration space.
        points: (N, 2) valid places [m].
        moves: (N, 2) displacements [m].
        sliding: slide along contacts instead of stopping.

    Returns:
        (N, 2) places, all valid; (N,) bool: touched something.
    """
    place, left, touched = points.astype(np.float64), moves.astype(np.float64), np.zeros(len(points), bool)
    contacts = np.zeros(len(points), np.int64)
    while len(active := np.flatnonzero(np.linalg.norm(left, axis=1) > 1e-9)):
        length = np.linalg.norm(left[active], axis=1)
        reach = np.minimum(length, np.maximum(disc.slack(place[active]), SUBSTEP))
        step = left[active] * (reach / length)[:, None]
        clear = disc.contains(place[active] + step)
        place[active[clear]] += step[clear]
        left[active[clear]] -= step[clear]
        stuck = active[~clear]
        if len(stuck):
            place[stuck] = _until_contact(disc, place[stuck], step[~clear])
            touched[stuck] = True
            contacts[stuck] += 1
            left[stuck] = _tangent(disc, place[stuck], left[stuck]) * (contacts[stuck] < CONTACTS)[:, None] if sliding else 0.0
    return place, touched


def _until_contact(disc: DiscSpace, valid: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return the furthest place before the first invalid one on each segment, to 1/256 of it."""
    reached, share = np.zeros(len(valid)), 1.0
    for _ in range(2):
        share /= 16
        t = reached[:, None] + share * np.arange(1, 16)
        clear = disc.contains((valid[:, None] + t[..., None] * step[:, None]).reshape(-1, 2)).reshape(t.shape)
        reached += share * np.cumprod(clear, axis=1).sum(1)
    return valid + reached[:, None] * step


def _tangent(disc: DiscSpace, points: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Remove the part of moves (N, 2) that points into the nearest blocked cell."""
    distance, nearest = disc.nearest_blocked(points)
    normal = (points - nearest) / np.maximum(distance, 1e-9)[:, None]
    return moves - np.minimum((moves * normal).sum(1), 0.0)[:, None] * normal


class Control(Protocol):
    """Turns actions into motion."""

    def space(self) -> gym.Space[Any]:
        """Return the action space."""
        ...

    def apply(self, disc: DiscSpace, state: RobotState, action: Any, *, sliding: bool) -> tuple[RobotState, bool, bool]:
        """Return the new state, whether something was touched, and whether the action was STOP."""
        ...


class ControlDiscrete:
    """Habitat's actions: 0 stop, 1 forward 0.25 m, 2 turn left 10 degrees, 3 turn right 10 degrees."""

    STOP, FORWARD, LEFT, RIGHT = 0, 1, 2, 3
    forward = 0.25
    """[m]"""
    turn = math.radians(10.0)
    """[rad]"""

    def space(self) -> gym.Space[Any]:
        """Return Discrete(4)."""
        return gym.spaces.Discrete(4)

    def apply(self, disc: DiscSpace, state: RobotState, action: Any, *, sliding: bool) -> tuple[RobotState, bool, bool]:
        """Return the new state, whether something was touched, and whether the action was STOP."""
        value = np.asarray(action)
        if value.size != 1 or value.dtype.kind not in "iu" or not 0 <= value.item() <= 3:
            raise InputError(f"action: got {action!r}, expected 0 stop, 1 forward, 2 left or 3 right")
        action = int(value.item())
        if action == self.FORWARD:
            move = self.forward * np.array([[math.cos(state.yaw), math.sin(state.yaw)]])
            place, touched = advance(disc, state.position[None], move, sliding=sliding)
            return RobotState(place[0], state.yaw), bool(touched[0]), False
        turn = {self.LEFT: self.turn, self.RIGHT: -self.turn}.get(action, 0.0)
        return RobotState(state.position, (state.yaw + turn) % (2 * math.pi)), False, action == self.STOP


class ControlVelocity:
    """A differential drive: action (v, w) in [-1, 1]^2, scaled to +-1 m/s and +-90 degrees/s, held for 0.25 s.

    As in Habitat's VelocityAction, STOP is a command that hardly moves: both components below 5 % of their limits.
    """

    max_speed = 1.0
    """[m/s]"""
    max_turn_rate = math.pi / 2
    """[rad/s]"""
    period = 0.25
    """[s]"""
    stop_below = 0.05
    """Share of the limits."""
    pieces = 5
    """Straight pieces that approximate the arc of one period."""

    def space(self) -> gym.Space[Any]:
        """Return Box(-1, 1, (2,))."""
        return gym.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def apply(self, disc: DiscSpace, state: RobotState, action: Any, *, sliding: bool) -> tuple[RobotState, bool, bool]:
        """Return the new state, whether something was touched, and whether the action was STOP."""
        command = np.asarray(action, np.float64)
        if command.shape != (2,) or not np.isfinite(command).all():
            raise InputError(f"action: got {action!r}, expected two finite numbers (v, w) in [-1, 1]")
        v, w = np.clip(command, -1.0, 1.0)
        if abs(v) < self.stop_below and abs(w) < self.stop_below:
            return state, False, True
        place, yaw, touched = state.position[None], state.yaw, False
        turn, length = w * self.max_turn_rate * self.period / self.pieces, v * self.max_speed * self.period / self.pieces
        for _ in range(self.pieces):
            middle = yaw + turn / 2
            place, hit = advance(disc, place, length * np.array([[math.cos(middle), math.sin(middle)]]), sliding=sliding)
            yaw, touched = yaw + turn, touched or bool(hit[0])
        return RobotState(place[0], yaw % (2 * math.pi)), touched, False


CONTROLS: dict[str, type[ControlDiscrete] | type[ControlVelocity]] = {"discrete": ControlDiscrete, "velocity": ControlVelocity}


def make_control(name: str) -> ControlDiscrete | ControlVelocity:
    """Return a control by name."""
    if name not in CONTROLS:
        raise ConfigError(f"control: got {name!r}, expected one of {', '.join(CONTROLS)}")
    return CONTROLS[name]()
