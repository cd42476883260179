"""Clean a triangle mesh before any native library sees it: bad indices and NaN crash several of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lyra_core.errors import InputError


@dataclass(frozen=True)
class SanitizeReport:
    """How many elements were removed, by reason."""

    not_finite: int
    """Vertices with NaN or infinite coordinates."""
    bad_index: int
    """Faces that point outside the vertex array."""
    bad_vertex: int
    """Faces at a vertex that is not finite."""
    welded: int
    """Vertices merged into another one."""
    degenerate: int
    """Faces without area."""
    duplicate: int
    """Faces over the same three vertices as an earlier one, whatever the winding."""
    unreferenced: int
    """Vertices that no face uses (those that are not finite are counted above)."""

    @property
    def clean(self) -> bool:
        """Nothing was removed."""
        return not any(vars(self).values())


def sanitize(vertices: np.ndarray, faces: np.ndarray, *, weld: float = 1e-6,
             min_area: float = 1e-12) -> tuple[np.ndarray, np.ndarray, SanitizeReport]:
    """Return vertices (V, 3) float32, faces (F, 3) int32 that are safe for native code, and what was removed.

    weld: vertices nearer than this [m] become one (the lowest index stays). min_area [m2]. The order of what stays is
    kept and coordinates are not changed.

    Raises:
        InputError: the arrays are not (V, 3) numbers and (F, 3) integers.
    """
    vertices, faces = np.asarray(vertices), np.asarray(faces)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        got = f"vertices {vertices.shape} and faces {faces.shape} {faces.dtype}"
        raise InputError(f"mesh: got {got}, expected (V, 3) and (F, 3) integers")
    with np.errstate(over="ignore"):
        vertices = vertices.astype(np.float32)
    finite = np.asarray(np.isfinite(vertices).all(1))
    inside = ((faces >= 0) & (faces < len(vertices))).all(1)
    faces = faces[inside].astype(np.int64)
    whole = finite[faces].all(1)
    faces = faces[whole]

    target = weld_target(vertices, finite, weld)
    faces = target[faces]
    corners = vertices[faces].astype(np.float64)
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    solid = area > min_area
    faces = faces[solid]
    first = np.sort(np.unique(np.sort(faces, axis=1), axis=0, return_index=True)[1])
    report_duplicates = len(faces) - len(first)
    faces = faces[first]

    used = np.zeros(len(vertices), bool)
    used[faces] = True
    welded = int((target != np.arange(len(target))).sum())
    report = SanitizeReport(int((~finite).sum()), int((~inside).sum()), int((~whole).sum()), welded, int((~solid).sum()),
                            report_duplicates, int((finite & ~used).sum()) - welded)
    return vertices[used], (np.cumsum(used) - 1)[faces].astype(np.int32), report


def weld_target(vertices: np.ndarray, finite: np.ndarray, distance: float) -> np.ndarray:
    """Return for each vertex the index of the vertex that stands for it."""
    target = np.arange(len(vertices))
    rows = np.flatnonzero(finite)
    if not len(rows):
        return target
    pairs = cKDTree(vertices[rows]).query_pairs(distance, output_type="ndarray")
    if len(pairs):
        graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (len(rows), len(rows)))
        group = connected_components(graph, directed=False)[1]
        first = np.unique(group, return_index=True)[1]
        target[rows] = rows[first[group]]
    return target
