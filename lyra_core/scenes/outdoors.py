"""What stands outdoors: cars and vans, trees, hedges, lamps, signs, bollards, bins, bicycles, cafe tables, and the sun."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import furniture as fu
from lyra_core.scenes import seating
from lyra_core.scenes.palette import BRIGHT, bright, pick
from lyra_core.scenes.scene import Light, Material, SceneBuilder, Sky, place, rotation
from lyra_core.types import Label

BARK = Material("mottled", (0.32, 0.26, 0.2), (0.42, 0.36, 0.28), scale=0.1)
GREENS = (
    ((0.18, 0.32, 0.12), (0.36, 0.48, 0.2)),
    ((0.22, 0.3, 0.1), (0.45, 0.5, 0.2)),
    ((0.5, 0.34, 0.12), (0.7, 0.5, 0.2)),
    ((0.14, 0.26, 0.16), (0.26, 0.4, 0.26)),
)
PAINTS = (
    (0.6, 0.1, 0.1),
    (0.15, 0.22, 0.36),
    (0.75, 0.75, 0.76),
    (0.1, 0.1, 0.11),
    (0.85, 0.84, 0.8),
    (0.35, 0.37, 0.39),
    (0.2, 0.35, 0.3),
    (0.8, 0.6, 0.2),
)
TUBS = (
    Material("concrete", (0.66, 0.65, 0.62), (0.54, 0.53, 0.5), scale=2.0),
    Material("wood", (0.5, 0.36, 0.24), (0.36, 0.25, 0.16)),
    Material("bricks", (0.6, 0.34, 0.26), (0.75, 0.72, 0.66), scale=0.22),
    Material("plain", (0.28, 0.3, 0.31)),
)
BICYCLE = (
    ((-0.52, 0.34), (-0.08, 0.3)), ((-0.08, 0.3), (-0.2, 0.85)), ((-0.08, 0.3), (0.36, 0.82)), ((-0.2, 0.8), (0.36, 0.82)),
    ((-0.52, 0.34), (-0.2, 0.8)), ((0.52, 0.34), (0.33, 0.98)),
)  # fmt: skip
"""Tubes of the frame: ends as x, z [m]."""
CAR_GLASS = Material("plain", (0.08, 0.1, 0.12), gloss=0.15, roughness=0.03)


def add_daylight(b: SceneBuilder, rng: np.random.Generator) -> tuple[Sky, tuple[float, float, float], str]:
    """Add the sun unless the sky is covered; return the sky, the ambient term and a tag."""
    if rng.random() < 0.3:
        grey = rng.uniform(0.55, 0.9)
        sky = Sky(
            zenith=(0.8 * grey, 0.84 * grey, 0.9 * grey),
            horizon=(grey, grey, grey),
            strength=1.2,
            trees=rng.uniform(0, 0.15),
            ground=(0.24, 0.26, 0.2),
        )
        return sky, (0.34, 0.35, 0.36), "overcast"
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.25, 1.8)
    low = float(np.clip((0.8 - height) / 0.6, 0, 1))
    colour = (4.8, 4.3 - 0.9 * low, 3.6 - 1.7 * low)
    b.lights.append(Light("sun", (float(np.cos(azimuth)), float(np.sin(azimuth)), height), colour, radius=0.006))
    blue = rng.uniform(0.7, 1.0)
    sky = Sky(zenith=(0.32 / blue, 0.52, 0.95 * blue), strength=1.0, trees=rng.uniform(0, 0.18), ground=(0.24, 0.26, 0.2))
    return sky, (0.16, 0.17, 0.19), "low_sun" if low > 0.4 else "sunny"


def add_car(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a car or a van along x, 4.2 to 5 m long."""
    paint, van = Material("plain", pick(rng, PAINTS), gloss=0.09, roughness=0.05), rng.random() < 0.2
    if van:
        b.box(T, (-0.3, 0, 1.15), (4.4, 1.9, 1.8), paint, rounding=0.18)
        b.box(T, (1.95, 0, 0.75), (1.2, 1.86, 0.9), paint, rounding=0.2)
        b.box(T, (1.75, 0, 1.4), (0.9, 1.7, 0.75), CAR_GLASS, rounding=0.2)
    else:
        b.box(T, (0, 0, 0.54), (4.2, 1.74, 0.5), paint, rounding=0.2)
        b.box(T, (-0.2, 0, 0.7), (3.7, 1.66, 0.4), paint, rounding=0.19)
        b.ellipsoid(T, (-0.3, 0, 0.78), (1.5, 0.77, 0.68), CAR_GLASS)
        b.ellipsoid(T, (-0.35, 0, 0.78), (1.16, 0.68, 0.71), paint)
        for x in (-0.25, -1.15):
            b.box(T, (x, 0, 1.06), (0.07, 1.47, 0.6), paint, rounding=0.03)
    front, half = (2.54, 0.85) if van else (2.08, 0.78)
    for y in (-0.6, 0.6):
        b.box(T, (front, y, 0.66), (0.06, 0.36, 0.14), Material("plain", (0.9, 0.9, 0.86), gloss=0.2), rounding=0.025)
        b.box(
            T,
            (-front + (0.05 if van else 0), y, 0.7),
            (0.06, 0.3, 0.14),
            Material("plain", (0.6, 0.06, 0.05), gloss=0.1),
            rounding=0.025,
        )
    for x in (front + 0.02, -front - 0.02):
        b.box(T, (x, 0, 0.45), (0.02, 0.5, 0.11), fu.WHITE)
    for x in (-1.3, 1.3):
        for y in (-half, half):
            b.cone(T, (x, y + 0.1, 0.31), (0.31, 0.31), 0.2, fu.BLACK, turn=rotation("x", np.pi / 2))
            b.cone(T, (x, y + 0.106, 0.31), (0.19, 0.19), 0.212, fu.STEEL, turn=rotation("x", np.pi / 2))


def add_tree(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, blobs: int = 10) -> None:
    """Add a tree: round, slender or bare-stemmed."""
    crown = Material("foliage", *pick(rng, GREENS), scale=0.3)
    if rng.random() < 0.2:
        height = rng.uniform(3, 6)
        b.cone(T, (0, 0, 0), (0.12, 0.1), 0.6, BARK)
        for i in range(3):
            b.cone(T, (0, 0, 0.4 + 0.3 * i * height), (0.24 * height * (1 - 0.25 * i), 0.03), 0.42 * height, crown)
        return
    trunk, spread = rng.uniform(1.8, 3.0), rng.uniform(0.9, 1.8)
    b.cone(T, (0, 0, 0), (0.09 * spread + 0.05, 0.06 * spread), trunk + 0.8 * spread, BARK)
    for i in range(blobs):
        up = i / (blobs - 1)
        out = rotation("z", 2.4 * i) @ [spread * rng.uniform(0.5, 0.75) * np.sqrt(up * (1 - up) * 3) * (i > 0), 0, 0]
        r = spread * rng.uniform(0.42, 0.6)
        b.ellipsoid(
            T,
            (out[0], out[1], trunk + spread * (0.35 + 1.5 * up)),
            (r, r * rng.uniform(0.8, 1.1), 0.8 * r),
            crown,
            turn=rotation("x", rng.uniform(-0.4, 0.4)),
        )


def add_hedge(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, length: float) -> None:
    """Add a clipped hedge along x with a few shoots."""
    material, h = Material("foliage", *pick(rng, GREENS), scale=0.12), rng.uniform(0.6, 1.2)
    b.box(T, (0, 0, h / 2), (length, 0.5, h), material, rounding=0.12)
    for _ in range(3):
        r = rng.uniform(0.15, 0.26)
        b.ellipsoid(T, (rng.uniform(-0.45, 0.45) * length, 0, h - 0.05), (1.4 * r, r, 0.7 * r), material)


def add_planter(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, length: float = 1.4) -> None:
    """Add a raised bed or tub with shrubs; it is an obstacle."""
    wall = pick(rng, TUBS)
    h, green = rng.uniform(0.35, 0.7), Material("foliage", *pick(rng, GREENS), scale=0.1)
    b.box(T, (0, 0, h / 2), (length, 0.7, h), wall, rounding=0.01)
    b.box(T, (0, 0, h), (length - 0.12, 0.58, 0.02), fu.SOIL)
    for i in range(max(2, int(length / 0.4))):
        x, r = (i + 0.5) * 0.9 * length / max(2, int(length / 0.4)) - 0.45 * length, rng.uniform(0.2, 0.34)
        b.ellipsoid(T, (x, rng.uniform(-0.08, 0.08), h + 0.6 * r), (r, r * 0.8, r * rng.uniform(0.7, 1.3)), green)
        if rng.random() < 0.5:
            b.ellipsoid(T, (x, 0.12, h + 1.15 * r), (0.07, 0.07, 0.05), bright(rng))


def add_lamp_post(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a street lamp: an arm over the road, or a lantern."""
    if rng.random() < 0.5:
        b.cone(T, (0, 0, 0), (0.08, 0.05), 4.8, fu.STEEL)
        b.box(T, (0.5, 0, 4.78), (1.1, 0.06, 0.05), fu.STEEL)
        b.box(T, (0.95, 0, 4.72), (0.5, 0.18, 0.08), fu.STEEL, rounding=0.03)
    else:
        b.cone(T, (0, 0, 0), (0.11, 0.05), 0.7, fu.BLACK)
        b.cone(T, (0, 0, 0.6), (0.045, 0.04), 2.6, fu.BLACK)
        b.cone(T, (0, 0, 3.2), (0.1, 0.17), 0.35, Material("plain", (0.9, 0.88, 0.8), gloss=0.1))
        b.cone(T, (0, 0, 3.55), (0.2, 0.03), 0.14, fu.BLACK)


def add_sign(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a road sign that faces -x."""
    b.cone(T, (0, 0, 0), (0.03, 0.03), 2.6, fu.STEEL)
    face, turn = Material("plain", pick(rng, ((0.8, 0.1, 0.1), (0.1, 0.25, 0.65), (0.95, 0.95, 0.92)))), rotation("y", np.pi / 2)
    if rng.random() < 0.6:
        b.cone(T, (-0.05, 0, 2.3), (0.3, 0.3), 0.02, face, turn=turn)
        b.cone(T, (-0.056, 0, 2.3), (0.22, 0.22), 0.02, fu.WHITE, turn=turn)
    else:
        b.box(T, (-0.04, 0, 2.3), (0.02, 0.6, 0.6), face)
        b.box(T, (-0.052, 0, 2.3), (0.004, 0.4, 0.2), fu.WHITE)


def add_street_bin(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a wheeled refuse bin or a litter bin."""
    material = Material("plain", pick(rng, ((0.15, 0.3, 0.2), (0.2, 0.22, 0.25), (0.15, 0.25, 0.45), (0.75, 0.6, 0.1))), gloss=0.02)
    if rng.random() < 0.6:
        b.box(T, (0, 0, 0.55), (0.55, 0.6, 0.95), material, rounding=0.03)
        b.box(T, (0, 0.02, 1.05), (0.6, 0.68, 0.07), material, rounding=0.02, turn=rotation("x", -0.06))
        for x in (-0.24, 0.2):
            b.cone(T, (x, -0.27, 0.1), (0.1, 0.1), 0.05, fu.BLACK, turn=rotation("y", np.pi / 2))
    else:
        b.cone(T, (0, 0, 0), (0.2, 0.24), 0.8, material)
        b.cone(T, (0, 0, 0.8), (0.25, 0.2), 0.08, fu.STEEL)


def add_bollards(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a row of bollards along x."""
    stone, count = (
        pick(rng, (fu.STEEL, fu.BLACK, Material("concrete", (0.6, 0.6, 0.58), (0.5, 0.5, 0.48), scale=3))),
        int(rng.integers(3, 6)),
    )
    for i in range(count):
        b.cone(T, (1.4 * (i - (count - 1) / 2), 0, 0), (0.08, 0.07), 0.85, stone)
        b.ellipsoid(T, (1.4 * (i - (count - 1) / 2), 0, 0.86), (0.075, 0.075, 0.06), stone)


def add_bicycle(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a parked bicycle along x; its wheels are rims of short rods, so that one sees through them."""
    frame = bright(rng)
    for cx in (-0.52, 0.52):
        for i in range(10):
            a = 2 * np.pi * i / 10
            at = (cx + 0.32 * np.cos(a), 0, 0.34 + 0.32 * np.sin(a))
            b.box(T, at, (0.025, 0.03, 0.212), fu.BLACK, turn=rotation("y", -a))
    for (x0, z0), (x1, z1) in BICYCLE:
        length, angle = float(np.hypot(x1 - x0, z1 - z0)), np.arctan2(x1 - x0, z1 - z0)
        b.box(T, ((x0 + x1) / 2, 0, (z0 + z1) / 2), (0.035, 0.035, length), frame, turn=rotation("y", angle), rounding=0.016)
    b.box(T, (-0.22, 0, 0.92), (0.26, 0.14, 0.06), fu.BLACK, rounding=0.025)
    b.box(T, (0.33, 0, 1.0), (0.05, 0.52, 0.03), fu.STEEL, rounding=0.014)


def add_cafe_table(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a round table with two or three chairs, perhaps under a parasol."""
    seating.add_round_table(b, T, radius=0.36, height=0.74, top=pick(rng, (fu.WHITE, fu.OAK, fu.BLACK)), leg=fu.BLACK)
    colour = bright(rng)
    for i in range(int(rng.integers(2, 4))):
        at = T @ place(0, 0, 2 * np.pi * i / 3 + rng.uniform(-0.3, 0.3)) @ place(0, -0.66)
        seating.add_chair(b, at, rng, pick(rng, ("legs", "shell")), colour)
    if rng.random() < 0.5:
        b.cone(T, (0, 0, 0), (0.025, 0.025), 2.4, fu.OAK)
        b.cone(T, (0, 0, 2.1), (1.3, 0.05), 0.45, Material("plain", pick(rng, BRIGHT + ((0.9, 0.86, 0.76),))))


def add_zebra(b: SceneBuilder, T: np.ndarray, width: float, length: float, z: float) -> None:
    """Paint a crossing of width along y; it counts as floor."""
    stripes = Material("stripes", (0.88, 0.88, 0.85), (0.34, 0.34, 0.35), scale=1.0)
    b.box(T, (0, 0, z + 0.0005), (width, length, 0.001), stripes, label=Label.FLOOR, turn=rotation("z", np.pi / 2))
