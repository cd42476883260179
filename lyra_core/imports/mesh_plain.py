"""STL, text and binary, and OFF: triangles and polygons without materials."""

from __future__ import annotations

import re

import numpy as np

from lyra_core.imports.mesh_obj import MAX_TEXT_BYTES, numbers
from lyra_core.imports.mesh_parts import Part, Reading, polygon_part, shown, triangle_part

_STL_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("extra", "<u2")])


def read_stl(reading: Reading, data: bytes) -> list[Part]:
    """Return the triangles of an STL as one part; each triangle has three vertices of its own.

    A file that starts with 'solid' is binary all the same where its length fits the count in byte 80.

    Raises:
        InputError: fewer bytes than the count promises, or text that is not understood.
    """
    count = int.from_bytes(data[80:84], "little") if len(data) >= 84 else -1
    fits = len(data) == 84 + 50 * count
    if not fits and data[:5].lower() == b"solid" and b"facet" in data[:4096].lower() + data[-4096:].lower():
        return [_text_stl(reading, data)]
    if count < 0 or len(data) < 84 + 50 * count:
        raise reading.fail(f"triangles: got {len(data)} bytes, expected {84 + 50 * max(count, 0)} for {max(count, 0)} triangles"
                           if count >= 0 else f"got {len(data)} bytes, expected an STL header of 84 bytes")
    if not count:
        raise reading.fail("triangles: got 0, expected some")
    if not fits:
        reading.note(f"{len(data) - 84 - 50 * count} bytes behind the last triangle were ignored.")
    corners = np.frombuffer(data, _STL_ROW, count, 84)["corners"]
    return [triangle_part(reading, "triangles", corners.reshape(-1, 3).astype(np.float64), np.arange(3 * count).reshape(-1, 3))]


def _text_stl(reading: Reading, data: bytes) -> Part:
    if len(data) > MAX_TEXT_BYTES:
        raise reading.fail(f"got {len(data)} bytes of text, expected at most {MAX_TEXT_BYTES}")
    rows = re.findall(rb"(?im)^[ \t]*vertex[ \t]+([^\r\n]*)", data)
    facets = len(re.findall(rb"(?im)^[ \t]*endfacet", data))
    values = numbers(reading, "vertex lines", rows, float)
    if len(values) != 3 * len(rows) or len(rows) != 3 * facets or not facets:
        raise reading.fail(f"got {len(rows)} vertex lines with {len(values)} numbers in {facets} finished facets, "
                           "expected three lines of three numbers a facet, at least one")
    return triangle_part(reading, "facets", values.reshape(-1, 3), np.arange(3 * facets).reshape(-1, 3))


def read_off(reading: Reading, data: bytes) -> list[Part]:
    """Return the polygons of an OFF, COFF, NOFF, STOFF or CNOFF text file as one part.

    Raises:
        InputError: a binary OFF, four dimensions, counts that do not fit the lines, or lines that are not numbers.
    """
    if len(data) > MAX_TEXT_BYTES:
        raise reading.fail(f"got {len(data)} bytes of text, expected at most {MAX_TEXT_BYTES}")
    lines = [line for line in (row.split(b"#")[0].strip() for row in data.replace(b"\r", b"\n").split(b"\n")) if line]
    magic = re.match(rb"(ST)?(C)?(N)?(4)?(n)?OFF( BINARY)?", lines[0]) if lines else None
    if magic is None or magic[4] or magic[5] or magic[6]:
        raise reading.fail(f"got {shown(lines[0] if lines else b'')}, expected a text OFF in three dimensions")
    rest = lines[0][magic.end():].strip()
    lines = ([rest] if rest else []) + lines[1:]
    counts = numbers(reading, "counts", lines[:1], int)
    if len(counts) < 2 or (counts < 0).any() or counts[0] + counts[1] > len(lines) - 1:
        raise reading.fail(f"counts: got {shown(lines[:1])} and {max(len(lines) - 1, 0)} lines, "
                           "expected as many lines as vertices and faces")
    vertex_rows, face_rows = lines[1:1 + counts[0]], lines[1 + counts[0]:1 + counts[0] + counts[1]]
    if not face_rows:
        raise reading.fail(f"got {counts[0]} vertices and no faces: this is a point cloud, expected a mesh")
    widths = np.fromiter((len(row.split()) for row in vertex_rows), np.int64, len(vertex_rows))
    if not len(widths) or widths.min() < 3 or widths.max() != widths.min():
        raise reading.fail("vertices: got lines of different lengths or fewer than three numbers, expected x y z in each")
    table = numbers(reading, "vertices", vertex_rows, float).reshape(len(widths), -1)
    rgb = _colour(table[:, 6 if magic[3] else 3:]) if magic[2] else None
    sides, indices = _off_faces(reading, face_rows)
    return [polygon_part(reading, "faces", table[:, :3].copy(), sides, indices, vertex_rgb=rgb)]


def _colour(values: np.ndarray) -> np.ndarray | None:
    if values.shape[1] < 3:
        return None
    rgb = np.nan_to_num(values[:, :3])
    return np.clip(np.rint(rgb if rgb.max(initial=0) > 1 else 255 * rgb), 0, 255).astype(np.uint8)


def _off_faces(reading: Reading, rows: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return sides (P,) and indices; colours behind the indices are skipped."""
    values = numbers(reading, "faces", rows, float)
    widths = np.fromiter((len(row.split()) for row in rows), np.int64, len(rows))
    start = np.cumsum(widths) - widths
    sides = values[start]
    if not np.isfinite(sides).all() or (sides < 0).any() or (sides > widths - 1).any():
        raise reading.fail("faces: got a line with fewer indices than its count, expected COUNT and as many indices")
    sides = sides.astype(np.int64)
    place = np.repeat(start + 1 - (np.cumsum(sides) - sides), sides) + np.arange(sides.sum())
    indices = values[place] if len(place) else np.zeros(0)
    if not np.isfinite(indices).all() or (np.abs(indices) > 2**53).any():
        raise reading.fail("faces: got indices that are not whole numbers")
    return sides, indices.astype(np.int64)
