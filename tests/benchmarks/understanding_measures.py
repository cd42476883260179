"""Score a world against the truth of its photo. docs/understanding.md defines every number."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lyra_core.rays import make_ray_tracer
from tests.benchmarks.understanding_truth import (
    CELL,
    FREE,
    HIGH,
    LOW,
    OCCUPIED,
    ROBOT_RADIUS,
    SHAPE,
    SIDE,
    Truth,
    cell_centres,
    cell_index,
    floor_tolerance,
    ground_axes,
    widened,
)
from tests.benchmarks.understanding_worlds import World

WORST: dict[str, float] = {
    "ln_f": 1.0, "normal": 90.0, "ln_scale": 1.0, "floor_iou": 0.0, "recall": 0.0, "false": 1.0, "crash": 1.0, "timid": 1.0,
    "recall_s": 0.0, "false_s": 1.0, "crash_s": 1.0, "timid_s": 1.0, "absrel": 1.0, "delta1": 0.0, "absrel_ms": 1.0,
    "delta1_ms": 0.0, "miss": 1.0,
}  # fmt: skip
"""Measures and the score of a world that could not be built. _s: with the world's camera height set to the true one; _ms: depth
scaled by its median."""
MOST_PIXELS = 60_000
"""Of a picture that are compared."""
ENOUGH_OCCUPIED, ENOUGH_FREE, ENOUGH_PATHS = 10, 30, 15
"""Cells and paths needed for a rate."""
DELTA = 1.25
_SLICES = np.arange(LOW + 0.025, HIGH, 0.05)
_SAMPLE = 0.03
"""Distance of samples along cut lines [m]."""
_AHEAD_OF = (4.0, 12.0)
"""The floor's level is looked for this far ahead [m], farther only if there is none nearer."""


class Surroundings:
    """A world in its own ground frame: origin below the camera on the world's floor."""

    def __init__(self, world: World) -> None:
        self.world = world
        R, t = world.T_world_camera[:3, :3], world.T_world_camera[:3, 3]
        self.up = R[2] / np.linalg.norm(R[2])
        self.axes = ground_axes(self.up)
        self._meshes = {}
        for kind, (vertices, faces) in (("visual", world.visual), ("colliders", world.colliders)):
            placed, faces = (np.asarray(vertices, np.float64) - t) @ R @ self.axes.T, np.asarray(faces, np.int32)
            self._meshes[kind] = (placed, faces, make_ray_tracer(placed.astype(np.float32), faces))
        self.height = self._camera_height()
        """Of the camera above the floor's level [m]; NaN = no floor."""
        self._eye = self.height if np.isfinite(self.height) else 0.0

    def first_hits(self, kind: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return z-depth and height over the floor's level [m] of what is seen at photo places x, y in [0, 1]; NaN = nothing."""
        c = self.world.camera
        local = np.stack([(x * c.width - c.K[0, 2]) / c.K[0, 0], (y * c.height - c.K[1, 2]) / c.K[1, 1], np.ones_like(x)], -1)
        rays = local @ self.axes.T
        z = self._cast(kind, np.zeros(3), rays)
        lost = np.flatnonzero(np.isnan(z))
        # A ray through an edge can slip between two faces.
        z[lost] = self._cast(kind, np.zeros(3), rays[lost] + 0.2 / c.K[0, 0] * (self.axes @ [1.0, 0.6, 0.0]))
        return z, self._eye + z * rays[:, 2]

    def occupancy(self, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return SHAPE bool of cells with surface or solid in the obstacles' band, and of cells with neither it nor floor.

        Args:
            scale: the world is taken this much larger, about the camera's foot.
        """
        occupied = self._cut(scale)
        around = (-0.3 * CELL, 0.0, 0.3 * CELL)
        tops = np.stack([self._heights(cell_centres() + [dx, dy], HIGH, scale) for dx in around for dy in around])
        with np.errstate(invalid="ignore"):
            occupied |= ((tops > LOW) & (tops < HIGH)).any(0)
            occupied |= self._inside(scale)
            return occupied, ~(np.abs(tops) <= LOW).any(0) & ~occupied

    def _cast(self, kind: str, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        if not len(rays):
            return np.zeros(0)
        origins = np.ascontiguousarray(np.broadcast_to(origin, rays.shape), np.float32)
        hits = self._meshes[kind][2].cast(origins, rays.astype(np.float32))
        return np.where(hits.face >= 0, hits.t, np.nan).astype(np.float64)

    def _heights(self, points: np.ndarray, top: float, scale: float) -> np.ndarray:
        """Return the height [m] of the first collider below ``top`` at points (..., 2)."""
        origins = np.concatenate([points, np.full((*points.shape[:-1], 1), top)], -1).reshape(-1, 3) / scale
        origins[:, 2] -= self._eye
        drop = self._cast("colliders", origins, np.tile([0.0, 0.0, -1.0], (len(origins), 1)))
        return (top - scale * drop).reshape(points.shape[:-1])

    def _inside(self, scale: float, height: float = 0.5) -> np.ndarray:
        """Return cells in a closed solid or beyond the world's shell: from there, most ways meet the back of a face."""
        placed, faces, tracer = self._meshes["colliders"]
        origins = np.concatenate([cell_centres(), np.full((*SHAPE, 1), height)], -1).reshape(-1, 3) / scale
        origins[:, 2] -= self._eye
        a, b, c = (placed[faces[:, k]] for k in range(3))
        normals, backs = np.cross(b - a, c - a), np.zeros(len(origins), int)
        for way in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1)):
            hits = tracer.cast(origins.astype(np.float32), np.tile(np.float32(way), (len(origins), 1)))
            backs += (hits.face >= 0) & (normals[hits.face] @ np.array(way, float) > 0)
        return (backs >= 3).reshape(SHAPE)

    def _cut(self, scale: float) -> np.ndarray:
        """Return cells through which colliders pass at one of many heights: every triangle cut by level planes."""
        placed, faces, _ = self._meshes["colliders"]
        corners = scale * (placed + [0, 0, self._eye])[faces]
        low, high = corners.min(1), corners.max(1)
        near = ((low[:, :2] < [SHAPE[0] * CELL, SIDE]) & (high[:, :2] > [0, -SIDE])).all(1)
        corners, low, high = corners[near], low[near, 2], high[near, 2]
        out = np.zeros(SHAPE[0] * SHAPE[1], bool)
        for level in _SLICES:
            a, b = cut_lines(corners[(low < level) & (high > level)], level)
            points = along_lines(*within_box(a, b))
            cell, inside = cell_index(points)
            out[cell[inside]] = True
        return out.reshape(SHAPE)

    def _camera_height(self) -> float:
        """Return the camera's height over the lowest level that a fair share of rays cast down ahead of the camera meets."""
        x, y = (a.ravel() for a in np.meshgrid(np.linspace(0.25, 4.0, 31), np.linspace(-1.5, 1.5, 25)))
        for reach in _AHEAD_OF:
            grow = reach / _AHEAD_OF[0]
            drop = self._cast("colliders", np.stack([x * grow, y * grow, 0 * x], 1), np.tile([0.0, 0.0, -1.0], (len(x), 1)))
            drop = drop[(drop > 0.05) & (drop < 10)]
            edges = np.arange(0, 10, 0.05)
            share = np.array([((drop >= e) & (drop < e + 0.1)).sum() for e in edges])
            level = np.flatnonzero(share >= max(0.15 * len(drop), 20))
            if len(level):
                last = level[-1]
                best = edges[last - 2 + int(np.argmax(share[last - 2:last + 1]))] if last >= 2 else edges[last]
                return float(np.median(drop[(drop >= best) & (drop < best + 0.1)]))
        return float("nan")


def cut_lines(corners: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends (N, 2) of the lines in which triangles (N, 3, 3) that pass through z = level meet it."""
    above = corners[..., 2] > level
    lonely = np.where(above.sum(1) == 1, above.argmax(1), (~above).argmax(1))
    rows = np.arange(len(corners))
    tip = corners[rows, lonely]
    ends = []
    for k in (1, 2):
        other = corners[rows, (lonely + k) % 3]
        part = (level - tip[:, 2]) / (other[:, 2] - tip[:, 2])
        ends.append(tip[:, :2] + part[:, None] * (other - tip)[:, :2])
    return ends[0], ends[1]


def within_box(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return lines a..b (N, 2) cut to the grid; those outside are gone (Liang and Barsky 1984)."""
    start, stop, way = np.zeros(len(a)), np.ones(len(a)), b - a
    for axis, (low, high) in enumerate(((0.0, SHAPE[0] * CELL), (-SIDE, SIDE))):
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = (low - a[:, axis]) / way[:, axis], (high - a[:, axis]) / way[:, axis]
        still = way[:, axis] == 0
        out = still & ((a[:, axis] < low) | (a[:, axis] > high))
        start = np.maximum(start, np.where(still, np.where(out, 2.0, 0.0), np.fmin(first, second)))
        stop = np.minimum(stop, np.where(still, 1.0, np.fmax(first, second)))
    good = start <= stop
    return a[good] + start[good, None] * way[good], a[good] + stop[good, None] * way[good]


def along_lines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return points (M, 2) along lines a..b (N, 2), close enough to meet every cell they pass for long."""
    count = np.maximum(np.ceil(np.linalg.norm(b - a, axis=1) / _SAMPLE).astype(int), 1) + 1
    line = np.repeat(np.arange(len(a)), count)
    rank = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
    return a[line] + (rank / (count[line] - 1))[:, None] * (b - a)[line]


def depth_scores(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Return AbsRel and delta1, in metres and with the median scaled, and the share of nothing; nothing counts as wrong."""
    hit = np.isfinite(found) & (found > 0)
    out = {"miss": float(1 - hit.mean())}
    scale = float(np.median(true[hit] / found[hit])) if hit.any() else 1.0
    for end, factor in (("", 1.0), ("_ms", scale)):
        error, close = np.ones(len(true)), np.zeros(len(true), bool)
        ratio = factor * found[hit] / true[hit]
        error[hit], close[hit] = np.abs(ratio - 1), np.maximum(ratio, 1 / ratio) < DELTA
        out[f"absrel{end}"], out[f"delta1{end}"] = float(error.mean()), float(close.mean())
    return out


def grid_scores(truth: Truth, occupied: np.ndarray, hole: np.ndarray, end: str = "") -> dict[str, float]:
    """Return obstacle recall, false obstacles, and both errors of paths; one cell of tolerance. NaN = too few to tell."""
    square = np.ones((3, 3))
    there = truth.grid == OCCUPIED
    clear = (truth.grid == FREE) & ~ndimage.binary_dilation(there, square)
    found = ndimage.binary_dilation(occupied, square)
    bad = np.append(widened(occupied | hole, ROBOT_RADIUS).ravel(), False)
    hit, blocked = bad[truth.paths].any(1), truth.blocked
    unseen, needless = int((blocked & ~hit).sum()), int((~blocked & hit).sum())
    return {
        f"recall{end}": _rate((found & there).sum(), there.sum(), ENOUGH_OCCUPIED),
        f"false{end}": _rate((occupied & clear).sum(), clear.sum(), ENOUGH_FREE),
        f"crash{end}": _rate(unseen, blocked.sum(), ENOUGH_PATHS),
        f"timid{end}": _rate(needless, (~blocked).sum(), ENOUGH_PATHS),
        f"unseen{end}": unseen, f"needless{end}": needless, f"paths{end}": len(blocked),
    }  # fmt: skip


def _rate(part: float, whole: float, enough: int) -> float:
    return float(part) / float(whole) if whole >= enough else float("nan")


def focal_error(world: World, truth: Truth) -> float:
    """Return |ln f / f true|, both as shares of the picture, geometric mean of both axes."""
    mine, true = world.camera, truth.case.camera
    ratio = [mine.K[i, i] / side_a * side_b / true.K[i, i] for i, side_a, side_b in
             ((0, mine.width, true.width), (1, mine.height, true.height))]
    return abs(float(np.log(ratio[0] * ratio[1]))) / 2


def score(truth: Truth, world: World | None) -> dict[str, float]:
    """Return the measures of a world; NaN = the truth does not tell. Without a world: the worst score of all that it does."""
    if world is None:
        there = score(truth, _nothing(truth))
        return {k: (WORST.get(k, v) if np.isfinite(v) else v) for k, v in there.items()} | {
            "unseen": int(truth.blocked.sum()), "needless": int((~truth.blocked).sum()), "signed_ln_scale": float("nan")}
    around, case = Surroundings(world), truth.case
    v, u = (a[:: max(1, int(np.isfinite(case.depth).sum()) // MOST_PIXELS)] for a in np.nonzero(np.isfinite(case.depth)))
    x, y, z = (u + 0.5) / case.camera.width, (v + 0.5) / case.camera.height, case.depth[v, u].astype(np.float64)
    out = dict.fromkeys(WORST, float("nan")) | {"ln_f": focal_error(world, truth), "signed_ln_scale": float("nan")}
    out |= depth_scores(z, around.first_hits("visual", x, y)[0])
    if truth.up is None:
        return out
    out["normal"] = float(np.degrees(np.arccos(np.clip(around.up @ truth.up, -1, 1))))
    ratio = around.height / truth.height
    out["signed_ln_scale"] = float(np.log(ratio)) if np.isfinite(ratio) else float("nan")
    out["ln_scale"] = abs(out["signed_ln_scale"]) if np.isfinite(ratio) else WORST["ln_scale"]
    if truth.grid is None:
        return out
    seen, over = around.first_hits("colliders", x, y)
    with np.errstate(invalid="ignore"):
        here = (np.abs(over) < floor_tolerance(seen)) & ~truth.ignored[v, u]
    floor = truth.floor[v, u]
    out["floor_iou"] = float((floor & here).sum() / max((floor | here).sum(), 1))
    if truth.has_grid:
        out |= grid_scores(truth, *around.occupancy())
        out |= grid_scores(truth, *around.occupancy(1 / ratio if np.isfinite(ratio) else 1.0), end="_s")
    return out


def _nothing(truth: Truth) -> World:
    far = np.array([[-1.0, 0.0, 900.0], [-1.0, 1.0, 900.0], [-1.0, 0.0, 901.0]])
    triangle = (far, np.array([[0, 1, 2]]))
    return World(truth.case.camera, np.eye(4), triangle, triangle)
