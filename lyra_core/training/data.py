"""Clips on disk: Lyra 2.0's training layout (DL3DV), and the frames of our own world folders."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lyra_core.build_files import frame_files
from lyra_core.camera.formats import check_intrinsics, check_rigid, load_trajectory
from lyra_core.errors import BackendUnavailable, InputError, WorldError
from lyra_core.generate.captions import load_captions
from lyra_core.generate.lyra2.tensors import SafetensorsSource
from lyra_core.io.files import read_npz
from lyra_core.io.images import read_depth, read_image
from lyra_core.training.clips import Clip, ClipSource, Fit, mirrored_indices
from lyra_core.training.procedural import ProceduralSource
from lyra_core.training.settings import DataCfg
from lyra_core.types import Trajectory

LIST = "all_filter.lst"
CAPTIONS, EMBEDDINGS = "captions", "embeddings"
"""Folders of ID.json (frame number -> caption) and of ID.safetensors (frame number -> embedded caption)."""


def build_source(cfg: DataCfg) -> ClipSource:
    """Open the clips that the settings name.

    Raises:
        ConfigError, InputError, WorldError: there are none, or they cannot be used.
    """
    if cfg.kind == "procedural":
        folder = Path(cfg.path) if cfg.path else None
        return ProceduralSource(folder, cfg.width, cfg.height, cfg.frames, cfg.clips, cfg.worlds, cfg.first_seed)
    found = DL3DVSource if cfg.kind == "dl3dv" else WorldSource
    return found.open(Path(cfg.path), width=cfg.width, height=cfg.height, frames=cfg.frames)


@dataclass(frozen=True)
class DL3DVSource:
    """Videos with poses, intrinsics and depth as Lyra 2.0's training reads them.

    rgb/ID.mp4; pose/ID.npz and intrinsics/ID.npz with ``inds`` (n,) frame numbers and ``data`` (n, 4, 4) camera to world or (n, 4)
    fx, fy, cx, cy [px]; depth/ID.zip of 00000.exr, ... (channel Z) or depth/ID.npz like the others; captions/ID.json.
    """

    folder: Path
    ids: tuple[str, ...]
    fit: Fit
    frames: int

    @staticmethod
    def open(folder: Path, *, width: int, height: int, frames: int) -> DL3DVSource:
        """Find the videos: those of all_filter.lst, where there is one.

        Raises:
            InputError: there is none, or one of the list is missing.
        """
        listed = folder / LIST
        if listed.is_file():
            names = [line.strip().split(".")[0] for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
            missing = [name for name in names if not (folder / "rgb" / f"{name}.mp4").is_file()]
            if missing:
                raise InputError(f"{listed}: names {missing[0]}, but {folder / 'rgb'} has no {missing[0]}.mp4")
        else:
            names = sorted(path.stem for path in (folder / "rgb").glob("*.mp4"))
        if not names:
            raise InputError(f"{folder}: got no rgb/*.mp4, expected videos in Lyra 2.0's training layout")
        return DL3DVSource(folder, tuple(names), Fit(width, height), frames)

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, index: int) -> Clip:
        """Open one video; frames and depths are read when they are asked for.

        Raises:
            InputError: a file is missing or does not fit; file and field are named.
        """
        name = self.ids[index]
        video = self.folder / "rgb" / f"{name}.mp4"
        count, width, height = video_size(video)
        order = np.array(mirrored_indices(count, self.frames) if count < self.frames else range(self.frames))
        T = per_frame(self.folder / "pose" / f"{name}.npz", order, (4, 4))
        K4 = per_frame(self.folder / "intrinsics" / f"{name}.npz", order, (4,))
        check_rigid(f"{self.folder / 'pose' / name}.npz: data", T)
        K = np.zeros((len(K4), 3, 3))
        K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = K4.T
        K[:, 2, 2] = 1
        check_intrinsics(f"{self.folder / 'intrinsics' / name}.npz: data", K)
        path = Trajectory(T, self.fit.intrinsics(K, width, height), self.fit.width, self.fit.height)
        depth = depth_reader(self.folder / "depth", name)

        def rgb_of(frames: Sequence[int]) -> np.ndarray:
            return self._stacked([self.fit.picture(p) for p in read_frames(video, order[list(frames)].tolist())], 3, np.uint8)

        def depth_of(frames: Sequence[int]) -> np.ndarray:
            return self._stacked([self.fit.picture(depth(i), nearest=True) for i in order[list(frames)].tolist()], 0, np.float32)

        captions, embeddings = self._captions(name), self._embeddings(name)
        return Clip(name, path, rgb_of, depth_of, captions, embeddings)

    def _stacked(self, pictures: list[np.ndarray], channels: int, dtype: type) -> np.ndarray:
        shape = (self.fit.height, self.fit.width, *((channels,) if channels else ()))
        return np.stack(pictures).astype(dtype) if pictures else np.zeros((0, *shape), dtype)

    def _captions(self, name: str) -> dict[int, str]:
        path = self.folder / CAPTIONS / f"{name}.json"
        if path.is_file():
            return load_captions(path)
        pickles = list(self.folder.glob(f"*/{name}.pkl"))
        if pickles:
            raise InputError(
                f"{pickles[0]}: captions in a pickle, which can run any code and is not read; expected {path}, an object of frame "
                'number -> caption as {"0": "...", "81": "..."}'
            )
        return {}

    def _embeddings(self, name: str) -> dict:
        path = self.folder / EMBEDDINGS / f"{name}.safetensors"
        if not path.is_file():
            return {}
        with SafetensorsSource(path) as source:
            wrong = [key for key in source.specs if not key.isdigit()]
            if wrong:
                raise InputError(f"{path}: got {wrong[0]!r}, expected frame numbers as names")
            return {int(key): source.read(key).float() for key in source.specs}


def video_size(path: Path) -> tuple[int, int, int]:
    """Return frames, width and height of a video.

    Raises:
        InputError: it cannot be read.
    """
    video = cv2.VideoCapture(str(path))
    size = [int(video.get(p)) for p in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    video.release()
    if min(size) < 1:
        raise InputError(f"{path}: not readable as a video")
    return size[0], size[1], size[2]


def read_frames(path: Path, frames: Sequence[int]) -> list[np.ndarray]:
    """Return frames (H, W, 3) uint8 of a video, decoded once from the first wanted one to the last.

    Raises:
        InputError: one cannot be decoded.
    """
    if not frames:
        return []
    video, found, wanted = cv2.VideoCapture(str(path)), {}, set(frames)
    first, last = min(wanted), max(wanted)
    video.set(cv2.CAP_PROP_POS_FRAMES, first)
    for number in range(first, last + 1):
        ok = video.grab()
        if ok and number in wanted:
            ok, picture = video.retrieve()
            found[number] = np.ascontiguousarray(picture[..., ::-1]) if ok else None
        if not ok:
            raise InputError(f"{path}: frame {number} cannot be decoded; expected {last + 1} frames")
    video.release()
    return [found[number] for number in frames]


def per_frame(path: Path, frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``data`` of the given frames, (n, *shape) float64, found by ``inds``.

    Raises:
        InputError: the file is missing or damaged, has another shape, or lacks a frame.
    """
    try:
        arrays = read_npz(path, "inds", "data")
    except WorldError as error:
        raise InputError(str(error)) from error
    inds, data = arrays["inds"], arrays["data"]
    if inds.ndim != 1 or data.shape != (len(inds), *shape) or data.dtype.kind not in "fiu":
        wanted = ", ".join(map(str, ("n", *shape)))
        raise InputError(f"{path}: got inds {inds.shape} and data {data.shape} {data.dtype}, expected (n,) and ({wanted}) numbers")
    order = np.argsort(inds)
    at = np.searchsorted(inds, frames, sorter=order).clip(max=len(inds) - 1)
    missing = inds[order[at]] != frames
    if missing.any():
        raise InputError(f"{path}: inds: lacks frame {int(frames[missing.argmax()])}; it holds {len(inds)} frames")
    return data[order[at]].astype(np.float64)


def depth_reader(folder: Path, name: str) -> Callable[[int], np.ndarray]:
    """Return a function frame number -> (H, W) float32 z-depth [m].

    Raises:
        InputError: there is neither ID.npz nor ID.zip.
    """
    arrays, archive = folder / f"{name}.npz", folder / f"{name}.zip"
    if arrays.is_file():
        data = read_npz(arrays, "inds", "data")
        where = {int(number): i for i, number in enumerate(data["inds"])}

        def from_arrays(frame: int) -> np.ndarray:
            if frame not in where:
                raise InputError(f"{arrays}: inds: lacks frame {frame}; it holds {len(where)} frames")
            return data["data"][where[frame]].astype(np.float32)

        return from_arrays
    if not archive.is_file():
        raise InputError(f"{folder}: got neither {name}.npz nor {name}.zip, expected depths")
    return lambda frame: exr_depth(archive, f"{frame:05d}.exr")


def exr_depth(archive: Path, member: str) -> np.ndarray:
    """Read the channel Z of a picture in a zip archive, (H, W) float32.

    Raises:
        BackendUnavailable: no reader of OpenEXR files is installed.
        InputError: the archive lacks it, or it has no channel Z.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise BackendUnavailable(f"reading {archive}", reason=str(error), install="pip install 'lyra-worlds[exr]'") from error
    try:
        with zipfile.ZipFile(archive) as opened:
            data = opened.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: {member}: {error}") from error
    # The library reads files alone.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / member
        file.write_bytes(data)
        try:
            with OpenEXR.File(str(file)) as picture:
                channels = picture.channels()
                if "Z" not in channels:
                    raise InputError(f"{archive}: {member}: got channels {', '.join(channels)}, expected Z")
                return np.array(channels["Z"].pixels, np.float32)
        except RuntimeError as error:
            raise InputError(f"{archive}: {member}: {error}") from error


@dataclass(frozen=True)
class WorldSource:
    """Frames of world folders: exact cameras, and the depth that the world was made with."""

    worlds: tuple[Path, ...]
    fit: Fit
    frames: int

    @staticmethod
    def open(folder: Path, *, width: int, height: int, frames: int) -> WorldSource:
        """Find world folders with frames: the folder itself, or those in it.

        Raises:
            WorldError: there is none, or one whose frames were dropped.
        """
        own = (folder / "trajectory.npz").is_file()
        worlds = [folder] if own else sorted(path.parent for path in folder.glob("*/trajectory.npz"))
        if not worlds:
            raise WorldError(f"{folder}: neither a world folder nor a folder of them")
        for world in worlds:
            if not (world / frame_files(0)[0]).is_file():
                raise WorldError(f"{world}: has no frames/; create it with --keep all")
        return WorldSource(tuple(worlds), Fit(width, height), frames)

    def __len__(self) -> int:
        return len(self.worlds)

    def load(self, index: int) -> Clip:
        """Open one world; what has no depth of its own (``frame_stride``) is not retrieved or warped from.

        Raises:
            WorldError, InputError: files are missing or damaged.
        """
        world = self.worlds[index]
        height, width = read_image(world / frame_files(0)[0]).shape[:2]
        path = load_trajectory(world / "trajectory.npz", width=width, height=height)
        order = np.array(mirrored_indices(len(path), self.frames) if len(path) < self.frames else range(self.frames))
        K = self.fit.intrinsics(path.K[order], width, height)
        fitted = Trajectory(path.T_world_camera[order], K, self.fit.width, self.fit.height)

        def rgb_of(frames: Sequence[int]) -> np.ndarray:
            made = [self.fit.picture(read_image(world / frame_files(i)[0])) for i in order[list(frames)].tolist()]
            return np.stack(made) if made else np.zeros((0, self.fit.height, self.fit.width, 3), np.uint8)

        def depth_of(frames: Sequence[int]) -> np.ndarray:
            made = [self.fit.picture(read_depth(world / frame_files(i)[1]), nearest=True) for i in order[list(frames)].tolist()]
            return np.stack(made) if made else np.zeros((0, self.fit.height, self.fit.width), np.float32)

        captions = world / "captions.json"
        return Clip(world.name, fitted, rgb_of, depth_of, load_captions(captions) if captions.is_file() else {})
