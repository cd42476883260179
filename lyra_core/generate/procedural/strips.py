"""The seen walls unrolled: one chart per wall segment, holes filled by mirroring, reused for walls nobody saw."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.generate.procedural.photo_source import PhotoSource, smooth_extension
from lyra_core.generate.procedural.quilt import flattened, quilt_tile, usual_square
from lyra_core.types import Label

SMALLEST_PATCH = 8
"""Half side that a patch of bare wall must exceed [texel]."""
STRANGE = 12.0
"""A patch whose colour is this far from the wall's counts as one e-th of its size [grey levels]."""
DETAIL_REACH = 24.0
"""Mirrored detail fades over this distance from what is known [px]."""
SKIRTING = 0.08
"""Height of the skirting board [m]."""
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
    source: PhotoSource,
    start: np.ndarray,
    end: np.ndarray,
    *,
    height: float | None,
    skyline: np.ndarray,
    finest: float,
    fallback: np.ndarray,
) -> StripSegment:
    """Rectify the photo onto the vertical wall from start to end, (2,) floor-plan points [m].

    height: of the ceiling; None = outdoors, where ``skyline`` (n,) gives the upper edge [m]. finest: smallest texel [m];
    fallback: (3,) colour of a wall of which nothing is known.
    """
    length = float(np.hypot(*(end - start)))
    distance = _distance(source, start, end)
    tall = height if height is not None else float(skyline.max())
    texel = float(np.clip(distance / source.estimate.camera.K[0, 0], finest, 0.25))
    w, h = int(np.clip(round(length / texel), 2, 1536)), int(np.clip(round(tall / texel), 4, 1024))
    points, _ = _wall_grid(start, end, tall, w, h)
    colours, known = source.sample_visible(points, beside_objects=False)
    top = np.interp((np.arange(w) + 0.5) / w, (np.arange(len(skyline)) + 0.5) / len(skyline), skyline)
    known &= points[..., 2] <= top[None, :] + texel
    sharp = _pixels_per_metre(source, points, length)
    sharpness = float(np.median(sharp[known])) if known.any() else 0.0
    return StripSegment(fill_by_mirror(colours, known, fallback), known, length, tall, top, sharpness)


def _distance(source: PhotoSource, start: np.ndarray, end: np.ndarray) -> float:
    """Horizontal distance of the camera from the nearest of a wall's ends and its middle [m]."""
    return float(min(np.hypot(*(p - source.position[:2])) for p in (start, end, (start + end) / 2)))


def _wall_grid(start: np.ndarray, end: np.ndarray, tall: float, w: int, h: int) -> tuple[np.ndarray, np.ndarray]:
    """World points (h, w, 3) at the texel centres of a wall, and their heights (h,)."""
    points = np.empty((h, w, 3))
    points[..., :2] = start + ((np.arange(w) + 0.5) / w)[:, None] * (end - start)
    z = tall * (1 - (np.arange(h) + 0.5) / h)
    points[..., 2] = z[:, None]
    return points, z


def _pixels_per_metre(source: PhotoSource, points: np.ndarray, length: float) -> np.ndarray:
    """Photo pixels per metre along a wall of some length [m], at its texels (h, w, 3); (h, w)."""
    uv, _ = source.pixels(points)
    step = np.linalg.norm(np.diff(uv, axis=1, append=uv[:, -1:]), axis=-1)
    return step / (length / points.shape[1])


def skyline(source: PhotoSource, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Upper edge of a wall as the photo shows it, (n,) heights [m] in even steps along it, between LOWEST_WALL and a limit that
    grows with the distance.

    Where the wall leaves the picture it goes on by 15 %; columns without wall take their neighbours' by interpolation, and a
    median of three takes out single spikes.
    """
    distance, length = _distance(source, start, end), float(np.hypot(*(end - start)))
    tall = float(np.clip(1.2 * distance + 8.0, 10.0, 40.0))
    columns = int(np.clip(length / distance * source.estimate.camera.K[0, 0] / 5, 6, 128))
    points, z = _wall_grid(start, end, tall, columns, 160)
    _, sky = source.sample(points, (Label.SKY,))
    _, solid = source.sample(points, (Label.WALL, Label.DOOR, Label.OBSTACLE))
    have = solid.any(0)
    top = np.full(columns, np.nan)
    top[have] = z[np.argmax(solid, 0)[have]] + 0.5 * (z[0] - z[1])
    only_sky = ~have & sky.any(0)
    top[only_sky] = z[(len(z) - 1 - np.argmax(sky[::-1], 0))[only_sky]]
    leaves_frame = have & ~sky.any(0)
    top[leaves_frame] = np.minimum(tall, top[leaves_frame] * 1.15)
    index = np.arange(columns)
    have |= only_sky
    top = np.interp(index, index[have], top[have]) if have.any() else np.full(columns, min(tall, 4.0))
    padded = np.pad(top, 1, mode="edge")
    top = np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), -1)
    return np.clip(top, LOWEST_WALL, tall)


def fill_by_mirror(colours: np.ndarray, known: np.ndarray, fallback: np.ndarray) -> np.ndarray:
    """Fill unknown texels of (h, w, 3): detail mirrored at the borders of what is known, on a smooth base colour.

    Returns (h, w, 3) uint8; all ``fallback`` if nothing is known.
    """
    if not known.any():
        return np.zeros_like(colours, np.uint8) + np.clip(fallback, 0, 255).astype(np.uint8)
    rows = np.asarray(known.any(1))
    detail = colours.copy()
    detail[rows] = _mirror_rows(colours[rows], known[rows])
    detail = _mirror_rows(detail.transpose(1, 0, 2), np.repeat(rows[None, :], known.shape[1], 0)).transpose(1, 0, 2)
    base = smooth_extension(colours, known)
    sigma = max(2.0, min(known.shape) / 12)
    detail -= cv2.GaussianBlur(detail, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    # Far inside a large hole mirrored rows disagree and would show as streaks.
    far = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 3)
    filled = base + detail * np.exp(-((far / DETAIL_REACH) ** 2))[..., None]
    inner = (
        cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 3) if not known.all() else np.full(known.shape, 9.0, np.float32)
    )
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


def plain_tile(segments: list[StripSegment], *, texel: float, size: int, rng: np.random.Generator) -> np.ndarray | None:
    """Quilt a tile (size, size, 3) of bare wall from the largest patch that looks like most of its wall; None if there is none.

    texel: of the tile [m].
    """
    seen = [_resampled(segment, texel) for segment in segments if segment.known.mean() >= 0.2]
    if not seen:
        return None
    typical = np.median(np.concatenate([image[known] for image, known in seen]), 0)
    best, rating = None, 0.0
    for image, known in seen:
        row, column, half, _ = usual_square(image, known, spread=1.3)
        if half <= SMALLEST_PATCH:
            continue
        patch = image[row - half : row + half + 1, column - half : column + half + 1]
        # A shelf's side or a lawn in a window can be the largest bare patch; most of the wall is paint.
        strange = float(np.abs(np.median(patch.reshape(-1, 3), 0) - typical).max())
        score = half * float(np.exp(-((strange / STRANGE) ** 2)))
        if score > rating:
            best, rating = patch, score
    if best is None:
        return None
    return quilt_tile(flattened(best, np.median(best.reshape(-1, 3), 0), contrast=4.0, coarsest=1.5), size, rng)


def _resampled(segment: StripSegment, texel: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a segment's image (h, w, 3) float32 and what of it is known (h, w) bool at another texel size [m]."""
    h, w = max(4, round(segment.height / texel)), max(4, round(segment.length / texel))
    image = cv2.resize(segment.image, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)
    return image, cv2.resize(segment.known.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST) > 0


def plain_segment(tile: np.ndarray, *, texel: float, height: float) -> StripSegment:
    """Return a piece of bare wall with a skirting board, darker towards floor and ceiling, for rooms nobody saw."""
    n = len(tile)
    rows = (np.arange(round(height / texel)) % n)[::-1]
    z = (np.arange(len(rows))[::-1] + 0.5) * texel
    shade = 1.0 - 0.10 * np.exp(-z / 0.35) - 0.06 * np.exp(-(height - z) / 0.25)
    image = np.rint(np.concatenate([tile, tile], 1)[rows] * shade[:, None, None]).astype(np.uint8)
    board = max(1, round(SKIRTING / texel))
    image[-board:] = np.rint(image[-board:] * 0.72).astype(np.uint8)
    return StripSegment(image, np.zeros(image.shape[:2], bool), 2 * n * texel, height, np.full(2, height), 0.0)


class WallStrip:
    """The unrolled wall, reused back and forth: position t [m] runs 0 -> total -> 0 -> ... over the best segments."""

    def __init__(self, segments: list[StripSegment], charts: list[int], *, has_plain: bool = False) -> None:
        """Number the segments by their charts (one each); with has_plain the last segment is bare wall."""
        self.plain = len(segments) - 1 if has_plain else None
        self._use = _best_segments(segments[:-1] if has_plain else segments)
        self.segments, self.charts = segments, charts
        self._bounds = np.concatenate([[0.0], np.cumsum([segments[i].length for i in self._use])])

    @property
    def total(self) -> float:
        """Length of what is reused [m]."""
        return float(self._bounds[-1])

    def plain_pieces(self, length: float) -> list[tuple[float, float, int, float, float]]:
        """Cut a bare wall of some length [m] into repeats of the bare segment, as ``pieces`` returns them."""
        assert self.plain is not None
        step = self.segments[self.plain].length
        count = int(np.ceil(length / step - 1e-9))
        return [(i * step, min((i + 1) * step, length), self.plain, 0.0, min(step, length - i * step)) for i in range(count)]

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
