"""Boxes, bags, toys, balls, shoes, cables, books, bins, small plants, and people. The origin is on the floor."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import BRIGHT, FABRICS, bright, fabric, pick, shade
from lyra_core.scenes.plan import Plan
from lyra_core.scenes.scene import Material, SceneBuilder, place, rotation

KRAFT = Material("carton", (0.72, 0.55, 0.37), (0.82, 0.72, 0.52))
WICKER = Material("fabric", (0.7, 0.56, 0.38), (0.5, 0.38, 0.24), scale=0.04)
SKINS = ((0.9, 0.72, 0.6), (0.62, 0.44, 0.33), (0.4, 0.27, 0.2))


def nudge(rng: np.random.Generator, reach: float, turn: float) -> np.ndarray:
    """Return a frame (4, 4) off the origin by at most reach [m] along x and y, and turned by at most turn [rad]."""
    return place(rng.uniform(-reach, reach), rng.uniform(-reach, reach), rng.uniform(-turn, turn))


def add_carton(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, size: float = 0.4) -> None:
    """Add one to three cardboard boxes, stacked; the top one may stand open."""
    z, w = 0.0, size * rng.uniform(0.8, 1.3)
    for i in range(1 + int(rng.random() < 0.4) + int(rng.random() < 0.15)):
        d, h = w * rng.uniform(0.6, 0.95), size * rng.uniform(0.5, 0.9)
        b.box(T @ nudge(rng, 0.03, 0.2), (0, 0, z + h / 2), (w, d, h), KRAFT)
        z, w = z + h, w * rng.uniform(0.7, 0.95)
        if i == 0 and rng.random() < 0.25:
            for s in (-1, 1):
                b.box(T, (0, s * (d / 2 + 0.07), z - 0.02), (w, 0.17, 0.006), KRAFT, turn=rotation("x", -0.5 * s))
            break


def add_bag(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a rucksack or a shopping bag with handles."""
    cloth = pick(rng, (fabric(rng), bright(rng)))
    if rng.random() < 0.5:
        b.box(T, (0, 0, 0.23), (0.32, 0.2, 0.46), cloth, rounding=0.09, turn=rotation("x", rng.uniform(-0.15, 0.15)))
        b.box(T, (0, 0.11, 0.15), (0.24, 0.1, 0.22), cloth, rounding=0.045)
        for x in (-0.09, 0.09):
            b.box(T, (x, -0.11, 0.28), (0.05, 0.02, 0.34), fu.BLACK, rounding=0.009)
    else:
        b.box(T, (0, 0, 0.18), (0.36, 0.15, 0.36), cloth, rounding=0.02)
        for y in (-0.05, 0.05):
            b.box(T, (-0.07, y, 0.43), (0.015, 0.01, 0.16), fu.BLACK)
            b.box(T, (0.07, y, 0.43), (0.015, 0.01, 0.16), fu.BLACK)
            b.box(T, (0, y, 0.51), (0.155, 0.01, 0.015), fu.BLACK)


def add_toys(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a handful of building blocks, a ball, a toy car or a teddy bear."""
    kind = int(rng.integers(4))
    if kind == 0:
        for _ in range(int(rng.integers(4, 9))):
            s, material = rng.uniform(0.035, 0.07), Material("plain", pick(rng, BRIGHT), gloss=0.03)
            b.box(T @ nudge(rng, 0.28, 3.0), (0, 0, s / 2), (s, s * rng.choice([1, 2]), s), material)
    elif kind == 1:
        r = rng.uniform(0.08, 0.16)
        b.ellipsoid(T, (0, 0, r), (r, r, r), Material("stripes", pick(rng, BRIGHT), pick(rng, BRIGHT), scale=r))
    elif kind == 2:
        paint = bright(rng)
        b.box(T, (0, 0, 0.09), (0.34, 0.16, 0.08), paint, rounding=0.03)
        b.box(T, (-0.02, 0, 0.15), (0.17, 0.13, 0.08), shaded(paint), rounding=0.03)
        for x in (-0.1, 0.1):
            for y in (-0.09, 0.06):
                b.cone(T, (x, y + 0.03, 0.045), (0.045, 0.045), 0.03, fu.BLACK, turn=rotation("x", np.pi / 2))
    else:
        fur = Material("mottled", (0.62, 0.44, 0.28), (0.72, 0.54, 0.36), scale=0.05)
        b.ellipsoid(T, (0, 0, 0.13), (0.12, 0.12, 0.13), fur)
        b.ellipsoid(T, (0, 0.01, 0.31), (0.09, 0.09, 0.09), fur)
        for x in (-1, 1):
            for at, r in (((0.07 * x, 0, 0.39), 0.03), ((0.11 * x, 0.1, 0.06), 0.06), ((0.13 * x, 0.04, 0.2), 0.045)):
                b.ellipsoid(T, at, (r, r, r), fur)


def shaded(material: Material) -> Material:
    """Return a darker plain material of the same hue."""
    return Material("plain", shade(material.colour, 0.6), gloss=0.05)


def add_shoes(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a pair of shoes, not quite parallel."""
    material = pick(rng, (bright(rng), fu.BLACK, Material("plain", (0.4, 0.26, 0.16))))
    for x in (-0.07, 0.08):
        at = T @ place(x, rng.uniform(-0.06, 0.06), rng.uniform(-0.3, 0.3))
        b.box(at, (0, 0, 0.025), (0.1, 0.28, 0.05), fu.WHITE, rounding=0.024)
        b.ellipsoid(at, (0, 0.03, 0.045), (0.045, 0.12, 0.05), material)
        b.box(at, (0, -0.08, 0.075), (0.085, 0.11, 0.09), material, rounding=0.03)


def add_cable(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, length: float = 1.4) -> None:
    """Lay a cable with a socket strip on the floor; 8 mm thick, labelled as an obstacle."""
    at, yaw, step = np.zeros(2), rng.uniform(0, 6), 0.2
    material = pick(rng, (fu.BLACK, fu.WHITE))
    b.box(T @ place(0, 0, yaw), (-0.14, 0, 0.02), (0.28, 0.055, 0.04), fu.WHITE, rounding=0.008)
    for _ in range(int(length / step)):
        yaw += rng.uniform(-0.5, 0.5)
        b.box(T @ place(float(at[0]), float(at[1]), yaw), (step / 2, 0, 0.004), (step + 0.008, 0.008, 0.008), material)
        at = at + step * np.array([np.cos(yaw), np.sin(yaw)])


def add_bin(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a waste-paper bin, a bucket or a laundry basket."""
    r = rng.uniform(0.11, 0.22)
    b.cone(T, (0, 0, 0), (0.8 * r, r), 2.1 * r, pick(rng, (fu.BLACK, fu.STEEL, bright(rng), WICKER)))
    b.cone(T, (0, 0, 2.1 * r - 0.005), (0.9 * r, 0.9 * r), 0.006, Material("plain", (0.08, 0.08, 0.08)))
    if rng.random() < 0.5:
        b.ellipsoid(T, (0, 0, 2.1 * r), (0.75 * r, 0.7 * r, 0.35 * r), pick(rng, (fabric(rng), fu.WHITE)))


def add_books(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Pile books or magazines on the floor."""
    z = 0.0
    for _ in range(int(rng.integers(2, 7))):
        h = rng.uniform(0.012, 0.045)
        b.box(
            T @ place(0, 0, rng.uniform(-0.4, 0.4)),
            (0, 0, z + h / 2),
            (rng.uniform(0.2, 0.3), 0.2, 0.96 * h),
            fu.BOOKS[int(rng.integers(3))],
        )
        z += h


def add_pouf(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a pouf, a cushion on the floor or a disc-shaped robot cleaner."""
    kind = int(rng.integers(3))
    if kind == 0:
        b.box(T, (0, 0, 0.19), (0.5, 0.5, 0.38), fabric(rng), rounding=0.14)
    elif kind == 1:
        b.box(T, (0, 0, 0.08), (0.5, 0.5, 0.16), fabric(rng), rounding=0.075)
    else:
        b.cone(T, (0, 0, 0.01), (0.17, 0.165), 0.08, pick(rng, (fu.WHITE, fu.BLACK)))
        b.cone(T, (0.06, 0, 0.09), (0.05, 0.045), 0.015, fu.BLACK)


def add_small_plant(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a potted plant of few leaves."""
    pot = pick(rng, ((0.86, 0.84, 0.8), (0.72, 0.42, 0.3), (0.3, 0.32, 0.34)))
    fu.add_plant(b, T, rng, height=rng.uniform(0.6, 1.3), leaves=int(rng.integers(14, 26)), pot=pot)


def add_person(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a standing or walking figure 1.55-1.9 m tall."""
    s, skin = rng.uniform(0.88, 1.08), Material("plain", pick(rng, SKINS))
    top = pick(rng, (fabric(rng), bright(rng)))
    legs = Material("fabric", pick(rng, (*FABRICS[5:], (0.15, 0.18, 0.28))), (0.1, 0.1, 0.12), scale=0.01)
    hair = Material("mottled", pick(rng, ((0.1, 0.08, 0.06), (0.4, 0.28, 0.16), (0.6, 0.58, 0.55))), (0.2, 0.15, 0.1), scale=0.03)
    stride, swing = rng.uniform(0, 0.3), rng.uniform(0.05, 0.3)
    for x, sign in ((-0.09, 1), (0.09, -1)):
        turn = rotation("x", sign * stride)
        hip = np.array([x, 0, 0.88]) * s
        foot = hip - turn @ [0, 0, 0.84 * s]
        b.cone(T, foot, (0.055 * s, 0.085 * s), 0.84 * s, legs, turn=turn)
        b.box(T, (foot[0], foot[1] + 0.05, max(foot[2], 0.03)), (0.09, 0.26, 0.08), fu.BLACK, rounding=0.035)
        shoulder, arm = np.array([2.4 * x, 0, 1.42]) * s, rotation("x", -sign * swing) @ rotation("y", -0.12 * np.sign(x))
        b.cone(T, shoulder - arm @ [0, 0, 0.6 * s], (0.035 * s, 0.055 * s), 0.62 * s, top, turn=arm)
        b.ellipsoid(T, shoulder - arm @ [0, 0, 0.64 * s], (0.04, 0.045, 0.06), skin)
    b.box(T, (0, 0, 1.17 * s), (0.4 * s, 0.24 * s, 0.62 * s), top, rounding=0.11 * s)
    b.cone(T, (0, 0, 1.44 * s), (0.06 * s, 0.05 * s), 0.12 * s, skin)
    b.ellipsoid(T, (0, 0.01, 1.64 * s), (0.085 * s, 0.1 * s, 0.125 * s), skin)
    b.ellipsoid(T, (0, -0.015, 1.675 * s), (0.095 * s, 0.105 * s, 0.11 * s), hair)


MOST = 340
"""No more clutter in scenes of more solids."""
HOME = (add_toys, add_toys, add_bag, add_shoes, add_books, add_pouf, add_bin, add_cable, add_carton, add_small_plant)
WORK = (add_bag, add_bin, add_carton, add_carton, add_cable, add_small_plant, add_bin)
SIZES = {
    add_toys: 0.6, add_bag: 0.36, add_shoes: 0.36, add_books: 0.3, add_pouf: 0.5, add_bin: 0.4, add_cable: 0.3, add_carton: 0.5,
    add_small_plant: 0.45, add_person: 0.6,
}  # fmt: skip
"""Side of the square that each takes [m]."""


def scatter(b: SceneBuilder, plan: Plan, rng: np.random.Generator, count: int, *, kinds=HOME) -> None:
    """Put count things on free places of a floor plan (fewer where there is no room)."""
    for _ in range(count):
        if len(b.rows) > MOST:
            return
        add = pick(rng, kinds)
        T = plan.free(rng, SIZES[add], SIZES[add], tries=6)
        if T is not None:
            add(b, T, rng)
