"""What the readers of other people's files hand on: geometry and pictures in the files' own frame and unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import Frame, GaussianCloud


@dataclass(frozen=True)
class MeshSource:
    """Triangles as they were read: nothing welded, turned or dropped yet."""

    vertices: np.ndarray
    """(V, 3) float64 [unit of the file]; may hold NaN."""
    faces: np.ndarray
    """(F, 3) int64 into the vertices, in range."""
    vertex_rgb: np.ndarray | None = None
    """(V, 3) uint8 sRGB."""
    corner_uv: np.ndarray | None = None
    """(F, 3, 2) float32 texture coordinates of the faces' corners; (0, 0) = lower left, outside of [0, 1] repeats."""
    face_texture: np.ndarray | None = None
    """(F,) int32 into textures; -1 = none."""
    textures: tuple[np.ndarray, ...] = ()
    """(h, w, 3) uint8 sRGB pictures, row 0 at the top."""
    face_rgb: np.ndarray | None = None
    """(F, 3) uint8 sRGB colour of the face's material; multiplies its texture."""

    def __post_init__(self) -> None:
        count = len(self.vertices)
        if self.vertices.shape != (count, 3) or self.faces.shape != (len(self.faces), 3):
            raise InputError(f"mesh: got vertices {self.vertices.shape} and faces {self.faces.shape}, expected (V, 3) and (F, 3)")
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= count):
            raise InputError(f"mesh: faces: got indices {self.faces.min()}..{self.faces.max()}, expected 0..{count - 1}")


@dataclass(frozen=True)
class Source:
    """Everything that was found. Frames, mesh, splats and points share one right-handed frame."""

    kind: str
    """'lyra2', 'marble', 'nerfstudio', 'colmap', 'tum', '7scenes', 'stray', 'polycam', 'mesh', 'splats' ..."""
    path: Path
    """What was opened."""
    files: tuple[Path, ...] = ()
    """Every file that was read: their content identifies the source."""
    frames: Sequence[Frame] = ()
    """Posed pictures [unit of the file], read when asked for; depth is NaN everywhere where there is none."""
    mesh: MeshSource | None = None
    cloud: GaussianCloud | None = None
    """[unit of the file]"""
    points: np.ndarray | None = None
    """(N, 3) float64 sparse points of a reconstruction [unit of the file]."""
    metres_per_unit: float | None = None
    """None = the files do not say."""
    unit_stated_by: str = ""
    """What says so, such as 'glTF is in metres' or 'metersPerUnit of the stage'; '' = nothing."""
    up: np.ndarray | None = None
    """(3,) unit vector against gravity, where the format or the capture states it; None = to be found."""
    licence: str = "unknown"
    notes: tuple[str, ...] = ()
    """One plain sentence per guess or loss, for the report."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers worth keeping, such as a reprojection error."""

    def __post_init__(self) -> None:
        if not len(self.frames) and self.mesh is None and self.cloud is None:
            raise InputError(f"{self.path}: found no pictures, no triangles and no splats")
