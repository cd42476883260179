"""Colours of a textured mesh at points of its faces."""

from __future__ import annotations

import numpy as np

from lyra_core.types import SurfaceMesh


def barycentric(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return weights (N, 3) of the corners (N, 3, 3) of triangles for points in their planes (Ericson 2005, 3.4)."""
    a, b, p = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    aa, ab, bb = (a * a).sum(1), (a * b).sum(1), (b * b).sum(1)
    pa, pb = (p * a).sum(1), (p * b).sum(1)
    area = np.maximum(aa * bb - ab * ab, 1e-30)
    v, w = (bb * pa - ab * pb) / area, (aa * pb - ab * pa) / area
    weight = np.clip(np.stack([1 - v - w, v, w], 1), 0, 1)
    return weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)


def texels(mesh: SurfaceMesh, face: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the nearest texels (N, 3) uint8 at points given by face (N,) and weights of its corners (N, 3)."""
    uv = np.einsum("nk,nkc->nc", weight, mesh.uv[mesh.faces[face]])
    height, width = mesh.texture.shape[:2]
    row, column = np.clip((1 - uv[:, 1]) * height, 0, height - 1), np.clip(uv[:, 0] * width, 0, width - 1)
    return mesh.texture[row.astype(int), column.astype(int)]
