"""COLMAP's reconstructions, text and binary: cameras, poses, sparse points, and dense depth maps where there are some."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, checked_records, select_keyframes
from lyra_core.imports.lens import Lens
from lyra_core.imports.reading import DepthFile, confined, floats, read_bytes, read_text

MODELS = (
    ("SIMPLE_PINHOLE", "f cx cy", "pinhole"), ("PINHOLE", "fx fy cx cy", "pinhole"), ("SIMPLE_RADIAL", "f cx cy k1", "opencv"),
    ("RADIAL", "f cx cy k1 k2", "opencv"), ("OPENCV", "fx fy cx cy k1 k2 k3 k4", "opencv"),
    ("OPENCV_FISHEYE", "fx fy cx cy k1 k2 k3 k4", "fisheye"), ("FULL_OPENCV", "fx fy cx cy k1 k2 k3 k4 k5 k6 k7 k8", "opencv"),
    ("FOV", "fx fy cx cy k1", "fov"), ("SIMPLE_RADIAL_FISHEYE", "f cx cy k1", "fisheye"),
    ("RADIAL_FISHEYE", "f cx cy k1 k2", "fisheye"),
    ("THIN_PRISM_FISHEYE", "fx fy cx cy k1 k2 k3 k4 k5 k6 k7 k8", "thin_prism_fisheye"),
)
"""Name, parameters and lens by COLMAP's model id; its order of coefficients is OpenCV's."""
_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", "dense/sparse", "dense/0/sparse", "distorted/sparse/0")
_MAX_ERROR_PX = 20.0
"""A larger median reprojection error means that poses, cameras and points do not belong together."""


@dataclass(frozen=True)
class ColmapModel:
    """A reconstruction as COLMAP stores it; images by name."""

    lenses: dict[int, Lens]
    names: tuple[str, ...]
    camera_ids: np.ndarray
    """(N,) int64"""
    T_world_camera: np.ndarray
    """(N, 4, 4)"""
    pixels: tuple[np.ndarray, ...]
    """Per image (M, 2) float64 observed features [px]."""
    pixel_points: tuple[np.ndarray, ...]
    """Per image (M,) int64 id of the feature's point; -1 = none."""
    point_ids: np.ndarray
    """(P,) int64, ascending."""
    points: np.ndarray
    """(P, 3) float64"""
    point_errors: np.ndarray
    """(P,) float64 reprojection error that the file states [px]; negative = not said."""


def load_colmap(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read a COLMAP reconstruction: a project folder, its sparse folder, or a model folder.

    Raises:
        InputError: no model, a damaged file, a picture that is missing, or points that the cameras do not see where they say.
    """
    folder, notes = _model_folder(path)
    model = read_model(folder)
    facts = {"images": len(model.names), "points": len(model.points), **reprojection(model)}
    if facts.get("reprojection_error_px", 0.0) > _MAX_ERROR_PX:
        raise InputError(f"{folder}: got a median reprojection error of {facts['reprojection_error_px']:.1f} px, expected poses "
                         f"and points that belong together (below {_MAX_ERROR_PX:.0f} px)")
    images = _images_folder(path, folder, model.names[0])
    records = [Record(name, confined(images, name, what=f"{folder}: image name"), model.lenses[int(camera)], T,
                      _dense_map(images, name))
               for name, camera, T in zip(model.names, model.camera_ids, model.T_world_camera, strict=True)]
    kept = checked_records(str(folder), select_keyframes(records, max_frames))
    if len(kept) < len(records):
        notes.append(f"{len(kept)} of {len(records)} pictures were taken, by motion and sharpness.")
    frames = LazyFrames(kept, max_side=max_side)
    tables = tuple(file for name in ("cameras", "images", "points3D") for file in [_table(folder, name)] if file is not None)
    return Source("colmap", path, (*tables, *frames.files()), frames=frames, points=model.points, notes=tuple(notes), facts=facts)


def read_model(folder: Path) -> ColmapModel:
    """Read cameras, images and points3D, binary where there is one, else text.

    Raises:
        InputError: a missing or damaged file, counts that the file's size does not bear out, numbers that are not finite, an
            unknown camera model or id.
    """
    files = {name: _table(folder, name) for name in ("cameras", "images", "points3D")}
    cameras, images = files["cameras"], files["images"]
    if cameras is None or images is None:
        raise InputError(f"{folder}: expected cameras and images as .bin or .txt (COLMAP's model)")
    lenses = _cameras_bin(cameras) if cameras.suffix == ".bin" else _cameras_txt(cameras)
    rows = _images_bin(images) if images.suffix == ".bin" else _images_txt(images)
    if not rows:
        raise InputError(f"{images}: got no image, expected at least one with a pose")
    rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: rows[i].name)]
    unknown = [row for row in rows if row.camera not in lenses]
    if unknown:
        raise InputError(f"{images}: {unknown[0].name}: got camera {unknown[0].camera}, expected one of {cameras.name}")
    ids, points, errors = _points(files["points3D"])
    T = inverse(np.stack([row.T_camera_world for row in rows]))
    return ColmapModel(lenses, tuple(row.name for row in rows), np.array([row.camera for row in rows], np.int64), T,
                       tuple(row.pixels for row in rows), tuple(row.points for row in rows), ids, points, errors)


def reprojection(model: ColmapModel) -> dict[str, float]:
    """Return the median and mean distance of the observed features from their points' projections [px], and how many there
    are; empty without any. The mean of the errors that the file states comes along for comparison."""
    off = []
    T_camera_world = inverse(model.T_world_camera)
    for T, camera, pixels, ids in zip(T_camera_world, model.camera_ids, model.pixels, model.pixel_points, strict=True):
        place = np.searchsorted(model.point_ids, ids)
        place[place == len(model.point_ids)] = 0
        known = (ids >= 0) & (model.point_ids[place] == ids) if len(model.point_ids) else np.zeros(len(ids), bool)
        local = model.points[place[known]] @ T[:3, :3].T + T[:3, 3]
        with np.errstate(all="ignore"):
            u, v = model.lenses[int(camera)].projected(local[:, 0] / local[:, 2], local[:, 1] / local[:, 2])
            off.append(np.where(local[:, 2] > 0, np.hypot(u - pixels[known, 0], v - pixels[known, 1]), 1e4))
    every = np.nan_to_num(np.concatenate(off), nan=1e4, posinf=1e4)
    if not len(every):
        return {}
    stated = model.point_errors[model.point_errors >= 0]
    return {"reprojection_error_px": float(np.median(every)), "mean_reprojection_error_px": float(every.mean()),
            "observations": len(every), **({"stated_error_px": float(stated.mean())} if len(stated) else {})}


@dataclass(frozen=True)
class _Row:
    name: str
    camera: int
    T_camera_world: np.ndarray
    pixels: np.ndarray
    points: np.ndarray


class _Cursor:
    """A place in a binary file that refuses to run over its end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, read_bytes(path), 0

    def take(self, form: str) -> tuple:
        size = struct.calcsize(form)
        self._need(size, form)
        self.at += size
        return struct.unpack_from(form, self.data, self.at - size)

    def count(self, least: int) -> int:
        """Read a count of items of at least so many bytes each."""
        (value,) = self.take("<Q")
        if value * least > len(self.data) - self.at:
            raise InputError(f"{self.path}: got a count of {value} at byte {self.at - 8} and {len(self.data) - self.at} bytes "
                             f"after it, expected at least {least} bytes for each")
        return value

    def table(self, dtype: list[tuple[str, str]], count: int) -> np.ndarray:
        kind = np.dtype(dtype)
        self._need(kind.itemsize * count, f"{count} rows")
        self.at += kind.itemsize * count
        return np.frombuffer(self.data, kind, count, self.at - kind.itemsize * count)

    def text(self) -> str:
        end = self.data.find(b"\0", self.at, self.at + 4096)
        if end < 0:
            raise InputError(f"{self.path}: got no end of the name at byte {self.at}, expected a zero byte within 4096")
        name, self.at = self.data[self.at:end], end + 1
        return name.decode("utf-8", "replace")

    def finish(self) -> None:
        if self.at != len(self.data):
            raise InputError(f"{self.path}: got {len(self.data) - self.at} bytes after the last item, expected none")

    def _need(self, size: int, what: str) -> None:
        if self.at + size > len(self.data):
            raise InputError(f"{self.path}: got {len(self.data)} bytes, expected {what} at byte {self.at}: the file is cut off")


def _lens(where: str, model: tuple[str, str, str], width: int, height: int, values: np.ndarray) -> Lens:
    """Make the lens of a camera's parameters; one focal length stands for both."""
    named = dict(zip(model[1].split(), values, strict=True))
    fx, fy = named.get("fx", named.get("f", 0.0)), named.get("fy", named.get("f", 0.0))
    bends = tuple(float(named[name]) for name in model[1].split() if name.startswith("k"))
    try:
        return Lens(model[2], width, height, float(fx), float(fy), float(named["cx"]), float(named["cy"]), bends)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _cameras_txt(path: Path) -> dict[int, Lens]:
    known, lenses = {model[0]: model for model in MODELS}, {}
    for at, line in enumerate(read_text(path).splitlines(), 1):
        fields, where = line.split(), f"{path}: line {at}"
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 4 or fields[1] not in known:
            raise InputError(f"{where}: got {line[:80]!r}, expected id, model ({', '.join(known)}), width, height, parameters")
        model = known[fields[1]]
        size, count = floats(where, [fields[0], *fields[2:4]], 3), len(model[1].split())
        if len(fields) != 4 + count:
            raise InputError(f"{where}: got {len(fields) - 4} parameters of {model[0]}, expected {count}: {model[1]}")
        lenses[int(size[0])] = _lens(where, model, int(size[1]), int(size[2]), floats(where, fields[4:], count))
    return lenses


def _cameras_bin(path: Path) -> dict[int, Lens]:
    cursor, lenses = _Cursor(path), {}
    for _ in range(cursor.count(24)):
        number, model, width, height = cursor.take("<IiQQ")
        if not 0 <= model < len(MODELS):
            raise InputError(f"{path}: camera {number}: got model {model}, expected 0 to {len(MODELS) - 1}")
        values = np.array(cursor.take(f"<{len(MODELS[model][1].split())}d"))
        lenses[number] = _lens(f"{path}: camera {number}", MODELS[model], width, height, values)
    cursor.finish()
    return lenses


def _pose(where: str, values: np.ndarray) -> np.ndarray:
    """Return T_camera_world (4, 4) of a quaternion (w first) and a translation."""
    norm = float(np.linalg.norm(np.clip(values[:4], -2, 2)))
    if not np.isfinite(values).all() or not 0.99 < norm < 1.01:
        raise InputError(f"{where}: got the pose {values.tolist()}, expected a unit quaternion (w first) and a translation")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_quat(np.roll(values[:4], -1)).as_matrix(), values[4:7]
    return T


def _images_txt(path: Path) -> list[_Row]:
    # Every image has two lines and the second may be empty, so blank lines count.
    lines = [line for line in read_text(path).splitlines() if not line.startswith("#")]
    rows = []
    for at in range(0, len(lines), 2):
        fields = lines[at].split(maxsplit=9)
        if not fields and not any(line.strip() for line in lines[at:]):
            break
        if len(fields) != 10:
            raise InputError(f"{path}: got {lines[at][:80]!r}, expected id, quaternion, translation, camera id and name")
        where = f"{path}: {fields[9]}"
        values = floats(where, fields[1:9], 8)
        seen = lines[at + 1].split() if at + 1 < len(lines) else []
        if len(seen) % 3:
            raise InputError(f"{where}: got {len(seen)} numbers of features, expected three for each")
        table = floats(f"{where}: features", seen, len(seen)).reshape(-1, 3)
        table[:, 2] = np.clip(table[:, 2], -1, 2.0**62)
        rows.append(_Row(fields[9], int(values[7]), _pose(where, values[:7]), table[:, :2], table[:, 2].astype(np.int64)))
    return rows


def _images_bin(path: Path) -> list[_Row]:
    cursor, rows = _Cursor(path), []
    for _ in range(cursor.count(73)):
        number, *pose, camera = cursor.take("<I7dI")
        name = cursor.text()
        seen = cursor.table([("xy", "<f8", (2,)), ("point", "<u8")], cursor.count(24))  # type: ignore[list-item]
        if not np.isfinite(seen["xy"]).all():
            raise InputError(f"{path}: {name}: got NaN or infinite features, expected pixels")
        rows.append(_Row(name, camera, _pose(f"{path}: image {number} {name!r}", np.array(pose)), seen["xy"],
                         seen["point"].astype(np.int64)))
    cursor.finish()
    return rows


def _points(path: Path | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids (P,) ascending, points (P, 3) and stated errors (P,); none without a file."""
    if path is None:
        return np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0)
    ids, values = [], []
    if path.suffix == ".bin":
        cursor = _Cursor(path)
        for _ in range(cursor.count(51)):
            number, x, y, z, _, _, _, error = cursor.take("<Q3d3Bd")
            cursor.table([("image", "<u4"), ("feature", "<u4")], cursor.count(8))
            ids.append(number)
            values.append((x, y, z, error))
        cursor.finish()
    else:
        for at, line in enumerate(read_text(path).splitlines(), 1):
            fields = line.split(maxsplit=8)
            if fields and not fields[0].startswith("#"):
                row = floats(f"{path}: line {at}", fields, 8)
                ids.append(int(row[0]))
                values.append((*row[1:4], row[7]))
    table = np.array(values, float).reshape(-1, 4)
    if not np.isfinite(table[:, :3]).all() or (len(table) and np.abs(table[:, :3]).max() > 1e9):
        raise InputError(f"{path}: got NaN, infinite or absurd points, expected positions")
    if ids and max(ids) >= 1 << 63:
        raise InputError(f"{path}: got point id {max(ids)}, expected less than 2^63")
    order = np.argsort(np.array(ids, np.int64), kind="stable")
    return np.array(ids, np.int64)[order], table[order, :3], np.nan_to_num(table[order, 3], nan=-1.0)


def _table(folder: Path, name: str) -> Path | None:
    return next((folder / f"{name}{suffix}" for suffix in (".bin", ".txt") if (folder / f"{name}{suffix}").is_file()), None)


def find_model(path: Path) -> Path | None:
    """Return the folder of the model that belongs to a path, or None."""
    return next((path / name for name in _FOLDERS if _table(path / name, "cameras") and _table(path / name, "images")), None)


def _model_folder(path: Path) -> tuple[Path, list[str]]:
    """Return the model's folder; of several models the one with the largest list of images."""
    folder = find_model(path)
    if folder is None:
        raise InputError(f"{path}: expected COLMAP's cameras and images (.bin or .txt) here or in {', '.join(_FOLDERS[1:])}")
    if not folder.name.isdigit():
        return folder, []
    several = [f for f in sorted(folder.parent.iterdir()) if f.name.isdigit() and _table(f, "cameras") and _table(f, "images")]
    sizes = {f: t.stat().st_size for f in several for t in [_table(f, "images")] if t is not None}
    best = max(several, key=lambda f: (sizes[f], f == folder))
    return best, [f"The largest of {len(several)} separate models was taken ({best.name})."] if len(several) > 1 else []


def _images_folder(path: Path, folder: Path, name: str) -> Path:
    """Return the folder that image names are relative to: the first where the first image lies."""
    roots = (path, folder, folder.parent, folder.parent.parent)
    looked = list(dict.fromkeys([*(root / "images" for root in roots), *(root / "rgb" for root in roots[:1]), *roots]))
    for root in looked:
        if confined(root, name, what=f"{folder}: image name").is_file():
            return root
    raise InputError(f"{folder}: {name}: no such picture in {', '.join(str(root) for root in looked[:4])}")


def _dense_map(images: Path, name: str) -> DepthFile | None:
    """Return the depth map that COLMAP's stereo left for an image; geometric ones only, which are checked between views."""
    path = confined(images.parent, f"stereo/depth_maps/{name}.geometric.bin", what="depth map")
    return DepthFile(path) if path.is_file() else None
