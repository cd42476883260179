"""Fewer triangles for a stated error: quadric edge collapse (Garland and Heckbert 1997, by the package fast-simplification)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.surface.distance import closest_points

SMALLEST = 500
"""Meshes are not simplified below this many faces."""
_HASTE = (3, 5, 7, 9)
"""Aggressiveness of the collapse, tried in turn: the careful ones are more exact, but may end before the count is reached."""


@dataclass(frozen=True)
class Simplified:
    """A mesh of fewer triangles."""

    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    error: float
    """99.9th percentile of the distance of the given vertices from the new surface [m]; 0 = unchanged."""


def simplify(vertices: np.ndarray, faces: np.ndarray, *, max_faces: int, tolerance: float = 0.0) -> Simplified:
    """Collapse edges as far as the error stays below tolerance [m], and further if more than max_faces are left."""
    unchanged = Simplified(np.asarray(vertices, np.float32), np.asarray(faces, np.int32), 0.0)
    best, count = unchanged, len(faces)
    while tolerance > 0 and count // 2 >= SMALLEST:
        count //= 2
        tried = collapsed(vertices, faces, count)
        if tried.error > tolerance or len(tried.faces) > 1.2 * count:
            break
        best = tried
    return best if len(best.faces) <= max_faces else collapsed(vertices, faces, max_faces)


def collapsed(vertices: np.ndarray, faces: np.ndarray, count: int) -> Simplified:
    """Return a mesh of about count faces with its measured error."""
    import fast_simplification

    if len(faces) <= count:
        return Simplified(np.asarray(vertices, np.float32), np.asarray(faces, np.int32), 0.0)
    points, triangles = np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)
    few, kept = points, triangles
    for haste in _HASTE:
        few, kept = fast_simplification.simplify(points, triangles, target_count=count, agg=haste)  # pyright: ignore
        if len(kept) <= count:
            break
    distance = closest_points(few, kept, vertices[np.unique(faces)]).distance
    return Simplified(np.asarray(few, np.float32), np.asarray(kept, np.int32), float(np.percentile(distance, 99.9)))
