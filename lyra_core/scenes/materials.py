"""Procedural surface colours, evaluated from the hit point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.scenes.noise import fbm, hashed, value_noise
from lyra_core.scenes.scene import Material


@dataclass(frozen=True)
class Surface:
    """Where a pattern is evaluated."""

    u: np.ndarray
    """(n,) first surface coordinate [m]."""
    v: np.ndarray
    """(n,) second surface coordinate [m]."""
    half_u: np.ndarray
    """(n,) half extent of the solid along u [m]."""
    half_v: np.ndarray
    """(n,) half extent of the solid along v [m]."""
    solid: np.ndarray
    """(n,) index of the solid: gives every object its own variation."""


def linear(srgb: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB values in [0, 1]."""
    srgb = np.asarray(srgb, np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4).astype(np.float32)


def encoded(light: np.ndarray) -> np.ndarray:
    """Return sRGB values of linear light in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def albedo(material: Material, surface: Surface) -> np.ndarray:
    """Return (n, 3) float32 linear reflectance."""
    return linear(np.clip(PATTERNS[material.pattern](material, surface), 0, 1))


def mean_albedo(material: Material) -> np.ndarray:
    """Return (3,) linear reflectance seen from afar, for light that bounces."""
    if material.pattern in ("plain", "vary"):
        return linear(np.array(material.colour))
    return 0.65 * linear(np.array(material.colour)) + 0.35 * linear(np.array(material.second))


def surface_coordinates(p: np.ndarray, n: np.ndarray, size: np.ndarray, solid: np.ndarray) -> Surface:
    """Return u, v on the faces of the coordinate box: p, n (points and normals), size (half extents), all (n, 3)."""
    axis = np.abs(n).argmax(1)
    rows = np.arange(len(p))
    first, second = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    return Surface(p[rows, first], p[rows, second], size[rows, first], size[rows, second], solid)


def _mix(m: Material, share: np.ndarray) -> np.ndarray:
    a, b = np.array(m.colour), np.array(m.second)
    return a + (b - a) * np.clip(share, 0, 1)[:, None]


def _lines(x: np.ndarray, period: float, width: float) -> np.ndarray:
    """Return 1 on lines of this width every period, 0 between."""
    return (np.abs(x / period - np.round(x / period)) * period < width / 2).astype(float)


def plain(m: Material, s: Surface) -> np.ndarray:
    """One colour."""
    return np.tile(np.array(m.colour), (len(s.u), 1))


def vary(m: Material, s: Surface) -> np.ndarray:
    """One colour per object, between the two."""
    return _mix(m, hashed(s.solid, 7)) * (0.9 + 0.15 * hashed(s.solid, 8))[:, None]


def plaster(m: Material, s: Surface) -> np.ndarray:
    """Faint clouds and grain, as of a rolled wall."""
    cloud, grain = fbm(s.u / m.scale, s.v / m.scale, 3), fbm(s.u * 180, s.v * 180, 5, octaves=2)
    return _mix(m, 0.7 * (cloud - 0.35)) * (0.985 + 0.03 * grain)[:, None]


def planks(m: Material, s: Surface) -> np.ndarray:
    """Floor boards along u; scale is their width, staggered joints 11 widths apart."""
    row = np.floor(s.v / m.scale)
    shifted = s.u / (11 * m.scale) + hashed(row, 1)
    board = np.floor(shifted)
    tone = hashed(row, board, 2)
    across = s.v / m.scale - row
    grain = fbm(s.u * 2.2 + 37 * tone, s.v * 42 + 11 * tone, 9) * 0.6 + fbm(s.u * 9, s.v * 160, 11, octaves=3) * 0.4
    rings = 0.5 + 0.5 * np.sin(26 * (fbm(s.u * 0.9 + 53 * tone, s.v * 7 + 5 * tone, 13, octaves=3) - 0.5 + 0.15 * across))
    gap = (np.minimum(across, 1 - across) * m.scale < 0.0016) | (np.abs(shifted - np.round(shifted)) * 11 * m.scale < 0.0016)
    colour = _mix(m, 0.5 * tone + 0.45 * (grain - 0.3) + 0.12 * rings)
    return colour * np.where(gap, 0.55, 0.94 + 0.12 * grain)[:, None]


def wood(m: Material, s: Surface) -> np.ndarray:
    """Grain along the object's longer side."""
    swap = s.half_v > s.half_u
    a, b = np.where(swap, s.v, s.u), np.where(swap, s.u, s.v)
    shift = 31 * hashed(s.solid, 3)
    grain = fbm(a * 2.5 + shift, b * 45 + shift, 9) * 0.7 + fbm(a * 12, b * 170, 11, octaves=2) * 0.3
    rings = 0.5 + 0.5 * np.sin(22 * fbm(a * 0.8 + shift, b * 8 + shift, 13, octaves=2))
    return _mix(m, 0.7 * (grain - 0.2) + 0.2 * rings + 0.2 * hashed(s.solid, 4))


def bricks(m: Material, s: Surface) -> np.ndarray:
    """Running bond; scale is the length of a brick; the second colour is the mortar."""
    course = np.floor(s.v / (m.scale / 3))
    x = s.u / m.scale + 0.5 * (course % 2)
    brick = np.floor(x)
    joint = np.maximum(_lines(s.v, m.scale / 3, m.scale * 0.045), _lines(x * m.scale, m.scale, m.scale * 0.045))
    tone = 0.75 + 0.4 * hashed(course, brick, 1) + 0.25 * (fbm(s.u * 40, s.v * 40, 2) - 0.5)
    face = np.array(m.colour) * tone[:, None]
    return np.where(joint[:, None] > 0, np.array(m.second) * (0.9 + 0.2 * value_noise(s.u * 90, s.v * 90))[:, None], face)


def tiles(m: Material, s: Surface) -> np.ndarray:
    """Square tiles of this scale; the second colour is the grout."""
    tone = 0.94 + 0.08 * hashed(np.round(s.u / m.scale - 0.5), np.round(s.v / m.scale - 0.5), 5)
    tone = tone + 0.1 * (fbm(s.u * 5 / m.scale, s.v * 5 / m.scale, 3) - 0.5)
    joint = np.maximum(_lines(s.u, m.scale, 0.006), _lines(s.v, m.scale, 0.006))
    return np.where(joint[:, None] > 0, np.array(m.second), np.array(m.colour) * tone[:, None])


def fabric(m: Material, s: Surface) -> np.ndarray:
    """Woven cloth; scale is the thread [m]."""
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * s.u / m.scale) + 0.25 * np.sin(2 * np.pi * s.v / m.scale)
    melange = fbm(s.u * 220, s.v * 220, 4, octaves=2) * 0.6 + fbm(s.u * 14, s.v * 14, 6) * 0.4
    return _mix(m, 0.25 * weave + 0.9 * (melange - 0.3)) * (0.94 + 0.1 * hashed(s.solid, 9))[:, None]


def rug(m: Material, s: Surface) -> np.ndarray:
    """A woven rug with borders and diamonds."""
    edge = np.minimum(s.half_u - np.abs(s.u), s.half_v - np.abs(s.v))
    diamond = np.abs(((s.u / m.scale) % 1) - 0.5) + np.abs(((s.v / m.scale) % 1) - 0.5)
    field = 0.75 * (np.abs(diamond - 0.5) < 0.09) + 0.55 * (np.abs(diamond - 0.12) < 0.05)
    border = (np.abs(edge - 0.13) < 0.02) | (np.abs(edge - 0.19) < 0.008)
    share = np.where(edge < 0.21, 0.95 * border + 0.08, field)
    pile = fbm(s.u * 160, s.v * 160, 2, octaves=3)
    rows = 0.04 * np.sin(2 * np.pi * s.v / 0.012)
    return _mix(m, share + 0.25 * (pile - 0.5)) * (0.9 + 0.2 * pile + rows)[:, None]


def poster(m: Material, s: Surface) -> np.ndarray:
    """A print on a white mount: hills below a sun, another one per object."""
    x, y = s.u / s.half_u, s.v / s.half_v
    seed = np.floor(hashed(s.solid, 21) * 999)
    mount = np.array([0.95, 0.94, 0.9])
    picture = _mix(m, 0.25 + 0.25 * y) * 0.6 + 0.4 * np.array([0.98, 0.9, 0.78])
    sun = np.hypot((x - 0.5 * hashed(s.solid, 22) + 0.2) * s.half_u, (y - 0.35) * s.half_v) < 0.28 * np.minimum(s.half_u, s.half_v)
    picture = np.where(sun[:, None], np.array([0.93, 0.58, 0.3]), picture)
    for i, level in enumerate((0.05, -0.25, -0.5)):
        ridge = level + 0.5 * (value_noise(x * 1.5 + i * 9, seed * 0 + 0.5, seed + i) - 0.4)
        tone = _mix(m, np.full(len(x), 0.15 + 0.4 * i)) * (1 - 0.22 * i)
        picture = np.where((y < ridge)[:, None], tone, picture)
    inside = (np.abs(x) < 0.8) & (np.abs(y) < 0.84)
    return np.where(inside[:, None], picture * (0.95 + 0.08 * fbm(s.u * 90, s.v * 90, 3))[:, None], mount)


def leaf(m: Material, s: Surface) -> np.ndarray:
    """Foliage: tone by object, mottled."""
    return _mix(m, 0.7 * hashed(s.solid, 5) + 0.8 * (fbm(s.u / m.scale, s.v / m.scale, 4) - 0.35))


def mottled(m: Material, s: Surface) -> np.ndarray:
    """Strong clouds with grain: asphalt, grass, soil."""
    clouds, grain = fbm(s.u / m.scale, s.v / m.scale, 8, octaves=5), value_noise(s.u * 70, s.v * 70, 2)
    return _mix(m, 1.6 * (clouds - 0.2) * 0.7 + 0.4 * (grain - 0.3))


PATTERNS = {f.__name__: f for f in (plain, vary, plaster, planks, wood, bricks, tiles, fabric, rug, poster, leaf, mottled)}
