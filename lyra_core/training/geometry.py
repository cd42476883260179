"""Ray and correspondence channels of a chunk: all that depends on cameras and depths alone, and its corruption."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from lyra_core.generate.lyra2.conditioning import Cameras, View, packed_buffer, packed_rays, timeline_frames
from lyra_core.generate.lyra2.packing import Packing
from lyra_core.training.settings import HistoryCfg


@dataclass(frozen=True)
class ChunkGeometry:
    """Cameras and depths around a chunk."""

    newest: Cameras
    """Of the last frame before the chunk: what rays are relative to."""
    first: Cameras
    """Of the video's first frame, which fills empty places of the memory."""
    times: Cameras
    """Of the history's latents."""
    targets: Cameras
    """Of the new frames."""
    retrieved: Cameras
    """Best first."""
    depths: Tensor
    """(R, H, W) of the retrieved frames [m]."""

    @staticmethod
    def of(packing: Packing, cameras: Cameras, depths: Tensor, *, start: int, number: int, ids: tuple[int, ...]) -> ChunkGeometry:
        """Pick them from the cameras of a clip; ``start`` is the video's first frame, ``number`` the chunk's."""
        newest = number * packing.chunk_frames
        begin = start + newest + 1
        times = [start + i for i in timeline_frames(packing, newest)]
        return ChunkGeometry(
            cameras[[start + newest]], cameras[[start]], cameras[times], cameras[slice(begin, begin + packing.chunk_frames)],
            cameras[list(ids)], depths,
        )

    def to(self, device: torch.device) -> ChunkGeometry:
        """Return it on a device."""
        names = ("newest", "first", "times", "targets", "retrieved", "depths")
        return ChunkGeometry(*(getattr(self, name).to(device) for name in names))

    def rays(self, packing: Packing, height: int, width: int) -> Tensor:
        """Return ray channels (384, T, h, w) in packed order."""
        empty = torch.zeros(0)
        placed = [View(empty, empty, self.retrieved[[i]]) for i in reversed(range(len(self.retrieved)))]
        placed = [View(empty, empty, self.first)] * (packing.spatial_slots - len(placed)) + placed
        return packed_rays(packing, self.newest, placed, self.times, self.targets, height, width)

    def correspondences(self, packing: Packing, height: int, width: int) -> Tensor:
        """Return correspondence channels (256 slots, T, h, w) in packed order."""
        views = [View(depth, depth, self.retrieved[[i]]) for i, depth in enumerate(self.depths)]
        return packed_buffer(packing, views, self.targets, height, width)

    def jittered(self, radians: float, metres: float, generator: torch.Generator) -> ChunkGeometry:
        """Return it with every camera but the newest turned and moved a little, each on its own."""
        names = ("first", "times", "targets", "retrieved")
        return replace(self, **{name: _jittered(getattr(self, name), radians, metres, generator) for name in names})


def ray_jitter(cfg: HistoryCfg, newest_depth: Tensor, generator: torch.Generator) -> tuple[float, float] | None:
    """Draw whether a sample's rays are corrupted; by how much, [rad] and [m], or None.

    Lyra 2.0's report names a corruption of the Pluecker rays, its released code has none, so this one is ours: poses estimated
    from video are slightly wrong, each on its own, and a network that has seen that trusts them less than the pictures. The
    warps keep the true cameras.
    """
    if cfg.ray_noise == 0 or float(torch.rand(1, generator=generator)) >= cfg.ray_noise:
        return None
    known = newest_depth[newest_depth > 0]
    return float(np.radians(cfg.ray_degrees)), cfg.ray_metres * float(known.median()) if len(known) else 0.0


def _jittered(cameras: Cameras, radians: float, metres: float, generator: torch.Generator) -> Cameras:
    noise = torch.randn(len(cameras), 6, generator=generator).double()
    T = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    T[:, :3, :3] = torch.from_numpy(Rotation.from_rotvec((radians * noise[:, :3]).numpy()).as_matrix())
    T[:, :3, 3] = metres * noise[:, 3:]
    return replace(cameras, T_world_camera=(cameras.T_world_camera.double() @ T.to(cameras.K.device)).float())
