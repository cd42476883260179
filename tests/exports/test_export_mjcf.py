"""Convex pieces against the colliders they stand for, and the scene in MuJoCo where it is installed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import export_worlds
import numpy as np
import pytest
import trimesh

from lyra_core.exports import export_world
from lyra_core.exports.boxes import Box, Hull
from lyra_core.exports.pieces import convex_pieces
from lyra_core.io.meshes import merge_parts
from lyra_core.rays import make_ray_tracer
from lyra_core.types import CollisionPart, Label, Provenance
from lyra_core.world import World


def shell(name: str, mesh: trimesh.Trimesh, kind: str = "shell") -> CollisionPart:
    return CollisionPart(name, Label.OBSTACLE, kind, np.float32(mesh.vertices), np.int32(mesh.faces), Provenance.SEEN)


def terrain(side: int = 25, *, bumps: float = 0.003) -> trimesh.Trimesh:
    """A rolling, noisy ground, 8 m x 8 m."""
    x, y = np.meshgrid(np.linspace(0, 8, side), np.linspace(0, 8, side))
    z = 0.3 * np.sin(x) * np.cos(y) + np.random.default_rng(0).normal(size=x.shape) * bumps
    i = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + side + 1], 1), np.stack([i, i + side + 1, i + side], 1)])
    return trimesh.Trimesh(np.stack([x.ravel(), y.ravel(), z.ravel()], 1), faces, process=False)


def deviation(parts: list[CollisionPart], seed: int = 1) -> np.ndarray:
    """Return how far rays at the colliders' front sides end from where the pieces stop them [m]."""
    vertices, faces = merge_parts(parts)
    pieces = [piece.mesh() for _, some in convex_pieces(parts) for piece in some]
    offsets = np.cumsum([0] + [len(v) for v, _ in pieces])
    solid = make_ray_tracer(np.concatenate([v for v, _ in pieces]),
                            np.concatenate([f + o for (_, f), o in zip(pieces, offsets, strict=False)]))
    mesh, rng = trimesh.Trimesh(vertices, faces, process=False), np.random.default_rng(seed)
    point, face = trimesh.sample.sample_surface(mesh, 4000, seed=seed)
    start = point + mesh.face_normals[face] * 0.05
    ray = point - start + rng.normal(size=start.shape) * 0.01
    start, ray = start.astype(np.float32), (ray / np.linalg.norm(ray, axis=1, keepdims=True)).astype(np.float32)
    want = make_ray_tracer(vertices, faces).cast(start, ray)
    front = (want.face >= 0) & ((mesh.face_normals[want.face] * ray).sum(1) < -0.1)
    assert front.mean() > 0.8
    return np.abs(solid.cast(start, ray).t[front].astype(np.float64) - want.t[front])


def test_boxes_are_found_exactly(export_source: World) -> None:
    found = {part.name: pieces for part, pieces in convex_pieces(export_source.collision_parts)}
    for name in ("crate", "divider_left", "cupboard"):
        (box,) = found[name]
        part = next(part for part in export_source.collision_parts if part.name == name)
        assert isinstance(box, Box)
        corners = box.mesh()[0]
        assert max(np.linalg.norm(corners - vertex, axis=1).min() for vertex in part.vertices) < 1e-4
    assert np.allclose(np.sort(found["cupboard"][0].half * 2), [0.6, 1.2, 1.8], atol=1e-5), "though it is turned"
    assert all(isinstance(piece, Box) for piece in found["bench"]) and len(found["bench"]) > 1, "an L is not its hull"
    (wall,) = found["wall 0"]
    assert isinstance(wall, Box) and np.isclose(wall.half.min() * 2, 0.1)


@pytest.mark.parametrize("shape", ["room", "terrain", "bowl", "torus", "cylinder"])
def test_pieces_stop_what_the_colliders_stop(export_source: World, shape: str) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    half = ball.faces[ball.triangles_center[:, 2] < 0.1]
    parts = {"room": export_source.collision_parts, "terrain": [shell("terrain", terrain())],
             "bowl": [shell("bowl", trimesh.Trimesh(ball.vertices, half[:, ::-1], process=False))],
             "torus": [shell("torus", trimesh.creation.torus(0.6, 0.15, major_sections=24, minor_sections=12), "solid")],
             "cylinder": [shell("cylinder", trimesh.creation.cylinder(0.3, 1.2, sections=48), "solid")]}[shape]
    off = deviation(parts)
    assert off.max() < 0.02 and np.median(off) < 1e-3


def test_round_solid_is_one_hull_and_many_touching_boxes_are_one(export_source: World) -> None:
    ((_, pieces),) = convex_pieces([shell("can", trimesh.creation.cylinder(0.3, 1.2, sections=48), "solid")])
    assert len(pieces) == 1 and isinstance(pieces[0], Hull)
    slices = [trimesh.creation.box((0.1, 1, 1), trimesh.transformations.translation_matrix([0.1 * i, 0, 0])) for i in range(10)]
    ((_, pieces),) = convex_pieces([shell("sliced", trimesh.util.concatenate(slices), "solid")])
    assert len(pieces) == 1 and np.allclose(np.sort(pieces[0].half * 2), [1, 1, 1], atol=1e-6)


def test_slivers_and_sheets_give_pieces_with_a_volume() -> None:
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 5, (60, 1, 3)) + rng.normal(size=(60, 3, 3)) * 10.0 ** rng.uniform(-6, -0.3, (60, 1, 1))
    corners[:20, 2] = corners[:20, :2].mean(1) + rng.normal(size=(20, 3)) * 10.0 ** rng.uniform(-9, -4, (20, 1))
    soup = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(180).reshape(-1, 3), process=False)
    sheet = export_worlds.prism("sheet", export_worlds.rectangle((0, 0), (1, 1)), [[0, 1, 2], [0, 2, 3]], 1e-6)
    found = convex_pieces([shell("soup", soup), sheet])
    pieces = [piece for _, some in found for piece in some]
    assert len(pieces) > 20 and len(found[1][1]) == 1
    for piece in pieces:
        mesh = trimesh.Trimesh(*piece.mesh(), process=False)
        assert mesh.is_watertight and mesh.volume > 1e-10


@pytest.fixture(scope="module")
def scene(export_source: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = export_world(export_source, tmp_path_factory.mktemp("mjcf") / "scene", format="mjcf")
    assert written[0].name == "scene.xml" and all(path.is_file() for path in written)
    return written[0]


def test_scene_file_names_only_files_beside_it(scene: Path) -> None:
    root = ET.parse(scene).getroot()
    files = [node.get("file", "") for node in root.iter() if node.get("file")]
    assert "world_atlas.png" in files and "crate.obj" in files
    assert all((scene.parent / "meshes" / file).is_file() for file in files)
    plane = next(geom for geom in root.iter("geom") if geom.get("type") == "plane")
    assert plane.get("pos") == "0 0 0" and not any(body.get("name", "").startswith("collision_floor") for body in root.iter("body"))
    spawn = [float(x) for x in root.find(".//site").get("pos").split()]
    assert spawn[2] == 0 and np.hypot(spawn[0] - 4, 0) > 0.5


def test_mujoco_loads_it_and_its_rays_agree(export_source: World, scene: Path) -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_path(str(scene))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    visual = [i for i in range(model.ngeom) if model.geom(i).group[0] == 2]
    assert visual and not model.geom_contype[visual].any() and not model.geom_conaffinity[visual].any()
    assert sum(model.mesh_facenum[model.geom_dataid[i]] for i in visual) == len(export_source.mesh.faces)
    T = export_worlds.trajectory().T_world_camera[0]
    assert np.allclose(data.cam_xpos[0], T[:3, 3], atol=1e-5)
    assert np.allclose(data.cam_xmat[0].reshape(3, 3), T[:3, :3] @ np.diag([1, -1, -1]), atol=1e-6)
    rng, space = np.random.default_rng(0), export_source.free_space
    cells = np.argwhere(space.free & (space.clearance > 0.1))
    at = cells[rng.integers(len(cells), size=2000)]
    start = np.concatenate([space.origin + (at[:, ::-1] + 0.5) * space.cell, rng.uniform(0.1, 1.4, (2000, 1))], 1)
    ray = rng.normal(size=(2000, 3))
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    want = make_ray_tracer(*merge_parts(export_source.collision_parts)).cast(start.astype(np.float32), ray.astype(np.float32)).t
    groups, geom, normal = np.array([0, 0, 0, 1, 0, 0], np.uint8), np.zeros(1, np.int32), np.zeros(3)
    got = np.array([mujoco.mj_ray(model, data, s, r, groups, 1, -1, geom, normal) for s, r in zip(start, ray, strict=True)])
    assert np.abs(got - want).max() < 1e-3


RADIUS = 0.08


def ball_in(scene: Path, position: np.ndarray, velocity: np.ndarray, seconds: float, *,
            force: np.ndarray | None = None) -> np.ndarray:
    """Return the path (N, 3) of a ball of 0.5 kg let go in the scene, under a constant force [N]."""
    mujoco = pytest.importorskip("mujoco")
    spec = mujoco.MjSpec.from_file(str(scene))
    body = spec.worldbody.add_body(name="ball", pos=position.tolist())
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[RADIUS, 0, 0], mass=0.5)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qvel[:3] = velocity
    if force is not None:
        data.body("ball").xfrc_applied[:3] = force
    path = []
    for _ in range(round(seconds / model.opt.timestep)):
        mujoco.mj_step(model, data)
        path.append(data.body("ball").xpos.copy())
    return np.array(path)


def test_mujoco_ball_rests_on_the_floor(scene: Path) -> None:
    path = ball_in(scene, np.array([0.0, -1.5, 1.0]), np.zeros(3), 2.5)
    assert abs(path[-1, 2] - RADIUS) < 0.005 and np.ptp(path[-100:, 2]) < 1e-3
    assert abs(ball_in(scene, np.array([2.0, 0.8, 1.5]), np.zeros(3), 2.5)[-1, 2] - 0.8 - RADIUS) < 0.005, "on the crate"


@pytest.mark.parametrize(("axis", "limit"), [(0, 4.0), (0, -2.0), (1, -3.0), (1, 3.0)])
def test_mujoco_ball_does_not_pass_a_wall(scene: Path, axis: int, limit: float) -> None:
    towards = np.sign(limit) * np.eye(3)[axis]
    start = np.array([0.0, -1.5, 0.3])
    thrown = ball_in(scene, start, 6 * towards, 1.5) @ towards
    assert abs(limit) - RADIUS - 0.05 < thrown.max() < abs(limit) - RADIUS / 2, "MuJoCo's contacts give way by centimetres"
    pushed = ball_in(scene, start, 0 * towards, 4.0, force=5 * towards) @ towards
    assert abs(pushed[-1] - (abs(limit) - RADIUS)) < 0.005


def test_mujoco_ball_passes_the_door(scene: Path) -> None:
    assert ball_in(scene, np.array([3.0, 0.4, 0.12]), np.array([4, 0, 0]), 1.5)[-1, 0] > 4.5
