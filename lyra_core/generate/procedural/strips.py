"""The seen walls unrolled: one chart per wall segment, holes filled by mirroring, reused for walls nobody saw."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.generate.procedural.photo_source import PhotoSource, smooth_extension
from lyra_core.types import Label

LOWEST_WALL = 1.8
"""Outdoor walls are at least this high, so that no robot looks over the end of the world [m]."""


@dataclass(frozen=True)
class StripSegment:
    """Texture of one straight wall piece; columns run along its edge, row 0 is the top."""

    image: np.ndarray
    """(h, w, 3) uint8."""
    known: np.ndarray
    """(h, w) bool: seen in the photo."""
    length: float
    """[m]"""
    height: float
    """Of the chart [m]."""
    top: np.ndarray
    """(w,) height of the wall's upper edge per column [m]: the ceiling indoors, the skyline outdoors."""
    sharpness: float
    """Photo pixels per metre along the wall, median over what is known."""

    def top_at(self, along: np.ndarray) -> np.ndarray:
        """Interpolate the upper edge at positions [m] along the segment."""
        centres = (np.arange(len(self.top)) + 0.5) * self.length / len(self.top)
        return np.interp(along, centres, self.top)

    def texels(self, along: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return (..., 2) texel positions of points at ``along`` [m] and height z [m]."""
        h, w = self.known.shape
        return np.stack([along / self.length * w, (1.0 - np.minimum(z, self.height) / self.height) * h], -1)


def bake_segment(
    source: PhotoSource, start: np.ndarray, end: np.ndarray, *, height: float | None, finest: float, fallback: np.ndarray
) -> StripSegment:
    """Rectify the photo onto the vertical wall from start to end, (2,) floor-plan points [m].

    height: of the ceiling; None = outdoors, the skyline decides. finest: smallest texel [m]; fallback: (3,) colour of a
    wall of which nothing is known.
    """
    length = float(np.hypot(*(end - start)))
    distance = float(min(np.hypot(*(p - source.position[:2])) for p in (start, end, (start + end) / 2)))
    tall, top = height, None
    if tall is None:
        tall = float(np.clip(0.75 * distance + 6.0, 8.0, 30.0))
        top = _skyline(source, *_wall_grid(start, end, tall, 48, 96), tall)
        tall = float(top.max())
    texel = float(np.clip(distance / source.estimate.camera.K[0, 0], finest, 0.25))
    w, h = int(np.clip(round(length / texel), 2, 1536)), int(np.clip(round(tall / texel), 4, 1024))
    points, _ = _wall_grid(start, end, tall, w, h)
    colours, known = source.sample(points, (Label.WALL, Label.DOOR))
    known &= _not_grazing(source, points, end - start)
    top = np.full(w, tall) if top is None else np.interp((np.arange(w) + 0.5) / w, (np.arange(48) + 0.5) / 48, top)
    known &= points[..., 2] <= top[None, :] + texel
    sharp = _pixels_per_metre(source, points, length)
    sharpness = float(np.median(sharp[known])) if known.any() else 0.0
    return StripSegment(fill_by_mirror(colours, known, fallback), known, length, tall, top, sharpness)


def _wall_grid(start: np.ndarray, end: np.ndarray, tall: float, w: int, h: int) -> tuple[np.ndarray, np.ndarray]:
    """World points (h, w, 3) at the texel centres of a wall, and their heights (h,)."""
    points = np.empty((h, w, 3))
    points[..., :2] = start + ((np.arange(w) + 0.5) / w)[:, None] * (end - start)
    z = tall * (1 - (np.arange(h) + 0.5) / h)
    points[..., 2] = z[:, None]
    return points, z


def _not_grazing(source: PhotoSource, points: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """True where the line of sight meets the wall at more than 6 degrees: less would stretch a pixel over metres."""
    offset = points[..., :2] - source.position[:2]
    cross = np.abs(offset[..., 0] * direction[1] - offset[..., 1] * direction[0])
    return cross > 0.1 * np.hypot(offset[..., 0], offset[..., 1]) * np.hypot(*direction)


def _pixels_per_metre(source: PhotoSource, points: np.ndarray, length: float) -> np.ndarray:
    uv, _ = source.pixels(points)
    step = np.linalg.norm(np.diff(uv, axis=1, append=uv[:, -1:]), axis=-1)
    return step / (length / points.shape[1])


def _skyline(source: PhotoSource, points: np.ndarray, z: np.ndarray, tall: float) -> np.ndarray:
    """Height per column above which the photo shows sky, or a little above the frame where it shows none, (w,) [m]."""
    _, sky = source.sample(points, (Label.SKY,))
    _, solid = source.sample(points, (Label.WALL, Label.DOOR))
    have = solid.any(0)
    top = np.full(points.shape[1], np.nan)
    top[have] = z[np.argmax(solid, 0)[have]]
    leaves_frame = have & ~sky.any(0)
    top[leaves_frame] = np.minimum(tall, top[leaves_frame] * 1.15)
    index = np.arange(len(top))
    top = np.interp(index, index[have], top[have]) if have.any() else np.full(len(top), min(tall, 4.0))
    width = max(3, len(top) // 40 | 1)
    padded = np.pad(top, width // 2, mode="edge")
    top = np.median(np.lib.stride_tricks.sliding_window_view(padded, width), -1)
    return np.clip(top, LOWEST_WALL, tall)


def fill_by_mirror(colours: np.ndarray, known: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Fill unknown texels of (h, w, 3): detail mirrored at the borders of what is known, on a smooth base colour.

    Returns (h, w, 3) uint8; all ``fallback`` if nothing is known.
    """
    if not known.any():
        return np.zeros_like(colours, np.uint8) + np.clip(fallback, 0, 255).astype(np.uint8)
    rows = known.any(1)
    detail = colours.copy()
    detail[rows] = _mirror_rows(colours[rows], known[rows])
    detail = _mirror_rows(detail.transpose(1, 0, 2), np.repeat(rows[None, :], known.shape[1], 0)).transpose(1, 0, 2)
    base = smooth_extension(colours, known)
    sigma = max(2.0, min(known.shape) / 12)
    filled = base + detail - cv2.GaussianBlur(detail, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    inner = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 3) if not known.all() else np.full(known.shape, 9.0, np.float32)
    weight = np.clip(inner / 2.0, 0, 1)[..., None]
    return np.clip(np.rint(filled * (1 - weight) + colours * weight), 0, 255).astype(np.uint8)


def _mirror_rows(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill each row (R, n, 3) from its known entries reflected at the hole's two ends, weighted by nearness."""
    n = known.shape[1]
    index = np.arange(n)[None, :]
    left = np.maximum.accumulate(np.where(known, index, -1), 1)
    right = np.minimum.accumulate(np.where(known, index, n)[:, ::-1], 1)[:, ::-1]
    row = np.arange(len(known))[:, None]

    def reflected(border: np.ndarray, valid: np.ndarray) -> np.ndarray:
        border = np.where(valid, border, 0)
        image = np.clip(2 * border - index, 0, n - 1)
        usable = known[row, image]
        return values[row, np.where(usable, image, border)]

    has_left, has_right = left >= 0, right < n
    from_left, from_right = np.where(has_left, index - left, n * 4), np.where(has_right, right - index, n * 4)
    weight = (from_right / np.maximum(from_left + from_right, 1)).astype(np.float32)
    weight = np.where(known | ~has_right, 1.0, np.where(~has_left, 0.0, weight))[..., None]
    return reflected(left, has_left) * weight + reflected(right, has_right) * (1 - weight)


def _best_segments(segments: list[StripSegment], *, enough: float = 3.0) -> list[int]:
    """Choose the sharpest well-seen segments, in order along the wall, until ``enough`` metres are together."""
    score = [s.sharpness * (float(s.known.mean()) > 0.3) for s in segments]
    chosen: list[int] = []
    for i in sorted(range(len(segments)), key=lambda i: (-score[i], i)):
        total = sum(segments[k].length for k in chosen)
        if chosen and (total >= 2 * enough or (total >= enough and score[i] < 0.6 * score[chosen[0]])):
            break
        chosen.append(i)
    return sorted(chosen)


class WallStrip:
    """The unrolled wall, reused back and forth: position t [m] runs 0 -> total -> 0 -> ... over the usable segments."""

    def __init__(self, segments: list[StripSegment], charts: list[int]) -> None:
        self._use = _best_segments(segments)
        self.segments, self.charts = segments, charts
        self._bounds = np.concatenate([[0.0], np.cumsum([segments[i].length for i in self._use])])

    @property
    def total(self) -> float:
        """Length of what is reused [m]."""
        return float(self._bounds[-1])

    def pieces(self, t0: float, length: float) -> list[tuple[float, float, int, float, float]]:
        """Cut a wall of some length [m] that starts at strip position t0.

        Returns (from, to, segment, along at from, along at to) per piece; along runs backwards where mirrored.
        """
        out, done = [], 0.0
        while done < length - 1e-6:
            t = (t0 + done + 1e-9) % (2 * self.total)
            backward = t >= self.total
            position = 2 * self.total - t if backward else t
            side = "left" if backward else "right"
            k = int(np.clip(np.searchsorted(self._bounds, position, side=side) - 1, 0, len(self._use) - 1))
            low, high = self._bounds[k], self._bounds[k + 1]
            room = (position - low) if backward else (high - position)
            step = min(max(room, 1e-3), length - done)
            begin = position - low
            finish = begin - step if backward else begin + step
            limit = high - low
            out.append((done, done + step, self._use[k], float(np.clip(begin, 0, limit)), float(np.clip(finish, 0, limit))))
            done += step
        return out
