"""Videos of the world folder: H.264 through the ffmpeg that imageio-ffmpeg brings along."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import BackendUnavailable, InputError, WorldError
from lyra_core.io.files import atomic_path

REPRODUCIBLE = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-map_metadata", "-1", "-movflags", "+faststart"]
"""One thread and no encoder names or dates: the same frames give the same bytes."""


def write_video(path: Path, frames: Iterable[np.ndarray], *, fps: float = 16, crf: int = 18) -> int:
    """Write (H, W, 3) uint8 frames as H.264 (yuv420p), atomically; odd sizes lose their last row or column.

    Args:
        path: ends in .mp4.
        frames: taken one by one, so that a generator never holds the whole video.
        crf: quality, 0 = lossless luma, 18 = visually the same, 51 = worst.

    Returns:
        The number of frames written.

    Raises:
        InputError: no frames, or a frame of another size or type than the first.
        BackendUnavailable: there is no ffmpeg.
    """
    ffmpeg = require_ffmpeg()
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise InputError(f"{path}: got no frames, expected at least one")
    shape = first.shape
    size = (shape[1] // 2 * 2, shape[0] // 2 * 2)
    with atomic_path(path) as temporary:
        writer = ffmpeg.write_frames(
            str(temporary), size, fps=fps, codec="libx264", pix_fmt_in="rgb24", pix_fmt_out="yuv420p", macro_block_size=1,
            quality=None, bitrate=None, output_params=["-crf", str(crf), *REPRODUCIBLE],
        )
        writer.send(None)
        count = 0
        try:
            for frame in itertools.chain([first], stream):
                if frame.shape != shape or frame.dtype != np.uint8:
                    raise InputError(f"{path}: frame {count}: got {frame.shape} {frame.dtype}, expected {shape} uint8")
                writer.send(np.ascontiguousarray(frame[: size[1], : size[0]]))
                count += 1
        except OSError as error:
            raise WorldError(f"{path}: ffmpeg stopped at frame {count}: {error}") from error
        finally:
            writer.close()
        # ffmpeg's exit status is not told; a full disk shows as missing frames.
        if not temporary.is_file() or ffmpeg.count_frames_and_secs(str(temporary))[0] != count:
            raise WorldError(f"{path}: ffmpeg did not write all of {count} frames; is the disk full?")
    return count


def read_video(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video, (H, W, 3) uint8 RGB each.

    Raises:
        WorldError: the file is missing or not a video.
        BackendUnavailable: there is no ffmpeg.
    """
    ffmpeg = require_ffmpeg()
    if not path.is_file():
        raise WorldError(f"{path}: missing, expected a video")
    reader = ffmpeg.read_frames(str(path), pix_fmt="rgb24")
    try:
        width, height = next(reader)["size"]
        for data in reader:
            yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
    except (OSError, RuntimeError, StopIteration) as error:
        raise WorldError(f"{path}: not readable as a video: {error}") from error
    finally:
        reader.close()


def require_ffmpeg() -> Any:
    """Return imageio_ffmpeg with a program to run.

    Raises:
        BackendUnavailable: there is no ffmpeg.
    """
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise BackendUnavailable("video", reason=f"no ffmpeg: {error}", install="pip install imageio-ffmpeg") from error
    return imageio_ffmpeg
