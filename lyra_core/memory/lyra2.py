"""Lyra 2.0's retrieval: the frames that together see most of what the target view sees, under occlusion."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import project
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.memory.visibility import ViewBuffer
from lyra_core.types import Camera, Trajectory

OWNER_TOLERANCE = 1e-6
"""Points within this of the nearest are equally near [m]: the pixel belongs to the frame that was cached first."""
UNSEEN_SHARE = 0.02
"""Sampling weight of a frame that owns nothing, relative to the largest."""

Seen = Iterator[tuple[np.ndarray, np.ndarray]]
"""Cache positions (n,), and what those frames see of one view (n, h * w) bool."""


class MemoryLyra2:
    """Greedy coverage of the target's z-buffer by cached frames (Lyra 2.0 report, section on spatial memory).

    All cached points are drawn into the target at 1 / ``point_subsampling`` of its size (nearest pixel). A frame sees a
    pixel if its own point there lies within ``occlusion_tolerance`` [m] of the nearest point of all frames.
    """

    def __init__(self, *, occlusion_tolerance: float = 0.1, culling: bool = True) -> None:
        self.occlusion_tolerance = occlusion_tolerance
        self.culling = culling
        """False projects every cached frame, in numpy: the readable, slow reference with the same result."""

    def retrieve(self, cache: FrameCache, cameras: Trajectory, *, count: int) -> list[int]:
        """Return up to ``count`` frame ids, best first: each adds the most pixels that no earlier one covers.

        With several target cameras the pixels of all of them count. The newest frame (largest id, if positive) is left out
        and its pixels count as covered, because the main condition is warped from it. Equal gains go to the lower cache
        position; nothing is returned that adds no pixel.
        """
        positions, bits = self._packed(cache, cameras)
        ids = np.array(cache.ids, dtype=np.int64)[positions]
        newest = cache.newest
        is_newest = (ids == newest) if newest is not None and newest > 0 else np.zeros(len(ids), bool)
        covered = np.bitwise_or.reduce(bits[is_newest], 0)
        rows = _greedy(bits[~is_newest], covered, count)
        return ids[~is_newest][rows].tolist()

    def visibility(self, cache: FrameCache, cameras: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """Return what each frame sees of the V target views.

        Returns:
            (n,) int64 cache positions, ascending, of the frames that see anything, and (n, V * h * w) bool masks with
            h x w the targets' size divided by the cache's point subsampling, rounded up.
        """
        positions, bits = self._packed(cache, cameras)
        pixels = _pixels(cache, cameras)
        masks = np.unpackbits(bits.reshape(len(positions), len(cameras), -(-pixels // 8)), axis=2, count=pixels)
        return positions, masks.reshape(len(positions), len(cameras) * pixels).astype(bool)

    def sampling_weights(self, cache: FrameCache, cameras: Trajectory) -> np.ndarray:
        """Return the weight (N,) float64 of every cached frame, in cache order, for drawing frames at random in training.

        A frame counts the pixels of the target views where it is the front-most of all, and 2 % of the largest such count
        beside, so that frames without a pixel are drawn now and then.
        """
        owned = np.zeros(len(cache), np.int64)
        for seen in self._views(cache, cameras, OWNER_TOLERANCE):
            owner: np.ndarray | None = None
            for positions, masks in seen:
                first = np.where(masks, positions[:, None], len(cache)).min(0)
                owner = first if owner is None else np.minimum(owner, first)
            if owner is not None:
                owned += np.bincount(owner, minlength=len(cache) + 1)[: len(cache)]
        return owned + UNSEEN_SHARE * owned.max(initial=0)

    def _views(self, cache: FrameCache, cameras: Trajectory, tolerance: float) -> Iterator[Seen]:
        """Yield what the frames see of each target view."""
        for i, T_camera_world in enumerate(inverse(cameras.T_world_camera)):
            view = strided_camera(cameras.camera(i), cache.point_subsampling)
            if self.culling:
                yield ViewBuffer(cache, view, T_camera_world).masks(tolerance)
            else:
                yield visible_pixels(cache, view, T_camera_world, tolerance)

    def _packed(self, cache: FrameCache, cameras: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """Return positions (n,) as ``visibility`` does, and its masks as bits, (n, V * ceil(h * w / 8)) uint8."""
        found, width = [], -(-_pixels(cache, cameras) // 8)
        for seen in self._views(cache, cameras, self.occlusion_tolerance):
            parts = [(np.zeros(0, np.int64), np.zeros((0, width), np.uint8))]
            for positions, masks in seen:
                any_pixel = masks.any(1)
                parts.append((positions[any_pixel], np.packbits(masks[any_pixel], axis=1)))
            found.append((np.concatenate([p for p, _ in parts]), np.concatenate([bits for _, bits in parts])))
        positions = np.unique(np.concatenate([part for part, _ in found])) if found else np.zeros(0, np.int64)
        out = np.zeros((len(positions), len(found), width), np.uint8)
        for i, (part, bits) in enumerate(found):
            out[np.searchsorted(positions, part), i] = bits
        return positions, out.reshape(len(positions), len(found) * width)


def _pixels(cache: FrameCache, cameras: Trajectory) -> int:
    """Return the number of pixels of one thinned target view."""
    stride = cache.point_subsampling
    return -(-cameras.width // stride) * -(-cameras.height // stride)


def visible_pixels(cache: FrameCache, view: Camera, T_camera_world: np.ndarray, tolerance: float, *, batch: int = 64) -> Seen:
    """Yield what each frame sees of one view: the readable version of ``memory.visibility``."""
    nearest = np.full(view.width * view.height, np.inf)
    drawn = []
    for frame_id in cache.ids:
        pixel, z = _draw(cache.points(frame_id), view, T_camera_world)
        np.minimum.at(nearest, pixel, z)
        drawn.append((pixel, z))
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        masks = np.zeros((len(part), len(nearest)), bool)
        for mask, (pixel, z) in zip(masks, part, strict=True):
            mask[pixel[z <= nearest[pixel] + tolerance]] = True
        yield np.arange(first, first + len(part)), masks


def greedy_coverage(masks: np.ndarray, covered: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` rows of masks (n, P) bool, each time the one with the most pixels not in ``covered`` (P,) yet.

    Equal gains go to the lower row; stops when no row adds a pixel.
    """
    return _greedy(np.packbits(masks, axis=1), np.packbits(covered), count)


def _greedy(bits: np.ndarray, covered: np.ndarray, count: int) -> list[int]:
    """Do ``greedy_coverage`` on packed bits (n, bytes) uint8.

    A gain never grows, so an old one bounds the new one, and only rows at the top of the old ones are counted again (lazy
    greedy, Minoux 1978).
    """
    rows: list[int] = []
    gains = np.concatenate([_count_bits(bits[i : i + 256] & ~covered) for i in range(0, len(bits), 256)] or [np.zeros(0, int)])
    while len(gains) and len(rows) < count:
        best = int(gains.argmax())
        gain = int(_count_bits(bits[best] & ~covered))
        if gain < gains[best]:
            gains[best] = gain
            continue
        if gain == 0:
            break
        rows.append(best)
        covered = covered | bits[best]
    return rows


def _count_bits(bits: np.ndarray) -> np.ndarray:
    """Return the number of set bits along the last axis of uint8 values."""
    return _BITS[bits].sum(-1, dtype=np.int64)


_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


def _draw(points: np.ndarray, view: Camera, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat pixels and z [m] of the points (n, 3) that fall into the view."""
    u, v, z = project(points, view, T_camera_world)
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (u >= 0) & (u < view.width) & (v >= 0) & (v < view.height)
    return v[inside].astype(np.int64) * view.width + u[inside].astype(np.int64), z[inside]
