"""PLY meshes (Turk 1994): text and both binary orders, polygons, colours, texture coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lyra_core.imports.mesh_obj import MAX_TEXT_BYTES, numbers
from lyra_core.imports.mesh_parts import Part, Reading, polygon_part, shown

MAX_HEADER = 1 << 16
"""Bytes searched for the end of the header."""
_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4", "double": "f8",
          "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4",
          "float64": "f8"}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Property:
    name: str
    kind: str
    """numpy type without byte order."""
    count: str = ""
    """Type of the number of entries; '' = one value."""


@dataclass
class _Element:
    name: str
    rows: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def least(self) -> int:
        """Smallest size of a row in the binary form [bytes]."""
        return sum(int(p.count[1:] or 0) if p.count else int(p.kind[1:]) for p in self.properties)


def read_ply(reading: Reading, data: bytes) -> list[Part]:
    """Return the faces of a PLY as one part.

    Raises:
        InputError: a header that is not understood or promises more than the file holds, or no faces: a point cloud.
    """
    order, elements, comments, start = _header(reading, data)
    tables = _text(reading, data[start:], elements) if order == "" else _binary(reading, data, start, elements, order)
    vertex, face = tables.get("vertex", {}), tables.get("face", {})
    xyz = [vertex.get(axis) for axis in "xyz"]
    if any(not isinstance(values, np.ndarray) for values in xyz):
        raise reading.fail(f"element vertex: got properties {shown(list(vertex))}, expected x, y and z")
    vertices = np.stack([np.asarray(v, np.float64) for v in xyz], 1)
    lists = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(lists, tuple) or not len(lists[0]):
        what = "Gaussian splats" if "f_dc_0" in vertex else "a point cloud"
        strips = " (triangle strips are not read)" if "tristrips" in tables else ""
        raise reading.fail(f"got {len(vertices)} vertices and no faces{strips}: this is {what}, expected a mesh")
    if "edge" in tables:
        reading.note("Edges of the PLY were skipped.")
    counts, indices = lists
    uv, texture = _texture(reading, vertex, face, counts, indices, comments)
    return [polygon_part(reading, "element face", vertices, counts, indices, vertex_rgb=_colour(vertex), corner_uv=uv,
                         polygon_texture=texture, polygon_rgb=_colour(face))]


def _header(reading: Reading, data: bytes) -> tuple[str, list[_Element], list[str], int]:
    """Return byte order ('' = text), elements, comments and where the body starts."""
    mark = data.find(b"end_header", 0, MAX_HEADER)
    end = data.find(b"\n", mark, mark + 16) if mark >= 0 else -1
    if mark < 0 or end < 0:
        raise reading.fail(f"got {data[:16]!r}, expected a PLY header with end_header in its first {MAX_HEADER} bytes")
    lines = [line.split() for line in data[:mark].decode("ascii", "replace").splitlines()]
    words = lines[1] if len(lines) > 1 else []
    if lines[0] != ["ply"] or len(words) != 3 or words[0] != "format" or words[1] not in _ORDERS:
        raise reading.fail(f"header: got {shown(words)}, expected format ascii, binary_little_endian or binary_big_endian")
    elements: list[_Element] = []
    comments = []
    for number, words in enumerate(lines[2:], 3):
        if not words or words[0] in ("comment", "obj_info"):
            comments.append(" ".join(words[1:]))
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) < 16:
            elements.append(_Element(words[1], int(words[2])))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].properties.append(_Property(words[2], _TYPES[words[1]]))
        elif words[0] == "property" and elements and len(words) == 5 and words[1] == "list" and words[3] in _TYPES and \
                _TYPES.get(words[2], "f")[0] in "iu":
            elements[-1].properties.append(_Property(words[4], _TYPES[words[3]], _TYPES[words[2]]))
        else:
            raise reading.fail(f"header line {number}: got {shown(' '.join(words))}, "
                               "expected element NAME COUNT or property TYPE NAME")
    for element in elements:
        names = [p.name for p in element.properties]
        if len(set(names)) < len(names) or (element.rows and not names):
            raise reading.fail(f"element {element.name}: got properties {shown(names)}, expected at least one, each once")
    return _ORDERS[lines[1][1]], elements, comments, end + 1


_Table = dict[str, "np.ndarray | tuple[np.ndarray, np.ndarray]"]
"""Property -> values (rows,), or counts (rows,) and all entries of a list."""


def _binary(reading: Reading, data: bytes, at: int, elements: list[_Element], order: str) -> dict[str, _Table]:
    tables = {}
    for element in elements:
        left = len(data) - at
        if element.rows * element.least > left:
            raise reading.fail(f"element {element.name}: got {left} bytes, expected at least {element.rows * element.least} for "
                               f"{element.rows} rows")
        table, at = _rows(reading, data, at, element, order)
        tables[element.name] = table
    if at < len(data):
        reading.note(f"{len(data) - at} bytes behind the last element were ignored.")
    return tables


def _rows(reading: Reading, data: bytes, at: int, element: _Element, order: str) -> tuple[_Table, int]:
    """Read one element. Rows whose lists are all as long as those of the first row are read at once."""
    dtype, lengths = [], {}
    probe = at
    for p in element.properties if element.rows else []:
        if p.count:
            lengths[p.name] = _count(data, probe, order + p.count)
            probe += int(p.count[1:])
            dtype.append((f"#{p.name}", order + p.count))
            # A lying count would make the row wider than the file.
            if not 0 <= lengths[p.name] <= len(data) // int(p.kind[1:]):
                raise reading.fail(f"element {element.name}: a list of {lengths[p.name]} entries reaches beyond the file")
            dtype.append((p.name, order + p.kind, (lengths[p.name],)))
            probe += lengths[p.name] * int(p.kind[1:])
        else:
            dtype.append((p.name, order + p.kind))
            probe += int(p.kind[1:])
    if not element.rows:
        return {p.name: (np.zeros(0, np.int64), np.zeros(0)) if p.count else np.zeros(0) for p in element.properties}, at
    row = np.dtype(dtype)
    if element.rows * row.itemsize <= len(data) - at:
        table = np.frombuffer(data, row, element.rows, at)
        if all((table[f"#{name}"] == n).all() for name, n in lengths.items()):
            out: _Table = {}
            for p in element.properties:
                values = table[p.name]
                out[p.name] = (np.full(element.rows, lengths[p.name], np.int64), values.reshape(-1)) if p.count else values
            return out, at + element.rows * row.itemsize
    return _uneven(reading, data, at, element, order)


def _count(data: bytes, at: int, kind: str) -> int:
    size = int(kind[2:])
    return int(np.frombuffer(data[at:at + size], kind)[0]) if at + size <= len(data) else 0


def _uneven(reading: Reading, data: bytes, at: int, element: _Element, order: str) -> tuple[_Table, int]:
    """Walk the rows of an element one by one."""
    endian = "little" if order == "<" else "big"
    starts: dict[str, list[int]] = {p.name: [] for p in element.properties}
    counts: dict[str, list[int]] = {p.name: [] for p in element.properties}
    plan = [(p.name, int(p.kind[1:]), int(p.count[1:] or 0) if p.count else 0, p.count[:1] == "i") for p in element.properties]
    for number in range(element.rows):
        for name, size, count_size, signed in plan:
            n = 1
            if count_size:
                n = int.from_bytes(data[at:at + count_size], endian, signed=signed)
                at += count_size
                counts[name].append(n)
            starts[name].append(at)
            at += n * size
            if n < 0 or at > len(data):
                raise reading.fail(f"element {element.name}: row {number + 1} of {element.rows} reaches beyond the file's "
                                   f"{len(data)} bytes")
    octets, out = np.frombuffer(data, np.uint8), {}
    for p in element.properties:
        n = np.array(counts[p.name], np.int64) if p.count else np.ones(element.rows, np.int64)
        size, first = int(p.kind[1:]), np.array(starts[p.name], np.int64)
        place = np.repeat(first - size * (np.cumsum(n) - n), n) + size * np.arange(n.sum())
        values = np.ascontiguousarray(octets[place[:, None] + np.arange(size)]).reshape(-1).view(order + p.kind)
        out[p.name] = (n, values) if p.count else values
    return out, at


def _text(reading: Reading, body: bytes, elements: list[_Element]) -> dict[str, _Table]:
    """Read the text form; a row of the file is a row of the element."""
    if len(body) > MAX_TEXT_BYTES:
        raise reading.fail(f"got {len(body)} bytes of text, expected at most {MAX_TEXT_BYTES}")
    lines = [line for line in body.split(b"\n") if line.strip()]
    tables, first = {}, 0
    for element in elements:
        rows = lines[first:first + element.rows]
        if len(rows) < element.rows:
            raise reading.fail(f"element {element.name}: got {len(rows)} lines, expected {element.rows}")
        first += element.rows
        values = numbers(reading, f"element {element.name}", rows, float)
        widths = np.fromiter((len(row.split()) for row in rows), np.int64, len(rows))
        tables[element.name] = _text_columns(reading, element, values, widths)
    return tables


def _text_columns(reading: Reading, element: _Element, values: np.ndarray, widths: np.ndarray) -> _Table:
    end = np.cumsum(widths)
    at, out = end - widths, {}
    fault = reading.fail(f"element {element.name}: got rows of other lengths than the header's properties")
    for p in element.properties:
        if (at >= end).any():
            raise fault
        column = values[at] if len(values) else np.zeros(0)
        at = at + 1
        if p.count:
            if not np.isfinite(column).all() or (column < 0).any() or (column > (end - at)).any():
                raise fault
            n = column.astype(np.int64)
            place = np.repeat(at - (np.cumsum(n) - n), n) + np.arange(n.sum())
            entries = values[place] if len(place) else np.zeros(0)
            if p.kind[0] in "iu":
                if not np.isfinite(entries).all() or (np.abs(entries) > 2**53).any():
                    raise reading.fail(f"element {element.name}: {p.name}: got numbers that are not whole")
                entries = entries.astype(np.int64)
            out[p.name] = (n, entries)
            at = at + n
        else:
            out[p.name] = column
    return out


def _colour(table: _Table) -> np.ndarray | None:
    """Return (rows, 3) uint8; floats are taken as 0..1."""
    for names in (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")):
        found = [table.get(name) for name in names]
        if all(isinstance(values, np.ndarray) for values in found):
            rgb = np.nan_to_num(np.stack([np.asarray(v, np.float64) for v in found], 1))
            is_float = found[0].dtype.kind == "f" and rgb.max(initial=0) <= 1 and (rgb != np.rint(rgb)).any()
            return np.clip(np.rint(255 * rgb if is_float else rgb), 0, 255).astype(np.uint8)
    return None


def _texture(reading: Reading, vertex: _Table, face: _Table, counts: np.ndarray, indices: np.ndarray,
             comments: list[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return uv (corners, 2) and texture per face (P,): per corner as MeshLab writes it, or per vertex."""
    uv = None
    corner = face.get("texcoord")
    if isinstance(corner, tuple) and (corner[0] == 2 * counts).all():
        uv = np.asarray(corner[1], np.float64).reshape(-1, 2)
    for names in (("s", "t"), ("u", "v"), ("texture_u", "texture_v")):
        found = [values for name in names if isinstance(values := vertex.get(name), np.ndarray)]
        if uv is None and len(found) == 2:
            inside = np.clip(indices.astype(np.int64), 0, len(found[0]) - 1)
            uv = np.stack([values.astype(np.float64)[inside] for values in found], 1)
    names = [text.split(None, 1)[1] for text in comments if text.lower().startswith("texturefile ") and len(text.split()) > 1]
    loaded = [reading.load_texture(name, "TextureFile") for name in names] if uv is not None else []
    if not any(number >= 0 for number in loaded):
        return uv, None
    which = face.get("texnumber")
    number = np.zeros(len(counts), np.int64) if not isinstance(which, np.ndarray) else np.nan_to_num(which).astype(np.int64)
    table = np.array([*loaded, -1], np.int32)
    return uv, table[np.where((number >= 0) & (number < len(loaded)), number, len(loaded))]
