"""Meshes without textures: PLY with colours at the vertices, STL of the colliders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.parts import axes_text, turned, visual_parts
from lyra_core.io.files import write_bytes
from lyra_core.io.meshes import merge_parts
from lyra_core.world import World


def write_ply_mesh(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write a binary PLY: vertices with normals and the texture's colours, faces with label and provenance."""
    parts = visual_parts(world, cfg)
    offsets = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    vertex = np.zeros(sum(len(part.vertices) for part in parts), [(k, "<f4") for k in ("x", "y", "z", "nx", "ny", "nz")]
                      + [(k, "u1") for k in ("red", "green", "blue")])
    for keys, rows in ((("x", "y", "z"), turned(np.concatenate([p.vertices for p in parts]), cfg.up)),
                       (("nx", "ny", "nz"), turned(np.concatenate([p.normals for p in parts]), cfg.up)),
                       (("red", "green", "blue"), np.concatenate([p.rgb for p in parts]))):
        for i, key in enumerate(keys):
            vertex[key] = rows[:, i]
    face = np.zeros(sum(len(part.faces) for part in parts), [("n", "u1"), ("v", "<i4", 3), ("label", "u1"), ("provenance", "u1")])
    face["n"] = 3
    face["v"] = np.concatenate([part.faces + offset for part, offset in zip(parts, offsets, strict=True)])
    face["label"] = np.repeat([int(part.label) for part in parts], [len(part.faces) for part in parts])
    face["provenance"] = np.concatenate([part.face_provenance for part in parts])
    kinds = {"<f4": "float", "|u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"comment {about(world)['generator']}",
             f"comment metres, right-handed, {axes_text(cfg.up)}", f"comment {copyright_line(world)}",
             f"element vertex {len(vertex)}", *(f"property {kinds[vertex.dtype[k].str]} {k}" for k in vertex.dtype.names or ()),
             f"element face {len(face)}", "property list uchar int vertex_indices", "property uchar label",
             "property uchar provenance", "end_header", ""]
    write_bytes(folder / name, "\n".join(lines).encode("ascii") + vertex.tobytes() + face.tobytes())


def write_stl(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write a binary STL of the colliders [m]. STL has neither unit nor axes; the header says both."""
    vertices, faces = merge_parts(world.collision_parts)
    if not len(faces):
        raise InputError(f"{world.folder / 'collision.glb'}: got no colliders, expected at least one")
    corners = turned(vertices, cfg.up)[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).astype(np.float64)
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    rows = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows["normal"], rows["corners"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0), corners
    head = f"{about(world)['generator']}, unit metre, {cfg.up.upper()} up".encode("ascii")[:80].ljust(80)
    write_bytes(folder / name, head + np.uint32(len(faces)).tobytes() + rows.tobytes())
