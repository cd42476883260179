"""Read anyone's mesh: the content decides the format, not the name alone; nothing outside of its folder is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.mesh_gltf import read_gltf
from lyra_core.imports.mesh_obj import read_obj
from lyra_core.imports.mesh_parts import Part, Reading, join, read_whole, shown
from lyra_core.imports.mesh_plain import read_off, read_stl
from lyra_core.imports.mesh_ply import read_ply

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".usd", ".usda", ".usdc", ".usdz")
_READERS: dict[str, Callable[[Reading, bytes], list[Part]]] = {
    "gltf": read_gltf, "obj": read_obj, "ply": read_ply, "stl": read_stl, "off": read_off}
_OF_SUFFIX = {".glb": "gltf", ".gltf": "gltf", ".obj": "obj", ".ply": "ply", ".stl": "stl", ".off": "off", ".usd": "usd",
              ".usda": "usd", ".usdc": "usd", ".usdz": "usd"}


def load_mesh(path: Path | str, *, folder: Path | str | None = None) -> Source:
    """Read the triangles of a mesh file in the file's own frame and unit.

    Args:
        path: .glb, .gltf, .obj, .ply, .stl, .off, .usd, .usda, .usdc or .usdz, in any case; where the content is another of
            these formats, the content wins and a note says so.
        folder: what the file names (buffers, materials, textures, layers) must lie inside of it; its own folder if None.

    Returns:
        A Source of kind 'mesh'. glTF: metres, +Y up. USD: what the stage states. All else: unit and up unknown.

    Raises:
        InputError: missing, empty, damaged, of another kind, or a file outside of the folder is needed.
        BackendUnavailable: a USD where OpenUSD is not installed.
    """
    path = Path(path)
    reading = Reading(path, Path(folder) if folder is not None else path.parent, [path])
    stated = _OF_SUFFIX.get(path.suffix.lower())
    head = _head(path)
    found = sniff(head, stated, path.stat().st_size)
    if found is None:
        raise InputError(f"{path}: got {shown(head[:16])} in a file {shown(path.suffix)}, expected one of {' '.join(SUFFIXES)}")
    if stated != found:
        reading.note(f"The file is named {path.suffix or 'without suffix'}, but its content is {found.upper()}.")
    if found == "usd":
        from lyra_core.imports.mesh_usd import load_usd

        return load_usd(reading)
    mesh = join(reading, _READERS[found](reading, read_whole(path, str(path))))
    gltf = found == "gltf"
    return Source("mesh", path, tuple(reading.files), mesh=mesh, metres_per_unit=1.0 if gltf else None,
                  unit_stated_by="glTF is in metres" if gltf else "", up=np.array([0.0, 1.0, 0.0]) if gltf else None,
                  notes=tuple(reading.notes), facts={"format": found})


def sniff(head: bytes, stated: str | None, size: int) -> str | None:
    """Return 'gltf', 'obj', 'ply', 'stl', 'off' or 'usd' from the first bytes and the file's size; stated decides where they do
    not."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:4] == b"glTF":
        return "gltf"
    if head[:8] == b"PXR-USDC" or text[:5] in (b"#usda", b"#sdf ") or (head[:4] == b"PK\3\4" and stated in ("usd", None)):
        return "usd"
    if head[:4] in (b"ply\n", b"ply\r"):
        return "ply"
    if text[:1] == b"{" and (stated == "gltf" or b'"asset"' in head):
        return "gltf"
    first = text.split(None, 1)[0] if text else b""
    if first in (b"OFF", b"COFF", b"NOFF", b"STOFF", b"CNOFF", b"STCOFF", b"STNOFF", b"STCNOFF", b"4OFF", b"nOFF"):
        return "off"
    if text[:5].lower() == b"solid" and b"facet" in text.lower():
        return "stl"
    if len(head) >= 84 and size == 84 + 50 * int.from_bytes(head[80:84], "little"):
        return "stl"
    if stated != "obj" and any(line[:2] == b"v " for line in text.split(b"\n")[:200]) and b"\0" not in head:
        return "obj"
    # A binary STL has no mark; a name that says glTF, PLY or USD over other bytes is a damaged or foreign file.
    if stated == "obj" and b"\0" in head[:256]:
        return None
    return stated if stated in ("stl", "obj", "off", "gltf") and head[:4] != b"PK\3\4" else None


def _head(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: missing or not a file, expected one of {' '.join(SUFFIXES)}")
    try:
        with path.open("rb") as stream:
            head = stream.read(8192)
    except OSError as error:
        raise InputError(f"{path}: not readable: {error.strerror or error}") from error
    if not head:
        raise InputError(f"{path}: got an empty file, expected a mesh")
    return head
