"""Depth of posed pictures by plane sweeping, where no sensor measured any: the multi-view stereo of COLMAP-like captures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import project, unproject
from lyra_core.depth.formats import resampled_depth
from lyra_core.depth.sweep_points import best_neighbours, depth_range, triangulated_points
from lyra_core.depth.sweep_volume import aggregated, lowest
from lyra_core.errors import InputError
from lyra_core.types import Camera, Frame, Provenance

NEIGHBOURS = 4
"""Pictures that each picture is compared with."""
_UNSEEN = 0.6
"""Cost of a plane that falls outside the neighbour's picture; uncorrelated patches cost 0.5."""
_OUTSIDE = -1e4
"""Stands for grey values outside of a picture; what is mixed with it stays below 0."""
_NOISE = 1.0
"""Standard deviation of grey values [1/255] below which a patch counts as flat: its correlation is drawn to 0."""
_CHECK_PX = 1.0
"""A depth must come back through a neighbour's depth this close to where it started [swept px]."""
_CHECK_DEPTH = 0.015
"""... and with this relative difference, or three quarters of a plane's step where that is larger."""


@dataclass(frozen=True)
class SweptView:
    """One picture at the swept size."""

    grey: np.ndarray
    """(h, w) float32 in 0..255."""
    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4)"""


@dataclass(frozen=True)
class SweptDepth:
    """What the sweep of one view found, before it is compared with its neighbours."""

    depth: np.ndarray
    """(h, w) float32 z-depth; NaN = no plane stood out."""
    step: float
    """Distance of two planes in inverse depth."""


def sweep_depths(
    frames: Sequence[Frame], *, points: np.ndarray | None = None, planes: int = 96, long_side: int = 320, window: int = 5
) -> list[Frame]:
    """Return the frames with depth by plane-sweep stereo; their own depth is ignored and replaced.

    Each picture is compared with its best 4 neighbours on planes uniform in inverse depth (Collins 1996): regularised
    zero-mean correlation, the mean of the best two neighbours against occlusion (Kang et al. 2001), semi-global aggregation
    along 8 directions (Hirschmueller 2008), a parabola between planes, and a depth is kept only where two other views' depths
    lead back to the same pixel (as in COLMAP, Schoenberger et al. 2016). What is not sure is NaN with provenance 255.

    Args:
        frames: two or more with known poses, of any sizes [unit of the poses].
        points: (N, 3) sparse points of the reconstruction, which bound the depth; None = they are triangulated here.
        planes: number of depths tried.
        long_side: pictures are swept at this size [px] and the depth is resampled to the frames' own size.
        window: side of the compared patch [px], odd.

    Raises:
        InputError: fewer than two frames, or pictures that share nothing to triangulate.
    """
    if len(frames) < 2:
        raise InputError(f"plane sweep: got {len(frames)} frames, expected at least 2 with different positions")
    if planes < 8 or window % 2 == 0 or long_side < 32:
        raise InputError(f"plane sweep: got {planes} planes, window {window}, long side {long_side}, expected at least 8, odd, 32")
    views = [_swept_view(frame, long_side) for frame in frames]
    if points is None:
        points = triangulated_points(views)
    if not np.isfinite(points).all() or points.ndim != 2 or points.shape[1] != 3 or len(points) < 8:
        raise InputError(f"plane sweep: got sparse points of shape {points.shape}, expected (N, 3) finite numbers, N >= 8; "
                         "the pictures may share too little or stand at one place")
    neighbours = best_neighbours(views, points, NEIGHBOURS)
    ranges = [depth_range(view, points) for view in views]
    swept = [_sweep(view, [views[j] for j in near], bounds, planes, window)
             for view, near, bounds in zip(views, neighbours, ranges, strict=True)]
    checked = [_checked(i, views, swept, neighbours) for i in range(len(views))]
    return [_with_depth(frame, depth) for frame, depth in zip(frames, checked, strict=True)]


def _swept_view(frame: Frame, long_side: int) -> SweptView:
    scale = min(1.0, long_side / max(frame.camera.width, frame.camera.height))
    width, height = (max(16, round(n * scale)) for n in (frame.camera.width, frame.camera.height))
    grey = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY)
    grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return SweptView(grey, frame.camera.resized(width, height), frame.T_world_camera)


def _sweep(view: SweptView, near: list[SweptView], bounds: tuple[float, float], planes: int, window: int) -> SweptDepth:
    """Return the depth of one view by its neighbours."""
    inverse_depths = np.linspace(1 / bounds[1], 1 / bounds[0], planes)
    step = float(inverse_depths[1] - inverse_depths[0])
    if not near:
        return SweptDepth(np.full(view.grey.shape, np.nan, np.float32), step)
    volume = _cost_volume(view, near, inverse_depths, window)
    total = aggregated(volume, view.grey)
    best, sure = lowest(total, volume)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(sure, 1.0 / (inverse_depths[0] + best * step), np.nan)
    return SweptDepth(depth.astype(np.float32), step)


def _cost_volume(view: SweptView, near: list[SweptView], inverse_depths: np.ndarray, window: int) -> np.ndarray:
    """Return (h, w, planes) float32 costs in 0..1: half of one minus the correlation, mean of the two best neighbours."""
    mean, deviation = _patch(view.grey, window)
    K_inv = np.linalg.inv(_centred(view.camera))
    relative = [(_centred(other.camera), inverse(other.T_world_camera) @ view.T_world_camera) for other in near]
    volume = np.empty((len(inverse_depths), *view.grey.shape), np.float32)
    for plane, w in enumerate(inverse_depths):
        first = second = np.full(view.grey.shape, _UNSEEN, np.float32)
        for other, (K, T) in zip(near, relative, strict=True):
            H = K @ (T[:3, :3] + np.outer(T[:3, 3], [0, 0, w])) @ K_inv
            cost = _plane_cost(view.grey, mean, deviation, other.grey, H, window)
            second = np.minimum(second, np.maximum(first, cost))
            first = np.minimum(first, cost)
        volume[plane] = 0.5 * (first + second) if len(near) > 1 else first
    return np.ascontiguousarray(np.moveaxis(volume, 0, -1))


def _plane_cost(grey: np.ndarray, mean: np.ndarray, deviation: np.ndarray, other: np.ndarray, H: np.ndarray,
                window: int) -> np.ndarray:
    """Return (h, w) float32 cost of one plane and one neighbour; H maps pixels of the view into the neighbour."""
    size, flags = grey.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(other, H, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=_OUTSIDE)
    seen = warped >= 0
    warped = np.maximum(warped, 0)
    other_mean, other_deviation = _patch(warped, window)
    product = cv2.boxFilter(grey * warped, -1, (window, window))
    correlation = (product - mean * other_mean) / (deviation * other_deviation)
    cost = 0.5 * (1 - np.clip(correlation, -1, 1))
    corners = H[2] @ np.array([[0, size[0], 0, size[0]], [0, 0, size[1], size[1]], [1, 1, 1, 1]], float)
    if corners.min() <= 0:  # part of the plane lies behind the neighbour
        u, v = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
        seen = seen & (H[2, 0] * u + H[2, 1] * v + H[2, 2] > 0)
    return np.where(seen, cost, np.float32(_UNSEEN)).astype(np.float32)


def _patch(grey: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and regularised standard deviation of each pixel's patch, (h, w) float32."""
    mean = cv2.boxFilter(grey, -1, (window, window))
    variance = cv2.sqrBoxFilter(grey, cv2.CV_32F, (window, window)) - mean * mean
    return mean, np.sqrt(np.maximum(variance, 0) + _NOISE**2)


def _centred(camera: Camera) -> np.ndarray:
    """Return K (3, 3) for coordinates that count from pixel centres, as OpenCV's warps do."""
    K = camera.K.copy()
    K[:2, 2] -= 0.5
    return K


def _checked(i: int, views: list[SweptView], swept: list[SweptDepth], neighbours: list[list[int]]) -> np.ndarray:
    """Return view i's depth (h, w), averaged with those of the others that agree; NaN where fewer than two (or all) do."""
    view, depth, step = views[i], swept[i].depth, swept[i].step
    others = sorted({*neighbours[i], *(j for j, near in enumerate(neighbours) if i in near)})
    world = unproject(depth, view.camera, view.T_world_camera).reshape(-1, 3)
    total, count = 1.0 / depth.reshape(-1).astype(np.float64), np.zeros(depth.size, int)
    for j in others:
        back, distance = _returned(world, view, views[j], swept[j].depth)
        z = depth.reshape(-1)
        with np.errstate(invalid="ignore"):
            agrees = (distance < _CHECK_PX) & (np.abs(back - z) < np.maximum(_CHECK_DEPTH * z, 0.75 * step * z * z))
        total = total + np.where(agrees, 1.0 / np.where(agrees, back, 1.0), 0.0)
        count += agrees
    sure = count >= min(2, len(others)) if others else np.zeros(depth.size, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(sure, (count + 1) / total, np.nan).astype(np.float32).reshape(depth.shape)
    return _without_specks(out)


def _returned(world: np.ndarray, view: SweptView, other: SweptView, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Send points (n, 3) of a view to another's depth and back: their z-depth in the view (n,) and how far off they land [px]."""
    u, v, z = project(world, other.camera, inverse(other.T_world_camera))
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (u >= 0) & (v >= 0) & (u < other.camera.width) & (v < other.camera.height)
    column, row = (np.where(inside, a, 0).astype(int) for a in (u, v))
    met = np.where(inside, depth[row, column], np.nan)
    # The neighbour's depth is taken at the pixel hit, along the ray that was sent, not along that pixel's centre.
    K = other.camera.K
    local = np.stack([(u - K[0, 2]) / K[0, 0] * met, (v - K[1, 2]) / K[1, 1] * met, met], 1)
    T = other.T_world_camera
    u_back, v_back, z_back = project(local @ T[:3, :3].T + T[:3, 3], view.camera, inverse(view.T_world_camera))
    u_home, v_home, _ = project(world, view.camera, inverse(view.T_world_camera))
    return z_back, np.hypot(u_back - u_home, v_back - v_home)


def _without_specks(depth: np.ndarray, *, size: int = 40) -> np.ndarray:
    """Drop islands of fewer pixels than size whose depth continues no neighbour's within 3 %."""
    levels = np.where(np.isfinite(depth), np.log(np.where(np.isfinite(depth), depth, 1.0)), np.nan)
    low = np.nanmin(levels) if np.isfinite(levels).any() else 0.0
    high = np.nanmax(levels) if np.isfinite(levels).any() else 1.0
    scale = min(1000.0, 30000.0 / max(high - low, 1e-6))
    coded = np.where(np.isfinite(levels), (levels - low) * scale + 1, -1).astype(np.int16)
    coded, _ = cv2.filterSpeckles(coded, -1, size, 0.03 * scale)[:2]
    return np.where(coded >= 0, depth, np.nan).astype(np.float32)


def _with_depth(frame: Frame, depth: np.ndarray) -> Frame:
    full = resampled_depth(depth, frame.camera.width, frame.camera.height)
    provenance = np.where(np.isfinite(full), np.uint8(Provenance.SEEN), np.uint8(255))
    return replace(frame, depth=full, provenance=provenance)
