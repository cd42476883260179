"""Meshes of the world folder: mesh.npz (what environments load), mesh.glb (what people open), collision.glb (by part)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lyra_core.errors import InputError, WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.io.glb import FLOAT, UINT32, GlbBuilder, GlbFile, to_y_up, to_z_up
from lyra_core.io.images import encode_image
from lyra_core.types import CollisionPart, DetailLevel, Label, Provenance, SurfaceMesh

PNG_PIXELS = 1 << 20
"""Textures up to this many pixels are stored as PNG (exact), larger ones as JPEG of quality 92."""
_DTYPES = {"vertices": np.float32, "faces": np.int32, "uv": np.float32, "texture": np.uint8, "face_label": np.uint8,
           "face_provenance": np.uint8, "face_part": np.int32}


def save_surface_mesh(path: Path, mesh: SurfaceMesh) -> None:
    """Write a textured mesh as .npz; the texture is PNG bytes up to 1 MP (exact), else JPEG bytes.

    Raises:
        WorldError: a vertex, uv, label, provenance or part that :func:`load_surface_mesh` would refuse.
    """
    _check_values(path, mesh)
    h, w = mesh.texture.shape[:2]
    texture = np.frombuffer(encode_image(mesh.texture, ".png" if h * w <= PNG_PIXELS else ".jpg"), np.uint8)
    arrays = {name: np.asarray(getattr(mesh, name), dtype) for name, dtype in _DTYPES.items() if name != "texture"}
    write_npz(path, **arrays, texture=texture, part_names=np.array(mesh.part_names, dtype=np.str_))


def load_surface_mesh(path: Path) -> SurfaceMesh:
    """Read what :func:`save_surface_mesh` wrote.

    Raises:
        WorldError: the file is damaged, or an array has the wrong type, length, range or a number that is not finite.
    """
    path = Path(path)
    data = read_npz(path, *_DTYPES, "part_names")
    for name, dtype in _DTYPES.items():
        if data[name].dtype != dtype:
            raise WorldError(f"{path}: {name}: got {data[name].dtype}, expected {np.dtype(dtype)}")
    if data["part_names"].ndim != 1 or data["part_names"].dtype.kind != "U":
        raise WorldError(f"{path}: part_names: got {data['part_names'].dtype}, expected a list of strings")
    picture = cv2.imdecode(data.pop("texture"), cv2.IMREAD_COLOR) if data["texture"].ndim == 1 and data["texture"].size else None
    if picture is None:
        raise WorldError(f"{path}: texture: not a PNG or JPEG")
    names = tuple(str(name) for name in data.pop("part_names"))
    try:
        mesh = SurfaceMesh(**data, texture=cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), part_names=names)
    except InputError as error:
        raise WorldError(f"{path}: {error}") from error
    _check_values(path, mesh)
    return mesh


LEVEL_ARRAYS = {"vertices": np.float32, "faces": np.int32, "vertex_rgb": np.uint8, "face_label": np.uint8,
                "face_provenance": np.uint8}


def save_levels(path: Path, levels: Sequence[DetailLevel]) -> None:
    """Write levels of detail as .npz: level_0_vertices, ... and (N, 2) depth_error with median and 99th percentile [m]."""
    arrays = {f"level_{i}_{name}": np.asarray(getattr(level, name), dtype)
              for i, level in enumerate(levels) for name, dtype in LEVEL_ARRAYS.items()}
    errors = np.array([[level.depth_error_median, level.depth_error_p99] for level in levels], np.float64).reshape(-1, 2)
    write_npz(path, depth_error=errors, **arrays)


def load_levels(path: Path) -> list[DetailLevel]:
    """Read what :func:`save_levels` wrote, finest first; empty where the full mesh is small.

    Raises:
        WorldError: the file is missing or damaged; the array is named.
    """
    path = Path(path)
    data, out = read_npz(path), []
    errors = data.get("depth_error")
    if errors is None or errors.ndim != 2 or errors.shape[1] != 2 or not np.isfinite(errors).all():
        raise WorldError(f"{path}: depth_error: missing or not (N, 2) finite numbers")
    for i, (median, high) in enumerate(errors):
        arrays = {}
        for name, dtype in LEVEL_ARRAYS.items():
            value = data.get(f"level_{i}_{name}")
            if value is None or value.dtype != dtype or not np.isfinite(value).all():
                raise WorldError(f"{path}: level_{i}_{name}: missing, of another type than {np.dtype(dtype)}, or not finite")
            arrays[name] = value
        try:
            level = DetailLevel(**arrays, depth_error_median=float(median), depth_error_p99=float(high))
        except InputError as error:
            raise WorldError(f"{path}: level {i}: {error}") from error
        if len(level.faces) and (level.faces.min() < 0 or level.faces.max() >= len(level.vertices)):
            raise WorldError(f"{path}: level_{i}_faces: got indices {level.faces.min()}..{level.faces.max()}, "
                             f"expected 0..{len(level.vertices) - 1}")
        out.append(level)
    return out


def save_mesh_glb(path: Path, mesh: SurfaceMesh) -> None:
    """Write a textured binary glTF: one primitive, Y up, unlit (the photo's light is in the texture), JPEG texture."""
    _check_values(path, mesh)
    if not len(mesh.faces):
        raise InputError(f"{path}: the mesh has no faces; glTF cannot hold an empty primitive")
    glb = GlbBuilder()
    picture = glb.add_view(encode_image(mesh.texture, ".jpg"))
    glb.append("images", {"bufferView": picture, "mimeType": "image/jpeg", "name": "texture"})
    glb.append("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071})
    glb.append("textures", {"source": 0, "sampler": 0})
    glb.append("materials", {"name": "texture", "extensions": {"KHR_materials_unlit": {}},
                             "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0,
                                                      "roughnessFactor": 1.0}})
    glb.tree["extensionsUsed"] = ["KHR_materials_unlit"]
    attributes = {"POSITION": glb.add_vectors(to_y_up(mesh.vertices), bounds=True),
                  "TEXCOORD_0": glb.add_vectors(np.stack([mesh.uv[:, 0], 1.0 - mesh.uv[:, 1]], 1))}
    glb.add_node("world", {"attributes": attributes, "indices": glb.add_indices(mesh.faces), "material": 0, "mode": 4})
    glb.write(path)


def save_collision_parts(path: Path, parts: Sequence[CollisionPart]) -> None:
    """Write colliders as binary glTF, one node per part, Y up; label, kind and provenance are the node's extras.

    Raises:
        InputError: a part is empty, has indices out of range or a vertex that is not finite.
    """
    glb = GlbBuilder()
    for part in parts:
        _check_part(f"{path}: {part.name}", part.vertices, part.faces)
        extras = {"label": Label(part.label).name, "kind": part.kind, "provenance": Provenance(part.provenance).name}
        attributes = {"POSITION": glb.add_vectors(to_y_up(part.vertices), bounds=True)}
        glb.add_node(part.name, {"attributes": attributes, "indices": glb.add_indices(part.faces), "mode": 4}, extras)
    glb.write(path)


def load_collision_parts(path: Path) -> list[CollisionPart]:
    """Read what :func:`save_collision_parts` wrote, in its order; vertices return bit by bit.

    Raises:
        WorldError: the file is damaged or a node lacks a field; both are named.
    """
    path = Path(path)
    glb = GlbFile(path)
    parts = []
    for node in glb.tree.get("nodes", []):
        where = f"{path}: node {node.get('name') if isinstance(node, dict) else node!r}"
        try:
            primitive = glb.tree["meshes"][node["mesh"]]["primitives"][0]
            label, provenance = Label[node["extras"]["label"]], Provenance[node["extras"]["provenance"]]
            name, kind = str(node["name"]), str(node["extras"]["kind"])
            position, index = primitive["attributes"]["POSITION"], primitive["indices"]
        except (KeyError, IndexError, TypeError) as error:
            raise WorldError(f"{where}: missing or unknown {error}; expected name, mesh, extras label kind provenance") from error
        vertices, indices = glb.accessor(position, FLOAT, "VEC3"), glb.accessor(index, UINT32, "SCALAR")
        if len(indices) % 3 or kind not in ("shell", "solid"):
            raise WorldError(f"{where}: got kind {kind!r} and {len(indices)} indices, expected shell or solid and a multiple of 3")
        faces = indices.reshape(-1, 3).astype(np.int64)
        try:
            _check_part(where, vertices, faces)
        except InputError as error:
            raise WorldError(str(error)) from error
        parts.append(CollisionPart(name, label, kind, to_z_up(vertices).astype(np.float32), faces.astype(np.int32), provenance))
    return parts


def merge_parts(parts: Sequence[CollisionPart]) -> tuple[np.ndarray, np.ndarray]:
    """Join parts into one triangle soup of parts: vertices (V, 3) float32 [m], faces (F, 3) int32, in the parts' order."""
    if not parts:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertices = np.concatenate([part.vertices for part in parts]).astype(np.float32)
    faces = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)]).astype(np.int32)
    return vertices, faces


def _check_part(where: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    if not len(vertices) or not len(faces):
        raise InputError(f"{where}: got {len(vertices)} vertices and {len(faces)} faces, expected at least one triangle")
    if not np.isfinite(vertices).all():
        raise InputError(f"{where}: vertices: got NaN or infinite numbers")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"{where}: faces: got indices {faces.min()}..{faces.max()}, expected 0..{len(vertices) - 1}")


def _check_values(path: Path, mesh: SurfaceMesh) -> None:
    for name in ("vertices", "uv"):
        if not np.isfinite(getattr(mesh, name)).all():
            raise WorldError(f"{path}: {name}: got NaN or infinite numbers")
    parts = len(mesh.part_names)
    limits = {"face_label": max(Label), "face_provenance": max(Provenance), "face_part": parts - 1 if parts else 2**31 - 1}
    for name, last in limits.items():
        values = getattr(mesh, name)
        if len(values) and (values.min() < 0 or values.max() > last):
            raise WorldError(f"{path}: {name}: got {values.min()}..{values.max()}, expected 0..{int(last)}")
    if mesh.texture.ndim != 3 or mesh.texture.shape[2] != 3 or mesh.texture.dtype != np.uint8 or not mesh.texture.size:
        raise WorldError(f"{path}: texture: got {mesh.texture.dtype} {mesh.texture.shape}, expected uint8 (h, w, 3)")
