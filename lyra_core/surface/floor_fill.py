"""Continue a floor that was seen in pieces: under furniture, and between what the pictures show."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from lyra_core.surface.distance import sample_surface
from lyra_core.surface.gravity import face_geometry
from lyra_core.surface.labels import LEVEL

CELL = 0.1
"""[m]"""
REACH = 1.5
"""The floor goes on so far from where it was seen, or from where a camera stood above it [m]."""
BELOW = 0.002
"""What is continued lies this far below what was seen, which thus stays on top [m]."""
SMALLEST = 0.15
"""Less floor than this says nothing [m2]."""
_BODY = (0.1, 1.0)
"""Surfaces between these heights stop the floor [m]."""


def continued_floor(vertices: np.ndarray, faces: np.ndarray, eyes: np.ndarray, *,
                    band: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3) and faces (F, 3), up, of the floor that is missing in a mesh with z up and its floor at 0.

    It lies inside the hull of the floor seen and of the cameras' foot points eyes (M, 3), near them, and does not go on behind
    walls and furniture. Empty where too little floor was seen.
    """
    nothing = np.zeros((0, 3)), np.zeros((0, 3), np.int32)
    normals, areas, centers = face_geometry(vertices, faces)
    floor = (normals[:, 2] > LEVEL) & (np.abs(centers[:, 2]) < band)
    if areas[floor].sum() < SMALLEST:
        return nothing
    rng = np.random.default_rng(0)
    points, face = sample_surface(vertices, faces, int(np.clip(areas.sum() / CELL**2 * 30, 10_000, 2_000_000)), rng)
    seen, body = points[floor[face]], points[~floor[face] & (points[:, 2] > _BODY[0]) & (points[:, 2] < _BODY[1])]
    anchors = np.concatenate([seen[:, :2], eyes[:, :2]])
    low = anchors.min(0) - CELL
    shape = tuple(np.ceil((anchors.max(0) + CELL - low) / CELL).astype(int)[::-1])
    if shape[0] * shape[1] > 4_000_000:
        return nothing
    covered, blocked = _raster(seen, low, shape) >= 8, _raster(body, low, shape) > 0
    stood = _raster(eyes, low, shape) > 0
    reach = cv2.distanceTransform((~(covered | stood)).astype(np.uint8), cv2.DIST_L2, 5) * CELL < REACH
    region = _hull(anchors, low, shape) & reach
    open_ = region & (~blocked | covered)
    piece = cv2.connectedComponents(open_.astype(np.uint8), connectivity=4)[1]
    kept = np.isin(piece, np.unique(piece[(covered | stood) & open_])) & open_
    # The floor goes on below what stands on it, as far as that is wide, but not to its other side.
    kept |= (cv2.dilate(kept.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & blocked & region
    rows, columns = np.nonzero(kept & (_raster(seen, low, shape) < 25))
    if not len(rows):
        return nothing
    corner = np.stack([columns, rows], 1)
    grid = (corner[:, None] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])).reshape(-1, 2)
    used, index = np.unique(grid, axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    out = np.column_stack([used * CELL + low, np.full(len(used), -BELOW)])
    return out, np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]]).astype(np.int32)


def _raster(points: np.ndarray, low: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Count points per cell."""
    cell = np.floor((points[:, :2] - low) / CELL).astype(int)
    inside = ((cell >= 0) & (cell < shape[::-1])).all(1)
    return np.bincount(cell[inside, 1] * shape[1] + cell[inside, 0], minlength=shape[0] * shape[1]).reshape(shape)


def _hull(points: np.ndarray, low: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    try:
        ring = points[ConvexHull(points).vertices]
    except (QhullError, ValueError):
        return np.zeros(shape, bool)
    out = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(out, np.rint((ring - low) / CELL - 0.5).astype(np.int32), 1)
    return out > 0
