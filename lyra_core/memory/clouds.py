"""The thinned points of all cached frames, in a few growing arrays that the fast visibility reads as they stand.

A frame's points are kept as the thinned depth they come from, a third of the size of coordinates, cut into square tiles. Every
tile and every frame has a bounding sphere in the world.
"""

from __future__ import annotations

import numpy as np

from lyra_core.camera.warp import unproject
from lyra_core.types import Camera

TILE = 8
"""Side of a tile [px of the thinned picture]."""


class Rows:
    """A growing array: rows are appended, none is changed or taken away."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        self._data = np.empty((0, *shape), dtype)
        self._count = 0

    def extend(self, rows: np.ndarray) -> None:
        """Append rows (n, ...)."""
        count = self._count + len(rows)
        if count > len(self._data):
            data = np.empty((max(count, len(self._data) * 3 // 2), *self._data.shape[1:]), self._data.dtype)
            data[: self._count] = self.values
            self._data = data
        self._data[self._count : count] = rows
        self._count = count

    @property
    def values(self) -> np.ndarray:
        """All rows; valid until the next ``extend``."""
        return self._data[: self._count]


class Clouds:
    """The thinned pictures of N frames, in the order they were added."""

    def __init__(self) -> None:
        self.depth = Rows((TILE * TILE,), np.float32)
        """(M, 64) z-depth [m] of every tile, row by row; 0 = unknown or beyond the picture."""
        self.tile_spheres = Rows((4,), np.float32)
        """(M, 4) centre in the world and radius [m] around the tile's points; radius -1: no points."""
        self.tile_corners = Rows((2,), np.int32)
        """(M, 2) column, row of the tile's first pixel."""
        self.K = Rows((3, 3), np.float64)
        """(N, 3, 3) of the thinned pictures [px]."""
        self.T_world_camera = Rows((4, 4), np.float64)
        """(N, 4, 4)"""
        self.sizes = Rows((2,), np.int32)
        """(N, 2) width, height of the thinned pictures."""
        self.first_tile = Rows((), np.int32)
        """(N + 1,) frame i has the tiles first_tile[i] to first_tile[i + 1] - 1."""
        self.spheres = Rows((4,), np.float64)
        """(N, 4) as ``tile_spheres``, around each frame's points."""
        self.first_tile.extend(np.zeros(1, np.int32))

    def __len__(self) -> int:
        return len(self.K.values)

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return sum(rows.values.nbytes for rows in vars(self).values())

    def add(self, depth: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> None:
        """Append a thinned picture: depth (h, w) [m] and its camera."""
        depth = np.where((depth > 0) & np.isfinite(depth), depth, 0).astype(np.float32)
        points = unproject(depth, camera, T_world_camera).astype(np.float32)
        tiles, corners = tiled(depth)
        spheres = _spheres(tiled(points)[0], tiles > 0)
        known = points[depth > 0]
        self.depth.extend(tiles)
        self.tile_spheres.extend(spheres)
        self.tile_corners.extend(corners)
        self.K.extend(camera.K[None])
        self.T_world_camera.extend(T_world_camera[None])
        self.sizes.extend(np.array([depth.shape[::-1]]))
        self.first_tile.extend(self.first_tile.values[-1:] + np.int32(len(tiles)))
        self.spheres.extend(_spheres(known[None], np.ones((1, len(known)), bool)))

    def points(self, position: int) -> np.ndarray:
        """Return the world points (n, 3) float32 [m] of a frame's pixels with depth, row by row."""
        width, height = self.sizes.values[position].tolist()
        first, last = self.first_tile.values[position : position + 2].tolist()
        rows, columns = -(-height // TILE), -(-width // TILE)
        tiles = self.depth.values[first:last].reshape(rows, columns, TILE, TILE)
        depth = tiles.swapaxes(1, 2).reshape(rows * TILE, columns * TILE)[:height, :width]
        camera = Camera(self.K.values[position], width, height)
        return unproject(depth, camera, self.T_world_camera.values[position])[depth > 0].astype(np.float32)


def tiled(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut a picture (h, w, ...) into tiles (m, 64, ...), padded with 0; also return their corners (m, 2) column, row."""
    rows, columns = (-(-n // TILE) for n in picture.shape[:2])
    pad = [(0, rows * TILE - picture.shape[0]), (0, columns * TILE - picture.shape[1])] + [(0, 0)] * (picture.ndim - 2)
    tiles = np.pad(picture, pad).reshape(rows, TILE, columns, TILE, *picture.shape[2:]).swapaxes(1, 2)
    row, column = np.mgrid[:rows, :columns] * TILE
    return tiles.reshape(rows * columns, TILE * TILE, *picture.shape[2:]), np.stack([column, row], -1).reshape(-1, 2)


def _spheres(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return spheres (m, 4) float32 around the known ones of points (m, n, 3): centre of their box, radius; -1 without points."""
    low = np.where(known[..., None], points, np.inf).min(1, initial=np.inf)
    high = np.where(known[..., None], points, -np.inf).max(1, initial=-np.inf)
    empty = np.asarray(~known.any(1))
    with np.errstate(invalid="ignore"):
        centre = np.where(empty[:, None], 0, (low + high) / 2).astype(np.float32)
    square = ((points - centre[:, None].astype(np.float64)) ** 2).sum(-1)
    # A little more than it takes: rounding must not leave a point outside.
    radius = np.sqrt(np.where(known, square, 0).max(1, initial=0)) * (1 + 1e-6) + 1e-6
    return np.concatenate([centre, np.where(empty, -1, radius)[:, None]], 1).astype(np.float32)
