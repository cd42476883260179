"""The table of contents of a .vdb file: enough to refuse what is no such file, or is cut off, before OpenVDB sees it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from lyra_core.errors import InputError

MAGIC = 0x56444220
OLDEST, NEWEST = 222, 224
"""File versions that say where each grid ends and what it is compressed with (OpenVDB 3 to 12)."""
_LONGEST = 1 << 20
"""Longest text or value in a table of contents [bytes]."""


class _Reader:
    """Walks through the bytes of a file."""

    def __init__(self, path: Path, data: bytes | mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def fail(self, field: str, got: object, want: str) -> InputError:
        return InputError(f"{self.path}: {field}: got {got}, expected {want}; it is damaged or cut off")

    def take(self, field: str, form: str) -> tuple:
        size = struct.calcsize(form)
        if self.at + size > len(self.data):
            raise self.fail(field, f"{len(self.data) - self.at} bytes", f"{size}")
        self.at += size
        return struct.unpack_from(form, self.data, self.at - size)

    def text(self, field: str) -> bytes:
        (size,) = self.take(field, "<I")
        if size > min(_LONGEST, len(self.data) - self.at):
            raise self.fail(field, f"a length of {size}", f"at most the {len(self.data) - self.at} bytes that are left")
        self.at += size
        return self.data[self.at - size: self.at]


def check_vdb(path: Path) -> None:
    """Check the header, the metadata's lengths and the table of grids against the file's size (OpenVDB's io/Archive.cc).

    Raises:
        InputError: missing, or no .vdb file that is whole; names the field.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(_Reader(path, data))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as .vdb: {error}") from error


def _check(reader: _Reader) -> None:
    magic, version, _, _, has_places = reader.take("header", "<qIIIB")
    if magic != MAGIC:
        raise reader.fail("header", f"{reader.data[:8]!r}", "that of a .vdb file")
    if not OLDEST <= version <= NEWEST:
        raise reader.fail("header: version", version, f"{OLDEST} to {NEWEST}")
    if has_places != 1:
        raise reader.fail("header: places of grids", has_places, "1")
    reader.take("header: id", "<36s")
    (count,) = reader.take("metadata: count", "<I")
    for _ in range(_bounded(reader, "metadata: count", count)):
        for field in ("name", "type", "value"):
            reader.text(f"metadata: {field}")
    (count,) = reader.take("grids: count", "<i")
    for i in range(_bounded(reader, "grids: count", count)):
        parent = [reader.text(f"grid {i}: {field}") for field in ("name", "type", "parent")][2]
        places = reader.take(f"grid {i}: places", "<qqq")
        # A grid that shares another's tree has no values of its own.
        block = places[0] if parent else places[1]
        if not reader.at <= places[0] <= block <= places[2] <= len(reader.data):
            raise reader.fail(f"grid {i}: places", places, f"ascending ones within {reader.at} and {len(reader.data)}")
        reader.at = places[2]


def _bounded(reader: _Reader, field: str, count: int) -> int:
    """Return a count of entries of at least 12 bytes each."""
    left = (len(reader.data) - reader.at) // 12
    if not 0 <= count <= left:
        raise reader.fail(field, count, f"0 to {left}")
    return count
