"""Exports of World Labs' Marble: splats and a collider mesh, brought into one frame whose axes are checked, not believed.

The export page says that worlds have OpenCV's axes (x right, y down, z forward), a GLB is +Y up by its own standard, and
users find either upside down. So every turn of the splats by quarter turns is tried and the one that lies on the mesh is taken.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lyra_core.errors import InputError
from lyra_core.imports.base import MeshSource, Source
from lyra_core.imports.reading import number, read_text
from lyra_core.types import GaussianCloud

SPLATS, MESHES = (".ply", ".spz"), (".glb", ".gltf")
OPENCV_TO_Y_UP = np.diag([1.0, -1.0, -1.0])
"""What the export page tells to do."""
UP = np.array([0.0, 1.0, 0.0])
_SAMPLES, _ROUGH = 20_000, 2000
_FITS = 0.02
"""Median distance of splats and surface, over the mesh's diagonal, up to which they count as the same place."""
_CLEARLY = 1.15
"""Fits within this factor of the best are equal: the documented turn wins, then none."""


@dataclass(frozen=True)
class Fit:
    """How splats come to lie on the mesh: mesh = scale * turn @ splats."""

    turn: np.ndarray
    """(3, 3) rotation by quarter turns."""
    scale: float
    distance: float
    """Median distance over the mesh's diagonal: of splats to the surface and of the surface to splats, the larger one."""
    runner_up: float
    """The same of the next turn that differs."""


def is_marble(path: Path) -> bool:
    """Say whether a folder holds splats beside a GLB, or splats with Marble's metadata."""
    return bool(_files(path, SPLATS)) and (bool(_files(path, MESHES)) or _metadata(path) is not None)


def load_marble(path: Path) -> Source:
    """Read the largest .spz or .ply, the collider (or other) .glb, and metric_scale_factor and ground_plane_offset of a .json.

    The source has +Y up and the unit of the export. facts: axes, axes_distance, axes_runner_up, scale_of_splats, and where the
    metadata says so metric_scale_factor and ground_height (of the floor along up, in the export's unit).

    Raises:
        InputError: no splats, a damaged file, or splats that lie on the mesh in no orientation.
    """
    splats, meshes = _files(path, SPLATS), _files(path, MESHES)
    if not splats:
        raise InputError(f"{path}: expected splats (.spz or .ply) of a Marble export")
    found = _metadata(path)
    facts: dict[str, Any] = {} if found is None else dict(found[1])
    notes = []
    cloud = _cloud(splats[0])
    mesh: MeshSource | None = None
    if meshes:
        mesh = _mesh(meshes[0])
        metric = facts.get("metric_scale_factor", 1.0)
        fit = fit_axes(cloud.means, mesh, scales=(1.0, metric, 1 / metric))
        if fit.distance > _FITS:
            raise InputError(f"{path}: {splats[0].name} lies off {meshes[0].name} by {100 * fit.distance:.1f} % of its diagonal in "
                             f"the best of 24 orientations, expected at most {100 * _FITS:.0f} %: they may be of different worlds")
        cloud = _turned(cloud, fit)
        facts |= {"axes": _words(fit.turn), "axes_distance": fit.distance, "axes_runner_up": fit.runner_up,
                  "scale_of_splats": fit.scale}
        notes.append(f"The splats lie on the mesh when turned to {_words(fit.turn)}: median distance {100 * fit.distance:.2f} % of "
                     f"the diagonal, next best {100 * fit.runner_up:.2f} %.")
        if not np.isclose(fit.scale, 1.0):
            notes.append(f"The mesh is {fit.scale:g} times as large as the splats, which were scaled to it.")
            if "metric_scale_factor" in facts:
                facts["metric_scale_factor"] /= fit.scale
    else:
        cloud = _turned(cloud, Fit(OPENCV_TO_Y_UP, 1.0, 0.0, 0.0))
        notes.append("Without a mesh the splats were turned from OpenCV's axes to +Y up as the export page says, unchecked.")
    scale = facts.get("metric_scale_factor")
    if scale is not None and "ground_plane_offset" in facts:
        facts["ground_height"] = _ground(facts["ground_plane_offset"] / scale, cloud, mesh)
    files = tuple(file for file in (splats[0], meshes[0] if meshes else None, found[0] if found else None) if file is not None)
    return Source("marble", path, files, mesh=mesh, cloud=cloud, metres_per_unit=scale,
                  unit_stated_by="metric_scale_factor of Marble's metadata" if scale is not None else "", up=UP,
                  licence="World Labs' terms; commercial rights need a paid plan", notes=tuple(notes), facts=facts)


def _ground(offset: float, cloud: GaussianCloud, mesh: MeshSource | None) -> float:
    """Return the ground's height along up. The offset counts along the export's own y, whose sign differs between its formats:
    of the two heights the one nearer to the low end of what is there."""
    heights = cloud.means[:, 1] if mesh is None else mesh.vertices[:, 1]
    low = float(np.nanpercentile(heights, 5))
    return min((-offset, offset), key=lambda height: abs(height - low))


def fit_axes(means: np.ndarray, mesh: MeshSource, *, scales: tuple[float, ...] = (1.0,)) -> Fit:
    """Return the turn (of the 24 by quarter turns) and scale that bring splat centres (N, 3) onto the mesh's surface."""
    surface = _surface_samples(mesh)
    rng = np.random.default_rng(0)
    splats = means[rng.permutation(len(means))[:_SAMPLES]].astype(np.float64)
    if not len(splats) or not len(surface):
        raise InputError("marble: got no splats or no triangles to compare")
    low, high = np.percentile(surface, [0.5, 99.5], axis=0)
    diagonal = max(float(np.linalg.norm(high - low)), 1e-12)
    box = np.array([low - 0.05 * diagonal, high + 0.05 * diagonal])
    every = list(itertools.product(_turns(), dict.fromkeys(scales)))
    rough = np.array([_apart(scale * splats[:_ROUGH] @ turn.T, surface[:_ROUGH], box) / diagonal for turn, scale in every])
    likely = np.flatnonzero(rough <= 1.5 * rough.min())
    exact = rough.copy()
    exact[likely] = [_apart(every[i][1] * splats @ every[i][0].T, surface, box) / diagonal for i in likely]
    best = int(likely[np.argmax(exact[likely] <= exact[likely].min() * _CLEARLY)])
    turn, scale = every[best]
    others = [distance for distance, (other, _) in zip(exact, every, strict=True) if not np.array_equal(other, turn)]
    return Fit(turn, scale, float(exact[best]), float(min(others)))


def _apart(splats: np.ndarray, surface: np.ndarray, box: np.ndarray) -> float:
    """Return the median distance of points to points, the larger of both directions. Far splats are sky and background, which no
    collider covers: those outside of the mesh's box (2, 3) are left out; inf if hardly any are inside."""
    near = splats[((splats > box[0]) & (splats < box[1])).all(1)]
    if len(near) < 0.2 * len(splats):
        return float("inf")
    return float(max(np.median(cKDTree(surface).query(near)[0]), np.median(cKDTree(near).query(surface)[0])))


def _turns() -> list[np.ndarray]:
    """Return the 24 rotations by quarter turns: the documented one first, then none, half turns, the rest."""
    every = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), order] = signs
            if np.linalg.det(turn) > 0:
                every.append(turn)
    return sorted(every, key=lambda turn: (not np.array_equal(turn, OPENCV_TO_Y_UP), -np.trace(np.abs(turn)), -np.trace(turn)))


def _words(turn: np.ndarray) -> str:
    """Return a turn as 'x -y -z': where the mesh's axes come from."""
    return " ".join(f"{'-' if row.sum() < 0 else ''}{'xyz'[int(np.abs(row).argmax())]}" for row in turn)


def _surface_samples(mesh: MeshSource) -> np.ndarray:
    """Return points (N, 3) spread evenly over the triangles."""
    corners = mesh.vertices[mesh.faces]
    corners = corners[np.isfinite(corners).all((1, 2))]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not len(area) or area.sum() <= 0:
        return np.zeros((0, 3))
    rng = np.random.default_rng(0)
    pick = rng.choice(len(area), _SAMPLES, p=area / area.sum())
    a, b = rng.random((2, _SAMPLES, 1))
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    chosen = corners[pick]
    return chosen[:, 0] + a * (chosen[:, 1] - chosen[:, 0]) + b * (chosen[:, 2] - chosen[:, 0])


def _turned(cloud: GaussianCloud, fit: Fit) -> GaussianCloud:
    from lyra_core.splats.transform import transformed

    T = np.eye(4)
    T[:3, :3] = fit.scale * fit.turn
    return transformed(cloud, T)


def _cloud(path: Path) -> GaussianCloud:
    from lyra_core.splats.formats import read_splat_file

    return read_splat_file(path)


def _mesh(path: Path) -> MeshSource:
    from lyra_core.imports.mesh import load_mesh

    mesh = load_mesh(path).mesh
    if mesh is None:
        raise InputError(f"{path}: got no triangles, expected a collider mesh")
    return mesh


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return files by suffix: 'collider' in the name first, then the largest."""
    found = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in suffixes] if path.is_dir() else []
    return sorted(found, key=lambda p: ("collider" not in p.name.lower(), -p.stat().st_size))


def _metadata(path: Path) -> tuple[Path, dict[str, float]] | None:
    """Return the JSON that says metric_scale_factor, at any depth of the API's answer, and what it says."""
    for file in sorted(path.glob("*.json")) if path.is_dir() else []:
        try:
            data = json.loads(read_text(file))
        except (ValueError, RecursionError):
            continue
        found = _search(data, 0)
        if found is None:
            continue
        scale = number(f"{file}: metric_scale_factor", found["metric_scale_factor"])
        if not 1e-6 < scale < 1e6:
            raise InputError(f"{file}: metric_scale_factor: got {scale}, expected a positive number of metres per unit")
        out = {"metric_scale_factor": scale}
        if found.get("ground_plane_offset") is not None:
            out["ground_plane_offset"] = number(f"{file}: ground_plane_offset", found["ground_plane_offset"])
        return file, out
    return None


def _search(data: Any, depth: int) -> dict[str, Any] | None:
    if depth > 12:
        return None
    if isinstance(data, dict):
        if data.get("metric_scale_factor") is not None:
            return data
        data = list(data.values())
    if not isinstance(data, list):
        return None
    return next((found for item in data for found in [_search(item, depth + 1)] if found is not None), None)
