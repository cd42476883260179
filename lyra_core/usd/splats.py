"""Gaussians as OpenUSD's ParticleField3DGaussianSplat (OpenUSD 26.3; older versions keep the arrays on an unknown type)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import GaussianCloud
from lyra_core.usd.layers import ROOT

SPLATS = f"{ROOT}/Splats"


def author_splats(stage: Any, cloud: GaussianCloud) -> None:
    """Define /World/Splats. Spherical harmonics are padded to degree 0 or 3, the degrees that all readers take.

    Raises:
        InputError: the number of coefficients is no square, a number is not finite, or an opacity is outside [0, 1].
    """
    from pxr import Sdf, Vt

    sh, degree = _padded_sh(cloud)
    _check_cloud(cloud)
    types = Sdf.ValueTypeNames
    prim = stage.DefinePrim(SPLATS, "ParticleField3DGaussianSplat")
    quats = cloud.quats_wxyz / np.linalg.norm(cloud.quats_wxyz, axis=1, keepdims=True)
    low = (cloud.means - 3 * cloud.scales.max(1, keepdims=True)).min(0)
    high = (cloud.means + 3 * cloud.scales.max(1, keepdims=True)).max(0)
    values = {
        "positions": (types.Point3fArray, Vt.Vec3fArray.FromNumpy(_rows(cloud.means))),
        # Gf.Quatf lies in memory as x, y, z, w.
        "orientations": (types.QuatfArray, Vt.QuatfArray.FromNumpy(_rows(quats[:, [1, 2, 3, 0]]))),
        "scales": (types.Float3Array, Vt.Vec3fArray.FromNumpy(_rows(cloud.scales))),
        "opacities": (types.FloatArray, Vt.FloatArray.FromNumpy(_rows(cloud.opacities))),
        "radiance:sphericalHarmonicsDegree": (types.Int, degree),
        "radiance:sphericalHarmonicsCoefficients": (types.Float3Array, Vt.Vec3fArray.FromNumpy(_rows(sh.reshape(-1, 3)))),
        "projectionModeHint": (types.Token, "perspective"),
        "sortingModeHint": (types.Token, "cameraDistance"),
        "extent": (types.Float3Array, Vt.Vec3fArray.FromNumpy(_rows(np.stack([low, high])))),
    }
    for name, (kind, value) in values.items():
        variability = Sdf.VariabilityUniform if kind in (types.Token, types.Int) else Sdf.VariabilityVarying
        prim.CreateAttribute(name, kind, False, variability).Set(value)
    coefficients = prim.GetAttribute("radiance:sphericalHarmonicsCoefficients")
    coefficients.SetMetadata("elementSize", sh.shape[1])
    coefficients.SetMetadata("interpolation", "vertex")
    primvar = prim.CreateAttribute("primvars:lyra:provenance", types.IntArray, False)
    primvar.Set(Vt.IntArray.FromNumpy(cloud.provenance.astype(np.int32)))
    primvar.SetMetadata("interpolation", "vertex")


def _rows(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32)


def _padded_sh(cloud: GaussianCloud) -> tuple[np.ndarray, int]:
    count = cloud.sh.shape[1]
    degree = math.isqrt(count) - 1
    if (degree + 1) ** 2 != count or degree > 3:
        raise InputError(f"GaussianCloud.sh: got {count} coefficients, expected 1, 4, 9 or 16")
    if degree in (0, 3):
        return cloud.sh, degree
    return np.pad(cloud.sh, ((0, 0), (0, 16 - count), (0, 0))), 3


def _check_cloud(cloud: GaussianCloud) -> None:
    for name in ("means", "quats_wxyz", "scales", "opacities", "sh"):
        if not np.isfinite(getattr(cloud, name)).all():
            raise InputError(f"GaussianCloud.{name}: got NaN or infinite numbers")
    if len(cloud.means) == 0:
        raise InputError("GaussianCloud: got no Gaussian; pass None for a world without splats")
    if cloud.opacities.min() < 0 or cloud.opacities.max() > 1 or cloud.scales.min() <= 0:
        raise InputError(f"GaussianCloud: got opacities {cloud.opacities.min()}..{cloud.opacities.max()} and smallest scale "
                         f"{cloud.scales.min()}, expected [0, 1] and positive scales")
    if (np.linalg.norm(cloud.quats_wxyz, axis=1) < 1e-6).any():
        raise InputError("GaussianCloud.quats_wxyz: got a zero quaternion")
