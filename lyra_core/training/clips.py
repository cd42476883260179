"""Clips: posed videos with depth, whose pictures are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError
from lyra_core.generate.lyra2.conditioning import Cameras
from lyra_core.types import Trajectory


@dataclass(frozen=True)
class Clip:
    """A posed video with depth."""

    name: str
    trajectory: Trajectory
    """Cameras of all frames, at the size of the pictures below."""
    read_rgb: Callable[[Sequence[int]], np.ndarray]
    """Frame numbers -> (n, H, W, 3) uint8."""
    read_depth: Callable[[Sequence[int]], np.ndarray]
    """Frame numbers -> (n, H, W) float32 z-depth [m], NaN or 0 = unknown."""
    captions: Mapping[int, str] = field(default_factory=dict)
    """First frame of each caption -> its text."""
    embeddings: Mapping[int, Tensor] = field(default_factory=dict)
    """First frame -> embedded caption (512, c), where the captions were embedded beforehand."""

    def __len__(self) -> int:
        return len(self.trajectory)

    def cameras(self) -> Cameras:
        """Return all cameras as the network knows them: the world is the first camera's frame."""
        T = inverse(self.trajectory.T_world_camera[:1]) @ self.trajectory.T_world_camera
        return Cameras(torch.from_numpy(self.trajectory.K).float(), torch.from_numpy(T).float())

    def rgb(self, frames: Sequence[int]) -> Tensor:
        """Return frames (3, n, H, W) float32 in [-1, 1]."""
        return torch.from_numpy(self.read_rgb(frames)).permute(3, 0, 1, 2).float() / 127.5 - 1

    def depth(self, frames: Sequence[int]) -> np.ndarray:
        """Return depths (n, H, W) float32 [m], 0 = unknown."""
        return np.nan_to_num(self.read_depth(frames), nan=0.0, posinf=0.0, neginf=0.0)

    def caption_key(self, frame: int) -> int | None:
        """Return the key of the caption or embedding in force at a frame, or None where there is neither."""
        keys = self.embeddings or self.captions
        return max((key for key in keys if key <= frame), default=min(keys, default=None))


class ClipSource(Protocol):
    """Clips by number."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Clip:
        """Return one clip; the same one every time it is asked for."""
        ...


def mirrored_indices(available: int, wanted: int) -> list[int]:
    """Return ``wanted`` frame numbers: forwards from 0, then backwards, and so on, for videos that are too short.

    Raises:
        InputError: there are no two frames to turn around between.
    """
    if available < 2 and wanted > available:
        raise InputError(f"got a video of {available} frames, expected at least 2")
    period = max(1, 2 * (available - 1))
    return [min(i % period, period - i % period) for i in range(wanted)]


@dataclass(frozen=True)
class Fit:
    """Resizing to cover a size, and a crop of its middle."""

    width: int
    height: int

    def _covered(self, width: int, height: int) -> tuple[int, int]:
        """Return width, height that cover the wanted size with the shape of the given one."""
        scale = max(self.width / width, self.height / height)
        return max(self.width, round(width * scale)), max(self.height, round(height * scale))

    def picture(self, picture: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Return a picture (H, W[, 3]) at the wanted size; depth is never mixed across edges (``nearest``)."""
        width, height = self._covered(picture.shape[1], picture.shape[0])
        if (height, width) != picture.shape[:2]:
            shrinks = width < picture.shape[1]
            how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how))
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return picture[top : top + self.height, left : left + self.width]

    def intrinsics(self, K: np.ndarray, width: int, height: int) -> np.ndarray:
        """Return K (..., 3, 3) of pictures of a size after the same change."""
        wide, high = self._covered(width, height)
        out = K * np.array([[wide / width], [high / height], [1.0]])
        out[..., 0, 2] -= (wide - self.width) // 2
        out[..., 1, 2] -= (high - self.height) // 2
        return out
