"""Seeded warehouses and workshops: racks with pallets, pillars, floor markings, a fork lift, trusses under the roof."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import clutter, interiors, shell
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import bright, daylight, floor_material, pick, wall_material
from lyra_core.scenes.plan import NAMES, Plan
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, place, rotation
from lyra_core.types import Label

ROOF = Material("stripes", (0.62, 0.63, 0.64), (0.55, 0.56, 0.57), scale=0.4, space="world")
YELLOW = Material("plain", (0.86, 0.72, 0.12))
ORANGE = Material("plain", (0.9, 0.42, 0.1), gloss=0.02)
BLUE = Material("plain", (0.14, 0.28, 0.52), gloss=0.02)
PALLET = Material("wood", (0.7, 0.55, 0.38), (0.55, 0.42, 0.28))
WRAP = Material("fabric", (0.78, 0.8, 0.82), (0.7, 0.72, 0.74), scale=0.05, gloss=0.05)


def warehouse(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make a hall 12-24 m long with aisles between racks; return it with its tags."""
    b = SceneBuilder()
    w, d, height = rng.uniform(12, 24), rng.uniform(9, 15), rng.uniform(4.2, 8.0)
    tags = ["hall"]
    plan = _hall(b, rng, w, d, height)
    _racks(b, rng, plan, height)
    _pillars(b, rng, plan, height)
    _markings(b, rng, plan)
    for _ in range(int(rng.integers(3, 9))):
        if len(b.rows) < 270 and (T := plan.free(rng, 1.3, 1.1, yaw=float(rng.choice([0, np.pi / 2, 0.1])), tries=6)) is not None:
            pick(rng, (add_pallet, add_pallet, add_drums, _cone_pair))(b, T, rng)
    if rng.random() < 0.45 and (T := plan.free(rng, 2.6, 2.6)) is not None:
        add_fork_lift(b, T)
        tags.append("fork_lift")
    if rng.random() < 0.35 and (T := plan.free(rng, 0.7, 0.7)) is not None:
        clutter.add_person(b, T, rng)
        tags.append("person")
    clutter.scatter(b, plan, rng, int(rng.integers(0, 4)), kinds=(clutter.add_carton, clutter.add_bin, clutter.add_cable))
    return interiors.finish(b, plan, interiors.SKY, rng.uniform(0.13, 0.26), rng), tags


def _hall(b: SceneBuilder, rng: np.random.Generator, w: float, d: float, height: float) -> Plan:
    gate, frames = shell.Opening(d / 2 - 1.7, d / 2 + 1.7, 0.0, 3.4), {}
    strips = tuple(shell.Opening(float(s), float(s) + 2.2, height - 1.5, height - 0.6) for s in np.arange(1.0, w - 2.5, 4.0))
    openings: dict[str, tuple[shell.Opening, ...]] = {"left": strips}
    is_open = rng.random() < 0.4
    if is_open:
        openings["front"] = (gate,)
    wall = pick(
        rng, (wall_material(rng, "hall"), Material("stripes", (0.72, 0.75, 0.76), (0.66, 0.69, 0.7), scale=0.25, space="world"))
    )
    frames = shell.add_room(
        b, (-w / 2, -d / 2), (w / 2, d / 2), height, openings=openings, walls=dict.fromkeys(NAMES, wall),
        floor=floor_material(rng, "hall"), ceiling=ROOF,
    )  # fmt: skip
    for i, o in enumerate(strips):
        shell.add_window(b, frames["left"], o, panes=2, daylight=daylight(rng) if i < 2 else None)
    shutter = Material("stripes", (0.75, 0.76, 0.77), (0.6, 0.61, 0.62), scale=0.12)
    if is_open:
        shell.add_window(b, frames["front"], shell.Opening(gate.start, gate.end, -0.2, gate.top), panes=1, daylight=daylight(rng))
        b.box(
            np.eye(4),
            (w / 2 + 12, 0, -0.11),
            (24 - shell.THICKNESS * 2, 40, 0.2),
            Material("mottled", (0.34, 0.34, 0.35), (0.44, 0.44, 0.44), space="world"),
            label=Label.FLOOR,
        )
    else:
        b.box(frames["front"], (d / 2, 0.02, 1.7), (3.4, 0.05, 3.4), shutter, label=Label.DOOR)
        for x in (-1.75, 1.75):
            b.box(frames["front"], (d / 2 + x, 0.05, 1.75), (0.12, 0.1, 3.5), YELLOW, label=Label.WALL)
    beam = pick(rng, (fu.STEEL, fu.WHITE, BLUE))
    for x in np.arange(-w / 2 + 2.0, w / 2, 3.6):
        b.box(place(x, 0), (0, 0, height - 0.25), (0.18, d, 0.3), beam, label=Label.CEILING)
    warm, strength = rng.uniform(0.75, 0.95), rng.uniform(8, 20)
    for x in np.arange(-w / 2 + 3.0, w / 2 - 1, 5.5):
        for y in (-d / 4, d / 4):
            b.box(
                place(x, y),
                (0, 0, height - 0.5),
                (1.5, 0.16, 0.08),
                Material("plain", (1.0, 0.98, 0.94), emission=2.5),
                label=Label.CEILING,
            )
            if len(b.lights) < 9:
                colour = (strength, strength * (0.5 + warm / 2), strength * warm)
                b.lights.append(Light("rect", (x, y, height - 0.56), colour, edge_u=(1.5, 0, 0), edge_v=(0, -0.5, 0)))
    return Plan((-w / 2, -d / 2, w / 2, d / 2))


def _racks(b: SceneBuilder, rng: np.random.Generator, plan: Plan, height: float) -> None:
    x0, y0, x1, y1 = plan.bounds
    levels, bay, depth = int(np.clip((height - 1.0) // 1.45, 1, 3)), rng.uniform(2.2, 2.8), 1.0
    post, beam = pick(rng, ((BLUE, ORANGE), (fu.STEEL, YELLOW), (ORANGE, BLUE)))
    aisle, start = rng.uniform(2.4, 3.6), rng.uniform(1.0, 2.5)
    for y in np.arange(y0 + depth / 2 + 0.15, y1 - depth, aisle + depth):
        bays = int((x1 - x0 - start - 1.5) // bay)
        first = x0 + start
        for i in range(bays + 1):
            if len(b.rows) > 200:
                return
            for dy in (-depth / 2, depth / 2):
                b.box(place(first + i * bay, y + dy), (0, 0, 0.75 * levels + 0.3), (0.09, 0.08, 1.5 * levels + 0.6), post)
            if i == bays:
                break
            for level in range(levels + 1):
                z = 1.5 * level
                if level:
                    for dy in (-depth / 2, depth / 2):
                        b.box(place(first + (i + 0.5) * bay, y + dy), (0, 0, z), (bay, 0.05, 0.12), beam)
                for k in (-1, 1):
                    if rng.random() < 0.62:
                        add_pallet(
                            b, place(first + (i + 0.5 + 0.24 * k) * bay, y, z=z + 0.06 * (level > 0)), rng, room=1.15, plain=True
                        )
        plan.take(place(0, y), (first - 0.05, -depth / 2 - 0.05, first + bays * bay + 0.05, depth / 2 + 0.05))


def add_pallet(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, *, room: float = 1.4, plain: bool = False) -> None:
    """Add a pallet with boxes on it: one wrapped block, a stack of cartons, or nothing; plain ones take fewer solids."""
    if plain:
        b.box(T, (0, 0, 0.07), (1.0, 0.8, 0.12), PALLET)
    else:
        for y in (-0.35, 0.0, 0.35):
            b.box(T, (0, y, 0.05), (1.2, 0.1, 0.1), PALLET)
        b.box(T, (0, 0, 0.125), (1.2, 0.8, 0.03), PALLET)
    z, kind = 0.14, rng.random()
    if kind < 0.4:
        h = rng.uniform(0.4, room - 0.25)
        b.box(T, (0, 0, z + h / 2), (1.0, 0.76, h), pick(rng, (clutter.KRAFT, clutter.KRAFT, WRAP, bright(rng))), rounding=0.01)
    elif kind < 0.85:
        for x in (-0.25, 0.25):
            h = rng.uniform(0.3, room - 0.25)
            b.box(
                T, (x, rng.uniform(-0.05, 0.05), z + h / 2), (0.46, 0.7, h), pick(rng, (clutter.KRAFT, clutter.KRAFT, bright(rng)))
            )
            if not plain and rng.random() < 0.4:
                b.box(T, (x, 0, z + h + 0.12), (0.36, 0.4, 0.24), clutter.KRAFT, turn=rotation("z", rng.uniform(-0.5, 0.5)))


def add_drums(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add two to four drums."""
    material = pick(rng, (BLUE, ORANGE, fu.STEEL, bright(rng)))
    for x, y in ((-0.3, -0.25), (0.3, -0.25), (-0.3, 0.32), (0.3, 0.32))[: int(rng.integers(2, 5))]:
        b.cone(T, (x, y, 0), (0.28, 0.28), 0.86, material)
        for z in (0.28, 0.57):
            b.cone(T, (x, y, z), (0.288, 0.288), 0.02, material)


def _cone_pair(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    for x in (-0.4, 0.4):
        b.box(T, (x, 0, 0.015), (0.28, 0.28, 0.03), fu.BLACK)
        b.cone(T, (x, 0, 0.03), (0.12, 0.03), 0.45, ORANGE)
        b.cone(T, (x, 0, 0.22), (0.083, 0.065), 0.09, fu.WHITE)


def add_fork_lift(b: SceneBuilder, T: np.ndarray) -> None:
    """Add a fork lift that faces +x."""
    b.box(T, (-0.35, 0, 0.55), (1.3, 0.95, 0.6), YELLOW, rounding=0.08)
    b.box(T, (-0.85, 0, 0.75), (0.4, 0.95, 0.5), Material("plain", (0.2, 0.2, 0.21)), rounding=0.1)
    b.box(T, (-0.45, 0, 0.95), (0.45, 0.5, 0.12), fu.BLACK, rounding=0.04)
    b.box(T, (-0.65, 0, 1.2), (0.12, 0.5, 0.5), fu.BLACK, rounding=0.05)
    for x in (-0.95, 0.2):
        for y in (-0.42, 0.42):
            b.box(T, (x, y, 1.4), (0.05, 0.05, 1.3), fu.BLACK)
    b.box(T, (-0.37, 0, 2.06), (1.25, 0.92, 0.05), fu.BLACK)
    for y in (-0.25, 0.25):
        b.box(T, (0.42, y, 1.05), (0.1, 0.08, 2.0), fu.STEEL)
        b.box(T, (1.0, y, 0.08), (1.1, 0.12, 0.04), fu.STEEL)
    for z in (0.4, 1.9):
        b.box(T, (0.42, 0, z), (0.06, 0.6, 0.1), fu.STEEL)
    for x in (-0.8, 0.15):
        for y in (-0.5, 0.38):
            b.cone(T, (x, y + 0.12, 0.26), (0.26, 0.26), 0.14, fu.BLACK, turn=rotation("x", np.pi / 2))


def _pillars(b: SceneBuilder, rng: np.random.Generator, plan: Plan, height: float) -> None:
    x0, y0, x1, y1 = plan.bounds
    if rng.random() < 0.4:
        return
    side, material = (
        rng.uniform(0.25, 0.5),
        pick(rng, (Material("concrete", (0.62, 0.62, 0.6), (0.5, 0.5, 0.48), scale=3.0), fu.STEEL, fu.WHITE)),
    )
    for x in np.arange(x0 + 3.5, x1 - 1, rng.uniform(4, 6)):
        for y in (0.0,) if rng.random() < 0.5 else (-0.22 * (y1 - y0), 0.22 * (y1 - y0)):
            if plan.fits(place(x, y), (-side / 2, -side / 2, side / 2, side / 2)):
                b.box(place(x, y), (0, 0, height / 2), (side, side, height), material)
                b.box(place(x, y), (0, 0, 0.5), (side + 0.02, side + 0.02, 1.0), YELLOW)
                plan.take(place(x, y), (-side / 2, -side / 2, side / 2, side / 2))


def _markings(b: SceneBuilder, rng: np.random.Generator, plan: Plan) -> None:
    """Paint lanes on the floor, 1 mm thick; they count as floor."""
    _, y0, x1, y1 = plan.bounds
    for rect in list(plan.taken)[:6]:
        for y in (rect[1] - 0.12, rect[3] + 0.12):
            if y0 + 0.2 < y < y1 - 0.2 and rng.random() < 0.7:
                b.box(place((rect[0] + rect[2]) / 2, y), (0, 0, 0.0005), (rect[2] - rect[0], 0.1, 0.001), YELLOW, label=Label.FLOOR)
    if rng.random() < 0.5:
        x = x1 - rng.uniform(1.2, 2.0)
        b.box(
            place(x, 0),
            (0, 0, 0.0006),
            (0.9, 0.7 * (y1 - y0), 0.001),
            Material("stripes", (0.9, 0.9, 0.88), (0.5, 0.5, 0.49), scale=0.9),
            label=Label.FLOOR,
        )
