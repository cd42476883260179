"""Warp kernels of the sparse fusion (see ``surface.blocks``); importing this file needs warp."""

# Warp writes array types as calls, and its functions take its own number types.
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false, reportIndexIssue=false

import warp as wp

wp.set_module_options({"enable_backward": False, "fuse_fp": False})

SIDE = wp.constant(wp.int32(8))
VOXELS = wp.constant(wp.int32(512))
HEAVIEST = wp.constant(wp.float32(500.0))
"""Weights stop growing here: half floats count exactly up to 2048."""


@wp.struct
class View:
    """One depth picture and its camera."""

    depth: wp.array2d(dtype=wp.float32)
    """z-depth [m], 0 = unknown."""
    weight: wp.array2d(dtype=wp.float32)
    normal: wp.array2d(dtype=wp.vec3f)
    """Towards the camera, camera frame."""
    rgb: wp.array2d(dtype=wp.vec3ub)
    R: wp.mat33f
    t: wp.vec3f
    """World to camera."""
    fx: wp.float32
    fy: wp.float32
    cx: wp.float32
    cy: wp.float32
    width: wp.int32
    height: wp.int32
    behind: wp.float32
    """Farthest that a voxel may lie behind a slanted surface along the view [truncations]."""
    free_share: wp.float32
    """Weight of free space beyond the truncation band beside that of the surface."""


@wp.func
def mixed(before: wp.uint8, now: wp.uint8, share: wp.float32, threshold: wp.float32) -> wp.uint8:
    """Return a step of the running mean, rounded up where the fraction is above the threshold."""
    a = wp.float32(before)
    return wp.uint8(wp.clamp(wp.floor(a + share * (wp.float32(now) - a) + threshold), 0.0, 255.0))


@wp.kernel
def integrate(
    slots: wp.array(dtype=wp.int32),
    lows: wp.array(dtype=wp.vec3f),
    cells: wp.array(dtype=wp.float32),
    truncation_cells: wp.float32,
    view: View,
    distance: wp.array2d(dtype=wp.float16),
    weight: wp.array2d(dtype=wp.float16),
    color: wp.array2d(dtype=wp.vec3ub),
):
    """Average one picture into blocks: thread = one voxel; point-to-plane distance over the block's truncation, within [-1, 1]."""
    thread = wp.tid()
    row = thread // VOXELS
    voxel = thread % VOXELS
    cell = cells[row]
    place = wp.vec3f(
        wp.float32(voxel // (SIDE * SIDE)) + 0.5, wp.float32((voxel // SIDE) % SIDE) + 0.5, wp.float32(voxel % SIDE) + 0.5
    )
    p = view.R * (lows[row] + cell * place) + view.t
    if p[2] <= 0.01:
        return
    u = p[0] / p[2] * view.fx + view.cx
    v = p[1] / p[2] * view.fy + view.cy
    if u < 0.0 or v < 0.0 or u >= wp.float32(view.width) or v >= wp.float32(view.height):
        return
    column = wp.int32(u)
    line = wp.int32(v)
    w = view.weight[line, column]
    if w <= 0.0:
        return
    d = view.depth[line, column]
    truncation = truncation_cells * cell
    if p[2] - d >= view.behind * truncation:
        return
    seen = wp.vec3f(
        (wp.float32(column) + 0.5 - view.cx) / view.fx * d, (wp.float32(line) + 0.5 - view.cy) / view.fy * d, d
    )
    s = wp.dot(p - seen, view.normal[line, column]) / truncation
    if s <= -1.0:
        return
    slot = slots[row]
    old = wp.float32(weight[slot, voxel])
    if s >= 1.0:
        s = wp.float32(1.0)
        w = w * view.free_share
    share = w / (old + w)
    before = wp.float32(distance[slot, voxel])
    distance[slot, voxel] = wp.float16(before + share * (s - before))
    if s < 1.0:
        c = color[slot, voxel]
        now = view.rgb[line, column]
        # A threshold that differs from voxel to voxel and time to time rounds without bias.
        turn = wp.rand_init(slot * VOXELS + voxel, wp.int32(old * 4096.0))
        h = wp.randf(turn)
        color[slot, voxel] = wp.vec3ub(mixed(c[0], now[0], share, h), mixed(c[1], now[1], share, h), mixed(c[2], now[2], share, h))
    weight[slot, voxel] = wp.float16(wp.min(old + w, HEAVIEST))
