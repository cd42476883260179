"""Wavefront OBJ with its material and texture beside it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.parts import VisualPart, axes_text, fitted_texture, turned, visual_parts
from lyra_core.io.files import write_bytes
from lyra_core.io.images import write_image
from lyra_core.world import World


def write_obj(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write NAME.obj, .mtl and .png: one object per part, metres, what a camera sees (colliders: format stl).

    OBJ states neither axes nor unit; the first lines say them. Y is up by default, as Blender, Unity and Maya read it.
    """
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", name[:-4]) or "world"  # readers end a file's name at the first space
    head = [f"# {about(world)['generator']}", f"# metres, right-handed, {axes_text(cfg.up)}", f"# {copyright_line(world)}"]
    blocks = ["\n".join([*head, f"mtllib {stem}.mtl", ""])]
    offset = 1
    for part in visual_parts(world, cfg):
        blocks.append(f"o {part.name}\nusemtl atlas\n" + obj_text(part, up=cfg.up, offset=offset))
        offset += len(part.vertices)
    material = [*head, "newmtl atlas", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {stem}.png", ""]
    write_image(folder / f"{stem}.png", fitted_texture(world.mesh, cfg.max_texture))
    write_bytes(folder / f"{stem}.mtl", "\n".join(material).encode())
    write_bytes(folder / name, "".join(blocks).encode())


def obj_text(part: VisualPart, *, up: str, offset: int = 1) -> str:
    """Return the lines v, vt, vn and f of a part; its first vertex has the number ``offset`` in the file."""
    blocks = []
    for key, values in (("v", turned(part.vertices, up)), ("vt", part.uv), ("vn", turned(part.normals, up))):
        pattern = f"{key} " + " ".join(["%.6f"] * values.shape[1])
        blocks += [pattern % tuple(row) for row in values.tolist()]
    index = np.repeat(part.faces.astype(np.int64) + offset, 3, axis=1)
    pattern = "f " + " ".join(["%d/%d/%d"] * 3)
    blocks += [pattern % tuple(row) for row in index.tolist()]
    return "\n".join(blocks) + "\n"
