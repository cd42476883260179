"""What a robot touches: one collider per part, separate from the picture, with physics material and contact offsets."""

from __future__ import annotations

from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import CollisionPart, Label
from lyra_core.usd.layers import ROOT, add_mesh, prim_name
from lyra_core.usd.topology import CleanMesh, clean

SCOPE = f"{ROOT}/Colliders"
PHYSICS_MATERIAL = f"{ROOT}/PhysicsMaterials/Default"
STATIC_FRICTION, DYNAMIC_FRICTION, RESTITUTION = 0.8, 0.7, 0.0
CONTACT_OFFSET, REST_OFFSET = 0.02, 0.0
"""[m]. Both finite: engine defaults of minus infinity lose continuous collision on mesh floors."""
HULL_VERTICES = 64
"""PhysX's limit of a convex hull; more vertices stay a triangle mesh."""


def collider_meshes(parts: list[CollisionPart]) -> list[tuple[str, CollisionPart, CleanMesh]]:
    """Return prim path, part and cleaned mesh per part.

    Raises:
        InputError: a part has no proper triangle, or numbers that would crash an engine; the part is named.
    """
    taken: set[str] = set()
    out = []
    for part in parts:
        mesh = clean(part.vertices, part.faces, where=f"collider {part.name!r}")
        if not len(mesh.faces):
            raise InputError(f"collider {part.name!r}: got no face with an area, expected at least one")
        out.append((f"{SCOPE}/{prim_name(part.name, taken)}", part, mesh))
    return out


def is_convex(mesh: CleanMesh, *, tolerance: float = 1e-3) -> bool:
    """Tell whether a mesh is closed and no point lies more than ``tolerance`` [m] in front of any face plane."""
    edges = np.sort(np.stack([mesh.faces, np.roll(mesh.faces, -1, 1)], -1).reshape(-1, 2), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    if (count != 2).any():
        return False
    corners = mesh.points.astype(np.float64)[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = mesh.points.astype(np.float64) @ normal.T - (normal * corners[:, 0]).sum(1)
    return bool(height.max() <= tolerance)


def author_colliders(stage: Any, meshes: list[tuple[str, CollisionPart, CleanMesh]]) -> None:
    """Define the collider meshes under a guide-purpose scope: engines use them, renderers skip them."""
    from pxr import Sdf, UsdGeom

    scope = UsdGeom.Scope.Define(stage, SCOPE)
    scope.CreatePurposeAttr(UsdGeom.Tokens.guide)
    for path, part, mesh in meshes:
        prim = add_mesh(stage, path, mesh)
        primvar = UsdGeom.PrimvarsAPI(prim).CreatePrimvar("lyra:provenance", Sdf.ValueTypeNames.Int, UsdGeom.Tokens.constant)
        primvar.Set(int(part.provenance))
        prim.GetPrim().SetCustomDataByKey("lyra:label", Label(part.label).name.lower())
        prim.GetPrim().SetCustomDataByKey("lyra:kind", part.kind)


def author_physics(stage: Any, meshes: list[tuple[str, CollisionPart, CleanMesh]]) -> None:
    """Turn the collider meshes into static colliders: UsdPhysics schemas, one physics material, the scene's gravity.

    A shell is a triangle mesh (a hull of a room is a block); a closed convex object of few vertices is its own hull, which
    engines collide with faster and never tunnel through.
    """
    from pxr import Gf, UsdGeom, UsdPhysics, UsdShade

    scene = UsdPhysics.Scene.Define(stage, f"{ROOT}/PhysicsScene")
    scene.CreateGravityDirectionAttr(Gf.Vec3f(0, 0, -1))
    scene.CreateGravityMagnitudeAttr(9.81)
    UsdGeom.Scope.Define(stage, PHYSICS_MATERIAL.rsplit("/", 1)[0])
    material = UsdPhysics.MaterialAPI.Apply(UsdShade.Material.Define(stage, PHYSICS_MATERIAL).GetPrim())
    material.CreateStaticFrictionAttr(STATIC_FRICTION)
    material.CreateDynamicFrictionAttr(DYNAMIC_FRICTION)
    material.CreateRestitutionAttr(RESTITUTION)
    for path, part, mesh in meshes:
        prim = stage.OverridePrim(path)
        UsdPhysics.CollisionAPI.Apply(prim)
        hull = part.kind == "solid" and len(mesh.points) <= HULL_VERTICES and is_convex(mesh)
        UsdPhysics.MeshCollisionAPI.Apply(prim).CreateApproximationAttr("convexHull" if hull else "none")
        binding = UsdShade.MaterialBindingAPI.Apply(prim)
        binding.Bind(UsdShade.Material(stage.GetPrimAtPath(PHYSICS_MATERIAL)), UsdShade.Tokens.weakerThanDescendants, "physics")


def author_physx(stage: Any, meshes: list[tuple[str, CollisionPart, CleanMesh]]) -> None:
    """Add PhysX's contact offsets as raw applied schemas: no PhysX schema package is needed to write or read them."""
    from pxr import Sdf

    for path, _part, _mesh in meshes:
        prim = stage.OverridePrim(path)
        prim.AddAppliedSchema("PhysxCollisionAPI")
        for name, value in (("contactOffset", CONTACT_OFFSET), ("restOffset", REST_OFFSET)):
            prim.CreateAttribute(f"physxCollision:{name}", Sdf.ValueTypeNames.Float, False).Set(value)
