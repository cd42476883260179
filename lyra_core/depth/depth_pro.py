"""Depth Pro (Bochkovskii et al. 2025, Apple) through transformers: metric depth and the focal length from one picture."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from lyra_core.config import DepthCfg
from lyra_core.depth.depth_anything import FAR
from lyra_core.depth.file import shown_floor
from lyra_core.depth.hub import model_config
from lyra_core.depth.measured import from_metric_depth
from lyra_core.errors import InputError
from lyra_core.types import Camera, DepthEstimate, Label, Photo, PhotoReading

DEFAULT_MODEL = "apple/DepthPro-hf"
LICENCE = ("Apple Machine Learning Research Model License Agreement (apple-amlr) of the Depth Pro weights: research purposes only, "
           "no commercial use; read it beside the weights")
SIGMA = 0.12
"""Relative standard deviation of the model's scale on a photo."""
_NEAREST_INVERSE, _FARTHEST_INVERSE = 1e4, 1e-4
"""Bounds of inverse depth [1/m], as the published code has them."""
_FIELDS_OF_VIEW = (3.0, 150.0)
"""What a horizontal field of view can be [deg]."""


class DepthPro:
    """The model predicts inverse depth for a picture as wide as its focal length; the true one turns it into metres.

    Where the photo's focal length is known, that is used; else the model's own estimate, for the depth and for the world's camera.
    """

    licence = LICENCE

    def __init__(self, cfg: DepthCfg) -> None:
        self.name = cfg.model or DEFAULT_MODEL

    @staticmethod
    def probe() -> str:
        """Say whether the default model is there, for ``lyra-worlds doctor``."""
        provider = DepthPro(DepthCfg())
        provider._config  # noqa: B018  (read for its errors)
        return f"{provider.name} in the hub's cache ({LICENCE})"

    def check(self, photo: Photo) -> None:
        """Require the packages and the model's files; weights are taken from .safetensors alone.

        Raises:
            BackendUnavailable: a package or the files are missing; the command that brings them and the licence are named.
            InputError: another model, pickled weights, or a model without focal length for a photo that does not tell it.
        """
        if not self._config.use_fov_model and photo.focal_px is None:
            raise InputError(f"depth: model: {self.name}: got a model without estimate of the focal length and a photo that does "
                             "not tell it, expected the focal length (--focal)")

    @cached_property
    def _config(self) -> Any:
        return model_config(self.name, backend="depth_pro", model_type="depth_pro", licence=LICENCE)

    @cached_property
    def _model(self) -> tuple[Any, str]:
        import torch
        from transformers import DepthProForDepthEstimation

        self._config  # noqa: B018  (read for its errors)
        logging.getLogger(__name__).warning("depth_pro loads %s under the %s", self.name, LICENCE)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = DepthProForDepthEstimation.from_pretrained(self.name, local_files_only=True, use_safetensors=True)
        # Weights stored in half precision are computed with in full.
        return model.float().to(device).eval(), device

    def pixels(self, rgb: np.ndarray) -> Any:
        """Return what the model sees of a picture (H, W, 3) uint8: (1, 3, S, S) float32 tensor from -1 to 1, squeezed into a
        square.

        As transformers' processor does it (bilinear weights without smoothing, even when shrinking), which wants torchvision.
        """
        import torch

        side = round(self._config.patch_size / min(self._config.scaled_images_ratios))
        picture = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1  # torch wants it writable
        return torch.nn.functional.interpolate(picture, (side, side), mode="bilinear", align_corners=False)

    def predict(self, rgb: np.ndarray, width: int, height: int, *, focal_px: float | None) -> tuple[np.ndarray, float]:
        """Return depth (height, width) float32 [m] of a picture (H, W, 3) uint8 and the focal length [px of that size] behind it.

        The model answers with inverse depth for a picture whose width is its focal length.

        Args:
            width, height: size of the depth; the model itself sees the picture at its own size.
            focal_px: where it is known [px of the depth]; None = the model's own.

        Raises:
            InputError: the model's own is none that a camera has.
        """
        import torch

        model, device = self._model
        with torch.no_grad():
            seen = model(self.pixels(rgb).to(device))
            focal = focal_px or self._focal(seen.field_of_view, width)
            inverse = seen.predicted_depth[:, None].float() * (width / focal)
            inverse = torch.nn.functional.interpolate(inverse, (height, width), mode="bilinear", align_corners=False)
        return (1 / inverse[0, 0].clamp(_FARTHEST_INVERSE, _NEAREST_INVERSE)).cpu().numpy(), focal

    def _focal(self, field_of_view: Any, width: int) -> float:
        """Return the focal length [px] of a picture so wide, of the model's horizontal field of view (1,) [deg] or None."""
        degrees = float("nan") if field_of_view is None else float(field_of_view[0])
        low, high = _FIELDS_OF_VIEW
        if not low < degrees < high:
            raise InputError(f"depth: model: {self.name}: got a field of view of {degrees:.4g} degrees, "
                             f"expected {low:g} to {high:g}; say the focal length (--focal)")
        return 0.5 * width / math.tan(math.radians(degrees) / 2)

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return depth of the photo at the reading's size, with focal length, gravity, camera height and labels corrected by it.

        Raises:
            InputError: the photo does not tell its focal length and the model's is none that a camera has.
        """
        width, height = reading.camera.width, reading.camera.height
        given = None if photo.focal_px is None else float(reading.camera.K[0, 0])
        depth, focal = self.predict(photo.rgb, width, height, focal_px=given)
        sky = reading.labels == Label.SKY
        depth = np.where(sky | (depth > FAR), np.nan, np.maximum(depth, 0.05)).astype(np.float32)
        camera = reading.camera if given is not None else Camera.from_focal(focal, width, height)
        found = from_metric_depth(depth, reading, source="depth_pro", sigma=SIGMA, called="The depth model", camera=camera,
                                  floor_mask=shown_floor(photo, width, height))
        said = [f"Depth by {self.name}: {LICENCE}."]
        if given is None:
            said.append(f"The focal length ({focal / max(width, height):.2f} of the long side) is the depth model's own estimate, "
                        "not the one read from the photo.")
        return replace(found, notes=(*said, *found.notes))

