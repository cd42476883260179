"""The solids that USD describes by numbers - cube, sphere, cylinder, cone, capsule, plane - as polygons (UsdGeom schemas)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

SIDES = 32
"""Corners of a circle."""
RINGS = 8
"""Rings from a pole to the equator."""
_AXIS_ROLL = {"X": 1, "Y": 2, "Z": 0}


def solid_polygons(prim: Any, time: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return vertices (V, 3), corners per polygon (P,) and indices of a solid, fronts outside; None for another type."""
    kind = str(prim.GetTypeName())

    def value(name: str, default: Any) -> Any:
        got = prim.GetAttribute(name).Get(time) if prim.HasAttribute(name) else None
        return default if got is None else got

    if kind == "Cube":
        return _box(np.full(3, float(value("size", 2.0)) / 2))
    radius, height = float(value("radius", 1.0)), float(value("height", 2.0 if kind != "Capsule" else 1.0))
    roll = _AXIS_ROLL.get(str(value("axis", "Z")), 0)
    if kind == "Plane":
        half_width, half_length = float(value("width", 2.0)) / 2, float(value("length", 2.0)) / 2
        corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0.0]]) * [half_width, half_length, 0]
        # OpenUSD names the sides of a plane with a normal along x or y in its own way: width runs along z for x, along x for y.
        if roll == 1:
            corners = np.stack([corners[:, 2], corners[:, 1], -corners[:, 0]], 1)
        elif roll == 2:
            corners = np.stack([corners[:, 0], corners[:, 2], -corners[:, 1]], 1)
        return corners, np.array([4]), np.arange(4)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 2 * RINGS + 1)
    profiles = {
        "Sphere": np.stack([np.cos(angle), np.sin(angle)], 1) * radius,
        "Cylinder": np.array([[0, -0.5], [radius, -0.5], [radius, 0.5], [0, 0.5]]) * [1, height],
        "Cone": np.array([[0, -0.5], [radius, -0.5], [0, 0.5]]) * [1, height],
        "Capsule": np.stack([np.cos(angle), np.sin(angle)], 1)[[*range(RINGS + 1), *range(RINGS, 2 * RINGS + 1)]] * radius,
    }
    if kind not in profiles:
        return None
    profile = profiles[kind]
    if kind == "Capsule":
        profile[:RINGS + 1, 1] -= height / 2
        profile[RINGS + 1:, 1] += height / 2
    profile[[0, -1], 0] = 0
    vertices, counts, indices = _revolve(profile)
    return np.roll(vertices, roll, 1), counts, indices


def _box(half: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    corners = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1.0)]) * half
    quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
    return corners, np.full(6, 4), np.array(quads).reshape(-1)


def _revolve(profile: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn (radius, z) rows, bottom to top, about z; rows on the axis become one vertex."""
    turn = 2 * np.pi * np.arange(SIDES) / SIDES
    rings, vertices = [], []
    for radius, z in profile:
        count = 1 if radius == 0 else SIDES
        rings.append(np.resize(np.arange(count) + sum(len(v) for v in vertices), SIDES))
        vertices.append(np.stack([radius * np.cos(turn), radius * np.sin(turn), np.full(SIDES, z)], 1)[:count])
    counts, indices = [], []
    for low, high in pairwise(rings):
        for i in range(SIDES):
            corners = list(dict.fromkeys([low[i], low[(i + 1) % SIDES], high[(i + 1) % SIDES], high[i]]))
            counts.append(len(corners))
            indices += corners
    return np.concatenate(vertices), np.array(counts), np.array(indices)
