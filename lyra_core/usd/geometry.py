"""What a camera sees: the textured mesh by part, its material, its semantic labels and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyra_core.types import Label, SurfaceMesh
from lyra_core.usd.layers import ROOT, add_labels, add_mesh, prim_name
from lyra_core.usd.topology import CleanMesh, clean

GROUP_NAMES = {Label.FLOOR: "Floor", Label.WALL: "Walls", Label.CEILING: "Ceiling", Label.DOOR: "Doors", Label.SKY: "Sky",
               Label.UNLABELED: "Other"}
MATERIAL = f"{ROOT}/Looks/Atlas"


@dataclass(frozen=True)
class VisualGroup:
    """One Mesh prim."""

    path: str
    label: Label
    mesh: CleanMesh
    st: np.ndarray
    """(P, 2) float32 texture coordinates."""
    provenance: np.ndarray
    """(G,) int32 of Provenance."""


def visual_groups(mesh: SurfaceMesh) -> list[VisualGroup]:
    """Cut the mesh into one group per label, obstacles one per part; parts without a proper face are left out."""
    groups: list[tuple[str, Label, np.ndarray]] = []
    for label, name in GROUP_NAMES.items():
        groups.append((f"{ROOT}/Geometry/{name}", label, np.flatnonzero(mesh.face_label == label)))
    obstacle, taken = mesh.face_label == Label.OBSTACLE, set()
    for part in np.unique(mesh.face_part[obstacle]):
        name = mesh.part_names[part] if 0 <= part < len(mesh.part_names) else f"part_{part}"
        path = f"{ROOT}/Geometry/Obstacles/{prim_name(name, taken)}"
        groups.append((path, Label.OBSTACLE, np.flatnonzero(obstacle & (mesh.face_part == part))))
    out = []
    for path, label, rows in groups:
        # The cut mesh keeps its own vertices only: welding all of them once per group would be quadratic.
        used, faces = np.unique(mesh.faces[rows], return_inverse=True)
        uv = mesh.uv[used]
        tidy = clean(mesh.vertices[used], faces.reshape(-1, 3), attributes=uv, where=path) if len(rows) else None
        if tidy is not None and len(tidy.faces):
            out.append(VisualGroup(path, label, tidy, uv[tidy.source_vertex].astype(np.float32),
                                   mesh.face_provenance[rows][tidy.source_face].astype(np.int32)))
    return out


def author_geometry(stage: Any, groups: list[VisualGroup]) -> None:
    """Define /World/Geometry with one Mesh per group, bound to the atlas material."""
    from pxr import Sdf, UsdGeom, UsdShade, Vt

    UsdGeom.Scope.Define(stage, f"{ROOT}/Geometry")
    if any("/Obstacles/" in group.path for group in groups):
        UsdGeom.Scope.Define(stage, f"{ROOT}/Geometry/Obstacles")
    for group in groups:
        prim = add_mesh(stage, group.path, group.mesh)
        primvars = UsdGeom.PrimvarsAPI(prim)
        values, index = np.unique(group.st, axis=0, return_inverse=True)
        st = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        repeated = len(values) < len(group.st)
        st.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(values if repeated else group.st)))
        if repeated:
            st.SetIndices(Vt.IntArray.FromNumpy(index.reshape(-1).astype(np.int32)))
        seen = primvars.CreatePrimvar("lyra:provenance", Sdf.ValueTypeNames.IntArray, UsdGeom.Tokens.uniform)
        seen.Set(Vt.IntArray.FromNumpy(group.provenance))
        UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).GetDirectBindingRel().SetTargets([MATERIAL])


def author_materials(stage: Any, texture: str) -> None:
    """Define the atlas material: UsdPreviewSurface over one texture (path relative to this layer).

    The photo's light is already in the texture, so half of it is emitted: a closed room stays visible where a renderer lets no
    dome light through the ceiling.
    """
    from pxr import Gf, Sdf, UsdGeom, UsdShade

    UsdGeom.Scope.Define(stage, f"{ROOT}/Looks")
    material = UsdShade.Material.Define(stage, MATERIAL)
    reader = UsdShade.Shader.Define(stage, f"{MATERIAL}/TexCoord")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    st = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    surface = UsdShade.Shader.Define(stage, f"{MATERIAL}/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.9)
    surface.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
    for name, channel, scale in (("Texture", "diffuseColor", 1.0), ("Emission", "emissiveColor", 0.5)):
        sampler = UsdShade.Shader.Define(stage, f"{MATERIAL}/{name}")
        sampler.CreateIdAttr("UsdUVTexture")
        sampler.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(Sdf.AssetPath(texture))
        sampler.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
        for axis in ("wrapS", "wrapT"):
            sampler.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
        sampler.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(scale, scale, scale, 1))
        sampler.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(st)
        rgb = sampler.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
        surface.CreateInput(channel, Sdf.ValueTypeNames.Color3f).ConnectToSource(rgb)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", Sdf.ValueTypeNames.Token))


def author_semantics(stage: Any, groups: list[VisualGroup]) -> None:
    """Label every visual mesh with its class."""
    for group in groups:
        add_labels(stage.OverridePrim(group.path), group.label.name.lower())


def author_lights(stage: Any) -> None:
    """Define a dome and a sun, so that the stage is visible when opened; leave the layer out to use your own."""
    from pxr import Gf, UsdGeom, UsdLux

    UsdGeom.Scope.Define(stage, f"{ROOT}/Lights")
    UsdLux.DomeLight.Define(stage, f"{ROOT}/Lights/Dome").CreateIntensityAttr(1.0)
    sun = UsdLux.DistantLight.Define(stage, f"{ROOT}/Lights/Sun")
    sun.CreateIntensityAttr(1.0)
    sun.CreateAngleAttr(0.53)
    UsdGeom.Xformable(sun).AddRotateXYZOp().Set(Gf.Vec3f(35, 20, 0))
