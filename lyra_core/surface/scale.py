"""Is the scale of a scan plausible? Rooms, doors, tables and seats have usual heights; units have known errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.rays import RayTracer, make_ray_tracer
from lyra_core.surface.gravity import face_geometry

UNITS = {"metres": (1.0, 0.45), "centimetres": (0.01, 0.15), "millimetres": (0.001, 0.15), "inches": (0.0254, 0.1),
         "feet": (0.3048, 0.1)}
"""Unit -> metres, prior weight; the rest, 0.05, is any scale (pictures without a measure)."""
UNKNOWN_SIGMA = 0.5
"""A standard deviation of the logarithm of the scale above this says nothing."""
_LOG = np.arange(np.log(1e-5), np.log(1e5), 0.005)


@dataclass(frozen=True)
class Room:
    """Heights found in a mesh with z up, in its own unit."""

    floor: float
    ceiling: float
    """NaN = none."""
    levels: tuple[tuple[float, float], ...]
    """Height above the floor and area of level surfaces between."""
    doors: tuple[tuple[float, float], ...]
    """Height and width of openings under lintels."""
    extent: float
    """Larger horizontal extent."""


def plausible_scale(vertices: np.ndarray, faces: np.ndarray, *, arbitrary: bool = False) -> tuple[float, float, list[str]]:
    """Return the factor that turns the mesh's unit into metres, the deviation of its logarithm, and the reasons.

    Args:
        vertices, faces: (V, 3) z up, in any unit; (F, 3), wound or not.
        arbitrary: the unit is not a known one (a reconstruction from pictures): any factor is as likely as metres.

    Returns:
        factor, sigma of ln(factor) - above UNKNOWN_SIGMA it is unknown and the factor is only the middle of what is possible -
        and one sentence per thing that was seen.
    """
    vertices, faces = _finite(vertices, faces)
    if not len(faces):
        return 1.0, float("inf"), ["Nothing to measure: there are no faces."]
    room = measure_room(vertices, faces)
    score = np.full(len(_LOG), 0.0) if arbitrary else _log_prior()
    score = score + _soft(_LOG + np.log(room.extent) - np.log(6.0), 0.9, heavy=0.05)
    reasons = [f"It is {room.extent:.4g} units wide."]
    if np.isfinite(room.ceiling):
        height = room.ceiling - room.floor
        score += _room_height(_LOG + np.log(height))
        reasons.append(f"Floor and ceiling are {height:.4g} units apart; rooms are about 2.6 m high (2.1 to 4 m).")
    for height, width in room.doors[:4]:
        score += _soft(_LOG + np.log(height / 2.05), 0.06, heavy=0.3) + 0.5 * _soft(_LOG + np.log(width / 0.88), 0.15, heavy=0.4)
        reasons.append(f"An opening is {height:.4g} units high and {width:.4g} wide; doors are 2.03 m by 0.8 to 1.0 m.")
    total = sum(area for _, area in room.levels)
    for height, area in room.levels[:4]:
        score += 0.7 * np.sqrt(area / total) * _furniture(_LOG + np.log(height))
    if room.levels:
        heights = ", ".join(f"{height:.4g}" for height, _ in room.levels[:4])
        reasons.append(f"Level surfaces stand {heights} units above the floor; tables are 0.72 to 0.76 m, seats 0.42 to 0.48 m.")
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    best = float(_LOG[np.argmax(weight)])
    near = np.abs(_LOG - best) < 0.15
    mode = float((weight * _LOG)[near].sum() / weight[near].sum())
    sigma = float(np.sqrt((weight * (_LOG - mode) ** 2).sum()))
    if not np.isfinite(room.ceiling) and not room.doors and not room.levels:
        reasons.append("No ceiling, door or furniture was found: the scale is unknown.")
        sigma = max(sigma, 2 * UNKNOWN_SIGMA)
    return float(np.exp(mode)), sigma, reasons


def measure_room(vertices: np.ndarray, faces: np.ndarray) -> Room:
    """Find floor, ceiling, level surfaces and doorways; every length is judged against the mesh's own size."""
    normals, areas, centers = face_geometry(vertices, faces)
    low, high = np.percentile(vertices[np.unique(faces)], [0.5, 99.5], axis=0)
    extent = float(max(high[0] - low[0], high[1] - low[1], 1e-9))
    span = float(max(high[2] - low[2], 1e-9))
    level = np.abs(normals[:, 2]) > 0.94
    if not level.any() or span < 0.15 * extent:
        return Room(float(low[2]), float("nan"), (), (), extent)
    step = span / 150
    peaks = _peaks(centers[level, 2], areas[level], step)
    ground = (high[0] - low[0]) * (high[1] - low[1])
    large = [(z, a) for z, a in peaks if a >= 0.2 * ground]
    floors = [z for z, _ in large if z < low[2] + 0.35 * span]
    floors = floors or [z for z, a in peaks if a >= 0.05 * ground and z < low[2] + 0.2 * span]
    floor = min(floors) if floors else float(low[2])
    ceilings = [z for z, _ in large if z > low[2] + 0.65 * span] if floors else []
    ceiling = max(ceilings) if ceilings else float("nan")
    if np.isfinite(ceiling) and not _upright_between(normals, areas, centers, floor, ceiling):
        ceiling = float("nan")
    height = ceiling - floor if np.isfinite(ceiling) else span
    stood = [(z - floor, a) for z, a in peaks if floor + 0.1 * height < z < floor + 0.6 * height and a >= 0.004 * ground]
    doors = _doors(make_ray_tracer(vertices.astype(np.float32), faces.astype(np.int32)), normals, areas, centers, floor, height) \
        if np.isfinite(ceiling) else []
    return Room(floor, ceiling, tuple(sorted(stood, key=lambda row: -row[1])[:4]) if np.isfinite(ceiling) or floors else (),
                tuple(doors), extent)


def _peaks(z: np.ndarray, areas: np.ndarray, step: float) -> list[tuple[float, float]]:
    """Return heights and areas of the peaks of a histogram of level area, each with its neighbours' area, lowest first."""
    bins = np.floor((z - z.min()) / step).astype(np.int64)
    histogram = np.bincount(bins, areas)
    smooth = np.convolve(histogram, np.ones(5), "same")
    out, left = [], smooth.copy()
    while len(out) < 12 and left.max() > 0.01 * smooth.max():
        top = int(np.argmax(left))
        near = np.abs(bins - top) <= 2
        out.append((float((z[near] * areas[near]).sum() / max(areas[near].sum(), 1e-30)), float(smooth[top])))
        left[max(0, top - 4):top + 5] = 0
    return sorted(out)


def _upright_between(normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, floor: float, ceiling: float) -> bool:
    """Return whether walls stand between floor and ceiling: a table has none between its top and the floor."""
    upright = (np.abs(normals[:, 2]) < 0.34) & (centers[:, 2] > floor) & (centers[:, 2] < ceiling)
    return bool(areas[upright].sum() > 0.25 * (ceiling - floor) ** 2)


def _doors(tracer: RayTracer, normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, floor: float,
           height: float) -> list[tuple[float, float]]:
    """Return height and width of passages: a free fall from a level face to the floor, close walls left and right, none ahead."""
    tall = (np.abs(normals[:, 2]) > 0.9) & (centers[:, 2] > floor + 0.5 * height) & (centers[:, 2] < floor + 0.88 * height)
    rows = np.flatnonzero(tall)
    rows = rows[np.argsort(-areas[rows], kind="stable")[:400]]
    if not len(rows):
        return []
    starts = centers[rows] - [0, 0, 0.01 * height]
    down = tracer.cast(starts.astype(np.float32), np.tile(np.array([0, 0, -1], np.float32), (len(rows), 1))).t
    rise = centers[rows, 2] - floor
    free = np.abs(down - rise) < 0.05 * height
    if not free.any():
        return []
    rows, rise = rows[free], rise[free]
    middle = centers[rows] - np.stack([np.zeros(len(rows)), np.zeros(len(rows)), 0.5 * rise], 1)
    angle = np.pi * np.arange(16) / 8
    rays = np.stack([np.cos(angle), np.sin(angle), np.zeros(16)], 1).astype(np.float32)
    t = tracer.cast(np.repeat(middle, 16, 0).astype(np.float32), np.tile(rays, (len(rows), 1))).t.reshape(-1, 16)
    across = t[:, :8] + t[:, 8:]
    narrow = np.argmin(across, axis=1)
    width, along = across[np.arange(len(rows)), narrow], across[np.arange(len(rows)), (narrow + 4) % 8]
    door = (width > 0.3 * rise) & (width < 0.6 * rise) & (along > 2.5 * width)
    out: list[tuple[float, float]] = []
    places: list[np.ndarray] = []
    for i in np.flatnonzero(door):
        if all(np.linalg.norm(middle[i] - place) > 0.3 * height for place in places):
            places.append(middle[i])
            out.append((float(rise[i]), float(width[i])))
    return out


def _log_prior() -> np.ndarray:
    density = np.full(len(_LOG), 0.05 / (_LOG[-1] - _LOG[0]))
    for metres, weight in UNITS.values():
        density += weight * np.exp(-0.5 * ((_LOG - np.log(metres)) / 0.03) ** 2) / (0.03 * np.sqrt(2 * np.pi))
    return np.log(density)


def _soft(x: np.ndarray, sigma: float, *, heavy: float) -> np.ndarray:
    """Return the logarithm of a normal density on a floor of ``heavy``: a wrong cue costs that much and no more."""
    return np.log(heavy + (1 - heavy) * np.exp(-0.5 * (x / sigma) ** 2))


def _room_height(log_height: np.ndarray) -> np.ndarray:
    """Return the logarithm of the density of room heights: most near 2.6 m, halls and lofts up to 6 m."""
    common = np.exp(-0.5 * ((log_height - np.log(2.6)) / 0.13) ** 2)
    tall = np.exp(-0.5 * ((log_height - np.log(3.4)) / 0.3) ** 2)
    return np.log(0.7 * common + 0.3 * tall + 1e-6)


def _furniture(log_height: np.ndarray) -> np.ndarray:
    """Return the logarithm of the density of heights of level surfaces above the floor."""
    peaks = ((0.74, 0.05, 1.0), (0.45, 0.07, 0.7), (0.9, 0.04, 0.4))
    density = sum(weight * np.exp(-0.5 * ((log_height - np.log(h)) / s) ** 2) for h, s, weight in peaks)
    return np.log(0.35 + density)


def _finite(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces that can be measured, of vertices about their middle."""
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    faces = faces[((faces >= 0) & (faces < len(vertices))).all(1)]
    ok = np.asarray(np.isfinite(vertices).all(1))
    faces = faces[ok[faces].all(1)]
    vertices = np.where(ok[:, None], vertices, 0.0)
    return (vertices - np.median(vertices[faces].reshape(-1, 3), 0) if len(faces) else vertices), faces
