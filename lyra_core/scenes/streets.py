"""Seeded outdoor scene: a street between house fronts."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes.furniture import BLACK, STEEL
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, Sky, place, rotation
from lyra_core.scenes.shell import add_facade, add_stairs
from lyra_core.types import Label

ASPHALT = Material("mottled", (0.3, 0.3, 0.31), (0.4, 0.4, 0.4), scale=1.2, space="world")
PAVING = Material("tiles", (0.62, 0.6, 0.57), (0.45, 0.44, 0.42), scale=0.5, space="world")
GRASS = Material("mottled", (0.24, 0.34, 0.14), (0.36, 0.44, 0.2), scale=0.8, space="world")
KERB = Material("mottled", (0.6, 0.6, 0.58), (0.7, 0.7, 0.68), scale=0.3)
BARK = Material("mottled", (0.32, 0.26, 0.2), (0.42, 0.36, 0.28), scale=0.1)
CROWN = Material("leaf", (0.18, 0.32, 0.12), (0.36, 0.48, 0.2), scale=0.25)
FACADES = ((0.66, 0.36, 0.28), (0.78, 0.7, 0.56), (0.7, 0.62, 0.52), (0.6, 0.46, 0.38), (0.82, 0.78, 0.72))


def street(rng: np.random.Generator) -> Scene:
    """Make a street 60 m long with kerbs, house fronts, trees, cars and lamps; the camera stands on the roadway."""
    b = SceneBuilder()
    road, walk = rng.uniform(3.0, 4.2), rng.uniform(2.0, 3.2)
    front = road + walk
    b.box(np.eye(4), (20, 0, -0.5), (400, 400, 1.0), GRASS, label=Label.FLOOR)
    b.box(np.eye(4), (30, 0, 0.0), (120, 2 * road, 0.02), ASPHALT, label=Label.FLOOR)
    for side in (-1, 1):
        b.box(np.eye(4), (30, side * (road + walk / 2), 0.06), (120, walk, 0.12), PAVING, label=Label.FLOOR)
        b.box(np.eye(4), (30, side * (road + 0.07), 0.065), (120, 0.14, 0.14), KERB, label=Label.FLOOR)
        _add_row(b, rng, side, front)
        for x in np.arange(rng.uniform(4, 8), 55, rng.uniform(8, 12)):
            add_tree(b, place(x, side * (road + 0.7), z=0.12), rng)
        for x in np.arange(rng.uniform(8, 14), 55, rng.uniform(9, 18)):
            add_car(b, place(x, side * (road - 1.05), 0.0 if side > 0 else np.pi), rng)
        add_lamp_post(b, place(rng.uniform(9, 16), side * (road + 0.4), side * -np.pi / 2, 0.12))
    for x in np.arange(-6, 60, 6.0):
        b.box(np.eye(4), (x, 0, 0.0115), (2.4, 0.12, 0.001), Material("plain", (0.85, 0.85, 0.82)), label=Label.FLOOR)
    azimuth, height = rng.uniform(-2.5, 2.5), rng.uniform(0.6, 1.4)
    b.lights.append(Light("sun", (float(np.cos(azimuth)), float(np.sin(azimuth)), height), (4.6, 4.2, 3.5), radius=0.01))
    sky = Sky(strength=1.0, trees=0.12, ground=(0.24, 0.26, 0.2))
    return b.build(sky=sky, ambient=(0.16, 0.17, 0.18), walkable=(-3.0, -1.0, 30.0, 1.0))


def _add_row(b: SceneBuilder, rng: np.random.Generator, side: int, front: float) -> None:
    x = -14.0
    while x < 58:
        width = rng.uniform(7, 13)
        colour = FACADES[int(rng.integers(len(FACADES)))]
        pattern = "bricks" if rng.random() < 0.5 else "plaster"
        wall = Material(pattern, colour, (0.78, 0.75, 0.7) if pattern == "bricks" else tuple(0.9 * c for c in colour), scale=0.24)
        T = place(x + width / 2, side * (front + rng.uniform(0, 0.4)), 0.0 if side < 0 else np.pi, 0.06)
        add_facade(b, T, width=width, floors=int(rng.integers(2, 5)), bays=max(2, round(width / 2.6)), wall=wall, rng=rng)
        if rng.random() < 0.3:
            add_stairs(b, T @ place(width / 2 - 0.8, 0.9, np.pi, 0.06), steps=3, width=1.2, material=KERB)
        x += width + (0.0 if rng.random() < 0.8 else 2.5)


def add_tree(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a trunk with a crown of overlapping blobs."""
    trunk, spread = rng.uniform(1.9, 2.6), rng.uniform(1.0, 1.6)
    b.cone(T, (0, 0, 0), (0.16, 0.11), trunk + 0.8, BARK)
    for i in range(9):
        out = rotation("z", 2.4 * i) @ [spread * 0.55 * (i > 0), 0, 0]
        radius = spread * rng.uniform(0.45, 0.7)
        b.ellipsoid(T, (out[0], out[1], trunk + spread * rng.uniform(0.5, 1.5)), (radius, radius, 0.85 * radius), CROWN)


def add_car(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a parked car, 4.2 m long, along x."""
    colour = ((0.6, 0.1, 0.1), (0.15, 0.22, 0.36), (0.75, 0.75, 0.76), (0.1, 0.1, 0.11), (0.85, 0.84, 0.8))[int(rng.integers(5))]
    paint, glass = (
        Material("plain", colour, gloss=0.1, roughness=0.05),
        Material("plain", (0.08, 0.1, 0.12), gloss=0.15, roughness=0.03),
    )
    b.box(T, (0, 0, 0.58), (4.2, 1.75, 0.6), paint, rounding=0.2)
    b.box(T, (-0.15, 0, 1.08), (2.3, 1.55, 0.66), glass, rounding=0.25)
    b.box(T, (-0.15, 0, 1.4), (1.7, 1.4, 0.06), paint, rounding=0.029)
    for x in (-1.3, 1.3):
        for y in (-0.8, 0.8):
            b.cone(T, (x, y + 0.1, 0.32), (0.32, 0.32), 0.2, BLACK, turn=rotation("x", np.pi / 2))


def add_lamp_post(b: SceneBuilder, T: np.ndarray) -> None:
    """Add a street lamp whose arm reaches along +x."""
    b.cone(T, (0, 0, 0), (0.08, 0.05), 4.6, STEEL)
    b.box(T, (0.5, 0, 4.58), (1.1, 0.06, 0.05), STEEL)
    b.box(T, (0.95, 0, 4.52), (0.5, 0.18, 0.08), STEEL, rounding=0.03)
