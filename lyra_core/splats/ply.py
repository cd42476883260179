"""Gaussians as .ply in the layout of the original 3D Gaussian Splatting code (Kerbl et al. 2023), which every viewer reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.ply import read_vertex_ply, write_vertex_ply
from lyra_core.types import GaussianCloud, Provenance

_TINY = 1e-6
"""Opacities are kept this far from 0 and 1, where the logit is infinite."""


def write_splats(path: Path, cloud: GaussianCloud) -> None:
    """Write x y z nx ny nz f_dc f_rest opacity scale rot as float32: logit opacity, log scale, w first, f_rest channel by channel.

    Provenance is appended as one uchar property, which other readers skip.

    Raises:
        InputError: numbers that are not finite or scales that are not positive.
    """
    _check(str(path), cloud)
    n = len(cloud.means)
    opacity = np.clip(cloud.opacities.astype(np.float64), _TINY, 1 - _TINY)
    rest = np.ascontiguousarray(cloud.sh[:, 1:].transpose(0, 2, 1)).reshape(n, 3 * (cloud.sh.shape[1] - 1))
    columns = {name: cloud.means[:, i] for i, name in enumerate("xyz")}
    columns |= {name: np.zeros(n, np.float32) for name in ("nx", "ny", "nz")}
    columns |= {f"f_dc_{i}": cloud.sh[:, 0, i] for i in range(3)}
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = np.log(opacity / (1 - opacity)).astype(np.float32)
    columns |= {f"scale_{i}": np.log(cloud.scales[:, i].astype(np.float64)).astype(np.float32) for i in range(3)}
    columns |= {f"rot_{i}": cloud.quats_wxyz[:, i] for i in range(4)}
    columns["provenance"] = cloud.provenance.astype(np.uint8)
    write_vertex_ply(path, columns)


def read_splats(path: Path) -> GaussianCloud:
    """Read Gaussians of any SH degree; quaternions are normalised. Without provenance all are SEEN, as imported scans are.

    Raises:
        InputError: a damaged file, a missing property, a count of f_rest that no degree has, numbers that are not finite.
    """
    table = read_vertex_ply(path)
    names = table.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    bands = round((rest / 3 + 1) ** 0.5)
    if 3 * (bands**2 - 1) != rest:
        raise InputError(f"{path}: got {rest} f_rest properties, expected 0, 9, 24 or 45 (3 ((degree + 1)^2 - 1))")
    wanted = [*"xyz", *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(rest)), "opacity",
              *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{path}: missing properties {', '.join(missing[:6])}; it holds {', '.join(names[:12])}")

    def stack(*columns: str) -> np.ndarray:
        return np.stack([table[name].astype(np.float32) for name in columns], 1)

    n = len(table)
    sh = np.empty((n, bands**2, 3), np.float32)
    sh[:, 0] = stack("f_dc_0", "f_dc_1", "f_dc_2")
    if rest:
        sh[:, 1:] = stack(*(f"f_rest_{i}" for i in range(rest))).reshape(n, 3, -1).transpose(0, 2, 1)
    quats = stack("rot_0", "rot_1", "rot_2", "rot_3").astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        quats /= np.linalg.norm(quats, axis=1, keepdims=True)
        opacities = 1 / (1 + np.exp(-table["opacity"].astype(np.float64)))
        scales = np.exp(stack("scale_0", "scale_1", "scale_2").astype(np.float64))
        cloud = GaussianCloud(stack("x", "y", "z"), quats.astype(np.float32), scales.astype(np.float32),
                              opacities.astype(np.float32), sh, _provenance(table))
    _check(str(path), cloud)
    return cloud


def _provenance(table: np.ndarray) -> np.ndarray:
    if "provenance" in (table.dtype.names or ()):
        return table["provenance"].astype(np.uint8)
    return np.full(len(table), Provenance.SEEN, np.uint8)


def _check(where: str, cloud: GaussianCloud) -> None:
    for name in ("means", "quats_wxyz", "scales", "opacities", "sh"):
        bad = ~np.isfinite(getattr(cloud, name)).reshape(len(cloud.means), -1).all(1)
        if bad.any():
            raise InputError(f"{where}: {name}: got NaN or infinite numbers in {bad.sum()} Gaussians, first {int(np.argmax(bad))}")
    if len(cloud.scales) and cloud.scales.min() <= 0:
        raise InputError(f"{where}: scales: got {cloud.scales.min()}, expected positive metres")
    if len(cloud.provenance) and cloud.provenance.max() > max(Provenance):
        raise InputError(f"{where}: provenance: got {cloud.provenance.max()}, expected 0..{int(max(Provenance))}")
