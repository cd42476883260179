"""Gaussians for geometry that came as triangles: flat discs spread over the textured surface."""

from __future__ import annotations

import numpy as np

from lyra_core.rays.surface import texels
from lyra_core.splats.from_frames import FLATNESS, OPACITY, SH_C0, quats_from_axes
from lyra_core.types import GaussianCloud, SurfaceMesh

OVERLAP = 0.6
"""Standard deviation of a disc over the mean distance between discs."""


def splats_from_mesh(mesh: SurfaceMesh, *, count: int, seed: int = 0) -> GaussianCloud:
    """Spread count discs evenly by area over a textured mesh, coloured by its texture."""
    rng = np.random.default_rng(seed)
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1) / 2
    ends = np.cumsum(area)
    # One disc per equal share of the area, jittered inside of it: even, without clumps.
    face = np.searchsorted(ends, (np.arange(count) + rng.random(count)) / count * ends[-1]).clip(0, len(area) - 1)
    a, b = rng.random((2, count))
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    weight = np.stack([1 - a - b, a, b], 1)
    means = np.einsum("nk,nkc->nc", weight, corners[face])
    rgb = texels(mesh, face, weight)
    normal = cross[face] / np.maximum(2 * area[face, None], 1e-18)
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal), 1)])
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-18)
    radius = OVERLAP * float(np.sqrt(ends[-1] / count))
    scales = np.tile(np.array([radius, radius, FLATNESS * radius], np.float32), (count, 1))
    quats = quats_from_axes(np.stack([side, np.cross(normal, side), normal], 2))
    sh = ((rgb / 255.0 - 0.5) / SH_C0).astype(np.float32)[:, None]
    opacities = np.full(count, OPACITY, np.float32)
    return GaussianCloud(means.astype(np.float32), quats, scales, opacities, sh, mesh.face_provenance[face])
