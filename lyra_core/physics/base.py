"""Checks of the written stage in a physics engine: drop bodies, drive a body at things, follow paths on wheels.

Each engine opens ``world.usda`` itself, with its own USD reader: what passes here is the file that a user simulates, not our
arrays. Bodies never collide with each other, so that hundreds of checks share one scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lyra_core.backends import resolve
from lyra_core.errors import InputError, WorldError


@dataclass(frozen=True)
class DropResult:
    """Where dropped spheres ended."""

    rest_positions: np.ndarray
    """(N, 3) float32 centres after the time was up, world frame [m]."""
    radius: float
    """[m]"""

    def fell_through(self, *, floor: float = 0.0) -> np.ndarray:
        """Return (N,) bool: the centre is below the floor height [m], or no number."""
        return ~(self.rest_positions[:, 2] > floor)


@dataclass(frozen=True)
class DriveResult:
    """Where driven bodies went."""

    path: np.ndarray
    """(T, N, 3) float32 body centres, world frame [m]."""
    times: np.ndarray
    """(T,) float32 [s]."""
    radius: float
    """[m]"""

    def travelled(self) -> np.ndarray:
        """Return (N,) horizontal distance between first and last position [m]."""
        return np.linalg.norm(self.path[-1, :, :2] - self.path[0, :, :2], axis=1)


@dataclass(frozen=True)
class FollowResult:
    """How one wheeled robot followed its path."""

    arrived: bool
    """The chassis came within the goal tolerance of the path's end."""
    final_distance: float
    """From the chassis to the path's end, horizontal; smallest reached when it arrived [m]."""
    path: np.ndarray
    """(T, 3) float32 chassis positions, world frame [m]."""


class PhysicsEngine(Protocol):
    """An engine that reads a stage and moves bodies in it."""

    def drop(self, stage_path: Path | str, points: np.ndarray, *, radius: float = 0.1, seconds: float = 2.0) -> DropResult:
        """Release spheres of 1 t/m3 with their centres at points (N, 3) [m] and let them come to rest."""
        ...

    def drive(self, stage_path: Path | str, starts: np.ndarray, targets: np.ndarray, *, radius: float = 0.3, height: float = 1.0,
              speed: float = 0.5, seconds: float = 10.0) -> DriveResult:
        """Push upright cylinders from starts (N, 2 or 3) straight at targets (N, 2 or 3); the third number is the floor's z [m]."""
        ...


def make_physics_engine(name: str) -> PhysicsEngine:
    """Return the engine of this name: 'newton', 'physx' or 'module:Class'.

    Raises:
        BackendUnavailable: it is not installed; says how to get it.
    """
    return resolve("physics", name)()


def checked_stage(stage_path: Path | str) -> Path:
    """Return the absolute path of a stage that exists.

    Raises:
        WorldError: there is no such file.
    """
    path = Path(stage_path).resolve()
    if not path.is_file():
        raise WorldError(f"{path}: no such stage; expected a world.usda")
    return path


def checked_points(name: str, points: np.ndarray, *, floor: float = 0.0) -> np.ndarray:
    """Return (N, 3) float64 points; two columns are completed by the floor's height [m].

    Raises:
        InputError: wrong shape, no point, or a number that is not finite.
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] not in (2, 3) or not len(array) or not np.isfinite(array).all():
        raise InputError(f"{name}: got shape {array.shape}, expected (N, 2 or 3) finite numbers with N >= 1")
    return array if array.shape[1] == 3 else np.column_stack([array, np.full(len(array), floor)])
