"""The bridge to a Lyra 2.0 server: the same contract against our test server and, where there is one, the official one."""

from __future__ import annotations

import http.client
import json
import secrets
from dataclasses import replace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from lyra2_http_server import Lyra2TestServer
from lyra2_server_inputs import (
    FRAME_CAMERA,
    ROOM,
    cameras,
    generator,
    look,
    official_server,
    photo_and_estimate,
    psnr,
    run,
)

from lyra_core.config import GenerateCfg
from lyra_core.errors import ConfigError, InputError, ServerError
from lyra_core.generate.frames import unlikeness
from lyra_core.generate.lyra2_server.client import Known, ServerClient
from lyra_core.generate.lyra2_server.generator import GeneratorLyra2Server
from lyra_core.generate.lyra2_server.protocol import (
    MEDIA_TYPE,
    CompressedInferenceResult,
    RevertResult,
    SeedingResult,
    cameras_for_server,
    chunk_message,
    decode,
    encode,
    pose_from_server,
    same_cameras,
    seed_message,
)
from lyra_core.types import Photo, Provenance


@pytest.fixture(scope="module", params=["ours", "official"])
def server(request):
    """URL of a server without weights."""
    if request.param == "official":
        with official_server() as url:
            yield url
    else:
        with Lyra2TestServer() as ours:
            yield ours.url


@pytest.fixture(scope="module")
def client(server):
    return ServerClient(server, timeout=60.0, on_wait=lambda what: None)


@pytest.fixture(scope="module")
def facts(client):
    return client.facts()


def seeded(client, facts, name):
    photo, estimate = photo_and_estimate()
    way = cameras(81)
    message = seed_message(f"{name}-seed", photo, estimate, way[:1], facts.size)
    return message, client.seed(message)


def test_contract_facts(facts):
    assert facts.model.startswith("Lyra2") and facts.version[0] == 2 and min(facts.size) >= 16


def test_contract_seed(client, facts):
    message, result = seeded(client, facts, "contract")
    assert result.request_id == "contract-seed" and result.resolutions.tolist() == [list(facts.size)]
    assert result.depths is not None and result.depths.shape == (1, facts.size[1], facts.size[0]) and (result.depths > 0).any()
    assert np.allclose(result.cameras_to_world, message.cameras_to_world)


def test_contract_chunk(client, facts):
    """80 frames come back for 80 cameras, which are echoed; the server knows the request afterwards, and no other."""
    seeded(client, facts, "chunk")
    way = cameras(81)
    message = chunk_message(f"chunk-{secrets.token_hex(4)}", 1, way[1:], "a dog", way.T_world_camera[0], facts.size)
    assert client.ask(message.request_id).known is Known.NEVER_ASKED
    client.request(message)
    answer = client.wait(message.request_id, what="a chunk")
    assert answer.known is Known.DONE and answer.result is not None and same_cameras(answer.result, message)
    assert answer.result.images_format == "mp4" and answer.result.resolutions.tolist() == [list(facts.size)] * 80
    assert client.ask(message.request_id).known is Known.DONE
    with pytest.raises(ServerError, match=r"status 400.*already exists"):
        client.request(message)
    turned = replace(message, cameras_to_world=message.cameras_to_world[:, :, [1, 0, 2, 3]])
    assert not same_cameras(answer.result, turned)


def test_contract_refusals(client, facts, server):
    """What cannot be used is refused with status 400 and words; the client passes them on."""
    seeded(client, facts, "refusals")
    way = cameras(80)
    with pytest.raises(ServerError, match=r"status 400.*80"):
        client.request(chunk_message("short", 1, way[1:], "", way.T_world_camera[0], facts.size))
    parts = urlsplit(server)
    good = encode(chunk_message("media", 1, cameras(81)[1:], "", way.T_world_camera[0], facts.size))
    fields = json.loads(good)["fields"]
    bad = {
        "text/plain": good,
        MEDIA_TYPE: json.dumps({"type": "InferenceRequest", "fields": {**fields, "more": 1}}).encode(),
        f"{MEDIA_TYPE}; charset=utf-8": b'{"type": "SeedingResult", "fields": {}}',
    }
    for kind, body in bad.items():
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=10)
        connection.request("POST", "/request-inference", body, {"Content-Type": kind})
        assert connection.getresponse().status == 400, kind
        connection.close()
    assert client.ask("media").known is Known.NEVER_ASKED


def test_contract_revert(client, facts):
    seeded(client, facts, "revert")
    way = cameras(81)
    request = chunk_message(f"revert-{secrets.token_hex(4)}", 1, way[1:], "", way.T_world_camera[0], facts.size)
    client.request(request)
    assert client.wait(request.request_id, what="a chunk").known is Known.DONE
    assert client.revert().success


def test_contract_generator(server, facts):
    """The whole loop: 161 frames at our size and poses. A server without weights rolls the photo: that tells colours and order."""
    made = generator(server)
    chunks = list(run(made, cameras(161), prompt="a dog"))
    frames = [frame for chunk in chunks for frame in chunk.frames]
    assert len(frames) == 161 and [chunk.index for chunk in chunks] == [0, 1]
    assert all(np.array_equal(frame.T_world_camera, T) for frame, T in zip(frames, cameras(161).T_world_camera, strict=True))
    assert all(frame.camera.width == 64 and np.array_equal(frame.camera.K, FRAME_CAMERA.K) for frame in frames)
    assert (frames[0].provenance[5:] == Provenance.SEEN).all() and psnr(frames[0].rgb, ROOM.first_frame(cameras(1)).rgb) > 28
    labels = np.unique([frame.provenance for frame in frames[8::8]])
    assert set(labels) - {255} == {Provenance.CONTINUED, Provenance.INVENTED}
    assert str(made.chunk_state()["prompt"]) == "a dog"
    if facts.model == "Lyra2Dummy":
        photo, _ = photo_and_estimate()
        seed = cv2.resize(photo.rgb, facts.size, interpolation=cv2.INTER_AREA).astype(float)
        for i in (0, 1, 30, 79):
            rolled = np.roll(seed, i % facts.size[0], axis=1) * (0.85 + 0.15 * i / 79)
            wanted = cv2.resize(rolled, (64, 48), interpolation=cv2.INTER_AREA)
            assert psnr(frames[1 + i].rgb, wanted) > 27 and psnr(frames[81 + i].rgb, wanted) > 27
            assert psnr(frames[1 + i].rgb[..., ::-1], wanted) < 22


def test_contract_resume(server):
    """A new process goes on in the server's session; the request ids go on, nothing is made twice."""
    first = generator(server)
    chunk = next(iter(run(first, cameras(161))))
    states, stored = [first.chunk_state()], dict(zip(chunk.frame_ids, chunk.frames, strict=True))
    second = generator(server)
    second.resume(1, states.__getitem__, stored.__getitem__)
    rest = list(run(second, cameras(161), start=1, newest=stored[80]))
    assert len(rest) == 1 and rest[0].frame_ids == tuple(range(81, 161))
    assert second.chunk_state()["session"] == states[0]["session"] and int(second.chunk_state()["attempt"]) == 0


@pytest.fixture(scope="module")
def room():
    with Lyra2TestServer(look=look) as ours:
        yield ours


def test_frames_are_what_our_cameras_see(room):
    """The room, shown by the server at its own size and shape, is what our cameras see: poses, metres, intrinsics, resampling."""
    frames = [frame for chunk in run(generator(room.url), cameras(161)) for frame in chunk.frames]
    for i in range(0, 161, 16):
        truth = ROOM.query(frames[i].camera, frames[i].T_world_camera)
        assert psnr(frames[i].rgb, truth.rgb) > 27, i
    # The photo's warp covers what it shows: frame 160 is back at its pose, frame 40 looks aside.
    seen = [float((frames[i].provenance == Provenance.CONTINUED).mean()) for i in (8, 40, 160)]
    assert seen[0] > 0.7 > seen[1] and seen[2] > 0.9


def test_cameras_survive_the_way_to_the_server_and_back():
    way, size = cameras(81), (768, 448)
    T_world_seed = way.T_world_camera[0]
    fields = cameras_for_server(way, T_world_seed, size)
    back = np.stack([pose_from_server(c2w, T_world_seed) for c2w in fields["cameras_to_world"]])
    assert np.abs(back - way.T_world_camera).max() < 1e-12
    assert np.allclose(fields["cameras_to_world"][0], np.eye(4)[:3], atol=1e-12)
    # A point that our camera sees at (u, v) is seen by the server's at the same place of its larger picture.
    K = np.array([[fields["focal_lengths"][0, 0], 0, fields["principal_points"][0, 0] * 768],
                  [0, fields["focal_lengths"][0, 1], fields["principal_points"][0, 1] * 448], [0, 0, 1]])  # fmt: skip
    point = np.array([0.4, -0.3, 2.0])
    ours, theirs = (matrix @ point / point[2] for matrix in (way.K[0], K))
    assert np.allclose(theirs[:2] / size, ours[:2] / (way.width, way.height))
    skewed = way.K.copy()
    skewed[:, 0, 1] = 0.1
    with pytest.raises(InputError, match="skew"):
        cameras_for_server(replace(way, K=skewed), T_world_seed, size)


def test_seed_depth_knows_sky_from_unknown():
    photo, estimate = photo_and_estimate()
    depth = estimate.depth.copy()
    depth[-12:, -16:] = np.nan
    message = seed_message("seed", photo, replace(estimate, depth=depth), cameras(1), (96, 64))
    assert message.depths[0, 0, 0] == 200.0 and message.depths[0, -1, -1] == 0.0
    assert np.isfinite(message.depths).all() and message.images.dtype == np.float32
    assert message.images.min() >= 0 and 0.5 < message.images.max() <= 1
    with pytest.raises(InputError, match="depth: got none"):
        seed_message("seed", photo, replace(estimate, depth=np.full_like(depth, np.nan)), cameras(1), (96, 64))


def test_unlikeness_tells_neighbours_from_other_places():
    near = [ROOM.query(FRAME_CAMERA, T).rgb for T in cameras(4).T_world_camera]
    far = ROOM.query(FRAME_CAMERA, cameras(41).T_world_camera[40]).rgb
    assert unlikeness(near[0], near[0]) == 0 and unlikeness(near[0], near[3]) < 0.25 < 0.5 < unlikeness(near[0], far)
    # A grey wall is not unlike itself in other light, though its contrast is nothing.
    assert unlikeness(np.full((48, 64, 3), 120, np.uint8), np.full((48, 64, 3), 121, np.uint8)) < 0.5


def damaged(**changes):
    fields = {"success": True, "message": "done", **changes}
    return json.dumps({"type": "RevertResult", "fields": fields}).encode()


def test_only_the_expected_message_is_read():
    assert decode(damaged(), RevertResult) == RevertResult(success=True, message="done")
    assert decode(damaged(newer={"__lyra2_type__": "nobody knows"}), RevertResult).success
    cases = {
        "expected 'CompressedInferenceResult'": (damaged(), CompressedInferenceResult),
        "not readable as JSON": (b"\x80\x04pickle", RevertResult),
        "got type None": (b"[]", RevertResult),
        "missing message": (b'{"type":"RevertResult","fields":{"success":true}}', RevertResult),
        "success: got str, expected bool": (damaged(success="yes"), RevertResult),
        "message: got an object marked 'pickle'": (damaged(message={"__lyra2_type__": "pickle", "value": "x"}), RevertResult),
        "not readable as base64": (damaged(message={"__lyra2_type__": "bytes", "value": "*"}), RevertResult),
        "JSON": (b"[" * 200_000, RevertResult),
    }
    for words, (data, kind) in cases.items():
        with pytest.raises(ServerError, match=words):
            decode(data, kind)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "|O"}, "dtype: got '|O', expected booleans, integers or floats"),
        ({"dtype": "<U4"}, "dtype"),
        ({"dtype": "no such"}, "dtype"),
        ({"shape": [1, 3, 5]}, "got 96 bytes, expected 120"),
        ({"shape": [-1]}, "shape"),
        ({"shape": "all"}, "shape"),
        ({"value": "AAA"}, "base64"),
    ],
)
def test_damaged_arrays_are_refused(change, words):
    way = cameras(1)
    message = json.loads(encode(chunk_message("x", 1, way, "", way.T_world_camera[0], (96, 64))))
    message["type"] = "SeedingResult"
    assert len(decode(json.dumps(message).encode(), SeedingResult).cameras_to_world) == 1
    message["fields"]["cameras_to_world"].update(change)
    with pytest.raises(ServerError, match="cameras_to_world") as error:
        decode(json.dumps(message).encode(), SeedingResult)
    assert words in str(error.value)


def test_settings_that_cannot_be_used():
    with pytest.raises(ConfigError, match="server: got none"):
        GeneratorLyra2Server(cfg=GenerateCfg(generator="lyra2-server"))
    for url in ("localhost:8000", "ftp://host", "http://", "http://host:99999999", "http://host/?a=b"):
        with pytest.raises(ConfigError, match="expected http://HOST:PORT"):
            ServerClient(url, timeout=1.0, on_wait=lambda what: None)
    with pytest.raises(ConfigError, match="user name") as error:
        ServerClient("http://me:secret@host", timeout=1.0, on_wait=lambda what: None)
    assert "secret" not in str(error.value)


def test_portrait_photos_are_refused(room):
    photo, _ = photo_and_estimate()
    with pytest.raises(InputError, match=r"photo: got 120 x 160.*factor of 2\.00"):
        generator(room.url).check(Photo(np.rot90(photo.rgb), "0" * 64, "room"))
