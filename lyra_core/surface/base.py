"""The SurfaceFusion seam: frames in, one triangle surface out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lyra_core.types import Frame


class SurfaceFusion(Protocol):
    """Fuses posed depth pictures into a surface."""

    def __init__(self, voxel: float, *, eyes: np.ndarray | None = None) -> None:
        """Start empty; voxel is the cell size [m] near the camera path eyes (M, 3) [m], from which cells may grow with distance."""
        ...

    def integrate(self, frame: Frame) -> None:
        """Add one frame; pixels of unknown depth say nothing."""
        ...

    def extract(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float32 [m, world], faces (F, 3) int32 wound towards the cameras, colours (V, 3) uint8."""
        ...


def fuse(fusion: SurfaceFusion, frames: Sequence[Frame]) -> None:
    """Add all frames, at once where the backend can."""
    if hasattr(fusion, "integrate_all"):
        fusion.integrate_all(frames)
        return
    for frame in frames:
        fusion.integrate(frame)
