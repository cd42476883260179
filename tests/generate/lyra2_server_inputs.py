"""What the tests of the bridge to a Lyra 2.0 server share: a room for the server to show, its photo, exact depth, real servers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_loop import GeneratorRoom, path

from lyra_core.config import DepthCfg, GenerateCfg
from lyra_core.generate.loop import Chunk, generate_chunks
from lyra_core.generate.lyra2_server.generator import GeneratorLyra2Server
from lyra_core.memory.cache import FrameCache
from lyra_core.memory.none import MemoryNone
from lyra_core.types import Camera, DepthEstimate, Frame, Label, Photo, PhotoReading, Trajectory

ROOM = GeneratorRoom()
PHOTO_CAMERA = Camera.from_focal(100.0, 160, 120)
"""4:3, so the server presses it into another shape."""
FRAME_CAMERA = PHOTO_CAMERA.resized(64, 48)


def cameras(frames: int) -> Trajectory:
    """Return the room's path for frames of the photo's shape."""
    way = path(frames)
    return Trajectory(way.T_world_camera, np.repeat(FRAME_CAMERA.K[None], frames, 0), FRAME_CAMERA.width, FRAME_CAMERA.height)


def look(T_seed_camera: np.ndarray, K: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return what a camera of the server sees; its world is the photo's camera frame."""
    return ROOM.query(Camera(K, width, height), path(1).T_world_camera[0] @ T_seed_camera).rgb


def photo_and_estimate() -> tuple[Photo, DepthEstimate]:
    """Return the room's photo with exact depth; an empty corner stands for the sky."""
    T = path(1).T_world_camera[0]
    view = ROOM.query(PHOTO_CAMERA, T)
    depth, labels = view.depth.copy(), np.zeros(view.depth.shape, np.uint8)
    depth[:12, :16], labels[:12, :16] = np.nan, Label.SKY
    return Photo(view.rgb, "0" * 64, "room"), DepthEstimate(depth, labels, PHOTO_CAMERA, T, 2.6, "exact", 0.0)


class DepthFromRoom:
    """Depth provider ``lyra2_server_inputs:DepthFromRoom``: exact, for a photo of the room and for frames."""

    def __init__(self, cfg: DepthCfg) -> None:
        self.cfg = cfg

    def check(self, photo: Photo) -> None:
        """Nothing is missing."""

    def estimate(self, photo: Photo, reading: PhotoReading) -> DepthEstimate:
        """Return the photo's exact camera, depth and labels."""
        camera, T = PHOTO_CAMERA.resized(reading.camera.width, reading.camera.height), path(1).T_world_camera[0]
        frame = ROOM.query(camera, T)
        z = frame.points()[..., 2]
        labels = np.where(z < 0.02, Label.FLOOR, np.where(z > 2.58, Label.CEILING, Label.WALL)).astype(np.uint8)
        return DepthEstimate(frame.depth, labels, camera, T, 2.6, "room", 0.0)

    def estimate_frames(self, frames: Sequence[Frame], *, history: Sequence[Frame]) -> list[np.ndarray]:
        """Return exact depth at the frames' poses."""
        return [ROOM.query(frame.camera, frame.T_world_camera).depth for frame in frames]


def generator(url: str, *, timeout: float = 60.0) -> GeneratorLyra2Server:
    """Return a prepared generator."""
    made = GeneratorLyra2Server(cfg=GenerateCfg(server=url, server_timeout=timeout))
    photo, estimate = photo_and_estimate()
    made.check(photo)
    made.prepare(photo, estimate, seed=0, indoor=True)
    return made


def run(
    made: GeneratorLyra2Server, trajectory: Trajectory, *, start: int = 0, newest: Frame | None = None, **cfg
) -> Iterator[Chunk]:
    """Run the loop with the room's exact depth."""

    def depth(frames, before) -> list[np.ndarray]:
        return [ROOM.query(frame.camera, frame.T_world_camera).depth for frame in frames]

    cache = FrameCache(point_subsampling=2)
    if newest is not None:
        cache.add(80 * start, newest)
    return generate_chunks(made, trajectory, cache, MemoryNone(), cfg=GenerateCfg(**cfg), seed=7, depth_provider=depth,
                           depth_stride=8, start_chunk=start, newest=newest)  # fmt: skip


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two pictures [dB]."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


@contextmanager
def official_server() -> Iterator[str]:
    """Yield the URL of an official server: $LYRA2_SERVER_URL, or one without weights started from $LYRA2_SERVER_CHECKOUT.

    The checkout is the folder Lyra-2 (or the one around it). The server needs fastapi, uvicorn, loguru and opencv:
    $LYRA2_SERVER_PYTHON names the interpreter that has them.
    """
    url, checkout = os.environ.get("LYRA2_SERVER_URL"), os.environ.get("LYRA2_SERVER_CHECKOUT")
    if url:
        yield url
        return
    if not checkout:
        pytest.skip("set LYRA2_SERVER_CHECKOUT to a checkout of nv-tlabs/lyra, or LYRA2_SERVER_URL to a running server")
    api = next((p for p in (Path(checkout) / "gui/api", Path(checkout) / "Lyra-2/gui/api") if p.is_dir()), None)
    if api is None:
        pytest.fail(f"LYRA2_SERVER_CHECKOUT: {checkout}: no folder gui/api in it")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    python = os.environ.get("LYRA2_SERVER_PYTHON", sys.executable)
    command = [python, "-m", "uvicorn", "server:app", "--app-dir", str(api), "--port", str(port), "--log-level", "critical"]
    process = subprocess.Popen(command, env={**os.environ, "LYRA_GUI_DUMMY": "1"}, stderr=subprocess.DEVNULL)
    try:
        yield _ready(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(10)


def _ready(url: str, process: subprocess.Popen) -> str:
    for _ in range(300):
        if process.poll() is not None:
            pytest.fail(f"the official server ended ({process.returncode}); has LYRA2_SERVER_PYTHON fastapi, uvicorn, loguru, cv2?")
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=1).close()
            return url
        except OSError:
            time.sleep(0.1)
    pytest.fail("the official server did not answer within 30 s")
