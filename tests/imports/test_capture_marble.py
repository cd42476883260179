"""Marble's exports and Lyra 2.0's runs: splats and mesh, splats and cameras, brought into one frame."""

from __future__ import annotations

import json
from pathlib import Path

import capture_room as room
import numpy as np
import pytest
import trimesh

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.imports.detect import detect_kind, load_source
from lyra_core.imports.marble import OPENCV_TO_Y_UP, fit_axes
from lyra_core.types import GaussianCloud, Provenance

formats = pytest.importorskip("lyra_core.splats.formats")


def place() -> trimesh.Trimesh:
    """Return a lopsided place, +Y up: a floor at y = -1.2, two walls, things in corners; no turn brings it onto itself."""
    boxes = [((6, 0.1, 4), (0, -1.2, 0)), ((6, 2.5, 0.1), (0, 0, -2)), ((0.1, 2.5, 4), (3, 0, 0)),
             ((0.8, 0.6, 0.5), (-2, -0.9, -1)), ((0.4, 1.4, 0.4), (2.2, -0.5, 1.2))]
    parts = [trimesh.creation.box(extents, trimesh.transformations.translation_matrix(at)) for extents, at in boxes]
    return trimesh.util.concatenate(parts)


def cloud(points: np.ndarray) -> GaussianCloud:
    n = len(points)
    return GaussianCloud(points.astype(np.float32), np.tile(np.float32([1, 0, 0, 0]), (n, 1)), np.full((n, 3), 0.02, np.float32),
                         np.full(n, 0.9, np.float32), np.zeros((n, 1, 3), np.float32), np.full(n, Provenance.SEEN, np.uint8))


def export(folder: Path, turn: np.ndarray, *, suffix: str = ".ply", scale: float = 1.0, noise: float = 0.01) -> np.ndarray:
    """Write a collider (by trimesh) and splats that turn @ splat = mesh; return the splats' true places on the mesh."""
    mesh = place()
    mesh.export(folder / "collider.glb")
    points, _ = trimesh.sample.sample_surface(mesh, 5000, seed=1)
    points = points + np.random.default_rng(2).normal(0, noise, points.shape)
    sky = np.random.default_rng(3).normal(0, 1, (500, 3))
    points[:500] = 40 * sky / np.linalg.norm(sky, axis=1, keepdims=True)
    formats.write_splat_file(folder / f"world{suffix}", cloud(points @ turn / scale))
    return points


@pytest.mark.parametrize(("turn", "words"), [
    (OPENCV_TO_Y_UP, "x -y -z"), (np.eye(3), "x y z"), (np.diag([-1.0, -1, 1]), "-x -y z"),
    (np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), "x z -y")])
def test_the_turn_that_fits_is_found(tmp_path, turn, words):
    points = export(tmp_path, turn)
    assert detect_kind(tmp_path) == "marble"
    source = load_source(tmp_path)
    assert source.facts["axes"] == words and source.facts["axes_distance"] < 0.01 < source.facts["axes_runner_up"]
    assert np.abs(source.cloud.means - points).max() < 1e-4
    assert np.array_equal(source.up, [0, 1, 0]) and source.mesh is not None and source.metres_per_unit is None
    assert words in " ".join(source.notes)


def test_spz_lands_on_the_mesh_too(tmp_path):
    points = export(tmp_path, OPENCV_TO_Y_UP, suffix=".spz")
    source = load_source(tmp_path)
    # SPZ keeps 12 bits of fraction.
    assert np.abs(source.cloud.means - points).max() < 1e-3
    box = np.array([source.mesh.vertices.min(0), source.mesh.vertices.max(0)])
    near = source.cloud.means[500:]
    assert np.abs(np.array([near.min(0), near.max(0)]) - box).max() < 0.06


def test_metadata_of_the_api_gives_metres_and_the_ground(tmp_path):
    export(tmp_path, OPENCV_TO_Y_UP)
    said = {"assets": {"splats": {"semantics_metadata": {"metric_scale_factor": 1.5, "ground_plane_offset": 1.725}}}}
    (tmp_path / "world.api.json").write_text(json.dumps(said))
    source = load_source(tmp_path)
    assert source.metres_per_unit == 1.5 and "metric_scale_factor" in source.unit_stated_by
    # The floor's upper side lies at y = -1.15: by the API's page 1.5 * 1.15 m below the origin.
    assert abs(source.facts["ground_height"] + 1.15) < 1e-9


def test_a_mesh_in_metres_beside_splats_in_units(tmp_path):
    points = export(tmp_path, OPENCV_TO_Y_UP, scale=1.5)
    (tmp_path / "meta.json").write_text(json.dumps({"metric_scale_factor": 1.5, "ground_plane_offset": 1.15}))
    source = load_source(tmp_path)
    assert source.facts["scale_of_splats"] == 1.5 and abs(source.metres_per_unit - 1) < 1e-12
    assert np.abs(source.cloud.means - points).max() < 1e-4 and np.allclose(source.cloud.scales, 0.03)
    assert abs(source.facts["ground_height"] + 1.15) < 1e-9


def test_splats_of_another_world_are_refused(tmp_path):
    export(tmp_path, np.eye(3))
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [2.5, 1.0, 1.8]
    formats.write_splat_file(tmp_path / "world.ply", cloud(points))
    with pytest.raises(InputError, match="24 orientations"):
        load_source(tmp_path)


def test_damaged_exports(tmp_path):
    export(tmp_path, np.eye(3))
    (tmp_path / "meta.json").write_text('{"metric_scale_factor": "much"}')
    with pytest.raises(InputError, match="metric_scale_factor"):
        load_source(tmp_path)
    (tmp_path / "meta.json").write_text('{"metric_scale_factor": 0}')
    with pytest.raises(InputError, match="metric_scale_factor"):
        load_source(tmp_path)
    (tmp_path / "meta.json").unlink()
    (tmp_path / "collider.glb").write_bytes((tmp_path / "collider.glb").read_bytes()[:200])
    with pytest.raises(InputError, match=r"collider\.glb"):
        load_source(tmp_path)
    (tmp_path / "collider.glb").unlink()
    (tmp_path / "meta.json").write_text('{"metric_scale_factor": 2.0}')
    source = load_source(tmp_path)
    assert source.kind == "marble" and source.mesh is None and source.metres_per_unit == 2
    assert "unchecked" in source.notes[0]


def test_fit_prefers_the_documented_turn_where_several_fit():
    box = trimesh.creation.box((2, 2, 2))
    from lyra_core.imports.base import MeshSource

    points, _ = trimesh.sample.sample_surface(box, 4000, seed=0)
    fit = fit_axes(points, MeshSource(np.array(box.vertices), np.array(box.faces)))
    assert np.array_equal(fit.turn, OPENCV_TO_Y_UP) and fit.runner_up < 1.2 * fit.distance


def test_a_run_of_lyra_2_with_its_splats(tmp_path):
    room.write_lyra2(tmp_path)
    first = inverse(room.poses(6)[:1])[0]
    T = room.poses(6)[0]
    local = room.CAMERA.rays() * room.seen(T)[1][..., None]
    formats.write_splat_file(tmp_path / "scene.ply", cloud(local[::3, ::3].reshape(-1, 3)))
    (tmp_path / "scene.ply").rename(tmp_path / "reconstructed_scene.ply")
    source = load_source(tmp_path)
    assert source.kind == "lyra2" and source.facts["images"] == 4 and source.facts["poses"] == 6
    assert source.facts["splats_in_view"] > 0.999
    assert np.abs(source.frames[0].T_world_camera - np.eye(4)).max() < 1e-12
    assert np.abs(source.frames[2].T_world_camera - first @ room.poses(6)[2]).max() < 1e-9
    (tmp_path / "video.mp4").unlink()
    assert len(load_source(tmp_path).frames) == 0 and load_source(tmp_path).cloud is not None


def test_single_files_are_told_apart(tmp_path):
    export(tmp_path, np.eye(3))
    assert detect_kind(tmp_path / "world.ply") == "splats" and detect_kind(tmp_path / "collider.glb") == "mesh"
    place().export(tmp_path / "mesh.ply")
    assert detect_kind(tmp_path / "mesh.ply") == "mesh"
    assert len(load_source(tmp_path / "world.ply").cloud.means) == 5000
    assert len(load_source(tmp_path / "mesh.ply").mesh.faces) == 60
