"""Floor plans: which places are taken, and rooms whose walls have windows and doors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lyra_core.scenes import shell
from lyra_core.scenes.palette import carpet_colours, daylight, floor_material, pick, wall_material
from lyra_core.scenes.scene import Light, Material, SceneBuilder, place
from lyra_core.types import Label

Rect = tuple[float, float, float, float]
"""x0, y0, x1, y1 [m]."""


@dataclass
class Plan:
    """A rectangle of floor and what stands on it."""

    bounds: Rect
    taken: list[Rect] = field(default_factory=list)

    def fits(self, T: np.ndarray, footprint: Rect, *, margin: float = 0.0) -> bool:
        """Say whether a footprint in frame T lies inside the bounds and beside everything that is taken."""
        x0, y0, x1, y1 = _bounds(T, footprint)
        a, b, c, d = self.bounds
        if x0 < a - 1e-6 or y0 < b - 1e-6 or x1 > c + 1e-6 or y1 > d + 1e-6:
            return False
        return not any(
            x0 < X1 + margin and X0 < x1 + margin and y0 < Y1 + margin and Y0 < y1 + margin for X0, Y0, X1, Y1 in self.taken
        )

    def take(self, T: np.ndarray, footprint: Rect) -> None:
        """Mark a footprint in frame T as taken."""
        self.taken.append(_bounds(T, footprint))

    def along(
        self, rng: np.random.Generator, wall: Wall, width: float, depth: float, *, tall: bool = False, at: float | None = None
    ) -> np.ndarray | None:
        """Take a place with its back to a wall and return its frame, or None; tall pieces keep off the windows."""
        for _ in range(12):
            low, high = width / 2 + 0.04, wall.length - width / 2 - 0.04
            if high <= low:
                return None
            s = rng.uniform(low, high) if at is None else float(np.clip(at * wall.length, low, high))
            T, footprint = wall.T @ place(s, 0.015), (-width / 2, 0.0, width / 2, depth)
            blocked = any(
                s - width / 2 < o.end + 0.08 and o.start - 0.08 < s + width / 2 for o in wall.openings if tall or o.bottom == 0
            )
            if not blocked and self.fits(T, footprint):
                self.take(T, footprint)
                return T
            at = None
        return None

    def free(
        self,
        rng: np.random.Generator,
        width: float,
        depth: float,
        *,
        yaw: float | None = None,
        margin: float = 0.05,
        tries: int = 15,
    ) -> np.ndarray | None:
        """Take a free place for a piece about its centre and return its frame, or None; without yaw it is turned at random."""
        x0, y0, x1, y1 = self.bounds
        for _ in range(tries):
            T = place(rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(0, 2 * np.pi) if yaw is None else yaw)
            footprint = (-width / 2, -depth / 2, width / 2, depth / 2)
            if self.fits(T, footprint, margin=margin):
                self.take(T, footprint)
                return T
        return None


@dataclass(frozen=True)
class Wall:
    """One wall of a room: x of its frame runs along it, y into the room."""

    T: np.ndarray
    length: float
    """[m]"""
    openings: tuple[shell.Opening, ...] = ()


@dataclass(frozen=True)
class Room:
    """A rectangular room with its floor plan."""

    plan: Plan
    walls: tuple[Wall, ...]
    """right, front, left, back."""
    height: float
    window_walls: tuple[int, ...]
    door_wall: int
    night: bool


def _bounds(T: np.ndarray, footprint: Rect) -> Rect:
    x0, y0, x1, y1 = footprint
    corners = [T[:2, :2] @ c + T[:2, 3] for c in ((x0, y0), (x1, y0), (x0, y1), (x1, y1))]
    low, high = np.min(corners, 0), np.max(corners, 0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


NAMES = ("right", "front", "left", "back")


def make_room(
    b: SceneBuilder, rng: np.random.Generator, size: tuple[float, float], height: float, *, style: str, night: bool = False
) -> Room:
    """Build a room of size x, y [m] about the origin with windows in one or two walls and a door in another."""
    w, d = size
    lengths = (w, d, w, d)
    order = rng.permutation(4)
    window_walls = tuple(int(i) for i in order[: 1 + (rng.random() < 0.35)])
    door_wall = int(order[2])
    openings: dict[int, tuple[shell.Opening, ...]] = {i: _window_openings(rng, lengths[i], height, style) for i in window_walls}
    start = rng.uniform(0.3, max(0.35, lengths[door_wall] - 1.3))
    door = shell.Opening(start, start + 0.88, 0.0, 2.03)
    openings[door_wall] = (door,)
    main, accent = wall_material(rng, style), wall_material(rng, style)
    chosen = int(order[3]) if rng.random() < 0.5 else -1
    walls = {NAMES[i]: accent if i == chosen else main for i in range(4)}
    frames = shell.add_room(
        b, (-w / 2, -d / 2), (w / 2, d / 2), height, openings={NAMES[i]: o for i, o in openings.items()}, walls=walls,
        floor=floor_material(rng, style),
    )  # fmt: skip
    for i in window_walls:
        for o in openings[i]:
            shell.add_window(b, frames[NAMES[i]], o, panes=int(rng.integers(1, 4)), daylight=None if night else daylight(rng))
        if not night and rng.random() < 0.45:
            b.lights.append(_sun_through(rng, frames[NAMES[i]]))
    _hang_door(b, rng, frames[NAMES[door_wall]], door, main)
    plan = Plan((-w / 2, -d / 2, w / 2, d / 2))
    plan.take(frames[NAMES[door_wall]], (door.start, 0.0, door.end, 0.9))
    built = tuple(Wall(frames[NAMES[i]], lengths[i], openings.get(i, ())) for i in range(4))
    return Room(plan, built, height, window_walls, door_wall, night)


def _window_openings(rng: np.random.Generator, length: float, height: float, style: str) -> tuple[shell.Opening, ...]:
    bottom = 0.85 if style == "office" else float(rng.choice([0.08, 0.5, 0.8, 0.95]))
    top = min(height - rng.uniform(0.15, 0.4), rng.uniform(2.05, 2.5))
    width = min(rng.uniform(1.1, 2.4), length - 1.0)
    count = int(max(1, min(4, (length - 0.6) // (width + 0.5)))) if style == "office" or rng.random() < 0.4 else 1
    gap = (length - count * width) / (count + 1)
    starts = [gap + i * (width + gap) for i in range(count)]
    return tuple(shell.Opening(s, s + width, bottom, top) for s in starts)


def _sun_through(rng: np.random.Generator, T: np.ndarray) -> Light:
    to = T[:3, :3] @ [rng.uniform(-0.9, 0.9), -1.0, rng.uniform(0.45, 1.2)]
    strength = rng.uniform(5, 14)
    return Light("sun", tuple(to), (strength, 0.9 * strength, 0.74 * strength), radius=0.006)


def _hang_door(b: SceneBuilder, rng: np.random.Generator, T: np.ndarray, door: shell.Opening, wall: Material) -> None:
    """Hang a closed door, an open one, or none, with a lit space behind it."""
    leaf = pick(rng, (shell.WHITE, Material("wood", (0.72, 0.55, 0.36), (0.52, 0.36, 0.21), gloss=0.02)))
    state = rng.random()
    if state < 0.5:
        shell.add_door(b, T, door, material=leaf)
        return
    add_space_behind(b, rng, T, door, wall)
    if state < 0.85:
        shell.add_door(b, T, door, material=leaf, ajar=rng.uniform(0.9, 1.6))


def add_space_behind(
    b: SceneBuilder, rng: np.random.Generator, T: np.ndarray, o: shell.Opening, wall: Material, *, light: bool = True
) -> None:
    """Add a plain room behind an opening of the wall with frame T, so that one sees floor and walls through it."""
    deep, x0, x1, h, t = rng.uniform(1.6, 3.5), o.start - rng.uniform(0.1, 1.0), o.end + rng.uniform(0.1, 1.0), 2.5, shell.THICKNESS
    cx, cy, w = (x0 + x1) / 2, -t - deep / 2, x1 - x0
    floor = Material("plain", tuple(carpet_colours(rng)[0]))
    b.box(T, (cx, cy + t / 2, -0.1), (w, deep + t, 0.198), floor, label=Label.FLOOR)
    b.box(T, (cx, cy, h + 0.05), (w, deep, 0.1), shell.CEILING, label=Label.CEILING)
    b.box(T, (cx, -t - deep - 0.05, h / 2), (w + 0.2, 0.1, h), wall, label=Label.WALL)
    for x in (x0 - 0.05, x1 + 0.05):
        b.box(T, (x, cy, h / 2), (0.1, deep, h), wall, label=Label.WALL)
    if light and rng.random() < 0.75:
        centre, power = T @ [cx, cy, h - 0.1, 1], rng.uniform(0.8, 2.0)
        b.lights.append(Light("sphere", tuple(centre[:3]), (power, 0.85 * power, 0.65 * power), radius=0.1))
