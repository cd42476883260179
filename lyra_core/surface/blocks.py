"""A hierarchical sparse signed distance field (Curless and Levoy 1996; Niessner et al. 2013) on the blocks of an octree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from lyra_core.camera.depth_normals import depth_normals
from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import ConfigError
from lyra_core.surface.extract import BlockGrid, extract_surface
from lyra_core.surface.levels import NEAR, SIDE, Levels, unpack
from lyra_core.types import Frame

TRUNCATION = 2.5
"""Half width of the band around the surface [cells of the block]."""
FREE_SHARE = 0.5
"""Weight of a frame that looks through a voxel, beside one that sees a surface there: a surface that only one frame claims goes
where two frames look through it."""
GRAZING = 0.02
"""Pixels seen at a smaller cosine are left out."""
EDGE_GRAZING, EDGE_SHARE = 0.3, 0.1
"""Beside a depth edge: the cosine from which a pixel counts at all (one that hangs between two surfaces looks grazing), and its
weight beside other pixels'."""
BEHIND = 2.0
"""Farthest that a voxel may lie behind a slanted surface along the view [truncations]; across the surface it is one at most."""
_THREADED = 256
"""From so many blocks on several threads pay."""


class FusionBlocks:
    """Fuses depth pictures; memory grows with the surface (3.5 KB per block), not with the room, and little with what is far."""

    def __init__(self, voxel: float, *, eyes: np.ndarray | None = None, near: float = NEAR, device: str = "cpu") -> None:
        """Start empty.

        Args:
            voxel: cell size near the path [m].
            eyes: (M, 3) camera path [m], from which cells grow with distance; None = one size.
            near: reach of the first size [m].
            device: Warp's: 'cpu' or 'cuda:0'.

        Raises:
            ConfigError: voxel or near is not a positive number.
        """
        if not (0 < voxel < np.inf and 0 < near < np.inf):
            raise ConfigError(f"fusion: got voxel {voxel} and near {near}, expected positive metres")
        self.levels, self.device = Levels.along(float(voxel), eyes, near=float(near)), device
        self.keys = np.zeros(0, np.int64)
        """Ascending keys of the blocks, (B,)."""
        self._slots = np.zeros(0, np.int64)
        self._wp = load_warp("fusion 'blocks'")
        self._store: dict[str, Any] = {}
        self._threads = max(1, min(8, os.cpu_count() or 1))

    def integrate_all(self, frames: Sequence[Frame]) -> None:
        """Add frames. All blocks are made first: so early frames can see that a phantom surface of a late one is free space."""
        found = [self._band(frame, *read_depth(frame)) for frame in frames]
        self._make(np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64))
        for frame in frames:
            self._average(frame, *read_depth(frame))

    def integrate(self, frame: Frame) -> None:
        """Add one frame: point-to-plane distances, weighted by viewing angle and range, none beside depth edges.

        Voxels in front of the surface become free, in all blocks there are that the frame looks through.
        """
        read = read_depth(frame)
        self._make(self._band(frame, *read))
        self._average(frame, *read)

    def _average(self, frame: Frame, depth: np.ndarray, weight: np.ndarray, normals: np.ndarray) -> None:
        """Run the kernel on the blocks that the frame sees."""
        rows = self._in_view(frame, depth, weight) if (weight > 0).any() else []
        if not len(rows):
            return
        wp = self._wp
        from lyra_core.surface import _warp_fusion_kernels as kernels

        view = kernels.View()
        T = inverse(frame.T_world_camera)
        view.R, view.t = wp.mat33f(*T[:3, :3].ravel()), wp.vec3f(*T[:3, 3])
        K = frame.camera.K
        view.fx, view.fy, view.cx, view.cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
        view.width, view.height, view.free_share = frame.camera.width, frame.camera.height, FREE_SHARE
        view.behind = BEHIND
        view.depth, view.weight = self._on_device(depth, wp.float32), self._on_device(weight, wp.float32)
        view.normal = self._on_device(np.nan_to_num(normals), wp.vec3f)
        view.rgb = self._on_device(frame.rgb, wp.vec3ub)
        level, blocks = unpack(self.keys[rows])
        lows = blocks * self.levels.size(level)[:, None]
        slots = self._slots[rows].astype(np.int32)
        cells = (self.levels.size(level) / SIDE).astype(np.float32)

        def run(part: slice) -> None:
            wp.launch(kernels.integrate, dim=len(slots[part]) * SIDE**3, device=self.device, inputs=[
                self._on_device(slots[part], wp.int32), self._on_device(lows[part].astype(np.float32), wp.vec3f),
                self._on_device(cells[part], wp.float32), TRUNCATION, view, *self._store.values()])

        if self.device != "cpu" or len(rows) < _THREADED:
            run(slice(None))
            return
        # Warp runs a kernel on one CPU thread; blocks do not depend on each other, so parts of them may run at once.
        share = -(-len(rows) // self._threads)
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(run, [slice(i, i + share) for i in range(0, len(rows), share)]))

    def extract(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float32 [m], faces (F, 3) int32 wound towards free space, colours (V, 3) uint8.

        Levels are stitched: no edge is open where voxels are known on both of its sides.
        """
        return extract_surface(self.grid())

    def grid(self) -> BlockGrid:
        """Return the field as arrays."""
        if not self._store:
            none = np.zeros((0, SIDE**3), np.float16)
            return BlockGrid(self.levels, self.keys, self._slots, none, none, np.zeros((0, SIDE**3, 3), np.uint8))
        return BlockGrid(self.levels, self.keys, self._slots, *(array.numpy() for array in self._store.values()))

    @property
    def nbytes(self) -> int:
        """Memory of the blocks [bytes]."""
        return sum(int(array.capacity) for array in self._store.values())

    def _make(self, keys: np.ndarray) -> None:
        """Make the blocks of these keys that are not there."""
        new = np.setdiff1d(keys, self.keys, assume_unique=True)
        if not len(new):
            return
        self._grow(len(self.keys) + len(new))
        joined = np.concatenate([self.keys, new])
        slots = np.concatenate([self._slots, len(self.keys) + np.arange(len(new))])
        order = np.argsort(joined, kind="stable")
        self.keys, self._slots = joined[order], slots[order]

    def _band(self, frame: Frame, depth: np.ndarray, weight: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return keys of blocks near the surface: points stepped along the view and along the normal through the band."""
        # A block spans at least six of the pixels that are looked at.
        stride = int(np.clip(frame.camera.K[0, 0] * self.levels.size(0) / (6 * self.levels.near), 1, 8))
        part = (slice(stride // 2, None, stride),) * 2
        good = weight[part] > 0
        if not good.any():
            return np.zeros(0, np.int64)
        z, n = depth[part][good][:, None], normals[part][good]
        rays = frame.camera.rays()[part][good]
        R, t = frame.T_world_camera[:3, :3].astype(np.float32), frame.T_world_camera[:3, 3].astype(np.float32)
        points, n = (rays * z) @ R.T + t, n @ R.T
        view = points - t
        distance = np.linalg.norm(view, axis=1, keepdims=True)
        view = view / np.maximum(distance, 1e-6)
        # The cell that such a distance has at most; the band of the block found there may be narrower, never wider.
        level = np.clip(np.ceil(np.log2(np.maximum(distance / self.levels.near, 1e-6))) + 1, 0, self.levels.top)
        band = (TRUNCATION * self.levels.voxel * 2.0**level).astype(np.float32)
        steps = [points, *(points + step * band * along for step in (-1.0, -0.5, 0.5, 1.0) for along in (view, n))]
        return self.levels.blocks_of(np.concatenate(steps))

    def _in_view(self, frame: Frame, depth: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return rows of blocks that may hold a voxel in the picture and not wholly behind its surface."""
        level, blocks = unpack(self.keys)
        size = self.levels.size(level)
        radius = size * (np.sqrt(3) / 2)
        T = inverse(frame.T_world_camera)
        local = ((blocks + 0.5) * size[:, None]) @ T[:3, :3].T + T[:3, 3]
        K, z = frame.camera.K, local[:, 2]
        near = np.maximum(z - radius, 0.01)
        with np.errstate(divide="ignore", invalid="ignore"):
            u, v = local[:, 0] / z * K[0, 0] + K[0, 2], local[:, 1] / z * K[1, 1] + K[1, 2]
        reach_u, reach_v = 1.5 * radius / near * K[0, 0], 1.5 * radius / near * K[1, 1]
        close = z < 2 * radius
        inside = (u > -reach_u) & (v > -reach_v) & (u < frame.camera.width + reach_u) & (v < frame.camera.height + reach_v)
        keep = (z > -radius) & (close | inside)
        # The farthest depth around each place, on a coarse picture: what lies beyond it is behind the surface.
        coarse = 8
        far = cv2.dilate(np.where(weight > 0, depth, 0), np.ones((2 * coarse + 1,) * 2, np.uint8))[::coarse, ::coarse]
        rows = np.flatnonzero(keep & ~close & (np.maximum(reach_u, reach_v) <= coarse))
        line, column = (np.clip(a[rows] / coarse, 0, n - 1).astype(int) for a, n in zip((v, u), far.shape, strict=True))
        keep[rows] = far[line, column] + TRUNCATION * size[rows] / SIDE > z[rows] - radius[rows]
        return np.flatnonzero(keep)

    def _grow(self, count: int) -> None:
        wp, have = self._wp, len(self._store["weight"]) if self._store else 0
        if count <= have:
            return
        room = max(count, have * 3 // 2)
        for name, dtype, start in (("distance", wp.float16, 1.0), ("weight", wp.float16, 0.0), ("color", wp.vec3ub, 0.0)):
            grown = wp.zeros((room, SIDE**3), dtype=dtype, device=self.device)
            if start:
                grown.fill_(start)
            if have:
                wp.copy(grown, self._store[name], count=have * SIDE**3)
            self._store[name] = grown

    def _on_device(self, values: np.ndarray, dtype: Any) -> Any:
        return self._wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)


def read_depth(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a frame says: depth with 0 for unknown, weights, both (H, W) float32, and normals (H, W, 3) in the camera frame.

    Weights fall with the viewing angle and the range, as a sensor's certainty does, and beside depth edges.
    """
    depth = frame.depth.astype(np.float32)
    shape = depth_normals(depth, frame.camera)
    with np.errstate(invalid="ignore"):
        weight = shape.cosine * np.where(shape.edge, EDGE_SHARE, 1) / (1 + (depth / 3) ** 2)
        good = (shape.cosine > np.where(shape.edge, EDGE_GRAZING, GRAZING)) & np.isfinite(depth)
    good &= np.isfinite(shape.normals).all(-1)
    return np.where(good, depth, 0), np.where(good, weight, 0).astype(np.float32), shape.normals
