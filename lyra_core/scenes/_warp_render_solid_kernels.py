"""Rays against analytic solids as Warp functions: ``intersect.py`` for one ray a thread; importing this file needs warp.

Queries of the tree have no largest distance: Warp knows it since 1.11 only, and it saves a tenth of the time at most.

Single precision. Rays at round solids are first moved to their point nearest to the solid's centre, because the quadratic's
terms would else cancel: 20 m away from a 6 cm tube the discriminant keeps no digit.
"""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False})

EPS = wp.constant(1.0e-6)
FAR = wp.constant(1.0e9)
TIE = wp.constant(2.0e-6)
"""Relative distance below which two hits count as one and the solid with the lower index wins, as in ``intersect.cast``."""


@wp.struct
class Solids:
    """Arrays of ``scene.Scene`` and a tree of their boxes."""

    bvh: wp.uint64
    kind: wp.array(dtype=wp.int32)
    R_local_world: wp.array(dtype=wp.mat33)
    centre: wp.array(dtype=wp.vec3)
    size: wp.array(dtype=wp.vec3)
    extra: wp.array(dtype=wp.float32)
    material: wp.array(dtype=wp.int32)
    casts: wp.array(dtype=wp.int32)


@wp.func
def slabs(o: wp.vec3, d: wp.vec3, half: wp.vec3) -> wp.float32:
    """Return where a ray enters a box, FAR = not."""
    near = float(-FAR)
    far = float(FAR)
    for i in range(3):
        s = wp.where(wp.abs(d[i]) < 1.0e-12, 1.0e-12, d[i])
        a = (-half[i] - o[i]) / s
        b = (half[i] - o[i]) / s
        near = wp.max(near, wp.min(a, b))
        far = wp.min(far, wp.max(a, b))
    return wp.where(near <= far and near > EPS, near, FAR)


@wp.func
def first_root(a: wp.float32, b: wp.float32, c: wp.float32, shift: wp.float32) -> wp.float32:
    """Return shift + the smaller root of a t^2 + 2 b t + c where that is an entry in front, else FAR."""
    inside = b * b - a * c
    t = shift + (-b - wp.sqrt(wp.max(inside, 0.0))) / wp.max(a, 1.0e-12)
    return wp.where(inside >= 0.0 and a > 1.0e-12 and t > EPS, t, FAR)


@wp.func
def enter_rounded(o: wp.vec3, d: wp.vec3, half: wp.vec3, r: wp.float32) -> wp.float32:
    """Return where a ray enters a rounded box: the earliest entry of three boxes, twelve cylinders and eight spheres."""
    t = slabs(o, d, half)
    if t >= FAR:
        return FAR
    inner = half - wp.vec3(r, r, r)
    p = o + d * t
    flat = wp.int32(0)
    for i in range(3):
        if wp.abs(p[i]) <= inner[i]:
            flat += 1
    if flat >= 2:
        return t
    t = FAR
    near = -wp.dot(o, d) / wp.dot(d, d)
    q = o + d * near
    axis = wp.int32(0)
    while axis < 3:
        j = (axis + 1) % 3
        k = (axis + 2) % 3
        box = wp.vec3(inner)
        box[axis] = half[axis]
        t = wp.min(t, slabs(o, d, box))
        a = d[j] * d[j] + d[k] * d[k]
        corner = wp.int32(0)
        while corner < 4:
            qj = q[j] - wp.where(corner % 2 == 0, -inner[j], inner[j])
            qk = q[k] - wp.where(corner < 2, -inner[k], inner[k])
            hit = first_root(a, qj * d[j] + qk * d[k], qj * qj + qk * qk - r * r, near)
            if hit < t and wp.abs(o[axis] + d[axis] * hit) <= inner[axis]:
                t = hit
            corner += 1
        axis += 1
    corner = wp.int32(0)
    while corner < 8:
        at = wp.vec3(
            wp.where(corner % 2 == 0, -inner[0], inner[0]),
            wp.where((corner // 2) % 2 == 0, -inner[1], inner[1]),
            wp.where(corner < 4, -inner[2], inner[2]),
        )
        to = q - at
        t = wp.min(t, first_root(wp.dot(d, d), wp.dot(to, d), wp.dot(to, to) - r * r, near))
        corner += 1
    return t


@wp.func
def enter_ellipsoid(o: wp.vec3, d: wp.vec3, radii: wp.vec3) -> wp.float32:
    """Return where a ray enters an ellipsoid."""
    e = wp.cw_div(d, radii)
    square = wp.dot(e, e)
    near = -wp.dot(wp.cw_div(o, radii), e) / square
    p = wp.cw_div(o + d * near, radii)
    return first_root(square, wp.dot(p, e), wp.dot(p, p) - 1.0, near)


@wp.func
def enter_cone(o: wp.vec3, d: wp.vec3, size: wp.vec3) -> wp.float32:
    """Return where a ray enters a truncated cone, through its side or a cap."""
    half = size[2]
    slope = (size[1] - size[0]) / (2.0 * half)
    near = -wp.dot(o, d) / wp.dot(d, d)
    q = o + d * near
    radius = 0.5 * (size[0] + size[1]) + slope * q[2]
    a = d[0] * d[0] + d[1] * d[1] - slope * slope * d[2] * d[2]
    b = q[0] * d[0] + q[1] * d[1] - slope * d[2] * radius
    c = q[0] * q[0] + q[1] * q[1] - radius * radius
    inside = b * b - a * c
    best = float(FAR)
    if inside >= 0.0:
        root = wp.sqrt(inside)
        for i in range(2):
            step = (wp.where(i == 0, -root, root) - b) / a
            t = near + step
            fits = wp.abs(q[2] + step * d[2]) <= half and radius + slope * step * d[2] >= 0.0 and a * step + b < 0.0
            if fits and t > EPS and t < best:
                best = t
    if d[2] != 0.0:
        cap = wp.where(d[2] > 0.0, -half, half)
        r = wp.where(d[2] > 0.0, size[0], size[1])
        step = (cap - q[2]) / d[2]
        x = q[0] + step * d[0]
        y = q[1] + step * d[1]
        t = near + step
        if t > EPS and x * x + y * y <= r * r and t < best:
            best = t
    return best


@wp.func
def enter(solids: Solids, i: wp.int32, origin: wp.vec3, direction: wp.vec3) -> wp.float32:
    """Return where a ray in the world enters solid i, FAR = not."""
    R = solids.R_local_world[i]
    o = R * (origin - solids.centre[i])
    d = R * direction
    size = solids.size[i]
    kind = solids.kind[i]
    if kind == 0:
        if solids.extra[i] > 0.0:
            return enter_rounded(o, d, size, solids.extra[i])
        return slabs(o, d, size)
    if kind == 1:
        return enter_ellipsoid(o, d, size)
    return enter_cone(o, d, size)


@wp.func
def nearest(solids: Solids, origin: wp.vec3, direction: wp.vec3, casting: wp.int32):
    """Return t and solid of the first hit (FAR, -1 = none), among solids that cast shadows only if casting is 1."""
    best = float(FAR)
    found = wp.int32(-1)
    query = wp.bvh_query_ray(solids.bvh, origin, direction)
    i = wp.int32(0)
    while wp.bvh_query_next(query, i):
        if casting == 0 or solids.casts[i] == 1:
            t = enter(solids, i, origin, direction)
            tie = TIE * best
            if t < best - tie or (t < FAR and t < best + tie and i < found):
                best = t
                found = i
    return best, found


@wp.func
def blocked(solids: Solids, origin: wp.vec3, direction: wp.vec3) -> wp.bool:
    """Say whether a shadow caster lies between the origin and the end of the direction."""
    query = wp.bvh_query_ray(solids.bvh, origin, direction)
    i = wp.int32(0)
    while wp.bvh_query_next(query, i):
        if solids.casts[i] == 1:
            if enter(solids, i, origin, direction) < 0.999:
                return True
    return False


@wp.func
def local_normal(solids: Solids, i: wp.int32, p: wp.vec3) -> wp.vec3:
    """Return the outward unit normal of solid i at a point p on it, both in its frame."""
    size = solids.size[i]
    kind = solids.kind[i]
    if kind == 1:
        return wp.normalize(wp.cw_div(p, wp.cw_mul(size, size)))
    if kind == 2:
        slope = (size[1] - size[0]) / (2.0 * size[2])
        long = wp.sqrt(1.0 + slope * slope)
        radius = wp.sqrt(p[0] * p[0] + p[1] * p[1])
        off = wp.abs(radius - (0.5 * (size[0] + size[1]) + slope * p[2])) / long
        if size[2] - wp.abs(p[2]) < off:
            return wp.vec3(0.0, 0.0, wp.sign(p[2]))
        r = wp.max(radius, 1.0e-9)
        return wp.vec3(p[0] / r, p[1] / r, -slope) / long
    r = solids.extra[i]
    n = wp.vec3()
    if r > 0.0:
        for k in range(3):
            inner = size[k] - r
            n[k] = p[k] - wp.clamp(p[k], -inner, inner)
        return wp.normalize(n)
    axis = wp.int32(0)
    for k in range(1, 3):
        if wp.abs(p[k]) - size[k] > wp.abs(p[axis]) - size[axis]:
            axis = k
    n[axis] = wp.sign(p[axis])
    return n
