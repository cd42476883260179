"""Every splat file by one name: what a file is comes from its content, what to write from its suffix.

Frames. A cloud comes back in the file's own frame, but for .spz, whose axes are turned to those of the matching .ply:

=====================  =====================================================================================
.ply, .compressed.ply  as stored; the format states no axes (captures: right, down, forward; lyra worlds: Z up)
.spz                   right, down, forward, turned from SPZ's right, up, back
.splat                 as stored, the axes of the .ply that it was made from
.glb, .gltf            glTF: Y up; left, up, forward for captures
=====================  =====================================================================================

So x.ply, x.compressed.ply, x.spz and x.splat made of one capture agree, and x.glb is them with x and y reversed. USD stages are
read by lyra_core.usd.read_splats.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.gaussians import make_cloud
from lyra_core.io.ply import read_ply_header
from lyra_core.splats.khr_gltf import NAME, read_khr_gltf, write_khr_gltf
from lyra_core.splats.packed_ply import is_packed, read_packed_ply, write_packed_ply
from lyra_core.splats.ply import read_splats, write_splats
from lyra_core.splats.spz import GZIP, MAGIC, read_spz, write_spz
from lyra_core.types import GaussianCloud

SPLAT_SUFFIXES = (".ply", ".compressed.ply", ".spz", ".splat", ".glb", ".gltf")
"""Suffixes that read_splat_file takes; .ply, .glb and .gltf may hold meshes as well: ask looks_like_splats."""
WRITABLE_SUFFIXES = (".ply", ".compressed.ply", ".spz", ".glb")
_RECORD = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat_wxyz", "u1", 4)])
_SH_C0 = 0.28209479177387814


def read_splat_file(path: Path) -> GaussianCloud:
    """Read Gaussians from any of the formats, in the frame that the table above names.

    Raises:
        InputError: missing, damaged, empty, or none of the formats.
    """
    path = Path(path)
    kind = _kind(path)
    readers = {"ply": read_splats, "packed": read_packed_ply, "spz": read_spz, "splat": read_splat_records, "gltf": read_khr_gltf}
    if kind not in readers:
        raise InputError(f"{path}: got {kind}, expected Gaussians in {', '.join(SPLAT_SUFFIXES)}")
    cloud = readers[kind](path)
    if len(cloud.means) == 0:
        raise InputError(f"{path}: got no Gaussian")
    return cloud


def write_splat_file(path: Path, cloud: GaussianCloud) -> None:
    """Write Gaussians in the format of the suffix; the frame must be the one that the table above names for it.

    Raises:
        InputError: a suffix that is not written, no Gaussian, numbers that no file should hold.
    """
    path = Path(path)
    name = path.name.lower()
    writers = {".compressed.ply": write_packed_ply, ".ply": write_splats, ".spz": write_spz, ".glb": write_khr_gltf}
    found = next((writer for suffix, writer in writers.items() if name.endswith(suffix)), None)
    if found is None:
        raise InputError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(WRITABLE_SUFFIXES)}")
    if len(cloud.means) == 0:
        raise InputError(f"{path}: got no Gaussian to write")
    found(path, cloud)


def looks_like_splats(path: Path) -> bool:
    """Tell Gaussians from a mesh by the header alone; False for what cannot be read. Says nothing on whether the rest is sound."""
    try:
        kind = _kind(Path(path))
    except InputError:
        return False
    if kind != "gltf":
        return kind in ("ply", "packed", "spz", "splat")
    try:
        with Path(path).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            end = 20 + int.from_bytes(data[12:16], "little") if data[:4] == b"glTF" else len(data)
            return data.find(f'"{NAME}"'.encode(), 0, min(end, len(data))) >= 0
    except (OSError, ValueError):
        return False


def stated_up(path: Path) -> np.ndarray | None:
    """Return the direction against gravity (3,) in the frame of read_splat_file where the format states one; None = it does not."""
    kind = _kind(Path(path))
    up = {"gltf": (0.0, 1.0, 0.0), "spz": (0.0, -1.0, 0.0)}.get(kind)
    return None if up is None else np.array(up)


def read_splat_records(path: Path) -> GaussianCloud:
    """Read a .splat file (antimatter15): 32 bytes per Gaussian, no header, SH degree 0.

    Position and linear scale as 3 float32 each, r g b and opacity as bytes, rotation w x y z as bytes of 128 q + 128.

    Raises:
        InputError: a size that is no multiple of 32, numbers that no Gaussian has.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    if not data or len(data) % _RECORD.itemsize:
        raise InputError(f"{path}: got {len(data)} bytes, expected a multiple of {_RECORD.itemsize}: one record per Gaussian")
    table = np.frombuffer(data, _RECORD)
    rgba = table["rgba"] / 255.0
    sh = ((rgba[:, :3] - 0.5) / _SH_C0).astype(np.float32)[:, None]
    return make_cloud(str(path), table["mean"], table["quat_wxyz"] / 128.0 - 1, table["scale"], rgba[:, 3], sh)


def _kind(path: Path) -> str:
    """Return 'ply', 'packed', 'spz', 'splat', 'gltf', or words for what else it is.

    Raises:
        InputError: not readable, or a damaged PLY header.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4096)
    except OSError as error:
        raise InputError(f"{path}: not readable: {error}") from error
    suffix = path.suffix.lower()
    if not head:
        raise InputError(f"{path}: the file is empty")
    if head[:3] == b"ply":
        header = read_ply_header(path)
        if is_packed(header):
            return "packed"
        names = set(header.names("vertex"))
        return "ply" if {"opacity", "scale_0", "rot_0"} <= names else "a .ply without Gaussians (opacity, scale_0, rot_0 ...)"
    if head[:4] == MAGIC or (head[:2] == GZIP and suffix == ".spz"):
        return "spz"
    if head[:4] == b"glTF" or (suffix in (".gltf", ".glb") and head.lstrip()[:1] == b"{"):
        return "gltf"
    return "splat" if suffix == ".splat" else f"a file starting {head[:8]!r}"
