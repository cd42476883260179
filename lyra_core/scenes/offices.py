"""Seeded offices: rows or islands of desks, swivel chairs, partitions, shelves, a meeting table."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import clutter, interiors, seating, storage
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import FABRICS, bright, fabric, pick, wood
from lyra_core.scenes.plan import Room, make_room
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, place, rotation
from lyra_core.types import Label

PANEL = Material("plain", (1.0, 0.98, 0.94), emission=2.2)
CEILING_GRID = Material("tiles", (0.93, 0.93, 0.91), (0.78, 0.78, 0.77), scale=0.6, space="world")
LIT = Material("poster", (0.2, 0.4, 0.7), (0.1, 0.15, 0.3), emission=0.3)
BOARD = Material("plain", (0.95, 0.96, 0.96), gloss=0.06, roughness=0.05)


def office(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make an office with desks in rows or islands, or a meeting room; return it with its tags."""
    b, use, height = SceneBuilder(), pick(rng, ("rows", "islands", "islands", "single", "meeting")), rng.uniform(2.5, 3.2)
    size = (rng.uniform(3.4, 5.0), rng.uniform(3.2, 4.4)) if use == "single" else (rng.uniform(5.2, 9.5), rng.uniform(4.6, 7.5))
    room, tags = make_room(b, rng, size, height, style="office"), [use]
    {"rows": _rows, "islands": _islands, "single": _single, "meeting": _meeting}[use](b, rng, room)
    _edges(b, rng, room, tags)
    add_ceiling_panels(b, rng, size, height, strength=rng.uniform(2, 6))
    count = int(rng.choice([0, 2, 4, 8]))
    clutter.scatter(b, room.plan, rng, count, kinds=clutter.WORK)
    if rng.random() < 0.2 and (T := room.plan.free(rng, 0.6, 0.6)) is not None:
        clutter.add_person(b, T, rng)
        tags.append("person")
    return interiors.finish(b, room.plan, interiors.SKY, rng.uniform(0.2, 0.3), rng), [*tags, f"clutter{count}"]


def add_work_desk(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, top: Material, *, chair: bool = True) -> None:
    """Add a desk 1.4 m wide centred at the origin with what stands on it, and a swivel chair at its +y side."""
    w, d, h, steel = 1.4, 0.7, 0.73, pick(rng, (fu.STEEL, fu.BLACK, fu.WHITE))
    b.box(T, (0, 0, h - 0.0125), (w, d, 0.025), top, rounding=0.005)
    for x in (-1, 1):
        b.box(T, (x * (w / 2 - 0.06), 0, h / 2), (0.06, 0.06, h - 0.03), steel)
        b.box(T, (x * (w / 2 - 0.06), 0, 0.015), (0.06, d - 0.04, 0.03), steel)
    if rng.random() < 0.4:
        b.box(T, (0.45, 0.02, 0.3), (0.38, 0.55, 0.56), pick(rng, (fu.WHITE, top)))
        for z in (0.14, 0.32, 0.5):
            b.box(T, (0.45, 0.3, z), (0.36, 0.012, 0.16), pick(rng, (fu.WHITE, top)))
    for x in (-0.3, 0.3) if rng.random() < 0.3 else (rng.uniform(-0.15, 0.15),):
        b.box(T, (x, -0.2, h + 0.01), (0.22, 0.16, 0.015), fu.BLACK)
        b.box(T, (x, -0.23, h + 0.13), (0.04, 0.03, 0.24), fu.BLACK)
        b.box(T, (x, -0.2, h + 0.31), (0.55, 0.03, 0.33), fu.BLACK, rounding=0.006)
        b.box(T, (x, -0.184, h + 0.31), (0.53, 0.004, 0.31), pick(rng, (storage.SCREEN, LIT)))
    b.box(T, (0, 0.1, h + 0.01), (0.42, 0.13, 0.018), fu.BLACK, rounding=0.006)
    if rng.random() < 0.6:
        seating.add_tableware(b, T @ place(rng.choice([-0.52, 0.52]), rng.uniform(-0.1, 0.1), rng.uniform(-0.4, 0.4), h), rng)
    if rng.random() < 0.4:
        b.box(
            T,
            (rng.uniform(-0.5, -0.35), 0.12, h + 0.02),
            (0.22, 0.3, rng.uniform(0.01, 0.05)),
            fu.WHITE,
            turn=rotation("z", rng.uniform(-0.3, 0.3)),
        )
    if chair:
        at = place(rng.uniform(-0.2, 0.2), 0.55 + rng.uniform(0, 0.3), np.pi + rng.normal(0, 0.6))
        fu.add_office_chair(b, T @ at, colour=pick(rng, FABRICS))


def _rows(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    x0, y0, x1, y1 = room.plan.bounds
    top, turn = wood(rng), float(rng.choice([0.0, np.pi]))
    for y in np.arange(y0 + 1.2, y1 - 1.2, rng.uniform(1.9, 2.4)):
        for x in np.arange(x0 + 1.0, x1 - 0.9, 1.46 if rng.random() < 0.6 else 2.2):
            T = place(x, y, turn)
            if rng.random() < 0.75 and len(b.rows) < 230 and room.plan.fits(T, (-0.7, -0.4, 0.7, 1.1)):
                room.plan.take(T, (-0.7, -0.4, 0.7, 1.1))
                add_work_desk(b, T, rng, top)


def _islands(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    top, screen = wood(rng), fabric(rng)
    for _ in range(int(rng.integers(1, 4))):
        T = room.plan.free(rng, 2.9, 3.0, yaw=float(rng.choice([0, np.pi / 2])), tries=25)
        if T is None or len(b.rows) > 180:
            return
        divider = rng.random() < 0.6
        for x in (-0.71, 0.71):
            for turn in (0.0, np.pi):
                add_work_desk(b, T @ place(x, 0.0, turn) @ place(0, 0.37), rng, top, chair=rng.random() < 0.85)
        if divider:
            b.box(T, (0, 0, 0.95), (2.8, 0.035, 0.7), screen, rounding=0.01)


def _single(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    T = room.plan.free(rng, 1.6, 2.1, tries=30, yaw=float(rng.choice([0, 0.5, 1, 1.5])) * np.pi)
    if T is not None:
        add_work_desk(b, T @ place(0, -0.3), rng, wood(rng))
    if (T := room.plan.free(rng, 0.6, 0.6)) is not None:
        seating.add_chair(b, T, rng, "padded", wood(rng))


def _meeting(b: SceneBuilder, rng: np.random.Generator, room: Room) -> None:
    x0, y0, x1, y1 = room.plan.bounds
    long_x, n = (x1 - x0) > (y1 - y0), int(rng.integers(3, 6))
    T, length, material = place(rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4), 0.0 if long_x else np.pi / 2), 0.72 * n, wood(rng)
    room.plan.take(T, (-length / 2 - 0.9, -1.3, length / 2 + 0.9, 1.3))
    if rng.random() < 0.35:
        seating.add_glass_table(b, T, (length, 1.2, 0.74))
    else:
        fu.add_table(b, T, (length, 1.2, 0.74), material, leg=0.08)
    kind, cover = pick(rng, ("swivel", "padded", "shell")), bright(rng)
    for i in range(n):
        for side in (-1, 1):
            at = place(
                (i - (n - 1) / 2) * 0.7, side * (0.75 + rng.uniform(0, 0.3)), (0.0 if side < 0 else np.pi) + rng.normal(0, 0.25)
            )
            seating.add_chair(b, T @ at, rng, kind, cover)
    for _ in range(3):
        seating.add_tableware(b, T @ place(rng.uniform(-0.4, 0.4) * length, rng.uniform(-0.4, 0.4), z=0.74), rng)


def _edges(b: SceneBuilder, rng: np.random.Generator, room: Room, tags: list[str]) -> None:
    """Line the walls with shelves, cabinets, boards, a copier and plants."""
    for i in rng.permutation(4):
        wall = room.walls[i]
        if not wall.openings and rng.random() < 0.6:
            w = min(rng.uniform(1.2, 2.4), wall.length - 0.8)
            b.box(wall.T, (wall.length / 2, 0.015, 1.55), (w, 0.03, 1.1), fu.STEEL, label=Label.WALL)
            b.box(wall.T, (wall.length / 2, 0.031, 1.55), (w - 0.05, 0.006, 1.05), BOARD, label=Label.WALL)
        if len(b.rows) < 280 and rng.random() < 0.7 and (T := room.plan.along(rng, wall, 0.95, 0.36, tall=True)) is not None:
            storage.add_shelf(b, T, rng, width=0.9, height=rng.uniform(1.1, 2.1), back=rng.random() < 0.7)
        if rng.random() < 0.6 and (T := room.plan.along(rng, wall, 1.25, 0.46)) is not None:
            fu.add_cabinet(b, T, width=1.2, height=rng.uniform(0.75, 1.15), depth=0.45, material=pick(rng, (fu.WHITE, wood(rng))))
    if (T := room.plan.along(rng, room.walls[room.door_wall], 0.6, 0.6)) is not None and rng.random() < 0.5:
        b.box(T, (0, 0.3, 0.45), (0.56, 0.56, 0.9), fu.WHITE, rounding=0.02)
        b.box(T, (0, 0.3, 0.98), (0.6, 0.5, 0.14), Material("plain", (0.3, 0.31, 0.33)), rounding=0.03)
        b.box(T, (0, 0.585, 0.3), (0.48, 0.02, 0.18), fu.STEEL)
        tags.append("copier")
    for _ in range(int(rng.integers(0, 3))):
        if len(b.rows) < 310 and (T := room.plan.free(rng, 0.5, 0.5)) is not None:
            clutter.add_small_plant(b, T, rng)


def add_ceiling_panels(
    b: SceneBuilder, rng: np.random.Generator, size: tuple[float, float], height: float, *, strength: float
) -> None:
    """Add a grid ceiling about the origin with square or long lamps; the first ones give light."""
    w, d = size
    if rng.random() < 0.6:
        b.box(np.eye(4), (0, 0, height - 0.012), (w, d, 0.01), CEILING_GRID, label=Label.CEILING)
    lamp = pick(rng, ((0.6, 0.6), (1.2, 0.3), (0.3, 1.2)))
    for x in (np.arange(max(1, round(w / 3))) + 0.5) * w / max(1, round(w / 3)) - w / 2:
        for y in (np.arange(max(1, round(d / 3))) + 0.5) * d / max(1, round(d / 3)) - d / 2:
            b.box(np.eye(4), (x, y, height - 0.02), (*lamp, 0.02), PANEL, label=Label.CEILING)
            if len(b.lights) < 8:
                colour = tuple(strength * c for c in (1.0, 0.95, 0.86))
                b.lights.append(Light("rect", (x, y, height - 0.04), colour, edge_u=(lamp[0], 0, 0), edge_v=(0, -lamp[1], 0)))
