"""transforms.json of nerfstudio, and its forerunner of instant-ngp and the synthetic Blender scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.camera.exchange import OPENGL
from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, checked_records, select_keyframes
from lyra_core.imports.lens import MAX_SIDE, Lens
from lyra_core.imports.reading import DepthFile, confined, number, numbers, picture_size, read_object, rigid

FILES = ("transforms.json", "transforms_train.json")
_MODELS = {"OPENCV": "opencv", "PINHOLE": "opencv", "SIMPLE_PINHOLE": "opencv", "perspective": "opencv", "PERSPECTIVE": "opencv",
           "OPENCV_FISHEYE": "fisheye", "fisheye": "fisheye", "FISHEYE": "fisheye"}
_MAX_FRAMES = 1_000_000


def load_nerfstudio(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read a folder with transforms.json, or that file.

    Poses are in nerfstudio's own frame before ``applied_transform`` and ``applied_scale``, which are taken back, because depth
    belongs to that frame.

    Raises:
        InputError: a missing or damaged file or key, a camera model that is no perspective or fisheye, a pose that is not rigid,
            a reference out of the folder.
    """
    file = path if path.suffix == ".json" else next((path / name for name in FILES if (path / name).is_file()), path / FILES[0])
    data, folder = read_object(file), file.parent
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames or len(frames) > _MAX_FRAMES or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{file}: frames: got {str(frames)[:80]}, expected a list of 1 to {_MAX_FRAMES} objects")
    T_file = np.stack([_matrix(f"{file}: frames[{i}]", frame) for i, frame in enumerate(frames)])
    rigid(f"{file}: frames: transform_matrix", T_file)
    T, scale = _taken_back(file, data, T_file @ OPENGL)
    unit = _depth_unit(file, data)
    records = [_record(file, folder, data, frame, pose, unit) for frame, pose in zip(frames, T, strict=True)]
    kept = checked_records(str(file), select_keyframes(records, max_frames))
    lazy = LazyFrames(kept, max_side=max_side)
    points, point_files = _points(file, folder, data, scale)
    metric = bool(lazy.has_depth.any())
    notes = [f"{len(kept)} of {len(records)} pictures were taken, by motion and sharpness."] if len(kept) < len(records) else []
    return Source("nerfstudio", path, (file, *point_files, *lazy.files()), frames=lazy, points=points,
                  metres_per_unit=1.0 if metric else None,
                  unit_stated_by="depth_unit_scale_factor of transforms.json turns depth into metres" if metric else "",
                  notes=tuple(notes), facts={"images": len(records)})


def _matrix(where: str, frame: dict[str, Any]) -> np.ndarray:
    value = frame.get("transform_matrix")
    if isinstance(value, list) and len(value) == 3:
        return np.vstack([numbers(f"{where}: transform_matrix", value, (3, 4)), [0, 0, 0, 1]])
    return numbers(f"{where}: transform_matrix", value, (4, 4))


def _taken_back(file: Path, data: dict[str, Any], T: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, float]]:
    """Return the poses before applied_transform and applied_scale, and these two."""
    applied, scale = np.eye(4), 1.0
    if data.get("applied_transform") is not None:
        applied = _matrix(f"{file}: applied_transform", {"transform_matrix": data["applied_transform"]})
        rigid(f"{file}: applied_transform", applied[None])
    if data.get("applied_scale") is not None:
        scale = number(f"{file}: applied_scale", data["applied_scale"])
        if not 1e-6 < scale < 1e6:
            raise InputError(f"{file}: applied_scale: got {scale}, expected a positive factor")
    T = T.copy()
    T[:, :3, 3] /= scale
    return np.linalg.inv(applied) @ T, (applied, scale)


def _depth_unit(file: Path, data: dict[str, Any]) -> float:
    unit = number(f"{file}: depth_unit_scale_factor", data.get("depth_unit_scale_factor", 1e-3))
    if not 0 < unit < 1e6:
        raise InputError(f"{file}: depth_unit_scale_factor: got {unit}, expected a positive factor")
    return unit


def _record(file: Path, folder: Path, data: dict[str, Any], frame: dict[str, Any], T: np.ndarray, unit: float) -> Record:
    name = frame.get("file_path")
    picture = confined(folder, name, what=f"{file}: file_path")
    if not picture.is_file() and not picture.suffix:  # Blender's scenes leave the suffix out
        picture = next((p for s in (".png", ".jpg", ".jpeg") if (p := picture.with_name(picture.name + s)).is_file()), picture)
    depth = None
    if frame.get("depth_file_path") is not None:
        place = confined(folder, frame["depth_file_path"], what=f"{file}: depth_file_path")
        depth = DepthFile(place, 1.0 if place.suffix == ".exr" else unit)
    if not picture.is_file():
        raise InputError(f"{file}: {name}: no such picture in {folder}")
    return Record(str(name), picture, _lens(f"{file}: {name}", {**data, **frame}, picture), T, depth)


def _lens(where: str, said: dict[str, Any], picture: Path) -> Lens:
    """Make the lens of a frame's keys, or the file's where the frame has none; sizes come from the picture if need be."""
    model = said.get("camera_model", "OPENCV_FISHEYE" if said.get("is_fisheye") else "OPENCV")
    if not isinstance(model, str) or model not in _MODELS:
        raise InputError(f"{where}: camera_model: got {model!r}, expected one of {', '.join(_MODELS)}")

    def get(key: str, default: float) -> float:
        return number(f"{where}: {key}", said[key]) if said.get(key) is not None else default

    width, height = get("w", 0.0), get("h", 0.0)
    if not width or not height:
        width, height = picture_size(picture)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise InputError(f"{where}: w, h: got {width:g}x{height:g}, expected 1 to {MAX_SIDE} px")
    fx = _focal(where, "x", get, width)
    if not fx:
        raise InputError(f"{where}: got neither fl_x nor camera_angle_x, expected a focal length")
    fy = _focal(where, "y", get, height) or fx
    names = ("k1", "k2", "k3", "k4") if _MODELS[model] == "fisheye" else ("k1", "k2", "p1", "p2", "k3", "k4")
    bends = tuple(get(name, 0.0) for name in names)
    try:
        return Lens(_MODELS[model], round(width), round(height), fx, fy, get("cx", width / 2), get("cy", height / 2), bends)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _focal(where: str, axis: str, get: Any, side: float) -> float:
    """Return the focal length along an axis [px] by fl_ or camera_angle_; 0 = not said."""
    focal, angle = get(f"fl_{axis}", 0.0), get(f"camera_angle_{axis}", 0.0)
    if focal or not angle:
        return focal
    if not 0 < angle < np.pi:
        raise InputError(f"{where}: camera_angle_{axis}: got {angle}, expected radians between 0 and pi")
    return float(side / 2 / np.tan(angle / 2))


def _points(file: Path, folder: Path, data: dict[str, Any], applied: tuple[np.ndarray, float]) -> tuple[np.ndarray | None, tuple]:
    """Read the sparse points that the file names, in the frame of the poses."""
    if data.get("ply_file_path") is None:
        return None, ()
    path = confined(folder, data["ply_file_path"], what=f"{file}: ply_file_path")
    points = read_point_ply(path)
    T = np.linalg.inv(applied[0])
    return points / applied[1] @ T[:3, :3].T + T[:3, 3], (path,)


def read_point_ply(path: Path) -> np.ndarray:
    """Read the points (N, 3) float64 of a PLY, text or binary little-endian.

    Raises:
        InputError: missing or damaged, or points that are not finite.
    """
    from lyra_core.imports.reading import read_bytes
    from lyra_core.io.ply import read_vertex_ply

    head = read_bytes(path)[: 1 << 16]
    if b"format ascii" in head[:64]:
        points = _ascii_points(path)
    else:
        table = read_vertex_ply(path)
        if not {*"xyz"} <= {*(table.dtype.names or ())}:
            raise InputError(f"{path}: got the properties {table.dtype.names}, expected x, y, z")
        points = np.stack([table[axis].astype(np.float64) for axis in "xyz"], 1)
    if not np.isfinite(points).all():
        raise InputError(f"{path}: got NaN or infinite points, expected positions")
    return points


def _ascii_points(path: Path) -> np.ndarray:
    from lyra_core.imports.reading import floats, read_text

    head, mark, body = read_text(path).partition("end_header\n")
    words = [line.split() for line in head.splitlines()]
    elements = [w for w in words if w[:1] == ["element"]]
    names = [w[-1] for w in words[: next((i for i, w in enumerate(words) if w[:1] == ["element"] and w[1:2] != ["vertex"]), None)]
             if w[:1] == ["property"]]
    lines = body.splitlines()
    if not mark or not elements or elements[0][1:2] != ["vertex"] or names[:3] != ["x", "y", "z"] or not elements[0][2].isdecimal():
        raise InputError(f"{path}: expected a PLY whose first element is vertex with x, y, z")
    count = int(elements[0][2])
    if count > len(lines):
        raise InputError(f"{path}: got {len(lines)} lines after the header, expected {count} vertices")
    return np.array([floats(f"{path}: vertex {i}", lines[i].split(), 3) for i in range(count)]).reshape(-1, 3)
