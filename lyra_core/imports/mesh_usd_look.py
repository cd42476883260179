"""Colours, textures and texture coordinates of USD prims: UsdPreviewSurface and displayColor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.mesh_parts import Reading, shown, to_srgb
from lyra_core.imports.mesh_usd_guard import asset_bytes

_UV_NAMES = ("st", "UVMap", "map1", "st0", "st_0", "uv", "Texture_uv")


@dataclass(frozen=True)
class Material:
    """What is read of one material."""

    texture: int
    rgb: tuple[int, int, int] | None
    uv_name: str
    T_uv: np.ndarray | None
    """(2, 3) transform of texture coordinates."""


@dataclass(frozen=True)
class Look:
    """The materials of one prim's polygons."""

    texture: np.ndarray | None
    """(P,) int32, -1 = none."""
    rgb: np.ndarray | None
    """(P, 3) uint8; None = no material says a colour."""
    materials: tuple[Material, ...]


class Looks:
    """Reads materials once each."""

    def __init__(self, reading: Reading, time: Any) -> None:
        self._reading, self._time = reading, time
        self._known: dict[str, Material] = {}

    def of_faces(self, prim: Any, counts: np.ndarray, skip: np.ndarray | None) -> Look:
        """Return the look of a prim's polygons: its own material, then those of its subsets; skip (P,) holes are left alone."""
        from pxr import UsdShade

        binding = UsdShade.MaterialBindingAPI(prim)
        found: list[tuple[Material, np.ndarray | slice]] = []
        if (own := self._material(binding.ComputeBoundMaterial()[0])) is not None:
            found.append((own, slice(None)))
        for subset in binding.GetMaterialBindSubsets():
            material = self._material(UsdShade.MaterialBindingAPI(subset.GetPrim()).ComputeBoundMaterial()[0])
            rows = np.asarray(subset.GetIndicesAttr().Get(self._time) or [], np.int64)
            if material is not None and len(rows):
                found.append((material, rows[(rows >= 0) & (rows < len(counts))]))
        texture, rgb = np.full(len(counts), -1, np.int32), np.full((len(counts), 3), 255, np.uint8)
        for material, rows in found:
            texture[rows] = material.texture
            rgb[rows] = material.rgb if material.rgb is not None else (255, 255, 255)
        says = any(material.rgb is not None or material.texture >= 0 for material, _ in found)
        return Look(texture if (texture >= 0).any() else None, rgb if says else None, tuple(m for m, _ in found))

    def _material(self, material: Any) -> Material | None:
        if not material:
            return None
        key = str(material.GetPath())
        if key not in self._known:
            self._known[key] = self._read(material)
        return self._known[key]

    def _read(self, material: Any) -> Material:
        from pxr import UsdShade

        nothing = Material(-1, None, "st", None)
        shader = material.ComputeSurfaceSource()[0]
        if not shader or shader.GetShaderId() != "UsdPreviewSurface":
            self._reading.note("Materials other than UsdPreviewSurface were not read.")
            return nothing
        diffuse = shader.GetInput("diffuseColor")
        producers = UsdShade.Utils.GetValueProducingAttributes(diffuse) if diffuse else []
        if not producers:
            return Material(-1, (118, 118, 118), "st", None)  # the default of the specification, 0.18 linear
        node = UsdShade.Shader(producers[0].GetPrim())
        if node and node.GetShaderId() == "UsdUVTexture":
            name, T_uv = self._coordinates(node)
            texture = self._texture(node)
            return Material(texture, (255, 255, 255) if texture >= 0 else None, name, T_uv)
        value = producers[0].Get(self._time)
        if value is None or len(value) != 3:
            return nothing
        red, green, blue = to_srgb(np.array(value, np.float64)).tolist()
        return Material(-1, (red, green, blue), "st", None)

    def _input(self, node: Any, name: str, default: Any) -> Any:
        """Return the value of a shader's input, through its connections."""
        from pxr import UsdShade

        given = node.GetInput(name)
        producers = UsdShade.Utils.GetValueProducingAttributes(given) if given else []
        value = producers[0].Get(self._time) if producers else None
        return default if value is None else value

    def _coordinates(self, node: Any) -> tuple[str, np.ndarray | None]:
        """Return the primvar and the transform that feed a texture: UsdPrimvarReader_float2, perhaps through UsdTransform2d."""
        from pxr import UsdShade

        T = None
        for _ in range(4):
            given = node.GetInput("st" if node.GetShaderId() == "UsdUVTexture" else "in")
            producers = UsdShade.Utils.GetValueProducingAttributes(given) if given else []
            node = UsdShade.Shader(producers[0].GetPrim()) if producers else None
            if not node:
                break
            if node.GetShaderId() == "UsdTransform2d":
                angle = np.deg2rad(float(self._input(node, "rotation", 0.0)))
                scale = np.array(self._input(node, "scale", (1, 1)), np.float64)
                shift = np.array(self._input(node, "translation", (0, 0)), np.float64)
                c, s = np.cos(angle), np.sin(angle)
                T = np.array([[c * scale[0], -s * scale[1], shift[0]], [s * scale[0], c * scale[1], shift[1]]])
            else:
                return str(self._input(node, "varname", "st") or "st"), T
        return "st", T

    def _texture(self, node: Any) -> int:
        asset = self._input(node, "file", None)
        name, resolved = str(getattr(asset, "path", "")), str(getattr(asset, "resolvedPath", ""))
        if "<UDIM>" in name:
            self._reading.note("Textures of several tiles (UDIM) were dropped.")
            return -1
        if not resolved:
            self._reading.note(f"Texture {shown(name)} is missing.")
            return -1
        key = ("asset", resolved)
        if key not in self._reading.known:
            try:
                data = asset_bytes(self._reading, resolved)
            except InputError as error:
                self._reading.note(f"Texture {shown(name)} was dropped: {error}.")
                self._reading.known[key] = -1
            else:
                self._reading.add_texture(key, data, name)
        return self._reading.known[key]

    def corner_uv(self, prim: Any, look: Look, counts: np.ndarray, indices: np.ndarray, vertices: int) -> np.ndarray | None:
        """Return (corners, 2) texture coordinates, or None; the first textured material says which primvar."""
        from pxr import UsdGeom

        textured = [material for material in look.materials if material.texture >= 0]
        if not textured:
            return None
        api = UsdGeom.PrimvarsAPI(prim)
        for name in dict.fromkeys([*(m.uv_name for m in textured), *_UV_NAMES]):
            primvar = api.FindPrimvarWithInheritance(name)
            value = primvar.ComputeFlattened(self._time) if primvar and primvar.HasValue() else None
            spread = _spread(value, str(primvar.GetInterpolation()) if primvar else "", 2, counts, indices, vertices)
            if spread is not None:
                T = textured[0].T_uv
                return spread if T is None else spread @ T[:, :2].T + T[:, 2]
        self._reading.note("A textured mesh has no texture coordinates that fit it.")
        return None

    def colours(self, prim: Any, vertices: int, counts: np.ndarray,
                indices: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return displayColor as (P, 3) uint8 of polygons and (V, 3) of vertices; at most one of them is not None."""
        from pxr import UsdGeom

        primvar = UsdGeom.Gprim(prim).GetDisplayColorPrimvar()
        inherited = UsdGeom.PrimvarsAPI(prim).FindPrimvarWithInheritance("displayColor")
        primvar = inherited if inherited and inherited.HasValue() else primvar
        value = primvar.ComputeFlattened(self._time) if primvar and primvar.HasValue() else None
        if value is None or not len(value):
            return None, None
        way = str(primvar.GetInterpolation())
        rgb = np.asarray(value, np.float64).reshape(-1, 3)
        if way in ("vertex", "varying") and len(rgb) == vertices:
            return None, to_srgb(rgb)
        if len(rgb) == 1 or way == "constant":
            return np.broadcast_to(to_srgb(rgb[0]), (len(counts), 3)), None
        if way == "uniform" and len(rgb) == len(counts):
            return to_srgb(rgb), None
        corners = _spread(value, way, 3, counts, indices, vertices)
        if corners is None:
            self._reading.note("Colours (displayColor) that do not fit their mesh were dropped.")
            return None, None
        owner = np.repeat(np.arange(len(counts)), counts)
        mean = np.stack([np.bincount(owner, corners[:, i], len(counts)) for i in range(3)], 1)
        return to_srgb(mean / np.maximum(counts, 1)[:, None]), None


def _spread(value: Any, way: str, width: int, counts: np.ndarray, indices: np.ndarray, vertices: int) -> np.ndarray | None:
    """Return a primvar's values per corner (corners, width) float64, None where they do not fit."""
    if value is None or not len(value):
        return None
    flat = np.asarray(value, np.float64)
    if flat.ndim != 2 or flat.shape[1] != width:
        return None
    if way in ("vertex", "varying") and len(flat) == vertices:
        return flat[np.clip(indices, 0, vertices - 1)]
    if way == "faceVarying" and len(flat) == len(indices):
        return flat
    if way == "uniform" and len(flat) == len(counts):
        return np.repeat(flat, counts, axis=0)
    return np.broadcast_to(flat[:1], (len(indices), width)) if len(flat) == 1 else None
