"""Posed frames through the network: what it is shown, what it returns, and which chunk's Gaussians stay."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lyra_core.splats._torch_backbone import PATCH
from lyra_core.splats._torch_da3 import DA3, unit_per_metre
from lyra_core.splats._torch_decode import Gaussians, decode_gaussians
from lyra_core.splats._torch_heads import output_shape
from lyra_core.types import Frame

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours."""
NEAR = 0.01
"""Nearer points are not seen by a camera [m]."""
POINTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Views:
    """Frames as the network takes them."""

    images: Tensor
    """(V, 3, H, W), normalised; H and W are multiples of 14."""
    K: Tensor
    """(V, 3, 3) of these pictures [px]."""
    T_world_camera: Tensor
    """(V, 4, 4) float64 [m]."""
    depth: Tensor
    """(V, H, W) z-depth [m], NaN = unknown."""
    provenance: Tensor
    """(V, H, W) uint8."""


def views_of_frames(frames: Sequence[Frame], *, long_side: int | None = None, device: torch.device | str = "cpu") -> Views:
    """Resample frames to the nearest size the network takes; colours are averaged or interpolated, depths are picked.

    Args:
        frames: of one size.
        long_side: of the picture [px]; None = the frames' own.
    """
    import cv2

    camera = frames[0].camera
    factor = 1.0 if long_side is None else long_side / max(camera.width, camera.height)
    width, height = (nearest_multiple(round(n * factor)) for n in (camera.width, camera.height))
    grows = width > camera.width or height > camera.height
    resize = cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    rgb = np.stack([cv2.resize(frame.rgb, (width, height), interpolation=resize) for frame in frames])
    rows = ((np.arange(height) + 0.5) * camera.height / height).astype(int)
    columns = ((np.arange(width) + 0.5) * camera.width / width).astype(int)
    pick = np.ix_(rows, columns)
    images = (torch.from_numpy(rgb).to(device).float() / 255 - torch.tensor(MEAN, device=device)) / torch.tensor(STD, device=device)
    return Views(
        images.permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack([f.camera.resized(width, height).K for f in frames])).float().to(device),
        torch.from_numpy(np.stack([f.T_world_camera for f in frames])).to(device),
        torch.from_numpy(np.stack([f.depth[pick] for f in frames])).float().to(device),
        torch.from_numpy(np.stack([f.provenance[pick] for f in frames])).to(device),
    )


def nearest_multiple(n: int) -> int:
    """Return the multiple of the patch size nearest n, the larger of two, at least one patch."""
    return max(PATCH, int((n + PATCH / 2) // PATCH) * PATCH)


def grid_cameras(K: Tensor, shape: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Return intrinsics (V, 3, 3) of a picture of shape (H, W) resampled to grid (h, w)."""
    factor = torch.tensor([grid[1] / shape[1], grid[0] / shape[0], 1.0], device=K.device)
    return K * factor[:, None]


def on_grid(picture: Tensor, grid: Sequence[int]) -> Tensor:
    """Pick every n-th pixel of (V, H, W), as the published model does: (V, h, w)."""
    step = picture.shape[1] // grid[0]
    return picture[:, ::step, ::step][:, : grid[0], : grid[1]]


def frame_gaussians(model: DA3, views: Views, downsample: int) -> Gaussians:
    """Return one Gaussian per output pixel; NaN means where the depth is unknown.

    Cameras and depth are the given ones, not re-estimated: the network contributes appearance, shape and small offsets, and its
    own depth serves only to measure its unit of length.
    """
    shape = views.images.shape[-2:]
    levels = model.features(views.images, views.K, views.T_world_camera)
    unit = unit_per_metre(model.depth(levels, shape), views.depth)
    raw = model.raw_gaussians(levels, views.images, downsample)
    return decoded(raw, views, unit)


def decoded(raw: Tensor, views: Views, unit: Tensor) -> Gaussians:
    """Decode the head's output (V, 38, h, w) with the views' cameras and depth."""
    grid = raw.shape[-2:]
    K = grid_cameras(views.K, views.images.shape[-2:], grid)
    return decode_gaussians(raw, on_grid(views.depth, grid), K, views.T_world_camera.float(), unit)


@torch.no_grad()
def chunk_arrays(model: DA3, frames: Sequence[Frame], kept: int, downsample: int, border: float) -> dict[str, np.ndarray]:
    """Return the Gaussians of a chunk's frames from ``kept`` on, as arrays (N, ...) in the order of frames and pixels.

    Pixels of unknown depth and the outer ``border`` of each picture (a share per side) are left out.
    """
    device = model.gs_head.projects[0].weight.device
    views = views_of_frames(frames, device=device)
    grid = output_shape(views.images.shape[-2:], downsample)
    found = frame_gaussians(model, views, downsample)
    inside = torch.zeros(grid, dtype=torch.bool, device=device)
    trim = [int(border * n) for n in grid]
    inside[trim[0] : grid[0] - trim[0], trim[1] : grid[1] - trim[1]] = True
    use = torch.isfinite(found.means).all(-1) & (found.scales > 0).all(-1) & inside
    use[:kept] = False
    arrays = {"means": found.means, "quats_wxyz": found.quats_wxyz, "scales": found.scales, "opacities": found.opacities,
              "dc": found.dc, "provenance": on_grid(views.provenance, grid)}
    return {name: value[use].cpu().numpy() for name, value in arrays.items()}


@torch.no_grad()
def owned(points: np.ndarray, own: int, chunks: Sequence[Sequence[Frame]], tolerance: float, device: torch.device) -> np.ndarray:
    """Return which points (N, 3) [m] of chunk ``own`` stay, (N,) bool.

    A point stays if, of the chunks that see it (it lies in a camera's frustum), its own has the nearest camera; or the second
    nearest, at most ``tolerance`` [m] further. If none sees it, its own chunk counts as nearest.
    """
    keep = []
    cameras = [_cameras(chunk, device) for chunk in chunks]
    for start in range(0, len(points), POINTS_AT_ONCE):
        part = torch.from_numpy(points[start : start + POINTS_AT_ONCE]).to(device)
        nearest = torch.stack([_nearest_seeing(part, *camera) for camera in cameras])
        others = torch.cat([nearest[:own], nearest[own + 1 :]])
        closer = (others < nearest[own]).sum(0)
        ahead = nearest[own] - others.min(0).values if len(others) else torch.zeros(len(part), device=device)
        keep.append(((closer == 0) | ((closer == 1) & (ahead < tolerance))).cpu().numpy())
    return np.concatenate(keep) if keep else np.zeros(0, bool)


def _cameras(frames: Sequence[Frame], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    T = torch.from_numpy(np.stack([f.T_world_camera for f in frames])).float().to(device)
    K = torch.from_numpy(np.stack([f.camera.K for f in frames])).float().to(device)
    return T, K, torch.tensor([frames[0].camera.width, frames[0].camera.height], device=device)


def _nearest_seeing(points: Tensor, T_world_camera: Tensor, K: Tensor, size: Tensor) -> Tensor:
    """Return the distance [m] of each point (N, 3) to the nearest camera whose frustum holds it; inf = none."""
    best = torch.full((len(points),), torch.inf, device=points.device)
    for T, k in zip(T_world_camera, K, strict=True):
        offset = points - T[:3, 3]
        local = offset @ T[:3, :3]
        pixel = local[:, :2] / local[:, 2:].clamp(min=1e-6) * k[[0, 1], [0, 1]] + k[:2, 2]
        seen = (local[:, 2] > NEAR) & (pixel >= 0).all(1) & (pixel < size).all(1)
        best = torch.where(seen, torch.minimum(best, offset.norm(dim=1)), best)
    return best
