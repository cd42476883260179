"""OpenVDB for fusion, level sets, adaptive polygons and .vdb files, in a process of an interpreter that has it.

The module of Debian and Ubuntu (``apt-get install python3-openvdb``) is built for the system's Python and numpy 1; loaded beside
numpy 2 it crashes. So it is spoken to through ``_openvdb_worker.py``, which also bears what a damaged file does.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.io.files import atomic_path
from lyra_core.surface.blocks import BEHIND, FREE_SHARE, TRUNCATION, read_depth
from lyra_core.surface.levels import Levels, unpack
from lyra_core.surface.nanovdb import SparseVoxels
from lyra_core.surface.vdb_header import check_vdb
from lyra_core.types import Frame

ENVIRONMENT = "LYRA_WORLDS_OPENVDB_PYTHON"
"""Environment variable: a Python that has pyopenvdb."""
CANDIDATES = ("/usr/bin/python3", "/usr/bin/python3.11", "/usr/bin/python3.12", "/usr/bin/python3.13")
INSTALL = f"apt-get install python3-openvdb, or set {ENVIRONMENT} to a Python that has pyopenvdb"
TIMEOUT = 600.0
"""Longest wait for one answer of a fusion [s]."""
FILE_TIMEOUT = 120.0
"""Longest work on one file [s]."""
FILE_MEMORY, PER_BYTE = 1 << 30, 100
"""Most address space for work on one file [bytes], and what it may grow by with each byte of the input: they are compressed."""
MOST_CELLS = 2e8
"""Cells of a mesh's narrow band above which it is refused."""
_PROBE = """
import json, sys, numpy, pyopenvdb as vdb
grid, ones, back = vdb.FloatGrid(0.0), numpy.ones((2, 2, 2), numpy.float32), numpy.zeros((2, 2, 2), numpy.float32)
grid.copyFromArray(ones)
grid.copyToArray(back)
assert (back == ones).all() and grid.activeVoxelCount() == 8
print(json.dumps({"version": list(vdb.LIBRARY_VERSION), "numpy": numpy.__version__, "python": sys.version.split()[0]}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python in which OpenVDB works."""

    path: str
    python: str
    """Version, such as '3.11.2'."""
    numpy: str
    openvdb: str


@cache
def find_openvdb() -> Interpreter:
    """Return an interpreter in which OpenVDB takes and gives an array; each is tried in a process of its own, once.

    Raises:
        BackendUnavailable: there is none; says what each one said.
    """
    named, reasons = os.environ.get(ENVIRONMENT), []
    tried = set()
    for candidate in [named] if named else CANDIDATES:
        if not Path(candidate).is_file() or (real := os.path.realpath(candidate)) in tried:
            reasons += [f"{candidate} does not exist"] if named and not Path(candidate).is_file() else []
            continue
        tried.add(real)
        try:
            said = subprocess.run([candidate, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=False)
            facts = json.loads(said.stdout)
            return Interpreter(candidate, facts["python"], facts["numpy"], ".".join(map(str, facts["version"])))
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(f"{candidate}: {error}")
        except (ValueError, KeyError, TypeError):
            reasons.append(f"{candidate}: {(said.stderr.strip().splitlines() or [f'stopped with code {said.returncode}'])[-1]}")
    raise BackendUnavailable("OpenVDB", reason="; ".join(reasons) or "no interpreter has it", install=INSTALL)


class _Refused(Exception):
    """What the worker said about a command that it could not do."""


class _Worker:
    """The process, and a folder for arrays. Every call waits for its answer; both go when the object does."""

    def __init__(self, timeout: float, memory: int) -> None:
        python = find_openvdb().path
        self._timeout = timeout
        self._folder = tempfile.TemporaryDirectory(prefix="lyra-openvdb-")
        limit = memory if os.name == "posix" else 0
        # Else OpenVDB keeps a copy of each file among the system's temporary ones, and reads it later.
        environment = {**os.environ, "TMPDIR": self._folder.name, "OPENVDB_DISABLE_DELAYED_LOAD": "1"}
        self._process = subprocess.Popen(
            [python, "-I", str(Path(__file__).with_name("_openvdb_worker.py")), str(limit)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        self.close = weakref.finalize(self, _stop, self._process, self._folder)

    def ask(self, do: str, **given: Any) -> None:
        """Run one command.

        Raises:
            _Refused: the worker says why not.
            BackendUnavailable: the worker died or took too long.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        clock = Timer(self._timeout, self._process.kill)
        clock.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            line = ""
        finally:
            clock.cancel()
        if not line.endswith("\n"):
            self._process.kill()
            reason = f"{do}: its process stopped with code {self._process.wait()}; out of memory, or over {self._timeout:g} s?"
            raise BackendUnavailable("OpenVDB", reason=reason, install=INSTALL)
        reply = json.loads(line)
        if not reply["ok"]:
            raise _Refused(f"{do}: {reply['why']}")

    def file(self, name: str) -> str:
        """Return the path of a file that both sides use."""
        return str(Path(self._folder.name) / name)

    def put(self, name: str, **arrays: np.ndarray) -> str:
        """Write arrays to such a file; returns its path."""
        np.savez(self.file(name), **arrays)  # type: ignore[arg-type]
        return self.file(name)

    def get(self, name: str) -> dict[str, np.ndarray]:
        """Read arrays from such a file."""
        with np.load(self.file(name), allow_pickle=False) as data:
            return dict(data)


def _stop(process: subprocess.Popen, folder: tempfile.TemporaryDirectory) -> None:
    """End the process, which does so by itself when its input ends, and remove its files."""
    for stream in (process.stdin, process.stdout):
        try:
            if stream is not None:
                stream.close()
        except OSError:
            pass
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()


class FusionOpenVdb:
    """The SurfaceFusion on OpenVDB grids: the formula of ``surface.blocks`` at one cell size, OpenVDB's polygons."""

    def __init__(self, voxel: float, *, eyes: np.ndarray | None = None, adaptivity: float = 0.0, timeout: float = TIMEOUT,
                 memory: int = 0) -> None:
        """Start a process.

        Args:
            voxel: cell size [m].
            eyes: not used: all cells are of one size.
            adaptivity: 0 to 1; larger = fewer and larger polygons where the surface is flat.
            timeout: longest wait for one step [s].
            memory: most address space of the process [bytes]; 0 = half of the machine's memory.

        Raises:
            BackendUnavailable: no interpreter has OpenVDB.
            ConfigError: voxel or adaptivity cannot be used.
        """
        if not 0 < voxel < np.inf or not 0 <= adaptivity <= 1:
            raise ConfigError(f"fusion: got voxel {voxel} and adaptivity {adaptivity}, expected positive metres and 0 to 1")
        self._levels, self._adaptivity = Levels.along(float(voxel), None), float(adaptivity)
        self._worker = _Worker(timeout, memory or _half_of_memory())
        self._ask("begin", voxel=float(voxel), truncation=TRUNCATION * voxel, behind=BEHIND, free_share=FREE_SHARE)

    def __enter__(self) -> FusionOpenVdb:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; the object cannot be used after it."""
        self._worker.close()

    def integrate_all(self, frames: Sequence[Frame]) -> None:
        """Add frames. All blocks are made first, as ``FusionBlocks`` does: early frames see that what late ones claim is free."""
        for frame in frames:
            self._make(frame, *read_depth(frame))
        for frame in frames:
            self._average(frame, *read_depth(frame))

    @staticmethod
    def probe() -> str:
        """Return which interpreter has OpenVDB.

        Raises:
            BackendUnavailable: none has.
        """
        found = find_openvdb()
        return f"{found.path}, OpenVDB {found.openvdb}"

    def integrate(self, frame: Frame) -> None:
        """Add one frame: point-to-plane distances, weighted by viewing angle and range.

        Raises:
            InputError: a pose that is not finite, or coordinates out of range.
            BackendUnavailable: the process died or took too long.
        """
        read = read_depth(frame)
        self._make(frame, *read)
        self._average(frame, *read)

    def extract(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float32 [m], faces (F, 3) int32 wound towards free space, colours (V, 3) uint8."""
        self._ask("extract", path=self._worker.file("surface.npz"), adaptivity=self._adaptivity)
        data = self._worker.get("surface.npz")
        return data["points"].astype(np.float32), data["faces"].astype(np.int32), data["color"]

    def save(self, path: Path) -> None:
        """Write a .vdb file: level set 'surface' [m, z up] with the grids 'weight' (0 = unknown) and 'color' [0, 255].

        The level set ends where nothing is known behind the surface; other programs show a second wall there, which
        :func:`vdb_to_mesh` leaves out by the weights.
        """
        with atomic_path(Path(path)) as temporary:
            self._ask("save", path=str(temporary.resolve()))

    def _ask(self, do: str, **given: Any) -> None:
        try:
            self._worker.ask(do, **given)
        except _Refused as error:
            raise InputError(f"OpenVDB: {error}") from error

    def _make(self, frame: Frame, depth: np.ndarray, weight: np.ndarray, normals: np.ndarray) -> None:
        """Make the blocks near the surface that are not there."""
        if not np.isfinite(frame.T_world_camera).all():
            raise InputError(f"Frame.T_world_camera: got {frame.T_world_camera.tolist()}, expected finite numbers")
        points = band_points(frame, depth, weight, normals, self._levels)
        if len(points):
            blocks = unpack(self._levels.blocks_of(points))[1]
            self._ask("make", path=self._worker.put("blocks.npz", blocks=blocks))

    def _average(self, frame: Frame, depth: np.ndarray, weight: np.ndarray, normals: np.ndarray) -> None:
        """Average the picture into the blocks that it sees."""
        path = self._worker.put("frame.npz", depth=depth, weight=weight, normals=np.nan_to_num(normals), rgb=frame.rgb,
                                K=frame.camera.K, T=inverse(frame.T_world_camera))
        self._ask("integrate", path=path)


def band_points(frame: Frame, depth: np.ndarray, weight: np.ndarray, normals: np.ndarray, levels: Levels) -> np.ndarray:
    """Return points (N, 3) float32 [m] in the band around what the frame sees, of which ``FusionBlocks`` makes its blocks."""
    stride = int(np.clip(frame.camera.K[0, 0] * levels.size(0) / (6 * levels.near), 1, 8))
    part = (slice(stride // 2, None, stride),) * 2
    good = weight[part] > 0
    R, t = frame.T_world_camera[:3, :3].astype(np.float32), frame.T_world_camera[:3, 3].astype(np.float32)
    points = (frame.camera.rays()[part][good] * depth[part][good][:, None]) @ R.T + t
    view = points - t
    view /= np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-6)
    band = np.float32(TRUNCATION * levels.voxel)
    steps = [points + step * band * along for step in (-1.0, -0.5, 0.5, 1.0) for along in (view, normals[part][good] @ R.T)]
    return np.concatenate([points, *steps])


def mesh_to_vdb(vertices: np.ndarray, faces: np.ndarray, path: Path, *, voxel: float, timeout: float = FILE_TIMEOUT) -> None:
    """Write a closed mesh (V, 3) [m], (F, 3) as a level set 'surface' to a .vdb file, cells of voxel [m], band of 3 cells.

    Raises:
        InputError: not finite, indices out of range, open, or too many cells.
        BackendUnavailable: no interpreter has OpenVDB.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
    good = vertices.ndim == 2 and faces.ndim == 2 and vertices.shape[1:] == faces.shape[1:] == (3,) and len(faces) > 0
    if not (good and np.isfinite(vertices).all() and faces.min() >= 0 and faces.max() < len(vertices)):
        raise InputError(f"{path}: got vertices {vertices.shape}, faces {faces.shape}, expected finite (V, 3) and indices (F, 3)")
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    cells = 6 * (np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2) / voxel**2 if 0 < voxel < np.inf else np.inf
    if cells > MOST_CELLS or np.abs(vertices).max() / voxel > 1e8:
        raise InputError(f"{path}: got voxel {voxel} m, which makes {cells:.3g} cells, expected at most {MOST_CELLS:.3g}: "
                         "take a larger one")
    with _at_work(path, timeout, vertices.nbytes + faces.nbytes + cells) as worker, atomic_path(Path(path)) as temporary:
        mesh = worker.put("mesh.npz", points=vertices.astype(np.float32), faces=faces.astype(np.uint32))
        worker.ask("mesh_to_vdb", mesh=mesh, path=str(temporary.resolve()), voxel=float(voxel),
                   open=_has_open_edges(vertices, faces))


def _has_open_edges(vertices: np.ndarray, faces: np.ndarray) -> bool:
    """Return whether an edge belongs to an odd number of faces, once vertices at one place are one."""
    same = np.unique(vertices.astype(np.float32), axis=0, return_inverse=True)[1].reshape(-1)[faces]
    edges = np.sort(same[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return bool((np.unique(edges, axis=0, return_counts=True)[1] % 2).any())


def vdb_to_mesh(path: Path, *, isovalue: float = 0.0, adaptivity: float = 0.0,
                timeout: float = FILE_TIMEOUT) -> tuple[np.ndarray, np.ndarray]:
    """Read a .vdb file's level set (else its first grid of floats) as a mesh: vertices (V, 3) float32, faces (F, 3) int32.

    Faces are counter-clockwise seen from the side of larger values: the free side of a level set. Unit and axes are the file's.

    Raises:
        InputError: missing, damaged, or it holds no such grid or no surface at that value.
        BackendUnavailable: no interpreter has OpenVDB.
    """
    if not 0 <= adaptivity <= 1 or not np.isfinite(isovalue):
        raise ConfigError(f"got adaptivity {adaptivity} and isovalue {isovalue}, expected 0 to 1 and a finite number")
    check_vdb(Path(path))
    with _at_work(path, timeout, Path(path).stat().st_size) as worker:
        worker.ask("vdb_to_mesh", path=str(Path(path).resolve()), mesh=worker.file("mesh.npz"), isovalue=float(isovalue),
                   adaptivity=float(adaptivity))
        mesh = worker.get("mesh.npz")
    if not len(mesh["faces"]):
        raise InputError(f"{path}: its grid has no surface at the value {isovalue:g}")
    return mesh["points"].astype(np.float32), mesh["faces"].astype(np.int32)


def write_vdb(path: Path, voxels: SparseVoxels, *, timeout: float = FILE_TIMEOUT) -> None:
    """Write voxels as a level set 'surface' to a .vdb file; see ``nanovdb.known_voxels`` for those of a fused field.

    Raises:
        InputError: OpenVDB cannot.
        BackendUnavailable: no interpreter has OpenVDB.
    """
    with _at_work(path, timeout, voxels.ijk.nbytes) as worker, atomic_path(Path(path)) as temporary:
        data = worker.put("voxels.npz", ijk=voxels.ijk, values=voxels.values, voxel=np.array(voxels.voxel), origin=voxels.origin,
                          background=np.array(voxels.background))
        worker.ask("write_vdb", voxels=data, path=str(temporary.resolve()))


def read_vdb(path: Path, *, timeout: float = FILE_TIMEOUT) -> SparseVoxels:
    """Read the band of a .vdb file's level set: the voxels whose values are nearer to zero than the background.

    Raises:
        InputError: missing, damaged, no grid of floats, or cells that are not cubes along the axes.
        BackendUnavailable: no interpreter has OpenVDB.
    """
    check_vdb(Path(path))
    with _at_work(path, timeout, Path(path).stat().st_size) as worker:
        worker.ask("read_vdb", path=str(Path(path).resolve()), voxels=worker.file("voxels.npz"))
        data = worker.get("voxels.npz")
        voxel, far = float(data["voxel"]), float(data["background"])
        return SparseVoxels(data["ijk"].astype(np.int32), data["values"], voxel, data["origin"], far)


@contextmanager
def _at_work(path: Path, timeout: float, size: float) -> Iterator[_Worker]:
    """Start a worker for one file of this size [bytes]; what it refuses, and its death, are the file's fault."""
    most = FILE_MEMORY + PER_BYTE * int(size)
    worker = _Worker(timeout, min(most, _half_of_memory() or most))
    try:
        yield worker
    except (_Refused, BackendUnavailable) as error:
        what = error.reason if isinstance(error, BackendUnavailable) else str(error)
        raise InputError(f"{path}: OpenVDB cannot use it: {what}") from error
    finally:
        worker.close()


def _half_of_memory() -> int:
    """Return half of the machine's memory [bytes]; 0 where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 0
