"""Rendered cases: the scene itself, as a world, must score perfectly on its own picture."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.camera.se3 import inverse
from lyra_core.scenes import benchmark_cases
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.sampling import sample_scene
from tests.benchmarks import understanding_rendered
from tests.benchmarks.understanding import load_reference, save_reference, with_reference
from tests.benchmarks.understanding_measures import score
from tests.benchmarks.understanding_rendered import procedural_case, procedural_names
from tests.benchmarks.understanding_tables import OURS
from tests.benchmarks.understanding_truth import find_truth
from tests.benchmarks.understanding_worlds import World


def test_names_are_those_of_the_benchmark():
    assert [case.name for case in benchmark_cases(2)] == procedural_names()[:2]
    assert len(set(procedural_names())) == understanding_rendered.SCENES


@pytest.mark.parametrize("index", [2, pytest.param(0, marks=pytest.mark.slow), pytest.param(5, marks=pytest.mark.slow)])
def test_the_scene_itself_scores_perfectly(index, tmp_path, monkeypatch):
    monkeypatch.setattr(understanding_rendered, "LONG_SIDE", 160)
    name = procedural_names()[index]
    case = procedural_case(name, tmp_path)
    made = sample_scene(int(name.rsplit("-", 1)[1]), name.rsplit("-", 1)[0])
    to_photo = inverse(made.T_scene_world)
    vertices, faces, _ = scene_mesh(made.scene)
    mesh = vertices @ to_photo[:3, :3].T + to_photo[:3, 3], faces
    got = score(find_truth(case), World(case.camera, to_photo @ made.T_world_camera, mesh, mesh))
    # The mesh's round solids are inscribed, so a few rays beside their edges go on.
    assert got["normal"] < 1e-3 and got["ln_scale"] < 1e-3 and got["ln_f"] < 1e-6
    assert got["floor_iou"] > 0.99 and got["recall"] > 0.99 and got["absrel"] < 0.01 and got["miss"] < 0.01
    assert got["false"] < 0.02 and got["unseen"] / got["paths"] < 0.02 and got["needless"] / got["paths"] < 0.05


def test_a_picture_is_rendered_once(tmp_path, monkeypatch):
    monkeypatch.setattr(understanding_rendered, "LONG_SIDE", 96)
    first = procedural_case(procedural_names()[1], tmp_path)

    def fail(*_, **__):
        raise AssertionError("rendered again")

    monkeypatch.setattr(understanding_rendered, "render_fast", fail)
    again = procedural_case(procedural_names()[1], tmp_path)
    assert np.array_equal(first.photo.rgb, again.photo.rgb) and np.array_equal(first.depth, again.depth, equal_nan=True)


def test_recorded_scores_return_and_stand_before_ours(tmp_path):
    rows = {"a": {"kind": "x", "true_depth": 2.0, "absrel": 0.12345, "crash": float("nan")},
            "b": {"kind": "y", "true_depth": 3.0, "absrel": 1.0, "crash": 0.5}}
    save_reference(tmp_path / "r.json", "first", "geometric", {"real": {OURS: rows}})
    save_reference(tmp_path / "r.json", "first", "file", {"real": {OURS: rows}})
    label, got = load_reference(tmp_path / "r.json", "geometric", "real")
    assert label == "first" and got["a"]["absrel"] == 0.1235 and np.isnan(got["a"]["crash"]) and got["b"]["kind"] == "y"
    assert load_reference(tmp_path / "r.json", "geometric", "procedural")[1] == {}
    assert list(with_reference({"constant": rows, OURS: rows}, label, got)) == ["constant", "first", OURS]
    assert list(with_reference({OURS: {**rows, "c": {}}}, label, got)) == [OURS]  # a case that was not recorded
    assert list(with_reference({OURS: {**rows, "a": {**rows["a"], "true_depth": 2.1}}}, label, got)) == [OURS]
