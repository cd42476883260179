"""The top-down map of the report: x to the right, y up, as ROS shows maps."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lyra_core.report.pictures import put_text
from lyra_core.types import Camera, Episode, FreeSpace, Provenance

PROVENANCE_COLOURS: dict[Provenance, tuple[int, int, int]] = {
    Provenance.SEEN: (46, 160, 98), Provenance.CONTINUED: (66, 133, 200), Provenance.INVENTED: (173, 112, 186),
}
"""sRGB of the free floor."""
NO_FLOOR_COLOUR, BLOCKED_COLOUR = (238, 238, 240), (70, 70, 78)
PATH_COLOUR, START_COLOUR, GOAL_COLOUR, CAMERA_COLOUR = (255, 240, 150), (255, 255, 255), (214, 40, 57), (255, 196, 0)


def area_m2(space: FreeSpace) -> dict[str, float]:
    """Return the free floor by provenance [m^2], without a robot's radius."""
    cell = space.cell**2
    return {p.name.lower(): float((space.free & (space.provenance == p)).sum()) * cell for p in Provenance}


def topdown_map(
    space: FreeSpace, camera: Camera, *, episodes: Sequence[Episode] = (), paths: Sequence[np.ndarray] = (), size: int = 960
) -> np.ndarray:
    """Draw the grid, the photo's camera with its field of view, a scale and the episodes.

    Args:
        space: free space.
        camera: the photo's, which stands at the origin and looks along +x.
        episodes: starts (white) and goals (red).
        paths: (N, 2) world x, y [m], one per drawn episode.
        size: longer side of the result [px].

    Returns:
        (h, w, 3) uint8.
    """
    rows, cols = _window(space)
    colours = _colours(space)[rows, cols]
    scale = size / max(colours.shape[:2])
    shape = (max(1, round(colours.shape[1] * scale)), max(1, round(colours.shape[0] * scale)))
    out = np.ascontiguousarray(cv2.resize(colours[::-1], shape, interpolation=cv2.INTER_NEAREST))
    corner = space.origin + space.cell * np.array([cols.start, rows.start])

    def pixel(xy: np.ndarray) -> np.ndarray:
        """Map (..., 2) world x, y [m] to integer picture coordinates."""
        uv = (np.asarray(xy, np.float64)[..., :2] - corner) / space.cell * scale
        uv[..., 1] = shape[1] - uv[..., 1]
        return np.rint(uv).astype(np.int32)

    thick = max(1, round(size / 640))
    for path in paths:
        cv2.polylines(out, [pixel(path)], False, (40, 40, 40), thick + 2, cv2.LINE_AA)
        cv2.polylines(out, [pixel(path)], False, PATH_COLOUR, thick, cv2.LINE_AA)
    for episode in episodes:
        _dot(out, pixel(episode.start), START_COLOUR, 3 * thick)
        _dot(out, pixel(episode.goal), GOAL_COLOUR, 3 * thick)
    half = 0.5 * camera.width / camera.K[0, 0]
    reach = 1.2
    view = pixel(np.array([[0.0, 0.0], [reach, reach * half], [reach, -reach * half]]))
    cv2.polylines(out, [view], True, (40, 40, 40), thick + 2, cv2.LINE_AA)
    cv2.polylines(out, [view], True, CAMERA_COLOUR, thick, cv2.LINE_AA)
    return np.concatenate([out, _scale_bar(out.shape[1], scale / space.cell)], axis=0)


def _window(space: FreeSpace) -> tuple[slice, slice]:
    """Return rows and columns that hold floor and the camera, with half a metre around."""
    floor = space.provenance != 255
    home = np.floor(-space.origin / space.cell).astype(int)
    margin = max(1, round(0.5 / space.cell))
    window = []
    for axis, here in ((0, home[1]), (1, home[0])):
        used = np.append(np.flatnonzero(floor.any(axis=1 - axis)), np.clip(here, 0, floor.shape[axis] - 1))
        window.append(slice(max(int(used.min()) - margin, 0), min(int(used.max()) + margin + 1, floor.shape[axis])))
    return window[0], window[1]


def _colours(space: FreeSpace) -> np.ndarray:
    out = np.empty((*space.free.shape, 3), np.uint8)
    out[:] = NO_FLOOR_COLOUR
    out[(space.provenance != 255) & ~space.free] = BLOCKED_COLOUR
    for provenance, colour in PROVENANCE_COLOURS.items():
        out[space.free & (space.provenance == provenance)] = colour
    return out


def _dot(picture: np.ndarray, centre: np.ndarray, colour: tuple[int, int, int], radius: int) -> None:
    at = (int(centre[0]), int(centre[1]))
    cv2.circle(picture, at, radius + 1, (40, 40, 40), -1, cv2.LINE_AA)
    cv2.circle(picture, at, radius, colour, -1, cv2.LINE_AA)


def _scale_bar(width: int, pixels_per_metre: float) -> np.ndarray:
    """Return a (36, width, 3) strip with a bar of 1, 2, 5, 10 ... metres, at most a third of the width."""
    strip = np.full((36, width, 3), 24, np.uint8)
    lengths = [m * 10**e for e in range(-1, 4) for m in (1, 2, 5)]
    metres = max([m for m in lengths if m * pixels_per_metre <= width / 3], default=lengths[0])
    end = 12 + round(metres * pixels_per_metre)
    cv2.line(strip, (12, 18), (end, 18), (245, 245, 245), 2)
    for u in (12, end):
        cv2.line(strip, (u, 12), (u, 24), (245, 245, 245), 2)
    put_text(strip, f"{metres:g} m", (end + 10, 24), size=0.6)
    return strip
