"""The photo as a texture of world surfaces: any world point looks up the pixel that saw it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.types import DepthEstimate, Label

OBJECT_RIM = 7
"""Width of the kernel that keeps an object's blurred outline off the wall and floor behind it, where it would be spread [px]."""
SKY_FRINGE = 9
"""Width of the kernel that grows what is not sky [px]: skylines of leaves and wires are finer than their mesh."""


@dataclass(frozen=True)
class PhotoSource:
    """The photo at working size with its estimate."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    estimate: DepthEstimate
    first_hit: np.ndarray | None = None
    """(H, W) z-depth [m] of the built geometry at the photo's pose, inf = none; decides what may carry the photo's pixels."""

    paintable: np.ndarray | None = None
    """(H, W) bool: pixels that may be drawn on built surfaces."""
    rim: np.ndarray | None = None
    """(H, W) bool: pixels on or beside an object's outline."""

    def with_first_hit(self, first_hit: np.ndarray, *, standing: np.ndarray) -> PhotoSource:
        """Return a copy that knows the built geometry; standing (H, W) bool: an object is hit first."""
        solid = (self.estimate.labels != Label.SKY).astype(np.uint8)
        grown = cv2.dilate(solid, np.ones((SKY_FRINGE, SKY_FRINGE), np.uint8)) > 0
        rim = cv2.dilate(standing.astype(np.uint8), np.ones((OBJECT_RIM, OBJECT_RIM), np.uint8)) > 0
        return replace(self, first_hit=first_hit, paintable=grown, rim=rim)

    @property
    def position(self) -> np.ndarray:
        """Camera position in the world, (3,) [m]."""
        return self.estimate.T_world_camera[:3, 3]

    def pixels(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points (..., 3). Returns pixel positions (..., 2) float32 and z-depth (...) (<= 0: behind)."""
        T = inverse(self.estimate.T_world_camera)
        local = points @ T[:3, :3].T + T[:3, 3]
        z = np.where(np.abs(local[..., 2]) < 1e-6, 1e-6, local[..., 2])
        K = self.estimate.camera.K
        u = K[0, 0] * local[..., 0] / z + K[0, 2]
        v = K[1, 1] * local[..., 1] / z + K[1, 2]
        return np.stack([u, v], -1).astype(np.float32), local[..., 2]

    def sample(self, points: np.ndarray, keep: tuple[Label, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Look world points (h, w, 3) up in the photo.

        Returns:
            colours (h, w, 3) float32 and known (h, w) bool: inside the photo, in front of the camera, and the pixel's
            label is one of ``keep``.
        """
        uv, z = self.pixels(points)
        height, width = self.rgb.shape[:2]
        inside = (z > 0.05) & (uv[..., 0] >= 0) & (uv[..., 0] < width) & (uv[..., 1] >= 0) & (uv[..., 1] < height)
        column = np.clip(np.nan_to_num(uv[..., 0]), 0, width - 1).astype(int)
        row = np.clip(np.nan_to_num(uv[..., 1]), 0, height - 1).astype(int)
        known = inside & np.isin(self.estimate.labels[row, column], [int(label) for label in keep])
        grid = np.clip(np.nan_to_num(uv), -1e4, 1e4) - 0.5
        colours = cv2.remap(self.rgb, grid[..., 0], grid[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return colours.astype(np.float32), known

    def sample_visible(self, points: np.ndarray, *, beside_objects: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Look world points (h, w, 3) of built surfaces up in the photo.

        beside_objects: False leaves out pixels beside the outline of an object.

        Returns:
            colours (h, w, 3) float32 and known (h, w) bool: the point is the first thing on its line of sight, within 2 %
            of its depth, and the photo shows no sky there but for a fringe of some pixels. What is drawn this way looks like
            the photo from the photo's pose, whatever the labels say.
        """
        colours, _ = self.sample(points, ())
        uv, z = self.pixels(points)
        assert self.first_hit is not None and self.paintable is not None
        height, width = self.first_hit.shape
        column = np.clip(np.nan_to_num(uv[..., 0]), 0, width - 1).astype(int)
        row = np.clip(np.nan_to_num(uv[..., 1]), 0, height - 1).astype(int)
        inside = (z > 0.05) & (uv[..., 0] >= 0) & (uv[..., 0] < width) & (uv[..., 1] >= 0) & (uv[..., 1] < height)
        paintable = self.paintable if beside_objects or self.rim is None else self.paintable & ~self.rim
        return colours, inside & paintable[row, column] & (z < self.first_hit[row, column] * 1.02 + 0.02)

    def world_points(self) -> np.ndarray:
        """Return (H, W, 3) float64 world points of the estimate; NaN where the depth is unknown."""
        e = self.estimate
        local = e.camera.rays().astype(float) * e.depth[..., None]
        return local @ e.T_world_camera[:3, :3].T + e.T_world_camera[:3, 3]


def smooth_extension(values: np.ndarray, known: np.ndarray, *, levels: int = 7) -> np.ndarray:
    """Extend (h, w, C) float values smoothly beyond ``known`` (h, w): a pyramid of normalised averages, coarse to fine."""
    mass = known.astype(np.float32)
    pyramid: list[tuple[np.ndarray, np.ndarray]] = [(values.astype(np.float32) * mass[..., None], mass)]
    while len(pyramid) < levels and min(pyramid[-1][1].shape) > 3:
        half = (max(1, pyramid[-1][1].shape[1] // 2), max(1, pyramid[-1][1].shape[0] // 2))
        pyramid.append(
            (
                np.asarray(cv2.resize(pyramid[-1][0], half, interpolation=cv2.INTER_AREA)),
                np.asarray(cv2.resize(pyramid[-1][1], half, interpolation=cv2.INTER_AREA)),
            )
        )
    size = (values.shape[1], values.shape[0])
    out = np.zeros_like(values, np.float32) + pyramid[0][0].sum((0, 1)) / max(float(mass.sum()), 1e-6)
    for total, weight in reversed(pyramid):
        total, weight = cv2.GaussianBlur(total, (0, 0), 1.5), cv2.GaussianBlur(weight, (0, 0), 1.5)
        fill = cv2.resize(total / np.maximum(weight, 1e-6)[..., None], size, interpolation=cv2.INTER_LINEAR)
        trust = np.clip(cv2.resize(weight, size, interpolation=cv2.INTER_LINEAR) * 8, 0, 1)[..., None]
        out = out * (1 - trust) + fill * trust
    return out
