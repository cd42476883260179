"""The zero surface of a hierarchical sparse grid, without cracks between its levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lyra_core.surface.levels import SIDE, Levels, pack, unpack
from lyra_core.surface.marching import CORNERS, march

_NUDGE = 1e-3
"""Distances nearer to zero (in truncations) are moved off it, so that no vertex falls on a sample."""
_CHUNK = 1024
"""Blocks looked at at once: bounds the working memory."""


@dataclass(frozen=True)
class BlockGrid:
    """A truncated signed distance field on blocks of 8^3 cells of several sizes, samples at the cells' centres.

    A sample is known by slot * 512 + cell; cells are in x-major order.
    """

    levels: Levels
    keys: np.ndarray
    """(B,) int64 ascending (``levels.pack``)."""
    slots: np.ndarray
    """(B,) int64 row of each key's block in the arrays below."""
    distance: np.ndarray
    """(S, 512) signed distance over the truncation, positive in free space."""
    weight: np.ndarray
    """(S, 512), 0 = unknown."""
    color: np.ndarray
    """(S, 512, 3) uint8."""

    @cached_property
    def cell(self) -> np.ndarray:
        """(S,) float32 cell of each slot [m]."""
        out = np.zeros(len(self.weight), np.float32)
        out[self.slots] = self.levels.size(unpack(self.keys)[0]) / SIDE
        return out

    @cached_property
    def low(self) -> np.ndarray:
        """(S, 3) float64 lower corner of each slot's block [m]."""
        out = np.zeros((len(self.weight), 3))
        level, blocks = unpack(self.keys)
        out[self.slots] = blocks * self.levels.size(level)[:, None]
        return out

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the slot of each key, -1 = there is none."""
        if not len(self.keys):
            return np.full(keys.shape, -1)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.slots[at], -1)

    def centres(self, samples: np.ndarray) -> np.ndarray:
        """Return the positions (N, 3) float64 [m] of samples."""
        slot, cell = samples // SIDE**3, samples % SIDE**3
        local = np.stack([cell // SIDE**2, cell // SIDE % SIDE, cell % SIDE], -1) + 0.5
        return self.low[slot] + local * self.cell[slot][:, None]

    def metric(self, samples: np.ndarray) -> np.ndarray:
        """Return the signed distances at samples in cells of level 0, never zero."""
        d = self.distance.reshape(-1)[samples].astype(np.float32)
        d = np.where(np.abs(d) < _NUDGE, np.where(d < 0, -_NUDGE, _NUDGE), d)
        return d * (self.cell[samples // SIDE**3] / np.float32(self.levels.voxel))


def extract_surface(grid: BlockGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3) float32 [m], faces (F, 3) int32 wound towards free space, colours (V, 3) uint8.

    A cell of the dual grid belongs to each point where eight leaves meet; it is drawn if all its samples are known.
    """
    parts = [*_regular_cells(grid), _stitching_cells(grid)]
    samples = np.concatenate(parts) if parts else np.zeros((0, 8), np.int64)
    if not len(samples):
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
    ends, faces = march(samples, grid.metric(samples.reshape(-1)).reshape(-1, 8))
    da, db = grid.metric(ends[:, 0]), grid.metric(ends[:, 1])
    t = (da / (da - db))[:, None]
    vertices = (1 - t) * grid.centres(ends[:, 0]) + t * grid.centres(ends[:, 1])
    color = grid.color.reshape(-1, 3)
    # A sample that only free space was seen at has no colour of its own.
    seen = [color[ends[:, i]].any(1, keepdims=True) for i in (0, 1)]
    t = np.where(seen[0] & seen[1], t, np.where(seen[0], 0, 1))
    mixed = (1 - t) * color[ends[:, 0]] + t * color[ends[:, 1]]
    return vertices.astype(np.float32), faces.astype(np.int32), np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _regular_cells(grid: BlockGrid) -> Iterator[np.ndarray]:
    """Yield the samples (N, 8) of crossed dual cells whose leaves are of one level: between each voxel and its upper neighbours."""
    level, blocks = unpack(grid.keys)
    cells = np.arange(SIDE**3).reshape(SIDE, SIDE, SIDE)
    solid_in, free_in = _holds(grid)
    for start in range(0, len(grid.keys), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(grid.keys)))
        at = np.stack([grid.find(pack(level[rows], blocks[rows] + c)) for c in CORNERS], 1)
        # The last entry stands for blocks that are not there.
        crossed = solid_in[at].any(1) & free_in[at].any(1)
        at = at[crossed]
        ids = np.full((len(at), SIDE + 1, SIDE + 1, SIDE + 1), -1, np.int64)
        for k, c in enumerate(CORNERS):
            box = tuple(slice(SIDE, SIDE + 1) if i else slice(0, SIDE) for i in c)
            part = cells[tuple(slice(0, 1) if i else slice(0, SIDE) for i in c)]
            slot = at[:, k, None, None, None]
            ids[(slice(None), *box)] = np.where(slot >= 0, slot * SIDE**3 + part, -1)
        known = ids >= 0
        known[known] = grid.weight.reshape(-1)[ids[known]] > 0
        solid = np.zeros_like(known)
        solid[known] = grid.distance.reshape(-1)[ids[known]] < 0
        yield _crossed(ids, known, solid)


def _holds(grid: BlockGrid) -> tuple[np.ndarray, np.ndarray]:
    """Return which slots hold a known sample in the solid, and in free space, (S + 1,) bool each; the last is False."""
    solid, free = np.zeros(len(grid.weight) + 1, bool), np.zeros(len(grid.weight) + 1, bool)
    for start in range(0, len(grid.weight), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(grid.weight)))
        known, inside = grid.weight[rows] > 0, grid.distance[rows] < 0
        solid[rows], free[rows] = (known & inside).any(1), (known & ~inside).any(1)
    return solid, free


def _crossed(ids: np.ndarray, known: np.ndarray, solid: np.ndarray) -> np.ndarray:
    corner = [(slice(None), *(slice(i, i + SIDE) for i in c)) for c in CORNERS]
    whole = np.logical_and.reduce([known[c] for c in corner])
    some, every = np.logical_or.reduce([solid[c] for c in corner]), np.logical_and.reduce([solid[c] for c in corner])
    pick = whole & some & ~every
    return np.stack([ids[c][pick] for c in corner], 1)


def _stitching_cells(grid: BlockGrid) -> np.ndarray:
    """Return the samples (N, 8) of crossed dual cells between levels; corners of a coarse leaf repeat."""
    found = []
    for level in range(grid.levels.top):
        points = _border_points(grid, level)
        if len(points):
            samples = _around(grid, level, points)
            weight, solid = grid.weight.reshape(-1)[samples] > 0, grid.distance.reshape(-1)[samples] < 0
            pick = (samples >= 0).all(1) & weight.all(1) & solid.any(1) & ~solid.all(1)
            found.append(samples[pick])
    return np.concatenate(found) if found else np.zeros((0, 8), np.int64)


def _border_points(grid: BlockGrid, level: int) -> np.ndarray:
    """Return the grid points (N, 3) on the faces, edges and corners of a level's blocks at which a coarser block lies."""
    levels, blocks = unpack(grid.keys)
    blocks, found = blocks[levels == level], []
    for step in np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3):
        beside = np.zeros(len(blocks), bool)
        for above in np.unique(levels[levels > level]):
            beside |= grid.find(pack(above, (blocks + step) >> (above - level))) >= 0
        axes = [np.arange(SIDE + 1) if s == 0 else np.array([0 if s < 0 else SIDE]) for s in step]
        side = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        found.append((blocks[beside][:, None] * SIDE + side).reshape(-1, 3))
    points = np.concatenate(found)
    if not len(points):
        return points
    low = points.min(0)
    span = points.max(0) - low + 1
    names = ((points - low) @ np.array([span[1] * span[2], span[2], 1])).astype(np.int64)
    return points[np.unique(names, return_index=True)[1]]


def _around(grid: BlockGrid, level: int, points: np.ndarray) -> np.ndarray:
    """Return the samples of the eight leaves that meet at grid points of a level, (N, 8); -1 = unknown, or not this level's.

    A point at which a finer leaf ends belongs to the finer level; one with leaves of this level alone is regular.
    """
    samples = np.full((len(points), 8), -1, np.int64)
    coarser, present = np.zeros(len(points), bool), np.unique(unpack(grid.keys)[0])
    for i, c in enumerate(CORNERS):
        for other in present:
            # The leaf on the side c of the point: its voxel at each level that there might be.
            shift = other - level
            voxel = (points + c - 1) >> shift if shift >= 0 else (points << -shift) + c - 1
            slot = grid.find(pack(other, voxel >> 3))
            have = slot >= 0
            inner = voxel & (SIDE - 1)
            cell = (inner[:, 0] * SIDE + inner[:, 1]) * SIDE + inner[:, 2]
            if shift < 0:
                coarser &= ~have
                samples[have] = -2
            else:
                samples[:, i] = np.where(have & (samples[:, i] == -1), slot * SIDE**3 + cell, samples[:, i])
                coarser |= have & (shift > 0)
    samples[~coarser | (samples == -2).any(1)] = -1
    return samples
