"""Warp kernels that compare Gaussians with depth pictures (see ``splats.merge``); importing this file needs warp."""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

SAME_SIDE = wp.constant(wp.float32(0.3))
"""Least cosine between the normals of observations of one surface."""
LEAST_COSINE = wp.constant(wp.float32(0.2))
"""Discs are not stretched along the view by more than its inverse."""
FINER = wp.constant(wp.float32(4.0))
"""Largest weight of a finer look beside the Gaussian's own frame."""
OTHER_COLOR = wp.constant(wp.float32(40.0))
"""Difference [grey levels] at which another frame's colour counts half."""
BEHIND = wp.constant(wp.float32(2.0))
"""A frame looks through a point if all depths there are further by this many tolerances."""


AROUND = wp.constant(wp.int32(2))
"""Pixels around that must not show the surface either: poses are never exact, and outlines move by them."""
FACING = wp.constant(wp.float32(0.1))
"""A frame that sees a surface at a smaller cosine than this, or from behind, does not vote against it."""
MADE = wp.constant(wp.int32(0))
PLAIN = wp.constant(wp.int32(1))
EDGE = wp.constant(wp.int32(2))
"""What is left of a point: nothing, one on a surface, one beside a depth edge, whose colour may be mixed."""


@wp.struct
class Look:
    """One frame."""

    depth: wp.array2d(dtype=wp.float32)
    """z-depth [m], 0 = unknown."""
    normal: wp.array2d(dtype=wp.vec3h)
    """Towards the camera, camera frame; 0 = unknown."""
    rgb: wp.array2d(dtype=wp.vec3ub)
    sure: wp.array2d(dtype=wp.uint8)
    """0 at a depth edge to 255 away from it."""
    provenance: wp.array2d(dtype=wp.uint8)
    made: wp.array2d(dtype=wp.uint8)
    """1 where the frame has Gaussians of its own."""
    R: wp.mat33f
    t: wp.vec3f
    """World to camera."""
    fx: wp.float32
    fy: wp.float32
    cx: wp.float32
    cy: wp.float32
    width: wp.int32
    height: wp.int32


@wp.func
def pixel_size(p: wp.vec3f, n: wp.vec3f, look: Look):
    """Return the side of a pixel on the surface [m], camera frame."""
    cosine = wp.clamp(-wp.dot(p, n) / wp.length(p), LEAST_COSINE, 1.0)
    return p[2] / look.fx / wp.sqrt(cosine)


@wp.func
def looks_past(look: Look, column: wp.int32, row: wp.int32, depth: wp.float32, band: wp.float32):
    """Return whether all pixels around one are known and none shows a surface at this depth."""
    for y in range(wp.max(row - AROUND, 0), wp.min(row + AROUND + 1, look.height)):
        for x in range(wp.max(column - AROUND, 0), wp.min(column + AROUND + 1, look.width)):
            if look.depth[y, x] == 0.0 or wp.abs(look.depth[y, x] - depth) <= band:
                return False
    return True


@wp.kernel
def lift(
    local: wp.array(dtype=wp.vec3f),
    local_normals: wp.array(dtype=wp.vec3f),
    look: Look,
    points: wp.array(dtype=wp.vec3f),
    normals: wp.array(dtype=wp.vec3f),
    size: wp.array(dtype=wp.float32),
    left: wp.array(dtype=wp.int32),
):
    """Bring a frame's points and normals to the world; unknown normals face the camera, unknown points are not left."""
    i = wp.tid()
    p = local[i]
    if wp.isnan(p[2]) or p[2] <= 0.0 or wp.isinf(p[2]):
        left[i] = MADE
        return
    n = local_normals[i]
    left[i] = PLAIN
    if wp.isnan(n[0]):
        n = -wp.normalize(p)
        left[i] = EDGE
    size[i] = pixel_size(p, n, look)
    points[i] = wp.transpose(look.R) * (p - look.t)
    normals[i] = wp.transpose(look.R) * n


@wp.kernel
def explain(
    points: wp.array(dtype=wp.vec3f),
    normals: wp.array(dtype=wp.vec3f),
    size: wp.array(dtype=wp.float32),
    look: Look,
    tolerance: wp.float32,
    coarser: wp.float32,
    earlier: wp.bool,
    left: wp.array(dtype=wp.int32),
):
    """Clear what a frame shows about as finely; thread = one point.

    Beside its depth edges a frame shows nothing but other edges' points; a later frame is only asked about edges' points.
    """
    i = wp.tid()
    if left[i] == MADE or (left[i] == PLAIN and not earlier):
        return
    p = look.R * points[i] + look.t
    if p[2] <= 0.01:
        return
    column = wp.int32(wp.floor(wp.clamp(look.fx * p[0] / p[2] + look.cx, -2.0, 1.0e6)))
    row = wp.int32(wp.floor(wp.clamp(look.fy * p[1] / p[2] + look.cy, -2.0, 1.0e6)))
    if column < 0 or row < 0 or column >= look.width or row >= look.height:
        return
    depth = look.depth[row, column]
    if depth == 0.0 or wp.abs(depth - p[2]) > tolerance * p[2]:
        return
    n = look.R * normals[i]
    there = wp.vec3f(look.normal[row, column])
    if wp.length_sq(there) == 0.0:
        if not earlier or left[i] == PLAIN:
            return
    elif wp.dot(n, there) < SAME_SIDE and left[i] == PLAIN:
        return
    if pixel_size(p, n, look) <= coarser * size[i]:
        left[i] = MADE


@wp.kernel
def gather(
    points: wp.array(dtype=wp.vec3f),
    normals: wp.array(dtype=wp.vec3f),
    size: wp.array(dtype=wp.float32),
    block: wp.array(dtype=wp.int32),
    own: wp.array(dtype=wp.int32),
    base: wp.array(dtype=wp.vec3f),
    look: Look,
    frame: wp.int32,
    tolerance: wp.float32,
    coarser: wp.float32,
    weight: wp.array(dtype=wp.float32),
    color: wp.array(dtype=wp.vec3f),
    offset_weight: wp.array(dtype=wp.float32),
    offset: wp.array(dtype=wp.float32),
    normal: wp.array(dtype=wp.vec3f),
    agree: wp.array(dtype=wp.float32),
    through: wp.array(dtype=wp.float32),
    provenance: wp.array(dtype=wp.uint8),
    superseded: wp.array(dtype=wp.uint8),
):
    """Add what another frame says about every Gaussian; thread = one Gaussian."""
    i = wp.tid()
    if own[i] == frame:
        return
    p = look.R * points[i] + look.t
    if p[2] <= 0.01:
        return
    u = wp.clamp(look.fx * p[0] / p[2] + look.cx, -2.0, 1.0e6)
    v = wp.clamp(look.fy * p[1] / p[2] + look.cy, -2.0, 1.0e6)
    column, row = wp.int32(wp.floor(u)), wp.int32(wp.floor(v))
    if column < 0 or row < 0 or column >= look.width or row >= look.height:
        return
    depth = look.depth[row, column]
    if depth == 0.0:
        return
    band = tolerance * p[2]
    if wp.abs(depth - p[2]) > band:
        facing = -wp.dot(p, look.R * normals[i]) > FACING * wp.length(p)
        if facing and depth > p[2] + BEHIND * band and looks_past(look, column, row, p[2], BEHIND * band):
            through[i] += 1.0
        return
    n = look.R * normals[i]
    there = wp.vec3f(look.normal[row, column])
    known = wp.length_sq(there) > 0.0
    if known and wp.dot(n, there) < SAME_SIDE:
        return
    agree[i] += 1.0
    provenance[i] = wp.min(provenance[i], look.provenance[row, column])
    here = pixel_size(p, n, look)
    if frame > own[i] and coarser * here < size[i] and look.made[row, column] == wp.uint8(1):
        superseded[i] = wp.uint8(1)
    # Between four pixel centres: inverse depth is affine on planes, so that its bilinear value is exact there.
    x0 = wp.clamp(wp.int32(wp.floor(u - 0.5)), 0, look.width - 2)
    y0 = wp.clamp(wp.int32(wp.floor(v - 0.5)), 0, look.height - 2)
    fx, fy = wp.clamp(u - 0.5 - wp.float32(x0), 0.0, 1.0), wp.clamp(v - 0.5 - wp.float32(y0), 0.0, 1.0)
    whole = True
    inverse = wp.float32(0.0)
    sum_rgb = wp.vec3f(0.0, 0.0, 0.0)
    for dy in range(2):
        for dx in range(2):
            share = wp.where(dx == 1, fx, 1.0 - fx) * wp.where(dy == 1, fy, 1.0 - fy)
            d = look.depth[y0 + dy, x0 + dx]
            if wp.abs(d - p[2]) > band:
                whole = False
            else:
                inverse += share / d
            c = look.rgb[y0 + dy, x0 + dx]
            sum_rgb += share * wp.vec3f(wp.float32(c[0]), wp.float32(c[1]), wp.float32(c[2]))
    if not whole:
        return
    # As many pixels as the Gaussian stands for.
    reach = wp.clamp(wp.int32(0.5 * wp.float32(block[i]) * size[i] / here - 0.25), 0, 3)
    if reach > 0:
        sum_rgb = wp.vec3f(0.0, 0.0, 0.0)
        count = wp.float32(0.0)
        for y in range(wp.max(row - reach, 0), wp.min(row + reach + 1, look.height)):
            for x in range(wp.max(column - reach, 0), wp.min(column + reach + 1, look.width)):
                c = look.rgb[y, x]
                sum_rgb += wp.vec3f(wp.float32(c[0]), wp.float32(c[1]), wp.float32(c[2]))
                count += 1.0
        sum_rgb = sum_rgb / count
    sure = wp.float32(look.sure[row, column]) / 255.0
    ratio = size[i] / here
    w = wp.min(ratio * ratio * ratio * ratio, FINER) * sure * wp.clamp(-wp.dot(p, n) / wp.length(p), 0.05, 1.0)
    far = wp.length(sum_rgb - base[i]) / OTHER_COLOR
    w_color = w / (1.0 + far * far)
    weight[i] += w_color
    color[i] += w_color * sum_rgb
    offset_weight[i] += w
    offset[i] += w * wp.dot(n, p * (1.0 / (inverse * p[2]) - 1.0))
    if known:
        normal[i] += w * (wp.transpose(look.R) * there)
