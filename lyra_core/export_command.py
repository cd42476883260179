"""lyra-worlds export: a finished world in another tool's format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from lyra_core.exports.base import export_world, how_to_open, pick_format

Target = Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE|DIR")]
FormatName = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: by the suffix)")]
Up = Annotated[Literal["y", "z", "-y"] | None, tyro.conf.arg(metavar="{y,z,-y}", help_behavior_hint="(default: the format's)")]
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def export(
    world: Positional[Path], *, output: Target, format: FormatName = None, level: str = "full", up: Up = None,
    no_colliders: Switch = False, collider_names: Literal["nodes", "ucx"] = "nodes", max_texture: int = 4096,
    points_per_m2: float = 400.0, frame_stride: int = 1, seed: int = 0, overwrite: Switch = False, quiet: Switch = False,
) -> None:
    """Write a finished world in another tool's format.

    Files by their suffix: .glb, .obj, .ply (mesh), .las, .stl (colliders), .usdz, .spz and .compressed.ply (splats). By name:
    points (.ply), splats (.ply, .glb), and the folders mjcf, nerfstudio, colmap, ros.

    Args:
        world: World folder.
        output: File or folder to write.
        format: glb, obj, ply, points, las, stl, usdz, mjcf, nerfstudio, colmap, ros or splats.
        level: full: the textured mesh; a number: that coarser copy of the world (glb, ply, points, las).
        up: Axis that points up in the file; -y: x right, y down, z forward, as splat captures have it.
        no_colliders: Leave out what a robot touches (glb, usdz).
        collider_names: glb: nodes collision/PART; or ucx: convex pieces UCX_PART_NN, which Unreal takes as collision.
        max_texture: Longer side of the texture at most [px].
        points_per_m2: points, las: points per square metre of surface.
        frame_stride: nerfstudio, colmap: every so many frames.
        seed: points, las, nerfstudio, colmap: decides which points.
        overwrite: Replace what an earlier export wrote.
        quiet: Print nothing but errors.
    """
    written = export_world(
        world, output, format=format, level=level, up=up, with_colliders=not no_colliders, collider_names=collider_names,
        max_texture=max_texture, points_per_m2=points_per_m2, frame_stride=frame_stride, seed=seed, overwrite=overwrite,
    )
    if quiet:
        return
    size = sum(path.stat().st_size for path in written) / 1e6
    more = f" and {len(written) - 1} more files" if len(written) > 1 else ""
    print(f"Wrote {written[0]}{more}: {size:.1f} MB")
    for line in how_to_open(pick_format(output, format), output):
        print(f"  {line}")
