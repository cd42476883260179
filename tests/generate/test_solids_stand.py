"""Outlines of obstacles are put on the floor only where they stay simple polygons."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.solids import _close, _stood, _without_straight_corners, triangulated_area


def outline(*points: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return front (N, 3) and its positions along the front (N,) of an outline (along, z)."""
    along, z = np.array(points).T
    return np.column_stack([np.full(len(along), 2.0), along, z]), along


def test_low_points_of_a_chair_stand_on_the_floor() -> None:
    front, along = outline((0, 0.04), (0.1, 0.02), (0.1, 0.4), (0.4, 0.4), (0.4, 0.05), (0.5, 0.03), (0.5, 0.8), (0, 0.8))
    stood = _stood(front, along)
    assert stood[[0, 1, 4, 5], 2].tolist() == [0, 0, 0, 0] and (stood[[2, 3, 6, 7]] == front[[2, 3, 6, 7]]).all()


def test_an_outline_that_would_cross_itself_stays_as_it_is() -> None:
    # A long slanted lower edge with feet just above it: on the floor, the feet would come out below the edge.
    front, along = outline((0, 0.0), (2, 0.19), (2, 1.0), (1.8, 1.0), (1.8, 0.25), (0.5, 0.12), (0.5, 0.055), (0.3, 0.05),
                           (0.3, 0.10), (0.1, 0.05))
    assert (_stood(front, along) == front).all()
    assert triangulated_area(front[:, 1:]) > 0


def open_edges(front: np.ndarray) -> int:
    """Return the edges that are not shared by exactly two faces, of the prism over a front (N, 3)."""
    vertices = np.concatenate([front, front + [0.5, 0, 0]])
    faces, _ = _close(front[:, 1:], vertices)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    return int((np.unique(edges, axis=0, return_counts=True)[1] != 2).sum())


def test_solids_are_closed_where_the_lower_edge_runs_back_on_the_floor() -> None:
    # Of a real picture: a foot whose lowest corners go back and forth once they are on the floor.
    front, along = outline((0.0, 0.05), (0.056, 0.01), (0.055, 0.02), (0.097, 0.0), (0.4, 0.3), (0.3, 0.8), (0.1, 0.8))
    stood = _stood(front, along)
    assert open_edges(stood) > 0, "the corners between the first and the last on the floor are in no triangle"
    clean, along = _without_straight_corners(stood, along)
    assert open_edges(clean) == 0 and along.tolist() == clean[:, 1].tolist()
    assert triangulated_area(clean[:, 1:]) == triangulated_area(stood[:, 1:])
