"""Geodesic distances against skimage, a pure-Python Dijkstra and closed forms."""

from __future__ import annotations

import heapq
import itertools
import time

import numpy as np
import pytest
from skimage.graph import MCP_Geometric

from lyra_core.config import NavigationCfg
from lyra_core.errors import InputError
from lyra_core.navigation import DiscSpace, GeodesicGraph, free_space
from lyra_core.navigation.freespace import clearance_of
from lyra_core.navigation.geodesic import path_length
from lyra_core.types import FreeSpace
from tests.tasks.worlds import floor, two_rooms


def grid(free):
    """Wrap a (rows, cols) bool grid with 1 m cells."""
    return FreeSpace(np.zeros(2), 1.0, free, clearance_of(free, 1.0), np.zeros(free.shape, np.uint8), 1.0)


def plain_dijkstra(free, start):
    """Compute 16-connected distances with a heap; no corner is cut."""
    best = np.full(free.shape, np.inf)
    best[start] = 0
    heap = [(0.0, start)]
    moves = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if np.gcd(i, j) == 1]

    def ok(i, j):
        return 0 <= i < free.shape[0] and 0 <= j < free.shape[1] and free[i, j]

    while heap:
        d, (i, j) = heapq.heappop(heap)
        if d > best[i, j]:
            continue
        for di, dj in moves:
            # Cells whose inside the open straight segment passes; for a diagonal the two beside its corner.
            t = np.linspace(0.02, 0.98, 49)
            cells = {(i + round(a), j + round(b)) for a, b in zip(t * di, t * dj, strict=True)}
            if abs(di) == abs(dj):
                cells |= {(i + di, j), (i, j + dj)}
            cells.add((i + di, j + dj))
            if all(ok(*c) for c in cells) and d + np.hypot(di, dj) < best[i + di, j + dj] - 1e-12:
                best[i + di, j + dj] = d + np.hypot(di, dj)
                heapq.heappush(heap, (best[i + di, j + dj], (i + di, j + dj)))
    return best


def test_field_equals_an_independent_dijkstra():
    free = np.random.default_rng(5).random((22, 26)) > 0.22
    free[4, 6] = True
    graph = GeodesicGraph(DiscSpace(grid(free), 0.4))
    got = graph.field(np.array([6.5, 4.5])).distance
    np.testing.assert_allclose(got, plain_dijkstra(free, (4, 6)), rtol=1e-12)


def test_field_is_between_the_straight_line_and_skimage():
    space = free_space(two_rooms(), cfg=NavigationCfg())
    disc = DiscSpace(space, 0.3)
    goal = disc.centres(*disc.cells(np.array([[8.0, -2.0]])))[0]
    got = GeodesicGraph(disc).field(goal).distance
    row, col = (int(a[0]) for a in disc.cells(goal[None]))
    eight, _ = MCP_Geometric(np.where(disc.traversable, space.cell, -1.0)).find_costs([(row, col)])
    reached = np.isfinite(got)
    assert (reached == np.isfinite(eight)).all() and reached.sum() > 10_000
    # Sixteen directions never lengthen a path, but corners are not cut: at most one cell's detour a corner.
    assert (got[reached] <= eight[reached] + 3 * space.cell).all()
    rows, cols = np.nonzero(reached)
    assert (got[reached] >= np.linalg.norm(disc.centres(rows, cols) - goal, axis=1) - 1e-9).all()


def test_empty_room_is_the_straight_line_within_the_known_bound():
    space = free_space([floor(0, 12, 0, 9)], cfg=NavigationCfg())
    disc = DiscSpace(space, 0.2)
    graph = GeodesicGraph(disc)
    goal = disc.centres(*disc.cells(np.array([[3.0, 2.0]])))[0]
    field = graph.field(goal)
    rng = np.random.default_rng(0)
    points = rng.uniform([0.5, 0.5], [11.5, 8.5], (200, 2))
    straight = np.linalg.norm(points - goal, axis=1)
    got = field.at(points)
    assert (got >= straight - 1e-9).all() and (got <= 1.0275 * straight + 0.05).all()
    for p in points[:20]:
        assert path_length(graph.path(field, p)) == pytest.approx(np.linalg.norm(p - goal), abs=1e-9)


def test_l_corridor_path_has_the_closed_form_length():
    parts = [floor(0, 6, 0, 1), floor(5, 6, 1, 6)]
    disc = DiscSpace(free_space(parts, cfg=NavigationCfg()), 0.3)
    graph = GeodesicGraph(disc)
    a, b = np.array([0.6, 0.5]), np.array([5.5, 5.4])
    length = path_length(graph.path(graph.field(b), a))
    # A string round the inner corner (5, 1), kept 0.3 m off it: two tangents and an arc.
    corner, r = np.array([5.0, 1.0]), 0.3
    da, db = np.linalg.norm(a - corner), np.linalg.norm(b - corner)
    angle = np.arccos((a - corner) @ (b - corner) / (da * db))
    exact = np.sqrt(da**2 - r**2) + np.sqrt(db**2 - r**2) + r * (2 * np.pi - angle - np.arccos(r / da) - np.arccos(r / db))
    assert exact <= length + 0.02 and length <= 1.01 * exact + 0.05


def test_paths_stay_clear_and_are_no_longer_than_the_field():
    disc = DiscSpace(free_space(two_rooms(), cfg=NavigationCfg()), 0.3)
    graph = GeodesicGraph(disc)
    rng = np.random.default_rng(2)
    rows, cols = np.nonzero(disc.traversable)
    places = disc.centres(rows, cols)
    for _ in range(20):
        start, goal = places[rng.integers(len(places), size=2)]
        field = graph.field(goal)
        path = graph.path(field, start)
        assert np.allclose(path[[0, -1]], [start, goal])
        dense = np.concatenate([a + np.linspace(0, 1, 60)[:, None] * (b - a) for a, b in itertools.pairwise(path)])
        assert disc.slack(dense).min() >= -5 * disc.space.cell**2 / (8 * disc.radius) - 1e-9
        assert np.linalg.norm(start - goal) - 1e-9 <= path_length(path) <= field.at(start[None])[0] + 1e-9


def test_unreachable_and_blocked_places_are_named():
    disc = DiscSpace(free_space(two_rooms(door_width=0.5), cfg=NavigationCfg()), 0.3)
    graph = GeodesicGraph(disc)
    field = graph.field(np.array([8.0, 0.0]))
    assert not np.isfinite(field.at(np.array([[0.0, 0.0]]))[0])
    with pytest.raises(InputError, match="connected"):
        graph.path(field, np.array([0.0, 0.0]))
    with pytest.raises(InputError, match="goal"):
        graph.field(np.array([2.0, 0.8]))


def test_field_of_400_by_400_cells_takes_a_tenth_of_a_second():
    free = np.ones((400, 400), bool)
    free[100:110, :350] = False
    graph = GeodesicGraph(DiscSpace(grid(free), 0.4))
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        graph.field(np.array([5.5, 3.5]))
        seconds.append(time.process_time() - begin)
    assert min(seconds) <= 0.1
