"""One flat Gaussian per newly seen block of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lyra_core.camera.depth_normals import depth_normals
from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.types import Frame, GaussianCloud

SH_C0 = 0.28209479177387814
OPACITY = 0.95
AGREEMENT = 0.03
"""An earlier frame explains a point if its depth there agrees within this share."""
COARSER = 2.0
"""A frame that sees a point with pixels this many times larger does not explain it: the point gets finer Gaussians."""
SPREAD = 0.57
"""Standard deviation over the spacing: below 0.5 the surface has gaps from other sides, above 0.65 it blurs."""
FLATNESS = 0.1
"""Thickness over the smaller radius."""
MAX_SLANT = 5.0
"""Discs are not stretched along the view by more than this."""


def splats_from_frames(frames: Sequence[Frame], *, max_count: int, block: int = 2, first_block: int | None = None) -> GaussianCloud:
    """Make Gaussians of degree 0 from posed depth frames, in order; what an earlier frame explains is skipped.

    One Gaussian stands for block x block pixels, or first_block x first_block in the first frame (1 keeps the photo's
    detail). If there would be more than max_count, blocks grow for all frames alike; no region is cut off.

    Raises:
        InputError: max_count is below 1, or no pixel has depth.
    """
    first = block if first_block is None else first_block
    if min(max_count, block, first) < 1:
        raise InputError(f"splats: got max_count {max_count}, block {block} and first_block {first}, expected at least 1")
    while True:
        parts = [_frame_splats(frames, i, block if i else first) for i in range(len(frames))]
        count = sum(len(part[0]) for part in parts)
        if count <= max_count:
            break
        block, first = (max(b + 1, int(b * np.sqrt(count / max_count))) for b in (block, first))
    if not count:
        raise InputError(f"splats: {len(frames)} frames have no pixel of known depth")
    means, quats, scales, rgb, provenance = (np.concatenate([part[i] for part in parts]) for i in range(5))
    sh = ((rgb / 255.0 - 0.5) / SH_C0).astype(np.float32)[:, None]
    return GaussianCloud(means, quats, scales, np.full(count, OPACITY, np.float32), sh, provenance)


def _frame_splats(frames: Sequence[Frame], i: int, block: int) -> tuple[np.ndarray, ...]:
    """Return means, quaternions, scales, colours (0..255) and provenance of what frame i sees first."""
    frame = frames[i]
    small = _blocks(frame, block)
    rows = np.flatnonzero(np.isfinite(small["depth"]))
    R, eye = frame.T_world_camera[:3, :3], frame.T_world_camera[:3, 3]
    points = (small["point"][rows] @ R.T + eye).astype(np.float32)
    footprint = small["depth"][rows] / frame.camera.K[0, 0]
    axes, slant = _disc_axes(small["normal"][rows] @ R.T, points - eye)
    size = footprint * np.sqrt(slant)
    new = np.ones(len(rows), bool)
    for earlier in reversed(frames[:i]):  # the newest explains most, so that few points are left for the others
        left = np.flatnonzero(new)
        if not len(left):
            break
        new[left] = ~_explained(points[left], axes[left, :, 2], size[left], earlier)
    rows, points, radius = rows[new], points[new], SPREAD * block * footprint[new]
    scales = np.stack([radius * slant[new], radius, FLATNESS * radius], 1)
    return (points, quats_from_axes(axes[new]), scales.astype(np.float32), small["rgb"][rows], small["provenance"][rows])


def _blocks(frame: Frame, block: int) -> dict[str, np.ndarray]:
    """Reduce a frame to blocks of pixels: of each, the surface at its middle depth.

    Its point (B, 3) in the camera frame is at the mean pixel and the mean inverse depth, which is exact on planes, so that
    the spacing stays even; normal and provenance are of the pixel nearest the middle depth.
    """
    h, w = frame.depth.shape
    pad = ((0, -h % block), (0, -w % block))

    def tiles(a: np.ndarray, fill: float) -> np.ndarray:
        full = np.pad(a, pad, constant_values=fill)
        return full.reshape(full.shape[0] // block, block, -1, block).swapaxes(1, 2).reshape(-1, block * block)

    depth = tiles(frame.depth.astype(np.float32), np.nan)
    pixel = tiles(np.arange(h * w).reshape(h, w), 0)
    known = np.isfinite(depth)
    ranked = np.sort(depth, 1)  # NaN last: the lower middle of what is known is a depth that some pixel has
    middle = ranked[np.arange(len(ranked)), np.maximum(known.sum(1) - 1, 0) // 2]
    gap = np.where(known, np.abs(depth - middle[:, None]), np.inf)
    pick = np.argmin(gap, 1)
    same = known & (gap <= AGREEMENT * np.where(np.isfinite(middle), middle, 0)[:, None])
    share = same / np.maximum(same.sum(1, keepdims=True), 1)
    rgb = np.stack([(tiles(frame.rgb[..., c].astype(np.float32), 0) * share).sum(1) for c in range(3)], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = 1 / (share * np.where(same, 1 / depth, 0)).sum(1)
    K = frame.camera.K
    u, v = (share * (pixel % w + 0.5)).sum(1), (share * (pixel // w + 0.5)).sum(1)
    z = np.where(np.isfinite(middle), z, np.nan)
    point = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], 1)
    at = pixel[np.arange(len(pixel)), pick]
    shape = depth_normals(frame.depth, frame.camera)
    normals = np.where(shape.edge[..., None], np.nan, shape.normals)  # beside an edge a stretched disc would hang over it
    return {"depth": z, "point": point, "rgb": rgb, "normal": normals.reshape(-1, 3)[at],
            "provenance": frame.provenance.reshape(-1)[at]}


def _explained(points: np.ndarray, normals: np.ndarray, size: np.ndarray, frame: Frame) -> np.ndarray:
    """Return which world points (N, 3) an earlier frame shows at least about as finely: pixels of size (N,) [m] on the surface."""
    T = inverse(frame.T_world_camera).astype(np.float32)
    x, y, z = (points @ T[:3, :3].T + T[:3, 3]).T
    K = frame.camera.K.astype(np.float32)
    safe = np.where(z > 0.01, z, 1)
    u, v = x / safe * K[0, 0] + K[0, 2], y / safe * K[1, 1] + K[1, 2]
    inside = (z > 0.01) & (u >= 0) & (v >= 0) & (u < frame.camera.width) & (v < frame.camera.height)
    depth = frame.depth[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
    view = points - frame.T_world_camera[:3, 3]
    cosine = -(view * normals).sum(1) / np.linalg.norm(view, axis=1)
    there = z / K[0, 0] / np.sqrt(np.clip(cosine, 1 / MAX_SLANT, 1))
    with np.errstate(invalid="ignore"):
        return inside & (np.abs(depth - z) <= AGREEMENT * z) & (there <= COARSER * size)


def _disc_axes(normals: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return axes (N, 3, 3) as columns (slant, across, normal) of discs, and how far the slant is stretched (N,).

    A square pixel covers 1 / cosine as much along the slant. Unknown normals face the camera.
    """
    ray = view / np.linalg.norm(view, axis=1, keepdims=True)
    normal = np.where(np.isfinite(normals).all(1, keepdims=True), normals, -ray)
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    cosine = -(normal * ray).sum(1)
    slant = ray + cosine[:, None] * normal
    length = np.linalg.norm(slant, axis=1, keepdims=True)
    spare = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal), 1)])
    slant = np.where(length > 1e-3, slant / np.maximum(length, 1e-9), spare / np.linalg.norm(spare, axis=1, keepdims=True))
    return np.stack([slant, np.cross(normal, slant), normal], 2), 1 / np.clip(cosine, 1 / MAX_SLANT, 1)


def quats_from_axes(R: np.ndarray) -> np.ndarray:
    """Return (N, 4) float32 unit quaternions w, x, y, z of rotations (N, 3, 3), w >= 0 (Shepperd 1978)."""
    a, b, c = R[:, 0, 0], R[:, 1, 1], R[:, 2, 2]
    squares = np.stack([1 + a + b + c, 1 + a - b - c, 1 - a + b - c, 1 - a - b + c], 1)
    w = np.stack([squares[:, 0], R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], 1)
    x = np.stack([w[:, 1], squares[:, 1], R[:, 1, 0] + R[:, 0, 1], R[:, 0, 2] + R[:, 2, 0]], 1)
    y = np.stack([w[:, 2], x[:, 2], squares[:, 2], R[:, 2, 1] + R[:, 1, 2]], 1)
    z = np.stack([w[:, 3], x[:, 3], y[:, 3], squares[:, 3]], 1)
    q = np.stack([w, x, y, z], 1)[np.arange(len(R)), np.argmax(squares, 1)]
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return np.where(q[:, :1] < 0, -q, q).astype(np.float32)
