"""Free space from collision geometry: a top-down grid with the ground's height, clearance, islands and provenance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from lyra_core.config import NavigationCfg
from lyra_core.errors import WorldError
from lyra_core.navigation.ground import Surfaces, climb, cover, edges, slopes, too_steep, traversability
from lyra_core.navigation.rasterise import footprint
from lyra_core.rays import make_ray_tracer
from lyra_core.types import CollisionPart, FreeSpace, Label, Provenance, SurfaceMesh

MAX_SLOPE = np.cos(np.radians(45.0))
"""Least vertical component of a floor's unit normal (Habitat's 45 degrees)."""
NO_FLOOR = 255
"""Provenance of a cell without floor."""
MAX_CELLS = 40_000_000
"""Largest grid; more means that the geometry or the cell size is wrong by its units."""
NEAR_CAMERA = 1.0
"""A photo taken over a bench stands on no traversable cell; the nearest one within this distance counts [m]."""
LOOK_FROM, LOOK_DOWN = 0.1, 0.5
"""The visual floor of a cell is looked for from this height above its ground, this far down [m]."""


def free_space(parts: list[CollisionPart], *, cfg: NavigationCfg) -> FreeSpace:
    """Build the grid of places where the robot can stand, before its radius is applied.

    The ground of a cell is the surface that faces up within ``cfg.step`` of z = 0, or else one that can be climbed to from
    there, cell by cell: neighbours are connected where their heights differ by at most ``cfg.step`` or the slope ``cfg.slope``
    allows it. So kerbs and ramps are ground, stairs and stages are not, and a raised floor is where a ramp leads to it. A
    cell is free if it has such ground, no triangle touches it between ``cfg.step`` and ``cfg.robot_height`` above the
    ground, it is not inside a solid part, its slope is climbable, and it is not the upper side of an edge too high to climb.

    Args:
        parts: collision geometry, world frame (Z up) [m]; faces look towards free space.
        cfg: cell size, step, slope and robot height.

    Raises:
        WorldError: there is no floor, or the grid would be absurdly large.
    """
    floor, floor_part = _upward_triangles(parts, cfg.step)
    low, high = floor[..., :2].min((0, 1)), floor[..., :2].max((0, 1))
    # One cell all round stays without floor, so that the world's rim counts as blocked everywhere below.
    origin = np.floor(low / cfg.cell) * cfg.cell - cfg.cell
    cols, rows = np.ceil((high - origin) / cfg.cell).astype(int) + 1
    if rows * cols > MAX_CELLS:
        raise WorldError(f"free space: got a floor of {(high - low).round(1).tolist()} m at {cfg.cell} m per cell, "
                         f"expected at most {MAX_CELLS} cells")
    surfaces, triangles = Surfaces(floor, origin, cfg.cell, (int(rows), int(cols))), _triangles(parts)
    every, start = np.arange(rows * cols), cfg.step + 1e-3
    found = surfaces.below(every, np.full(len(every), start), reach=start + cfg.step)
    height, face = (grid.reshape(surfaces.shape) for grid in found)
    free = (face >= 0) & ~_occupied(triangles, height, face >= 0, origin, cfg)
    free &= ~_inside_solids(parts, free, height, origin, cfg)
    climbed = climb(surfaces, height, face, free, cfg)
    if climbed.any():
        standing = climbed & ~_occupied(triangles, height, climbed, origin, cfg)
        free |= standing & ~_inside_solids(parts, standing, height, origin, cfg)
    slope = slopes(height, np.where((face >= 0)[..., None], surfaces.normals[face], 0.0), cfg)
    free &= ~edges(height, cfg) & ~too_steep(height, slope, cfg)
    cover(surfaces, height, face, cfg)
    provenance = np.array([int(p.provenance) for p in parts], np.uint8)[floor_part[face]]
    return FreeSpace(origin.astype(np.float64), cfg.cell, free, clearance_of(free, cfg.cell),
                     np.where(face >= 0, provenance, np.uint8(NO_FLOOR)), cfg.robot_height, height,
                     traversability(height, slope, free, cfg))


def clearance_of(free: np.ndarray, cell: float) -> np.ndarray:
    """Return the distance of each cell centre to the nearest blocked cell, (rows, cols) float32 [m].

    Distance to the cell's square, not to its centre: geometry may lie anywhere in a blocked cell, so a disc of this
    radius is surely clear. Exact: the nearest point of a square is on the half-cell lattice, where one distance
    transform finds it. Everything outside the grid is blocked.
    """
    rows, cols = free.shape
    lattice = np.ones((2 * rows + 3, 2 * cols + 3), bool)
    blocked = np.zeros((2 * rows + 3, 2 * cols + 3), bool)
    blocked[2:-2:2, 2:-2:2] = ~free
    lattice &= np.logical_not(ndimage.binary_dilation(blocked, np.ones((3, 3), bool)))
    lattice[:2], lattice[-2:], lattice[:, :2], lattice[:, -2:] = False, False, False, False
    return (np.asarray(ndimage.distance_transform_edt(lattice))[2:-2:2, 2:-2:2] * (cell / 2)).astype(np.float32)


def islands(space: FreeSpace, radius: float) -> np.ndarray:
    """Label the connected traversable regions of a disc: (rows, cols) int32, 0 = not traversable, 1 = the largest."""
    labels = np.zeros(space.free.shape, np.int32)
    count = int(np.asarray(ndimage.label(space.traversable(radius), np.ones((3, 3), bool), output=labels)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    rank = np.zeros(count + 1, np.int32)
    rank[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, count + 1)
    return rank[labels]


def home_island(space: FreeSpace, radius: float) -> np.ndarray:
    """Return the region that holds the photo's camera (the world origin), (rows, cols) bool.

    The camera may stand where the disc does not fit; then the nearest traversable cell within 1 m decides, and if
    there is none, the largest region.
    """
    labels = islands(space, radius)
    row, col = np.nonzero(labels)
    if not len(row):
        return labels > 0
    distance = np.hypot(space.origin[0] + (col + 0.5) * space.cell, space.origin[1] + (row + 0.5) * space.cell)
    nearest = int(np.argmin(distance))
    return labels == (labels[row[nearest], col[nearest]] if distance[nearest] <= NEAR_CAMERA else 1)


def free_points(space: FreeSpace, radius: float, *, height: float = 0.5, count: int = 200) -> np.ndarray:
    """Return about ``count`` points (N, 3) [m], evenly picked, at a height [m] above the ground of the home island."""
    cells = np.argwhere(home_island(space, radius))
    cells = cells[:: max(1, len(cells) // count)]
    places = _centres(space.origin, space.cell, cells[:, 0], cells[:, 1])
    return np.column_stack([places, space.height_at(places) + height])


def with_seen_floor(space: FreeSpace, mesh: SurfaceMesh) -> FreeSpace:
    """Take each cell's provenance from the visual floor below it: finer than one value per collider."""
    floor = mesh.face_label == Label.FLOOR
    row, col = np.nonzero(space.provenance != NO_FLOOR)
    ground = np.zeros(len(row)) if space.height is None else space.height[row, col]
    origins = np.column_stack([_centres(space.origin, space.cell, row, col), ground + LOOK_FROM]).astype(np.float32)
    down = np.broadcast_to(np.array([0, 0, -1], np.float32), origins.shape)
    hits = make_ray_tracer(mesh.vertices, mesh.faces[floor]).cast(origins, down)
    hit = (hits.face >= 0) & (hits.t < LOOK_DOWN)
    provenance = space.provenance.copy()
    provenance[row[hit], col[hit]] = mesh.face_provenance[floor][hits.face[hit]]
    return replace(space, provenance=provenance)


def area_by_provenance(space: FreeSpace, radius: float) -> dict[str, float]:
    """Return the area of the home island where the disc's centre can be, by origin of the floor: seen, continued, invented [m2]."""
    home = home_island(space, radius)
    return {p.name.lower(): float(np.count_nonzero(home & (space.provenance == p)) * space.cell**2) for p in Provenance}


def free_space_stats(space: FreeSpace, radius: float) -> dict[str, float]:
    """Return the numbers of a navigability report for a disc of this radius [m].

    Keys: walkable_m2 (home island, disc's centre), seen_m2, continued_m2, invented_m2 (its split), floor_m2 (floor that
    the disc covers while walking there), islands (count), home_share (of all traversable cells), widest_clearance_m.
    """
    home, traversable = home_island(space, radius), space.traversable(radius)
    area = area_by_provenance(space, radius)
    reach = np.asarray(ndimage.distance_transform_edt(~home)) * space.cell <= radius if home.any() else home
    return {
        "radius_m": radius,
        "walkable_m2": sum(area.values()),
        **{f"{name}_m2": value for name, value in area.items()},
        "floor_m2": float(np.count_nonzero(reach & space.free) * space.cell**2),
        "islands": int(islands(space, radius).max(initial=0)),
        "home_share": float(home.sum() / max(int(traversable.sum()), 1)),
        "widest_clearance_m": float(space.clearance[home].max(initial=0.0)),
    }


def _triangles(parts: list[CollisionPart]) -> np.ndarray:
    """Return (F, 3, 3) float64 corners of all parts in order."""
    return np.concatenate([np.zeros((0, 3, 3))] + [p.vertices[p.faces].astype(np.float64) for p in parts])


def _normal_z(triangles: np.ndarray) -> np.ndarray:
    """Return the z component of unit normals (F,); 0 for degenerate triangles."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return normal[:, 2] / np.maximum(np.linalg.norm(normal, axis=1), 1e-30)


def _upward_triangles(parts: list[CollisionPart], step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the (F, 3, 3) triangles that can be ground and the index of the part of each (F,)."""
    triangles = _triangles(parts)
    part = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts])
    z = triangles[..., 2]
    use = _normal_z(triangles) >= MAX_SLOPE
    if not (use & (z.min(1) <= step) & (z.max(1) >= -step)).any():
        raise WorldError(f"free space: got {len(parts)} collision parts, none with a face that looks up within {step} m of z = 0; "
                         "expected a floor there (is it wound upside down?)")
    return triangles[use], part[use]


def _centres(origin: np.ndarray, cell: float, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    return np.stack([origin[0] + (col + 0.5) * cell, origin[1] + (row + 0.5) * cell], 1)


def _occupied(triangles: np.ndarray, height: np.ndarray, cells: np.ndarray, origin: np.ndarray, cfg: NavigationCfg) -> np.ndarray:
    """Return those of the cells (rows, cols) that a triangle touches in the robot's height band above their ground.

    Cells of nearly the same height share one band: from the lowest one's step, but above the ground's own rise, to the highest
    one's head. It is exact where the ground is level.
    """
    out = np.zeros(cells.shape, bool)
    level = np.round(np.where(cells, height, 0.0) / max(cfg.step / 4, 0.01))
    for value in np.unique(level[cells]):
        here = cells & (level == value)
        low, high = float(height[here].min()), float(height[here].max())
        own_rise = cfg.cell * float(np.tan(np.radians(cfg.slope))) if high > low else 0.0
        band = (max(low + cfg.step, high + own_rise), high + cfg.robot_height)
        out |= here & footprint(triangles, origin, cfg.cell, cells.shape, band)
    return out


def _inside_solids(
    parts: list[CollisionPart], candidates: np.ndarray, height: np.ndarray, origin: np.ndarray, cfg: NavigationCfg
) -> np.ndarray:
    """Return the candidate cells whose whole column is inside a closed part (a cupboard taller than the robot).

    Its surface does not touch the band there, so one ray up from the middle of the band decides: it leaves through
    a face that looks up.
    """
    solids = _triangles([p for p in parts if p.kind == "solid"])
    inside = np.zeros(candidates.shape, bool)
    row, col = np.nonzero(candidates)
    if not len(solids) or not len(row):
        return inside
    tracer = make_ray_tracer(solids.reshape(-1, 3).astype(np.float32), np.arange(len(solids) * 3, dtype=np.int32).reshape(-1, 3))
    middle = height[row, col] + (cfg.step + cfg.robot_height) / 2
    origins = np.column_stack([_centres(origin, cfg.cell, row, col), middle]).astype(np.float32)
    hits = tracer.cast(origins, np.tile(np.array([0, 0, 1], np.float32), (len(row), 1)))
    inside[row, col] = (hits.face >= 0) & (_normal_z(solids)[np.maximum(hits.face, 0)] > 0)
    return inside
