"""Gravity, floor and unit of geometry that may come in any frame and any unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lyra_core.errors import InputError
from lyra_core.rays import make_ray_tracer
from lyra_core.surface.gravity import FloorPlane, face_geometry, find_floor, find_up, level_surface
from lyra_core.surface.orient import consistent_winding, orient_to_free_space

EYE_HEIGHT = 1.4
"""Height at which people hold a camera [m], used where nothing says the unit."""
EYE_SIGMA = 0.25
UNKNOWN_SIGMA = 0.7
"""Log standard deviation of a scale that nothing says anything about."""
STATED_SIGMA = 0.01
TYPICAL_SIZE = 3.0
"""Geometry of unknown unit is first taken to have this distance from its middle to its surfaces [m]."""

HABITS = np.array([[0, 1.0, 0], [0, 0, 1.0], [0, -0.6, 0]])
"""Directions that are up in most files; shorter = rarer."""
TOPS_WEIGHT, HABIT_WEIGHT, FLAT_WEIGHT, CLUTTER_WEIGHT = 3.0, 0.3, 0.4, 0.5


@dataclass(frozen=True)
class Scale:
    """Metres per unit of the files, and how it is known."""

    metres_per_unit: float
    sigma: float
    """Standard deviation of its logarithm."""
    known: bool
    """False: a guess; a length from the user would settle it."""
    said_by: str
    """What it rests on, as a sentence."""


def find_upright(vertices: np.ndarray, faces: np.ndarray, *, up: np.ndarray | None, T_world_camera: np.ndarray | None,
                 downwards: bool = False) -> tuple[FloorPlane, np.ndarray]:
    """Return gravity and the floor of a mesh [about metres], and its faces wound towards free space.

    Args:
        up: stated direction against gravity, or None.
        T_world_camera: (N, 4, 4) of the cameras that saw it, in free space; None = there are none.
        downwards: files of this kind mostly have y down, as pictures have.

    Raises:
        InputError: no faces.
    """
    if not len(faces):
        raise InputError("upright: the mesh has no faces left")
    if T_world_camera is not None and len(T_world_camera):
        faces = orient_to_free_space(vertices, faces, T_world_camera[:, :3, 3])
        floor = find_floor(vertices, faces, T_world_camera)
        return (floor if up is None else _along(vertices, faces, np.asarray(up, float), floor)), faces
    _, flip = consistent_winding(faces.astype(np.int32))
    faces = np.where(flip[:, None], faces[:, ::-1], faces).astype(np.int32)
    axis, notes = (np.asarray(up, float), ()) if up is not None else _guess_up(vertices, faces, downwards)
    floor = _along(vertices, faces, axis, FloorPlane(axis, 0.0, 0.0, 0.0, notes))
    eyes = free_eyes(vertices, faces, floor)
    if len(eyes):
        faces = orient_to_free_space(vertices, faces, eyes)
        floor = _along(vertices, faces, axis, FloorPlane(axis, 0.0, 0.0, 0.0, notes))
    return floor, faces


def free_eyes(vertices: np.ndarray, faces: np.ndarray, floor: FloorPlane, *, height: float = 1.2, count: int = 400) -> np.ndarray:
    """Return points (M, 3) that stand about ``height`` [m] above the floor and see it below them."""
    T = floor.T_aligned_world()
    local = vertices @ T[:3, :3].T + T[:3, 3]
    low, high = np.percentile(local[:, :2], [1, 99], axis=0)
    side = max(float(np.sqrt(np.prod(np.maximum(high - low, 1e-3)) / count)), 0.05)
    x, y = np.meshgrid(np.arange(low[0] + side / 2, high[0], side), np.arange(low[1] + side / 2, high[1], side))
    points = np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], 1)
    if not len(points):
        return np.zeros((0, 3))
    hits = make_ray_tracer(local.astype(np.float32), faces).cast(points.astype(np.float32), np.tile([0.0, 0, -1], (len(points), 1)))
    on_floor = np.abs(hits.t - height) < 0.1
    # Where a way of turning the faces is not settled yet, the floor itself says which side is up.
    return (points[on_floor] - T[:3, 3]) @ T[:3, :3]


def _along(vertices: np.ndarray, faces: np.ndarray, up: np.ndarray, found: FloorPlane) -> FloorPlane:
    """Return the lowest large level surface for a known up; the side that the floor faces is not trusted yet."""
    normals, areas, centers = face_geometry(vertices, faces)
    as_wound = level_surface(normals, areas, centers, up)
    turned = level_surface(-normals, areas, centers, up)
    plane = as_wound if as_wound.area >= 0.5 * turned.area else turned
    return replace(plane, notes=(*found.notes, *plane.notes))


def _guess_up(vertices: np.ndarray, faces: np.ndarray, downwards: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """Find up from the geometry alone.

    Level and upright faces give three axes of a room; which one is up, and in which sense, is told by habit (files are +y or +z up,
    pictures' frames -y), by height (rooms are wider than high), by tops of tables and seats between floor and ceiling, and by
    clutter (more of it is near the floor than near the ceiling).
    """
    normals, areas, centers = face_geometry(vertices, faces)
    habits = HABITS * [[0.4], [0.4], [2.5]] if downwards else HABITS
    best, best_score = np.array([0.0, 0, 1]), -np.inf
    for guess in (*np.eye(3), *-np.eye(3)):
        axis = find_up(normals, areas, guess)
        cosine = np.abs(normals @ axis)
        others = np.linalg.svd(axis[None])[2][1:]
        low, high = np.percentile(centers @ axis, [0.5, 99.5])
        width = np.mean([np.ptp(np.percentile(centers @ other, [0.5, 99.5])) for other in others])
        flat = np.clip(np.log(max(width, 1e-9) / max(high - low, 1e-9)), -1, 1)
        height = centers @ axis
        middle = (height > low + 0.08 * (high - low)) & (height < high - 0.08 * (high - low))
        below = areas * np.where(height < (low + high) / 2, 1, -1)
        clutter = (below * middle).sum() / max((areas * middle).sum(), 1e-12)
        tops = (areas * (middle & (cosine > 0.95))).sum() / areas.sum()
        score = TOPS_WEIGHT * tops + HABIT_WEIGHT * (axis @ habits.T).max() + FLAT_WEIGHT * flat + CLUTTER_WEIGHT * clutter
        if score > best_score + 1e-9:
            best, best_score = axis, score
    return best, ("Up was not stated; it was found from level and upright surfaces.",)
