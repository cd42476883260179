"""The seam of retrieval strategies: which cached frames a chunk is given."""

from __future__ import annotations

from typing import Protocol

from lyra_core.memory.cache import FrameCache
from lyra_core.types import Trajectory


class MemoryStrategy(Protocol):
    """Chooses cached frames for target views. Geometry only routes: the frames themselves are handed on untouched."""

    def retrieve(self, cache: FrameCache, cameras: Trajectory, *, count: int) -> list[int]:
        """Return at most ``count`` ids of cached frames for the target cameras (normally the chunk's last one), best first."""
        ...
