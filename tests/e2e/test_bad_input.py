"""Input that cannot be used: exit status 2, one line that names file and field, and nothing written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from e2e_worlds import assert_same_bytes, demo_picture, draft, environment, file_hashes, jpeg
from PIL import Image

from lyra_core import cli
from lyra_core.config import WorldCfg
from lyra_core.errors import BackendUnavailable, ConfigError, InputError, LyraError
from lyra_core.pipeline import build_world

N = 81


def _black(path: Path) -> None:
    Image.new("RGB", (400, 300)).save(path, "PNG")


def _huge(path: Path) -> None:
    """Write the header of a 30000 x 30000 PNG with little behind it."""
    Image.new("1", (30000, 30000)).save(path, "PNG")


PHOTOS: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("hello"), "photo.jpg: not an image"),
    "empty": (lambda path: path.write_bytes(b""), "photo.jpg: not an image"),
    "truncated": (lambda path: path.write_bytes(jpeg(demo_picture())[:9000]), "photo.jpg: the image is truncated or damaged"),
    "one pixel": (lambda path: Image.new("RGB", (1, 1)).save(path, "PNG"), "got 1x1 px, expected at least 64 px"),
    "huge": (_huge, "photo.jpg: the picture is too large, expected at most 100 megapixels"),
    "black": (_black, "photo.jpg: got a picture of one colour"),
    "folder": (lambda path: path.mkdir(), "photo.jpg: got a folder, expected a photo file"),
    "missing": (lambda path: None, "photo.jpg: no such file"),
    "ribbon": (lambda path: demo_picture(900).resize((900, 70)).save(path, "PNG"), "no more than 8:1 apart"),
}

OPTIONS: dict[str, tuple[list[str], str]] = {
    "frames 80": (["--frames", "80"], "frames: got 80, expected 1 + 80 k; nearest is 81"),
    "frames 0": (["--frames", "0"], "frames: got 0"),
    "frames 1": (["--frames", "1"], "frames: got 1"),
    "preset": (["--trajectory", "spiral"], "trajectory: got 'spiral', expected a .npz file or one of walk_forward"),
    "no trajectory file": (["--trajectory", "none.npz"], "trajectory: none.npz: no such file"),
    "generator": (["--generator", "foo"], "generator: got 'foo', expected one of procedural, warp_fill"),
    "generator module": (["--generator", "no.such:Thing"], "generator: 'no.such:Thing' cannot be imported"),
    "generator is a module": (["--generator", "os:path"], "generator: got 'os:path', which is a module, expected a class"),
    "generator is nothing": (["--generator", ":"], "generator: ':' cannot be imported"),
    "depth": (["--depth", "foo"], "depth: got 'foo', expected one of geometric, file"),
    "depth file missing": (["--depth", "file"], "depth: path: got None, expected a depth file"),
    "no depth file": (["--depth-file", "none.npy"], "none.npy: no such depth file"),
    "depth twice": (["--depth-file", "none.npy", "--depth", "geometric"], "--depth-file: got provider 'geometric' beside it"),
    "focal word": (["--focal", "wide"], "focal: got 'wide', expected a number with unit"),
    "focal unit": (["--focal", "28"], "focal: got '28', expected a number with unit"),
    "focal zero": (["--focal", "0mm"], "expected a field of view of 3 to 150 degrees"),
    "height zero": (["--camera-height", "0"], "camera_height: got 0.0, expected 0.1 to"),
    "height negative": (["--camera-height", "-1"], "camera_height: got -1.0, expected 0.1 to"),
    "height absurd": (["--camera-height", "1000"], "camera_height: got 1000.0, expected 0.1 to"),
    "height nan": (["--camera-height", "nan"], "camera_height: got nan, expected 0.1 to"),
    "seed": (["--seed", "-1"], "seed: got -1, expected 0 to"),
    "config name": (["--config", "drafty"], "--config: got 'drafty', expected a .yaml file or one of draft, full, standard"),
    "config file": (["--config", "none.yaml"], "none.yaml: not readable as YAML"),
    "output twice": (["--json"], "--quiet and --json: got both"),
}

CONFIGS: dict[str, tuple[bytes, str]] = {
    "unknown key": (b"photo: {camera_hight: 1.2}", "photo: unknown key 'camera_hight'; nearest is 'camera_height'"),
    "type": (b"seed: one", "seed: got 'one', expected int"),
    "bool": (b"seed: true", "seed: got True, expected int"),
    "literal": (b"quality: best", "quality: got 'best', expected one of draft, standard, full"),
    "section": (b"photo: 3", "photo: got 3, expected a mapping"),
    "not YAML": (b"a: [1,\n b: }", "not readable as YAML"),
    "not text": (bytes(range(128, 256)), "not readable as YAML"),
    "list": (b"- 1", "got list, expected a mapping of keys"),
    "cell": (b"navigation: {cell: 0}", "navigation: cell: got 0.0, expected 0.01 to 0.5"),
    "voxel": (b"surface: {voxel: -1}", "surface: voxel: got -1.0, expected 0.01 to 1.0"),
    "stride": (b"generate: {cache_stride: 0}", "generate: cache_stride: got 0, expected 1 to 80"),
    "memory": (b"generate: {memory: foo}", "memory: got 'foo', expected one of lyra2, none"),
    "fusion": (b"surface: {fusion: foo}", "fusion: got 'foo', expected one of blocks"),
    "radius": (b"navigation: {robot_radius: .nan}", "navigation: robot_radius: got nan, expected 0.05 to 2.0"),
    "episodes": (b"navigation: {episodes: -3}", "navigation: episodes: got -3, expected 0 to"),
    "unused depth file": (b"depth: {path: d.npy}", "depth: path: got 'd.npy' for provider 'geometric', expected provider 'file'"),
    "route": (b"surface: {route: surfaces}\ngenerate: {generator: warp_fill}", "surface: route: got 'surfaces', but generator"),
}


def _trajectory(**changes: object) -> dict[str, object]:
    K = np.tile(np.array([[200.0, 0, 104], [0, 200, 60], [0, 0, 1]]), (N, 1, 1))
    return {"w2c": np.tile(np.eye(4), (N, 1, 1)), "intrinsics": K, "image_height": 120, "image_width": 208} | changes


def _poses(at: tuple[object, ...], value: float) -> np.ndarray:
    w2c = np.tile(np.eye(4), (N, 1, 1))
    w2c[at] = value
    return w2c


TRAJECTORIES: dict[str, tuple[dict[str, object], str]] = {
    "shape": ({"w2c": np.zeros((N, 3, 4))}, "w2c: got shape (81, 3, 4), expected (N, 4, 4)"),
    "lengths": ({"intrinsics": np.tile(np.eye(3), (N - 1, 1, 1))}, "intrinsics: got shape (80, 3, 3)"),
    "nan": ({"w2c": _poses((3, 0, 3), np.nan)}, "w2c: got NaN or infinity in pose 3"),
    "not rigid": ({"w2c": _poses((7, 0, 0), 2.0)}, "w2c: pose 7: got a rotation off orthonormal"),
    "mirror": ({"w2c": _poses((0, 0, 0), -1.0)}, "w2c: pose 0: got a mirrored rotation"),
    "few": ({"w2c": np.tile(np.eye(4), (40, 1, 1)), "intrinsics": np.tile(np.eye(3), (40, 1, 1))}, "w2c: got 40 poses"),
    "size": ({"image_width": 0}, "image_width: got 0, expected one positive number"),
}

DEPTHS: dict[str, tuple[np.ndarray, str]] = {
    "nan": (np.full((320, 480), np.nan), "got depth at 0.0 % of the pixels"),
    "negative": (np.full((320, 480), -2.0), "got depth at 0.0 % of the pixels"),
    "shape": (np.full((100, 100), 3.0), "got 100x100 px, expected the shape of the upright photo, 480x320 px"),
    "dimensions": (np.full((3, 320, 480), 3.0), "expected depth of shape (height, width)"),
    "millimetres": (np.full((320, 480), 3000.0), "got a median depth of 3000 m, expected 0.3 to 1000 m"),
    "text": (np.full((320, 480), "x"), "expected depth of shape (height, width)"),
}


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that runs create and requires a refusal in one line that holds ``says``."""
    monkeypatch.chdir(tmp_path)

    def check(photo: Path, says: str, *options: str, output: Path | None = None, new: bool = True) -> None:
        folder = output or tmp_path / "worlds" / "out"
        quality = () if "--config" in options else ("--quality", "draft")
        assert cli.main(["create", str(photo), "-o", str(folder), "--quiet", *quality, *options]) == cli.EXIT_ERROR
        out, err = capfd.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("lyra-worlds create: "), err
        assert says in err, err
        if new:
            assert not folder.exists() and not (tmp_path / "worlds").exists()

    return check


@pytest.mark.parametrize("name", PHOTOS)
def test_photo(name: str, refused: Callable[..., None], tmp_path: Path) -> None:
    make, says = PHOTOS[name]
    make(tmp_path / "photo.jpg")
    refused(tmp_path / "photo.jpg", says)


@pytest.mark.parametrize("name", OPTIONS)
def test_option(name: str, photo: Path, refused: Callable[..., None]) -> None:
    options, says = OPTIONS[name]
    refused(photo, says, *options)


@pytest.mark.parametrize("name", CONFIGS)
def test_config(name: str, photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    text, says = CONFIGS[name]
    (tmp_path / "mine.yaml").write_bytes(text)
    refused(photo, says, "--config", str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectory(name: str, photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    changes, says = TRAJECTORIES[name]
    np.savez(tmp_path / "path.npz", **_trajectory(**changes))
    refused(photo, f"path.npz: {says}", "--trajectory", "path.npz")


def test_trajectory_without_a_key_or_not_a_file_of_arrays(photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    np.savez(tmp_path / "path.npz", w2c=np.tile(np.eye(4), (N, 1, 1)))
    refused(photo, "path.npz: missing intrinsics, image_height, image_width", "--trajectory", "path.npz")
    (tmp_path / "path.npz").write_text("x")
    refused(photo, "path.npz: not readable as .npz", "--trajectory", "path.npz")


def test_a_file_named_like_a_preset_is_not_taken_for_it(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lyra_core.segments import check_segment

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tour").write_text("not a trajectory")
    assert check_segment("tour", 81) == {"trajectory": "tour", "sha256": None, "frames": 81, "use": 81}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_file(name: str, photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    values, says = DEPTHS[name]
    np.save(tmp_path / "d.npy", values)
    refused(photo, f"d.npy: {says}" if says.startswith("got") else says, "--depth-file", "d.npy")


def test_output_that_cannot_be_made(photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    refused(photo, "file/world: cannot be written", output=tmp_path / "file" / "world")
    refused(photo, "file: exists and is not a world folder", output=tmp_path / "file", new=False)
    assert (tmp_path / "file").read_text() == "mine"
    refused(photo, "cannot be written", output=Path("/proc/lyra-world"))


def test_output_with_foreign_files(photo: Path, refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("mine")
    refused(photo, "thesis: exists and is not a world folder", output=tmp_path / "thesis", new=False)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]


def test_a_world_survives_whatever_is_refused(
    photo: Path, refused: Callable[..., None], world_copy: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "other.jpg").write_bytes(jpeg(demo_picture(400)))
    np.save(tmp_path / "d.npy", DEPTHS["shape"][0])
    np.savez(tmp_path / "path.npz", **_trajectory(**TRAJECTORIES["few"][0]))
    (tmp_path / "mine.yaml").write_bytes(b"seed: one")
    for options in (
        ["--camera-height", "0"], ["--trajectory", "spiral"], ["--trajectory", "path.npz"], ["--generator", "foo"],
        ["--depth", "file"], ["--depth-file", "d.npy"], ["--frames", "2"], ["--config", "mine.yaml"], ["--seed", "-1"],
    ):  # fmt: skip
        refused(photo, ": got ", *options, output=world_copy, new=False)
    refused(tmp_path / "other.jpg", "holds the world of another photo", output=world_copy, new=False)
    refused(tmp_path / "none.jpg", "no such file", output=world_copy, new=False)
    assert_same_bytes(finished_hashes, file_hashes(world_copy))


class GeneratorBroken:
    """Finds out too late that it cannot do it."""

    name = "broken"

    def __init__(self, *, quality: str) -> None: ...

    def prepare(self, *args: object, **kwargs: object) -> None: ...

    def first_frame(self, trajectory: object) -> None:
        raise InputError("generator 'broken': got a photo, expected another")


def test_a_first_build_that_fails_on_its_way_leaves_no_folder(photo: Path, refused: Callable[..., None]) -> None:
    refused(photo, "generator 'broken': got a photo", "--generator", f"{__name__}:GeneratorBroken")


@pytest.mark.parametrize(("name", "says"), [("pxr", r"standalone"), ("imageio_ffmpeg", "imageio-ffmpeg")])
def test_a_missing_package_is_told_before_anything_is_written(
    name: str, says: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import sys

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == name else find(module, *rest))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=says):
        build_world(photo, tmp_path / "out", draft())
    assert not (tmp_path / "out").exists()


def test_the_function_checks_as_the_command_does(photo: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    bad = replace(WorldCfg(), seed=-1)
    with pytest.raises(ConfigError, match="seed: got -1"):
        build_world(photo, tmp_path / "out", bad)
    with pytest.raises(ConfigError, match="keep: got 'some', expected one of all, training"):
        build_world(photo, tmp_path / "out", draft(), keep="some")
    with pytest.raises(LyraError):
        build_world(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_read_only_place(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind root, so the refusal of the system is imitated."""
    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LyraError, match="out: cannot be written: Permission denied"):
        build_world(photo, tmp_path / "out", draft())


def test_words_that_are_no_option_end_with_2() -> None:
    import sys

    command = [sys.executable, "-m", "lyra_core.cli", "create", "a.jpg", "-o", "w", "--frames", "x"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2 and "--frames" in done.stderr and "Traceback" not in done.stderr
