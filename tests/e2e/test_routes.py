"""Other ways through the pipeline: a generator without a world, fusion of frames, the other ray tracer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e_worlds import build, draft, run_code
from scipy.spatial import cKDTree

from lyra_core.navigation import free_space_stats
from lyra_core.rays import make_ray_tracer
from lyra_core.stages import Context
from lyra_core.types import Label, SurfaceMesh
from lyra_core.world import World

WITHOUT_EMBREE = """
import sys
sys.modules["embreex"] = None
from pathlib import Path
from lyra_core.config import from_dict
from lyra_core.pipeline import build_world
from lyra_core.rays import make_ray_tracer
import numpy as np
tracer = make_ray_tracer(np.eye(3, dtype=np.float32), np.int32([[0, 1, 2]]))
assert type(tracer).__name__ == "RayTracerWarp", tracer
build_world(Path(sys.argv[1]), Path(sys.argv[2]), from_dict({"quality": "draft"}))
"""


def upward_floor(world: World, xy: np.ndarray) -> np.ndarray:
    """Return the height [m] of the visual floor below points 1 m up, NaN where there is none or it looks down."""
    mesh = world.mesh
    origins = np.column_stack([xy, np.ones(len(xy))]).astype(np.float32)
    hits = make_ray_tracer(mesh.vertices, mesh.faces).cast(origins, np.broadcast_to(np.float32([0, 0, -1]), origins.shape))
    a, b, c = (mesh.vertices[mesh.faces[np.maximum(hits.face, 0)][:, i]] for i in range(3))
    return np.where((hits.face >= 0) & (np.cross(b - a, c - a)[:, 2] > 0), 1 - hits.t, np.nan)


@pytest.mark.slow
@pytest.mark.parametrize("trajectory", ["walk_forward", "tour"])
def test_warp_fill_makes_a_stage_that_can_be_walked(trajectory: str, photo: Path, tmp_path: Path) -> None:
    cfg = draft(generate={"generator": "warp_fill", "trajectory": trajectory}, surface={"voxel": 0.08})
    world, _ = build(photo, tmp_path / "world", cfg)
    space = world.free_space
    assert free_space_stats(space, 0.3)["walkable_m2"] > 1.0
    cells = np.argwhere(space.traversable(0.3))
    xy = space.origin + (cells[:, ::-1] + 0.5) * space.cell
    height = upward_floor(world, xy)
    assert np.isfinite(height).mean() > 0.9 and abs(np.nanmedian(height)) < 0.05
    from pxr import Usd, UsdPhysics

    stage = Usd.Stage.Open(str(world.folder / "world.usda"))
    colliders = [prim for prim in stage.Traverse() if prim.HasAPI(UsdPhysics.CollisionAPI)]
    assert stage.GetDefaultPrim() and colliders


def seen_points(folder: Path) -> np.ndarray:
    """Return (N, 3) points where the frames of a world looked, on a 5 cm grid."""
    context = Context(folder, draft(), None, None)  # type: ignore[arg-type]
    points = np.concatenate([frame.points()[::4, ::4].reshape(-1, 3) for frame in context.keyframes()])
    points = points[np.isfinite(points).all(1)]
    return points[np.unique(np.round(points / 0.05).astype(int), axis=0, return_index=True)[1]]


def samples(mesh: SurfaceMesh, rng: np.random.Generator, count: int = 60_000) -> np.ndarray:
    """Return (count, 3) points spread over a mesh by area."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(area), count, p=area / area.sum())
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return a[face] + u * (b - a)[face] + v * (c - a)[face]


@pytest.mark.slow
def test_surfaces_and_fusion_agree_where_frames_looked(photo: Path, finished: Path, tmp_path: Path) -> None:
    fused, _ = build(photo, tmp_path / "fused", draft(surface={"route": "fusion"}))
    surfaces, rng = World(finished), np.random.default_rng(0)
    looked = seen_points(finished)
    meshes = [samples(world.mesh, rng, 400_000) for world in (surfaces, fused)]
    one, other = (cKDTree(points).query(looked)[0] for points in meshes)
    assert np.median(other) <= 0.05 and np.median(one) <= 0.05, (np.median(one), np.median(other))
    stray = cKDTree(np.concatenate([meshes[0], looked])).query(meshes[1][::40])[0]
    assert np.median(stray) <= 0.05, np.median(stray)
    floor = looked[np.abs(looked[:, 2]) < 0.03][:, :2]
    for world in (surfaces, fused):
        height = upward_floor(world, floor)
        on_floor = height[np.abs(height) < 0.3]
        assert len(on_floor) > 0.5 * len(floor) and abs(np.median(on_floor)) <= 0.02, np.median(on_floor)
    for world in (surfaces, fused):
        flat = [part for part in world.collision_parts if part.label == Label.FLOOR]
        assert flat and all(abs(float(np.median(part.vertices[:, 2]))) <= 0.02 for part in flat)


@pytest.mark.slow
def test_without_embree_warp_traces_the_rays(photo: Path, finished: Path, tmp_path: Path) -> None:
    done = run_code(WITHOUT_EMBREE, str(photo), str(tmp_path / "world"))
    assert done.returncode == 0, done.stderr[-2000:]
    here, there = World(finished), World(tmp_path / "world")
    assert there.manifest["status"] == "complete"
    for name, value in here.manifest["statistics"].items():
        assert there.manifest["statistics"][name] == pytest.approx(value, rel=0.02), name
