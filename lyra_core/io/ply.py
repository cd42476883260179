"""The PLY container, binary little-endian, vertex element of float32 properties: strict, because lying headers are common."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.files import write_bytes

MAX_HEADER = 1 << 16
"""Bytes searched for the end of the header."""
_TYPES = {"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4",
          "float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2",
          "int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8"}


def write_vertex_ply(path: Path, columns: dict[str, np.ndarray], *, comments: tuple[str, ...] = ()) -> None:
    """Write equal-length (N,) arrays as float32 (or uint8, int32) vertex properties, in the given order."""
    names = {"<f4": "float", "|u1": "uchar", "<i4": "int"}
    dtypes = {name: np.dtype(values.dtype if values.dtype.str in names else "<f4") for name, values in columns.items()}
    table = np.zeros(len(next(iter(columns.values()))), list(dtypes.items()))
    for name, values in columns.items():
        table[name] = values
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments), f"element vertex {len(table)}",
             *(f"property {names[dtype.str]} {name}" for name, dtype in dtypes.items()), "end_header"]
    write_bytes(path, ("\n".join(lines) + "\n").encode("ascii") + table.tobytes())


def read_vertex_ply(path: Path) -> np.ndarray:
    """Read the vertex element as a structured array (N,).

    Raises:
        InputError: not a PLY, not binary little-endian, a header line that is not understood, a list property among the
            vertices, or fewer or more bytes than the header promises.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    head, mark, _ = data[:MAX_HEADER].partition(b"\nend_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    if not mark or lines[0] != "ply":
        raise InputError(f"{path}: got {data[:16]!r}, expected a PLY header with end_header in its first {MAX_HEADER} bytes")
    if lines[1:2] != ["format binary_little_endian 1.0"]:
        raise InputError(f"{path}: got {lines[1:2]}, expected format binary_little_endian 1.0")
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    for number, line in enumerate(lines[2:], 3):
        _parse_line(f"{path}: header line {number} {line!r}", line, elements)
    if not elements or elements[0][0] != "vertex":
        raise InputError(f"{path}: got elements {[e[0] for e in elements]}, expected vertex first")
    _, count, properties = elements[0]
    if not properties:
        raise InputError(f"{path}: the vertex element has no properties")
    dtype = np.dtype(properties)
    body, want = len(data) - len(head) - len(mark), count * dtype.itemsize
    if body < want or (len(elements) == 1 and body > want):
        raise InputError(f"{path}: got {body} bytes after the header, expected {want}: {count} vertices of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype, count, len(head) + len(mark))


def _parse_line(where: str, line: str, elements: list[tuple[str, int, list[tuple[str, str]]]]) -> None:
    words = line.split()
    if not words or words[0] in ("comment", "obj_info"):
        return
    if words[0] == "element" and len(words) == 3 and words[2].isdecimal():
        elements.append((words[1], int(words[2]), []))
    elif words[0] == "property" and elements and elements[-1][0] != "vertex" and len(words) >= 3:
        return
    elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
        if any(words[2] == name for name, _ in elements[-1][2]):
            raise InputError(f"{where}: the property is there twice")
        elements[-1][2].append((words[2], _TYPES[words[1]]))
    else:
        raise InputError(f"{where}: not understood; expected element NAME COUNT or property TYPE NAME")
