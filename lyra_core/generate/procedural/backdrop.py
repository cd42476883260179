"""The walls that the photo shows, as a polyline on the floor plan, from the depth of its WALL pixels."""

from __future__ import annotations

import itertools

import numpy as np

from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.types import Label

BIN = np.deg2rad(0.5)
"""Width of an azimuth bin [rad]."""
FARTHEST = 0.93
"""Ranges above this share of the farthest belong to the same surface."""


def backdrop_polyline(source: PhotoSource, *, default_range: float) -> np.ndarray:
    """Return (P, 2) floor-plan points of the seen walls, from the photo's right border to its left (counter-clockwise).

    Per azimuth, the median horizontal range of the WALL pixels below 4 m; azimuths without any take their neighbours' by linear
    interpolation of the inverse range, in which a straight wall is straight; then the line is simplified. Where depth was
    measured, of the farthest wall, and behind all that is seen: what stands before the line is lifted. default_range [m] is used
    where the photo shows no wall at all.
    """
    points = source.world_points()
    offset = points[..., :2] - source.position[:2]
    azimuth, reach = np.arctan2(offset[..., 1], offset[..., 0]), np.hypot(offset[..., 0], offset[..., 1])
    left, right = _horizontal_fov(source)
    count = max(8, int(np.ceil((left - right) / BIN)))
    centres = right + (np.arange(count) + 0.5) * (left - right) / count
    labels, measured = source.estimate.labels, source.estimate.measured is not None
    slot = np.floor((np.nan_to_num(azimuth) - right) / (left - right) * count).astype(int)
    used = np.isfinite(reach) & (points[..., 2] < 4.0) & (slot >= 0) & (slot < count)
    inverse_reach, wall = 1.0 / np.maximum(reach, 0.3), used & (labels == Label.WALL)
    if measured:
        wall[wall] = _farthest(inverse_reach[wall], slot[wall], count)
    inverse = _binned(inverse_reach[wall], slot[wall], count)
    have = np.isfinite(inverse)
    inverse = _filled(centres, inverse, have) if have.any() else np.full(count, 1.0 / default_range)
    inverse = _median3(inverse)
    if measured:
        seen = used & ~np.isin(labels, (Label.SKY, Label.CEILING))
        beyond = _binned(inverse_reach[seen], slot[seen], count, quantile=0.04)
        inverse = np.where(beyond < FARTHEST * inverse, beyond, inverse)
    ends = np.concatenate([[right], centres, [left]])
    reach_at = 1.0 / np.concatenate([inverse[:1], inverse, inverse[-1:]])
    line = source.position[:2] + reach_at[:, None] * np.stack([np.cos(ends), np.sin(ends)], 1)
    return _refine(simplify(line, source.position[:2]), source.position[:2])


def _refine(line: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Split long pieces so that the distance to the eye changes at most by half over one: each gets its own texel size."""
    out = [line[0]]
    for a, b in itertools.pairwise(line):
        near, far = sorted((float(np.hypot(*(a - eye))), float(np.hypot(*(b - eye)))))
        count = int(np.clip(np.ceil(np.log(max(far, 0.5) / max(near, 0.5)) / np.log(1.5)), 1, np.hypot(*(b - a)) / 0.6 + 1))
        # Geometric spacing from the nearer end keeps the ratio of distances even.
        f = np.linspace(0, 1, count + 1)[1:]
        if count > 1:
            ratio = max(far, 0.5) / max(near, 0.5)
            g = (ratio**f - 1) / (ratio - 1)
            f = g if np.hypot(*(a - eye)) <= np.hypot(*(b - eye)) else 1 - np.append(g[-2::-1], 0.0)
        out += [a + x * (b - a) for x in f]
    return np.array(out)


def _horizontal_fov(source: PhotoSource) -> tuple[float, float]:
    """Azimuths [rad] of the photo's outermost pixels; a camera that looks up or down sees further to the side in its corners."""
    e = source.estimate
    rays = e.camera.rays()[:, [0, -1]].reshape(-1, 3) @ e.T_world_camera[:3, :3].T
    level = np.abs(rays[:, 2]) < 1.2 * np.hypot(rays[:, 0], rays[:, 1])
    azimuth = np.arctan2(rays[:, 1], rays[:, 0])[level if level.any() else slice(None)]
    # Steep and very long lenses: at least a narrow sector, at most less than half a circle.
    return float(np.clip(azimuth.max(), 0.1, 1.35)), float(np.clip(azimuth.min(), -1.35, -0.1))


def _filled(azimuth: np.ndarray, inverse: np.ndarray, have: np.ndarray) -> np.ndarray:
    """Interpolate the inverse range between known azimuths; beyond the outermost ones continue their wall straight on.

    A straight wall has 1 / range = a cos(azimuth) + b sin(azimuth).
    """
    out = np.interp(azimuth, azimuth[have], inverse[have])
    known = np.where(have)[0]
    for outside, near in ((np.arange(known[0]), known[:8]), (np.arange(known[-1] + 1, len(azimuth)), known[-8:])):
        if len(outside) and len(near) == 8:
            basis = np.stack([np.cos(azimuth[near]), np.sin(azimuth[near])], 1)
            a, b = np.linalg.lstsq(basis, inverse[near], rcond=None)[0]
            straight = a * np.cos(azimuth[outside]) + b * np.sin(azimuth[outside])
            edge = float(np.median(inverse[near]))
            out[outside] = np.clip(straight, edge / 2.5, edge * 1.6)
    return out


def _farthest(inverse: np.ndarray, slots: np.ndarray, count: int) -> np.ndarray:
    """Return which of N inverse ranges belong to the farthest surface of their slot."""
    return inverse < _binned(inverse, slots, count, quantile=0.04)[slots] / FARTHEST


def _binned(values: np.ndarray, slots: np.ndarray, count: int, *, quantile: float = 0.5) -> np.ndarray:
    """Return a quantile of the values in each slot, (count,); NaN where there are less than three."""
    out = np.full(count, np.nan)
    order = np.argsort(slots, kind="stable")
    bounds = np.searchsorted(slots[order], np.arange(count + 1))
    for i in range(count):
        part = values[order[bounds[i] : bounds[i + 1]]]
        if len(part) >= 3:
            out[i] = np.quantile(part, quantile)
    return out


def _median3(values: np.ndarray) -> np.ndarray:
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), 0)


def simplify(line: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Simplify a polyline (P, 2) by Douglas and Peucker; the tolerance is 3 cm + 1.5 % of the distance to ``eye``."""
    keep = np.zeros(len(line), bool)
    keep[[0, -1]] = True
    stack = [(0, len(line) - 1)]
    tolerance = 0.03 + 0.015 * np.linalg.norm(line - eye, axis=1)
    while stack:
        a, b = stack.pop()
        if b - a < 2:
            continue
        chord = line[b] - line[a]
        between = line[a + 1 : b] - line[a]
        length = max(float(np.hypot(*chord)), 1e-9)
        excess = np.abs(between[:, 0] * chord[1] - between[:, 1] * chord[0]) / length / tolerance[a + 1 : b]
        worst = int(np.argmax(excess))
        if excess[worst] > 1.0:
            middle = a + 1 + worst
            keep[middle] = True
            stack += [(a, middle), (middle, b)]
    return _drop_short(line[keep], 0.12)


def _drop_short(line: np.ndarray, shortest: float) -> np.ndarray:
    out = [line[0]]
    for point in line[1:-1]:
        if np.hypot(*(point - out[-1])) >= shortest:
            out.append(point)
    if len(out) > 1 and np.hypot(*(line[-1] - out[-1])) < shortest:
        out.pop()
    return np.array([*out, line[-1]])
