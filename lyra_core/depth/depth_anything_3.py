"""Depth Anything 3 (Lin et al. 2025): multi-view depth of generated frames, in an environment and a process of its own."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.config import DepthCfg
from lyra_core.depth.align import depth_scale, known_depth, pose_scale
from lyra_core.depth.file import shown_floor
from lyra_core.depth.measured import from_metric_depth
from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.types import DepthEstimate, Frame, Label, Photo, PhotoReading

ENVIRONMENT = "LYRA_DEPTH_ANYTHING_3_PYTHON"
"""Environment variable: the Python of an environment made from requirements/depth-anything-3.txt."""
INSTALL = f"make env-depth-anything-3, or set {ENVIRONMENT} to a Python with requirements/depth-anything-3.txt"
DEFAULT_MODEL = "depth-anything/DA3NESTED-GIANT-LARGE-1.1"
"""Lyra 2.0's own choice for given camera paths."""
LICENCE = "weights of the default model: CC-BY-NC-4.0, no commercial use; of another: see beside them"
FAR = 200.0
SIGMA = 0.1


def worker_python() -> Path:
    """Return the Python that has depth-anything-3: $LYRA_DEPTH_ANYTHING_3_PYTHON, else that of .venv-depth-anything-3.

    Raises:
        BackendUnavailable: neither exists; names the command that makes it.
    """
    named = os.environ.get(ENVIRONMENT)
    candidate = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-depth-anything-3" / "bin" / "python"
    if not candidate.is_file():
        raise BackendUnavailable("depth 'depth_anything_3'", reason=f"{candidate} does not exist", install=INSTALL)
    return candidate


class DepthAnything3:
    """Frames are predicted together with their known cameras, and the newest earlier frame as the first view.

    The model's own poses are brought to the known camera centres by a similarity (RANSAC from 10 views on); its depth is divided by
    that scale, and the camera path stays as given. Where the camera stands still, the depth of earlier frames fixes the scale;
    where there is none either, the nested model's depth is metric already and stays.
    """

    def __init__(self, cfg: DepthCfg) -> None:
        self.name = cfg.model or DEFAULT_MODEL
        self._worker: subprocess.Popen[str] | None = None
        self._python = worker_python()

    @staticmethod
    def probe() -> str:
        """Say where its environment is, for ``lyra-worlds doctor``."""
        return f"{worker_python()} (weights are looked for when it starts; {LICENCE})"

    def check(self, photo: Photo) -> None:
        """Require the environment; the weights are looked for when the worker starts."""

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return depth of the photo at the reading's size (single view), with gravity, camera height and labels corrected by it."""
        from lyra_core.io.images import resized

        camera = reading.camera
        rgb = resized(photo.rgb, camera.width, camera.height)
        depth, _ = self._predict(rgb[None], inverse(reading.T_world_camera[None]), camera.K[None])
        depth = np.where(reading.labels == Label.SKY, np.nan, depth[0]).astype(np.float32)
        found = from_metric_depth(depth, reading, source="depth_anything_3", sigma=SIGMA, called="The depth model",
                                  floor_mask=shown_floor(photo, depth.shape[1], depth.shape[0]))
        return replace(found, notes=(f"Depth by {self.name} ({LICENCE}).", *found.notes))

    def estimate_frames(self, frames: Sequence[Frame], *, history: Sequence[Frame]) -> list[np.ndarray]:
        """Return z-depth (H, W) float32 [m] of each frame; sky is unknown."""
        if not frames:
            return []
        views = [*history[:1], *frames]
        T = np.stack([view.T_world_camera for view in views])
        rgb, K = np.stack([view.rgb for view in views]), np.stack([view.camera.K for view in views])
        depth, predicted = self._predict(rgb, inverse(T), K)
        depth = depth[len(views) - len(frames) :]
        scale = pose_scale(inverse(predicted)[:, :3, 3], T[:, :3, 3], rng=np.random.default_rng(0))
        if scale is None:
            factors = [depth_scale(d, seen) for d, seen in zip(depth, known_depth(frames, history), strict=True)]
            found = [f for f in factors if f is not None]
            scale = float(np.median(found)) if found else 1.0
        return list((depth * scale).astype(np.float32))

    def _predict(self, rgb: np.ndarray, w2c: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return depth (N, H, W), NaN on sky, at the pictures' size in the model's units, and its own w2c (N, 4, 4).

        Raises:
            InputError: the model failed on these pictures.
        """
        import cv2

        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
            np.savez(source, rgb=rgb, w2c=w2c, K=K)
            answer = self._ask({"input": str(source), "output": str(target)})
            if "error" in answer:
                raise InputError(f"depth_anything_3: {self.name}: {answer['error']}")
            with np.load(target, allow_pickle=False) as data:
                depth, predicted, sky = data["depth"], data["w2c"], data["sky"]
        size = (rgb.shape[2], rgb.shape[1])
        out = np.stack([cv2.resize(d, size, interpolation=cv2.INTER_LINEAR) for d in depth])
        unknown = np.stack([cv2.resize(s.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) for s in sky]) > 0
        return np.where(unknown | ~(out > 0) | (out > FAR), np.nan, out), predicted

    def _ask(self, job: dict[str, str]) -> dict[str, Any]:
        worker = self._started()
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(json.dumps(job) + "\n")
        worker.stdin.flush()
        return self._answer(worker)

    def _answer(self, worker: subprocess.Popen[str]) -> dict[str, Any]:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            self._worker = None
            reason = f"its process ended with code {worker.wait()} (model {self.name!r}; its messages are above)"
            raise BackendUnavailable(
                "depth 'depth_anything_3'", reason=reason,
                install=f"{INSTALL}; weights: hf download {self.name} (CC-BY-NC-4.0)",
            )
        return json.loads(line)

    def _started(self) -> subprocess.Popen[str]:
        if self._worker is None:
            script = Path(__file__).with_name("_depth_anything_3_worker.py")
            # -P: the package of this name is meant, not the module beside the script.
            command = [str(self._python), "-P", str(script), self.name, "0"]
            self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            atexit.register(self._worker.kill)
            self._answer(self._worker)
        return self._worker
