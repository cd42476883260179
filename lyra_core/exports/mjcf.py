"""A MuJoCo scene: what a camera sees as textured meshes, what a robot touches as boxes and convex hulls."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.camera.formats import load_trajectory
from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.boxes import Box, Hull
from lyra_core.exports.obj import obj_text
from lyra_core.exports.parts import fitted_texture, plain_name, visual_parts
from lyra_core.exports.pieces import convex_pieces
from lyra_core.exports.points import face_areas
from lyra_core.io.files import write_bytes
from lyra_core.io.images import write_image
from lyra_core.types import CollisionPart, FreeSpace, Label
from lyra_core.world import World

FRICTION = "0.8 0.005 0.0001"
"""Sliding, torsional [m], rolling [m]; the sliding one is that of the USD stage."""
FLAT_FLOOR = 0.01
"""Floors whose heights differ by no more become one plane [m]."""
SPECK = 1e-8
"""Visual parts of less area are left out [m2]; MuJoCo refuses them."""
EYE_HEIGHT = 1.5
"""Of the camera where no trajectory is kept [m]."""


def write_mjcf(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write scene.xml and meshes/: one .obj per visual part with one texture, group 2; colliders in group 3, which viewers hide.

    Level floor is one plane. Site ``spawn`` is the place with the most room around it, camera ``start`` the first frame's.

    Raises:
        InputError: the world has no colliders.
    """
    if not world.collision_parts:
        raise InputError(f"{world.folder / 'collision.glb'}: got no colliders, expected at least one")
    root = ET.Element("mujoco", model="world")
    root.append(ET.Comment(f" {about(world)['generator']}. {copyright_line(world)} ".replace("--", "- -")))
    ET.SubElement(root, "compiler", meshdir="meshes", texturedir="meshes", angle="radian")
    ET.SubElement(root, "option", timestep="0.002", gravity="0 0 -9.81")
    view = ET.SubElement(root, "visual")
    ET.SubElement(view, "headlight", ambient="0.5 0.5 0.5", diffuse="0.3 0.3 0.3", specular="0 0 0")
    ET.SubElement(view, "map", znear="0.005", zfar="10")
    _add_defaults(root)
    assets, body = ET.SubElement(root, "asset"), ET.SubElement(root, "worldbody")
    _add_visual(world, folder / "meshes", cfg, assets, body)
    _add_colliders(world.collision_parts, assets, body)
    _add_viewpoints(world, body)
    ET.indent(root)
    write_bytes(folder / "scene.xml", ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def floor_height(parts: list[CollisionPart]) -> float | None:
    """Return the height of the floor [m] if all of it is level and looks up, else None."""
    floors = [part for part in parts if part.label == Label.FLOOR and part.kind == "shell"]
    if not floors:
        return None
    height = np.concatenate([part.vertices[np.unique(part.faces), 2] for part in floors]).astype(np.float64)
    corners = np.concatenate([part.vertices[part.faces] for part in floors])
    upward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] >= 0
    level = float(np.median(height))
    return level if np.abs(height - level).max() <= FLAT_FLOOR and upward.all() else None


def spawn_point(space: FreeSpace) -> np.ndarray:
    """Return the floor point (3,) [m] with the most room around it."""
    room = np.where(space.free, space.clearance, -1.0)
    row, col = np.unravel_index(int(room.argmax()), room.shape)
    at = space.origin + (np.array([col, row]) + 0.5) * space.cell
    return np.array([*at, float(np.nan_to_num(space.height_at(at[None])[0]))])


def _add_defaults(root: ET.Element) -> None:
    defaults = ET.SubElement(root, "default")
    visual = ET.SubElement(defaults, "default", {"class": "world_visual"})
    ET.SubElement(visual, "geom", type="mesh", group="2", contype="0", conaffinity="0", material="world_atlas")
    solid = ET.SubElement(defaults, "default", {"class": "world_collision"})
    ET.SubElement(solid, "geom", group="3", contype="1", conaffinity="1", friction=FRICTION, rgba="0.2 0.7 0.4 0.4")


def _add_visual(world: World, folder: Path, cfg: ExportCfg, assets: ET.Element, body: ET.Element) -> None:
    write_image(folder / "world_atlas.png", fitted_texture(world.mesh, cfg.max_texture))
    ET.SubElement(assets, "texture", name="world_atlas", type="2d", file="world_atlas.png")
    ET.SubElement(assets, "material", name="world_atlas", texture="world_atlas", specular="0", shininess="0", emission="0.4")
    for part in visual_parts(world, cfg):
        if face_areas(part.vertices, part.faces).sum() < SPECK:
            continue
        # MuJoCo wants four vertices of every mesh; one that no face uses counts.
        spare = "v 0 0 0\n" * max(0, 4 - len(part.vertices))
        write_bytes(folder / f"{part.name}.obj", (obj_text(part, up="z") + spare).encode())
        # A floor encloses no volume; as a shell it has an inertia all the same.
        ET.SubElement(assets, "mesh", name=f"visual_{part.name}", file=f"{part.name}.obj", inertia="shell")
        ET.SubElement(body, "geom", {"class": "world_visual", "name": f"visual_{part.name}", "mesh": f"visual_{part.name}"})


def _add_colliders(parts: list[CollisionPart], assets: ET.Element, body: ET.Element) -> None:
    level = floor_height(parts)
    if level is not None:
        ET.SubElement(body, "geom", {"class": "world_collision", "name": "floor", "type": "plane", "size": "0 0 1",
                                     "pos": _text(0, 0, level)})
        parts = [part for part in parts if part.label != Label.FLOOR or part.kind != "shell"]
    taken = {"floor"}
    for part, pieces in convex_pieces(parts):
        name = plain_name(part.name, taken)
        solid = ET.SubElement(body, "body", name=f"collision_{name}")
        for number, piece in enumerate(pieces):
            _add_piece(piece, f"{name}_{number}", assets, solid)


def _add_piece(piece: Box | Hull, name: str, assets: ET.Element, body: ET.Element) -> None:
    shape = {"class": "world_collision", "name": f"collision_{name}"}
    if isinstance(piece, Box):
        w = np.roll(Rotation.from_matrix(piece.axes).as_quat(canonical=True), 1)
        turned = {} if abs(w[0]) > 1 - 1e-12 else {"quat": _text(*w, digits=9)}
        ET.SubElement(body, "geom", shape | {"type": "box", "pos": _text(*piece.center), "size": _text(*piece.half)} | turned)
        return
    vertices, _ = piece.mesh()
    ET.SubElement(assets, "mesh", name=f"collision_{name}", vertex=_text(*vertices.ravel()), inertia="convex")
    ET.SubElement(body, "geom", shape | {"type": "mesh", "mesh": f"collision_{name}"})


def _add_viewpoints(world: World, body: ET.Element) -> None:
    spawn = spawn_point(world.free_space)
    ET.SubElement(body, "light", name="world_light", pos=_text(spawn[0], spawn[1], spawn[2] + 2), dir="0 0 -1",
                  cutoff="90", exponent="0", castshadow="false", diffuse="0.3 0.3 0.3", specular="0 0 0")
    ET.SubElement(body, "site", name="spawn", pos=_text(*spawn), size="0.05", rgba="1 0.5 0 0.5", group="4")
    path = world.folder / "trajectory.npz"
    camera = {"name": "start", "pos": _text(spawn[0], spawn[1], spawn[2] + EYE_HEIGHT), "xyaxes": "0 -1 0 0 0 1", "fovy": "60"}
    if path.is_file():
        trajectory = load_trajectory(path, width=832, height=480)
        T, K = trajectory.T_world_camera[0], trajectory.K[0]
        degrees = np.degrees(2 * np.arctan2(trajectory.height / 2, K[1, 1]))
        camera |= {"pos": _text(*T[:3, 3]), "xyaxes": _text(*T[:3, 0], *-T[:3, 1], digits=9), "fovy": _text(float(degrees))}
    ET.SubElement(body, "camera", camera)


def _text(*values: float, digits: int = 6) -> str:
    return " ".join(f"{float(value) + 0.0:.{digits}f}".rstrip("0").rstrip(".") for value in values)
