"""Furniture from boxes, cones and ellipsoids. Each piece stands at the origin of its frame T, its front towards +y."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lyra_core.scenes.scene import Light, Material, Rgb, SceneBuilder, rotation
from lyra_core.types import Label

OAK = Material("wood", (0.72, 0.55, 0.36), (0.52, 0.36, 0.21), gloss=0.02)
WALNUT = Material("wood", (0.45, 0.3, 0.2), (0.27, 0.17, 0.11), gloss=0.03)
BLACK = Material("plain", (0.1, 0.1, 0.11), gloss=0.04)
WHITE = Material("plain", (0.93, 0.92, 0.9), gloss=0.02)
BRASS = Material("plain", (0.72, 0.56, 0.3), gloss=0.3, roughness=0.15)
STEEL = Material("plain", (0.6, 0.6, 0.62), gloss=0.3, roughness=0.15)
SOIL = Material("mottled", (0.2, 0.14, 0.1), (0.3, 0.22, 0.16), scale=0.05)
LEAF = Material("leaf", (0.2, 0.36, 0.14), (0.38, 0.52, 0.22), scale=0.08)
BOOKS = (
    Material("vary", (0.62, 0.2, 0.16), (0.82, 0.62, 0.3)),
    Material("vary", (0.13, 0.27, 0.38), (0.35, 0.5, 0.5)),
    Material("vary", (0.86, 0.82, 0.72), (0.6, 0.56, 0.48)),
)


def cloth(colour: Rgb, *, contrast: float = 0.16) -> Material:
    """Return a woven fabric of this sRGB colour."""
    return Material("fabric", colour, tuple(max(0.0, c - contrast) for c in colour), scale=0.006)


def add_table(b: SceneBuilder, T: np.ndarray, size: tuple[float, float, float], material: Material, *, leg: float = 0.05) -> None:
    """Add a slab on four legs; size = width, depth, height [m]."""
    w, d, h = size
    b.box(T, (0, 0, h - 0.02), (w, d, 0.04), material, rounding=0.008)
    for x in (-1, 1):
        for y in (-1, 1):
            b.box(T, (x * (w / 2 - leg), y * (d / 2 - leg), (h - 0.04) / 2), (leg, leg, h - 0.04), material, rounding=0.006)
    for y in (-1, 1):
        b.box(T, (0, y * (d / 2 - leg), h - 0.075), (w - 2 * leg, 0.02, 0.07), material)


def add_sofa(
    b: SceneBuilder, T: np.ndarray, *, width: float = 2.1, seats: int = 2, colour: Rgb = (0.5, 0.56, 0.58), pillows=()
) -> None:
    """Add a sofa 0.9 m deep; pillows is a sequence of (x, colour)."""
    fabric, inner = cloth(colour), width - 0.36
    for x in (-1, 1):
        for y in (0.08, 0.8):
            b.cone(T, (x * (width / 2 - 0.12), y, 0), (0.016, 0.026), 0.14, WALNUT)
    b.box(T, (0, 0.46, 0.22), (width - 0.04, 0.86, 0.18), fabric, rounding=0.04)
    b.box(T, (0, 0.1, 0.5), (inner + 0.04, 0.2, 0.6), fabric, rounding=0.07)
    for x in (-1, 1):
        b.box(T, (x * (width / 2 - 0.09), 0.46, 0.36), (0.18, 0.9, 0.46), fabric, rounding=0.07)
    for i in range(seats):
        x = (i - (seats - 1) / 2) * inner / seats
        b.box(T, (x, 0.54, 0.38), (inner / seats - 0.01, 0.72, 0.18), fabric, rounding=0.06)
        b.box(T, (x, 0.25, 0.65), (inner / seats - 0.03, 0.2, 0.42), fabric, rounding=0.09, turn=rotation("x", 0.2))
    for x, tint in pillows:
        turn = rotation("z", 0.25 * np.sign(-x)) @ rotation("x", 0.42) @ rotation("y", 0.12)
        b.box(T, (x, 0.43, 0.64), (0.42, 0.14, 0.42), cloth(tint), rounding=0.068, turn=turn)


def add_armchair(b: SceneBuilder, T: np.ndarray, *, colour: Rgb = (0.76, 0.5, 0.3)) -> None:
    """Add an armchair 0.75 m wide on wooden legs."""
    add_sofa(b, T, width=0.82, seats=1, colour=colour)


def add_bookshelf(
    b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float = 1.2, height: float = 2.0, material: Material = OAK
) -> None:
    """Add a shelf 0.32 m deep with books, boxes and a few gaps."""
    depth, board = 0.32, 0.025
    for x in (-1, 1):
        b.box(T, (x * (width - board) / 2, depth / 2, height / 2), (board, depth, height), material)
    b.box(T, (0, 0.006, height / 2), (width - 2 * board, 0.012, height), material)
    levels = np.linspace(0.06, height - board / 2, int(height / 0.36) + 1)
    for z in levels:
        b.box(T, (0, depth / 2, z), (width - 2 * board, depth - 0.01, board), material)
    b.box(T, (0, depth / 2, 0.025), (width - 2 * board, depth - 0.03, 0.05), material)
    for z, above in pairwise(levels):
        _fill_shelf(b, T, rng, z + board / 2, above - z - board, width - 2 * board)


def _fill_shelf(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, z: float, room: float, width: float) -> None:
    x, end = -width / 2 + 0.01, width / 2 - 0.01
    while x < end - 0.1:
        choice = rng.random()
        if choice < 0.16:
            size = rng.uniform(0.12, 0.2)
            r = min(size / 2, room / 2 - 0.01)
            b.ellipsoid(
                T,
                (x + size / 2, 0.19, z + r),
                (r * 0.8, r * 0.8, r),
                Material("vary", (0.85, 0.8, 0.72), (0.3, 0.42, 0.42), gloss=0.05),
            )
            x += size + rng.uniform(0.02, 0.1)
        elif choice < 0.3:
            x += rng.uniform(0.05, 0.15)
        else:
            run, material = rng.integers(3, 9), BOOKS[rng.integers(len(BOOKS))]
            tall, deep = rng.uniform(0.62, 0.92) * room, rng.uniform(0.16, 0.22)
            for _ in range(run):
                thick, h = rng.uniform(0.018, 0.045), tall * rng.uniform(0.88, 1.0)
                if x + thick > end:
                    break
                b.box(T, (x + thick / 2, 0.02 + deep / 2 + 0.04, z + h / 2), (thick * 0.96, deep, h), material)
                x += thick


def add_cabinet(
    b: SceneBuilder, T: np.ndarray, *, width: float = 1.6, height: float = 0.55, depth: float = 0.42, material: Material = OAK
) -> None:
    """Add a sideboard with doors on short legs."""
    for x in (-1, 1):
        for y in (0.06, depth - 0.06):
            b.cone(T, (x * (width / 2 - 0.1), y, 0), (0.014, 0.02), 0.14, BLACK)
    b.box(T, (0, depth / 2, 0.13 + (height - 0.13) / 2), (width, depth, height - 0.13), material, rounding=0.006)
    doors = max(2, round(width / 0.55))
    for i in range(doors):
        x = (i + 0.5 - doors / 2) * (width - 0.04) / doors
        b.box(
            T,
            (x, depth + 0.006, 0.13 + (height - 0.13) / 2),
            ((width - 0.04) / doors - 0.008, 0.014, height - 0.18),
            material,
            rounding=0.004,
        )
        b.box(T, (x + 0.16 * (-1) ** i, depth + 0.022, height - 0.14), (0.09, 0.012, 0.012), BRASS, rounding=0.005)


def add_plant(
    b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, height: float = 1.5, leaves: int = 46, pot: Rgb = (0.86, 0.84, 0.8)
) -> None:
    """Add a potted plant with broad leaves."""
    b.cone(T, (0, 0, 0), (0.15, 0.2), 0.36, Material("plaster", pot, tuple(0.8 * c for c in pot), scale=0.1))
    b.cone(T, (0, 0, 0.345), (0.185, 0.185), 0.02, SOIL)
    for stem in range(5):
        yaw, lean = 2.4 * stem + rng.uniform(-0.3, 0.3), rng.uniform(0.05, 0.24)
        turn = rotation("z", yaw) @ rotation("y", lean)
        length = rng.uniform(0.5, 0.8) * (height - 0.36)
        b.cone(T, (0, 0, 0.35), (0.012, 0.006), length, Material("plain", (0.36, 0.3, 0.16)), turn=turn)
        for _ in range(leaves // 5):
            along = rng.uniform(0.3, 1.0) * length
            at = np.array([0, 0, 0.35]) + turn @ [0, 0, along]
            out = rotation("z", rng.uniform(0, 2 * np.pi)) @ rotation("y", rng.uniform(-0.35, 0.75))
            size = rng.uniform(0.1, 0.17)
            b.ellipsoid(
                T,
                at + out @ [size * 1.05, 0, 0],
                (size, size * 0.42, 0.008),
                LEAF,
                turn=out @ rotation("x", rng.uniform(-0.5, 0.5)),
            )


def add_floor_lamp(b: SceneBuilder, T: np.ndarray, *, strength: float = 9.0, height: float = 1.6) -> None:
    """Add a standing lamp with a glowing shade and its light."""
    glow = Material("plain", (1.0, 0.86, 0.66), emission=2.2)
    b.cone(T, (0, 0, 0), (0.15, 0.14), 0.025, BRASS)
    b.cone(T, (0, 0, 0), (0.012, 0.012), height, BRASS)
    b.cone(T, (0, 0, height - 0.2), (0.2, 0.14), 0.28, glow, casts=False)
    centre = T @ [0, 0, height - 0.06, 1]
    b.lights.append(Light("sphere", tuple(centre[:3]), tuple(strength * c for c in (1.0, 0.68, 0.38)), radius=0.11))


def add_pendant(b: SceneBuilder, T: np.ndarray, *, ceiling: float, drop: float = 0.7, strength: float = 6.0) -> None:
    """Add a hanging globe lamp and its light."""
    z = ceiling - drop
    b.cone(T, (0, 0, ceiling - 0.03), (0.06, 0.06), 0.03, BRASS)
    b.cone(T, (0, 0, z), (0.006, 0.006), drop, BLACK)
    b.ellipsoid(T, (0, 0, z), (0.17, 0.17, 0.17), Material("plain", (1.0, 0.9, 0.74), emission=1.7))
    centre = T @ [0, 0, z, 1]
    b.lights.append(Light("sphere", tuple(centre[:3]), tuple(strength * c for c in (1.0, 0.74, 0.46)), radius=0.1))


def add_picture(
    b: SceneBuilder, T: np.ndarray, centre: tuple[float, float], size: tuple[float, float], colours: tuple[Rgb, ...]
) -> None:
    """Hang a framed print on the wall behind y = 0; centre = x, z [m]."""
    (x, z), (w, h) = centre, size
    b.box(T, (x, 0.012, z), (w, 0.024, h), WALNUT, label=Label.WALL, rounding=0.004)
    b.box(T, (x, 0.022, z), (w - 0.05, 0.008, h - 0.05), Material("poster", colours[0], colours[1]), label=Label.WALL)


def add_curtain(b: SceneBuilder, T: np.ndarray, *, width: float, height: float, colour: Rgb = (0.9, 0.87, 0.8)) -> None:
    """Hang a curtain in folds along x, its lower edge 2 cm above the floor."""
    fabric = cloth(colour, contrast=0.05)
    folds = max(2, round(width / 0.07))
    for i in range(folds):
        x = (i + 0.5) * width / folds - width / 2
        b.box(T, (x, 0.05 + 0.022 * (-1) ** i, 0.02 + height / 2), (0.09, 0.075, height), fabric, rounding=0.036)


def add_rug(b: SceneBuilder, T: np.ndarray, size: tuple[float, float], colours: tuple[Rgb, ...], *, scale: float = 0.42) -> None:
    """Lay a rug 1 cm thick; it counts as floor."""
    b.box(T, (0, 0, 0.005), (*size, 0.01), Material("rug", *colours, scale=scale), label=Label.FLOOR)


def add_desk(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a desk with a screen, a keyboard and a chair in front."""
    add_table(b, T, (1.5, 0.75, 0.73), Material("wood", (0.82, 0.72, 0.58), (0.7, 0.58, 0.44)), leg=0.05)
    b.box(T, (0, -0.2, 0.738), (0.24, 0.18, 0.015), BLACK)
    b.box(T, (0, -0.24, 0.85), (0.04, 0.03, 0.24), BLACK)
    b.box(T, (0, -0.21, 1.03), (0.6, 0.03, 0.35), BLACK, rounding=0.006)
    b.box(T, (0, -0.193, 1.03), (0.57, 0.004, 0.32), Material("poster", (0.2, 0.4, 0.7), (0.1, 0.15, 0.3), emission=0.25))
    b.box(T, (0, 0.1, 0.74), (0.44, 0.14, 0.02), BLACK, rounding=0.006)
    x, y, yaw = rng.uniform(-0.2, 0.2), 0.75 + rng.uniform(0, 0.2), np.pi + rng.uniform(-0.5, 0.5)
    chair = T.copy()
    chair[:3, 3] = (T @ [x, y, 0, 1])[:3]
    chair[:3, :3] = T[:3, :3] @ rotation("z", yaw)
    add_office_chair(b, chair)


def add_office_chair(b: SceneBuilder, T: np.ndarray, *, colour: Rgb = (0.22, 0.24, 0.27)) -> None:
    """Add a swivel chair."""
    for i in range(5):
        turn = rotation("z", 2 * np.pi * i / 5)
        b.box(T, tuple(turn @ [0.15, 0, 0.08]), (0.3, 0.04, 0.035), BLACK, turn=turn, rounding=0.01)
        b.ellipsoid(T, tuple(turn @ [0.29, 0, 0.03]), (0.03, 0.03, 0.03), BLACK)
    b.cone(T, (0, 0, 0.08), (0.03, 0.025), 0.36, STEEL)
    b.box(T, (0, 0, 0.47), (0.5, 0.5, 0.09), cloth(colour), rounding=0.04)
    b.box(T, (0, -0.24, 0.82), (0.46, 0.08, 0.55), cloth(colour), rounding=0.038, turn=rotation("x", 0.1))
