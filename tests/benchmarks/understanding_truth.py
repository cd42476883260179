"""The truth of a picture with depth: floor plane, floor, what stands on it seen from above, and straight paths of a robot.

Ground frame: origin on the floor below the camera, x where it looks along the floor, y to its left, z up, metres.
docs/understanding.md defines every number.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tests.benchmarks.understanding_cases import Case, ExactPlace

CELL, AHEAD, SIDE, REACH = 0.1, 5.0, 3.0, 5.0
"""Top-down grid: cell, extent ahead and to either side, and radius within which it counts [m]."""
SHAPE = (round(AHEAD / CELL), round(2 * SIDE / CELL))
LOW, HIGH = 0.15, 1.8
"""Height band of obstacles [m]."""
ROBOT_RADIUS = 0.18
MIN_FLOOR = 0.05
"""Least share of the picture that is floor, for figures about the floor."""
MIN_FREE = 30
"""Least free cells, for figures from above."""
UNKNOWN, FREE, OCCUPIED = 0, 1, 2
PATHS = 250
"""Wanted of either kind."""
MIN_AREA, MIN_PIXELS = 4e-4, 3
"""Least surface [m2] and pixels that make a cell occupied."""
_STEP, _OVERSHOOT, _DRAWS = 0.05, 0.3, 12000
_CAMERA_HEIGHTS = (0.75, 2.6)
"""Real cameras here are carried by people or stand on tripods [m]; a plane nearer is a table's top."""
_BELOW = 0.005
"""Share of points that may lie below a floor."""


@dataclass(frozen=True)
class Truth:
    """What a world is compared with."""

    case: Case
    up: np.ndarray | None
    """(3,) in camera axes; None = unknown."""
    height: float
    """Of the camera above the floor [m]; NaN = unknown."""
    floor: np.ndarray
    """(H, W) bool: floor on the plane."""
    ignored: np.ndarray
    """(H, W) bool: near the plane but no clear floor (feet of things), or floor off the plane."""
    grid: np.ndarray | None
    """SHAPE uint8: UNKNOWN, FREE, OCCUPIED; None = too little floor."""
    paths: np.ndarray
    """(P, L) int32 flat indices of the grid's cells along each path, -1 = none."""
    blocked: np.ndarray
    """(P,) bool: the path meets something."""

    @property
    def has_grid(self) -> bool:
        """Whether enough floor is seen for figures from above."""
        return self.grid is not None and int((self.grid == FREE).sum()) >= MIN_FREE


def floor_tolerance(z: np.ndarray) -> np.ndarray:
    """Return the half thickness [m] of a floor seen at depth z [m]: what sensors scatter, less than any obstacle."""
    return np.clip(0.03 + 0.01 * z, 0.04, 0.12)


def ground_axes(up: np.ndarray) -> np.ndarray:
    """Return (3, 3), rows = forward, left, up of the ground frame in camera axes, for a unit up vector (3,)."""
    forward = np.array([0.0, 0.0, 1.0]) - up[2] * up
    length = np.linalg.norm(forward)
    forward = forward / length if length > 1e-3 else np.array([0.0, -1.0, 0.0])
    return np.stack([forward, np.cross(up, forward), up])


def looking_down(degrees: float) -> np.ndarray:
    """Return up (3,) in the axes of a camera without roll that looks down by an angle."""
    a = np.radians(degrees)
    return np.array([0.0, -np.cos(a), -np.sin(a)])


def find_truth(case: Case) -> Truth:
    """Return the truth of a case: exact where its place is known, else measured on its depth. Repeatable."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    points = case.camera.rays().astype(np.float64) * case.depth[..., None]
    known = np.isfinite(case.depth)
    normals = surface_normals(points)
    nothing = np.zeros(known.shape, bool)
    none = Truth(case, None, np.nan, nothing, nothing, None, np.zeros((0, 1), np.int32), np.zeros(0, bool))
    place = case.place or _measured_place(points[known], normals[known], rng)
    if place is None:
        return none
    height = points @ place.up + place.height
    on_plane = known & (np.abs(height) < floor_tolerance(case.depth))
    if place.floor is None:
        floor = without_specks(on_plane & ~_feet(normals, place.up, case.depth), on_plane)
        ignored = on_plane & ~floor
    else:
        floor = on_plane & place.floor
        ignored = (on_plane | place.floor) & ~floor
    if _share(floor, known) < MIN_FLOOR:
        return none if case.place is None else Truth(case, place.up, place.height, nothing, nothing, None, none.paths, none.blocked)
    grid = top_down(points, height, floor, place, case)
    paths, blocked = draw_paths(grid, rng)
    return Truth(case, place.up, place.height, floor, ignored, grid, paths, blocked)


def _feet(normals: np.ndarray, up: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return pixels whose surface is upright: near the plane they are the foot of a wall or thing. Far normals are too noisy."""
    return (normals @ up < np.cos(np.radians(35))) & (depth < 4.0)


def without_specks(floor: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the floor with pinholes closed and patches below 0.05 % of the picture gone."""
    closed = ndimage.binary_closing(floor, np.ones((5, 5))) & allowed
    parts, count = ndimage.label(closed)
    size = np.bincount(parts.ravel(), minlength=count + 1)
    size[0] = 0
    return (size > 5e-4 * floor.size)[parts]


def _share(floor: np.ndarray, known: np.ndarray) -> float:
    """Return the share of the picture that is floor; in blocks of 8 pixels with holes, holes count as their block does."""
    h, w = (side // 8 * 8 for side in floor.shape)
    part, whole = (m[:h, :w].reshape(h // 8, 8, w // 8, 8).sum((1, 3)) for m in (floor, known))
    return float((part / np.maximum(whole, 1)).mean())


def surface_normals(points: np.ndarray, step: int = 4) -> np.ndarray:
    """Return (H, W, 3) unit normals towards the camera, of points (H, W, 3) averaged over 5 x 5 pixels; NaN where not measured."""
    known = np.isfinite(points[..., 2])
    weight = ndimage.uniform_filter(known.astype(float), 5)
    mean = ndimage.uniform_filter(np.where(known[..., None], points, 0.0), (5, 5, 1)) / np.maximum(weight, 1e-9)[..., None]
    mean[weight < 0.3] = np.nan
    out = np.full(points.shape, np.nan)
    inner = slice(step, -step)
    along_v = mean[2 * step:, inner] - mean[:-2 * step, inner]
    along_u = mean[inner, 2 * step:] - mean[inner, :-2 * step]
    n = np.cross(along_u, along_v)
    with np.errstate(invalid="ignore", divide="ignore"):
        n /= np.linalg.norm(n, axis=-1, keepdims=True)
    out[inner, inner] = n * -np.sign((n * mean[inner, inner]).sum(-1, keepdims=True))
    return out


def _measured_place(points: np.ndarray, normals: np.ndarray, rng: np.random.Generator) -> ExactPlace | None:
    """Return the floor plane of points (N, 3) with normals, or None: RANSAC (Fischler and Bolles 1981), then least squares.

    A floor faces up, lies at a carried camera's height below it, and hardly anything lies below it.
    """
    prior = looking_down(15)
    some = rng.permutation(len(points))[:12000]
    points, normals = points[some], normals[some]
    facing_up = normals @ prior > np.cos(np.radians(55))
    level, level_normals = points[facing_up], normals[facing_up]
    if len(level) < 100:
        return None
    tolerance, margin = 0.02 + 0.006 * level[:, 2], 0.08 + 0.02 * points[:, 2]
    best, found = 50, None
    for corner in level[rng.integers(0, len(level), (1500, 3))]:
        up = np.cross(corner[1] - corner[0], corner[2] - corner[0])
        up = up * np.sign(up @ prior) / max(float(np.linalg.norm(up)), 1e-12)
        height = -float(up @ corner[0])
        if up @ prior < np.cos(np.radians(40)) or not _CAMERA_HEIGHTS[0] < height < _CAMERA_HEIGHTS[1]:
            continue
        inliers = np.abs(level @ up + height) < tolerance
        if inliers.sum() <= best or (points @ up + height < -margin).mean() >= _BELOW:
            continue
        if np.median(level_normals[inliers] @ up) > np.cos(np.radians(25)):
            best, found = int(inliers.sum()), (up, height)
    if found is None:
        return None
    up, height = _refined(level, tolerance, *found)
    return ExactPlace(up, height) if _CAMERA_HEIGHTS[0] < height < _CAMERA_HEIGHTS[1] else None


def _refined(points: np.ndarray, tolerance: np.ndarray, up: np.ndarray, height: float) -> tuple[np.ndarray, float]:
    """Fit a plane to its inliers, weighted by the noise to expect at their depth, until they stay the same."""
    for _ in range(10):
        near = np.abs(points @ up + height) < tolerance
        weight = 1 / tolerance[near]
        middle = np.average(points[near], axis=0, weights=weight**2)
        spread = (points[near] - middle) * weight[:, None]
        normal = np.linalg.eigh(spread.T @ spread)[1][:, 0]
        up = normal * np.sign(normal @ up)
        height = -float(middle @ up)
    return up, height


def cell_index(ground_points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flat cell indices of points (..., 2+) in the ground frame, and whether they lie on the grid."""
    i = np.floor(np.nan_to_num(ground_points[..., 0], nan=-1.0) / CELL).astype(np.int64)
    j = np.floor((np.nan_to_num(ground_points[..., 1]) + SIDE) / CELL).astype(np.int64)
    inside = (i >= 0) & (i < SHAPE[0]) & (j >= 0) & (j < SHAPE[1])
    return np.where(inside, i * SHAPE[1] + j, 0), inside


def cell_centres() -> np.ndarray:
    """Return (SHAPE, 2) x and y of the cells' centres [m]."""
    x, y = (np.arange(SHAPE[0]) + 0.5) * CELL, (np.arange(SHAPE[1]) + 0.5) * CELL - SIDE
    return np.stack(np.meshgrid(x, y, indexing="ij"), -1)


def top_down(points: np.ndarray, height: np.ndarray, floor: np.ndarray, place: ExactPlace, case: Case) -> np.ndarray:
    """Return SHAPE uint8. Occupied: enough surface seen in the band over the ground. Free: floor seen, hardly anything over it."""
    known = np.isfinite(case.depth)
    cell, inside = cell_index(points @ ground_axes(place.up).T)
    if place.ground is not None:
        height = height - np.nan_to_num(place.ground.ravel())[cell]
    seen_floor = floor if place.floor is None else place.floor
    solid = known & inside & ~floats(case.depth) & (height > LOW) & (height < HIGH)
    if place.floor is not None:
        solid &= ~place.floor
    area = case.depth.astype(float) ** 2 / (case.camera.K[0, 0] * case.camera.K[1, 1])
    size = SHAPE[0] * SHAPE[1]
    surface = np.bincount(cell[solid], area[solid], size).reshape(SHAPE)
    pixels = np.bincount(cell[solid], minlength=size).reshape(SHAPE)
    walked = np.bincount(cell[seen_floor & inside], minlength=size).reshape(SHAPE)
    free = ndimage.binary_closing(walked >= 2, np.ones((3, 3))) & (pixels < MIN_PIXELS)
    if place.blocked is not None:
        free &= ~place.blocked
    out = np.where(free, FREE, UNKNOWN)
    out[(surface >= MIN_AREA) & (pixels >= MIN_PIXELS)] = OCCUPIED
    out[np.linalg.norm(cell_centres(), axis=-1) > REACH] = UNKNOWN
    return out.astype(np.uint8)


def floats(depth: np.ndarray) -> np.ndarray:
    """Return pixels between a near and a far surface, which sensors invent at edges."""
    known = np.isfinite(depth)
    far = ndimage.maximum_filter(np.where(known, depth, 0.0), 3)
    near = ndimage.minimum_filter(np.where(known, depth, np.inf), 3)
    with np.errstate(invalid="ignore"):
        return known & (far - near > 0.06 * depth) & (depth - near > 0.02 * depth) & (far - depth > 0.02 * depth)


def widened(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return cells within radius [m] of the mask's."""
    n = int(radius / CELL) + 1
    i, j = np.mgrid[-n:n + 1, -n:n + 1]
    return ndimage.binary_dilation(mask, np.hypot(i, j) * CELL <= radius + 1e-9)


def draw_paths(grid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random straight paths of 1 to 3 m from free places: flat cells (P, L), -1 = none, and whether they are blocked (P,).

    The robot is a disc. A blocked path ends a little behind its first contact; one that comes near unknown ground before any
    contact is not used.
    """
    margin = round(3.2 / CELL)
    touch = np.pad(widened(grid == OCCUPIED, ROBOT_RADIUS), margin)
    unsure = np.pad(widened(grid == UNKNOWN, ROBOT_RADIUS), margin, constant_values=True)
    starts = np.argwhere(~touch & ~unsure)
    steps = np.arange(0, 3.0, _STEP)
    if not len(starts):
        return np.zeros((0, len(steps)), np.int32), np.zeros(0, bool)
    place = starts[rng.integers(0, len(starts), _DRAWS)] + rng.random((_DRAWS, 2))
    angle, length = rng.uniform(0, 2 * np.pi, _DRAWS), rng.uniform(1.0, 3.0, _DRAWS)
    way = np.stack([np.cos(angle), np.sin(angle)], -1)
    at = np.floor(place[:, None] + steps[:, None] / CELL * way[:, None]).astype(np.int64)
    walked = steps < length[:, None]
    touches, doubts = touch[at[..., 0], at[..., 1]] & walked, unsure[at[..., 0], at[..., 1]] & walked
    blocked = touches.any(1)
    first = np.where(blocked, touches.argmax(1), len(steps))
    good = ~(doubts & (np.arange(len(steps)) < first[:, None])).any(1)
    chosen = np.sort(np.concatenate([np.flatnonzero(good & (blocked == kind))[:PATHS] for kind in (False, True)]))
    at, inside = at - margin, walked & (steps <= first[:, None] * _STEP + _OVERSHOOT + 1e-9)
    inside &= ((at >= 0) & (at < SHAPE)).all(-1)
    flat = np.where(inside, at[..., 0] * SHAPE[1] + at[..., 1], -1)
    return flat[chosen].astype(np.int32), blocked[chosen]
