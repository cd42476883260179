"""Walls as textured panels around the spaces of the plan, with openings, and their clean colliders."""

from __future__ import annotations

import itertools

import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.plan import WALL_THICKNESS, Opening, Plan, Space, wall_foot
from lyra_core.generate.procedural.strips import StripSegment, WallStrip
from lyra_core.types import Label, Provenance

PANEL = 0.5
"""Panels are split this fine along and up, for the skyline and the provenance [m]."""


def add_walls(builder: MeshBuilder, plan: Plan, strip: WallStrip, rng: np.random.Generator) -> None:
    """Add all walls, lintels, jambs and passage ceilings of the plan. The first segments of the strip are the seen edges."""
    for number, space in enumerate(plan.spaces):
        part = builder.add_part(f"{space.name}_walls")
        offset = 0.0
        for edge in range(len(space.corners)):
            provenance = space.edge_provenance[edge]
            start, end = space.edge(edge)
            length = float(np.hypot(*(end - start)))
            if provenance == Provenance.SEEN:
                pieces = [(0.0, length, edge, 0.0, strip.segments[edge].length)]
            elif provenance == Provenance.INVENTED and strip.plain is not None:
                pieces = strip.plain_pieces(length)
            else:
                pieces = strip.pieces(offset if number == 0 else float(rng.uniform(0, strip.total)), length)
                offset += length
            gaps = plan.gaps(number, edge)
            _add_wall(builder, strip, space, start, end, pieces, gaps, part=part, provenance=provenance)
    for opening in plan.openings:
        _add_passage(builder, strip, plan, opening)


def _add_wall(
    builder: MeshBuilder,
    strip: WallStrip,
    space: Space,
    start: np.ndarray,
    end: np.ndarray,
    pieces: list[tuple[float, float, int, float, float]],
    gaps: list[tuple[float, float, float | None]],
    *,
    part: int,
    provenance: Provenance,
) -> None:
    """Add one edge's panels: its texture pieces (see WallStrip.pieces), cut at the gaps (see Plan.gaps)."""
    direction = (end - start) / np.hypot(*(end - start))
    for a, b, k, at_a, at_b in pieces:
        cuts = sorted({a, b, *(float(np.clip(g, a, b)) for gap in gaps for g in gap[:2])})
        for low, high in itertools.pairwise(cuts):
            if high - low < 1e-6:
                continue
            foot = wall_foot(gaps, low, high)
            if foot is None:
                continue
            along = at_a + (np.array([low, high]) - a) / (b - a) * (at_b - at_a)
            ends = start + np.array([[low], [high]]) * direction
            _add_panel(
                builder,
                strip.segments[k],
                strip.charts[k],
                ends,
                along,
                foot,
                space.height if space.ceiling else None,
                part=part,
                provenance=provenance,
            )


def _add_panel(
    builder: MeshBuilder,
    segment: StripSegment,
    chart: int,
    ends: np.ndarray,
    along: np.ndarray,
    foot: float,
    ceiling: float | None,
    *,
    part: int,
    provenance: Provenance,
) -> None:
    """Add a grid of quads between two floor-plan points, from its foot to the ceiling or the segment's skyline (ceiling None).

    ends: (2, 2) [m]; along: (2,) positions of both ends in the segment [m]; foot, ceiling: heights [m].
    """
    length = float(np.hypot(*(ends[1] - ends[0])))
    columns = max(1, int(np.ceil(length / PANEL)))
    if ceiling is None:
        columns = max(columns, min(len(segment.top), 64) if provenance == Provenance.SEEN else columns)
    f = np.linspace(0, 1, columns + 1)
    at = along[0] + f * (along[1] - along[0])
    top = np.full(columns + 1, ceiling) if ceiling is not None else np.maximum(segment.top_at(at), foot + 0.05)
    rows = max(1, int(np.ceil((top.max() - foot) / (PANEL if top.max() < 6 else 2 * PANEL))))
    z = foot + (top - foot)[None, :] * np.linspace(0, 1, rows + 1)[:, None]
    xy = ends[0] + f[:, None] * (ends[1] - ends[0])
    vertices = np.concatenate([np.broadcast_to(xy, (rows + 1, columns + 1, 2)), z[..., None]], -1)
    texels = segment.texels(np.broadcast_to(at, z.shape), z)
    faces = grid_faces(rows, columns)
    labels = np.full(len(faces), int(provenance))
    if provenance == Provenance.SEEN:
        middle = texels.reshape(-1, 2)[faces].mean(1).astype(int)
        h, w = segment.known.shape
        known = segment.known[np.clip(middle[:, 1], 0, h - 1), np.clip(middle[:, 0], 0, w - 1)]
        labels = np.where(known, int(Provenance.SEEN), int(Provenance.CONTINUED))
    builder.add(vertices.reshape(-1, 3), texels.reshape(-1, 2), faces, chart=chart, part=part, label=Label.WALL, provenance=labels)


def grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles (2 rows columns, 3) of a grid of (rows + 1) x (columns + 1) vertices: the lower ones of all cells, then the upper.

    With columns along a wall's edge and rows upwards they face its left side.
    """
    index = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)])


def passage_corners(plan: Plan, opening: Opening) -> np.ndarray:
    """Floor rectangle of a passage (4, 2), counter-clockwise: from the first edge outwards through the wall."""
    start, end = plan.spaces[opening.spaces[0]].edge(opening.edges[0])
    direction = (end - start) / np.hypot(*(end - start))
    outward = np.array([direction[1], -direction[0]]) * WALL_THICKNESS
    a, b = opening.centre - direction * opening.width / 2, opening.centre + direction * opening.width / 2
    return np.array([a, a + outward, b + outward, b])


def passage_height(plan: Plan, strip: WallStrip, opening: Opening) -> float:
    """Height of a passage's sides [m]."""
    if opening.height is not None:
        return opening.height
    return min(2.5, *(plan.spaces[i].height for i in opening.spaces), *(float(s.top.min()) for s in strip.segments))


def _add_passage(builder: MeshBuilder, strip: WallStrip, plan: Plan, opening: Opening) -> None:
    """Add the two jambs of an opening and, below a lintel, its soffit."""
    a, a_out, b_out, b = passage_corners(plan, opening)
    part = builder.add_part(opening.name)
    k = strip.plain if strip.plain is not None else strip.pieces(0.3 * strip.total, 0.5)[0][2]
    segment, chart = strip.segments[k], strip.charts[k]
    height = passage_height(plan, strip, opening)
    at = np.array([0.45, 0.45 + min(WALL_THICKNESS / segment.length, 0.2)]) * segment.length
    for ends in (np.array([a, a_out]), np.array([b_out, b])):
        _add_panel(builder, segment, chart, ends, at, 0.0, height, part=part, provenance=Provenance.INVENTED)
    if opening.height is not None:
        corners = np.concatenate([[a, a_out, b_out, b], np.full((4, 1), height)], 1)
        texels = segment.texels(np.array([at[0], at[1], at[1], at[0]]), np.array([height - 0.3, height - 0.3, height, height]))
        builder.add(
            corners,
            texels,
            np.array([[0, 2, 1], [0, 3, 2]]),
            chart=chart,
            part=part,
            label=Label.CEILING,
            provenance=Provenance.INVENTED,
        )
