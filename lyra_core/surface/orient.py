"""Wind triangles towards free space: an inverted floor lets robots fall through, and no validator notices."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from lyra_core.rays.base import RayTracer, make_ray_tracer

ROUNDS = 3
"""Rounds of looking: from the viewpoints, then from free points before the surfaces seen so far."""
EYES = 48
"""Points looked from in one round, spread over those given."""
VOTERS = 1000
"""Faces of one piece that are looked at, spread over the piece."""
_RAYS = 1 << 20


def orient_to_free_space(vertices: np.ndarray, faces: np.ndarray, viewpoints: np.ndarray) -> np.ndarray:
    """Return faces (F, 3) int32, counter-clockwise seen from free space.

    Each connected piece is first wound consistently across its edges, then turned as a whole towards where it is seen
    from: viewpoints (M, 3) [m] in free space, then points in front of the surfaces already seen. A closed piece that
    nothing sees is turned outwards; an open one keeps its winding.
    """
    faces = np.ascontiguousarray(faces, np.int32)
    if not len(faces):
        return faces
    piece, flip = consistent_winding(faces)
    faces = _flipped(faces, flip)
    tracer = make_ray_tracer(vertices.astype(np.float32), faces)
    corners = vertices[faces].astype(np.float64)
    centers = corners.mean(1)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    votes = np.zeros(piece.max() + 1)
    decided = np.zeros(len(votes), bool)
    voter = _spread_per_piece(piece)
    eyes = _spread(np.atleast_2d(np.asarray(viewpoints, np.float64)))
    for _ in range(ROUNDS):
        fresh, seen = _look(tracer, eyes, centers, normals, voter & ~decided[piece])
        votes += np.bincount(piece, fresh, len(votes))
        decided |= np.bincount(piece, seen, len(votes)) > 0
        if decided.all():
            break
        pick = _spread(np.flatnonzero(decided[piece]))
        if not len(pick):
            break
        side = np.sign(votes[piece[pick]])[:, None]
        unit = normals[pick] / np.maximum(np.linalg.norm(normals[pick], axis=1, keepdims=True), 1e-12)
        eyes = centers[pick] + 0.1 * side * unit
    volume = np.bincount(piece, (centers * normals).sum(1), len(votes))
    turn = np.where(decided, votes < 0, (volume < 0) & _closed(faces, piece))
    return _flipped(faces, turn[piece])


def consistent_winding(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the connected piece of each face (F,) and which faces to flip so that neighbours agree (F,) bool.

    Faces are neighbours across an edge that exactly two faces share.
    """
    a, b, agree = _neighbours(faces)
    count = len(faces)
    graph = coo_array((np.ones(2 * len(a), np.int8), (np.concatenate([a, b]), np.concatenate([b, a]))), (count, count)).tocsr()
    pieces, piece = connected_components(graph, directed=False)
    # One root joined to the first face of every piece makes a single breadth-first tree.
    first = np.unique(piece, return_index=True)[1]
    a, b = np.concatenate([a, np.full(pieces, count)]), np.concatenate([b, first])
    agree = np.concatenate([agree, np.ones(pieces, bool)])
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), (count + 1, count + 1)).tocsr()
    _, parent = breadth_first_order(graph, count, directed=False)
    parent[count] = count
    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b)
    names = low * (count + 1) + high
    order = np.argsort(names, kind="stable")
    nodes = np.arange(count + 1, dtype=np.int64)
    link = np.minimum(nodes, parent) * (count + 1) + np.maximum(nodes, parent)
    flip = ~agree[order][np.minimum(np.searchsorted(names[order], link), len(order) - 1)]
    flip[count] = False
    while (parent != count).any():  # pointer jumping: parity along the path to the root
        flip, parent = flip ^ flip[parent], parent[parent]
    return piece, flip[:count]


def _neighbours(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs of faces across shared edges, and whether both run the edge in opposite directions (as they should)."""
    tail, head = faces.reshape(-1).astype(np.int64), faces[:, [1, 2, 0]].reshape(-1).astype(np.int64)
    key = np.minimum(tail, head) * (faces.max() + 1) + np.maximum(tail, head)
    order = np.argsort(key, kind="stable")
    _, start, count = np.unique(key[order], return_index=True, return_counts=True)
    left, right = order[start[count == 2]], order[start[count == 2] + 1]
    keep = left // 3 != right // 3
    left, right = left[keep], right[keep]
    return left // 3, right // 3, tail[left] != tail[right]


def _closed(faces: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Return for each piece whether every edge has two faces."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1).astype(np.int64)
    key = edges[:, 0] * (faces.max() + 1) + edges[:, 1]
    _, same, count = np.unique(key, return_inverse=True, return_counts=True)
    return np.bincount(np.repeat(piece, 3), count[same] != 2, piece.max() + 1) == 0


def _spread(rows: np.ndarray) -> np.ndarray:
    """Return at most EYES rows, evenly spread."""
    return rows[np.linspace(0, len(rows) - 1, min(EYES, len(rows))).astype(int)]


def _spread_per_piece(piece: np.ndarray) -> np.ndarray:
    """Return which faces (F,) bool vote: about VOTERS of each piece at most."""
    order, count = np.argsort(piece, kind="stable"), np.bincount(piece)
    rank = np.arange(len(piece)) - np.repeat(np.cumsum(count) - count, count)
    out = np.zeros(len(piece), bool)
    out[order] = rank % np.repeat(-(-count // VOTERS), count) == 0
    return out


def _flipped(faces: np.ndarray, flip: np.ndarray) -> np.ndarray:
    return np.where(flip[:, None], faces[:, [0, 2, 1]], faces)


def _look(tracer: RayTracer, eyes: np.ndarray, centers: np.ndarray, normals: np.ndarray,
          wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cast rays from eyes at face centres; return per face the signed area seen (positive = front) and how often it was seen."""
    rows = np.flatnonzero(wanted)
    votes, seen = np.zeros(len(centers)), np.zeros(len(centers))
    step = max(1, _RAYS // max(len(rows), 1))
    for start in range(0, len(eyes), step):
        block = eyes[start:start + step]
        target = np.tile(rows, len(block))
        origin = np.repeat(block, len(rows), axis=0)
        direction = centers[target] - origin
        hit = tracer.cast(origin.astype(np.float32), direction.astype(np.float32)).face == target
        target, direction = target[hit], direction[hit]
        flux = -(normals[target] * direction).sum(1) / np.maximum(np.linalg.norm(direction, axis=1), 1e-9)
        votes += np.bincount(target, flux, len(centers))
        seen += np.bincount(target, minlength=len(centers))
    return votes, seen
