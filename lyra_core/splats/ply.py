"""Gaussians as .ply in the layout of the original 3D Gaussian Splatting code (Kerbl et al. 2023), which every viewer reads.

The file states no axes and no unit: the cloud comes back in the file's own frame. Captures are mostly right, down, forward
(RDF), the axes of COLMAP and OpenCV; those of a lyra world are Z up.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.gaussians import check_cloud, exponential, make_cloud, sigmoid
from lyra_core.io.ply import read_vertex_ply, write_vertex_ply
from lyra_core.types import GaussianCloud

_TINY = 1e-6
"""Opacities are kept this far from 0 and 1, where the logit is infinite."""
_ROWS = 16384
"""Rows taken at a time: what they fill stays in the processor's cache while its 60 columns are picked."""


def write_splats(path: Path, cloud: GaussianCloud) -> None:
    """Write x y z nx ny nz f_dc f_rest opacity scale rot as float32: logit opacity, log scale, w first, f_rest channel by channel.

    Provenance is appended as one uchar property, which other readers skip.

    Raises:
        InputError: numbers that are not finite or scales that are not positive.
    """
    check_cloud(str(path), cloud)
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
    """Read Gaussians of any SH degree, ascii or binary; quaternions are normalised, other properties skipped.

    Without provenance all are SEEN, as imported scans are.

    Raises:
        InputError: a damaged file, a missing property, a count of f_rest that no degree has, numbers that are not finite.
    """
    table = read_vertex_ply(path)
    names = table.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names)
    bands = round((rest / 3 + 1) ** 0.5)
    if 3 * (bands**2 - 1) != rest:
        raise InputError(f"{path}: got {rest} f_rest properties, expected 0, 9, 24 or 45 (3 ((degree + 1)^2 - 1))")
    wanted = [*"xyz", "opacity", *(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4)),
              *(f"f_dc_{i}" for i in range(3)), *(f"f_rest_{i}" for i in range(rest))]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise InputError(f"{path}: missing properties {', '.join(missing[:6])}; it holds {', '.join(names[:12])}")
    n = len(table)
    geometry, sh = np.empty((n, 11), np.float32), np.empty((n, bands**2, 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, n, _ROWS):
            rows, part = slice(start, start + _ROWS), table[start:start + _ROWS]
            geometry[rows] = np.stack([part[name] for name in wanted[:11]], 1)
            sh[rows, 0] = np.stack([part[name] for name in wanted[11:14]], 1)
            if rest:
                channels = np.stack([part[name] for name in wanted[14:]], 1).reshape(len(part), 3, -1)
                sh[rows, 1:] = channels.transpose(0, 2, 1)
    provenance = table["provenance"].astype(np.uint8) if "provenance" in names else None
    return make_cloud(str(path), geometry[:, :3].copy(), geometry[:, 7:], exponential(geometry[:, 4:7]), sigmoid(geometry[:, 3]),
                      sh, provenance)
