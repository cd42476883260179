"""Worlds to be scored: built from a photo as the pipeline does, without frames, or simple ones to compare with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from lyra_core.backends import resolve
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.io.meshes import merge_parts
from lyra_core.photo.read import read_photo
from lyra_core.types import Camera
from tests.benchmarks.understanding_cases import Case
from tests.benchmarks.understanding_truth import Truth, ground_axes, looking_down

Triangles = tuple[np.ndarray, np.ndarray]
"""Vertices (V, 3) [m] and faces (F, 3)."""
WALL_INDOORS, WALL_OUTDOORS = 4.0, 40.0
"""Distance of the wall of the baseline 'floor + far plane' [m]."""
CONSTANT = 2.5
"""Depth of the baseline 'constant' [m]."""
HELD_AT = 1.4
"""Camera height that the baselines assume [m]."""
DEEP = 15.0
"""A picture whose 90th percentile of depth exceeds this is outdoors [m]."""


@dataclass(frozen=True)
class World:
    """Geometry around the photo's camera."""

    camera: Camera
    """As the world believes it, for the whole photo at some size."""
    T_world_camera: np.ndarray
    """(4, 4); the world's z is up."""
    visual: Triangles
    """What is seen."""
    colliders: Triangles
    """What a robot touches; faces look towards free space."""
    stated: dict[str, float] = field(default_factory=dict)
    """What the reading says of itself: confidence and scale_sigma; and seconds taken."""


def build_world(case: Case, mode: str, *, size: int, camera_height: float | None = None) -> World:
    """Build the world of a case's photo with depth provider ``mode`` at a working size [px].

    Raises:
        LyraError: the photo or depth cannot be used.
    """
    began = time.perf_counter()
    settings = PhotoCfg() if camera_height is None else PhotoCfg(camera_height=camera_height)
    reading = read_photo(case.photo, settings, size=size)
    provider = resolve("depth", mode)(DepthCfg(provider=mode, path=str(case.depth_file) if mode == "file" else None))
    estimate = provider.estimate(case.photo, reading)
    # Quality decides the texture's size alone.
    generator = resolve("generator", "procedural")(quality="draft")
    generator.prepare(case.photo, estimate, seed=0, indoor=reading.scene_kind == "indoor")
    world = generator.explicit_world()
    stated = {"confidence": float(reading.confidence["overall"]), "scale_sigma": float(estimate.scale_sigma),
              "indoor": float(reading.scene_kind == "indoor"), "seconds": time.perf_counter() - began}
    visual = world.mesh.vertices, world.mesh.faces
    return World(estimate.camera, estimate.T_world_camera, visual, merge_parts(world.parts), stated)


def baselines(truth: Truth) -> dict[str, World]:
    """Return the worlds that any estimate must beat.

    'constant': every pixel at one depth, a level camera of a usual focal length. 'floor + far plane': the true camera over an
    endless floor and one wall, far away outdoors; where the floor is not known, a camera that looks down a little.
    """
    case = truth.case
    h, w = case.photo.rgb.shape[:2]
    usual = Camera.from_focal(0.9 * max(w, h), w, h)
    far = WALL_OUTDOORS if np.nanpercentile(case.depth, 90) > DEEP else WALL_INDOORS
    up, height = looking_down(15), HELD_AT
    if truth.grid is not None and truth.up is not None:
        up, height = truth.up, truth.height
    return {
        "constant": open_room(usual, looking_down(0), HELD_AT, CONSTANT, wall_only=True),
        "floor + far plane": open_room(case.camera, up, height, far),
    }


def open_room(camera: Camera, up: np.ndarray, height: float, wall: float, *, wall_only: bool = False) -> World:
    """Return a world of a floor and one wall across the view, both 200 m to either side.

    Args:
        up: (3,) in camera axes.
        height: of the camera above the floor [m].
        wall: distance of the wall ahead [m].
        wall_only: what is seen is nothing but the wall, below the floor too; the floor is still there to drive on.
    """
    r = 200.0
    floor = [(-r, -r, 0.0), (wall, -r, 0.0), (wall, r, 0.0), (-r, r, 0.0)]
    front = [(wall, -r, -r), (wall, -r, r), (wall, r, r), (wall, r, -r)]
    vertices, quad = np.array(floor + front), np.array([[0, 1, 2], [0, 2, 3]])
    both = np.concatenate([quad, quad + 4])
    T = np.eye(4)
    T[:3, :3] = ground_axes(up)
    T[2, 3] = height
    return World(camera, T, (vertices, quad + 4 if wall_only else both), (vertices, both))
