"""Point clouds of a world's surface: spread evenly by area, with normals, colours and labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.parts import axes_text, fitted_texture, sample_texture, turned, visual_parts
from lyra_core.io.ply import write_vertex_ply
from lyra_core.world import World

MAX_POINTS = 30_000_000
_PLASTIC = 1.32471795724474602596
"""Root of x^3 = x + 1: its powers give the most even sequence of points in two dimensions known (Roberts 2018, R2)."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points on a mesh. World frame, Z up."""

    xyz: np.ndarray
    """(N, 3) float64 [m]."""
    normal: np.ndarray
    """(N, 3) float32 unit vectors of the faces."""
    rgb: np.ndarray
    """(N, 3) uint8 sRGB."""
    label: np.ndarray
    """(N,) uint8 of Label."""
    provenance: np.ndarray
    """(N,) uint8 of Provenance."""


def surface_points(world: World, cfg: ExportCfg) -> SurfacePoints:
    """Sample the mesh; the same seed gives the same points.

    Raises:
        InputError: more points than memory holds, or none.
    """
    parts = visual_parts(world, cfg)
    texture = fitted_texture(world.mesh, cfg.max_texture) if cfg.level == "full" else None
    rng = np.random.default_rng(cfg.seed)
    area = np.concatenate([face_areas(part.vertices, part.faces) for part in parts])
    if area.sum() * cfg.points_per_m2 > MAX_POINTS:
        raise InputError(f"points_per_m2: got {cfg.points_per_m2} on {area.sum():.0f} m2, expected at most {MAX_POINTS} points")
    chosen, weights = even_samples(area, cfg.points_per_m2, rng)
    if not len(chosen):
        raise InputError(f"points_per_m2: got {cfg.points_per_m2} on {area.sum():.3g} m2, which is no point, expected one at least")
    start = np.cumsum([0] + [len(part.faces) for part in parts])
    pieces = []
    for part, low, high in zip(parts, start[:-1], start[1:], strict=True):
        rows = (chosen >= low) & (chosen < high)
        face, weight = part.faces[chosen[rows] - low], weights[rows][..., None]
        corners = part.vertices.astype(np.float64)[face]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        if texture is None:
            rgb = np.rint((part.rgb[face] * weight).sum(1)).astype(np.uint8)
        else:
            rgb = sample_texture(texture, (part.uv[face] * weight).sum(1))
        pieces.append(((corners * weight).sum(1), normal / np.linalg.norm(normal, axis=1, keepdims=True), rgb,
                       np.full(len(face), part.label, np.uint8), part.face_provenance[chosen[rows] - low]))
    xyz, normal, rgb, label, provenance = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return SurfacePoints(xyz, normal.astype(np.float32), rgb, label, provenance)


def face_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return (F,) areas [m2]."""
    corners = vertices.astype(np.float64)[faces]
    return np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2


def even_samples(area: np.ndarray, density: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the face (N,) and the corners' weights (N, 3) of points with ``density`` per unit of area.

    Points stand at equal steps along the running sum of the areas, so that every face gets its share to within one point; inside
    a face they follow Roberts' R2 sequence, folded into the triangle.
    """
    total = np.cumsum(area)
    count = round(float(total[-1]) * density)
    place = (np.arange(count) + rng.uniform()) / max(count, 1) * total[-1]
    face = np.minimum(np.searchsorted(total, place, side="right"), len(area) - 1)
    step = np.arange(count)[:, None] * np.array([1 / _PLASTIC, 1 / _PLASTIC**2])
    uv = (rng.uniform(size=2) + step) % 1.0
    uv = np.where(uv.sum(1, keepdims=True) > 1, 1 - uv, uv)
    return face, np.concatenate([1 - uv.sum(1, keepdims=True), uv], 1)


def write_points_ply(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write points with normal, colour, label and provenance as a binary PLY."""
    points = surface_points(world, cfg)
    names = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "label", "provenance")
    values = [*turned(points.xyz, cfg.up).astype(np.float32).T, *turned(points.normal, cfg.up).T, *points.rgb.T, points.label,
              points.provenance]
    columns: dict[str, np.ndarray] = dict(zip(names, values, strict=True))
    write_vertex_ply(folder / name, columns, comments=(
        about(world)["generator"], f"metres, right-handed, {axes_text(cfg.up)}", copyright_line(world)))
