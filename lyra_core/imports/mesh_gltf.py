"""glTF 2.0 meshes: the scene's nodes with their transforms, primitives, materials (Khronos glTF 2.0 specification)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.mesh_gltf_data import GltfData, image_bytes
from lyra_core.imports.mesh_parts import Part, Reading, placed, shown, to_srgb, triangle_part

MAX_NODES = 1_000_000
"""Nodes of the scene, which is a tree."""
_READ = {"KHR_mesh_quantization", "KHR_texture_transform", "KHR_materials_unlit", "KHR_node_visibility", "EXT_texture_webp",
         "KHR_materials_pbrSpecularGlossiness", "EXT_mesh_gpu_instancing"}
_HARMLESS = ("KHR_materials_", "KHR_lights_", "KHR_xmp", "EXT_lights_", "ADOBE_", "KHR_animation", "KHR_texture_basisu")
_DRACO = "KHR_draco_mesh_compression"


def read_gltf(reading: Reading, content: bytes) -> list[Part]:
    """Return one part per primitive and place where it stands, in the scene's frame (metres, +Y up).

    Raises:
        InputError: a damaged file, a file outside of the folder, a required extension that is not read.
    """
    data = GltfData(reading, content)
    for name in data.rows(data.tree, "extensionsRequired"):
        if not isinstance(name, str) or (name not in _READ and not name.startswith(_HARMLESS)):
            hint = "; export without compression" if isinstance(name, str) and ("draco" in name or "meshopt" in name) else ""
            raise reading.fail(f"extensionsRequired: {shown(name)} is not read{hint}")
    if data.rows(data.tree, "skins"):
        reading.note("Skinned meshes are taken in the pose they are stored in.")
    if data.rows(data.tree, "animations"):
        reading.note("Animations are not played: the pose at rest is taken.")
    meshes: dict[int, list[Part]] = {}
    copies: list[tuple[int, np.ndarray]] = []
    for node, T in _placed_nodes(data):
        index = node.get("mesh")
        if index is None:
            continue
        row = data.row("meshes", index)
        if index not in meshes:
            meshes[index] = list(_mesh(data, row, f"meshes[{index}]"))
        for place in _instances(data, node):
            # All are counted before the first is made: a few bytes can ask for any number.
            reading.add_copy(meshes[index])
            copies.append((index, T if place is None else T @ place))
    return [placed(part, T) for index, T in copies for part in meshes[index]]


def _placed_nodes(data: GltfData) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the nodes of the scene and their T_scene_node (4, 4). A node met twice is a fault: the scene is a tree."""
    scenes = data.rows(data.tree, "scenes")
    if scenes:
        roots = data.rows(data.row("scenes", data.tree.get("scene", 0)), "nodes")
        if len(scenes) > 1:
            data.reading.note(f"The file has {len(scenes)} scenes; only the default one is taken.")
    else:
        children = {child for node in data.rows(data.tree, "nodes") if isinstance(node, dict)
                    for child in data.rows(node, "children") if isinstance(child, int)}
        roots = [i for i in range(len(data.rows(data.tree, "nodes"))) if i not in children]
    stack, met = [(index, np.eye(4)) for index in reversed(roots)], set()
    while stack:
        index, T_parent = stack.pop()
        node = data.row("nodes", index)
        if index in met or len(met) > MAX_NODES:
            raise data.reading.fail(f"nodes[{index}]: is met twice, expected a tree of nodes without cycles")
        met.add(index)
        visibility = data.table(data.table(node, "extensions"), "KHR_node_visibility")
        if visibility.get("visible") is False:
            data.reading.note("Nodes that are not visible were skipped.")
            continue
        with np.errstate(all="ignore"):
            T = T_parent @ _local(data, node) if node.keys() & {"matrix", "translation", "rotation", "scale"} else T_parent
        yield node, T
        stack += [(child, T) for child in reversed(data.rows(node, "children"))]


def _local(data: GltfData, node: dict[str, Any]) -> np.ndarray:
    """Return the (4, 4) transform of a node: its matrix (stored by columns), or translation, rotation and scale."""
    if "matrix" in node:
        return data.floats(node, "matrix", tuple(np.eye(4).reshape(-1))).reshape(4, 4).T
    return compose(data.floats(node, "translation", (0, 0, 0)), data.floats(node, "rotation", (0, 0, 0, 1)),
                   data.floats(node, "scale", (1, 1, 1)))


def compose(translation: np.ndarray, quat_xyzw: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return translation @ rotation @ scale as (4, 4)."""
    x, y, z, w = quat_xyzw / max(float(np.linalg.norm(quat_xyzw)), 1e-12)
    T = np.eye(4)
    T[:3, :3] = np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                          [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                          [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]) * scale
    T[:3, 3] = translation
    return T


def _instances(data: GltfData, node: dict[str, Any]) -> Iterator[np.ndarray | None]:
    """Yield T_node_instance of EXT_mesh_gpu_instancing, or None once for a plain node."""
    extension = data.table(data.table(node, "extensions"), "EXT_mesh_gpu_instancing")
    attributes = data.table(extension, "attributes")
    read = {key: data.accessor(attributes[key], ("VEC4",) if key == "ROTATION" else ("VEC3",))
            for key in ("TRANSLATION", "ROTATION", "SCALE") if key in attributes}
    if not read:
        yield None
        return
    count = min(len(values) for values in read.values())
    still = {"TRANSLATION": np.zeros(3), "ROTATION": np.array([0, 0, 0, 1.0]), "SCALE": np.ones(3)}
    for i in range(count):
        yield compose(*(read[key][i] if key in read else still[key] for key in still))


def _mesh(data: GltfData, row: dict[str, Any], where: str) -> Iterator[Part]:
    if "weights" in row:
        data.reading.note("Morph targets are not applied.")
    for i, primitive in enumerate(data.rows(row, "primitives")):
        at = f"{where}.primitives[{i}]"
        if not isinstance(primitive, dict):
            raise data.reading.fail(f"{at}: got {shown(primitive)}, expected an object")
        if (part := _primitive(data, primitive, at)) is not None:
            yield part


def _primitive(data: GltfData, primitive: dict[str, Any], where: str) -> Part | None:
    reading, attributes = data.reading, data.table(primitive, "attributes")
    mode = primitive.get("mode", 4)
    if mode not in (4, 5, 6):
        if mode not in (0, 1, 2, 3):
            raise reading.fail(f"{where}.mode: got {shown(mode)}, expected 0..6")
        reading.note("Points and lines were skipped.")
        return None
    if "POSITION" not in attributes:
        reading.note("Primitives without positions were skipped.")
        return None
    if _DRACO in data.table(primitive, "extensions"):
        stored = [data.row("accessors", attributes["POSITION"])]
        stored += [data.row("accessors", primitive["indices"])] if "indices" in primitive else []
        if any("bufferView" not in accessor for accessor in stored):
            raise reading.fail(f"{where}: is packed by {_DRACO}, which is not read; export without compression")
    vertices = data.accessor(attributes["POSITION"], ("VEC3",))
    indices = data.accessor(primitive["indices"], ("SCALAR",), integer=True) if "indices" in primitive else np.arange(len(vertices))
    faces = _triangles(reading, indices, mode, where)
    if not len(faces):
        return None
    texture, rgb, uv_set, transform = _material(data, primitive.get("material"))
    uv = None
    if texture >= 0 and f"TEXCOORD_{uv_set}" in attributes:
        uv = _uv(reading, data.accessor(attributes[f"TEXCOORD_{uv_set}"], ("VEC2",)), transform, len(vertices), where)
    vertex_rgb = None
    if "COLOR_0" in attributes:
        vertex_rgb = to_srgb(data.accessor(attributes["COLOR_0"], ("VEC3", "VEC4"))[:, :3])
        if len(vertex_rgb) != len(vertices):
            raise reading.fail(f"{where}.COLOR_0: got {len(vertex_rgb)} values, expected {len(vertices)}")
    inside = np.clip(faces, 0, len(vertices) - 1)
    return triangle_part(
        reading, where, vertices, faces, vertex_rgb=vertex_rgb, corner_uv=None if uv is None else uv[inside],
        face_texture=None if uv is None else np.full(len(faces), texture, np.int32),
        face_rgb=None if (rgb == 255).all() else np.broadcast_to(rgb, (len(faces), 3)))


def _triangles(reading: Reading, indices: np.ndarray, mode: int, where: str) -> np.ndarray:
    """Return (F, 3) of a list (4), strip (5) or fan (6); strips leave out the faces without area that join them."""
    if mode == 4:
        if len(indices) % 3:
            reading.note(f"{where}: the last {len(indices) % 3} indices make no triangle.")
        return indices[:len(indices) // 3 * 3].reshape(-1, 3)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == 6:
        return np.stack([indices[1:-1], indices[2:], np.full(len(indices) - 2, indices[0])], 1)
    i = np.arange(len(indices) - 2)
    faces = np.stack([indices[i], indices[i + 1 + i % 2], indices[i + 2 - i % 2]], 1)
    return faces[(faces != np.roll(faces, 1, 1)).all(1)]


def _uv(reading: Reading, uv: np.ndarray, transform: np.ndarray | None, count: int, where: str) -> np.ndarray:
    """Return (V, 2) float32 with (0, 0) at the lower left; glTF's is the upper left."""
    if len(uv) != count:
        raise reading.fail(f"{where}: got {len(uv)} texture coordinates, expected {count}")
    if transform is not None:
        uv = uv @ transform[:, :2].T + transform[:, 2]
    return np.stack([uv[:, 0], 1 - uv[:, 1]], 1).astype(np.float32)


def _material(data: GltfData, index: Any) -> tuple[int, np.ndarray, int, np.ndarray | None]:
    """Return texture number (-1 = none), colour (3,) uint8, set of texture coordinates and their (2, 3) transform."""
    if index is None:
        return -1, np.full(3, 255, np.uint8), 0, None
    row = data.row("materials", index)
    gloss = data.table(data.table(row, "extensions"), "KHR_materials_pbrSpecularGlossiness")
    pbr = data.table(row, "pbrMetallicRoughness")
    if gloss and "baseColorTexture" not in pbr:
        factor, info = data.floats(gloss, "diffuseFactor", (1, 1, 1, 1)), data.table(gloss, "diffuseTexture")
    else:
        factor, info = data.floats(pbr, "baseColorFactor", (1, 1, 1, 1)), data.table(pbr, "baseColorTexture")
    rgb = to_srgb(factor[:3])
    if "index" not in info:
        return -1, rgb, 0, None
    moved = data.table(data.table(info, "extensions"), "KHR_texture_transform")
    uv_set = moved.get("texCoord", info.get("texCoord", 0))
    return _texture(data, info["index"]), rgb, uv_set if isinstance(uv_set, int) else 0, _transform(data, moved) if moved else None


def _transform(data: GltfData, row: dict[str, Any]) -> np.ndarray:
    """Return translation @ rotation @ scale of texture coordinates, (2, 3) (KHR_texture_transform)."""
    offset, scale = data.floats(row, "offset", (0, 0)), data.floats(row, "scale", (1, 1))
    angle = float(data.floats({"rotation": [row.get("rotation", 0.0)]}, "rotation", (0,))[0])
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c * scale[0], s * scale[1], offset[0]], [-s * scale[0], c * scale[1], offset[1]]])


def _texture(data: GltfData, index: Any) -> int:
    row = data.row("textures", index)
    webp = data.table(data.table(row, "extensions"), "EXT_texture_webp")
    source = webp.get("source", row.get("source"))
    if source is None:
        data.reading.note("Textures in a form that is not read (KHR_texture_basisu) were dropped.")
        return -1
    key = ("image", repr(source))
    if key not in data.reading.known:
        try:
            content = image_bytes(data, source)
        except InputError as error:
            data.reading.note(f"A texture was dropped: {str(error).removeprefix(f'{data.reading.path}: ')}.")
            data.reading.known[key] = -1
        else:
            data.reading.add_texture(key, content, f"images[{source}]")
    return data.reading.known[key]
