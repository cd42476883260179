"""A tile renderer of Gaussians on Warp, CPU or CUDA: the fast twin of ``splats.render``, with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import InputError
from lyra_core.types import Camera, GaussianCloud

NEAR = 0.05
"""Nearer Gaussians are not drawn [m]."""
BLUR = 0.3
"""Variance added in the picture [px2]: the low-pass filter of the original code."""
MARGIN = 0.3
"""Gaussians centred further outside than this share of the picture are not drawn: there the local affine projection breaks down."""
MIN_ALPHA, MAX_ALPHA = 1 / 255, 0.99
TILE = 8
"""Pixels per side of a tile, as in the kernels."""
MOST_PAIRS = 200_000_000
"""Pairs of tile and Gaussian that a picture may have: 1.6 GB."""


@dataclass(frozen=True)
class Layers:
    """One picture of a cloud, over black."""

    rgb: np.ndarray
    """(H, W, 3) float32, premultiplied by coverage."""
    coverage: np.ndarray
    """(H, W) float32 in [0, 1]."""
    mean_depth: np.ndarray
    """(H, W) float32 z-depth on the ray, weighted by what each Gaussian contributes; 0 where nothing is drawn."""
    median_depth: np.ndarray
    """(H, W) float32 z-depth at which half of the light is stopped; 0 where never."""


class SplatTiles:
    """A cloud on a device, drawn from many places without being copied again."""

    def __init__(self, cloud: GaussianCloud, *, device: str = "cpu") -> None:
        """Copy geometry to Warp's device, 'cpu' or 'cuda:0'.

        Raises:
            BackendUnavailable: Warp is not installed.
        """
        self._wp = wp = load_warp("splat renderer 'warp'")
        from lyra_core.splats import _warp_render_kernels as kernels

        self._kernels, self.device, self.count = kernels, device, len(cloud.means)
        self._means = self._put(cloud.means, wp.vec3f)
        self._quats = self._put(cloud.quats_wxyz, wp.vec4f)
        self._scales = self._put(cloud.scales, wp.vec3f)
        self._opacities = self._put(cloud.opacities, wp.float32)
        self._center = wp.zeros(self.count, dtype=wp.vec2f, device=device)
        self._conic = wp.zeros(self.count, dtype=wp.vec4f, device=device)
        self._depth = wp.zeros(self.count, dtype=wp.float32, device=device)
        self._slope = wp.zeros(self.count, dtype=wp.vec3f, device=device)
        self._tiles = wp.zeros(self.count, dtype=wp.vec4i, device=device)
        self._count = wp.zeros(self.count, dtype=wp.int32, device=device)

    def draw(self, rgb: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> Layers:
        """Render with these colours (N, 3) in [0, 1] (Kerbl et al. 2023).

        Raises:
            InputError: so many huge Gaussians that the lists of the tiles do not fit.
        """
        return self._composite(rgb, *self._lists(camera, T_world_camera))

    def compare(self, rgb: np.ndarray, target: np.ndarray, camera: Camera,
                T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Render, and return each Gaussian's residuals times its weights (N, 3), and its weights summed (N,).

        target: (H, W, 3) in [0, 1] over black, NaN = not compared.
        """
        wp, (view, starts, which) = self._wp, self._lists(camera, T_world_camera)
        residual = target - self._composite(rgb, view, starts, which).rgb
        gradient = wp.zeros(self.count, dtype=wp.vec3f, device=self.device)
        weights = wp.zeros(self.count, dtype=wp.float32, device=self.device)
        wp.launch(self._kernels.spread_residuals, dim=view.tiles_x * view.tiles_y * TILE**2, device=self.device, inputs=[
            starts, which, self._center, self._conic, self._opacities, view, self._put(residual, wp.vec3f), gradient, weights])
        return gradient.numpy(), weights.numpy()

    def _composite(self, rgb: np.ndarray, view: Any, starts: Any, which: Any) -> Layers:
        wp, size = self._wp, (view.height, view.width)
        image = wp.zeros(size, dtype=wp.vec3f, device=self.device)
        planes = [wp.zeros(size, dtype=wp.float32, device=self.device) for _ in range(3)]
        wp.launch(self._kernels.composite, dim=view.tiles_x * view.tiles_y * TILE**2, device=self.device, inputs=[
            starts, which, self._center, self._conic, self._opacities, self._depth, self._slope, self._put(rgb, wp.vec3f), view,
            image, *planes])
        return Layers(image.numpy(), *(plane.numpy() for plane in planes))

    def visible(self) -> np.ndarray:
        """Return which Gaussians (N,) touched the last picture."""
        return self._count.numpy() > 0

    def _lists(self, camera: Camera, T_world_camera: np.ndarray) -> tuple[Any, Any, Any]:
        """Return the view, where each tile's list begins, and the lists: Gaussians front to back."""
        wp, kernels = self._wp, self._kernels
        view = self._view(camera, T_world_camera)
        wp.launch(kernels.project, dim=self.count, device=self.device, inputs=[
            self._means, self._quats, self._scales, self._opacities, view, self._center, self._conic, self._depth, self._slope,
            self._tiles, self._count])
        count, depth = self._count.numpy(), self._depth.numpy()
        rows = np.flatnonzero(count)
        rows = rows[np.argsort(depth[rows], kind="stable")]
        count = count[rows].astype(np.int64)
        total, tiles = int(count.sum()), view.tiles_x * view.tiles_y
        if total > MOST_PAIRS:
            raise InputError(f"splats: {total} pairs of tile and Gaussian in one picture, expected at most {MOST_PAIRS}; "
                             "the cloud holds huge Gaussians (see clean_splats)")
        tile = wp.empty(total, dtype=wp.int32, device=self.device)
        which = wp.empty(total, dtype=wp.int32, device=self.device)
        wp.launch(kernels.list_pairs, dim=len(rows), device=self.device, inputs=[
            self._put(rows, wp.int32), self._put(np.cumsum(count) - count, wp.int32), self._tiles, view.tiles_x, tile, which])
        keys = tile.numpy()
        # Up to 16 bits numpy sorts by radix.
        order = np.argsort(keys.astype(np.uint16) if tiles <= 65536 else keys, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=tiles))])
        return view, self._put(starts, wp.int32), self._put(which.numpy()[order], wp.int32)

    def _view(self, camera: Camera, T_world_camera: np.ndarray) -> Any:
        wp, view, T = self._wp, self._kernels.View(), inverse(T_world_camera)
        view.R, view.t = wp.mat33f(*T[:3, :3].ravel()), wp.vec3f(*T[:3, 3])
        view.fx, view.fy, view.cx, view.cy = (float(camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        view.width, view.height = camera.width, camera.height
        view.tiles_x, view.tiles_y = -(-camera.width // TILE), -(-camera.height // TILE)
        view.near, view.margin, view.blur, view.min_alpha, view.max_alpha = NEAR, MARGIN, BLUR, MIN_ALPHA, MAX_ALPHA
        return view

    def _put(self, values: np.ndarray, dtype: Any) -> Any:
        numbers = np.int32 if dtype is self._wp.int32 else np.float32
        return self._wp.array(np.ascontiguousarray(values, numbers), dtype=dtype, device=self.device)
