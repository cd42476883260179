"""Depth files in, and resampling that neither blurs edges nor invents depth in holes."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np

from lyra_core.depth.kinds import looks_inverse, looks_normalised
from lyra_core.errors import BackendUnavailable, InputError

_EXPECTED = "expected .npy, .npz, .exr, .tiff or a 16-bit .png"
_PICTURES = (".png", ".tif", ".tiff", ".exr")
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_MIN_DEPTH, _MAX_DEPTH = 0.3, 1000.0
"""Median depths of places [m]; whole centimetres taken for millimetres are below."""
MIN_VALID = 0.05
"""Share of a depth file's pixels that must be known."""
_MAX_PIXELS = 100_000_000
_DAMAGED = (OSError, ValueError, EOFError, KeyError, IndexError, TypeError, RuntimeError, NotImplementedError, OverflowError,
            MemoryError, SyntaxError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError)
"""What readers raise on files that are cut off or changed."""
_SAME_SURFACE = 1.06
"""Neighbours whose depths differ by more than this factor are not averaged."""
_PHONE_LEVELS = 2
"""Confidence of phones is 0, 1 or 2."""


def read_depth_file(path: Path, *, unit: str = "auto", kind: str = "auto") -> np.ndarray:
    """Return (h, w) float32 [m]; zero, negative, infinite and NaN mean unknown and become NaN.

    Args:
        unit: 'm', 'cm', 'mm', or 'auto': integers are millimetres, floating-point numbers metres.
        kind: 'depth', 'range' (along each ray; returned as it is), 'inverse' (one over the depth, per metre), or 'auto': depth, and
            a file that looks normalised or inverse is refused.

    Raises:
        InputError: missing, another format, not a 2-D array of numbers, almost empty, or not in the unit.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such depth file, {_EXPECTED}")
    values = _plane(path, _read_picture(path) if path.suffix.lower() in _PICTURES else read_array(path))
    _check_kind(path, values, unit, kind)
    scale = _METRES["mm" if values.dtype.kind in "iu" else "m"] if unit == "auto" else _METRES[unit]
    # 16 bits end at 65535: what is deeper is stored as that.
    unknown = values == 65535 if values.dtype == np.uint16 else np.zeros(values.shape, bool)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        depth = values.astype(np.float32)
        depth[~(np.isfinite(depth) & (depth > 0)) | unknown] = np.nan
        depth = 1 / depth if kind == "inverse" else depth * np.float32(scale)
        depth[~np.isfinite(depth)] = np.nan
    valid = float(np.isfinite(depth).mean())
    if valid < MIN_VALID:
        raise InputError(f"{path}: got depth at {100 * valid:.1f} % of the pixels, expected at least {100 * MIN_VALID:.0f} %")
    if kind == "auto" and looks_inverse(depth):
        raise InputError(f"{path}: got numbers that are straight along surfaces and larger below, as inverse depth is, "
                         "expected depth; say depth: kind 'inverse' (--depth-kind) if they are per metre, or 'depth'")
    median = float(np.nanmedian(depth))
    least = _MIN_DEPTH if unit == kind == "auto" else 0.05
    if not least < median < _MAX_DEPTH:
        raise InputError(f"{path}: got a median depth of {median:g} m, expected {least:g} to {_MAX_DEPTH:g} m; the unit may be "
                         "another (depth: unit, --depth-unit)")
    return depth


def _check_kind(path: Path, values: np.ndarray, unit: str, kind: str) -> None:
    """Refuse numbers that cannot be what is said, or look stretched for viewing where nothing is said.

    Raises:
        InputError: names the setting that would make them right.
    """
    if kind == "inverse" and (values.dtype.kind != "f" or unit in ("cm", "mm")):
        raise InputError(f"{path}: got {values.dtype} and unit {unit!r} for inverse depth, "
                         "expected floating-point numbers per metre")
    if values.dtype.itemsize == 1 and unit == "auto":
        raise InputError(f"{path}: got 8-bit integers, expected at least 16 bits, or their unit (depth: unit, --depth-unit)")
    if kind == "auto" and looks_normalised(values):
        end = np.nanmax(values[values < np.inf])
        raise InputError(f"{path}: got numbers from about 0 to exactly {end:g}, which looks like normalised or inverse depth, "
                         "expected depth; say depth: kind 'depth' or 'inverse' (--depth-kind) if it is one in its unit")


def read_confidence(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return (h, w) bool: pixels of a depth file to keep. Of a phone's levels 0, 1, 2, 0 is dropped; else less than half of the
    highest.

    Raises:
        InputError: missing, another format, not of the depth file's size, or without any confidence.
    """
    if not path.is_file():
        raise InputError(f"confidence: {path}: no such file, expected an 8-bit .png or .npy")
    values = _plane(path, _read_picture(path, depth=False) if path.suffix.lower() == ".png" else read_array(path), "confidence")
    if values.shape != shape:
        raise InputError(f"confidence: {path}: got {values.shape[1]}x{values.shape[0]} px, expected the depth file's size, "
                         f"{shape[1]}x{shape[0]} px")
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(values.max())
    if highest <= 0:
        raise InputError(f"confidence: {path}: got no number above 0, expected larger ones where the depth is surer")
    return values >= 1 if highest <= _PHONE_LEVELS and values.dtype.kind in "iu" else values >= highest / 2


def _plane(path: Path, values: np.ndarray, what: str = "depth") -> np.ndarray:
    """Return a 2-D array of numbers out of one with a single channel."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or min(values.shape) < 16 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: got an array of shape {values.shape} and type {values.dtype}, "
                         f"expected {what} of shape (height, width), 16 px or more on each side")
    return values


def _read_picture(path: Path, *, depth: bool = True) -> np.ndarray:
    """Read a picture's numbers; depth has 16 bits or floating-point numbers in one channel."""
    if path.suffix.lower() == ".exr":
        return read_exr(path)
    try:
        data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InputError(f"{path}: not readable as a picture: {' '.join(str(error).split())}") from error
    if data is None or data.ndim != 2 or (depth and data.dtype != np.uint16 and data.dtype.kind != "f"):
        got = "no readable image" if data is None else f"{data.dtype} of shape {data.shape}"
        wanted = "a one-channel 16-bit or floating-point picture" if depth else "a one-channel picture"
        raise InputError(f"{path}: got {got}, expected {wanted}")
    return data


def read_exr(path: Path) -> np.ndarray:
    """Read the channel Z, Y, V or R, or the only one."""
    try:
        import OpenEXR
    except ImportError as error:
        raise BackendUnavailable(f"reading {path}", reason=str(error), install="pip install 'lyra-worlds[exr]'") from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except _DAMAGED as error:
        raise InputError(f"{path}: not readable as OpenEXR: {' '.join(str(error).split())}") from error
    grey = all(np.array_equal(channels["R"], channels[c], equal_nan=True) for c in "GB") if {*"RGB"} <= {*channels} else True
    named = [name for name in ("Z", "Y", "V", "R") if name in channels and (name != "R" or grey)]
    if not named and len(channels) != 1:
        raise InputError(f"{path}: got the channels {', '.join(channels) or 'none'}, expected depth in Z, Y, V, R or the only one")
    return channels[named[0]] if named else next(iter(channels.values()))


def read_array(path: Path) -> np.ndarray:
    """Read the only array of a numpy file; objects, which could run code, are refused by numpy."""
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"{path}: got the suffix {path.suffix!r}, {_EXPECTED}")
    try:
        # A mapped file is as large as it says; what an archive unpacks to is said in its directory.
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix.lower() == ".npy" else None)
        if isinstance(loaded, np.ndarray):
            _check_size(path, loaded.size)
            return np.array(loaded)
        with loaded:
            if len(loaded.files) != 1:
                raise InputError(f"{path}: got {len(loaded.files)} arrays ({', '.join(loaded.files)}), expected one")
            _check_size(path, max(info.file_size for info in loaded.zip.infolist()) // 8)
            return loaded[loaded.files[0]]
    except _DAMAGED as error:
        raise InputError(f"{path}: not readable as a numpy array: {' '.join(str(error).split())}") from error


def _check_size(path: Path, pixels: int) -> None:
    """Refuse more pixels than any photo here may have.

    Raises:
        InputError: there are more.
    """
    if pixels > _MAX_PIXELS:
        raise InputError(f"{path}: got {pixels / 1e6:.0f} megapixels, expected at most {_MAX_PIXELS // 10**6}")


def resampled_depth(depth: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return depth (h, w) at another size, (height, width) float32.

    Inverse depth is interpolated, which is exact on planes; where neighbours lie on different surfaces, or one is unknown,
    the nearest value is taken.
    """
    if depth.shape == (height, width):
        return depth.astype(np.float32)
    known = np.isfinite(depth)
    inverse = np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0).astype(np.float32)
    size, shrink = (width, height), width < depth.shape[1]
    smooth = cv2.resize(inverse, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    nearest = cv2.resize(inverse, size, interpolation=cv2.INTER_NEAREST_EXACT)
    reach = 2 * max(1, int(np.ceil(depth.shape[1] / width))) + 1
    window = np.ones((reach, reach), np.uint8)
    high, low = cv2.dilate(inverse, window), cv2.erode(inverse, window)
    one_surface = cv2.resize((high <= low * _SAME_SURFACE).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    out = np.where(one_surface, smooth, nearest)
    return np.where(out > 0, 1.0 / np.where(out > 0, out, 1.0), np.nan).astype(np.float32)
