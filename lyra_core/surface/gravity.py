"""Find gravity and the floor in a mesh: people build level floors and upright walls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.errors import InputError

_TOLERANCE = np.deg2rad(6.0)
_CONE = np.deg2rad(40.0)


@dataclass(frozen=True)
class FloorPlane:
    """Up and the floor, in the frame of the given vertices."""

    up: np.ndarray
    """(3,) float64 unit vector against gravity."""
    height: float
    """Points x of the floor obey up . x = height [m]."""
    noise: float
    """Robust standard deviation of the floor's faces about the plane [m]."""
    area: float
    """Floor area found [m2]; 0 = none, the height is that of the lowest surface."""
    notes: tuple[str, ...]

    def T_aligned_world(self) -> np.ndarray:
        """Return (4, 4): the smallest turn that takes up to +z, then the shift that puts the floor at z = 0."""
        T = np.eye(4)
        T[:3, :3] = _turn(self.up, np.array([0.0, 0.0, 1.0]))
        T[2, 3] = -self.height
        return T


def find_floor(vertices: np.ndarray, faces: np.ndarray, T_world_camera: np.ndarray) -> FloorPlane:
    """Estimate up and the floor plane of a mesh that is wound towards free space.

    Args:
        vertices, faces: (V, 3) [m], (F, 3).
        T_world_camera: (N, 4, 4); cameras are held roughly upright, which gives the first guess, and stand above the floor.

    Raises:
        InputError: no faces or no cameras.
    """
    if not len(faces) or not len(T_world_camera):
        raise InputError(f"floor: got {len(faces)} faces and {len(T_world_camera)} cameras, expected at least one of each")
    normals, areas, centers = face_geometry(vertices, faces)
    guess = -T_world_camera[:, :3, 1].mean(0)
    norm = np.linalg.norm(guess)
    guess = guess / norm if norm > 1e-3 else -T_world_camera[0, :3, 1]
    up = find_up(normals, areas, guess)
    for _ in range(2):
        height, noise, area, rows = _floor_height(normals, areas, centers, up, T_world_camera[:, :3, 3])
        if area > 0:
            up = _refined(up, centers[rows], areas[rows])
            height = float(_weighted_median(centers[rows] @ up, areas[rows]))
    notes = []
    if area == 0:
        notes.append("No level floor was seen; the lowest surface stands in for it.")
    above = float(np.median(T_world_camera[:, :3, 3] @ up) - height)
    if not 0.3 <= above <= 3.0:
        notes.append(f"Cameras are {above:.2f} m above the floor; if they were hand-held, the scale is not metric.")
    return FloorPlane(up, height, noise, area, tuple(notes))


def level_surface(normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, up: np.ndarray) -> FloorPlane:
    """Return the floor of faces (F, 3), (F,) [m2], (F, 3) [m] for a known up, refined to the floor's own plane."""
    up = up / np.linalg.norm(up)
    nowhere_above = np.full((1, 3), 1e9) * up
    height, noise, area, rows = _floor_height(normals, areas, centers, up, nowhere_above)
    if area > 0:
        up = _refined(up, centers[rows], areas[rows])
        height = float(_weighted_median(centers[rows] @ up, areas[rows]))
    notes = () if area > 0 else ("No level floor was found; the lowest surface stands in for it.",)
    return FloorPlane(up, height, noise, area, notes)


def find_up(normals: np.ndarray, areas: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Return the direction within 40 degrees of the guess that most area agrees with: level or upright within 6 degrees.

    normals (F, 3) unit, areas (F,) [m2], guess (3,) unit. Level faces count in full, upright ones (any direction about
    the axis) by half, since clutter is upright by chance more easily.
    """
    order = np.argsort(-areas, kind="stable")[:20_000]
    order = order[::max(1, len(order) // 4000)]
    n, w = normals[order], areas[order]
    spread = _cone(guess, 1500)
    angle = np.arcsin(np.clip(np.abs(n @ spread.T), 0, 1))
    score = w @ np.exp(-0.5 * ((np.pi / 2 - angle) / _TOLERANCE) ** 2) + 0.5 * (w @ np.exp(-0.5 * (angle / _TOLERANCE) ** 2))
    up = spread[np.argmax(np.round(score / max(w.sum(), 1e-12), 9))]
    for _ in range(5):
        cosine = np.abs(n @ up)
        level, upright = w * (cosine > np.cos(_TOLERANCE)), 0.5 * w * (cosine < np.sin(_TOLERANCE))
        moment = np.einsum("n,ni,nj->ij", upright - level, n, n)
        axis = np.linalg.eigh(np.round(moment, 9))[1][:, 0]
        up = axis if axis @ up > 0 else -axis
    return up


def face_geometry(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return unit normals (F, 3), areas (F,) [m2] and centres (F, 3), float64."""
    corners = np.asarray(vertices, np.float64)[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(cross, axis=1)
    return cross / np.maximum(length, 1e-18)[:, None], length / 2, corners.mean(1)


def _floor_height(normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, up: np.ndarray,
                  eyes: np.ndarray) -> tuple[float, float, float, np.ndarray]:
    """Return height, noise, area and faces of the lowest level surface that is not small beside the largest one."""
    height = centers @ up
    rows = np.flatnonzero((normals @ up > np.cos(np.deg2rad(20))) & (height < np.median(eyes @ up)))
    bins = np.round(height[rows] / 0.02).astype(int)
    if len(rows):
        low = bins.min()
        histogram = np.convolve(np.bincount(bins - low, areas[rows]), np.ones(5), "same")
        large = np.flatnonzero(histogram >= max(0.3, 0.15 * histogram.max()))
        if len(large):
            top = large[0]
            while top + 1 < len(histogram) and histogram[top + 1] > histogram[top]:
                top += 1
            middle = (low + top) * 0.02
            rows = rows[np.abs(height[rows] - middle) < 0.06]
            median = _weighted_median(height[rows], areas[rows])
            noise = 1.4826 * _weighted_median(np.abs(height[rows] - median), areas[rows])
            return float(median), float(noise), float(areas[rows].sum()), rows
    return float(np.percentile(height, 1)), 0.0, 0.0, rows


def _refined(up: np.ndarray, points: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Fit a plane to the floor's faces; take its normal if it differs by less than 3 degrees and the floor is wide enough."""
    weight = areas / areas.sum()
    for _ in range(4):
        center = weight @ points
        offset = points - center
        values, axes = np.linalg.eigh(np.round(np.einsum("n,ni,nj->ij", weight, offset, offset), 12))
        normal = axes[:, 0] * np.sign(axes[:, 0] @ up)
        distance = np.abs(offset @ normal)
        scale = max(1.4826 * float(np.median(distance)), 1e-4)
        weight = areas / (1 + (distance / scale) ** 2)
        weight /= weight.sum()
    return normal if normal @ up > np.cos(np.deg2rad(3)) and values[1] > 0.3**2 else up


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _cone(axis: np.ndarray, count: int) -> np.ndarray:
    """Return unit vectors (count, 3) spread evenly (Fibonacci spiral) within 40 degrees of an axis, the axis first."""
    i = np.arange(count)
    z = 1 - (1 - np.cos(_CONE)) * i / count
    turn, r = i * np.pi * (3 - np.sqrt(5)), np.sqrt(1 - z * z)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], 1) @ _turn(axis, np.array([0, 0, 1.0]))


def _turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the smallest rotation (3, 3) that takes unit vector a to unit vector b (Rodrigues)."""
    v, c = np.cross(a, b), float(a @ b)
    if c < -1 + 1e-9:
        other = np.eye(3)[np.argmin(np.abs(a))]
        axis = np.cross(a, other)
        axis /= np.linalg.norm(axis)
        return 2 * np.outer(axis, axis) - np.eye(3)
    skew = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + skew + skew @ skew / (1 + c)
