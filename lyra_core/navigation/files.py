"""navigation.npz: the free space of a world folder with traversable cells and islands per robot radius."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.navigation.freespace import NO_FLOOR, islands
from lyra_core.types import FreeSpace, Provenance

RADII = (0.2, 0.3, 0.5)
"""Robot radii for which cells and islands are stored [m]."""
_GRIDS = {"free": np.bool_, "clearance": np.float32, "provenance": np.uint8}
_GROUND = {"height": np.float32, "traversability": np.float32}
"""Grids that worlds made before the ground had a height do not have."""


def save_free_space(path: Path, space: FreeSpace, *, radii: tuple[float, ...] = RADII) -> None:
    """Write the grid as .npz.

    Arrays: origin (2,) [m], cell and robot_height () [m], free, clearance [m] and provenance (rows, cols), where the space
    has them height (rows, cols) float32 [m] (0 without floor) and traversability (rows, cols) float32 (1 = level, 0 = cannot
    be), radii (N,) [m], and for each radius traversable_NNcm (rows, cols) bool and islands_NNcm (rows, cols) int32 (1 =
    largest).
    """
    extra: dict[str, np.ndarray] = {}
    for name in _GROUND:
        if (value := getattr(space, name)) is not None:
            extra[name] = np.nan_to_num(value)
    for radius in radii:
        tag = f"{round(100 * radius):02d}cm"
        extra[f"traversable_{tag}"], extra[f"islands_{tag}"] = space.traversable(radius), islands(space, radius)
    write_npz(path, origin=np.asarray(space.origin, np.float64), cell=np.array(space.cell),
              robot_height=np.array(space.robot_height), free=space.free, clearance=space.clearance, provenance=space.provenance,
              radii=np.array(radii, np.float64), **extra)


def load_free_space(path: Path) -> FreeSpace:
    """Read what :func:`save_free_space` wrote; a file without heights is level ground.

    Raises:
        WorldError: the file is missing or damaged, or an array has the wrong type, shape or range; it is named.
    """
    data = read_npz(path)
    missing = [name for name in ("origin", "cell", "robot_height", *_GRIDS) if name not in data]
    if missing:
        raise WorldError(f"{path}: missing {', '.join(missing)}; it holds {', '.join(data)}")
    shape = data["free"].shape
    for name, dtype in [*_GRIDS.items(), *((name, dtype) for name, dtype in _GROUND.items() if name in data)]:
        value = data[name]
        if value.dtype != dtype or value.ndim != 2 or value.shape != shape:
            raise WorldError(f"{path}: {name}: got {value.dtype} {value.shape}, expected {np.dtype(dtype)} of {shape}, 2 axes")
    for name, size in (("origin", (2,)), ("cell", ()), ("robot_height", ())):
        value = data[name]
        if value.shape != size or value.dtype != np.float64 or not np.isfinite(value).all() or (size == () and value <= 0):
            raise WorldError(f"{path}: {name}: got {value.dtype} {value.tolist()}, expected float64 {size}, finite, sizes positive")
    if not np.isfinite(data["clearance"]).all() or data["clearance"].min(initial=0.0) < 0:
        raise WorldError(f"{path}: clearance: got negative or infinite numbers, expected metres")
    if not np.isin(data["provenance"], [*Provenance, NO_FLOOR]).all():
        raise WorldError(f"{path}: provenance: expected {[int(p) for p in Provenance]} or {NO_FLOOR}")
    height, share = data.get("height"), data.get("traversability")
    if height is not None:
        if not np.isfinite(height).all():
            raise WorldError(f"{path}: height: got NaN or infinite numbers, expected metres")
        height = np.where(data["provenance"] == NO_FLOOR, np.float32(np.nan), height)
    if share is not None and not ((share >= 0) & (share <= 1)).all():
        raise WorldError(f"{path}: traversability: got numbers outside 0 to 1")
    return FreeSpace(data["origin"], float(data["cell"]), data["free"], data["clearance"], data["provenance"],
                     float(data["robot_height"]), height, share)
