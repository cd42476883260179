"""Depth from single-view metrology: floor plane, walls where the floor ends, things where they stand, ceiling.

Criminisi, Reid and Zisserman, Single View Metrology (2000); Hoiem, Efros and Hebert, Automatic Photo Pop-up (2005).
"""

from __future__ import annotations

import numpy as np

from lyra_core.camera.backdrop import FARTHEST_WALL, NEAREST_WALL, column_centres, down_limits, fit_backdrop, floor_edge
from lyra_core.camera.room_box import room_wall
from lyra_core.camera.upright import UprightRays, manhattan_yaw, upright_rays
from lyra_core.config import DepthCfg
from lyra_core.depth.ceiling import find_ceiling, smoothed
from lyra_core.depth.learned import prior_ceiling, room_agrees, thing_distances, wall_line
from lyra_core.depth.regions import components, standing_only, standing_pieces, without_speckle
from lyra_core.io.images import resized
from lyra_core.types import DepthEstimate, Label, Photo, PhotoReading

MAX_FLOOR = 60.0
"""Floor is not measured farther than this [m]."""
MAX_OBSTACLE_HEIGHT = {"indoor": 2.5, "outdoor": 4.0}
"""Taller things are walls [m]."""
CLEAR_OF_WALL, CLEAR_OF_KNOWN_WALL = 1.08, 1.02
"""Obstacles stand at most at 1 / this of the wall's distance; nearer to it where the wall was not placed by the floor's edge."""
LEAST_OVERHEAD = 0.2
"""Of the ceiling above the camera [m]."""
OVERHANG = 0.35
"""Of a chair's back or a car's bonnet before the place where it stands [m]."""
NEAREST_OBSTACLE = 0.6
"""[m]"""
FLOOR_TRUSTED, LARGEST_OBSTACLE = 0.1, 0.2
"""With less floor than the first share of the picture, obstacles above the second are not believed."""


class DepthGeometric:
    """The default provider: any photo, nothing to download.

    Lines, floor and contact rows, exact where the place is made of a floor and upright surfaces; and, where the reading asked the
    learned prior, its distances of walls and its shapes of things.
    """

    def __init__(self, cfg: DepthCfg) -> None:
        self.cfg = cfg

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return metric depth; every pixel but sky has one.

        Walls are vertical planes between 1.2 m and 15 m (indoor) or 40 m (outdoor). Each obstacle has the prior's shape, moved to
        where it meets the floor; without the prior it stands upright there, facing the camera.
        """
        camera, T, kind = reading.camera, reading.T_world_camera, reading.scene_kind
        rays, h = upright_rays(camera, T), float(T[2, 3])
        right = column_centres(rays)
        read_labels, swallowed = (reading.labels, False) if reading.prior_depth is not None else without_swallowers(reading.labels)
        obstacle, floor = read_labels == Label.OBSTACLE, read_labels == Label.FLOOR
        edge = floor_edge(floor, obstacle, rays, right)
        room, prior = reading.room, reading.prior_depth
        if prior is not None:
            if room is not None and not room_agrees(room_wall(room, right, h), right, read_labels, prior, rays):
                room = None
        yaw, limits = manhattan_yaw(reading.lines, camera, T), down_limits(kind, h)
        wall = room_wall(room, right, h) if room is not None else None
        if wall is None and prior is not None:
            wall = wall_line(right, read_labels, prior, rays, yaw)
        wall = fit_backdrop(edge, yaw, **limits) if wall is None else np.clip(wall, limits["farthest"], limits["nearest"])
        foot = wall_foot(rays, right, wall)
        ahead_of_wall = h / foot
        notes = [f"The camera is taken to be {h:.2f} m above the floor; this sets the scale of everything "
                 f"(+-{100 * reading.scale_sigma:.0f} %).",
                 *_notes(edge.down, ahead_of_wall, kind)]
        if room is not None:
            notes.append("The walls are placed as a rectangular room that the edges of ceiling and corners show.")
        if swallowed:
            notes.append("Hardly any floor is seen between the things: what stands in front is laid on an assumed floor.")

        labels = _layout_labels(read_labels, rays, foot, before_wall=Label.FLOOR if prior is None else Label.OBSTACLE)
        ceiling_height, seen = None, False
        if kind == "indoor":
            ceiling = prior_ceiling(read_labels, prior, rays) if prior is not None else None
            if room is not None:
                ceiling_height, seen = room.ceiling_height, True
            elif ceiling is not None:
                ceiling_height, seen = max(h * ceiling, h + LEAST_OVERHEAD), True
            else:
                picture = smoothed(resized(photo.rgb, camera.width, camera.height))
                ceiling_height, seen = find_ceiling(picture, rays, camera, T, right, wall)
            if ceiling_height is not None:
                labels[(rays.down < (h - ceiling_height) / ahead_of_wall) & (labels == Label.WALL)] = Label.CEILING
                notes.append(f"The ceiling height of {ceiling_height:.2f} m is {'read from the picture' if seen else 'a guess'}.")
        clear = CLEAR_OF_WALL if room is None else CLEAR_OF_KNOWN_WALL
        labels = without_speckle(labels)
        if prior is None:
            labels = _short_obstacles(labels, rays, h, foot, MAX_OBSTACLE_HEIGHT[kind], clear)
        labels = without_speckle(standing_only(labels))
        labels = consistent(labels, rays, foot, h, ceiling_height)
        standing = labels == Label.OBSTACLE
        if prior is not None:
            depth = layout_depth(labels, rays, foot, h, ceiling_height, [])
            distance = h * thing_distances(labels, prior, rays, foot, overhang=OVERHANG / h)
            ahead = np.maximum(distance, NEAREST_OBSTACLE)
            depth = np.where(standing, ahead / np.maximum(rays.ahead, 0.05), depth).astype(np.float32)
        else:
            pieces = components(standing, order=rays.down) if room is None else standing_pieces(standing, rays.right, rays.down)
            depth = layout_depth(labels, rays, foot, h, ceiling_height, pieces)
        return DepthEstimate(depth, labels, camera, T, ceiling_height, "geometric", reading.scale_sigma, tuple(notes))


def without_swallowers(labels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return labels in which an obstacle that covers most of what could be floor became wall, and whether there was one.

    When the floor was hardly found, one thing would fill the view and stand right before the camera.
    """
    out = labels.copy()
    if (labels == Label.FLOOR).mean() < FLOOR_TRUSTED:
        for part in components(labels == Label.OBSTACLE, order=np.zeros(labels.shape)):
            if part.mean() > LARGEST_OBSTACLE:
                out[part] = Label.WALL
    return out, bool((out != labels).any())


def wall_foot(rays: UprightRays, right: np.ndarray, wall: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 ``down`` at which the wall behind each pixel meets the floor (linear between columns)."""
    return np.interp(np.nan_to_num(rays.right), right, wall).astype(np.float32)


def _layout_labels(labels: np.ndarray, rays: UprightRays, foot: np.ndarray, *, before_wall: Label) -> np.ndarray:
    """Return labels that agree with the walls: none of them in front of their feet, nothing of the floor behind."""
    out = labels.copy()
    in_front = np.where(np.isfinite(rays.down), rays.down > foot, rays.sink > 0)
    out[(labels == Label.FLOOR) & ~in_front] = Label.WALL
    out[(labels == Label.WALL) & in_front] = before_wall
    out[(labels == Label.SKY) & in_front] = Label.FLOOR
    return out


def _short_obstacles(labels: np.ndarray, rays: UprightRays, h: float, foot: np.ndarray, tallest: float,
                     clear: float) -> np.ndarray:
    """Return labels without obstacles that are not ``clear`` of the wall, with the others cut at ``tallest`` [m]."""
    out = labels.copy()
    for part in components(labels == Label.OBSTACLE, order=rays.down):
        base = obstacle_foot(part, rays)
        over = part & ~(rays.down > foot)
        if base < clear * float(np.median(foot[part])):
            out[over] = Label.WALL
            out[part & (rays.down > foot)] = Label.FLOOR
            continue
        height = h - rays.down * h / base
        out[over & (height > tallest)] = Label.WALL
    return out


def obstacle_foot(part: np.ndarray, rays: UprightRays) -> float:
    """Return the ``down`` at which an obstacle stands: its lowest pixels (97th percentile), at least NEAREST_OBSTACLE away."""
    down = rays.down[part]
    down = down[np.isfinite(down)]
    return float(np.percentile(down, 97)) if len(down) else np.inf


def consistent(labels: np.ndarray, rays: UprightRays, foot: np.ndarray, h: float, ceiling_height: float | None) -> np.ndarray:
    """Return labels for which every pixel's ray meets its surface: floor below the horizon, ceiling above it."""
    out = labels.copy()
    out[(out == Label.FLOOR) & ~(rays.sink > h / MAX_FLOOR)] = Label.WALL
    if ceiling_height is not None:
        out[(out == Label.CEILING) & ~(-rays.sink > (ceiling_height - h) / MAX_FLOOR)] = Label.WALL
    steep = ~np.isfinite(rays.down)
    out[steep & (out != Label.SKY)] = np.where(rays.sink[steep & (out != Label.SKY)] > 0, Label.FLOOR, Label.WALL)
    return out


def layout_depth(labels: np.ndarray, rays: UprightRays, foot: np.ndarray, h: float, ceiling_height: float | None,
                 pieces: list[np.ndarray]) -> np.ndarray:
    """Return (H, W) float32 z-depth [m] of labelled pixels; NaN on sky.

    Args:
        foot: (H, W) ``down`` of the wall's foot per pixel.
        h: camera height [m].
        pieces: (H, W) bool each, what stands at one distance; later ones win.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.maximum(rays.ahead, 0.05)
        depth = (h / foot) / ahead
        depth = np.where(labels == Label.FLOOR, h / rays.sink, depth)
        if ceiling_height is not None:
            depth = np.where(labels == Label.CEILING, (ceiling_height - h) / -rays.sink, depth)
        for part in pieces:
            distance = max(h / obstacle_foot(part, rays), NEAREST_OBSTACLE)
            depth = np.where(part, np.minimum(distance, h / foot) / ahead, depth)
    return np.where(labels == Label.SKY, np.nan, depth).astype(np.float32)


def _notes(edge: np.ndarray, distance: np.ndarray, kind: str) -> list[str]:
    unseen = float(np.isnan(edge).mean())
    notes = []
    if unseen > 0.3:
        notes.append(f"In {100 * unseen:.0f} % of the view no floor is seen: the walls' distance there is continued or guessed.")
    if float(np.median(distance)) > 0.95 * FARTHEST_WALL[kind]:
        notes.append(f"The surroundings are farther than the {FARTHEST_WALL[kind]:g} m at which they are placed.")
    if float(np.median(distance)) < 1.2 * NEAREST_WALL:
        notes.append("The walls are very close; the camera's height or tilt may be wrong.")
    return notes
