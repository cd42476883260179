"""Warp kernels of the forward splat (see ``camera.splat``); importing this file needs warp.

Two things make the result the same bytes on every run and on every processor. Sums are kept in integers, so the order of
the additions does not matter; and all arithmetic is +, -, *, / in double precision without fused multiply-add, with its own
exponential and logarithm, so nothing depends on a vendor's mathematical library.
"""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

LOG_2 = wp.constant(wp.float64(0.6931471805599453))
MAX_DEPTH = wp.constant(wp.float32(1e4))
SHARPNESS = wp.constant(wp.float64(50.0))
"""Both as in ``camera.warp``."""
EMPTY = wp.constant(wp.int32(-(1 << 30)))
"""Exponent of a pixel that nothing reached."""


@wp.func
def exponent_of(x: wp.float64) -> wp.int32:
    """Return floor(log2(x)) of a positive number that is not denormal."""
    return wp.int32(wp.cast(x, wp.int64) >> wp.int64(52)) - 1023


@wp.func
def power_of_two(k: wp.int32) -> wp.float64:
    """Return 2^k exactly, k in -1022 .. 1023."""
    return wp.cast(wp.int64(k + 1023) << wp.int64(52), wp.float64)


@wp.func
def log_of(x: wp.float64) -> wp.float64:
    """Return the logarithm of x >= 1 to 1e-11 by the series of atanh: log m = 2 atanh((m - 1) / (m + 1))."""
    k = exponent_of(x)
    m = x * power_of_two(-k)
    if m > wp.float64(1.4142135623730951):
        m = m * wp.float64(0.5)
        k = k + 1
    s = (m - wp.float64(1.0)) / (m + wp.float64(1.0))
    q = s * s
    total = wp.float64(1.0) / wp.float64(15.0)
    for i in range(7):
        total = total * q + wp.float64(1.0) / wp.float64(13 - 2 * i)
    return wp.float64(k) * LOG_2 + wp.float64(2.0) * s * total


@wp.func
def exp_of(x: wp.float64) -> wp.float64:
    """Return exp(x) to 1e-12 for x in -80 .. 0: a Taylor series of the remainder by log 2."""
    k = wp.floor(x * (wp.float64(1.0) / LOG_2) + wp.float64(0.5))
    r = x - k * LOG_2
    total = wp.float64(1.0)
    for i in range(10):
        total = wp.float64(1.0) + total * (r * (wp.float64(1.0) / wp.float64(10 - i)))
    return total * power_of_two(wp.int32(k))


@wp.func
def to_camera(T: wp.mat44d, p: wp.vec3d, row: wp.int32) -> wp.float64:
    """Return one coordinate of T p, in the order of additions of ``camera.warp.project``."""
    return T[row, 0] * p[0] + T[row, 1] * p[1] + T[row, 2] * p[2] + T[row, 3]


@wp.kernel
def lift(
    depth: wp.array(dtype=wp.float32),
    mask: wp.array(dtype=wp.bool),
    width: wp.int32,
    K: wp.mat33d,
    T: wp.mat44d,
    points: wp.array(dtype=wp.vec3d),
    kept: wp.array(dtype=wp.bool),
):
    """Lift one pixel a thread into the world; pixels without depth go to the world origin and are not kept."""
    i = wp.tid()
    d = depth[i]
    if d != d:
        d = wp.float32(0.0)
    d = wp.min(wp.max(d, wp.float32(0.0)), MAX_DEPTH)
    kept[i] = mask[i] and d > wp.float32(0.0)
    p = wp.vec3d()
    if kept[i]:
        z = wp.float64(d)
        v = (wp.float64(i // width) + wp.float64(0.5) - K[1, 2]) / K[1, 1]
        u = (wp.float64(i % width) + wp.float64(0.5) - K[0, 2] - K[0, 1] * v) / K[0, 0]
        for j in range(3):
            p[j] = T[j, 0] * u * z + T[j, 1] * v * z + T[j, 2] * z + T[j, 3]
    points[i] = p


@wp.kernel
def farthest(
    points: wp.array(dtype=wp.vec3d), T: wp.array(dtype=wp.mat44d), batch: wp.int32, largest: wp.array(dtype=wp.float64)
):
    """Find the largest z of every batch of targets; thread (batch, pixel). ``largest`` starts at 0."""
    b, i = wp.tid()
    z = wp.float64(0.0)
    for t in range(b * batch, wp.min((b + 1) * batch, T.shape[0])):
        z = wp.max(z, to_camera(T[t], points[i], 2))
    # Looking first keeps nearly all threads away from the one contended number.
    if z > largest[b]:
        wp.atomic_max(largest, b, z)


@wp.kernel
def steepen(largest: wp.array(dtype=wp.float64), steepness: wp.array(dtype=wp.float64)):
    """Find every batch's factor of log1p(z) in the exponent of the occlusion weight."""
    b = wp.tid()
    steepness[b] = SHARPNESS / wp.max(log_of(wp.float64(1.0) + largest[b]), wp.float64(1e-6))


@wp.kernel
def project(
    points: wp.array(dtype=wp.vec3d),
    kept: wp.array(dtype=wp.bool),
    K: wp.array(dtype=wp.mat33d),
    T: wp.array(dtype=wp.mat44d),
    rows: wp.array(dtype=wp.int32),
    batch: wp.int32,
    steepness: wp.array(dtype=wp.float64),
    width: wp.int32,
    height: wp.int32,
    landed: wp.array2d(dtype=wp.vec4d),
    exponents: wp.array2d(dtype=wp.int32),
):
    """Project a point into target rows[n] and raise the exponents of the pixels it reaches; thread (n, pixel of the source).

    ``landed`` gets u, v (from pixel centres), z and the nearness weight, 0 for a point that does not reach the picture.
    ``exponents`` (n, pixel of the target) becomes floor(log2) of the largest weight that a pixel gets.
    """
    n, i = wp.tid()
    landed[n, i] = wp.vec4d()
    if not kept[i]:
        return
    t = rows[n]
    z = to_camera(T[t], points[i], 2)
    if z <= wp.float64(0.0):
        return
    x = to_camera(T[t], points[i], 0)
    y = to_camera(T[t], points[i], 1)
    half = wp.float64(0.5)
    u = (K[t][0, 0] * x + K[t][0, 1] * y) / z + K[t][0, 2] - half
    v = K[t][1, 1] * y / z + K[t][1, 2] - half
    if u <= wp.float64(-1.0) or u >= wp.float64(width) or v <= wp.float64(-1.0) or v >= wp.float64(height):
        return
    nearness = exp_of(-wp.min(steepness[t // batch] * log_of(wp.float64(1.0) + z), wp.float64(80.0)))
    nearness = nearness / (wp.float64(1.0) + wp.float64(1e-7) * nearness)
    landed[n, i] = wp.vec4d(u, v, z, nearness)
    left = wp.floor(u)
    top = wp.floor(v)
    for corner in range(4):
        share, pixel = corner_of(u - left, v - top, wp.int32(left), wp.int32(top), corner, width, height)
        if pixel >= 0 and share > wp.float64(0.0):
            k = exponent_of(share * nearness)
            if k > exponents[n, pixel]:
                wp.atomic_max(exponents, n, pixel, k)


@wp.func
def corner_of(
    right: wp.float64, low: wp.float64, left: wp.int32, top: wp.int32, corner: wp.int32, width: wp.int32, height: wp.int32
):
    """Return the bilinear share and the flat pixel of one of four neighbours; pixel -1 outside the picture."""
    column = left + corner % 2
    row = top + corner // 2
    if corner % 2 == 0:
        right = wp.float64(1.0) - right
    if corner // 2 == 0:
        low = wp.float64(1.0) - low
    pixel = wp.int32(-1)
    if column >= 0 and column < width and row >= 0 and row < height:
        pixel = row * width + column
    return low * right, pixel


@wp.kernel
def accumulate(
    values: wp.array2d(dtype=wp.float32),
    landed: wp.array2d(dtype=wp.vec4d),
    exponents: wp.array2d(dtype=wp.int32),
    largest_value: wp.array(dtype=wp.float32),
    largest_z: wp.array(dtype=wp.float64),
    rows: wp.array(dtype=wp.int32),
    batch: wp.int32,
    bits: wp.int32,
    width: wp.int32,
    height: wp.int32,
    sums: wp.array3d(dtype=wp.int64),
):
    """Add one point to the sums of its four pixels: thread (n, pixel of the source).

    ``sums`` (n, C + 2, pixel) holds the weighted values, z and the weights in fixed point. The unit is 2^-bits of the
    pixel's largest weight (rounded down to a power of two), values count from their largest magnitude.
    """
    n, i = wp.tid()
    at = landed[n, i]
    if at[3] == wp.float64(0.0):
        return
    left = wp.floor(at[0])
    top = wp.floor(at[1])
    channels = values.shape[0]
    near = at[2] / largest_z[rows[n] // batch]
    unit = wp.float64(1.0) / wp.float64(largest_value[0])
    for corner in range(4):
        share, pixel = corner_of(at[0] - left, at[1] - top, wp.int32(left), wp.int32(top), corner, width, height)
        if pixel >= 0 and share > wp.float64(0.0):
            weight = share * at[3] * power_of_two(bits - exponents[n, pixel])
            for c in range(channels):
                wp.atomic_add(sums, n, c, pixel, wp.int64(weight * (wp.float64(values[c, i]) * unit)))
            wp.atomic_add(sums, n, channels, pixel, wp.int64(weight * near))
            wp.atomic_add(sums, n, channels + 1, pixel, wp.int64(weight))


@wp.kernel
def resolve(
    sums: wp.array3d(dtype=wp.int64),
    largest_value: wp.array(dtype=wp.float32),
    largest_z: wp.array(dtype=wp.float64),
    rows: wp.array(dtype=wp.int32),
    batch: wp.int32,
    first: wp.int32,
    values: wp.array3d(dtype=wp.float32),
    depth: wp.array2d(dtype=wp.float32),
    covered: wp.array2d(dtype=wp.bool),
):
    """Divide the sums of target first + n by its weights: thread (n, pixel of the target). Holes get 0 and NaN."""
    n, pixel = wp.tid()
    channels = values.shape[1]
    out = first + n
    weight = sums[n, channels + 1, pixel]
    covered[out, pixel] = weight > wp.int64(0)
    if weight == wp.int64(0):
        depth[out, pixel] = wp.float32(wp.nan)
        for c in range(channels):
            values[out, c, pixel] = wp.float32(0.0)
        return
    share = wp.float64(1.0) / wp.float64(weight)
    depth[out, pixel] = wp.float32(wp.float64(sums[n, channels, pixel]) * share * largest_z[rows[n] // batch])
    for c in range(channels):
        values[out, c, pixel] = wp.float32(wp.float64(sums[n, c, pixel]) * share * wp.float64(largest_value[0]))


@wp.kernel
def reach(
    points: wp.array(dtype=wp.vec3d),
    kept: wp.array(dtype=wp.bool),
    K: wp.array(dtype=wp.mat33d),
    T: wp.array(dtype=wp.mat44d),
    width: wp.int32,
    height: wp.int32,
    bounds: wp.array(dtype=wp.float32),
):
    """Find an upper bound of every target's warped depth, its farthest point in view: thread (target, pixel)."""
    t, i = wp.tid()
    if not kept[i]:
        return
    z = to_camera(T[t], points[i], 2)
    bound = wp.float32(z)
    if z <= wp.float64(0.0) or bound <= bounds[t]:
        return
    x = to_camera(T[t], points[i], 0)
    y = to_camera(T[t], points[i], 1)
    u = (K[t][0, 0] * x + K[t][0, 1] * y) / z + K[t][0, 2] - wp.float64(0.5)
    v = K[t][1, 1] * y / z + K[t][1, 2] - wp.float64(0.5)
    if u > wp.float64(-1.0) and u < wp.float64(width) and v > wp.float64(-1.0) and v < wp.float64(height):
        wp.atomic_max(bounds, t, bound)
