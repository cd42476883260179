"""RGB-D sequences in the layout of the TUM benchmark (Sturm et al. 2012)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, checked_records, select_keyframes
from lyra_core.imports.lens import Lens
from lyra_core.imports.reading import DepthFile, confined, floats, numbers, picture_size, read_object, read_text, rows

MAX_APART = 0.02
"""Largest difference of time stamps of a picture, its depth and its pose [s]."""
DEPTH_UNIT = 1 / 5000
"""[m per stored number]"""
_CALIBRATED: dict[str, tuple[float, ...]] = {
    "1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "3": (535.4, 539.2, 320.1, 247.6),
}
"""fx fy cx cy k1 k2 p1 p2 k3 of the three cameras, 640x480 px, as the benchmark's page gives them: pixel centres at 0."""
_TRAJECTORIES = ("groundtruth.txt", "trajectory.txt", "CameraTrajectory.txt", "KeyFrameTrajectory.txt", "poses.txt",
                 "livingRoom.gt.freiburg")
_CALIBRATIONS = ("calibration.txt", "camera.txt", "intrinsics.txt", "calibration.json", "camera.json", "intrinsics.json",
                 "camera_intrinsic.json")


def load_tum(path: Path, *, intrinsics: tuple[float, ...] | None = None, max_frames: int | None = 120,
             max_side: int | None = None) -> Source:
    """Read rgb.txt, depth.txt and a trajectory; each picture takes the depth and the pose nearest in time, 20 ms apart at most.

    Args:
        intrinsics: fx fy cx cy [px, the picture's upper left corner = (0, 0)]; None = a calibration file of the folder, else the
            freiburg camera that the folder's name says.

    Raises:
        InputError: a missing or damaged file, no camera known, or no picture with a pose near in time.
    """
    times, names = _list(path / "rgb.txt")
    trajectory = next((path / name for name in _TRAJECTORIES if (path / name).is_file()), path / _TRAJECTORIES[0])
    poses = rows(trajectory, columns=8)
    T, near_pose = _poses(trajectory, poses), _nearest(poses[:, 0], times)
    depth = _depth(path, times)
    usable = [i for i in range(len(times)) if near_pose[i] >= 0]
    if not usable:
        raise InputError(f"{trajectory}: got no pose within {1000 * MAX_APART:.0f} ms of a picture of rgb.txt (pictures "
                         f"{times.min():.3f} to {times.max():.3f}, poses {poses[:, 0].min():.3f} to {poses[:, 0].max():.3f} s)")
    pictures = {i: confined(path, names[i], what=f"{path / 'rgb.txt'}") for i in usable}
    lens, stated, files = _lens(path, intrinsics, pictures[usable[0]])
    records = [Record(names[i], pictures[i], lens, T[near_pose[i]], depth[i]) for i in usable]
    kept = checked_records(str(path), select_keyframes(records, max_frames, metric=True))
    frames = LazyFrames(kept, max_side=max_side)
    notes = [f"The camera is {stated}."]
    if len(usable) < len(times):
        notes.append(f"{len(times) - len(usable)} of {len(times)} pictures have no pose within 20 ms and were left out.")
    if len(kept) < len(records):
        notes.append(f"{len(kept)} of {len(records)} pictures were taken, by motion and sharpness.")
    # The benchmark's motion capture has z up; another trajectory may start anywhere.
    up = np.array([0.0, 0, 1]) if trajectory.name == "groundtruth.txt" and _freiburg(path) else None
    return Source("tum", path, (path / "rgb.txt", trajectory, *files, *frames.files()), frames=frames, metres_per_unit=1.0,
                  unit_stated_by="the layout of the TUM RGB-D benchmark is in metres", up=up, notes=tuple(notes),
                  licence="CC BY 4.0" if _freiburg(path) else "unknown", facts={"images": len(times), "posed": len(usable)})


def _list(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return the time stamps (N,) [s] and the names of a list of files."""
    times, names = [], []
    for at, line in enumerate(read_text(path).splitlines(), 1):
        fields = line.split(maxsplit=1)
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 2:
            raise InputError(f"{path}: line {at}: got {line[:80]!r}, expected a time stamp and a file name")
        times.append(floats(f"{path}: line {at}", fields, 1)[0])
        names.append(fields[1].strip())
    if not times:
        raise InputError(f"{path}: got no line, expected a time stamp and a file name on each")
    return np.array(times), names


def _poses(path: Path, table: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(table[:, 4:8], axis=1)
    bad = np.abs(norm - 1) > 0.01
    if bad.any():
        raise InputError(f"{path}: got the quaternion {table[bad][0, 4:8].tolist()} at {table[bad][0, 0]}, expected length 1")
    T = np.tile(np.eye(4), (len(table), 1, 1))
    T[:, :3, :3], T[:, :3, 3] = Rotation.from_quat(table[:, 4:8]).as_matrix(), table[:, 1:4]
    return T


def _nearest(stamps: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return for each time the index of the nearest stamp, -1 if it is more than 20 ms away."""
    order = np.argsort(stamps, kind="stable")
    after = np.clip(np.searchsorted(stamps[order], times), 1, len(stamps) - 1) if len(stamps) > 1 else np.zeros(len(times), int)
    before = np.maximum(after - 1, 0)
    closer = np.abs(stamps[order][before] - times) <= np.abs(stamps[order][after] - times)
    index = order[np.where(closer, before, after)]
    return np.where(np.abs(stamps[index] - times) <= MAX_APART, index, -1)


def _depth(path: Path, times: np.ndarray) -> list[DepthFile | None]:
    if not (path / "depth.txt").is_file():
        return [None] * len(times)
    stamps, names = _list(path / "depth.txt")
    near = _nearest(stamps, times)
    return [DepthFile(confined(path, names[j], what=f"{path / 'depth.txt'}"), DEPTH_UNIT) if j >= 0 else None for j in near]


def _freiburg(path: Path) -> str | None:
    found = re.search(r"(?:freiburg|fr)([123])(?:_|\b)", path.resolve().name)
    return found.group(1) if found else None


def _lens(path: Path, intrinsics: tuple[float, ...] | None, picture: Path) -> tuple[Lens, str, tuple[Path, ...]]:
    """Return the lens, what it is known from, and the file that says so."""
    width, height = picture_size(picture)
    files: tuple[Path, ...] = ()
    if intrinsics is not None:
        if len(intrinsics) != 4:
            raise InputError(f"intrinsics: got {intrinsics}, expected fx fy cx cy")
        return Lens("opencv", width, height, *intrinsics), "given by hand", ()
    file = next((path / name for name in _CALIBRATIONS if (path / name).is_file()), None)
    if file is not None:
        values = _calibration(file)
        said, files = f"read from {file.name}", (file,)
    elif (number := _freiburg(path)) is not None:
        values, said = np.array(_CALIBRATED[number]), f"that of freiburg{number}, as the folder's name says"
        width, height = 640, 480
    else:
        raise InputError(f"{path}: got no camera, expected 'freiburg1' to 3 in the folder's name, one of "
                         f"{', '.join(_CALIBRATIONS)}, or intrinsics fx fy cx cy")
    fx, fy, cx, cy, *bends = (float(v) for v in values)
    return Lens("opencv", width, height, fx, fy, cx + 0.5, cy + 0.5, tuple(bends)), said, files


def _calibration(path: Path) -> np.ndarray:
    """Return fx fy cx cy and up to five coefficients; a 3x3 matrix, a row of numbers, or Open3D's and OpenCV's JSON."""
    if path.suffix == ".json":
        data = read_object(path)
        if "intrinsic_matrix" in data:  # Open3D, column by column
            m = numbers(f"{path}: intrinsic_matrix", data["intrinsic_matrix"], (9,))
            return np.array([m[0], m[4], m[6], m[7]])
        return np.array([float(numbers(f"{path}: {key}", data.get(key), ())) for key in ("fx", "fy", "cx", "cy")])
    values = [v for line in read_text(path).splitlines() if not line.startswith("#") for v in line.replace(",", " ").split()]
    if len(values) == 9 and floats(str(path), values, 9)[-1] == 1:  # five coefficients never end in exactly 1
        m = floats(str(path), values, 9)
        return np.array([m[0], m[4], m[2], m[5]])
    if not 4 <= len(values) <= 9:
        raise InputError(f"{path}: got {len(values)} numbers, expected fx fy cx cy [k1 k2 p1 p2 k3] or a 3x3 matrix")
    return floats(str(path), values, len(values))
