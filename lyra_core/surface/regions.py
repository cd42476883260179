"""Marching cubes on one dense region, with vertices named by the grid edge they lie on."""

from __future__ import annotations

import numpy as np
from skimage.measure import marching_cubes

_NUDGE = 1e-3
"""Distances nearer to zero are moved off it, so that no vertex falls on a grid point, where three edges meet."""
_HALF = 1 << 19
"""Voxel coordinates are within +-524,288: 20 bits each and three for the direction fit an int64."""


def extract_region(distance: np.ndarray, known: np.ndarray, color: np.ndarray,
                   low: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Triangulate the zero set of distance (n, n, n) over the cells whose eight corners are known.

    Args:
        distance: positive in free space.
        known: (n, n, n) bool.
        color: (n, n, n, 3) float32 at the voxels.
        low: (3,) integer coordinates of voxel (0, 0, 0).

    Returns:
        names (V,) int64 of the grid edges (lower end, direction), equal in every region that holds the edge;
        positions (V, 3) float64 [voxels]; colours (V, 3); faces (F, 3) wound towards free space. None: no surface.
    """
    distance = np.where(np.abs(distance) < _NUDGE, np.where(distance < 0, -_NUDGE, _NUDGE), distance).astype(np.float32)
    whole, solid = known[1:, 1:, 1:].copy(), distance < 0
    some, every = solid[1:, 1:, 1:].copy(), solid[1:, 1:, 1:].copy()
    for a, b, c in np.ndindex(2, 2, 2):
        part = tuple(slice(1 - i, n - i) for i, n in zip((a, b, c), distance.shape, strict=True))
        whole &= known[part]
        some |= solid[part]
        every &= solid[part]
    if not (whole & some & ~every).any():
        return None
    mask = np.zeros(distance.shape, bool)
    mask[1:, 1:, 1:] = whole  # scikit-image names a cell by its upper corner
    local, faces, _, _ = marching_cubes(distance, 0.0, mask=mask, gradient_direction="descent")
    below = np.floor(local).astype(np.int64)
    fraction = local - below
    above = below + (fraction > 0)
    t = fraction.max(1, keepdims=True)
    mixed = (1 - t) * color[tuple(below.T)] + t * color[tuple(above.T)]
    digits = np.concatenate([below + low + _HALF, above - below], 1)
    names = digits @ (1 << np.array([43, 23, 3, 2, 1, 0], np.int64))
    return names, below + low + fraction.astype(np.float64), mixed, faces.astype(np.int64)
