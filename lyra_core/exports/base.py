"""Finished worlds in other tools' formats: the table of formats, and writing that leaves all of an export or nothing."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lyra_core.errors import InputError
from lyra_core.io.files import write_json
from lyra_core.world import World

MARK = "export.json"
"""In every folder that an export made: what it is of, and that it may be overwritten."""


@dataclass(frozen=True)
class ExportCfg:
    """Options of all formats; each format takes those that mean something to it."""

    level: str = "full"
    """'full' = the textured mesh; '0', '1' ... = that coarser copy of the world, with colours at the vertices."""
    up: str = "y"
    """Axis of the file that points up: 'y', 'z', or '-y' (splats: the axes of captures, x right, y down, z forward)."""
    with_colliders: bool = True
    collider_names: str = "nodes"
    """.glb: 'nodes' = one node collision/NAME per part; 'ucx' = convex pieces with the names that Unreal looks for."""
    max_texture: int = 4096
    """Longer side of the texture at most [px]."""
    points_per_m2: float = 400.0
    frame_stride: int = 1
    """Every so many frames."""
    seed: int = 0


@dataclass(frozen=True)
class Format:
    """One row of the table."""

    writer: str
    """module:function(world, folder, name, cfg), which writes into ``folder``; ``name`` is the file's, '' for a folder."""
    suffixes: tuple[str, ...]
    """Of the file; none = the export is a folder."""
    ups: tuple[str, ...]
    """Axes that it can have up; the first is the default."""
    opens: tuple[str, ...]
    """How to open it, one line per tool; {path} is what was written."""
    main: str = ""
    """Of a folder: the file that readers are given."""


FORMATS = {
    "glb": Format("lyra_core.exports.glb:write_glb", (".glb",), ("y",), (
        "Blender: File > Import > glTF 2.0; the colliders are below Collision: hide it, or export without",
        "Unreal: drag {name} into the content browser",
        "Unity: the package com.unity.cloud.gltfast, then drag it into Assets", "browser or headset: https://gltf-viewer.donmccurdy.com")),
    "obj": Format("lyra_core.exports.obj:write_obj", (".obj",), ("y", "z"), (
        "Blender: File > Import > Wavefront, forward and up as the file's first lines say", "MeshLab: meshlab {path}")),
    "ply": Format("lyra_core.exports.plain:write_ply_mesh", (".ply",), ("z", "y"), (
        "MeshLab: meshlab {path}", "Python: trimesh.load('{path}')")),
    "points": Format("lyra_core.exports.points:write_points_ply", (".ply",), ("z", "y"), (
        "CloudCompare: cloudcompare.CloudCompare -O {path}", "Python: open3d.io.read_point_cloud('{path}')")),
    "las": Format("lyra_core.exports.las:write_las", (".las",), ("z",), (
        "CloudCompare: cloudcompare.CloudCompare -O {path}", "QGIS: Layer > Add Point Cloud Layer",
        "Python: laspy.read('{path}')")),
    "stl": Format("lyra_core.exports.plain:write_stl", (".stl",), ("z", "y"), (
        "any CAD program or slicer, unit metre, colliders only",)),
    "usdz": Format("lyra_core.exports.usdz:write_usdz", (".usdz",), ("y", "z"), (
        "usdview {path}", "iPhone, iPad or Vision Pro: send the file and tap it", "Isaac Sim: File > Open")),
    "mjcf": Format("lyra_core.exports.mjcf:write_mjcf", (), ("z",), (
        "python -m mujoco.viewer --mjcf={path}/scene.xml",
        "Python: spec = mujoco.MjSpec.from_file('{path}/scene.xml'); spec.attach(robot, site='spawn', prefix='robot/')"),
        "scene.xml"),
    "nerfstudio": Format("lyra_core.exports.frames:write_nerfstudio", (), ("z",), (
        "ns-train splatfacto --data {path}", "ns-train depth-nerfacto --data {path}"),
        "transforms.json"),
    "colmap": Format("lyra_core.exports.frames:write_colmap", (), ("z",), (
        "COLMAP: File > Import model, {path}/sparse/0", "3D Gaussian splatting: train.py -s {path}"),
        "sparse/0/cameras.txt"),
    "ros": Format("lyra_core.exports.ros:write_ros", (), ("z",), (
        "ros2 run nav2_map_server map_server --ros-args -p yaml_filename:={path}/map.yaml",),
        "map.yaml"),
    "splats": Format("lyra_core.exports.splats:write_splats_of_world", (".spz", ".compressed.ply", ".ply", ".glb"),
                     ("-y", "y", "z"), ("SuperSplat: https://superspl.at/editor, then drag {name} into it",)),
}
"""Name -> what writes it. Where two share a suffix, the first takes it unless the name is given."""


def export_world(
    world: World | Path | str, path: Path | str, *, format: str | None = None, level: str = "full", up: str | None = None,
    with_colliders: bool = True, collider_names: str = "nodes", max_texture: int = 4096, points_per_m2: float = 400.0,
    frame_stride: int = 1, seed: int = 0, overwrite: bool = False,
) -> list[Path]:
    """Write a world in another tool's format and return what was written, the main file first.

    Args:
        world: an opened world or its folder.
        path: file, or folder for mjcf, nerfstudio, colmap and ros.
        format: a name of FORMATS; None = by the suffix (.ply is a mesh).
        level: 'full', or the number of one of the world's coarser copies.
        up: 'y', 'z' or '-y'; None = what the format's readers expect.
        with_colliders: put what a robot touches beside what a camera sees (.glb, .usdz).
        collider_names: .glb: 'nodes' or 'ucx' (convex pieces that Unreal takes as collision).
        max_texture: longer side of the texture at most [px].
        points_per_m2: point clouds: points per square metre of surface.
        frame_stride: nerfstudio, colmap: every so many frames.
        seed: decides which points.
        overwrite: replace what an earlier export wrote.

    Raises:
        InputError: an unknown format, a path that is taken, an option out of range, or a world that lacks what the format holds.
        WorldError: a world that is missing or damaged.
    """
    opened, path = world if isinstance(world, World) else World(world), Path(path)
    name = pick_format(path, format)
    row = FORMATS[name]
    cfg = ExportCfg(str(level), _pick_up(name, up), with_colliders, collider_names, max_texture, points_per_m2, frame_stride, seed)
    _check_options(name, cfg)
    _check_place(opened, path, row, overwrite)
    module, _, function = row.writer.partition(":")
    write = getattr(importlib.import_module(module), function)
    with _staging(path) as stage:
        write(opened, stage, path.name if row.suffixes else "", cfg)
        if not row.suffixes:
            write_json(stage / MARK, about(opened) | {"format": name})
        return _publish(stage, path, row, overwrite)


def pick_format(path: Path, name: str | None) -> str:
    """Return the format's name, by itself or by the path's suffix.

    Raises:
        InputError: no such format, or a suffix that it cannot have; the known ones are listed.
    """
    file = path.name.lower()
    if name is None:
        by_suffix = [(suffix, key) for key, row in FORMATS.items() for suffix in row.suffixes if file.endswith(suffix)]
        if not by_suffix:
            raise InputError(f"{path}: got suffix {path.suffix!r} and no format, expected a file that ends in {_suffixes()}, "
                             f"or one of the formats {', '.join(FORMATS)}")
        longest = max(len(suffix) for suffix, _ in by_suffix)
        return next(key for suffix, key in by_suffix if len(suffix) == longest)
    if name not in FORMATS:
        raise InputError(f"format: got {name!r}, expected one of {', '.join(FORMATS)}")
    suffixes = FORMATS[name].suffixes
    if suffixes and not file.endswith(suffixes):
        raise InputError(f"{path}: got suffix {path.suffix!r} for format {name}, expected {' or '.join(suffixes)}")
    if not suffixes and any(file.endswith(suffix) for row in FORMATS.values() for suffix in (*row.suffixes, ".xml")):
        raise InputError(f"{path}: got a file's name, expected a folder: format {name} is several files")
    return name


def about(world: World) -> dict[str, Any]:
    """Return what every export says of where it comes from and what may be done with it."""
    from lyra_core import __version__

    manifest = world.manifest
    facts = {key: manifest[key] for key in ("recipe_id", "content_hash", "scale_sigma") if key in manifest}
    licences = manifest.get("licences")
    return {"generator": f"lyra-worlds {__version__}", "licences": licences if isinstance(licences, dict) else {}, "unit": "metre",
            **facts}


def copyright_line(world: World, *, ascii_only: bool = True) -> str:
    """Return the licences as one line; other letters than ASCII become '?' for the formats that know no others."""
    pairs = about(world)["licences"].items()
    text = "; ".join(f"{key}: {' '.join(str(value).split())}" for key, value in sorted(pairs)) or "unknown"
    return f"Licences: {text}".encode("ascii" if ascii_only else "utf-8", "replace").decode("utf-8")


def how_to_open(name: str, path: Path) -> list[str]:
    """Return one line per tool that opens an export."""
    lines = FORMATS[name].opens
    if name == "splats" and path.name.lower().endswith(".glb"):
        lines = ("a viewer that knows KHR_gaussian_splatting",)
    return [line.replace("{path}", str(path)).replace("{name}", path.name) for line in lines]


def _suffixes() -> str:
    return ", ".join(dict.fromkeys(suffix for row in FORMATS.values() for suffix in row.suffixes))


def _pick_up(name: str, up: str | None) -> str:
    ups = FORMATS[name].ups
    if up is not None and up not in ups:
        raise InputError(f"up: got {up!r} for format {name}, expected {' or '.join(ups)}")
    return up or ups[0]


def _check_options(name: str, cfg: ExportCfg) -> None:
    limits = {"max_texture": (cfg.max_texture, 1, 16384), "points_per_m2": (cfg.points_per_m2, 1e-3, 1e6),
              "frame_stride": (cfg.frame_stride, 1, 1_000_000), "seed": (cfg.seed, 0, 2**63)}
    for key, (value, low, high) in limits.items():
        if not low <= value <= high:
            raise InputError(f"{key}: got {value}, expected {low} to {high}")
    if cfg.collider_names not in ("nodes", "ucx"):
        raise InputError(f"collider_names: got {cfg.collider_names!r}, expected nodes or ucx")
    if cfg.level != "full" and name not in ("glb", "ply", "points", "las"):
        raise InputError(f"level: got {cfg.level!r} for format {name}, expected full: the coarser copies have no texture")


def _check_place(world: World, path: Path, row: Format, overwrite: bool) -> None:
    inside = Path(os.path.abspath(path)).is_relative_to(Path(os.path.abspath(world.folder)))
    if inside and path.exists():
        raise InputError(f"{path}: is part of the world, expected a path of its own")
    if row.suffixes and path.is_dir():
        raise InputError(f"{path}: got a folder, expected a file to write")
    if row.suffixes and path.exists() and not overwrite:
        raise InputError(f"{path}: the file exists, expected a new one, or overwrite")
    if row.suffixes or not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path}: got a file, expected a folder to write")
    if any(path.iterdir()) and not overwrite:
        raise InputError(f"{path}: the folder is not empty, expected a new or empty one, or overwrite")
    if any(path.iterdir()) and not (path / MARK).is_file():
        raise InputError(f"{path}: the folder holds other things than an export (no {MARK}), expected a new or empty one")


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside the target, gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = path.with_name(f".tmp-{os.getpid()}-{path.name}.export")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, path: Path, row: Format, overwrite: bool) -> list[Path]:
    """Rename what was staged to where it belongs; the main file last, so that it never names files that are not there."""
    files = sorted(file.relative_to(stage) for file in stage.rglob("*") if file.is_file())
    if row.suffixes:
        beside = [path.with_name(file.name) for file in files if file.name != path.name]
        taken = [target for target in beside if target.exists() and not overwrite]
        if taken:
            raise InputError(f"{taken[0]}: the file exists, expected a new one, or overwrite")
        for target in (*beside, path):
            os.replace(stage / target.name, target)
        return [path, *beside]
    old = path.with_name(f".tmp-{os.getpid()}-{path.name}.old")
    if path.exists():
        os.replace(path, old)
    os.replace(stage, path)
    shutil.rmtree(old, ignore_errors=True)
    order = sorted(files, key=lambda file: (file.as_posix() != row.main, len(file.parts), file.as_posix()))
    return [path / file for file in order]
