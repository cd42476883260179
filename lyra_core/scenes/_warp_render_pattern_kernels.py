"""The noise of ``noise.py`` and the patterns of ``materials.py`` as Warp functions; importing this file needs warp.

The same hash, so the same boards, tiles and book spines; values differ by single precision only. What a pattern is for is
said in ``materials.py``.
"""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False})

NAMES = (
    "plain", "vary", "plaster", "planks", "wood", "bricks", "tiles", "fabric", "rug", "poster", "leaf", "mottled",
    "stripes", "checker", "motif", "concrete", "parquet", "dado", "books", "windows", "carton", "foliage",
)  # fmt: skip
"""Patterns in the order of the codes that ``pattern`` takes."""
TAU = wp.constant(6.283185307179586)
SEED, A = wp.constant(wp.uint32(0x9E3779B9)), wp.constant(wp.uint32(0x9E3779B1))
B, C = wp.constant(wp.uint32(0x7FEB352D)), wp.constant(wp.uint32(0x846CA68B))
"""Constants of the hash in ``noise.hashed``."""


@wp.struct
class Paint:
    """What a pattern needs of ``scene.Material``."""

    code: wp.int32
    colour: wp.vec3
    second: wp.vec3
    scale: wp.float32


@wp.struct
class Spot:
    """One point of ``materials.Surface``."""

    u: wp.float32
    v: wp.float32
    half_u: wp.float32
    half_v: wp.float32
    solid: wp.int32


@wp.func
def stirred(h: wp.uint32, value: wp.int32) -> wp.uint32:
    """Return the hash chain's next state."""
    h = (wp.uint32(value) + h) * A
    h = (h ^ (h >> wp.uint32(16))) * B
    h = (h ^ (h >> wp.uint32(15))) * C
    return h ^ (h >> wp.uint32(16))


@wp.func
def unit(h: wp.uint32) -> wp.float32:
    """Return a state as a number in [0, 1)."""
    return wp.float32(h >> wp.uint32(8)) / 16777216.0


@wp.func
def hashed(a: wp.int32, b: wp.int32) -> wp.float32:
    """Return the uniform number of two integers."""
    return unit(stirred(stirred(SEED, a), b))


@wp.func
def hashed(a: wp.int32, b: wp.int32, c: wp.int32) -> wp.float32:  # noqa: F811
    """Return the uniform number of three integers."""
    return unit(stirred(stirred(stirred(SEED, a), b), c))


@wp.func
def value_noise(x: wp.float32, y: wp.float32, seed: wp.int32) -> wp.float32:
    """Return smooth noise in [0, 1) with one lattice cell per unit."""
    ix = wp.floor(x)
    iy = wp.floor(y)
    i = wp.int32(ix)
    j = wp.int32(iy)
    fx = x - ix
    fy = y - iy
    fx = fx * fx * (3.0 - 2.0 * fx)
    fy = fy * fy * (3.0 - 2.0 * fy)
    left = stirred(SEED, i)
    right = stirred(SEED, i + 1)
    a = unit(stirred(stirred(left, j), seed))
    b = unit(stirred(stirred(right, j), seed))
    c = unit(stirred(stirred(left, j + 1), seed))
    d = unit(stirred(stirred(right, j + 1), seed))
    return a + (b - a) * fx + (c - a) * fy + (a - b - c + d) * fx * fy


@wp.func
def fbm(x: wp.float32, y: wp.float32, seed: wp.int32, octaves: wp.int32) -> wp.float32:
    """Return fractal noise in [0, 1): octaves of half the size and half the strength."""
    total = wp.float32(0.0)
    weight = wp.float32(0.0)
    share = wp.float32(1.0)
    i = wp.int32(0)
    while i < octaves:
        total += share * value_noise(x / share, y / share, seed + i * 101)
        weight += share
        share *= 0.5
        i += 1
    return total / weight


@wp.func
def mixed(m: Paint, share: wp.float32) -> wp.vec3:
    """Return a colour between the two."""
    return m.colour + (m.second - m.colour) * wp.clamp(share, 0.0, 1.0)


@wp.func
def part(x: wp.float32) -> wp.float32:
    """Return x modulo 1."""
    return x - wp.floor(x)


@wp.func
def cell(x: wp.float32) -> wp.int32:
    """Return the number of the unit cell of x."""
    return wp.int32(wp.floor(x))


@wp.func
def line(x: wp.float32, period: wp.float32, width: wp.float32) -> wp.float32:
    """Return 1 on lines of this width every period, 0 between."""
    y = x / period
    return wp.where(wp.abs(y - wp.floor(y + 0.5)) * period < 0.5 * width, 1.0, 0.0)


@wp.func
def planks(m: Paint, s: Spot) -> wp.vec3:
    row = wp.floor(s.v / m.scale)
    shifted = s.u / (11.0 * m.scale) + unit(stirred(stirred(SEED, wp.int32(row)), 1))
    tone = hashed(wp.int32(row), cell(shifted), 2)
    across = s.v / m.scale - row
    grain = fbm(s.u * 2.2 + 37.0 * tone, s.v * 42.0 + 11.0 * tone, 9, 4) * 0.6 + fbm(s.u * 9.0, s.v * 160.0, 11, 3) * 0.4
    rings = 0.5 + 0.5 * wp.sin(26.0 * (fbm(s.u * 0.9 + 53.0 * tone, s.v * 7.0 + 5.0 * tone, 13, 3) - 0.5 + 0.15 * across))
    joint = wp.abs(shifted - wp.floor(shifted + 0.5)) * 11.0 * m.scale
    gap = wp.min(across, 1.0 - across) * m.scale < 0.0016 or joint < 0.0016
    return mixed(m, 0.5 * tone + 0.45 * (grain - 0.3) + 0.12 * rings) * wp.where(gap, 0.55, 0.94 + 0.12 * grain)


@wp.func
def wood(m: Paint, s: Spot) -> wp.vec3:
    a = wp.where(s.half_v > s.half_u, s.v, s.u)
    b = wp.where(s.half_v > s.half_u, s.u, s.v)
    shift = 31.0 * hashed(s.solid, 3)
    grain = fbm(a * 2.5 + shift, b * 45.0 + shift, 9, 4) * 0.7 + fbm(a * 12.0, b * 170.0, 11, 2) * 0.3
    rings = 0.5 + 0.5 * wp.sin(22.0 * fbm(a * 0.8 + shift, b * 8.0 + shift, 13, 2))
    return mixed(m, 0.7 * (grain - 0.2) + 0.2 * rings + 0.2 * hashed(s.solid, 4))


@wp.func
def bricks(m: Paint, s: Spot) -> wp.vec3:
    course = wp.floor(s.v / (m.scale / 3.0))
    x = s.u / m.scale + part(0.5 * course)
    if wp.max(line(s.v, m.scale / 3.0, m.scale * 0.045), line(x * m.scale, m.scale, m.scale * 0.045)) > 0.0:
        return m.second * (0.9 + 0.2 * value_noise(s.u * 90.0, s.v * 90.0, 0))
    return m.colour * (0.75 + 0.4 * hashed(wp.int32(course), cell(x), 1) + 0.25 * (fbm(s.u * 40.0, s.v * 40.0, 2, 4) - 0.5))


@wp.func
def tiles(m: Paint, s: Spot) -> wp.vec3:
    if wp.max(line(s.u, m.scale, 0.006), line(s.v, m.scale, 0.006)) > 0.0:
        return m.second
    tone = 0.94 + 0.08 * hashed(cell(s.u / m.scale), cell(s.v / m.scale), 5)
    return m.colour * (tone + 0.1 * (fbm(s.u * 5.0 / m.scale, s.v * 5.0 / m.scale, 3, 4) - 0.5))


@wp.func
def fabric(m: Paint, s: Spot) -> wp.vec3:
    weave = 0.5 + 0.25 * wp.sin(TAU * part(s.u / m.scale)) + 0.25 * wp.sin(TAU * part(s.v / m.scale))
    melange = fbm(s.u * 220.0, s.v * 220.0, 4, 2) * 0.6 + fbm(s.u * 14.0, s.v * 14.0, 6, 4) * 0.4
    return mixed(m, 0.25 * weave + 0.9 * (melange - 0.3)) * (0.94 + 0.1 * hashed(s.solid, 9))


@wp.func
def rug(m: Paint, s: Spot) -> wp.vec3:
    edge = wp.min(s.half_u - wp.abs(s.u), s.half_v - wp.abs(s.v))
    diamond = wp.abs(part(s.u / m.scale) - 0.5) + wp.abs(part(s.v / m.scale) - 0.5)
    share = wp.where(wp.abs(diamond - 0.5) < 0.09, 0.75, 0.0) + wp.where(wp.abs(diamond - 0.12) < 0.05, 0.55, 0.0)
    if edge < 0.21:
        share = wp.where(wp.abs(edge - 0.13) < 0.02 or wp.abs(edge - 0.19) < 0.008, 1.03, 0.08)
    pile = fbm(s.u * 160.0, s.v * 160.0, 2, 3)
    return mixed(m, share + 0.25 * (pile - 0.5)) * (0.9 + 0.2 * pile + 0.04 * wp.sin(TAU * part(s.v / 0.012)))


@wp.func
def poster(m: Paint, s: Spot) -> wp.vec3:
    x = s.u / s.half_u
    y = s.v / s.half_v
    if wp.abs(x) >= 0.8 or wp.abs(y) >= 0.84:
        return wp.vec3(0.95, 0.94, 0.9)
    seed = wp.int32(wp.floor(hashed(s.solid, 21) * 999.0))
    picture = mixed(m, 0.25 + 0.25 * y) * 0.6 + wp.vec3(0.392, 0.36, 0.312)
    sx = (x - 0.5 * hashed(s.solid, 22) + 0.2) * s.half_u
    sy = (y - 0.35) * s.half_v
    if wp.sqrt(sx * sx + sy * sy) < 0.28 * wp.min(s.half_u, s.half_v):
        picture = wp.vec3(0.93, 0.58, 0.3)
    i = wp.int32(0)
    while i < 3:
        k = float(i)
        level = wp.where(i == 0, 0.05, wp.where(i == 1, -0.25, -0.5))
        if y < level + 0.5 * (value_noise(x * 1.5 + 9.0 * k, 0.5, seed + i) - 0.4):
            picture = mixed(m, 0.15 + 0.4 * k) * (1.0 - 0.22 * k)
        i += 1
    return picture * (0.95 + 0.08 * fbm(s.u * 90.0, s.v * 90.0, 3, 4))


@wp.func
def checker(m: Paint, s: Spot) -> wp.vec3:
    i = cell(s.u / m.scale)
    j = cell(s.v / m.scale)
    joint = wp.max(line(s.u, m.scale, 0.005), line(s.v, m.scale, 0.005))
    tone = 0.95 + 0.07 * hashed(i, j, 5) + 0.12 * (fbm(s.u * 9.0, s.v * 9.0, 3, 4) - 0.5)
    return mixed(m, 2.0 * part(0.5 * float(i + j))) * (tone * (1.0 - 0.35 * joint))


@wp.func
def motif(m: Paint, s: Spot) -> wp.vec3:
    column = wp.floor(s.u / m.scale)
    x = part(s.u / m.scale) - 0.5
    y = part(s.v / m.scale + part(0.5 * column)) - 0.5
    r = wp.sqrt(x * x + y * y)
    petal = wp.where(r < 0.24 + 0.09 * wp.cos(5.0 * wp.atan2(y, x)) and r > 0.07, 0.85, 0.0)
    ring = wp.where(wp.abs(r - 0.42) < 0.025, 0.5, 0.0)
    return mixed(m, petal + ring + 0.15 * (fbm(s.u * 90.0, s.v * 90.0, 3, 2) - 0.5))


@wp.func
def concrete(m: Paint, s: Spot) -> wp.vec3:
    clouds = fbm(s.u * 0.7, s.v * 0.7, 3, 4)
    stains = fbm(s.u * 2.3, s.v * 2.3, 17, 4)
    joint = wp.max(line(s.u, m.scale, 0.012), line(s.v, m.scale, 0.012))
    grain = value_noise(s.u * 80.0, s.v * 80.0, 2)
    return mixed(m, 0.9 * (clouds - 0.3) + 1.6 * wp.max(stains - 0.62, 0.0) + 0.2 * (grain - 0.5)) * (1.0 - 0.4 * joint)


@wp.func
def parquet(m: Paint, s: Spot) -> wp.vec3:
    across = part(0.5 * (wp.floor(s.u / m.scale) + wp.floor(s.v / m.scale))) > 0.0
    u = wp.where(across, s.v, s.u)
    v = wp.where(across, s.u, s.v)
    stave = wp.floor(v / m.scale * 5.0)
    grain = fbm(u * 4.0 + 13.0 * stave, v * 60.0, 9, 3)
    gap = wp.max(line(v, m.scale / 5.0, 0.003), line(u, m.scale, 0.003))
    return mixed(m, 0.55 * hashed(wp.int32(stave), cell(u / m.scale), 2) + 0.6 * (grain - 0.3)) * (1.0 - 0.4 * gap)


@wp.func
def books(m: Paint, s: Spot) -> wp.vec3:
    column = cell(s.u / 0.034 + 0.35 * value_noise(s.u * 8.0, 0.0, 6))
    if s.v > s.half_v * (1.0 - 0.45 * hashed(column, s.solid, 3)):
        return wp.vec3(0.16, 0.13, 0.1)
    hue = wp.vec3(hashed(column, s.solid, 11), hashed(column, s.solid, 12), hashed(column, s.solid, 13)) * 0.3
    titled = wp.abs(s.v - 0.25 * s.half_v) < 0.14 * s.half_v and hashed(column, s.solid, 4) > 0.4
    light = wp.where(titled, 0.25, 0.0) - 0.15
    phase = part(s.u / 0.034)
    shade = wp.where(wp.min(phase, 1.0 - phase) < 0.06, 0.6, 1.0)
    return (mixed(m, hashed(column, s.solid, 7)) + hue + wp.vec3(light, light, light)) * shade


@wp.func
def windows(m: Paint, s: Spot) -> wp.vec3:
    up = s.v + s.half_v
    bay = wp.floor(s.u / m.scale)
    storey = wp.floor(up / 3.0)
    x = (s.u / m.scale - bay - 0.5) * m.scale
    z = up - storey * 3.0 - 1.75
    frame = wp.vec3(0.88, 0.87, 0.84)
    if wp.abs(bay + 0.5) * m.scale + 0.75 < s.half_u and up < 2.0 * s.half_v - 0.3:
        b = wp.int32(bay)
        k = wp.int32(storey)
        if wp.abs(x) < 0.48 and wp.abs(z) < 0.72:
            if wp.abs(x) < 0.03 or wp.abs(z - 0.3) < 0.025:
                return frame
            curtain = wp.abs(x) > 0.2 + 0.3 * hashed(b, k, s.solid) and hashed(b, k, 5) > 0.5
            glass = m.second
            if curtain:
                glass = wp.vec3(0.72, 0.7, 0.66)
            return glass * ((0.7 + 0.6 * hashed(b, k, 3)) * (0.85 + 0.25 * z))
        if (wp.abs(x) < 0.58 and wp.abs(z) < 0.82) or (wp.abs(x) < 0.66 and wp.abs(z + 0.86) < 0.05):
            return frame
    return m.colour * (0.95 + 0.1 * fbm(s.u, s.v, 3, 4) - wp.where(up < 0.5, 0.1, 0.0))


@wp.func
def carton(m: Paint, s: Spot) -> wp.vec3:
    if wp.abs(s.u / s.half_u - 0.45) < 0.22 and wp.abs(s.v / s.half_v - 0.35) < 0.2 and hashed(s.solid, 4) > 0.5:
        return wp.vec3(0.9, 0.9, 0.88)
    colour = m.colour
    if wp.abs(wp.where(s.half_u > s.half_v, s.v, s.u)) < 0.025:
        colour = m.second
    return colour * (0.9 + 0.12 * hashed(s.solid, 3) + 0.08 * (fbm(s.u * 30.0, s.v * 6.0, 3, 4) - 0.5))


@wp.func
def foliage(m: Paint, s: Spot) -> wp.vec3:
    tuft = fbm(s.u / m.scale, s.v / m.scale, 4, 3)
    fine = value_noise(s.u * 28.0, s.v * 28.0, 6)
    gap = wp.clamp((0.46 - tuft) * 3.0 + (0.42 - fine) * 1.5, 0.0, 1.0)
    return mixed(m, 0.5 * hashed(s.solid, 5) + 1.5 * (tuft - 0.45) + 0.5 * (fine - 0.5)) * (1.0 - 0.55 * gap)


@wp.func
def short_pattern(m: Paint, s: Spot) -> wp.vec3:
    """Return the colour of one of the patterns that are a line or two."""
    if m.code == 1:
        return mixed(m, hashed(s.solid, 7)) * (0.9 + 0.15 * hashed(s.solid, 8))
    if m.code == 2:
        cloud = fbm(s.u / m.scale, s.v / m.scale, 3, 4)
        return mixed(m, 0.7 * (cloud - 0.35)) * (0.985 + 0.03 * fbm(s.u * 180.0, s.v * 180.0, 5, 2))
    if m.code == 10:
        return mixed(m, 0.7 * hashed(s.solid, 5) + 0.8 * (fbm(s.u / m.scale, s.v / m.scale, 4, 4) - 0.35))
    if m.code == 11:
        clouds = fbm(s.u / m.scale, s.v / m.scale, 8, 5)
        return mixed(m, 1.12 * (clouds - 0.2) + 0.4 * (value_noise(s.u * 70.0, s.v * 70.0, 2) - 0.3))
    if m.code == 12:
        dye = 0.12 * (fbm(s.u * 60.0, s.v * 60.0, 3, 2) - 0.5)
        return mixed(m, wp.where(part(s.u / m.scale) < 0.5, 1.0, 0.0) + dye)
    if m.code == 17:
        stripe = wp.where(wp.abs(s.v - m.scale) < 0.012, 0.55, 1.0)
        return mixed(m, wp.where(s.v < m.scale, 1.0, 0.0)) * ((0.97 + 0.06 * fbm(s.u, s.v, 3, 4)) * stripe)
    return m.colour


@wp.func
def pattern(m: Paint, s: Spot) -> wp.vec3:
    """Return the sRGB colour of a pattern, not yet clipped; codes count through NAMES."""
    if m.code == 3:
        return planks(m, s)
    if m.code == 4:
        return wood(m, s)
    if m.code == 5:
        return bricks(m, s)
    if m.code == 6:
        return tiles(m, s)
    if m.code == 7:
        return fabric(m, s)
    if m.code == 8:
        return rug(m, s)
    if m.code == 9:
        return poster(m, s)
    if m.code == 13:
        return checker(m, s)
    if m.code == 14:
        return motif(m, s)
    if m.code == 15:
        return concrete(m, s)
    if m.code == 16:
        return parquet(m, s)
    if m.code == 18:
        return books(m, s)
    if m.code == 19:
        return windows(m, s)
    if m.code == 20:
        return carton(m, s)
    if m.code == 21:
        return foliage(m, s)
    return short_pattern(m, s)


@wp.func
def linear(srgb: wp.float32) -> wp.float32:
    """Return linear light of an sRGB value, clipped to [0, 1]."""
    c = wp.clamp(srgb, 0.0, 1.0)
    return wp.where(c <= 0.04045, c / 12.92, wp.pow((c + 0.055) / 1.055, 2.4))


@wp.func
def reflectance(m: Paint, s: Spot) -> wp.vec3:
    """Return the linear reflectance of a point."""
    c = pattern(m, s)
    return wp.vec3(linear(c[0]), linear(c[1]), linear(c[2]))
