"""Our truth and scores of real pictures against those of an independent judge, where its program and the pictures stand."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest

from lyra_core.types import Camera
from tests.benchmarks.sequences import DEFAULT_DATA
from tests.benchmarks.test_understanding import box, joined
from tests.benchmarks.understanding_cases import real_case, real_names
from tests.benchmarks.understanding_measures import score
from tests.benchmarks.understanding_truth import UNKNOWN, Truth, find_truth
from tests.benchmarks.understanding_worlds import World, build_world, open_room

JUDGE = DEFAULT_DATA.parent / "tools" / "depth_judge.py"
NAMES = [name for name in real_names(DEFAULT_DATA) if not name.startswith("livingroom1")]
FEW = NAMES[::6]
SAME = {"ln_f": "ln_f", "normal": "normal", "ln_scale": "ln_h", "floor_iou": "floor_iou", "recall": "recall", "false": "false",
        "crash": "crash", "timid": "timid", "absrel": "absrel", "delta1": "delta1", "absrel_ms": "absrel_ms",
        "delta1_ms": "delta1_ms", "miss": "miss"}  # fmt: skip
"""Our name of a measure and the judge's."""
TOLERANCE = {"normal": 0.3, "crash": 0.1, "timid": 0.1}
"""Of medians [deg, and shares: paths are drawn anew]; others 0.03."""

pytestmark = pytest.mark.skipif(not (JUDGE.exists() and NAMES), reason="no independent judge or no real pictures")


@pytest.fixture(scope="module")
def judge() -> ModuleType:
    """The judge as a module."""
    pytest.importorskip("embreex")
    spec = importlib.util.spec_from_file_location("depth_judge", JUDGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def its_world(judge: ModuleType, truth: dict, world: World):
    """A world as the judge holds it: in camera axes, K in pixels of the photo."""
    (w, h), T, c = truth["img"].size, world.T_world_camera, world.camera
    K = [c.K[0, 0] * w / c.width, c.K[1, 1] * h / c.height, c.K[0, 2] * w / c.width, c.K[1, 2] * h / c.height]
    meshes = [((v - T[:3, 3]) @ T[:3, :3], np.asarray(f)) for v, f in (world.visual, world.colliders)]
    return judge.World(T[2, :3].copy(), K, *meshes)


@cache
def both_truths(judge: ModuleType, name: str) -> tuple[Truth, dict]:
    """Our truth and the judge's."""
    ours = find_truth(real_case(DEFAULT_DATA, name))
    return ours, judge.truth(judge.load_case(DEFAULT_DATA / "rgbd" / f"{name}_rgb.jpg"))


def compare_truths(ours: Truth, its: dict) -> None:
    """Both find a floor or none; the same plane and the same grid."""
    assert (ours.grid is None) == (its["grid"] is None)
    if ours.grid is None:
        return
    assert np.degrees(np.arccos(min(1.0, float(ours.up @ its["up"])))) <= 1.0
    assert abs(np.log(ours.height / its["h"])) <= 0.02
    told = (ours.grid != UNKNOWN) | (its["grid"] != UNKNOWN)
    assert (ours.grid == its["grid"])[told].mean() >= 0.9


def some_world(truth: Truth) -> World:
    """A room that is right in some things: a box and a wall, tilted by a little."""
    case = truth.case
    up = np.array([0.05, -0.95, -0.25]) if truth.up is None else truth.up + [0.03, 0.0, 0.02]
    room = open_room(case.camera, up / np.linalg.norm(up), 1.43, 3.37)
    mesh = joined(room.colliders, box(1.42, 2.18, -0.77, 0.33, 0.71))
    return replace(room, camera=Camera(case.camera.K * [[1.1], [1.1], [1]], case.camera.width, case.camera.height),
                   visual=mesh, colliders=mesh)


def medians(judge: ModuleType, names: list[str], make: Callable[[Truth], World]) -> dict[str, tuple[float, float]]:
    """Median of each measure over cases, ours and the judge's."""
    rows = []
    for name in names:
        ours, its = both_truths(judge, name)
        world = make(ours)
        rows.append((score(ours, world), judge.score(its, its_world(judge, its, world))))
    return {key: (_median([mine[key] for mine, _ in rows]), _median([its.get(other, np.nan) for _, its in rows]))
            for key, other in SAME.items()}


def _median(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def compare_medians(pairs: dict[str, tuple[float, float]]) -> None:
    """Every median within its tolerance."""
    for key, (mine, its) in pairs.items():
        assert mine == pytest.approx(its, abs=TOLERANCE.get(key, 0.03), nan_ok=True), key


def test_truth_of_some_pictures(judge):
    for name in FEW:
        compare_truths(*both_truths(judge, name))


def test_scores_of_a_made_room_on_some_pictures(judge):
    compare_medians(medians(judge, FEW, some_world))


@pytest.mark.slow
def test_truth_of_all_pictures(judge):
    for name in NAMES:
        compare_truths(*both_truths(judge, name))


@pytest.mark.slow
def test_scores_of_built_worlds_on_all_pictures(judge):
    compare_medians(medians(judge, NAMES, lambda truth: build_world(truth.case, "geometric", size=512)))
