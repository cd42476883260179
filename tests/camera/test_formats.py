"""Trajectory files: Lyra's own files, broken files, other tools' formats by round trip."""

import json
from pathlib import Path

import numpy as np
import pytest

from lyra_core.camera import exchange
from lyra_core.camera.formats import load_trajectory, relative_to, save_trajectory
from lyra_core.camera.se3 import from_yaw_pitch, inverse
from lyra_core.camera.trajectories import orbit
from lyra_core.errors import InputError
from lyra_core.types import Camera

SEQUENCES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sequences"
LYRA_FILES = sorted((SEQUENCES / "lyra2_custom_trajectories").glob("*.npz"))
CAMERA = Camera(np.array([[310.0, 0, 207], [0, 305, 121], [0, 0, 1]]), 416, 240)
PATH = orbit(CAMERA, from_yaw_pitch(np.array([0.3, 0.1, 1.5]), 0.2, -0.1), 81)


@pytest.mark.skipif(not LYRA_FILES, reason="no evaluation data here")
def test_lyra_files_round_trip(tmp_path):
    for file in LYRA_FILES:
        raw = np.load(file)
        path = load_trajectory(file, width=1280, height=720)
        save_trajectory(tmp_path / "out.npz", path)
        back = np.load(tmp_path / "out.npz")
        assert np.abs(back["w2c"] - raw["w2c"]).max() < 1e-6
        assert np.array_equal(back["intrinsics"], raw["intrinsics"].astype(float))
        assert (back["image_height"], back["image_width"]) == (720, 1280)


def test_round_trip_and_rescaling(tmp_path):
    save_trajectory(tmp_path / "a.npz", PATH)
    same = load_trajectory(tmp_path / "a.npz", width=416, height=240)
    assert np.abs(same.T_world_camera - PATH.T_world_camera).max() < 1e-14
    assert np.array_equal(same.K, PATH.K)
    other = load_trajectory(tmp_path / "a.npz", width=832, height=720)
    assert np.allclose(other.K[0], [[620, 0, 414], [0, 915, 363], [0, 0, 1]])
    save_trajectory(tmp_path / "b.npz", PATH)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def good() -> dict:
    return {"w2c": inverse(PATH.T_world_camera), "intrinsics": PATH.K.copy(), "image_height": 240, "image_width": 416}


def nan(d):
    d["w2c"][5, 0, 3] = np.nan


def skew(d):
    d["w2c"][7, 0, 0] += 0.01


def mirror(d):
    d["w2c"][:, :3, 0] *= -1


def last_row(d):
    d["w2c"][3, 3, 0] = 1


def focal(d):
    d["intrinsics"][2, 0, 0] = -1


BREAKS = {
    "nan": (nan, "w2c: got NaN.*pose 5"),
    "skew": (skew, "w2c: pose 7: .*orthonormal"),
    "mirror": (mirror, "w2c.*mirrored"),
    "last_row": (last_row, "w2c: pose 3: got last row"),
    "focal": (focal, "intrinsics: matrix 2"),
    "k_nan": (lambda d: d.update(intrinsics=d["intrinsics"] * np.nan), "intrinsics: got NaN"),
    "missing": (lambda d: d.pop("w2c"), "missing w2c"),
    "transposed": (lambda d: d.update(w2c=d["w2c"][:, :3]), r"w2c: got shape \(81, 3, 4\)"),
    "scalar": (lambda d: d.update(w2c=np.float64(1)), "w2c: got shape"),
    "empty": (lambda d: d.update(w2c=d["w2c"][:0]), "w2c: got shape"),
    "count": (lambda d: d.update(intrinsics=d["intrinsics"][:3]), r"intrinsics: got shape \(3, 3, 3\).*N = 81"),
    "size": (lambda d: d.update(image_height=0), "image_height: got 0"),
    "text": (lambda d: d.update(image_width="wide"), "image_width: got type"),
    "object": (lambda d: d.update(w2c=np.array([{}, None])), "not readable"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_broken_files_are_one_error_each(case, tmp_path):
    data = good()
    BREAKS[case][0](data)
    np.savez(tmp_path / "x.npz", **data)
    with pytest.raises(InputError, match=BREAKS[case][1]) as error:
        load_trajectory(tmp_path / "x.npz", width=416, height=240)
    assert "x.npz" in str(error.value)


def test_not_an_npz(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(InputError, match="not readable"):
        load_trajectory(tmp_path / "x.npz", width=4, height=4)
    with pytest.raises(InputError, match="none"):
        load_trajectory(tmp_path / "none.npz", width=4, height=4)


def test_relative_to_keeps_the_motion():
    T = from_yaw_pitch(np.array([0.0, 0, 1.4]), 0.0, -0.2)
    out = relative_to(PATH, T)
    assert np.array_equal(out.T_world_camera[0], T)
    moves = [inverse(p.T_world_camera[:-1]) @ p.T_world_camera[1:] for p in (PATH, out)]
    assert np.abs(moves[0] - moves[1]).max() < 1e-12


def test_exchange_round_trips(tmp_path):
    exchange.save_colmap(tmp_path / "c", PATH)
    colmap, names = exchange.load_colmap(tmp_path / "c")
    exchange.save_nerfstudio(tmp_path / "t.json", PATH, names)
    nerf, files = exchange.load_nerfstudio(tmp_path / "t.json")
    exchange.save_tum(tmp_path / "p.txt", PATH, np.arange(81) / 30)
    tum, times = exchange.load_tum(tmp_path / "p.txt", CAMERA)
    for path in (colmap, nerf, tum):
        assert np.abs(path.T_world_camera - PATH.T_world_camera).max() < 1e-12
        assert np.array_equal(path.K, PATH.K)
    assert files == names and np.array_equal(times, np.arange(81) / 30)
    # nerfstudio's cameras look along -z with y up.
    raw = np.array(json.loads((tmp_path / "t.json").read_text())["frames"][0]["transform_matrix"])
    assert np.allclose(-raw[:3, 2], PATH.T_world_camera[0, :3, 2]) and raw[2, 1] > 0


def test_colmap_model_of_a_real_sequence():
    folder = SEQUENCES / "tum_fr3_office"
    if not folder.exists():
        pytest.skip("no evaluation data here")
    path, names = exchange.load_colmap(folder / "sparse" / "0")
    frames = json.loads((folder / "cameras.json").read_text())["frames"]
    want = {Path(frame["rgb"]).name: np.array(frame["camera_to_world"]) for frame in frames}
    assert len(names) == 17
    for name, T in zip(names, path.T_world_camera, strict=True):
        assert np.abs(T - want[name]).max() < 1e-9


def test_exchange_refuses(tmp_path):
    exchange.save_colmap(tmp_path, PATH)
    cameras = (tmp_path / "cameras.txt").read_text()
    (tmp_path / "cameras.txt").write_text(cameras.replace("PINHOLE", "OPENCV", 1))
    with pytest.raises(InputError, match=r"OPENCV.*expected PINHOLE"):
        exchange.load_colmap(tmp_path)
    (tmp_path / "p.txt").write_text("0 1 2 3 0 0 0\n")
    with pytest.raises(InputError, match="expected 8"):
        exchange.load_tum(tmp_path / "p.txt", CAMERA)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match="frames"):
        exchange.load_nerfstudio(tmp_path / "t.json")
