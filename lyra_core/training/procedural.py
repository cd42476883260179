"""Clips of our own worlds, made on the spot: an analytic room as photo, the procedural world of it, a walk through that world."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.generate.captions import template_prompt
from lyra_core.generate.procedural import GeneratorProcedural
from lyra_core.generate.procedural.query import WorldView
from lyra_core.io.files import read_npz, write_npz
from lyra_core.rays import RayTracer, make_ray_tracer
from lyra_core.scenes import SCENES, Effects, render
from lyra_core.training.clips import Clip
from lyra_core.types import Camera, DepthEstimate, Photo, Trajectory

KINDS = ("furnished_room", "corridor", "office")
"""Scenes that take turns; streets are left out, their depth has no end."""
EYE_HEIGHT = 1.5
PHOTO_SIZE, FOCAL = (320, 200), 0.6
"""Width, height of the photo that a world is made of [px], and the focal length of all pictures in units of their width."""
STEP, TURN = 0.06, np.radians(7.0)
"""Largest step [m] and turn [rad] per frame of a walk."""
FAN = np.radians(np.arange(-75, 76, 15))
"""Directions in which a walk looks for free space, about its heading [rad]."""


@dataclass(frozen=True)
class PlayWorld:
    """A procedural world that can be looked at from anywhere."""

    view: WorldView
    tracer: RayTracer
    places: np.ndarray
    """(S, 2) a free place in every room, the photo's first [m]."""

    @staticmethod
    def make(seed: int) -> PlayWorld:
        """Make the world of a seed: its photo is rendered from an analytic scene, its depth is exact."""
        kind = KINDS[seed % len(KINDS)]
        scene = SCENES[kind](np.random.default_rng([seed, 11]))
        camera = camera_of(*PHOTO_SIZE)
        T = from_yaw_pitch(np.array([0.0, 0.0, EYE_HEIGHT]), 0.0, np.radians(-5.0))
        photo = render(scene, camera, T, effects=Effects(seed=seed))
        generator = GeneratorProcedural(quality="draft")
        estimate = DepthEstimate(photo.depth, photo.labels, camera, T, None, "exact", 0.0)
        generator.prepare(Photo(photo.rgb, "0" * 64, f"{kind}-{seed}"), estimate, seed=seed, indoor=True)
        world = generator.explicit_world()
        return PlayWorld(WorldView(world.mesh), make_ray_tracer(world.mesh.vertices, world.mesh.faces), world.places)

    def frames(self, path: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """Render a path: (N, H, W, 3) uint8 and exact z-depth (N, H, W) float32 [m], NaN = sky."""
        made = [self.view.render(path.camera(i), path.T_world_camera[i]) for i in range(len(path))]
        return np.stack([frame.rgb for frame in made]), np.stack([frame.depth for frame in made])


def camera_of(width: int, height: int) -> Camera:
    """Return the camera of all pictures at a size."""
    return Camera.from_focal(FOCAL * width, width, height)


def wander(world: PlayWorld, camera: Camera, frames: int, rng: np.random.Generator) -> Trajectory:
    """Walk about from the photo's place without a goal: smooth turns, away from what is near; slower where there is little room."""
    position = np.append(world.places[0], EYE_HEIGHT)
    yaw, rate = float(rng.uniform(-np.pi, np.pi)), 0.0
    T = np.empty((frames, 4, 4))
    for i in range(frames):
        T[i] = from_yaw_pitch(position, yaw)
        angles = yaw + FAN
        free = _free(world.tracer, position, angles)
        ahead = float(free[np.abs(FAN) < np.radians(40)].min())
        # Close to something the walk turns to where there is more room; else it drifts.
        wish = np.sign(free @ FAN) * TURN if ahead < 1.0 else float(rng.normal(0, 0.6)) * TURN
        rate = float(np.clip(0.8 * rate + 0.4 * wish, -TURN, TURN))
        position = position + STEP * np.clip((ahead - 0.5) / 0.8, 0, 1) * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        yaw += rate
    return Trajectory(T, np.repeat(camera.K[None], frames, 0), camera.width, camera.height)


def _free(tracer: RayTracer, position: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return the free distance [m] in directions on the level, at most 5 m."""
    directions = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], 1).astype(np.float32)
    origins = np.broadcast_to(position.astype(np.float32), directions.shape)
    return np.minimum(tracer.cast(origins, directions).t, 5.0)


@dataclass(frozen=True)
class ProceduralSource:
    """Clips of procedural worlds; those made once are kept in ``folder``."""

    folder: Path | None
    width: int
    height: int
    frames: int
    clips: int
    worlds: int
    first_seed: int = 0
    _worlds: dict[int, PlayWorld] = field(default_factory=dict)
    _clips: dict[int, Clip] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.clips

    def load(self, index: int) -> Clip:
        """Return a clip; clip i lies in world i modulo the number of worlds."""
        if index not in self._clips:
            self._clips[index] = self._made(index)
        return self._clips[index]

    def _made(self, index: int) -> Clip:
        seed = self.first_seed + index % self.worlds
        name = f"world-{seed}-walk-{index // self.worlds}"
        file = None if self.folder is None else self.folder / f"{name}-{self.width}x{self.height}-{self.frames}.npz"
        if file is not None and file.is_file():
            arrays = read_npz(file, "rgb", "depth", "T_world_camera")
        else:
            if seed not in self._worlds:
                self._worlds[seed] = PlayWorld.make(seed)
            world, rng = self._worlds[seed], np.random.default_rng([seed, index // self.worlds, 13])
            path = wander(world, camera_of(self.width, self.height), self.frames, rng)
            rgb, depth = world.frames(path)
            arrays = {"rgb": rgb, "depth": depth, "T_world_camera": path.T_world_camera}
            if file is not None:
                write_npz(file, **arrays)
        return self._clip(name, **arrays)

    def _clip(self, name: str, *, rgb: np.ndarray, depth: np.ndarray, T_world_camera: np.ndarray) -> Clip:
        camera = camera_of(self.width, self.height)
        path = Trajectory(T_world_camera, np.repeat(camera.K[None], len(rgb), 0), self.width, self.height)
        return Clip(name, path, lambda ids: rgb[list(ids)], lambda ids: depth[list(ids)], {0: template_prompt(indoor=True)})
