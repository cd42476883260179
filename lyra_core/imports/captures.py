"""Posed pictures that are read when they are asked for: made straight, scaled, with depth where there is some."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import overload

import cv2
import numpy as np

from lyra_core.errors import InputError, WorldError
from lyra_core.imports.lens import Lens
from lyra_core.imports.reading import DepthFile, picture_size, read_depth_picture, read_picture, rigid
from lyra_core.io.images import resized
from lyra_core.io.video import read_video
from lyra_core.types import Camera, Frame, Provenance

_ASPECT = 0.01
"""Largest relative difference of side ratios at which a picture counts as the same at another size."""
_DEPTH_ASPECT = 0.03
_CANDIDATES = 3
"""Pictures per stretch of motion among which the sharpest is taken."""


@dataclass(frozen=True)
class VideoFrame:
    """A picture in a video."""

    path: Path
    index: int


@dataclass(frozen=True)
class Record:
    """One picture of a capture, not read yet."""

    name: str
    picture: Path | VideoFrame
    lens: Lens
    T_world_camera: np.ndarray
    """(4, 4) OpenCV axes [unit of the capture]."""
    depth: DepthFile | None = None


class LazyFrames(Sequence[Frame]):
    """The frames of a capture. Each is read, straightened and scaled on access; the last few are kept.

    Reading raises InputError for pictures and depth that are damaged or of another size than the camera.
    """

    def __init__(self, records: Sequence[Record], *, max_side: int | None = None, keep: int = 4) -> None:
        if max_side is not None and max_side < 16:
            raise InputError(f"max_side: got {max_side}, expected at least 16 px")
        self.records, self.max_side, self._keep = tuple(records), max_side, keep
        self._recent: OrderedDict[int, Frame] = OrderedDict()
        self._videos: dict[Path, _Video] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> LazyFrames: ...
    def __getitem__(self, index: int | slice) -> Frame | LazyFrames:
        if isinstance(index, slice):
            return LazyFrames(self.records[index], max_side=self.max_side, keep=self._keep)
        index = range(len(self))[index]
        with self._lock:
            if index not in self._recent:
                self._recent[index] = self._read(self.records[index])
                while len(self._recent) > self._keep:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(index)
            return self._recent[index]

    def camera(self, index: int) -> Camera:
        """Return the camera of a frame, of its final size, without reading it."""
        straight = self.records[index].lens.camera()
        return straight.resized(*self._size(straight.width, straight.height))

    @property
    def T_world_camera(self) -> np.ndarray:
        """(N, 4, 4) poses, without reading a picture [unit of the capture]."""
        return np.stack([record.T_world_camera for record in self.records])

    @property
    def has_depth(self) -> np.ndarray:
        """(N,) bool: frames beside which a depth file lies."""
        return np.array([record.depth is not None for record in self.records])

    def files(self) -> tuple[Path, ...]:
        """Return every file that the frames come from, each once."""
        found: dict[Path, None] = {}
        for record in self.records:
            found[record.picture.path if isinstance(record.picture, VideoFrame) else record.picture] = None
            if record.depth is not None:
                found[record.depth.path] = None
                if record.depth.confidence is not None:
                    found[record.depth.confidence] = None
        return tuple(found)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        scale = 1.0 if self.max_side is None else min(1.0, self.max_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _read(self, record: Record) -> Frame:
        lens = record.lens
        if isinstance(record.picture, VideoFrame):
            rgb = self._videos.setdefault(record.picture.path, _Video(record.picture.path)).read(record.picture.index)
        else:
            rgb = read_picture(record.picture)
        if rgb.shape[:2] != (lens.height, lens.width):
            path = record.picture.path if isinstance(record.picture, VideoFrame) else record.picture
            raise InputError(f"{path}: {record.name}: got a picture of {rgb.shape[1]}x{rgb.shape[0]} px, expected its camera's "
                             f"{lens.width}x{lens.height} px")
        straight = lens.camera()
        width, height = self._size(lens.width, lens.height)
        rgb = lens.straightened(rgb)
        if (width, height) != (lens.width, lens.height):
            rgb = resized(rgb, width, height)
        depth = self._depth(record, width, height)
        provenance = np.where(np.isfinite(depth), np.uint8(Provenance.SEEN), np.uint8(255))
        return Frame(np.ascontiguousarray(rgb), depth, straight.resized(width, height), record.T_world_camera, provenance)

    def _depth(self, record: Record, width: int, height: int) -> np.ndarray:
        """Return (height, width) float32, NaN without a depth file; nearest numbers are taken, so no depth is made up."""
        if record.depth is None:
            return np.full((height, width), np.nan, np.float32)
        lens, depth = record.lens, read_depth_picture(record.depth)
        got, want = depth.shape[1] / depth.shape[0], lens.width / lens.height
        if abs(np.log(got / want)) > _DEPTH_ASPECT:
            raise InputError(f"{record.depth.path}: got {depth.shape[1]}x{depth.shape[0]} px, expected the shape of its picture, "
                             f"{lens.width}x{lens.height} px")
        if not lens.straight:
            depth = cv2.resize(depth, (lens.width, lens.height), interpolation=cv2.INTER_NEAREST_EXACT)
            depth = lens.straightened(depth, nearest=True)
        return cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


class _Video:
    """Pictures of a video by number: going forward reads on, going back starts again."""

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 0
        self._frames: Iterator[np.ndarray] | None = None

    def read(self, index: int) -> np.ndarray:
        """Return picture ``index`` (H, W, 3) uint8.

        Raises:
            InputError: not a video, or it ends before.
        """
        if self._frames is None or index < self._next:
            self._frames, self._next = read_video(self._path), 0
        try:
            for frame in self._frames:
                self._next += 1
                if self._next == index + 1:
                    return frame.copy()
        except WorldError as error:
            raise InputError(str(error)) from error
        self._frames = None
        raise InputError(f"{self._path}: got {self._next} pictures, expected at least {index + 1}")


def checked_records(where: str, records: Sequence[Record]) -> list[Record]:
    """Return records whose files are there and whose pictures fit their cameras; a picture of another size but the same shape
    gets its camera scaled.

    Raises:
        InputError: no record, a missing file, another shape, or a pose that is not rigid. One error says how many are missing.
    """
    if not records:
        raise InputError(f"{where}: found no posed picture")
    rigid(where, np.stack([record.T_world_camera for record in records]))
    missing = [path for path in LazyFrames(records).files() if not path.is_file()]
    if missing:
        raise InputError(f"{where}: {missing[0]}: no such file ({len(missing)} of the files that it names are missing)")
    fitted = [_fitted(record) for record in records]
    for lens, name in {record.lens: record.name for record in fitted}.items():
        try:
            lens.camera()
        except InputError as error:
            raise InputError(f"{where}: {name}: {error}") from error
    return fitted


def _fitted(record: Record) -> Record:
    if isinstance(record.picture, VideoFrame):
        return record
    lens, (width, height) = record.lens, picture_size(record.picture)
    if (width, height) == (lens.width, lens.height):
        return record
    if abs(np.log(width * lens.height / (height * lens.width))) > _ASPECT:
        raise InputError(f"{record.picture}: got {width}x{height} px, expected {lens.width}x{lens.height} px as its camera, "
                         "or that shape at another size")
    return replace(record, lens=lens.resized(width, height))


def select_keyframes(records: Sequence[Record], count: int | None, *, metric: bool = False) -> list[Record]:
    """Return at most ``count`` records in order: one per equal stretch of camera motion, the sharpest of three.

    Motion is the angle turned [rad] plus the way gone [m], or for captures of unknown unit over half the extent of the path.

    Raises:
        InputError: count below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"max_frames: got {count}, expected at least 1")
    if count is None or len(records) <= count:
        return list(records)
    motion = _motion(np.stack([record.T_world_camera for record in records]), metric)
    stretch = np.minimum((motion / max(motion[-1], 1e-12) * count).astype(int), count - 1)
    if motion[-1] <= 0:
        stretch = np.arange(len(records)) * count // len(records)
    kept = []
    for part in np.unique(stretch):
        members = np.flatnonzero(stretch == part)
        candidates = np.unique(members[np.linspace(0, len(members) - 1, _CANDIDATES).round().astype(int)])
        kept.append(max(candidates, key=lambda i: (_sharpness(records[i]), -i)))
    return [records[i] for i in kept]


def _motion(T: np.ndarray, metric: bool) -> np.ndarray:
    """Return the motion (N,) up to each pose."""
    R, t = T[:, :3, :3], T[:, :3, 3]
    extent = 1.0 if metric else max(float(np.linalg.norm(np.ptp(t, axis=0))) / 2, 1e-12)
    turned = np.arccos(np.clip((np.einsum("nij,nij->n", R[1:], R[:-1]) - 1) / 2, -1, 1))
    way = np.linalg.norm(np.diff(t, axis=0), axis=1) / extent
    return np.concatenate([[0.0], np.cumsum(turned + way)])


def _sharpness(record: Record) -> float:
    """Return the variance of the Laplacian at a quarter of the size; 0 for a video, where each look costs a pass."""
    if isinstance(record.picture, VideoFrame):
        return 0.0
    grey = cv2.imread(str(record.picture), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    return 0.0 if grey is None or min(grey.shape) < 8 else float(cv2.Laplacian(grey, cv2.CV_32F).var())
