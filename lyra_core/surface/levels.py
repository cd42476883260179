"""Where cells are how large: a sparse octree of blocks whose cells double in size with the distance to the camera path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.errors import ConfigError

SIDE = 8
"""Voxels along a block's edge."""
NEAR = 4.0
"""Cells of the first size reach this far from the camera path [m]; from there on a cell is at most 1/200 of the distance."""
COARSEST = 6
"""Largest level: cells of 64 times the first size."""
_BITS = 19
_HALF = 1 << (_BITS - 1)
_MERGE = 0.25
"""Eyes nearer to each other than this share of NEAR count as one."""


@dataclass(frozen=True)
class Levels:
    """The rule that gives every point of space its level. A block of level k has SIDE^3 cells of voxel * 2^k metres; it is used as
    it is where it lies at least near * 2^(k - 1) from every eye, else its eight children are."""

    voxel: float
    """Cell of level 0 [m]."""
    eyes: np.ndarray
    """(M, 3) float64 points of the camera path [m]; none = level 0 everywhere."""
    near: float = NEAR
    """[m]"""

    @classmethod
    def along(cls, voxel: float, eyes: np.ndarray | None, *, near: float = NEAR) -> Levels:
        """Make the rule for a path; eyes (M, 3) are thinned out, None = one level."""
        if eyes is None or not len(eyes):
            return cls(voxel, np.zeros((0, 3)), near)
        eyes = np.asarray(eyes, np.float64)
        cell = np.floor(eyes / (_MERGE * near)).astype(np.int64)
        return cls(voxel, eyes[np.sort(np.unique(cell, axis=0, return_index=True)[1])], near)

    @property
    def top(self) -> int:
        """Coarsest level in use."""
        return COARSEST if len(self.eyes) else 0

    def size(self, level: np.ndarray | int) -> np.ndarray:
        """Return the edge of a block of each level [m]."""
        return SIDE * self.voxel * 2.0 ** np.asarray(level)

    def is_leaf(self, level: int, blocks: np.ndarray) -> np.ndarray:
        """Return which blocks (N, 3) of a level are far enough from all eyes to be used whole."""
        if level == 0:
            return np.ones(len(blocks), bool)
        size = float(self.size(level))
        low = blocks * size
        out, limit = np.ones(len(blocks), bool), (self.near * 2.0 ** (level - 1)) ** 2
        for start in range(0, len(blocks), 65_536):
            rows = slice(start, start + 65_536)
            for eye in self.eyes:
                gap = np.maximum(np.maximum(low[rows] - eye, eye - low[rows] - size), 0)
                out[rows] &= (gap * gap).sum(1) >= limit
        return out

    def blocks_of(self, points: np.ndarray) -> np.ndarray:
        """Return the keys (B,) int64, ascending, of the blocks that hold points (N, 3) [m]."""
        # Points are first thinned out to one per block of the finest level.
        fine = unpack(np.unique(pack(0, np.floor(np.asarray(points, np.float64) / self.size(0)).astype(np.int64))))[1]
        found = []
        for level in range(self.top, -1, -1):
            keys, same = np.unique(pack(level, fine >> level), return_inverse=True)
            leaf = self.is_leaf(level, unpack(keys)[1])
            found.append(keys[leaf])
            fine = fine[~leaf[same.reshape(-1)]]
            if not len(fine):
                break
        return np.unique(np.concatenate(found))


def pack(level: np.ndarray | int, blocks: np.ndarray) -> np.ndarray:
    """Return one int64 key per block: level and coordinates (..., 3), within +-262,000 along each axis.

    Raises:
        ConfigError: a coordinate out of range.
    """
    b = blocks + _HALF
    if b.size and (b.min() < 0 or b.max() >= 1 << _BITS):
        raise ConfigError(f"fusion: block coordinates {blocks.min()}..{blocks.max()} are out of range; is the voxel too small?")
    return (np.asarray(level, np.int64) << (3 * _BITS)) | (b[..., 0] << (2 * _BITS)) | (b[..., 1] << _BITS) | b[..., 2]


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return level (...) and block coordinates (..., 3) of keys."""
    mask = (1 << _BITS) - 1
    blocks = np.stack([(keys >> (2 * _BITS)) & mask, (keys >> _BITS) & mask, keys & mask], -1) - _HALF
    return keys >> (3 * _BITS), blocks
