"""Repair what is safe to repair: nothing is moved, nothing large is invented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.polygons import clip_ears, flatten_loop
from lyra_core.rays import make_ray_tracer
from lyra_core.surface.gravity import face_geometry
from lyra_core.surface.health_edges import closed_faces, read_edges
from lyra_core.surface.health_rays import find_free_points
from lyra_core.surface.orient import consistent_winding, orient_to_free_space
from lyra_core.surface.sanitize import weld_target

MAX_SIDES = 200
"""Edges of a hole that is filled."""


@dataclass(frozen=True)
class MeshRepair:
    """A repaired mesh and where its parts come from, so that colours and textures can follow."""

    vertices: np.ndarray
    """(W, 3) float64."""
    faces: np.ndarray
    """(G, 3) int64."""
    notes: tuple[str, ...]
    """One sentence per kind of repair."""
    source_vertex: np.ndarray
    """(W,) int64 vertex each one was."""
    source_face: np.ndarray
    """(G,) int64 face each one was; -1 = new, fills a hole."""
    turned: np.ndarray
    """(G,) bool: its second and third corner were exchanged."""

    @property
    def filled(self) -> np.ndarray:
        """Indices (K,) of the new faces."""
        return np.flatnonzero(self.source_face < 0)


def repair(vertices: np.ndarray, faces: np.ndarray, *, weld: float = 1e-6, max_perimeter: float = 0.3, flatness: float = 0.1,
           orient: bool = True, viewpoints: np.ndarray | None = None) -> MeshRepair:
    """Drop broken faces, weld, wind towards free space and close small flat holes.

    Args:
        vertices, faces: (V, 3) z up [m], (F, 3).
        weld: vertices nearer than this become one [m].
        max_perimeter: holes with a longer rim stay [m]; 0 = fill none.
        flatness: a hole is flat if its rim stays within this share of its perimeter from a plane.
        orient: turn faces; free space is what viewpoints (M, 3) [m] see, or the inside of rooms if None. A mesh without an inside
            is wound alike, and closed pieces outwards.

    Raises:
        InputError: the arrays have other shapes, or nothing is left.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        got = f"vertices {vertices.shape} and faces {faces.shape} {faces.dtype}"
        raise InputError(f"mesh: got {got}, expected (V, 3) and (F, 3) integers")
    notes: list[str] = []
    faces, source = _whole_faces(vertices, faces.astype(np.int64), weld, notes)
    if not len(faces):
        raise InputError("mesh: no face with finite corners and an area is left, expected some")
    turned = np.zeros(len(faces), bool)
    if orient:
        wound = _wound(vertices, faces, viewpoints)
        turned = (wound != faces).any(1)
        faces = wound
        if turned.any():
            notes.append(f"{turned.sum()} of {len(turned)} faces were turned towards free space.")
    fill, holes, left = _fill(vertices, faces, max_perimeter, flatness) if max_perimeter > 0 else (faces[:0], 0, 0)
    if holes:
        notes.append(f"{holes} flat holes of at most {max_perimeter} m were closed with {len(fill)} new faces.")
    if left:
        notes.append(f"{left} holes stay open: longer than {max_perimeter} m, bent, or of a shape that is not a simple loop.")
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    if not used.all():
        notes.append(f"{(~used).sum()} vertices that no face uses, welded ones among them, were dropped.")
    names = np.cumsum(used) - 1
    faces = names[np.concatenate([faces, fill])]
    return MeshRepair(vertices[used], faces, tuple(notes), np.flatnonzero(used), np.concatenate([source, np.full(len(fill), -1)]),
                      np.concatenate([turned, np.zeros(len(fill), bool)]))


def _whole_faces(vertices: np.ndarray, faces: np.ndarray, weld: float, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return welded faces that have an area, each once, and the face that each one was."""
    source = np.arange(len(faces))
    finite = np.asarray(np.isfinite(vertices).all(1))

    def keep(rows: np.ndarray, text: str) -> None:
        nonlocal faces, source
        if not rows.all():
            notes.append(f"{(~rows).sum()} faces {text} were dropped.")
        faces, source = faces[rows], source[rows]

    keep(np.asarray(((faces >= 0) & (faces < len(vertices))).all(1)), "with corners that do not exist")
    keep(np.asarray(finite[faces].all(1)), "with corners that are not finite")
    target = weld_target(vertices, finite, weld)
    if (target != np.arange(len(target))).any():
        notes.append(f"{(target != np.arange(len(target))).sum()} vertices were welded to another one within {weld:g} m.")
    faces = target[faces]
    keep(face_geometry(vertices, faces)[1] > 1e-12, "without area")
    first = np.zeros(len(faces), bool)
    first[np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1]] = True
    keep(first, "that were there before, perhaps wound the other way,")
    return faces, source


def _wound(vertices: np.ndarray, faces: np.ndarray, viewpoints: np.ndarray | None) -> np.ndarray:
    names = np.unique(faces)
    local = np.zeros_like(vertices)
    middle = vertices[names].mean(0)
    local[names] = vertices[names] - middle
    if viewpoints is not None and len(viewpoints):
        return orient_to_free_space(local, faces, np.asarray(viewpoints, np.float64).reshape(-1, 3) - middle).astype(np.int64)
    tracer = make_ray_tracer(local.astype(np.float32), faces.astype(np.int32))
    free = find_free_points(tracer, local[names].min(0), local[names].max(0))
    if free.inside:
        return orient_to_free_space(local, faces, free.points).astype(np.int64)
    return _wound_alike(local, faces)


def _wound_alike(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Wind each piece consistently: closed ones outwards, open ones as most of their area is wound."""
    piece, flip = consistent_winding(faces)
    corners = vertices[faces]
    area = face_geometry(vertices, faces)[1]
    volume = (corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])).sum(1) * np.where(flip, -1, 1)
    minority = np.bincount(piece, area * flip) > np.bincount(piece, area) / 2
    closed = np.bincount(piece, ~closed_faces(faces)) == 0
    other = np.where(closed, np.bincount(piece, volume) < 0, minority)
    return np.where((flip ^ other[piece])[:, None], faces[:, [0, 2, 1]], faces)


def _fill(vertices: np.ndarray, faces: np.ndarray, max_perimeter: float, flatness: float) -> tuple[np.ndarray, int, int]:
    """Return new faces (K, 3), holes closed and holes left open."""
    edges = read_edges(faces).open
    out, closed, cracks = [], 0, 0
    loops, odd = _loops(edges)
    for loop in loops:
        points = vertices[loop]
        perimeter = float(np.linalg.norm(points - np.roll(points, 1, 0), axis=1).sum())
        if len(loop) > MAX_SIDES or perimeter > max_perimeter or not _is_flat(points, flatness * perimeter):
            continue
        new = loop[clip_ears(flatten_loop(points))]
        area = face_geometry(vertices, new)[1]
        if (area > 1e-12).all():
            out.append(new)
            closed += 1
        else:  # a face without area was dropped here
            cracks += 1
    return (np.concatenate(out) if out else faces[:0]), closed, len(loops) - closed - cracks + odd


def _is_flat(points: np.ndarray, limit: float) -> bool:
    offset = points - points.mean(0)
    normal = np.linalg.svd(offset, full_matrices=False)[2][-1]
    return bool(np.abs(offset @ normal).max() <= limit)


def _loops(edges: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Return simple loops of vertices, wound so that faces over them agree with their neighbours, and how many vertices branch."""
    if not len(edges):
        return [], 0
    tails, tail_count = np.unique(edges[:, 0], return_counts=True)
    heads, head_count = np.unique(edges[:, 1], return_counts=True)
    branching = set(tails[tail_count > 1].tolist()) | set(heads[head_count > 1].tolist())
    follow = {b: a for a, b in edges.tolist() if a not in branching and b not in branching}  # against the open edge's direction
    loops = []
    while follow:
        start, at = next(iter(follow.items()))
        loop = [start]
        del follow[start]
        while at != start and at in follow:
            loop.append(at)
            at = follow.pop(at)
        if at == start and len(loop) >= 3:
            loops.append(np.array(loop, np.int64))
    return loops, len(branching)
