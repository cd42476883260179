"""The PLY container (Turk 1994): ascii, little- and big-endian, any elements; strict, because lying headers are common."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.files import write_bytes

MAX_HEADER = 1 << 16
"""Bytes searched for the end of the header."""
_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
          "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
          "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"}
_FORMATS = {"format ascii 1.0": "", "format binary_little_endian 1.0": "<", "format binary_big_endian 1.0": ">"}
_NAMES = {"<f4": "float", "|u1": "uchar", "<i4": "int", "<u4": "uint"}
_END = re.compile(rb"\nend_header[ \t]*\r?\n")


@dataclass(frozen=True)
class PlyElement:
    """One element of a header."""

    name: str
    count: int
    dtype: np.dtype | None
    """Of one row as stored (fields by name); None = a list property makes the rows unequal."""


@dataclass(frozen=True)
class PlyHeader:
    """What the header promises; nothing of it is believed before the file's size agrees."""

    order: str
    """'<' or '>' for binary files, '' for ascii."""
    elements: tuple[PlyElement, ...]
    size: int
    """Bytes of the header."""

    def names(self, element: str) -> tuple[str, ...]:
        """Return the property names of an element; () where there is none or it holds lists."""
        found = next((e for e in self.elements if e.name == element), None)
        return () if found is None or found.dtype is None else (found.dtype.names or ())


def write_vertex_ply(path: Path, columns: dict[str, np.ndarray], *, comments: tuple[str, ...] = ()) -> None:
    """Write equal-length (N,) arrays as float32 (or uint8, int32) vertex properties, in the given order."""
    write_ply(path, {"vertex": columns}, comments=comments)


def write_ply(path: Path, elements: dict[str, dict[str, np.ndarray]], *, comments: tuple[str, ...] = ()) -> None:
    """Write elements of equal-length (N,) columns, binary little-endian, as float32 (or uint8, int32, uint32)."""
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    body = []
    for element, columns in elements.items():
        dtypes = {name: np.dtype(values.dtype if values.dtype.str in _NAMES else "<f4") for name, values in columns.items()}
        table = np.zeros(len(next(iter(columns.values()))), list(dtypes.items()))
        for name, values in columns.items():
            table[name] = values
        lines += [f"element {element} {len(table)}", *(f"property {_NAMES[kind.str]} {name}" for name, kind in dtypes.items())]
        body.append(table.tobytes())
    write_bytes(path, ("\n".join([*lines, "end_header"]) + "\n").encode("ascii") + b"".join(body))


def read_vertex_ply(path: Path) -> np.ndarray:
    """Read the vertex element as a structured array (N,).

    Raises:
        InputError: not a PLY, a header line that is not understood, a list property among the vertices or before them, or
            fewer or (where nothing follows the vertices) more values than the header promises.
    """
    return read_ply(path, "vertex")["vertex"]


def read_ply(path: Path, *wanted: str) -> dict[str, np.ndarray]:
    """Read the named elements as structured arrays (N,), those that the file has; elements behind the last one are skipped.

    Raises:
        InputError: as read_vertex_ply; also where none of the named elements is there.
    """
    path = Path(path)
    header = read_ply_header(path)
    last = max((i for i, element in enumerate(header.elements) if element.name in wanted), default=-1)
    if last < 0:
        raise InputError(f"{path}: got elements {[e.name for e in header.elements]}, expected {' or '.join(wanted)}")
    for element in header.elements[:last + 1]:
        if element.dtype is None:
            raise InputError(f"{path}: element {element.name} has a list property, expected plain numbers")
        if not element.dtype.names:
            raise InputError(f"{path}: the {element.name} element has no properties")
    found = _read_binary(path, header, last) if header.order else _read_ascii(path, header, last)
    return {name: table for name, table in found.items() if name in wanted}


def read_ply_header(path: Path) -> PlyHeader:
    """Read the header alone.

    Raises:
        InputError: not a PLY, or a header line that is not understood.
    """
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_HEADER)
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    end = _END.search(data)
    lines = data[:end.start() if end else 0].decode("ascii", "replace").splitlines()
    if end is None or not lines or lines[0].strip() != "ply":
        raise InputError(f"{path}: got {data[:16]!r}, expected a PLY header with end_header in its first {MAX_HEADER} bytes")
    words = " ".join(lines[1].split()) if len(lines) > 1 else ""
    if words not in _FORMATS:
        raise InputError(f"{path}: got {words!r}, expected {' or '.join(_FORMATS)}")
    order = _FORMATS[words]
    rows: list[tuple[str, int, list[tuple[str, str]]]] = []
    lists: set[int] = set()
    for number, line in enumerate(lines[2:], 3):
        _parse_line(f"{path}: header line {number} {line!r}", line, order, rows, lists)
    elements = tuple(PlyElement(name, count, None if i in lists else np.dtype(fields))
                     for i, (name, count, fields) in enumerate(rows))
    return PlyHeader(order, elements, end.end())


def _parse_line(where: str, line: str, order: str, rows: list[tuple[str, int, list[tuple[str, str]]]], lists: set[int]) -> None:
    words = line.split()
    if not words or words[0] in ("comment", "obj_info"):
        return
    if words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) <= 18:
        if any(words[1] == name for name, _, _ in rows):
            raise InputError(f"{where}: the element is there twice")
        rows.append((words[1], int(words[2]), []))
    elif words[0] == "property" and rows and len(words) == 5 and words[1] == "list" and {words[2], words[3]} <= set(_TYPES):
        lists.add(len(rows) - 1)
    elif words[0] == "property" and rows and len(words) == 3 and words[1] in _TYPES:
        if any(words[2] == name for name, _ in rows[-1][2]):
            raise InputError(f"{where}: the property is there twice")
        rows[-1][2].append((words[2], (order or "<") + _TYPES[words[1]]))
    else:
        raise InputError(f"{where}: not understood; expected element NAME COUNT or property TYPE NAME")


def _read_binary(path: Path, header: PlyHeader, last: int) -> dict[str, np.ndarray]:
    """Read the elements up to the last one; their sizes are compared with the file's before anything is allocated."""
    kinds = {e.name: e.dtype for e in header.elements[:last + 1] if e.dtype is not None}
    sizes = [e.count * kinds[e.name].itemsize for e in header.elements[:last + 1]]
    body = path.stat().st_size - header.size
    if body < sum(sizes) or (last + 1 == len(header.elements) and body > sum(sizes)):
        counts = ", ".join(f"{e.count} {e.name} of {kinds[e.name].itemsize} bytes" for e in header.elements[:last + 1])
        raise InputError(f"{path}: got {body} bytes after the header, expected {sum(sizes)}: {counts}")
    found, offset = {}, header.size
    for element, size in zip(header.elements, sizes, strict=False):
        found[element.name] = np.fromfile(path, kinds[element.name], element.count, offset=offset)
        if len(found[element.name]) != element.count:
            raise InputError(f"{path}: {element.name}: got {len(found[element.name])} rows, expected {element.count}")
        offset += size
    return found


def _read_ascii(path: Path, header: PlyHeader, last: int) -> dict[str, np.ndarray]:
    """Read numbers separated by white space; each needs two bytes at least, which bounds the memory by the file."""
    kinds = {e.name: e.dtype for e in header.elements[:last + 1] if e.dtype is not None}
    widths = [e.count * len(kinds[e.name].names or ()) for e in header.elements[:last + 1]]
    body, want = path.stat().st_size - header.size, sum(widths)
    if body + 1 < 2 * want:
        raise InputError(f"{path}: got {body} bytes after the header, expected {want} numbers")
    alone = last + 1 == len(header.elements)
    with path.open("rb") as stream, warnings.catch_warnings():
        stream.seek(header.size)
        text = stream.read().decode("latin-1")
        # numpy 1 warns about text that is no number, numpy 2 refuses it.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            numbers = np.fromstring(text, np.float64, -1 if alone else want, sep=" ")
        except (ValueError, DeprecationWarning) as error:
            raise InputError(f"{path}: not readable as numbers after the header: {error}") from error
    if len(numbers) != want:
        raise InputError(f"{path}: got {len(numbers)} numbers after the header, expected {want}")
    found, start = {}, 0
    for element, width in zip(header.elements, widths, strict=False):
        values = numbers[start:start + width].reshape(element.count, -1)
        table = np.zeros(element.count, kinds[element.name])
        for i, name in enumerate(kinds[element.name].names or ()):
            table[name] = _as_kind(f"{path}: {element.name} {name}", values[:, i], table.dtype[name])
        found[element.name], start = table, start + width
    return found


def _as_kind(where: str, values: np.ndarray, kind: np.dtype) -> np.ndarray:
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(kind)
    limits = np.iinfo(kind)
    bad = ~((values >= limits.min) & (values <= limits.max))
    if bad.any():
        raise InputError(f"{where}: got {values[bad][0]}, expected {limits.min}..{limits.max}")
    return values.astype(kind)
