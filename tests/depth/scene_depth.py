"""Exact depth of the bundled picture's own scene, so that worlds of models without weights can be judged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from lyra_core.config import DepthCfg
from lyra_core.scenes.demo import WALL_HEIGHT, demo_camera, demo_scene
from lyra_core.scenes.render import render_truth
from lyra_core.scenes.scene import Scene
from lyra_core.types import Camera, DepthEstimate, Frame, Photo, PhotoReading


@cache
def scene() -> Scene:
    """Return the demo scene."""
    return demo_scene()


class DepthFromScene:
    """Depth provider ``tests.depth.scene_depth:DepthFromScene``: casts rays into the scene, for the photo and for frames."""

    def __init__(self, cfg: DepthCfg) -> None:
        self.cfg = cfg

    def check(self, photo: Photo) -> None:
        """Nothing is missing."""

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return the photo's exact camera, depth and labels. The world's frame is the scene's."""
        camera, T = demo_camera(width=reading.camera.width, height=reading.camera.height)
        depth, labels = render_truth(scene(), camera, T)
        return DepthEstimate(known(depth), labels, camera, T, WALL_HEIGHT, "scene", 0.0)

    def estimate_frames(self, frames: Sequence[Frame], *, history: Sequence[Frame]) -> list[np.ndarray]:
        """Return exact depth at the frames' poses."""
        return [depth_at(frame.camera, frame.T_world_camera) for frame in frames]


def depth_at(camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 z-depth [m], NaN where the ray meets nothing."""
    return known(render_truth(scene(), camera, T_world_camera)[0])


def known(depth: np.ndarray) -> np.ndarray:
    """Return depth with everything that is no distance as NaN."""
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)
