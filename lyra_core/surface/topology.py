"""Pieces of a mesh, neighbours of its faces, and coarser versions of it."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from lyra_core.surface.gravity import face_geometry


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


def cluster_vertices(vertices: np.ndarray, faces: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Merge the vertices of each grid cell at the point nearest to their faces' planes (Lindstrom 2000).

    Returns:
        vertices (W, 3) float32, faces (G, 3) int32 without collapsed ones.
    """
    corner = np.floor(vertices.astype(np.float64) / cell).astype(np.int64)
    _, target = np.unique(corner, axis=0, return_inverse=True)
    target = target.reshape(-1)
    count = int(target.max()) + 1
    normals, areas, centers = face_geometry(vertices, faces)
    owner = target[faces].reshape(-1)
    mean = np.stack([np.bincount(target, vertices[:, i].astype(np.float64), count) for i in range(3)], 1)
    mean /= np.bincount(target, minlength=count)[:, None]
    n, w = np.repeat(normals, 3, 0), np.repeat(areas, 3)
    offset = (n * (np.repeat(centers, 3, 0) - mean[owner])).sum(1)
    A = np.stack([[np.bincount(owner, w * n[:, i] * n[:, j], count) for j in range(3)] for i in range(3)]).transpose(2, 0, 1)
    b = np.stack([np.bincount(owner, w * offset * n[:, i], count) for i in range(3)], 1)
    # A little of the identity keeps the point near the mean where the planes leave it free.
    A += (1e-3 * np.trace(A, axis1=1, axis2=2) + 1e-12)[:, None, None] * np.eye(3)
    shift = np.linalg.solve(A, b[..., None])[..., 0]
    length = np.linalg.norm(shift, axis=1, keepdims=True)
    merged = mean + shift * np.minimum(1, cell / np.maximum(length, 1e-12))
    new = target[faces]
    whole = (new[:, 0] != new[:, 1]) & (new[:, 1] != new[:, 2]) & (new[:, 2] != new[:, 0])
    return merged.astype(np.float32), new[whole].astype(np.int32)


def simplify(vertices: np.ndarray, faces: np.ndarray, *, max_faces: int, cell: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a mesh of at most max_faces and the cell it was clustered with [m], at least the given one; 0 = unchanged."""
    used = 0.0
    fine = vertices, faces
    while len(faces) > max_faces:
        used = cell if used == 0 else used * max(1.1, float(np.sqrt(len(faces) / max_faces)))
        vertices, faces = cluster_vertices(*fine, used)
    return vertices, faces, used
