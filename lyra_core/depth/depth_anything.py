"""Depth Anything V2 (Yang et al. 2024) through transformers: depth of the photo and of generated frames."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from lyra_core.config import DepthCfg
from lyra_core.depth.align import depth_scale, disparity_fit, known_depth, smoothed
from lyra_core.depth.file import shown_floor
from lyra_core.depth.geometric import DepthGeometric
from lyra_core.depth.hub import model_config
from lyra_core.depth.measured import from_metric_depth
from lyra_core.errors import InputError
from lyra_core.types import DepthEstimate, Frame, Label, Photo, PhotoReading

DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf"
"""Outdoors take the Metric-Outdoor model."""
LICENCE = "weights as published: Small models Apache-2.0; Base and Large CC-BY-NC-4.0, no commercial use"
FAR = 200.0
"""Deeper than this is sky or nonsense [m]."""
SIGMA = 0.15
"""Relative standard deviation of a metric model's scale on a photo."""


class DepthAnything:
    """Monocular depth. Metric models give metres; relative ones give disparity, fitted to what is known.

    Of a photo, a relative model's disparity is fitted to the photo's own metrology ('geometric'). Of generated frames, each
    prediction is fitted to the depth of earlier frames, warped to its camera: by one factor (metric), or by factor and offset of
    the disparity (relative). Fits are smoothed over the frames given together. A frame that earlier frames do not cover takes its
    neighbours' fit; if none is covered, metric depth stays as predicted, and disparity is scaled to the newest frame's median.
    """

    def __init__(self, cfg: DepthCfg) -> None:
        self.name = cfg.model or DEFAULT_MODEL
        self._cfg = cfg

    @staticmethod
    def probe() -> str:
        """Say whether the default model is there, for ``lyra-worlds doctor``."""
        provider = DepthAnything(DepthCfg())
        provider._config  # noqa: B018  (read for its errors)
        return f"{provider.name} in the hub's cache ({LICENCE})"

    def check(self, photo: Photo) -> None:
        """Require transformers and the model's files.

        Raises:
            BackendUnavailable: the package or the files are missing; the command that brings them is named.
        """
        self._config  # noqa: B018  (read for its errors)

    @cached_property
    def _config(self) -> Any:
        return model_config(self.name, backend="depth_anything", model_type="depth_anything", licence=LICENCE)

    @cached_property
    def _model(self) -> tuple[Any, Any, str]:
        import torch
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        self._config  # noqa: B018  (read for its errors)
        logging.getLogger(__name__).info("depth_anything loads %s (%s)", self.name, LICENCE)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        processor = AutoImageProcessor.from_pretrained(self.name, local_files_only=True)
        model = AutoModelForDepthEstimation.from_pretrained(self.name, local_files_only=True, use_safetensors=True)
        return processor, model.to(device).eval(), device

    @property
    def is_metric(self) -> bool:
        """True if the model predicts metres, False if disparity."""
        return self._config.depth_estimation_type == "metric"

    def predict(self, rgb: np.ndarray) -> np.ndarray:
        """Return the model's output for a picture (H, W, 3) uint8 at its size: (H, W) float32 depth [m] or disparity.

        It is enlarged with bilinear weights. The library's pipeline takes bicubic ones, which overshoot at depth edges: they put
        points before the nearer surface, where a robot would meet them.
        """
        import torch

        processor, model, device = self._model
        with torch.no_grad():
            out = model(**processor(images=rgb, return_tensors="pt").to(device)).predicted_depth
            out = torch.nn.functional.interpolate(out[:, None].float(), rgb.shape[:2], mode="bilinear", align_corners=False)
        return out[0, 0].cpu().numpy()

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return depth of the photo at the reading's size, with gravity, camera height and labels corrected by it.

        Raises:
            InputError: a relative model's disparity does not fit the photo's metrology.
        """
        from lyra_core.io.images import resized

        out = self.predict(resized(photo.rgb, reading.camera.width, reading.camera.height))
        if self.is_metric:
            depth, sigma = out, SIGMA
        else:
            geometric = DepthGeometric(self._cfg).estimate(photo, reading)
            fit = disparity_fit(out, geometric.depth)
            if fit is None:
                raise InputError(f"{photo.name}: disparity of {self.name} does not fit the floor and walls read from the photo; "
                                 "use a metric model (depth: model)")
            depth, sigma = from_disparity(out, *fit), reading.scale_sigma
        unknown = (reading.labels == Label.SKY) | ~(depth < FAR)
        depth = np.where(unknown, np.nan, np.maximum(depth, 0.05)).astype(np.float32)
        found = from_metric_depth(depth, reading, source="depth_anything", sigma=sigma, called="The depth model",
                                  floor_mask=shown_floor(photo, depth.shape[1], depth.shape[0]))
        return replace(found, notes=(f"Depth by {self.name} ({LICENCE}).", *found.notes))

    def estimate_frames(self, frames: Sequence[Frame], *, history: Sequence[Frame]) -> list[np.ndarray]:
        """Return z-depth (H, W) float32 [m] of each frame in the scale of the history; beyond 200 m it is unknown."""
        if not frames:
            return []
        raw = [self.predict(frame.rgb) for frame in frames]
        known = known_depth(frames, history)
        if self.is_metric:
            factors = [depth_scale(out, seen) for out, seen in zip(raw, known, strict=True)]
            logs = smoothed([None if f is None else np.log([f]) for f in factors], np.zeros(1))
            depths = [out * np.exp(log[0]) for out, log in zip(raw, logs, strict=True)]
        else:
            fits = [disparity_fit(out, seen) for out, seen in zip(raw, known, strict=True)]
            rows = smoothed([None if fit is None else np.array(fit) for fit in fits], np.array([_fallback(raw, history), 0.0]))
            depths = [from_disparity(out, *row) for out, row in zip(raw, rows, strict=True)]
        return [np.where((d > 0) & (d < FAR), d, np.nan).astype(np.float32) for d in depths]


def from_disparity(disparity: np.ndarray, a: float, b: float) -> np.ndarray:
    """Return depth 1 / (a * disparity + b) [m]; infinite where that is not positive."""
    inverse = a * disparity + b
    return np.where(inverse > 1e-6, 1.0 / np.maximum(inverse, 1e-6), np.inf)


def _fallback(raw: Sequence[np.ndarray], history: Sequence[Frame]) -> float:
    """Return the factor that gives disparities the median inverse depth of the newest known frame; 0.2 per metre without one."""
    known = [frame.depth[np.isfinite(frame.depth)] for frame in history]
    inverse = next((1.0 / float(np.median(depth)) for depth in known if depth.size), 0.2)
    return inverse / max(float(np.median(np.stack(raw))), 1e-6)
