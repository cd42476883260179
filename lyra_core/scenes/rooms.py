"""Seeded indoor scenes: furnished room, corridor, office. The camera's place is the origin of x, y; it looks along +x."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes import furniture as fu
from lyra_core.scenes import shell
from lyra_core.scenes.scene import Light, Material, Scene, SceneBuilder, Sky, place
from lyra_core.types import Label

WALL_COLOURS = ((0.92, 0.89, 0.84), (0.78, 0.8, 0.76), (0.74, 0.78, 0.83), (0.88, 0.8, 0.7), (0.85, 0.86, 0.87))
CLOTH_COLOURS = ((0.36, 0.46, 0.5), (0.52, 0.5, 0.47), (0.6, 0.3, 0.24), (0.3, 0.4, 0.3), (0.75, 0.68, 0.56))
INDOOR_SKY = Sky(strength=1.5, lights=False, trees=0.15, ground=(0.2, 0.27, 0.13))


def furnished_room(rng: np.random.Generator) -> Scene:
    """Make a living room of 4.5-6 x 5-7 m with window, door, sofa, table, shelf, rug, plants and lamps."""
    b = SceneBuilder()
    x0, x1, y0, y1 = -rng.uniform(0.6, 1.2), rng.uniform(4.4, 6.0), -rng.uniform(1.9, 2.8), rng.uniform(1.9, 2.8)
    height, length = rng.uniform(2.4, 2.9), x1 - x0
    window = shell.Opening(0.9, 0.9 + rng.uniform(1.4, 2.4), rng.uniform(0.5, 0.95), height - rng.uniform(0.25, 0.4))
    start = rng.uniform(0.45, 0.6) * length
    door = shell.Opening(start, start + 0.88, 0.0, 2.03)
    frames = shell.add_room(
        b, (x0, y0), (x1, y1), height, openings={"left": (window,), "right": (door,)}, walls=_walls(rng), floor=_floor(rng)
    )
    shell.add_window(b, frames["left"], window, panes=int(rng.integers(2, 4)), daylight=_daylight(rng))
    shell.add_door(b, frames["right"], door, ajar=rng.choice([0.0, 0.5]))
    front, wide = frames["front"], y1 - y0
    middle, colour = wide / 2 + rng.uniform(-0.3, 0.3), _pick(rng, CLOTH_COLOURS)
    fu.add_sofa(b, front @ place(middle, 0.03), width=rng.uniform(1.8, 2.3), seats=int(rng.integers(2, 4)), colour=colour)
    for i in range(int(rng.integers(1, 4))):
        fu.add_picture(b, front, (middle + (i - 1) * 0.75, 1.65), (0.5, rng.uniform(0.5, 0.75)), _print(rng))
    fu.add_floor_lamp(b, front @ place(wide - 0.4, 0.4), strength=rng.uniform(1, 3))
    fu.add_plant(b, front @ place(0.45, 0.45), rng, height=rng.uniform(0.9, 1.7))
    centre = rng.uniform(0.5, 0.6) * x1 + 0.4
    fu.add_rug(
        b, place(centre, (y0 + y1) / 2), (1.7, rng.uniform(2.0, 2.6)), (colour, (0.88, 0.82, 0.7)), scale=rng.uniform(0.25, 0.5)
    )
    fu.add_table(b, place(centre + 0.2, (y0 + y1) / 2, np.pi / 2), (1.1, 0.6, 0.42), _pick(rng, (fu.OAK, fu.WALNUT)), leg=0.045)
    fu.add_bookshelf(b, frames["right"] @ place(length - 0.62, 0.015), rng, width=1.0, height=rng.uniform(1.4, 2.1))
    fu.add_armchair(b, frames["left"] @ place(0.75, 0.25, rng.uniform(-0.4, 0.4)), colour=_pick(rng, CLOTH_COLOURS))
    fu.add_pendant(b, place(centre, 0.0), ceiling=height, strength=rng.uniform(0.8, 2))
    return b.build(sky=INDOOR_SKY, ambient=(0.26, 0.25, 0.235), walkable=(x0 + 0.4, y0 + 0.5, centre - 1.1, y1 - 0.5))


def corridor(rng: np.random.Generator) -> Scene:
    """Make a corridor 1.7-2.6 m wide and 9-16 m long with doors on both sides and ceiling lights."""
    b = SceneBuilder()
    half, x0, x1, height = rng.uniform(0.85, 1.3), -rng.uniform(1, 2), rng.uniform(8, 14), rng.uniform(2.4, 2.9)
    spacing, leaf = (
        rng.uniform(2.2, 3.2),
        Material("wood", _pick(rng, ((0.7, 0.55, 0.38), (0.5, 0.36, 0.24), (0.8, 0.8, 0.78))), (0.5, 0.38, 0.26)),
    )
    count = int((x1 - x0 - 1) // spacing)
    starts = [0.8 + i * spacing for i in range(count)]
    openings = {
        side: tuple(shell.Opening(s, s + 0.9, 0.0, 2.05) for s in starts if rng.random() < 0.8) for side in ("left", "right")
    }
    end = shell.Opening(half - 0.55, half + 0.55, 0.9, 2.1)
    frames = shell.add_room(
        b, (x0, -half), (x1, half), height, openings={**openings, "front": (end,)}, walls=_walls(rng), floor=_floor(rng, hard=True)
    )
    shell.add_window(b, frames["front"], end, panes=1, daylight=_daylight(rng))
    for side, holes in openings.items():
        for o in holes:
            shell.add_door(b, frames[side], o, material=leaf)
    _ceiling_lights(b, np.arange(x0 + 1.2, x1, 2.4), [0.0], height, strength=rng.uniform(7, 12))
    if rng.random() < 0.7:
        fu.add_plant(b, frames["front"] @ place(0.35, 0.4), rng, height=1.2)
    if rng.random() < 0.7:
        fu.add_cabinet(b, frames["right"] @ place(starts[-1] - 0.75, 0.015), width=0.9, height=0.8, depth=0.3)
    return b.build(sky=INDOOR_SKY, ambient=(0.22, 0.22, 0.21), walkable=(x0 + 0.4, 0.4 - half, x1 - 1.5, half - 0.4))


def office(rng: np.random.Generator) -> Scene:
    """Make an office of 6-9 x 7-9 m with rows of desks, cabinets and ceiling panels."""
    b = SceneBuilder()
    x0, x1, half, height = -rng.uniform(0.6, 1.2), rng.uniform(6, 8.5), rng.uniform(2.6, 3.6), rng.uniform(2.6, 3.0)
    windows = tuple(shell.Opening(s, s + 1.5, 0.85, 2.2) for s in np.arange(0.6, x1 - x0 - 1.6, 1.9))
    door = shell.Opening(half + 0.8, half + 1.7, 0.0, 2.05)
    frames = shell.add_room(
        b,
        (x0, -half),
        (x1, half),
        height,
        openings={"left": windows, "front": (door,)},
        walls=_walls(rng),
        floor=_floor(rng, hard=True),
    )
    for o in windows:
        shell.add_window(b, frames["left"], o, daylight=None)
    shell.add_window(b, frames["left"], windows[0], daylight=_daylight(rng))
    shell.add_door(b, frames["front"], door, material=fu.OAK)
    for x in np.arange(2.2, x1 - 0.9, 2.1):
        for side in (-1, 1):
            if rng.random() < 0.85:
                turn = 0.0 if side < 0 else np.pi
                fu.add_desk(b, place(x + rng.uniform(-0.1, 0.1), side * (half - 0.45), turn), rng)
    fu.add_cabinet(b, frames["front"] @ place(half - 0.7, 0.015), width=1.4, height=1.1, depth=0.45, material=fu.WHITE)
    fu.add_plant(b, place(x1 - 0.5, half - 0.5), rng, height=1.5)
    _ceiling_lights(b, np.arange(x0 + 1.2, x1, 2.6), [-half / 2, half / 2], height, strength=rng.uniform(5, 8))
    return b.build(sky=INDOOR_SKY, ambient=(0.24, 0.24, 0.24), walkable=(x0 + 0.4, -0.6, x1 - 1.2, 0.6))


def _ceiling_lights(b: SceneBuilder, xs, ys, height: float, *, strength: float) -> None:
    panel = Material("plain", (1.0, 0.98, 0.94), emission=2.5)
    for x in xs:
        for y in ys:
            b.box(np.eye(4), (x, y, height - 0.01), (0.6, 0.6, 0.02), panel, label=Label.CEILING)
            colour = tuple(strength * c for c in (1.0, 0.95, 0.86))
            b.lights.append(Light("rect", (x, y, height - 0.03), colour, edge_u=(0.6, 0, 0), edge_v=(0, -0.6, 0)))


def _pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


def _walls(rng: np.random.Generator) -> dict[str, Material]:
    main, accent = (tuple(_pick(rng, WALL_COLOURS)) for _ in range(2))
    shades = {"left": main, "right": main, "back": main, "front": accent}
    return {name: Material("plaster", c, tuple(0.9 * x for x in c), scale=1.3, space="world") for name, c in shades.items()}


def _floor(rng: np.random.Generator, *, hard: bool = False) -> Material:
    boards = Material("planks", (0.74, 0.56, 0.38), (0.5, 0.34, 0.2), scale=rng.uniform(0.1, 0.2), gloss=0.03, space="world")
    tile = Material(
        "tiles", (0.74, 0.72, 0.68), (0.5, 0.48, 0.45), scale=rng.uniform(0.3, 0.6), gloss=0.05, roughness=0.1, space="world"
    )
    carpet = Material("fabric", (0.42, 0.44, 0.48), (0.3, 0.32, 0.36), scale=0.012, space="world")
    return _pick(rng, (boards, tile, carpet) if hard else (boards, boards, tile))


def _print(rng: np.random.Generator):
    return tuple(tuple(rng.uniform(0.25, 0.85, 3)) for _ in range(2))


def _daylight(rng: np.random.Generator) -> tuple[float, float, float]:
    strength, warm = rng.uniform(4, 8), rng.uniform(-0.08, 0.12)
    return (strength * (0.95 + warm), strength, strength * (1.1 - warm))
