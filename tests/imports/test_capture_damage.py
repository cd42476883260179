"""Every way in which a capture can be broken gives one InputError that names the file, on loading or on reading a frame."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import capture_room as room
import numpy as np
import pytest

from lyra_core.errors import InputError
from lyra_core.imports.captures import LazyFrames
from lyra_core.imports.detect import load_source

Damage = Callable[[Path], object]
CAMERA_BIN = struct.Struct("<QIiQQ4d")


def edit(name: str, change: Callable[[dict], object]) -> Damage:
    """Return what changes a JSON file."""
    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        change(data)
        (folder / name).write_text(json.dumps(data))
    return damage


def swap(name: str, old: str, new: str) -> Damage:
    """Return what replaces text once."""
    def damage(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    return damage


def gone(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, keep: float) -> Damage:
    """Return what cuts a file off."""
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])
    return damage


def count(name: str, value: int) -> Damage:
    """Return what makes the leading count of a binary file lie."""
    return lambda folder: (folder / name).write_bytes(struct.pack("<Q", value) + (folder / name).read_bytes()[8:])


def picture(name: str, shape: tuple[int, ...], dtype: type = np.uint8) -> Damage:
    return lambda folder: room.put(folder / name, np.zeros(shape, dtype))


def outside(name: str) -> Damage:
    """Return what replaces a picture by a link out of the folder."""
    def damage(folder: Path) -> None:
        place = folder.parent / "secret.png"
        room.put(place, room.seen(room.poses()[0])[0])
        (folder / name).unlink()
        os.symlink(place, folder / name)
    return damage


def matrix(row: int, column: int, value: object) -> Callable[[dict], object]:
    return lambda d: d["frames"][1]["transform_matrix"][row].__setitem__(column, value)


CASES: list[tuple[str, str, Damage, str]] = [
    ("colmap", "no images file", gone("sparse/0/images.txt"), "not recognised"),
    ("colmap", "no picture", gone("images/2.png"), r"2\.png: no such file"),
    ("colmap", "no pictures at all", lambda f: (f / "images").rename(f / "elsewhere"), r"0\.png: no such picture"),
    ("colmap", "unknown model", swap("sparse/0/cameras.txt", "PINHOLE", "WARPED"), "expected id, model"),
    ("colmap", "too few parameters", swap("sparse/0/cameras.txt", " 31 25", ""), "got 2 parameters"),
    ("colmap", "NaN focal length", swap("sparse/0/cameras.txt", " 60 ", " nan "), "finite"),
    ("colmap", "negative focal length", swap("sparse/0/cameras.txt", " 60 ", " -60 "), "positive"),
    ("colmap", "absurd size", swap("sparse/0/cameras.txt", " 64 48", " 6400000 48"), "6400000x48"),
    ("colmap", "unknown camera", swap("sparse/0/images.txt", " 1 0.png", " 7 0.png"), "camera 7"),
    ("colmap", "path upwards", swap("sparse/0/images.txt", "1 1.png", "1 ../1.png"), r"\.\."),
    ("colmap", "absolute path", swap("sparse/0/images.txt", "1 1.png", "1 /etc/passwd"), "relative path"),
    ("colmap", "half a feature", lambda f: (f / "sparse/0/images.txt").write_text(
        (f / "sparse/0/images.txt").read_text().rstrip() + " 5\n"), "three for each"),
    ("colmap", "points elsewhere", lambda f: (f / "sparse/0/points3D.txt").write_text("".join(
        f"{k} 90 {k} 7 1 2 3 0.0 1 0\n" for k in range(50))), "reprojection error"),
    ("colmap", "text point", lambda f: (f / "sparse/0/points3D.txt").write_text("1 2 three 4 1 2 3 0.5\n"), "line 1"),
    ("colmap", "picture of another shape", picture("images/1.png", (64, 48, 3)), "48x64"),
    ("colmap", "link out of the folder", outside("images/1.png"), "expected a file below"),
    ("colmap", "damaged picture", cut("images/1.png", 0.3), r"1\.png"),
    ("colmap_bin", "lying image count", count("sparse/0/images.bin", 1 << 60), "count of"),
    ("colmap_bin", "lying camera count", count("sparse/0/cameras.bin", 3), "count of 3"),
    ("colmap_bin", "too small a count", count("sparse/0/images.bin", 2), "after the last item"),
    ("colmap_bin", "lying point count", count("sparse/0/points3D.bin", 1 << 40), "count of"),
    ("colmap_bin", "cut off points", cut("sparse/0/points3D.bin", 0.5), "points3D.bin"),
    ("colmap_bin", "cut off images", cut("sparse/0/images.bin", 0.9), "images.bin"),
    ("colmap_bin", "empty cameras", write("sparse/0/cameras.bin", b""), "cut off"),
    ("colmap_bin", "unknown model number", write("sparse/0/cameras.bin", CAMERA_BIN.pack(1, 1, 77, 64, 48, 1, 1, 1, 1)), "77"),
    ("colmap_bin", "size beyond all", write("sparse/0/cameras.bin", CAMERA_BIN.pack(1, 1, 1, 1 << 40, 48, 1, 1, 1, 1)), "picture"),
    ("nerfstudio", "bad JSON", cut("transforms.json", 0.7), "not readable as JSON"),
    ("nerfstudio", "deep JSON", write("transforms.json", b"[" * 100_000), "not readable as JSON"),
    ("nerfstudio", "a list", write("transforms.json", b"[1, 2]"), "expected an object"),
    ("nerfstudio", "no frames", edit("transforms.json", lambda d: d.pop("frames")), "frames"),
    ("nerfstudio", "NaN pose", edit("transforms.json", matrix(0, 3, float("nan"))), "finite"),
    ("nerfstudio", "text in pose", edit("transforms.json", matrix(0, 3, "1.0")), "finite"),
    ("nerfstudio", "stretched pose", edit("transforms.json", matrix(0, 0, 3.0)), "orthonormal"),
    ("nerfstudio", "absurd position", edit("transforms.json", matrix(0, 3, 1e300)), "position"),
    ("nerfstudio", "ragged pose", edit("transforms.json", matrix(1, 0, [1, 2])), "transform_matrix"),
    ("nerfstudio", "no focal length", edit("transforms.json", lambda d: d.pop("fl_x")), "camera_angle_x"),
    ("nerfstudio", "panorama", edit("transforms.json", lambda d: d.update(camera_model="EQUIRECTANGULAR")), "EQUIRECTANGULAR"),
    ("nerfstudio", "impossible distortion", edit("transforms.json", lambda d: d.update(k1=-400.0)), "distortion"),
    ("nerfstudio", "path upwards", edit("transforms.json", lambda d: d["frames"][0].update(file_path="../x.png")), r"\.\."),
    ("nerfstudio", "endless name", edit("transforms.json", lambda d: d["frames"][0].update(file_path="x" * 5000)), "file name"),
    ("nerfstudio", "name in no coding", edit("transforms.json", lambda d: d["frames"][0].update(file_path="\ud800.png")), "ud800"),
    ("nerfstudio", "huge number", edit("transforms.json", lambda d: d.update(fl_x=10**400)), "fl_x"),
    ("nerfstudio", "no name", edit("transforms.json", lambda d: d["frames"][0].pop("file_path")), "file_path"),
    ("nerfstudio", "no depth file", gone("depth/3.png"), r"3\.png: no such file"),
    ("nerfstudio", "8-bit depth", picture("depth/3.png", (48, 64)), "16 bits"),
    ("nerfstudio", "depth of another shape", picture("depth/3.png", (64, 48), np.uint16), "48x64"),
    ("nerfstudio", "bad depth unit", edit("transforms.json", lambda d: d.update(depth_unit_scale_factor=-1)), "depth_unit_scale"),
    ("nerfstudio", "no points file", gone("sparse.ply"), "sparse.ply"),
    ("nerfstudio", "lying PLY", swap("sparse.ply", "vertex 1", "vertex 999999999999"), "999999999999"),
    ("nerfstudio", "applied_transform shears", edit("transforms.json", lambda d: d["applied_transform"][0].__setitem__(2, 0.5)),
     "applied_transform"),
    ("tum", "no trajectory", gone("groundtruth.txt"), "groundtruth.txt"),
    ("tum", "no camera", gone("calibration.txt"), "got no camera"),
    ("tum", "no pose near in time", lambda f: (f / "groundtruth.txt").write_text("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 1\n"), "20 ms"),
    ("tum", "short pose", lambda f: (f / "groundtruth.txt").write_text("100 0 0 0 0 0 1\n"), "line 1"),
    ("tum", "no unit quaternion", lambda f: (f / "groundtruth.txt").write_text("100 0 0 0 0 0 0 9\n"), "quaternion"),
    ("tum", "empty list", write("rgb.txt", b"# nothing\n"), "rgb.txt"),
    ("tum", "no time stamp", write("rgb.txt", b"now rgb/0.png\n"), "line 1"),
    ("tum", "binary list", write("rgb.txt", b"\xff\xfe\x00"), "rgb.txt"),
    ("tum", "path upwards", write("rgb.txt", b"100.0 ../0.png\n"), r"\.\."),
    ("tum", "bad calibration", write("calibration.txt", b"60 62\n"), "calibration.txt"),
    ("7scenes", "pose of three rows", write("seq-01/frame-000001.pose.txt", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n"), "4x4"),
    ("7scenes", "lost pose", write("seq-01/frame-000001.pose.txt", b"-inf 0 0 0\n" * 4), "finite"),
    ("7scenes", "mirrored pose", write("seq-01/frame-000001.pose.txt", b"1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n"), "mirrored"),
    ("7scenes", "no picture", gone("seq-02/frame-000001.color.png"), "no such picture"),
    ("polycam", "no cameras", lambda f: [p.unlink() for p in (f / "keyframes/corrected_cameras").iterdir()], "got no camera"),
    ("polycam", "missing number", edit("keyframes/corrected_cameras/1001.json", lambda d: d.pop("t_12")), "t_12"),
    ("polycam", "pose not rigid", edit("keyframes/corrected_cameras/1001.json", lambda d: d.update(t_00=5.0)), "orthonormal"),
    ("polycam", "no picture", gone("keyframes/corrected_images/1001.png"), "no such file"),
    ("polycam", "confidence of another size", picture("keyframes/confidence/1002.png", (20, 20)), "confidence"),
    ("record3d", "poses of six numbers", edit("metadata.json", lambda d: d.update(poses=[[0, 0, 0, 1, 0, 0]])), "poses"),
    ("record3d", "no poses", edit("metadata.json", lambda d: d.update(poses=[])), "poses"),
    ("record3d", "no unit quaternion", edit("metadata.json", lambda d: d["poses"][1].__setitem__(0, 4.0)), "quaternion"),
    ("record3d", "short K", edit("metadata.json", lambda d: d.update(K=[1, 2])), "K"),
    ("record3d", "no size", edit("metadata.json", lambda d: d.pop("w")), "w:"),
    ("stray", "no video", gone("rgb.mp4"), "rgb.mp4"),
    ("stray", "damaged video", write("rgb.mp4", b"\0" * 400), "rgb.mp4"),
    ("stray", "more poses than pictures", lambda f: (f / "odometry.csv").write_text(
        (f / "odometry.csv").read_text() + "".join(f"1, {i:06d}, 0, 0, 0, 0, 0, 0, 1\n" for i in range(4, 40))), "odometry.csv"),
    ("stray", "matrix of two rows", write("camera_matrix.csv", b"1,0,0\n0,1,0\n"), "3x3"),
    ("posed", "no frames", write("cameras.json", b"{}"), "frames"),
    ("posed", "K of two numbers", edit("cameras.json", lambda d: d["frames"][0].update(K=[1, 2])), "K"),
    ("posed", "no pose", edit("cameras.json", lambda d: d["frames"][0].pop("camera_to_world")), "camera_to_world"),
    ("posed", "up is nothing", edit("cameras.json", lambda d: d.update(up=[0, 0, 0])), "up"),
    ("posed", "picture in another place", edit("cameras.json", lambda d: d["frames"][0].update(rgb="C:\\x.png")), "relative"),
    ("posed", "a picture that is none", write("1_rgb.png", b"hello"), r"1_rgb\.png"),
    ("posed", "empty picture", write("1_rgb.png", b""), r"1_rgb\.png"),
    ("lyra2", "fewer poses than pictures", lambda f: np.savez(
        f / "trajectory.npz", w2c=np.eye(4)[None], intrinsics=np.eye(3)[None], image_height=48, image_width=64), "4 pictures for"),
    ("lyra2", "damaged trajectory", cut("trajectory.npz", 0.5), "trajectory.npz"),
    ("lyra2", "damaged video", cut("video.mp4", 0.1), "video.mp4"),
    ("lyra2", "neither video nor splats", gone("video.mp4"), "not recognised"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in (*room.WRITERS, "colmap_bin")}
    for kind, folder in folders.items():
        if kind == "colmap_bin":
            room.write_colmap(folder, binary=True)
        else:
            room.WRITERS[kind](folder)
    return folders


@pytest.mark.parametrize(("kind", "what", "damage", "message"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_damage_gives_one_clear_error(good, tmp_path, kind, what, damage, message):
    import shutil

    folder = tmp_path / "capture"
    shutil.copytree(good[kind], folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        list(load_source(folder).frames)
    said = str(caught.value)
    assert "\n" not in said and str(tmp_path) in said


def test_the_undamaged_are_read(good):
    for folder in good.values():
        assert len(list(load_source(folder).frames)) == 4


@pytest.mark.parametrize("name", ["missing", "scan.zip", "scan.r3d", "notes.txt", "empty"])
def test_what_is_no_capture_says_what_was_looked_for(tmp_path, name):
    path = tmp_path / name
    if name == "empty":
        path.mkdir()
    elif name != "missing":
        path.write_bytes(b"PK\3\4")
    unpack = "unpack it first"
    expected = {"missing": "no such file", "scan.zip": unpack, "scan.r3d": unpack}.get(name, "transforms.json")
    with pytest.raises(InputError, match=expected):
        load_source(path)


def test_arguments_are_checked(good, tmp_path):
    for options, message in (({"kind": "nerf"}, "kind"), ({"max_frames": 0}, "max_frames"), ({"max_side": 3}, "max_side")):
        with pytest.raises(InputError, match=message):
            load_source(good["posed"], **options)
    with pytest.raises(InputError, match="intrinsics"):
        load_source(good["tum"], intrinsics=(1, 2, 3))
    (tmp_path / "world.json").write_text('{"recipe_id": "0"}')
    with pytest.raises(InputError, match="world of lyra-worlds"):
        load_source(tmp_path)


def test_random_bytes_in_binary_tables_never_escape(good, tmp_path):
    import shutil

    rng = np.random.default_rng(0)
    folder = tmp_path / "capture"
    shutil.copytree(good["colmap_bin"], folder)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        file = folder / "sparse/0" / name
        data = file.read_bytes()
        for _ in range(60):
            broken = bytearray(data)
            for at in rng.integers(0, min(len(data), 400), 3):
                broken[at] = rng.integers(256)
            file.write_bytes(broken)
            try:
                assert isinstance(load_source(folder).frames, LazyFrames)
            except InputError:
                pass
        file.write_bytes(data)
