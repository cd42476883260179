"""Exact ray intersection with analytic solids, vectorised over rays.

A ray that starts inside a solid passes out of it unseen: only entries count. Rounded boxes are the union of three boxes, twelve
cylinders and eight spheres, which is the exact Minkowski sum; the entry into a union is the earliest entry of its pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lyra_core.scenes.scene import Kind, Scene

EPS = 1e-9
SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)


@dataclass(frozen=True)
class SceneHits:
    """First hits of rays at a scene."""

    t: np.ndarray
    """(R,) float64 ray parameter in units of the direction's length, inf = miss."""
    solid: np.ndarray
    """(R,) int32 index of the solid, -1 = miss."""
    local: np.ndarray
    """(R, 3) float64 hit point in the solid's frame."""
    normal_local: np.ndarray
    """(R, 3) float64 outward unit normal in the solid's frame."""
    normal: np.ndarray
    """(R, 3) float64 outward unit normal in the world frame."""


def cast(scene: Scene, origins: np.ndarray, directions: np.ndarray, *, solids: np.ndarray | None = None) -> SceneHits:
    """Return first hits of rays (R, 3) among solids (indices; all without)."""
    count = len(origins)
    t, index = np.full(count, np.inf), np.full(count, -1, np.int32)
    for i in range(len(scene)) if solids is None else solids:
        o, d = to_local(scene, i, origins, directions)
        hit = _ENTRY[int(scene.kind[i])](o, d, scene.size[i], scene.extra[i])
        nearer = hit < t
        t[nearer], index[nearer] = hit[nearer], i
    local, normal_local, normal = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros((count, 3))
    for i in np.unique(index[index >= 0]):
        rows = index == i
        o, d = to_local(scene, i, origins[rows], directions[rows])
        local[rows] = o + d * t[rows, None]
        normal_local[rows] = _NORMAL[int(scene.kind[i])](local[rows], scene.size[i], scene.extra[i])
        normal[rows] = rotate(scene.T_world_local[i, :3, :3], normal_local[rows])
    return SceneHits(t, index, local, normal_local, normal)


def rotate(R: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return R v for rows v (n, 3), without BLAS so that the bytes do not depend on its threads."""
    return np.stack([v[:, 0] * R[i, 0] + v[:, 1] * R[i, 1] + v[:, 2] * R[i, 2] for i in range(3)], -1)


def to_local(scene: Scene, i: int, origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rays in the frame of solid i."""
    T = scene.T_world_local[i]
    return rotate(T[:3, :3].T, origins - T[:3, 3]), rotate(T[:3, :3].T, directions)


def near_solids(scene: Scene, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return indices of solids whose bounding sphere meets the cone round rays (R, 3) from one origin."""
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    axis = unit.mean(0)
    axis /= np.linalg.norm(axis)
    half = np.arccos(np.clip((unit * axis).sum(1).min(), -1, 1))
    to, radii = scene.T_world_local[:, :3, 3] - origin, scene.radii()
    far = np.linalg.norm(to, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.arccos(np.clip((to * axis).sum(1) / far, -1, 1))
        reach = np.arcsin(np.clip(radii / far, 0, 1))
    return np.flatnonzero((far <= radii) | (angle <= half + reach + 1e-6))


def _slabs(o: np.ndarray, d: np.ndarray, half: np.ndarray) -> np.ndarray:
    d = np.where(np.abs(d) < 1e-14, 1e-14, d)
    a, b = (-half - o) / d, (half - o) / d
    near, far = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
    return np.where((near <= far) & (near > EPS), near, np.inf)


def _first_root(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return the smaller root of a t^2 + 2 b t + c where it is an entry in front, else inf."""
    disc = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (-b - np.sqrt(disc)) / a
    return np.where((disc >= 0) & (a > 1e-14) & (t > EPS), t, np.inf)


def _enter_box(o: np.ndarray, d: np.ndarray, half: np.ndarray, r: float) -> np.ndarray:
    if r <= 0:
        return _slabs(o, d, half)
    t = np.full(len(o), np.inf)
    rows = np.flatnonzero(np.isfinite(_slabs(o, d, half)))
    if len(rows):
        t[rows] = _enter_rounded(o[rows], d[rows], half, r)
    return t


def _enter_rounded(o: np.ndarray, d: np.ndarray, half: np.ndarray, r: float) -> np.ndarray:
    inner = half - r
    t = np.minimum.reduce([_slabs(o, d, inner + r * axis) for axis in np.eye(3)])
    for axis in range(3):
        j, k = [m for m in range(3) if m != axis]
        a = d[:, j] ** 2 + d[:, k] ** 2
        for sj, sk in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            oj, ok = o[:, j] - sj * inner[j], o[:, k] - sk * inner[k]
            hit = _first_root(a, oj * d[:, j] + ok * d[:, k], oj * oj + ok * ok - r * r)
            with np.errstate(invalid="ignore"):
                within = np.abs(o[:, axis] + d[:, axis] * np.where(np.isfinite(hit), hit, 0)) <= inner[axis]
            t = np.minimum(t, np.where(within, hit, np.inf))
    a = (d * d).sum(1)
    for corner in SIGNS * inner:
        from_corner = o - corner
        t = np.minimum(t, _first_root(a, (from_corner * d).sum(1), (from_corner**2).sum(1) - r * r))
    return t


def _enter_ellipsoid(o: np.ndarray, d: np.ndarray, radii: np.ndarray, _: float) -> np.ndarray:
    o, d = o / radii, d / radii
    return _first_root((d * d).sum(1), (o * d).sum(1), (o * o).sum(1) - 1)


def _enter_cone(o: np.ndarray, d: np.ndarray, size: np.ndarray, _: float) -> np.ndarray:
    bottom, top, half = size
    slope = (top - bottom) / (2 * half)
    radius = (bottom + top) / 2 + slope * o[:, 2]
    a = d[:, 0] ** 2 + d[:, 1] ** 2 - (slope * d[:, 2]) ** 2
    b = o[:, 0] * d[:, 0] + o[:, 1] * d[:, 1] - slope * d[:, 2] * radius
    c = o[:, 0] ** 2 + o[:, 1] ** 2 - radius**2
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(b * b - a * c)
        sides = [(-b - root) / a, (-b + root) / a]
        caps = [(-half - o[:, 2]) / d[:, 2], (half - o[:, 2]) / d[:, 2]]
        best = np.full(len(o), np.inf)
        for t in sides:
            z, outward = o[:, 2] + t * d[:, 2], a * t + b < 0
            good = (t > EPS) & (np.abs(z) <= half) & (radius + slope * t * d[:, 2] >= 0) & outward
            best = np.where(good & (t < best), t, best)
        for t, r, entering in ((caps[0], bottom, d[:, 2] > 0), (caps[1], top, d[:, 2] < 0)):
            good = (t > EPS) & ((o[:, 0] + t * d[:, 0]) ** 2 + (o[:, 1] + t * d[:, 1]) ** 2 <= r * r) & entering
            best = np.where(good & (t < best), t, best)
    return best


def _normal_box(p: np.ndarray, half: np.ndarray, r: float) -> np.ndarray:
    if r > 0:
        n = p - np.clip(p, r - half, half - r)
        return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)
    axis = (np.abs(p) - half).argmax(1)
    n, rows = np.zeros_like(p), np.arange(len(p))
    n[rows, axis] = np.sign(p[rows, axis])
    return n


def _normal_ellipsoid(p: np.ndarray, radii: np.ndarray, _: float) -> np.ndarray:
    n = p / radii**2
    return n / np.linalg.norm(n, axis=1, keepdims=True)


def _normal_cone(p: np.ndarray, size: np.ndarray, _: float) -> np.ndarray:
    bottom, top, half = size
    slope = (top - bottom) / (2 * half)
    radius = np.hypot(p[:, 0], p[:, 1])
    side = np.column_stack([p[:, :2] / np.maximum(radius, 1e-12)[:, None], np.full(len(p), -slope)]) / np.hypot(1, slope)
    on_side = np.abs(radius - ((bottom + top) / 2 + slope * p[:, 2])) / np.hypot(1, slope)
    cap = half - np.abs(p[:, 2]) < on_side
    flat = np.column_stack([np.zeros((len(p), 2)), np.sign(p[:, 2])])
    return np.where(cap[:, None], flat, side)


_ENTRY: dict[int, Callable] = {Kind.BOX: _enter_box, Kind.ELLIPSOID: _enter_ellipsoid, Kind.CONE: _enter_cone}
_NORMAL: dict[int, Callable] = {Kind.BOX: _normal_box, Kind.ELLIPSOID: _normal_ellipsoid, Kind.CONE: _normal_cone}
