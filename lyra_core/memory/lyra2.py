"""Lyra 2.0's retrieval: the frames that together see most of what the target view sees, under occlusion."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import project
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.types import Camera, Trajectory

BATCH = 64
"""Frames projected between two looks at the z-buffer."""


class MemoryLyra2:
    """Greedy coverage of the target's z-buffer by cached frames (Lyra 2.0 report, section on spatial memory).

    All cached points are drawn into the target at 1 / ``point_subsampling`` of its size (nearest pixel). A frame sees a
    pixel if its own point there lies within ``occlusion_tolerance`` [m] of the nearest point of all frames.
    """

    def __init__(self, *, occlusion_tolerance: float = 0.1, culling: bool = True) -> None:
        self.occlusion_tolerance = occlusion_tolerance
        self.culling = culling
        """False projects every cached frame: the slow reference with the same result."""

    def retrieve(self, cache: FrameCache, cameras: Trajectory, *, count: int) -> list[int]:
        """Return up to ``count`` frame ids, best first: each adds the most pixels that no earlier one covers.

        The newest frame (largest id, if positive) is left out and its pixels count as covered, because the main condition
        is warped from it. Equal gains go to the lower cache position; nothing is returned that adds no pixel.
        """
        positions, masks = self.visibility(cache, cameras)
        ids = np.array(cache.ids, dtype=np.int64)[positions]
        newest = cache.newest
        is_newest = (ids == newest) if newest is not None and newest > 0 else np.zeros(len(ids), bool)
        covered = np.asarray(masks[is_newest].any(0))
        rows = greedy_coverage(masks[~is_newest], covered, count)
        return ids[~is_newest][rows].tolist()

    def visibility(self, cache: FrameCache, cameras: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """Return what each frame sees of the V target views.

        Returns:
            (n,) int64 cache positions, ascending, of the frames that see anything, and (n, V * h * w) bool masks with
            h x w the targets' size divided by the cache's point subsampling, rounded up.
        """
        stride = cache.point_subsampling
        views = [strided_camera(cameras.camera(i), stride) for i in range(len(cameras))]
        T_camera_world = inverse(cameras.T_world_camera)
        seen = [self._see(cache, view, T) for view, T in zip(views, T_camera_world, strict=True)]
        positions = np.unique(np.concatenate([p for p, _ in seen])) if seen else np.zeros(0, np.int64)
        pixels = views[0].width * views[0].height if views else 0
        masks = np.zeros((len(positions), len(views), pixels), bool)
        for i, (found, mask) in enumerate(seen):
            masks[np.searchsorted(positions, found), i] = mask
        return positions, masks.reshape(len(positions), len(views) * pixels)

    def _see(self, cache: FrameCache, view: Camera, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return cache positions (n,) ascending and masks (n, h * w) of the frames that see part of one view."""
        ids, nearest = cache.ids, np.full(view.width * view.height, np.inf)
        candidates, boxes, near = self._candidates(cache, view, T_camera_world)
        drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for first in range(0, len(candidates), BATCH):
            batch = range(first, min(first + BATCH, len(candidates)))
            image = nearest.reshape(view.height, view.width)
            # Ordered by distance, so behind a view that is covered everywhere nothing more can show.
            if self.culling and near[first] > nearest.max() + self.occlusion_tolerance:
                break
            kept = [i for i in batch if not self.culling or near[i] <= _farthest(image, boxes[i]) + self.occlusion_tolerance]
            if kept:
                clouds = [cache.points(ids[candidates[i]]) for i in kept]
                owner = np.repeat(candidates[kept], [len(cloud) for cloud in clouds])
                inside, pixel, z = _draw(np.concatenate(clouds), view, T_camera_world)
                np.minimum.at(nearest, pixel, z)
                drawn.append((owner[inside], pixel, z))
        if not drawn:
            return np.zeros(0, np.int64), np.zeros((0, len(nearest)), bool)
        owner, pixel, z = (np.concatenate(column) for column in zip(*drawn, strict=True))
        visible = z <= nearest[pixel] + self.occlusion_tolerance
        found, row = np.unique(owner[visible], return_inverse=True)
        masks = np.zeros((len(found), len(nearest)), bool)
        masks[row, pixel[visible]] = True
        return found, masks

    def _candidates(self, cache: FrameCache, view: Camera, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames whose bounding sphere meets the view, near ones first.

        Returns:
            (n,) cache positions, (n, 4) pixel boxes u0 v0 u1 v1 (exclusive) of the spheres, (n,) smallest z [m].
        """
        centres, radii = cache.bounds
        if not self.culling:
            everything = np.tile([0, 0, view.width, view.height], (len(radii), 1))
            return np.flatnonzero(radii >= 0), everything, np.zeros(len(radii))
        x, y, z = (centres @ T_camera_world[:3, :3].T + T_camera_world[:3, 3]).T
        near, far = z - radii, z + radii
        # Around or behind the camera plane the sphere's picture is unbounded, and the box is the whole view.
        behind = near <= 1e-6
        low, high = np.where(behind, 1.0, near), np.where(behind, 1.0, far)
        box = np.empty((len(radii), 4))
        for column, centre, focal, offset, size in ((0, x, view.K[0, 0], view.K[0, 2], view.width),
                                                    (1, y, view.K[1, 1], view.K[1, 2], view.height)):
            least, most = centre - radii, centre + radii
            box[:, column] = focal * least / np.where(least < 0, low, high) + offset - 1
            box[:, column + 2] = focal * most / np.where(most > 0, low, high) + offset + 1
            box[behind, column], box[behind, column + 2] = 0, size
            box[:, column::2] = np.clip(box[:, column::2], 0, size)
        box[:, :2], box[:, 2:] = np.floor(box[:, :2]), np.ceil(box[:, 2:])
        met = (radii >= 0) & (far > 0) & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
        positions = np.flatnonzero(met)
        order = positions[np.argsort(near[positions], kind="stable")]
        return order, box[order].astype(np.int64), near[order]


def greedy_coverage(masks: np.ndarray, covered: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` rows of masks (n, P) bool, each time the one with the most pixels not in ``covered`` (P,) yet.

    Equal gains go to the lower row; stops when no row adds a pixel.
    """
    rows: list[int] = []
    covered = covered.copy()
    while len(masks) and len(rows) < count:
        gains = (masks & ~covered).sum(1)
        best = int(gains.argmax())
        if gains[best] == 0:
            break
        rows.append(best)
        covered |= masks[best]
    return rows


def _farthest(image: np.ndarray, box: np.ndarray) -> float:
    u0, v0, u1, v1 = box
    return float(image[v0:v1, u0:u1].max())


def _draw(points: np.ndarray, view: Camera, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which points (n,) fall into the view, and the flat pixel and z [m] of those."""
    u, v, z = project(points, view, T_camera_world)
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (u >= 0) & (u < view.width) & (v >= 0) & (v < view.height)
    return inside, v[inside].astype(np.int64) * view.width + u[inside].astype(np.int64), z[inside]
