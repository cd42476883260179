"""What a camera sees, cut into named parts with normals: the same pieces for every mesh format."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg
from lyra_core.io.glb import to_y_up
from lyra_core.io.meshes import load_levels
from lyra_core.types import Label, SurfaceMesh
from lyra_core.world import World

MAX_PARTS = 1000
"""More parts than this (a scan of a forest) are joined by label."""
CREASE = np.cos(np.radians(40.0))
"""Faces that meet at a sharper angle than 40 degrees keep an edge between them."""
_MAX_PAIRS = 50_000_000


@dataclass(frozen=True)
class VisualPart:
    """One mesh of a file. World frame, Z up."""

    name: str
    """Letters, digits and underscores; unique."""
    label: Label
    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32, counter-clockwise seen from free space."""
    normals: np.ndarray
    """(V, 3) float32 unit vectors."""
    uv: np.ndarray
    """(V, 2) float32, (0, 0) = lower left; (0, 2) where there is no texture."""
    rgb: np.ndarray
    """(V, 3) uint8 sRGB; of the texture, or the coarser copy's own."""
    face_provenance: np.ndarray
    """(F,) uint8 of Provenance."""


def visual_parts(world: World, cfg: ExportCfg) -> list[VisualPart]:
    """Return the parts of the mesh that the options ask for, ordered by label.

    Raises:
        InputError: no faces, or a coarser copy that the world does not have.
    """
    if cfg.level != "full":
        return _coarse_parts(world, cfg.level)
    mesh = world.mesh
    if not len(mesh.faces):
        raise InputError(f"{world.folder / 'mesh.npz'}: got no faces, expected a mesh to export")
    source, faces, normals = creased(mesh.vertices, mesh.faces)
    rgb, out = sample_texture(mesh.texture, mesh.uv), []
    for name, label, rows in _groups(mesh):
        used, own = np.unique(faces[rows], return_inverse=True)
        at = source[used]
        out.append(VisualPart(name, label, mesh.vertices[at], own.reshape(-1, 3).astype(np.int32), normals[used], mesh.uv[at],
                              rgb[at], mesh.face_provenance[rows]))
    return out


def creased(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split vertices along creases.

    Args:
        vertices: (V, 3) [m].
        faces: (F, 3).

    Returns:
        the given vertex of each new one (N,) int64, faces (F, 3) int32 into the new ones, and their unit normals (N, 3) float32:
        the mean, by area, of the faces around the same place that look nearly the same way.
    """
    corners = vertices.astype(np.float64)[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(area, axis=1, keepdims=True)
    unit = np.divide(area, length, out=np.tile([0.0, 0.0, 1.0], (len(faces), 1)), where=length > 1e-14)
    _, place = np.unique(np.round(vertices.astype(np.float64) / 1e-6), axis=0, return_inverse=True)
    normal = _corner_normals(place.reshape(-1)[faces].reshape(-1), area, unit)
    key = np.concatenate([faces.reshape(-1, 1), np.rint(normal * 500).astype(np.int64)], 1)
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return faces.reshape(-1)[first], inverse.reshape(-1, 3).astype(np.int32), normal[first].astype(np.float32)


def _corner_normals(place: np.ndarray, area: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return (3 F, 3) unit normals of corners; place (3 F,) tells which corners are at the same point."""
    face = np.repeat(np.arange(len(area)), 3)
    order = np.argsort(place, kind="stable")
    count = np.bincount(place)
    if int((count.astype(np.int64) ** 2).sum()) > _MAX_PAIRS:
        return unit[face]
    start = np.cumsum(count) - count
    many = count[place[order]]
    left = np.repeat(order, many)
    right = order[np.repeat(start[place[order]], many) + np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)]
    near = (unit[face[left]] * unit[face[right]]).sum(1) >= CREASE
    left, right = left[near], right[near]
    total = np.stack([np.bincount(left, area[face[right], k], len(place)) for k in range(3)], 1)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=unit[face].copy(), where=length > 1e-14)


def sample_texture(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return (N, 3) uint8 colours at texture coordinates (N, 2), between the four nearest pixels."""
    h, w = texture.shape[:2]
    x = np.clip(uv[:, 0].astype(np.float64) * w - 0.5, 0, w - 1)
    y = np.clip((1.0 - uv[:, 1].astype(np.float64)) * h - 0.5, 0, h - 1)
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    upper = texture[y0, x0] * (1 - fx) + texture[y0, x1] * fx
    lower = texture[y1, x0] * (1 - fx) + texture[y1, x1] * fx
    return np.rint(upper * (1 - fy) + lower * fy).astype(np.uint8)


def fitted_texture(mesh: SurfaceMesh, longest: int) -> np.ndarray:
    """Return the texture, shrunk so that its longer side has at most ``longest`` pixels."""
    from lyra_core.io.images import resized

    h, w = mesh.texture.shape[:2]
    share = longest / max(h, w)
    if share >= 1:
        return mesh.texture
    return resized(mesh.texture, max(1, round(w * share)), max(1, round(h * share)))


def turned(points: np.ndarray, up: str) -> np.ndarray:
    """Turn (N, 3) points or directions of the world, Z up, into the file's axes."""
    return to_y_up(points) if up == "y" else points


def axes_text(up: str) -> str:
    """Return the axes in words, for a file's comments."""
    return "Y up, X as in the world, -Z = the world's Y" if up == "y" else "Z up, the world's own axes"


def plain_name(text: str, taken: set[str]) -> str:
    """Return letters, digits and underscores near ``text``, unique among ``taken`` (it is added)."""
    base = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "part"
    name, number = base, 1
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    taken.add(name)
    return name


def _groups(mesh: SurfaceMesh) -> list[tuple[str, Label, np.ndarray]]:
    """Return name, label and faces of each part."""
    key = mesh.face_label.astype(np.int64) << 32 | mesh.face_part.astype(np.int64)
    if len(np.unique(key)) > MAX_PARTS:
        key = mesh.face_label.astype(np.int64) << 32 | 0xFFFFFFFF
    order = np.argsort(key, kind="stable")
    values, start = np.unique(key[order], return_index=True)
    taken: set[str] = set()
    out = []
    for value, rows in zip(values, np.split(order, start[1:]), strict=True):
        label, part = Label(int(value >> 32)), int(value & 0xFFFFFFFF)
        known = part < len(mesh.part_names) and mesh.part_names[part]
        out.append((plain_name(mesh.part_names[part] if known else label.name.lower(), taken), label, rows))
    return out


def _coarse_parts(world: World, level: str) -> list[VisualPart]:
    path = world.folder / "mesh_levels.npz"
    found = load_levels(path) if path.is_file() else []
    known = [str(i) for i in range(len(found))]
    if level not in known:
        raise InputError(f"level: got {level!r}, expected one of {', '.join(['full', *known])}: that is what {world.folder} has")
    coarse, out = found[int(level)], []
    source, faces, normals = creased(coarse.vertices, coarse.faces)
    for label in np.unique(coarse.face_label):
        rows = np.flatnonzero(coarse.face_label == label)
        used, own = np.unique(faces[rows], return_inverse=True)
        at = source[used]
        out.append(VisualPart(Label(label).name.lower(), Label(label), coarse.vertices[at], own.reshape(-1, 3).astype(np.int32),
                              normals[used], np.zeros((0, 2), np.float32), coarse.vertex_rgb[at], coarse.face_provenance[rows]))
    return out
