"""Photo files in: upright 8-bit RGB and, when the file or the user says so, the focal length. Nothing else of EXIF is kept."""

from __future__ import annotations

import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lyra_core.errors import ConfigError, InputError
from lyra_core.types import Photo

MIN_SIDE = 64
MAX_PIXELS = 100_000_000
MAX_ASPECT = 8.0
MAX_EXIF_ASPECT = 2.4
"""Wider pictures are stitched or cropped, so EXIF's focal length does not describe them."""
FULL_FRAME_DIAGONAL_MM = 43.2666
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, KeyError,
                  TypeError, IndexError, OverflowError)
_FOCAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mm|px)\s*")
_TAG_EXIF, _TAG_FOCAL, _TAG_FOCAL_35, _TAG_X_RESOLUTION, _TAG_UNIT, _TAG_WIDTH, _TAG_HEIGHT = (
    0x8769, 37386, 41989, 41486, 41488, 40962, 40963)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}


def load_photo(path: Path, *, focal: str | None = None, licence: str = "unknown") -> Photo:
    """Read a JPEG, PNG, WebP or TIFF photo as upright (H, W, 3) uint8.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is laid on white; EXIF orientation is applied.

    Args:
        focal: '28mm' is the 35 mm equivalent by the diagonal convention (full frame = 43.27 mm); '900px' is in pixels of
            the upright photo. It wins over EXIF.

    Raises:
        InputError: missing, a folder, not an image, truncated, too small, too large, too wide, or of one colour.
        ConfigError: ``focal`` cannot be read.
    """
    path = Path(path)
    data = _read(path)
    rgb, exif = _decode(path, data)
    height, width = rgb.shape[:2]
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path}: got {width}x{height} px, expected at least {MIN_SIDE} px on each side")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{path}: got {width}x{height} px, expected sides no more than {MAX_ASPECT:g}:1 apart")
    if float(rgb.reshape(-1, 3).std(0).max()) < 1.0:
        raise InputError(f"{path}: got a picture of one colour, expected a photo with visible structure")
    focal_px = parse_focal(focal, width, height) if focal is not None else exif_focal(exif, width, height)
    source = "none" if focal_px is None else "user" if focal is not None else "exif"
    return Photo(rgb, hashlib.sha256(data).hexdigest(), path.name, focal_px, source, licence)


def parse_focal(text: str, width: int, height: int) -> float:
    """Return the focal length [px] of '28mm' (35 mm equivalent, diagonal convention) or '900px'.

    Raises:
        ConfigError: another form, or a field of view outside 3 to 150 degrees.
    """
    match = _FOCAL.fullmatch(text)
    if not match:
        raise ConfigError(f"focal: got {text!r}, expected a number with unit, such as '28mm' (35 mm equivalent) or '900px'")
    value = float(match[1])
    focal_px = value if match[2] == "px" else value / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height)
    if not _plausible(focal_px, width, height):
        raise ConfigError(f"focal: got {text!r} for a photo of {width}x{height} px, expected a field of view of 3 to 150 degrees")
    return focal_px


def exif_focal(exif: dict[int, object], width: int, height: int) -> float | None:
    """Return the focal length [px] from EXIF tags, or None when they are absent, implausible, or the photo is a panorama."""
    if max(width, height) > MAX_EXIF_ASPECT * min(width, height):
        return None
    focal_35, focal_mm = _number(exif, _TAG_FOCAL_35), _number(exif, _TAG_FOCAL)
    resolution, unit = _number(exif, _TAG_X_RESOLUTION), _UNIT_MM.get(int(_number(exif, _TAG_UNIT) or 2))
    taken_at = max(_number(exif, _TAG_WIDTH) or 0.0, _number(exif, _TAG_HEIGHT) or 0.0) or float(max(width, height))
    candidates = []
    if focal_35:
        candidates.append(focal_35 / FULL_FRAME_DIAGONAL_MM * math.hypot(width, height))
    if focal_mm and resolution and unit:
        candidates.append(focal_mm * resolution / unit * max(width, height) / taken_at)
    return next((f for f in candidates if _plausible(f, width, height)), None)


def _plausible(focal_px: float, width: int, height: int) -> bool:
    return 3.0 < 2 * math.degrees(math.atan2(math.hypot(width, height) / 2, max(focal_px, 1e-9))) < 150.0


def _number(exif: dict[int, object], tag: int) -> float | None:
    try:
        value = float(exif[tag])  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise InputError(f"{path}: got a folder, expected a photo file (JPEG, PNG, WebP or TIFF)")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, expected a photo (JPEG, PNG, WebP or TIFF)") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(path: Path, data: bytes) -> tuple[np.ndarray, dict[int, object]]:
    too_large = f"expected at most {MAX_PIXELS // 1_000_000} megapixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own size warning starts below our limit
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "TIFF", "MPO"))
            size = image.size
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the picture is too large, {too_large}") from None
    except _DECODE_ERRORS as error:
        raise InputError(f"{path}: not an image that can be read, expected JPEG, PNG, WebP or TIFF") from error
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"{path}: got {size[0]}x{size[1]} px, {too_large}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            exif = dict(image.getexif().get_ifd(_TAG_EXIF))
            return _to_rgb(ImageOps.exif_transpose(image)), exif
    except Image.DecompressionBombError:
        raise InputError(f"{path}: the picture is too large, {too_large}") from None
    except _DECODE_ERRORS as error:
        raise InputError(f"{path}: the image is truncated or damaged ({error})") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 of any Pillow mode."""
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_grey_to_8bit(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
        alpha = rgba[..., 3:]
        return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.asarray(image.convert("RGB")))


def _grey_to_8bit(values: np.ndarray) -> np.ndarray:
    """Scale deep grey to 8 bit: integers from 16 bit, floats from 0..1 (or 0..255 when they exceed 1)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values)
        scaled = finite * (255.0 if finite.max() <= 1.0 else 1.0)
    else:
        scaled = values.astype(np.float64) / 257.0
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
