"""A world folder made by hand: two rooms, a door between them and a box. For tests that need a world without a photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.config import NavigationCfg
from lyra_core.io.files import write_json
from lyra_core.io.meshes import merge_parts, save_collision_parts, save_surface_mesh
from lyra_core.navigation import free_space, sample_episodes, save_episodes, save_free_space, save_occupancy_map
from lyra_core.types import CollisionPart, Label, Provenance, SurfaceMesh

COLOURS = {Label.FLOOR: (150, 120, 90), Label.WALL: (205, 200, 190), Label.CEILING: (235, 235, 235), Label.OBSTACLE: (60, 90, 160)}
TILE = 32
"""Texture tile of one label [px]."""


def quad(name: str, label: Label, provenance: Provenance, corners: list[tuple[float, float, float]]) -> CollisionPart:
    """Make a shell of four corners, counter-clockwise seen from free space."""
    return CollisionPart(name, label, "shell", np.float32(corners), np.int32([[0, 1, 2], [0, 2, 3]]), provenance)


def box(name: str, label: Label, low: tuple[float, float, float], high: tuple[float, float, float],
        provenance: Provenance = Provenance.SEEN) -> CollisionPart:
    """Make a closed box; faces look outwards."""
    corners = np.float32([(x, y, z) for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    faces = np.int32([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])
    return CollisionPart(name, label, "solid", corners, faces, provenance)


def floor(
    x0: float, x1: float, y0: float, y1: float, provenance: Provenance = Provenance.SEEN, name: str = "floor"
) -> CollisionPart:
    """Make a rectangle of floor that looks up."""
    return quad(name, Label.FLOOR, provenance, [(x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)])


def room_walls(x0: float, x1: float, y0: float, y1: float, height: float) -> list[CollisionPart]:
    """Make four walls that look inwards."""
    loop = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    return [quad(f"wall_{i}", Label.WALL, Provenance.CONTINUED, [(*b, 0), (*a, 0), (*a, height), (*b, height)])
            for i, (a, b) in enumerate(zip(loop, loop[1:] + loop[:1], strict=True))]


def two_rooms(*, door_width: float = 1.0, divider: float = 0.1) -> list[CollisionPart]:
    """Return 12 m x 6 m of rooms: divider at x = 4 with a door round y = 0.4, a box at (2, 0.8), ceiling at 2.5 m."""
    left, right = 0.4 - door_width / 2, 0.4 + door_width / 2
    return [
        floor(-2, 2, -3, 3, Provenance.SEEN, "floor_seen"),
        floor(2, 4, -3, 3, Provenance.CONTINUED, "floor_continued"),
        floor(4, 10, -3, 3, Provenance.INVENTED, "floor_invented"),
        *room_walls(-2, 10, -3, 3, 2.5),
        quad("ceiling", Label.CEILING, Provenance.CONTINUED, [(-2, 3, 2.5), (10, 3, 2.5), (10, -3, 2.5), (-2, -3, 2.5)]),
        box("divider_right", Label.WALL, (4, -3, 0), (4 + divider, left, 2.5), Provenance.CONTINUED),
        box("divider_left", Label.WALL, (4, right, 0), (4 + divider, 3, 2.5), Provenance.CONTINUED),
        box("lintel", Label.WALL, (4, left, 2.1), (4 + divider, right, 2.5), Provenance.CONTINUED),
        box("crate", Label.OBSTACLE, (1.5, 0.3, 0), (2.5, 1.3, 0.8)),
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


def build_world(folder: Path, parts: list[CollisionPart] | None = None, *, episodes: int = 20, seed: int = 0, radius: float = 0.3,
                min_distance: float = 1.0) -> Path:
    """Write a world folder: mesh.npz, collision.glb, navigation.npz, occupancy_map, episodes.json.gz and world.json."""
    parts = two_rooms() if parts is None else parts
    save_surface_mesh(folder / "mesh.npz", textured(parts))
    save_collision_parts(folder / "collision.glb", parts)
    space = free_space(parts, cfg=NavigationCfg())
    save_free_space(folder / "navigation.npz", space)
    save_occupancy_map(folder / "occupancy_map", space)
    save_episodes(folder / "episodes.json.gz",
                  sample_episodes(space, np.random.default_rng(seed), count=episodes, radius=radius, min_distance=min_distance))
    write_json(folder / "world.json", {"schema": 1, "recipe_id": "handmade", "licences": {"photo": "CC0"}})
    return folder
