"""RGB-D sequences in the layout of Microsoft's 7-Scenes (Shotton et al. 2013)."""

from __future__ import annotations

from pathlib import Path

from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, checked_records, select_keyframes
from lyra_core.imports.lens import Lens
from lyra_core.imports.reading import DepthFile, confined, picture_size, rows

FOCAL = 585.0
"""The benchmark's focal length, principal point in the middle of 640x480 px."""
_NONE = (0.0, 65535.0)


def sequences(path: Path) -> list[Path]:
    """Return the folders with frame-*.pose.txt: the path itself or its seq-* subfolders."""
    folders = [path, *sorted(p for p in path.glob("seq-*") if p.is_dir())]
    return [folder for folder in folders if next(folder.glob("frame-*.pose.txt"), None) is not None]


def load_seven_scenes(path: Path, *, intrinsics: tuple[float, ...] | None = None, max_frames: int | None = 120,
                      max_side: int | None = None) -> Source:
    """Read frame-*.color.png (or .jpg), .depth.png (millimetres, 65535 = none) and .pose.txt (camera to world, OpenCV axes).

    Args:
        intrinsics: fx fy cx cy [px]; None = 585 px and the middle, as the benchmark says for 640x480.

    Raises:
        InputError: no frame, a missing picture, a pose that is not a rigid 4x4, or pictures of several sizes.
    """
    poses = [pose for folder in sequences(path) for pose in sorted(folder.glob("frame-*.pose.txt"))]
    if not poses:
        raise InputError(f"{path}: expected frame-000000.pose.txt and so on, here or in seq-01 and so on")
    records = [_record(path, pose, intrinsics) for pose in poses]
    kept = checked_records(str(path), select_keyframes(records, max_frames, metric=True))
    frames = LazyFrames(kept, max_side=max_side)
    notes = ["Colour and depth of 7-Scenes are not registered with each other; colours may lie some pixels off."]
    if len(kept) < len(records):
        notes.append(f"{len(kept)} of {len(records)} pictures were taken, by motion and sharpness.")
    used = tuple(pose for pose in poses if any(r.name == _name(path, pose) for r in kept))
    return Source("7scenes", path, (*used, *frames.files()), frames=frames, metres_per_unit=1.0,
                  unit_stated_by="the layout of 7-Scenes is in metres", notes=tuple(notes), facts={"images": len(records)})


def _name(path: Path, pose: Path) -> str:
    return str(pose.relative_to(path))[: -len(".pose.txt")]


def _record(path: Path, pose: Path, intrinsics: tuple[float, ...] | None) -> Record:
    table, name = rows(pose, columns=4), _name(path, pose)
    if table.shape != (4, 4):
        raise InputError(f"{pose}: got {len(table)} rows, expected a 4x4 matrix")
    files = {kind: confined(path, f"{name}.{kind}", what=name) for kind in ("color.png", "color.jpg", "depth.png")}
    picture = files["color.jpg"] if files["color.jpg"].is_file() else files["color.png"]
    if not picture.is_file():
        raise InputError(f"{picture}: no such picture, expected one beside {pose.name}")
    width, height = picture_size(picture)
    if intrinsics is not None and len(intrinsics) != 4:
        raise InputError(f"intrinsics: got {intrinsics}, expected fx fy cx cy")
    focal = FOCAL * width / 640
    fx, fy, cx, cy = intrinsics or (focal, focal, width / 2, height / 2)
    depth = DepthFile(files["depth.png"], 1e-3, _NONE) if files["depth.png"].is_file() else None
    return Record(name, picture, Lens("pinhole", width, height, fx, fy, cx, cy), table, depth)
