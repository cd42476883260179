"""Plane polygons: triangulation, clipping to axis-aligned rectangles, and joining triangle pieces."""

from __future__ import annotations

import numpy as np


def triangulate(corners: np.ndarray) -> np.ndarray:
    """Return (T, 3) indices of counter-clockwise triangles of a simple polygon (K, 2) (ear clipping by mapbox_earcut)."""
    import mapbox_earcut

    faces = mapbox_earcut.triangulate_float64(np.ascontiguousarray(corners, float), np.array([len(corners)], np.uint32))
    faces = np.asarray(faces, np.int64).reshape(-1, 3)
    a, b, c = (corners[faces[:, i]] for i in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    faces = np.where((area < 0)[:, None], faces[:, ::-1], faces)
    return faces[np.abs(area) > 1e-10]


def merged(pieces: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join pieces (vertices (V, 3), faces (F, 3)) to one mesh: vertices (V, 3) float32, faces (F, 3) int32."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in pieces[:-1]])
    faces = np.concatenate([faces + offset for (_, faces), offset in zip(pieces, offsets, strict=True)])
    return np.concatenate([vertices for vertices, _ in pieces]).astype(np.float32), faces.astype(np.int32)


def clip_to_rectangle(triangles: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clip triangles (T, 3, 2) to [low, high] (Sutherland and Hodgman 1974).

    Returns:
        points (P, 2) and faces (F, 3) in the triangles' winding.
    """
    lowest, highest = triangles.min(1), triangles.max(1)
    near = ((lowest < high) & (highest > low)).all(1)
    points: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    count = 0
    for triangle, inside in zip(triangles[near], ((lowest >= low) & (highest <= high)).all(1)[near], strict=True):
        polygon = triangle if inside else _clip(triangle, low, high)
        if len(polygon) < 3:
            continue
        fan = np.arange(1, len(polygon) - 1)
        points.append(polygon)
        faces.append(np.stack([np.zeros_like(fan), fan, fan + 1], 1) + count)
        count += len(polygon)
    if not points:
        return np.zeros((0, 2)), np.zeros((0, 3), np.int64)
    return np.concatenate(points), np.concatenate(faces)


def _clip(polygon: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        for sign, bound in ((1.0, low[axis]), (-1.0, -high[axis])):
            if len(polygon) < 3:
                return polygon[:0]
            inside = sign * polygon[:, axis] - bound
            out = []
            for i in range(len(polygon)):
                a, b, da, db = polygon[i - 1], polygon[i], inside[i - 1], inside[i]
                if (da >= 0) != (db >= 0):
                    out.append(a + (b - a) * (da / (da - db)))
                if db >= 0:
                    out.append(b)
            polygon = np.array(out).reshape(-1, 2)
    return _without_repeats(polygon)


def _without_repeats(polygon: np.ndarray) -> np.ndarray:
    if len(polygon) == 0:
        return polygon
    step = np.abs(polygon - np.roll(polygon, 1, 0)).max(1)
    return polygon[step > 1e-9]
