"""What rays say about a mesh: where free space is, which faces look away from it, thin walls, faces that cut through each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.rays import RayTracer, sphere_directions

ENCLOSED = 0.6
"""Share of rays from a point inside of a room that hit something; rooms of scans lack parts of walls."""
CLEARANCE = 0.2
"""Free points stay so far from surfaces [m]: less is the inside of furniture."""


@dataclass(frozen=True)
class FreePoints:
    """Points that are in free space, as far as the mesh alone can tell."""

    points: np.ndarray
    """(N, 3) [m]."""
    enclosure: float
    """Median share of rays from them that hit something; 0 = there is no inside."""
    inside: bool
    """They lie in an enclosed space; else on a sphere around the mesh."""


def find_free_points(tracer: RayTracer, low: np.ndarray, high: np.ndarray, *, limit: int = 64) -> FreePoints:
    """Return points in the rooms of a mesh within the box low..high (3,) [m], or around it where it has no rooms.

    A closed surface one can stand in is taken as a room, so a block as large as a room is one too.
    """
    size = np.maximum(high - low, 1e-6)
    steps = [max(3, min(12, int(s / 0.25))) for s in size]
    axes = [low[i] + size[i] * (np.arange(n) + 0.5) / n for i, n in enumerate(steps)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    directions = sphere_directions(64)
    hits = tracer.cast(np.repeat(grid, 64, 0).astype(np.float32), np.tile(directions, (len(grid), 1)))
    t = hits.t.reshape(len(grid), 64)
    share, near = np.isfinite(t).mean(1), t.min(1)
    room = (share >= ENCLOSED) & (near >= CLEARANCE) & (np.median(t, 1) >= 0.6)
    if room.sum() >= max(3, 0.02 * len(grid)):
        rows = np.flatnonzero(room)
        rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)]
        return FreePoints(grid[rows], float(np.median(share[room])), True)
    around = (low + high) / 2 + 1.5 * float(np.linalg.norm(size)) * sphere_directions(limit).astype(np.float64)
    return FreePoints(around, float(np.median(share[near >= CLEARANCE])) if (near >= CLEARANCE).any() else 0.0, False)


def seen_from(tracer: RayTracer, free: FreePoints, normals: np.ndarray, center: np.ndarray, radius: float, *,
              rays: int = 2048) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of hits from behind (F,), NaN = never hit, and how often each face was hit (F,).

    Rays leave free points to all sides inside of rooms; from around a mesh they aim at the ball about center [m].
    """
    points = free.points
    directions = np.tile(sphere_directions(rays), (len(points), 1)).astype(np.float64)
    origins = np.repeat(points, rays, 0)
    if not free.inside:
        spread = np.cbrt(np.linspace(0.01, 1, rays))[np.arange(len(directions)) % rays, None]
        directions = center + radius * spread * directions - origins
    hits = tracer.cast(origins.astype(np.float32), directions.astype(np.float32))
    ok = hits.face >= 0
    face = hits.face[ok]
    behind = (normals[face] * directions[ok]).sum(1) > 0
    total = np.bincount(face, minlength=len(normals))
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, np.bincount(face, behind, len(normals)) / np.maximum(total, 1), np.nan), total


def thickness(tracer: RayTracer, centers: np.ndarray, normals: np.ndarray, areas: np.ndarray, *, limit: float,
              samples: int = 20_000) -> tuple[float, float]:
    """Return the area share of walls thinner than limit [m] and the least thickness [m] (inf = none as thin).

    A ray from a face against its normal meets a second sheet that looks the other way, from inside.
    """
    rng = np.random.default_rng(0)
    total = areas.sum()
    rows = np.arange(len(areas)) if len(areas) <= samples else rng.choice(len(areas), samples, p=areas / total)
    weight = areas[rows] if len(areas) <= samples else np.ones(samples)
    start = 1e-4
    origins = centers[rows] - start * normals[rows]
    hits = tracer.cast(origins.astype(np.float32), -normals[rows].astype(np.float32))
    opposite = (hits.face >= 0) & (hits.face != rows)
    opposite[opposite] = (normals[rows[opposite]] * normals[hits.face[opposite]]).sum(1) < -0.7
    thin = opposite & (hits.t + start < limit)
    return float(weight[thin].sum() / max(weight.sum(), 1e-12)), float((hits.t[thin] + start).min()) if thin.any() else float("inf")


def crossing_share(tracer: RayTracer, vertices: np.ndarray, faces: np.ndarray, *, samples: int = 20_000) -> float:
    """Return the share of edges that pass through another face, over a sample of edges; faces share merged vertices."""
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    if len(edges) > samples:
        edges = edges[np.random.default_rng(0).choice(len(edges), samples, replace=False)]
    a, b = vertices[edges[:, 0]], vertices[edges[:, 1]]
    length = np.linalg.norm(b - a, axis=1)
    ok = length > 1e-6
    edges, a, b, length = edges[ok], a[ok], b[ok], length[ok]
    if not len(edges):
        return 0.0
    # The ends are left out: faces that touch an edge at its end are neighbours, and float32 has seven digits.
    skip = np.clip(1e-5 * np.abs(vertices).max() / length, 1e-3, 0.3)[:, None]
    hits = tracer.cast((a + skip * (b - a)).astype(np.float32), ((1 - 2 * skip) * (b - a)).astype(np.float32))
    inside = (hits.face >= 0) & (hits.t < 1)
    near = faces[np.maximum(hits.face, 0)]
    shares = (near[:, :, None] == edges[:, None, :]).any((1, 2))
    return float((inside & ~shares).mean())
