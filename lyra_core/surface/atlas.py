"""Texture charts by plane: faces are projected along the axis they face and packed in one picture; no general unwrap."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_array

from lyra_core.errors import ConfigError
from lyra_core.surface.topology import face_pieces

PAD = 2
"""Empty texels around a chart, filled with its border's colour."""
MAX_DENSITY = 400.0
"""Texels per metre are not raised beyond this."""


@dataclass(frozen=True)
class Atlas:
    """Where each face lies in the texture."""

    vertex: np.ndarray
    """(W,) int64 old vertex of each new one: vertices are split between charts."""
    faces: np.ndarray
    """(F, 3) int32 into the new vertices, in the old faces' order."""
    pixels: np.ndarray
    """(W, 2) float32 column, row in the texture [texel], rows downwards."""
    side: int
    density: float
    """[texel / m]"""

    @property
    def uv(self) -> np.ndarray:
        """(W, 2) float32; (0, 0) = lower left."""
        return np.stack([self.pixels[:, 0] / self.side, 1 - self.pixels[:, 1] / self.side], 1).astype(np.float32)


def make_atlas(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, areas: np.ndarray, adjacency: csr_array, *,
               side: int) -> Atlas:
    """Lay out a mesh (z up) in a square texture.

    Raises:
        ConfigError: the texture is too small for the number of charts.
    """
    axes = _axes(normals, areas)
    axis = _facing(normals @ axes[:, 2].T, adjacency)
    chart = face_pieces(adjacency, axis)
    split, new = np.unique(np.stack([np.repeat(chart, 3), faces.reshape(-1)], 1).astype(np.int64), axis=0, return_inverse=True)
    owner, vertex = split[:, 0], split[:, 1]
    frame = axes[axis[np.unique(chart, return_index=True)[1]]]
    flat = np.einsum("nij,nj->ni", frame[owner][:, :2], vertices[vertex].astype(np.float64))
    low = np.full((len(frame), 2), np.inf)
    high = -low
    np.minimum.at(low, owner, flat)
    np.maximum.at(high, owner, flat)
    density, corner = _pack_at_best_density(high - low, side)
    pixels = (flat - low[owner]) * density + corner[owner] + PAD + 0.5
    return Atlas(vertex, new.reshape(-1, 3).astype(np.int32), pixels.astype(np.float32), side, density)


def rasterize(atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Return the face at each texel centre (side, side) int32, -1 = none, and its weights of the face's corners (.., 3) float32."""
    side, corners = atlas.side, atlas.pixels[atlas.faces].astype(np.float64)
    face_at, weight_at = np.full(side * side, -1, np.int32), np.zeros((side * side, 3), np.float32)
    low = np.clip(np.ceil(corners.min(1) - 0.5).astype(np.int64), 0, side)
    size = np.clip(np.floor(corners.max(1) - 0.5).astype(np.int64) + 1, 0, side) - low
    counts = np.maximum(size, 0).prod(1)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):  # chunks of about two million candidate texels
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + 2_000_000, "right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        index = np.arange(len(rows)) - np.repeat(ends[start:stop] - counts[start:stop] - before, counts[start:stop])
        x, y = low[rows, 0] + index % size[rows, 0], low[rows, 1] + index // size[rows, 0]
        a, b, c = corners[rows, 0], corners[rows, 1], corners[rows, 2]
        p = np.stack([x, y], 1) + 0.5
        area = _cross(b - a, c - a)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], 1) / area[:, None]
        inside = (weight >= -1e-6).all(1)
        at = (y * side + x)[inside]
        face_at[at], weight_at[at] = rows[inside], weight[inside]
        start = stop
    return face_at.reshape(side, side), weight_at.reshape(side, side, 3)


def spread_colors(texture: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Give texels that are not known (h, w) bool the colour of the nearest known one."""
    if known.all() or not known.any():
        return texture
    _, nearest = cv2.distanceTransformWithLabels((~known).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = nearest.astype(np.int64)
    table = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    table[nearest[known]] = texture[known]
    return table[nearest]


def _axes(normals: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return six right-handed frames (6, 3, 3), rows u, v, normal: the four walls' directions, up and down."""
    upright = areas * (np.abs(normals[:, 2]) < 0.3)
    turn = 4 * np.arctan2(normals[:, 1], normals[:, 0])
    yaw = np.round(np.arctan2((upright * np.sin(turn)).sum(), (upright * np.cos(turn)).sum()) / 4, 9)
    out = []
    for k in range(4):
        n = np.array([np.cos(yaw + k * np.pi / 2), np.sin(yaw + k * np.pi / 2), 0])
        out.append([[-n[1], n[0], 0], [0, 0, -1], n])  # rows of the picture run downwards
    x, y = np.array([np.cos(yaw), np.sin(yaw), 0]), np.array([-np.sin(yaw), np.cos(yaw), 0])
    return np.array([*out, [x, -y, [0, 0, 1]], [x, y, [0, 0, -1]]])


def _facing(cosine: np.ndarray, adjacency: csr_array) -> np.ndarray:
    """Choose an axis per face from cosine (F, 6), smoothed over neighbours so that charts stay large."""
    axis = np.argmax(cosine, 1)
    for _ in range(4):
        votes = np.stack([adjacency @ (axis == k).astype(np.float32) for k in range(cosine.shape[1])], 1)
        axis = np.argmax(np.where(cosine > 0.3, cosine + 0.35 * votes, cosine - 1), 1)
    return axis


def _pack_at_best_density(size: np.ndarray, side: int) -> tuple[float, np.ndarray]:
    """Return the largest density [texel / m] at which all charts fit, found by bisection, and their corners (C, 2)."""
    low, high, found = 0.0, MAX_DENSITY, _pack(size, 0.0, side)
    if found is None:
        raise ConfigError(f"texture: {len(size)} charts do not fit in {side} x {side} texels; expected a larger texture")
    if (best := _pack(size, high, side)) is not None:
        return high, best
    for _ in range(14):
        middle = (low + high) / 2
        if (tried := _pack(size, middle, side)) is None:
            high = middle
        else:
            low, found = middle, tried
    return low, found


def _pack(size: np.ndarray, density: float, side: int) -> np.ndarray | None:
    """Place rectangles on shelves, tallest first; None if they do not fit."""
    need = np.ceil(size * density).astype(np.int64) + 2 * PAD + 1
    if need.max() > side or need.prod(1).sum() > side * side:
        return None
    order = np.lexsort((np.arange(len(need)), -need[:, 0], -need[:, 1]))
    corner = np.zeros((len(need), 2), np.int64)
    x = y = 0
    shelf = int(need[order[0], 1])
    for i, (w, h) in zip(order.tolist(), need[order].tolist(), strict=True):
        if x + w > side:
            x, y, shelf = 0, y + shelf, h
        if y + shelf > side:
            return None
        corner[i] = x, y
        x += w
    return corner


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
