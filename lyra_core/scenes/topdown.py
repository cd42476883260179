"""Ground height and obstacles seen from above: the truth for top-down grids and robot paths."""

from __future__ import annotations

import numpy as np

from lyra_core.scenes.intersect import cast, to_local
from lyra_core.scenes.scene import Kind, Scene
from lyra_core.types import Label

HEADROOM = 3.0
"""Ground is looked for below this height [m]."""


def ground_height(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Return (n,) heights [m] of the FLOOR solids at points (n, 2) of the scene's frame; NaN where there is none."""
    origins = np.column_stack([points, np.full(len(points), HEADROOM)]).astype(float)
    hits = cast(scene, origins, _vertical(len(points), -1), solids=np.flatnonzero(scene.label == Label.FLOOR))
    return np.where(hits.solid >= 0, HEADROOM - hits.t, np.nan)


def blocked(scene: Scene, points: np.ndarray, *, low: float = 0.15, high: float = 1.8) -> np.ndarray:
    """Return (n,) bool: whether a solid that is no floor or ceiling reaches into low..high [m] above the ground at points (n, 2).

    Points without ground count as blocked.
    """
    ground = ground_height(scene, points)
    base = np.nan_to_num(ground)
    solids = np.flatnonzero((scene.label != Label.FLOOR) & (scene.label != Label.CEILING))
    bottom, top = (np.column_stack([points, base + z]).astype(float) for z in (low, high))
    # A solid in the column is entered from above, or from below, or contains the whole column.
    down = cast(scene, top, _vertical(len(points), -1), solids=solids).t <= high - low
    up = cast(scene, bottom, _vertical(len(points), 1), solids=solids).t <= high - low
    return down | up | contained(scene, (bottom + top) / 2, solids) | np.isnan(ground)


def contained(scene: Scene, points: np.ndarray, solids: np.ndarray) -> np.ndarray:
    """Return (n,) bool: whether points (n, 3) lie inside any of the solids (indices)."""
    inside = np.zeros(len(points), bool)
    for i in solids:
        p, _ = to_local(scene, i, points, points)
        size = scene.size[i]
        if scene.kind[i] == Kind.BOX:
            r = scene.extra[i]
            inside |= np.linalg.norm(np.maximum(np.abs(p) - size + r, 0), axis=1) <= r
        elif scene.kind[i] == Kind.ELLIPSOID:
            inside |= ((p / size) ** 2).sum(1) <= 1
        else:
            radius = (size[0] + size[1]) / 2 + (size[1] - size[0]) / 2 * p[:, 2] / size[2]
            inside |= (np.abs(p[:, 2]) <= size[2]) & (np.hypot(p[:, 0], p[:, 1]) <= radius)
    return inside


def _vertical(count: int, sign: int) -> np.ndarray:
    return np.tile([0.0, 0.0, float(sign)], (count, 1))
