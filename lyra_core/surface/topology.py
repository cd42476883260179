"""Pieces of a mesh and neighbours of its faces."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from lyra_core.surface.gravity import face_geometry

SMALLEST_PIECE = 0.02
"""Separate pieces of a fused surface below this float, mostly [m2]."""


def face_adjacency(faces: np.ndarray) -> csr_array:
    """Return the symmetric (F, F) 0/1 graph of faces that share an edge with exactly one other face."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    key = edges[:, 0] * (int(faces.max(initial=0)) + 1) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    _, start, count = np.unique(key[order], return_index=True, return_counts=True)
    a, b = order[start[count == 2]] // 3, order[start[count == 2] + 1] // 3
    ones = np.ones(2 * len(a), np.float32)
    return coo_array((ones, (np.concatenate([a, b]), np.concatenate([b, a]))), (len(faces), len(faces))).tocsr()


def face_pieces(adjacency: csr_array, group: np.ndarray) -> np.ndarray:
    """Return the connected piece of each face (F,) where only faces of the same group (F,) connect; numbered by first face."""
    pairs = adjacency.tocoo()
    same = group[pairs.row] == group[pairs.col]
    graph = coo_array((np.ones(same.sum(), np.int8), (pairs.row[same], pairs.col[same])), adjacency.shape)
    return connected_components(graph, directed=False)[1]


def drop_small_pieces(vertices: np.ndarray, faces: np.ndarray, *, min_area: float) -> tuple[np.ndarray, int]:
    """Return faces without the pieces (connected by vertices) below min_area [m2], and how many pieces went.

    The largest piece always stays.
    """
    if not len(faces):
        return faces, 0
    a, b = faces[:, [0, 1]].reshape(-1), faces[:, [1, 2]].reshape(-1)
    piece = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), (len(vertices),) * 2), directed=False)[1]
    area = np.bincount(piece[faces[:, 0]], face_geometry(vertices, faces)[1])
    keep = (area >= min_area) | (np.arange(len(area)) == np.argmax(area))
    return faces[keep[piece[faces[:, 0]]]], int((~keep & (area > 0)).sum())
