"""Depth of walls and things where the learned prior was read: its estimate, tied to the floor where they meet it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lyra_core.camera.backdrop import Edge, column_of
from lyra_core.camera.upright import UprightRays
from lyra_core.depth.regions import components
from lyra_core.types import Label

_EDGE_WEIGHT = 0.3
"""Of the floor's edge beside the prior's own distance of a wall, where the two agree."""
_AGREE = 0.4
"""Log difference up to which they do."""
_ROOM_AGREES = 0.3
"""Median log difference of distance up to which a fitted room is believed."""
_FEWEST = 4
"""Wall pixels of a column."""
_CONTACT = 0.15
"""Most that a thing is moved to stand where it meets the floor, in log distance."""


def wall_edge(edge: Edge, labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays) -> Edge:
    """Return the floor's edge as the walls' foot: where the prior sees walls, its distance of them, tied to the edge seen.

    Args:
        labels: (H, W) uint8.
        prior_depth: (H, W) z-depth over the camera's height.
    """
    down = foot_of(prior_depth, rays)
    wall = (labels == Label.WALL) & np.isfinite(down)
    column = column_of(rays, edge.right)
    order = np.argsort(column[wall], kind="stable")
    columns, values = column[wall][order], down[wall][order]
    bounds = np.searchsorted(columns, np.arange(len(edge.right) + 1))
    found = np.full(len(edge.right), np.nan)
    for k in range(len(edge.right)):
        if bounds[k + 1] - bounds[k] >= _FEWEST:
            found[k] = np.median(values[bounds[k] : bounds[k + 1]])
    with np.errstate(invalid="ignore", divide="ignore"):
        agree = np.isfinite(edge.down) & ~edge.occluded & (np.abs(np.log(edge.down / found)) < _AGREE)
        both = np.exp(_EDGE_WEIGHT * np.log(edge.down) + (1 - _EDGE_WEIGHT) * np.log(found))
    down = np.where(agree, both, np.where(np.isfinite(found), found, edge.down))
    return replace(edge, down=down, occluded=edge.occluded & ~np.isfinite(found))


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


def thing_distances(labels: np.ndarray, prior_depth: np.ndarray, rays: UprightRays, foot: np.ndarray) -> np.ndarray:
    """Return (H, W) forward distance over the camera's height of obstacle pixels; NaN elsewhere.

    A thing has the prior's shape, moved as a whole so that its lowest pixels, where floor is seen below them, stand on that floor.

    Args:
        foot: (H, W) ``down`` of the wall's foot; things stay before it.
    """
    out = np.full(labels.shape, np.nan)
    below = np.zeros(labels.shape, bool)
    below[:-1] = labels[1:] == Label.FLOOR
    for part in components(labels == Label.OBSTACLE, order=rays.down):
        distance = prior_depth[part] * np.maximum(rays.ahead[part], 0.05)
        contact = part & below & (rays.down > 0.02)
        if contact.sum() >= 5:
            # Hanging parts have floor below them too, seen farther away than they are: the nearer half decides.
            ratio = np.log(1.0 / rays.down[contact] / (prior_depth[contact] * np.maximum(rays.ahead[contact], 0.05)))
            distance = distance * np.exp(np.clip(np.percentile(ratio, 35), -_CONTACT, _CONTACT))
        out[part] = np.minimum(distance, 0.97 / foot[part])
    return out
