"""Clouds for the tests of splat files, and how to compare two of them."""

from __future__ import annotations

import numpy as np

from lyra_core.types import GaussianCloud


def make_cloud(n: int = 300, degree: int = 3, seed: int = 0) -> GaussianCloud:
    """Return Gaussians within the ranges that all packed formats hold: positions of metres, SH within +-0.9."""
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    sh = np.clip(rng.normal(0, 0.4, (n, (degree + 1) ** 2, 3)), -0.9, 0.9)
    return GaussianCloud(rng.normal(size=(n, 3)).astype(np.float32), quats.astype(np.float32),
                         rng.uniform(1e-3, 2, (n, 3)).astype(np.float32), rng.uniform(0, 1, n).astype(np.float32),
                         sh.astype(np.float32), rng.integers(0, 3, n).astype(np.uint8))


def covariances(cloud: GaussianCloud) -> np.ndarray:
    """Return (N, 3, 3) float64: what a renderer makes of rotation and scales; half turns about own axes do not show in it."""
    w, x, y, z = cloud.quats_wxyz.astype(np.float64).T
    R = np.stack([np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1),
                  np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1),
                  np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1)], 1)
    M = R * cloud.scales[:, None].astype(np.float64)
    return M @ M.transpose(0, 2, 1)


def differences(a: GaussianCloud, b: GaussianCloud) -> dict[str, float]:
    """Return the largest difference of each attribute: means [m], degrees, log scales, opacities, dc, band1, bands23."""
    dot = np.abs((a.quats_wxyz.astype(np.float64) * b.quats_wxyz).sum(1)).clip(0, 1)
    sh = np.abs(a.sh - b.sh)
    return {"means": float(np.abs(a.means - b.means).max()), "degrees": float(np.degrees(2 * np.arccos(dot)).max()),
            "log_scales": float(np.abs(np.log(a.scales / b.scales)).max()),
            "opacities": float(np.abs(a.opacities - b.opacities).max()), "dc": float(sh[:, 0].max()),
            "band1": float(sh[:, 1:4].max(initial=0)), "bands23": float(sh[:, 4:].max(initial=0))}


def assert_within(a: GaussianCloud, b: GaussianCloud, **bounds: float) -> None:
    """Compare by stated bounds; an attribute without one must agree to float32 rounding."""
    for name, value in differences(a, b).items():
        assert value <= bounds.get(name, 0.1 if name == "degrees" else 2e-6), (name, value)


def rows(cloud: GaussianCloud, order: np.ndarray) -> GaussianCloud:
    """Return the cloud in another order."""
    return GaussianCloud(cloud.means[order], cloud.quats_wxyz[order], cloud.scales[order], cloud.opacities[order],
                         cloud.sh[order], cloud.provenance[order])
