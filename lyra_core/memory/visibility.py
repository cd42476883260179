"""Which cached frames see which pixels of a view, fast: whole frames and then tiles of them are left out before projection.

A frame or tile is left out if its bounding sphere lies outside the view or behind all that is drawn there. Every choice is
conservative and every number the same double as in the readable version (``memory.lyra2.visible_pixels``), so is the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lyra_core.camera.warp_package import load_warp
from lyra_core.memory.cache import FrameCache
from lyra_core.types import Camera

FIRST_BATCH, LARGEST_BATCH = 8, 128
"""Frames drawn between two looks at what they hide: few at first, then more."""


def warp_and_kernels() -> tuple[Any, Any]:
    """Return the warp package and this package's kernels.

    Raises:
        BackendUnavailable: warp is not installed.
    """
    wp = load_warp("retrieval from the frame cache")
    from lyra_core.memory import _warp_visibility_kernels

    return wp, _warp_visibility_kernels


class ViewBuffer:
    """The nearest depth of all cached points in one view."""

    def __init__(self, cache: FrameCache, view: Camera, T_camera_world: np.ndarray) -> None:
        """Draw the cache. ``view`` is the camera of the thinned target."""
        self.nearest = np.full(view.width * view.height, np.inf)
        """(h * w) float64 [m]; inf = nothing there."""
        self._wp, self._kernels = warp_and_kernels()
        self._frames, self._most_tiles = self._cached(cache)
        self._target = self._kernels.View()
        self._target.K = self._wp.mat33d(*view.K.ravel().tolist())
        self._target.T = self._wp.mat44d(*T_camera_world.ravel().tolist())
        self._target.width, self._target.height = view.width, view.height
        self._target.nearest = self._shared(self.nearest, self._wp.float64)
        self._positions, self._near = self._in_view(cache, T_camera_world)
        self._draw()

    def _in_view(self, cache: FrameCache, T_camera_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames whose bounding sphere meets the view, near ones first: (n,) int32 and smallest z (n,) [m]."""
        centres, radii = cache.bounds
        near = (centres * T_camera_world[2, :3]).sum(1) + T_camera_world[2, 3] - radii
        # Nothing is drawn yet, so only what lies outside the view is left out.
        positions = self._select(np.arange(len(cache), dtype=np.int32), 0.0)
        positions = positions[np.argsort(near[positions], kind="stable")]
        return positions, near[positions]

    def _draw(self) -> None:
        first, size = 0, FIRST_BATCH
        while first < len(self._positions):
            # In the order of distance, so behind a view that is covered everywhere nothing more can show.
            if self._near[first] > self.nearest.max():
                break
            chosen = self._select(self._positions[first : first + size], 0.0)
            self._launch(self._kernels.draw, (len(chosen), self._most_tiles), self._shared(chosen, self._wp.int32))
            first, size = first + size, min(2 * size, LARGEST_BATCH)

    def masks(self, tolerance: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield cache positions (n,) and what those frames see, (n, h * w) bool, for all frames that may see something.

        A frame sees a pixel if one of its points there lies at most ``tolerance`` [m] behind the nearest of all.
        """
        count = int(np.searchsorted(self._near, self.nearest.max(initial=0) + tolerance, side="right"))
        chosen = self._select(self._positions[:count], tolerance)
        for first in range(0, len(chosen), LARGEST_BATCH):
            part = np.ascontiguousarray(chosen[first : first + LARGEST_BATCH])
            mask = np.zeros((len(part), len(self.nearest)), bool)
            arrays = self._shared(part, self._wp.int32), self._shared(mask, self._wp.bool)
            self._launch(self._kernels.see, (len(part), self._most_tiles), tolerance, *arrays)
            yield part.astype(np.int64), mask

    def _select(self, positions: np.ndarray, slack: float) -> np.ndarray:
        """Return those frames whose sphere may show, (n,) int32."""
        kept = np.zeros(len(positions), bool)
        arrays = self._shared(np.ascontiguousarray(positions), self._wp.int32), self._shared(kept, self._wp.bool)
        self._launch(self._kernels.select, len(positions), slack, *arrays)
        return positions[kept]

    def _launch(self, kernel: Any, size: Any, *arguments: Any) -> None:
        self._wp.launch(kernel, size, [self._frames, self._target, *arguments], device="cpu")

    def _shared(self, array: np.ndarray, dtype: Any) -> Any:
        """Return a Warp array on the same memory."""
        return self._wp.array(array, dtype=dtype, device="cpu", copy=False)

    def _cached(self, cache: FrameCache) -> tuple[Any, int]:
        """Return the cache's clouds as the kernels take them, and the largest number of tiles of a frame."""
        wp, clouds, frames = self._wp, cache.clouds, self._kernels.Frames()
        frames.depth = self._shared(clouds.depth.values, wp.float32)
        frames.tile_spheres = self._shared(clouds.tile_spheres.values, wp.vec4f)
        frames.tile_corners = self._shared(clouds.tile_corners.values, wp.vec2i)
        frames.K = self._shared(clouds.K.values, wp.mat33d)
        frames.T = self._shared(clouds.T_world_camera.values, wp.mat44d)
        frames.first_tile = self._shared(clouds.first_tile.values, wp.int32)
        frames.spheres = self._shared(clouds.spheres.values, wp.vec4d)
        return frames, int(np.diff(clouds.first_tile.values).max(initial=0))
