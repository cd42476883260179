"""The per-frame 3D cache: every kept frame stays as it was seen. Nothing is ever fused, so errors of one depth stay its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.images import decode_depth, encode_depth
from lyra_core.memory.clouds import Clouds
from lyra_core.types import Camera, Frame


class Bounds(NamedTuple):
    """Spheres around the points of every cached frame, in cache order."""

    centres: np.ndarray
    """(N, 3) float64 world [m]."""
    radii: np.ndarray
    """(N,) float64 [m]; -1 for a frame without points."""


@dataclass(frozen=True)
class _Entry:
    camera: Camera
    T_world_camera: np.ndarray
    position: int
    """In cache order."""
    parts: tuple[tuple[str, int, int], ...]
    """Kind, offset and length of rgb, depth and provenance in the store."""


def strided_camera(camera: Camera, stride: int) -> Camera:
    """Return the camera of the picture ``picture[::stride, ::stride]``: its pixel i is pixel ``stride * i`` of the full one."""
    K = camera.K.copy()
    K[:2] /= stride
    K[:2, 2] = 0.5 + (camera.K[:2, 2] - 0.5) / stride
    return Camera(K, -(-camera.width // stride), -(-camera.height // stride))


class FrameCache:
    """Frames with full-resolution depth, camera and a thinned point cloud each, in the order they were added.

    Pictures are held losslessly compressed, in memory up to ``resident_mb`` and beyond that in one temporary file, so a walk
    of thousands of frames stays bounded; only the thinned depth stays in memory (about 8 kB for a 416x240 frame).
    """

    def __init__(self, *, point_subsampling: int = 8, resident_mb: int = 256) -> None:
        if point_subsampling < 1:
            raise InputError(f"FrameCache.point_subsampling: got {point_subsampling}, expected at least 1")
        self.point_subsampling = point_subsampling
        self._entries: dict[int, _Entry] = {}
        self.clouds = Clouds()
        """The thinned points of all frames, in cache order."""
        self._store = tempfile.SpooledTemporaryFile(max_size=max(resident_mb << 20, 1))
        self._size = 0

    @classmethod
    def rebuild(cls, frames: Iterable[tuple[int, Frame]], *, point_subsampling: int = 8) -> FrameCache:
        """Make the cache of stored frames (id, frame), in their order."""
        cache = cls(point_subsampling=point_subsampling)
        for frame_id, frame in frames:
            cache.add(frame_id, frame)
        return cache

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, frame_id: int) -> bool:
        return frame_id in self._entries

    @property
    def ids(self) -> list[int]:
        """Frame ids in cache order. Negative ids are views given beside the photo."""
        return list(self._entries)

    @property
    def newest(self) -> int | None:
        """The largest frame id, None if empty."""
        return max(self._entries, default=None)

    @property
    def stored_bytes(self) -> int:
        """Size of the compressed pictures, in memory or in the temporary file."""
        return self._size

    @property
    def bounds(self) -> Bounds:
        """Bounding spheres of all frames, in cache order."""
        spheres = self.clouds.spheres.values
        return Bounds(spheres[:, :3], spheres[:, 3])

    def add(self, frame_id: int, frame: Frame) -> None:
        """Keep a frame under a new id.

        Raises:
            InputError: the id is taken; frames are never replaced or merged.
        """
        if frame_id in self._entries:
            raise InputError(f"FrameCache.add: frame {frame_id} is already cached; expected a new id")
        stride = self.point_subsampling
        parts = (self._put_picture(frame.rgb), self._put_depth(frame.depth), self._put_picture(frame.provenance))
        self._entries[frame_id] = _Entry(frame.camera, frame.T_world_camera, len(self.clouds), parts)
        self.clouds.add(frame.depth[::stride, ::stride], strided_camera(frame.camera, stride), frame.T_world_camera)

    def frame(self, frame_id: int) -> Frame:
        """Return a cached frame, equal to the one that was added."""
        entry = self._entry(frame_id)
        rgb, depth, provenance = (self._take(part, entry.camera) for part in entry.parts)
        return Frame(rgb, depth, entry.camera, entry.T_world_camera, provenance)

    def points(self, frame_id: int) -> np.ndarray:
        """Return the frame's thinned world points (n, 3) float32 [m]; pixels of unknown depth are left out."""
        return self.clouds.points(self._entry(frame_id).position)

    def _entry(self, frame_id: int) -> _Entry:
        if frame_id not in self._entries:
            raise InputError(f"FrameCache: frame {frame_id} is not cached; cached are {_summary(self.ids)}")
        return self._entries[frame_id]

    def _put(self, kind: str, data: bytes) -> tuple[str, int, int]:
        self._store.seek(self._size)
        self._store.write(data)
        self._size += len(data)
        return kind, self._size - len(data), len(data)

    def _put_picture(self, picture: np.ndarray) -> tuple[str, int, int]:
        ok, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert ok
        return self._put("picture", data.tobytes())

    def _put_depth(self, depth: np.ndarray) -> tuple[str, int, int]:
        """Store depth as 16-bit inverse depth where that is lossless (frames of the loop and of disk), else as it is."""
        coded = encode_depth(depth)
        if np.array_equal(decode_depth(coded), depth, equal_nan=True):
            return "depth", *self._put_picture(coded)[1:]
        return self._put("float32", np.ascontiguousarray(depth, np.float32).tobytes())

    def _take(self, part: tuple[str, int, int], camera: Camera) -> np.ndarray:
        kind, offset, length = part
        self._store.seek(offset)
        data = np.frombuffer(self._store.read(length), np.uint8)
        if kind == "float32":
            return data.view(np.float32).reshape(camera.height, camera.width).copy()
        picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        assert picture is not None
        picture = np.asarray(picture)
        return decode_depth(picture) if kind == "depth" else picture


def _summary(ids: list[int]) -> str:
    return f"{len(ids)} frames, {min(ids)}..{max(ids)}" if ids else "none"
