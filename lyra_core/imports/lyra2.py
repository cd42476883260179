"""Runs of Lyra 2.0: the video with the cameras it was made along, and the splats that were reconstructed from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.camera.formats import load_trajectory, relative_to
from lyra_core.errors import InputError
from lyra_core.imports.base import Source
from lyra_core.imports.captures import LazyFrames, Record, VideoFrame, checked_records, select_keyframes
from lyra_core.imports.lens import Lens
from lyra_core.imports.phone import video_facts
from lyra_core.types import GaussianCloud

SPLATS = "reconstructed_scene.ply"
TRAJECTORY = "trajectory.npz"
_NOT_THE_VIDEO = ("gs_", "depth", "warp", "render", "mask", "condition", "buffer")
"""Beginnings of the names of videos that show something else than the generated pictures."""
_MAX_FRAMES = 100_000


def is_lyra2(path: Path) -> bool:
    """Say whether a folder holds a run: a trajectory with a video, or the reconstructed splats."""
    return _find(path, SPLATS) is not None or (_find(path, TRAJECTORY) is not None and bool(_videos(path)))


def load_lyra2(path: Path, *, max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read a run folder: *.mp4 with trajectory.npz (w2c, intrinsics, image_height, image_width), reconstructed_scene.ply, or both.

    Everything is put into the first camera's OpenCV frame, which is the splats' own. The trajectory may be longer than the
    video (it may stop after any chunk), never shorter.

    Raises:
        InputError: neither was found, a damaged file, or a video with more pictures than poses.
        BackendUnavailable: there is no ffmpeg.
    """
    trajectory, splats = _find(path, TRAJECTORY), _find(path, SPLATS)
    videos = _videos(path)
    frames: LazyFrames | None = None
    notes, facts, files = ["The frame is that of the first camera: not levelled, of a scale that is only about metric."], {}, []
    if trajectory is not None and videos:
        frames, more, facts = _frames(trajectory, videos[0], max_frames, max_side)
        notes += more
        files += [trajectory, *frames.files()]
    elif splats is None:
        raise InputError(f"{path}: expected {TRAJECTORY} and an .mp4, or {SPLATS}, of a Lyra 2.0 run; found "
                         f"{', '.join(sorted(p.name for p in path.iterdir())[:8]) or 'nothing'}")
    cloud = _cloud(splats) if splats is not None else None
    if splats is not None:
        files.append(splats)
    if frames is not None and cloud is not None:
        facts["splats_in_view"] = _share_in_view(cloud, frames)
        notes.append("Splats were reconstructed with cameras estimated from the video, which may differ from the trajectory; "
                     "compare renderings before trusting both.")
    return Source("lyra2", path, tuple(files), frames=frames if frames is not None else (), cloud=cloud, notes=tuple(notes),
                  facts=facts, licence="weights of Lyra 2.0: internal research only")


def _find(path: Path, name: str) -> Path | None:
    return next((p for pattern in (name, f"*/{name}", f"*/*/{name}") for p in sorted(path.glob(pattern)) if p.is_file()), None)


def _videos(path: Path) -> list[Path]:
    """Return the videos of generated pictures, 'video.mp4' first, then those nearest to the top."""
    found = [p for pattern in ("*.mp4", "*/*.mp4", "*/*/*.mp4") for p in sorted(path.glob(pattern))
             if p.is_file() and not p.name.lower().startswith(_NOT_THE_VIDEO)]
    return sorted(found, key=lambda p: (p.name != "video.mp4", len(p.parts)))


def _frames(trajectory: Path, video: Path, max_frames: int | None, max_side: int | None) -> tuple[LazyFrames, list[str], dict]:
    count, (width, height) = video_facts(video)
    path = load_trajectory(trajectory, width=width, height=height)
    if count > len(path) or count > _MAX_FRAMES:
        raise InputError(f"{video}: got {count} pictures for {len(path)} poses of {trajectory.name}, expected at most as many")
    notes = [f"The video ends after {count} of {len(path)} poses."] if count < len(path) else []
    moved = not np.allclose(path.T_world_camera[0], np.eye(4), atol=1e-4)
    path = relative_to(path, np.eye(4))
    if moved:
        notes.append("Poses were put relative to the first one.")
    records = [Record(f"{i:06d}", VideoFrame(video, i),
                      Lens("pinhole", width, height, path.K[i, 0, 0], path.K[i, 1, 1], path.K[i, 0, 2], path.K[i, 1, 2]),
                      path.T_world_camera[i]) for i in range(count)]
    kept = checked_records(str(trajectory), select_keyframes(records, max_frames))
    if len(kept) < len(records):
        notes.append(f"{len(kept)} of {count} pictures were taken, by motion.")
    return LazyFrames(kept, max_side=max_side), notes, {"images": count, "poses": len(path)}


def _cloud(path: Path) -> GaussianCloud:
    from lyra_core.splats.formats import read_splat_file

    return read_splat_file(path)


def _share_in_view(cloud: GaussianCloud, frames: LazyFrames) -> float:
    """Return the share of splats that lie in front of at least one camera and in its picture; near 1 if both belong together."""
    from lyra_core.camera.se3 import inverse
    from lyra_core.camera.warp import project

    means = cloud.means[:: max(1, len(cloud.means) // 20000)].astype(np.float64)
    seen = np.zeros(len(means), bool)
    for i, T in enumerate(frames.T_world_camera):
        camera = frames.camera(i)
        u, v, z = project(means, camera, inverse(T))
        with np.errstate(invalid="ignore"):
            seen |= (z > 0) & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
    return float(seen.mean()) if len(seen) else 0.0
