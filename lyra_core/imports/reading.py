"""Files of captures: references that stay inside their folder, pictures, depth, JSON and numbers, each checked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lyra_core.camera.formats import check_rigid
from lyra_core.errors import BackendUnavailable, InputError

MAX_PIXELS = 100_000_000
MAX_TEXT = 1 << 30
"""Bytes of a text or binary table."""
_FARTHEST = 1e9
"""Larger positions are no positions [unit of the file]."""
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class DepthFile:
    """A depth picture that lies beside a photo."""

    path: Path
    unit: float = 1.0
    """[units of the poses per stored number]"""
    none: tuple[float, ...] = (0.0,)
    """Stored numbers that mean unknown, besides those that are not positive or not finite."""
    confidence: Path | None = None
    """8-bit picture of the same size; 0 = unknown."""
    farthest: float = np.inf
    """Stored depths beyond are a guess and dropped [units of the poses]."""
    shape: tuple[int, int] | None = None
    """(h, w) where the file itself does not say."""


def confined(folder: Path, name: object, *, what: str) -> Path:
    """Return the path of a file that a capture names, relative to its folder.

    Raises:
        InputError: no text, absolute, with '..' or a drive letter, or a link that leads out of the folder.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise InputError(f"{what}: got {name!r}, expected the name of a file below {folder}")
    parts = name.replace("\\", "/").split("/")
    if len(name) > 4000 or max(len(part.encode("utf-8", "replace")) for part in parts) > 255:
        raise InputError(f"{what}: got a name of {len(name)} characters, {name[:40]!r}..., expected a file name")
    if name.startswith(("/", "\\", "~")) or ".." in parts or re.match(r"^[A-Za-z]:", name) or "://" in name:
        raise InputError(f"{what}: got {name!r}, expected a relative path without '..' below {folder}")
    path = folder.joinpath(*(part for part in parts if part not in ("", ".")))
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{what}: got {name!r}, not a path that can be followed: {error}") from error
    if not inside:
        raise InputError(f"{what}: {path}: leads to {path.resolve()}, expected a file below {folder}")
    return path


def read_text(path: Path) -> str:
    """Read a text file of up to 1 GiB.

    Raises:
        InputError: missing, larger, or not UTF-8.
    """
    try:
        if path.stat().st_size > MAX_TEXT:
            raise InputError(f"{path}: got {path.stat().st_size} bytes, expected at most {MAX_TEXT}")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as text: {error}") from error


def read_bytes(path: Path) -> bytes:
    """Read a binary file of up to 8 GiB.

    Raises:
        InputError: missing or larger.
    """
    try:
        if path.stat().st_size > 8 * MAX_TEXT:
            raise InputError(f"{path}: got {path.stat().st_size} bytes, expected at most {8 * MAX_TEXT}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: missing, damaged, or another type.
    """
    try:
        data = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: got a JSON {type(data).__name__}, expected an object")
    return data


def numbers(where: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return finite numbers of JSON as float64 of this shape.

    Raises:
        InputError: otherwise; says what was got.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError):
        array = np.array(None)
    if array.dtype.kind not in "iuf" or array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"{where}: got {str(value)[:80]}, expected finite numbers of shape {shape}")
    return array.astype(np.float64)


def number(where: str, value: Any) -> float:
    """Return one finite number of JSON.

    Raises:
        InputError: otherwise.
    """
    if isinstance(value, bool):
        raise InputError(f"{where}: got {value}, expected a finite number")
    return float(numbers(where, value, ()))


def rows(path: Path, *, columns: int, comma: bool = False, header: int = 0) -> np.ndarray:
    """Read lines of numbers, (N, columns) float64; '#' starts a comment, further columns are left out.

    Raises:
        InputError: missing, no line, or a line that is not finite numbers; the line is named.
    """
    out = []
    for at, line in enumerate(read_text(path).splitlines(), 1):
        if at <= header or not line.strip() or line.lstrip().startswith("#"):
            continue
        out.append(floats(f"{path}: line {at}", line.replace(",", " ").split() if comma else line.split(), columns))
    if not out:
        raise InputError(f"{path}: got no line of numbers, expected {columns} on each")
    return np.array(out)


def floats(where: str, fields: list[str], count: int) -> np.ndarray:
    """Return the first ``count`` fields as finite float64.

    Raises:
        InputError: too few, or not finite numbers.
    """
    try:
        values = np.array([float(field) for field in fields[:count]])
    except ValueError:
        values = np.array([np.nan])
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(f"{where}: got {' '.join(fields)[:80]!r}, expected {count} finite numbers")
    return values


def rigid(where: str, T: np.ndarray) -> np.ndarray:
    """Return poses (N, 4, 4) as they are.

    Raises:
        InputError: not finite, not rigid, or farther than 1e9 units away.
    """
    check_rigid(where, T)
    if len(T) and np.abs(T[:, :3, 3]).max() > _FARTHEST:
        raise InputError(f"{where}: got a position of {np.abs(T[:, :3, 3]).max():.3g}, expected less than {_FARTHEST:.0e}")
    return T


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height by the file's header.

    Raises:
        InputError: missing or not a picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: missing or not a picture: {error}") from error
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: got {width}x{height} px, expected at most {MAX_PIXELS // 10**6} megapixels")
    return width, height


def read_picture(path: Path) -> np.ndarray:
    """Read (H, W, 3) uint8 RGB as the sensor saw it: poses belong to that, so a note in the file that it be turned is passed over.

    Raises:
        InputError: missing, damaged, or too large.
    """
    picture_size(path)
    data = _decoded(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if data is None or data.ndim != 3:
        raise InputError(f"{path}: not readable as a picture")
    return np.ascontiguousarray(data[..., ::-1])


def read_depth_picture(file: DepthFile) -> np.ndarray:
    """Read (h, w) float32 z-depth [units of the poses]; NaN = unknown.

    Raises:
        InputError: missing, damaged, or not one channel of 16 bits or floating-point numbers.
        BackendUnavailable: the file is OpenEXR or LZFSE, whose reader is not installed.
    """
    readers = {".exr": read_exr, ".npy": _read_numpy, ".npz": _read_numpy, ".bin": _read_colmap_map}
    if file.path.suffix.lower() == ".depth":
        values = _read_lzfse(file)
    else:
        values = readers.get(file.path.suffix.lower(), _read_grey)(file.path)
    unknown = ~np.isfinite(values) | (values <= 0) | np.isin(values, file.none)
    depth = np.where(unknown, np.nan, values * file.unit).astype(np.float32)
    if file.confidence is not None:
        confidence = _decoded(file.confidence, cv2.IMREAD_UNCHANGED)
        if confidence is None or confidence.ndim != 2 or confidence.shape != depth.shape:
            got = "no readable picture" if confidence is None else f"shape {confidence.shape}"
            raise InputError(f"{file.confidence}: got {got}, expected one channel of the depth's size {depth.shape}")
        depth[confidence == 0] = np.nan
    depth[~(depth <= file.farthest)] = np.nan
    return depth


def _read_grey(path: Path) -> np.ndarray:
    picture_size(path)
    data = _decoded(path, cv2.IMREAD_UNCHANGED)
    if data is None or data.ndim != 2 or (data.dtype != np.uint16 and data.dtype.kind != "f"):
        got = "no readable picture" if data is None else f"{data.dtype} of shape {data.shape}"
        raise InputError(f"{path}: got {got}, expected depth of one channel with 16 bits or floating-point numbers")
    return data.astype(np.float64)


def _decoded(path: Path, flags: int) -> np.ndarray | None:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        return cv2.imdecode(data, flags) if len(data) else None
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    except cv2.error as error:
        raise InputError(f"{path}: not readable as a picture: {' '.join(str(error).split())}") from error


def _read_numpy(path: Path) -> np.ndarray:
    from lyra_core.depth.formats import read_array

    values = read_array(path)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(f"{path}: got an array of shape {values.shape} and type {values.dtype}, expected depth (height, width)")
    return values.astype(np.float64)


def read_exr(path: Path) -> np.ndarray:
    from lyra_core.depth.formats import read_exr

    return np.asarray(read_exr(path), np.float64)


def _read_colmap_map(path: Path) -> np.ndarray:
    """Read a dense map of COLMAP: 'width&height&channels&' and float32 row by row."""
    data = read_bytes(path)
    match = re.match(rb"(\d{1,6})&(\d{1,6})&(\d{1,2})&", data[:32])
    if match is None:
        raise InputError(f"{path}: got {data[:16]!r}, expected width&height&channels& of a COLMAP depth map")
    width, height, channels = (int(n) for n in match.groups())
    body, want = len(data) - match.end(), 4 * width * height
    if channels != 1 or body != want or not width or not height:
        raise InputError(f"{path}: got {body} bytes for {width}x{height} px of {channels} channels, expected {want} of one channel")
    return np.frombuffer(data, "<f4", width * height, match.end()).reshape(height, width).astype(np.float64)


def _read_lzfse(file: DepthFile) -> np.ndarray:
    """Unpack depth of Record3D: float32 of a size that its metadata says, packed by Apple's LZFSE."""
    try:
        import liblzfse
    except ImportError as error:
        raise BackendUnavailable(f"reading {file.path}", reason=f"LZFSE-packed depth of Record3D: {error}",
                                 install="pip install pyliblzfse, or export 'EXR + RGB' from Record3D") from error
    height, width = file.shape or (0, 0)
    packed = read_bytes(file.path)
    if len(packed) > 4 * width * height + 4096:
        raise InputError(f"{file.path}: got {len(packed)} bytes, expected fewer than {width}x{height} px take unpacked")
    try:
        data = liblzfse.decompress(packed)
    except (liblzfse.error, ValueError, MemoryError) as error:
        raise InputError(f"{file.path}: not readable as LZFSE: {str(error) or 'damaged'}") from error
    if len(data) != 4 * width * height:
        raise InputError(f"{file.path}: got {len(data)} bytes, expected {4 * width * height} for {width}x{height} px")
    return np.frombuffer(data, "<f4").reshape(height, width).astype(np.float64)
