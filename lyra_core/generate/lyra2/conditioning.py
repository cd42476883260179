"""Everything the network is given for one chunk: packed history, warped condition, camera rays, correspondences.

Cameras here follow the reference: OpenCV axes, the world is the first camera's frame (the generator re-anchors ours), and one K
serves rays through (x + 0.5, y + 0.5) and warps at integer pixel positions. The half pixel between the two is the reference's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.canonical import canonical_buffer, history_buffer, warp_main
from lyra_core.generate.lyra2.packing import SUBFRAMES, Packing
from lyra_core.generate.lyra2.vae import VideoCodec, encode_stills

MASK_CHANNELS = 4
"""Wan's condition mask; Lyra sets it to one everywhere."""


@dataclass(frozen=True)
class Cameras:
    """N cameras."""

    K: Tensor
    """(N, 3, 3) float32 [px]."""
    T_world_camera: Tensor
    """(N, 4, 4) float32."""

    def __len__(self) -> int:
        return len(self.K)

    def __getitem__(self, rows: slice | list[int]) -> Cameras:
        return Cameras(self.K[rows], self.T_world_camera[rows])

    def to(self, device: torch.device | str) -> Cameras:
        """Return them on a device."""
        return Cameras(self.K.to(device), self.T_world_camera.to(device))


@dataclass(frozen=True)
class View:
    """One frame with depth and camera."""

    rgb: Tensor
    """(3, H, W) float32 in [-1, 1]."""
    depth: Tensor
    """(H, W) float32 z-depth; 0 or NaN = unknown."""
    camera: Cameras
    """One camera."""


@dataclass(frozen=True)
class ChunkInputs:
    """What the network sees of one chunk, in packed order (history, then new), without batch axis."""

    history: Tensor
    """(C, n, h, w) clean latents in front of the new ones."""
    condition: Tensor
    """(C + 4, T, h, w): mask, then the history again and the warped newest frame's latents."""
    plucker: Tensor
    """(384, T, h, w) ray channels."""
    buffer: Tensor
    """(1280, T, h, w) correspondence channels."""


def plucker_rays(cameras: Cameras, reference: Cameras, height: int, width: int) -> Tensor:
    """Return ray channels (6, N, H, W) float32: origin, then unit direction, in the reference camera's frame.

    Lyra 2.0 takes the origin itself, not the moment of Pluecker's coordinates.
    """
    T = torch.linalg.inv(reference.T_world_camera[0].double()) @ cameras.T_world_camera.double()
    T = T.float()
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    u, v, K = u.to(T.device), v.to(T.device), cameras.K[:, :, :, None, None]
    ones = torch.ones_like(u).expand(len(T), -1, -1)
    directions = torch.stack([(u - K[:, 0, 2]) / K[:, 0, 0], (v - K[:, 1, 2]) / K[:, 1, 1], ones], 1)
    directions = torch.einsum("nij,njhw->nihw", T[:, :3, :3], F.normalize(directions, dim=1))
    origins = T[:, :3, 3, None, None].expand_as(directions)
    return torch.cat([origins, directions], 1).transpose(0, 1)


def unshuffled(channels: Tensor) -> Tensor:
    """Return (C, N, H, W) as (64 C, N, H / 8, W / 8), channel order (c, h8, w8)."""
    return F.pixel_unshuffle(channels.transpose(0, 1), 8).transpose(0, 1)


def timeline_frames(packing: Packing, newest: int) -> list[int]:
    """Return the frame whose camera stands for each history latent in time: frame 0, then every 4th up to the newest.

    The timeline in front of frame 0 repeats it.
    """
    count = len(packing.temporal_positions)
    return [0, *(max(0, newest - SUBFRAMES * j) for j in range(count - 2, -1, -1))][:count]


def assemble(
    packing: Packing, codec: VideoCodec, *, first: View, newest: View, retrieved: list[View], latents: Tensor,
    time_cameras: Cameras, targets: Cameras,
) -> ChunkInputs:
    """Put together what the network sees of the next chunk.

    Args:
        first: frame 0; it fills the slots of retrieved frames that are missing.
        newest: the last frame of the history: the source of the main warp and the reference of the rays.
        retrieved: at most ``packing.spatial_slots`` frames, best first.
        latents: (C, >= n, h, w) of the history in time: the video's first latent, then the newest ones last.
        time_cameras: cameras of ``timeline_frames``.
        targets: cameras of the new frames.

    Raises:
        InputError: too many retrieved frames, or another number of targets than the packing makes.
    """
    slots = packing.spatial_slots
    if len(retrieved) > slots or len(targets) != packing.chunk_frames:
        raise InputError(
            f"assemble: got {len(retrieved)} retrieved frames and {len(targets)} targets, expected at most {slots} and "
            f"{packing.chunk_frames} for packing {packing.text!r}"
        )
    height, width = newest.depth.shape
    # The best frame stands last, where the packing keeps full resolution; missing ones are filled from the left.
    placed = [first] * (slots - len(retrieved)) + retrieved[::-1]
    history = packed_history(packing, latents, codec, placed)
    camera = newest.camera
    warped = warp_main(newest.rgb, newest.depth, camera.K[0], camera.T_world_camera[0], targets.K, targets.T_world_camera)
    video = torch.cat([warped[:, :1], warped], 1)
    tail = codec.encode(video[None])[0][0, :, 1:].to(history)
    condition = torch.cat([history, tail], 1)
    mask = torch.ones(MASK_CHANNELS, *condition.shape[1:], device=condition.device)
    plucker = packed_rays(packing, newest.camera, placed, time_cameras, targets, height, width)
    buffer = packed_buffer(packing, retrieved, targets, height, width)
    return ChunkInputs(history, torch.cat([mask, condition]), plucker, buffer)


def packed_history(packing: Packing, latents: Tensor, codec: VideoCodec, placed: list[View]) -> Tensor:
    """Return the history (C, n, h, w) in packed order: the first latent, the placed frames' own, the newest latents."""
    count = len(packing.temporal_positions)
    times = torch.cat([latents[:, :1], latents[:, latents.shape[1] - (count - 1) :]], 1)
    out = latents.new_zeros(latents.shape[0], packing.history_length, *latents.shape[2:])
    out[:, packing.temporal_positions] = times
    if placed:
        stills = {id(view): encode_stills(codec, view.rgb[None]) for view in placed}
        out[:, packing.spatial_positions] = torch.cat([stills[id(view)] for view in placed], 1).to(out)
    return out


def packed_rays(
    packing: Packing, reference: Cameras, placed: list[View], time_cameras: Cameras, targets: Cameras, height: int, width: int
) -> Tensor:
    """Return ray channels (384, T, h, w) of every latent in packed order; a latent has the camera of its last frame."""
    new = targets[slice(SUBFRAMES - 1, None, SUBFRAMES)]
    K = targets.K.new_zeros(packing.history_length, 3, 3)
    T = targets.T_world_camera.new_zeros(packing.history_length, 4, 4)
    K[packing.temporal_positions], T[packing.temporal_positions] = time_cameras.K, time_cameras.T_world_camera
    for position, view in zip(packing.spatial_positions, placed, strict=True):
        K[position], T[position] = view.camera.K[0], view.camera.T_world_camera[0]
    cameras = Cameras(torch.cat([K, new.K]), torch.cat([T, new.T_world_camera]))
    return unshuffled(plucker_rays(cameras, reference, height, width))


def packed_buffer(packing: Packing, retrieved: list[View], targets: Cameras, height: int, width: int) -> Tensor:
    """Return correspondence channels (1280, T, h, w): where each new pixel lies in the retrieved frames."""
    slots, device = packing.spatial_slots, targets.K.device
    new = canonical_buffer(
        [view.depth for view in retrieved], [view.camera.K[0] for view in retrieved],
        [view.camera.T_world_camera[0] for view in retrieved], targets.K, targets.T_world_camera, height=height, width=width,
        slots=slots,
    )
    out = torch.zeros(new.shape[0], packing.history_length + packing.new_length, *new.shape[2:], device=device)
    out[:, packing.spatial_positions] = history_buffer(height, width, slots=slots).to(out)
    out[:, packing.history_length :] = new
    return out
