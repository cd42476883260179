"""Warp kernels of the fast visibility (see ``memory.visibility``); importing this file needs warp.

Points are lifted and projected in double precision in the order of ``camera.warp``, without fused multiply-add, so pixels and
depths are the same bits as numpy's.
"""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

TILE = wp.constant(wp.int32(8))
"""As in ``memory.clouds``."""
HALF = wp.constant(wp.float64(0.5))


@wp.struct
class Frames:
    """The arrays of ``memory.clouds.Clouds``."""

    depth: wp.array2d(dtype=wp.float32)
    tile_spheres: wp.array(dtype=wp.vec4f)
    tile_corners: wp.array(dtype=wp.vec2i)
    K: wp.array(dtype=wp.mat33d)
    T: wp.array(dtype=wp.mat44d)
    first_tile: wp.array(dtype=wp.int32)
    spheres: wp.array(dtype=wp.vec4d)


@wp.struct
class View:
    """The target view and what has been drawn into it."""

    K: wp.mat33d
    T: wp.mat44d
    """T_camera_world."""
    width: wp.int32
    height: wp.int32
    nearest: wp.array(dtype=wp.float64)
    """(h * w) smallest z of all points [m]; inf = none."""


@wp.func
def transformed(T: wp.mat44d, p: wp.vec3d, row: wp.int32) -> wp.float64:
    """Return one coordinate of T p."""
    return T[row, 0] * p[0] + T[row, 1] * p[1] + T[row, 2] * p[2] + T[row, 3]


@wp.func
def span(centre: wp.float64, radius: wp.float64, near: wp.float64, far: wp.float64, focal: wp.float64, offset: wp.float64):
    """Return an interval of pixels that holds the picture of a sphere along one axis, with a pixel to spare."""
    low = centre - radius
    high = centre + radius
    if low < wp.float64(0.0):
        low = focal * low / near
    else:
        low = focal * low / far
    if high > wp.float64(0.0):
        high = focal * high / near
    else:
        high = focal * high / far
    return low + offset - wp.float64(1.0), high + offset + wp.float64(1.0)


@wp.func
def may_show(sphere: wp.vec4d, view: View, slack: wp.float64) -> wp.bool:
    """Tell whether anything in a sphere can lie in the view and not ``slack`` [m] or more behind what is drawn."""
    radius = sphere[3]
    if radius < wp.float64(0.0):
        return False
    centre = wp.vec3d(sphere[0], sphere[1], sphere[2])
    z = transformed(view.T, centre, 2)
    near = z - radius
    far = z + radius
    if far <= wp.float64(0.0):
        return False
    u0 = wp.float64(0.0)
    v0 = wp.float64(0.0)
    u1 = wp.float64(view.width)
    v1 = wp.float64(view.height)
    # Around the camera plane the sphere's picture is unbounded: the whole view.
    if near > wp.float64(1e-6):
        x = transformed(view.T, centre, 0)
        y = transformed(view.T, centre, 1)
        # A skewed camera moves u by at most the skew times the largest slope.
        low_v, high_v = span(y, radius, near, far, view.K[1, 1], view.K[1, 2])
        low_u, high_u = span(x, radius, near, far, view.K[0, 0], view.K[0, 2])
        lean = wp.abs(view.K[0, 1]) * (wp.abs(y) + radius) / near
        u0 = wp.max(u0, low_u - lean)
        u1 = wp.min(u1, high_u + lean)
        v0 = wp.max(v0, low_v)
        v1 = wp.min(v1, high_v)
        if u0 >= u1 or v0 >= v1:
            return False
    for row in range(wp.int32(v0), wp.int32(wp.ceil(v1))):
        for column in range(wp.int32(u0), wp.int32(wp.ceil(u1))):
            if near <= view.nearest[row * view.width + column] + slack:
                return True
    return False


@wp.func
def tile_may_show(frames: Frames, tile: wp.int32, view: View, slack: wp.float64) -> wp.bool:
    """Do ``may_show`` for a tile."""
    sphere = frames.tile_spheres[tile]
    return may_show(
        wp.vec4d(wp.float64(sphere[0]), wp.float64(sphere[1]), wp.float64(sphere[2]), wp.float64(sphere[3])), view, slack
    )


@wp.func
def landing(frames: Frames, f: wp.int32, tile: wp.int32, i: wp.int32, view: View):
    """Return the flat pixel of the view that pixel i of a tile falls into, -1 if none, and its z there [m]."""
    pixel = wp.int32(-1)
    z = wp.float64(0.0)
    depth = frames.depth[tile, i]
    if depth > wp.float32(0.0):
        corner = frames.tile_corners[tile]
        K = frames.K[f]
        d = wp.float64(depth)
        v = (wp.float64(corner[1] + i // TILE) + HALF - K[1, 2]) / K[1, 1]
        u = (wp.float64(corner[0] + i % TILE) + HALF - K[0, 2] - K[0, 1] * v) / K[0, 0]
        p = wp.vec3d()
        for j in range(3):
            # The cache's points are float32.
            p[j] = wp.float64(wp.float32(
                frames.T[f][j, 0] * u * d + frames.T[f][j, 1] * v * d + frames.T[f][j, 2] * d + frames.T[f][j, 3]
            ))
        z = transformed(view.T, p, 2)
        if z > wp.float64(0.0):
            x = transformed(view.T, p, 0)
            y = transformed(view.T, p, 1)
            u = (view.K[0, 0] * x + view.K[0, 1] * y) / z + view.K[0, 2]
            v = view.K[1, 1] * y / z + view.K[1, 2]
            if u >= wp.float64(0.0) and u < wp.float64(view.width) and v >= wp.float64(0.0) and v < wp.float64(view.height):
                pixel = wp.int32(v) * view.width + wp.int32(u)
    return pixel, z


@wp.kernel
def select(frames: Frames, view: View, slack: wp.float64, chosen: wp.array(dtype=wp.int32), kept: wp.array(dtype=wp.bool)):
    """Tell which chosen frames may show: one a thread."""
    n = wp.tid()
    kept[n] = may_show(frames.spheres[chosen[n]], view, slack)


@wp.kernel
def draw(frames: Frames, view: View, chosen: wp.array(dtype=wp.int32)):
    """Draw chosen frames into the view's nearest depth: thread (frame, tile)."""
    n, t = wp.tid()
    f = chosen[n]
    tile = frames.first_tile[f] + t
    if tile >= frames.first_tile[f + 1] or not tile_may_show(frames, tile, view, wp.float64(0.0)):
        return
    for i in range(TILE * TILE):
        pixel, z = landing(frames, f, tile, i, view)
        if pixel >= 0 and z < view.nearest[pixel]:
            wp.atomic_min(view.nearest, pixel, z)


@wp.kernel
def see(
    frames: Frames, view: View, tolerance: wp.float64, chosen: wp.array(dtype=wp.int32), mask: wp.array2d(dtype=wp.bool)
):
    """Mark pixels (frame, h * w) that have a point within ``tolerance`` [m] behind the nearest: thread (frame, tile)."""
    n, t = wp.tid()
    f = chosen[n]
    tile = frames.first_tile[f] + t
    if tile >= frames.first_tile[f + 1] or not tile_may_show(frames, tile, view, tolerance):
        return
    for i in range(TILE * TILE):
        pixel, z = landing(frames, f, tile, i, view)
        if pixel >= 0 and z <= view.nearest[pixel] + tolerance:
            mask[n, pixel] = True
