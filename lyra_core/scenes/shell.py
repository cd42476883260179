"""Walls with openings, doors, windows, stairs and facades."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lyra_core.scenes.furniture import BRASS, WHITE
from lyra_core.scenes.scene import Light, Material, SceneBuilder
from lyra_core.types import Label

PLASTER = Material("plaster", (0.92, 0.89, 0.84), (0.84, 0.8, 0.74), scale=1.3, space="world")
CEILING = Material("plaster", (0.95, 0.94, 0.92), (0.9, 0.89, 0.87), scale=1.7, space="world")
PLANKS = Material("planks", (0.74, 0.56, 0.38), (0.5, 0.34, 0.2), scale=0.14, gloss=0.035, roughness=0.16, space="world")
THICKNESS = 0.14
"""Of walls [m]."""


@dataclass(frozen=True)
class Opening:
    """A hole in a wall, in the wall's own frame."""

    start: float
    """Along the wall [m]."""
    end: float
    bottom: float
    """Above the floor [m]; 0 = door."""
    top: float


def wall_frame(a: tuple[float, float], b: tuple[float, float]) -> tuple[np.ndarray, float]:
    """Return T (4, 4) with x from a to b along the wall and y into the room to the left of it, and the length [m]."""
    d = np.subtract(b, a)
    length = float(np.hypot(*d))
    x = d / length
    T = np.eye(4)
    T[:2, 0], T[:2, 1], T[:2, 3] = x, (-x[1], x[0]), a
    return T, length


def add_wall(
    b: SceneBuilder,
    T: np.ndarray,
    length: float,
    height: float,
    *,
    material: Material = PLASTER,
    openings: tuple[Opening, ...] = (),
    skirting: bool = True,
) -> None:
    """Add a wall along x from 0 to length whose room side is y = 0, with openings left out."""
    edges = sorted({-THICKNESS, length + THICKNESS, *(e for o in openings for e in (o.start, o.end))})
    for x0, x1 in pairwise(edges):
        hole = next((o for o in openings if o.start <= x0 and x1 <= o.end), None)
        for z0, z1 in ((0.0, height),) if hole is None else ((0.0, hole.bottom), (hole.top, height)):
            if z1 > z0:
                b.box(T, ((x0 + x1) / 2, -THICKNESS / 2, (z0 + z1) / 2), (x1 - x0, THICKNESS, z1 - z0), material, label=Label.WALL)
        if skirting and (hole is None or hole.bottom > 0):
            x0, x1 = max(x0, 0.0), min(x1, length)
            b.box(T, ((x0 + x1) / 2, 0.007, 0.045), (x1 - x0, 0.014, 0.09), WHITE, label=Label.WALL)


def add_room(
    b: SceneBuilder,
    lower: tuple[float, float],
    upper: tuple[float, float],
    height: float,
    *,
    openings: dict[str, tuple[Opening, ...]],
    walls: dict[str, Material] | None = None,
    floor: Material = PLANKS,
    ceiling: Material = CEILING,
) -> dict[str, np.ndarray]:
    """Add floor, ceiling and four walls; return their frames by name: 'right' (y0), 'front' (x1), 'left' (y1), 'back' (x0)."""
    (x0, y0), (x1, y1) = lower, upper
    t = THICKNESS
    size, centre = (x1 - x0 + 2 * t, y1 - y0 + 2 * t), ((x0 + x1) / 2, (y0 + y1) / 2)
    b.box(np.eye(4), (*centre, -0.1), (*size, 0.2), floor, label=Label.FLOOR)
    b.box(np.eye(4), (*centre, height + 0.1), (*size, 0.2), ceiling, label=Label.CEILING)
    corners = {
        "right": ((x0, y0), (x1, y0)),
        "front": ((x1, y0), (x1, y1)),
        "left": ((x1, y1), (x0, y1)),
        "back": ((x0, y1), (x0, y0)),
    }
    frames = {}
    for name, ends in corners.items():
        frames[name], length = wall_frame(*ends)
        add_wall(b, frames[name], length, height, material=(walls or {}).get(name, PLASTER), openings=openings.get(name, ()))
    return frames


def add_window(
    b: SceneBuilder, T: np.ndarray, o: Opening, *, panes: int = 2, daylight: tuple[float, float, float] | None = (8.0, 9.0, 10.5)
) -> None:
    """Add frame, bars and sill into an opening of a wall with frame T; daylight is the radiance of the sky through it."""
    w, h, y = o.end - o.start, o.top - o.bottom, -THICKNESS * 0.6
    cx, cz = (o.start + o.end) / 2, (o.bottom + o.top) / 2
    for x in np.linspace(o.start + 0.025, o.end - 0.025, panes + 1):
        b.box(T, (x, y, cz), (0.05, 0.06, h), WHITE, label=Label.WALL)
    for z in (o.bottom + 0.025, o.top - 0.025):
        b.box(T, (cx, y, z), (w, 0.06, 0.05), WHITE, label=Label.WALL)
    b.box(T, (cx, 0.05, o.bottom - 0.015), (w + 0.12, 0.2, 0.03), WHITE, rounding=0.006, label=Label.WALL)
    if daylight:
        R, centre = T[:3, :3], T @ [cx, -0.02, cz, 1]
        b.lights.append(
            Light("rect", tuple(centre[:3]), daylight, edge_u=tuple(R @ [0, 0, h - 0.1]), edge_v=tuple(R @ [w - 0.1, 0, 0]))
        )


def add_door(b: SceneBuilder, T: np.ndarray, o: Opening, *, material: Material = WHITE, ajar: float = 0.0) -> None:
    """Add casing and leaf into a door opening; ajar [rad] swings the leaf into the room about its start side."""
    w, h = o.end - o.start, o.top
    for x in (o.start - 0.03, o.end + 0.03):
        b.box(T, (x, 0.0, h / 2 + 0.03), (0.07, 0.05, h + 0.06), WHITE, label=Label.WALL)
    b.box(T, ((o.start + o.end) / 2, 0.0, h + 0.03), (w + 0.13, 0.05, 0.07), WHITE, label=Label.WALL)
    leaf = T.copy()
    c, s = np.cos(ajar), np.sin(ajar)
    leaf[:3, :3] = T[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    leaf[:3, 3] = (T @ [o.start, -0.02, 0, 1])[:3]
    b.box(leaf, (w / 2, -0.02, h / 2 + 0.004), (w - 0.01, 0.04, h - 0.01), material, label=Label.DOOR)
    for z0, z1 in ((0.14, 0.42 * h), (0.47 * h, h - 0.14)):
        for x0, x1 in ((0.12, w / 2 - 0.04), (w / 2 + 0.04, w - 0.12)):
            b.box(
                leaf, ((x0 + x1) / 2, 0.003, (z0 + z1) / 2), (x1 - x0, 0.012, z1 - z0), material, rounding=0.005, label=Label.DOOR
            )
    b.box(leaf, (w - 0.11, 0.045, 1.03), (0.13, 0.018, 0.018), BRASS, rounding=0.008, label=Label.DOOR)
    b.cone(leaf, (w - 0.06, 0.02, 1.01), (0.012, 0.012), 0.04, BRASS, label=Label.DOOR)


def add_stairs(
    b: SceneBuilder, T: np.ndarray, *, steps: int, width: float, rise: float = 0.17, run: float = 0.28, material: Material
) -> None:
    """Add stairs that climb along +y from the frame's origin."""
    for i in range(steps):
        b.box(T, (0, (i + 0.5) * run, (i + 1) * rise / 2), (width, run, (i + 1) * rise), material)


def add_facade(
    b: SceneBuilder,
    T: np.ndarray,
    *,
    width: float,
    floors: int,
    bays: int,
    wall: Material,
    rng: np.random.Generator,
    storey: float = 3.1,
) -> None:
    """Add a building front whose face is y = 0 and depth 8 m behind it, with a grid of recessed windows and a door."""
    height = floors * storey + 0.6
    glass = Material("vary", (0.12, 0.15, 0.19), (0.3, 0.36, 0.42), gloss=0.12, roughness=0.03)
    stone = Material("plaster", (0.82, 0.8, 0.75), (0.7, 0.68, 0.63), scale=0.5)
    b.box(T, (0, -4.0, height / 2), (width, 8.0, height), wall, label=Label.WALL)
    b.box(T, (0, 0.02, height - 0.15), (width, 0.5, 0.3), stone, label=Label.WALL)
    b.box(T, (0, 0.02, 0.3), (width, 0.08, 0.6), stone, label=Label.WALL)
    door = int(rng.integers(bays))
    for floor in range(floors):
        for bay in range(bays):
            x, z = (bay + 0.5 - bays / 2) * width / bays, floor * storey + 1.9
            if floor == 0 and bay == door:
                b.box(T, (x, 0.04, 1.15), (1.2, 0.08, 2.3), Material("vary", (0.2, 0.3, 0.26), (0.42, 0.2, 0.16)), label=Label.DOOR)
                continue
            b.box(T, (x, 0.02, z), (1.15, 0.06, 1.65), WHITE, label=Label.WALL)
            for dx in (-0.265, 0.265):
                b.box(T, (x + dx, 0.045, z), (0.47, 0.03, 1.5), glass, label=Label.WALL)
            b.box(T, (x, 0.07, z - 0.87), (1.35, 0.18, 0.09), stone, label=Label.WALL)
