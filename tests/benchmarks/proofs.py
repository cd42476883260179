"""Prove that the measures are right before they are believed: a room whose numbers are known, and planted faults that must show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lyra_core.config import NavigationCfg
from lyra_core.navigation import free_space
from lyra_core.types import CollisionPart, Label, Provenance, SurfaceMesh
from tests.benchmarks.measures import SAME_PICTURE, free_poses, ground_ray_hits, psnr, sensor_against_colliders

SIZE, HEIGHT = 6.0, 2.5
"""Side and height of the room [m]."""


def prove_measures() -> list[str]:
    """Check every measure on a known room and return one line per proof.

    Raises:
        AssertionError: a measure is wrong.
    """
    return [_psnr_is_exact(), _closed_room_is_hit_everywhere(), _sky_and_holes_are_misses(), _shifted_colliders_show(),
            _ghosts_and_unseen_show()]


def room(shift: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (8, 3), inward faces (12, 3) and labels (12,) of a closed room; ``shift`` moves the walls inwards [m]."""
    half = SIZE / 2 - shift
    xy = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    vertices = np.concatenate([np.column_stack([xy, np.zeros(4)]), np.column_stack([xy, np.full(4, HEIGHT)])]).astype(np.float32)
    quads = [(0, 1, 2, 3), (7, 6, 5, 4), (1, 0, 4, 5), (2, 1, 5, 6), (3, 2, 6, 7), (0, 3, 7, 4)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    labels = np.repeat([Label.FLOOR, Label.CEILING, Label.WALL, Label.WALL, Label.WALL, Label.WALL], 2).astype(np.uint8)
    return vertices, faces, labels


def visual_room() -> SurfaceMesh:
    """Return the room as a visual mesh."""
    vertices, faces, labels = room()
    none = np.zeros(len(faces), np.uint8)
    return SurfaceMesh(vertices, faces, np.zeros((len(vertices), 2), np.float32), np.zeros((1, 1, 3), np.uint8), labels, none,
                       np.zeros(len(faces), np.int32), ("room",))


def solid_room(shift: float = 0.0) -> list[CollisionPart]:
    """Return the room's colliders: a floor and one shell of walls."""
    vertices, faces, labels = room(shift)
    floor = labels == Label.FLOOR
    return [CollisionPart(name, label, "shell", vertices, faces[rows], Provenance.SEEN)
            for name, label, rows in (("floor", Label.FLOOR, floor), ("walls", Label.WALL, ~floor))]


def _poses() -> tuple[np.ndarray, np.ndarray]:
    space = free_space(solid_room(), cfg=NavigationCfg())
    eyes, yaws = free_poses(space, np.random.default_rng(0), 40)
    assert (np.abs(eyes[:, :2]) < SIZE / 2 - 0.3 + 0.05).all(), "free poses keep the robot's radius from the walls"
    return eyes, yaws


def _psnr_is_exact() -> str:
    dark = np.full((8, 8, 3), 100, np.uint8)
    assert abs(psnr(dark, dark + 10) - 28.1308) < 1e-3, "20 log10(255 / 10)"
    assert psnr(dark, dark) == SAME_PICTURE
    return "PSNR of a constant difference of 10 is 28.13 dB"


def _closed_room_is_hit_everywhere() -> str:
    eyes, yaws = _poses()
    hits = ground_ray_hits(visual_room(), eyes, np.random.default_rng(1))["hits_percent"]
    agreement = sensor_against_colliders(visual_room(), solid_room(), eyes, yaws)
    assert hits == 100.0 and agreement["p95_cm"] < 1e-3 and agreement["rays"] > 10_000
    return "a closed room is hit by every ray and agrees with its own colliders"


def _sky_and_holes_are_misses() -> str:
    eyes, _ = _poses()
    mesh = visual_room()
    keep = np.arange(len(mesh.faces)) != 0
    holed = replace(mesh, faces=mesh.faces[keep], face_label=mesh.face_label[keep], face_provenance=mesh.face_provenance[keep],
                    face_part=mesh.face_part[keep])
    painted = replace(mesh, face_label=np.where(keep, mesh.face_label, Label.SKY).astype(np.uint8))
    hole, sky = (ground_ray_hits(m, eyes, np.random.default_rng(1))["hits_percent"] for m in (holed, painted))
    assert hole == sky and 40 < hole < 80, "half the floor is gone"
    return f"a room without half its floor is hit by {hole:.0f} % of the rays, and so is one whose half floor is labelled sky"


def _shifted_colliders_show() -> str:
    # A wall 8 cm too near along its normal is 8 cm too near in the z-depth of a camera that faces it.
    eyes = np.array([[0.0, 0.0, 1.0]])
    found = sensor_against_colliders(visual_room(), solid_room(0.08), eyes, np.zeros(1))
    assert 7.9 < found["p50_cm"] < 8.1 and 7.9 < found["p95_cm"] < 8.1
    return "colliders 8 cm before the walls differ by 8 cm"


def _ghosts_and_unseen_show() -> str:
    eyes = np.array([[0.0, 0.0, 1.0]])
    floor = solid_room()[:1]
    ghost = sensor_against_colliders(visual_room(), floor, eyes, np.zeros(1))
    unseen = sensor_against_colliders(visual_room(), solid_room(1.0), eyes, np.zeros(1))
    assert ghost["ghost_percent"] == 100.0 and ghost["p95_cm"] > 100
    assert unseen["unseen_percent"] == 100.0 and unseen["ghost_percent"] == 0.0
    return "walls that one sees but does not touch, and walls that one touches but does not see, are counted"


if __name__ == "__main__":
    print("\n".join(prove_measures()))
