"""A glTF 2.0 file as Gaussians need it: .glb, or .gltf with buffers inside (base64) or beside it; every access checked."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from lyra_core.errors import InputError

_DTYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_JSON, _BIN = 0x4E4F534A, 0x004E4942
MAX_DEPTH = 1000
"""Levels of nested nodes."""


class GltfFile:
    """A parsed file; a damaged one is an InputError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: not readable: {error}") from error
        self.size = len(data)
        self._binary: bytes | None = None
        self._buffers: dict[int, bytes] = {}
        text = self._split_glb(data) if data[:4] == b"glTF" else data
        try:
            self.tree: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not readable as glTF JSON: {error}") from error
        if not isinstance(self.tree, dict) or not isinstance(self.tree.get("asset"), dict):
            raise InputError(f"{path}: got no asset in the JSON, expected glTF 2.0")
        if not str(self.tree["asset"].get("version", "")).startswith("2."):
            raise InputError(f"{path}: got glTF version {self.tree['asset'].get('version')!r}, expected 2.x")

    def _split_glb(self, data: bytes) -> bytes:
        if len(data) < 20:
            raise InputError(f"{self.path}: got {len(data)} bytes, expected a binary glTF")
        version, length, size, kind = struct.unpack_from("<IIII", data, 4)
        if version != 2 or length != len(data) or kind != _JSON or 20 + size > length:
            raise InputError(f"{self.path}: got glTF version {version}, length {length} and {size} bytes of JSON, expected 2 and "
                             f"{len(data)} bytes in all")
        start = 20 + size
        if start + 8 <= length:
            count, kind = struct.unpack_from("<II", data, start)
            if kind != _BIN or start + 8 + count > length:
                raise InputError(f"{self.path}: binary chunk: got {count} bytes of kind {kind:#x}, expected BIN and at most "
                                 f"{length - start - 8}")
            self._binary = data[start + 8:start + 8 + count]
        return data[20:start]

    def row(self, key: str, index: Any) -> dict[str, Any]:
        """Return entry index of a top-level array such as 'nodes'.

        Raises:
            InputError: there is none.
        """
        rows = self.tree.get(key, [])
        if (not isinstance(rows, list) or not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(rows)
                or not isinstance(rows[index], dict)):
            count = len(rows) if isinstance(rows, list) else 0
            raise InputError(f"{self.path}: {key}: got index {index!r}, expected one of {count}")
        return rows[index]

    def view(self, index: Any) -> tuple[bytes, int, int, int]:
        """Return (buffer, first byte, length, stride or 0) of a buffer view.

        Raises:
            InputError: it reaches beyond its buffer or is compressed.
        """
        row = self.row("bufferViews", index)
        where = f"bufferViews {index}"
        for name in ("EXT_meshopt_compression", "KHR_meshopt_compression"):
            if name in (row.get("extensions") or {}):
                raise InputError(f"{self.path}: {where}: {name} is not supported; expected plain buffers")
        buffer = self._buffer(row.get("buffer"))
        start, length = self._whole(row, "byteOffset", where, 0), self._whole(row, "byteLength", where)
        if start + length > len(buffer):
            raise InputError(f"{self.path}: {where}: got bytes {start}..{start + length}, expected at most {len(buffer)}")
        return buffer, start, length, self._whole(row, "byteStride", where, 0)

    def accessor(self, index: Any, kinds: tuple[str, ...]) -> np.ndarray:
        """Return an accessor's values (count, width) as float32, normalised integers in [-1, 1] or [0, 1].

        Args:
            kinds: the accepted accessor types, such as ('VEC3',).

        Raises:
            InputError: another type, sparse, or values beyond the buffer.
        """
        row, where = self.row("accessors", index), f"accessors {index}"
        kind, component = row.get("type"), row.get("componentType")
        if kind not in kinds or not isinstance(component, int) or component not in _DTYPES or (
                "sparse" in row or "bufferView" not in row):
            raise InputError(f"{self.path}: {where}: got {kind} of {component}{', sparse' * ('sparse' in row)}"
                             f"{', no bufferView' * ('bufferView' not in row)}, expected {' or '.join(kinds)}, dense, with data")
        dtype, width, count = np.dtype(_DTYPES[component]), _WIDTHS[kind], self._whole(row, "count", where)
        buffer, start, length, stride = self.view(row["bufferView"])
        first, size = self._whole(row, "byteOffset", where, 0), dtype.itemsize * width
        stride = stride or size
        if stride < size or count < 1 or first + stride * (count - 1) + size > length:
            raise InputError(f"{self.path}: {where}: got {count} values of {size} bytes, {stride} apart, from byte {first}, "
                             f"expected at least one and an end within the view's {length} bytes")
        raw = np.ndarray((count, width), dtype, buffer, start + first, (stride, dtype.itemsize))
        if not row.get("normalized") or dtype.kind == "f":
            return raw.astype(np.float32)
        return np.maximum(raw.astype(np.float32) / np.iinfo(dtype).max, -1.0)

    def _whole(self, row: dict[str, Any], key: str, where: str, default: int | None = None) -> int:
        value = row.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
            raise InputError(f"{self.path}: {where}: {key}: got {value!r}, expected a whole number, not negative")
        return value

    def _buffer(self, index: Any) -> bytes:
        row = self.row("buffers", index)
        if index not in self._buffers:
            self._buffers[index] = self._load(row, f"buffers {index}")
        return self._buffers[index]

    def _load(self, row: dict[str, Any], where: str) -> bytes:
        uri, length = row.get("uri"), self._whole(row, "byteLength", where)
        if uri is None:
            data = self._binary or b""
        elif not isinstance(uri, str):
            raise InputError(f"{self.path}: {where}: uri: got {type(uri).__name__}, expected text")
        elif uri.startswith("data:"):
            data = self._inline(uri, where)
        else:
            data = self._beside(uri, where)
        if len(data) < length:
            raise InputError(f"{self.path}: {where}: got {len(data)} bytes, expected {length}")
        return data[:length]

    def _inline(self, uri: str, where: str) -> bytes:
        head, comma, text = uri.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InputError(f"{self.path}: {where}: got a data uri starting {head[:40]!r}, expected one of base64")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"{self.path}: {where}: damaged base64: {error}") from error

    def _beside(self, uri: str, where: str) -> bytes:
        """Read a buffer from a file in the glTF's folder or below; links out of it are refused as well."""
        folder = self.path.parent.resolve()
        try:
            target = (folder / unquote(uri)).resolve()
            if ":" in uri or not target.is_relative_to(folder):
                raise InputError(f"{self.path}: {where}: got uri {uri[:80]!r}, expected a file in the glTF's own folder")
            if not target.is_file():
                raise InputError(f"{self.path}: {where}: {uri[:80]!r} is missing")
            data = target.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: {where}: {uri[:80]!r} is not readable: {error}") from error
        self.size += len(data)
        return data

    def world_nodes(self) -> list[tuple[dict[str, Any], str, np.ndarray]]:
        """Return (node, its name, T_world_node (4, 4)) of every node in the default scene; of all roots without scenes.

        Raises:
            InputError: a node is its own ancestor or has two parents, a matrix or rotation is damaged.
        """
        found, seen = [], set()
        stack = [(root, np.eye(4), 0) for root in reversed(self._roots())]
        while stack:
            index, T_world_parent, depth = stack.pop()
            node = self.row("nodes", index)
            if index in seen or depth > MAX_DEPTH:
                raise InputError(f"{self.path}: nodes {index}: got two parents or over {MAX_DEPTH} levels, expected a tree")
            seen.add(index)
            T = T_world_parent @ self._local(node, f"nodes {index}")
            found.append((node, f"nodes {index} {str(node.get('name', ''))[:40]!r}", T))
            children = node.get("children", [])
            if not isinstance(children, list):
                raise InputError(f"{self.path}: nodes {index}: children: got {type(children).__name__}, expected a list")
            stack += [(child, T, depth + 1) for child in reversed(children)]
        return found

    def _roots(self) -> list[Any]:
        if self.tree.get("scenes"):
            roots = self.row("scenes", self.tree.get("scene", 0)).get("nodes", [])
        else:
            nodes = self.tree.get("nodes", [])
            rows = [self.row("nodes", i) for i in range(len(nodes) if isinstance(nodes, list) else 0)]
            inner = {child for row in rows for child in self._list(row.get("children", [])) if isinstance(child, int)}
            roots = [i for i in range(len(rows)) if i not in inner]
        return self._list(roots)

    def _list(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise InputError(f"{self.path}: got {type(value).__name__} where a list of nodes belongs")
        return value

    def _local(self, node: dict[str, Any], where: str) -> np.ndarray:
        """Return T_parent_node: the matrix (column by column), or translation, rotation (x, y, z, w) and scale."""
        if "matrix" in node:
            return self._numbers(node["matrix"], 16, f"{where}: matrix").reshape(4, 4).T
        x, y, z, w = self._numbers(node.get("rotation", [0, 0, 0, 1]), 4, f"{where}: rotation")
        norm = x * x + y * y + z * z + w * w
        if norm < 1e-12:
            raise InputError(f"{self.path}: {where}: rotation: got a zero quaternion")
        R = np.array([[norm - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                      [2 * (x * y + w * z), norm - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                      [2 * (x * z - w * y), 2 * (y * z + w * x), norm - 2 * (x * x + y * y)]]) / norm
        T = np.eye(4)
        T[:3, :3] = R * self._numbers(node.get("scale", [1, 1, 1]), 3, f"{where}: scale")
        T[:3, 3] = self._numbers(node.get("translation", [0, 0, 0]), 3, f"{where}: translation")
        return T

    def _numbers(self, values: Any, count: int, where: str) -> np.ndarray:
        try:
            array = np.array(values, np.float64)
        except (ValueError, TypeError, OverflowError):
            array = np.zeros(0)
        if array.shape != (count,) or not np.isfinite(array).all() or np.abs(array).max() > 1e30:
            raise InputError(f"{self.path}: {where}: got {str(values)[:80]}, expected {count} numbers")
        return array
