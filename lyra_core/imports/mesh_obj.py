"""Wavefront OBJ with its material library (B1, Advanced Visualizer 4.0): polygons, texture coordinates, colours."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.mesh_parts import Part, Reading, polygon_part, shown

MAX_TEXT_BYTES = 1 << 30
"""Size of a text file that is read; each number takes more room in memory than in the file."""
_ROWS = 100_000


def read_obj(reading: Reading, data: bytes) -> list[Part]:
    """Return the faces of an OBJ as one part.

    Raises:
        InputError: lines that are not numbers, indices out of range, a material library outside of the folder.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise reading.fail(f"got {len(data)} bytes of text, expected at most {MAX_TEXT_BYTES}")
    positions, uvs, faces, counts, material, names = _lines(reading, data)
    if not faces:
        raise reading.fail("got no faces, expected lines that start with f"
                           + (f"; its {len(positions)} vertices alone are a point cloud" if positions else ""))
    vertices, rgb = _positions(reading, positions)
    sides, index, uv_index = _face_indices(reading, faces, np.array(counts, np.int64))
    library = _materials(reading, names.pop("", ()))
    table = list(names)
    unknown = [name for name in table if name not in library and name != " none"]
    if unknown:
        reading.note(f"{len(unknown)} materials are not in a library that was read; their faces have no colour of their own.")
    colour = np.array([library.get(name, (_WHITE, -1))[0] for name in table], np.uint8)
    texture = np.array([library.get(name, (_WHITE, -1))[1] for name in table], np.int32)
    corner_uv = _corner_uv(reading, uvs, uv_index)
    rows = np.array(material, np.int64)
    return [polygon_part(reading, "faces", vertices, sides, index, vertex_rgb=rgb, corner_uv=corner_uv,
                         polygon_texture=texture[rows] if (texture >= 0).any() else None,
                         polygon_rgb=colour[rows] if (colour != 255).any() else None)]


_WHITE = (255, 255, 255)


def _lines(reading: Reading, data: bytes) -> tuple[list[bytes], list[bytes], list[bytes], list[tuple[int, int]], list[int],
                                                    dict[str, Any]]:
    """Sort the lines: positions, texture coordinates, faces, the numbers of both before each face, materials, their names."""
    positions: list[bytes] = []
    uvs: list[bytes] = []
    faces: list[bytes] = []
    counts: list[tuple[int, int]] = []
    material: list[int] = []
    names: dict[str, Any] = {" none": 0}
    libraries: list[str] = []
    current, other = 0, set()
    if b"\\" in data:
        data = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ")
    for line in io.BytesIO(data):
        key, _, rest = line.strip().replace(b"\t", b" ").partition(b" ")
        if key == b"v":
            positions.append(rest)
        elif key == b"vt":
            uvs.append(rest)
        elif key == b"f":
            faces.append(rest)
            counts.append((len(positions), len(uvs)))
            material.append(current)
        elif key == b"usemtl":
            current = names.setdefault(rest.strip().decode("utf-8", "replace"), len(names))
        elif key == b"mtllib":
            libraries.append(rest.strip().decode("utf-8", "replace"))
        elif key in (b"curv", b"curv2", b"surf", b"l", b"p"):
            other.add(key.decode())
    for key in sorted(other):
        reading.note(f"Lines of kind {key} (no polygons) were skipped.")
    names[""] = libraries
    return positions, uvs, faces, counts, material, names


def numbers(reading: Reading, where: str, rows: Sequence[bytes], kind: Callable[[bytes], Any]) -> np.ndarray:
    """Return all numbers of text rows in one float64 or int64 array; kind is float or int.

    Raises:
        InputError: something that is not a number.
    """
    out, dtype = [np.zeros(0, np.float64 if kind is float else np.int64)], np.float64 if kind is float else np.int64
    for start in range(0, len(rows), _ROWS):
        tokens = b" ".join(rows[start:start + _ROWS]).split()
        try:
            out.append(np.fromiter(map(kind, tokens), dtype, len(tokens)))
        except (ValueError, OverflowError) as error:
            raise reading.fail(f"{where}: got {str(error)[:90]}, expected numbers") from error
    return np.concatenate(out)


def _positions(reading: Reading, rows: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return (V, 3) float64 and the (V, 3) uint8 colours that some scanners write behind the position."""
    widths = np.fromiter((len(row.split()) for row in rows), np.int64, len(rows))
    if len(rows) and widths.min() < 3:
        worst = int(np.argmin(widths))
        raise reading.fail(f"v line {worst + 1}: got {shown(rows[worst])}, expected three numbers")
    values = numbers(reading, "v lines", rows, float)
    start = np.cumsum(widths) - widths
    xyz = values[start[:, None] + np.arange(3)] if len(rows) else np.zeros((0, 3))
    if not len(rows) or not (widths >= 6).all():
        return xyz, None
    rgb = np.nan_to_num(values[start[:, None] + np.arange(3, 6)])
    return xyz, np.clip(np.rint(rgb if rgb.max() > 1 else 255 * rgb), 0, 255).astype(np.uint8)


def _face_indices(reading: Reading, rows: list[bytes], before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the sides of each face (P,), position index and texture index of each corner, from 0; -1 = no texture index.

    A corner is v, v/vt, v//vn or v/vt/vn; negative numbers count back from the lines before the face.
    """
    rows = [row.split(b"#")[0].replace(b"//", b"/0/") for row in rows]
    sides = np.fromiter((len(row.split()) for row in rows), np.int64, len(rows))
    slashes = np.fromiter((row.count(b"/") for row in rows), np.int64, len(rows))
    width = np.where(sides > 0, slashes // np.maximum(sides, 1) + 1, 1)
    wrong = (slashes != (width - 1) * sides) | (width > 3)
    if wrong.any():
        worst = int(np.argmax(wrong))
        raise reading.fail(f"f line {worst + 1}: got {shown(rows[worst])}, expected v/vt/vn corners")
    values = numbers(reading, "f lines", [row.replace(b"/", b" ") for row in rows], int)
    if len(values) != (sides * width).sum():
        raise reading.fail(f"f lines: got {len(values)} numbers, expected {(sides * width).sum()} in v/vt/vn corners")
    corner_width = np.repeat(width, sides)
    start = np.cumsum(corner_width) - corner_width
    v, owner = values[start], np.repeat(np.arange(len(rows)), sides)
    v = np.where(v < 0, v + before[owner, 0], v - 1)
    if not (width > 1).any():
        return sides, v, None
    vt = np.where(corner_width > 1, values[np.minimum(start + 1, len(values) - 1)], 0)
    return sides, v, np.where(vt < 0, vt + before[owner, 1], vt - 1)


def _corner_uv(reading: Reading, rows: list[bytes], index: np.ndarray | None) -> np.ndarray | None:
    """Return (corners, 2) texture coordinates, 0 where a corner has none."""
    if index is None or not rows or not (index >= 0).any():
        return None
    widths = np.fromiter((len(row.split()) for row in rows), np.int64, len(rows))
    if widths.min() < 1:
        raise reading.fail("vt lines: got one without numbers, expected two numbers")
    values = numbers(reading, "vt lines", rows, float)
    start = np.cumsum(widths) - widths
    uv = np.stack([values[start], np.where(widths > 1, values[np.minimum(start + 1, len(values) - 1)], 0)], 1)
    outside = index >= len(uv)
    if outside.any():
        reading.note(f"{outside.sum()} corners pointed outside of the {len(uv)} texture coordinates.")
    return np.where(((index >= 0) & ~outside)[:, None], uv[np.clip(index, 0, len(uv) - 1)], 0)


def _materials(reading: Reading, libraries: Sequence[str]) -> dict[str, tuple[tuple[int, int, int], int]]:
    """Return colour and texture number by material name; a library that is missing is a note."""
    out: dict[str, tuple[tuple[int, int, int], int]] = {}
    for name in dict.fromkeys(libraries):
        path = reading.inside(name, "mtllib")
        if not path.is_file():
            reading.note(f"The material library {shown(name)} is missing; colours and textures with it.")
            continue
        try:
            text = reading.read(name, "mtllib")
        except InputError as error:
            reading.note(f"A material library was not read: {str(error).removeprefix(f'{reading.path}: ')}.")
            continue
        out |= _parse_library(reading, text)
    return out


def _parse_library(reading: Reading, text: bytes) -> dict[str, tuple[tuple[int, int, int], int]]:
    colours: dict[str, list[float]] = {}
    maps: dict[str, str] = {}
    current = ""
    for line in io.BytesIO(text):
        key, _, rest = line.strip().replace(b"\t", b" ").decode("utf-8", "replace").partition(" ")
        rest = rest.strip()
        if key == "newmtl":
            current = rest
            colours.setdefault(current, [1.0, 1.0, 1.0])
        elif key == "Kd" and current:
            try:
                colours[current] = [min(max(float(word), 0.0), 1.0) for word in rest.split()[:3]] if len(rest.split()) >= 3 else []
            except ValueError:
                colours[current] = []
        elif key == "map_Kd" and current and rest:
            # Options such as -s 1 1 1 come before the name; a name with spaces is only told apart without them.
            maps[current] = rest.split()[-1] if rest.startswith("-") else rest
    out = {}
    for name, value in colours.items():
        texture = reading.load_texture(maps[name], "map_Kd") if name in maps else -1
        rgb = np.nan_to_num(value if len(value) == 3 else [1.0, 1.0, 1.0])
        # Black times a picture shows nothing: exporters that write it mean the picture alone.
        white = texture >= 0 and not rgb.any()
        out[name] = (_WHITE if white else tuple(round(255 * float(c)) for c in rgb), texture)
    return out
