"""Scans of phones with depth sensors (Polycam, Record3D, Stray Scanner), and folders of posed pictures with cameras.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.camera.exchange import OPENGL
from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, VideoFrame, checked_records, select_keyframes
from lyra_core.imports.lens import MAX_SIDE, Lens
from lyra_core.imports.reading import DepthFile, confined, number, numbers, picture_size, read_object, read_text, rigid, rows

ARKIT_UP = np.array([0.0, 1.0, 0.0])
"""ARKit's world has +Y against gravity."""
FARTHEST = 5.0
"""Range of the phones' depth sensor [m]; what is stored beyond it is a guess."""
_ARKIT = "ARKit's world is in metres"
_MIN_BLUR_SCORE = 10.0
"""Polycam's score of the sharpness of a picture; less is left out where enough pictures remain."""


def load_polycam(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read Polycam's raw export: keyframes/ with corrected_images and corrected_cameras where they are, else images and cameras.

    The poses are camera to world with OpenGL's camera axes, gravity along -Y; depth is in millimetres.

    Raises:
        InputError: a missing or damaged file or key, or a pose that is not rigid.
    """
    folder = path / "keyframes" if (path / "keyframes").is_dir() else path
    better = (folder / "corrected_cameras").is_dir() and (folder / "corrected_images").is_dir()
    cameras, images = (("corrected_cameras", "corrected_images") if better else ("cameras", "images"))
    files = sorted((folder / cameras).glob("*.json"), key=lambda p: (len(p.stem), p.stem))
    if not files:
        raise InputError(f"{folder / cameras}: got no camera, expected TIMESTAMP.json files of Polycam's raw export")
    records, sharp = [], []
    for file in files:
        record, score = _polycam_record(folder, images, file)
        records.append(record)
        sharp.append(score >= _MIN_BLUR_SCORE)
    chosen = [r for r, s in zip(records, sharp, strict=True) if s] if sum(sharp) >= max(8, len(records) // 2) else records
    notes = [] if better else ["Poses are ARKit's own, not globally optimised: the export has no corrected_cameras."]
    return _arkit("polycam", path, folder, chosen, len(records), max_frames, max_side, notes)


def _polycam_record(folder: Path, images: str, file: Path) -> tuple[Record, float]:
    data = read_object(file)
    T = np.eye(4)
    T[:3] = [[number(f"{file}: t_{i}{j}", data.get(f"t_{i}{j}")) for j in range(4)] for i in range(3)]
    rigid(str(file), T[None])
    lens = _lens(str(file), data, ("fx", "fy", "cx", "cy"), ("width", "height"))
    picture = next((p for s in (".jpg", ".png") if (p := confined(folder, f"{images}/{file.stem}{s}", what=str(file))).is_file()),
                   folder / images / f"{file.stem}.jpg")
    depth, sure = (confined(folder, f"{kind}/{file.stem}.png", what=str(file)) for kind in ("depth", "confidence"))
    measured = DepthFile(depth, 1e-3, confidence=sure if sure.is_file() else None, farthest=FARTHEST) if depth.is_file() else None
    score = number(f"{file}: blur_score", data["blur_score"]) if data.get("blur_score") is not None else np.inf
    return Record(file.stem, picture, lens, T @ OPENGL, measured), score


def load_record3d(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read Record3D's export: metadata (JSON) with rgbd/N.jpg and N.depth, or metadata.json with rgb/N.jpg and depth/N.exr or .png.

    Poses are qx qy qz qw x y z, camera to world with OpenGL's camera axes; K is stored column by column. N.depth is packed by
    Apple's LZFSE, which pyliblzfse reads; the EXR export needs OpenEXR.

    Raises:
        InputError: a missing or damaged file or key.
        BackendUnavailable: a reader is not installed; raised when the first depth is read.
    """
    file = next((path / name for name in ("metadata.json", "metadata") if (path / name).is_file()), path / "metadata.json")
    data = read_object(file)
    value = data.get("poses")
    count = len(value) if isinstance(value, list) else 0
    poses = numbers(f"{file}: poses", value, (max(count, 1), 7))
    T = _poses(f"{file}: poses", poses[:, :4], poses[:, 4:])
    records = [_record3d_record(path, file, data, i, T[i] @ OPENGL) for i in range(count)]
    return _arkit("record3d", path, path, records, count, max_frames, max_side, [], (file,))


def _record3d_record(path: Path, file: Path, data: dict[str, Any], i: int, T: np.ndarray) -> Record:
    each = data.get("perFrameIntrinsicCoeffs")
    if isinstance(each, list) and i < len(each):
        fx, fy, cx, cy = numbers(f"{file}: perFrameIntrinsicCoeffs[{i}]", each[i], (4,))
    else:
        K = numbers(f"{file}: K", data.get("K"), (9,))
        fx, fy, cx, cy = K[0], K[4], K[6], K[7]
    lens = _lens(str(file), {**data, "fx": fx, "fy": fy, "cx": cx, "cy": cy}, ("fx", "fy", "cx", "cy"), ("w", "h"))
    names = (f"rgb/{i}.jpg", f"rgb/{i}.png", f"rgbd/{i}.jpg", f"rgbd/{i}.png")
    picture = next((path / name for name in names if (path / name).is_file()), path / names[0])
    depth = next((path / name for name in (f"depth/{i}.exr", f"depth/{i}.png", f"rgbd/{i}.depth") if (path / name).is_file()), None)
    measured = None
    if depth is not None:
        size = [data.get("dh"), data.get("dw")] if depth.suffix == ".depth" else [1, 1]
        h, w = (int(number(f"{file}: dh, dw", n)) for n in size)
        if not (0 < h <= MAX_SIDE and 0 < w <= MAX_SIDE):
            raise InputError(f"{file}: dh, dw: got {h}x{w}, expected the size of the depth pictures")
        measured = DepthFile(depth, 1e-3 if depth.suffix == ".png" else 1.0, farthest=FARTHEST, shape=(h, w))
    return Record(str(i), picture, lens, T, measured)


def load_stray(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read a recording of Stray Scanner: rgb.mp4, odometry.csv, camera_matrix.csv, depth/ (millimetres) and confidence/ (0 to 2).

    Its rotations already have OpenCV's camera axes (the app turns ARKit's by half a turn about x); the world is ARKit's.

    Raises:
        InputError: a missing or damaged file, more poses than pictures, or sizes that do not fit.
        BackendUnavailable: there is no ffmpeg.
    """
    video = path / "rgb.mp4"
    K = rows(path / "camera_matrix.csv", columns=3, comma=True)
    if K.shape != (3, 3) or abs(K[2, 2] - 1) > 1e-6:
        raise InputError(f"{path / 'camera_matrix.csv'}: got {K.tolist()}, expected a 3x3 matrix that ends in 1")
    table = rows(path / "odometry.csv", columns=9, comma=True, header=1)
    T = _poses(str(path / "odometry.csv"), table[:, 5:9], table[:, 2:5])
    count, (width, height) = video_facts(video)
    number_of = table[:, 1].astype(int)
    usable = np.flatnonzero((number_of >= 0) & (number_of < count))
    # The last frames of a recording may be missing from its video.
    if len(usable) < 0.9 * len(table):
        raise InputError(f"{video}: got {count} pictures for {len(table)} poses of odometry.csv (frames to {number_of.max()}), "
                         "expected as many")
    lens = Lens("pinhole", width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    records = [Record(f"{n:06d}", VideoFrame(video, n), lens, T[i], _stray_depth(path, n))
               for i in usable for n in [int(number_of[i])]]
    notes = [f"{len(table) - len(usable)} poses lie after the end of the video."] if len(usable) < len(table) else []
    return _arkit("stray", path, path, records, len(records), max_frames, max_side, notes,
                  (path / "camera_matrix.csv", path / "odometry.csv"))


def _stray_depth(path: Path, i: int) -> DepthFile | None:
    depth, sure = path / "depth" / f"{i:06d}.png", path / "confidence" / f"{i:06d}.png"
    if not depth.is_file():
        depth = depth.with_suffix(".npy")
    return DepthFile(depth, 1e-3, confidence=sure if sure.is_file() else None, farthest=FARTHEST) if depth.is_file() else None


def video_facts(path: Path) -> tuple[int, tuple[int, int]]:
    """Return the number of pictures of a video, and their width and height.

    Raises:
        InputError: missing or not a video.
        BackendUnavailable: there is no ffmpeg.
    """
    from lyra_core.errors import WorldError
    from lyra_core.io.video import read_video, require_ffmpeg

    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a video")
    ffmpeg = require_ffmpeg()
    try:
        frames = read_video(path)
        first = next(frames, None)
        frames.close()  # type: ignore[attr-defined]
        if first is None:
            raise InputError(f"{path}: got no picture, expected a video")
        count, _ = ffmpeg.count_frames_and_secs(str(path))
    except (WorldError, RuntimeError, OSError) as error:
        raise InputError(f"{path}: not readable as a video: {' '.join(str(error).split())[:300]}") from error
    return int(count), (first.shape[1], first.shape[0])


def load_posed(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read cameras.json with frames of rgb, depth (16-bit PNG, millimetres), K and camera_to_world (OpenCV axes).

    K is fx fy cx cy or 3x3 and counts pixel centres from 0, unless pixel_centre says 0.5; 'params' of a COLMAP camera
    (PINHOLE) counts from 0.5. up, metres_per_unit and depth_unit are read where they are.

    Raises:
        InputError: a missing or damaged file or key, or a pose that is not rigid.
    """
    file = path if path.suffix == ".json" else path / "cameras.json"
    data, folder = read_object(file), file.parent
    frames = data.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise InputError(f"{file}: frames: got {str(frames)[:80]}, expected a list of objects")
    unit = number(f"{file}: depth_unit", data.get("depth_unit", 1e-3))
    centre = number(f"{file}: pixel_centre", data.get("pixel_centre", 0.0))
    if centre not in (0.0, 0.5) or not 0 < unit < 1e6:
        raise InputError(f"{file}: got pixel_centre {centre} and depth_unit {unit}, expected 0 or 0.5 and a positive factor")
    records = [_posed_record(folder, f"{file}: frames[{i}]", frame, unit, centre) for i, frame in enumerate(frames)]
    rigid(f"{file}: camera_to_world", np.stack([record.T_world_camera for record in records]))
    measured = any(record.depth is not None for record in records)
    scale = number(f"{file}: metres_per_unit", data["metres_per_unit"]) if "metres_per_unit" in data else 1.0 if measured else None
    if scale is not None and not 0 < scale < 1e9:
        raise InputError(f"{file}: metres_per_unit: got {scale}, expected a positive number")
    up = None
    if data.get("up") is not None:
        up = numbers(f"{file}: up", data["up"], (3,))
        if not 1e-6 < np.linalg.norm(up) < 1e6:
            raise InputError(f"{file}: up: got {up.tolist()}, expected a direction")
        up = up / np.linalg.norm(up)
    stated = "metres_per_unit of cameras.json" if "metres_per_unit" in data else "depth in millimetres" if measured else ""
    lazy, notes = _lazy(file, records, max_frames, max_side, metric=scale is not None)
    return Source("posed", path, (file, *lazy.files()), frames=lazy, metres_per_unit=scale, unit_stated_by=stated, up=up,
                  notes=tuple(notes), facts={"images": len(records)})


def _posed_record(folder: Path, where: str, frame: dict[str, Any], unit: float, centre: float) -> Record:
    picture = confined(folder, frame.get("rgb"), what=f"{where}: rgb")
    if not picture.is_file():
        raise InputError(f"{where}: {picture}: no such picture")
    depth = None if frame.get("depth") is None else DepthFile(confined(folder, frame["depth"], what=f"{where}: depth"), unit)
    value, shift = frame.get("K"), 0.5 - centre
    if value is None and frame.get("params") is not None:
        if frame.get("model", "PINHOLE") != "PINHOLE":
            raise InputError(f"{where}: model: got {frame.get('model')!r}, expected PINHOLE")
        value, shift = frame["params"], 0.0
    if isinstance(value, list) and len(value) == 3:
        K = numbers(f"{where}: K", value, (3, 3))
        value = [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
    fx, fy, cx, cy = numbers(f"{where}: K", value, (4,))
    width, height = picture_size(picture)
    size = [number(f"{where}: {key}", frame.get(key, default)) for key, default in (("width", width), ("height", height))]
    lens = _lens(where, {"fx": fx, "fy": fy, "cx": cx + shift, "cy": cy + shift, "w": size[0], "h": size[1]},
                 ("fx", "fy", "cx", "cy"), ("w", "h"))
    T = numbers(f"{where}: camera_to_world", frame.get("camera_to_world"), (4, 4))
    return Record(str(frame["rgb"]), picture, lens, T, depth)


def _poses(where: str, quats_xyzw: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return T (N, 4, 4) of unit quaternions (N, 4) and positions (N, 3)."""
    norm = np.linalg.norm(quats_xyzw, axis=1)
    worst = int(np.abs(norm - 1).argmax())
    if abs(norm[worst] - 1) > 0.01:
        raise InputError(f"{where}: pose {worst}: got a quaternion of length {norm[worst]:.3g}, expected 1")
    T = np.tile(np.eye(4), (len(norm), 1, 1))
    T[:, :3, :3], T[:, :3, 3] = Rotation.from_quat(quats_xyzw).as_matrix(), positions
    return T


def _lens(where: str, data: dict[str, Any], keys: tuple[str, ...], size: tuple[str, str]) -> Lens:
    fx, fy, cx, cy, width, height = (number(f"{where}: {key}", data.get(key)) for key in (*keys, *size))
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise InputError(f"{where}: {size[0]}, {size[1]}: got {width:g}x{height:g}, expected 1 to {MAX_SIDE} px")
    try:
        return Lens("pinhole", int(width), int(height), fx, fy, cx, cy)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _lazy(where: Path, records: list[Record], max_frames: int | None, max_side: int | None, *,
          metric: bool = True) -> tuple[LazyFrames, list[str]]:
    kept = checked_records(str(where), select_keyframes(records, max_frames, metric=metric))
    notes = [f"{len(kept)} of {len(records)} pictures were taken, by motion and sharpness."] if len(kept) < len(records) else []
    return LazyFrames(kept, max_side=max_side), notes


def _arkit(kind: str, path: Path, folder: Path, records: list[Record], count: int, max_frames: int | None, max_side: int | None,
           notes: list[str], files: tuple[Path, ...] = ()) -> Source:
    """Make the source of a phone's capture: metres, +Y up."""
    frames, more = _lazy(folder, records, max_frames, max_side)
    if frames.has_depth.any():
        more.append(f"Depth beyond {FARTHEST:g} m, the range of the phone's sensor, and of low confidence was left out.")
    return Source(kind, path, (*files, *frames.files()), frames=frames, metres_per_unit=1.0, unit_stated_by=_ARKIT, up=ARKIT_UP,
                  notes=(*notes, *more), facts={"images": count})


def is_stray(path: Path) -> bool:
    """Say whether a folder is a recording of Stray Scanner."""
    return (path / "odometry.csv").is_file() and (path / "camera_matrix.csv").is_file()


def is_record3d(path: Path) -> bool:
    """Say whether a folder is an export of Record3D."""
    file = next((path / name for name in ("metadata.json", "metadata") if (path / name).is_file()), None)
    if file is None or not any((path / name).is_dir() for name in ("rgbd", "rgb")):
        return False
    try:
        return '"poses"' in read_text(file)
    except InputError:
        return False
