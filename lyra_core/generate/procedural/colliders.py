"""Clean semantic colliders of the plan: flat floors, walls and ceilings as large faces, obstacles as closed solids."""

from __future__ import annotations

import itertools

import numpy as np

from lyra_core.generate.procedural.plan import Opening, Plan, wall_foot
from lyra_core.generate.procedural.polygons import merged, triangulate
from lyra_core.generate.procedural.strips import WallStrip
from lyra_core.generate.procedural.walls import passage_corners, passage_height
from lyra_core.types import CollisionPart, Label, Provenance

WALL_CAP = 4.0
"""Outdoor wall colliders end at this height; nothing that drives reaches it [m]."""


def plan_colliders(plan: Plan, strip: WallStrip) -> list[CollisionPart]:
    """Return floor, wall and ceiling shells of every space and passage. Faces look into free space."""
    parts = []
    for number, space in enumerate(plan.spaces):
        provenance = Provenance.INVENTED if number else Provenance.CONTINUED
        parts += _flat(space.name, space.corners, space.height if space.ceiling else None, provenance)
        parts += _walls(plan, strip, number)
    for opening in plan.openings:
        parts += _passage(plan, strip, opening)
    return parts


def _flat(name: str, corners: np.ndarray, ceiling: float | None, provenance: Provenance) -> list[CollisionPart]:
    """Floor and, at a height [m], ceiling over one polygon (K, 2)."""
    faces = triangulate(corners)
    out = [CollisionPart(f"{name}_floor", Label.FLOOR, "shell", _at(corners, 0.0), faces.astype(np.int32), provenance)]
    if ceiling is not None:
        out.append(
            CollisionPart(
                f"{name}_ceiling", Label.CEILING, "shell", _at(corners, ceiling), faces[:, ::-1].astype(np.int32), provenance
            )
        )
    return out


def _at(corners: np.ndarray, z: float) -> np.ndarray:
    return np.concatenate([corners, np.full((len(corners), 1), z)], 1).astype(np.float32)


def _walls(plan: Plan, strip: WallStrip, number: int) -> list[CollisionPart]:
    """One shell per provenance: the photo's walls must not change with the seed, those behind its camera do."""
    space = plan.spaces[number]
    out = []
    for provenance in sorted(set(space.edge_provenance)):
        edges = [edge for edge, p in enumerate(space.edge_provenance) if p == provenance]
        vertices, faces = merged([quad for edge in edges for quad in _wall_quads(plan, strip, number, edge)])
        name = f"{space.name}_walls" + ("_behind" if provenance == Provenance.CONTINUED else "")
        out.append(CollisionPart(name, Label.WALL, "shell", vertices, faces, provenance))
    return out


def _wall_quads(plan: Plan, strip: WallStrip, number: int, edge: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rectangles of one edge beside and above its openings."""
    space = plan.spaces[number]
    start, end = space.edge(edge)
    length = float(np.hypot(*(end - start)))
    direction = (end - start) / length
    top = space.height if space.ceiling else min(WALL_CAP, *(float(s.top.min()) for s in strip.segments))
    gaps = plan.gaps(number, edge)
    cuts = np.clip([0.0, length, *(end for gap in gaps for end in gap[:2])], 0.0, length)
    quads = []
    for low, high in itertools.pairwise(sorted(cuts)):
        foot = wall_foot(gaps, low, high)
        if foot is not None and high - low > 1e-6 and foot < top:
            quads.append(_quad(start + direction * low, start + direction * high, foot, top))
    return quads


def _quad(a: np.ndarray, b: np.ndarray, foot: float, top: float) -> tuple[np.ndarray, np.ndarray]:
    """Rectangle over the floor-plan segment from a to b, seen from its left."""
    vertices = np.array([[*a, foot], [*b, foot], [*b, top], [*a, top]])
    return vertices, np.array([[0, 3, 2], [0, 2, 1]])


def _passage(plan: Plan, strip: WallStrip, opening: Opening) -> list[CollisionPart]:
    corners = passage_corners(plan, opening)
    height = passage_height(plan, strip, opening)
    vertices, faces = merged([_quad(corners[0], corners[1], 0.0, height), _quad(corners[2], corners[3], 0.0, height)])
    jambs = CollisionPart(f"{opening.name}_walls", Label.WALL, "shell", vertices, faces, Provenance.INVENTED)
    return [*_flat(opening.name, corners, opening.height, Provenance.INVENTED), jambs]
