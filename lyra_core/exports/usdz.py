"""One self-contained .usdz: mesh, texture, colliders, no path that leads out of it."""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about
from lyra_core.exports.parts import fitted_texture, turned
from lyra_core.exports.points import face_areas
from lyra_core.io.files import write_bytes
from lyra_core.io.images import encode_image
from lyra_core.io.meshes import PNG_PIXELS
from lyra_core.usd._pxr import require_pxr
from lyra_core.usd.colliders import author_colliders, author_physics, collider_meshes
from lyra_core.usd.geometry import author_geometry, author_materials, author_semantics, visual_groups
from lyra_core.usd.layers import ROOT, to_usd
from lyra_core.usd.topology import MIN_AREA
from lyra_core.world import World

_ALIGN = 64
"""Of every file's first byte in the package (USDZ specification)."""


def write_usdz(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write the stage and its texture into one package, Y up and in metres as AR viewers want it, colliders of purpose guide.

    Raises:
        BackendUnavailable: OpenUSD is not installed.
        InputError: no mesh.
    """
    require_pxr()
    mesh = world.mesh
    groups = visual_groups(replace(mesh, vertices=turned(mesh.vertices, cfg.up)))
    if not groups:
        raise InputError(f"{world.folder / 'mesh.npz'}: got no faces, expected a mesh to export")
    texture = fitted_texture(mesh, cfg.max_texture)
    picture = "textures/atlas.png" if texture.shape[0] * texture.shape[1] <= PNG_PIXELS else "textures/atlas.jpg"

    def author(stage: Any) -> None:
        author_geometry(stage, groups)
        author_materials(stage, picture)
        author_semantics(stage, groups)
        if cfg.with_colliders and world.collision_parts:
            _author_colliders(stage, world, cfg)

    layer = _layer(author, cfg.up, about(world))
    files = {"world.usdc": layer, picture: encode_image(texture, Path(picture).suffix)}
    write_bytes(folder / name, packed(files))


def packed(files: dict[str, bytes]) -> bytes:
    """Return a .usdz: a zip without compression, every file's data aligned to 64 bytes, no dates; the first file is the stage."""
    with tempfile.TemporaryFile() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo(name)
                start = stream.tell() + 30 + len(name.encode())
                # A field of four bytes and its content fills up to the border; its header id is not assigned to anybody.
                gap = -start % _ALIGN
                gap += _ALIGN if 0 < gap < 4 else 0
                if gap:
                    info.extra = b"\x86\x19" + (gap - 4).to_bytes(2, "little") + b"\0" * (gap - 4)
                archive.writestr(info, data)
        stream.seek(0)
        return stream.read()


def _layer(author: Any, up: str, facts: dict[str, Any]) -> bytes:
    """Return the bytes of a binary layer that ``author(stage)`` fills."""
    from pxr import Kind, Sdf, Usd, UsdGeom, UsdPhysics

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "world.usdc"
        layer = Sdf.Layer.CreateAnonymous(".usdc")
        stage = Usd.Stage.Open(layer)
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "y" else UsdGeom.Tokens.z)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, ROOT).GetPrim()
        stage.SetDefaultPrim(root)
        Usd.ModelAPI(root).SetKind(Kind.Tokens.component)
        author(stage)
        del stage
        layer.customLayerData = to_usd({"lyra": facts})
        if not layer.Export(str(path)):
            raise OSError(f"{path}: OpenUSD could not write the layer")
        return path.read_bytes()


def _author_colliders(stage: Any, world: World, cfg: ExportCfg) -> None:
    from pxr import Gf, UsdPhysics

    parts = [replace(part, vertices=np.asarray(turned(part.vertices, cfg.up), np.float32)) for part in world.collision_parts
             if face_areas(part.vertices, part.faces).max() > MIN_AREA]
    meshes = collider_meshes(parts)
    author_colliders(stage, meshes)
    author_physics(stage, meshes)
    down = Gf.Vec3f(0, -1, 0) if cfg.up == "y" else Gf.Vec3f(0, 0, -1)
    UsdPhysics.Scene(stage.GetPrimAtPath(f"{ROOT}/PhysicsScene")).GetGravityDirectionAttr().Set(down)

