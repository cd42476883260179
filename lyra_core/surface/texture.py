"""Colours and provenance of a mesh from the frames that see it best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import csr_array

from lyra_core.camera.se3 import inverse
from lyra_core.surface.atlas import Atlas, rasterize, spread_colors
from lyra_core.surface.gravity import face_geometry
from lyra_core.types import Frame, Provenance


@dataclass(frozen=True)
class Views:
    """Which frame shows each face best."""

    best: np.ndarray
    """(F,) int32 frame, -1 = none shows the whole face."""
    provenance: np.ndarray
    """(F,) uint8 of Provenance: the surest one that a frame states."""


def choose_views(vertices: np.ndarray, faces: np.ndarray, frames: Sequence[Frame], adjacency: csr_array, *,
                 tolerance: float) -> Views:
    """Score frames per face by viewing angle, nearness and sharpness; neighbours pull towards one frame.

    vertices are in the frames' world. A face is shown if its corners' depths agree within tolerance [m] + 1 % of z.
    """
    normals, _, centers = face_geometry(vertices, faces)
    sharp = _sharpness(frames)
    score = np.zeros((len(faces), len(frames)), np.float32)
    stated = [int(frame.provenance[frame.provenance != 255].max(initial=0)) for frame in frames]
    provenance = np.full(len(faces), max(stated, default=int(Provenance.INVENTED)), np.uint8)
    for k, frame in enumerate(frames):
        u, v, z = project(vertices, frame)
        agree = agrees(frame, u, v, z, tolerance)[faces].all(1)
        to_eye = frame.T_world_camera[:3, 3] - centers
        distance = np.linalg.norm(to_eye, axis=1)
        cosine = (normals * to_eye).sum(1) / np.maximum(distance, 1e-6)
        score[:, k] = np.where(agree & (cosine > 0.1), sharp[k] * cosine / np.maximum(distance, 0.3) ** 2, 0)
        u, v, z = project(centers, frame)
        rows = np.flatnonzero(agrees(frame, u, v, z, tolerance) & (cosine > 0))
        provenance[rows] = np.minimum(provenance[rows], frame.provenance[v[rows].astype(int), u[rows].astype(int)])
    best = np.argmax(score, 1)
    for _ in range(3):
        chosen = csr_array((np.ones(len(best), np.float32), (np.arange(len(best)), best)), score.shape)
        best = np.argmax(score * (1 + 0.4 * (adjacency @ chosen).toarray()), 1)
    return Views(np.where(score.max(1, initial=0) > 0, best, -1).astype(np.int32), provenance)


def paint(atlas: Atlas, vertices: np.ndarray, colors: np.ndarray, views: Views, frames: Sequence[Frame], *, tolerance: float,
          corrections: np.ndarray | None = None) -> np.ndarray:
    """Return the texture (side, side, 3) uint8: each texel from its face's frame, else from the vertices' fused colours.

    vertices (W, 3) in the frames' world and colors (W, 3) uint8 belong to the atlas' split vertices; corrections (F, 3, 3) are
    added at the faces' corners to what their frames show.
    """
    face_at, weight_at = rasterize(atlas)
    texture = np.zeros((*face_at.shape, 3), np.uint8)
    known = face_at >= 0
    face, weight = face_at[known], weight_at[known]
    corners = atlas.faces[face]
    painted = np.rint(_mixed(weight, colors, corners)).clip(0, 255).astype(np.uint8)
    frame_of = views.best[face]
    order = np.argsort(frame_of, kind="stable")
    bounds = np.searchsorted(frame_of[order], np.arange(len(frames) + 1))
    for k, frame in enumerate(frames):
        rows = order[bounds[k]:bounds[k + 1]]
        if not len(rows):
            continue
        u, v, z = project(_mixed(weight[rows], vertices, corners[rows]), frame)
        good = agrees(frame, u, v, z, tolerance)
        rows = rows[good]
        shown = sample_color(frame.rgb, u[good], v[good]).astype(np.float32)
        if corrections is not None:
            shown += np.einsum("nk,nkc->nc", weight[rows], corrections[face[rows]])
        painted[rows] = np.clip(np.rint(shown), 0, 255)
    texture[known] = painted
    return spread_colors(texture, known)


def _mixed(weight: np.ndarray, values: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Interpolate vertex values (W, C) with weights (N, 3) at corners (N, 3); one corner at a time keeps the memory small."""
    return weight[:, :1] * values[corners[:, 0]] + weight[:, 1:2] * values[corners[:, 1]] + weight[:, 2:] * values[corners[:, 2]]


def project(points: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return column, row [px] and z-depth [m] of world points (N, 3), float32; behind the camera column and row are -1."""
    T = inverse(frame.T_world_camera)
    local = points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    z = local[:, 2]
    front = z > 0.01
    safe = np.where(front, z, 1.0)
    u = np.where(front, local[:, 0] / safe * frame.camera.K[0, 0] + frame.camera.K[0, 2], -1)
    v = np.where(front, local[:, 1] / safe * frame.camera.K[1, 1] + frame.camera.K[1, 2], -1)
    return u.astype(np.float32), v.astype(np.float32), z.astype(np.float32)


def agrees(frame: Frame, u: np.ndarray, v: np.ndarray, z: np.ndarray, tolerance: float) -> np.ndarray:
    """Return which projected points lie in the picture on the surface it shows."""
    inside = (u >= 0) & (v >= 0) & (u < frame.camera.width) & (v < frame.camera.height)
    depth = frame.depth[np.where(inside, v, 0).astype(int), np.where(inside, u, 0).astype(int)]
    with np.errstate(invalid="ignore"):
        return inside & (np.abs(depth - z) < tolerance + 0.01 * z)


def sample_color(rgb: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Sample a picture bilinearly at pixel positions (N,); returns (N, 3) uint8."""
    width = 4096  # the remapping function is limited to 32767 columns and rows
    pad = -len(u) % width
    x, y = (np.pad(a - np.float32(0.5), (0, pad)).reshape(-1, width) for a in (u, v))
    return cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 3)[:len(u)]


def _sharpness(frames: Sequence[Frame]) -> np.ndarray:
    """Return the relative sharpness of each frame, mean absolute Laplacian over the median frame's, within 1/4 .. 4."""
    grey = [cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2GRAY) for frame in frames]
    raw = np.array([np.abs(cv2.Laplacian(picture, cv2.CV_32F)).mean(dtype=np.float64) for picture in grey])
    return np.clip(raw / max(float(np.median(raw)), 1e-6), 0.25, 4.0).astype(np.float32)
