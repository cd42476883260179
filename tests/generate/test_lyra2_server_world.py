"""The whole product over a Lyra 2.0 server: photo in, world out; stopped while the server works, then finished."""

from __future__ import annotations

import json
import tempfile

import numpy as np
import pytest
from lyra2_http_server import Lyra2TestServer
from lyra2_server_inputs import PHOTO_CAMERA, ROOM, look, photo_and_estimate, psnr

from lyra_core.camera.formats import load_trajectory
from lyra_core.cli import main
from lyra_core.config import WorldCfg, from_dict
from lyra_core.errors import BackendUnavailable, Cancelled, ServerError
from lyra_core.io.files import read_npz
from lyra_core.io.images import read_image, write_image
from lyra_core.jobs.progress import ProgressQueue
from lyra_core.pipeline import build_world, extend_world, revert_world
from lyra_core.world import World


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    write_image(tmp_path / "room.png", ROOM.query(PHOTO_CAMERA.resized(640, 480), photo_and_estimate()[1].T_world_camera).rgb)
    return tmp_path / "room.png"


def settings(url: str, **generate) -> WorldCfg:
    generate = {"generator": "lyra2-server", "server": url, "trajectory": "walk_forward", "frames": 161, **generate}
    depth = {"provider": "lyra2_server_inputs:DepthFromRoom", "frame_stride": 8}
    return from_dict({"quality": "draft", "photo": {"focal": "400px"}, "depth": depth, "generate": generate})


def log(server) -> list[str]:
    return [entry if entry in ("seed", "revert") else entry[-3:] for entry in server.log]


def test_photo_to_world_stopped_and_finished(photo, tmp_path):
    folder, said = tmp_path / "world", []
    with Lyra2TestServer(look=look) as server:
        server.fault = "fails"
        with pytest.raises(ServerError, match="chunk 0 failed: CUDA out of memory"):
            build_world(photo, folder, settings(server.url))
        assert (folder / "build/estimate.npz").is_file(), "a server's fault costs nothing that is done"
        server.fault, server.seconds = "", 0.3
        server.log.clear()
        stopping = ProgressQueue(lambda event: said.append(event.message), is_cancelled=lambda: len(server.hints) > 2)
        with pytest.raises(Cancelled, match="frames_1"):
            build_world(photo, folder, settings(server.url), progress=stopping)
        assert "waiting for chunk 0" in said and (folder / "build/state_000.npz").is_file()
        server.seconds = 0.0
        world = build_world(photo, folder, settings(server.url))
        assert log(server) == ["seed", "0-0", "1-0"]
    manifest = json.loads((folder / "world.json").read_text())
    assert manifest["status"] == "complete" and "Scientific Research" in manifest["licences"]["generator"]
    check_frames(folder)
    check_world(world)


def check_frames(folder) -> None:
    """Every frame shows what the room looks like from its camera."""
    width, height = read_image(folder / "frames/00000.png").shape[1::-1]
    path = load_trajectory(folder / "trajectory.npz", width=width, height=height)
    assert len(path) == len(list((folder / "frames").glob("*.png"))) == 161
    for i in range(0, 161, 20):
        truth = ROOM.query(path.camera(i), path.T_world_camera[i]).rgb
        assert psnr(read_image(folder / f"frames/{i:05d}.png"), truth) > 22


def check_world(world: World) -> None:
    """The mesh lies on the room's walls, floor, ceiling and box; a robot fits where the room is free."""
    vertices = read_npz(world.folder / "mesh.npz")["vertices"].astype(float)
    low, high = np.array([-2, -2.5, 0]), np.array([5, 2.5, 2.6])
    box_low, box_high = np.array([2.2, 0.3, 0]), np.array([3, 1.1, 0.9])
    to_walls = np.minimum(np.abs(vertices - low), np.abs(vertices - high)).min(1)
    outside = np.maximum(np.maximum(box_low - vertices, vertices - box_high), 0)
    off = np.minimum(to_walls, np.linalg.norm(outside, axis=1))
    assert len(vertices) > 1000 and np.median(off) < 0.02 and np.quantile(off, 0.95) < 0.1
    assert (vertices > low - 0.15).all() and (vertices < high + 0.15).all()
    assert json.loads((world.folder / "world.json").read_text())["statistics"]["walkable_m2"] > 3


@pytest.mark.slow
def test_extend_and_revert_a_world(photo, tmp_path):
    """Walking on goes on in the server's session; a chunk taken back in the world is taken back there."""
    with Lyra2TestServer(look=look) as server:
        folder = build_world(photo, tmp_path / "world", settings(server.url, frames=81)).folder
        extend_world(folder, trajectory="look_around", frames=81)
        revert_world(folder, chunk=1)
        assert log(server) == ["seed", "0-0", "1-0"]
        extend_world(folder, trajectory="walk_forward", frames=81)
        assert log(server) == ["seed", "0-0", "1-0", "revert", "1-1"] and len(server.chunks) == 2
    check_frames(folder)


def test_no_server_is_one_error_and_no_folder(photo, tmp_path, capsys):
    with Lyra2TestServer(look=look) as server:
        url = server.url
    with pytest.raises(BackendUnavailable, match=f"no answer from {url}"):
        build_world(photo, tmp_path / "world", settings(url))
    assert not (tmp_path / "world").exists()
    command = ["create", str(photo), "-o", str(tmp_path / "world"), "--server", url]
    assert main(command) == 2 and "expected --generator lyra2-server" in capsys.readouterr().err
    assert main([*command, "--generator", "lyra2-server"]) == 2
    error = capsys.readouterr().err
    assert "lyra2-server cannot run here" in error and "Traceback" not in error and not (tmp_path / "world").exists()
