"""An endless supply of seeded truth scenes with a camera: what the benchmarks measure against and networks learn from.

What counts as floor. FLOOR is ground that one walks or rolls on without climbing: floor slabs, rugs, markings, pavements and
platforms whose edge rises at most 0.15 m above the ground beside it (the edge included), ramps of at most 10 degrees and the
platforms they lead to. Stairs, higher steps and their sides, beds of plants and everything that stands or lies on the floor,
cables too, are OBSTACLE. Frames of windows, pictures and mirrors belong to their WALL; a mirror's depth is its glass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from lyra_core.errors import ConfigError
from lyra_core.scenes.corridors import corridor
from lyra_core.scenes.courtyards import courtyard
from lyra_core.scenes.interiors import furnished_room
from lyra_core.scenes.offices import office
from lyra_core.scenes.palette import pick
from lyra_core.scenes.placing import choose_view, ground_below
from lyra_core.scenes.render import Effects
from lyra_core.scenes.scene import Scene
from lyra_core.scenes.townscapes import street
from lyra_core.scenes.warehouses import warehouse
from lyra_core.types import Camera

MAKERS: dict[str, Callable[[np.random.Generator], tuple[Scene, list[str]]]] = {
    "furnished_room": furnished_room,
    "office": office,
    "corridor": corridor,
    "warehouse": warehouse,
    "street": street,
    "courtyard": courtyard,
}
"""Scene makers by kind: each returns a scene and tags of what is special about it."""
KINDS = tuple(MAKERS)
FORMATS = ((1024, 768), (1024, 768), (1024, 683), (1024, 576), (768, 1024), (683, 1024))
"""Width and height of the pictures [px]."""
VIEW_HEIGHTS = ((1.3, 1.7), (1.3, 1.7), (1.3, 1.7), (0.8, 1.3), (0.3, 0.8), (1.7, 2.0))
"""Of random cameras [m]: mostly eye level, but robots and people who sit look from lower."""
BENCHMARK_SEED = 72_400
"""A base whose cases are spread evenly over the uses of rooms, offices and the shapes of corridors too."""


@dataclass(frozen=True)
class SceneCase:
    """A scene with the camera that photographs it."""

    scene: Scene
    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4) in the scene's own frame."""
    effects: Effects
    kind: str
    """Name in KINDS."""
    name: str
    """'kind-seed'."""
    tags: tuple[str, ...]
    """What is special about the scene (not always in view) or the picture: 'dark', 'overexposed',
    'warm', 'cold', 'noisy', 'portrait', 'looks_up', 'looks_down', 'night', 'mirror', 'stairs', 'ramp', 'step', 'kerb', ..."""
    exif_focal: bool
    """Whether the photo comes with its focal length."""
    seed: int

    @property
    def camera_height(self) -> float:
        """Height of the lens above the ground below it [m]."""
        eye = self.T_world_camera[:3, 3]
        return float(eye[2] - ground_below(self.scene, eye)[0])

    @property
    def T_scene_world(self) -> np.ndarray:
        """(4, 4) from a photo's world (origin on the ground below the lens, x where it looks, Z up) into the scene's frame."""
        forward, T = self.T_world_camera[:3, 2], np.eye(4)
        x = np.array([forward[0], forward[1], 0.0]) / np.hypot(forward[0], forward[1])
        T[:3, 0], T[:3, 1] = x, (-x[1], x[0], 0.0)
        T[:3, 3] = self.T_world_camera[:3, 3] - [0, 0, self.camera_height]
        return T

    def resized(self, width: int, height: int) -> SceneCase:
        """Return the case with its picture resampled to another size [px]."""
        return replace(self, camera=self.camera.resized(width, height))


def sample_scene(seed: int, kind: str | None = None) -> SceneCase:
    """Make the scene of a seed, of any kind or of this kind. The same seed gives the same bytes.

    Raises:
        ConfigError: kind is unknown or seed is negative.
    """
    if kind is not None and kind not in MAKERS:
        raise ConfigError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if seed < 0:
        raise ConfigError(f"seed: got {seed}, expected 0 or more")
    shape, look = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    drawn = pick(np.random.default_rng([seed, 0]), KINDS)
    kind = kind or drawn
    scene, tags = MAKERS[kind](shape)
    camera, pose = _camera(look, tags, outdoors=kind in ("street", "courtyard"))
    T = choose_view(look, scene, camera, **pose)
    effects = _effects(look, tags, seed)
    return SceneCase(scene, camera, T, effects, kind, f"{kind}-{seed}", tuple(dict.fromkeys(tags)), bool(look.random() < 0.5), seed)


def sample_views(seed: int, kind: str, count: int, rng: np.random.Generator) -> Iterator[SceneCase]:
    """Yield ``count`` photos of the scene of a seed and kind, by cameras of all heights, quicker chosen than sample_scene's."""
    scene, tags = MAKERS[kind](np.random.default_rng([seed, 1]))
    for number in range(count):
        said = list(tags)
        camera, pose = _camera(rng, said, outdoors=kind in ("street", "courtyard"))
        pose["height"] = rng.uniform(*pick(rng, VIEW_HEIGHTS))
        T = choose_view(rng, scene, camera, tries=3, **pose)
        effects = _effects(rng, said, int(rng.integers(1 << 30)))
        yield SceneCase(scene, camera, T, effects, kind, f"{kind}-{seed}-{number}", tuple(dict.fromkeys(said)), False, seed)


def benchmark_cases(count: int = 84) -> list[SceneCase]:
    """Return the benchmark's fixed cases: the kinds in turn, so every kind equally often where count divides by their number.

    Raises:
        ConfigError: count is below 1.
    """
    if count < 1:
        raise ConfigError(f"count: got {count}, expected 1 or more")
    return [sample_scene(BENCHMARK_SEED + i, KINDS[i % len(KINDS)]) for i in range(count)]


def _camera(rng: np.random.Generator, tags: list[str], *, outdoors: bool) -> tuple[Camera, dict]:
    """Draw picture format, focal length, height, pitch and roll."""
    width, height = pick(rng, FORMATS)
    long = max(width, height)
    focal = long * float(np.exp(rng.uniform(np.log(0.6), np.log(1.4)))) if rng.random() < 0.4 else long * rng.uniform(0.62, 0.85)
    pitch = float(np.clip(rng.normal(6 if outdoors else 11, 8), -8, 35))
    roll = float(np.clip(rng.normal(0, 1.8), -6, 6))
    if height > width:
        tags.append("portrait")
    show_floor = bool(rng.random() < 0.9)
    if not show_floor:
        pitch = min(pitch, 2.0)
    if pitch > 22:
        tags.append("looks_down")
    if pitch < -2:
        tags.append("looks_up")
    pose = {
        "height": rng.uniform(0.9, 1.8) if rng.random() < 0.5 else rng.uniform(1.35, 1.7),
        "pitch": np.radians(pitch),
        "roll": np.radians(roll),
        "show_floor": show_floor,
    }
    return Camera.from_focal(focal, width, height), pose


def _effects(rng: np.random.Generator, tags: list[str], seed: int) -> Effects:
    """Draw exposure, white balance and noise; an automatic camera meters the scene first."""
    exposure, noise, warm = float(np.exp(rng.normal(0, 0.16))), rng.uniform(0.4, 2.5), rng.normal(0, 0.03)
    roll, cast = rng.random(), rng.random()
    if roll < 0.1:
        exposure, noise, tags[:] = rng.uniform(0.2, 0.38), rng.uniform(3, 7), [*tags, "dark"]
    elif roll < 0.2:
        exposure, tags[:] = rng.uniform(2.2, 3.6), [*tags, "overexposed"]
    elif roll < 0.28:
        noise, tags[:] = rng.uniform(6, 12), [*tags, "noisy"]
    if cast < 0.1:
        warm, tags[:] = rng.uniform(0.12, 0.25), [*tags, "warm"]
    elif cast < 0.2:
        warm, tags[:] = -rng.uniform(0.1, 0.2), [*tags, "cold"]
    return Effects(
        light_samples=1, bounce_samples=4, filter_levels=4, exposure=exposure, metered=0.16, tint=(1 + warm, 1.0, 1 - warm),
        vignette=rng.uniform(0, 0.25), noise=noise, seed=seed,
    )  # fmt: skip
