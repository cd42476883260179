"""Beds, wardrobes, kitchens, shelves, mirrors and screens. Each stands in its frame T, its back at y = 0, its front towards +y."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import FABRICS, bright, fabric, pick, shade, wood
from lyra_core.scenes.scene import Light, Material, SceneBuilder, rotation
from lyra_core.types import Label

MIRROR = Material("plain", (0.5, 0.52, 0.53), gloss=0.88, roughness=0.0)
SCREEN = Material("plain", (0.03, 0.03, 0.035), gloss=0.06, roughness=0.03)


def add_bed(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float = 1.6) -> None:
    """Add a bed 2.05 m long with its headboard at the wall."""
    frame, sheet, cover = wood(rng), Material("fabric", (0.93, 0.92, 0.9), (0.82, 0.82, 0.8), scale=0.01), fabric(rng)
    for x in (-1, 1):
        for y in (0.1, 1.95):
            b.box(T, (x * (width / 2 - 0.06), y, 0.08), (0.06, 0.06, 0.16), frame)
    b.box(T, (0, 1.03, 0.24), (width, 2.04, 0.16), frame, rounding=0.01)
    b.box(T, (0, 0.03, 0.55), (width + 0.04, 0.06, rng.uniform(0.7, 1.05)), pick(rng, (frame, cover)), rounding=0.02)
    b.box(T, (0, 1.04, 0.42), (width - 0.04, 1.96, 0.22), sheet, rounding=0.05)
    b.box(
        T,
        (rng.uniform(-0.06, 0.06), 1.36, 0.49),
        (width + 0.05, 1.36, 0.2),
        cover,
        rounding=0.07,
        turn=rotation("z", rng.uniform(-0.05, 0.05)),
    )
    for x in (-0.25, 0.25) if width > 1.2 else (0.0,):
        turn = rotation("x", 0.35) @ rotation("z", rng.uniform(-0.2, 0.2))
        b.box(T, (x * width, 0.3, 0.6), (0.62, 0.38, 0.15), sheet, rounding=0.07, turn=turn)


def add_wardrobe(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float = 1.5, height: float = 2.1) -> None:
    """Add a wardrobe 0.6 m deep; one door may be a mirror."""
    material, doors = wood(rng), max(2, round(width / 0.5))
    b.box(T, (0, 0.29, height / 2 + 0.03), (width, 0.58, height - 0.06), material)
    b.box(T, (0, 0.27, 0.03), (width - 0.06, 0.5, 0.06), fu.BLACK)
    glass = int(rng.integers(doors)) if rng.random() < 0.35 else -1
    for i in range(doors):
        x = (i + 0.5 - doors / 2) * width / doors
        b.box(T, (x, 0.588, height / 2 + 0.03), (width / doors - 0.008, 0.016, height - 0.09), MIRROR if i == glass else material)
        b.box(T, (x + (0.36 if i % 2 == 0 else -0.36) * width / doors, 0.605, 1.05), (0.014, 0.02, 0.18), fu.STEEL)


def add_nightstand(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a bedside table with a lamp."""
    material = wood(rng)
    b.box(T, (0, 0.2, 0.3), (0.44, 0.38, 0.4), material, rounding=0.006)
    b.box(T, (0, 0.395, 0.38), (0.4, 0.012, 0.16), material)
    for x in (-0.18, 0.18):
        for y in (0.05, 0.35):
            b.cone(T, (x, y, 0), (0.014, 0.018), 0.11, fu.BLACK)
    add_table_lamp(b, T @ np.array([[1, 0, 0, 0], [0, 1, 0, 0.2], [0, 0, 1, 0.5], [0, 0, 0, 1.0]]), strength=rng.uniform(0.2, 0.9))


def add_table_lamp(b: SceneBuilder, T: np.ndarray, *, strength: float) -> None:
    """Add a small lamp with a glowing shade and its light."""
    b.cone(T, (0, 0, 0), (0.06, 0.02), 0.16, fu.BRASS)
    b.cone(T, (0, 0, 0.15), (0.13, 0.08), 0.17, Material("plain", (1.0, 0.86, 0.66), emission=0.6 + strength), casts=False)
    b.lights.append(Light("sphere", tuple((T @ [0, 0, 0.23, 1])[:3]), tuple(strength * c for c in (1.0, 0.7, 0.4)), radius=0.06))


def add_kitchen(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float = 2.6, upper: bool = True) -> None:
    """Add a counter with doors, hob and sink, cupboards above it, and a refrigerator at its end."""
    front, top = wood(rng), pick(rng, (fu.OAK, Material("mottled", (0.3, 0.3, 0.31), (0.42, 0.42, 0.42), scale=0.08, gloss=0.05)))
    b.box(T, (0, 0.27, 0.47), (width, 0.54, 0.78), front)
    b.box(T, (0, 0.26, 0.05), (width, 0.46, 0.1), fu.BLACK)
    b.box(T, (0, 0.3, 0.885), (width, 0.62, 0.04), top)
    n = max(2, round(width / 0.6))
    for i in range(n):
        x = (i + 0.5 - n / 2) * width / n
        oven = i == n // 2
        b.box(T, (x, 0.552, 0.48), (width / n - 0.008, 0.02, 0.74), fu.BLACK if oven else front, rounding=0.003)
        b.box(T, (x, 0.575, 0.8), (0.26, 0.02, 0.014), fu.STEEL)
    b.box(T, ((n // 2 + 0.5 - n / 2) * width / n, 0.3, 0.908), (0.56, 0.5, 0.008), SCREEN)
    b.box(T, (-0.34 * width, 0.3, 0.907), (0.5, 0.4, 0.006), fu.STEEL)
    b.cone(T, (-0.34 * width, 0.08, 0.9), (0.018, 0.012), 0.24, fu.STEEL)
    for x in rng.uniform(-0.4, 0.4, 3) * width:
        b.cone(T, (x, 0.16, 0.905), (0.05, 0.045), rng.uniform(0.12, 0.28), bright(rng))
    if upper:
        b.box(T, (0, 0.17, 1.78), (width, 0.34, 0.7), front)
        for x in np.linspace(-width / 2, width / 2, n + 1)[1:-1]:
            b.box(T, (x, 0.342, 1.78), (0.006, 0.004, 0.68), fu.BLACK)
    b.box(T, (width / 2 + 0.34, 0.32, 0.93), (0.62, 0.64, 1.82), pick(rng, (fu.WHITE, fu.STEEL)), rounding=0.02)
    b.box(T, (width / 2 + 0.34, 0.642, 1.1), (0.6, 0.006, 0.008), fu.BLACK)
    b.box(T, (width / 2 + 0.1, 0.66, 1.3), (0.02, 0.03, 0.3), fu.STEEL)


def add_shelf(
    b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float, height: float, depth: float = 0.32, back: bool = True
) -> None:
    """Add a shelf with rows of books, boxes and gaps; without a back one sees through it."""
    material, board = wood(rng), 0.025
    for x in (-1, 1):
        b.box(T, (x * (width - board) / 2, depth / 2, height / 2), (board, depth, height), material)
    if back:
        b.box(T, (0, 0.006, height / 2), (width - 2 * board, 0.012, height), material)
    levels = np.linspace(0.06, height - board / 2, int(height / 0.38) + 1)
    for z in levels:
        b.box(T, (0, depth / 2, z), (width - 2 * board, depth - 0.01, board), material)
    for z, above in pairwise(levels):
        x = -width / 2 + 0.03
        while x < width / 2 - 0.15:
            run, room = rng.uniform(0.15, min(0.55, width - 0.06)), above - z - board
            run = min(run, width / 2 - 0.03 - x)
            at, roll = x + run / 2, rng.random()
            if roll < 0.6:
                h = room * rng.uniform(0.7, 0.92)
                two = pick(
                    rng,
                    (
                        ((0.5, 0.2, 0.16), (0.75, 0.62, 0.36)),
                        ((0.13, 0.27, 0.38), (0.6, 0.62, 0.55)),
                        ((0.8, 0.76, 0.68), (0.3, 0.32, 0.34)),
                    ),
                )
                b.box(T, (at, 0.03 + 0.1, z + board / 2 + h / 2), (run, 0.2, h), Material("books", *two))
            elif roll < 0.78:
                h = room * rng.uniform(0.4, 0.85)
                b.box(
                    T,
                    (at, depth / 2, z + board / 2 + h / 2),
                    (0.9 * run, depth - 0.05, h),
                    pick(rng, (bright(rng), fabric(rng), wood(rng))),
                )
            x += run + rng.choice([0.0, 0.04])


def add_screen_board(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float = 1.6) -> None:
    """Add a low board with a television on it."""
    fu.add_cabinet(b, T, width=width, height=rng.uniform(0.4, 0.6), depth=0.42, material=wood(rng))
    b.box(T, (0, 0.2, 0.66), (0.3, 0.18, 0.03), fu.BLACK)
    b.box(T, (0, 0.18, 1.0), (rng.uniform(0.9, 1.3), 0.04, 0.62), SCREEN, rounding=0.008)


def add_mirror(b: SceneBuilder, T: np.ndarray, *, x: float, z: float, size: tuple[float, float]) -> None:
    """Hang a mirror on the wall behind y = 0."""
    b.box(T, (x, 0.012, z), (size[0], 0.024, size[1]), fu.BRASS, label=Label.WALL)
    b.box(T, (x, 0.022, z), (size[0] - 0.06, 0.01, size[1] - 0.06), MIRROR, label=Label.WALL)


def add_radiator(b: SceneBuilder, T: np.ndarray, *, width: float = 1.0) -> None:
    """Add a white panel radiator."""
    b.box(T, (0, 0.07, 0.4), (width, 0.07, 0.52), fu.WHITE, rounding=0.012)
    for x in np.arange(-width / 2 + 0.06, width / 2, 0.11):
        b.box(T, (x, 0.108, 0.4), (0.06, 0.008, 0.48), fu.WHITE)
    b.cone(T, (width / 2 - 0.05, 0.07, 0), (0.012, 0.012), 0.16, fu.WHITE)


def add_curtains(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, start: float, end: float, *, top: float) -> None:
    """Hang a rail and two curtains beside the opening from start to end [m] along the wall with frame T."""
    colour = pick(rng, FABRICS + ((0.9, 0.87, 0.8), (0.85, 0.86, 0.88)))
    cloth = Material("fabric", colour, shade(colour, 0.9), scale=0.008)
    b.box(T, ((start + end) / 2, 0.09, top + 0.03), (end - start + 0.7, 0.025, 0.025), fu.BRASS)
    low = float(rng.choice([0.02, 0.02, 0.6]))
    for x in (start - 0.12, end + 0.12):
        for i in range(5):
            b.box(
                T,
                (x + 0.075 * (i - 2), 0.09 + 0.022 * (-1) ** i, (low + top) / 2),
                (0.095, 0.075, top - low),
                cloth,
                rounding=0.036,
            )
