"""What the edges of a mesh say: holes, edges and vertices that no solid has, pieces, windings that disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Hole:
    """One loop of open edges."""

    perimeter: float
    """[m]"""
    center: np.ndarray
    """(3,) [m]."""
    size: np.ndarray
    """(3,) extent of its bounding box [m]."""
    edges: int


@dataclass(frozen=True)
class Edges:
    """Counts over the edges of a mesh whose equal vertices are one."""

    open: np.ndarray
    """(E, 2) int64 directed edges of exactly one face."""
    non_manifold: int
    """Edges of three faces or more."""
    disagreeing: int
    """Edges whose two faces run along them in the same direction."""
    fans: int
    """Vertices where several surfaces meet in one point."""
    piece: np.ndarray
    """(F,) int64 connected piece of each face, across edges."""


def merge_equal(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return faces (F, 3) int64 in which vertices at exactly the same place are the first of them: seams of textures close."""
    _, first, same = np.unique(vertices + 0.0, axis=0, return_index=True, return_inverse=True)
    return first[same.reshape(-1)][faces.astype(np.int64)]


def read_edges(faces: np.ndarray) -> Edges:
    """Count what the edges of faces (F, 3) say; faces have three different vertices."""
    tail, head = faces.reshape(-1).astype(np.int64), faces[:, [1, 2, 0]].reshape(-1).astype(np.int64)
    key = np.minimum(tail, head) * (int(faces.max(initial=0)) + 1) + np.maximum(tail, head)
    order = np.argsort(key, kind="stable")
    _, start, count = np.unique(key[order], return_index=True, return_counts=True)
    single = order[start[count == 1]]
    left, right = order[start[count == 2]], order[start[count == 2] + 1]
    # Faces around an edge in a row: first with second, second with third ... joins all of them.
    inner = np.flatnonzero(np.diff(key[order]) == 0)
    a, b = order[inner], order[inner + 1]
    graph = coo_array((np.ones(len(a), np.int8), (a // 3, b // 3)), (len(faces),) * 2)
    piece = connected_components(graph, directed=False)[1] if len(faces) else np.zeros(0, np.int64)
    return Edges(np.stack([tail[single], head[single]], 1), int((count > 2).sum()), int((tail[left] == tail[right]).sum()),
                 _fans(faces, a, b), piece.astype(np.int64))


def _fans(faces: np.ndarray, a: np.ndarray, b: np.ndarray) -> int:
    """Count vertices whose faces are not all joined by edges at that vertex. a, b: half-edges 3 * face + i on the same edge."""
    if not len(faces):
        return 0
    flat = faces.reshape(-1)

    def corner(half: np.ndarray, other: bool) -> np.ndarray:
        return half // 3 * 3 + (half % 3 + other) % 3

    same = flat[corner(a, False)] == flat[corner(b, False)]
    rows = np.concatenate([corner(a, False), corner(a, True)])
    cols = np.concatenate([np.where(same, corner(b, False), corner(b, True)), np.where(same, corner(b, True), corner(b, False))])
    group = connected_components(coo_array((np.ones(len(rows), np.int8), (rows, cols)), (len(flat),) * 2), directed=False)[1]
    pairs = np.unique(np.stack([flat, group], 1), axis=0)
    return int((np.bincount(pairs[:, 0]) > 1).sum())


def closed_faces(faces: np.ndarray) -> np.ndarray:
    """Return which faces (F,) bool belong to a piece without open edges."""
    edges = read_edges(faces)
    names = np.unique(edges.open)
    rim = np.zeros(int(faces.max(initial=0)) + 1, bool)
    rim[names] = True
    # An open edge's face is the one with both of its vertices; a piece that only touches a rim there is rare and counted open.
    touched = (rim[faces].sum(1) >= 2).astype(float)
    return np.bincount(edges.piece, touched)[edges.piece] == 0


def holes_of(vertices: np.ndarray, open_edges: np.ndarray) -> list[Hole]:
    """Return the loops of open edges (E, 2), longest first; loops that touch in a vertex count as one."""
    if not len(open_edges):
        return []
    names, local = np.unique(open_edges, return_inverse=True)
    local = local.reshape(-1, 2)
    graph = coo_array((np.ones(len(local), np.int8), (local[:, 0], local[:, 1])), (len(names),) * 2)
    loops, loop = connected_components(graph, directed=False)
    length = np.linalg.norm(vertices[open_edges[:, 0]] - vertices[open_edges[:, 1]], axis=1)
    edge_loop = loop[local[:, 0]]
    perimeter, edges = np.bincount(edge_loop, length, loops), np.bincount(edge_loop, minlength=loops)
    low, high = np.full((loops, 3), np.inf), np.full((loops, 3), -np.inf)
    np.minimum.at(low, loop, vertices[names])
    np.maximum.at(high, loop, vertices[names])
    order = np.argsort(-perimeter, kind="stable")
    return [Hole(float(perimeter[i]), (low[i] + high[i]) / 2, high[i] - low[i], int(edges[i])) for i in order]
