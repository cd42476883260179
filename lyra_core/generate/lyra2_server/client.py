"""HTTP client of the official Lyra 2.0 inference server. Every wait has an end, and can be stopped."""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.errors import BackendUnavailable, ConfigError, ServerError
from lyra_core.generate.lyra2_server.protocol import (
    MEDIA_TYPE,
    CompressedInferenceResult,
    InferenceRequest,
    RevertResult,
    SeedingRequest,
    SeedingResult,
    decode,
    encode,
)

CONNECT_SECONDS = 10.0
"""For a connection, and for the facts of a server that may be busy."""
STALL_SECONDS = 60.0
"""An exchange that has begun may stand still this long; a question to a silent server is asked again after it."""
SLICE_SECONDS = 0.5
"""How often a wait looks whether it should stop."""
POLL_SECONDS = 2.0
"""Between two questions whether a chunk is ready."""
RETRIES = 3
"""Lost connections in a row after which a server counts as gone."""
MAX_BYTES = 1 << 28
"""Largest answer that is read."""
TEXT_LENGTH = 300
"""Of a server's own words in an error."""
START = "start the official server (uvicorn server:app --app-dir gui/api in its folder Lyra-2), or correct --server"
T = TypeVar("T")


class Known(Enum):
    """What a server knows of a request id."""

    NEVER_ASKED = "never asked"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DROPPED = "dropped"
    """Asked once; the result is no longer kept."""


@dataclass(frozen=True)
class Answer:
    """State of a request id."""

    known: Known
    result: CompressedInferenceResult | None = None
    text: str = ""
    """The server's words where it failed."""


@dataclass(frozen=True)
class ServerFacts:
    """What /metadata tells."""

    model: str
    version: tuple[int, ...]
    size: tuple[int, int]
    """Width, height of the frames it makes [px]."""


class _Silent(Exception):
    """Connected, but no answer in time: the server handles one thing at a time and may be busy."""


class _Lost(Exception):
    """No connection, or it broke."""


class ServerClient:
    """One server. Connections are direct (no proxy), one per exchange."""

    def __init__(self, url: str, *, timeout: float, on_wait: Callable[[str], None]) -> None:
        """
        Args:
            url: http://HOST:PORT.
            timeout: longest wait for one chunk or for the seeding [s].
            on_wait: called about twice a second while waiting, with what for; what it raises ends the wait.

        Raises:
            ConfigError: not such a URL.
        """
        if "@" in url:
            raise ConfigError("generate: server: got a URL with a user name, which would be stored with the world; expected none")
        try:
            parts = urlsplit(url)
            scheme, self._host, self._port, self._prefix = parts.scheme, parts.hostname or "", parts.port, parts.path.rstrip("/")
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise ConfigError(f"generate: server: got {url!r}, expected http://HOST:PORT")
        self.url, self.timeout, self._on_wait = url.rstrip("/"), timeout, on_wait
        self._kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection

    def facts(self, *, patience: float | None = None) -> ServerFacts | None:
        """Ask what the server is.

        Args:
            patience: None is returned if the server stays silent so long [s]: it answers nothing while it generates.

        Raises:
            BackendUnavailable: not reachable.
            ServerError: not a Lyra 2.0 server, or one of another version.
        """
        deadline = time.monotonic() + (self.timeout if patience is None else patience)
        try:
            status, _, data = self._exchange("GET", "/metadata", deadline=deadline, what="its metadata")
        except _Silent as error:
            if patience is not None:
                return None
            raise self._late("/metadata") from error
        except _Lost as error:
            reason = f"no answer from {self.url}: {error}"
            raise BackendUnavailable("lyra2-server", reason=reason, install=START) from error
        return _read_facts(self._accepted("/metadata", status, 200, data), self.url)

    def seed(self, request: SeedingRequest) -> SeedingResult:
        """Begin a session with a picture; the one before is forgotten by the server."""
        deadline = time.monotonic() + self.timeout
        # While it is busy a server reads nothing, and a picture does not fit into the buffers on the way.
        self._patient("/healthz", deadline, "its turn")
        return self._post("/seed-model", encode(request), SeedingResult, deadline, "the seeding")

    def revert(self) -> RevertResult:
        """Take the last generation back; the server can do so once. ``success`` is False if there is none."""
        return self._post("/revert-last-generation", b"", RevertResult, time.monotonic() + self.timeout, "the way back")

    def chunk(self, request: InferenceRequest, *, what: str) -> Answer:
        """Ask for a chunk and wait for it, no longer than the timeout."""
        deadline = time.monotonic() + self.timeout
        self.request(request, what=what, deadline=deadline)
        return self.wait(request.request_id, what=what, deadline=deadline)

    def request(self, request: InferenceRequest, *, what: str = "a chunk", deadline: float | None = None) -> None:
        """Ask for a chunk. A connection that breaks proves nothing, the request may have arrived: ``ask`` tells."""
        deadline = time.monotonic() + self.timeout if deadline is None else deadline
        try:
            status, _, data = self._exchange("POST", "/request-inference", encode(request), deadline=deadline, what=what)
        except _Silent as error:
            raise self._late("/request-inference") from error
        except _Lost:
            return
        self._accepted("/request-inference", status, 202, data)

    def ask(self, request_id: str, *, what: str = "an answer", deadline: float | None = None) -> Answer:
        """Return what the server knows of a request id."""
        deadline = time.monotonic() + self.timeout if deadline is None else deadline
        path = f"/inference-result?request_id={quote(request_id, safe='')}"
        status, kind, data = self._patient(path, deadline, what)
        text = _plain(data)
        if status == 200:
            return Answer(Known.DONE, self._message("/inference-result", kind, data, CompressedInferenceResult))
        if status == 503:
            return Answer(Known.RUNNING)
        if status != 500:
            raise ServerError(f"{self.url}/inference-result: got status {status}: {text}")
        if "request not known" in text:
            return Answer(Known.NEVER_ASKED)
        return Answer(Known.DROPPED if "does not have any result" in text else Known.FAILED, text=text)

    def wait(self, request_id: str, *, what: str, deadline: float | None = None) -> Answer:
        """Wait until a request is no longer running.

        Raises:
            ServerError: not within the timeout, or the server is gone.
        """
        begin = time.monotonic()
        deadline = begin + self.timeout if deadline is None else deadline
        while True:
            answer = self.ask(request_id, what=what, deadline=deadline)
            if answer.known is not Known.RUNNING:
                return answer
            self._sleep(min(POLL_SECONDS, 0.02 + 0.1 * (time.monotonic() - begin)), deadline, what)

    def _post(self, path: str, body: bytes, kind: type[T], deadline: float, what: str) -> T:
        try:
            status, media, data = self._exchange("POST", path, body, deadline=deadline, what=what)
        except _Silent as error:
            raise self._late(path) from error
        except _Lost as error:
            raise self._gone(error) from error
        return self._message(path, media, self._accepted(path, status, 200, data), kind)

    def _patient(self, path: str, deadline: float, what: str) -> tuple[int, str, bytes]:
        """GET; asked again when the server stays silent or the connection breaks."""
        lost = 0
        while True:
            try:
                return self._exchange("GET", path, deadline=min(deadline, time.monotonic() + STALL_SECONDS), what=what)
            except _Silent as error:
                lost = 0
                if time.monotonic() >= deadline:
                    raise self._late(path) from error
            except _Lost as error:
                lost += 1
                if lost >= RETRIES or time.monotonic() >= deadline:
                    raise self._gone(error) from error
                self._sleep(POLL_SECONDS, deadline, what)

    def _exchange(self, method: str, path: str, body: bytes = b"", *, deadline: float, what: str) -> tuple[int, str, bytes]:
        """Send one request; return status, media type and body."""
        connection = self._kind(self._host, self._port, timeout=CONNECT_SECONDS)
        headers = {"Accept": MEDIA_TYPE, **({"Content-Type": MEDIA_TYPE} if body else {})}
        try:
            connection.connect()
            connection.sock.settimeout(STALL_SECONDS)
            connection.request(method, self._prefix + path, body if method == "POST" else None, headers)
            self._until_readable(connection.sock, deadline, what)
            reply = connection.getresponse()
            media = (reply.getheader("Content-Type") or "").partition(";")[0].strip().lower()
            return reply.status, media, self._read(reply, deadline, what)
        except (OSError, http.client.HTTPException) as error:
            raise _Lost(str(error) or type(error).__name__) from error
        finally:
            connection.close()

    def _until_readable(self, sock: socket.socket, deadline: float, what: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            while not selector.select(min(SLICE_SECONDS, max(0.0, deadline - time.monotonic()))):
                if time.monotonic() >= deadline:
                    raise _Silent
                self._on_wait(what)

    def _read(self, reply: http.client.HTTPResponse, deadline: float, what: str) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := reply.read1(1 << 20):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise ServerError(f"{self.url}: got an answer of more than {MAX_BYTES >> 20} MB for {what}")
            if time.monotonic() >= deadline:
                raise _Silent
            self._on_wait(what)
        if reply.length:
            raise http.client.IncompleteRead(b"", reply.length)
        return b"".join(parts)

    def _sleep(self, seconds: float, deadline: float, what: str) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            if now >= deadline:
                raise self._late("/inference-result")
            self._on_wait(what)
            time.sleep(min(SLICE_SECONDS, end - now))

    def _accepted(self, path: str, status: int, wanted: int, data: bytes) -> bytes:
        if status != wanted:
            raise ServerError(f"{self.url}{path}: got status {status}, expected {wanted}: {_plain(data) or 'no text'}")
        return data

    def _message(self, path: str, media: str, data: bytes, kind: type[T]) -> T:
        if media != MEDIA_TYPE:
            raise ServerError(f"{self.url}{path}: got media type {media!r}, expected {MEDIA_TYPE!r}; is it a Lyra 2.0 server?")
        try:
            return decode(data, kind)
        except ServerError as error:
            raise ServerError(f"{self.url}{path}: {error}") from error

    def _late(self, path: str) -> ServerError:
        return ServerError(
            f"{self.url}{path}: no answer within {self.timeout:g} s (server_timeout); it may still be busy, and the same command "
            "takes its result once it is there"
        )

    def _gone(self, error: Exception) -> ServerError:
        return ServerError(f"no answer from {self.url}: {error}; {START}, and give the same command again: what is stored stays")


def _plain(data: bytes) -> str:
    """Return a server's words on one line."""
    text = data[: 4 * TEXT_LENGTH].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:TEXT_LENGTH]


def _read_facts(data: bytes, url: str) -> ServerFacts:
    where = f"{url}/metadata"
    try:
        facts: Any = json.loads(data)
        model, version = str(facts["model_name"]), tuple(int(n) for n in facts["model_version"])
        sizes = [(int(width), int(height)) for width, height in facts["inference_resolution"]]
        frames = int(facts["min_frames_per_request"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ServerError(f"{where}: got no facts of a Lyra 2.0 server ({type(error).__name__}: {error})") from error
    if not model.startswith("Lyra2") or version[:1] != (2,):
        raise ServerError(f"{where}: got model {model} {'.'.join(map(str, version))}, expected Lyra2 2.x")
    if len(sizes) != 1 or min(sizes[0]) < 16 or max(sizes[0]) > 4096:
        raise ServerError(f"{where}: inference_resolution: got {sizes}, expected one width and height")
    if frames != CHUNK_FRAMES:
        raise ServerError(f"{where}: min_frames_per_request: got {frames}, expected {CHUNK_FRAMES}")
    return ServerFacts(model, version, sizes[0])
