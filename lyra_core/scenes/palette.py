"""Seeded choices of colours and surface materials that occur in real places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from lyra_core.scenes.scene import Material, Rgb

T = TypeVar("T")

WALLS = (
    (0.93, 0.91, 0.87), (0.9, 0.89, 0.88), (0.87, 0.83, 0.75), (0.78, 0.8, 0.76), (0.74, 0.79, 0.83), (0.86, 0.77, 0.66),
    (0.62, 0.68, 0.62), (0.45, 0.52, 0.58), (0.78, 0.66, 0.6), (0.7, 0.68, 0.66), (0.92, 0.87, 0.7),
)  # fmt: skip
FABRICS = (
    (0.36, 0.46, 0.5), (0.52, 0.5, 0.47), (0.6, 0.3, 0.24), (0.3, 0.4, 0.3), (0.75, 0.68, 0.56), (0.2, 0.24, 0.34),
    (0.72, 0.55, 0.28), (0.45, 0.3, 0.36), (0.28, 0.28, 0.29), (0.84, 0.8, 0.74), (0.4, 0.26, 0.18),
)  # fmt: skip
BRIGHT = (
    (0.82, 0.16, 0.14), (0.95, 0.75, 0.15), (0.12, 0.4, 0.72), (0.2, 0.6, 0.32), (0.9, 0.45, 0.12), (0.55, 0.25, 0.6),
    (0.95, 0.95, 0.92), (0.12, 0.12, 0.13), (0.9, 0.55, 0.62), (0.3, 0.7, 0.75),
)  # fmt: skip
WOODS = (
    ((0.72, 0.55, 0.36), (0.52, 0.36, 0.21)), ((0.45, 0.3, 0.2), (0.27, 0.17, 0.11)), ((0.82, 0.72, 0.58), (0.7, 0.58, 0.44)),
    ((0.6, 0.4, 0.25), (0.42, 0.26, 0.15)), ((0.34, 0.28, 0.24), (0.24, 0.19, 0.16)),
)  # fmt: skip


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of the options."""
    return options[int(rng.integers(len(options)))]


def shade(colour: Rgb, factor: float) -> Rgb:
    """Return a darker or lighter colour."""
    return tuple(min(1.0, factor * float(c)) for c in colour)


def wood(rng: np.random.Generator) -> Material:
    """Return a furniture wood or a lacquer."""
    if rng.random() < 0.22:
        return Material("plain", pick(rng, ((0.93, 0.92, 0.9), (0.15, 0.15, 0.16), (0.5, 0.52, 0.5))), gloss=0.03)
    a, b = pick(rng, WOODS)
    return Material("wood", a, b, gloss=0.025)


def fabric(rng: np.random.Generator) -> Material:
    """Return an upholstery cloth."""
    colour = pick(rng, FABRICS)
    return Material("fabric", colour, shade(colour, 0.72), scale=0.006)


def bright(rng: np.random.Generator, *, gloss: float = 0.03) -> Material:
    """Return a coloured plastic."""
    return Material("plain", pick(rng, BRIGHT), gloss=gloss)


def carpet_colours(rng: np.random.Generator) -> tuple[Rgb, Rgb]:
    """Return two tones of a carpet."""
    return pick(rng, (
        ((0.42, 0.44, 0.48), (0.3, 0.32, 0.36)), ((0.62, 0.55, 0.46), (0.5, 0.43, 0.35)), ((0.5, 0.28, 0.24), (0.38, 0.2, 0.18)),
        ((0.3, 0.34, 0.3), (0.22, 0.26, 0.23)), ((0.72, 0.69, 0.64), (0.6, 0.57, 0.52)), ((0.25, 0.3, 0.42), (0.18, 0.22, 0.32)),
    ))  # fmt: skip


def floor_material(rng: np.random.Generator, style: str) -> Material:
    """Return a floor for style 'home', 'office', 'corridor' or 'hall'."""
    light = rng.uniform(0.8, 1.12)
    a, b = pick(rng, WOODS)
    planks = Material(
        "planks", shade(a, light), shade(b, light), scale=rng.uniform(0.09, 0.2), gloss=0.03, roughness=0.16, space="world"
    )
    parquet = Material("parquet", shade(a, light), shade(b, light), scale=rng.uniform(0.25, 0.5), gloss=0.03, space="world")
    stone = pick(rng, ((0.76, 0.73, 0.68), (0.6, 0.58, 0.56), (0.84, 0.82, 0.8), (0.45, 0.42, 0.4), (0.7, 0.55, 0.44)))
    tiles = Material("tiles", stone, shade(stone, 0.68), scale=rng.uniform(0.3, 0.8), gloss=0.05, roughness=0.08, space="world")
    first, second = pick(
        rng,
        (((0.88, 0.87, 0.84), (0.22, 0.22, 0.23)), ((0.82, 0.76, 0.66), (0.55, 0.36, 0.28)), ((0.7, 0.74, 0.74), (0.4, 0.48, 0.5))),
    )
    checker = Material("checker", first, second, scale=rng.uniform(0.2, 0.45), gloss=0.04, roughness=0.1, space="world")
    pile = carpet_colours(rng)
    carpet = Material("fabric", *pile, scale=0.012, space="world")
    figured = Material("motif", pile[0], shade(pile[1], rng.choice([0.75, 1.5])), scale=rng.uniform(0.2, 0.5), space="world")
    grey = rng.uniform(0.42, 0.68)
    concrete = Material(
        "concrete", (grey, grey, 0.97 * grey), shade((grey, 0.97 * grey, 0.92 * grey), 0.72), scale=rng.uniform(3, 6),
        gloss=float(rng.choice([0.0, 0.04])), roughness=0.15, space="world",
    )  # fmt: skip
    lino = Material("mottled", shade(stone, 0.95), shade(stone, 0.84), scale=0.3, gloss=0.04, roughness=0.12, space="world")
    return pick(rng, {
        "home": (planks, planks, planks, parquet, parquet, tiles, checker, carpet, carpet, concrete),
        "office": (carpet, carpet, carpet, tiles, planks, lino, concrete, figured),
        "corridor": (tiles, tiles, lino, lino, checker, carpet, figured, concrete, planks, parquet),
        "hall": (concrete, concrete, concrete, lino, tiles),
    }[style])  # fmt: skip


def wall_material(rng: np.random.Generator, style: str) -> Material:
    """Return a wall: plaster, wallpaper, brick or two tones of paint."""
    colour, roll = pick(rng, WALLS), rng.random()
    plain = Material("plaster", colour, shade(colour, 0.9), scale=1.3, space="world")
    if roll < (0.6 if style in ("home", "office") else 0.45):
        return plain
    if roll < 0.72 and style == "home":
        return Material("motif", colour, shade(colour, rng.choice([0.78, 1.12])), scale=rng.uniform(0.15, 0.4), space="world")
    if roll < 0.8 and style == "home":
        return Material("stripes", colour, shade(colour, 0.86), scale=rng.uniform(0.08, 0.3), space="world")
    if roll < 0.9:
        return Material(
            "dado", colour, pick(rng, WALLS + ((0.3, 0.42, 0.4), (0.35, 0.36, 0.4))), scale=rng.uniform(0.9, 1.4), space="world"
        )
    face = pick(rng, ((0.62, 0.34, 0.26), (0.85, 0.83, 0.8), (0.55, 0.44, 0.36)))
    return Material("bricks", face, (0.78, 0.75, 0.7), scale=0.24, space="world")


def daylight(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the radiance of the sky through a window."""
    strength, warm = rng.uniform(4, 9), rng.uniform(-0.08, 0.14)
    return (strength * (0.95 + warm), strength, strength * (1.1 - warm))
