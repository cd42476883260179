"""Boxes that stand for colliders: fitted to closed meshes, joined where they continue each other."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

FLAT = 0.005
"""How far faces of the two boxes may be apart and still continue each other [m]; three rounds add up to less than TOLERANCE."""
THINNEST_HALF = 1e-4
"""Half the thickness that a box has at least [m]: engines refuse boxes without volume."""
TOLERANCE = 0.02
"""Largest distance of a piece's surface from the collider that it stands for [m]."""
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_BOX_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                       [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]], np.int32)


@dataclass(frozen=True)
class Box:
    """A solid box."""

    center: np.ndarray
    """(3,) float64 [m]."""
    axes: np.ndarray
    """(3, 3) float64: columns are the box's axes in the world, right-handed."""
    half: np.ndarray
    """(3,) float64 [m]."""

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (8, 3) float32 and faces (12, 3) int32."""
        return (self.center + (_CORNERS * self.half) @ self.axes.T).astype(np.float32), _BOX_FACES


@dataclass(frozen=True)
class Hull:
    """A solid convex hull."""

    points: np.ndarray
    """(N, 3) float64 [m]."""

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float32 and faces (F, 3) int32 that look outwards."""
        from scipy.spatial import ConvexHull

        hull = ConvexHull(self.points)
        corners = hull.points[hull.simplices]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        faces = np.where(((normal * hull.equations[:, :3]).sum(1) < 0)[:, None], hull.simplices[:, ::-1], hull.simplices)
        used, index = np.unique(faces, return_inverse=True)
        return hull.points[used].astype(np.float32), index.reshape(-1, 3).astype(np.int32)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Return the volume that a closed mesh encloses [m3]; negative where its faces look inwards."""
    a, b, c = np.moveaxis(vertices.astype(np.float64)[faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def fit_box(vertices: np.ndarray, faces: np.ndarray, samples: np.ndarray) -> Box | None:
    """Return the box whose surface all samples (N, 3) of a closed mesh lie on to within TOLERANCE, if there is one."""
    solid = abs(volume(vertices, faces))
    for axes in _candidate_axes(vertices, faces):
        local = vertices @ axes
        low, high = local.min(0), local.max(0)
        half = (high - low) / 2
        inside = half - np.abs(samples @ axes - (low + high) / 2)
        surface = 8 * (half[0] * half[1] + half[1] * half[2] + half[2] * half[0])
        if inside.min(1).max() <= TOLERANCE and abs(8 * half.prod() - solid) <= TOLERANCE * surface:
            return Box(axes @ (low + high) / 2, axes, np.maximum(half, THINNEST_HALF))
    return None


def _candidate_axes(vertices: np.ndarray, faces: np.ndarray) -> list[np.ndarray]:
    """Return the axes of the two largest faces, then an upright rectangle round the outline."""
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    out = []
    first = normal[length.argmax()] / max(length.max(), 1e-30)
    across = np.where(np.abs(normal @ first) < 0.05 * length, length, 0.0)
    if across.max() > 0:
        second = normal[across.argmax()] - first * (normal[across.argmax()] @ first)
        out.append(_upright(np.stack([first, second / np.linalg.norm(second)], 1)))
    (_, _), (_, _), degrees = cv2.minAreaRect(np.ascontiguousarray(vertices[:, :2], np.float32))
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [*out, np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])]


def _upright(two: np.ndarray) -> np.ndarray:
    """Return axes (3, 3) of two perpendicular ones: the most vertical is the third, all near to +x, +y, +z."""
    axes = np.concatenate([two, np.cross(two[:, 0], two[:, 1])[:, None]], 1)
    axes = axes[:, np.argsort(np.abs(axes[2]), kind="stable")]
    first = axes[:, 0] * (1 if abs(axes[0, 0]) >= abs(axes[0, 1]) else 0) + axes[:, 1] * (abs(axes[0, 0]) < abs(axes[0, 1]))
    first = first * np.sign(first[np.abs(first).argmax()])
    third = axes[:, 2] * np.sign(axes[2, 2] or 1.0)
    return np.stack([first, np.cross(third, first), third], 1)


def join_boxes(boxes: list[Box]) -> list[Box]:
    """Join boxes of equal axes that continue each other along an axis, as long as no surface moves by TOLERANCE."""
    groups: dict[tuple[int, ...], list[Box]] = {}
    for box in boxes:
        groups.setdefault(tuple(np.rint(box.axes.ravel() * 1000).astype(int)), []).append(box)
    out = []
    for same in groups.values():
        axes = same[0].axes
        spans = np.array([[box.center @ axes - box.half, box.center @ axes + box.half] for box in same])
        for axis in (0, 1, 2):
            spans = _join_along(spans, axis)
        out += [Box(axes @ (low + high) / 2, axes, (high - low) / 2) for low, high in spans]
    return out


def _join_along(spans: np.ndarray, axis: int) -> np.ndarray:
    """Join spans (N, 2, 3), low and high, that touch along one axis and agree to FLAT in the others."""
    others = [k for k in range(3) if k != axis]
    grid = np.rint(spans[:, :, others].reshape(len(spans), 4) / FLAT)
    order = np.lexsort([spans[:, 0, axis], *grid.T])
    out: list[np.ndarray] = []
    for span in spans[order]:
        last = out[-1] if out else None
        if (last is not None and np.abs(last[:, others] - span[:, others]).max() <= FLAT
                and span[0, axis] <= last[1, axis] + 1e-3 and span[0, axis] >= last[0, axis]):
            last[1, axis] = max(last[1, axis], span[1, axis])
        else:
            out.append(span.copy())
    return np.array(out)
