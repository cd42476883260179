"""The camera path as a list of segments: presets or files, kept in the recipe, so that a world can be walked on or cut back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.build import WorldBuild
from lyra_core.camera.formats import load_trajectory
from lyra_core.camera.trajectories import NEEDS_WAYPOINTS, PRESETS
from lyra_core.config import FRAME_SIZES
from lyra_core.errors import ConfigError, InputError, WorldError
from lyra_core.io.files import sha256_file, write_bytes
from lyra_core.navigation import GeodesicGraph, home_island
from lyra_core.types import Camera, FreeSpace, Trajectory

FRAME_MULTIPLE = 16
"""Video models need sides in multiples of this [px]."""


def tour_waypoints(space: FreeSpace, graph: GeodesicGraph, places: np.ndarray, start: np.ndarray, *, radius: float) -> np.ndarray:
    """Return waypoints (M, 2) of a walk from ``start`` (2,) through the doors to every one of ``places`` (S, 2)."""
    home = np.argwhere(home_island(space, radius))
    cells = space.origin + (home[:, ::-1] + 0.5) * space.cell
    if not len(cells):
        raise InputError(f"navigation: robot_radius: got {radius} m, which fits nowhere in this world; expected a smaller robot")
    here, path = _nearest(cells, start), []
    for place in places:
        goal = _nearest(cells, place)
        path.append(graph.path(graph.field(goal), here)[:, :2])
        here = goal
    return _thinned(np.concatenate(path), 0.7)


def _nearest(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    return points[int(np.argmin(np.hypot(*(points - target).T)))]


def _thinned(path: np.ndarray, spacing: float) -> np.ndarray:
    """Points of a polyline every ``spacing`` metres, so that a spline through them stays near it."""
    step = np.hypot(*np.diff(path, axis=0).T)
    path = path[np.concatenate([[True], step > 1e-6])]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    at = np.linspace(0, length[-1], max(2, int(length[-1] / spacing) + 1))
    return np.stack([np.interp(at, length, path[:, k]) for k in range(2)], 1)


def joined(first: Trajectory, second: Trajectory) -> Trajectory:
    """Return one path after the other; both have the same picture size."""
    return Trajectory(
        np.concatenate([first.T_world_camera, second.T_world_camera]),
        np.concatenate([first.K, second.K]),
        first.width,
        first.height,
    )


def frame_size(camera: Camera, quality: str) -> tuple[int, int]:
    """Width and height [px] of frames: the quality's number of pixels in the photo's shape, in multiples of 16."""
    width, height = FRAME_SIZES[quality]
    aspect = camera.width / camera.height
    sides = np.array([np.sqrt(width * height * aspect), np.sqrt(width * height / aspect)])
    w, h = np.maximum(1, np.round(sides / FRAME_MULTIPLE)).astype(int) * FRAME_MULTIPLE
    return int(w), int(h)


def check_segment(trajectory: str, frames: int) -> dict[str, Any]:
    """Describe one piece of the camera path for the recipe; a file is known by its content.

    Raises:
        InputError: the file is missing, not a trajectory, or has too few poses.
        ConfigError: neither a file nor a preset.
    """
    path = Path(trajectory)
    # A preset's name is never taken for a file that happens to lie in the current folder.
    if trajectory not in PRESETS and (trajectory.endswith(".npz") or path.is_file()):
        if not path.is_file():
            raise InputError(f"trajectory: {trajectory}: no such file")
        # The size only rescales the intrinsics; here the file is counted and checked.
        count = len(load_trajectory(path, width=FRAME_SIZES["draft"][0], height=FRAME_SIZES["draft"][1]))
        if count < frames:
            raise InputError(f"{path}: w2c: got {count} poses, expected at least --frames {frames}")
        return {"trajectory": path.name, "sha256": sha256_file(path), "frames": frames, "use": frames}
    if trajectory not in PRESETS or (trajectory in NEEDS_WAYPOINTS and trajectory != "tour"):
        known = ", ".join(name for name in PRESETS if name not in NEEDS_WAYPOINTS or name == "tour")
        raise ConfigError(f"trajectory: got {trajectory!r}, expected a .npz file or one of {known}")
    return {"trajectory": trajectory, "sha256": None, "frames": frames, "use": frames}


def trajectory_name(trajectory: str) -> str:
    """Name without the folder of this machine."""
    return Path(trajectory).name


def trajectory_copy(number: int) -> str:
    """Where the world keeps a given trajectory file."""
    return f"build/trajectory_{number}.npz"


def keep_trajectory_file(build: WorldBuild, number: int, segment: dict[str, Any], trajectory: str) -> None:
    """Copy a segment's trajectory file into the world, so that it can be made anew from the folder alone."""
    if segment["sha256"]:
        write_bytes(build.folder / trajectory_copy(number), Path(trajectory).read_bytes())


def load_trajectory_copy(folder: Path, number: int, segment: dict[str, Any], camera: Camera) -> Trajectory:
    """Read the poses of a segment's trajectory file from the world.

    Raises:
        WorldError: the copy is missing or damaged.
    """
    path = folder / trajectory_copy(number)
    if not path.is_file() or sha256_file(path) != segment["sha256"]:
        raise WorldError(f"{path}: missing or damaged, expected {segment['trajectory']}; run the command again with that file")
    return load_trajectory(path, width=camera.width, height=camera.height)[: segment["frames"]]


def frame_count(build: WorldBuild) -> int:
    """Number of frames of the recipe."""
    return 1 + sum(segment["use"] - 1 for segment in build.manifest["recipe"]["segments"])


def cut_segments(segments: list[dict[str, Any]], frames: int) -> list[dict[str, Any]]:
    """Keep the first ``frames`` frames of a list of segments."""
    out, left = [], frames - 1
    for segment in segments:
        use = min(segment["use"] - 1, left)
        if use > 0 or not out:
            out.append({**segment, "use": use + 1})
        left -= use
    return out
