"""Random crops, cameras read wrongly, and appearances: what is learnt must not depend on how the scenes are painted.

Domain randomisation (Tobin et al. 2017; Sadeghi and Levine 2017): every solid may get another colour and pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.photo.prior import inputs_of
from lyra_core.types import Label

CLASS_OF = np.full(256, -1, np.int64)
"""Index into model.CLASSES by Label; -1 = not learnt."""
CLASS_OF[[Label.FLOOR, Label.WALL, Label.DOOR, Label.CEILING, Label.OBSTACLE, Label.SKY]] = (0, 1, 1, 2, 3, 4)
_TEXTURES = 8


@dataclass(frozen=True)
class View:
    """A rendered view with its truth."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    depth: np.ndarray
    """(H, W) float [m]; NaN = sky."""
    labels: np.ndarray
    """(H, W) uint8 of Label."""
    solid: np.ndarray
    """(H, W) int: which solid is seen; -1 = none."""
    K: np.ndarray
    """(3, 3) intrinsics [px]."""
    R_world_camera: np.ndarray
    """(3, 3)."""
    camera_height: float
    """Above the ground below the camera [m]."""
    outdoors: bool


@dataclass(frozen=True)
class Example:
    """What the network gets and what it should say."""

    inputs: np.ndarray
    """(INPUTS, H, W) float32."""
    classes: np.ndarray
    """(H / 2, W / 2) int64, -1 = unknown."""
    log_depth: np.ndarray
    """(H / 2, W / 2) float32: ln(depth / camera height), NaN = unknown."""
    log_height: float
    """ln(camera height / m)."""
    outdoors: float
    """1 outdoors, 0 in a building."""


def example(view: View, rng: np.random.Generator, size: tuple[int, int]) -> Example:
    """Return a random example (width, height) [px] of a view."""
    rgb = repainted(view, rng) if rng.random() < 0.5 else view.rgb
    crop, scale = _crop(view, rng, size)
    (x, y), (w, h) = crop, size
    at_x, at_y = (np.arange(w, dtype=np.float32) + 0.5) / scale + x - 0.5, (np.arange(h, dtype=np.float32) + 0.5) / scale + y - 0.5
    grid_x, grid_y = np.meshgrid(at_x, at_y)
    rgb = cv2.remap(rgb, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    half_x, half_y = np.rint((grid_x[::2, ::2] + grid_x[1::2, 1::2]) / 2), np.rint((grid_y[::2, ::2] + grid_y[1::2, 1::2]) / 2)
    rows = np.clip(half_y, 0, view.labels.shape[0] - 1).astype(int)
    cols = np.clip(half_x, 0, view.labels.shape[1] - 1).astype(int)
    classes, depth = CLASS_OF[view.labels[rows, cols]], view.depth[rows, cols].astype(np.float32)
    K = view.K.copy()
    K[:2] *= scale
    K[0, 2], K[1, 2] = (view.K[0, 2] - x) * scale, (view.K[1, 2] - y) * scale
    log_depth = np.log(np.clip(depth / view.camera_height, 0.05, 100))
    R = _misread(view.R_world_camera, rng)
    K[[0, 1], [0, 1]] *= np.exp(rng.normal(0, 0.05 if rng.random() < 0.7 else 0.15))
    inputs = inputs_of(photometric(rgb, rng), K, R)
    if rng.random() < 0.5:
        inputs, classes, log_depth = inputs[..., ::-1].copy(), classes[:, ::-1].copy(), log_depth[:, ::-1].copy()
        inputs[4] *= -1
    return Example(inputs, classes, log_depth.astype(np.float32), float(np.log(view.camera_height)), float(view.outdoors))


def _crop(view: View, rng: np.random.Generator, size: tuple[int, int]) -> tuple[tuple[float, float], float]:
    """Return the corner of a random part of the picture with the size's shape, and its scale."""
    h, w = view.labels.shape
    largest = min(w / size[0], h / size[1])
    part = largest * (1.0 if rng.random() < 0.4 else rng.uniform(0.7, 1.0))
    return (rng.uniform(0, w - part * size[0]), rng.uniform(0, h - part * size[1])), 1.0 / part


def _misread(R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a camera's rotation as a photo's reader may have got it."""
    angle = np.deg2rad(rng.normal(0, 0.7 if rng.random() < 0.75 else 3.0, 3) * [1.0, 0.0, 0.7])
    return R @ cv2.Rodrigues(angle)[0]


def repainted(view: View, rng: np.random.Generator) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 with other colours and patterns on some of its solids; light and shadow stay."""
    count = int(view.solid.max()) + 2
    changed = rng.random(count) < rng.uniform(0.2, 1.0)
    gain = np.exp(rng.normal(0, 0.45, (count, 1)) + rng.normal(0, 0.25, (count, 3)))
    gain[~changed] = 1.0
    h, w = view.labels.shape
    textures = np.stack([_texture(rng, h, w) for _ in range(_TEXTURES)])
    strength = rng.uniform(0, 0.5, count) * (rng.random(count) < 0.6) * changed
    v, u = np.mgrid[:h, :w]
    pattern = textures[rng.integers(_TEXTURES, size=count)[view.solid], v, u] * strength[view.solid]
    linear = (view.rgb / 255.0) ** 2.2 * gain[view.solid] * np.exp(pattern)[..., None]
    return np.clip(255 * np.clip(linear, 0, 1) ** (1 / 2.2), 0, 255).astype(np.uint8)


def _texture(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Return a random pattern (h, w) of unit deviation: coloured noise, stripes or blots."""
    kind = rng.integers(3)
    if kind == 0:
        size = int(rng.integers(2, 24))
        small = rng.standard_normal((h // size + 3, w // size + 3)).astype(np.float32)
        out = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_NEAREST)
    elif kind == 1:
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 30)
        wave = (np.cos(angle) * np.arange(w)[None] + np.sin(angle) * np.arange(h)[:, None]) * 2 * np.pi / period
        out = np.sin(wave) if rng.random() < 0.5 else np.sign(np.sin(wave))
    else:
        out = cv2.GaussianBlur(rng.standard_normal((h, w)).astype(np.float32), (0, 0), rng.uniform(0.6, 4))
        out = np.where(out > rng.uniform(0, 1) * out.std(), 1.0, 0.0)
    return (out - out.mean()) / (out.std() + 1e-6)


def photometric(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 with other exposure, contrast, colours, sharpness and noise."""
    x = (rgb / 255.0).astype(np.float32)
    x = np.clip(x * np.exp(rng.normal(0, 0.25)), 0, 1) ** np.exp(rng.normal(0, 0.3))
    x = x * np.exp(rng.normal(0, 0.1, 3)).astype(np.float32)
    grey = x.mean(-1, keepdims=True)
    x = grey + (x - grey) * (0.0 if rng.random() < 0.05 else np.exp(rng.normal(0, 0.4)))
    if rng.random() < 0.2:
        turn = cv2.Rodrigues(np.ones(3) / np.sqrt(3) * rng.uniform(-np.pi, np.pi))[0].astype(np.float32)
        x = grey + (x - grey) @ turn.T
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:
        x = x + np.float32(rng.uniform(0.005, 0.06)) * rng.standard_normal(x.shape, np.float32)
    if rng.random() < 0.15:
        w, h = (int(n) for n in rng.uniform(0.1, 0.35, 2) * x.shape[1::-1])
        u, v = int(rng.integers(x.shape[1] - w)), int(rng.integers(x.shape[0] - h))
        x[v : v + h, u : u + w] = rng.uniform(0, 1, 3)
    out = np.clip(255 * x, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])
        out = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return out
