"""Layers: metadata that every layer carries, names, meshes, and writing with the same bytes every time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.files import atomic_path
from lyra_core.usd.topology import CleanMesh

ROOT = "/World"


def write_layer(path: Path, author: Callable[[Any], None], *, sublayers: tuple[str, ...] = (), custom: dict[str, Any] | None = None,
                ) -> None:
    """Write one layer: ``author(stage)`` fills it below /World; payloads and sublayers are named, not opened.

    Every layer says Z up, metres, kilograms, 60 time codes per second and its default prim: a reader that opens a part alone
    would otherwise take Y up and centimetres.
    """
    from pxr import Sdf, Usd, UsdGeom, UsdPhysics

    layer = Sdf.Layer.CreateAnonymous(path.suffix)
    stage = Usd.Stage.Open(layer, Usd.Stage.LoadNone)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(60.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, ROOT).GetPrim())
    author(stage)
    # An open stage would look for the sublayers beside a layer that has no place yet.
    del stage
    layer.subLayerPaths = list(sublayers)
    if custom:
        layer.customLayerData = to_usd(custom)
    with atomic_path(path) as temporary:
        if not layer.Export(str(temporary)):
            raise OSError(f"{path}: OpenUSD could not write the layer")


def to_usd(value: Any, *, where: str = "provenance") -> Any:
    """Turn plain JSON-like values into what USD metadata holds; None becomes 'none', tuples and lists become arrays of one type.

    Raises:
        InputError: a value of another type, or a number that is not finite; the field is named.
    """
    from pxr import Vt

    if isinstance(value, dict):
        pairs = sorted(((str(key), item) for key, item in value.items()), key=lambda pair: pair[0])
        return {key: to_usd(item, where=f"{where}.{key}") for key, item in pairs}
    if value is None:
        return "none"
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value) if abs(int(value)) < 2**31 else str(int(value))
    if isinstance(value, (float, np.floating)) and math.isfinite(value):
        return float(value)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item) for item in value):
            return Vt.DoubleArray([float(item) for item in value])
        return Vt.StringArray([item if isinstance(item, str) else repr(item) for item in value])
    if isinstance(value, Path):
        return value.as_posix()
    raise InputError(f"{where}: got {value!r}, expected text, a finite number, a list or a mapping")


def prim_name(text: str, taken: set[str]) -> str:
    """Return a prim name near ``text``: letters, digits and underscores, unique among ``taken`` (it is added)."""
    base = re.sub(r"[^A-Za-z0-9_]", "_", text) or "part"
    base = base if not base[0].isdigit() else f"_{base}"
    name, number = base, 1
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def add_mesh(stage: Any, path: str, mesh: CleanMesh) -> Any:
    """Define a UsdGeom.Mesh with points, normals, extent and the metadata that readers otherwise guess."""
    from pxr import UsdGeom, Vt

    prim = UsdGeom.Mesh.Define(stage, path)
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(mesh.points))
    prim.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    prim.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(mesh.faces.reshape(-1))))
    prim.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(mesh.normals()))
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.CreateOrientationAttr(UsdGeom.Tokens.rightHanded)
    prim.CreateDoubleSidedAttr(False)
    prim.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([mesh.points.min(0), mesh.points.max(0)])))
    return prim


def add_labels(prim: Any, label: str) -> None:
    """Apply SemanticsLabelsAPI:class with one label, as raw data: readers before OpenUSD 25.2 keep it too."""
    from pxr import Sdf, Vt

    prim.AddAppliedSchema("SemanticsLabelsAPI:class")
    prim.CreateAttribute("semantics:labels:class", Sdf.ValueTypeNames.TokenArray, False).Set(Vt.TokenArray([label]))
