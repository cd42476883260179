"""The seam every generator fills: the procedural default now, video models later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lyra_core.types import CollisionPart, DepthEstimate, Frame, Photo, SurfaceMesh, Trajectory


@dataclass(frozen=True)
class ChunkRequest:
    """What a generator is given for one chunk of frames."""

    index: int
    """Chunk number, from 0."""
    trajectory: Trajectory
    """Cameras of the new frames (80 of them; the first chunk of a world is preceded by the photo's own frame)."""
    history: Trajectory
    """Cameras of all frames so far, from frame 0 to the newest."""
    newest: Frame
    """The last frame generated so far: the source of the main warp."""
    retrieved: tuple[Frame, ...]
    """Frames from the cache that see the same place, best first; they route, they are never fused."""
    prompt: str
    seed: int


class Generator(Protocol):
    """Makes the frames of a world."""

    name: str

    def __init__(self, *, quality: str) -> None: ...

    def prepare(self, photo: Photo, estimate: DepthEstimate, *, seed: int, indoor: bool) -> None:
        """Take the photo in. For explicit generators this builds the whole world."""
        ...

    def first_frame(self, trajectory: Trajectory) -> Frame:
        """Return the frame at the photo's own pose (trajectory[0])."""
        ...

    def generate(self, request: ChunkRequest) -> list[Frame]:
        """Return one frame per camera of the request. depth is NaN everywhere if the generator makes none."""
        ...


class StatefulGenerator(Generator, Protocol):
    """A generator that remembers more than its frames. Known by its method ``resume``."""

    def chunk_state(self) -> dict[str, np.ndarray]:
        """Return what must be kept of the chunk just generated; it is stored beside its frames."""
        ...

    def resume(self, chunks: int, state: Callable[[int], dict[str, np.ndarray]], frame: Callable[[int], Frame]) -> None:
        """Be as after ``chunks`` chunks, from what was stored: chunk number -> state, frame id -> frame. Called after prepare."""
        ...


@dataclass(frozen=True)
class ExplicitWorld:
    """A whole world as geometry."""

    mesh: SurfaceMesh
    parts: list[CollisionPart]
    """Clean semantic colliders."""
    places: np.ndarray
    """(S, 2) one floor-plan point inside each connected space, the camera's first [m]."""


class ExplicitGenerator(Generator, Protocol):
    """A generator that has one explicit world, of which every frame is a query. Known by its method ``restore``."""

    def explicit_world(self) -> ExplicitWorld:
        """Return the world that prepare() built."""
        ...

    def restore(self, world: ExplicitWorld) -> None:
        """Take a world that was built before, instead of prepare()."""
        ...
