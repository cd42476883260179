"""Lift any posed depth frames to a textured, labelled mesh and colliders: the route for video models and scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from lyra_core.backends import resolve
from lyra_core.camera.se3 import inverse
from lyra_core.config import SurfaceCfg
from lyra_core.errors import ConfigError, InputError
from lyra_core.surface.agreement import without_contradictions
from lyra_core.surface.atlas import Atlas, make_atlas, rasterize, spread_colors
from lyra_core.surface.base import fuse
from lyra_core.surface.color_match import exposed, exposure_gains, seam_corrections
from lyra_core.surface.gravity import FloorPlane, face_geometry, find_floor
from lyra_core.surface.labels import label_faces, part_faces
from lyra_core.surface.orient import orient_to_free_space
from lyra_core.surface.sanitize import sanitize
from lyra_core.surface.simplify import simplify
from lyra_core.surface.texture import Views, choose_views, paint
from lyra_core.surface.topology import SMALLEST_PIECE, drop_small_pieces, face_adjacency
from lyra_core.types import CollisionPart, Frame, Label, Provenance, SurfaceMesh

TINTS = {Label.FLOOR: (176, 160, 140), Label.WALL: (214, 212, 206), Label.CEILING: (232, 232, 230), Label.OBSTACLE: (132, 152, 172)}
"""sRGB of surfaces that came without colours."""


@dataclass(frozen=True)
class Lifted:
    """A world lifted from frames. Mesh and parts are in the aligned frame: z up, floor at z = 0."""

    mesh: SurfaceMesh
    parts: list[CollisionPart]
    T_world_aligned: np.ndarray
    """(4, 4) maps the aligned frame into the world frame that the frames' poses are given in."""
    notes: tuple[str, ...]
    """One plain sentence per guess or loss, for the report."""


@dataclass(frozen=True)
class FusedSurface:
    """A clean mesh in the frames' world, wound towards free space."""

    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    colors: np.ndarray
    """(V, 3) uint8."""
    notes: tuple[str, ...]
    continued: np.ndarray | None = None
    """(F,) bool: faces that no frame saw and that continue those around them; None = none."""


def lift_frames(frames: Sequence[Frame], *, cfg: SurfaceCfg, atlas_side: int = 2048, max_triangles: int = 200_000,
                min_area: float = SMALLEST_PIECE, align: bool = True) -> Lifted:
    """Fuse frames and make of the surface what robots and people need.

    Args:
        frames: at least one with depth.
        cfg: fusion backend and voxel size [m].
        atlas_side: texture side [texel].
        max_triangles: simplified to this even where the error allows no fewer.
        min_area: separate pieces below this are dropped [m2].
        align: find gravity and the floor; False trusts the frames' world frame (z up, floor at 0).

    Raises:
        InputError: no frame has depth that gives a surface.
    """
    surface = fused_surface(frames, cfg=cfg, max_triangles=max_triangles, min_area=min_area)
    return finish_surface(surface, frames, tolerance=cfg.voxel, atlas_side=atlas_side, align=align)


def fused_surface(frames: Sequence[Frame], *, cfg: SurfaceCfg, max_triangles: int, min_area: float) -> FusedSurface:
    """Fuse frames, drop what contradicts the others and what floats, and simplify within a fifth of the voxel."""
    usable, dropped = without_contradictions(frames)
    T_world_camera = np.stack([frame.T_world_camera for frame in frames])
    fusion = resolve("fusion", cfg.fusion)(cfg.voxel, eyes=T_world_camera[:, :3, 3])
    fuse(fusion, usable)
    fine, faces, colors = fusion.extract()
    if not len(faces):
        raise InputError(f"lift: {len(frames)} frames gave no surface; expected frames with depth in metres")
    notes = []
    if dropped > 0.001:
        notes.append(f"{100 * dropped:.1f} % of the depth pixels contradict other frames and were left out.")
    faces, pieces = drop_small_pieces(fine, faces, min_area=min_area)
    if pieces:
        notes.append(f"{pieces} separate pieces below {min_area:g} m2 were dropped.")
    simple = simplify(fine, faces, max_faces=max_triangles, tolerance=cfg.voxel / 5)
    if simple.error:
        notes.append(f"Simplified from {len(faces)} to {len(simple.faces)} triangles; 99.9 % of the surface moved by less than "
                     f"{1000 * simple.error:.1f} mm.")
    vertices, faces, _ = sanitize(simple.vertices, simple.faces)
    colors = colors[cKDTree(fine).query(vertices)[1]]
    return FusedSurface(vertices, orient_to_free_space(vertices, faces, T_world_camera[:, :3, 3]), colors, tuple(notes))


def finish_surface(surface: FusedSurface, frames: Sequence[Frame], *, tolerance: float, atlas_side: int, align: bool,
                   floor: FloorPlane | None = None) -> Lifted:
    """Turn a surface upright, level its floor, name its parts and paint it from the frames.

    Args:
        surface, frames: of one world; the frames' depth says what they see of it.
        tolerance: depth by which a frame may miss the surface it is said to see [m].
        atlas_side: texture side [texel].
        align: find gravity and the floor; False trusts the world frame.
        floor: known gravity and floor, in place of those found.
    """
    vertices, faces = surface.vertices, surface.faces
    if floor is None:
        poses = np.stack([frame.T_world_camera for frame in frames])
        floor = find_floor(vertices, faces, poses) if align else FloorPlane(np.array([0.0, 0, 1]), 0.0, 0.0, 0.0, ())
    T_aligned_world = floor.T_aligned_world()
    named = _named(vertices @ T_aligned_world[:3, :3].T + T_aligned_world[:3, 3], faces, floor.noise, tolerance)

    gains = exposure_gains(vertices, frames, tolerance=2 * tolerance)
    frames = [exposed(frame, gain) for frame, gain in zip(frames, gains, strict=True)]
    views = choose_views(vertices, faces, frames, named.adjacency, tolerance=2 * tolerance)
    if surface.continued is not None:
        views = Views(np.where(surface.continued, -1, views.best).astype(np.int32),
                      np.where(surface.continued, Provenance.CONTINUED, views.provenance).astype(np.uint8))
    corrections = seam_corrections(vertices, faces, views.best, frames)
    atlas = named.atlas(atlas_side)
    texture = paint(atlas, vertices[atlas.vertex], surface.colors[atlas.vertex], views, frames, tolerance=tolerance,
                    corrections=corrections)
    notes = (*surface.notes, *floor.notes, named.note, *_unseen(views))
    return named.lifted(atlas, texture, views.provenance, inverse(T_aligned_world), notes)


def finish_mesh(vertices: np.ndarray, faces: np.ndarray, color_at: Callable[[np.ndarray], np.ndarray] | None, *, noise: float = 0.0,
                tolerance: float = 0.02, atlas_side: int, notes: tuple[str, ...] = ()) -> Lifted:
    """Name the parts of a mesh that is upright, level and wound towards free space, and bake its colours into one texture.

    Args:
        vertices, faces: (V, 3) [m], z up, floor at 0, welded; (F, 3).
        color_at: maps surface points (N, 3) [m] to colours (N, 3) uint8; None = tints by label.
        noise: standard deviation of the floor about its plane [m].
        tolerance: smallest height that counts as a step in the floor [m].
        atlas_side: texture side [texel].
        notes: sentences to keep.
    """
    named = _named(np.asarray(vertices, float), faces, noise, tolerance)
    atlas = named.atlas(atlas_side)
    face_at, weight = rasterize(atlas)
    known = face_at >= 0
    texture = np.zeros((*face_at.shape, 3), np.uint8)
    if color_at is None:
        texture[known] = named.tints()[face_at[known]]
    else:
        corners = vertices[atlas.vertex][atlas.faces[face_at[known]]]
        texture[known] = color_at(np.einsum("nk,nkc->nc", weight[known], corners))
    seen = np.full(len(faces), Provenance.SEEN, np.uint8)
    return named.lifted(atlas, spread_colors(texture, known), seen, np.eye(4), (*notes, named.note))


@dataclass(frozen=True)
class _Named:
    """A mesh in the aligned frame with its parts."""

    vertices: np.ndarray
    faces: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    names: list[tuple[str, Label]]
    adjacency: csr_array
    note: str

    def tints(self) -> np.ndarray:
        """Return a colour per face (F, 3) uint8: by label, lighter where it looks up or to one side, as clay in daylight."""
        normals, _, _ = face_geometry(self.vertices, self.faces)
        light = 0.8 + 0.2 * normals @ np.array([0.36, 0.48, 0.8])
        base = np.array([TINTS.get(Label(label), TINTS[Label.OBSTACLE]) for label in range(max(Label) + 1)], float)
        return np.clip(np.rint(base[self.labels] * light[:, None]), 0, 255).astype(np.uint8)

    def atlas(self, side: int) -> Atlas:
        """Lay the mesh out in a texture; twice as large a one where there are too many charts."""
        normals, areas, _ = face_geometry(self.vertices, self.faces)
        for _ in range(2):
            try:
                return make_atlas(self.vertices, self.faces, normals, areas, self.adjacency, side=side)
            except ConfigError:
                side *= 2
        return make_atlas(self.vertices, self.faces, normals, areas, self.adjacency, side=side)

    def lifted(self, atlas: Atlas, texture: np.ndarray, provenance: np.ndarray, T_world_aligned: np.ndarray,
               notes: tuple[str, ...]) -> Lifted:
        """Join all into the result."""
        mesh = SurfaceMesh(self.vertices[atlas.vertex].astype(np.float32), atlas.faces, atlas.uv, texture, self.labels, provenance,
                           self.part, tuple(name for name, _ in self.names))
        parts = collision_parts(self.vertices, self.faces, self.part, self.names, provenance)
        return Lifted(mesh, parts, T_world_aligned, notes)


def _named(aligned: np.ndarray, faces: np.ndarray, noise: float, tolerance: float) -> _Named:
    """Label faces, level the floor, and cut the mesh into parts."""
    band = max(4 * noise, 0.75 * tolerance, 0.02)
    labels = label_faces(*face_geometry(aligned, faces), floor_band=band)
    aligned, snapped = _snapped(aligned, faces, labels, band)
    adjacency = face_adjacency(faces)
    part, names = part_faces(labels, face_geometry(aligned, faces)[1], adjacency)
    note = f"{snapped} floor vertices were moved onto the plane z = 0, by at most {band:.3f} m."
    return _Named(aligned, faces, labels, part, names, adjacency, note)


def _snapped(aligned: np.ndarray, faces: np.ndarray, labels: np.ndarray, band: float) -> tuple[np.ndarray, int]:
    """Put the floor's vertices on z = 0; noise of a few millimetres turns wheeled robots aside."""
    rows = np.unique(faces[labels == Label.FLOOR])
    rows = rows[np.abs(aligned[rows, 2]) < band]
    aligned = aligned.copy()
    aligned[rows, 2] = 0.0
    return aligned, len(rows)


def collision_parts(aligned: np.ndarray, faces: np.ndarray, part: np.ndarray, names: list[tuple[str, Label]],
                    provenance: np.ndarray) -> list[CollisionPart]:
    """Cut the oriented shell into parts; a part's provenance is that of most of its faces."""
    out = []
    for i, (name, label) in enumerate(names):
        rows = part == i
        used, index = np.unique(faces[rows], return_inverse=True)
        majority = Provenance(int(np.argmax(np.bincount(provenance[rows]))))
        out.append(CollisionPart(name, label, "shell", aligned[used].astype(np.float32),
                                 index.reshape(-1, 3).astype(np.int32), majority))
    return out


def _unseen(views: Views) -> list[str]:
    share = float((views.best < 0).mean())
    if share <= 0.005:
        return []
    return [f"{100 * share:.1f} % of the triangles are coloured from the fused voxels: no frame shows them whole."]
