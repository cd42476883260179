"""Packed .ply (PlayCanvas' compressed PLY, usually NAME.compressed.ply): 16 bytes per Gaussian and 72 per chunk of 256.

Per chunk: the range of position, log scale and colour. Per Gaussian four uint32: position and log scale as 11, 10, 11 bits in
that range; rotation as 2 bits (which of w, x, y, z is largest) and the other three in 10 bits over +-sqrt(1/2); colour as 3 x 8
bits in the chunk's range (files without colour ranges: over 0..1) and 8 bits of linear opacity. An optional element sh holds
f_rest as one byte each over +-4. Axes are those of the plain .ply that was packed.

Errors of a round trip: position and log scale half a step of the chunk's range / 2047 (1023 for y); rotation 0.2 degrees;
colour range / 510; opacity 1 / 510; f_rest 1 / 64 (1 / 32 in the two end steps), clipped to +-4. Provenance is lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.gaussians import check_cloud, check_degree, exponential, make_cloud
from lyra_core.io.ply import PlyHeader, read_ply, write_ply
from lyra_core.types import GaussianCloud

CHUNK = 256
"""Gaussians that share a range."""
SH_C0 = 0.28209479177387814
_BITS = (11, 10, 11)
_AXES = ("x", "y", "z")
_RANGES = {"": _AXES, "scale_": _AXES, "colour": ("r", "g", "b")}
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def is_packed(header: PlyHeader) -> bool:
    """Tell a packed .ply from its header."""
    return "min_x" in header.names("chunk") and set(_WORDS) <= set(header.names("vertex"))


def read_packed_ply(path: Path) -> GaussianCloud:
    """Read a packed .ply.

    Raises:
        InputError: a damaged file, a missing or mistyped property, counts of chunks and Gaussians that do not fit.
    """
    tables = read_ply(path, "chunk", "vertex", "sh")
    ends = ("min", "max")
    _require(path, "chunk", tables, [_column(end, key, i) for end in ends for key in ("", "scale_") for i in range(3)], "f4")
    _require(path, "vertex", tables, list(_WORDS), "u4")
    chunk, vertex = tables["chunk"], tables["vertex"]
    n = len(vertex)
    if len(chunk) != -(-n // CHUNK):
        raise InputError(f"{path}: chunk: got {len(chunk)} chunks, expected {-(-n // CHUNK)} for {n} Gaussians")
    coloured = "min_r" in (chunk.dtype.names or ())
    if coloured:
        _require(path, "chunk", tables, [_column(end, "colour", i) for end in ends for i in range(3)], "f4")
    chunk_of = np.arange(n) // CHUNK
    means = _in_range(_unpacked(vertex["packed_position"], _BITS), chunk, "", chunk_of)
    log_scales = _in_range(_unpacked(vertex["packed_scale"], _BITS), chunk, "scale_", chunk_of)
    rgba = _unpacked(vertex["packed_color"], (8, 8, 8, 8))
    rgb = _in_range(rgba[:, :3], chunk, "colour", chunk_of) if coloured else rgba[:, :3]
    dc = ((rgb - 0.5) / SH_C0).astype(np.float32)[:, None]
    sh = np.concatenate([dc, _read_sh(path, tables["sh"], n)], 1) if "sh" in tables else dc
    return make_cloud(str(path), means, _unpacked_rotations(vertex["packed_rotation"]), exponential(log_scales), rgba[:, 3], sh)


def write_packed_ply(path: Path, cloud: GaussianCloud) -> None:
    """Write a packed .ply. Gaussians are put in Morton order, so that chunks are small in space and their ranges narrow.

    Raises:
        InputError: no Gaussian, numbers that are not finite, scales that are not positive, more than 16 coefficients.
    """
    check_cloud(str(path), cloud)
    degree = check_degree(str(path), cloud)
    n = len(cloud.means)
    if n == 0:
        raise InputError(f"{path}: got no Gaussian to write")
    order = morton_order(cloud.means)
    starts = np.arange(0, n, CHUNK)
    values = {"": cloud.means[order], "scale_": np.log(cloud.scales[order].astype(np.float64)).astype(np.float32),
              "colour": cloud.sh[order, 0] * np.float32(SH_C0) + np.float32(0.5)}
    low = {key: np.minimum.reduceat(value, starts) for key, value in values.items()}
    high = {key: np.maximum.reduceat(value, starts) for key, value in values.items()}
    ends = (("min", low), ("max", high))
    chunk = {_column(end, key, i): part[key][:, i] for key in values for end, part in ends for i in range(3)}
    unit = {key: _unit(values[key], low[key], high[key], np.arange(n) // CHUNK) for key in values}
    rgba = np.concatenate([unit["colour"], cloud.opacities[order, None]], 1)
    vertex = {"packed_position": _packed(unit[""], _BITS), "packed_rotation": _packed_rotations(cloud.quats_wxyz[order]),
              "packed_scale": _packed(unit["scale_"], _BITS), "packed_color": _packed(rgba, (8, 8, 8, 8))}
    elements = {"chunk": chunk, "vertex": vertex}
    if degree:
        rest = np.clip(np.trunc((cloud.sh[order, 1:] / 8 + 0.5) * 256), 0, 255).astype(np.uint8)
        rest = rest.transpose(0, 2, 1).reshape(n, -1)
        elements["sh"] = {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    write_ply(path, elements)


def morton_order(means: np.ndarray) -> np.ndarray:
    """Return the order (N,) int64 along a Z curve through 1024^3 cells of the bounding box of (N, 3) means; ties keep theirs."""
    low, high = means.min(0).astype(np.float64), means.max(0).astype(np.float64)
    cell = np.clip((means - low) / np.maximum(high - low, 1e-30) * 1023, 0, 1023).astype(np.uint32)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cell = (cell | (cell << np.uint32(shift))) & np.uint32(mask)
    return np.argsort(cell[:, 0] << np.uint32(2) | cell[:, 1] << np.uint32(1) | cell[:, 2], kind="stable")


def _require(path: Path, element: str, tables: dict[str, np.ndarray], wanted: list[str], kind: str) -> None:
    if element not in tables:
        raise InputError(f"{path}: got elements {list(tables)}, expected chunk and vertex")
    dtype = tables[element].dtype
    for name in wanted:
        got = dtype[name].str[1:] if name in (dtype.names or ()) else "nothing"
        if got != kind:
            raise InputError(f"{path}: {element}: {name}: got {got}, expected {kind}")


def _column(end: str, key: str, i: int) -> str:
    return f"{end}_{'' if key == 'colour' else key}{_RANGES[key][i]}"


def _in_range(unit: np.ndarray, chunk: np.ndarray, key: str, chunk_of: np.ndarray) -> np.ndarray:
    """Return unit (N, 3) in [0, 1] stretched over the range of each Gaussian's chunk."""
    low, high = (np.stack([chunk[_column(end, key, i)] for i in range(3)], 1).astype(np.float64)[chunk_of]
                 for end in ("min", "max"))
    with np.errstate(over="ignore", invalid="ignore"):
        return low * (1 - unit) + high * unit


def _unit(values: np.ndarray, low: np.ndarray, high: np.ndarray, chunk_of: np.ndarray) -> np.ndarray:
    span = (high.astype(np.float64) - low)[chunk_of]
    return np.divide(values - low.astype(np.float64)[chunk_of], span, out=np.zeros(values.shape), where=span > 0)


def _packed(unit: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Return unit (N, len(bits)) in [0, 1] as bit fields of a uint32, the first one highest."""
    word = np.zeros(len(unit), np.uint32)
    for i, width in enumerate(bits):
        top = (1 << width) - 1
        word = word << np.uint32(width) | np.clip(np.floor(unit[:, i] * top + 0.5), 0, top).astype(np.uint32)
    return word


def _unpacked(word: np.ndarray, bits: tuple[int, ...]) -> np.ndarray:
    """Undo :func:`_packed`: (N, len(bits)) float64 in [0, 1]."""
    word = word.astype(np.uint32)
    columns, shift = [], sum(bits)
    for width in bits:
        shift -= width
        top = (1 << width) - 1
        columns.append((word >> np.uint32(shift) & np.uint32(top)) / top)
    return np.stack(columns, 1)


def _packed_rotations(quats_wxyz: np.ndarray) -> np.ndarray:
    quats = quats_wxyz.astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    largest = np.abs(quats).argmax(1)
    quats *= np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1.0, 1.0)
    others = quats[np.arange(4) != largest[:, None]].reshape(-1, 3)
    return _packed(others * np.sqrt(0.5) + 0.5, (10, 10, 10)) | largest.astype(np.uint32) << np.uint32(30)


def _unpacked_rotations(word: np.ndarray) -> np.ndarray:
    others = (_unpacked(word, (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = (word.astype(np.uint32) >> np.uint32(30)).astype(np.int64)
    return with_largest(others, largest)


def with_largest(others: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return unit quaternions (N, 4) from three components (N, 3) and the place (N,) of the fourth, which is positive."""
    quats = np.empty((len(others), 4))
    quats[np.arange(4) != largest[:, None]] = others.reshape(-1)
    rest = np.sqrt(np.maximum(0.0, 1.0 - (others**2).sum(1)))
    np.put_along_axis(quats, largest[:, None], rest[:, None], 1)
    return quats


def _read_sh(path: Path, table: np.ndarray, n: int) -> np.ndarray:
    """Return (N, K - 1, 3) float32 from the element sh."""
    names = table.dtype.names or ()
    wanted = [f"f_rest_{i}" for i in range(len(names))]
    if len(names) not in (9, 24, 45) or set(names) != set(wanted) or len(table) != n:
        raise InputError(f"{path}: sh: got {len(table)} rows of {', '.join(names[:3])} ... ({len(names)}), expected {n} rows of "
                         "f_rest_0 to f_rest_8, 23 or 44")
    if any(table.dtype[name] != np.uint8 for name in names):
        raise InputError(f"{path}: sh: got {table.dtype[0]}, expected uchar")
    code = np.stack([table[name] for name in wanted], 1)
    levels = ((np.arange(256) + 0.5) / 256 - 0.5) * 8
    levels[[0, 255]] = [-4, 4]
    return levels.astype(np.float32)[code].reshape(n, 3, -1).transpose(0, 2, 1)
