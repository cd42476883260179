"""The bridge to a Lyra 2.0 server when things go wrong: interrupted runs, lost sessions, broken answers, dead or silent servers."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from lyra2_http_server import Lyra2TestServer
from lyra2_server_inputs import ROOM, cameras, generator, look, run
from test_loop import path

from lyra_core.errors import BackendUnavailable, Cancelled, InputError, ServerError
from lyra_core.generate.lyra2_server import client
from lyra_core.generate.lyra2_server import generator as bridge
from lyra_core.types import Camera, Trajectory

SIZE = (48, 32)


@pytest.fixture(autouse=True)
def notes(tmp_path, monkeypatch):
    """Keep the notes of requests in flight apart, and wait little."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(client, "POLL_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def server():
    with Lyra2TestServer(look=look, size=SIZE) as ours:
        yield ours


class Story:
    """Chunks as a world folder keeps them."""

    def __init__(self):
        self.states, self.frames = [], {}

    def go(self, made, frames: int, **options) -> list[str]:
        """Make what is missing of a path of so many frames, as a new process does; return what the server was told."""
        start = len(self.states)
        if start:
            made.resume(start, self.states.__getitem__, self.frames.__getitem__)
        trajectory = options.pop("trajectory", cameras(frames))
        for chunk in run(made, trajectory, start=start, newest=self.frames.get(80 * start), **options):
            self.frames.update(zip(chunk.frame_ids, chunk.frames, strict=True))
            self.states.append(made.chunk_state())
        return self

    def revert(self, chunks: int) -> Story:
        self.states = self.states[:chunks]
        return self

    def pixels(self) -> np.ndarray:
        return np.stack([self.frames[i].rgb for i in sorted(self.frames)])


def log(server) -> list[str]:
    """Return what happened, without session names."""
    return [entry if entry in ("seed", "revert") else entry[-3:] for entry in server.log]


@pytest.fixture(scope="module")
def whole():
    """Pixels of a run that nothing interrupted."""
    with Lyra2TestServer(look=look, size=SIZE) as ours:
        return Story().go(generator(ours.url), 161).pixels()


def interrupted(server, story: Story, frames: int, **options) -> None:
    """Stop while the server makes the next chunk."""
    made = generator(server.url)
    asked = len(server.hints)
    server.seconds = 0.2

    def stop(what: str) -> None:
        if len(server.hints) > asked and server.seconds:
            raise Cancelled(what)

    made.on_wait = stop
    with pytest.raises(Cancelled, match="waiting for chunk"):
        story.go(made, frames, **options)
    server.seconds = 0.0


def test_a_chunk_begun_by_a_killed_run_is_taken(server, whole, notes):
    story = Story().go(generator(server.url), 81)
    interrupted(server, story, 161)
    assert len(list(notes.glob("*.prompt"))) == 1
    story.go(generator(server.url), 161)
    assert log(server) == ["seed", "0-0", "1-0"] and np.array_equal(story.pixels(), whole)
    assert not list(notes.iterdir())


@pytest.mark.parametrize("change", ["prompt", "cameras", "lost note"])
def test_another_chunk_than_the_one_begun_reverts_it(server, change, notes):
    story = Story().go(generator(server.url), 81)
    interrupted(server, story, 161, prompt="a dog")
    options = {"prompt": "a cat" if change == "prompt" else "a dog"}
    if change == "cameras":
        way = cameras(161)
        T = way.T_world_camera.copy()
        T[81:, 2, 3] += 0.05
        options["trajectory"] = Trajectory(T, way.K, way.width, way.height)
    if change == "lost note":
        next(notes.glob("*.prompt")).unlink()
    story.go(generator(server.url), 161, **options)
    assert log(server) == ["seed", "0-0", "1-0", "revert", "1-1"] and len(server.chunks) == 2
    assert server.hints[1:] == ["a dog", options["prompt"]] and int(story.states[1]["attempt"]) == 1


def test_a_chunk_of_the_world_taken_back_is_taken_back_there(server):
    story = Story().go(generator(server.url), 161)
    story.revert(1).go(generator(server.url), 161, prompt="a dog")
    assert log(server) == ["seed", "0-0", "1-0", "revert", "1-1"] and len(server.chunks) == 2


def test_two_chunks_taken_back_need_a_new_session(server, whole):
    """The server's undo goes back once."""
    story = Story().go(generator(server.url), 241)
    story.revert(1).go(generator(server.url), 161)
    assert log(server) == ["seed", "0-0", "1-0", "2-0"] + ["seed", "0-0", "1-0"]
    assert np.array_equal(story.pixels()[:161], whole) and story.states[0]["session"] != story.states[1]["session"]


def test_a_restarted_server_makes_the_chunks_again(server, whole):
    story = Story().go(generator(server.url), 81, prompt="a dog")
    server.forget()
    story.go(generator(server.url), 161, prompt="a cat")
    assert log(server) == ["seed", "0-0", "seed", "0-0", "1-0"] and server.hints == ["a dog", "a dog", "a cat"]
    assert np.array_equal(story.pixels(), whole)


def test_a_session_with_another_last_picture_is_not_ours(server):
    """The server's newest result must be the stored frame, to the byte."""
    story = Story().go(generator(server.url), 81)
    rgb = story.frames[80].rgb.copy()
    rgb[0, 0, 0] ^= 1
    story.frames[80] = replace(story.frames[80], rgb=rgb)
    story.go(generator(server.url), 161)
    assert log(server) == ["seed", "0-0", "seed", "0-0", "1-0"]


def elsewhere(T_seed_camera, K, width, height):
    T = path(41).T_world_camera[40] @ T_seed_camera
    T[:3, :3] = T[:3, :3] @ np.diag([-1.0, 1.0, -1.0])
    return ROOM.query(Camera(K, width, height), T).rgb


def test_a_server_that_does_not_make_the_same_again_is_refused(server):
    story = Story().go(generator(server.url), 81)
    server.forget()
    server.look = elsewhere
    with pytest.raises(ServerError, match=r"session was lost, and made again, frame 80 is another one.*revert"):
        story.go(generator(server.url), 161)


def test_a_session_taken_over_by_someone_else_is_noticed(server):
    made = generator(server.url)
    chunks = run(made, cameras(161))
    next(chunks)
    server.look = elsewhere
    with pytest.raises(ServerError, match=r"chunk 1 does not go on from frame 80.*used from elsewhere"):
        next(chunks)


def test_the_last_chunk_may_be_made_anew(server):
    made = generator(server.url)
    requests, generate = [], made.generate
    made.generate = lambda request: (requests.append(request), generate(request))[1]
    before = list(run(made, cameras(161)))[1].frames
    again = made.generate(requests[1])
    assert log(server) == ["seed", "0-0", "1-0", "revert", "1-1"] and len(server.chunks) == 2
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(before, again, strict=True))
    made.generate(requests[0])
    with pytest.raises(InputError, match=r"got chunk 3 after 1 chunks; expected resume"):
        made.generate(bridge.ChunkRequest(3, *(getattr(requests[1], n) for n in ("trajectory", "history", "newest")), (), "", 0))


def test_a_failed_chunk_can_be_asked_for_again(server):
    made = generator(server.url)
    server.fault = "fails"
    with pytest.raises(ServerError, match="chunk 0 failed: CUDA out of memory"):
        next(run(made, cameras(81)))
    story = Story()
    server.fault = ""
    story.go(made, 81)
    server.fault = "fails"
    with pytest.raises(ServerError, match="chunk 1 failed"):
        story.go(made, 161)
    server.fault = ""
    story.go(generator(server.url), 161)
    assert log(server)[2:] == ["seed", "0-0", "1-0", "1-1"] and len(server.chunks) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("html", r"media type 'text/html', expected 'application/vnd.lyra2.api\+json'; is it a Lyra 2.0 server"),
        ("status", "got status 502, expected 200: <b>Bad Gateway</b>"),
        ("json", "not readable as JSON"),
        ("type", "got type 'os.system', expected 'SeedingResult'"),
        ("count", "got 79 frames in its video, expected 80; was it cut off"),
        ("cut", "frames in its video, expected 80|bytes cannot be read"),
        ("video", "its video of 8 bytes cannot be read"),
        ("size", "got frames of 24 x 32, expected 48 x 32"),
        ("depth", "found no depth for its last frame.*LYRA_GUI_DA3_USE_PREDICTED_POSE=0"),
        ("focal", "took 1.300 times the focal length"),
    ],
)
def test_answers_that_cannot_be_used(server, fault, words):
    made = generator(server.url)
    server.fault = fault
    with pytest.raises(ServerError, match=words) as error:
        next(run(made, cameras(81)))
    assert server.url in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("fault", ["short", "drop"])
def test_broken_connections_are_an_end(server, fault):
    made = generator(server.url)
    server.fault = fault
    with pytest.raises(ServerError, match=r"no answer from http://127.*; start the official server.*what is stored stays"):
        next(run(made, cameras(81)))


def test_versions(server):
    server.version = [3, 0, 0]
    with pytest.raises(ServerError, match=r"metadata: got model Lyra2 3\.0\.0, expected Lyra2 2\.x"):
        generator(server.url)
    server.fault = "html"
    with pytest.raises(ServerError, match=r"no facts of a Lyra 2\.0 server"):
        generator(server.url)


def test_nobody_there():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    begin = time.monotonic()
    with pytest.raises(BackendUnavailable, match="refused"):
        generator(url)
    with pytest.raises(BackendUnavailable, match="no-such-host"):
        generator("http://no-such-host.invalid:1")
    assert time.monotonic() - begin < 15


def test_a_server_that_dies_while_it_works(server):
    made = generator(server.url)
    server.seconds = 30.0
    threading.Timer(0.3, server.stop).start()
    begin = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer from .*refused"):
        next(run(made, cameras(81)))
    assert time.monotonic() - begin < 5


def test_nothing_hangs(server, monkeypatch):
    """Whatever is silent for longer than the timeout is an error that says so."""
    made = generator(server.url, timeout=0.5)
    server.seconds = 30.0
    begin = time.monotonic()
    with pytest.raises(ServerError, match=r"no answer within 0\.5 s \(server_timeout\)"):
        next(run(made, cameras(81)))
    server.fault = "silent"
    with pytest.raises(ServerError, match=r"healthz: no answer within 0\.5 s"):
        next(run(made, cameras(81)))
    assert time.monotonic() - begin < 3


def test_a_server_that_answers_nothing_while_it_works(whole, monkeypatch):
    """As the official one with weights: the poll waits, is asked again, and a new process finds its facts only later."""
    monkeypatch.setattr(client, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(bridge, "CONNECT_SECONDS", 0.1)
    with Lyra2TestServer(look=look, size=SIZE, seconds=0.5, blocking=True) as server:
        waited: list[str] = []
        made = generator(server.url)
        made.on_wait = waited.append
        story = Story().go(made, 81)
        assert waited and set(waited[-2:]) == {"waiting for chunk 0"}
        made = generator(server.url)
        made.on_wait = lambda what: (_ for _ in ()).throw(Cancelled(what)) if len(server.hints) > 1 else None
        with pytest.raises(Cancelled):
            story.go(made, 161)
        late = generator(server.url)
        assert late._facts is None
        story.go(late, 161)
        assert log(server) == ["seed", "0-0", "1-0"] and np.array_equal(story.pixels(), whole)


def test_a_wait_in_silence_can_be_stopped(monkeypatch):
    monkeypatch.setattr(client, "SLICE_SECONDS", 0.05)
    with Lyra2TestServer(look=look, size=SIZE, seconds=1.5, blocking=True) as server:
        made, asked = generator(server.url), []

        def stop(what: str) -> None:
            asked.extend([time.monotonic()] * bool(server.hints))
            if len(asked) > 4:
                raise Cancelled(what)

        made.on_wait = stop
        with pytest.raises(Cancelled):
            next(run(made, cameras(81)))
        assert asked[-1] - asked[0] < 1.0


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_ctrl_c_while_waiting(server):
    made = generator(server.url)
    server.seconds = 30.0
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(run(made, cameras(81)))
    assert time.monotonic() - begin < 2
