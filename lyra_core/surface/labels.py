"""Name the surfaces of an aligned mesh by normal and height, and cut it into parts."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from lyra_core.surface.topology import face_pieces
from lyra_core.types import Label

LEVEL, UPRIGHT = np.cos(np.deg2rad(35)), np.sin(np.deg2rad(20))
CEILING_FROM = 1.8
"""Lowest ceiling [m]."""
WALL_TOP, WALL_SHARE, WALL_AREA = 1.4, 0.7, 0.8
"""A wall plane has this area [m2] and reaches this height [m], or this share of the height that was seen at all if that is
lower (a low camera sees no wall's top); lower or smaller upright faces are obstacles."""


def label_faces(normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, *, floor_band: float) -> np.ndarray:
    """Return (F,) uint8 Label of faces in a frame with z up and the floor at 0.

    FLOOR: level and within floor_band [m] of 0. CEILING: looks down, near the highest large level surface above 1.8 m.
    WALL: upright and on a large plane that reaches high. All else is OBSTACLE.
    """
    z, up = centers[:, 2], normals[:, 2]
    out = np.full(len(z), Label.OBSTACLE, np.uint8)
    out[(up > LEVEL) & (np.abs(z) < floor_band)] = Label.FLOOR
    down = np.flatnonzero((up < -LEVEL) & (z > CEILING_FROM))
    if len(down):
        histogram = np.bincount(np.round(z[down] / 0.1).astype(int), areas[down])
        height = 0.1 * np.argmax(histogram)
        if histogram.max() > 0.5:
            out[down[z[down] > height - 0.25]] = Label.CEILING
    upright = np.flatnonzero(np.abs(up) < UPRIGHT)
    top = min(WALL_TOP, WALL_SHARE * float(np.percentile(z, 98))) if len(z) else WALL_TOP
    out[upright[_on_walls(normals[upright], areas[upright], centers[upright], top)]] = Label.WALL
    return out


def _on_walls(normals: np.ndarray, areas: np.ndarray, centers: np.ndarray, top: float) -> np.ndarray:
    """Return which upright faces lie on wall planes, found one by one as peaks over (azimuth, offset)."""
    azimuth = np.arctan2(normals[:, 1], normals[:, 0])
    wall, open_ = np.zeros(len(areas), bool), np.ones(len(areas), bool)
    for _ in range(64):
        rows = np.flatnonzero(open_)
        if not len(rows):
            break
        step = np.round(azimuth[rows] / np.deg2rad(10)).astype(int) % 36
        angle = np.deg2rad(10) * step
        offset = np.round((centers[rows, 0] * np.cos(angle) + centers[rows, 1] * np.sin(angle)) / 0.1).astype(int)
        low = offset.min()
        histogram = np.bincount((offset - low) * 36 + step, areas[rows])
        best = int(np.argmax(histogram))
        pick = rows[(offset - low) * 36 + step == best]
        mean = (areas[pick, None] * normals[pick, :2]).sum(0)
        mean /= np.linalg.norm(mean)
        middle = float((areas[pick] * (centers[pick, :2] * mean).sum(1)).sum() / areas[pick].sum())
        near = rows[(np.abs((centers[rows, :2] * mean).sum(1) - middle) < 0.12) & ((normals[rows, :2] * mean).sum(1) > 0.9)]
        if areas[near].sum() < WALL_AREA:
            break
        wall[near] |= bool(np.percentile(centers[near, 2], 95) > top)
        open_[near] = open_[pick] = False
    return wall


def part_faces(labels: np.ndarray, areas: np.ndarray, adjacency: csr_array, *,
               min_area: float = 0.15) -> tuple[np.ndarray, list[tuple[str, Label]]]:
    """Return the part of each face (F,) int32 and the parts' names and labels.

    Floor, walls and ceiling are one part each; each connected obstacle of min_area [m2] is one, the rest is clutter.
    """
    part, names = np.full(len(labels), -1, np.int32), []
    for label, name in ((Label.FLOOR, "floor"), (Label.WALL, "walls"), (Label.CEILING, "ceiling")):
        if (labels == label).any():
            part[labels == label] = len(names)
            names.append((name, label))
    piece = face_pieces(adjacency, labels)
    area = np.bincount(piece, np.where(part < 0, areas, 0))
    large = np.flatnonzero(area >= min_area)
    for i, which in enumerate(large[np.argsort(-np.round(area[large], 6), kind="stable")]):
        part[(piece == which) & (part < 0)] = len(names)
        names.append((f"obstacle_{i:02d}", Label.OBSTACLE))
    if (part < 0).any():
        part[part < 0] = len(names)
        names.append(("clutter", Label.OBSTACLE))
    return part, names
