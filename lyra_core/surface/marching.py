"""Marching cubes (Lorensen and Cline 1987) on hexahedra whose corners are any samples, equal ones allowed.

On the dual cells of an octree, whose corners are the centres of the leaves around a grid point, this is dual marching cubes
(Schaefer and Warren 2004): where all leaves are of one size it is plain marching cubes, and between sizes neighbours share the
corners of their common face, so that no crack can open.
"""

from __future__ import annotations

from functools import cache

import numpy as np

CORNERS = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
"""(8, 3) corner c of the unit cube: x is its lowest bit."""
EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1])
"""(12, 2) corners of the cube's edges."""
_EDGE_OF = {(int(a), int(b)): i for i, (a, b) in enumerate(EDGES)} | {(int(b), int(a)): i for i, (a, b) in enumerate(EDGES)}


@cache
def triangle_table() -> tuple[np.ndarray, np.ndarray]:
    """Return for each of the 256 sign patterns (bit c set: corner c is solid) the triangles as edges (256, T, 3), and their count.

    The table is derived, not listed: on every face the crossings are joined so that solid corners stay joined where the face is
    ambiguous, which both cells at the face decide alike; the segments chain up to loops, and each loop becomes a fan. Triangles
    are counter-clockwise seen from the free side.
    """
    rows = [_triangles(pattern) for pattern in range(256)]
    longest = max(len(row) for row in rows)
    table = np.full((256, longest, 3), -1, np.int64)
    for pattern, row in enumerate(rows):
        if row:
            table[pattern, : len(row)] = row
    return table, np.array([len(row) for row in rows])


def _triangles(pattern: int) -> list[tuple[int, int, int]]:
    follow: dict[int, int] = {}
    for face in _faces():
        follow.update(_segments(face, [bool(pattern >> c & 1) for c in face]))
    out = []
    while follow:
        loop = [next(iter(follow))]
        while (after := follow.pop(loop[-1])) != loop[0]:
            loop.append(after)
        out += [(loop[0], loop[i + 1], loop[i]) for i in range(1, len(loop) - 1)]
    return out


def _faces() -> list[list[int]]:
    """Return the corners of the six faces, counter-clockwise seen from outside."""
    faces = []
    for axis in range(3):
        u, v, w = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3, 1 << axis
        faces += [[0, v, u + v, u], [w, w + u, w + u + v, w + v]]
    return faces


def _segments(face: list[int], solid: list[bool]) -> dict[int, int]:
    """Return directed segments between the crossed edges of one face: solid lies left of each, seen from outside.

    Each segment starts on the edge where a walk round the face leaves the solid, and ends where it entered it before: the two
    pieces of an ambiguous face are thus cut around the free corners, and the solid ones stay joined.
    """
    leaving = [i for i in range(4) if solid[i] and not solid[(i + 1) % 4]]
    out = {}
    for i in leaving:
        j = i
        while not (not solid[j % 4] and solid[(j + 1) % 4]):
            j += 1
        j %= 4
        out[_EDGE_OF[face[i], face[(i + 1) % 4]]] = _EDGE_OF[face[j], face[(j + 1) % 4]]
    return out


def march(samples: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate hexahedra whose corners (in the order of CORNERS) are samples.

    Args:
        samples: (N, 8) int64 ids of the corners' samples.
        values: (N, 8) float distances, negative in the solid; equal ids have equal values.

    Returns:
        ends (V, 2) int64: the two samples between which each vertex lies, the smaller first; faces (F, 3) int64 wound towards the
        positive side. Faces that collapse because corners are equal are left out.
    """
    table, counts = triangle_table()
    pattern = ((values < 0) @ (1 << np.arange(8))).astype(np.int64)
    count = counts[pattern]
    cell = np.repeat(np.arange(len(samples)), count)
    index = np.arange(len(cell)) - np.repeat(np.cumsum(count) - count, count)
    edge = table[pattern[cell], index]
    ends = np.sort(samples[cell[:, None, None], EDGES[edge]], axis=2)
    # Ids are below 3e9 (six million blocks), so that a pair fits one int64.
    scale = int(samples.max(initial=0)) + 1
    pairs, name = np.unique(ends[..., 0] * scale + ends[..., 1], return_inverse=True)
    faces = name.reshape(-1, 3)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return np.stack([pairs // scale, pairs % scale], 1), faces[whole]
