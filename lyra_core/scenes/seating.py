"""Chairs, benches, tables with glass tops, and dining groups. Each piece stands in its frame T with its front towards +y."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import bright, fabric, pick, wood
from lyra_core.scenes.scene import Material, SceneBuilder, place, rotation

GLASS = Material("plain", (0.62, 0.72, 0.69), gloss=0.32, roughness=0.01)
"""A table top that mostly mirrors; its depth is the glass, not what lies below it."""
CHAIRS = ("legs", "padded", "shell", "swivel", "stool")


def add_chair(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, kind: str, material: Material) -> None:
    """Add a chair of one of the kinds in CHAIRS."""
    if kind == "swivel":
        fu.add_office_chair(b, T, colour=material.colour)
    elif kind == "stool":
        b.cone(T, (0, 0, 0.42), (0.17, 0.18), 0.05, material)
        _splayed_legs(b, T, 0.12, 0.42, material)
    elif kind == "shell":
        b.box(T, (0, 0.02, 0.45), (0.44, 0.44, 0.06), material, rounding=0.028)
        b.box(T, (0, -0.2, 0.66), (0.43, 0.05, 0.4), material, rounding=0.024, turn=rotation("x", 0.16))
        _splayed_legs(b, T, 0.16, 0.43, fu.OAK if rng.random() < 0.5 else fu.STEEL)
    else:
        frame = material if kind == "legs" else pick(rng, (fu.OAK, fu.WALNUT, fu.BLACK))
        seat = material if kind == "legs" else fabric(rng)
        for x in (-0.19, 0.19):
            b.box(T, (x, 0.19, 0.22), (0.035, 0.035, 0.44), frame)
            b.box(T, (x, -0.19, 0.46), (0.035, 0.035, 0.92), frame, turn=rotation("x", 0.04))
        b.box(T, (0, 0, 0.455), (0.44, 0.43, 0.035 if kind == "legs" else 0.07), seat, rounding=0.015)
        if kind == "padded":
            b.box(T, (0, -0.2, 0.72), (0.4, 0.06, 0.42), seat, rounding=0.028, turn=rotation("x", 0.06))
        else:
            for z in (0.62, 0.75, 0.88):
                b.box(T, (0, -0.2, z), (0.36, 0.018, 0.06), frame)


def _splayed_legs(b: SceneBuilder, T: np.ndarray, half: float, height: float, material: Material) -> None:
    for x in (-1, 1):
        for y in (-1, 1):
            turn = rotation("x", -0.12 * y) @ rotation("y", 0.12 * x)
            foot = np.array([x * half, y * half, height]) - turn @ [0, 0, height * 0.995]
            b.cone(T, foot, (0.011, 0.016), height, material, turn=turn)


def add_stone_bench(b: SceneBuilder, T: np.ndarray, *, length: float = 1.6, back: bool = True) -> None:
    """Add a slatted bench with side frames of steel, its back towards -y."""
    slat = Material("wood", (0.6, 0.42, 0.26), (0.42, 0.28, 0.17))
    for x in (-1, 1):
        for y in (-0.2, 0.2):
            b.box(T, (x * (length / 2 - 0.15), y, 0.21), (0.05, 0.05, 0.42), fu.BLACK)
        if back:
            b.box(T, (x * (length / 2 - 0.15), -0.26, 0.62), (0.05, 0.04, 0.5), fu.BLACK, turn=rotation("x", 0.2))
    for y in (-0.17, -0.03, 0.11, 0.25):
        b.box(T, (0, y, 0.44), (length, 0.11, 0.035), slat, rounding=0.008)
    if back:
        for z in (0.6, 0.75):
            b.box(T, (0, -0.25 - 0.2 * (z - 0.62), z), (length, 0.03, 0.11), slat, turn=rotation("x", 0.2))


def add_round_table(b: SceneBuilder, T: np.ndarray, *, radius: float, height: float, top: Material, leg: Material) -> None:
    """Add a round table on one pedestal."""
    b.cone(T, (0, 0, 0), (0.55 * radius, 0.5 * radius), 0.025, leg)
    b.cone(T, (0, 0, 0), (0.035, 0.035), height, leg)
    b.cone(T, (0, 0, height - 0.03), (radius, radius), 0.03, top)


def add_glass_table(b: SceneBuilder, T: np.ndarray, size: tuple[float, float, float]) -> None:
    """Add a table of size width, depth, height [m] with a glass top on four steel legs."""
    w, d, h = size
    b.box(T, (0, 0, h - 0.006), (w, d, 0.012), GLASS)
    for x in (-1, 1):
        for y in (-1, 1):
            b.cone(T, (x * (w / 2 - 0.06), y * (d / 2 - 0.06), 0), (0.02, 0.02), h - 0.012, fu.STEEL)


def add_dining_group(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, seats: int = 4) -> None:
    """Add a table about the origin with chairs on its long sides, some of them pulled out or turned."""
    length, material = 0.65 * max(2, (seats + 1) // 2) + 0.2, wood(rng)
    if seats <= 3:
        add_round_table(b, T, radius=0.5, height=0.74, top=pick(rng, (material, GLASS)), leg=pick(rng, (material, fu.STEEL)))
    elif rng.random() < 0.2:
        add_glass_table(b, T, (length, 0.9, 0.74))
    else:
        fu.add_table(b, T, (length, 0.9, 0.74), material, leg=rng.uniform(0.045, 0.08))
    kind = pick(rng, ("legs", "legs", "padded", "shell", "stool"))
    chair = material if kind in ("legs", "stool") else bright(rng)
    for i in range(seats):
        if seats <= 3:
            angle = 2 * np.pi * i / seats + rng.uniform(-0.2, 0.2)
            at = place(0, 0, angle) @ place(0, -0.62 - rng.uniform(0, 0.25))
        else:
            side = 1 if i % 2 else -1
            x = (i // 2 - (seats // 2 - 1) / 2) * 0.65
            at = place(x, side * (0.52 + rng.uniform(0, 0.3)), 0.0 if side < 0 else np.pi)
        add_chair(b, T @ at @ place(0, 0, rng.uniform(-0.25, 0.25)), rng, kind, chair)
    for _ in range(int(rng.integers(1, 4))):
        add_tableware(b, T @ place(rng.uniform(-0.3, 0.3) * length, rng.uniform(-0.2, 0.2), z=0.74), rng)


def add_tableware(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Put something that belongs on a table at the origin: a vase, a bowl of fruit, a mug, books or a laptop."""
    kind = int(rng.integers(5))
    if kind == 0:
        b.cone(T, (0, 0, 0), (0.05, 0.07), 0.22, bright(rng))
        for i in range(4):
            turn = rotation("z", 1.7 * i) @ rotation("y", 0.3)
            b.ellipsoid(T, turn @ [0, 0, 0.36], (0.035, 0.035, 0.12), fu.LEAF, turn=turn)
    elif kind == 1:
        b.cone(T, (0, 0, 0), (0.07, 0.15), 0.08, fu.WHITE)
        for i in range(3):
            b.ellipsoid(
                T,
                (0.05 * np.cos(2 * i), 0.05 * np.sin(2 * i), 0.1),
                (0.045, 0.045, 0.045),
                Material("vary", (0.85, 0.3, 0.1), (0.5, 0.7, 0.2)),
            )
    elif kind == 2:
        b.cone(T, (0, 0, 0), (0.035, 0.04), 0.1, bright(rng))
    elif kind == 3:
        for i in range(3):
            b.box(
                T, (0, 0, 0.015 + 0.03 * i), (0.26 - 0.02 * i, 0.19, 0.028), fu.BOOKS[i], turn=rotation("z", rng.uniform(-0.4, 0.4))
            )
    else:
        b.box(T, (0, 0, 0.01), (0.34, 0.24, 0.018), fu.STEEL)
        b.box(T, (0, -0.15, 0.12), (0.34, 0.012, 0.23), fu.BLACK, turn=rotation("x", 0.25))
