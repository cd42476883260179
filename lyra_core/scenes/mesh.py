"""Triangles of a scene: for shadow rays, collision tests and meshes to compare with. Boxes are exact, round solids inscribed."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes.intersect import rotate
from lyra_core.scenes.scene import Kind, Scene


def scene_mesh(scene: Scene, *, segments: int = 32, solids: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (V, 3) float32 [m], faces (F, 3) int32 wound outwards, and the solid of each face (F,) int32."""
    vertices, faces, owner, start = [], [], [], 0
    for i in range(len(scene)) if solids is None else solids:
        v, f = _TESSELLATE[scene.kind[i]](scene.size[i], scene.extra[i], segments)
        T = scene.T_world_local[i]
        vertices.append(rotate(T[:3, :3], v) + T[:3, 3])
        faces.append(f + start)
        owner.append(np.full(len(f), i, np.int32))
        start += len(v)
    return np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32), np.concatenate(owner)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    i = np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)
    a, b, c, d = i, i + 1, i + columns + 1, i + columns
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def _box(half: np.ndarray, r: float, segments: int) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces, start = [], [], 0
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        lines = [_lines(half[k], r, segments) for k in (u, v)]
        for sign in (-1, 1):
            p = np.empty((len(lines[1]), len(lines[0]), 3))
            p[..., axis], p[..., u], p[..., v] = sign * half[axis], lines[0], lines[1][:, None]
            f = _grid_faces(len(lines[1]), len(lines[0]))
            faces.append((f if sign > 0 else f[:, ::-1]) + start)
            vertices.append(p.reshape(-1, 3))
            start += p.shape[0] * p.shape[1]
    p = np.concatenate(vertices)
    if r > 0:
        core = np.clip(p, r - half, half - r)
        away = p - core
        p = core + r * away / np.linalg.norm(away, axis=1, keepdims=True)
    return p, np.concatenate(faces)


def _lines(half: float, r: float, segments: int) -> np.ndarray:
    """Return grid coordinates: tan-spaced where the edge is rounded, so that the projected arcs have equal steps."""
    if r <= 0:
        return np.array([-half, half])
    corner = r * np.tan(np.linspace(0, np.pi / 4, max(2, segments // 8 + 1)))
    side = np.concatenate([-(half - r + corner)[::-1], half - r + corner])
    return np.unique(np.round(side, 12))


def _ellipsoid(radii: np.ndarray, _: float, segments: int) -> tuple[np.ndarray, np.ndarray]:
    theta, phi = np.linspace(0, np.pi, segments // 2 + 1)[:, None], np.linspace(0, 2 * np.pi, segments + 1)
    p = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta) * np.ones_like(phi)], -1)
    return (p * radii).reshape(-1, 3), _grid_faces(len(theta), len(phi))[:, ::-1]


def _cone(size: np.ndarray, _: float, segments: int) -> tuple[np.ndarray, np.ndarray]:
    phi = np.linspace(0, 2 * np.pi, segments + 1)
    rings = np.array([[0, size[2]], [size[1], size[2]], [size[0], -size[2]], [0, -size[2]]])
    p = np.stack([rings[:, :1] * np.cos(phi), rings[:, :1] * np.sin(phi), rings[:, 1:] * np.ones_like(phi)], -1)
    return p.reshape(-1, 3), _grid_faces(4, len(phi))[:, ::-1]


_TESSELLATE = {Kind.BOX: _box, Kind.ELLIPSOID: _ellipsoid, Kind.CONE: _cone}
