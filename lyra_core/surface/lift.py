"""Lift any posed depth frames to a textured, labelled mesh and colliders: the route for video models and scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.backends import resolve
from lyra_core.camera.se3 import inverse
from lyra_core.config import SurfaceCfg
from lyra_core.errors import InputError
from lyra_core.surface.atlas import make_atlas
from lyra_core.surface.gravity import FloorPlane, face_geometry, find_floor
from lyra_core.surface.labels import label_faces, part_faces
from lyra_core.surface.orient import orient_to_free_space
from lyra_core.surface.sanitize import sanitize
from lyra_core.surface.texture import Views, choose_views, paint
from lyra_core.surface.topology import drop_small_pieces, face_adjacency, simplify
from lyra_core.types import CollisionPart, Frame, Label, Provenance, SurfaceMesh


@dataclass(frozen=True)
class Lifted:
    """A world lifted from frames. Mesh and parts are in the aligned frame: z up, floor at z = 0."""

    mesh: SurfaceMesh
    parts: list[CollisionPart]
    T_world_aligned: np.ndarray
    """(4, 4) maps the aligned frame into the world frame that the frames' poses are given in."""
    notes: tuple[str, ...]
    """One plain sentence per guess or loss, for the report."""


def lift_frames(frames: list[Frame], *, cfg: SurfaceCfg, atlas_side: int = 2048, max_triangles: int = 200_000,
                min_area: float = 0.1, align: bool = True) -> Lifted:
    """Fuse frames and make of the surface what robots and people need.

    Args:
        frames: at least one with depth.
        cfg: fusion backend and voxel size [m].
        atlas_side: texture side [texel].
        max_triangles: coarser than the voxel if needed.
        min_area: separate pieces below this are dropped [m2].
        align: find gravity and the floor; False trusts the frames' world frame (z up, floor at 0).

    Raises:
        InputError: no frame has depth that gives a surface.
    """
    vertices, faces, colors, notes = _fused(frames, cfg, max_triangles, min_area)
    T_world_camera = np.stack([frame.T_world_camera for frame in frames])
    faces = orient_to_free_space(vertices, faces, T_world_camera[:, :3, 3])
    floor = find_floor(vertices, faces, T_world_camera) if align else FloorPlane(np.array([0.0, 0, 1]), 0.0, 0.0, 0.0, ())
    T_aligned_world = floor.T_aligned_world()
    aligned = vertices @ T_aligned_world[:3, :3].T + T_aligned_world[:3, 3]

    band = max(4 * floor.noise, 0.75 * cfg.voxel, 0.02)
    labels = label_faces(*face_geometry(aligned, faces), floor_band=band)
    aligned, snapped = _snapped(aligned, faces, labels, band)
    normals, areas, _ = face_geometry(aligned, faces)
    adjacency = face_adjacency(faces)
    part, names = part_faces(labels, areas, adjacency)
    views = choose_views(vertices, faces, frames, adjacency, tolerance=2 * cfg.voxel)
    atlas = make_atlas(aligned, faces, normals, areas, adjacency, side=atlas_side)
    texture = paint(atlas, vertices[atlas.vertex], colors[atlas.vertex], views, frames, tolerance=cfg.voxel)

    mesh = SurfaceMesh(aligned[atlas.vertex].astype(np.float32), atlas.faces, atlas.uv, texture, labels, views.provenance,
                       part, tuple(name for name, _ in names))
    notes += [*floor.notes, f"{snapped} floor vertices were moved onto the plane z = 0, by at most {band:.3f} m.", *_unseen(views)]
    return Lifted(mesh, _collision(aligned, faces, part, names, views), inverse(T_aligned_world), tuple(notes))


def _fused(frames: list[Frame], cfg: SurfaceCfg, max_triangles: int,
           min_area: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return a clean mesh (vertices, faces, colours) in the frames' world, and what was lost."""
    fusion = resolve("fusion", cfg.fusion)(cfg.voxel)
    for frame in frames:
        fusion.integrate(frame)
    fine, faces, colors = fusion.extract()
    if not len(faces):
        raise InputError(f"lift: {len(frames)} frames gave no surface; expected frames with depth in metres")
    notes = []
    faces, dropped = drop_small_pieces(fine, faces, min_area=min_area)
    if dropped:
        notes.append(f"{dropped} separate pieces below {min_area:g} m2 were dropped.")
    vertices, faces, cell = simplify(fine, faces, max_faces=max_triangles, cell=1.5 * cfg.voxel)
    if cell:
        notes.append(f"The surface was simplified to cells of {cell:.3f} m to stay below {max_triangles} triangles.")
    vertices, faces, _ = sanitize(vertices, faces)
    if len(fine) != len(vertices) or not np.array_equal(fine, vertices):
        from scipy.spatial import cKDTree

        colors = colors[cKDTree(fine).query(vertices)[1]]
    return vertices, faces, colors, notes


def _snapped(aligned: np.ndarray, faces: np.ndarray, labels: np.ndarray, band: float) -> tuple[np.ndarray, int]:
    """Put the floor's vertices on z = 0; noise of a few millimetres turns wheeled robots aside."""
    rows = np.unique(faces[labels == Label.FLOOR])
    rows = rows[np.abs(aligned[rows, 2]) < band]
    aligned = aligned.copy()
    aligned[rows, 2] = 0.0
    return aligned, len(rows)


def _collision(aligned: np.ndarray, faces: np.ndarray, part: np.ndarray, names: list[tuple[str, Label]],
               views: Views) -> list[CollisionPart]:
    """Cut the oriented shell into parts; a part's provenance is that of most of its faces."""
    out = []
    for i, (name, label) in enumerate(names):
        rows = part == i
        used, index = np.unique(faces[rows], return_inverse=True)
        majority = Provenance(int(np.argmax(np.bincount(views.provenance[rows]))))
        out.append(CollisionPart(name, label, "shell", aligned[used].astype(np.float32),
                                 index.reshape(-1, 3).astype(np.int32), majority))
    return out


def _unseen(views: Views) -> list[str]:
    share = float((views.best < 0).mean())
    if share <= 0.005:
        return []
    return [f"{100 * share:.1f} % of the triangles are coloured from the fused voxels: no frame shows them whole."]
