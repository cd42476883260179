"""Lyra's trajectory files: .npz with w2c, intrinsics, image_height, image_width."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError, WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.types import Trajectory

KEYS = ("w2c", "intrinsics", "image_height", "image_width")
ORTHONORMAL_WITHIN = 1e-3
"""Largest entry of R R^T - I that a file may have."""


def load_trajectory(path: Path, *, width: int, height: int) -> Trajectory:
    """Read a Lyra trajectory, with intrinsics rescaled per axis to width x height [px].

    World frame: the file's own (for Lyra's files the first camera's OpenCV frame; see ``relative_to``).

    Raises:
        InputError: not an .npz, or a key that is missing or wrong; the key, what was got and what was expected are named.
    """
    try:
        data = read_npz(path, *KEYS)
    except WorldError as error:
        raise InputError(str(error)) from error
    w2c, K = (_numbers(path, name, data[name]) for name in ("w2c", "intrinsics"))
    n = len(w2c) if w2c.ndim else 0
    _shape(path, "w2c", w2c, (max(n, 1), 4, 4))
    _shape(path, "intrinsics", K, (n, 3, 3))
    size = [_size(path, name, data[name]) for name in ("image_width", "image_height")]
    check_rigid(f"{path}: w2c", w2c)
    check_intrinsics(f"{path}: intrinsics", K)
    return Trajectory(inverse(w2c), K * np.array([[width / size[0]], [height / size[1]], [1.0]]), width, height)


def save_trajectory(path: Path, trajectory: Trajectory) -> None:
    """Write a Lyra trajectory; float64, so that loading gives the poses back to the last bits."""
    write_npz(
        path,
        w2c=inverse(trajectory.T_world_camera),
        intrinsics=trajectory.K,
        image_height=np.array(trajectory.height, np.int64),
        image_width=np.array(trajectory.width, np.int64),
    )


def relative_to(trajectory: Trajectory, T_world_camera: np.ndarray) -> Trajectory:
    """Re-anchor a path by its relative motion: pose 0 becomes T_world_camera (4, 4) exactly."""
    T_first_camera = inverse(trajectory.T_world_camera[:1]) @ trajectory.T_world_camera
    T = T_world_camera @ T_first_camera
    T[0] = T_world_camera
    return replace(trajectory, T_world_camera=T)


def check_rigid(where: str, T: np.ndarray) -> None:
    """Require finite rigid transforms (N, 4, 4).

    Raises:
        InputError: NaN, a last row other than 0 0 0 1, a rotation that is not orthonormal within 1e-3, or a mirror.
    """
    if not np.isfinite(T).all():
        raise InputError(f"{where}: got NaN or infinity in pose {_first(~np.isfinite(T).all((1, 2)))}, expected finite numbers")
    last = np.abs(T[:, 3] - [0, 0, 0, 1]).max(1)
    if last.max() > 1e-6:
        raise InputError(f"{where}: pose {_first(last > 1e-6)}: got last row {T[last.argmax(), 3].tolist()}, expected 0 0 0 1")
    R = T[:, :3, :3]
    error = np.abs(R @ np.swapaxes(R, 1, 2) - np.eye(3)).max((1, 2))
    if error.max() > ORTHONORMAL_WITHIN:
        at = _first(error > ORTHONORMAL_WITHIN)
        raise InputError(
            f"{where}: pose {at}: got a rotation off orthonormal by {error[at]:.3g}, expected at most {ORTHONORMAL_WITHIN}"
        )
    mirrored = np.asarray(np.linalg.det(R) < 0)
    if mirrored.any():
        raise InputError(f"{where}: pose {_first(mirrored)}: got a mirrored rotation (determinant -1), expected +1")


def check_intrinsics(where: str, K: np.ndarray) -> None:
    """Require finite pinhole matrices (N, 3, 3) with positive focal lengths and last row 0 0 1.

    Raises:
        InputError: otherwise, naming the first bad matrix.
    """
    finite = np.isfinite(K).all((1, 2))
    if not finite.all():
        raise InputError(f"{where}: got NaN or infinity in matrix {_first(~finite)}, expected finite numbers")
    bad = np.asarray((K[:, 0, 0] <= 0) | (K[:, 1, 1] <= 0) | (np.abs(K[:, 2] - [0, 0, 1]).max(1) > 1e-6))
    if bad.any():
        raise InputError(
            f"{where}: matrix {_first(bad)}: got {K[_first(bad)].tolist()}, expected positive focal lengths and last row 0 0 1"
        )


def _numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name}: got type {array.dtype}, expected numbers")
    return array.astype(np.float64)


def _shape(path: Path, name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise InputError(
            f"{path}: {name}: got shape {array.shape}, expected (N, {expected[1]}, {expected[2]}) with N = {expected[0]}"
        )


def _size(path: Path, name: str, array: np.ndarray) -> float:
    value = _numbers(path, name, array)
    if value.size != 1 or not np.isfinite(value).all() or float(value.reshape(-1)[0]) < 1:
        raise InputError(f"{path}: {name}: got {array.tolist()}, expected one positive number of pixels")
    return float(value.reshape(-1)[0])


def _first(bad: ArrayLike) -> int:
    return int(np.flatnonzero(bad)[0])
