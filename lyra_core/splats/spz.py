"""Niantic's .spz: about a tenth of a .ply. Versions 1 to 3 are one gzip stream, version 4 has a plain header and Zstandard streams.

Axes. SPZ stores right, up, back (RUB, as OpenGL and three.js); .ply captures are right, down, forward (RDF). Readers and
writers here turn half about x, as Niantic's own tools and splat-transform do: the cloud in memory always has the axes of the
matching .ply, so x.ply and the x.spz that a third party made of it read the same. SPZ_ADOBE_coordinate_system, an extension
that stores other axes, is refused by name.

Per Gaussian, each attribute in its own run: position 3 x 24 bits of fixed point (version 1: float16), opacity 8 bits linear,
colour 3 x 8 bits of (DC x 0.15 + 0.5), log scale 3 x 8 bits of (s + 10) x 16, rotation (versions 1, 2: x, y, z in 8 bits each, w
positive; 3, 4: 2 bits for which of x, y, z, w is largest, then sign and 9 bits of the others over sqrt(1/2)), and SH bands as
one byte each over +-1, coefficient by coefficient with r, g, b inside.

Errors of a round trip: position 2^-13 (12 fractional bits), log scale 1/32 (clipped to e^-10 .. e^5.94), opacity 1/510, DC
0.0131 (clipped to +-3.33), rotation 0.25 degrees (version 2: 1, but up to 12 near half turns, where w is lost), SH 0.036 for
band 1 and 0.067 above, clipped to [-1, 0.992]. Provenance is lost.
Source: github.com/nianticlabs/spz (the format as its README of 2026 states it, and what its code writes).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.gaussians import flipped
from lyra_core.errors import InputError
from lyra_core.io.files import write_gzip
from lyra_core.io.gaussians import check_cloud, check_degree, make_cloud
from lyra_core.splats.packed_ply import with_largest
from lyra_core.types import GaussianCloud

MAGIC = b"NGSP"
GZIP = b"\x1f\x8b"
MAX_RATIO = 100
"""Unpacked bytes over packed ones that are believed above MIN_LIMIT; captures reach 4."""
MIN_LIMIT = 1 << 26
"""Unpacked bytes that are always allowed."""
MAX_EXTENSIONS = 1 << 20
"""Bytes of extension records after the attributes."""
_RUB_FROM_RDF = (1, -1, -1)
_COLOUR = 0.15
_RANGE = 1 << 23
_ADOBE_AXES = 0xADBE0003
_HAS_EXTENSIONS = 2


@dataclass(frozen=True)
class _Header:
    version: int
    count: int
    degree: int
    fractional_bits: int
    flags: int

    def sizes(self) -> list[int]:
        """Return the bytes of positions, opacities, colours, scales, rotations and SH."""
        widths = [6 if self.version == 1 else 9, 1, 3, 3, 3 if self.version < 3 else 4, 3 * ((self.degree + 1) ** 2 - 1)]
        return [self.count * width for width in widths]


def read_spz(path: Path) -> GaussianCloud:
    """Read an .spz file, axes turned to those of a .ply (RDF).

    Raises:
        InputError: a damaged file, counts that its size belies, an unknown version; version 4 where no Zstandard is installed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    return decode_spz(str(path), data)


def decode_spz(where: str, data: bytes) -> GaussianCloud:
    """Decode the bytes of an .spz file, axes turned to RDF. Bands above the third are left out: nothing here evaluates them.

    Raises:
        InputError: as read_spz.
    """
    if data[:4] == MAGIC:
        header, parts = _read_streams(where, data)
    elif data[:2] == GZIP:
        header, parts = _read_gzip(where, data)
    else:
        raise InputError(f"{where}: got {data[:8]!r}, expected an SPZ file: gzip or NGSP")
    positions, opacities, colours, scales, rotations, sh = (np.frombuffer(part, np.uint8) for part in parts)
    n = header.count
    rest = ((sh.reshape(n, -1, 3).astype(np.float32) - 128) / 128)[:, :15]
    dc = (colours.reshape(n, 1, 3) / 255.0 - 0.5) / _COLOUR
    cloud = make_cloud(where, _positions(positions, header), _rotations(rotations, header),
                       np.exp(scales.reshape(n, 3) / 16.0 - 10), opacities / 255.0,
                       np.concatenate([dc.astype(np.float32), rest], 1))
    return flipped(cloud, _RUB_FROM_RDF)


def write_spz(path: Path, cloud: GaussianCloud, *, version: int = 3, fractional_bits: int = 12) -> None:
    """Write an .spz file of a cloud with the axes of a .ply (RDF).

    Args:
        version: 3 (all current readers, finer rotations) or 2 (the oldest ones too).
        fractional_bits: of positions, 0 to 20; fewer are taken where the scene would not fit (12 reach 2048 m).

    Raises:
        InputError: no Gaussian, numbers that are not finite, scales that are not positive, a scene beyond 8000 km, more than
            16 coefficients.
    """
    check_cloud(str(path), cloud)
    degree = check_degree(str(path), cloud)
    if version not in (2, 3) or not 0 <= fractional_bits <= 20:
        raise InputError(f"{path}: got version {version} and {fractional_bits} fractional bits, expected 2 or 3 and 0..20")
    n = len(cloud.means)
    if n == 0:
        raise InputError(f"{path}: got no Gaussian to write")
    reach = float(np.abs(cloud.means).max())
    if reach >= _RANGE - 1:
        raise InputError(f"{path}: means: got {reach:g}, expected less than {_RANGE - 1} m from the origin")
    while reach * 2.0**fractional_bits >= _RANGE - 1:
        fractional_bits -= 1
    turned = flipped(cloud, _RUB_FROM_RDF)
    fixed = np.rint(turned.means.astype(np.float64) * 2.0**fractional_bits).astype("<i4")
    parts = [struct.pack("<4sIIBBBB", MAGIC, version, n, degree, fractional_bits, 0, 0),
             fixed.reshape(-1, 1).view(np.uint8)[:, :3].tobytes(), _byte(turned.opacities * 255.0),
             _byte(turned.sh[:, 0] * (_COLOUR * 255.0) + 127.5), _byte((np.log(turned.scales.astype(np.float64)) + 10) * 16),
             _packed_rotations(turned.quats_wxyz, version), _packed_sh(turned.sh[:, 1:])]
    write_gzip(path, b"".join(parts))


def _check_header(where: str, header: _Header, packed: int) -> None:
    """Refuse a header before anything of its size is allocated."""
    if header.version not in (1, 2, 3, 4):
        raise InputError(f"{where}: got SPZ version {header.version}, expected 1 to 4")
    if header.degree > 4 or header.fractional_bits > 23 or header.count == 0:
        raise InputError(f"{where}: got {header.count} Gaussians, SH degree {header.degree}, {header.fractional_bits} fractional "
                         "bits, expected at least 1, at most 4 and at most 23")
    want, limit = sum(header.sizes()), max(MIN_LIMIT, MAX_RATIO * packed)
    if want > limit:
        raise InputError(f"{where}: {header.count} Gaussians of SH degree {header.degree} would unpack {packed} bytes to {want}, "
                         f"expected at most {limit}")


def _read_gzip(where: str, data: bytes) -> tuple[_Header, list[bytes]]:
    stream = zlib.decompressobj(31)
    try:
        head = stream.decompress(data, 16)
        if len(head) < 16 or head[:4] != MAGIC:
            raise InputError(f"{where}: got {head!r} in the gzip stream, expected an SPZ header of 16 bytes starting {MAGIC!r}")
        header = _Header(*struct.unpack("<IIBBB", head[4:15]))
        if header.version == 4:
            raise InputError(f"{where}: got SPZ version 4 in a gzip stream, expected 1 to 3")
        _check_header(where, header, len(data))
        sizes = header.sizes()
        body = stream.decompress(stream.unconsumed_tail, sum(sizes) + MAX_EXTENSIONS + 1)
    except zlib.error as error:
        raise InputError(f"{where}: damaged gzip stream: {error}") from error
    extensions = body[sum(sizes):]
    if len(body) < sum(sizes) or not stream.eof or (extensions and not header.flags & _HAS_EXTENSIONS):
        raise InputError(f"{where}: got {len(body)}{'' if stream.eof else ' or more'} bytes after the header, expected "
                         f"{sum(sizes)}: {header.count} Gaussians of SH degree {header.degree}, SPZ version {header.version}")
    _check_extensions(where, extensions if header.flags & _HAS_EXTENSIONS else b"")
    return header, _cut(body, sizes)


def _read_streams(where: str, data: bytes) -> tuple[_Header, list[bytes]]:
    """Read version 4: a header of 32 bytes, extension records, a table of (packed, unpacked) sizes, the streams."""
    if len(data) < 32:
        raise InputError(f"{where}: got {len(data)} bytes, expected an SPZ header of 32")
    version, count, degree, bits, flags, streams, table = struct.unpack_from("<IIBBBBI", data, 4)
    header = _Header(version, count, degree, bits, flags)
    if version < 4:
        raise InputError(f"{where}: got SPZ version {version} without gzip, expected 4")
    _check_header(where, header, len(data))
    sizes = header.sizes()
    filled = [size for size in sizes if size]
    if streams != len(filled) or not 32 <= table <= len(data) - 16 * streams:
        raise InputError(f"{where}: got {streams} streams and a table at byte {table}, expected {len(filled)} and at most "
                         f"{len(data) - 16 * streams}")
    _check_extensions(where, data[32:table] if flags & _HAS_EXTENSIONS else b"")
    entries = np.frombuffer(data, "<u8", 2 * streams, table).astype(object).reshape(-1, 2)
    start, parts = table + 16 * streams, []
    for (packed, unpacked), size in zip(entries, filled, strict=True):
        if unpacked != size or packed > len(data) - start:
            raise InputError(f"{where}: stream {len(parts)}: got {packed} bytes for {unpacked}, expected at most "
                             f"{len(data) - start} for {size}")
        parts.append(_unzstd(f"{where}: stream {len(parts)}", data[start:start + packed], size))
        start += packed
    return header, parts if sizes[-1] else [*parts, b""]


def _unzstd(where: str, data: bytes, size: int) -> bytes:
    """Unpack one Zstandard frame to exactly size bytes."""
    try:
        zstd: Any = import_module("zstandard")
    except ImportError as error:
        raise InputError(f"{where}: SPZ version 4 is packed with Zstandard, which is not installed here: pip install zstandard, or "
                         "write the file as version 3 (splat-transform --spz-version 3)") from error
    try:
        reader = zstd.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data)
        result = reader.read(size + 1)
    except zstd.ZstdError as error:
        raise InputError(f"{where}: damaged Zstandard stream: {error}") from error
    if len(result) != size:
        raise InputError(f"{where}: got {len(result)} bytes or more, expected {size}")
    return result


def _check_extensions(where: str, data: bytes) -> None:
    """Walk the records (u32 type, u32 length, payload); only the one that changes the axes matters."""
    while len(data) >= 8:
        kind, length = struct.unpack_from("<II", data)
        if kind == _ADOBE_AXES:
            raise InputError(f"{where}: extension SPZ_ADOBE_coordinate_system: not supported; expected the standard axes, RUB")
        data = data[8 + length:]


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    return [body[a:b] for a, b in pairwise(np.cumsum([0, *sizes]).tolist())]


def _positions(raw: np.ndarray, header: _Header) -> np.ndarray:
    if header.version == 1:
        return raw.view("<f2").reshape(-1, 3).astype(np.float32)
    wide = np.zeros((header.count * 3, 4), np.uint8)
    wide[:, 1:] = raw.reshape(-1, 3)
    # The sign bit of 24 bits is that of 32 once they are shifted up by eight.
    return ((wide.view("<i4") >> 8) / 2.0**header.fractional_bits).astype(np.float32).reshape(-1, 3)


def _rotations(raw: np.ndarray, header: _Header) -> np.ndarray:
    """Return (N, 4), w first."""
    if header.version < 3:
        xyz = raw.reshape(-1, 3) / 127.5 - 1
        return with_largest(xyz, np.zeros(header.count, np.int64))
    word = raw.view("<u4")
    fields = np.stack([word >> np.uint32(shift) & np.uint32(1023) for shift in (20, 10, 0)], 1).astype(np.int64)
    others = (fields & 511) * np.where(fields & 512, -1.0, 1.0) * (np.sqrt(0.5) / 511)
    return with_largest(others, (word >> np.uint32(30)).astype(np.int64))[:, [3, 0, 1, 2]]


def _byte(values: np.ndarray) -> bytes:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8).tobytes()


def _packed_rotations(quats_wxyz: np.ndarray, version: int) -> bytes:
    quats = quats_wxyz[:, [1, 2, 3, 0]].astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    if version == 2:
        return _byte(quats[:, :3] * np.where(quats[:, 3:] < 0, -127.5, 127.5) + 127.5)
    largest = np.abs(quats).argmax(1)
    quats *= np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1.0, 1.0)
    others = quats[np.arange(4) != largest[:, None]].reshape(-1, 3)
    size = np.minimum(np.floor(np.abs(others) * (511 / np.sqrt(0.5)) + 0.5), 511).astype(np.uint32)
    fields = size | (others < 0).astype(np.uint32) << np.uint32(9)
    word = largest.astype(np.uint32)
    for i in range(3):
        word = word << np.uint32(10) | fields[:, i]
    return word.astype("<u4").tobytes()


def _packed_sh(rest: np.ndarray) -> bytes:
    """Round to 5 bits in band 1 and 4 above: Niantic's choice, since it packs far better; 0 stays 0."""
    step = np.where(np.arange(rest.shape[1]) < 3, 8, 16)[:, None]
    code = np.rint(rest.astype(np.float64) * 128) + 128
    return np.clip((code + step // 2) // step * step, 0, 255).astype(np.uint8).tobytes()
