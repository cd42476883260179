"""What lens, sensor and file do to a picture, beyond ``render.Effects``."""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np

from lyra_core.errors import ConfigError
from lyra_core.scenes.render import Effects


@dataclass(frozen=True)
class PhotoEffects(Effects):
    """Effects of a cheap camera; all off by default."""

    blur: float = 0.0
    """Standard deviation of the lens's softness [px]."""
    bloom: float = 0.0
    """Share of the light that is spread widely in the lens: glare round windows and lamps."""
    chromatic: float = 0.0
    """How much farther out red than blue lies in the corners [px]."""
    contrast: float = 1.0
    """Exponent about middle grey, in linear light."""
    saturation: float = 1.0
    shot: float = 0.0
    """Photon noise: standard deviation over brightness, at the picture's mean brightness."""
    jpeg: int = 0
    """Quality of a JPEG encoding between 1 and 100; 0 = none."""

    def __post_init__(self) -> None:
        if not 0 <= self.jpeg <= 100:
            raise ConfigError(f"PhotoEffects.jpeg: got {self.jpeg}, expected 0 (none) to 100")
        for name in ("blur", "bloom", "saturation", "shot"):
            if getattr(self, name) < 0:
                raise ConfigError(f"PhotoEffects.{name}: got {getattr(self, name)}, expected 0 or more")
        if self.contrast <= 0:
            raise ConfigError(f"PhotoEffects.contrast: got {self.contrast}, expected more than 0")


def photographed(effects: Effects, rng: np.random.Generator, *, width: int) -> PhotoEffects:
    """Return these effects with faults of a random camera, for pictures of this width [px]."""
    size = width / 256
    return PhotoEffects(
        **{f.name: getattr(effects, f.name) for f in fields(Effects)},
        blur=float(size * (rng.uniform(0.0, 0.6) if rng.random() < 0.8 else rng.uniform(0.6, 1.2))),
        bloom=float(rng.uniform(0, 0.08)),
        chromatic=float(size * rng.normal(0, 0.25)),
        contrast=float(np.exp(rng.normal(0, 0.12))),
        saturation=float(np.exp(rng.normal(0, 0.15))),
        shot=float(rng.uniform(0, 0.04)),
        jpeg=int(rng.integers(55, 98)) if rng.random() < 0.8 else 0,
    )


def through_lens(light: np.ndarray, k: int, effects: Effects) -> np.ndarray:
    """Return radiance (H, W, 3) float32 as it leaves the lens and the sensor's amplifier; k samples a pixel each way."""
    if not isinstance(effects, PhotoEffects):
        return light
    h, w = light.shape[:2]
    if effects.chromatic:
        light = _dispersed(light, effects.chromatic * k)
    if effects.bloom:
        wide = cv2.GaussianBlur(np.minimum(light, 8 * light.mean()), (0, 0), 0.03 * max(h, w), borderType=cv2.BORDER_REPLICATE)
        light = light + np.float32(effects.bloom) * (wide - light)
    if effects.blur:
        light = cv2.GaussianBlur(light, (0, 0), effects.blur * k, borderType=cv2.BORDER_REPLICATE)
    grey = (light @ np.array([0.2126, 0.7152, 0.0722], np.float32))[..., None]
    light = np.maximum(grey + np.float32(effects.saturation) * (light - grey), 0)
    middle = np.float32(np.exp(np.log(grey + 1e-3).mean()))
    light = middle * (light / middle) ** np.float32(effects.contrast)
    if effects.shot:
        noise = np.random.default_rng([abs(effects.seed), 1]).standard_normal(light.shape, np.float32)
        # A pixel is the mean of k^2 samples, so each sample is k times as noisy.
        light = np.maximum(light + np.float32(effects.shot * k) * np.sqrt(light * grey.mean()) * noise, 0)
    return light.astype(np.float32)


def encode(rgb: np.ndarray, effects: Effects) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 as it is read back from the camera's file."""
    if not isinstance(effects, PhotoEffects) or not effects.jpeg:
        return rgb
    _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, effects.jpeg])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])


def _dispersed(light: np.ndarray, shift: float) -> np.ndarray:
    """Return light with red scaled up and blue scaled down about the centre, so that corners part by shift [px]."""
    h, w = light.shape[:2]
    out = light.copy()
    for channel, sign in ((0, -0.5), (2, 0.5)):
        s = 1 + sign * shift / (0.5 * np.hypot(h, w))
        A = np.array([[s, 0, (1 - s) * (w - 1) / 2], [0, s, (1 - s) * (h - 1) / 2]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        out[..., channel] = cv2.warpAffine(light[..., channel], A, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return out
