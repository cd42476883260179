"""Depth files in, and resampling that neither blurs edges nor invents depth in holes."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np

from lyra_core.errors import InputError

_EXPECTED = "expected .npy or .npz (metres) or a 16-bit .png (millimetres)"
_MAX_DEPTH = 1000.0
_MIN_VALID = 0.05
_SAME_SURFACE = 1.06
"""Neighbours whose depths differ by more than this factor are not averaged."""


def read_depth_file(path: Path) -> np.ndarray:
    """Return (h, w) float32 z-depth [m]; zero, negative, infinite and NaN mean unknown and become NaN.

    Raises:
        InputError: missing, another format, not a 2-D array of numbers, almost empty, or not in metres.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such depth file, {_EXPECTED}")
    values = _read_png(path) if path.suffix.lower() == ".png" else _read_array(path)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or min(values.shape) < 16 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: got an array of shape {values.shape} and type {values.dtype}, "
                         "expected depth of shape (height, width)")
    depth = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    valid = float(np.isfinite(depth).mean())
    if valid < _MIN_VALID:
        raise InputError(f"{path}: got depth at {100 * valid:.1f} % of the pixels, expected at least {100 * _MIN_VALID:.0f} %")
    median = float(np.nanmedian(depth))
    if not 0.05 < median < _MAX_DEPTH:
        raise InputError(f"{path}: got a median depth of {median:g}, expected metres between 0.05 and {_MAX_DEPTH:g}")
    return depth


def _read_png(path: Path) -> np.ndarray:
    data = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if data is None or data.dtype != np.uint16 or data.ndim != 2:
        got = "no readable image" if data is None else f"{data.dtype} of shape {data.shape}"
        raise InputError(f"{path}: got {got}, expected a one-channel 16-bit .png in millimetres")
    return data.astype(np.float32) / 1000.0


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
