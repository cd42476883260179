"""Seeded corridors: straight, with a turn or a crossing, doors shut and open, things along the walls, steps and ramps."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import clutter, interiors, seating, shell, storage
from lyra_core.scenes import furniture as fu
from lyra_core.scenes.palette import BRIGHT, WALLS, bright, daylight, floor_material, pick, wall_material
from lyra_core.scenes.plan import Plan, Wall, add_space_behind
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, place, rotation
from lyra_core.types import Label

EXIT = Material("plain", (0.1, 0.62, 0.32), emission=0.7)


def corridor(rng: np.random.Generator) -> tuple[Scene, list[str]]:
    """Make a corridor along x, 1.4-3 m wide; return it with its tags."""
    b, shape = SceneBuilder(), pick(rng, ("straight", "turn", "turn", "crossing"))
    half, end, height = rng.uniform(0.7, 1.5), rng.uniform(5.5, 15), rng.uniform(2.3, 3.1)
    corners, wide, floor = _outline(rng, shape, half, end), 2 * half, floor_material(rng, "corridor")
    low, high = np.min(corners, 0), np.max(corners, 0)
    centre, size = (low + high) / 2, high - low + 2 * shell.THICKNESS
    b.box(place(*centre), (0, 0, -0.1), (*size, 0.2), floor, label=Label.FLOOR)
    b.box(place(*centre), (0, 0, height + 0.1), (*size, 0.2), shell.CEILING, label=Label.CEILING)
    wall, tags = wall_material(rng, "corridor"), [shape]
    walls = add_outline(b, rng, corners, height, wall, door=_door_leaf(rng))
    plan = Plan((float(low[0]), float(low[1]), float(high[0]), float(high[1])))
    lane = max(0.9, 0.5 * wide)
    plan.taken.append((0.0, -lane / 2, end, lane / 2))
    _furnish(b, rng, walls, plan, wide, height)
    for x in np.arange(1.0, end, rng.uniform(2.2, 4.0)):
        _ceiling_lamp(b, rng, x, height)
    if rng.random() < 0.3:
        tags.append(_change_of_level(b, rng, end, wide, floor))
    plan.taken.pop(0)
    count = int(rng.choice([0, 0, 2, 4]))
    clutter.scatter(b, plan, rng, count, kinds=clutter.WORK)
    if rng.random() < 0.2:
        clutter.add_person(b, place(rng.uniform(0.35, 0.9) * end, rng.uniform(-0.3, 0.3) * half, rng.uniform(0, 6)), rng)
        tags.append("person")
    standing = Plan((0.3, -half + 0.3, end - 1.0, half - 0.3))
    return interiors.finish(b, standing, interiors.SKY, rng.uniform(0.16, 0.28), rng), [*tags, f"clutter{count}"]


def _outline(rng: np.random.Generator, shape: str, half: float, end: float) -> list[tuple[float, float]]:
    """Return the corners of the floor, counter-clockwise."""
    arm, w, back = rng.uniform(2.5, 6), 2 * rng.uniform(0.7, 1.3), -rng.uniform(0.2, 1.2)
    if shape == "straight":
        return [(back, -half), (end, -half), (end, half), (back, half)]
    if shape == "crossing":
        x = rng.uniform(0.35, 0.7) * end
        return [(back, -half), (x, -half), (x, -half - arm), (x + w, -half - arm), (x + w, -half), (end, -half), (end, half),
                (x + w, half), (x + w, half + arm), (x, half + arm), (x, half), (back, half)]  # fmt: skip
    if rng.random() < 0.5:
        return [(back, -half), (end, -half), (end, half + arm), (end - w, half + arm), (end - w, half), (back, half)]
    return [(back, -half), (end - w, -half), (end - w, -half - arm), (end, -half - arm), (end, half), (back, half)]


def add_outline(
    b: SceneBuilder,
    rng: np.random.Generator,
    corners: list[tuple[float, float]],
    height: float,
    material: Material,
    *,
    door: Material,
) -> list[Wall]:
    """Add walls along a counter-clockwise outline, with doors; walls stop short of inward corners, which they would pierce."""
    n, walls, spacing = len(corners), [], rng.uniform(1.6, 3.2)
    edges = [np.subtract(corners[(i + 1) % n], corners[i]) for i in range(n)]
    turns = [edges[i - 1][0] * edges[i][1] - edges[i - 1][1] * edges[i][0] for i in range(n)]
    t = shell.THICKNESS
    for i in range(n):
        T, length = shell.wall_frame(corners[i], corners[(i + 1) % n])
        first, last = (t if turns[i] < 0 else 0.0), (t if turns[(i + 1) % n] < 0 else 0.0)
        T, length = T @ place(first, 0), length - first - last
        holes = tuple(
            shell.Opening(float(s), float(s) + 0.9, 0.0, 2.05)
            for s in np.arange(0.35 + rng.uniform(0, 0.6), length - 1.1, spacing)
            if rng.random() < 0.65
        )
        if 1.2 < length < 4 and rng.random() < 0.45:
            holes = (shell.Opening(length / 2 - 0.5, length / 2 + 0.5, rng.choice([0.1, 0.9]), 2.1),)
        shell.add_wall(b, T, length, height, material=material, openings=holes)
        for o in holes:
            _fill(b, rng, T, o, material, door)
        walls.append(Wall(T, length, holes))
    return walls


def _fill(b: SceneBuilder, rng: np.random.Generator, T: np.ndarray, o: shell.Opening, wall: Material, leaf: Material) -> None:
    if o.bottom > 0:
        shell.add_window(b, T, o, panes=1, daylight=daylight(rng))
    elif rng.random() < 0.7 or len(b.lights) > 6 or len(b.rows) > 260:
        shell.add_door(b, T, o, material=leaf)
    else:
        add_space_behind(b, rng, T, o, wall)
        if rng.random() < 0.6:
            # The leaf swings away from the corridor: its frame is the wall's, turned about.
            shell.add_door(b, T, o, material=leaf, ajar=-rng.uniform(1.2, 1.6))


def _door_leaf(rng: np.random.Generator) -> Material:
    light, dark = Material("wood", (0.7, 0.55, 0.38), (0.5, 0.38, 0.26)), Material("wood", (0.45, 0.31, 0.2), (0.34, 0.22, 0.14))
    return pick(rng, (light, dark, fu.WHITE, Material("plain", pick(rng, BRIGHT)), Material("plain", (0.45, 0.5, 0.52))))


def _furnish(b: SceneBuilder, rng: np.random.Generator, walls: list[Wall], plan: Plan, wide: float, height: float) -> None:
    """Put narrow things along the walls and signs on them."""
    for wall in walls:
        for _ in range(int(wall.length / 2.2)):
            kind = int(rng.integers(8))
            width, depth = ((1.0, 0.2), (0.5, 0.5), (0.95, 0.34), (1.3, 0.55), (0.35, 0.25), (0.8, 0.4), (0.6, 0.6), (0.45, 0.45))[
                kind
            ]
            if depth > 0.3 * wide or len(b.rows) > 330 or (T := plan.along(rng, wall, width, depth, tall=kind == 2)) is None:
                continue
            if kind == 0:
                storage.add_radiator(b, T, width=0.9)
            elif kind == 1:
                clutter.add_small_plant(b, T @ place(0, 0.25), rng)
            elif kind == 2:
                fu.add_cabinet(
                    b, T, width=0.9, height=rng.uniform(0.8, 1.9), depth=0.32, material=pick(rng, (fu.WHITE, fu.OAK, fu.STEEL))
                )
            elif kind == 3:
                seating.add_stone_bench(b, T @ place(0, 0.3), length=1.2, back=rng.random() < 0.5)
            elif kind == 4:
                _extinguisher(b, T)
            elif kind == 5:
                _trolley(b, T @ place(0, 0.2), rng)
            elif kind == 6:
                clutter.add_carton(b, T @ place(0, 0.3), rng)
            else:
                seating.add_chair(b, T @ place(0, 0.24), rng, pick(rng, ("legs", "padded", "shell")), bright(rng))
        for x in np.arange(rng.uniform(0.4, 2.0), wall.length - 0.5, 2.4):
            if not any(o.start - 0.4 < x < o.end + 0.4 for o in wall.openings) and rng.random() < 0.6:
                fu.add_picture(
                    b,
                    wall.T,
                    (float(x), 1.55),
                    (rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.7)),
                    (pick(rng, WALLS), pick(rng, BRIGHT)),
                )
    if rng.random() < 0.5:
        at = place(rng.uniform(2.5, 5), 0.0)
        b.box(at, (0, 0, height - 0.25), (0.04, 0.4, 0.2), EXIT, rounding=0.005)
        b.box(at, (0, 0, height - 0.07), (0.02, 0.02, 0.16), fu.STEEL)
    if rng.random() < 0.25:
        y = rng.choice([-1, 1]) * (wide / 2 - 0.2)
        for k in range(3):
            turn = rotation("y", np.pi / 2)
            b.cone(
                place(-0.2, y - 0.12 * k * np.sign(y)),
                (0, 0, height - 0.2),
                (0.05, 0.05),
                9.0,
                pick(rng, (fu.STEEL, fu.WHITE)),
                turn=turn,
                label=Label.CEILING,
            )


def _extinguisher(b: SceneBuilder, T: np.ndarray) -> None:
    red = Material("plain", (0.78, 0.1, 0.08), gloss=0.06)
    b.cone(T, (0, 0.12, 0.3), (0.08, 0.08), 0.42, red)
    b.ellipsoid(T, (0, 0.12, 0.72), (0.08, 0.08, 0.06), red)
    b.box(T, (0, 0.12, 0.8), (0.05, 0.12, 0.04), fu.BLACK)
    b.box(T, (0, 0.012, 1.25), (0.2, 0.006, 0.2), red, label=Label.WALL)


def _trolley(b: SceneBuilder, T: np.ndarray, rng: np.random.Generator) -> None:
    """Add a cart on castors with open shelves."""
    for x in (-0.35, 0.35):
        for y in (-0.17, 0.17):
            b.cone(T, (x, y, 0.08), (0.012, 0.012), 0.85, fu.STEEL)
            b.ellipsoid(T, (x, y, 0.04), (0.04, 0.02, 0.04), fu.BLACK)
    for z in (0.15, 0.5, 0.9):
        b.box(T, (0, 0, z), (0.74, 0.38, 0.02), fu.STEEL)
        if rng.random() < 0.6:
            b.box(
                T,
                (rng.uniform(-0.15, 0.15), 0, z + 0.09),
                (0.3, 0.25, 0.16),
                pick(rng, (bright(rng), clutter.KRAFT)),
                rounding=0.01,
            )


def _ceiling_lamp(b: SceneBuilder, rng: np.random.Generator, x: float, height: float) -> None:
    glow, strength = Material("plain", (1.0, 0.97, 0.9), emission=2.0), rng.uniform(3, 8)
    b.box(place(x, 0), (0, 0, height - 0.02), (1.1, 0.28, 0.04), glow, label=Label.CEILING)
    if len(b.lights) < 9:
        colour = tuple(strength * c for c in (1.0, 0.94, 0.84))
        b.lights.append(Light("rect", (x, 0, height - 0.05), colour, edge_u=(1.1, 0, 0), edge_v=(0, -0.28, 0)))


def _change_of_level(b: SceneBuilder, rng: np.random.Generator, end: float, wide: float, floor: Material) -> str:
    """Raise the far end by a low step, a ramp or stairs across the whole width; return the tag."""
    x, kind = rng.uniform(0.45, 0.6) * end, pick(rng, ("step", "ramp", "stairs"))
    rest = end - x
    if kind == "step":
        h = rng.uniform(0.06, 0.15)
        b.box(place(x + rest / 2, 0), (0, 0, h / 2), (rest, wide, h), floor, label=Label.FLOOR)
    elif kind == "ramp":
        h = min(rng.uniform(0.15, 0.4), 0.16 * (rest - 1.0))
        add_ramp(b, place(x, 0), width=wide, run=h / 0.15, rise=h, material=floor)
        run = h / 0.15
        b.box(place(x + run + (rest - run) / 2, 0), (0, 0, h / 2), (rest - run, wide, h), floor, label=Label.FLOOR)
    else:
        shell.add_stairs(b, place(x, 0, -np.pi / 2), steps=int(rng.integers(2, 6)), width=wide, material=floor)
    return kind


def add_ramp(b: SceneBuilder, T: np.ndarray, *, width: float, run: float, rise: float, material: Material) -> None:
    """Add a ramp that climbs along +x from the origin to rise [m] after run [m]; it counts as floor up to 10 degrees."""
    angle, length, thick = np.arctan2(rise, run), float(np.hypot(run, rise)), 0.12
    turn = rotation("y", -angle)
    centre = turn @ [length / 2, 0, -thick / 2]
    b.box(
        T,
        tuple(centre),
        (length, width, thick),
        material,
        turn=turn,
        label=Label.FLOOR if angle <= np.radians(10) else Label.OBSTACLE,
    )
