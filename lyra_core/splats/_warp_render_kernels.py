"""Warp kernels of the tile renderer (see ``splats.tiles``); importing this file needs warp."""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false, reportUnsupportedDunderAll=false

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

TILE = wp.constant(wp.int32(8))
PIXELS = wp.constant(wp.int32(64))
OPAQUE = wp.constant(wp.float32(1.0e-4))
"""Where less light than this comes through, nothing behind is drawn."""


@wp.struct
class View:
    """One picture and its camera."""

    R: wp.mat33f
    t: wp.vec3f
    """World to camera."""
    fx: wp.float32
    fy: wp.float32
    cx: wp.float32
    cy: wp.float32
    width: wp.int32
    height: wp.int32
    tiles_x: wp.int32
    tiles_y: wp.int32
    near: wp.float32
    margin: wp.float32
    """Centres further outside than this share of the picture are left out."""
    blur: wp.float32
    min_alpha: wp.float32
    max_alpha: wp.float32


@wp.func
def tile_range(center: wp.vec2f, reach: wp.vec2f, view: View):
    """Return first column, first row, end column, end row of the tiles with a pixel centre within reach."""
    low_x = wp.clamp(wp.int32(wp.ceil(wp.clamp(center[0] - reach[0] - 0.5, -1.0e6, 1.0e6))), 0, view.width)
    low_y = wp.clamp(wp.int32(wp.ceil(wp.clamp(center[1] - reach[1] - 0.5, -1.0e6, 1.0e6))), 0, view.height)
    high_x = wp.clamp(wp.int32(wp.floor(wp.clamp(center[0] + reach[0] - 0.5, -1.0e6, 1.0e6))) + 1, 0, view.width)
    high_y = wp.clamp(wp.int32(wp.floor(wp.clamp(center[1] + reach[1] - 0.5, -1.0e6, 1.0e6))) + 1, 0, view.height)
    if high_x <= low_x or high_y <= low_y:
        return wp.vec4i(0, 0, 0, 0)
    return wp.vec4i(low_x // TILE, low_y // TILE, (high_x + TILE - 1) // TILE, (high_y + TILE - 1) // TILE)


@wp.func
def depth_slope(axes: wp.mat33f, scale: wp.vec3f, p: wp.vec3f, view: View):
    """Return how the z-depth of a Gaussian's densest point along the ray changes per pixel, and the most that it may.

    Along p + t the density is greatest where z = (r A p) / (r A r), A = inverse covariance; its derivative at the centre is
    -z A r / (r A r). For a flat disc this is the slope of its plane.
    """
    r = p / p[2]
    least = 1.0e-4 * wp.max(scale)
    a = wp.transpose(axes) * r
    w = wp.vec3f(0.0, 0.0, 0.0)
    total = wp.float32(0.0)
    for k in range(3):
        s = wp.max(scale[k], least)
        w[k] = a[k] / (s * s)
        total += a[k] * w[k]
    g = (-p[2] / total) * (axes * w)
    return wp.vec3f(g[0] / view.fx, g[1] / view.fy, wp.max(scale))


@wp.kernel
def project(
    means: wp.array(dtype=wp.vec3f),
    quats_wxyz: wp.array(dtype=wp.vec4f),
    scales: wp.array(dtype=wp.vec3f),
    opacities: wp.array(dtype=wp.float32),
    view: View,
    center: wp.array(dtype=wp.vec2f),
    conic: wp.array(dtype=wp.vec4f),
    depth: wp.array(dtype=wp.float32),
    slope: wp.array(dtype=wp.vec3f),
    tiles: wp.array(dtype=wp.vec4i),
    count: wp.array(dtype=wp.int32),
):
    """Project Gaussians: centre [px], conic (xx, 2 xy, yy, limit), z-depth and slope, tiles and their number; thread = one."""
    i = wp.tid()
    count[i] = 0
    p = view.R * means[i] + view.t
    depth[i] = p[2]
    if p[2] <= view.near or opacities[i] < view.min_alpha:
        return
    x = view.fx * p[0] / p[2] + view.cx
    y = view.fy * p[1] / p[2] + view.cy
    w, h = wp.float32(view.width), wp.float32(view.height)
    if x <= -view.margin * w or x >= (1.0 + view.margin) * w or y <= -view.margin * h or y >= (1.0 + view.margin) * h:
        return
    q = quats_wxyz[i]
    axes = view.R * wp.quat_to_matrix(wp.quatf(q[1], q[2], q[3], q[0]))
    M = axes * wp.diag(scales[i])
    slope[i] = depth_slope(axes, scales[i], p, view)
    row_x = (view.fx / p[2]) * wp.vec3f(M[0, 0], M[0, 1], M[0, 2]) - (view.fx * p[0] / (p[2] * p[2])) * wp.vec3f(
        M[2, 0], M[2, 1], M[2, 2]
    )
    row_y = (view.fy / p[2]) * wp.vec3f(M[1, 0], M[1, 1], M[1, 2]) - (view.fy * p[1] / (p[2] * p[2])) * wp.vec3f(
        M[2, 0], M[2, 1], M[2, 2]
    )
    xx = wp.dot(row_x, row_x) + view.blur
    yy = wp.dot(row_y, row_y) + view.blur
    xy = wp.dot(row_x, row_y)
    # The determinant without the cancellation of xx * yy - xy * xy, which float32 does not survive for long thin ones.
    cross = wp.cross(row_x, row_y)
    det = wp.dot(cross, cross) + view.blur * (xx + yy - view.blur)
    center[i] = wp.vec2f(x, y)
    # Beyond the limit alpha is below the least one; a bit more, since the exact test comes later.
    limit = 2.0 * wp.log(wp.max(opacities[i] / view.min_alpha, 1.0))
    conic[i] = wp.vec4f(yy / det, -2.0 * xy / det, xx / det, limit + 1.0e-3)
    sigmas = wp.sqrt(limit)
    box = tile_range(wp.vec2f(x, y), wp.vec2f(sigmas * wp.sqrt(xx), sigmas * wp.sqrt(yy)), view)
    tiles[i] = box
    count[i] = (box[2] - box[0]) * (box[3] - box[1])


@wp.kernel
def list_pairs(
    rows: wp.array(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    tiles: wp.array(dtype=wp.vec4i),
    tiles_x: wp.int32,
    tile: wp.array(dtype=wp.int32),
    which: wp.array(dtype=wp.int32),
):
    """Write (tile, Gaussian) for every tile a Gaussian touches; thread = one Gaussian of rows, front to back."""
    k = wp.tid()
    box = tiles[rows[k]]
    at = first[k]
    for y in range(box[1], box[3]):
        for x in range(box[0], box[2]):
            tile[at] = y * tiles_x + x
            which[at] = rows[k]
            at += 1


@wp.kernel
def composite(
    starts: wp.array(dtype=wp.int32),
    which: wp.array(dtype=wp.int32),
    center: wp.array(dtype=wp.vec2f),
    conic: wp.array(dtype=wp.vec4f),
    opacities: wp.array(dtype=wp.float32),
    depth: wp.array(dtype=wp.float32),
    slope: wp.array(dtype=wp.vec3f),
    rgb: wp.array(dtype=wp.vec3f),
    view: View,
    image: wp.array2d(dtype=wp.vec3f),
    coverage: wp.array2d(dtype=wp.float32),
    mean_depth: wp.array2d(dtype=wp.float32),
    median_depth: wp.array2d(dtype=wp.float32),
):
    """Composite front to back; thread = one pixel, tile by tile. Median: where half of the light is stopped (0 = nowhere)."""
    thread = wp.tid()
    tile = thread // PIXELS
    px = (tile % view.tiles_x) * TILE + thread % TILE
    py = (tile // view.tiles_x) * TILE + (thread % PIXELS) // TILE
    if px >= view.width or py >= view.height:
        return
    through = wp.float32(1.0)
    color = wp.vec3f(0.0, 0.0, 0.0)
    total = wp.float32(0.0)
    median = wp.float32(0.0)
    for at in range(starts[tile], starts[tile + 1]):
        i = which[at]
        dx = wp.float32(px) + 0.5 - center[i][0]
        dy = wp.float32(py) + 0.5 - center[i][1]
        c = conic[i]
        power = c[0] * dx * dx + c[1] * dx * dy + c[2] * dy * dy
        if power > c[3]:
            continue
        alpha = wp.min(opacities[i] * wp.exp(-0.5 * power), view.max_alpha)
        if alpha >= view.min_alpha:
            weight = alpha * through
            color += weight * rgb[i]
            g = slope[i]
            z = depth[i] + wp.clamp(g[0] * dx + g[1] * dy, -g[2], g[2])
            total += weight * z
            through *= 1.0 - alpha
            if median == 0.0 and through <= 0.5:
                median = z
            if through < OPAQUE:
                break
    image[py, px] = color
    coverage[py, px] = 1.0 - through
    mean_depth[py, px] = total / wp.max(1.0 - through, 1.0e-6)
    median_depth[py, px] = median


@wp.kernel
def spread_residuals(
    starts: wp.array(dtype=wp.int32),
    which: wp.array(dtype=wp.int32),
    center: wp.array(dtype=wp.vec2f),
    conic: wp.array(dtype=wp.vec4f),
    opacities: wp.array(dtype=wp.float32),
    view: View,
    residual: wp.array2d(dtype=wp.vec3f),
    gradient: wp.array(dtype=wp.vec3f),
    curvature: wp.array(dtype=wp.float32),
):
    """Add to every Gaussian the residuals of its pixels times its weight there, and its weights times the pixel's sum of weights.

    The two together are a step of a diagonally scaled descent on the squared residuals; thread = one pixel. NaN is left out.
    """
    thread = wp.tid()
    tile = thread // PIXELS
    px = (tile % view.tiles_x) * TILE + thread % TILE
    py = (tile // view.tiles_x) * TILE + (thread % PIXELS) // TILE
    if px >= view.width or py >= view.height:
        return
    r = residual[py, px]
    if wp.isnan(r[0]):
        return
    through = wp.float32(1.0)
    for at in range(starts[tile], starts[tile + 1]):
        i = which[at]
        dx = wp.float32(px) + 0.5 - center[i][0]
        dy = wp.float32(py) + 0.5 - center[i][1]
        c = conic[i]
        power = c[0] * dx * dx + c[1] * dx * dy + c[2] * dy * dy
        if power > c[3]:
            continue
        alpha = wp.min(opacities[i] * wp.exp(-0.5 * power), view.max_alpha)
        if alpha >= view.min_alpha:
            weight = alpha * through
            wp.atomic_add(gradient, i, weight * r)
            wp.atomic_add(curvature, i, weight)
            through *= 1.0 - alpha
            if through < OPAQUE:
                break
