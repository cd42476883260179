"""Things as closed solids with a textured front, and how they join the mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.types import Label, Provenance


@dataclass(frozen=True)
class Solid:
    """A closed solid: its front, its back with as many vertices, and the sides between their borders."""

    vertices: np.ndarray
    """(V, 3) world points [m]; the first half is the front, the second the back."""
    faces: np.ndarray
    """(F, 3) outward: front, sides, back."""
    texels: np.ndarray
    """(V, 2) in image."""
    image: np.ndarray
    """(h, w, 3) uint8."""
    front_faces: int
    """The first so many faces were seen in the photo, the last so many are the back."""
    base: np.ndarray
    """(2,) floor-plan point below the middle of the front [m]."""
    normal: np.ndarray
    """(2,) horizontal unit normal of the front, towards the camera."""
    collider: tuple[np.ndarray, np.ndarray]
    """Vertices (N, 3) [m] and outward faces (M, 3) of what a robot touches: one or more closed pieces."""
    label: Label = Label.OBSTACLE


def moved(points: np.ndarray, transform: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Return points (N, 3) after a transform (rotation (2, 2), translation (2,) [m]) of the floor plan."""
    out = points.copy()
    if transform is not None:
        out[:, :2] = out[:, :2] @ transform[0].T + transform[1]
    return out


def add_solid(
    builder: MeshBuilder,
    solid: Solid,
    chart: int,
    name: str,
    *,
    provenance: Provenance | None = None,
    transform: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """Add a solid, moved by ``transform`` (rotation (2, 2), translation (2,) [m]) of the floor plan.

    Side and back faces take the colour just inside the silhouette. provenance: of a copy; None = front seen, rest continued.
    """
    vertices = moved(solid.vertices, transform)
    n = len(vertices) // 2
    front, back = solid.faces[: solid.front_faces], solid.faces[-solid.front_faces :]
    sides = solid.faces[solid.front_faces : -solid.front_faces]
    inner = solid.texels + (solid.texels.mean(0) - solid.texels) * 0.06
    part = builder.add_part(name)
    seen = Provenance.SEEN if provenance is None else provenance
    rest = Provenance.CONTINUED if provenance is None else provenance
    builder.add(vertices[:n], solid.texels[:n], front, chart=chart, part=part, label=solid.label, provenance=seen)
    builder.add(vertices, inner, sides, chart=chart, part=part, label=solid.label, provenance=rest)
    builder.add(vertices[n:], inner[n:], back - n, chart=chart, part=part, label=solid.label, provenance=rest)
