"""Triangles as simulators and validators want them: welded, no empty or double faces, two-manifold, consistently wound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lyra_core.errors import InputError

MIN_AREA = 1e-9
"""Faces below this area are dropped [m2]; they carry no contact and no picture."""
GAP = 2e-5
"""How far parts that only touch in a point or a third edge are pulled apart [m]."""


@dataclass(frozen=True)
class CleanMesh:
    """Result of :func:`clean`."""

    points: np.ndarray
    """(P, 3) float32 [m]; every point is used."""
    faces: np.ndarray
    """(G, 3) int32 into points."""
    source_vertex: np.ndarray
    """(P,) a vertex of the input at this point (its uv holds here too)."""
    source_face: np.ndarray
    """(G,) face of the input."""

    def normals(self) -> np.ndarray:
        """Return (P, 3) float32 unit normals, area-weighted over the faces at each point."""
        corners = self.points.astype(np.float64)[self.faces]
        face = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        total = np.stack([np.bincount(self.faces.ravel(), np.repeat(face[:, k], 3), len(self.points)) for k in range(3)], 1)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        # Where faces cancel (a fold), any of them is as good as another.
        any_face = np.zeros_like(total)
        any_face[self.faces.ravel()] = np.repeat(face / np.linalg.norm(face, axis=1, keepdims=True), 3, 0)
        return np.where(length > 1e-12, total / np.maximum(length, 1e-12), any_face).astype(np.float32)


def clean(vertices: np.ndarray, faces: np.ndarray, *, attributes: np.ndarray | None = None, where: str = "mesh") -> CleanMesh:
    """Weld equal vertices, drop empty and double faces, and split what is not a two-manifold.

    Vertices (V, 3) [m] are equal when all their numbers are, attributes (V, A) included. Where more than two faces share an
    edge, neighbours are wound against each other, or fans touch in a point only, the fans get points of their own, 0.02 mm
    apart: validators ask for two-manifolds without equal points, and a physics engine does not see the gap.

    Raises:
        InputError: a number is not finite or an index out of range; native code behind this gate would crash on them.
    """
    if not np.isfinite(vertices).all():
        raise InputError(f"{where}: vertices: got NaN or infinite numbers")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise InputError(f"{where}: faces: got indices {faces.min()}..{faces.max()}, expected 0..{len(vertices) - 1}")
    # -0.0 equals 0.0 to a validator, not to np.unique on rows of bytes.
    rows = np.asarray(vertices, np.float32) + np.float32(0)
    key = rows if attributes is None else np.concatenate([rows, np.asarray(attributes, np.float32) + np.float32(0)], 1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    welded, source = inverse.reshape(-1)[faces], first
    kept = _proper_faces(rows[source], welded)
    welded = welded[kept]
    fan = _fans(welded)
    points, new_faces, source = _split(rows, source, welded, fan)
    return CleanMesh(points, new_faces, source, kept)


def _proper_faces(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the indices of faces with an area, the first of each set of equal ones (same three vertices, any order)."""
    corners = points.astype(np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    rows = np.flatnonzero(area > MIN_AREA)
    _, first = np.unique(np.sort(faces[rows], 1), axis=0, return_index=True)
    return rows[np.sort(first)]


def _fans(faces: np.ndarray) -> np.ndarray:
    """Return (3 F,) a number per face corner, equal for corners that stay one point."""
    count = len(faces)
    alone = np.zeros(count, bool)
    while True:
        fan = _join_corners(faces, alone)
        bad = _bad_faces(fan.reshape(-1, 3))
        if not (bad & ~alone).any():
            return fan
        # A sheet that meets itself around both ends of an edge cannot be split there alone: its faces stand on their own.
        alone |= bad


def _half_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (E,) edge id per half edge, (E,) whether it runs upwards, and (K,) half edges per edge; half edge 3 f + k runs
    from corner k to corner k + 1."""
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    low, high = np.minimum(start, end).astype(np.int64), np.maximum(start, end)
    _, edge, count = np.unique(low * (faces.max(initial=0) + 1) + high, return_inverse=True, return_counts=True)
    return edge, start < end, count


def _join_corners(faces: np.ndarray, alone: np.ndarray) -> np.ndarray:
    edge, upward, count = _half_edges(faces)
    order = np.argsort(edge, kind="stable")
    begin = np.concatenate([[0], np.cumsum(count)[:-1]])[count == 2]
    a, b = order[begin], order[begin + 1]
    good = (upward[a] != upward[b]) & ~alone[a // 3] & ~alone[b // 3]
    a, b = a[good], b[good]
    after = lambda half: half // 3 * 3 + (half + 1) % 3  # noqa: E731
    # The two half edges run against each other: the start of one is the end of the other.
    left, right = np.concatenate([a, after(a)]), np.concatenate([after(b), b])
    size = faces.size
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def _bad_faces(faces: np.ndarray) -> np.ndarray:
    edge, upward, count = _half_edges(faces)
    turns = np.bincount(edge, upward, len(count))
    bad = (count > 2) | ((count == 2) & (turns != 1))
    return bad[edge].reshape(-1, 3).any(1)


def _split(rows: np.ndarray, source: np.ndarray, faces: np.ndarray, fan: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    corner = faces.reshape(-1)
    _, first, inverse = np.unique(fan, return_index=True, return_inverse=True)
    vertex = corner[first]
    # Rank of a fan among those of its vertex, in the order of the faces; the first stays where it is.
    order = np.lexsort((first, vertex))
    new_group = np.concatenate([[True], np.diff(vertex[order]) > 0]) if len(order) else np.zeros(0, bool)
    starts = np.maximum.accumulate(np.where(new_group, np.arange(len(order)), 0))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts
    points = rows[source[vertex]].astype(np.float64)
    centre = rows[source[faces]].astype(np.float64).mean(1)
    inward = np.stack([np.bincount(inverse, np.repeat(centre[:, k], 3), len(first)) for k in range(3)], 1)
    inward = inward / np.bincount(inverse, minlength=len(first))[:, None] - points
    inward /= np.maximum(np.linalg.norm(inward, axis=1, keepdims=True), 1e-12)
    points += inward * (GAP * rank)[:, None]
    return points.astype(np.float32), inverse.reshape(-1, 3).astype(np.int32), source[vertex]
