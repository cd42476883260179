"""Frames from an official Lyra 2.0 inference server that is already running: seed, request, poll, revert."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.config import GenerateCfg
from lyra_core.errors import ConfigError, InputError, ServerError, WorldError
from lyra_core.generate.base import ChunkRequest
from lyra_core.generate.frames import photo_frame, unlikeness, with_provenance
from lyra_core.generate.lyra2_server.client import CONNECT_SECONDS, Known, ServerClient, ServerFacts
from lyra_core.generate.lyra2_server.protocol import (
    CompressedInferenceResult,
    InferenceRequest,
    SeedingResult,
    chunk_message,
    pose_from_server,
    same_cameras,
    seed_message,
)
from lyra_core.io.images import resized
from lyra_core.io.video import read_video
from lyra_core.types import DepthEstimate, Frame, Photo, Trajectory

WEIGHTS_LICENCE = "NVIDIA Internal Scientific Research and Development Model License (weights), Apache-2.0 (code)"
LARGEST_STRETCH = 1.5
"""Most that a photo's shape may be pressed into the server's. 4:3 to its 12:7 is 1.29; portrait photos are beyond."""
LARGEST_UNLIKENESS = 0.5
"""Of a chunk's first frame and the frame before it. On rendered rooms and streets, neighbours of one video stay below 0.21, and
below 0.34 when the camera jumps by 8 degrees and 0.2 m; 97 % of pairs of other views and places are above 0.5."""
DUMMY = "Lyra2Dummy"
"""Name of the official server without weights. Its pictures follow neither camera nor scene, so they are not held against ours."""


@dataclass
class _Session:
    """What the server holds for us. It has one session; nothing in the protocol tells whose."""

    name: str
    T_world_seed: np.ndarray
    length: int = 0
    """Chunks."""
    settled: bool = True
    """False if the server may have been asked for a chunk beyond ``length``."""

    def request_id(self, index: int, attempt: int) -> str:
        """Name a request so that a later process can ask for it: attempts of a chunk count on from 0."""
        return f"{self.name}-{index}-{attempt}"


class GeneratorLyra2Server:
    """The official Lyra 2.0 server as a generator.

    The server decides seed, steps and preset by its own environment; prompts go into its captioner as hints. Cameras keep their
    poses as requested, all in the frame of the photo's camera and in our metres. A server started as released re-estimates the
    poses of its first chunk (its warp and memory then use those); LYRA_GUI_DA3_USE_PREDICTED_POSE=0 there keeps the path, and is
    needed for paths whose first 80 frames only turn. What it says of the last pose is kept in the chunk's state.

    Depth comes from the depth provider for all frames: the server returns it for one frame in 80, and by another model.
    """

    name = "lyra2-server"
    makes_depth = False
    licence = WEIGHTS_LICENCE

    def __init__(self, *, quality: str = "standard", cfg: GenerateCfg | None = None) -> None:
        """Take settings in; the server is first spoken to by ``check``, or by the first chunk.

        Raises:
            ConfigError: no URL, or not one.
        """
        cfg = cfg or GenerateCfg(generator=self.name)
        if not cfg.server:
            raise ConfigError("generate: server: got none, expected the URL of a running Lyra 2.0 server (--server http://HOST:PORT)")
        self.on_wait: Callable[[str], None] | None = None
        """Called about twice a second while waiting, with what for. What it raises ends the wait; the server works on."""
        self._client = ServerClient(cfg.server, timeout=cfg.server_timeout, on_wait=self._tell)
        self._facts: ServerFacts | None = None
        self._photo: Photo | None = None
        self._estimate: DepthEstimate | None = None
        self._first: Frame | None = None
        self._session: _Session | None = None
        self._state: dict[str, np.ndarray] = {}

    @staticmethod
    def probe() -> str:
        """Say what it takes, for ``lyra-worlds doctor``."""
        return "built in; needs a running server: --server http://HOST:PORT"

    def check(self, photo: Photo) -> None:
        """Look whether the server is there and takes this photo. One that is generating says nothing, and is asked again later.

        Raises:
            BackendUnavailable: the server is not reachable.
            ServerError: it is not a Lyra 2.0 server, or of another version.
            InputError: the photo has another shape than its frames.
        """
        self._facts = self._client.facts(patience=CONNECT_SECONDS)
        if self._facts is not None:
            _check_shape(photo, self._facts)

    def prepare(self, photo: Photo, estimate: DepthEstimate, *, seed: int, indoor: bool) -> None:
        """Take the photo in. The server has its own seed and finds the kind of place itself."""
        self._photo, self._estimate = photo, estimate
        self._first, self._session, self._state = None, None, {}

    def first_frame(self, trajectory: Trajectory) -> Frame:
        """Return the photo at the size of trajectory[0], with the depth that was estimated for it."""
        if self._photo is None or self._estimate is None:
            raise InputError(f"generator {self.name!r}: prepare() was not called; expected a photo and its depth first")
        self._first = photo_frame(self._photo, self._estimate, trajectory)
        return self._first

    def generate(self, request: ChunkRequest) -> list[Frame]:
        """Return one frame per camera, without depth. Chunk 0 begins a session; the session's last chunk may be made anew.

        Raises:
            ServerError: the server failed, is gone, was too slow, or returned what cannot be used.
            InputError: not the next chunk of the session.
        """
        first = self._first or self.first_frame(request.history[:1])
        if request.index == 0:
            self._session = self._begin(request.history[:1])
        session = self._session
        if session is None or session.length - request.index not in (0, 1):
            length = session.length if session else 0
            raise InputError(f"generator {self.name!r}: got chunk {request.index} after {length} chunks; expected resume() first")
        pictures = self._chunk(session, request.index, request.trajectory, request.prompt)
        apart = unlikeness(request.newest.rgb, pictures[0])
        if apart > LARGEST_UNLIKENESS and self._ready().model != DUMMY:
            raise ServerError(
                f"{self._client.url}: chunk {request.index} does not go on from frame {len(request.history) - 1}: unlikeness "
                f"{apart:.2f}, expected at most {LARGEST_UNLIKENESS}; the server has one session: was it used from elsewhere? "
                "Restart it, and the chunks are made again there"
            )
        return with_provenance(np.stack(pictures), first, request.trajectory)

    def chunk_state(self) -> dict[str, np.ndarray]:
        """Return the last chunk's request and prompt, and the pose (4, 4) that the server gave its last frame, if it gave one."""
        return self._state

    def resume(self, chunks: int, state: Callable[[int], dict[str, np.ndarray]], frame: Callable[[int], Frame]) -> None:
        """Go on after stored chunks: in the server's session if it is still ours, else in a new one with the chunks made again.

        The session is ours if the server still has the last chunk's result, its last picture is the stored one, and it has gone
        at most one chunk beyond (a chunk whose answer was not waited for: it is taken or reverted by ``generate``).

        Raises:
            ServerError: made again, the chunks are not the stored ones.
        """
        self._first = frame(0)
        saved = state(chunks - 1)
        session = _Session(str(saved["session"]), self._first.T_world_camera, chunks, settled=False)
        if self._is_ours(session, int(saved["attempt"]), frame):
            self._session = session
            return
        self._session = session = self._begin(_path([self._first]))
        for index in range(chunks):
            ids = range(1 + index * CHUNK_FRAMES, 1 + (index + 1) * CHUNK_FRAMES)
            newest = self._chunk(session, index, _path([frame(i) for i in ids]), str(state(index)["prompt"]))[-1]
            apart = unlikeness(frame(ids[-1]).rgb, newest)
            if apart > LARGEST_UNLIKENESS and self._ready().model != DUMMY:
                raise ServerError(
                    f"{self._client.url}: the session was lost, and made again, frame {ids[-1]} is another one (unlikeness "
                    f"{apart:.2f}, expected at most {LARGEST_UNLIKENESS}); is it the same server with the same settings? "
                    "To begin anew: lyra-worlds revert WORLD --chunk 0"
                )

    def _is_ours(self, session: _Session, attempt: int, frame: Callable[[int], Frame]) -> bool:
        """True if the server's session ends with the stored chunk, or one further."""
        index = session.length - 1
        answer = self._client.ask(session.request_id(index, attempt), what="the session's last chunk")
        if answer.result is None or self._client.ask(session.request_id(index + 2, 0)).known is not Known.NEVER_ASKED:
            return False
        stored = frame(session.length * CHUNK_FRAMES)
        picture = self._pictures(answer.result, f"chunk {index}", (stored.camera.width, stored.camera.height))[-1]
        return bool(np.array_equal(picture, stored.rgb))

    def _begin(self, camera: Trajectory) -> _Session:
        """Seed the server with the photo, seen by the camera of frame 0."""
        if self._photo is None or self._estimate is None:
            raise InputError(f"generator {self.name!r}: prepare() was not called; expected a photo and its depth first")
        facts = self._ready()
        _check_shape(self._photo, facts)
        session = _Session(f"lyra-worlds-{secrets.token_hex(6)}", camera.T_world_camera[0])
        message = seed_message(f"{session.name}-seed", self._photo, self._estimate, camera, facts.size)
        result = self._client.seed(message)
        if facts.model != DUMMY:
            _check_taken(message.focal_lengths[0], message.depths[0], result, self._client.url)
        return session

    def _chunk(self, session: _Session, index: int, cameras: Trajectory, prompt: str) -> list[np.ndarray]:
        """Return a chunk's pictures (h, w, 3) uint8 at the cameras' size, and set the chunk's state."""
        what, first = f"chunk {index}", 1 + index * CHUNK_FRAMES
        wanted = chunk_message("", first, cameras, prompt, session.T_world_seed, self._ready().size)
        attempt, result = self._found(session, index, wanted, what)
        request_id = session.request_id(index, attempt)
        session.settled = False
        if result is None:
            _in_flight(request_id).write_text(prompt, encoding="utf-8")
            answer = self._client.chunk(replace(wanted, request_id=request_id), what=what)
            if answer.result is None:
                lost = "the request is not known there; was the server restarted?"
                reason = lost if answer.known is Known.NEVER_ASKED else answer.text
                raise ServerError(f"{self._client.url}: {what} failed: {reason}")
            result = answer.result
        pictures = self._pictures(result, what, (cameras.width, cameras.height))
        _check_depth(result, f"{self._client.url}: {what}")
        _in_flight(request_id).unlink(missing_ok=True)
        session.length, session.settled = index + 1, True
        self._state = {"session": np.array(session.name), "attempt": np.array(attempt), "prompt": np.array(prompt)}
        if result.updated_last_camera_c2w is not None:
            self._state["T_world_camera_last"] = pose_from_server(result.updated_last_camera_c2w, session.T_world_seed)
        return pictures

    def _found(
        self, session: _Session, index: int, wanted: InferenceRequest, what: str
    ) -> tuple[int, CompressedInferenceResult | None]:
        """Return the attempt to make, or the newest that was made with its result if that can be taken.

        A killed or impatient run may have left a request behind. It is taken if it is for these cameras and, by the note of it,
        for this prompt; else the server reverts it.
        """
        attempt, newest = 0, None
        if session.settled and index == session.length:
            return attempt, None
        while (answer := self._client.ask(session.request_id(index, attempt), what=what)).known is not Known.NEVER_ASKED:
            attempt, newest = attempt + 1, answer
        if newest is None:
            return attempt, None
        before = session.request_id(index, attempt - 1)
        if newest.known is Known.RUNNING:
            newest = self._client.wait(before, what=what)
        note = _in_flight(before)
        same_prompt = note.is_file() and note.read_text(encoding="utf-8") == wanted.region_hint
        note.unlink(missing_ok=True)
        if newest.result is not None and same_prompt and same_cameras(newest.result, wanted):
            return attempt - 1, newest.result
        if newest.known is not Known.FAILED:
            # Not successful means that there is nothing to take back: it was, before an interruption.
            self._client.revert()
        return attempt, None

    def _pictures(self, result: CompressedInferenceResult, what: str, size: tuple[int, int]) -> list[np.ndarray]:
        """Decode a chunk's video and resample it to (width, height)."""
        where = f"{self._client.url}: {what}"
        if result.images_format != "mp4" or len(result.images_compressed) != 1:
            raise ServerError(f"{where}: got {len(result.images_compressed)} {result.images_format} files, expected one mp4")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chunk.mp4"
            path.write_bytes(result.images_compressed[0])
            try:
                # One more than wanted is enough to see that there are too many.
                video = list(islice(read_video(path), CHUNK_FRAMES + 1))
            except WorldError as error:
                raise ServerError(f"{where}: its video of {path.stat().st_size} bytes cannot be read") from error
        if len(video) != CHUNK_FRAMES or len(result.resolutions) != CHUNK_FRAMES:
            count = "more" if len(video) > CHUNK_FRAMES else len(video)
            raise ServerError(f"{where}: got {count} frames in its video, expected {CHUNK_FRAMES}; was it cut off?")
        width, height = self._ready().size
        if video[0].shape[:2] != (height, width):
            raise ServerError(f"{where}: got frames of {video[0].shape[1]} x {video[0].shape[0]}, expected {width} x {height}")
        return [resized(picture, *size) for picture in video]

    def _ready(self) -> ServerFacts:
        """Return what the server is, once it says so."""
        if self._facts is None:
            self._facts = self._client.facts()
        assert self._facts is not None
        return self._facts

    def _tell(self, what: str) -> None:
        if self.on_wait is not None:
            self.on_wait(f"waiting for {what}")


def _in_flight(request_id: str) -> Path:
    """Note with the prompt of a request whose result is still to come: the server does not tell it. Its name cannot be guessed."""
    return Path(tempfile.gettempdir()) / f"{request_id}.prompt"


def _path(frames: list[Frame]) -> Trajectory:
    camera = frames[0].camera
    T, K = np.stack([frame.T_world_camera for frame in frames]), np.stack([frame.camera.K for frame in frames])
    return Trajectory(T, K, camera.width, camera.height)


def _check_shape(photo: Photo, facts: ServerFacts) -> None:
    """Require a photo about as wide as the server's frames."""
    height, width = photo.rgb.shape[:2]
    stretch = (facts.size[0] / facts.size[1]) / (width / height)
    stretch = max(stretch, 1 / stretch)
    if stretch > LARGEST_STRETCH:
        raise InputError(
            f"photo: got {width} x {height}, whose shape differs from the server's {facts.size[0]} x {facts.size[1]} by a factor "
            f"of {stretch:.2f}; expected at most {LARGEST_STRETCH}: crop the photo"
        )


def _check_taken(focal_lengths: np.ndarray, depth: np.ndarray, result: SeedingResult, url: str) -> None:
    """Require that the server works in our metres and with our focal length."""
    known = depth > 0
    theirs = result.depths[0] if result.depths is not None and result.depths.shape[1:] == depth.shape else None
    scale = float(np.median(theirs[known] / depth[known])) if theirs is not None else 1.0
    factors = {"focal length": float((result.focal_lengths[0] / focal_lengths).max()), "depth": scale}
    for name, factor in factors.items():
        if not 0.98 < factor < 1.02:
            raise ServerError(f"{url}/seed-model: the server took {factor:.3f} times the {name} that it was given; expected ours")


def _check_depth(result: CompressedInferenceResult, where: str) -> None:
    """Require depth of the last frame, without which the server cannot go on."""
    depth = result.predicted_depths
    if depth is not None and len(depth) and not (np.isfinite(depth) & (depth > 0)).any():
        raise ServerError(
            f"{where}: the server found no depth for its last frame, so its next chunk would not go on from it; if the camera only "
            "turned, start the server with LYRA_GUI_DA3_USE_PREDICTED_POSE=0"
        )
