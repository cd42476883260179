"""The data of a glTF 2.0 file: container, buffers and accessors, each checked against what is there before memory is taken."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.mesh_parts import Reading, shown

MAX_ACCESSOR_BYTES = 4 << 30
"""Memory of one accessor as float64 or int64."""
_DTYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_PACKED = ("KHR_meshopt_compression", "EXT_meshopt_compression", "MESHOPT_compression")


class GltfData:
    """A parsed glTF or GLB. Every access that fails is an InputError that names the file and the field."""

    def __init__(self, reading: Reading, data: bytes) -> None:
        self.reading = reading
        text, self._binary = _container(reading, data)
        try:
            self.tree: Any = json.loads(text.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise reading.fail(f"JSON: {str(error)[:120] or type(error).__name__}") from error
        version = self.tree.get("asset", {}) if isinstance(self.tree, dict) else None
        version = version.get("version") if isinstance(version, dict) else None
        if not isinstance(version, str) or not version.startswith("2."):
            raise reading.fail(f"asset.version: got {shown(version)}, expected a glTF of version 2")
        self._buffers: dict[int, bytes] = {}

    def row(self, key: str, index: Any) -> dict[str, Any]:
        """Return an entry of a top-level array."""
        rows = self.tree.get(key, [])
        if not isinstance(rows, list) or isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(rows) or \
                not isinstance(rows[index], dict):
            count = len(rows) if isinstance(rows, list) else 0
            raise self.reading.fail(f"{key}[{shown(index)}]: missing or not an object; there are {count}")
        return rows[index]

    def rows(self, parent: dict[str, Any], key: str) -> list[Any]:
        """Return a list of an object, empty if absent."""
        value = parent.get(key, [])
        if not isinstance(value, list):
            raise self.reading.fail(f"{key}: got {shown(value)}, expected a list")
        return value

    def table(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        """Return an object of an object, empty if absent."""
        value = parent.get(key, {})
        if not isinstance(value, dict):
            raise self.reading.fail(f"{key}: got {shown(value)}, expected an object")
        return value

    def floats(self, parent: dict[str, Any], key: str, default: tuple[float, ...]) -> np.ndarray:
        """Return a vector of numbers of an object, float64."""
        value = parent.get(key, default)
        good = isinstance(value, (list, tuple)) and len(value) == len(default) and \
            all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e300 for x in value)
        if not good:
            raise self.reading.fail(f"{key}: got {shown(value)}, expected {len(default)} finite numbers")
        return np.array(value, np.float64)

    def size(self, parent: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
        """Return a count or an offset, not negative."""
        value = parent.get(key, default)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise self.reading.fail(f"{where}.{key}: got {shown(value)}, expected a number of at least 0")
        return value

    def buffer(self, index: Any) -> bytes:
        """Return the bytes of a buffer: the binary chunk, a data URI or a file in the folder."""
        row, where = self.row("buffers", index), f"buffers[{index}]"
        if index not in self._buffers:
            uri = row.get("uri")
            if uri is None and index == 0 and self._binary is not None:
                data = self._binary
            elif not isinstance(uri, str):
                raise self.reading.fail(f"{where}: has no data in the file, expected a uri or the binary chunk")
            else:
                data = self.uri(uri, where)
            length = self.size(row, "byteLength", where)
            if length > len(data):
                raise self.reading.fail(f"{where}.byteLength: got {len(data)} bytes, expected {length}")
            self._buffers[index] = data[:length] if length < len(data) else data
        return self._buffers[index]

    def uri(self, uri: str, where: str) -> bytes:
        """Return what a data URI holds or the file that a relative one names."""
        if not uri.startswith("data:"):
            return self.reading.read(unquote(uri), where)
        head, comma, body = uri.partition(",")
        if not comma:
            raise self.reading.fail(f"{where}.uri: got {shown(uri)}, expected data:TYPE;base64,BYTES")
        if not head.endswith(";base64"):
            return unquote_to_bytes(body)
        try:
            return base64.b64decode(body + "=" * (-len(body) % 4), validate=False)
        except (binascii.Error, ValueError) as error:
            raise self.reading.fail(f"{where}.uri: {error}") from error

    def view(self, index: Any) -> tuple[bytes, int, int, int]:
        """Return buffer, first byte, length and stride (0 = dense) of a buffer view."""
        row, where = self.row("bufferViews", index), f"bufferViews[{index}]"
        extensions = self.table(row, "extensions")
        for name in _PACKED:
            if name in extensions:
                raise self.reading.fail(f"{where}: is packed by {name}, which is not read; export without compression")
        data = self.buffer(row.get("buffer"))
        start, length = self.size(row, "byteOffset", where, 0), self.size(row, "byteLength", where)
        if start + length > len(data):
            raise self.reading.fail(f"{where}: bytes {start}..{start + length} reach beyond the buffer's {len(data)}")
        stride = self.size(row, "byteStride", where, 0)
        if stride > 252:
            raise self.reading.fail(f"{where}.byteStride: got {stride}, expected 4..252")
        return data, start, length, stride

    def accessor(self, index: Any, kinds: tuple[str, ...], *, integer: bool = False) -> np.ndarray:
        """Return an accessor's values, (count,) or (count, width): int64 with ``integer``, else float64.

        Integers become 0..1 or -1..1 where the accessor says that they are normalised. Sparse values, strides and accessors
        without a view (zeros) are followed.
        """
        row, where = self.row("accessors", index), f"accessors[{index}]"
        kind, component = row.get("type"), row.get("componentType")
        if kind not in kinds or component not in _DTYPES or (integer and component not in (5121, 5123, 5125)):
            raise self.reading.fail(f"{where}: got type {shown(kind)} of component {shown(component)}, "
                                    f"expected {' or '.join(kinds)}")
        width, dtype = _WIDTHS[kind], np.dtype(_DTYPES[component])
        count = self.size(row, "count", where)
        if 8 * count * width > MAX_ACCESSOR_BYTES:
            raise self.reading.fail(f"{where}.count: got {count}, more than is read")
        sparse = row.get("sparse")
        if row.get("bufferView") is None:
            if sparse is None and count > 1_000_000:
                raise self.reading.fail(f"{where}: {count} values without a bufferView")
            values = np.zeros((count, width), dtype)
        else:
            values = self._strided(row["bufferView"], self.size(row, "byteOffset", where, 0), count, width, dtype, where)
        if sparse is not None:
            values = self._patched(values, sparse, where)
        if integer:
            values = values.astype(np.int64)
        else:
            values = values.astype(np.float64)
            if row.get("normalized") is True and dtype.kind in "iu":
                values = np.maximum(values / np.iinfo(dtype).max, -1.0)
        return values[:, 0] if width == 1 else values

    def _strided(self, view: Any, offset: int, count: int, width: int, dtype: np.dtype, where: str) -> np.ndarray:
        data, start, length, stride = self.view(view)
        element = width * dtype.itemsize
        stride = stride or element
        if stride < element:
            raise self.reading.fail(f"{where}: got a byteStride of {stride}, expected at least {element}")
        need = offset + (count - 1) * stride + element if count else 0
        if need > length:
            raise self.reading.fail(f"{where}: {count} values need {need} bytes, expected at most the view's {length}")
        return np.ndarray((count, width), dtype, data, start + offset if count else 0, (stride, dtype.itemsize))

    def _patched(self, values: np.ndarray, sparse: Any, where: str) -> np.ndarray:
        """Return a copy with the sparse values in place (glTF 2.0, 3.6.2.3)."""
        where = f"{where}.sparse"
        if not isinstance(sparse, dict):
            raise self.reading.fail(f"{where}: got {shown(sparse)}, expected an object")
        where_to, what = self.table(sparse, "indices"), self.table(sparse, "values")
        kind = where_to.get("componentType")
        if kind not in (5121, 5123, 5125):
            raise self.reading.fail(f"{where}.indices.componentType: got {shown(kind)}, expected 5121, 5123 or 5125")
        count = self.size(sparse, "count", where)
        rows = self._strided(where_to.get("bufferView"), self.size(where_to, "byteOffset", where, 0), count, 1,
                             np.dtype(_DTYPES[kind]), where)[:, 0]
        new = self._strided(what.get("bufferView"), self.size(what, "byteOffset", where, 0), count, values.shape[1],
                            values.dtype, where)
        if count and rows.max() >= len(values):
            raise self.reading.fail(f"{where}.indices: got {rows.max()}, expected 0..{len(values) - 1}")
        values = values.copy()
        values[rows] = new
        return values


def _container(reading: Reading, data: bytes) -> tuple[bytes, bytes | None]:
    """Return the JSON text and the binary chunk, None if there is none."""
    if data[:4] != b"glTF":
        return data, None
    version, length = struct.unpack_from("<II", data.ljust(12, b"\0"), 4)
    if version != 2:
        raise reading.fail(f"GLB: got version {version}, expected 2")
    if length > len(data):
        raise reading.fail(f"GLB: got {len(data)} bytes, expected {length} as the header says")
    at, chunks = 12, {}
    while at + 8 <= length:
        size, kind = struct.unpack_from("<II", data, at)
        if at + 8 + size > length:
            raise reading.fail(f"GLB: the chunk at byte {at} has {size} bytes, more than the {length - at - 8} that are left")
        chunks.setdefault(kind, data[at + 8:at + 8 + size])
        at += 8 + size
    if 0x4E4F534A not in chunks:
        raise reading.fail("GLB: got no JSON chunk, expected one")
    return chunks[0x4E4F534A], chunks.get(0x004E4942)


def image_bytes(data: GltfData, index: Any) -> bytes:
    """Return the encoded picture of an image entry.

    Raises:
        InputError: no such image, or it cannot be reached.
    """
    row = data.row("images", index)
    if row.get("bufferView") is not None:
        buffer, start, length, _ = data.view(row["bufferView"])
        return buffer[start:start + length]
    if not isinstance(row.get("uri"), str):
        raise InputError(f"images[{index}]: got neither a uri nor a bufferView")
    return data.uri(row["uri"], f"images[{index}]")
