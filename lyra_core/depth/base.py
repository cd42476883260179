"""The DepthProvider seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lyra_core.config import DepthCfg
from lyra_core.types import DepthEstimate, Frame, Photo, PhotoReading


class DepthProvider(Protocol):
    """Gives one photo metric depth and clean labels."""

    def __init__(self, cfg: DepthCfg) -> None: ...

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return depth at the size of ``reading.camera``: NaN on sky and where nothing is known, else positive and finite."""
        ...


class FrameDepthProvider(Protocol):
    """Gives generated frames depth in the scale of their known cameras. Known by its method ``estimate_frames``."""

    def check(self, photo: Photo) -> None:
        """Raise what would keep it from running, before a world is begun."""
        ...

    def estimate_frames(self, frames: Sequence[Frame], *, history: Sequence[Frame]) -> list[np.ndarray]:
        """Return one z-depth (H, W) float32 [m] per frame, NaN = unknown.

        Args:
            frames: new frames, whose own depth is not known yet.
            history: earlier frames with depth, the newest first: they fix the scale.
        """
        ...
