"""The colours of a mesh as it was read, at any point near its surface."""

from __future__ import annotations

import numpy as np

from lyra_core.imports.base import MeshSource
from lyra_core.rays.surface import barycentric
from lyra_core.surface.distance import closest_points


def has_color(mesh: MeshSource) -> bool:
    """True if the file says any colour."""
    return mesh.vertex_rgb is not None or mesh.face_rgb is not None or bool(len(mesh.textures))


def color_at(mesh: MeshSource, vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the colours (N, 3) uint8 of a mesh that has some, at the surface points nearest to points (N, 3).

    Args:
        mesh: gives faces and colours.
        vertices: (V, 3) its vertices in the frame of the points, all finite where a face uses them.
    """
    good = np.asarray(np.isfinite(vertices).all(1))
    kept = np.flatnonzero(good[mesh.faces].all(1))
    near = closest_points(np.nan_to_num(vertices), mesh.faces[kept], points)
    face = kept[np.maximum(near.face, 0)]
    weight = barycentric(np.nan_to_num(vertices)[mesh.faces[face]], near.place)
    value = np.full((len(points), 3), 255.0)
    if mesh.face_rgb is not None:
        value = mesh.face_rgb[face].astype(float)
    if mesh.vertex_rgb is not None:
        value = value * np.einsum("nk,nkc->nc", weight, mesh.vertex_rgb[mesh.faces[face]].astype(float)) / 255
    if mesh.corner_uv is not None and mesh.face_texture is not None:
        uv = np.einsum("nk,nkc->nc", weight, mesh.corner_uv[face].astype(float))
        for index, picture in enumerate(mesh.textures):
            rows = mesh.face_texture[face] == index
            value[rows] = value[rows] * _sampled(picture, uv[rows]) / 255
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def _sampled(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Sample a repeating texture bilinearly at uv (N, 2); (0, 0) = lower left."""
    h, w = picture.shape[:2]
    uv = np.where(np.isfinite(uv), uv, 0.0)
    x, y = (uv[:, 0] % 1.0) * w - 0.5, (1 - uv[:, 1] % 1.0) * h - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    at = picture[y0 % h, x0 % w], picture[y0 % h, (x0 + 1) % w], picture[(y0 + 1) % h, x0 % w], picture[(y0 + 1) % h, (x0 + 1) % w]
    return (1 - fy) * ((1 - fx) * at[0] + fx * at[1]) + fy * ((1 - fx) * at[2] + fx * at[3])
