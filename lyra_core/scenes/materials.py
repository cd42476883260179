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


def stripes(m: Material, s: Surface) -> np.ndarray:
    """Stripes across u, as wide as the gaps between them; scale is one period."""
    phase = (s.u / m.scale) % 1
    return _mix(m, (phase < 0.5) + 0.12 * (fbm(s.u * 60, s.v * 60, 3, octaves=2) - 0.5))


def checker(m: Material, s: Surface) -> np.ndarray:
    """Tiles of this scale in two colours."""
    i, j = np.floor(s.u / m.scale), np.floor(s.v / m.scale)
    joint = np.maximum(_lines(s.u, m.scale, 0.005), _lines(s.v, m.scale, 0.005))
    tone = 0.95 + 0.07 * hashed(i, j, 5) + 0.12 * (fbm(s.u * 9, s.v * 9, 3) - 0.5)
    return _mix(m, (i + j) % 2) * (tone * (1 - 0.35 * joint))[:, None]


def motif(m: Material, s: Surface) -> np.ndarray:
    """Wallpaper or patterned carpet: five-petalled flowers in half drop; scale is their distance."""
    column = np.floor(s.u / m.scale)
    x, y = (s.u / m.scale) % 1 - 0.5, (s.v / m.scale + 0.5 * (column % 2)) % 1 - 0.5
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    petal = r < 0.24 + 0.09 * np.cos(5 * angle)
    ring = np.abs(r - 0.42) < 0.025
    return _mix(m, 0.85 * petal * (r > 0.07) + 0.5 * ring + 0.15 * (fbm(s.u * 90, s.v * 90, 3, octaves=2) - 0.5))


def concrete(m: Material, s: Surface) -> np.ndarray:
    """Poured concrete with clouds, stains and joints; scale is the distance of the joints."""
    clouds, stains = fbm(s.u * 0.7, s.v * 0.7, 3), fbm(s.u * 2.3, s.v * 2.3, 17)
    joint = np.maximum(_lines(s.u, m.scale, 0.012), _lines(s.v, m.scale, 0.012))
    share = 0.9 * (clouds - 0.3) + 1.6 * np.maximum(stains - 0.62, 0) + 0.2 * (value_noise(s.u * 80, s.v * 80, 2) - 0.5)
    return _mix(m, share) * (1 - 0.4 * joint)[:, None]


def parquet(m: Material, s: Surface) -> np.ndarray:
    """Blocks of five staves that lie crosswise to their neighbours; scale is the block."""
    across = (np.floor(s.u / m.scale) + np.floor(s.v / m.scale)) % 2 > 0
    u, v = np.where(across, s.v, s.u), np.where(across, s.u, s.v)
    stave, block = np.floor(v / m.scale * 5), np.floor(u / m.scale)
    grain = fbm(u * 4 + 13 * stave, v * 60, 9, octaves=3)
    gap = np.maximum(_lines(v, m.scale / 5, 0.003), _lines(u, m.scale, 0.003))
    return _mix(m, 0.55 * hashed(stave, block, 2) + 0.6 * (grain - 0.3)) * (1 - 0.4 * gap)[:, None]


def dado(m: Material, s: Surface) -> np.ndarray:
    """A wall painted in the second colour up to scale [m] above the floor, with a thin line above it."""
    cloud = 0.97 + 0.06 * fbm(s.u, s.v, 3)
    line = np.abs(s.v - m.scale) < 0.012
    return _mix(m, s.v < m.scale) * (cloud * (1 - 0.45 * line))[:, None]


def books(m: Material, s: Surface) -> np.ndarray:
    """A row of book spines along u, 2-5 cm thick, of different heights."""
    column = np.floor(s.u / 0.034 + 0.35 * value_noise(s.u * 8, s.v * 0, 6))
    tall = s.half_v * (1 - 0.45 * hashed(column, s.solid, 3))
    hue = np.stack([hashed(column, s.solid, k) for k in (11, 12, 13)], -1) * 0.3 - 0.15
    title = (np.abs(s.v - 0.25 * s.half_v) < 0.14 * s.half_v) * 0.25 * (hashed(column, s.solid, 4) > 0.4)
    colour = _mix(m, hashed(column, s.solid, 7)) + hue + title[:, None]
    edge = np.minimum((s.u / 0.034) % 1, 1 - (s.u / 0.034) % 1) < 0.06
    return np.where((s.v > tall)[:, None], np.array([0.16, 0.13, 0.1]), colour * (1 - 0.4 * edge)[:, None])


def windows(m: Material, s: Surface) -> np.ndarray:
    """A house front: a window of the second colour per bay of this scale and storey of 3 m, in a pale frame with a sill."""
    up = s.v + s.half_v
    bay, storey = np.floor(s.u / m.scale), np.floor(up / 3.0)
    x, z = (s.u / m.scale - bay - 0.5) * m.scale, up - storey * 3.0 - 1.75
    inner, frame = (np.abs(x) < 0.48) & (np.abs(z) < 0.72), (np.abs(x) < 0.58) & (np.abs(z) < 0.82)
    bars = (np.abs(x) < 0.03) | (np.abs(z - 0.3) < 0.025)
    whole = (np.abs(bay + 0.5) * m.scale + 0.75 < s.half_u) & (up < 2 * s.half_v - 0.3)
    curtain = (np.abs(x) > 0.2 + 0.3 * hashed(bay, storey, s.solid)) & (hashed(bay, storey, 5) > 0.5)
    glass = np.where(curtain[:, None], np.array([0.72, 0.7, 0.66]), np.array(m.second))
    glass = glass * ((0.7 + 0.6 * hashed(bay, storey, 3)) * (0.85 + 0.25 * z))[:, None]
    sill = (np.abs(x) < 0.66) & (np.abs(z + 0.86) < 0.05)
    wall = np.array(m.colour) * (0.95 + 0.1 * fbm(s.u, s.v, 3) - 0.1 * (up < 0.5))[:, None]
    pane = np.where(bars[:, None], np.array([0.88, 0.87, 0.84]), glass)
    out = np.where((whole & (frame | sill))[:, None], np.array([0.88, 0.87, 0.84]), wall)
    return np.where((whole & inner)[:, None], pane, out)


def carton(m: Material, s: Surface) -> np.ndarray:
    """A cardboard box: brown with a strip of tape along its longer side and a printed label."""
    x, y = s.u / s.half_u, s.v / s.half_v
    tape = np.abs(np.where(s.half_u > s.half_v, s.v, s.u)) < 0.025
    label = (np.abs(x - 0.45) < 0.22) & (np.abs(y - 0.35) < 0.2)
    tone = (0.9 + 0.12 * hashed(s.solid, 3) + 0.08 * (fbm(s.u * 30, s.v * 6, 3) - 0.5))[:, None]
    colour = np.where(tape[:, None], np.array(m.second), np.array(m.colour)) * tone
    return np.where((label & (hashed(s.solid, 4) > 0.5))[:, None], np.array([0.9, 0.9, 0.88]), colour)


def foliage(m: Material, s: Surface) -> np.ndarray:
    """Leaves seen from some metres: light tufts over dark gaps; scale is a tuft."""
    tuft, fine = fbm(s.u / m.scale, s.v / m.scale, 4, octaves=3), value_noise(s.u * 28, s.v * 28, 6)
    gap = np.clip((0.46 - tuft) * 3 + (0.42 - fine) * 1.5, 0, 1)
    return _mix(m, 0.5 * hashed(s.solid, 5) + 1.5 * (tuft - 0.45) + 0.5 * (fine - 0.5)) * (1 - 0.55 * gap)[:, None]


_ALL = (
    plain, vary, plaster, planks, wood, bricks, tiles, fabric, rug, poster, leaf, mottled,
    stripes, checker, motif, concrete, parquet, dado, books, windows, carton, foliage,
)  # fmt: skip
PATTERNS = {f.__name__: f for f in _ALL}
