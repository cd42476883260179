"""Differentiable rendering of Gaussians: a readable one for small pictures on any device, and gsplat on CUDA."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from lyra_core.errors import BackendUnavailable, ConfigError
from lyra_core.splats._torch_decode import rotations_xyzw
from lyra_core.splats.render import BLUR, MAX_ALPHA, MIN_ALPHA, NEAR

MARGIN = 0.3
"""Gaussians centred further outside than this share of the picture are not drawn: there the local affine projection breaks down."""


@dataclass(frozen=True)
class Rendering:
    """One picture."""

    rgb: Tensor
    """(H, W, 3) over black."""
    coverage: Tensor
    """(H, W) in [0, 1]."""
    depth: Tensor
    """(H, W) z-depth [m] weighted by what each Gaussian contributes; 0 where nothing is drawn."""


def pick_renderer(name: str, device: torch.device) -> str:
    """Return 'gsplat' or 'torch'; 'auto' takes gsplat on CUDA where it is installed.

    Raises:
        ConfigError: another name. BackendUnavailable: gsplat was asked for and is not there.
    """
    if name not in ("auto", "torch", "gsplat"):
        raise ConfigError(f"renderer: got {name!r}, expected 'auto', 'torch' or 'gsplat'")
    there = device.type == "cuda" and importlib.util.find_spec("gsplat") is not None
    if name == "gsplat" and not there:
        raise BackendUnavailable("renderer 'gsplat'", reason=f"it needs CUDA (device is {device}) and the package gsplat",
                                 install="pip install gsplat, or renderer: torch")
    return "gsplat" if there and name != "torch" else "torch"


def render(means: Tensor, quats_wxyz: Tensor, scales: Tensor, opacities: Tensor, rgb: Tensor, *, K: Tensor, T_world_camera: Tensor,
           width: int, height: int, renderer: str = "torch") -> Rendering:
    """Render Gaussians (Zwicker et al. 2002; Kerbl et al. 2023); gradients reach every argument but the camera.

    Args:
        means: (N, 3) world [m].
        quats_wxyz: (N, 4) unit.
        scales: (N, 3) [m].
        opacities: (N,).
        rgb: (N, 3) in [0, 1].
        K: (3, 3) [px].
        T_world_camera: (4, 4).
        renderer: 'torch' or 'gsplat'.
    """
    draw = _render_gsplat if renderer == "gsplat" else _render_torch
    return draw(means, quats_wxyz, scales, opacities, rgb, K, T_world_camera, width, height)


def _render_gsplat(means: Tensor, quats_wxyz: Tensor, scales: Tensor, opacities: Tensor, rgb: Tensor, K: Tensor,
                   T_world_camera: Tensor, width: int, height: int) -> Rendering:
    from gsplat import rasterization

    image, coverage, _ = rasterization(means, quats_wxyz, scales, opacities, rgb, torch.linalg.inv(T_world_camera)[None], K[None],
                                       width, height, near_plane=NEAR, eps2d=BLUR, render_mode="RGB+ED")
    return Rendering(image[0, ..., :3], coverage[0, ..., 0], image[0, ..., 3])


def _render_torch(means: Tensor, quats_wxyz: Tensor, scales: Tensor, opacities: Tensor, rgb: Tensor, K: Tensor,
                  T_world_camera: Tensor, width: int, height: int) -> Rendering:
    center, cov, z, rows = _project(means, quats_wxyz, scales, K, torch.linalg.inv(T_world_camera), width, height)
    opacities, rgb = opacities[rows], rgb[rows]
    xx, xy, yy = cov.unbind(1)
    det = xx * yy - xy * xy
    conic = torch.stack([yy / det, -xy / det, xx / det], 1)
    with torch.no_grad():
        which, pixel = _pairs(center, xx, yy, opacities, width, height)
    dx = pixel % width + 0.5 - center[which, 0]
    dy = torch.div(pixel, width, rounding_mode="floor") + 0.5 - center[which, 1]
    a, b, c = conic[which].unbind(1)
    alpha = (opacities[which] * torch.exp(-0.5 * (a * dx * dx + 2 * b * dx * dy + c * dy * dy))).clamp(max=MAX_ALPHA)
    kept = (alpha >= MIN_ALPHA).nonzero()[:, 0]
    order = kept[torch.argsort(pixel[kept], stable=True)]  # pairs come front to back, and stay so within each pixel
    alpha, which, pixel = alpha[order], which[order], pixel[order]
    values = torch.cat([rgb, torch.ones_like(z)[:, None], z[:, None]], 1)
    weight = alpha * _transmittance(alpha, pixel, width * height)
    image = torch.zeros(width * height, 5, dtype=means.dtype, device=means.device)
    image = image.index_add(0, pixel, weight[:, None] * values[which]).reshape(height, width, 5)
    coverage = image[..., 3]
    return Rendering(image[..., :3], coverage, image[..., 4] / coverage.clamp(min=1e-6))


def _project(means: Tensor, quats_wxyz: Tensor, scales: Tensor, K: Tensor, T: Tensor, width: int,
             height: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project to the picture, front to back.

    Returns:
        centres (M, 2) [px], covariances (M, 3: xx, xy, yy) [px2], z-depths (M,) [m], rows of the Gaussians drawn (M,).
    """
    local = means @ T[:3, :3].T + T[:3, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    x, y, z = local.unbind(1)
    with torch.no_grad():
        safe = z.clamp(min=NEAR)
        u, v = fx * x / safe + cx, fy * y / safe + cy
        inside = (u > -MARGIN * width) & (u < (1 + MARGIN) * width) & (v > -MARGIN * height) & (v < (1 + MARGIN) * height)
        rows = ((z > NEAR) & inside).nonzero()[:, 0]
        rows = rows[torch.argsort(z[rows], stable=True)]
    x, y, z = local[rows].unbind(1)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * x / z**2, zero, fy / z, -fy * y / z**2], 1).unflatten(1, (2, 3))
    axes = J @ T[:3, :3] @ rotations_xyzw(quats_wxyz[rows].roll(-1, 1)) * scales[rows][:, None]
    cov = torch.stack([(axes[:, 0] ** 2).sum(1) + BLUR, (axes[:, 0] * axes[:, 1]).sum(1), (axes[:, 1] ** 2).sum(1) + BLUR], 1)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], 1), cov, z, rows


def _pairs(center: Tensor, xx: Tensor, yy: Tensor, opacities: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Return (row of a Gaussian, pixel) for all pixels where its alpha may reach 1 / 255, Gaussians in order."""
    reach = torch.stack([xx, yy], 1).sqrt() * (2 * (opacities / MIN_ALPHA).clamp(min=1).log()).sqrt()[:, None]
    size = torch.tensor([width, height], device=center.device)
    low = torch.minimum((center - reach - 0.5).ceil().long().clamp(min=0), size)
    high = torch.minimum((center + reach + 0.5).floor().long().clamp(min=0), size)
    span = (high - low).clamp(min=0)
    count = span.prod(1)
    which = torch.repeat_interleave(torch.arange(len(count), device=center.device), count)
    index = torch.arange(len(which), device=center.device) - (count.cumsum(0) - count)[which]
    columns = span[which, 0]
    px, py = low[which, 0] + index % columns, low[which, 1] + torch.div(index, columns, rounding_mode="floor")
    return which, py * width + px


def _transmittance(alpha: Tensor, pixel: Tensor, pixels: int) -> Tensor:
    """Return what the Gaussians before each one let through; pairs (M,) are grouped by pixel, front to back.

    One running sum of logarithms serves all pixels; in float64, since it grows with the number of pairs.
    """
    log_through = torch.log1p(-alpha.double())
    before = log_through.cumsum(0) - log_through
    count = torch.bincount(pixel, minlength=pixels)
    first = (count.cumsum(0) - count)[pixel]
    return torch.exp(before - before[first]).to(alpha.dtype)
