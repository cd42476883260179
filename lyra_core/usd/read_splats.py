"""Gaussians out of other people's stages: ParticleField3DGaussianSplat (OpenUSD 26.3), read by its attribute names.

The type is compared by name, so that an older OpenUSD, which does not know it, reads the same arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.gaussians import transformed
from lyra_core.errors import InputError
from lyra_core.io.gaussians import check_cloud, joined, make_cloud
from lyra_core.types import GaussianCloud, Provenance
from lyra_core.usd._pxr import require_pxr

TYPE = "ParticleField3DGaussianSplat"
MIN_GAUSSIANS = 1_000_000
"""Gaussians that a stage may always show; above, MAX_REPEATS times those that it holds once: instances can repeat without end."""
MAX_REPEATS = 16
MAX_PRIMS = 10_000
"""Prims of Gaussians that a stage may show."""
_MAX_DEGREE = 3


@dataclass(frozen=True)
class UsdSplats:
    """What read_usd_splats found."""

    cloud: GaussianCloud
    """[unit of the stage], in the stage's frame: every prim's local-to-world is applied, its spherical harmonics turned along."""
    up_axis: str | None
    """'Y' or 'Z'; None = the stage does not say (OpenUSD then takes Y)."""
    metres_per_unit: float | None
    """metersPerUnit, not applied; None = the stage does not say (OpenUSD then takes 0.01)."""
    prims: tuple[str, ...]
    """Paths of the prims that were read."""


def read_usd_splats(path: Path) -> UsdSplats:
    """Read all Gaussians of a stage (.usd, .usda, .usdc, .usdz), payloads, references and instances included.

    Arrays are taken at the default time, else at the earliest. Half-precision attributes (positionsh ...) stand in where the
    float ones are missing. SH is cut to the stated degree, and to the third.

    Raises:
        InputError: not readable as a stage, no such prim, missing arrays or of lengths that do not fit, numbers that no
            Gaussian has, a transform that is no similarity.
        BackendUnavailable: OpenUSD is not installed.
    """
    require_pxr()
    from pxr import Tf, Usd, UsdGeom

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: not readable: no such file")
    try:
        stage = Usd.Stage.Open(str(path))
    except (Tf.ErrorException, RuntimeError) as error:
        raise InputError(f"{path}: not readable as a USD stage: {_first_line(error)}") from error
    if stage is None:
        raise InputError(f"{path}: not readable as a USD stage")
    try:
        prims = [prim for prim in Usd.PrimRange(stage.GetPseudoRoot(), Usd.TraverseInstanceProxies()) if prim.GetTypeName() == TYPE]
        if not 0 < len(prims) <= MAX_PRIMS:
            raise InputError(f"{path}: got {len(prims)} {TYPE} prims, expected 1 to {MAX_PRIMS}")
        cloud = _read_prims(path, prims, UsdGeom.XformCache())
        up = str(UsdGeom.GetStageUpAxis(stage)) if stage.HasAuthoredMetadata("upAxis") else None
        unit = float(UsdGeom.GetStageMetersPerUnit(stage)) if UsdGeom.StageHasAuthoredMetersPerUnit(stage) else None
    except (Tf.ErrorException, RuntimeError) as error:
        raise InputError(f"{path}: not readable as a USD stage: {_first_line(error)}") from error
    if unit is not None and not (np.isfinite(unit) and unit > 0):
        raise InputError(f"{path}: metersPerUnit: got {unit}, expected a positive number")
    return UsdSplats(cloud, up, unit, tuple(str(prim.GetPath()) for prim in prims))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]


def _read_prims(path: Path, prims: list[Any], transforms: Any) -> GaussianCloud:
    read: dict[str, GaussianCloud] = {}
    parts, total = [], 0
    for prim in prims:
        # The prims of one prototype share their arrays, which are read once.
        source = prim.GetPrimInPrototype() if prim.IsInstanceProxy() else prim
        key = str(source.GetPath())
        if key not in read:
            read[key] = _read_prim(f"{path}: {key}", source)
        total += len(read[key].means)
        limit = max(MIN_GAUSSIANS, MAX_REPEATS * sum(len(cloud.means) for cloud in read.values()))
        if total > limit:
            raise InputError(f"{path}: {prim.GetPath()}: got over {limit} Gaussians by repeating prims, expected fewer")
        # USD's matrices act on rows from the right; T_a_b acts on columns from the left.
        T_stage_prim = np.array(transforms.GetLocalToWorldTransform(prim)).T
        try:
            parts.append(read[key] if np.array_equal(T_stage_prim, np.eye(4)) else transformed(read[key], T_stage_prim))
        except InputError as error:
            raise InputError(f"{path}: {prim.GetPath()}: {error}") from error
    cloud = joined(parts)
    check_cloud(str(path), cloud)
    return cloud


def _read_prim(where: str, prim: Any) -> GaussianCloud:
    means = _array(where, prim, "positions", 3)
    n = len(means)
    if n == 0:
        raise InputError(f"{where}: positions: got no Gaussian")
    # Gf.Quatf lies in memory as x, y, z, w.
    quats = _array(where, prim, "orientations", 4, n)[:, [3, 0, 1, 2]]
    scales, opacities = _array(where, prim, "scales", 3, n), _array(where, prim, "opacities", 1, n)[:, 0]
    coefficients = _array(where, prim, "radiance:sphericalHarmonicsCoefficients", 3)
    provenance = prim.GetAttribute("primvars:lyra:provenance")
    labels = _labels(provenance) if provenance and provenance.HasAuthoredValue() else np.full(n, Provenance.SEEN)
    if labels.shape != (n,) or labels.min() < 0 or labels.max() > max(Provenance):
        raise InputError(f"{where}: primvars:lyra:provenance: got {labels.shape} labels, expected {n} of 0..{int(max(Provenance))}")
    return make_cloud(where, means, quats, scales, opacities, _harmonics(where, prim, coefficients, n), labels.astype(np.uint8))


def _labels(attribute: Any) -> np.ndarray:
    values = _values(attribute)
    return values if values.dtype.kind in "iu" else np.full(1, -1)


def _harmonics(where: str, prim: Any, coefficients: np.ndarray, n: int) -> np.ndarray:
    """Return (N, (degree + 1)^2, 3) of the stated degree; files pad each Gaussian to more coefficients at will."""
    name = "radiance:sphericalHarmonicsDegree"
    attribute = prim.GetAttribute(name)
    degree = attribute.Get() if attribute else None
    degree = _MAX_DEGREE if degree is None else degree
    each, rest = divmod(len(coefficients), n)
    if not isinstance(degree, int) or degree < 0 or rest or each < (min(degree, 30) + 1) ** 2:
        raise InputError(f"{where}: got {len(coefficients)} coefficients for {n} Gaussians and {name} {degree!r}, expected "
                         "(degree + 1)^2 for each, or more")
    return coefficients.reshape(n, each, 3)[:, :(min(degree, _MAX_DEGREE) + 1) ** 2]


def _array(where: str, prim: Any, name: str, width: int, count: int | None = None) -> np.ndarray:
    """Return an array attribute (count, width) as float32, from its half-precision twin where it has no value."""
    for attribute in (prim.GetAttribute(name), prim.GetAttribute(name + "h")):
        values = _values(attribute) if attribute else np.zeros(0)
        if values.size:
            break
    else:
        raise InputError(f"{where}: {name}: got no values")
    try:
        rows = values.astype(np.float32).reshape(-1, width)
    except (ValueError, TypeError) as error:
        raise InputError(f"{where}: {name}: got {values.shape} of {values.dtype}, expected {width} numbers each") from error
    if (values.ndim > 1 and values.shape[-1] != width) or (count is not None and len(rows) != count):
        raise InputError(f"{where}: {name}: got {values.shape}, expected ({count if count is not None else 'any'}, {width})")
    return rows


def _values(attribute: Any) -> np.ndarray:
    from pxr import Usd

    value = attribute.Get()
    if value is None:
        value = attribute.Get(Usd.TimeCode.EarliestTime())
    return np.zeros(0) if value is None else np.array(value)
