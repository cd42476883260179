"""Flat Gaussians from posed depth frames: one per patch of surface, whatever number of frames show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lyra_core.errors import InputError
from lyra_core.splats.exposure import evened_exposure
from lyra_core.splats.merge import WORTH_REPEATING, Looks, Merged, Patches
from lyra_core.types import Frame, GaussianCloud

SH_C0 = 0.28209479177387814
OPACITY = 0.95
SPREAD = 0.57
"""Standard deviation over the spacing: below 0.5 the surface has gaps from other sides, above 0.65 it blurs."""
FLATNESS = 0.1
"""Thickness over the smaller radius."""
ONE_SURFACE = 0.03
"""Pixels of a block whose depth is within this share of its middle one are averaged."""
MAX_SLANT = 5.0
"""Discs are not stretched along the view by more than this."""


def splats_from_frames(frames: Sequence[Frame], *, max_count: int, block: int = 2, first_block: int | None = None,
                       exposure: bool = False) -> GaussianCloud:
    """Make Gaussians of degree 0 from posed depth frames: pixel-aligned, merged by surface (as surfels: Keller et al. 2013).

    In order, a frame adds what earlier ones do not show about as finely. Then each Gaussian gets mean, normal and colour of all
    frames that see it, weighted by how surely they do; the surest provenance of them; and an opacity by how many frames that
    should see it do: what more frames look through than see is dropped.

    One Gaussian stands for block x block pixels, or first_block x first_block in the first frame (1 keeps the photo's
    detail). If there would be more than max_count, blocks grow for all frames alike; no region is cut off.

    Args:
        exposure: even out differences of brightness between the frames first; for cameras that expose each picture anew.

    Raises:
        InputError: max_count is below 1, or no pixel has depth. BackendUnavailable: Warp is not installed.
    """
    first = block if first_block is None else first_block
    if min(max_count, block, first) < 1:
        raise InputError(f"splats: got max_count {max_count}, block {block} and first_block {first}, expected at least 1")
    if not any(np.isfinite(frame.depth).any() for frame in frames):
        raise InputError(f"splats: {len(frames)} frames have no pixel of known depth")
    if exposure:
        frames = evened_exposure(frames)
    looks = Looks(frames)
    while True:
        merged = _merged(frames, looks, [first] + [block] * (len(frames) - 1))
        count = len(merged.rows)
        if count <= max_count:
            break
        block, first = (max(b + 1, int(b * np.sqrt(count / max_count))) for b in (block, first))
    return _gaussians(frames, merged.patches, OPACITY * merged.trust)


def _merged(frames: Sequence[Frame], looks: Looks, blocks: list[int]) -> Merged:
    """Make each frame's new patches and merge them; once more without what turned out to be no surface."""
    for again in (True, False):
        patches = Patches.joined([looks.new_patches(k, block, _blocks(frame, block, looks.shapes[k], looks.known[k]))
                                  for k, (frame, block) in enumerate(zip(frames, blocks, strict=True))])
        merged = looks.merge(patches)
        if not again or len(merged.dropped) <= WORTH_REPEATING * len(patches.points):
            break
        looks.forget(patches.rows(merged.dropped))
    return merged


def _gaussians(frames: Sequence[Frame], patches: Patches, opacities: np.ndarray) -> GaussianCloud:
    """Lay a disc on every patch: as wide as its block of pixels, stretched along the slant of its own frame's view."""
    eyes = np.stack([frame.T_world_camera[:3, 3] for frame in frames])[patches.frame]
    axes, slant = _disc_axes(patches.normals, patches.points - eyes)
    radius = SPREAD * patches.block * patches.footprint
    scales = np.stack([radius * slant, radius, FLATNESS * radius], 1).astype(np.float32)
    sh = ((patches.rgb / 255.0 - 0.5) / SH_C0).astype(np.float32)[:, None]
    return GaussianCloud(patches.points, quats_from_axes(axes), scales, opacities.astype(np.float32), sh, patches.provenance)


def _blocks(frame: Frame, block: int, normals: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Reduce a frame to blocks of pixels: of each, the surface at its middle depth.

    Its point (B, 3) in the camera frame is at the mean pixel and the mean inverse depth, which is exact on planes, so that
    the spacing stays even; normal and provenance are of the pixel nearest the middle depth.
    """
    h, w = frame.depth.shape
    frame_depth = frame.depth if known.all() else np.where(known, frame.depth, np.float32(np.nan))
    if block == 1:
        return {"point": (frame.camera.rays() * frame_depth[..., None])
                .reshape(-1, 3), "rgb": frame.rgb.reshape(-1, 3), "normal": normals.reshape(-1, 3).astype(np.float32),
                "provenance": frame.provenance.reshape(-1)}
    pad = ((0, -h % block), (0, -w % block))

    def tiles(a: np.ndarray, fill: float) -> np.ndarray:
        full = np.pad(a, pad, constant_values=fill)
        return full.reshape(full.shape[0] // block, block, -1, block).swapaxes(1, 2).reshape(-1, block * block)

    depth = tiles(frame_depth.astype(np.float32), np.nan)
    pixel = tiles(np.arange(h * w).reshape(h, w), 0)
    known = np.isfinite(depth)
    ranked = np.sort(depth, 1)  # NaN last: the lower middle of what is known is a depth that some pixel has
    middle = ranked[np.arange(len(ranked)), np.maximum(known.sum(1) - 1, 0) // 2]
    gap = np.where(known, np.abs(depth - middle[:, None]), np.inf)
    pick = np.argmin(gap, 1)
    same = known & (gap <= ONE_SURFACE * np.where(np.isfinite(middle), middle, 0)[:, None])
    share = same / np.maximum(same.sum(1, keepdims=True), 1)
    rgb = np.stack([(tiles(frame.rgb[..., c].astype(np.float32), 0) * share).sum(1) for c in range(3)], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = 1 / (share * np.where(same, 1 / depth, 0)).sum(1)
    K = frame.camera.K
    u, v = (share * (pixel % w + 0.5)).sum(1), (share * (pixel // w + 0.5)).sum(1)
    z = np.where(np.isfinite(middle), z, np.nan)
    point = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], 1)
    at = pixel[np.arange(len(pixel)), pick]
    return {"point": point, "rgb": rgb, "normal": normals.reshape(-1, 3)[at].astype(np.float32),
            "provenance": frame.provenance.reshape(-1)[at]}


def _disc_axes(normal: np.ndarray, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return axes (N, 3, 3) as columns (slant, across, normal) of discs, and how far the slant is stretched (N,).

    A square pixel covers 1 / cosine as much along the slant.
    """
    ray = view / np.sqrt(np.einsum("ij,ij->i", view, view))[:, None]
    cosine = -np.einsum("ij,ij->i", normal, ray)
    slant = ray + cosine[:, None] * normal
    length = np.sqrt(np.einsum("ij,ij->i", slant, slant))[:, None]
    steep = np.flatnonzero(length[:, 0] <= 1e-3)
    slant /= np.maximum(length, 1e-9)
    spare = np.cross(normal[steep], np.eye(3)[np.argmin(np.abs(normal[steep]), 1)])
    slant[steep] = spare / np.linalg.norm(spare, axis=1, keepdims=True)
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
