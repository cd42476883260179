"""A sparse truncated signed distance field on hashed blocks of 8^3 voxels (Curless and Levoy 1996; Niessner et al. 2013)."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.depth_normals import depth_normals
from lyra_core.camera.se3 import inverse
from lyra_core.errors import ConfigError
from lyra_core.surface.regions import extract_region
from lyra_core.types import Frame

SIDE = 8
"""Voxels along a block's edge."""
REGION = 8
"""Blocks along the edge of a marching-cubes region."""
_BITS = 17
_HALF = 1 << (_BITS - 1)
_CHUNK = 2048
"""Blocks updated at once: bounds the working memory."""


class FusionBlocks:
    """Fuses depth pictures; memory grows with the surface (10 KB per block), not with the room."""

    def __init__(self, voxel: float, truncation: float | None = None) -> None:
        """Start empty. voxel: cell size [m]; truncation: half width of the band around the surface [m], 4 voxels if None.

        Raises:
            ConfigError: voxel or truncation is not a positive number.
        """
        self.voxel, self.truncation = float(voxel), float(4 * voxel if truncation is None else truncation)
        if not (0 < self.voxel < np.inf and 0 < self.truncation < np.inf):
            raise ConfigError(f"fusion: got voxel {voxel} and truncation {truncation}, expected positive metres")
        self.keys = np.zeros(0, np.int64)
        """Ascending keys of the blocks, (B,)."""
        self._slots = np.zeros(0, np.int64)
        self.distance = np.zeros((0, SIDE**3), np.float32)
        """Signed distance over truncation, positive in free space, (capacity, 512), voxels in x-major order."""
        self.weight = np.zeros((0, SIDE**3), np.float32)
        self.color = np.zeros((0, SIDE**3, 3), np.float32)

    def integrate(self, frame: Frame) -> None:
        """Add one frame: point-to-plane distances, weighted by viewing angle and range, none beside depth edges."""
        depth = frame.depth.astype(np.float32)
        shape = depth_normals(depth, frame.camera)
        weight = np.where(shape.edge, 0, shape.cosine) / (1 + (depth / 3) ** 2)
        weight = np.where(np.isfinite(weight) & (weight > 0.02), weight, 0).astype(np.float32)
        if not weight.any():
            return
        points = frame.points()
        origin = frame.T_world_camera[:3, 3].astype(np.float32)
        normals = np.nan_to_num(shape.normals @ frame.T_world_camera[:3, :3].T.astype(np.float32))
        slots, coordinates = self._touch(points[weight > 0], origin)
        for start in range(0, len(slots), _CHUNK):
            rows = slice(start, start + _CHUNK)
            self._update(slots[rows], coordinates[rows], frame, np.nan_to_num(points), normals, weight)

    def extract(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float32 [m], faces (F, 3) int32 wound towards free space, colours (V, 3) uint8.

        Marching cubes runs on regions of 8^3 blocks that share their border voxels; a vertex is known by the grid edge
        that it lies on, so neighbours meet in the same vertex and leave no crack.
        """
        blocks = _unpack(self.keys)
        # A region needs no visit if it holds no block: its cells with eight known corners would lie in a block of its own.
        parts = [self._extract_one(corner) for corner in np.unique(blocks // REGION, axis=0)]
        parts = [part for part in parts if part is not None]
        if not parts:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros((0, 3), np.uint8)
        offsets = np.cumsum([0] + [len(part[0]) for part in parts[:-1]])
        edges, positions, colors = (np.concatenate([part[i] for part in parts]) for i in range(3))
        faces = np.concatenate([part[3] + offset for part, offset in zip(parts, offsets, strict=True)])
        _, first, same = np.unique(edges, return_index=True, return_inverse=True)
        faces = same[faces]
        whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        vertices = ((positions[first] + 0.5) * self.voxel).astype(np.float32)
        return vertices, faces[whole].astype(np.int32), np.clip(np.rint(colors[first]), 0, 255).astype(np.uint8)

    def _touch(self, points: np.ndarray, origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Make the blocks within the truncation band of the points; return their slots and block coordinates (N, 3)."""
        rays = points - origin
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        size = SIDE * self.voxel
        steps = np.linspace(-1, 1, 2 * int(np.ceil(2 * self.truncation / size)) + 1) * self.truncation
        found = [np.unique(_pack(np.floor((points + rays * step) / size).astype(np.int64))) for step in steps.astype(np.float32)]
        keys = np.unique(np.concatenate(found))
        new = np.setdiff1d(keys, self.keys, assume_unique=True)
        if len(new):
            self._grow(len(self.keys) + len(new))
            slots = np.concatenate([self._slots, len(self.keys) + np.arange(len(new))])
            joined = np.concatenate([self.keys, new])
            order = np.argsort(joined, kind="stable")
            self.keys, self._slots = joined[order], slots[order]
        return self._slots[np.searchsorted(self.keys, keys)], _unpack(keys)

    def _grow(self, count: int) -> None:
        if count <= len(self.distance):
            return
        extra = max(count, len(self.distance) * 3 // 2) - len(self.distance)
        self.distance = np.concatenate([self.distance, np.ones((extra, SIDE**3), np.float32)])
        self.weight = np.concatenate([self.weight, np.zeros((extra, SIDE**3), np.float32)])
        self.color = np.concatenate([self.color, np.zeros((extra, SIDE**3, 3), np.float32)])

    def _update(self, slots: np.ndarray, coordinates: np.ndarray, frame: Frame, points: np.ndarray, normals: np.ndarray,
                weight: np.ndarray) -> None:
        """Fuse one frame into blocks: running means over the voxels that project to a pixel with weight."""
        camera, T = frame.camera, inverse(frame.T_world_camera)
        corners = coordinates * (SIDE * self.voxel)
        base = (corners @ T[:3, :3].T + T[:3, 3]).astype(np.float32)
        inner = ((_LOCAL + 0.5) * self.voxel).astype(np.float32)
        local = base[:, None] + (inner @ T[:3, :3].T.astype(np.float32))[None]
        z = local[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            u = local[..., 0] / z * np.float32(camera.K[0, 0]) + np.float32(camera.K[0, 2])
            v = local[..., 1] / z * np.float32(camera.K[1, 1]) + np.float32(camera.K[1, 2])
            visible = (z > 0.01) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        block, voxel = np.nonzero(visible)
        pixel = v[block, voxel].astype(np.int32) * camera.width + u[block, voxel].astype(np.int32)
        keep = weight.reshape(-1)[pixel] > 0
        block, voxel, pixel = block[keep], voxel[keep], pixel[keep]
        world = corners.astype(np.float32)[block] + inner[voxel]
        offset = world - points.reshape(-1, 3)[pixel]
        behind = z[block, voxel] - frame.depth.reshape(-1)[pixel]
        distance = (offset * normals.reshape(-1, 3)[pixel]).sum(1) / np.float32(self.truncation)
        keep = (behind < self.truncation) & (distance > -1)
        flat = slots[block[keep]] * SIDE**3 + voxel[keep]
        self._average(flat, np.minimum(distance[keep], 1), weight.reshape(-1)[pixel[keep]], frame.rgb.reshape(-1, 3)[pixel[keep]])

    def _average(self, flat: np.ndarray, distance: np.ndarray, weight: np.ndarray, rgb: np.ndarray) -> None:
        old = self.weight.reshape(-1)[flat]
        share = weight / (old + weight)
        distances, colors = self.distance.reshape(-1), self.color.reshape(-1, 3)
        distances[flat] += share * (distance - distances[flat])
        colors[flat] += share[:, None] * (rgb - colors[flat])
        self.weight.reshape(-1)[flat] = old + weight

    def _extract_one(self, corner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """Copy a region and one voxel beyond it into dense arrays and run marching cubes."""
        side = REGION * SIDE + 1
        low = corner * REGION
        cells = np.stack(np.meshgrid(*[np.arange(REGION + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
        keys = _pack(low + cells)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        have = self.keys[at] == keys
        distance = np.ones((side + SIDE - 1,) * 3, np.float32)
        weight, color = np.zeros_like(distance), np.zeros((*distance.shape, 3), np.float32)
        for cell, slot in zip(cells[have], self._slots[at[have]], strict=True):
            box = tuple(slice(SIDE * c, SIDE * (c + 1)) for c in cell)
            distance[box] = self.distance[slot].reshape(SIDE, SIDE, SIDE)
            weight[box] = self.weight[slot].reshape(SIDE, SIDE, SIDE)
            color[box] = self.color[slot].reshape(SIDE, SIDE, SIDE, 3)
        part = (slice(0, side),) * 3
        return extract_region(distance[part], weight[part] > 0, color[part], low * SIDE)


_LOCAL = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)


def _pack(blocks: np.ndarray) -> np.ndarray:
    """Return one int64 key per block coordinate (..., 3); +-65,000 blocks along each axis."""
    b = blocks + _HALF
    if b.size and (b.min() < 0 or b.max() >= 1 << _BITS):
        raise ConfigError(f"fusion: block coordinates {blocks.min()}..{blocks.max()} are out of range; is the voxel too small?")
    return (b[..., 0] << (2 * _BITS)) | (b[..., 1] << _BITS) | b[..., 2]


def _unpack(keys: np.ndarray) -> np.ndarray:
    mask = (1 << _BITS) - 1
    return np.stack([keys >> (2 * _BITS), (keys >> _BITS) & mask, keys & mask], -1) - _HALF
