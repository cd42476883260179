"""A clip that costs nothing: a camera moves sideways along a painted wall two metres away. Depth, cameras and colours are exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.training.clips import Clip
from lyra_core.types import Camera, Trajectory

WALL = 2.0
"""Distance of the wall [m]."""


def wall_clip(frames: int, *, width: int = 48, height: int = 32, step: float = 0.05, seed: int = 0) -> Clip:
    """Return the clip; the paint is a sum of a few waves."""
    camera = Camera.from_focal(0.6 * width, width, height)
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 0, 3] = step * np.arange(frames)
    points = camera.rays()[None] * WALL + T[:, None, None, :3, 3]
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(0, 2.5, (6, 2)), rng.uniform(0, 6, (6, 1)) + rng.normal(0, 0.15, (6, 3))
    angles = points[..., :2] @ waves.T
    # Nearly grey, as rooms are: latents of codec 'patch' then have about unit variance.
    rgb = 0.5 + 0.16 * np.sin(angles[..., None] + phases).sum(-2)
    rgb = np.clip(255 * rgb, 0, 255).astype(np.uint8)
    depth = np.full(rgb.shape[:3], WALL, np.float32)
    path = Trajectory(T, np.repeat(camera.K[None], frames, 0), width, height)
    return Clip(f"wall-{seed}", path, lambda ids: rgb[list(ids)], lambda ids: depth[list(ids)], {0: "a painted wall"})


@dataclass(frozen=True)
class Walls:
    """Some of them as a source."""

    clips: tuple[Clip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def load(self, index: int) -> Clip:
        """Return one."""
        return self.clips[index]


def walls(count: int, frames: int, **options) -> Walls:
    """Return several walls."""
    return Walls(tuple(wall_clip(frames, seed=i, **options) for i in range(count)))
