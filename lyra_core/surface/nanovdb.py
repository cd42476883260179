"""Distance fields as NanoVDB files (.nvdb): sparse, and sampled by Warp on the CPU and on a GPU.

Warp builds the tree; its nodes are then filled here by the layout of NanoVDB 32 (Museth 2021, NanoVDB.h): Warp itself leaves the
grid's class, boxes, counts and masks as they come, which other programs read.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.io.files import write_bytes
from lyra_core.surface.extract import BlockGrid
from lyra_core.surface.levels import SIDE, unpack

REACH = 1 << 30
"""Voxel coordinates lie within +- this."""
MOST_CELLS = 200_000_000
"""Largest number of finest cells that a field's coarser levels are copied to."""
_MAGIC, _GRID_MAGICS = b"NanoVDB0", (b"NanoVDB0", b"NanoVDB1")
_VERSION = 32 << 21 | 3 << 10 | 3
"""The oldest version with this layout, so that old readers take it."""
_FLOAT, _LEVEL_SET = 1, 1
_FILE, _META, _GRID, _TREE = 16, 176, 672, 64
"""Sizes of the headers [bytes]."""
_MAP = 296 + 88
"""Place of the transform in a grid's header: matrix (9), its inverse (9) and translation (3), 64 bits each."""
_NO_CHECKSUM = (1 << 64) - 1
LEAF = np.dtype([("low", "<i4", 3), ("span", "u1", 3), ("flags", "u1"), ("mask", "u1", 64), ("minimum", "<f4"), ("maximum", "<f4"),
                 ("average", "<f4"), ("deviation", "<f4"), ("values", "<f4", SIDE**3)])
"""A leaf of floats: 2144 bytes, values in x-major order."""
_HEAD = np.dtype({"names": ["magic", "checksum", "version", "flags", "index", "count", "size", "name", "world", "voxel", "class",
                            "type"],
                  "formats": ["S8", "<u8", "<u4", "<u4", "<u4", "<u4", "<u8", "S256", ("<f8", 6), ("<f8", 3), "<u4", "<u4"],
                  "offsets": [0, 8, 16, 20, 24, 28, 32, 40, 560, 608, 632, 636], "itemsize": _GRID})
_ROOTS = np.dtype([("places", "<u8", 4), ("nodes", "<u4", 3), ("tiles", "<u4", 3), ("voxels", "<u8")])
"""The tree's header: byte offsets of leaves, lower, upper and root nodes from itself, and counts."""
_META_TYPE = np.dtype([("size", "<u8"), ("stored", "<u8"), ("key", "<u8"), ("voxels", "<u8"), ("type", "<u4"), ("class", "<u4"),
                       ("world", "<f8", 6), ("box", "<i4", 6), ("voxel", "<f8", 3), ("name", "<u4"), ("nodes", "<u4", 4),
                       ("tiles", "<u4", 3), ("codec", "<u2"), ("padding", "<u2"), ("version", "<u4")])


@dataclass(frozen=True)
class SparseVoxels:
    """Signed distances at some voxels of a regular grid; elsewhere they are unknown or far."""

    ijk: np.ndarray
    """(N, 3) int32 coordinates, each once."""
    values: np.ndarray
    """(N,) float32 [m], positive in free space."""
    voxel: float
    """Cell [m]."""
    origin: np.ndarray
    """(3,) position of the voxel (0, 0, 0)'s sample [m]."""
    background: float
    """Value elsewhere: the half width of the band [m]."""

    def __post_init__(self) -> None:
        n = len(self.values)
        if self.ijk.shape != (n, 3) or self.values.shape != (n,) or np.shape(self.origin) != (3,):
            raise InputError(f"SparseVoxels: got ijk {self.ijk.shape}, values {self.values.shape}, origin {np.shape(self.origin)}, "
                             "expected (N, 3), (N,), (3,)")
        if n and not np.issubdtype(self.ijk.dtype, np.integer):
            raise InputError(f"SparseVoxels: ijk: got {self.ijk.dtype}, expected whole numbers")
        numbers = np.array([self.voxel, self.background, *np.asarray(self.origin, float)])
        if not (np.isfinite(self.values).all() and np.isfinite(numbers).all() and self.voxel > 0):
            raise InputError(f"SparseVoxels: voxel, background, origin: got {numbers.tolist()}, or values that are not finite; "
                             "expected finite numbers and a positive voxel")
        if n and np.abs(self.ijk.astype(np.int64)).max() > REACH:
            raise InputError(f"SparseVoxels: ijk: got {self.ijk.min()}..{self.ijk.max()}, expected within +-{REACH}")

    def points(self) -> np.ndarray:
        """Return the samples' positions (N, 3) float64 [m]."""
        return self.ijk * self.voxel + self.origin


def known_voxels(grid: BlockGrid) -> SparseVoxels:
    """Return the known cells of a fused field that lie in its band; cells of coarser levels are copied to the finest one's.

    Raises:
        InputError: no such cell, or too many of the finest ones: fuse with a larger voxel.
    """
    from lyra_core.surface.blocks import TRUNCATION

    level, blocks = unpack(grid.keys)
    far, total = np.float32(TRUNCATION * grid.levels.voxel), 0
    ijk, values = [], []
    for k in np.unique(level):
        slots, low, n = grid.slots[level == k], blocks[level == k] * SIDE, 1 << int(k)
        distance = grid.distance[slots].astype(np.float32)
        row, cell = np.nonzero((grid.weight[slots] > 0) & (np.abs(distance) < 1))
        total += len(row) * n**3
        if total > MOST_CELLS:
            raise InputError(f"field: got more than {MOST_CELLS} cells of {grid.levels.voxel} m: fuse with a larger voxel")
        place = low[row] + np.stack([cell // SIDE**2, cell // SIDE % SIDE, cell % SIDE], 1)
        inner = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
        ijk.append((place[:, None] * n + inner).reshape(-1, 3))
        values.append(np.repeat(distance[row, cell] * (far * n), n**3))
    if not total:
        raise InputError("field: got no known cell near a surface, expected some")
    return SparseVoxels(np.concatenate(ijk).astype(np.int32), np.concatenate(values), grid.levels.voxel,
                        np.full(3, grid.levels.voxel / 2), float(far))


def write_nvdb(path: Path, index_ijk: np.ndarray, values: np.ndarray, voxel: float, origin: np.ndarray, *,
               background: float | None = None, name: str = "surface") -> None:
    """Write voxels as one uncompressed grid of floats of class level set; memory and file grow with the leaves of 8^3 they lie in.

    Args:
        index_ijk: (N, 3) coordinates, each once.
        values: (N,) distances [m].
        voxel: cell [m].
        origin: (3,) position of the voxel (0, 0, 0)'s sample [m].
        background: value elsewhere; None = the largest magnitude.
        name: of the grid, at most 255 bytes.

    Raises:
        InputError: shapes, numbers or coordinates that cannot be used.
        BackendUnavailable: this Warp builds sparse volumes on CUDA devices only.
    """
    ijk, values = np.asarray(index_ijk), np.asarray(values, np.float32)
    if not len(values) or len(name.encode()) > 255:
        raise InputError(f"{path}: got {len(values)} voxels, a name of {len(name.encode())} bytes, expected some, at most 255")
    far = float(np.abs(values).max() if background is None else background)
    try:
        voxels = SparseVoxels(ijk, values, float(voxel), np.asarray(origin, np.float64), far)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if len(np.unique(voxels.ijk, axis=0)) != len(values):
        raise InputError(f"{path}: got coordinates that come twice, expected each once")
    blocks, row = np.unique(voxels.ijk // SIDE, axis=0, return_inverse=True)
    buffer = _tree(blocks * SIDE, voxels)
    box = np.array([voxels.ijk.min(0), voxels.ijk.max(0)])
    head, roots, leaves = _parts(buffer)
    _fill(leaves, blocks, row.reshape(-1), voxels)
    head["magic"], head["checksum"], head["version"], head["count"], head["name"] = _MAGIC, _NO_CHECKSUM, _VERSION, 1, name.encode()
    head["flags"] |= 2  # It has boxes.
    head["class"], head["voxel"] = _LEVEL_SET, voxel
    head["world"] = (np.stack([box[0], box[1] + 1]) * voxel + origin).reshape(-1)
    # Warp keeps 32-bit numbers of the transform.
    matrix, backwards = (np.diag([number] * 3).reshape(-1) for number in (float(voxel), 1 / float(voxel)))
    buffer[_MAP:_MAP + 168] = np.concatenate([matrix, backwards, voxels.origin]).astype("<f8").view(np.uint8)
    roots["voxels"], roots["tiles"] = len(values), 0
    root = _GRID + int(roots["places"][3])
    buffer[root:root + 24] = box.astype("<i4").reshape(-1).view(np.uint8)
    write_bytes(Path(path), _file_head(head, roots, box, name) + buffer.tobytes())


def _tree(corners: np.ndarray, voxels: SparseVoxels) -> np.ndarray:
    """Return the bytes of a volume with these leaves, all voxels at the background."""
    wp = load_warp("NanoVDB")
    try:
        tiles = wp.array(np.ascontiguousarray(corners, np.int32), dtype=wp.int32, device="cpu")
        volume = wp.Volume.allocate_by_tiles(tiles, voxel_size=voxels.voxel, bg_value=float(voxels.background),
                                             translation=tuple(voxels.origin.tolist()), device="cpu")
    except RuntimeError as error:
        raise BackendUnavailable("NanoVDB", reason=f"Warp {wp.__version__} makes sparse volumes on CUDA devices only ({error})",
                                 install="pip install 'warp-lang>=1.19'") from error
    return volume.array().numpy().copy()


def _parts(buffer: np.ndarray) -> tuple[Any, Any, Any]:
    """Return views of a grid's header, its tree's header and its leaves."""
    roots: Any = buffer[_GRID:_GRID + _TREE].view(_ROOTS)[0]
    start = _GRID + int(roots["places"][0])
    return buffer[:_GRID].view(_HEAD)[0], roots, buffer[start:start + LEAF.itemsize * int(roots["nodes"][0])].view(LEAF)


def _fill(leaves: Any, blocks: np.ndarray, row: np.ndarray, voxels: SparseVoxels) -> None:
    """Write values, masks, boxes and ranges of the leaves, which are in an order of Warp's."""
    ours, theirs = np.lexsort(blocks.T), np.lexsort((leaves["low"] // SIDE).T)
    at = np.empty(len(blocks), np.int64)
    at[ours] = theirs
    inner = voxels.ijk & (SIDE - 1)
    cell = inner @ np.array([SIDE * SIDE, SIDE, 1])
    dense, active = np.full((len(blocks), SIDE**3), voxels.background, np.float32), np.zeros((len(blocks), SIDE**3), bool)
    dense[at[row], cell], active[at[row], cell] = voxels.values, True
    leaves["values"], leaves["mask"] = dense, np.packbits(active, axis=1, bitorder="little")
    cube = active.reshape(-1, SIDE, SIDE, SIDE)
    along = [np.asarray(cube.any(axis=others)) for others in ((2, 3), (1, 3), (1, 2))]
    first = np.stack([a.argmax(1) for a in along], 1)
    last = SIDE - 1 - np.stack([a[:, ::-1].argmax(1) for a in along], 1)
    corner = np.empty((len(blocks), 3), np.int64)
    corner[at] = blocks * SIDE
    leaves["low"], leaves["span"], leaves["flags"] = corner + first, last - first, 2
    leaves["minimum"] = np.where(active, dense, np.inf).min(1)
    leaves["maximum"] = np.where(active, dense, -np.inf).max(1)


def _file_head(head: Any, roots: Any, box: np.ndarray, name: str) -> bytes:
    """Return the file's header, the grid's entry and its name."""
    entry = np.zeros((), _META_TYPE)
    entry["size"] = entry["stored"] = head["size"]
    entry["key"] = _name_key(name)
    entry["voxels"], entry["type"], entry["class"], entry["world"] = roots["voxels"], head["type"], head["class"], head["world"]
    entry["box"], entry["voxel"], entry["name"], entry["version"] = box.reshape(-1), head["voxel"], len(name.encode()) + 1, _VERSION
    entry["nodes"] = [*roots["nodes"], 1]
    start = _MAGIC + np.array([_VERSION], "<u4").tobytes() + np.array([1, 0], "<u2").tobytes()
    return start + entry.tobytes() + name.encode() + b"\0"


def _name_key(name: str) -> int:
    """Return the number by which NanoVDB finds a grid in a file: base 67 in 64 bits, with the byte that overflows added."""
    key = 0
    for byte in name.encode():
        key = (key * 67 + byte + (key >> 56)) & (1 << 64) - 1
    return key


def read_nvdb(path: Path) -> SparseVoxels:
    """Read the active voxels of a .nvdb file's grid of floats; larger tiles of one value are left out.

    Raises:
        InputError: missing, damaged, of another type, or with cells that are not cubes along the axes.
    """
    grid = np.frombuffer(_grid(Path(path)), np.uint8)
    head, roots, leaves = _parts(grid)
    numbers = grid[_MAP:_MAP + 168].view("<f8")
    matrix, shift = numbers[:9].reshape(3, 3), numbers[18:]
    voxel = float(head["voxel"][0])
    if not np.allclose(matrix, np.eye(3) * voxel, rtol=1e-5, atol=1e-5 * abs(voxel)):
        raise InputError(f"{path}: got a transform {matrix.tolist()}, expected cubes along the axes")
    active = np.unpackbits(leaves["mask"], axis=1, bitorder="little").astype(bool)
    row, cell = np.nonzero(active)
    corner = leaves["low"].astype(np.int64) & ~(SIDE - 1)
    ijk = corner[row] + np.stack([cell // SIDE**2, cell // SIDE % SIDE, cell % SIDE], 1)
    root = _GRID + int(roots["places"][3])
    try:
        return SparseVoxels(ijk, leaves["values"][row, cell], voxel, shift.copy(), float(grid[root + 28:root + 32].view("<f4")[0]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def sample_nvdb(path: Path, points: np.ndarray) -> np.ndarray:
    """Return the values (N,) float32 of a .nvdb file's grid of floats at points (N, 3) [m], trilinear, by Warp on the CPU.

    Raises:
        InputError: missing, damaged, not floats, or points that are not finite.
    """
    data = _grid(Path(path))
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise InputError(f"points: got shape {points.shape} or numbers that are not finite, expected finite (N, 3)")
    wp = load_warp("NanoVDB")
    from lyra_core.surface import _warp_nanovdb_kernels as kernels

    try:
        volume = wp.Volume.load_from_nvdb(_single(data), device="cpu")
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable as NanoVDB: {' '.join(str(error).split())}") from error
    numbers = np.frombuffer(data, "<f8", 21, _MAP)
    places = np.clip((points - numbers[18:]) @ numbers[9:18].reshape(3, 3).T, -REACH, REACH)
    out = wp.zeros(len(points), dtype=wp.float32, device="cpu")
    given = wp.array(places.astype(np.float32), dtype=wp.vec3f, device="cpu")
    wp.launch(kernels.sample, dim=len(points), inputs=[volume.id, given], outputs=[out], device="cpu")
    return out.numpy()


def _single(grid: bytes) -> bytes:
    """Return the file of one uncompressed grid, as Warp's reader takes it."""
    entry = np.zeros((), _META_TYPE)
    entry["size"] = entry["stored"] = len(grid)
    return _MAGIC + grid[16:20] + np.array([1, 0], "<u2").tobytes() + entry.tobytes() + grid


def _grid(path: Path) -> bytes:
    """Return the bytes of the file's first grid, its header and sizes checked: what follows offsets does not look."""
    def fail(field: str, got: object, want: str) -> InputError:
        return InputError(f"{path}: {field}: got {got}, expected {want}")

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    if len(data) < _FILE + _META or data[:8] not in (b"NanoVDB0", b"NanoVDB2"):
        raise fail("header", f"{len(data)} bytes starting {data[:8]!r}", "a NanoVDB file")
    version, count = int(np.frombuffer(data, "<u4", 1, 8)[0]), int(np.frombuffer(data, "<u2", 1, 12)[0])
    codec = int(np.frombuffer(data, "<u2", 1, 14)[0])
    if version >> 21 != 32 or count < 1 or codec not in (0, 1):
        raise fail("header: version, grids, codec", (version >> 21, count, codec), "32, at least 1 and 0 (none) or 1 (zip)")
    at, entries = _FILE, []
    for _ in range(count):
        if at + _META > len(data):
            raise fail("header: grids", count, f"as many as fit into {len(data)} bytes")
        entries.append(np.frombuffer(data, _META_TYPE, 1, at)[0])
        at += _META + int(entries[-1]["name"])
    size, stored = int(entries[0]["size"]), [int(e["stored"]) for e in entries]
    # A zip stream comes after its length in 8 bytes, which NanoVDB counts and Warp does not.
    extra = 8 if codec and at + sum(stored) + 8 * count == len(data) else 0
    if at + sum(stored) + extra * count != len(data):
        raise fail("header: bytes of the grids", stored, f"{len(data) - at} together: it is cut off")
    body = data[at:at + stored[0] + extra]
    grid = body if codec == 0 else _unzipped(body[8:], size)
    if len(grid) != size or size < _GRID + _TREE:
        raise fail("grid: size", size, f"{len(grid)}, at least {_GRID + _TREE}")
    return _checked_grid(grid, fail)


def _unzipped(body: bytes, size: int) -> bytes:
    """Return the bytes of a zip stream, no more than it claims; nothing where it is damaged or claims what no zip can hold."""
    if size > 1100 * len(body) + 1000:
        return b""
    try:
        return zlib.decompressobj().decompress(body, size)
    except zlib.error:
        return b""


def _checked_grid(grid: bytes, fail: Any) -> bytes:
    """Return the grid if it is one of floats whose leaves and root lie within it."""
    head = np.frombuffer(grid, _HEAD, 1)[0]
    if head["magic"] not in _GRID_MAGICS or int(head["size"]) != len(grid):
        raise fail("grid: magic and size", (bytes(head["magic"]), int(head["size"])), f"NanoVDB and {len(grid)}")
    if head["type"] != _FLOAT:
        raise fail("grid: type", int(head["type"]), f"{_FLOAT} (float)")
    roots = np.frombuffer(grid, _ROOTS, 1, _GRID)[0]
    count, room = int(roots["nodes"][0]), len(grid) - _GRID
    if int(roots["places"][0]) + count * LEAF.itemsize > room or int(roots["places"][3]) + 64 > room:
        raise fail("grid: leaves", count, f"as many as fit into {len(grid)} bytes")
    if not (np.isfinite(np.frombuffer(grid, "<f8", 21, _MAP)).all() and np.isfinite(head["voxel"]).all()):
        raise fail("grid: transform", "numbers that are not finite", "finite ones")
    return grid
