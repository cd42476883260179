"""Welding and splitting, against hand-made faults and NVIDIA's own manifold count."""

from __future__ import annotations

import numpy as np
import pytest
from room_world import box, join, quad

from lyra_core.errors import InputError
from lyra_core.usd.topology import GAP, clean

TWO_SQUARES_AT_A_CORNER = join([quad((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)), quad((1, 1, 0), (2, 1, 0), (2, 2, 0), (1, 2, 0))])
THREE_AT_AN_EDGE = join(
    [
        quad((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)),
        quad((1, 0, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0)),
        quad((1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0)),
    ]
)
AGAINST_EACH_OTHER = join([quad((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)), quad((1, 1, 0), (2, 1, 0), (2, 0, 0), (1, 0, 0))])


def faults(points: np.ndarray, faces: np.ndarray) -> tuple[int, int, bool]:
    """Return non-manifold edges, equal points, and whether neighbours are wound alike."""
    start, end = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    directed = np.stack([start, end], 1)
    _, twice = np.unique(directed, axis=0, return_counts=True)
    _, uses = np.unique(np.sort(directed, 1), axis=0, return_counts=True)
    return int((uses > 2).sum()), len(points) - len(np.unique(points, axis=0)), bool((twice == 1).all())


@pytest.mark.parametrize(
    "pieces", [TWO_SQUARES_AT_A_CORNER, THREE_AT_AN_EDGE, AGAINST_EACH_OTHER], ids=["corner", "edge", "winding"]
)
def test_what_is_no_manifold_is_split_and_nothing_else_changes(pieces) -> None:
    vertices, faces = pieces
    result = clean(vertices, faces)
    assert faults(result.points, result.faces) == (0, 0, True)
    assert len(result.faces) == len(faces)
    assert np.abs(result.points[result.faces] - vertices[faces[result.source_face]]).max() <= 4 * GAP
    checker = pytest.importorskip("usd_validation_nvidia._mesh_tools")
    from pxr import Vt

    counts = Vt.IntArray([3] * len(result.faces))
    assert checker.check_manifold_elements(len(result.points), Vt.IntArray(result.faces.reshape(-1).tolist()), counts) == (
        0,
        0,
        True,
    )


def test_random_soups_end_as_manifolds() -> None:
    rng = np.random.default_rng(0)
    lattice = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3).astype(np.float32)
    for _ in range(30):
        faces = np.array([rng.choice(27, 3, replace=False) for _ in range(60)])
        result = clean(lattice, faces)
        assert faults(result.points, result.faces) == (0, 0, True)


def test_closed_box_welds_to_eight_points_and_keeps_its_normals() -> None:
    result = clean(*box((0, 0, 0), (1, 2, 3)))
    assert len(result.points) == 8 and len(result.faces) == 12
    corner = (result.points - [0.5, 1, 1.5]) / [0.5, 1, 1.5]
    assert (result.normals() * corner > 0).all()
    np.testing.assert_allclose(np.linalg.norm(result.normals(), axis=1), 1, atol=1e-6)


def test_empty_double_and_unused_go() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [9, 9, 9]], np.float32)
    result = clean(vertices, np.array([[0, 1, 2], [1, 2, 0], [0, 1, 3], [2, 2, 1]]))
    assert len(result.points) == 3 and result.source_face.tolist() == [0]


def test_seams_stay_apart_by_their_attributes() -> None:
    vertices, faces = join([quad((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)), quad((1, 0, 0), (2, 0, 0), (2, 1, 0), (1, 1, 0))])
    uv = np.concatenate([vertices[:4, :2] * 0.25, vertices[4:, :2] * 0.25 + 0.5])
    assert len(clean(vertices, faces).points) == 6
    assert len(clean(vertices, faces, attributes=uv).points) == 8


def test_numbers_that_crash_native_code_are_refused() -> None:
    vertices, faces = quad((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))
    with pytest.raises(InputError, match="floor: vertices"):
        clean(np.where(vertices > 0, np.nan, vertices), faces, where="floor")
    with pytest.raises(InputError, match="floor: faces"):
        clean(vertices, faces + 2, where="floor")
