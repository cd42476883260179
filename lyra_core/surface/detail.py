"""Levels of detail for sensors: coarser copies of a mesh, each with the error of the depth that it gives."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.rays.base import RayTracer
from lyra_core.rays.surface import barycentric, texels
from lyra_core.surface.distance import closest_points
from lyra_core.surface.sanitize import sanitize
from lyra_core.surface.simplify import collapsed
from lyra_core.types import Camera, DetailLevel, SurfaceMesh

TARGETS = (200_000, 50_000, 15_000)
"""Triangles of the levels; those not below the full mesh's are left out."""
POSES = 48
"""Cameras from which a level's depth is compared with the full mesh's."""
CAMERA = Camera.from_focal(64.0, 128, 96)


def make_levels(mesh: SurfaceMesh, eyes: np.ndarray, *, targets: tuple[int, ...] = TARGETS, seed: int = 0) -> list[DetailLevel]:
    """Simplify a mesh to each target number of triangles.

    Args:
        mesh: z up [m].
        eyes: (M, 3) places in free space [m] from which depth is compared; all directions are looked in.
        targets: numbers of triangles, falling.
        seed: of the choice of cameras.
    """
    vertices, faces, _ = sanitize(mesh.vertices, mesh.faces, weld=1e-5)
    full = make_ray_tracer(mesh.vertices, mesh.faces)
    rng = np.random.default_rng(seed)
    poses = []
    if len(eyes):
        for eye in np.asarray(eyes, float)[rng.integers(0, len(eyes), POSES)]:
            poses.append(from_yaw_pitch(eye + [0, 0, rng.uniform(-0.2, 0.6)], rng.uniform(-np.pi, np.pi), rng.uniform(-0.4, 0.2)))
    out, last = [], len(mesh.faces)
    for target in sorted(targets, reverse=True):
        if target >= last:
            continue
        simple = collapsed(vertices, faces, target)
        few, kept, _ = sanitize(simple.vertices, simple.faces)
        if not len(kept):
            continue
        near = closest_points(mesh.vertices, mesh.faces, few[kept].mean(1))
        median, high = _depth_error(full, few, kept, poses)
        label, provenance = mesh.face_label[near.face], mesh.face_provenance[near.face]
        out.append(DetailLevel(few, kept, _colors(mesh, few), label, provenance, median, high))
        last = len(kept)
    return out


def _colors(mesh: SurfaceMesh, points: np.ndarray) -> np.ndarray:
    """Return the texture's colours (N, 3) uint8 nearest to points (N, 3)."""
    near = closest_points(mesh.vertices, mesh.faces, points)
    return texels(mesh, near.face, barycentric(mesh.vertices[mesh.faces[near.face]].astype(float), near.place))


def _depth_error(full: RayTracer, vertices: np.ndarray, faces: np.ndarray, poses: list[np.ndarray]) -> tuple[float, float]:
    """Return median and 99th percentile of |depth difference| over the pixels where both meshes show something."""
    coarse = make_ray_tracer(vertices, faces)
    with np.errstate(invalid="ignore"):  # where neither shows anything
        gaps = [np.abs(cast_camera(full, CAMERA, pose).t - cast_camera(coarse, CAMERA, pose).t) for pose in poses]
    gaps = np.concatenate(gaps) if gaps else np.zeros(0)
    gaps = gaps[np.isfinite(gaps)]
    return (float(np.median(gaps)), float(np.percentile(gaps, 99))) if len(gaps) else (0.0, 0.0)
