"""The verb import: worlds from anyone's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from lyra_core.commands import AsJson, Config, Folder, Quiet, Seed, Size, run_job, say_where, settings
from lyra_core.errors import ConfigError

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254, "ft": 0.3048}
Kind = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: recognised)")]
Unit = Annotated[Literal["m", "cm", "mm", "in", "ft"] | None,
                 tyro.conf.arg(metavar="{m,cm,mm,in,ft}", help_behavior_hint="(default: stated, else found)")]
Number = Annotated[float | None, tyro.conf.arg(metavar="METRES", help_behavior_hint="(default: none)")]
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: none)")]


def import_(
    source: Positional[Path], *, output: Folder, kind: Kind = None, unit: Unit = None, scale: Number = None, length: Text = None,
    camera_height: Number = None, up: Text = None, intrinsics: Text = None, max_frames: int = 120, licence: str = "unknown",
    config: Config = None, seed: Seed = None, quality: Size = None, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Make a world of a scan, a capture, a mesh, splats, or another generator's output.

    Args:
        source: A Lyra 2.0 run, a Marble export, nerfstudio, COLMAP, TUM or 7-Scenes folders, phone scans with depth, meshes
            (glb, gltf, obj, ply, stl, off, usd) or splats (ply, spz, splat, glb).
        output: The world's folder; made if missing.
        kind: What the files are, where they are not recognised.
        unit: Unit of the files.
        scale: Metres per unit of the files.
        length: MEASURED=TRUE: something that measures so many metres in the world made before is so many in truth, as 2.31=2.03.
        camera_height: Height of the cameras above the floor [m].
        up: Which way is up in the files: x, -x, y, -y, z, -z or three numbers X,Y,Z.
        intrinsics: FX,FY,CX,CY [px] for captures that do not say their camera.
        max_frames: Posed pictures used, chosen by motion and sharpness.
        licence: Licence of the files, carried into the world.
        config: YAML file with what differs from the defaults, or draft, standard, full.
        seed: Decides the episodes.
        quality: Sizes of pictures, textures and meshes.
        quiet: Print nothing but errors.
        as_json: Progress as one JSON object per line.
    """
    from lyra_core.imports.prepare import Given

    if unit is not None and scale is not None:
        raise ConfigError("--unit, --scale: got both, expected one of them")
    if scale is not None and not 0 < scale < float("inf"):
        raise ConfigError(f"--scale: got {scale}, expected a positive number of metres per unit")
    if camera_height is not None and not 0 < camera_height < 1000:
        raise ConfigError(f"--camera-height: got {camera_height}, expected metres above the floor")
    measured, true = (None, None) if length is None else _numbers("--length", length, "=", 2)
    given = Given(metres_per_unit=UNITS[unit] if unit else scale, measured=measured, true=true, camera_height=camera_height,
                  up=None if up is None else _direction(up))
    cfg = settings(config, {"seed": seed, "quality": quality})
    arguments: dict[str, Any] = {
        "path": source, "folder": output, "cfg": cfg, "given": given, "kind": kind, "licence": licence, "max_frames": max_frames,
        "intrinsics": None if intrinsics is None else tuple(_numbers("--intrinsics", intrinsics, ",", 4)),
    }
    world = run_job("lyra_core.imports.build:import_world", arguments, quiet, as_json)
    if not quiet and not as_json:
        said = world.manifest["scale"]
        print(f"Scale: 1 unit = {said['metres_per_unit']:.4g} m{'' if said['known'] else ' (a guess)'}. {said['said_by']}")
        if not said["known"]:
            print("  settle it   measure anything in the world and give --length MEASURED=TRUE, or --unit")
        for name, value in world.manifest["source"]["registration"].items():
            print(f"Registration: {name.removesuffix('_m').replace('_', ' ')}: median {1000 * value:.1f} mm")
    say_where(world, quiet, as_json)


def _numbers(name: str, text: str, separator: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(separator)]
    except ValueError:
        values = []
    if len(values) != count or not all(0 < abs(v) < float("inf") for v in values):
        raise ConfigError(f"{name}: got {text!r}, expected {count} numbers joined by {separator!r}")
    if name == "--length" and min(values) <= 0:
        raise ConfigError(f"{name}: got {text!r}, expected positive metres")
    return values


def _direction(text: str) -> Any:
    import numpy as np

    axis = text.removeprefix("+").removeprefix("-")
    if axis in ("x", "y", "z"):
        return np.eye(3)["xyz".index(axis)] * (-1.0 if text.startswith("-") else 1.0)
    try:
        values = np.array([float(part) for part in text.split(",")])
    except ValueError:
        values = np.zeros(0)
    if values.shape != (3,) or not np.isfinite(values).all() or not np.linalg.norm(values) > 0:
        raise ConfigError(f"--up: got {text!r}, expected x, -x, y, -y, z, -z or three numbers X,Y,Z")
    return values / np.linalg.norm(values)
