"""Seeded rooms of homes: living, sleeping and dining rooms with kitchens, furnished from their walls inwards."""

from __future__ import annotations

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.scenes import clutter, seating, shell, storage
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import FABRICS, WOODS, pick, shade, wood
from lyra_core.scenes.plan import Plan, Room, Wall, make_room
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, Sky, place, rotation
from lyra_core.types import Label

SKY = Sky(strength=1.6, lights=False, trees=0.15, ground=(0.2, 0.27, 0.13))
NIGHT = Sky(strength=0.03, lights=False, trees=0.1)


def furnished_room(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make a living, sleeping or dining room; return it with its tags."""
    b, use, night = SceneBuilder(), pick(rng, ("living", "bed", "dining")), rng.random() < 0.15
    size, height = (rng.uniform(3.6, 6.8), rng.uniform(3.2, 5.6)), float(rng.choice([2.35, 2.5, 2.6, 2.8, 3.3, 4.4]))
    room, tags = make_room(b, rng, size, height, style="home", night=night), [use]
    if rng.random() < 0.14:
        _stairs(b, rng, room, tags)
    {"living": _living, "bed": _bedroom, "dining": _dining}[use](b, rng, room)
    _windows(b, rng, room)
    _walls(b, rng, room, tags)
    _lamps(b, rng, room)
    count = int(rng.choice([0, 2, 4, 7, 11]))
    clutter.scatter(b, room.plan, rng, count)
    tags += [f"clutter{count}"] + ["night"] * night
    level = 0.1 if night else rng.uniform(0.18, 0.3)
    return finish(b, room.plan, NIGHT if night else SKY, level, rng), tags


def finish(b: SceneBuilder, plan: Plan, sky: Sky, ambient: float, rng: np.random.Generator) -> Scene:
    """Build the scene with an ambient term of a slight colour."""
    warm = rng.uniform(-0.04, 0.1)
    x0, y0, x1, y1 = plan.bounds
    return b.build(sky=sky, ambient=(ambient * (1 + warm), ambient, ambient * (1 - warm)), walkable=(x0, y0, x1, y1))


def _stairs(b: SceneBuilder, rng: np.random.Generator, room: Room, tags: list[str]) -> None:
    """Add stairs that climb along a wall to the ceiling, with a banister, where a wall is long enough."""
    steps = int((room.height - 0.1) / 0.18)
    length, width, material = 0.26 * steps, rng.uniform(0.8, 1.0), pick(rng, (wood(rng), fu.OAK))
    for wall in _longest_free(room):
        T = room.plan.along(rng, wall, length, width + 0.05, tall=True)
        if T is None:
            continue
        up = T @ place(-length / 2, width / 2, -np.pi / 2) if rng.random() < 0.5 else T @ place(length / 2, width / 2, np.pi / 2)
        shell.add_stairs(b, up, steps=steps, width=width, rise=0.18, run=0.26, material=material)
        inner = -(width / 2 - 0.03) if (inverse(T) @ up @ [width, 0, 0, 1])[1] < width / 2 else width / 2 - 0.03
        for i in range(0, steps - 4, 2):
            b.box(up, (-inner, 0.26 * (i + 0.5), 0.18 * (i + 1) + 0.45), (0.03, 0.03, 0.9), fu.WHITE)
        slope, run = np.arctan2(0.18, 0.26), 0.26 * (steps - 4)
        b.box(
            up,
            (-inner, run / 2, 0.18 * (steps - 4) / 2 + 1.02),
            (0.05, run / np.cos(slope), 0.05),
            material,
            turn=rotation("x", slope),
        )
        tags.append("stairs")
        return


def _longest_free(room: Room) -> list[Wall]:
    """Return walls, those without windows and doors and the long ones first."""
    return sorted(room.walls, key=lambda w: (len(w.openings) > 0, -w.length))


def _living(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    walls = _longest_free(room)
    width = rng.uniform(1.6, 2.4)
    sofa = next((T for w in walls if (T := room.plan.along(rng, w, width, 0.95, at=rng.uniform(0.35, 0.65))) is not None), None)
    if sofa is not None:
        colours = [pick(rng, FABRICS) for _ in range(3)]
        pillows = [(float(x), colours[1 + i % 2]) for i, x in enumerate(rng.uniform(-0.35, 0.35, int(rng.integers(0, 3))) * width)]
        fu.add_sofa(b, sofa, width=width, seats=int(rng.integers(2, 4)), colour=colours[0], pillows=pillows)
        centre = sofa @ place(rng.uniform(-0.2, 0.2), 1.75)
        if rng.random() < 0.75:
            add_rug(b, rng, centre, room.plan, (rng.uniform(1.8, 2.6), rng.uniform(1.3, 1.9)))
        if room.plan.fits(centre, (-0.55, -0.35, 0.55, 0.35)):
            room.plan.take(centre, (-0.55, -0.35, 0.55, 0.35))
            _coffee_table(b, rng, centre)
        for x in (-width / 2 - 0.5, width / 2 + 0.5):
            at = sofa @ place(x, 1.9, np.pi / 2 * np.sign(x) + rng.uniform(-0.4, 0.4))
            if rng.random() < 0.55 and room.plan.fits(at, (-0.42, 0.0, 0.42, 0.9)):
                room.plan.take(at, (-0.42, 0.0, 0.42, 0.9))
                fu.add_armchair(b, at, colour=pick(rng, FABRICS))
    _try(b, rng, room, walls, 1.6, 0.45, lambda T: storage.add_screen_board(b, T, rng), 0.7)
    _try(
        b,
        rng,
        room,
        walls,
        w := rng.uniform(0.7, 1.3),
        0.34,
        lambda T: storage.add_shelf(b, T, rng, width=w, height=rng.uniform(1.2, 2.2)),
        0.75,
        tall=True,
    )
    _try(b, rng, room, walls, 1.3, 0.45, lambda T: fu.add_cabinet(b, T, width=1.3, height=0.8, material=wood(rng)), 0.4)
    _try(
        b,
        rng,
        room,
        walls,
        0.5,
        0.5,
        lambda T: fu.add_plant(b, T @ place(0, 0.26), rng, height=rng.uniform(1.0, 1.8), leaves=30),
        0.6,
    )
    _try(b, rng, room, walls, 0.45, 0.45, lambda T: fu.add_floor_lamp(b, T @ place(0, 0.22), strength=rng.uniform(0.8, 2.5)), 0.6)


def _coffee_table(b: SceneBuilder, rng: np.random.Generator, T: np.ndarray) -> None:
    h, roll = rng.uniform(0.36, 0.48), rng.random()
    if roll < 0.3:
        seating.add_glass_table(b, T, (1.05, 0.6, h))
    elif roll < 0.55:
        seating.add_round_table(b, T, radius=0.34, height=h, top=wood(rng), leg=fu.BLACK)
    else:
        fu.add_table(b, T, (1.05, 0.6, h), Material("wood", *pick(rng, WOODS)), leg=0.045)
    for x in (-0.2, 0.15)[: int(rng.integers(0, 3))]:
        seating.add_tableware(b, T @ place(x, rng.uniform(-0.1, 0.1), z=h), rng)


def _bedroom(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    walls, width = _longest_free(room), float(rng.choice([0.95, 1.45, 1.65]))
    bed = next((T for w in walls if (T := room.plan.along(rng, w, width, 2.1, at=rng.uniform(0.3, 0.7))) is not None), None)
    if bed is not None:
        storage.add_bed(b, bed, rng, width=width)
        for side in (-1, 1):
            at = bed @ place(side * (width / 2 + 0.3), 0.0)
            if rng.random() < 0.8 and room.plan.fits(at, (-0.22, 0, 0.22, 0.42)):
                room.plan.take(at, (-0.22, 0, 0.22, 0.42))
                storage.add_nightstand(b, at, rng)
        if rng.random() < 0.6:
            add_rug(b, rng, bed @ place(0, 2.0), room.plan, (rng.uniform(1.8, 2.6), rng.uniform(1.2, 1.7)))
    wide = rng.uniform(1.0, 2.2)
    _try(
        b,
        rng,
        room,
        walls,
        wide,
        0.62,
        lambda T: storage.add_wardrobe(b, T, rng, width=wide, height=rng.uniform(1.9, 2.25)),
        0.9,
        tall=True,
    )
    _try(b, rng, room, walls, 1.1, 0.46, lambda T: fu.add_cabinet(b, T, width=1.05, height=0.85, material=wood(rng)), 0.6)
    _try(b, rng, room, walls, 1.5, 1.3, lambda T: fu.add_desk(b, T @ place(0, 0.4), rng), 0.35)
    _try(
        b,
        rng,
        room,
        walls,
        0.8,
        0.34,
        lambda T: storage.add_shelf(b, T, rng, width=0.8, height=rng.uniform(0.9, 1.9), back=rng.random() < 0.6),
        0.5,
        tall=True,
    )
    if (T := room.plan.free(rng, 0.55, 0.55)) is not None and rng.random() < 0.6:
        seating.add_chair(b, T, rng, pick(rng, seating.CHAIRS), wood(rng))


def _dining(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    walls = _longest_free(room)
    if rng.random() < 0.65:
        wide = rng.uniform(1.8, min(3.2, walls[0].length - 1.0))
        kitchen = room.plan.along(rng, walls[0], wide + 1.4, 0.7, tall=True)
        if kitchen is not None:
            storage.add_kitchen(b, kitchen, rng, width=wide)
    seats = int(rng.choice([2, 3, 4, 4, 6, 8]))
    long = 1.6 if seats <= 3 else 0.65 * max(2, (seats + 1) // 2) + 0.3
    T = room.plan.free(rng, long, 2.3 if seats > 3 else 1.8, yaw=float(rng.choice([0, np.pi / 2])), tries=40)
    if T is not None:
        if rng.random() < 0.45:
            add_rug(b, rng, T, room.plan, (long + 0.8, 2.0))
        seating.add_dining_group(b, T, rng, seats=seats)
        fu.add_pendant(
            b, place(*T[:2, 3]), ceiling=room.height, drop=room.height - rng.uniform(1.5, 1.8), strength=rng.uniform(0.6, 1.6)
        )
    _try(
        b,
        rng,
        room,
        walls,
        1.4,
        0.45,
        lambda T: fu.add_cabinet(b, T, width=1.4, height=rng.uniform(0.7, 1.0), material=wood(rng)),
        0.7,
    )
    _try(
        b,
        rng,
        room,
        walls,
        1.0,
        0.34,
        lambda T: storage.add_shelf(b, T, rng, width=1.0, height=rng.uniform(1.4, 2.1)),
        0.5,
        tall=True,
    )
    _try(
        b,
        rng,
        room,
        walls,
        0.5,
        0.5,
        lambda T: fu.add_plant(b, T @ place(0, 0.26), rng, height=rng.uniform(0.9, 1.6), leaves=26),
        0.6,
    )


def _try(b, rng, room: Room, walls: list[Wall], width: float, depth: float, add, chance: float, *, tall: bool = False) -> None:
    """Place a piece along some wall, with a chance, if there is room."""
    if rng.random() > chance:
        return
    for i in rng.permutation(len(walls)):
        T = room.plan.along(rng, walls[i], width, depth, tall=tall)
        if T is not None:
            add(T)
            return


def add_rug(b: SceneBuilder, rng: np.random.Generator, T: np.ndarray, plan: Plan, size: tuple[float, float]) -> None:
    """Lay a rug of size [m] about the origin of T, cut at the room's walls; plain, striped, checked, flowered or with borders."""
    x0, y0, x1, y1 = plan.bounds
    low, high = (T[:2, :2] @ (np.array(size) * s / 2) for s in (-1, 1))
    low, high = np.minimum(low, high) + T[:2, 3], np.maximum(low, high) + T[:2, 3]
    low, high = np.maximum(low, (x0 + 0.1, y0 + 0.1)), np.minimum(high, (x1 - 0.1, y1 - 0.1))
    if (high - low).min() < 0.6:
        return
    colour, second = pick(rng, FABRICS), pick(rng, FABRICS[:5] + ((0.88, 0.82, 0.7), (0.9, 0.88, 0.85)))
    pattern, scale = pick(
        rng,
        (("rug", 0.3), ("rug", 0.45), ("stripes", 0.3), ("checker", 0.25), ("motif", 0.35), ("fabric", 0.015), ("fabric", 0.02)),
    )
    material = Material(pattern, colour, shade(colour, 0.75) if pattern == "fabric" else second, scale=scale)
    centre = (low + high) / 2
    b.box(place(*centre), (0, 0, 0.005), (*(high - low), 0.01), material, label=Label.FLOOR)


def _windows(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    for i in room.window_walls:
        wall = room.walls[i]
        for o in wall.openings:
            if rng.random() < 0.6:
                top = min(o.top + 0.12, room.height - 0.05)
                storage.add_curtains(b, wall.T, rng, o.start, o.end, top=top)
            footprint = wall.T @ place((o.start + o.end) / 2, 0.0)
            if o.bottom > 0.7 and room.plan.fits(footprint, (-0.5, 0.05, 0.5, 0.2)) and rng.random() < 0.6:
                storage.add_radiator(b, footprint, width=min(1.2, o.end - o.start))
                room.plan.take(footprint, (-0.6, 0.0, 0.6, 0.2))


def _walls(b: SceneBuilder, rng: np.random.Generator, room: Room, tags: list[str]) -> None:
    for wall in room.walls:
        if wall.openings:
            continue
        for x in np.arange(rng.uniform(0.6, 1.4), wall.length - 0.5, rng.uniform(0.8, 1.8))[: int(rng.integers(0, 5))]:
            size = (rng.uniform(0.3, 0.75), rng.uniform(0.35, 0.75))
            if rng.random() < 0.14:
                storage.add_mirror(b, wall.T, x=float(x), z=1.55, size=size)
                tags.append("mirror")
            else:
                fu.add_picture(
                    b, wall.T, (float(x), rng.uniform(1.45, 1.7)), size, tuple(tuple(rng.uniform(0.2, 0.85, 3)) for _ in range(2))
                )


def _lamps(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    strength = rng.uniform(1.5, 3.5) if room.night else rng.uniform(0.3, 1.5)
    x, y = rng.uniform(-0.6, 0.6, 2)
    if rng.random() < 0.5:
        fu.add_pendant(b, place(x, y), ceiling=room.height, drop=room.height - rng.uniform(2.0, 2.15), strength=strength)
    elif rng.random() < 0.5 or room.night:
        z = room.height
        b.cone(
            place(x, y),
            (0, 0, z - 0.08),
            (0.17, 0.2),
            0.08,
            Material("plain", (1.0, 0.93, 0.82), emission=0.8 * strength),
            label=Label.CEILING,
        )
        b.lights.append(Light("sphere", (x, y, z - 0.16), (1.4 * strength, 1.2 * strength, 0.9 * strength), radius=0.08))
