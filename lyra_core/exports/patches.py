"""Flat patches of a triangle surface as rectangles where they are made of right angles, else as convex polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lyra_core.exports.boxes import Box, Hull

BEND = np.cos(np.radians(1.0))
"""Neighbours that turn by less than one degree may be of one patch."""
UNEVEN = 0.004
"""Largest distance of a patch's points from its plane [m]."""
MAX_GRID = 400
"""Lines of a patch's grid; a patch of more is cut into polygons."""
NARROWEST = 1e-4
"""Narrower patches are left out [m]: a hull over one has no volume to speak of, and nothing fits through the gap."""
_SNAP = 1e-3


@dataclass(frozen=True)
class Patch:
    """A convex piece of a plane."""

    points: np.ndarray
    """(N, 3) float64 corners [m], counter-clockwise seen from free space."""
    normal: np.ndarray
    """(3,) towards free space."""
    sides: np.ndarray | None = None
    """(3, 2) unit vectors along a rectangle's sides; None = a polygon."""

    def width(self) -> float:
        """Return about how wide the patch is across its longest line [m]."""
        edge = self.points - self.points[0]
        area = np.linalg.norm(np.cross(edge[1:-1], edge[2:]), axis=1).sum() / 2
        return float(area / max(np.linalg.norm(np.ptp(self.points, axis=0)), 1e-12))

    def samples(self) -> np.ndarray:
        """Return points (M, 3) all over the patch, a little inside its border."""
        middle = self.points.mean(0)
        inner = middle + 0.98 * (self.points - middle)
        if self.sides is not None:
            s, t = np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9))
            return inner[0] + s.reshape(-1, 1) * (inner[1] - inner[0]) + t.reshape(-1, 1) * (inner[3] - inner[0])
        halfway = (inner + np.roll(inner, 1, 0)) / 2
        return np.concatenate([middle[None], inner, halfway, (middle + inner) / 2])

    def slab(self, thickness: float) -> Box | Hull:
        """Return the solid of this thickness [m] behind the patch."""
        if self.sides is None:
            return Hull(np.concatenate([self.points, self.points - thickness * self.normal]))
        lengths = np.linalg.norm(self.points[[1, 3]] - self.points[0], axis=1)
        half = np.array([*lengths, thickness]) / 2
        axes = np.concatenate([self.sides, self.normal[:, None]], 1)
        return Box(self.points.mean(0) - thickness / 2 * self.normal, axes, half)


def flat_patches(vertices: np.ndarray, faces: np.ndarray) -> list[Patch]:
    """Cut a mesh (V, 3) [m], (F, 3), whose equal vertices are joined, into patches."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    proper = length > 1e-10
    faces, corners, normal, length = faces[proper], corners[proper], normal[proper], length[proper]
    unit = normal / length[:, None]
    out: list[Patch] = []
    for rows in _flat_groups(faces, unit):
        mean = normal[rows].sum(0)
        mean /= np.linalg.norm(mean)
        place = corners[rows].reshape(-1, 3)
        height = (place - place.mean(0)) @ mean
        if len(rows) == 1 or height.max() - height.min() > UNEVEN or (unit[rows] @ mean).min() < BEND:
            out += [Patch(corners[row], unit[row]) for row in rows]
        else:
            out += _rectangles(vertices, faces[rows], mean) or _polygons(vertices, faces[rows], mean)
    return [patch for patch in out if patch.width() >= NARROWEST]


def _flat_groups(faces: np.ndarray, unit: np.ndarray) -> list[np.ndarray]:
    """Return the faces of each set of neighbours that look nearly the same way."""
    if not len(faces):
        return []
    size = np.int64(faces.max()) + 1
    edge = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    key = edge[:, 0] * size + edge[:, 1]
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    a, b = order[same] // 3, order[same + 1] // 3
    flat = (unit[a] * unit[b]).sum(1) >= BEND
    graph = coo_matrix((np.ones(flat.sum(), bool), (a[flat], b[flat])), shape=(len(faces), len(faces)))
    label = connected_components(graph, directed=False)[1]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _rectangles(vertices: np.ndarray, faces: np.ndarray, normal: np.ndarray) -> list[Patch]:
    """Cover triangles of a plane by rectangles, exactly; [] where their outline has other than right angles."""
    edge = np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2)
    _, index, count = np.unique(np.sort(edge, 1), axis=0, return_inverse=True, return_counts=True)
    rim = edge[count[index.reshape(-1)] == 1]
    if not len(rim):
        return []
    step = vertices[rim[:, 1]] - vertices[rim[:, 0]]
    step -= (step @ normal)[:, None] * normal
    along = step[np.linalg.norm(step, axis=1).argmax()]
    along = along / np.linalg.norm(along)
    sides = np.stack([along, np.cross(normal, along)], 1)
    if np.abs(step @ sides).min(1).max() > _SNAP:
        return []
    corners = vertices[faces]
    origin = corners.reshape(-1, 3).mean(0)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    found = _grid_cover((corners - origin) @ sides, float(area)) or []
    return [_rectangle(low, high, origin, sides, normal) for low, high in found]


def _rectangle(low: np.ndarray, high: np.ndarray, origin: np.ndarray, sides: np.ndarray, normal: np.ndarray) -> Patch:
    flat = np.array([low, [high[0], low[1]], high, [low[0], high[1]]])
    return Patch(origin + flat @ sides.T, normal, sides)


def _grid_cover(triangles: np.ndarray, area: float) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return (low, high) of rectangles that fill the same region as triangles (T, 3, 2), None where none do."""
    lines = [_lines(triangles[..., k].ravel()) for k in (0, 1)]
    if max(len(line) for line in lines) > MAX_GRID or len(lines[0]) * len(lines[1]) * len(triangles) > 20_000_000:
        return None
    middle = np.stack(np.meshgrid(*[(line[1:] + line[:-1]) / 2 for line in lines], indexing="ij"), -1)
    inside = np.zeros(middle.shape[:2], bool)
    for a, b, c in triangles:
        turn = [_cross(q - p, middle - p) for p, q in ((a, b), (b, c), (c, a))]
        inside |= np.logical_and.reduce([side >= -1e-9 for side in turn])
    cell = np.diff(lines[0])[:, None] * np.diff(lines[1])[None]
    if abs(float(cell[inside].sum()) - area) > 1e-3 * area + 1e-6:
        return None
    return [(np.array([lines[0][i0], lines[1][j0]]), np.array([lines[0][i1], lines[1][j1]])) for i0, i1, j0, j1 in _runs(inside)]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _lines(values: np.ndarray) -> np.ndarray:
    """Return sorted values without those nearer than _SNAP to the one before."""
    values = np.sort(values)
    return values[np.concatenate([[True], np.diff(values) > _SNAP])]


def _runs(inside: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Cover the True cells of a grid by rectangles (i0, i1, j0, j1), greedily: as long as can be, then as wide."""
    left, out = inside.copy(), []
    for i, j in np.argwhere(inside):
        if not left[i, j]:
            continue
        j1 = j + 1
        while j1 < left.shape[1] and left[i, j1]:
            j1 += 1
        i1 = i + 1
        while i1 < left.shape[0] and left[i1, j:j1].all():
            i1 += 1
        left[i:i1, j:j1] = False
        out.append((int(i), int(i1), int(j), int(j1)))
    return out


def _polygons(vertices: np.ndarray, faces: np.ndarray, normal: np.ndarray) -> list[Patch]:
    """Join triangles of a plane to convex polygons, edge by edge (Hertel and Mehlhorn 1983)."""
    loops = {i: list(face) for i, face in enumerate(faces.tolist())}
    owner = {(a, b): i for i, loop in loops.items() for a, b in zip(loop, loop[1:] + loop[:1], strict=True)}
    for a, b in sorted(edge for edge in owner if edge[0] < edge[1] and edge[::-1] in owner):
        one, two = owner[a, b], owner[b, a]
        if one == two:
            continue
        merged = _merged(loops[one], loops[two], a, b)
        if len(set(merged)) < len(merged) or not _is_convex(vertices[merged], normal):
            continue
        loops[one] = merged
        del loops[two]
        for edge in zip(merged, merged[1:] + merged[:1], strict=True):
            owner[edge] = one
    return [Patch(vertices[loop], normal) for loop in loops.values()]


def _merged(one: list[int], two: list[int], a: int, b: int) -> list[int]:
    """Join two loops along the edge that runs a -> b in the first and b -> a in the second."""
    i, j = one.index(b), two.index(a)
    return [*(one[i:] + one[:i]), *(two[j:] + two[:j])[1:-1]]


def _is_convex(loop: np.ndarray, normal: np.ndarray) -> bool:
    step = np.roll(loop, -1, 0) - loop
    return bool((np.cross(step, np.roll(step, -1, 0)) @ normal >= -1e-9).all())
