"""Camera paths of other tools: COLMAP text, nerfstudio transforms.json, TUM poses. Converted to T_world_camera at the door."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.camera.formats import check_intrinsics, check_rigid
from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.io.files import write_bytes, write_json
from lyra_core.types import Camera, Trajectory

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Maps OpenGL camera axes (y up, looking along -z) to OpenCV's and back."""


def load_colmap(folder: Path) -> tuple[Trajectory, list[str]]:
    """Read cameras.txt and images.txt of a COLMAP text model; images in the file's order with their names.

    Raises:
        InputError: a missing or damaged file, a camera with distortion, or images of several sizes.
    """
    cameras = {}
    for line in _lines(folder / "cameras.txt"):
        fields = line.split()
        cameras[fields[0]] = _colmap_camera(folder / "cameras.txt", fields)
    # Every image has two lines and the second may be empty, so blank lines count.
    lines = [line for line in _read(folder / "images.txt").splitlines() if not line.startswith("#")]
    T, K, sizes, names = [], [], set(), []
    for line in lines[::2]:
        fields = line.split(maxsplit=9)
        if len(fields) != 10 or fields[8] not in cameras:
            raise InputError(f"{folder / 'images.txt'}: got {line[:80]!r}, expected id, pose, known camera id, name")
        T.append(_from_quat_wxyz(_floats(folder / "images.txt", fields[1:5]), _floats(folder / "images.txt", fields[5:8])))
        camera = cameras[fields[8]]
        K.append(camera.K)
        sizes.add((camera.width, camera.height))
        names.append(fields[9])
    if len(sizes) != 1:
        raise InputError(f"{folder}: got {len(names)} images of sizes {sorted(sizes)}, expected one size")
    return _checked(str(folder), inverse(np.array(T)), np.array(K), *sizes.pop()), names


def save_colmap(folder: Path, trajectory: Trajectory, names: list[str] | None = None) -> None:
    """Write cameras.txt (one PINHOLE camera per frame), images.txt and an empty points3D.txt."""
    names = names or [f"{i:06d}.png" for i in range(len(trajectory))]
    cameras, images = [], []
    T_camera_world = inverse(trajectory.T_world_camera)
    for i, (K, T, name) in enumerate(zip(trajectory.K, T_camera_world, names, strict=True), 1):
        parameters = " ".join(f"{x:.17g}" for x in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
        cameras.append(f"{i} PINHOLE {trajectory.width} {trajectory.height} {parameters}")
        motion = " ".join(f"{x:.17g}" for x in (*_quat_wxyz(T), *T[:3, 3]))
        images.append(f"{i} {motion} {i} {name}\n")
    write_bytes(folder / "cameras.txt", ("\n".join(cameras) + "\n").encode())
    write_bytes(folder / "images.txt", ("\n".join(images) + "\n").encode())
    write_bytes(folder / "points3D.txt", b"")


def load_nerfstudio(path: Path) -> tuple[Trajectory, list[str]]:
    """Read a nerfstudio transforms.json (OpenGL camera axes) and its file paths.

    Raises:
        InputError: a missing or damaged file or key, lens distortion, or frames of several sizes.
    """
    try:
        data = json.loads(_read(path))
        frames = data["frames"]
        T = np.array([frame["transform_matrix"] for frame in frames], float)
        get = [{**data, **frame} for frame in frames]
        sizes = {(int(g["w"]), int(g["h"])) for g in get}
        K = np.array([[[g["fl_x"], 0, g["cx"]], [0, g["fl_y"], g["cy"]], [0, 0, 1]] for g in get], float)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a transforms.json: {type(error).__name__}: {error}") from error
    if any(g.get(k) for g in get for k in ("k1", "k2", "k3", "k4", "p1", "p2")):
        raise InputError(f"{path}: got lens distortion, expected undistorted pictures")
    if len(sizes) != 1 or T.shape[1:] != (4, 4):
        raise InputError(f"{path}: got {len(frames)} frames of sizes {sorted(sizes)}, expected (4, 4) of one size")
    return _checked(str(path), T @ OPENGL, K, *sizes.pop()), [str(frame.get("file_path", "")) for frame in frames]


def save_nerfstudio(path: Path, trajectory: Trajectory, names: list[str] | None = None) -> None:
    """Write a nerfstudio transforms.json with one set of intrinsics per frame."""
    names = names or [f"frames/{i:06d}.png" for i in range(len(trajectory))]
    frames = [
        {
            "file_path": name,
            "transform_matrix": (T @ OPENGL).tolist(),
            "fl_x": K[0, 0],
            "fl_y": K[1, 1],
            "cx": K[0, 2],
            "cy": K[1, 2],
        }
        for T, K, name in zip(trajectory.T_world_camera, trajectory.K, names, strict=True)
    ]
    write_json(path, {"camera_model": "OPENCV", "w": trajectory.width, "h": trajectory.height, "frames": frames})


def load_tum(path: Path, camera: Camera) -> tuple[Trajectory, np.ndarray]:
    """Read TUM poses (timestamp tx ty tz qx qy qz qw per line, camera to world) and the timestamps (N,) [s].

    Raises:
        InputError: a missing file or a line that is not eight numbers.
    """
    rows = np.array([_floats(path, line.split(), count=8) for line in _lines(path)])
    if not len(rows):
        raise InputError(f"{path}: got no pose, expected lines of timestamp tx ty tz qx qy qz qw")
    T = np.array([_from_quat_wxyz(row[[7, 4, 5, 6]], row[1:4]) for row in rows])
    return _checked(str(path), T, np.repeat(camera.K[None], len(T), 0), camera.width, camera.height), rows[:, 0]


def save_tum(path: Path, trajectory: Trajectory, timestamps: np.ndarray) -> None:
    """Write TUM poses; timestamps (N,) [s]."""
    rows = []
    for time, T in zip(timestamps, trajectory.T_world_camera, strict=True):
        w, x, y, z = _quat_wxyz(T)
        rows.append(" ".join(f"{v:.17g}" for v in (time, *T[:3, 3], x, y, z, w)))
    write_bytes(path, ("# timestamp tx ty tz qx qy qz qw\n" + "\n".join(rows) + "\n").encode())


def _colmap_camera(path: Path, fields: list[str]) -> Camera:
    counts = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
    if len(fields) < 5 or fields[1] not in counts:
        raise InputError(f"{path}: got model {fields[1:2]}, expected PINHOLE or SIMPLE_PINHOLE: undistort first")
    values = _floats(path, fields[4:], count=counts[fields[1]])
    fx, fy, cx, cy = values if len(values) == 4 else (values[0], *values)
    width, height = _floats(path, fields[2:4])
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), int(width), int(height))


def _checked(where: str, T: np.ndarray, K: np.ndarray, width: int, height: int) -> Trajectory:
    check_rigid(where, T)
    check_intrinsics(where, K)
    return Trajectory(T, K, width, height)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text: {error}") from error


def _lines(path: Path) -> list[str]:
    return [line for line in _read(path).splitlines() if line.strip() and not line.startswith("#")]


def _floats(path: Path, fields: list[str], *, count: int | None = None) -> np.ndarray:
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as error:
        raise InputError(f"{path}: got {' '.join(fields)[:80]!r}, expected numbers") from error
    if (count is not None and len(values) != count) or not np.isfinite(values).all():
        raise InputError(f"{path}: got {' '.join(fields)[:80]!r}, expected {count or len(fields)} finite numbers")
    return values


def _from_quat_wxyz(quat_wxyz: np.ndarray, translation: np.ndarray) -> np.ndarray:
    norm = float(np.linalg.norm(quat_wxyz))
    if not 0.99 < norm < 1.01:
        raise InputError(f"quaternion: got {np.asarray(quat_wxyz).tolist()} of length {norm:.4g}, expected a unit quaternion")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat(np.roll(quat_wxyz, -1)).as_matrix(), translation
    return T


def _quat_wxyz(T: np.ndarray) -> np.ndarray:
    return np.roll(Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True), 1)
