"""What every reader and writer of splats demands of a cloud."""

from __future__ import annotations

import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import GaussianCloud, Provenance

FLAT = 1e-9
"""Standard deviation [unit of the file] of a Gaussian that a file makes infinitely thin: flat ones are legal, scale 0 is not."""


def check_cloud(where: str, cloud: GaussianCloud) -> None:
    """Refuse what no file should carry.

    Raises:
        InputError: numbers that are not finite, scales that are not positive, an unknown provenance.
    """
    for name in ("means", "quats_wxyz", "scales", "opacities", "sh"):
        values = getattr(cloud, name)
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(len(cloud.means), -1).all(1)
            raise InputError(f"{where}: {name}: got NaN or infinite numbers in {bad.sum()} Gaussians, first {int(np.argmax(bad))}")
    if len(cloud.scales) and cloud.scales.min() <= 0:
        raise InputError(f"{where}: scales: got {cloud.scales.min()}, expected positive metres")
    if len(cloud.opacities) and (cloud.opacities.min() < 0 or cloud.opacities.max() > 1):
        raise InputError(f"{where}: opacities: got {cloud.opacities.min()}..{cloud.opacities.max()}, expected 0..1")
    if len(cloud.provenance) and cloud.provenance.max() > max(Provenance):
        raise InputError(f"{where}: provenance: got {cloud.provenance.max()}, expected 0..{int(max(Provenance))}")


def check_degree(where: str, cloud: GaussianCloud) -> int:
    """Return the SH degree, 0 to 3, the ones that the packed formats hold.

    Raises:
        InputError: another number of coefficients.
    """
    count = cloud.sh.shape[1]
    if count not in (1, 4, 9, 16):
        raise InputError(f"{where}: sh: got {count} coefficients, expected 1, 4, 9 or 16")
    return int(count ** 0.5) - 1


def make_cloud(where: str, means: np.ndarray, quats_wxyz: np.ndarray, scales: np.ndarray, opacities: np.ndarray,
               sh: np.ndarray, provenance: np.ndarray | None = None) -> GaussianCloud:
    """Build a checked float32 cloud from what a file holds: quaternions normalised, scales of 0 raised to FLAT.

    Args:
        where: the file, for messages.
        scales: (N, 3) linear, not negative.
        opacities: (N,) in [0, 1].
        provenance: (N,) uint8; None = SEEN, as imported scans are.

    Raises:
        InputError: numbers that are not finite, zero quaternions, negative scales, opacities outside [0, 1].
    """
    norms = np.linalg.norm(np.nan_to_num(quats_wxyz.astype(np.float64), nan=1.0), axis=1)
    if (norms < 1e-12).any():
        raise InputError(f"{where}: quats_wxyz: got a zero quaternion in Gaussian {int(np.argmin(norms))}")
    if provenance is None:
        provenance = np.full(len(means), Provenance.SEEN, np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):
        cloud = GaussianCloud(np.asarray(means, np.float32), (quats_wxyz / norms[:, None]).astype(np.float32),
                              np.where(scales == 0, FLAT, scales).astype(np.float32), np.asarray(opacities, np.float32),
                              np.asarray(sh, np.float32), provenance)
    check_cloud(where, cloud)
    return cloud


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-values)) in float64; infinite logits give 0 and 1."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-values.astype(np.float64)))


def exponential(values: np.ndarray) -> np.ndarray:
    """Return exp(values) in float64, 0 where float32 would underflow; too large ones come back infinite."""
    with np.errstate(over="ignore"):
        result = np.exp(values.astype(np.float64))
    result[result < np.finfo(np.float32).tiny] = 0
    return result


def joined(parts: list[GaussianCloud]) -> GaussianCloud:
    """Return one cloud of one or more, SH padded with zeros to the highest degree among them."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.sh.shape[1] for part in parts)
    sh = [np.pad(part.sh, ((0, 0), (0, width - part.sh.shape[1]), (0, 0))) for part in parts]
    names = ("means", "quats_wxyz", "scales", "opacities", "provenance")
    return GaussianCloud(sh=np.concatenate(sh), **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
