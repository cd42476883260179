"""Depth of walls, ceiling and things where the learned prior was read: its estimate, made of planes and tied to the floor."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import median_filter

from lyra_core.camera.backdrop import column_of
from lyra_core.camera.upright import UprightRays
from lyra_core.depth.regions import components
from lyra_core.types import Label

_ROOM_AGREES = 0.3
"""Median log difference of distance up to which a fitted room is believed."""
_FEWEST = 4
"""Wall pixels of a column; and columns of a wall."""
_NOISE = 0.04
"""Relative error of the prior's distance of a wall that costs 1."""
_WALL = 8.0
"""Cost of one more wall."""
_RIGHT_ANGLE = np.deg2rad(8.0)
"""Walls within this of a Manhattan direction may be turned to it."""
_CEILING_SHARE = 0.004
"""Of the picture that makes a ceiling."""
_BLUR, _STEP = 0.01, 1.2
"""Half of the width over which the network blurs a step in depth, as a share of the picture, and ratio of depths that is a step."""
_CONTACT = 0.12
"""What is this much nearer, in log distance, than the floor seen below it does not stand there."""
_ALIKE = 0.02
"""Columns within this share of the picture are moved alike."""


def wall_line(right: np.ndarray, labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays, yaw: float) -> np.ndarray | None:
    """Return (C,) ``down`` at which walls meet the floor by the prior, as few vertical planes as explain it; None without walls.

    A vertical plane is a straight line in (right, down). The columns are cut into lines by dynamic programming (segmented least
    squares; Bellman 1961), each line turned to a Manhattan direction where that costs little.

    Args:
        right: (C,) column centres.
        labels: (H, W) uint8.
        prior_depth: (H, W) z-depth over the camera's height.
        yaw: of the Manhattan directions, left of world x [rad].
    """
    down = foot_of(prior_depth, rays)
    wall = (labels == Label.WALL) & np.isfinite(down) & (down > 0)
    column = column_of(rays, right)
    order = np.argsort(column[wall], kind="stable")
    columns, values = column[wall][order], down[wall][order]
    bounds = np.searchsorted(columns, np.arange(len(right) + 1))
    have = np.flatnonzero(np.diff(bounds) >= _FEWEST)
    if not len(have):
        return None
    seen = np.array([np.median(values[bounds[k] : bounds[k + 1]]) for k in have])
    x, fitted = right[have], np.empty(len(have))
    pieces = _segmented(x, seen, 1.0 / (_NOISE * seen) ** 2)
    for part in pieces:
        a, b = _plane(x[part], seen[part], yaw)
        fitted[part] = np.maximum(a + b * x[part], 0.2 * seen[part])
    out = np.interp(right, x, fitted)
    # Beyond the outermost columns their wall goes straight on, for a while.
    for part, beyond in ((pieces[0], right < x[0]), (pieces[-1], right > x[-1])):
        a, b = _plane(x[part], seen[part], yaw)
        nearest = fitted[part].max()
        out[beyond] = np.clip(a + b * right[beyond], 0.5 * nearest, 2.0 * nearest)
    return out


def _segmented(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> list[slice]:
    """Return the slices of points that lines fit best, each new one at the cost _WALL."""
    n = len(x)
    sums = np.concatenate([np.zeros((6, 1)), np.cumsum([weight, weight * x, weight * x * x, weight * y, weight * x * y,
                                                        weight * y * y], axis=1)], 1)
    best, start = np.full(n + 1, np.inf), np.zeros(n + 1, int)
    best[0] = 0.0
    for end in range(1, n + 1):
        w, wx, wxx, wy, wxy, wyy = sums[:, end, None] - sums[:, :end]
        spread = np.maximum(w * wxx - wx * wx, 1e-12)
        slope = (w * wxy - wx * wy) / spread
        rest = wyy - wy * wy / w - slope * slope * spread / w
        cost = best[:end] + np.maximum(rest, 0.0) + _WALL
        if end > _FEWEST:
            cost[end - _FEWEST + 1 :] = np.inf
        start[end] = int(cost.argmin())
        best[end] = cost[start[end]]
    out, end = [], n
    while end > 0:
        out.append(slice(start[end], end))
        end = start[end]
    return out[::-1]


def _plane(x: np.ndarray, y: np.ndarray, yaw: float) -> tuple[float, float]:
    """Return intercept and slope of a wall's line, along a Manhattan direction if it nearly is and that fits about as well."""
    weight = 1.0 / y**2
    mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = np.average((x - mean_x) ** 2, weights=weight)
    slope = np.average((x - mean_x) * (y - mean_y), weights=weight) / max(spread, 1e-9) if len(x) > 1 else 0.0
    a, b = mean_y - slope * mean_x, slope
    # A point (ahead, left) = (1, -x) / down lies on the plane a ahead - b left = 1, whose normal is (a, -b).
    turn = (np.arctan2(-b, a) - yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
    if abs(turn) < _RIGHT_ANGLE:
        angle = np.arctan2(-b, a) - turn
        line = np.cos(angle) - np.sin(angle) * x
        scale = np.average(y * line, weights=weight) / max(np.average(line * line, weights=weight), 1e-9)
        off, turned = (np.sqrt(np.average((fit / y - 1) ** 2)) for fit in (a + b * x, scale * line))
        if turned < off + 0.5 * _NOISE:
            return float(scale * np.cos(angle)), float(-scale * np.sin(angle))
    return float(a), float(b)


def prior_ceiling(labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays) -> float | None:
    """Return the ceiling's height over the camera's by the prior, or None where too little of one is seen."""
    ceiling = (labels == Label.CEILING) & (rays.sink < -0.05)
    if ceiling.mean() < _CEILING_SHARE:
        return None
    return float(np.median(1.0 - rays.sink[ceiling] * prior_depth[ceiling]))


def room_agrees(wall: np.ndarray, right: np.ndarray, labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays) -> bool:
    """True if the prior sees the walls of a fitted room about where they were fitted.

    Args:
        right, wall: (C,) columns and the ``down`` at which the room's walls meet the floor.
    """
    seen = (labels == Label.WALL) & np.isfinite(foot_of(prior_depth, rays)) & np.isfinite(rays.right)
    if seen.sum() < _FEWEST:
        return False
    fitted = np.interp(rays.right[seen], right, wall)
    return float(np.median(np.abs(np.log(foot_of(prior_depth, rays)[seen] / fitted)))) < _ROOM_AGREES


def foot_of(prior_depth: np.ndarray, rays: UprightRays) -> np.ndarray:
    """Return (H, W) ``down`` at which what each pixel shows stands on the floor; NaN where rays run steeply."""
    ahead = np.where(rays.ahead > 0.05, rays.ahead, np.nan)
    return 1.0 / (prior_depth * ahead)


def sharpened(depth: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Return depth (H, W) in which things (H, W) bool end abruptly: the network blurs steps, and a ramp would be a surface.

    Where depths nearby differ much, a thing's pixel takes the nearest of them at its outline, and within, where one thing stands
    before another, the nearer or the farther one, whichever is closer to its own (toggle mapping; Kramer and Bruckner 1975).
    """
    size = 2 * round(_BLUR * max(depth.shape)) + 1
    window = np.ones((size, size), np.uint8)
    near = cv2.erode(np.where(things, depth, np.float32(1e6)).astype(np.float32), window)
    far = cv2.dilate(np.where(things, depth, np.float32(0)).astype(np.float32), window)
    outline = cv2.erode(things.astype(np.uint8), window) == 0
    steps = things & (far > _STEP * near)
    closer = outline | (depth * depth < near * far)
    return np.where(steps, np.where(closer, near, far), depth)


def thing_distances(labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays, foot: np.ndarray, *,
                    overhang: float) -> np.ndarray:
    """Return (H, W) forward distance over the camera's height of obstacle pixels; NaN elsewhere.

    A thing has the prior's shape, moved, column by column, so that its lowest pixels stand on the floor that is seen below them;
    what is above such a place comes at most ``overhang`` nearer than it.

    Args:
        foot: (H, W) ``down`` of the wall's foot; things stay before it.
        overhang: [camera heights].
    """
    things = labels == Label.OBSTACLE
    distance = sharpened(prior_depth, things) * np.maximum(rays.ahead, 0.05)
    low = _lowest(things)
    columns = np.arange(labels.shape[1])
    below = np.minimum(low + 1, len(labels) - 1)
    stands = things & (low + 1 < len(labels)) & (labels[below, columns] == Label.FLOOR) & (rays.down[below, columns] > 0.02)
    with np.errstate(invalid="ignore", divide="ignore"):
        base = 1.0 / rays.down[below, columns]
        ratio = np.log(base / distance[low, columns])
        # Nothing is farther than the floor seen right below it. Hanging parts are nearer, and say nothing.
        stands &= ratio < _CONTACT
    out = np.full(labels.shape, np.nan)
    for part in components(things, order=rays.down):
        rows, cols = np.nonzero(part & stands & (low == np.arange(len(labels))[:, None]))
        moved = distance[part]
        if len(cols):
            order = np.argsort(cols, kind="stable")
            shift = median_filter(ratio[rows, cols][order], 2 * round(_ALIKE * labels.shape[1]) + 1, mode="nearest")
            moved = moved * np.exp(np.interp(np.nonzero(part)[1], cols[order], shift))
        out[part] = np.minimum(np.where(stands[part], np.maximum(moved, base[part] - overhang), moved), 0.97 / foot[part])
    return out


def _lowest(mask: np.ndarray) -> np.ndarray:
    """Return (H, W) row of the lowest pixel of the vertical run that each pixel of a mask belongs to; the own row elsewhere."""
    out = np.repeat(np.arange(len(mask))[:, None], mask.shape[1], 1)
    for row in range(len(mask) - 2, -1, -1):
        out[row] = np.where(mask[row] & mask[row + 1], out[row + 1], row)
    return out
