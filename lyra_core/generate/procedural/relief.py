"""What stands before the plan's walls, as the depth says: cut into things where the depth jumps, each a closed relief.

The photo's pixels of a thing become a height field along the lines of sight; its outline follows the silhouette (marching squares,
Lorensen and Cline 1987), and its back is the front moved away from the camera, so that the solid covers exactly its silhouette when
seen from there.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import find_objects
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lyra_core.generate.procedural.columns import column_boxes
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.sightlines import Sightlines
from lyra_core.generate.procedural.solids import Solid
from lyra_core.generate.procedural.strips import fill_by_mirror
from lyra_core.types import Label

CLEAR = (0.04, 0.02)
"""The plan's own surfaces explain depth to this [m], plus this share of it."""
NEAREST = {True: 0.25, False: 0.6}
"""Nothing comes nearer to the camera's foot than this [m], measured or estimated; there the robot starts."""
LOWEST = 0.1
"""What stays below this is no obstacle [m]."""
SMALLEST_AREA = {True: 0.0002, False: 0.001}
"""Share of the picture below which a measured, and an estimated, thing is not lifted."""
JUMP = 0.04
"""Relative difference of neighbouring depths that may be an edge."""
CELLS = 700
"""Grid cells of a thing, about; its stride is between 2 px and 16 px."""
THICKNESS = {True: (0.05, 0.3), False: (0.1, 0.35)}
"""Of what is seen from one side: half its width, within these [m]; measured things show most of their depth themselves."""


def lift_relief(source: PhotoSource) -> list[Solid]:
    """Return one solid per thing that stands before the plan, nearest first.

    Args:
        source: photo with depth, and the first hits of the plan without things.
    """
    measured = source.estimate.measured is not None
    points = source.world_points()
    things = find_things(source, points)
    large = np.bincount(things.ravel()) >= SMALLEST_AREA[measured] * things.size
    behind, sightlines = depth_behind(source), Sightlines(source, points)
    solids = []
    for number, window in enumerate(find_objects(things), start=1):
        if not large[number]:
            continue
        mask = things[window] == number
        if np.percentile(points[window][mask][:, 2], 98) > LOWEST:
            solid = _lifted(source, points, window, mask, behind, sightlines)
            if solid is not None:
                solids.append(solid)
    return sorted(solids, key=lambda s: float(np.hypot(*(s.base - source.position[:2]))))


def depth_behind(source: PhotoSource) -> np.ndarray:
    """Return (H, W) z-depth [m] of the plan's surface behind each pixel, a little less so that nothing pierces it; inf = none."""
    assert source.first_hit is not None
    return source.first_hit * 0.985


def find_things(source: PhotoSource, points: np.ndarray) -> np.ndarray:
    """Return (H, W) int32: number of the thing before the plan, 0 = none. A thing ends where the depth jumps.

    Neighbours belong together unless their inverse depths, which are affine along planes, differ by more than the slopes on both
    sides explain.

    Args:
        points: (H, W, 3) world points of the photo [m].
    """
    e, hit = source.estimate, source.first_hit
    assert hit is not None
    away = points[..., :2] - source.position[:2]
    far_enough = np.hypot(away[..., 0], away[..., 1]) > NEAREST[e.measured is not None]
    with np.errstate(invalid="ignore"):
        before = e.depth < hit - np.where(e.labels == Label.OBSTACLE, 0.01, CLEAR[0] + CLEAR[1] * e.depth)
    stands = before & far_enough & ~np.isin(e.labels, (Label.SKY, Label.FLOOR, Label.CEILING))
    number = np.cumsum(stands).reshape(stands.shape) - 1
    ends = [np.stack([number[a][joined], number[b][joined]]) for a, b, joined in _neighbours(e.depth, stands)]
    pairs = np.concatenate(ends, 1)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), (pairs[0], pairs[1])), shape=(int(stands.sum()),) * 2)
    out = np.zeros(stands.shape, np.int32)
    out[stands] = connected_components(graph, directed=False)[1] + 1
    return out


def _neighbours(depth: np.ndarray, stands: np.ndarray) -> list[tuple[tuple[slice, ...], tuple[slice, ...], np.ndarray]]:
    """Return, along rows and along columns, the two sides of each pair of neighbours and which pairs (...) lie on one surface."""
    out = []
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(stands, 1.0 / depth, np.nan)
    for axis in (0, 1):
        a, b = (tuple(s if k == axis else slice(None) for k in (0, 1)) for s in (slice(None, -1), slice(1, None)))
        step = np.diff(inverse, axis=axis)
        size = np.abs(np.nan_to_num(step))
        padded = np.pad(size, [(1, 1) if k == axis else (0, 0) for k in (0, 1)])
        slope = np.maximum(np.take(padded, range(size.shape[axis]), axis), np.take(padded, range(2, size.shape[axis] + 2), axis))
        near = np.fmax(inverse[a], inverse[b])
        with np.errstate(invalid="ignore"):
            apart = (size > JUMP * near) & (size > 2.5 * slope + 0.5 * JUMP * near)
        out.append((a, b, stands[a] & stands[b] & ~apart))
    return out


def _lifted(source: PhotoSource, points: np.ndarray, window: tuple[slice, ...], mask: np.ndarray,
            behind: np.ndarray, sightlines: Sightlines) -> Solid | None:
    """Return the solid of one thing; None where nothing is left of it.

    Args:
        points: (H, W, 3) world points of the photo [m].
        window: rows and columns of its box in the picture.
        mask: (h, w) bool within the window.
        behind: (H, W) z-depth of the plan [m].
    """
    eye, e, seen = source.position, source.estimate, points[window][mask]
    stride = int(np.clip(round(np.sqrt(mask.sum() / CELLS)), 2, 16))
    positions, faces = _silhouette(mask, stride)
    if len(faces) == 0:
        return None
    depth = _depth_at(e.depth[window], mask, stride, positions)
    pixels = positions + [window[1].start, window[0].start]
    local = np.concatenate([(pixels - e.camera.K[:2, 2]) / np.diag(e.camera.K)[:2], np.ones((len(pixels), 1))], 1)
    sight = local @ e.T_world_camera[:3, :3].T
    away = np.median(seen[:, :2], 0) - eye[:2]
    distance = max(float(np.hypot(*away)), 0.1)
    normal = -away / max(float(np.hypot(*away)), 1e-9)
    width = float(np.ptp(np.percentile(seen[:, :2] @ [-normal[1], normal[0]], (3, 97))))
    thickness = float(np.clip(0.5 * width, *THICKNESS[e.measured is not None]))
    limit = behind[tuple(np.clip(pixels.astype(int), 0, [behind.shape[1] - 1, behind.shape[0] - 1])[:, ::-1].T)]
    back = np.minimum(depth * (1 + thickness / distance), np.maximum(limit, depth * 1.01))
    vertices = np.concatenate([eye + sight * depth[:, None], eye + sight * back[:, None]])
    image, texels = _picture(source, window, mask, positions)
    label = Label(int(np.bincount(e.labels[window][mask]).argmax()))
    room = (behind[window][mask] / e.depth[window][mask] - 1.0) * np.hypot(*(seen[:, :2] - eye[:2]).T)
    collider = column_boxes(seen, room, eye, sightlines, finest=2.0 * distance / e.camera.K[0, 0], thickness=thickness)
    if collider is None:
        return None
    front, sides = faces[:, ::-1], _sides(faces[:, ::-1], len(positions))
    every = np.concatenate([front, sides, front[:, ::-1] + len(positions)])
    base = np.median(seen[seen[:, 2] <= np.percentile(seen[:, 2], 20), :2], 0)
    return Solid(vertices, every, np.concatenate([texels, texels]), image, len(front), base, normal, collider, label)


def _inside_polygon(code: int) -> list[int]:
    """Return a cell's inside as corner numbers (0 to 3, clockwise in the picture) and 4 + edge numbers. Bit k: corner k is in."""
    inside = [bool(code >> c & 1) for c in range(4)]
    out = []
    for c in range(4):
        out += [c] * inside[c] + [c + 4] * (inside[c] != inside[(c + 1) % 4])
    return out


def _silhouette(mask: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut the inside of a mask (h, w) out of a grid of cells of ``stride`` pixels.

    Returns:
        positions (V, 2) [px in the window] and faces (F, 3), clockwise in the picture.
    """
    pad = 2 * stride
    wide = cv2.copyMakeBorder(mask.astype(np.float32), pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    soft = cv2.GaussianBlur(wide, (0, 0), max(0.7, 0.3 * stride))
    at_u, at_v = (np.arange(0, n + 1 - 1e-9, stride, dtype=np.float32) for n in (wide.shape[1], wide.shape[0]))
    u, v = np.meshgrid(at_u, at_v)
    field = cv2.remap(soft, u - 0.5, v - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) - 0.45
    inside = field > 0
    rows, cols = inside.shape
    node = np.arange(rows * cols).reshape(rows, cols)
    corners = np.stack([node[:-1, :-1], node[:-1, 1:], node[1:, 1:], node[1:, :-1]], -1).reshape(-1, 4)
    code = (inside.ravel()[corners] << np.arange(4)).sum(1)
    # An edge of the grid is named by its upper or left node; the downward ones come after the rightward ones.
    count = rows * cols
    edge = np.stack([corners[:, 0], corners[:, 1] + count, corners[:, 3], corners[:, 0] + count], 1) + count
    names = np.concatenate([corners, edge], 1)
    pieces = [np.zeros((0, 3), np.int64)]
    for value in range(1, 16):
        polygon, chosen = _inside_polygon(value), names[code == value]
        pieces += [chosen[:, [polygon[0], polygon[k], polygon[k + 1]]] for k in range(1, len(polygon) - 1)]
    used, faces = np.unique(np.concatenate(pieces), return_inverse=True)
    grid = np.stack([u, v], -1).reshape(-1, 2).astype(np.float64)
    value = field.ravel().astype(np.float64)
    kind, start = np.divmod(used, count)
    end = np.where(kind == 1, start + 1, np.where(kind == 2, start + cols, start))
    share = np.where(kind > 0, value[start] / np.where(kind > 0, value[start] - value[np.minimum(end, count - 1)], 1.0), 0.0)
    share = np.clip(share, 0.08, 0.92) * (kind > 0)
    positions = grid[start] + share[:, None] * (grid[np.minimum(end, count - 1)] - grid[start]) - pad
    return positions, faces.reshape(-1, 3)


def _depth_at(depth: np.ndarray, mask: np.ndarray, stride: int, positions: np.ndarray) -> np.ndarray:
    """Return depths (V,) [m] at positions (V, 2) [px]: those of the mask (h, w), smoothed within it and continued around it."""
    pad = 2 * stride
    inside = cv2.copyMakeBorder(mask.astype(np.uint8), pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    inverse = np.where(mask, 1.0 / np.where(mask, depth, 1.0), 0.0).astype(np.float32)
    inverse = cv2.copyMakeBorder(inverse, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.35 * stride)
    smooth = cv2.GaussianBlur(inverse, (0, 0), 0.35 * stride) / np.maximum(weight, 1e-6)
    _, nearest = cv2.distanceTransformWithLabels(1 - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    table = np.zeros(int(nearest.max()) + 1, np.float32)
    index = np.asarray(nearest, np.int64)
    table[index[inside > 0]] = smooth[inside > 0]
    full = np.where(inside > 0, smooth, table[index]).astype(np.float32)
    at = (positions + (pad - 0.5)).astype(np.float32)
    return 1.0 / cv2.remap(full, at[:, :1], at[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0].astype(np.float64)


def _picture(source: PhotoSource, window: tuple[slice, ...], mask: np.ndarray,
             positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the photo of a thing (h, w, 3) uint8, continued around it, and the texel of each position (V, 2)."""
    pad = 3
    rows, cols = (slice(max(s.start - pad, 0), s.stop + pad) for s in window)
    colours = source.rgb[rows, cols].astype(np.float32)
    known = np.zeros(colours.shape[:2], np.uint8)
    top, left = window[0].start - rows.start, window[1].start - cols.start
    known[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    known = cv2.dilate(known, np.ones((3, 3), np.uint8)) > 0
    return fill_by_mirror(colours, known, np.full(3, 128.0)), positions + [left, top]


def _sides(front: np.ndarray, count: int) -> np.ndarray:
    """Return the faces between the border of a front (F, 3) and that of its back, whose vertices come ``count`` later."""
    edges = np.stack([front, np.roll(front, -1, 1)], -1).reshape(-1, 2)
    key, other = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    a, b = edges[~np.isin(key, other)].T
    return np.concatenate([np.stack([b, a, a + count], 1), np.stack([b, a + count, b + count], 1)])
