"""Obstacles of the photo as closed solids: the silhouette stood upright at its contact with the floor and extruded.

The extrusion runs along the lines of sight, so the solid covers exactly its silhouette when seen from the photo's camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.polygons import triangulate
from lyra_core.generate.procedural.strips import fill_by_mirror
from lyra_core.types import Label, Provenance

SMALLEST_AREA = 0.0015
"""Share of the picture below which a component is not lifted."""
LOWEST = 0.1
"""What stays below this is no obstacle [m]."""
TOUCHES = 0.06
"""Outline points below this are put on the floor [m]."""
NEAREST = 0.6
"""No solid comes nearer to the camera's foot than this [m]; there the robot starts."""


@dataclass(frozen=True)
class Solid:
    """A closed solid with a textured front."""

    vertices: np.ndarray
    """(V, 3) world points [m]; the first half is the front contour, the second the back contour."""
    faces: np.ndarray
    """(F, 3) outward."""
    texels: np.ndarray
    """(V, 2) in image."""
    image: np.ndarray
    """(h, w, 3) uint8 rectified front."""
    front_faces: int
    """The first so many faces were seen in the photo."""
    base: np.ndarray
    """(2,) floor-plan point below the middle of the front [m]."""
    normal: np.ndarray
    """(2,) horizontal unit normal of the front, towards the camera."""


def lift_obstacles(source: PhotoSource) -> list[Solid]:
    """Return one solid per obstacle component, nearest first."""
    mask = (source.estimate.labels == Label.OBSTACLE) & np.isfinite(source.estimate.depth)
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    points = source.world_points()
    solids = []
    for component in _components(mask, source.estimate.depth):
        contour = _contour(component)
        if contour is None:
            continue
        solid = _extrude(source, component, contour, points)
        if solid is not None:
            solids.append(solid)
    return sorted(solids, key=lambda s: float(np.hypot(*s.base)))


def _components(mask: np.ndarray, depth: np.ndarray) -> list[np.ndarray]:
    """Connected obstacle masks (H, W) bool, split where the depth jumps sideways by more than a quarter."""
    log_depth = np.log(np.where(mask > 0, depth, 1.0))
    jump = np.zeros(mask.shape, bool)
    jump[:, 1:] = (np.abs(np.diff(log_depth, axis=1)) > 0.25) & (mask[:, 1:] > 0) & (mask[:, :-1] > 0)
    count, labels = cv2.connectedComponents((mask & ~jump).astype(np.uint8), connectivity=4)
    if jump.any() and count > 1:
        _, nearest = cv2.distanceTransformWithLabels((labels == 0).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        table = np.zeros(nearest.max() + 1, np.int32)
        table[nearest[labels > 0]] = labels[labels > 0]
        labels = np.where(jump, table[nearest], labels)
    sizes = np.bincount(labels.ravel(), minlength=count)
    return [labels == i for i in range(1, count) if sizes[i] >= SMALLEST_AREA * mask.size]


def _contour(component: np.ndarray) -> np.ndarray | None:
    """Outer contour (N, 2) of the largest piece, simplified to about a pixel; pixel corners, so the mask is covered."""
    padded = cv2.copyMakeBorder(component.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    padded = cv2.dilate(padded, np.ones((2, 2), np.uint8), anchor=(1, 1))
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=cv2.contourArea)
    for tolerance in (1.2, 2.0, 3.5):
        outline = cv2.approxPolyDP(contour, tolerance, True)[:, 0].astype(float) - 1.0
        if len(outline) <= 90:
            break
    if len(outline) < 3:
        return None
    covered = triangulated_area(outline)
    exact = abs(cv2.contourArea(outline.astype(np.float32)))
    if abs(covered - exact) > 0.02 * exact:
        outline = cv2.convexHull(contour)[:, 0].astype(float) - 1.0
    return outline


def triangulated_area(outline: np.ndarray) -> float:
    """Area that ear clipping covers; differs from the polygon's own area if it crosses itself."""
    corners = outline[triangulate(outline)]
    edge = corners[:, 1:] - corners[:, :1]
    return float(np.abs(edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]).sum() / 2)


def _front_plane(component: np.ndarray, points: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Vertical plane (point (2,), unit normal (2,) towards the eye) through the component's contact with the floor."""
    bottom = component.shape[0] - 1 - np.argmax(component[::-1], 0)
    columns = np.where(component.any(0))[0]
    contact = points[bottom[columns], columns]
    low = contact[:, 2] < 0.35
    xy = contact[low, :2] if low.sum() >= max(3, 0.2 * len(low)) else contact[:, :2]
    xy = xy[np.isfinite(xy).all(1)]
    if len(xy) == 0:
        return None
    middle = np.median(xy, 0)
    sight = (middle - eye) / max(np.hypot(*(middle - eye)), 1e-6)
    normal = -sight
    if len(xy) >= 6:
        spread = xy - xy.mean(0)
        _, axes = np.linalg.eigh(np.round(spread.T @ spread, 9))
        candidate = axes[:, 0] * -np.sign(axes[:, 0] @ sight)
        if candidate @ -sight > 0.6:
            normal = candidate
    inward = (xy - middle) @ normal
    return middle + normal * float(np.percentile(inward, 75)), normal


def _extrude(source: PhotoSource, component: np.ndarray, contour: np.ndarray, points: np.ndarray) -> Solid | None:
    """Stand a contour (N, 2) [px] up at its contact with the floor and give it thickness; None where that cannot be.

    component: (H, W) bool; points: (H, W, 3) world points of the photo [m].
    """
    eye = source.position
    plane = _front_plane(component, points, eye[:2])
    if plane is None:
        return None
    point, normal = plane
    tangent = np.array([-normal[1], normal[0]])
    front = _on_plane(source, contour, point, normal)
    if front is None or np.hypot(*(front[:, :2] - eye[:2]).T).min() < NEAREST:
        return None
    along = (front[:, :2] - point) @ tangent
    front, along = _without_straight_corners(_stood(front, along), along)
    if len(front) < 3 or front[:, 2].max() < LOWEST:
        return None
    thickness = float(np.clip(0.5 * (along.max() - along.min()), 0.15, 0.9))
    distance = float(np.hypot(*(point - eye[:2])))
    # One reach for all lines of sight: the back is the front enlarged about the eye, so no side can fold. Its foot sinks
    # below the floor, which hides it; a foot raised to the floor would rise above the silhouette.
    back = eye + (front - eye) * (1.0 + thickness / distance)
    vertices = np.concatenate([front, back])
    faces, front_faces = _close(np.stack([along, front[:, 2]], 1), vertices)
    image, texels = _front_image(source, component, point, tangent, along, front[:, 2], distance)
    base = point + tangent * (along.max() + along.min()) / 2
    return Solid(vertices, faces, np.concatenate([texels, texels]), image, front_faces, base, normal)


def _stood(front: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Put the lowest points of an outline (N, 3) on the floor, unless its bottom would then cross its other edges.

    along: (N,) positions of the points along the front [m].
    """
    stood = front.copy()
    stood[:, 2] = np.where(front[:, 2] < TOUCHES, 0.0, front[:, 2])
    outline = np.stack([along, stood[:, 2]], 1)
    exact = abs(cv2.contourArea(outline.astype(np.float32)))
    return stood if abs(triangulated_area(outline) - exact) <= 0.005 * exact else front


def _without_straight_corners(front: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the corners that no triangle of the face uses, as on a straight edge: the sides would gape there.

    front: (N, 3); along: (N,) positions along it [m]. Returns both for the corners that stay.
    """
    while len(front) >= 3:
        used = np.unique(triangulate(np.stack([along, front[:, 2]], 1)))
        if len(used) == len(front):
            break
        front, along = front[used], along[used]
    return front, along


def _on_plane(source: PhotoSource, pixels: np.ndarray, point: np.ndarray, normal: np.ndarray) -> np.ndarray | None:
    """Intersect the rays of pixel positions (N, 2) with a vertical plane; (N, 3) world points, None if any runs along it."""
    e = source.estimate
    local = np.concatenate([(pixels - e.camera.K[:2, 2]) / [e.camera.K[0, 0], e.camera.K[1, 1]], np.ones((len(pixels), 1))], 1)
    rays = local @ e.T_world_camera[:3, :3].T
    speed = rays[:, :2] @ normal
    reach = (point - source.position[:2]) @ normal
    if (speed > -0.05).any():
        return None
    return source.position + rays * (reach / speed)[:, None]


def _close(outline: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, int]:
    """Faces of the prism between front (first half of the vertices) and back; outward, front faces first."""
    n = len(outline)
    front = triangulate(outline)
    ring = np.arange(n)
    following = np.roll(ring, -1)
    sides = np.concatenate([np.stack([ring, following, following + n], 1), np.stack([ring, following + n, ring + n], 1)])
    signed = np.sum(outline[:, 0] * np.roll(outline[:, 1], -1) - np.roll(outline[:, 0], -1) * outline[:, 1])
    if signed > 0:
        sides = sides[:, ::-1]
    faces = np.concatenate([front, sides, front[:, ::-1] + n])
    corner = vertices[faces]
    volume = np.einsum("ij,ij->i", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])).sum()
    return (faces if volume > 0 else faces[:, ::-1]), len(front)


def _front_image(
    source: PhotoSource,
    component: np.ndarray,
    point: np.ndarray,
    tangent: np.ndarray,
    along: np.ndarray,
    z: np.ndarray,
    distance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rectify the photo on the front plane.

    point, tangent: (2,) origin and direction of ``along`` on the floor plan; along, z: (N,) contour points on the plane [m];
    distance: of the plane from the camera [m].

    Returns:
        image (h, w, 3) uint8 and the texel of each contour point (N, 2).
    """
    texel = max(0.004, distance / source.estimate.camera.K[0, 0])
    low, high = along.min(), along.max()
    w, h = (int(np.clip(round(extent / texel), 4, 768)) for extent in (high - low, z.max() - z.min()))
    s = low + (np.arange(w) + 0.5) / w * (high - low)
    heights = z.max() - (np.arange(h) + 0.5) / h * (z.max() - z.min())
    grid = np.empty((h, w, 3))
    grid[..., :2] = point + s[:, None] * tangent
    grid[..., 2] = heights[:, None]
    uv, _ = source.pixels(grid)
    colours, _ = source.sample(grid, (Label.OBSTACLE,))
    wide = cv2.dilate(component.astype(np.uint8), np.ones((3, 3), np.uint8))
    size = component.shape
    known = wide[np.clip(uv[..., 1], 0, size[0] - 1).astype(int), np.clip(uv[..., 0], 0, size[1] - 1).astype(int)] > 0
    image = fill_by_mirror(colours, known, np.full(3, 128.0))
    texels = np.stack([(along - low) / max(high - low, 1e-6) * w, (z.max() - z) / max(z.max() - z.min(), 1e-6) * h], 1)
    return image, texels


def add_solid(
    builder: MeshBuilder,
    solid: Solid,
    chart: int,
    name: str,
    *,
    provenance: Provenance | None = None,
    transform: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Add a solid, moved by ``transform`` (rotation (2, 2), translation (2,)) of the floor plan; returns its vertices (V, 3).

    Side and back faces take the colour just inside the silhouette. provenance: of a copy; None = front seen, rest continued.
    """
    vertices = solid.vertices.copy()
    if transform is not None:
        vertices[:, :2] = vertices[:, :2] @ transform[0].T + transform[1]
    n = len(vertices) // 2
    front, back = solid.faces[: solid.front_faces], solid.faces[-solid.front_faces :]
    sides = solid.faces[solid.front_faces : -solid.front_faces]
    inner = solid.texels + (solid.texels.mean(0) - solid.texels) * 0.06
    part = builder.add_part(name)
    seen = Provenance.SEEN if provenance is None else provenance
    rest = Provenance.CONTINUED if provenance is None else provenance
    builder.add(vertices[:n], solid.texels[:n], front, chart=chart, part=part, label=Label.OBSTACLE, provenance=seen)
    builder.add(vertices, inner, sides, chart=chart, part=part, label=Label.OBSTACLE, provenance=rest)
    builder.add(vertices[n:], inner[n:], back - n, chart=chart, part=part, label=Label.OBSTACLE, provenance=rest)
    return vertices
