"""Seeded courtyards and small squares: arcades, planters, benches, steps, ramps, fountains, cafe tables, trees."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import clutter, outdoors, seating
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.corridors import add_ramp
from lyra_core.scenes.palette import pick, shade
from lyra_core.scenes.plan import Plan
from lyra_core.scenes.scene import Material, Scene, SceneBuilder, place, rotation
from lyra_core.scenes.townscapes import FACADES, GLASS, GRASS, add_house, add_steps, ground_material
from lyra_core.types import Label


def courtyard(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make a yard of 10-20 m between buildings, open on some sides; return it with its tags."""
    b, tags, w, d = SceneBuilder(), ["yard"], rng.uniform(10, 20), rng.uniform(9, 16)
    paving = ground_material(rng, road=False)
    b.box(np.eye(4), (0, 0, -0.6), (300, 300, 1.0), GRASS, label=Label.FLOOR)
    b.box(np.eye(4), (0, 0, -0.1), (w + 12, d + 12, 0.2), paving, label=Label.FLOOR)
    plan = Plan((-w / 2, -d / 2, w / 2, d / 2))
    corners = [(-w / 2, -d / 2), (w / 2, -d / 2), (w / 2, d / 2), (-w / 2, d / 2)]
    left_open = int(rng.integers(4)) if rng.random() < 0.5 else -1
    for i in range(4):
        a, c = np.array(corners[i]), np.array(corners[(i + 1) % 4])
        yaw = np.arctan2(*(c - a)[::-1])
        length = float(np.hypot(*(c - a)))
        T = place(float(a[0] + c[0]) / 2, float(a[1] + c[1]) / 2, yaw)
        if i == left_open:
            outdoors.add_hedge(b, T @ place(-length / 4, 0.3), rng, length / 2 - 1.0)
            _wall_with_gate(b, T @ place(length / 4, 0.3), rng, length / 2 - 1.0)
        else:
            _side(b, T, rng, length, plan, tags)
    if rng.random() < 0.3:
        lawn = plan.free(rng, rng.uniform(3, 6), rng.uniform(2.5, 5), yaw=0.0)
        if lawn is not None:
            x0, y0, x1, y1 = plan.taken[-1]
            b.box(place((x0 + x1) / 2, (y0 + y1) / 2), (0, 0, 0.01), (x1 - x0, y1 - y0, 0.05), GRASS, label=Label.FLOOR)
            outdoors.add_tree(b, place((x0 + x1) / 2, (y0 + y1) / 2), rng)
    _fill(b, rng, plan, tags)
    sky, ambient, light = outdoors.add_daylight(b, rng)
    return b.build(sky=sky, ambient=ambient, walkable=(-w / 2 + 0.5, -d / 2 + 0.5, w / 2 - 0.5, d / 2 - 0.5)), [*tags, light]


def _side(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, length: float, plan: Plan, tags: list[str]) -> None:
    """Close one side of the yard: a house front, an arcade, or a front with steps or a ramp to its door."""
    kind = rng.random()
    if kind < 0.35:
        add_arcade(b, T @ place(0, -2.2), rng, length)
        tags.append("arcade")
        return
    add_house(b, T, rng, width=length, storeys=int(rng.integers(2, 5)), detailed=True, tags=tags)
    x, stone = rng.uniform(-0.3, 0.3) * length, ground_material(rng, road=False)
    front = T @ place(x, 0.2)
    if kind < 0.6 and plan.fits(front, (-1.5, 0.0, 1.5, 3.2)):
        steps = add_steps(b, front @ place(0, 2.75, np.pi), rng, width=rng.uniform(1.6, 2.6), material=stone)
        b.box(
            front,
            (0, 2.75 - 0.32 * steps - 0.5, 0.075 * steps),
            (2.6, max(0.2, 2 * (2.75 - 0.32 * steps) - 0.9), 0.15 * steps),
            stone,
        )
        plan.take(front, (-1.5, -0.2, 1.5, 3.0))
        tags.append("stairs")
    elif kind < 0.75:
        run, rise = rng.uniform(2.5, 3.8), rng.uniform(0.2, 0.42)
        at = T @ place(x - run / 2 if x > 0 else x, 0.85)
        if plan.fits(at, (-0.2, -0.7, run + 1.4, 0.75)):
            add_ramp(b, at, width=1.3, run=run, rise=rise, material=stone)
            b.box(at, (run + 0.6, 0, rise - 0.01), (1.2, 1.3, 0.02), stone, label=Label.FLOOR)
            b.box(at, (run + 0.6, 0, (rise - 0.02) / 2), (1.2, 1.3, rise - 0.02), stone)
            for s in np.linspace(0.1, run + 1.1, 5):
                b.cone(at, (s, 0.62, rise * min(1.0, s / run) - 0.02), (0.02, 0.02), 0.92, fu.STEEL)
            angle = np.arctan2(rise, run)
            b.box(
                at,
                (run / 2 + 0.05, 0.62, rise / 2 + 0.9),
                (run / np.cos(angle), 0.045, 0.045),
                fu.STEEL,
                turn=rotation("y", -angle),
                rounding=0.02,
            )
            plan.take(at, (-0.2, -0.9, run + 1.4, 0.75))
            tags.append("ramp")


def add_arcade(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, length: float) -> None:
    """Add a covered walk 2.2 m deep along x behind columns with arches of short blocks; its floor is the yard's."""
    colour = pick(rng, FACADES)
    stone = Material("plaster", shade(colour, 1.1), shade(colour, 0.95), scale=0.6)
    span, depth, spring, storeys = rng.uniform(2.2, 3.4), 2.2, rng.uniform(2.1, 2.6), int(rng.integers(1, 4))
    count = max(2, round(length / span))
    span = length / count
    top = spring + min(0.9, span * 0.38)
    b.box(
        T,
        (0, -0.1, 1.8),
        (length, 0.2, 3.6),
        Material("plaster", shade(colour, 0.95), shade(colour, 0.85), scale=0.8),
        label=Label.WALL,
    )
    for i in range(count):
        x = (i + 0.5 - count / 2) * span
        if i % 2 == 0:
            b.box(T, (x, 0.03, 1.05), (1.0, 0.06, 2.1), Material("wood", (0.4, 0.28, 0.18), (0.3, 0.2, 0.13)), label=Label.DOOR)
        else:
            b.box(T, (x, 0.03, 1.6), (1.1, 0.06, 1.3), GLASS, label=Label.WALL)
    b.box(T, (0, depth / 2, top + 0.25), (length, depth + 0.3, 0.2), stone, label=Label.CEILING)
    b.box(
        T,
        (0, depth / 2 - 1.0, top + 0.35 + 1.5 * storeys),
        (length, depth + 2.3, 3.0 * storeys),
        Material("windows", colour, (0.2, 0.24, 0.28), scale=2.1),
        label=Label.WALL,
    )
    is_round = rng.random() < 0.5
    for i in range(count + 1):
        x = (i - count / 2) * span
        if is_round:
            b.cone(T, (x, depth, 0), (0.24, 0.22), 0.2, stone)
            b.cone(T, (x, depth, 0.2), (0.17, 0.14), spring - 0.4, stone)
        else:
            b.box(T, (x, depth, spring / 2 - 0.1), (0.36, 0.36, spring - 0.2), stone)
        b.box(T, (x, depth, spring - 0.1), (0.46, 0.46, 0.2), stone)
    for i in range(count):
        for k in range(6):
            left, right = (i - count / 2 + k / 6) * span, (i - count / 2 + (k + 1) / 6) * span
            u = min(abs(2 * (k / 6) - 1), abs(2 * ((k + 1) / 6) - 1))
            low = spring + (top - spring) * float(np.sqrt(max(0.0, 1 - u * u))) - 0.06
            if u > 0.6:
                low = spring + (top - spring) * 0.35
            b.box(
                T,
                ((left + right) / 2, depth, (low + top + 0.35) / 2),
                (right - left, 0.36, top + 0.35 - low),
                stone,
                label=Label.WALL,
            )


def _wall_with_gate(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator, length: float) -> None:
    h, stone = rng.uniform(1.0, 2.2), Material("bricks", pick(rng, FACADES), (0.78, 0.75, 0.7), scale=0.24)
    b.box(T, (0, 0, h / 2), (length, 0.24, h), stone, label=Label.WALL)
    b.box(
        T,
        (0, 0, h + 0.03),
        (length + 0.06, 0.32, 0.06),
        Material("concrete", (0.66, 0.65, 0.62), (0.55, 0.54, 0.5), scale=1.0),
        label=Label.WALL,
    )


def add_fountain(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a round basin with a bowl on a stem."""
    stone, r = Material("concrete", (0.68, 0.66, 0.62), (0.55, 0.53, 0.5), scale=3), rng.uniform(0.9, 1.5)
    b.cone(T, (0, 0, 0), (r, r), 0.5, stone)
    b.cone(T, (0, 0, 0.5), (r - 0.15, r - 0.15), 0.01, Material("plain", (0.16, 0.26, 0.28), gloss=0.2, roughness=0.05))
    b.cone(T, (0, 0, 0.5), (0.16, 0.1), 0.8, stone)
    b.cone(T, (0, 0, 1.25), (0.15, 0.55), 0.2, stone)


def _fill(b: SceneBuilder, rng: np.random.Generator, plan: Plan, tags: list[str]) -> None:
    """Put planters, benches, tables, bicycles, trees, bins, boxes and people on the free ground."""
    quarter = float(rng.choice([0, np.pi / 2]))
    for _ in range(int(rng.integers(5, 14))):
        if len(b.rows) > 320:
            break
        kind = int(rng.integers(8))
        w, d = ((1.6, 0.9), (1.7, 0.8), (2.0, 2.0), (1.9, 0.8), (1.0, 1.0), (0.8, 0.8), (2.6, 2.6), (0.6, 0.6))[kind]
        T = plan.free(rng, w, d, yaw=quarter + float(rng.choice([0, np.pi / 2, 0.2])), margin=0.3, tries=8)
        if T is None:
            continue
        if kind == 0:
            outdoors.add_planter(b, T, rng)
        elif kind == 1:
            seating.add_stone_bench(b, T, back=rng.random() < 0.7)
        elif kind == 2:
            outdoors.add_cafe_table(b, T, rng)
        elif kind == 3:
            outdoors.add_bicycle(b, T, rng)
        elif kind == 4:
            outdoors.add_tree(b, T, rng)
        elif kind == 5:
            outdoors.add_street_bin(b, T, rng)
        elif kind == 6:
            add_fountain(b, T, rng)
            tags.append("fountain")
        else:
            pick(rng, (clutter.add_carton, clutter.add_toys, clutter.add_bag))(b, T, rng)
    for _ in range(int(rng.integers(0, 3))):
        if (T := plan.free(rng, 0.7, 0.7)) is not None:
            clutter.add_person(b, T, rng)
            tags.append("person")
