"""Outlines of obstacles are put on the floor only where they stay simple polygons."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.solids import _stood, triangulated_area


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
