"""Fit a rectangular room to an indoor picture: walls behind the clutter.

Furniture hides where walls meet the floor, but seldom their edges with the ceiling and with each other. All boxes of a grid of
offsets and ceiling heights are scored by picture edges along their edges and by the floor that was found (after Hedau, Hoiem
and Forsyth, Recovering the Spatial Layout of Cluttered Rooms, 2009). The picture is first turned into a level view, in which a
box's edges are straight lines of three known directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from lyra_core.camera.backdrop import USUAL_WALL, Edge
from lyra_core.camera.room_box import corner_column, facing
from lyra_core.camera.upright import upright_pixels
from lyra_core.types import Camera, RoomBox

LEVEL_COLUMNS = 320
_FRONTS = np.geomspace(1.5, 14.0, 62)
_SIDES = np.append(np.geomspace(0.6, 9.0, 56), np.inf)
"""Candidate offsets of the front and side walls [m]."""
_HEIGHTS = np.geomspace(0.7, 5.0, 40)
"""Candidate ceiling heights above the camera [m], for a camera 1.5 m above the floor."""
_USUAL_HEIGHT, _HEIGHT_SPREAD = 2.6, 0.15
"""Rooms are 2.4 to 2.9 m high and cameras are held at 1.5 m +- 10 %: median and relative spread of the height."""
_DISTANCE_SPREAD = 0.5
"""Of the front wall's distance (log), about the usual one."""
_SLOPES = np.geomspace(0.03, 4.0, 240)
"""Grid of height / offset at which edge lines are sampled (2 % steps)."""
_YAW_STEPS = np.deg2rad((-2.0, -1.0, 0.0, 1.0, 2.0))
_EDGE_CONTRAST = 3.0
"""Gradient [1/255 per sample] that counts half."""
_ALIGNED = np.deg2rad(12.0)
BORDER = 0.015
"""Share of the long side along the picture's border that is not looked at: frames are no rooms."""
_CHANCE = 0.12
"""Mean support of a line that lies on no edge; what counts is the support beyond it."""
_W_CEILING, _W_CORNER, _W_FOOT, _W_ABOVE = 1.0, 0.3, 0.4, 0.2
"""Weights of edges under the ceiling, between walls (in shares of the view's width), at the floor; of edges on the ceiling."""
_LINE_WIDTH = 5
"""Rows that the edge under the ceiling itself (a moulding) may take."""
_W_FLOOR_BEHIND, _W_HIDDEN, _W_FAR, _W_HEIGHT, _W_DISTANCE = 0.12, 0.05, 0.12, 0.12, 0.04
"""Costs of floor seen behind a wall, of things that hide its foot (per 7 %), of much room behind them (per log unit), of
unusual sizes."""
_NOISE = 0.07
"""Relative error of the floor's edge that costs 1."""
_CORNER_BELOW = 0.0
"""Corners are looked at down to this share of the camera's height below it: furniture hides what is lower."""
CLEAR = 0.3
"""A box is taken when its ceiling edges and corners score this much, together with its lead over walls along the floor's edge."""
LEAST_LEAD = -0.05
"""... unless those walls explain the picture this much better."""


@dataclass(frozen=True)
class RoomFit:
    """The best box and how it compares."""

    room: RoomBox
    score: float
    edges: float
    """Part of the score from ceiling edges and corners."""
    rival: float
    """Score of the walls that follow the floor's edge, with their best ceiling."""

    @property
    def accepted(self) -> bool:
        """Tell whether the box explains the picture clearly better."""
        lead = self.score - self.rival
        return self.room.ceiling_height is not None and lead > LEAST_LEAD and self.edges + lead > CLEAR


@dataclass(frozen=True)
class LevelView:
    """Edges of the picture as a level camera at the same place would see them; rows are ``down``, columns ``right``."""

    right: np.ndarray
    """(C,)"""
    down: np.ndarray
    """(R,)"""
    inside: np.ndarray
    """(R, C) bool: in the picture."""
    strength: np.ndarray
    """(R, C) float32 in [0, 1]."""
    normal: np.ndarray
    """(R, C) float32 direction of the gradient, in [0, pi) [rad]."""


def level_view(rgb: np.ndarray, camera: Camera, T_world_camera: np.ndarray, right: np.ndarray, *,
               steepest: float = 1.6) -> LevelView:
    """Return the edges of (H, W, 3) uint8, resampled over the span of ``right``; rows reach down to ``steepest``."""
    columns = np.linspace(right[0], right[-1], LEVEL_COLUMNS)
    step = columns[1] - columns[0]
    down = np.arange(-steepest, steepest, step)
    grid_right, grid_down = np.meshgrid(columns, down)
    u, v = upright_pixels(camera, T_world_camera, grid_right, grid_down)
    margin = BORDER * max(camera.width, camera.height)
    inside = (u > margin) & (u < camera.width - margin) & (v > margin) & (v < camera.height - margin)
    rows = np.flatnonzero(inside.any(1))
    if len(rows):
        u, v, inside, down = (x[rows[0]:rows[-1] + 1] for x in (u, v, inside, down))
    lab = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), max(0.6, 0.4 * step * camera.K[0, 0])), cv2.COLOR_RGB2LAB)
    level = cv2.remap(lab, np.nan_to_num(u - 0.5).astype(np.float32), np.nan_to_num(v - 0.5).astype(np.float32),
                      cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    across, along = cv2.Sobel(level, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(level, cv2.CV_32F, 0, 1, scale=0.25)
    size = across * across + along * along
    best = size.argmax(-1)[..., None]
    across, along, size = (np.take_along_axis(x, best, -1)[..., 0] for x in (across, along, size))
    framed = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0) > 0
    strength = np.where(framed, np.sqrt(size) / (np.sqrt(size) + _EDGE_CONTRAST), 0.0).astype(np.float32)
    return LevelView(columns, down, inside, strength, np.mod(np.arctan2(along, across), np.pi).astype(np.float32))


def sampled(mask: np.ndarray, view: LevelView, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """Return an (H, W) mask of the picture in the level view (R, C)."""
    u, v = upright_pixels(camera, T_world_camera, *np.meshgrid(view.right, view.down))
    row, col = (np.clip(np.nan_to_num(x), 0, n - 1).astype(int) for x, n in ((v, camera.height), (u, camera.width)))
    return mask[row, col] & view.inside


def edge_evidence(view: LevelView, normal: np.ndarray | float) -> np.ndarray:
    """Return (R, C) support in [0, 1] for lines whose normal has the given direction [rad], beyond that of their surroundings."""
    turn = np.abs(np.mod(view.normal - normal + np.pi / 2, np.pi) - np.pi / 2)
    support = view.strength * np.exp(-(turn / _ALIGNED) ** 2)
    return support.astype(np.float32)


def level_directions(view: LevelView, yaw: float) -> list[np.ndarray]:
    """Return the (R, C) support for lines parallel to the front wall and for lines along the side walls."""
    face = facing(yaw, view.right)
    change = facing(yaw, np.array([0.5])) - facing(yaw, np.array([-0.5]))
    out = []
    for k in (0, 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            rise = np.nan_to_num(change[k] * view.down[:, None] / face[k][None], posinf=1e3, neginf=-1e3)
        out.append(edge_evidence(view, np.mod(np.arctan2(1.0, -rise), np.pi)))
    return out


def fit_room(view: LevelView, edge: Edge, wall: np.ndarray, yaw: float, camera_height: float) -> RoomFit | None:
    """Return the box that explains edges and floor best; None when no box has a front wall in view.

    Args:
        edge: of the floor, in columns that are wider than the view's.
        wall: (COLUMNS,) ``down`` of the walls that follow the floor's edge: the rival.
        yaw: of the Manhattan directions, left of world x [rad]; refined by up to 2 degrees.
    """
    yaw = np.mod(yaw + np.pi / 4, np.pi / 2) - np.pi / 4
    observed = np.interp(view.right, edge.right, np.nan_to_num(edge.down, nan=-1.0))
    observed = np.where(observed > 1e-3, observed, np.nan)
    best, rival = None, -np.inf
    foot = np.interp(view.right, edge.right, wall)
    for turn in _YAW_STEPS:
        terms = _Terms.of(view, observed, yaw + turn, camera_height)
        fit = _best_box(terms, camera_height)
        rival = max(rival, _rival_score(terms, foot, camera_height))
        if best is None or fit.score > best.score:
            best = fit
    assert best is not None
    return replace(best, rival=rival)


def _rival_score(terms: _Terms, foot: np.ndarray, camera_height: float) -> float:
    """Return the score of walls with any foot (C,): per column the best of the three directions, and the best ceiling."""
    heights, face = _HEIGHTS * camera_height / 1.5, np.maximum(terms.facing, 1e-6)
    column = np.arange(len(terms.right))
    slope = foot[None] / face
    on_floor = np.stack([terms.foot[k][_slope_index(slope[k]), column] for k in range(3)]).max(0)
    up = slope[:, None] * (heights / camera_height)[None, :, None]
    ceiling = np.stack([terms.ceiling[k][_slope_index(up[k]), column] for k in range(3)]).max(0)
    above = terms.above[terms.row(-foot[None] * (heights / camera_height)[:, None]), column]
    return float(((ceiling - _W_ABOVE * above + on_floor[None]).mean(1) + _height_prior(heights, camera_height)).max())


def _height_prior(heights: np.ndarray, camera_height: float) -> np.ndarray:
    """Return the score of ceiling heights above the camera [m]; heavy tails, halls are high."""
    unit = camera_height / 1.5
    return -_W_HEIGHT * np.log1p((np.log((heights / unit + 1.5) / _USUAL_HEIGHT) / _HEIGHT_SPREAD) ** 2)


def _prominent(support: np.ndarray, *, axis: int, reach: int = 10) -> np.ndarray:
    """Return support with a tolerance of one sample across the line, less the mean of its surroundings: texture is no line."""
    across, window = ((3, 1), (1, 2 * reach + 1)) if axis == 0 else ((1, 3), (2 * reach + 1, 1))
    wide = cv2.dilate(support, np.ones(across, np.uint8))
    return wide - cv2.blur(wide, window)


@dataclass(frozen=True)
class _Terms:
    """Evidence per line of the level view, from which every box is scored."""

    yaw: float
    right: np.ndarray
    """(C,)"""
    down: np.ndarray
    """(R,)"""
    facing: np.ndarray
    """(3, C)"""
    ceiling: np.ndarray
    """(3, S, C) support for the edge under the ceiling at slope (ceiling - camera) / offset."""
    foot: np.ndarray
    """(3, S, C) support for the edge above the floor at slope camera height / offset."""
    upright: np.ndarray
    """(R + 1, C) cumulative support for upright edges."""
    seen: np.ndarray
    """(R + 1, C) cumulative count of samples in the picture."""
    above: np.ndarray
    """(R + 1, C) strongest edge above a row, in [0, 1]: ceilings are smooth."""

    @staticmethod
    def of(view: LevelView, observed: np.ndarray, yaw: float, camera_height: float) -> _Terms:
        """Sample the evidence; observed (C,) is the floor's edge, NaN where no floor is seen."""
        face = facing(yaw, view.right)
        upright = _prominent(edge_evidence(view, 0.0), axis=1)
        level = [_prominent(support, axis=0) for support in level_directions(view, yaw)]
        level.append(level[1])
        ceiling, foot = (np.stack([_along(view, level[k], sign * face[k]) for k in range(3)]) for sign in (-1.0, 1.0))
        contact = np.stack([_contact(_SLOPES[:, None] * np.maximum(face[k], 1e-6)[None], observed) for k in range(3)])
        behind = np.where(face[:, None, :] > 0.02, 0.0, -0.5)
        total_upright, total_inside = (
            np.concatenate([np.zeros((1, len(view.right))), np.cumsum(x, 0)]) for x in (upright, view.inside.astype(float))
        )
        clear = np.clip((view.strength - 0.4) / 0.4, 0.0, 1.0)
        above = np.concatenate([np.zeros((1 + _LINE_WIDTH, len(view.right))), np.maximum.accumulate(clear, 0)[:-_LINE_WIDTH]])
        return _Terms(yaw, view.right, view.down, face, _W_CEILING * ceiling, _W_FOOT * foot + contact + behind, total_upright,
                      total_inside, above)

    def row(self, down: np.ndarray) -> np.ndarray:
        """Return the row index in [0, R] of values of ``down``."""
        return np.clip(np.rint((down - self.down[0]) / (self.down[1] - self.down[0])), 0, len(self.down)).astype(int)


def _along(view: LevelView, evidence: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Return (S, C) evidence less chance at down = slope * face; 0 where a line leaves the picture."""
    row = np.rint((_SLOPES[:, None] * face[None] - view.down[0]) / (view.down[1] - view.down[0])).astype(int)
    ok = (row >= 0) & (row < len(view.down))
    row = np.clip(row, 0, len(view.down) - 1)
    col = np.arange(len(view.right))[None]
    return np.where(ok & view.inside[row, col], evidence[row, col] - _CHANCE, 0.0)


def _contact(foot: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return the (S, C) gain of a wall's foot at ``down`` where the floor's edge was observed (C,) or not (NaN)."""
    error = np.nan_to_num(np.log(foot / observed[None]))
    floor_behind, hidden = np.clip(error / _NOISE, 0.0, 3.0), np.clip(-error / _NOISE, 0.0, 3.0)
    return -_W_FLOOR_BEHIND * floor_behind - _W_HIDDEN * hidden - _W_FAR * np.clip(-error - 3 * _NOISE, 0.0, 1.5)


def _slope_index(slope: np.ndarray) -> np.ndarray:
    scale = (len(_SLOPES) - 1) / np.log(_SLOPES[-1] / _SLOPES[0])
    return np.clip(np.rint(np.log(np.maximum(slope, 1e-9) / _SLOPES[0]) * scale), 0, len(_SLOPES) - 1).astype(int)


def _best_box(terms: _Terms, camera_height: float) -> RoomFit:
    unit = camera_height / 1.5
    heights, n = _HEIGHTS * unit, len(terms.right)
    sides = [_cumulative(_wall_terms(terms, k, _SIDES * unit, heights, camera_height)) for k in (1, 2)]
    prior = _height_prior(heights, camera_height)
    best, found = -np.inf, None
    for front in _FRONTS * unit:
        wall = _cumulative(_wall_terms(terms, 0, np.array([front]), heights, camera_height))[:, 0]
        gains, corners, columns = zip(*(_side_gain(terms, wall, sides[k - 1], front, _SIDES * unit, heights,
                                                        camera_height, k) for k in (1, 2)),
                                      strict=True)
        size = prior - _W_DISTANCE * np.log1p((np.log(front / unit / USUAL_WALL["indoor"]) / _DISTANCE_SPREAD) ** 2)
        total = wall[0, :, -1][:, None, None] / n + size[:, None, None] + gains[0].T[:, :, None] + gains[1].T[:, None, :]
        total = np.where(columns[0][None, :, None] < columns[1][None, None, :], total, -np.inf)
        i = int(total.argmax())
        if total.flat[i] > best:
            best, (j, a, b) = float(total.flat[i]), np.unravel_index(i, total.shape)
            edges = (_edges_of(wall[1, j], sides[0][1, a, j], sides[1][1, b, j], columns[0][a], columns[1][b]) / n
                     + corners[0][a, j] + corners[1][b, j])
            seen = (_edges_of(wall[2, j], sides[0][2, a, j], sides[1][2, b, j], columns[0][a], columns[1][b]) / n)
            left, right = (float(_SIDES[s] * unit) if inside else np.inf
                           for s, inside in ((a, columns[0][a] > 0), (b, columns[1][b] < n)))
            found = RoomFit(RoomBox(float(terms.yaw), float(front), left, right,
                                    float(heights[j] + camera_height) if seen > 0.15 else None), best, float(edges), 0.0)
    assert found is not None
    return found


def _edges_of(front: np.ndarray, left: np.ndarray, right: np.ndarray, start: int, stop: int) -> float:
    return float(left[start] + front[stop] - front[start] + right[-1] - right[stop])


def _wall_terms(terms: _Terms, k: int, offsets: np.ndarray, heights: np.ndarray, camera_height: float) -> np.ndarray:
    """Return (3, O, H, C): score, ceiling edge part of it, and whether the ceiling's edge is in the picture."""
    up = heights[None] / offsets[:, None]
    ceiling = terms.ceiling[k][_slope_index(up)]
    line = -up[..., None] * terms.facing[k]
    row, col = terms.row(line), np.arange(len(terms.right))
    above = terms.above[row, col]
    foot = terms.foot[k][_slope_index(camera_height / offsets)][:, None, :]
    seen = terms.seen[row, col] > 0
    return np.stack([ceiling - _W_ABOVE * above + foot, ceiling, seen.astype(float)])


def _cumulative(values: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, -1)], -1)


def _side_gain(terms: _Terms, wall: np.ndarray, side: np.ndarray, front: float, offsets: np.ndarray, heights: np.ndarray,
               camera_height: float, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what each side wall adds to the front wall alone (O, H), the corner's part of it (O, H), and its column (O,)."""
    n, step = len(terms.right), terms.right[1] - terms.right[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        corner = corner_column(terms.yaw, np.array(front), offsets, left=k == 1)
    corner = np.clip(np.nan_to_num(corner, nan=9e6 if k == 2 else -9e6), -9e6, 9e6)
    column = np.clip(np.rint((corner - terms.right[0]) / step), 0, n).astype(int)
    column = np.where(np.isinf(offsets), 0 if k == 1 else n, column)
    visible = (column > 1) & (column < n - 1)
    at = np.clip(column, 0, n - 1)
    which, level = np.arange(len(offsets))[:, None], np.arange(len(heights))[None]
    front_part = wall[0][level, column[:, None]]
    side_part = side[0][which, level, column[:, None]]
    if k == 2:
        front_part = wall[0][:, -1][None] - front_part
        side_part = side[0][..., -1] - side_part
    reach = terms.facing[0][at][:, None] / front
    top = terms.row(-heights[None] * reach)
    eye = np.maximum(terms.row(np.broadcast_to(_CORNER_BELOW * camera_height * reach, top.shape)), top)
    length = terms.seen[eye, at[:, None]] - terms.seen[top, at[:, None]]
    support = (terms.upright[eye, at[:, None]] - terms.upright[top, at[:, None]]) / np.maximum(length, 1)
    tall = np.minimum(length * step / 0.15, 1.0)
    corner_score = np.where(visible[:, None], _W_CORNER * (support - _CHANCE) * tall, 0.0)
    return (side_part - front_part) / n + corner_score, corner_score, column
