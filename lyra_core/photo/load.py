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
MAX_SQUEEZE = 0.1
"""Largest |ln(fx / fy)| of given intrinsics."""
MAX_OFF_CENTRE = 0.25
"""Farthest principal point from the middle, as a share of the side."""
MASK_ASPECT_TOLERANCE = 0.03
MIN_MASK = 0.005
_FOCAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mm|px)\s*")
_INTRINSICS = re.compile(r",".join([r"\s*(-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*"] * 4))
_TAG_ORIENTATION = 0x0112
_TAG_EXIF, _TAG_FOCAL, _TAG_FOCAL_35, _TAG_X_RESOLUTION, _TAG_UNIT, _TAG_WIDTH, _TAG_HEIGHT = (
    0x8769, 37386, 41989, 41486, 41488, 40962, 40963)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}


def load_photo(path: Path, *, focal: str | None = None, intrinsics: str | None = None, floor_mask: str | None = None,
               licence: str = "unknown") -> Photo:
    """Read a JPEG, PNG, WebP or TIFF photo as upright (H, W, 3) uint8.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is laid on white; EXIF orientation is applied.

    Args:
        focal: '28mm' is the 35 mm equivalent by the diagonal convention (full frame = 43.27 mm); '900px' is in pixels of
            the upright photo. It wins over EXIF.
        intrinsics: 'fx,fy,cx,cy' [px of the upright photo, its upper left corner = (0, 0)], in place of ``focal``.
        floor_mask: picture of the photo's shape, white where floor is seen.

    Raises:
        InputError: missing, a folder, not an image, truncated, too small, too large, too wide, or of one colour; a mask that
            does not fit.
        ConfigError: ``focal`` or ``intrinsics`` cannot be read, or both are given.
    """
    path = Path(path)
    data = _read(path)
    rgb, exif, orientation = _decode(path, data)
    height, width = rgb.shape[:2]
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path}: got {width}x{height} px, expected at least {MIN_SIDE} px on each side")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{path}: got {width}x{height} px, expected sides no more than {MAX_ASPECT:g}:1 apart")
    if float(rgb.reshape(-1, 3).std(0).max()) < 1.0:
        raise InputError(f"{path}: got a picture of one colour, expected a photo with visible structure")
    known = None if intrinsics is None else parse_intrinsics(intrinsics, width, height)
    if known is not None and focal is not None:
        raise ConfigError(f"intrinsics: got {intrinsics!r} beside focal {focal!r}, expected one of them")
    if known is not None:
        focal_px = math.sqrt(known[0] * known[1])
    else:
        focal_px = parse_focal(focal, width, height) if focal is not None else exif_focal(exif, width, height)
    source = "none" if focal_px is None else "exif" if focal is None and known is None else "user"
    mask = None if floor_mask is None else read_floor_mask(Path(floor_mask), width, height)
    return Photo(rgb, hashlib.sha256(data).hexdigest(), path.name, focal_px, source, licence, known, orientation, mask)


def parse_intrinsics(text: str, width: int, height: int) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy [px] of 'fx,fy,cx,cy' for a photo of width x height px.

    Raises:
        ConfigError: another form, a field of view outside 3 to 150 degrees, pixels that are not square within 10 %, or a
            principal point outside the middle half of the picture.
    """
    match = _INTRINSICS.fullmatch(text)
    if not match:
        raise ConfigError(f"intrinsics: got {text!r}, expected four numbers fx,fy,cx,cy in pixels of the photo")
    fx, fy, cx, cy = (float(value) for value in match.groups())
    given = f"intrinsics: got {text!r} for a photo of {width}x{height} px"
    if min(fx, fy) <= 0 or not _plausible(math.sqrt(fx * fy), width, height):
        raise ConfigError(f"{given}, expected positive fx and fy with a field of view of 3 to 150 degrees")
    if abs(math.log(fx / fy)) > MAX_SQUEEZE:
        raise ConfigError(f"{given}, expected square pixels: fx and fy within 10 % of each other")
    if abs(cx / width - 0.5) > MAX_OFF_CENTRE or abs(cy / height - 0.5) > MAX_OFF_CENTRE:
        raise ConfigError(f"{given}, expected cx and cy in the middle half of the upright photo")
    return fx, fy, cx, cy


def read_floor_mask(path: Path, width: int, height: int) -> np.ndarray:
    """Return (height, width) bool, True where the picture at ``path`` is lighter than middle grey.

    Raises:
        InputError: not a picture, another shape than the photo, or (almost) no white in it.
    """
    rgb, _, _ = _decode(path, _read(path))
    got = f"{rgb.shape[1]}x{rgb.shape[0]} px"
    if abs(math.log(rgb.shape[1] / rgb.shape[0] * height / width)) > MASK_ASPECT_TOLERANCE:
        raise InputError(f"floor_mask: {path}: got {got}, expected the shape of the upright photo, {width}x{height} px")
    grey = Image.fromarray(rgb).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    mask = np.asarray(grey) > 127
    if mask.mean() < MIN_MASK:
        raise InputError(f"floor_mask: {path}: got {100 * mask.mean():.2f} % white, expected at least {100 * MIN_MASK:g} %: "
                         "white where floor is seen")
    return mask


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


def _decode(path: Path, data: bytes) -> tuple[np.ndarray, dict[int, object], int]:
    """Return upright RGB, the EXIF tags and the EXIF orientation (1 to 8)."""
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
            exif, turned = dict(image.getexif().get_ifd(_TAG_EXIF)), image.getexif().get(_TAG_ORIENTATION, 1)
            return _to_rgb(ImageOps.exif_transpose(image)), exif, turned if turned in range(1, 9) else 1
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
