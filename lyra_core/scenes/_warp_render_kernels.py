"""Warp kernels of the fast renderer: what the camera sees, the light on it, a filter; importing this file needs warp.

Light follows ``lighting.py`` with two differences: shadows meet the exact solids, not their triangles, and a bounce is lit by one
lamp drawn in proportion to what each would bring without shadows (resampled importance sampling, Talbot et al. 2005).
"""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

from lyra_core.scenes._warp_render_pattern_kernels import Paint, Spot, fbm, hashed, reflectance, value_noise
from lyra_core.scenes._warp_render_solid_kernels import Solids, blocked, local_normal, nearest

wp.set_module_options({"enable_backward": False})

PI = wp.constant(3.14159265358979)
BRIGHTEST = wp.constant(3.0)
"""As in ``lighting.py``."""
LIFT = wp.constant(0.003)
"""Rays leave a surface this far off it [m] ..."""
LIFT_FAR = wp.constant(4.0e-6)
"""... plus this share of the distance to the camera, for single precision."""
MIRROR = wp.constant(0.3)
"""Surfaces from this gloss on show a picture: its patterns are evaluated and it is not filtered."""
DARK = wp.constant(1.0e-5)


@wp.struct
class Look:
    """Arrays of ``scene.Material``; colours that are light are linear."""

    code: wp.array(dtype=wp.int32)
    colour: wp.array(dtype=wp.vec3)
    second: wp.array(dtype=wp.vec3)
    scale: wp.array(dtype=wp.float32)
    gloss: wp.array(dtype=wp.float32)
    roughness: wp.array(dtype=wp.float32)
    own_frame: wp.array(dtype=wp.int32)
    mean: wp.array(dtype=wp.vec3)
    emission: wp.array(dtype=wp.vec3)


@wp.struct
class Lamps:
    """Arrays of ``scene.Light``: kind 0 = rect, 1 = sphere, 2 = sun."""

    count: wp.int32
    kind: wp.array(dtype=wp.int32)
    position: wp.array(dtype=wp.vec3)
    colour: wp.array(dtype=wp.vec3)
    edge_u: wp.array(dtype=wp.vec3)
    edge_v: wp.array(dtype=wp.vec3)
    radius: wp.array(dtype=wp.float32)


@wp.struct
class Air:
    """``scene.Sky`` and the scene's ambient radiance."""

    zenith: wp.vec3
    horizon: wp.vec3
    ground: wp.vec3
    strength: wp.float32
    lights: wp.int32
    trees: wp.float32
    ambient: wp.vec3


@wp.struct
class View:
    """A camera: pixel (i, j) looks along R_world_camera ((i + .5, j + .5, 1) unprojected by fx, fy, skew, cx, cy)."""

    width: wp.int32
    fx: wp.float32
    fy: wp.float32
    skew: wp.float32
    cx: wp.float32
    cy: wp.float32
    R_world_camera: wp.mat33
    origin: wp.vec3


@wp.struct
class Seen:
    """What the camera sees, a pixel each."""

    t: wp.array(dtype=wp.float32)
    solid: wp.array(dtype=wp.int32)
    normal: wp.array(dtype=wp.vec3)
    point: wp.array(dtype=wp.vec3)
    albedo: wp.array(dtype=wp.vec3)


@wp.func
def ray_of(view: View, i: wp.int32) -> wp.vec3:
    """Return a pixel's direction in the world; its camera z is 1, so ray parameters are z-depths."""
    y = (float(i // view.width) + 0.5 - view.cy) / view.fy
    x = (float(i % view.width) + 0.5 - view.cx - view.skew * y) / view.fx
    return view.R_world_camera * wp.vec3(x, y, 1.0)


@wp.func
def normal_at(solids: Solids, i: wp.int32, p: wp.vec3) -> wp.vec3:
    """Return the outward unit normal in the world of solid i at world point p."""
    R = solids.R_local_world[i]
    return wp.transpose(R) * local_normal(solids, i, R * (p - solids.centre[i]))


@wp.func
def colour_at(solids: Solids, look: Look, i: wp.int32, p: wp.vec3, n: wp.vec3) -> wp.vec3:
    """Return the linear reflectance of solid i at world point p with world normal n."""
    k = solids.material[i]
    at = p
    facing = n
    if look.own_frame[k] == 1:
        R = solids.R_local_world[i]
        at = R * (p - solids.centre[i])
        facing = R * n
    half = solids.size[i]
    if solids.kind[i] == 2:
        wide = wp.max(half[0], half[1])
        half = wp.vec3(wide, wide, half[2])
    steep = wp.vec3(wp.abs(facing[0]), wp.abs(facing[1]), wp.abs(facing[2]))
    first = wp.int32(0)
    second = wp.int32(1)
    if steep[0] >= steep[1] and steep[0] >= steep[2]:
        first = 1
        second = 2
    elif steep[1] >= steep[2]:
        second = 2
    spot = Spot(u=at[first], v=at[second], half_u=half[first], half_v=half[second], solid=i)
    return reflectance(Paint(code=look.code[k], colour=look.colour[k], second=look.second[k], scale=look.scale[k]), spot)


@wp.func
def sky_radiance(air: Air, direction: wp.vec3) -> wp.vec3:
    """Return the linear radiance of the sky and the far landscape."""
    d = wp.normalize(direction)
    slope = d[2] / wp.max(wp.sqrt(d[0] * d[0] + d[1] * d[1]), 1.0e-6)
    azimuth = wp.atan2(d[1], d[0])
    dapple = 0.6 + 0.7 * fbm(azimuth * 22.0, slope * 30.0, 5, 4)
    if slope < 0.0:
        return air.ground * (air.strength * (0.8 + 0.2 * dapple))
    if air.trees > 0.0:
        crown = 0.45 + 0.4 * value_noise(azimuth * 9.0, 0.0, 3) + 0.25 * value_noise(azimuth * 31.0, 0.0, 4)
        if slope < air.trees * crown:
            return wp.vec3(0.11, 0.19, 0.07) * (air.strength * dapple)
    colour = air.horizon + (air.zenith - air.horizon) * wp.pow(wp.clamp(d[2], 0.0, 1.0), 0.6)
    puffs = value_noise(azimuth * 3.0, slope * 9.0, 1) * value_noise(azimuth * 8.0, slope * 20.0, 2)
    cloud = 0.6 * wp.clamp(1.6 * puffs - 0.15, 0.0, 1.0)
    return (colour + (wp.vec3(1.0, 1.0, 1.0) - colour) * cloud) * air.strength


@wp.func
def across(n: wp.vec3, x: wp.float32, y: wp.float32) -> wp.vec3:
    """Return x, y along two unit vectors across n (Duff et al. 2017)."""
    sign = wp.where(n[2] >= 0.0, 1.0, -1.0)
    a = -1.0 / (sign + n[2])
    b = n[0] * n[1] * a
    t = wp.vec3(1.0 + sign * n[0] * n[0] * a, sign * b, -sign * n[0])
    return t * x + wp.vec3(b, sign + n[1] * n[1] * a, -n[1]) * y


@wp.func
def spread(key: wp.int32, salt: wp.int32, axis: wp.int32, i: wp.int32) -> wp.float32:
    """Return random number i of a point in [0, 1): a hash per point, spread evenly over i (the R2 sequence, Roberts 2018)."""
    x = hashed(key, salt, axis) + float(i) * wp.where(axis == 0, 0.7548776662466927, 0.5698402909980532)
    return x - wp.floor(x)


@wp.func
def to_lamp(lamps: Lamps, k: wp.int32, p: wp.vec3, u: wp.float32, v: wp.float32):
    """Return the vector to a random place of lamp k and the irradiance factor before the surface's cosine."""
    at = lamps.position[k]
    phi = 2.0 * PI * v
    if lamps.kind[k] == 2:
        sun = wp.normalize(at)
        r = lamps.radius[k] * wp.sqrt(u)
        return (sun + across(sun, r * wp.cos(phi), r * wp.sin(phi))) * 500.0, 1.0
    if lamps.kind[k] == 0:
        eu = lamps.edge_u[k]
        ev = lamps.edge_v[k]
        to = at + eu * (u - 0.5) + ev * (v - 0.5) - p
        square = wp.dot(to, to)
        return to, wp.max(-wp.dot(to, wp.cross(eu, ev)), 0.0) / wp.max(square * wp.sqrt(square), 1.0e-6)
    z = 2.0 * u - 1.0
    r = wp.sqrt(wp.max(1.0 - z * z, 0.0))
    to = at + wp.vec3(r * wp.cos(phi), r * wp.sin(phi), z) * lamps.radius[k] - p
    return to, 1.0 / wp.max(wp.dot(to, to), 0.01)


@wp.func
def direct(solids: Solids, lamps: Lamps, p: wp.vec3, n: wp.vec3, key: wp.int32, count: wp.int32, salt: wp.int32) -> wp.vec3:
    """Return the radiance of a white surface lit by every lamp, with count shadow rays each."""
    total = wp.vec3()
    k = wp.int32(0)
    while k < lamps.count:
        i = wp.int32(0)
        while i < count:
            to, power = to_lamp(lamps, k, p, spread(key, salt + 17 * k, 0, i), spread(key, salt + 17 * k, 1, i))
            arriving = power * wp.dot(to, n) / wp.length(to)
            if arriving > DARK:
                if not blocked(solids, p, to):
                    total += lamps.colour[k] * (arriving / (PI * float(count)))
            i += 1
        k += 1
    return total


@wp.func
def direct_one(solids: Solids, lamps: Lamps, p: wp.vec3, n: wp.vec3, key: wp.int32, salt: wp.int32) -> wp.vec3:
    """Return the radiance of a white surface lit by the lamps, with one shadow ray to one of them."""
    total = wp.float32(0.0)
    chosen = wp.int32(-1)
    gain = wp.float32(0.0)
    way = wp.vec3()
    k = wp.int32(0)
    while k < lamps.count:
        to, power = to_lamp(lamps, k, p, spread(key, salt + 17 * k, 0, 0), spread(key, salt + 17 * k, 1, 0))
        arriving = power * wp.dot(to, n) / wp.length(to)
        if arriving > DARK:
            c = lamps.colour[k]
            weight = arriving * (c[0] + c[1] + c[2])
            total += weight
            if hashed(key, salt + 17 * k, 2) * total < weight:
                chosen = k
                gain = arriving / weight
                way = to
        k += 1
    if chosen < 0:
        return wp.vec3()
    if blocked(solids, p, way):
        return wp.vec3()
    return lamps.colour[chosen] * (gain * total / PI)


@wp.func
def incoming(solids: Solids, look: Look, lamps: Lamps, air: Air, p: wp.vec3, d: wp.vec3, key: wp.int32, salt: wp.int32) -> wp.vec3:
    """Return the radiance that a diffuse bounce brings along d; sky only where it lights the scene."""
    t, i = nearest(solids, p, d, 1)
    if i < 0:
        return wp.where(air.lights == 1, sky_radiance(air, d), wp.vec3())
    hit = p + d * t
    n = normal_at(solids, i, hit)
    k = solids.material[i]
    light = direct_one(solids, lamps, hit + n * LIFT, n, key, salt) + air.ambient
    out = wp.cw_mul(look.mean[k], light) + look.emission[k]
    # A bounce beside a lamp would be a spark that no number of samples here can average out.
    return wp.vec3(wp.min(out[0], BRIGHTEST), wp.min(out[1], BRIGHTEST), wp.min(out[2], BRIGHTEST))


@wp.func
def pictured(solids: Solids, look: Look, lamps: Lamps, air: Air, p: wp.vec3, d: wp.vec3) -> wp.vec3:
    """Return what a mirror shows along d: patterns, the sky, and the light of one place on every lamp, so without noise."""
    t, i = nearest(solids, p, d, 0)
    if i < 0:
        return sky_radiance(air, d)
    hit = p + d * t
    n = normal_at(solids, i, hit)
    light = direct(solids, lamps, hit + n * LIFT, n, 0, 1, 477) + air.ambient
    return wp.cw_mul(colour_at(solids, look, i, hit, n), light) + look.emission[solids.material[i]]


@wp.kernel
def see(solids: Solids, look: Look, view: View, coloured: wp.int32, seen: Seen):
    """One pixel a thread: the first surface, and its colour if asked for."""
    i = wp.tid()
    d = ray_of(view, i)
    t, k = nearest(solids, view.origin, d, 0)
    seen.solid[i] = k
    seen.t[i] = t
    if k < 0:
        seen.normal[i] = wp.vec3()
        seen.point[i] = wp.vec3()
        seen.albedo[i] = wp.vec3()
    else:
        p = view.origin + d * t
        n = normal_at(solids, k, p)
        seen.point[i] = p
        seen.normal[i] = n
        if coloured == 1:
            seen.albedo[i] = colour_at(solids, look, k, p, n)


@wp.func
def lifted(seen: Seen, i: wp.int32) -> wp.vec3:
    """Return where rays leave the surface in pixel i."""
    return seen.point[i] + seen.normal[i] * (LIFT + LIFT_FAR * seen.t[i])


@wp.func
def shows_picture(look: Look, material: wp.int32) -> wp.bool:
    """Say whether a surface is a mirror."""
    return look.gloss[material] >= MIRROR and look.roughness[material] < 0.05


@wp.func
def mirrored(d: wp.vec3, n: wp.vec3, gloss: wp.float32, rough: wp.float32, key: wp.int32):
    """Return where a ray d (unit) goes on, within a lobe of the roughness, and Schlick's Fresnel term."""
    cosine = wp.clamp(-wp.dot(d, n), 0.0, 1.0)
    x = hashed(key, 61, 0) + hashed(key, 67, 0) - 1.0
    y = hashed(key, 61, 1) + hashed(key, 67, 1) - 1.0
    z = hashed(key, 61, 2) + hashed(key, 67, 2) - 1.0
    out = d + n * (2.0 * cosine) + wp.vec3(x, y, z) * rough
    out = out - n * (2.0 * wp.min(wp.dot(out, n), 0.0))
    return out, gloss + (1.0 - gloss) * wp.pow(1.0 - cosine, 5.0) * (1.0 - rough) * (1.0 - rough)


@wp.kernel
def glow(solids: Solids, look: Look, lamps: Lamps, air: Air, view: View, seen: Seen, out: wp.array(dtype=wp.vec3)):
    """One pixel a thread: radiance that needs no filter, of the sky, lamps and mirrors."""
    i = wp.tid()
    d = wp.normalize(ray_of(view, i))
    k = seen.solid[i]
    if k < 0:
        out[i] = sky_radiance(air, d)
    else:
        m = solids.material[k]
        total = look.emission[m]
        if shows_picture(look, m):
            way, share = mirrored(d, seen.normal[i], look.gloss[m], 0.0, 0)
            total += pictured(solids, look, lamps, air, lifted(seen, i), way) * share
        out[i] = total


@wp.kernel
def shade(
    solids: Solids,
    look: Look,
    lamps: Lamps,
    air: Air,
    view: View,
    seen: Seen,
    wanted: wp.array(dtype=wp.int32),
    seed: wp.int32,
    light_samples: wp.int32,
    bounce_samples: wp.int32,
    light: wp.array(dtype=wp.vec3),
    sheen: wp.array(dtype=wp.vec3),
):
    """One wanted pixel a thread: the light that a white surface gives back, and blurred reflections."""
    i = wp.tid()
    k = seen.solid[i]
    if wanted[i] == 0:
        return
    light[i] = wp.vec3()
    sheen[i] = wp.vec3()
    if k < 0:
        return
    key = i + seed
    n = seen.normal[i]
    p = lifted(seen, i)
    total = direct(solids, lamps, p, n, key, light_samples, 0)
    b = wp.int32(0)
    while b < bounce_samples:
        u = spread(key, 991, 0, b)
        phi = 2.0 * PI * spread(key, 991, 1, b)
        r = wp.sqrt(u)
        out = across(n, r * wp.cos(phi), r * wp.sin(phi)) + n * wp.sqrt(1.0 - u)
        total += incoming(solids, look, lamps, air, p, out, key, 400 + 31 * b) / float(bounce_samples)
        b += 1
    if bounce_samples == 0:
        total += air.ambient
    light[i] = total
    m = solids.material[k]
    if look.gloss[m] > 0.0 and bounce_samples > 0 and not shows_picture(look, m):
        way, share = mirrored(wp.normalize(ray_of(view, i)), n, look.gloss[m], look.roughness[m], key)
        sheen[i] = incoming(solids, look, lamps, air, p, way, key, 477) * share


@wp.kernel
def borrow(
    solids: Solids,
    coarse: Seen,
    coarse_light: wp.array(dtype=wp.vec3),
    coarse_sheen: wp.array(dtype=wp.vec3),
    width: wp.int32,
    height: wp.int32,
    k: wp.int32,
    fine: Seen,
    light: wp.array(dtype=wp.vec3),
    sheen: wp.array(dtype=wp.vec3),
    wanted: wp.array(dtype=wp.int32),
):
    """One of k x k samples a thread: light from the coarse pixels round it that lie in its plane; wanted where there are none."""
    i = wp.tid()
    light[i] = wp.vec3()
    sheen[i] = wp.vec3()
    wanted[i] = 0
    solid = fine.solid[i]
    if solid < 0:
        return
    x = (float(i % (width * k)) + 0.5) / float(k) - 0.5
    y = (float(i // (width * k)) + 0.5) / float(k) - 0.5
    n = fine.normal[i]
    p = fine.point[i]
    weight = wp.float32(0.0)
    total = wp.vec3()
    shine = wp.vec3()
    tap = wp.int32(0)
    while tap < 4:
        a = wp.int32(wp.floor(x)) + tap % 2
        b = wp.int32(wp.floor(y)) + tap // 2
        if a >= 0 and a < width and b >= 0 and b < height:
            j = b * width + a
            other = coarse.solid[j]
            if other >= 0 and wp.dot(n, coarse.normal[j]) > 0.9:
                off = wp.abs(wp.dot(coarse.point[j] - p, n))
                if solids.material[other] == solids.material[solid] and off < 0.006 * fine.t[i]:
                    w = (1.0 - wp.abs(x - float(a))) * (1.0 - wp.abs(y - float(b)))
                    total += coarse_light[j] * w
                    shine += coarse_sheen[j] * w
                    weight += w
        tap += 1
    if weight > 0.05:
        light[i] = total / weight
        sheen[i] = shine / weight
    else:
        wanted[i] = 1


@wp.kernel
def smooth(
    light: wp.array(dtype=wp.vec3),
    seen: Seen,
    width: wp.int32,
    height: wp.int32,
    step: wp.int32,
    out: wp.array(dtype=wp.vec3),
):
    """One pixel a thread: one level of the edge-avoiding wavelet of ``lighting.smoothed``."""
    i = wp.tid()
    total = light[i]
    if seen.solid[i] >= 0:
        weight = wp.float32(1.0)
        x = i % width
        y = i // width
        n = seen.normal[i]
        p = seen.point[i]
        depth = seen.t[i]
        tap = wp.int32(0)
        while tap < 9:
            dx = tap % 3 - 1
            dy = tap // 3 - 1
            a = x + dx * step
            b = y + dy * step
            if tap != 4 and a >= 0 and a < width and b >= 0 and b < height:
                j = b * width + a
                same = wp.dot(n, seen.normal[j])
                away = seen.point[j] - p
                if same > 0.8 and wp.length(away) < 0.12 * depth:
                    square = same * same
                    eighth = square * square * square * square
                    w = eighth * eighth * eighth * wp.exp(-wp.abs(wp.dot(away, n)) / (0.004 * depth + 1.0e-6))
                    w *= wp.where(dx != 0 and dy != 0, 0.5, 0.7)
                    total += light[j] * w
                    weight += w
            tap += 1
        total = total / weight
    out[i] = total
