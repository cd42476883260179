"""Colliders as convex pieces, for engines that collide with convex shapes only: solid walls and floors, never the hull of a room.

A closed part becomes the box or the hull that it is, to within TOLERANCE, component by component. Everything else is cut into flat
patches; each patch becomes a slab behind its surface, as thick as the space behind it allows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError

from lyra_core.exports.boxes import TOLERANCE, Box, Hull, fit_box, join_boxes, volume
from lyra_core.exports.patches import Patch, flat_patches
from lyra_core.io.meshes import merge_parts
from lyra_core.rays import make_ray_tracer
from lyra_core.types import CollisionPart

THINNEST, THICKEST = 0.02, 0.1
"""Of a slab [m]."""
SIMPLIFY = 0.015
"""Error of a simplified part [m]; with what a patch may be uneven it stays below TOLERANCE."""
MAX_FACES = 4000
"""A part of more triangles that is not made of boxes is simplified first."""
START = 2e-4
"""How far behind a surface a ray starts [m]."""
_WELD = 1e-5


def convex_pieces(parts: Sequence[CollisionPart]) -> list[tuple[CollisionPart, list[Box | Hull]]]:
    """Return each part with the solid convex pieces that stand for it."""
    solids: list[list[Box | Hull]] = []
    patches: list[list[Patch]] = []
    for part in parts:
        whole, rest = _whole_pieces(part)
        solids.append(whole)
        patches.append(flat_patches(*rest) if len(rest[1]) else [])
    slabs = iter(_slabs([patch for some in patches for patch in some], parts))
    return [(part, [*whole, *(next(slabs) for _ in some)]) for part, whole, some in zip(parts, solids, patches, strict=True)]


def welded(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mesh with vertices at one place joined, without the faces that vanish by it."""
    _, first, inverse = np.unique(np.rint(vertices.astype(np.float64) / _WELD), axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    kept = (faces != np.roll(faces, 1, 1)).all(1)
    return vertices[first].astype(np.float64), faces[kept].astype(np.int64)


def _whole_pieces(part: CollisionPart) -> tuple[list[Box | Hull], tuple[np.ndarray, np.ndarray]]:
    """Return pieces for the closed components that are convex, and the mesh that is left."""
    vertices, faces = part.vertices.astype(np.float64), part.faces.astype(np.int64)
    rest_faces: list[np.ndarray] = []
    boxes: list[Box] = []
    hulls: list[Box | Hull] = []
    for rows in _components(faces):
        used, own = np.unique(faces[rows], return_inverse=True)
        own = own.reshape(-1, 3)
        piece = _solid(vertices[used], own) if _is_closed(own) else _solid(*welded(vertices[used], own))
        if piece is None:
            rest_faces.append(faces[rows])
        elif isinstance(piece, Box):
            boxes.append(piece)
        else:
            hulls.append(piece)
    rest = np.concatenate(rest_faces) if rest_faces else np.zeros((0, 3), np.int64)
    return [*join_boxes(boxes), *hulls], _lighter(*welded(vertices, rest)) if len(rest) else (vertices, rest)


def _components(faces: np.ndarray) -> list[np.ndarray]:
    """Return the faces of each set that hangs together by its vertices."""
    size = int(faces.max()) + 1
    start, end = faces[:, :2].T.reshape(-1), np.concatenate([faces[:, 1], faces[:, 2]])
    graph = coo_matrix((np.ones(len(start), bool), (start, end)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][faces[:, 0]]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _solid(vertices: np.ndarray, faces: np.ndarray) -> Box | Hull | None:
    """Return a box or a hull within TOLERANCE of a mesh, None where it is open or has no such stand-in."""
    if len(faces) < 4 or not _is_closed(faces) or volume(vertices, faces) <= 0:
        return None
    samples = _samples(vertices, faces)
    box = fit_box(vertices, faces, samples)
    if box is not None:
        return box
    try:
        hull = ConvexHull(vertices)
    except QhullError:
        return None
    depth = -(samples @ hull.equations[:, :3].T + hull.equations[:, 3]).max(1)
    convex = depth.max() <= TOLERANCE and hull.volume - volume(vertices, faces) <= TOLERANCE * hull.area
    return Hull(vertices[hull.vertices]) if convex else None


def _is_closed(faces: np.ndarray) -> bool:
    """Tell whether every edge has two faces that run it in opposite directions."""
    start, end = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    size = int(faces.max()) + 1
    ahead, back = np.sort(start * size + end), np.sort(end * size + start)
    return bool((ahead == back).all() and (np.diff(ahead) > 0).all())


def _samples(vertices: np.ndarray, faces: np.ndarray, *, steps: int = 6) -> np.ndarray:
    """Return points on every face (M, 3): its corners and a grid of barycentric coordinates."""
    i, j = np.mgrid[0:steps + 1, 0:steps + 1].reshape(2, -1)
    inside = i + j <= steps
    weights = np.stack([steps - i - j, i, j], 1)[inside] / steps
    chosen = faces if len(faces) < 3000 else faces[::len(faces) // 3000 + 1]
    return np.concatenate([vertices, (weights @ vertices[chosen]).reshape(-1, 3)])


def _lighter(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(faces) <= MAX_FACES:
        return vertices, faces
    from lyra_core.surface.simplify import simplify

    few = simplify(vertices.astype(np.float32), faces.astype(np.int32), max_faces=10 * MAX_FACES, tolerance=SIMPLIFY)
    return welded(few.vertices, few.faces)


def _slabs(patches: list[Patch], parts: Sequence[CollisionPart]) -> list[Box | Hull]:
    """Give every patch the thickness that fits behind it: a slab must not look out of the next surface."""
    if not patches:
        return []
    samples = [patch.samples() for patch in patches]
    owner = np.repeat(np.arange(len(patches)), [len(rows) for rows in samples])
    room = np.full(len(patches), np.inf)
    np.minimum.at(room, owner, _room_behind(np.concatenate(samples), np.array([p.normal for p in patches])[owner], parts))
    return [patch.slab(float(np.clip(0.9 * gap, THINNEST, THICKEST))) for patch, gap in zip(patches, room, strict=True)]


def _room_behind(points: np.ndarray, normals: np.ndarray, parts: Sequence[CollisionPart]) -> np.ndarray:
    """Return how far it is from points (N, 3), which lie on colliders, to the next surface behind them (N,) [m]; inf = nothing."""
    vertices, faces = merge_parts(parts)
    tracer = make_ray_tracer(vertices, faces)
    corners = vertices[faces].astype(np.float64)
    front = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    behind = -normals.astype(np.float32)
    hits = tracer.cast((points - START * normals).astype(np.float32), behind)
    distance = hits.t.astype(np.float64) + START
    # A patch is a little uneven or simplified, so that a ray may still meet its own surface, from the front: it goes on behind it.
    own = np.flatnonzero((hits.face >= 0) & (distance < TOLERANCE) & ((front[hits.face] * normals).sum(1) > 0))
    if len(own):
        past = distance[own] + START
        further = tracer.cast((points[own] - past[:, None] * normals[own]).astype(np.float32), behind[own])
        distance[own] = past + further.t
    return distance
