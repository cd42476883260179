"""The learned prior: what a network, taught on the seeded scenes, sees in a photo whose camera is known.

The network is that of ``lyra_core.training.layout.model``, run here with numpy so that the default needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.images import resized
from lyra_core.types import Camera, Label

WEIGHTS = Path(__file__).parent / "data" / "layout.safetensors"
CLASSES = (Label.FLOOR, Label.WALL, Label.CEILING, Label.OBSTACLE, Label.SKY)
OUTPUTS = len(CLASSES) + 2
"""Class logits; ln(depth / camera height) and ln of its error."""
LONG_SIDE, SHORT_SIDE = 256, 128
"""The network reads pictures of about this size, as it did in training, and panoramas no lower than this [px]."""
STEM = 32
"""Channels of EfficientNet-Lite0's first convolution."""
STAGES = (
    ((3, 1, 1, 16),),
    ((3, 2, 6, 24), (3, 1, 6, 24)),
    ((5, 2, 6, 40), (5, 1, 6, 40)),
    ((3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80), (5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)),
    ((5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)),
)
"""Its blocks up to each halving of size: kernel, stride, widening, channels given (Tan and Le 2019, table 1)."""
DEEP, UPS = 128, (96, 64, 48, 32)
"""Channels of the decoder, from the smallest map up."""
GROUPS = 8
"""Of the decoder's group normalisation."""
_EPSILON = 1e-5


@dataclass(frozen=True)
class Prior:
    """What the network says of every pixel."""

    odds: np.ndarray
    """(H, W, 5) float32 probability of each of CLASSES."""
    depth: np.ndarray
    """(H, W) float32 z-depth over the camera's height above the floor."""
    sigma: np.ndarray
    """(H, W) float32: stated error of ln(depth), the scale of a Laplace distribution."""
    camera_height: float
    """Above the floor [m], by the sizes of what is seen."""
    height_sigma: float
    """Stated error of its logarithm, the scale of a Laplace distribution."""
    outdoors: float
    """Log odds of a place outdoors."""


def read_prior(rgb: np.ndarray, camera: Camera, T_world_camera: np.ndarray, *, weights: Path = WEIGHTS) -> Prior:
    """Return what the network sees in a picture (H, W, 3) uint8.

    The result is the mean over the picture and its mirror image, so that a mirrored photo gives the mirrored layout.

    Raises:
        InputError: the weights cannot be read.
    """
    net = read_weights(weights)
    height, width = rgb.shape[:2]
    scale = max(LONG_SIDE / max(height, width), min(SHORT_SIDE / min(height, width), 4 * LONG_SIDE / max(height, width)))
    small_camera = camera.resized(max(16, 2 * round(width * scale / 2)), max(16, 2 * round(height * scale / 2)))
    small = resized(rgb, small_camera.width, small_camera.height)
    x = inputs_of(small, small_camera.K, T_world_camera[:3, :3])
    mirrored = x[..., ::-1].copy()
    mirrored[4] *= -1
    (out, picture), (out_mirrored, mirrored_picture) = forward(net, x), forward(net, mirrored)
    out, picture = (out + out_mirrored[..., ::-1]) / 2, (picture + mirrored_picture) / 2
    # The network's pixel covers 2 x 2 of the picture it read.
    full = _enlarged(out, height, width).transpose(1, 2, 0)
    odds = np.exp(full[..., :5] - full[..., :5].max(-1, keepdims=True))
    sigma = np.exp(np.clip(full[..., 6], -4, 2))
    height, height_sigma = np.exp(picture[0]), np.exp(np.clip(picture[1], -4, 2))
    odds /= odds.sum(-1, keepdims=True)
    return Prior(odds, np.exp(full[..., 5]), sigma, float(height), float(height_sigma), float(picture[2]))


def inputs_of(rgb: np.ndarray, K: np.ndarray, R_world_camera: np.ndarray) -> np.ndarray:
    """Return the network's inputs (5, H, W) float32 of a picture (H, W, 3) uint8 and its camera.

    The picture is normalised to zero mean and a deviation of a half; the rays' channels tell how far rays with z = 1 in camera axes
    sink and how far they run to the right, in gravity's frame.
    """
    h, w = rgb.shape[:2]
    pixels = rgb.astype(np.float32)
    pixels = 0.5 * (pixels - pixels.mean((0, 1))) / (pixels.std() + 4.0)
    x, y = (np.arange(w) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(h) + 0.5 - K[1, 2]) / K[1, 1]
    down = -R_world_camera[2]
    ahead = np.array([0.0, 0.0, 1.0]) - down[2] * down
    ahead /= max(float(np.linalg.norm(ahead)), 1e-6)
    right = np.cross(down, ahead)
    rays = [x[None] * a[0] + y[:, None] * a[1] + a[2] for a in (down, right)]
    return np.stack([*pixels.transpose(2, 0, 1), *(np.clip(r, -2, 2) for r in rays)]).astype(np.float32)


def forward(net: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's outputs (OUTPUTS, ceil(H / 2), ceil(W / 2)) of inputs (5, H, W), and (3,) of the picture."""
    seen, rays = _encoded(net, x), x[3:]
    y = _block(net, "deep", np.concatenate([seen[-1], _enlarged(rays, *seen[-1].shape[1:])]))
    weight = np.exp(_convolved(net, "attention", y)[0])
    pooled = (y * (weight / weight.sum())).sum((1, 2))
    place = net["place.weight"] @ np.concatenate([pooled, y.mean((1, 2))]) + net["place.bias"]
    for i, other in enumerate(seen[-2::-1]):
        size = other.shape[1:]
        y = _block(net, f"up.{i}", np.concatenate([other, _enlarged(y, *size), _enlarged(rays, *size)]))
    hidden = np.maximum(net["height1.weight"] @ pooled + net["height1.bias"], 0)
    height = net["height2.weight"] @ hidden + net["height2.bias"]
    return _convolved(net, "head", y), np.concatenate([height, place])


def _encoded(net: dict[str, np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Return the encoder's feature maps, the largest first."""
    y = _convolved(net, "encoder.stem", x[:3], stride=2) + _convolved(net, "encoder.rays", x[3:], stride=2)
    y, out, number = np.clip(y, 0, 6), [], 0
    for stage in STAGES:
        for _, stride, widen, outputs in stage:
            name, before = f"encoder.blocks.{number}", y
            if widen > 1:
                y = np.clip(_convolved(net, f"{name}.expand", y), 0, 6)
            y = np.clip(_filtered(net, f"{name}.depthwise", y, stride), 0, 6)
            y = _convolved(net, f"{name}.project", y)
            if stride == 1 and len(before) == outputs:
                y = y + before
            number += 1
        out.append(y)
    return out


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return zeros before and after for ceil(size / stride) outputs of a convolution; as in TensorFlow, the odd one comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _block(net: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    y = np.maximum(_normalised(net, f"{name}.norm1", _convolved(net, f"{name}.first", x)), 0)
    y = _normalised(net, f"{name}.norm2", _convolved(net, f"{name}.second", y))
    return np.maximum(y + _convolved(net, f"{name}.short", x), 0)


def _convolved(net: dict[str, np.ndarray], name: str, x: np.ndarray, *, stride: int = 1) -> np.ndarray:
    """Return the convolution (outputs, ceil(H / stride), ceil(W / stride)) of x (inputs, H, W)."""
    weight, bias = net[f"{name}.weight"], net.get(f"{name}.bias")
    windows = _windows(x, weight.shape[-1], stride)
    h, w = windows.shape[1:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, h * w)
    out = (weight.reshape(len(weight), -1) @ columns).reshape(-1, h, w)
    return out if bias is None else out + bias[:, None, None]


def _filtered(net: dict[str, np.ndarray], name: str, x: np.ndarray, stride: int) -> np.ndarray:
    """Return each channel of x (C, H, W) convolved with a kernel of its own."""
    weight = net[f"{name}.weight"][:, 0]
    windows = _windows(x, weight.shape[-1], stride)
    out = np.zeros(windows.shape[:3], np.float32) + net[f"{name}.bias"][:, None, None]
    for v, u in np.ndindex(weight.shape[1:]):
        out += windows[..., v, u] * weight[:, v, u, None, None]
    return out


def _windows(x: np.ndarray, kernel: int, stride: int) -> np.ndarray:
    """Return a view (C, ceil(H / stride), ceil(W / stride), kernel, kernel) of x (C, H, W) with zeros round it."""
    if kernel > 1:
        x = np.pad(x, ((0, 0), *(same_padding(n, kernel, stride) for n in x.shape[1:])))
    return np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]


def _enlarged(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return x (C, h, w) at another size by linear interpolation between pixel centres."""
    return _weights(height, x.shape[1]) @ x @ _weights(width, x.shape[2]).T


def _weights(to: int, of: int) -> np.ndarray:
    """Return (to, of) float32 weights of ``of`` samples at the centres of ``to`` even parts of the same length."""
    at = np.clip((np.arange(to) + 0.5) * of / to - 0.5, 0, of - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(of)), 0).astype(np.float32)


def _normalised(net: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Group normalisation (Wu and He 2018)."""
    grouped = x.reshape(GROUPS, -1)
    grouped = (grouped - grouped.mean(1, keepdims=True)) / np.sqrt(grouped.var(1, keepdims=True) + _EPSILON)
    return grouped.reshape(x.shape) * net[f"{name}.weight"][:, None, None] + net[f"{name}.bias"][:, None, None]


@cache
def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Read a safetensors file: an 8-byte length, a JSON header, and the numbers.

    Raises:
        InputError: missing, cut off, or of other types than half and single precision.
    """
    kinds = {"F16": np.float16, "F32": np.float32}
    try:
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        out = {}
        for name, entry in header.items():
            start, end = (8 + size + n for n in entry["data_offsets"])
            out[name] = np.frombuffer(data[start:end], kinds[entry["dtype"]]).reshape(entry["shape"]).astype(np.float32)
        if "encoder.stem.weight" not in out:
            raise ValueError(f"got {', '.join(sorted(out)[:3])}, ..., expected encoder.stem.weight among its names")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable as safetensors with the layout network's weights: {error}") from error
    return out
