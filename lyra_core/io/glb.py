"""The binary glTF 2.0 container: one JSON chunk, one binary chunk, both padded to four bytes (glTF 2.0, section 4)."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.files import write_bytes

FLOAT, UINT32 = 5126, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_DTYPES = {FLOAT: np.dtype("<f4"), UINT32: np.dtype("<u4")}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}


def to_y_up(points: np.ndarray) -> np.ndarray:
    """Turn (N, 3) Z-up points into glTF's Y-up frame: (x, y, z) -> (x, z, -y). Exact in float32."""
    return np.stack([points[:, 0], points[:, 2], -points[:, 1]], 1)


def to_z_up(points: np.ndarray) -> np.ndarray:
    """Undo :func:`to_y_up`: (x, y, z) -> (x, -z, y)."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], 1)


class GlbBuilder:
    """Collects buffers and accessors; the bytes depend on the calls alone."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0", "generator": "lyra-worlds"}, "scene": 0,
                                     "scenes": [{"nodes": []}]}
        self._binary = bytearray()

    def append(self, key: str, value: dict[str, Any]) -> int:
        """Append to a top-level array ('nodes', 'meshes' ...) and return the index. glTF forbids empty arrays."""
        rows = self.tree.setdefault(key, [])
        rows.append(value)
        return len(rows) - 1

    def add_view(self, data: bytes, **fields: Any) -> int:
        """Append bytes as a buffer view, aligned to four bytes."""
        self._binary += b"\0" * (-len(self._binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(data), **fields}
        self._binary += data
        return self.append("bufferViews", view)

    def add_vectors(self, values: np.ndarray, *, bounds: bool = False) -> int:
        """Append (N, 2 or 3) float32 vertex data; POSITION needs its bounds."""
        values = np.ascontiguousarray(values, "<f4")
        accessor = {"bufferView": self.add_view(values.tobytes(), target=ARRAY_BUFFER), "componentType": FLOAT,
                    "count": len(values), "type": f"VEC{values.shape[1]}"}
        if bounds:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return self.append("accessors", accessor)

    def add_indices(self, faces: np.ndarray) -> int:
        """Append (F, 3) vertex indices."""
        data = np.ascontiguousarray(faces.reshape(-1), "<u4").tobytes()
        view = self.add_view(data, target=ELEMENT_ARRAY_BUFFER)
        return self.append("accessors", {"bufferView": view, "componentType": UINT32, "count": faces.size, "type": "SCALAR"})

    def add_node(self, name: str, primitive: dict[str, Any], extras: dict[str, Any] | None = None) -> None:
        """Append a mesh of one primitive and a node in the scene that shows it."""
        node = {"name": name, "mesh": self.append("meshes", {"name": name, "primitives": [primitive]})}
        self.tree["scenes"][0]["nodes"].append(self.append("nodes", node | ({"extras": extras} if extras else {})))

    def write(self, path: Path) -> None:
        """Write the container atomically."""
        tree = dict(self.tree)
        if self._binary:
            self._binary += b"\0" * (-len(self._binary) % 4)
            tree["buffers"] = [{"byteLength": len(self._binary)}]
        else:
            tree["scenes"] = [{}]
        text = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        if self._binary:
            chunks += struct.pack("<II", len(self._binary), 0x004E4942) + bytes(self._binary)
        write_bytes(path, struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


class GlbFile:
    """A parsed container. Every access is checked, so that a damaged file is a WorldError that names it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise WorldError(f"{path}: not readable: {error}") from error
        if len(data) < 20 or data[:4] != b"glTF":
            raise WorldError(f"{path}: got {len(data)} bytes starting {data[:4]!r}, expected a binary glTF")
        version, length, json_length, kind = struct.unpack_from("<IIII", data, 4)
        if version != 2 or length != len(data) or kind != 0x4E4F534A or 20 + json_length > length:
            raise WorldError(f"{path}: got glTF version {version} and length {length}, expected 2 and {len(data)}")
        try:
            self.tree: dict[str, Any] = json.loads(data[20:20 + json_length])
        except ValueError as error:
            raise WorldError(f"{path}: JSON chunk: {error}") from error
        if not isinstance(self.tree, dict) or not isinstance(self.tree.get("nodes", []), list):
            raise WorldError(f"{path}: JSON chunk: expected an object with a list of nodes")
        start = 20 + json_length
        self.binary = b""
        if start < length:
            size, kind = struct.unpack_from("<II", data.ljust(start + 8, b"\0"), start)
            if kind != 0x004E4942 or start + 8 + size != length:
                raise WorldError(f"{path}: binary chunk: got {size} bytes of kind {kind:#x}, expected {length - start - 8} of BIN")
            self.binary = data[start + 8:]

    def accessor(self, index: Any, component: int, kind: str) -> np.ndarray:
        """Return an accessor's values, (count,) or (count, width).

        Raises:
            WorldError: no such accessor, another type, or it reaches beyond the file.
        """
        where = f"{self.path}: accessor {index}"
        try:
            row = self.tree["accessors"][index]
            view = self.tree["bufferViews"][row["bufferView"]]
            found, count = (row["componentType"], row["type"]), int(row["count"])
            offset = int(view.get("byteOffset", 0)) + int(row.get("byteOffset", 0))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise WorldError(f"{where}: missing or incomplete: {error!r}") from error
        if found != (component, kind) or "sparse" in row or "byteStride" in view:
            raise WorldError(f"{where}: got type {found}, expected {(component, kind)}, dense")
        dtype, width = _DTYPES[component], _WIDTHS[kind]
        if count < 0 or offset < 0 or offset + count * width * dtype.itemsize > len(self.binary):
            raise WorldError(f"{where}: {count} values at byte {offset} reach beyond the {len(self.binary)} bytes of the file")
        values = np.frombuffer(self.binary, dtype, count * width, offset)
        return values if width == 1 else values.reshape(count, width)
