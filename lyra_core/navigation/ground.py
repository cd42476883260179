"""The height of the ground per cell: the floor of the photo's camera, and whatever can be climbed to from it.

One level per cell. Where floors lie above each other, the lower one that is free is kept: below a bridge the robot passes, and
the bridge itself is no ground.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from lyra_core.config import NavigationCfg
from lyra_core.navigation.rasterise import footprint
from lyra_core.rays import make_ray_tracer

LAYERS = 8
"""Surfaces above each other that are looked at in one cell, from the top."""
APART = 0.01
"""Surfaces nearer to each other than this are one [m]."""
SLOPE_REACH = 0.1
"""The ground's direction is a mean over cells this far to each side: fused meshes are rough [m]."""
SLACK = 1e-3
"""Of comparisons of heights [m]."""
LEAST = 0.01
"""Traversability of what the robot only just climbs."""
NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]


class Surfaces:
    """The faces that look up, asked cell by cell."""

    def __init__(self, triangles: np.ndarray, origin: np.ndarray, cell: float, shape: tuple[int, int]) -> None:
        """triangles: (F, 3, 3) [m]; origin: (2,) lower corner of cell (0, 0) [m]; shape: rows, columns."""
        self._z = triangles[..., 2]
        self._tracer = make_ray_tracer(
            triangles.reshape(-1, 3).astype(np.float32), np.arange(len(triangles) * 3, dtype=np.int32).reshape(-1, 3)
        )
        self._origin, self._cell, self.shape = origin, cell, shape
        normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        self.normals = (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)).astype(np.float32)
        """(F, 3)."""
        self.top = float(self._z.max())
        """Height of the highest [m]."""
        self._triangles = triangles

    def outside(self, step: float) -> np.ndarray:
        """Return the cells with a face that is not wholly within a step of z = 0, (rows, cols) bool."""
        beyond = (self._z.max(1) > step) | (self._z.min(1) < -step)
        return footprint(self._triangles[beyond], self._origin, self._cell, self.shape, (-1e6, 1e6))

    def below(self, cells: np.ndarray, start: np.ndarray, *, reach: float = np.inf) -> tuple[np.ndarray, np.ndarray]:
        """Look down at the centres of cells (N,) (flat indices) from heights (N,) [m].

        Returns:
            height (N,) float32 [m] and triangle (N,) of the first surface within reach [m]; NaN and -1 where there is none.
        """
        height, face = np.full(len(cells), np.nan, np.float32), np.full(len(cells), -1, np.int64)
        row, col = np.divmod(cells, self.shape[1])
        centres = self._origin + (np.stack([col, row], 1) + 0.5) * self._cell
        # A ray through the very edge between two triangles can slip through; the second, shifted cast catches it.
        for shift in ((0.0, 0.0), (0.0131 * self._cell, 0.0277 * self._cell)):
            todo = np.flatnonzero(face < 0)
            origins = np.column_stack([centres[todo] + shift, start[todo]]).astype(np.float32)
            hits = self._tracer.cast(origins, np.tile(np.array([0, 0, -1], np.float32), (len(todo), 1)))
            good = (hits.face >= 0) & (hits.t <= reach)
            hit, (u, v) = hits.face[good], hits.barycentric[good].astype(np.float64).T
            z = self._z[hit]
            # To a tenth of a millimetre, so that level ground is exactly level.
            height[todo[good]] = np.round(z[:, 0] * (1 - u - v) + z[:, 1] * u + z[:, 2] * v, 4) + 0.0
            face[todo[good]] = hit
        return height, face

    def layers(self, cells: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield height and triangle (N,) of the surfaces of cells (N,), the topmost first."""
        start = np.full(len(cells), self.top + 1.0)
        for _ in range(LAYERS):
            height, face = self.below(cells, start)
            if (face < 0).all():
                return
            yield height, face
            start = np.where(face >= 0, height.astype(np.float64) - APART, start - 1e6)


def climb_limit(cfg: NavigationCfg, distance: float) -> float:
    """Largest difference of height between two cells at a horizontal distance [m] that the robot climbs [m]."""
    return max(cfg.step, float(np.tan(np.radians(cfg.slope))) * distance) + SLACK


def climb(surfaces: Surfaces, height: np.ndarray, face: np.ndarray, free: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Extend the ground in place: from free cells to neighbours where another surface lies within a step or a slope.

    height: (rows, cols) [m], NaN = none; face: (rows, cols) triangle, -1 = none; free: (rows, cols) bool.

    Returns:
        (rows, cols) bool: cells that were given another height.
    """
    changed = np.zeros(free.size, bool)
    rows, cols = free.shape
    todo = np.flatnonzero(~free & surfaces.outside(cfg.step))
    levels = list(surfaces.layers(todo))
    if not levels:
        return changed.reshape(free.shape)
    slot = np.full(free.size, -1, np.int64)
    slot[todo] = np.arange(len(todo))
    z, triangle = (np.stack([level[k] for level in levels]) for k in (0, 1))
    # The surface that is known to be blocked is none to climb to.
    z = np.where(np.abs(z - height.ravel()[todo]) < APART, np.nan, z)
    flat_height, flat_face = height.ravel(), face.ravel()
    frontier = np.flatnonzero(free)
    while len(frontier):
        row, col = np.divmod(frontier, cols)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for di, dj in NEIGHBOURS:
            r, c = row + di, col + dj
            inside = (r >= 0) & (c >= 0) & (r < rows) & (c < cols)
            cell, source = (r * cols + c)[inside], frontier[inside]
            use = (slot[cell] >= 0) & ~changed[cell]
            cell, source = cell[use], source[use]
            gap = np.abs(z[:, slot[cell]] - flat_height[source])
            near = gap <= climb_limit(cfg, float(np.hypot(di, dj)) * cfg.cell)
            hit = near.any(0)
            found.append((cell[hit], near[:, hit].argmax(0), source[hit]))
        cell, level, _ = (np.concatenate([f[k] for f in found]) for k in range(3))
        # The topmost of what different neighbours reach, so that the order of cells decides nothing.
        order = np.lexsort((level, cell))
        cell, first = np.unique(cell[order], return_index=True)
        level = level[order][first]
        flat_height[cell], flat_face[cell] = z[level, slot[cell]], triangle[level, slot[cell]]
        changed[cell] = True
        frontier = cell
    return changed.reshape(free.shape)


def cover(surfaces: Surfaces, height: np.ndarray, face: np.ndarray, cfg: NavigationCfg) -> None:
    """Fill cells without ground in place with their highest surface below the robot's head: what it cannot climb is known ground
    all the same."""
    cells = np.flatnonzero((face < 0) & surfaces.outside(cfg.step))
    if len(cells):
        height.ravel()[cells], face.ravel()[cells] = surfaces.below(cells, np.full(len(cells), cfg.robot_height))


def edges(height: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Return the cells from which the ground falls to a neighbour by more than the robot climbs, (rows, cols) bool.

    Only the upper side: with those cells blocked no path crosses the edge, and a disc beside it stands wholly above or below.
    """
    out = np.zeros(height.shape, bool)
    for di, dj in NEIGHBOURS:
        out |= height - _shifted(height, di, dj) > climb_limit(cfg, float(np.hypot(di, dj)) * cfg.cell)
    return out


def slopes(height: np.ndarray, normals: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Return the slope of the ground (rows, cols) float32 [degrees]: of the mean normal around each cell, not across steps.

    normals: (rows, cols, 3) of the ground's faces; (0, 0, 0) = no ground.
    """
    known = np.isfinite(height)
    if (normals[known][:, 2] > 1.0 - 1e-7).all():
        return np.zeros(height.shape, np.float32)
    total, reach = np.zeros(normals.shape, np.float32), max(1, round(SLOPE_REACH / cfg.cell))
    for di in range(-reach, reach + 1):
        for dj in range(-reach, reach + 1):
            near = np.abs(_shifted(height, di, dj) - height) <= climb_limit(cfg, float(np.hypot(di, dj)) * cfg.cell)
            for k in range(3):
                total[..., k] += np.where(near, _shifted(normals[..., k], di, dj), 0.0)
    level = np.hypot(total[..., 0], total[..., 1])
    return np.where(known, np.degrees(np.arctan2(level, np.maximum(total[..., 2], 1e-9))), 0.0).astype(np.float32)


def too_steep(height: np.ndarray, slope: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Return the cells on slopes that the robot does not climb, (rows, cols) bool.

    A steep piece that rises by no more than a step is a step, however a mesh has rounded it.
    """
    steep = slope > cfg.slope + 0.05
    if not steep.any():
        return steep
    labels = np.zeros(steep.shape, np.int32)
    index = np.arange(1, 1 + int(np.asarray(ndimage.label(steep, np.ones((3, 3), bool), output=labels))))
    # Half a cell of the slope goes on beyond the outermost cell centres at both ends.
    highest, lowest, mean = (np.asarray(f(grid, labels, index)) for f, grid in (
        (ndimage.maximum, height), (ndimage.minimum, height), (ndimage.mean, slope)))
    rise = highest - lowest + cfg.cell * np.tan(np.radians(mean))
    return np.concatenate([[False], rise > cfg.step + SLACK])[labels]


def traversability(height: np.ndarray, slope: np.ndarray, free: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Return (rows, cols) float32: 1 on level ground, 0 where the robot cannot be, between them the margin to its limits."""
    used = slope / max(cfg.slope, 1e-6)
    for di, dj in NEIGHBOURS:
        drop = np.abs(height - _shifted(height, di, dj))
        drop = np.where(_shifted(free.astype(np.float32), di, dj) > 0, drop, 0.0)
        used = np.fmax(used, drop / climb_limit(cfg, float(np.hypot(di, dj)) * cfg.cell))
    return np.where(free, np.clip(1.0 - used, LEAST, 1.0), 0.0).astype(np.float32)


def _shifted(grid: np.ndarray, di: int, dj: int) -> np.ndarray:
    """Return the values of the neighbours at (+di, +dj), NaN outside."""
    out = np.full(grid.shape, np.nan, np.float32)
    rows, cols = grid.shape
    out[max(0, -di) : rows - max(0, di), max(0, -dj) : cols - max(0, dj)] = grid[
        max(0, di) : rows - max(0, -di), max(0, dj) : cols - max(0, -dj)
    ]
    return out
