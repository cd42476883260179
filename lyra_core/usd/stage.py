"""The world as an OpenUSD stage: an entry layer with variants and one payload per concern."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lyra_core.errors import InputError
from lyra_core.io.images import write_image
from lyra_core.io.meshes import PNG_PIXELS
from lyra_core.types import CollisionPart, GaussianCloud, SurfaceMesh
from lyra_core.usd._pxr import require_pxr
from lyra_core.usd.colliders import author_colliders, author_physics, author_physx, collider_meshes
from lyra_core.usd.geometry import author_geometry, author_lights, author_materials, author_semantics, visual_groups
from lyra_core.usd.layers import ROOT, to_usd, write_layer
from lyra_core.usd.splats import author_splats

MESH_PAYLOADS = ("./payloads/semantics.usda", "./payloads/materials.usda", "./payloads/geometry.usdc")
SPLAT_PAYLOADS = ("./payloads/splats.usdc",)
PHYSICS_PAYLOADS = ("./payloads/physx.usda",)
LIGHT_PAYLOADS = ("./payloads/lights.usda",)


def write_stage(folder: Path, mesh: SurfaceMesh, parts: list[CollisionPart], cloud: GaussianCloud | None, *,
                provenance: dict[str, Any]) -> None:
    """Write ``world.usda`` and ``payloads/`` into the folder. The same input gives the same bytes.

    Variant sets of /World: ``visual`` = mesh, and with a cloud splats and both; ``physics`` = trimesh, none. Each variant adds its
    own payloads to /World, which load and unload together. ``provenance`` (photo hash, camera path, generator, seed, licences)
    goes into the entry layer's metadata and into /World's custom data, where it survives referencing.

    Raises:
        BackendUnavailable: OpenUSD is not installed.
        InputError: the mesh or a part is empty or holds numbers that no reader takes; it is named.
    """
    require_pxr()
    folder = Path(folder)
    groups, meshes = visual_groups(mesh), collider_meshes(parts)
    if not groups or not meshes:
        raise InputError(f"{folder}: got {len(groups)} visual meshes and {len(meshes)} colliders, expected at least one of each")
    payloads = folder / "payloads"
    h, w = mesh.texture.shape[:2]
    texture = "Textures/atlas.png" if h * w <= PNG_PIXELS else "Textures/atlas.jpg"
    for stale in ("Textures/atlas.png", "Textures/atlas.jpg", "splats.usdc"):
        (payloads / stale).unlink(missing_ok=True)
    write_image(payloads / texture, mesh.texture)
    write_layer(payloads / "geometry.usdc", lambda stage: author_geometry(stage, groups))
    write_layer(payloads / "materials.usda", lambda stage: author_materials(stage, f"./{texture}"))
    write_layer(payloads / "semantics.usda", lambda stage: author_semantics(stage, groups))
    write_layer(payloads / "colliders.usdc", lambda stage: author_colliders(stage, meshes))
    write_layer(payloads / "physics.usda", lambda stage: author_physics(stage, meshes), sublayers=("./colliders.usdc",))
    write_layer(payloads / "physx.usda", lambda stage: author_physx(stage, meshes), sublayers=("./physics.usda",))
    write_layer(payloads / "lights.usda", author_lights)
    if cloud is not None:
        write_layer(payloads / "splats.usdc", lambda stage: author_splats(stage, cloud))
    write_layer(folder / "world.usda", lambda stage: _author_entry(stage, cloud is not None, provenance),
                custom={"lyra": provenance})


def _author_entry(stage: Any, splats: bool, provenance: dict[str, Any]) -> None:
    from pxr import Kind, Usd

    world = stage.GetPrimAtPath(ROOT)
    Usd.ModelAPI(world).SetKind(Kind.Tokens.assembly)
    world.SetCustomDataByKey("lyra", to_usd(provenance))
    visual = {"mesh": MESH_PAYLOADS}
    if splats:
        visual |= {"splats": SPLAT_PAYLOADS, "both": MESH_PAYLOADS + SPLAT_PAYLOADS}
    physics = {"trimesh": PHYSICS_PAYLOADS, "none": ()}
    for name, choices in (("visual", visual), ("physics", physics)):
        variants = world.GetVariantSets().AddVariantSet(name)
        for choice, files in choices.items():
            variants.AddVariant(choice)
            variants.SetVariantSelection(choice)
            with variants.GetVariantEditContext():
                _add_payloads(world, files)
        variants.SetVariantSelection(next(iter(choices)))
    _add_payloads(world, LIGHT_PAYLOADS)


def _add_payloads(prim: Any, files: tuple[str, ...]) -> None:
    from pxr import Sdf, Usd

    for file in files:
        prim.GetPayloads().AddPayload(Sdf.Payload(file), Usd.ListPositionBackOfAppendList)
