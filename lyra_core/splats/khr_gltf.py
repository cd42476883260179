"""Gaussians in glTF: KHR_gaussian_splatting (Khronos, release candidate of July 2026), and SPZ inside it.

The cloud is in glTF's own frame: Y up, metres; x left and z forward where it was made from a capture (LUF). The attributes are
linear: opacity in [0, 1], scale as standard deviations, rotation x, y, z, w. Node transforms are applied, to the spherical
harmonics too; the extension leaves other than rotation, translation and positive scale undefined, and one scale per axis would
need another kernel for turned Gaussians, so that those are refused.

KHR_gaussian_splatting_compression_spz_2 (draft) holds an .spz file in a buffer view; its text asks for LUF, so the payload's
RUB is turned half about y. Not supported, and named when a file asks for it: sparse accessors, meshopt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.gaussians import flipped, transformed
from lyra_core.errors import InputError
from lyra_core.io.gaussians import check_cloud, check_degree, joined, make_cloud
from lyra_core.io.glb import ARRAY_BUFFER, FLOAT, GlbBuilder
from lyra_core.splats.gltf_file import GltfFile
from lyra_core.splats.spz import decode_spz
from lyra_core.types import GaussianCloud, Provenance

NAME = "KHR_gaussian_splatting"
SPZ = ("KHR_gaussian_splatting_compression_spz_2", "KHR_gaussian_splatting_compression_spz")
MIN_GAUSSIANS = 1_000_000
"""Gaussians that a file may always show; above, one per _BYTES_EACH of it: nodes can repeat a mesh without end."""
_BYTES_EACH = 2
MAX_PARTS = 10_000
"""Primitives that a scene may show."""
_SUPPORTED = {NAME, *SPZ, "KHR_mesh_quantization", "KHR_materials_unlit"}
_PROVENANCE = "_LYRA_PROVENANCE"
_SH_C0 = 0.28209479177387814
_LUF_FROM_RDF = (-1, -1, 1)


def read_khr_gltf(path: Path) -> GaussianCloud:
    """Read the Gaussians of a .glb or .gltf, all nodes of its scene together, in glTF's frame (Y up).

    Colours stated as linear (lin_rec709_display) are turned to sRGB: the DC exactly, higher bands by the slope there. A
    kernel or colour space of another extension is read as the ellipse and sRGB, as the specification asks; where such a
    file leaves out degree 0, COLOR_0 stands in.

    Raises:
        InputError: a damaged file, no Gaussians, an extension that is required and not known, a buffer outside of the
            file's folder, a transform that is no similarity.
    """
    file = GltfFile(path)
    required = file.tree.get("extensionsRequired", [])
    unknown = sorted(str(name) for name in required if name not in _SUPPORTED) if isinstance(required, list) else ["?"]
    if unknown:
        raise InputError(f"{path}: extensionsRequired: got {', '.join(unknown)}, expected at most {', '.join(sorted(_SUPPORTED))}")
    read: dict[tuple[int, int], GaussianCloud] = {}
    parts, total = [], 0
    limit = max(MIN_GAUSSIANS, file.size // _BYTES_EACH)
    for node, where, T_world_node in file.world_nodes():
        for number, primitive in enumerate(_primitives(file, node["mesh"]) if "mesh" in node else []):
            total += _count(file, primitive)
            if total > limit or len(parts) == MAX_PARTS:
                raise InputError(f"{path}: {where}: got {total} Gaussians in {len(parts) + 1} primitives, or more, from a file of "
                                 f"{file.size} bytes, expected at most {limit} in {MAX_PARTS}")
            key = (node["mesh"], number)
            if key not in read:
                read[key] = _read_primitive(file, primitive, f"{path}: meshes {node['mesh']} primitive {number}")
            try:
                parts.append(read[key] if np.array_equal(T_world_node, np.eye(4)) else transformed(read[key], T_world_node))
            except InputError as error:
                raise InputError(f"{path}: {where}: {error}") from error
    if not parts:
        raise InputError(f"{path}: got no primitive with {NAME} in the scene, expected one")
    result = joined(parts)
    check_cloud(str(path), result)
    return result


def write_khr_gltf(path: Path, cloud: GaussianCloud) -> None:
    """Write a .glb of a cloud that is in glTF's frame (Y up), with COLOR_0 as points for viewers without splats.

    A cloud with Z up goes through ``transformed(cloud, T_Z_UP_FROM_Y_UP.T)`` first.

    Raises:
        InputError: no Gaussian, numbers that are not finite, scales that are not positive, more than 16 coefficients.
    """
    check_cloud(str(path), cloud)
    degree = check_degree(str(path), cloud)
    if len(cloud.means) == 0:
        raise InputError(f"{path}: got no Gaussian to write")
    builder = GlbBuilder()
    builder.tree["extensionsUsed"] = [NAME]
    attributes = {
        "POSITION": builder.add_vectors(cloud.means, bounds=True),
        f"{NAME}:ROTATION": builder.add_vectors(cloud.quats_wxyz[:, [1, 2, 3, 0]]),
        f"{NAME}:SCALE": builder.add_vectors(cloud.scales),
        f"{NAME}:OPACITY": _add(builder, cloud.opacities.astype("<f4"), "SCALAR", FLOAT),
        "COLOR_0": _add(builder, _fallback_colours(cloud), "VEC4", 5121, normalized=True),
        _PROVENANCE: _add(builder, cloud.provenance.astype("<u4"), "SCALAR", 5121, stride=4),
    }
    for index in range((degree + 1) ** 2):
        band = int(index ** 0.5)
        attributes[f"{NAME}:SH_DEGREE_{band}_COEF_{index - band**2}"] = builder.add_vectors(cloud.sh[:, index])
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective",
                 "sortingMethod": "cameraDistance"}
    builder.add_node("splats", {"attributes": attributes, "mode": 0, "extensions": {NAME: extension}})
    builder.write(path)


def _add(builder: GlbBuilder, values: np.ndarray, kind: str, component: int, *, normalized: bool = False, stride: int = 0) -> int:
    layout = {"byteStride": stride} if stride else {}
    view = builder.add_view(values.tobytes(), target=ARRAY_BUFFER, **layout)
    accessor = {"bufferView": view, "componentType": component, "count": len(values), "type": kind}
    return builder.append("accessors", accessor | ({"normalized": True} if normalized else {}))


def _fallback_colours(cloud: GaussianCloud) -> np.ndarray:
    """Return (N, 4) uint8: the DC colour, linear as glTF's vertex colours are, and the opacity."""
    rgb = np.clip(cloud.sh[:, 0] * _SH_C0 + 0.5, 0, 1)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.rint(np.concatenate([linear, cloud.opacities[:, None]], 1) * 255).astype(np.uint8)


def _primitives(file: GltfFile, mesh: Any) -> list[dict[str, Any]]:
    """Return the primitives of a mesh that are Gaussians."""
    rows = file.row("meshes", mesh).get("primitives")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("attributes"), dict) for row in rows):
        raise InputError(f"{file.path}: meshes {mesh}: primitives: got {str(rows)[:60]}, expected a list with attributes")
    return [row for row in rows if isinstance(row.get("extensions"), dict) and isinstance(row["extensions"].get(NAME), dict)]


def _payload(primitive: dict[str, Any]) -> Any:
    """Return the buffer view of the SPZ payload; None = there is none."""
    inner = primitive["extensions"][NAME].get("extensions")
    found = [inner[name] for name in SPZ if isinstance(inner, dict) and isinstance(inner.get(name), dict)]
    return found[0].get("bufferView", -1) if found else None


def _count(file: GltfFile, primitive: dict[str, Any]) -> int:
    if _payload(primitive) is not None:
        _, _, length, _ = file.view(_payload(primitive))
        return length // 16
    count = file.row("accessors", primitive["attributes"].get("POSITION")).get("count")
    return count if isinstance(count, int) and count > 0 else 1


def _read_primitive(file: GltfFile, primitive: dict[str, Any], where: str) -> GaussianCloud:
    if primitive.get("mode") != 0:
        raise InputError(f"{where}: mode: got {primitive.get('mode', 4)}, expected 0 (points)")
    payload = _payload(primitive)
    if payload is not None:
        buffer, start, length, _ = file.view(payload)
        return flipped(decode_spz(where, buffer[start:start + length]), _LUF_FROM_RDF)
    indices = primitive["attributes"]

    def read(name: str, *kinds: str) -> np.ndarray:
        if name not in indices:
            raise InputError(f"{where}: missing attribute {name}; it has {', '.join(map(str, list(indices)[:8]))}")
        values = file.accessor(indices[name], kinds)
        if len(values) != count:
            raise InputError(f"{where}: {name}: got {len(values)} values, expected {count} as in POSITION")
        return values

    count = len(file.accessor(indices["POSITION"], ("VEC3",)))
    opacities = read(f"{NAME}:OPACITY", "SCALAR")[:, 0]
    provenance = read(_PROVENANCE, "SCALAR")[:, 0] if _PROVENANCE in indices else np.full(count, Provenance.SEEN)
    if not (np.isin(provenance, [int(label) for label in Provenance])).all():
        raise InputError(f"{where}: {_PROVENANCE}: got {provenance.max():g}, expected 0..{int(max(Provenance))}")
    scales = read(f"{NAME}:SCALE", "VEC3")
    if scales.min() < 0:
        raise InputError(f"{where}: {NAME}:SCALE: got {scales.min():g}, expected linear scales, not negative: logarithms belong to "
                         "older drafts of the extension")
    sh = _read_sh(read, indices, primitive["extensions"][NAME].get("colorSpace"))
    return make_cloud(where, read("POSITION", "VEC3"), read(f"{NAME}:ROTATION", "VEC4")[:, [3, 0, 1, 2]],
                      scales, opacities, sh, provenance.astype(np.uint8))


def _read_sh(read: Any, indices: dict[str, Any], space: Any) -> np.ndarray:
    """Return (N, K, 3) for sRGB; a degree that is only partly there is an error."""
    degrees = [band for band in range(1, 4) if any(str(name).startswith(f"{NAME}:SH_DEGREE_{band}_") for name in indices)]
    if f"{NAME}:SH_DEGREE_0_COEF_0" not in indices and "COLOR_0" in indices and not degrees:
        rgb = np.clip(read("COLOR_0", "VEC3", "VEC4")[:, :3], 0, 1).astype(np.float64)
        return ((_to_srgb(rgb) - 0.5) / _SH_C0)[:, None]
    names = [f"{NAME}:SH_DEGREE_{band}_COEF_{i}" for band in range(max(degrees, default=0) + 1) for i in range(2 * band + 1)]
    sh = np.stack([read(name, "VEC3") for name in names], 1)
    if space != "lin_rec709_display":
        return sh
    linear = np.clip(sh[:, :1].astype(np.float64) * _SH_C0 + 0.5, 0, 1)
    slope = np.where(linear <= 0.0031308, 12.92, 1.055 / 2.4 * np.maximum(linear, 0.0031308) ** (1 / 2.4 - 1))
    return np.concatenate([(_to_srgb(linear) - 0.5) / _SH_C0, sh[:, 1:] * slope], 1)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
