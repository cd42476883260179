"""Depth files in, and resampling that neither blurs edges nor invents depth in holes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from lyra_core.errors import BackendUnavailable, InputError

_EXPECTED = "expected .npy, .npz, .exr, .tiff or a 16-bit .png"
_PICTURES = (".png", ".tif", ".tiff", ".exr")
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_MAX_DEPTH = 1000.0
_MIN_VALID = 0.05
_SAME_SURFACE = 1.06
"""Neighbours whose depths differ by more than this factor are not averaged."""
_PHONE_LEVELS = 2
"""Confidence of phones is 0, 1 or 2."""


def read_depth_file(path: Path, *, unit: str = "auto", kind: str = "auto") -> np.ndarray:
    """Return (h, w) float32 [m]; zero, negative, infinite and NaN mean unknown and become NaN.

    Args:
        unit: 'm', 'cm', 'mm', or 'auto': integers are millimetres, floating-point numbers metres.
        kind: 'depth', 'range' (along each ray; returned as it is), 'inverse' (one over the depth, per metre), or 'auto': depth, and
            a file that looks normalised is refused.

    Raises:
        InputError: missing, another format, not a 2-D array of numbers, almost empty, or not in the unit.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such depth file, {_EXPECTED}")
    values = _plane(path, _read_picture(path) if path.suffix.lower() in _PICTURES else _read_array(path))
    if kind == "inverse" and (values.dtype.kind != "f" or unit in ("cm", "mm")):
        raise InputError(f"{path}: got {values.dtype} and unit {unit!r} for inverse depth, "
                         "expected floating-point numbers per metre")
    scale = _METRES["mm" if values.dtype.kind in "iu" else "m"] if unit == "auto" else _METRES[unit]
    depth = values.astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
        depth = 1 / depth if kind == "inverse" else depth * np.float32(scale)
    valid = float(np.isfinite(depth).mean())
    if valid < _MIN_VALID:
        raise InputError(f"{path}: got depth at {100 * valid:.1f} % of the pixels, expected at least {100 * _MIN_VALID:.0f} %")
    low, high = float(np.nanmin(depth)) / scale, float(np.nanmax(depth)) / scale
    if kind == "auto" and values.dtype.kind == "f" and abs(high - 1) < 1e-4 and low < 0.05:
        raise InputError(f"{path}: got numbers that end at exactly 1, which looks like normalised or inverse depth, expected "
                         "depth in metres; say depth: kind 'depth' or 'inverse' (--depth-kind) if it is one")
    median = float(np.nanmedian(depth))
    if not 0.05 < median < _MAX_DEPTH:
        raise InputError(f"{path}: got a median depth of {median:g} m, expected 0.05 to {_MAX_DEPTH:g} m; the unit may be another "
                         "(depth: unit, --depth-unit)")
    return depth


def read_confidence(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return (h, w) bool: pixels of a depth file to keep. Of a phone's levels 0, 1, 2, 0 is dropped; else less than half of the
    highest.

    Raises:
        InputError: missing, another format, or not of the depth file's size.
    """
    if not path.is_file():
        raise InputError(f"confidence: {path}: no such file, expected an 8-bit .png or .npy")
    values = _plane(path, _read_picture(path, depth=False) if path.suffix.lower() == ".png" else _read_array(path))
    if values.shape != shape:
        raise InputError(f"confidence: {path}: got {values.shape[1]}x{values.shape[0]} px, expected the depth file's size, "
                         f"{shape[1]}x{shape[0]} px")
    highest = float(np.nanmax(values))
    return values >= 1 if highest <= _PHONE_LEVELS and values.dtype.kind in "iu" else values >= highest / 2


def _plane(path: Path, values: np.ndarray) -> np.ndarray:
    """Return a 2-D array of numbers out of one with a single channel."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or min(values.shape) < 16 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: got an array of shape {values.shape} and type {values.dtype}, "
                         "expected depth of shape (height, width)")
    return values


def _read_picture(path: Path, *, depth: bool = True) -> np.ndarray:
    """Read a picture's numbers; depth has 16 bits or floating-point numbers in one channel."""
    if path.suffix.lower() == ".exr":
        return _read_exr(path)
    data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if data is None or data.ndim != 2 or (depth and data.dtype != np.uint16 and data.dtype.kind != "f"):
        got = "no readable image" if data is None else f"{data.dtype} of shape {data.shape}"
        wanted = "a one-channel 16-bit or floating-point picture" if depth else "a one-channel picture"
        raise InputError(f"{path}: got {got}, expected {wanted}")
    return data


def _read_exr(path: Path) -> np.ndarray:
    """Read the channel Z, Y, V or R, or the only one."""
    try:
        import OpenEXR
    except ImportError as error:
        raise BackendUnavailable(f"reading {path}", reason=str(error), install="pip install 'lyra-worlds[exr]'") from error
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable as OpenEXR: {' '.join(str(error).split())}") from error
    named = [name for name in ("Z", "Y", "V", "R") if name in channels]
    if not named and len(channels) != 1:
        raise InputError(f"{path}: got the channels {', '.join(channels) or 'none'}, expected depth in Z, Y, V, R or the only one")
    return channels[named[0]] if named else next(iter(channels.values()))


def _read_array(path: Path) -> np.ndarray:
    if path.suffix.lower() not in (".npy", ".npz"):
        raise InputError(f"{path}: got the suffix {path.suffix!r}, {_EXPECTED}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) != 1:
                raise InputError(f"{path}: got {len(loaded.files)} arrays ({', '.join(loaded.files)}), expected one")
            return loaded[loaded.files[0]]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not readable as a numpy array: {error}") from error


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
