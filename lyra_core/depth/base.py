"""The DepthProvider seam."""

from __future__ import annotations

from typing import Protocol

from lyra_core.config import DepthCfg
from lyra_core.types import DepthEstimate, Photo, PhotoReading


class DepthProvider(Protocol):
    """Gives one photo metric depth and clean labels."""

    def __init__(self, cfg: DepthCfg) -> None: ...

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return depth at the size of ``reading.camera``: NaN on sky and where nothing is known, else positive and finite."""
        ...
