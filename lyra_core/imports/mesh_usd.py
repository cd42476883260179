"""Read the meshes of a USD stage in a process of its own: OpenUSD may crash on a damaged file, and take any memory or time."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.imports.base import MeshSource, Source
from lyra_core.imports.mesh_parts import MAX_FILE_BYTES, Reading, join, shown

TIMEOUT_S = 120.0
"""Time that one stage may take."""
_ARRAYS = ("vertices", "faces", "vertex_rgb", "corner_uv", "face_texture", "face_rgb")


def load_usd(reading: Reading) -> Source:
    """Return the meshes of a stage in its own frame and unit.

    Raises:
        InputError: a damaged stage, one that needs files outside of the folder, or one without meshes.
        BackendUnavailable: OpenUSD is not installed.
    """
    if importlib.util.find_spec("pxr") is None:
        raise BackendUnavailable("usd", reason="pxr (OpenUSD) is not installed", install="pip install 'lyra-worlds[standalone]'")
    check_package(reading)
    # Inside Kit the interpreter is the application itself, and its OpenUSD exists in this process alone.
    apart = Path(sys.executable or "").name.lower().startswith("python")
    mesh, facts = _in_child(reading) if apart else _in_process(reading)
    up = {"Y": np.array([0.0, 1.0, 0.0]), "Z": np.array([0.0, 0.0, 1.0])}.get(facts["up"])
    unit = facts["metres_per_unit"]
    return Source("mesh", reading.path, tuple(reading.files), mesh=mesh, metres_per_unit=unit,
                  unit_stated_by="" if unit is None else "metersPerUnit of the stage", up=up, notes=tuple(reading.notes),
                  facts={"format": "usd", "prims": facts["prims"]})


def check_package(reading: Reading) -> None:
    """Refuse a .usdz whose members leave it, are compressed or do not fit the file.

    Raises:
        InputError: names the member.
    """
    size = reading.path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise reading.fail(f"got {size} bytes, expected at most {MAX_FILE_BYTES}")
    with reading.path.open("rb") as stream:
        if stream.read(4) != b"PK\3\4":
            return
    try:
        with zipfile.ZipFile(reading.path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise reading.fail(f"not a readable usdz package: {error}") from error
    for member in members:
        name = member.filename.replace("\\", "/")
        if name.startswith("/") or ":" in name or ".." in name.split("/") or "\0" in name or not name:
            raise reading.fail(f"member {shown(member.filename)}: expected a path inside of the package")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise reading.fail(f"member {shown(member.filename)}: is compressed or encrypted, expected a stored one")
        if member.file_size != member.compress_size or member.header_offset + member.file_size > size:
            raise reading.fail(f"member {shown(member.filename)}: got {member.file_size} bytes, more than the file holds")
    if not any(member.filename.lower().endswith((".usd", ".usda", ".usdc")) for member in members[:1]):
        first = shown(members[0].filename if members else "")
        raise reading.fail(f"got {first} as first member, expected a .usd, .usda or .usdc layer")


def _in_process(reading: Reading) -> tuple[MeshSource, dict[str, Any]]:
    from lyra_core.imports.mesh_usd_stage import read_stage

    parts, facts = read_stage(reading)
    return join(reading, parts), facts


def _in_child(reading: Reading) -> tuple[MeshSource, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="lyra-usd-") as folder:
        out = Path(folder) / "mesh.npz"
        command = [sys.executable, "-m", "lyra_core.imports._mesh_usd_child", str(reading.path.resolve()),
                   str(reading.folder.resolve()), str(reading.path), str(out)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S,
                                  cwd=str(Path(__file__).resolve().parents[2]))
        except subprocess.TimeoutExpired as error:
            raise reading.fail(f"OpenUSD was not done with it after {TIMEOUT_S:.0f} s") from error
        if not out.exists():
            tail = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise reading.fail(f"OpenUSD crashed on it (exit code {done.returncode}): a damaged or hostile file; {shown(tail)}")
        with np.load(out, allow_pickle=False) as data:
            facts = json.loads(data["facts"].tobytes())
            if "error" in facts:
                raise InputError(facts["error"])
            textures = tuple(data[f"texture_{i}"] for i in range(facts["textures"]))
            arrays = {name: data[name] for name in _ARRAYS if name in data.files}
    reading.files[:] = [reading.path, *(Path(name) for name in facts["files"])]
    for sentence in facts["notes"]:
        reading.note(sentence)
    return MeshSource(textures=textures, **arrays), facts


def pack(mesh: MeshSource, facts: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays that the child hands to :func:`load_usd`."""
    out = {name: getattr(mesh, name) for name in _ARRAYS if getattr(mesh, name) is not None}
    out |= {f"texture_{i}": picture for i, picture in enumerate(mesh.textures)}
    return out | {"facts": np.frombuffer(json.dumps(facts | {"textures": len(mesh.textures)}).encode(), np.uint8)}
