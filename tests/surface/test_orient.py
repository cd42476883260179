"""Winding: inverted, half-flipped and unseen pieces end up facing free space."""

from __future__ import annotations

import numpy as np
import trimesh
from surface_scenes import room_mesh

from lyra_core.surface.orient import consistent_winding, orient_to_free_space

EYE = np.array([[-1.5, -1.0, 1.4]])


def same_winding(vertices, got, want):
    a, b = (np.cross(vertices[f[:, 1]] - vertices[f[:, 0]], vertices[f[:, 2]] - vertices[f[:, 0]]) for f in (got, want))
    return ((a * b).sum(1) > 0).mean()


def fine_room():
    mesh = room_mesh().subdivide().subdivide().subdivide()
    mesh.merge_vertices()
    return np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int32)


def test_right_winding_stays():
    vertices, faces = fine_room()
    assert np.array_equal(orient_to_free_space(vertices, faces, EYE), faces)


def test_inverted_and_half_flipped_rooms_are_mended():
    vertices, faces = fine_room()
    assert same_winding(vertices, orient_to_free_space(vertices, faces[:, ::-1], EYE), faces) == 1
    flip = np.random.default_rng(0).random(len(faces)) < 0.5
    mixed = np.where(flip[:, None], faces[:, ::-1], faces)
    assert same_winding(vertices, mixed, faces) < 0.6
    assert same_winding(vertices, orient_to_free_space(vertices, mixed, EYE), faces) == 1


def test_each_piece_decides_for_itself():
    vertices, faces = fine_room()
    piece, flip = consistent_winding(faces)
    assert piece.max() == 1 and not flip.any()
    one = np.where((piece == 1)[:, None], faces[:, ::-1], faces)
    assert same_winding(vertices, orient_to_free_space(vertices, one, EYE), faces) == 1


def test_piece_that_only_seen_surfaces_see():
    """A panel behind the box is hidden from the eye, but the wall behind it looks at it."""
    vertices, faces = fine_room()
    panel = np.array([[1.7, -0.5, 0.1], [1.7, 0.1, 0.1], [1.7, 0.1, 0.5], [1.7, -0.5, 0.5]])
    n = len(vertices)
    towards_wall = np.array([[n, n + 1, n + 2], [n, n + 2, n + 3]], np.int32)
    everything = np.concatenate([vertices, panel])
    got = orient_to_free_space(everything, np.concatenate([faces, towards_wall[:, ::-1]]), np.array([[-1.5, -0.2, 0.5]]))
    normal = np.cross(panel[1] - panel[0], panel[2] - panel[0])
    assert normal[0] > 0 and same_winding(everything, got[-2:], towards_wall) == 1


def test_closed_piece_out_of_sight_turns_outwards_and_empty_is_empty():
    vertices, faces = fine_room()
    ball = trimesh.creation.icosphere(subdivisions=1, radius=0.3)
    ball.apply_translation([30, 0, 0])
    all_vertices = np.concatenate([vertices, ball.vertices])
    want = np.concatenate([faces, ball.faces + len(vertices)])
    inside_out = np.concatenate([faces, ball.faces[:, ::-1] + len(vertices)])
    assert same_winding(all_vertices, orient_to_free_space(all_vertices, inside_out, EYE), want) == 1
    assert orient_to_free_space(vertices, faces[:0], EYE).shape == (0, 3)
