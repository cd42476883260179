"""A small world folder made by hand: two rooms with a door, a crate, an L-shaped bench, a turned cupboard; ray-cast frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.build_files import save_frame
from lyra_core.camera.formats import save_trajectory
from lyra_core.config import NavigationCfg
from lyra_core.exports.parts import sample_texture
from lyra_core.io.files import write_json
from lyra_core.io.meshes import merge_parts, save_collision_parts, save_surface_mesh
from lyra_core.navigation import free_space, save_free_space, save_occupancy_map
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.splats.ply import write_splats
from lyra_core.types import Camera, CollisionPart, Frame, GaussianCloud, Label, Provenance, SurfaceMesh, Trajectory

COLOURS = {Label.FLOOR: (150, 120, 90), Label.WALL: (205, 200, 190), Label.CEILING: (235, 235, 235), Label.OBSTACLE: (60, 90, 160)}
TILE, FRAMES = 32, 3
LICENCES = {"photo": "CC BY 4.0, (c) J. D\u00f6rfler", "generator": "Apache-2.0, no weights"}
CRATE = (1.5, 0.3, 0.0), (2.5, 1.3, 0.8)


def quad(name: str, label: Label, corners: list[tuple[float, float, float]],
         provenance: Provenance = Provenance.SEEN) -> CollisionPart:
    return CollisionPart(name, label, "shell", np.float32(corners), np.int32([[0, 1, 2], [0, 2, 3]]), provenance)


def prism(name: str, outline: list[tuple[float, float]], triangles: list[list[int]], height: float, *,
          label: Label = Label.OBSTACLE, floor: float = 0.0) -> CollisionPart:
    """Make a closed upright prism over a counter-clockwise outline with its triangles."""
    n, low = len(outline), np.array(outline, np.float64)
    vertices = np.concatenate([np.c_[low, np.full(n, floor)], np.c_[low, np.full(n, floor + height)]])
    i, cap = np.arange(n), np.array(triangles)
    j = (i + 1) % n
    faces = np.concatenate([cap[:, ::-1], cap + n, np.stack([i, j, j + n], 1), np.stack([i, j + n, i + n], 1)])
    return CollisionPart(name, label, "solid", np.float32(vertices), np.int32(faces), Provenance.SEEN)


def rectangle(low: tuple[float, float], high: tuple[float, float], *, turn: float = 0.0) -> list[tuple[float, float]]:
    corners = np.array([low, (high[0], low[1]), high, (low[0], high[1])], np.float64)
    c, s = np.cos(turn), np.sin(turn)
    middle = corners.mean(0)
    return [tuple(p) for p in (corners - middle) @ np.array([[c, s], [-s, c]]) + middle]


def make_parts() -> list[CollisionPart]:
    two = [[0, 1, 2], [0, 2, 3]]
    loop = [(-2, -3), (10, -3), (10, 3), (-2, 3)]
    walls = [quad(f"wall {i}", Label.WALL, [(*b, 0), (*a, 0), (*a, 2.5), (*b, 2.5)], Provenance.CONTINUED)
             for i, (a, b) in enumerate(zip(loop, loop[1:] + loop[:1], strict=True))]
    return [
        quad("floor", Label.FLOOR, [(-2, -3, 0), (4, -3, 0), (4, 3, 0), (-2, 3, 0)]),
        quad("floor_behind", Label.FLOOR, [(4, -3, 0), (10, -3, 0), (10, 3, 0), (4, 3, 0)], Provenance.INVENTED),
        *walls,
        quad("ceiling", Label.CEILING, [(-2, 3, 2.5), (10, 3, 2.5), (10, -3, 2.5), (-2, -3, 2.5)], Provenance.CONTINUED),
        prism("divider_right", rectangle((4, -3), (4.1, -0.1)), two, 2.5, label=Label.WALL),
        prism("divider_left", rectangle((4, 0.9), (4.1, 3)), two, 2.5, label=Label.WALL),
        prism("crate", rectangle(CRATE[0][:2], CRATE[1][:2]), two, 0.8),
        prism("bench", [(6, -2), (8, -2), (8, -1.5), (6.5, -1.5), (6.5, 0), (6, 0)], [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]],
              0.45),
        prism("cupboard", rectangle((8, 1), (9.2, 1.6), turn=0.5), two, 1.8),
    ]


def textured(parts: list[CollisionPart]) -> SurfaceMesh:
    """Return the parts as a textured mesh: a chequered tile for each label, the same on every face."""
    vertices, faces = merge_parts(parts)
    labels = list(COLOURS)
    checks = (np.indices((TILE, TILE)).sum(0) // 4 % 2)[..., None] * 24
    texture = np.concatenate([np.uint8(np.clip(np.array(COLOURS[label]) - checks, 0, 255)) for label in labels], 1)
    corners = faces.reshape(-1)
    each = np.repeat(np.arange(len(parts)), [len(p.faces) for p in parts])
    column = np.array([labels.index(p.label) for p in parts])[each].repeat(3)
    local = np.tile(np.float32([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]), (len(faces), 1))
    uv = np.stack([(column + local[:, 0]) / len(labels), local[:, 1]], 1).astype(np.float32)
    label = np.array([p.label for p in parts], np.uint8)[each]
    provenance = np.array([p.provenance for p in parts], np.uint8)[each]
    return SurfaceMesh(vertices[corners], np.arange(len(corners), dtype=np.int32).reshape(-1, 3), uv, texture, label, provenance,
                       each.astype(np.int32), tuple(p.name for p in parts))


def trajectory() -> Trajectory:
    """Three cameras 1.5 m above the floor that look along x, a little down."""
    camera = Camera.from_focal(40.0, 64, 48)
    down = 0.3
    R = np.array([[0, -np.sin(down), np.cos(down)], [-1, 0, 0], [0, -np.cos(down), -np.sin(down)]])
    T = np.tile(np.eye(4), (FRAMES, 1, 1))
    T[:, :3, :3] = R
    T[:, :3, 3] = [[-1.5 + 0.4 * i, -0.5, 1.5] for i in range(FRAMES)]
    return Trajectory(T, np.tile(camera.K, (FRAMES, 1, 1)), 64, 48)


def build(folder: Path, *, frames: bool = True) -> Path:
    """Write the folder; without frames it is as --keep training leaves it."""
    parts = make_parts()
    mesh = textured(parts)
    save_surface_mesh(folder / "mesh.npz", mesh)
    save_collision_parts(folder / "collision.glb", parts)
    space = free_space(parts, cfg=NavigationCfg())
    save_free_space(folder / "navigation.npz", space)
    save_occupancy_map(folder / "occupancy_map", space)
    write_splats(folder / "splats.ply", make_cloud())
    write_json(folder / "world.json", {"schema": 1, "recipe_id": "handmade", "content_hash": "00", "licences": LICENCES})
    if frames:
        path = trajectory()
        save_trajectory(folder / "trajectory.npz", path)
        tracer = make_ray_tracer(mesh.vertices, mesh.faces)
        for i in range(FRAMES):
            save_frame(folder, i, _frame(mesh, tracer, path, i))
    return folder


def _frame(mesh: SurfaceMesh, tracer, path: Trajectory, i: int) -> Frame:
    camera = path.camera(i)
    hits = cast_camera(tracer, camera, path.T_world_camera[i])
    weight = np.concatenate([1 - hits.barycentric.sum(1, keepdims=True), hits.barycentric], 1)
    uv = (mesh.uv[mesh.faces[hits.face]] * weight[..., None]).sum(1)
    size = camera.height, camera.width
    return Frame(sample_texture(mesh.texture, uv).reshape(*size, 3), hits.t.reshape(size).astype(np.float32), camera,
                 path.T_world_camera[i], mesh.face_provenance[hits.face].reshape(size))


def make_cloud(count: int = 300) -> GaussianCloud:
    rng = np.random.default_rng(3)
    quats = rng.normal(size=(count, 4))
    means = np.concatenate([rng.uniform([-2, -3, 0], [10, 3, 2.5], (count - 1, 3)), [[3.0, 1.0, 2.0]]])
    return GaussianCloud(means.astype(np.float32), (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
                         rng.uniform(0.01, 0.05, (count, 3)).astype(np.float32), rng.uniform(0.1, 1, count).astype(np.float32),
                         rng.normal(size=(count, 1, 3)).astype(np.float32), np.zeros(count, np.uint8))
