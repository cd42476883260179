"""A Lyra 2.0 inference server for tests, written from the wire format with the standard library: sessions, results, undo, faults.

It shares no code with the client. Like the official server without weights it rolls the seed picture sideways; or it shows a given
scene from the requested cameras, so that what arrives can be judged. The same contract tests run against it and the official one.
"""

from __future__ import annotations

import base64
import json
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from lyra_core.io.video import write_video

MEDIA_TYPE = "application/vnd.lyra2.api+json"
CAMERA_FIELDS = {"request_id", "cameras_to_world", "focal_lengths", "principal_points", "resolutions",
                 "frame_count_without_padding"}  # fmt: skip
FIELDS = {
    "SeedingRequest": CAMERA_FIELDS | {"images", "depths", "masks"},
    "InferenceRequest": CAMERA_FIELDS
    | {"timestamps", "framerate", "return_depths", "video_encoding_quality", "show_cache_renderings", "region_hint"},
}
Look = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]
"""(T_seed_camera (4, 4), K (3, 3), width, height) -> (h, w, 3) uint8."""


_VIDEOS: dict[tuple, bytes] = {}


class Refused(Exception):
    """Answered with status 400."""


class Lyra2TestServer:
    """Runs in a thread; ``fault`` names what goes wrong from now on.

    Args:
        look: the scene; None rolls the seed picture.
        seconds: a chunk takes [s].
        blocking: nothing is answered while a chunk is made, as by the official server with weights.
    """

    def __init__(
        self, *, look: Look | None = None, size: tuple[int, int] = (96, 64), seconds: float = 0.0, blocking: bool = False
    ) -> None:
        self.look, self.size, self.seconds, self.blocking = look, size, seconds, blocking
        self.fault, self.version = "", [2, 0, 0]
        self.log: list[str] = []
        """What happened, in order: 'seed', a request id, 'revert'."""
        self.hints: list[str] = []
        self.seed: dict[str, np.ndarray] | None = None
        self.chunks: list[str] = []
        """Request ids of the session."""
        self.can_revert = False
        self.results: dict[str, dict | None] = {}
        self.failed: dict[str, str] = {}
        self.history: set[str] = set()
        kind = HTTPServer if blocking else ThreadingHTTPServer
        self._http = kind(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._http.daemon_threads = True
        # A client that left while a result was on its way is no error.
        self._http.handle_error = lambda *_: None
        self._work: list[Callable[[], None]] = []
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Lyra2TestServer:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """Be gone: later connections are refused."""
        self._http.shutdown()
        self._http.server_close()

    def forget(self) -> None:
        """Be as after a restart."""
        self.seed, self.chunks, self.can_revert = None, [], False
        self.results, self.failed, self.history = {}, {}, set()

    def metadata(self) -> dict:
        """Return the facts of /metadata."""
        name = "Lyra2" if self.look else "Lyra2Dummy"
        return {"model_name": name, "model_version": self.version, "caption_model": "none", "min_frames_per_request": 80,
                "max_frames_per_request": 8000, "inference_resolution": [list(self.size)], "default_framerate": 16.0,
                "requires_seeding": True, "inference_time_per_frame": 0.001}  # fmt: skip

    def begin(self, message: dict) -> dict:
        """Take a seed; the session before is forgotten."""
        width, height = self.size
        images = message["images"]
        if images.shape[:1] + images.shape[3:] != (1, 3) or message["cameras_to_world"].shape != (1, 3, 4):
            raise Refused(f"images: {images.shape}")
        scale = np.array(self.size) / message["resolutions"][0]
        self.seed = {"image": cv2.resize(images[0], self.size, interpolation=cv2.INTER_AREA)}
        self.chunks, self.can_revert = [], False
        self.log.append("seed")
        depth = np.full((1, height, width), 2.0, np.float32) if message["depths"] is None else message["depths"]
        focal = message["focal_lengths"] * scale * (1.3 if self.fault == "focal" else 1.0)
        return _message("SeedingResult", request_id=message["request_id"], cameras_to_world=message["cameras_to_world"],
                        focal_lengths=focal, principal_points=message["principal_points"],
                        resolutions=np.array([self.size], np.int32), frame_count_without_padding=None, depths=depth,
                        masks=depth > 0)  # fmt: skip

    def accept(self, message: dict) -> None:
        """Check a request and start on it."""
        request_id, n = message["request_id"], len(message["cameras_to_world"])
        if self.seed is None:
            raise Refused(f"Received request id '{request_id}', but the model was not seeded.")
        if request_id in self.results or request_id in self.failed:
            raise Refused(f"Invalid request id '{request_id}': request already exists.")
        if n < 80 or n % 80:
            raise Refused(f"Request of {n} frames is invalid; must be a multiple of 80.")
        shapes = {"cameras_to_world": (n, 3, 4), "focal_lengths": (n, 2), "principal_points": (n, 2), "resolutions": (n, 2),
                  "timestamps": (n,)}  # fmt: skip
        for name, shape in shapes.items():
            if message[name].shape != shape:
                raise Refused(f"{name}: {message[name].shape}")
        self.log.append(request_id)
        self.hints.append(message["region_hint"])
        self.history.add(request_id)
        self.results[request_id] = None
        self._work.append(lambda: self._make(message))

    def work(self) -> None:
        """Do what was accepted."""
        while self._work:
            self._work.pop()()

    def _make(self, message: dict) -> None:
        time.sleep(self.seconds)
        request_id = message["request_id"]
        if self.fault == "fails":
            self.failed[request_id] = "CUDA out of memory"
            self.results.pop(request_id, None)
            return
        self.chunks.append(request_id)
        self.can_revert = True
        self.results[request_id] = self._result(message)
        for old in list(self.results)[:-15]:
            del self.results[old]

    def _result(self, message: dict) -> dict:
        n, (width, height) = len(message["cameras_to_world"]), self.size
        video = self._video(message, n)
        video = {"cut": video[: len(video) // 2], "video": b"no video"}.get(self.fault, video)
        last = np.vstack([message["cameras_to_world"][-1], [0, 0, 0, 1]])
        last[0, 3] += 0.01
        depth = np.full((1, height, width), 0.0 if self.fault == "depth" else 2.0, np.float32)
        cameras_to_world = message["cameras_to_world"].copy()
        cameras_to_world[-1] = last[:3]
        return _message(
            "CompressedInferenceResult", request_id=message["request_id"], cameras_to_world=cameras_to_world,
            focal_lengths=message["focal_lengths"], principal_points=message["principal_points"],
            resolutions=np.tile([[width, height]], (n, 1)), frame_count_without_padding=None, result_ids=["x"] * n,
            timestamps=np.zeros(n), images=np.empty((0, height, width, 3), np.float32), depths=None, runtime_ms=1.0,
            predicted_depths=depth, predicted_depth_indices=np.array([n - 1], np.int32), predicted_masks=depth > 0,
            updated_last_camera_c2w=last, updated_seed_depth=None, updated_seed_mask=None, images_compressed=[video],
            images_format=_enum("mp4"), depths_compressed=None, depths_format=None, warp_video_compressed=None,
            warp_video_format=None,
        )  # fmt: skip

    def _video(self, message: dict, n: int) -> bytes:
        """Show and encode a chunk; the same one again comes from a store, which spares the tests much time."""
        parts = (message["cameras_to_world"], message["focal_lengths"], message["principal_points"], *(self.seed or {}).values())
        key = (self.look, self.size, self.fault in ("count", "size") and self.fault, *(part.tobytes() for part in parts))
        if key not in _VIDEOS:
            frames = [self._picture(message, i) for i in range(n - 1 if self.fault == "count" else n)]
            if self.fault == "size":
                frames = [np.ascontiguousarray(frame[:, ::2]) for frame in frames]
            with tempfile.TemporaryDirectory() as folder:
                write_video(Path(folder) / "video.mp4", frames)
                _VIDEOS[key] = (Path(folder) / "video.mp4").read_bytes()
        return _VIDEOS[key]

    def _picture(self, message: dict, i: int) -> np.ndarray:
        assert self.seed is not None
        if self.look is None:
            picture = np.roll(self.seed["image"], i % self.size[0], axis=1) * (0.85 + 0.15 * i / 79)
            return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
        scale = np.array(self.size) / message["resolutions"][i]
        K = np.eye(3)
        K[[0, 1], [0, 1]] = message["focal_lengths"][i] * scale
        K[:2, 2] = message["principal_points"][i] * self.size
        return self.look(np.vstack([message["cameras_to_world"][i], [0, 0, 0, 1]]), K, *self.size)

    def revert(self) -> dict:
        """Take the last chunk back, once."""
        self.log.append("revert")
        if self.look is None:
            return _message("RevertResult", success=True, message="Dummy state reverted.")
        done, self.can_revert = self.can_revert, False
        if done:
            self.chunks.pop()
        return _message("RevertResult", success=done, message="Reverted." if done else "No generation is available to revert.")


class _Handler(BaseHTTPRequestHandler):
    owner: Lyra2TestServer

    def log_message(self, *_) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        owner, url = self.owner, urlsplit(self.path)
        if self._broken():
            return
        if url.path in ("/metadata", "/healthz"):
            return self._send(200, json.dumps(owner.metadata()).encode(), "application/json")
        if url.path != "/inference-result":
            return self._send(404, b'{"detail":"Not Found"}', "application/json")
        request_id = parse_qs(url.query)["request_id"][0]
        if request_id in owner.failed:
            return self._send(500, owner.failed[request_id].encode(), "")
        if request_id not in owner.results:
            known = "was known, but does not have any result." if request_id in owner.history else "request not known."
            return self._send(500, f'"Invalid request id \'{request_id}\': {known}"'.encode(), "")
        result = owner.results[request_id]
        if result is None:
            return self._send(503, b"Result not ready", "")
        self._send(200, json.dumps(result).encode(), MEDIA_TYPE)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._broken():
            return
        try:
            if self.path == "/revert-last-generation":
                return self._send(200, json.dumps(self.owner.revert()).encode(), MEDIA_TYPE)
            if self.headers.get("Content-Type") not in (MEDIA_TYPE, "application/json"):
                raise Refused(f"Unsupported Content-Type: {self.headers.get('Content-Type')}")
            if self.path == "/seed-model":
                return self._send(200, json.dumps(self.owner.begin(_read(body, "SeedingRequest"))).encode(), MEDIA_TYPE)
            self.owner.accept(_read(body, "InferenceRequest"))
        except Refused as error:
            return self._send(400, str(error).encode(), "")
        self._send(202, b"Request accepted.", "")
        self.wfile.flush()
        self.close_connection = True
        if self.owner.blocking:
            self.connection.shutdown(1)
            self.owner.work()
        else:
            threading.Thread(target=self.owner.work, daemon=True).start()

    def _broken(self) -> bool:
        """Play a fault of the transport."""
        fault = self.owner.fault
        if fault == "silent":
            time.sleep(3.0)
        elif fault == "html":
            self._send(200, b"<html>hello</html>", "text/html")
        elif fault == "status":
            self._send(502, b"<b>Bad\nGateway</b>", "text/html")
        elif fault == "json":
            self._send(200, b"{", MEDIA_TYPE)
        elif fault == "type":
            self._send(200, b'{"type":"os.system","fields":{"command":"true"}}', MEDIA_TYPE)
        elif fault == "short":
            self._send(200, b"{}", MEDIA_TYPE, length=1000)
        elif fault != "drop":
            return False
        self.close_connection = True
        return True

    def _send(self, status: int, data: bytes, kind: str, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        if kind:
            self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(data)


def _message(kind: str, **fields) -> dict:
    return {"type": kind, "fields": {name: _wire(value) for name, value in fields.items()}}


def _enum(value: str) -> dict:
    return {"__lyra2_type__": "enum", "enum": "CompressionFormat", "value": value}


def _wire(value):
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"__lyra2_type__": "ndarray", "dtype": value.dtype.str, "shape": list(value.shape), "value": data}
    if isinstance(value, bytes):
        return {"__lyra2_type__": "bytes", "value": base64.b64encode(value).decode()}
    return [_wire(item) for item in value] if isinstance(value, list) else value


def _read(body: bytes, kind: str) -> dict:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise Refused(f"Invalid API JSON payload: {error}") from error
    if message.get("type") != kind:
        raise Refused(f"Unsupported API message type '{message.get('type')}', expected one of: {kind}")
    unknown = set(message["fields"]) - FIELDS[kind]
    if unknown:
        raise Refused(f"Unexpected field(s) for {kind}: {', '.join(sorted(unknown))}")
    out = {}
    for name, value in message["fields"].items():
        if isinstance(value, dict):
            value = np.frombuffer(base64.b64decode(value["value"]), np.dtype(value["dtype"])).reshape(value["shape"])
        out[name] = value
    return out
