"""The piecewise planar backdrop of a view: vertical planes behind everything that stands on the floor.

Works in upright coordinates (see ``upright``): per column ``right``, the far edge of the floor is seen at ``down`` = camera
height / forward distance, and a vertical plane is a straight line in (right, down). The labelling of columns by planes is
found exactly by dynamic programming.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.camera.upright import UprightRays

COLUMNS = 128
_NOISE = 0.07
"""Relative error of the floor's edge that costs 1."""
_COST_FLOOR_BEHIND, _COST_OCCLUDED = 3.0, 0.7
"""Most a column can cost: floor seen behind the plane contradicts it, something standing in front does not."""
_COST_TURN, _COST_JUMP, _COST_FREE = 4.0, 16.0, 2.5
"""Of a corner, of a break in distance (per log unit), of a plane that is not parallel to the Manhattan directions."""
_DISTANCES = 30


NEAREST_WALL = 1.2
"""[m]"""
FARTHEST_WALL = {"indoor": 15.0, "outdoor": 40.0}
"""[m]"""
USUAL_WALL = {"indoor": 4.5, "outdoor": 12.0}
"""Prior where the picture does not tell [m]."""


@dataclass(frozen=True)
class Edge:
    """Far edge of the floor per upright column."""

    right: np.ndarray
    """(COLUMNS,) centres."""
    down: np.ndarray
    """(COLUMNS,) smallest ``down`` of floor; NaN = no floor in this column."""
    occluded: np.ndarray
    """(COLUMNS,) bool: an obstacle hides what lies behind the edge."""


def down_limits(scene_kind: str, camera_height: float) -> dict[str, float]:
    """Return the bounds and the prior of ``fit_backdrop`` for an 'indoor' or 'outdoor' place."""
    return {"nearest": camera_height / NEAREST_WALL, "farthest": camera_height / FARTHEST_WALL[scene_kind],
            "usual": camera_height / USUAL_WALL[scene_kind]}


def column_of(rays: UprightRays, right: np.ndarray) -> np.ndarray:
    """Return (H, W) int32: nearest of the evenly spaced columns ``right`` for each pixel; 0 where a pixel has none."""
    step = (right[-1] - right[0]) / (len(right) - 1)
    return np.clip(np.rint(np.nan_to_num((rays.right - right[0]) / step)), 0, len(right) - 1).astype(np.int32)


def column_centres(rays: UprightRays) -> np.ndarray:
    """Return (COLUMNS,) evenly spaced values of ``right`` over the view (outer 0.5 % left out)."""
    finite = rays.right[np.isfinite(rays.right)]
    low, high = np.percentile(finite, [0.5, 99.5])
    return np.linspace(low, high, COLUMNS)


def floor_edge(floor: np.ndarray, obstacles: np.ndarray, rays: UprightRays, right: np.ndarray) -> Edge:
    """Return the far edge of the (H, W) floor; a column is occluded where an obstacle lies just behind its edge."""
    column, known = column_of(rays, right), np.isfinite(rays.down)
    down = np.full(len(right), np.nan)
    seen = floor & known & (rays.down > 1e-3)
    order = np.lexsort((rays.down[seen], column[seen]))
    columns, downs = column[seen][order], rays.down[seen][order]
    start, stop = np.searchsorted(columns, np.arange(len(right))), np.searchsorted(columns, np.arange(len(right)), side="right")
    have = np.flatnonzero(stop - start >= 4)
    down[have] = downs[start[have] + ((stop - start)[have] * 0.015).astype(int)]
    behind = obstacles & known & (rays.down < np.nan_to_num(down, nan=-np.inf)[column])
    near_edge = behind & (rays.down > 0.75 * np.nan_to_num(down)[column])
    occluded = np.bincount(column[near_edge], minlength=len(right)) > 3
    return Edge(right, down, occluded)


def fit_backdrop(edge: Edge, yaw: float, *, nearest: float, farthest: float, usual: float) -> np.ndarray:
    """Return (COLUMNS,) ``down`` at which the walls meet the floor.

    Args:
        yaw: of the Manhattan directions, left of world x [rad].
        nearest, farthest, usual: bounds and prior in ``down`` (camera height / distance); nearest > usual > farthest.
    """
    planes, is_free = _candidates(edge, yaw, nearest, farthest, usual)
    value = planes[:, :1] + planes[:, 1:] * edge.right[None]
    clipped = np.clip(value, farthest, nearest)
    labels = _label(_unary(value, clipped, edge, usual), np.log(clipped), is_free)
    return _refined(clipped, labels, planes, edge, farthest, nearest)


def _candidates(edge: Edge, yaw: float, nearest: float, farthest: float, usual: float) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (P, 2) as intercept and slope of down over right, and (P,) bool: not along a Manhattan direction."""
    scale = np.geomspace(farthest * 0.4, nearest * 1.6, _DISTANCES)
    manhattan = [np.stack([sign * scale * np.cos(a), -sign * scale * np.sin(a)], 1)
                 for a in (yaw, yaw + np.pi / 2) for sign in (1.0, -1.0)]
    knots = np.linspace(0, COLUMNS - 1, 17).astype(int)
    smooth = np.array([np.nanmedian(w) if np.isfinite(w).any() else np.nan
                       for w in (edge.down[max(k - 2, 0):k + 3] for k in knots)])
    good = np.flatnonzero(np.isfinite(smooth))
    pairs = [(i, j) for n, i in enumerate(good) for j in good[n + 1:]]
    i, j = np.array(pairs, int).reshape(-1, 2).T
    slope = (smooth[j] - smooth[i]) / (edge.right[knots[j]] - edge.right[knots[i]])
    free = np.stack([smooth[i] - slope * edge.right[knots[i]], slope], 1)
    level = np.array([[usual, 0.0]])
    return np.concatenate([*manhattan, level, free]), np.arange(4 * _DISTANCES + 1 + len(free)) >= 4 * _DISTANCES + 1


def _unary(value: np.ndarray, clipped: np.ndarray, edge: Edge, usual: float) -> np.ndarray:
    """Return (P, COLUMNS) costs of planes at columns."""
    have = np.isfinite(edge.down)
    observed = np.where(have, np.maximum(edge.down, 1e-3), usual)
    error = np.log(clipped / observed[None]) / _NOISE
    in_front = np.minimum(np.maximum(error, 0.0), _COST_FLOOR_BEHIND)
    hidden = np.minimum(np.maximum(-error, 0.0), _COST_OCCLUDED) * np.where(edge.occluded, 0.15, 1.0)[None]
    prior = np.abs(np.log(clipped / usual))
    outside = np.minimum(np.abs(value - clipped) / clipped, 2.0)
    return np.where(have[None], in_front + hidden + 0.03 * prior, 0.25 * prior) + outside


def _label(unary: np.ndarray, log_value: np.ndarray, is_free: np.ndarray) -> np.ndarray:
    """Return (COLUMNS,) plane index that minimises unary plus switching costs (Viterbi)."""
    n_planes, n = unary.shape
    cost = unary[:, 0] + _COST_FREE * is_free
    back = np.zeros((n, n_planes), np.int32)
    for k in range(1, n):
        middle = (log_value[:, k - 1] + log_value[:, k]) / 2
        switch = _COST_TURN + _COST_JUMP * np.minimum(np.abs(middle[:, None] - middle[None]), 1.2) + _COST_FREE * is_free[None]
        np.fill_diagonal(switch, 0.0)
        total = cost[:, None] + switch
        back[k] = total.argmin(0)
        cost = total[back[k], np.arange(n_planes)] + unary[:, k]
    labels = np.zeros(n, np.int32)
    labels[-1] = cost.argmin()
    for k in range(n - 1, 0, -1):
        labels[k - 1] = back[k, labels[k]]
    return labels


def _refined(clipped: np.ndarray, labels: np.ndarray, planes: np.ndarray, edge: Edge, farthest: float,
             nearest: float) -> np.ndarray:
    """Return the labelled planes, each moved to the median of the floor edges that agree with it."""
    out = clipped[labels, np.arange(COLUMNS)].copy()
    for plane in np.unique(labels):
        mine = labels == plane
        value = planes[plane, 0] + planes[plane, 1] * edge.right
        ratio = edge.down / np.where(value > 1e-6, value, np.nan)
        agree = mine & np.isfinite(ratio) & (np.abs(np.log(np.where(ratio > 0, ratio, np.nan))) < 3 * _NOISE) & ~edge.occluded
        if agree.sum() >= 4:
            out[mine] = value[mine] * np.median(ratio[agree])
    return np.clip(out, farthest, nearest)
