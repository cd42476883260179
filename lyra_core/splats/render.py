"""Pictures of Gaussians for previews and tests: EWA splatting, sorted by depth, exact compositing, in numpy or on Warp."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.errors import BackendUnavailable, ConfigError
from lyra_core.splats.tiles import BLUR, MARGIN, MAX_ALPHA, MIN_ALPHA, NEAR, SplatTiles
from lyra_core.types import Camera, GaussianCloud

FEW = 20_000
"""Up to so many Gaussians numpy is as fast, and needs nothing loaded."""
_PAIRS = 6_000_000
"""Pixel-Gaussian pairs held at once."""


def render_splats(cloud: GaussianCloud, camera: Camera, T_world_camera: np.ndarray, *,
                  background: tuple[int, int, int] = (0, 0, 0), renderer: str = "auto",
                  device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Render Gaussians (Zwicker et al. 2002; Kerbl et al. 2023).

    Args:
        renderer: 'numpy', the readable reference; 'warp', the fast one, within a grey level of it; 'auto': Warp where it is
            installed and there are more than FEW Gaussians.
        device: Warp's.

    Returns:
        rgb (H, W, 3) uint8 over the background, and coverage (H, W) float32 in [0, 1].

    Raises:
        ConfigError: another renderer. BackendUnavailable: Warp was asked for and is not installed.
    """
    if renderer not in ("auto", "numpy", "warp"):
        raise ConfigError(f"renderer: got {renderer!r}, expected 'auto', 'numpy' or 'warp'")
    image = None
    if renderer == "warp" or (renderer == "auto" and len(cloud.means) > FEW):
        try:
            layers = SplatTiles(cloud, device=device).draw(splat_colors(cloud, T_world_camera[:3, 3]), camera, T_world_camera)
            image = np.concatenate([layers.rgb, layers.coverage[..., None]], -1).astype(np.float64)
        except BackendUnavailable:
            if renderer == "warp":
                raise
    if image is None:
        image = _render_numpy(cloud, camera, T_world_camera)
    out = image[..., :3] + (1 - image[..., 3:]) * np.array(background, float) / 255
    return np.clip(np.rint(out * 255), 0, 255).astype(np.uint8), image[..., 3].astype(np.float32)


def _render_numpy(cloud: GaussianCloud, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """Return premultiplied colour and coverage (H, W, 4)."""
    center, conic, reach, order = _project(cloud, camera, inverse(T_world_camera))
    rgb = splat_colors(cloud, T_world_camera[:3, 3])[order]
    opacity = cloud.opacities[order].astype(np.float32)
    # Beyond this many standard deviations alpha falls below 1 / 255.
    reach = reach * np.sqrt(2 * np.log(np.maximum(opacity / MIN_ALPHA, 1)))[:, None]
    low = np.ceil(center - reach - 0.5).astype(np.int64)
    high = np.floor(center + reach - 0.5).astype(np.int64) + 1
    low, high = np.clip(low, 0, (camera.width, camera.height)), np.clip(high, 0, (camera.width, camera.height))
    image = np.empty((camera.height, camera.width, 4))
    rows = max(1, 65535 // camera.width)
    per_row = (np.maximum(high - low, 0).prod(1)).sum() / camera.height
    rows = max(1, min(rows, int(_PAIRS / max(per_row, 1))))
    for top in range(0, camera.height, rows):
        bottom = min(top + rows, camera.height)
        image[top:bottom] = _band(center, conic, opacity, rgb, low, high, top, bottom, camera.width)
    return image


def _project(cloud: GaussianCloud, camera: Camera, T: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Project front to back.

    Returns:
        picture centres (M, 2) [px], conics (M, 3: xx, xy, yy), standard deviations along x and y (M, 2) [px], rows drawn (M,).
    """
    local = cloud.means.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    x, y, z = local.T
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = fx * x / z + cx, fy * y / z + cy
    near_picture = ((u > -MARGIN * camera.width) & (u < (1 + MARGIN) * camera.width)
                    & (v > -MARGIN * camera.height) & (v < (1 + MARGIN) * camera.height))
    rows = np.flatnonzero((z > NEAR) & near_picture)
    rows = rows[np.argsort(z[rows], kind="stable")]
    x, y, z = local[rows].T
    J = np.zeros((len(rows), 2, 3))
    J[:, 0, 0], J[:, 0, 2], J[:, 1, 1], J[:, 1, 2] = fx / z, -fx * x / z**2, fy / z, -fy * y / z**2
    axes = np.einsum("nij,njk->nik", np.einsum("nij,jk->nik", J, T[:3, :3]), axes_from_quats(cloud.quats_wxyz[rows]))
    axes = axes * cloud.scales[rows].astype(np.float64)[:, None]
    xx, yy = (axes[:, 0] ** 2).sum(1) + BLUR, (axes[:, 1] ** 2).sum(1) + BLUR
    xy = (axes[:, 0] * axes[:, 1]).sum(1)
    det = xx * yy - xy * xy
    conic = np.stack([yy / det, -xy / det, xx / det], 1)
    return np.stack([u[rows], v[rows]], 1), conic.astype(np.float32), np.sqrt(np.stack([xx, yy], 1)), rows


def _band(center: np.ndarray, conic: np.ndarray, opacity: np.ndarray, rgb: np.ndarray, low: np.ndarray, high: np.ndarray,
          top: int, bottom: int, width: int) -> np.ndarray:
    """Composite picture rows top..bottom: all pairs of pixel and Gaussian, grouped by pixel, front to back."""
    y0, y1 = np.maximum(low[:, 1], top), np.minimum(high[:, 1], bottom)
    size = np.maximum(y1 - y0, 0) * np.maximum(high[:, 0] - low[:, 0], 0)
    which = np.repeat(np.arange(len(size), dtype=np.int32), size)
    index = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size)
    columns = (high[:, 0] - low[:, 0])[which]
    px, py = low[which, 0] + index % columns, y0[which] + index // columns
    dx = (px + 0.5 - center[which, 0]).astype(np.float32)
    dy = (py + 0.5 - center[which, 1]).astype(np.float32)
    power = conic[which, 0] * dx * dx + 2 * conic[which, 1] * dx * dy + conic[which, 2] * dy * dy
    alpha = np.minimum(opacity[which] * np.exp(-0.5 * power), np.float32(MAX_ALPHA))
    keep = alpha >= MIN_ALPHA
    pixel = ((py - top) * width + px)[keep].astype(np.uint16)
    order = np.argsort(pixel, kind="stable")  # radix sort on 16 bits; equal pixels stay front to back
    pixel, alpha, which = pixel[order].astype(np.int64), alpha[keep][order].astype(np.float64), which[keep][order]
    log_through = np.cumsum(np.log1p(-alpha)) - np.log1p(-alpha)
    count = np.bincount(pixel, minlength=(bottom - top) * width)
    first = (np.cumsum(count) - count)[pixel]
    weight = alpha * np.exp(log_through - log_through[first])
    out = np.stack([np.bincount(pixel, weight * rgb[which, c], len(count)) for c in range(3)]
                   + [np.bincount(pixel, weight, len(count))], 1)
    return out.reshape(bottom - top, width, 4)


def splat_colors(cloud: GaussianCloud, eye: np.ndarray) -> np.ndarray:
    """Return (N, 3) float32 display colours towards the eye, from spherical harmonics up to degree 3."""
    if cloud.sh.shape[1] == 1:
        return np.maximum(0.5 + 0.28209479177387814 * cloud.sh[:, 0].astype(np.float64), 0).astype(np.float32)
    direction = cloud.means.astype(np.float64) - eye
    x, y, z = (direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)).T
    basis = np.stack([
        np.full_like(x, 0.28209479177387814),
        -0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (3 * z * z - 1),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y), 2.890611442640554 * x * y * z, -0.4570457994644658 * y * (5 * z * z - 1),
        0.3731763325901154 * z * (5 * z * z - 3), -0.4570457994644658 * x * (5 * z * z - 1),
        1.445305721320277 * z * (x * x - y * y), -0.5900435899266435 * x * (x * x - 3 * y * y)], 1)
    bands = min(cloud.sh.shape[1], 16)
    return np.maximum(0.5 + np.einsum("nk,nkc->nc", basis[:, :bands], cloud.sh[:, :bands]), 0).astype(np.float32)


def axes_from_quats(quats_wxyz: np.ndarray) -> np.ndarray:
    """Return rotations (N, 3, 3) of unit quaternions w, x, y, z (N, 4)."""
    w, x, y, z = quats_wxyz.astype(np.float64).T
    return np.stack([
        np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
        np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
        np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1)], 1)
