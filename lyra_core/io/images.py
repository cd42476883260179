"""Pictures of the world folder: 8-bit RGB PNG or JPEG, and depth as 16-bit PNG of inverse depth (MobilityGen's way)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.files import write_bytes

INVERSE_DEPTH_SCALE = 65535.0 * 0.1
"""Stored value = round(scale / depth), so 0.1 m is full range; 0 = unknown."""


def encode_image(rgb: np.ndarray, suffix: str, *, quality: int = 92) -> bytes:
    """Encode (H, W[, 3]) uint8 as '.png' or '.jpg' bytes."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 4]
    ok, data = cv2.imencode(suffix, rgb[..., ::-1] if rgb.ndim == 3 else rgb, options)
    assert ok
    return data.tobytes()


def write_image(path: Path, rgb: np.ndarray, *, quality: int = 92) -> None:
    """Write (H, W, 3) RGB or (H, W) grey uint8; the suffix decides PNG or JPEG."""
    write_bytes(path, encode_image(rgb, path.suffix, quality=quality))


def read_image(path: Path) -> np.ndarray:
    """Read (H, W, 3) uint8 RGB."""
    data = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if data is None:
        raise WorldError(f"{path}: missing or not an image")
    return np.ascontiguousarray(data[..., ::-1])


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """Return (H, W) uint16 inverse depth of z-depth [m]; NaN becomes 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(depth > 0, INVERSE_DEPTH_SCALE / depth, 0.0)
    return np.clip(np.rint(np.nan_to_num(inverse)), 0, 65535).astype(np.uint16)


def decode_depth(data: np.ndarray) -> np.ndarray:
    """Return (H, W) float32 z-depth [m] of uint16 inverse depth; NaN = unknown. Encoding it again gives the same numbers."""
    with np.errstate(divide="ignore"):
        return np.where(data > 0, INVERSE_DEPTH_SCALE / data, np.nan).astype(np.float32)


def write_depth(path: Path, depth: np.ndarray) -> None:
    """Write (H, W) z-depth [m] as 16-bit inverse depth; NaN becomes 0."""
    write_bytes(path, encode_image(encode_depth(depth), ".png"))


def read_depth(path: Path) -> np.ndarray:
    """Read (H, W) float32 z-depth [m]; NaN = unknown."""
    data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if data is None or data.dtype != np.uint16:
        raise WorldError(f"{path}: missing or not a 16-bit depth PNG")
    return decode_depth(data)


def resized(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resample (H, W[, C]) to another size: area averaging when shrinking, cubic when growing."""
    shrink = width <= rgb.shape[1]
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
