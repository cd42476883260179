"""The health report against meshes whose faults are known, against trimesh, and on real scans; repair keeps what is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from lyra_core.errors import InputError
from lyra_core.io.glb import to_z_up
from lyra_core.surface.health import check_mesh
from lyra_core.surface.repair import repair
from lyra_core.surface.scale import UNKNOWN_SIGMA, plausible_scale

MESHES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "meshes"
UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "foot": 0.3048}


def room(*, height: float = 2.6, inward: bool = True, table: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return a room of 5 x 4 m, finely cut, its fronts inside, with a table."""
    box = trimesh.creation.box((5, 4, height)).subdivide_to_size(0.4)
    parts = [trimesh.Trimesh(box.vertices + [0, 0, height / 2], box.faces[:, ::-1] if inward else box.faces, process=False)]
    if table:
        parts.append(trimesh.creation.box((1.4, 0.8, 0.04), trimesh.transformations.translation_matrix([1, 0, 0.72])))
    mesh = trimesh.util.concatenate(parts)
    return np.array(mesh.vertices), np.array(mesh.faces)


def scan(name: str) -> tuple[np.ndarray, np.ndarray]:
    path = MESHES / f"{name}.ply"
    if not path.exists():
        pytest.skip("the evaluation data is not here")
    mesh = trimesh.load(path, process=False)
    return to_z_up(np.asarray(mesh.vertices, np.float64)), np.asarray(mesh.faces)


def test_a_sound_room() -> None:
    health = check_mesh(*room())
    assert health.enclosed and health.inverted < 0.001 and health.pieces == 2
    assert health.open_edges == health.non_manifold_edges == health.non_manifold_vertices == health.disagreeing_edges == 0
    assert health.floor.area == pytest.approx(20, rel=0.01) and health.floor.tilt < 0.01 and health.floor.rms < 0.1
    assert health.area == pytest.approx(2 * (5 * 4 + 5 * 2.6 + 4 * 2.6) + 2 * (1.4 * 0.8 + 0.04 * 2.2), rel=1e-6)
    assert health.thin == 0 and health.crossing == 0
    assert health.findings() == []
    json.dumps(health.to_dict(), allow_nan=False)


def test_inside_out_and_mixed() -> None:
    vertices, faces = room(inward=False, table=False)
    health = check_mesh(vertices, faces)
    assert health.inverted > 0.99 and "shows its back" in health.findings()[0]
    faces[::5] = faces[::5, ::-1]
    assert check_mesh(vertices, faces).disagreeing_edges > 0
    done = repair(vertices, faces)
    again = check_mesh(done.vertices, done.faces)
    assert again.inverted < 0.001 and again.disagreeing_edges == 0
    mesh = trimesh.Trimesh(done.vertices, done.faces, process=False)
    assert mesh.is_winding_consistent and mesh.volume < 0
    assert done.turned.sum() == pytest.approx(0.8 * len(faces), abs=1)


def test_a_solid_alone_is_turned_outwards() -> None:
    ball = trimesh.creation.icosphere(2, radius=0.2)
    assert check_mesh(ball.vertices, ball.faces).inverted < 0.01
    assert check_mesh(ball.vertices, ball.faces[:, ::-1]).inverted > 0.99
    assert trimesh.Trimesh(ball.vertices, repair(ball.vertices, ball.faces[:, ::-1]).faces).volume > 0


def test_holes_are_measured_and_small_ones_closed() -> None:
    vertices, faces = room()
    fine = trimesh.Trimesh(vertices, faces, process=False).subdivide_to_size(0.2)
    vertices, faces = np.array(fine.vertices), np.array(fine.faces)
    flat = np.abs(vertices[faces][:, :, 2]).max(1) < 1e-9
    middle = vertices[faces].mean(1)
    small = np.argmin(np.where(flat, np.linalg.norm(middle - [-1.5, 1, 0], axis=1), 9))
    large = flat & (np.abs(middle[:, :2] - [-1, -1]).max(1) < 0.4)
    kept = np.ones(len(faces), bool)
    kept[small] = kept[large] = False
    health = check_mesh(vertices, faces[kept])
    corners = vertices[faces[small]]
    rim = np.linalg.norm(corners - np.roll(corners, 1, 0), axis=1).sum()
    assert health.hole_count == 2 and health.holes[1]["perimeter"] == pytest.approx(rim)
    done = repair(vertices, faces[kept], max_perimeter=0.6)
    assert len(done.filled) == 1 and check_mesh(done.vertices, done.faces).hole_count == 1
    new = done.vertices[done.faces[done.filled[0]]]
    assert np.cross(new[1] - new[0], new[2] - new[0])[2] > 0  # the floor's patch looks up
    assert (done.source_face[done.source_face >= 0] == np.flatnonzero(np.ones(kept.sum(), bool))).all()
    wide = repair(vertices, faces[kept], max_perimeter=10)
    assert trimesh.Trimesh(wide.vertices, wide.faces).is_watertight
    assert len(repair(vertices, faces[kept], max_perimeter=0).filled) == 0


def test_edges_like_trimesh_and_by_hand() -> None:
    tetra = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [2, 1, 1], [1, 2, 1.0]])
    book = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    assert check_mesh(tetra, book).non_manifold_edges == 1
    bow = np.array([[0, 1, 2], [0, 3, 4]])
    health = check_mesh(tetra, bow)
    assert health.non_manifold_vertices == 1 and health.pieces == 2 and health.open_edges == 6 and health.unreferenced == 2
    vertices, faces = scan("meeting_room")
    health, judge = check_mesh(vertices, faces), trimesh.Trimesh(vertices, faces, process=False)
    assert judge.is_watertight and health.open_edges == 0 and judge.is_winding_consistent and health.disagreeing_edges == 0
    assert health.pieces == judge.body_count and health.area == pytest.approx(judge.area)


def test_counts_of_broken_elements() -> None:
    vertices, faces = room()
    count = len(faces)
    broken = np.concatenate([vertices, [[np.nan, 0, 0], [0, np.inf, 0], [9, 9, 9]]])
    n = len(vertices)
    faces = np.concatenate([faces, faces[:3], [[0, 0, 1], [0, 1, n], [1, 2, 10**6]]])
    health = check_mesh(broken, faces)
    assert (health.not_finite, health.bad_faces, health.degenerate, health.duplicate, health.unreferenced) == (2, 2, 1, 3, 1)
    done = repair(broken, faces)
    assert len(done.faces) == count and len(done.vertices) == n and len(done.notes) >= 5
    np.testing.assert_array_equal(broken[done.source_vertex], done.vertices)
    for bad in (np.full_like(vertices, np.nan), vertices[:0]):
        with pytest.raises(InputError):
            check_mesh(bad, faces)
        with pytest.raises(InputError):
            repair(bad, faces)


def test_thin_wall_tilted_floor_step_and_crossing() -> None:
    vertices, faces = room(table=False)
    wall = trimesh.creation.box((0.01, 3, 2), trimesh.transformations.translation_matrix([0.5, 0, 1.2]))
    both = trimesh.util.concatenate([trimesh.Trimesh(vertices, faces, process=False), wall])
    health = check_mesh(both.vertices, both.faces)
    assert health.thinnest == pytest.approx(0.01, abs=2e-4) and health.thin == pytest.approx(12 / health.area, rel=0.05)
    turn = trimesh.transformations.rotation_matrix(np.deg2rad(2), [1, 0, 0])
    health = check_mesh(trimesh.transform_points(vertices, turn), faces)
    assert health.floor.tilt == pytest.approx(2, abs=0.5) and any("tilted" in text for text in health.findings())
    step = trimesh.creation.box((2, 2, 0.15), trimesh.transformations.translation_matrix([0, 0, 0.08]))
    raised = trimesh.util.concatenate([trimesh.Trimesh(vertices, faces, process=False), step])
    assert check_mesh(raised.vertices, raised.faces).floor.steps == pytest.approx([0.16], abs=0.011)
    a, b = trimesh.creation.icosphere(2), trimesh.creation.icosphere(2)
    b.apply_translation([1.1, 0.1, 0.2])
    pair = trimesh.util.concatenate([a, b])
    assert check_mesh(pair.vertices, pair.faces).crossing > 0.03 > check_mesh(a.vertices, a.faces).crossing == 0


@pytest.mark.parametrize("name", ["living_room", "meeting_room", "office_small"])
def test_scale_of_real_rooms_in_any_unit(name: str) -> None:
    vertices, faces = scan(name)
    for metres in UNITS.values():
        factor, sigma, reasons = plausible_scale(vertices / metres, faces)
        assert factor == pytest.approx(metres, rel=0.1) and sigma < UNKNOWN_SIGMA and len(reasons) >= 2
    health = check_mesh(vertices, faces)
    assert health.enclosed and health.inverted < 0.01 and health.open_edges == 0
    assert check_mesh(vertices / 0.01, faces).scale == pytest.approx(0.01, rel=0.1)
    done = repair(vertices, faces)
    assert abs(len(done.faces) - len(faces)) < 0.001 * len(faces)


def test_scale_of_a_reconstruction_by_room_table_and_door() -> None:
    factor, sigma, _ = plausible_scale(room()[0] * 7.3, room()[1], arbitrary=True)
    assert factor * 7.3 == pytest.approx(1, abs=0.1) and sigma < UNKNOWN_SIGMA
    walls = [trimesh.creation.box(size, trimesh.transformations.translation_matrix(place)) for size, place in (
        ((0.15, 1.55, 2.6), (0, -1.225, 1.3)), ((0.15, 1.55, 2.6), (0, 1.225, 1.3)), ((0.15, 0.9, 0.55), (0, 0, 2.325)))]
    shell = trimesh.Trimesh(*room(table=False), process=False)
    both = trimesh.util.concatenate([shell, *walls])
    factor, sigma, reasons = plausible_scale(both.vertices * 0.4, both.faces, arbitrary=True)
    assert factor * 0.4 == pytest.approx(1, abs=0.05) and sigma < 0.25
    assert any("An opening is 0.82 units high and 0.36 wide" in text for text in reasons)


def test_scale_is_unknown_where_nothing_is_seen() -> None:
    ball = trimesh.creation.icosphere(3, radius=0.7)
    assert plausible_scale(ball.vertices, ball.faces)[1] > UNKNOWN_SIGMA
    vertices, faces = scan("room_fragment_coloured")
    assert plausible_scale(vertices, faces)[1] > UNKNOWN_SIGMA
    assert np.isnan(check_mesh(vertices, faces).inverted)
