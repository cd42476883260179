"""Check that colliders face free space: an inverted floor lets every robot fall through, and no validator notices."""

from __future__ import annotations

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.meshes import merge_parts
from lyra_core.rays import make_ray_tracer, sphere_directions
from lyra_core.types import CollisionPart, Label

DIRECTIONS = 64
"""Rays per free point, spread evenly over the sphere."""
TOLERANCE = 0.005
"""Share of hits on the wrong side that numerical noise at edges may cause."""
TOLERANCE_OPEN = 0.5
"""The same for surfaces of frames alone: rays leave through what no frame saw and meet other walls from behind."""
FEW, FEW_OPEN = 2, 30
"""So many hits on the wrong side say nothing."""


def check_winding(parts: list[CollisionPart], free_points: np.ndarray, *, is_open: bool = False) -> None:
    """Refuse colliders whose faces look away from free space.

    Casts rays from each free point (N, 3) [m] to all sides; the first face hit must face the ray. A part is judged by its own
    hits; a floor also by its normals, which point up, and a solid by its volume, whether or not a ray reached them. With
    ``is_open`` the surfaces may have holes: a part is refused only if most of its hits are from behind.

    Raises:
        WorldError: names each inverted part with its share of hits from behind.
    """
    points = np.asarray(free_points, np.float32).reshape(-1, 3)
    if not parts or not len(points):
        raise WorldError(f"winding check: got {len(parts)} parts and {len(points)} free points, expected at least one of each")
    vertices, faces = merge_parts(parts)
    owner = np.repeat(np.arange(len(parts)), [len(part.faces) for part in parts])
    directions = np.tile(sphere_directions(DIRECTIONS), (len(points), 1))
    hits = make_ray_tracer(vertices, faces).cast(np.repeat(points, DIRECTIONS, 0), directions)
    hit = hits.face >= 0
    face = hits.face[hit]
    corners = vertices.astype(np.float64)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    behind = (normal[face] * directions[hit]).sum(1) > 0
    total = np.bincount(owner[face], minlength=len(parts))
    wrong = np.bincount(owner[face], behind, minlength=len(parts))
    # Six times the signed volume of the cone over each face, about the origin.
    volume = np.bincount(owner, (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(1), minlength=len(parts))
    upward = np.bincount(owner, normal[:, 2], minlength=len(parts))
    tolerance, few = (TOLERANCE_OPEN, FEW_OPEN) if is_open else (TOLERANCE, FEW)
    faults = []
    for i, part in enumerate(parts):
        share = wrong[i] / max(total[i], 1)
        if part.kind == "shell" and part.label == Label.FLOOR and upward[i] <= 0:
            faults.append(f"{part.name}: its faces point down")
        elif part.kind == "solid" and volume[i] <= 0:
            faults.append(f"{part.name}: the solid is inside out")
        elif share > tolerance and wrong[i] > few:
            faults.append(f"{part.name}: {share:.0%} of {total[i]} rays from free space hit it from behind")
    if faults:
        raise WorldError("winding check: expected colliders that face free space; " + "; ".join(faults))
