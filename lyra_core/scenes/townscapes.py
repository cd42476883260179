"""Seeded streets: roadway, kerbs, pavements, house fronts with shops, parked cars, trees, signs and people."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import clutter, outdoors, seating, shell
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.corridors import add_ramp
from lyra_core.scenes.palette import BRIGHT, bright, pick, shade
from lyra_core.scenes.scene import Material, Scene, SceneBuilder, place, rotation
from lyra_core.types import Label

FACADES = (
    (0.66, 0.36, 0.28),
    (0.78, 0.7, 0.56),
    (0.7, 0.62, 0.52),
    (0.6, 0.46, 0.38),
    (0.82, 0.78, 0.72),
    (0.62, 0.66, 0.68),
    (0.8, 0.62, 0.5),
    (0.85, 0.82, 0.62),
)
GLASS = Material("vary", (0.1, 0.13, 0.16), (0.2, 0.25, 0.28), gloss=0.1, roughness=0.02)
GRASS = Material("mottled", (0.24, 0.34, 0.14), (0.36, 0.44, 0.2), scale=0.8, space="world")


def ground_material(rng: np.random.Generator, *, road: bool) -> Material:
    """Return asphalt, setts, slabs, gravel or concrete."""
    grey = rng.uniform(0.28, 0.42)
    asphalt = Material(
        "mottled", (grey, grey, 1.02 * grey), shade((grey, grey, grey), 1.3), scale=rng.uniform(0.7, 2), space="world"
    )
    tone = pick(rng, ((0.62, 0.6, 0.57), (0.55, 0.55, 0.55), (0.68, 0.6, 0.5), (0.5, 0.44, 0.4)))
    setts = Material("bricks", shade(tone, 0.85), shade(tone, 0.6), scale=rng.uniform(0.16, 0.26), space="world")
    slabs = Material("tiles", tone, shade(tone, 0.7), scale=rng.uniform(0.3, 0.7), space="world")
    concrete = Material("concrete", tone, shade(tone, 0.78), scale=rng.uniform(2, 4), space="world")
    gravel = Material("mottled", shade(tone, 1.1), shade(tone, 0.8), scale=0.15, space="world")
    return pick(rng, (asphalt, asphalt, asphalt, setts, concrete) if road else (slabs, slabs, setts, concrete, gravel, asphalt))


def street(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make a street along x, seen from the pavement or the roadway; return it with its tags."""
    b, tags = SceneBuilder(), ["street"]
    road, walk, kerb = rng.uniform(2.4, 4.2), rng.uniform(1.8, 4.0), float(rng.choice([0.0, 0.08, 0.12, 0.14]))
    asphalt, paving = ground_material(rng, road=True), ground_material(rng, road=False)
    b.box(np.eye(4), (20, 0, -0.51), (400, 400, 1.0), GRASS, label=Label.FLOOR)
    b.box(np.eye(4), (20, 0, -0.05), (140, 2 * road, 0.1), asphalt, label=Label.FLOOR)
    for side in (-1, 1):
        y = side * (road + walk / 2)
        b.box(np.eye(4), (20, y, kerb / 2 - 0.05), (140, walk, kerb + 0.1), paving, label=Label.FLOOR)
        b.box(
            np.eye(4),
            (20, side * (road + 0.07), kerb / 2 - 0.049),
            (140, 0.14, kerb + 0.102),
            Material("concrete", (0.66, 0.66, 0.64), (0.56, 0.56, 0.54), scale=1.0),
            label=Label.FLOOR,
        )
        _houses(b, rng, side, road + walk, kerb, tags)
        _pavement(b, rng, side, road, walk, kerb, tags)
    if rng.random() < 0.6:
        for x in np.arange(-12, 34, 6.0):
            b.box(np.eye(4), (x, 0, 0.0005), (2.4, 0.12, 0.001), Material("plain", (0.85, 0.85, 0.82)), label=Label.FLOOR)
    if rng.random() < 0.35:
        outdoors.add_zebra(b, place(rng.uniform(3, 9), 0), 2 * road - 0.4, 3.0, 0.0)
        tags.append("crossing")
    sky, ambient, light = outdoors.add_daylight(b, rng)
    on_road = rng.random() < 0.4
    lane = (
        (-0.8, 0.8) if on_road else ((road + 0.3, road + walk - 0.4) if rng.random() < 0.5 else (-road - walk + 0.4, -road - 0.3))
    )
    tags += [light, "kerb" if kerb else "level"]
    return b.build(sky=sky, ambient=ambient, walkable=(-6.0, lane[0], 8.0, lane[1])), tags


def _houses(b: SceneBuilder, rng: np.random.Generator, side: int, front: float, kerb: float, tags: list[str]) -> None:
    """Line one side with house fronts from x = -20 to 40; those near the camera's places get doors, steps and shops."""
    x, turn = -20.0 + rng.uniform(0, 4), 0.0 if side < 0 else np.pi
    while x < 40:
        width, storeys = rng.uniform(6, 13), int(rng.integers(2, 6))
        if rng.random() < 0.12:
            outdoors.add_hedge(b, place(x + width / 2, side * (front + 0.4), z=kerb), rng, width - 0.5)
            outdoors.add_tree(b, place(x + width / 2, side * (front + 3.0)), rng, blobs=6)
            x += width
            continue
        T = place(x + width / 2, side * (front + float(rng.choice([0, 0, 0.3]))), turn, kerb)
        add_house(b, T, rng, width=width, storeys=storeys, detailed=-7 < x + width / 2 < 15, tags=tags)
        x += width + float(rng.choice([0, 0, 0, 2.5]))


def add_house(
    b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float, storeys: int, detailed: bool, tags: list[str]
) -> None:
    """Add a front whose face is y = 0 with painted windows; a detailed one has a real door, a shop or steps on the ground floor."""
    colour, height, bay = pick(rng, FACADES), 3.0 * storeys + 0.5, rng.uniform(1.7, 2.6)
    wall = Material("windows", colour, pick(rng, ((0.16, 0.2, 0.25), (0.3, 0.36, 0.42), (0.22, 0.2, 0.2))), scale=bay)
    stone = Material("plaster", shade(colour, 1.15), shade(colour, 1.0), scale=0.5)
    b.box(T, (0, -4.0, height / 2), (width, 8.0, height), wall, label=Label.WALL)
    b.box(T, (0, 0.05, height - 0.15), (width + 0.1, 0.4, 0.3), stone, label=Label.WALL)
    if not detailed:
        return
    base = pick(rng, (stone, Material("bricks", shade(colour, 0.85), (0.75, 0.72, 0.68), scale=0.24)))
    b.box(T, (0, 0.03, 1.45), (width, 0.06, 2.9), base, label=Label.WALL)
    b.box(T, (0, 0.08, 2.95), (width, 0.16, 0.12), stone, label=Label.WALL)
    shop, door = rng.random() < 0.4, rng.uniform(-0.3, 0.3) * width
    for x in np.arange(-width / 2 + 1.2, width / 2 - 0.8, 2.2):
        if abs(x - door) < 1.4:
            continue
        w, h, z = (1.8, 1.9, 1.45) if shop else (1.1, 1.5, 1.7)
        b.box(T, (x, 0.06, z), (w + 0.14, 0.08, h + 0.14), fu.WHITE if not shop else fu.BLACK, label=Label.WALL)
        b.box(T, (x, 0.08, z), (w, 0.06, h), GLASS, label=Label.WALL)
        if not shop:
            b.box(T, (x, 0.112, z), (0.05, 0.01, h), fu.WHITE, label=Label.WALL)
            b.box(T, (x, 0.13, z - 0.8), (w + 0.2, 0.16, 0.07), stone, label=Label.WALL)
    if shop:
        b.box(T, (0, 0.12, 2.72), (width - 0.6, 0.08, 0.42), bright(rng), label=Label.WALL)
        if rng.random() < 0.5:
            cloth = Material("stripes", pick(rng, BRIGHT), (0.94, 0.93, 0.9), scale=0.5)
            b.box(T, (0, 0.65, 2.4), (width - 1.0, 1.2, 0.03), cloth, turn=rotation("x", -0.3))
    steps = int(rng.integers(1, 4)) if rng.random() < 0.35 else 0
    z = 0.16 * steps
    b.box(
        T,
        (door, 0.08, z + 1.1),
        (1.05, 0.1, 2.2),
        Material("wood", pick(rng, ((0.25, 0.35, 0.3), (0.42, 0.2, 0.16), (0.3, 0.32, 0.4), (0.55, 0.38, 0.24))), (0.2, 0.2, 0.2)),
        label=Label.DOOR,
    )
    for dx in (-0.6, 0.6):
        b.box(T, (door + dx, 0.1, z + 1.15), (0.14, 0.14, 2.3), stone, label=Label.WALL)
    b.box(T, (door, 0.12, z + 2.36), (1.4, 0.2, 0.16), stone, label=Label.WALL)
    for i in range(steps):
        b.box(T, (door, 0.06 + 0.14 * (steps - i), 0.08 * (i + 1)), (1.4, 0.28 * (steps - i), 0.16 * (i + 1)), stone)
    if steps:
        tags.append("stairs")


def _pavement(b: SceneBuilder, rng: np.random.Generator, side: int, road: float, walk: float, kerb: float, tags: list[str]) -> None:
    """Put cars along the kerb and things on the pavement of one side."""
    if road > 2.8:
        for x in np.arange(rng.uniform(-14, -8), 30, rng.uniform(5.6, 10)):
            if rng.random() < 0.6 and len(b.rows) < 250:
                outdoors.add_car(b, place(x, side * (road - 1.05), (0.0 if side > 0 else np.pi) + rng.normal(0, 0.02)), rng)
    y = side * (road + 0.45)
    for x in np.arange(rng.uniform(-10, -6), 26, rng.uniform(4.5, 9)):
        if len(b.rows) > 270:
            return
        T, kind = place(x, y, z=kerb), int(rng.integers(9))
        if kind <= 2:
            outdoors.add_tree(b, T, rng)
        elif kind == 3:
            outdoors.add_lamp_post(b, T @ place(0, 0, -side * np.pi / 2), rng)
        elif kind == 4:
            outdoors.add_sign(b, T @ place(0, 0, 0.0 if side < 0 else np.pi), rng)
        elif kind == 5:
            outdoors.add_street_bin(b, T @ place(0, 0, rng.uniform(-0.2, 0.2)), rng)
        elif kind == 6:
            outdoors.add_bollards(b, T, rng)
        elif kind == 7:
            outdoors.add_bicycle(b, T @ place(0, 0, rng.uniform(-0.15, 0.15)), rng)
        else:
            seating.add_stone_bench(b, T @ place(0, 0, 0.0 if side > 0 else np.pi))
    if walk > 3.0 and rng.random() < 0.5:
        outdoors.add_cafe_table(b, place(rng.uniform(2, 9), side * (road + walk - 0.9), z=kerb), rng)
    if rng.random() < 0.4:
        outdoors.add_planter(b, place(rng.uniform(2, 12), side * (road + walk - 0.45), z=kerb), rng)
    for _ in range(int(rng.integers(0, 3))):
        T = place(rng.uniform(1, 16), side * (road + rng.uniform(0.9, max(1.0, walk - 0.5))), rng.uniform(0, 6), kerb)
        clutter.add_person(b, T, rng)
        tags.append("person")
    if kerb > 0.1 and rng.random() < 0.25:
        x, rise = rng.uniform(2, 7), kerb
        add_ramp(
            b,
            place(x, side * (road - 1.0), side * np.pi / 2),
            width=1.2,
            run=1.0,
            rise=rise,
            material=Material("concrete", (0.6, 0.6, 0.58), (0.5, 0.5, 0.48), scale=2),
        )
        tags.append("ramp")


def add_steps(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, width: float, material: Material) -> int:
    """Add a flight of steps that climbs along +y with side walls; return the number of steps."""
    steps = int(rng.integers(3, 9))
    shell.add_stairs(b, T, steps=steps, width=width, rise=0.15, run=0.32, material=material)
    for x in (-1, 1):
        for i in range(0, steps, 2):
            b.box(
                T,
                (x * (width / 2 + 0.12), (i + 1) * 0.32, 0.5 * (0.15 * (i + 2) + 0.2)),
                (0.24, 0.64, 0.15 * (i + 2) + 0.2),
                material,
            )
    return steps
