"""Binary glTF as Blender, Unreal, Unity and a headset's browser open it: upright, in metres, by part, with colliders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.parts import VisualPart, fitted_texture, plain_name, visual_parts
from lyra_core.io.glb import GlbBuilder, to_y_up
from lyra_core.io.images import encode_image
from lyra_core.io.meshes import PNG_PIXELS
from lyra_core.types import Label, Provenance
from lyra_core.world import World

HIDDEN = "KHR_node_visibility"


def write_glb(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write nodes World/Visual/PART and World/Collision/collision/PART (or UCX_PART_NN).

    The material is unlit: the photo's light is in the texture. Colliders are hidden twice, by KHR_node_visibility and by a
    material of alpha 0, for the readers that do not know the extension.
    """
    glb = GlbBuilder()
    facts = about(world)
    glb.tree["asset"] |= {"generator": facts["generator"], "copyright": copyright_line(world, ascii_only=False), "extras": facts}
    parts = visual_parts(world, cfg)
    used = ["KHR_materials_unlit"]
    material = _add_look(glb, world, cfg)
    visual = [_add_part(glb, part, material) for part in parts]
    groups = [glb.append("nodes", {"name": "Visual", "children": visual})]
    colliders = _add_colliders(glb, world, parts, cfg) if cfg.with_colliders else []
    if colliders:
        hidden = {"name": "Collision", "children": colliders, "extensions": {HIDDEN: {"visible": False}}}
        groups.append(glb.append("nodes", hidden))
        used.append(HIDDEN)
    root = glb.append("nodes", {"name": "World", "children": groups})
    glb.tree["scenes"] = [{"name": "World", "nodes": [root]}]
    glb.tree["extensionsUsed"] = sorted(used)
    glb.write(folder / name)


def _add_look(glb: GlbBuilder, world: World, cfg: ExportCfg) -> int:
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    if cfg.level == "full":
        texture = fitted_texture(world.mesh, cfg.max_texture)
        exact = texture.shape[0] * texture.shape[1] <= PNG_PIXELS
        picture = glb.add_view(encode_image(texture, ".png" if exact else ".jpg"))
        glb.append("images", {"bufferView": picture, "mimeType": "image/png" if exact else "image/jpeg", "name": "atlas"})
        glb.append("samplers", {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071})
        glb.append("textures", {"source": 0, "sampler": 0})
        look["baseColorTexture"] = {"index": 0}
    return glb.append("materials", {"name": "atlas", "extensions": {"KHR_materials_unlit": {}}, "pbrMetallicRoughness": look})


def _add_part(glb: GlbBuilder, part: VisualPart, material: int) -> int:
    attributes = {"POSITION": glb.add_vectors(to_y_up(part.vertices), bounds=True),
                  "NORMAL": glb.add_vectors(to_y_up(part.normals))}
    if len(part.uv):
        attributes["TEXCOORD_0"] = glb.add_vectors(np.stack([part.uv[:, 0], 1.0 - part.uv[:, 1]], 1))
    else:
        attributes["COLOR_0"] = glb.add_vectors(_linear(part.rgb))
    shares = np.bincount(part.face_provenance, minlength=len(Provenance)) / max(len(part.face_provenance), 1)
    extras = {"label": part.label.name, "faces_by_provenance": {p.name: round(float(shares[p]), 4) for p in Provenance}}
    return _add_node(glb, part.name, attributes, part.faces, material, extras)


def _add_colliders(glb: GlbBuilder, world: World, visual: list[VisualPart], cfg: ExportCfg) -> list[int]:
    unseen = {"baseColorFactor": [0.1, 0.8, 0.3, 0.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    material = glb.append("materials", {"name": "collider", "alphaMode": "MASK", "alphaCutoff": 0.5, "pbrMetallicRoughness": unseen,
                                        "extensions": {"KHR_materials_unlit": {}}})
    nodes = []
    if cfg.collider_names == "ucx":
        for name, label, vertices, faces in _unreal_pieces(world, visual):
            attributes = {"POSITION": glb.add_vectors(to_y_up(vertices), bounds=True)}
            nodes.append(_add_node(glb, name, attributes, faces, material, {"label": label.name, "kind": "convex"}))
        return nodes
    taken: set[str] = set()
    for part in world.collision_parts:
        extras = {"label": Label(part.label).name, "kind": part.kind, "provenance": Provenance(part.provenance).name}
        attributes = {"POSITION": glb.add_vectors(to_y_up(part.vertices), bounds=True)}
        nodes.append(_add_node(glb, f"collision/{plain_name(part.name, taken)}", attributes, part.faces, material, extras))
    return nodes


def _unreal_pieces(world: World, visual: list[VisualPart]) -> list[tuple[str, Label, np.ndarray, np.ndarray]]:
    """Return name, label, vertices and faces of convex pieces; UCX_MESH_NN belongs to the visual mesh MESH."""
    from lyra_core.exports.pieces import convex_pieces

    centres = np.array([part.vertices.mean(0) for part in visual])
    names, numbers, out = [part.name for part in visual], {}, []
    for part, pieces in convex_pieces(world.collision_parts):
        owner = part.name if part.name in names else _nearest(part.label, part.vertices.mean(0), visual, centres)
        for piece in pieces:
            numbers[owner] = numbers.get(owner, -1) + 1
            out.append((f"UCX_{owner}_{numbers[owner]:02d}", Label(part.label), *piece.mesh()))
    return out


def _nearest(label: Label, centre: np.ndarray, visual: list[VisualPart], centres: np.ndarray) -> str:
    """Return the visual part of the same label (of any, if none) whose middle is nearest."""
    same = [i for i, part in enumerate(visual) if part.label == label] or list(range(len(visual)))
    return visual[same[int(np.linalg.norm(centres[same] - centre, axis=1).argmin())]].name


def _add_node(glb: GlbBuilder, name: str, attributes: dict[str, int], faces: np.ndarray, material: int,
              extras: dict[str, Any]) -> int:
    primitive = {"attributes": attributes, "indices": glb.add_indices(faces), "material": material, "mode": 4}
    mesh = glb.append("meshes", {"name": name, "primitives": [primitive]})
    return glb.append("nodes", {"name": name, "mesh": mesh, "extras": extras})


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Turn sRGB bytes into glTF's linear vertex colours."""
    x = rgb / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
