"""The world's Gaussians in the axes and the format that other tools expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.camera.gaussians import transformed
from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg
from lyra_core.world import World

T_FILE_WORLD = {
    "z": np.eye(4),
    "y": np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
    "-y": np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
}
"""Axis that points up -> map of world points into the file. '-y' are a capture's axes: x right, y down, z where the photo looks."""


def write_splats_of_world(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write splats.ply as .ply, .compressed.ply, .spz or .glb; .glb is always Y up.

    Raises:
        InputError: the world has no splats, or .glb with other axes.
    """
    from lyra_core.splats.formats import write_splat_file
    from lyra_core.splats.ply import read_splats

    path = world.folder / "splats.ply"
    if not path.is_file():
        raise InputError(f"{path}: missing, expected the world's splats; this world was made without them")
    gltf = name.lower().endswith(".glb")
    write_splat_file(folder / name, transformed(read_splats(path), T_FILE_WORLD["y" if gltf else cfg.up]))
