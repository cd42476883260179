"""The learned prior: what a small network, trained on the seeded scenes alone, sees in a photo whose camera is known.

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
LONG_SIDE = 160
"""The network reads pictures of about this size, as it did in training [px]."""
_GROUPS, _EPSILON = 8, 1e-5


@dataclass(frozen=True)
class Prior:
    """What the network says of every pixel."""

    odds: np.ndarray
    """(H, W, 5) float32 probability of each of CLASSES."""
    depth: np.ndarray
    """(H, W) float32 z-depth over the camera's height above the floor."""
    sigma: np.ndarray
    """(H, W) float32: stated error of ln(depth), the scale of a Laplace distribution."""


def read_prior(rgb: np.ndarray, camera: Camera, T_world_camera: np.ndarray, *, weights: Path = WEIGHTS) -> Prior:
    """Return what the network sees in a picture (H, W, 3) uint8.

    The result is the mean over the picture and its mirror image, so that a mirrored photo gives the mirrored layout.

    Raises:
        InputError: the weights cannot be read.
    """
    net = read_weights(weights)
    height, width = rgb.shape[:2]
    scale = LONG_SIDE / max(height, width)
    small_camera = camera.resized(max(16, 2 * round(width * scale / 2)), max(16, 2 * round(height * scale / 2)))
    small = resized(rgb, small_camera.width, small_camera.height)
    x = inputs_of(small, small_camera.K, T_world_camera[:3, :3])
    mirrored = x[..., ::-1].copy()
    mirrored[4] *= -1
    out = (forward(net, x) + forward(net, mirrored)[..., ::-1]) / 2
    # The network's pixel covers 2 x 2 of the picture it read.
    full = _enlarged(out, height, width).transpose(1, 2, 0)
    odds = np.exp(full[..., :5] - full[..., :5].max(-1, keepdims=True))
    return Prior(odds / odds.sum(-1, keepdims=True), np.exp(full[..., 5]), np.exp(np.clip(full[..., 6], -4, 2)))


def inputs_of(rgb: np.ndarray, K: np.ndarray, R_world_camera: np.ndarray) -> np.ndarray:
    """Return the network's inputs (5, H, W) float32 of a picture (H, W, 3) uint8 and its camera.

    The picture is normalised to zero mean and unit deviation; the rays' channels tell how far rays with z = 1 in camera axes sink
    and how far they run to the right, in gravity's frame.
    """
    h, w = rgb.shape[:2]
    pixels = rgb.astype(np.float32)
    pixels = (pixels - pixels.mean((0, 1))) / (pixels.std() + 4.0)
    x, y = (np.arange(w) + 0.5 - K[0, 2]) / K[0, 0], (np.arange(h) + 0.5 - K[1, 2]) / K[1, 1]
    down = -R_world_camera[2]
    ahead = np.array([0.0, 0.0, 1.0]) - down[2] * down
    ahead /= max(float(np.linalg.norm(ahead)), 1e-6)
    right = np.cross(down, ahead)
    rays = [x[None] * a[0] + y[:, None] * a[1] + a[2] for a in (down, right)]
    return np.stack([*pixels.transpose(2, 0, 1), *(np.clip(r, -2, 2) for r in rays)]).astype(np.float32)


def forward(net: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Return the network's outputs (7, H / 2, W / 2) float32 of inputs (5, H, W)."""
    y = np.maximum(_convolved(net, "stem", x, stride=2), 0)
    count = 1 + max(int(name.split(".")[1]) for name in net if name.startswith("down."))
    seen = []
    for i in range(count):
        y = _block(net, f"down.{i}", y, stride=1 if i == 0 else 2)
        seen.append(y)
    y = _block(net, "deep", seen.pop())
    for i in range(count - 1):
        other = seen.pop()
        y = _block(net, f"up.{i}", np.concatenate([other, _enlarged(y, other.shape[1], other.shape[2])]))
    return _convolved(net, "head", y)


def _block(net: dict[str, np.ndarray], name: str, x: np.ndarray, *, stride: int = 1) -> np.ndarray:
    y = np.maximum(_normalised(net, f"{name}.norm1", _convolved(net, f"{name}.first", x, stride=stride)), 0)
    y = _normalised(net, f"{name}.norm2", _convolved(net, f"{name}.second", y))
    return np.maximum(y + _convolved(net, f"{name}.short", x, stride=stride), 0)


def _convolved(net: dict[str, np.ndarray], name: str, x: np.ndarray, *, stride: int = 1) -> np.ndarray:
    """Return the convolution (outputs, h, w) of x (inputs, H, W), padded to keep its size at stride 1."""
    weight = net[f"{name}.weight"]
    k = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(1, 2))[:, ::stride, ::stride]
    h, w = windows.shape[1:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(-1, h * w)
    return (weight.reshape(len(weight), -1) @ columns).reshape(-1, h, w) + net[f"{name}.bias"][:, None, None]


def _enlarged(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return x (C, h, w) at another size by linear interpolation between pixel centres."""
    return _weights(height, x.shape[1]) @ x @ _weights(width, x.shape[2]).T


def _weights(to: int, of: int) -> np.ndarray:
    """Return (to, of) float32 weights of ``of`` samples at the centres of ``to`` even parts of the same length."""
    at = np.clip((np.arange(to) + 0.5) * of / to - 0.5, 0, of - 1)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(of)), 0).astype(np.float32)


def _normalised(net: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Group normalisation (Wu and He 2018)."""
    grouped = x.reshape(_GROUPS, -1)
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not readable as safetensors with the layout network's weights: {error}") from error
    return out
