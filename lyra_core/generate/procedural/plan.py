"""The floor plan: the photo's place closed behind the camera, and further spaces behind doors, from the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.types import Provenance

WALL_THICKNESS = 0.15
"""Between two spaces [m]."""
LOWEST_CEILING = 2.0
"""Rooms are made for people, whatever a wrong scale says [m]."""
HEADROOM = 0.5
"""A ceiling is at least this far above the camera [m]."""
USUAL_CEILING = 2.6
"""Of a room whose ceiling the photo does not show [m]."""
STREET_WALL = 6.0
"""Height of walls outdoors that nobody saw [m]."""
DOOR_WIDTH, DOOR_HEIGHT = 1.0, 2.1
"""Indoor doors [m]."""
STREET_LENGTH = 90.0
"""The extent that the Lyra 2.0 paper is quoted with [m]."""
GATE_WIDTH = 4.0
"""Outdoor passages, where the place is wide enough [m]."""


@dataclass(frozen=True)
class Space:
    """One connected place with a flat floor."""

    name: str
    corners: np.ndarray
    """(K, 2) floor-plan polygon, counter-clockwise [m]; edge i runs from corner i to i + 1, its left side is inside."""
    edge_provenance: tuple[Provenance, ...]
    height: float
    """Of the walls [m]; seen walls outdoors follow their skyline instead."""
    ceiling: bool

    def edge(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the two ends (2,) of an edge [m]."""
        return self.corners[index], self.corners[(index + 1) % len(self.corners)]


@dataclass(frozen=True)
class Opening:
    """A passage between two parallel edges of two spaces."""

    spaces: tuple[int, int]
    edges: tuple[int, int]
    centre: np.ndarray
    """(2,) middle of the passage on the first edge [m]."""
    width: float
    """[m]"""
    height: float | None
    """Of the lintel [m]; None = open to the top."""

    @property
    def name(self) -> str:
        """Of the passage's parts in mesh and colliders."""
        return f"passage_{self.spaces[0]}_{self.spaces[1]}"


@dataclass(frozen=True)
class Plan:
    """All spaces and the passages between them; space 0 is the photo's."""

    spaces: tuple[Space, ...]
    openings: tuple[Opening, ...]

    def places(self) -> np.ndarray:
        """Return (S, 2) one point inside each space, the camera's own first: the stops of a tour."""
        return np.array([[0.0, 0.0], *(space.corners.mean(0) for space in self.spaces[1:])])

    def gaps(self, space: int, edge: int) -> list[tuple[float, float, float | None]]:
        """Return (from, to, lintel height) of the openings in one edge, along it [m]; a height of None is open to the top."""
        start, end = self.spaces[space].edge(edge)
        direction = (end - start) / np.hypot(*(end - start))
        found = [o for o in self.openings if (space, edge) in zip(o.spaces, o.edges, strict=True)]
        middles = [float((o.centre - start) @ direction) for o in found]
        return [(at - o.width / 2, at + o.width / 2, o.height) for at, o in zip(middles, found, strict=True)]


def wall_foot(gaps: list[tuple[float, float, float | None]], low: float, high: float) -> float | None:
    """Return where a wall begins between two positions along its edge: at 0, on a lintel [m], or nowhere (None)."""
    for start, end, lintel in gaps:
        if start - 1e-6 <= low and high <= end + 1e-6:
            return lintel
    return 0.0


def make_plan(
    backdrop: np.ndarray,
    *,
    indoor: bool,
    eye_height: float,
    ceiling_height: float | None,
    rng: np.random.Generator,
) -> Plan:
    """Close the backdrop polyline (P, 2) [m] to a room or street, and add what lies behind it.

    Everything but the backdrop itself is a function of the seed and of the world, never of a view.

    Args:
        backdrop: the seen walls from right to left, as backdrop_polyline returns them.
        indoor: a hall and two rooms, or a street and a court.
        eye_height: of the camera [m]; a ceiling stays above it.
        ceiling_height: as seen [m]; None = not seen.
        rng: decides what is unseen.
    """
    height = max(ceiling_height or USUAL_CEILING, LOWEST_CEILING, eye_height + HEADROOM) if indoor else STREET_WALL
    place = _close(
        backdrop,
        behind=float(rng.uniform(2.6, 3.6)) if indoor else float(rng.uniform(7.0, 9.0)),
        least=0.95 if indoor else 3.0,
        height=height,
        ceiling=indoor,
    )
    return _with_rooms(place, height, rng) if indoor else _with_street(place, height, rng)


def _close(backdrop: np.ndarray, *, behind: float, least: float, height: float, ceiling: bool) -> Space:
    """Continue the borders straight back and across. ``least`` is the smallest half width beside the camera."""
    right, left = backdrop[0], backdrop[-1]
    y_right, y_left = min(right[1], -least), max(left[1], least)
    tail = [] if abs(y_left - left[1]) < 1e-9 else [[left[0], y_left]]
    head = [] if abs(y_right - right[1]) < 1e-9 else [[right[0], y_right]]
    corners = np.array([*backdrop, *tail, [-behind, y_left], [-behind, y_right], *head])
    seen = len(backdrop) - 1
    edges = (Provenance.SEEN,) * seen + (Provenance.CONTINUED,) * (len(corners) - seen)
    return Space("place", corners, edges, height, ceiling)


def _rectangle(name: str, x: tuple[float, float], y: tuple[float, float], height: float, ceiling: bool) -> Space:
    """Edges in order: right (y low, towards +x), front (+x side), left, back."""
    corners = np.array([[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]])
    return Space(name, corners, (Provenance.INVENTED,) * 4, height, ceiling)


def _back_edge(space: Space) -> tuple[int, float, float, float]:
    """Return the edge at the lowest x that runs along y: its number, its x, its lowest and its highest y [m]."""
    a, b = space.corners, np.roll(space.corners, -1, 0)
    back = np.where((np.abs(a[:, 0] - b[:, 0]) < 1e-9), (a[:, 0] + b[:, 0]) / 2, np.inf)
    edge = int(np.argmin(back))
    y0, y1 = sorted((a[edge, 1], b[edge, 1]))
    return edge, a[edge, 0], y0, y1


def _with_rooms(place: Space, height: float, rng: np.random.Generator) -> Plan:
    """Indoors: a hall across the back of the place, and two rooms behind the hall."""
    edge, back, y0, y1 = _back_edge(place)
    door_y = float(rng.uniform(y0 + 0.75, y1 - 0.75)) if y1 - y0 > 1.6 else (y0 + y1) / 2
    depth, length = float(rng.uniform(2.2, 2.8)), float(rng.uniform(10.0, 12.0))
    shift = float(rng.uniform(-0.3, 0.3)) * (length - 3)
    hall_x = (back - WALL_THICKNESS - depth, back - WALL_THICKNESS)
    hall_y = (door_y - length / 2 + shift, door_y + length / 2 + shift)
    hall = _rectangle("hall", hall_x, hall_y, height, True)
    openings = [Opening((0, 1), (edge, 1), np.array([back, door_y]), DOOR_WIDTH, min(DOOR_HEIGHT, height - 0.1))]
    spaces = [place, hall]
    middle = float(rng.uniform(hall_y[0] + 0.42 * length, hall_y[0] + 0.58 * length))
    for i, y in enumerate(((hall_y[0], middle - WALL_THICKNESS / 2), (middle + WALL_THICKNESS / 2, hall_y[1]))):
        far = hall_x[0] - WALL_THICKNESS
        room = _rectangle(f"room_{i + 1}", (far - float(rng.uniform(5.5, 7.0)), far), y, height, True)
        spaces.append(room)
        centre = np.array([hall_x[0], float(rng.uniform(y[0] + 1.0, y[1] - 1.0))])
        openings.append(Opening((1, len(spaces) - 1), (3, 1), centre, DOOR_WIDTH, min(DOOR_HEIGHT, height - 0.1)))
    return Plan(tuple(spaces), tuple(openings))


def _with_street(place: Space, height: float, rng: np.random.Generator) -> Plan:
    """Outdoors: a long street behind the place through a wide gate, and a court beside its middle."""
    edge, back, y0, y1 = _back_edge(place)
    width = float(np.clip(y1 - y0, 6.0, 14.0))
    middle = float(np.clip(0.0, y0 + 2.5, y1 - 2.5)) if y1 - y0 > 5 else (y0 + y1) / 2
    x = (back - WALL_THICKNESS - STREET_LENGTH, back - WALL_THICKNESS)
    street = _rectangle("street", x, (middle - width / 2, middle + width / 2), height, False)
    gate = min(GATE_WIDTH, y1 - y0 - 0.4)
    side = int(rng.integers(2))
    court_x = x[1] - float(rng.uniform(18.0, 30.0))
    size = float(rng.uniform(14.0, 18.0))
    y_edge = middle + width / 2 if side else middle - width / 2
    low = y_edge + WALL_THICKNESS if side else y_edge - WALL_THICKNESS - size
    high = y_edge + WALL_THICKNESS + size if side else y_edge - WALL_THICKNESS
    court = _rectangle("court", (court_x - size, court_x), (low, high), height, False)
    openings = (
        Opening((0, 1), (edge, 1), np.array([back, middle]), gate, None),
        Opening((1, 2), (2, 0) if side else (0, 2), np.array([court_x - size / 2, y_edge]), GATE_WIDTH, None),
    )
    return Plan((place, street, court), openings)
