"""sanitize() on planted faults: each is counted, and what is sound is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from lyra_core.errors import InputError
from lyra_core.surface.sanitize import sanitize


def test_clean_mesh_passes_unchanged():
    box = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces, report = sanitize(box.vertices.astype(np.float32), box.faces)
    assert report.clean and np.array_equal(faces, box.faces) and np.array_equal(vertices, box.vertices.astype(np.float32))


def test_planted_faults_are_counted_and_removed():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    v, n, f = sphere.vertices, len(sphere.vertices), sphere.faces
    extra = np.array([[np.nan, 0, 0], [0, np.inf, 0], [9, 9, 9], v[5] + 1e-8, [1e39, 0, 0]])
    bad = np.array([[0, 1, n], [0, 1, n + 1], [0, 1, 10_000], [0, -1, 2], [3, 3, 4], [5, n + 3, 7], f[10], f[11][[0, 2, 1]],
                    f[12][[1, 2, 0]]])
    vertices, faces, report = sanitize(np.concatenate([v, extra]), np.concatenate([f, bad]))
    assert vars(report) == {"not_finite": 3, "bad_index": 2, "bad_vertex": 2, "welded": 1, "degenerate": 2, "duplicate": 3,
                            "unreferenced": 1}
    assert len(vertices) == n and np.array_equal(faces, f)
    assert vertices.dtype == np.float32 and faces.dtype == np.int32 and not report.clean
    assert sanitize(vertices, faces)[2].clean, "a second pass finds nothing"


def test_soup_is_welded_to_a_closed_mesh():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    soup = sphere.vertices[sphere.faces].reshape(-1, 3)
    vertices, faces, report = sanitize(soup, np.arange(len(soup)).reshape(-1, 3))
    assert len(vertices) == len(sphere.vertices) and report.welded == len(soup) - len(vertices)
    assert trimesh.Trimesh(vertices, faces, process=False).is_watertight


def test_collinear_faces_go_and_everything_may_go():
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], float)
    vertices, faces, report = sanitize(line, np.array([[0, 1, 2]]))
    assert report.degenerate == 1 and vertices.shape == (0, 3) and faces.shape == (0, 3)


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="integers"):
        sanitize(np.zeros((3, 3)), np.zeros((1, 3)))
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        sanitize(np.zeros((3, 2)), np.zeros((1, 3), int))
