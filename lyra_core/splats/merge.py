"""Many frames' observations of one patch of surface become one Gaussian; what other frames look through fades or goes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from lyra_core.camera.depth_normals import DepthNormals, depth_normals
from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp_package import load_warp
from lyra_core.types import Frame

AGREEMENT = (0.015, 0.06)
"""Depths within this share of each other are of one surface: the range that the frames' own noise is allowed to choose from."""
NOISES = 4.5
"""Agreement in median differences between frames: three standard deviations."""
WORTH_REPEATING = 0.002
"""Share of patches dropped beyond which the others are made anew, since the dropped ones kept some from being made."""
COARSER = 2.0
"""A frame that sees a point with pixels this many times larger does not explain it: the point gets finer Gaussians."""
EDGE_REACH = 3.0
"""Pixels this far from a depth edge are fully trusted [px]."""
THREADS = 2
OWN = 2.0
"""Weight of the own frame's place beside an equally fine look: neighbours that are moved by different frames come apart."""


@dataclass(frozen=True)
class Patches:
    """Candidates for Gaussians: blocks of pixels of one frame or of several."""

    points: np.ndarray
    """(N, 3) float32 world [m]."""
    normals: np.ndarray
    """(N, 3) float32 unit, world, towards their frame."""
    size: np.ndarray
    """(N,) float32 side of a pixel on the surface [m]: the root of its area."""
    footprint: np.ndarray
    """(N,) float32 side of a pixel across the view [m]."""
    block: np.ndarray
    """(N,) int32 pixels per side."""
    frame: np.ndarray
    """(N,) int32 the frame they are of."""
    cell: np.ndarray
    """(N,) int32 the block of their frame, counted row by row."""
    rgb: np.ndarray
    """(N, 3) float32 in 0..255."""
    provenance: np.ndarray
    """(N,) uint8."""

    def rows(self, rows: np.ndarray) -> Patches:
        """Return some of them."""
        return Patches(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @staticmethod
    def joined(parts: Sequence[Patches]) -> Patches:
        """Return all of them, in order."""
        return Patches(*(np.concatenate([getattr(p, name) for p in parts]) for name in Patches.__dataclass_fields__))


@dataclass(frozen=True)
class Merged:
    """Patches and what all frames together say about them."""

    patches: Patches
    trust: np.ndarray
    """(N,) float32 in (0, 1]: 1 = all frames that should see the patch do."""
    rows: np.ndarray
    """(N,) int64 into the patches that were merged."""
    dropped: np.ndarray
    """Rows of those that more frames look through than see."""


class Looks:
    """Frames on Warp's CPU, ready to be compared with patches."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Raises BackendUnavailable if Warp is not installed."""
        self._wp = load_warp("merging splats")
        from lyra_core.splats import _warp_merge_kernels as kernels

        self._kernels = kernels
        self.shapes: list[np.ndarray] = []
        """Per frame (H, W, 3) float16 normals, camera frame; NaN = unknown, and beside depth edges, where a stretched disc would
        hang over."""
        self.known = [np.isfinite(frame.depth) for frame in frames]
        """Per frame (H, W) bool: pixels with a depth that is believed."""
        self.agreement = depth_agreement(frames)
        self._looks = []
        with ThreadPoolExecutor(THREADS) as pool:
            for frame, shape in zip(frames, pool.map(_shape, frames), strict=True):
                self.shapes.append(np.where(shape.edge[..., None], np.nan, shape.normals).astype(np.float16))
                self._looks.append(self._look(frame, np.nan_to_num(self.shapes[-1]), shape.edge))

    def new_patches(self, k: int, block: int, blocks: dict[str, np.ndarray]) -> Patches:
        """Return the blocks of frame k, in the camera frame, that no earlier frame shows about as finely."""
        wp, n = self._wp, len(blocks["point"])
        points, normals = wp.zeros(n, dtype=wp.vec3f, device="cpu"), wp.zeros(n, dtype=wp.vec3f, device="cpu")
        size, left = wp.zeros(n, dtype=wp.float32, device="cpu"), wp.zeros(n, dtype=wp.int32, device="cpu")
        wp.launch(self._kernels.lift, dim=n, device="cpu", inputs=[
            self._put(blocks["point"], wp.vec3f), self._put(blocks["normal"], wp.vec3f), self._looks[k], points, normals, size,
            left])
        # The newest explains most, so that few points are left for the others.
        for other in [*reversed(range(k)), *range(k + 1, len(self._looks))]:
            wp.launch(self._kernels.explain, dim=n, device="cpu",
                      inputs=[points, normals, size, self._looks[other], self.agreement, COARSER, other < k, left])
        rows = np.flatnonzero(left.numpy())
        self._looks[k].made = self._put(self._mask(k, block, rows), wp.uint8)
        footprint = (blocks["point"][rows, 2] / self._looks[k].fx).astype(np.float32)
        return Patches(points.numpy()[rows], normals.numpy()[rows], size.numpy()[rows], footprint,
                       np.full(len(rows), block, np.int32), np.full(len(rows), k, np.int32), rows.astype(np.int32),
                       blocks["rgb"][rows].astype(np.float32), blocks["provenance"][rows])

    def _mask(self, k: int, block: int, cells: np.ndarray) -> np.ndarray:
        """Return the pixels (H, W) bool of some blocks of frame k."""
        height, width = self.shapes[k].shape[:2]
        blocks = np.zeros((-(-height // block), -(-width // block)), bool)
        blocks.reshape(-1)[cells] = True
        return blocks.repeat(block, 0).repeat(block, 1)[:height, :width]

    def forget(self, patches: Patches) -> None:
        """Take the depth of these patches' pixels away from their frames."""
        for k in np.unique(patches.frame):
            rows = np.flatnonzero(patches.frame == k)
            mask = self._mask(k, int(patches.block[rows[0]]), patches.cell[rows])
            self.known[k] = self.known[k] & ~mask
            self._looks[k].depth = self._put(np.where(mask, 0, self._looks[k].depth.numpy()))

    def merge(self, patches: Patches) -> Merged:
        """Average patches over the frames that see them; drop those that more frames look through than see, and coarse ones below
        finer ones.

        Weights: viewing angle, fineness against the own frame's, distance to the next depth edge, and for colour likeness.
        """
        wp, n = self._wp, len(patches.points)
        points, normals, base = (self._put(a, wp.vec3f) for a in (patches.points, patches.normals, patches.rgb))
        size = self._put(patches.size)
        block, own = self._put(patches.block, wp.int32), self._put(patches.frame, wp.int32)
        one = np.ones(n, np.float32)
        weight, color = self._put(one), self._put(patches.rgb.copy(), wp.vec3f)
        offset_weight, offset = self._put(OWN * one), self._put(0 * one)
        normal = self._put(patches.normals.copy(), wp.vec3f)
        agree, through = self._put(one), self._put(0 * one)
        provenance = self._put(patches.provenance.copy(), wp.uint8)
        superseded = self._put(np.zeros(n, np.uint8), wp.uint8)
        for k, look in enumerate(self._looks):
            wp.launch(self._kernels.gather, dim=n, device="cpu", inputs=[
                points, normals, size, block, own, base, look, k, self.agreement, COARSER, weight, color, offset_weight, offset,
                normal, agree, through, provenance, superseded])
        yes, no = agree.numpy(), through.numpy()
        fine, seen = superseded.numpy() == 0, no <= yes
        # Frames that contradict each other everywhere are still worth a picture.
        rows = np.flatnonzero(fine & seen) if (fine & seen).any() else np.flatnonzero(fine)
        direction = normal.numpy()[rows]
        direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
        shift = (offset.numpy() / offset_weight.numpy())[rows, None] * patches.normals[rows]
        out = patches.rows(rows)
        out = replace(out, points=out.points + shift.astype(np.float32), normals=direction.astype(np.float32),
                      rgb=color.numpy()[rows] / weight.numpy()[rows, None], provenance=provenance.numpy()[rows])
        return Merged(out, (yes / (yes + no))[rows].astype(np.float32), rows,
                      np.flatnonzero(~seen))

    def _look(self, frame: Frame, normals: np.ndarray, edge: np.ndarray) -> Any:
        wp, look, T = self._wp, self._kernels.Look(), inverse(frame.T_world_camera)
        distance = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 3)
        look.depth = self._put(np.nan_to_num(frame.depth))
        look.normal = wp.array(np.ascontiguousarray(normals, np.float16), dtype=wp.vec3h, device="cpu")
        look.rgb = self._put(frame.rgb, wp.vec3ub)
        look.sure = self._put(np.minimum(distance, EDGE_REACH) * (255 / EDGE_REACH), wp.uint8)
        look.provenance = self._put(frame.provenance, wp.uint8)
        look.made = self._put(np.zeros(frame.depth.shape), wp.uint8)
        look.R, look.t = wp.mat33f(*T[:3, :3].ravel()), wp.vec3f(*T[:3, 3])
        look.fx, look.fy, look.cx, look.cy = (float(frame.camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        look.width, look.height = frame.camera.width, frame.camera.height
        return look

    def _put(self, values: np.ndarray, dtype: Any = None) -> Any:
        wp = self._wp
        numbers = {wp.int32: np.int32, wp.uint8: np.uint8, wp.vec3ub: np.uint8}.get(dtype, np.float32)
        return wp.array(np.ascontiguousarray(values, numbers), dtype=dtype or wp.float32, device="cpu")


def depth_agreement(frames: Sequence[Frame]) -> float:
    """Return the share of depth within which frames agree, as measured on frames that follow each other."""
    gaps = [_gaps(a, b) for a, b in pairwise(frames)]
    gap = np.concatenate([np.zeros(0), *gaps])
    near = gap[gap < 1.5 * AGREEMENT[1]]
    return float(np.clip(NOISES * np.median(near), *AGREEMENT)) if len(near) >= 30 else AGREEMENT[0]


def _gaps(a: Frame, b: Frame) -> np.ndarray:
    """Return |relative difference of depth| where b sees some points of a."""
    stride = max(1, int(np.sqrt(a.depth.size / 500)))
    points = a.points()[stride // 2 :: stride, stride // 2 :: stride].reshape(-1, 3).astype(np.float64)
    T, K = inverse(b.T_world_camera), b.camera.K
    x, y, z = (points[np.isfinite(points).all(1)] @ T[:3, :3].T + T[:3, 3]).T
    safe = np.where(z > 0.01, z, 1)
    u, v = x / safe * K[0, 0] + K[0, 2], y / safe * K[1, 1] + K[1, 2]
    inside = (z > 0.01) & (u >= 0) & (v >= 0) & (u < b.camera.width) & (v < b.camera.height)
    gap = np.abs(b.depth[v[inside].astype(int), u[inside].astype(int)] / z[inside] - 1)
    return gap[np.isfinite(gap)]


def _shape(frame: Frame) -> DepthNormals:
    return depth_normals(frame.depth, frame.camera)
