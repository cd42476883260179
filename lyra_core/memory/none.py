"""No memory: the baseline that every strategy must beat."""

from __future__ import annotations

from lyra_core.memory.cache import FrameCache
from lyra_core.types import Trajectory


class MemoryNone:
    """Retrieve nothing."""

    def retrieve(self, cache: FrameCache, cameras: Trajectory, *, count: int) -> list[int]:
        """Return an empty list."""
        return []
