"""Depth files: exact on a known room, and one clear error per kind of bad file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lyra_core.camera.upright import upright_rays
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.file import DepthFile
from lyra_core.depth.formats import read_depth_file, resampled_depth
from lyra_core.errors import ConfigError, InputError
from lyra_core.photo.read import read_photo
from lyra_core.types import Camera, Label


@pytest.fixture(scope="module")
def reading(room):
    return read_photo(room.photo, PhotoCfg(camera_height=1.9), size=512)


def _estimate(path, room, reading):
    return DepthFile(DepthCfg(path=str(path))).estimate(room.photo, reading)


@pytest.mark.parametrize("kind", ["npy", "npz", "png"])
def test_gravity_height_and_depth_come_from_the_file(tmp_path, room, reading, kind):
    path = tmp_path / f"depth.{kind}"
    if kind == "npy":
        np.save(path, room.depth)
    elif kind == "npz":
        np.savez(path, depth=room.depth.astype(np.float64))
    else:
        cv2.imwrite(str(path), np.rint(room.depth * 1000).astype(np.uint16))
    got = _estimate(path, room, reading)
    tilt = np.degrees(np.arccos(np.clip(got.T_world_camera[2, :3] @ room.T_world_camera[2, :3], -1, 1)))
    assert tilt < 0.3 and got.T_world_camera[2, 3] == pytest.approx(1.5, abs=0.01)
    assert got.ceiling_height == pytest.approx(2.7, abs=0.03)
    true = cv2.resize(room.depth, (512, 384), interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(got.depth - true) / true) < 0.002
    labels = cv2.resize(room.labels, (512, 384), interpolation=cv2.INTER_NEAREST_EXACT)
    for label, least in ((Label.FLOOR, 0.93), (Label.WALL, 0.9), (Label.CEILING, 0.93), (Label.OBSTACLE, 0.75)):
        mine, want = got.labels == label, labels == label
        assert (mine & want).sum() / (mine | want).sum() > least, label
    assert got.source == "file" and got.scale_sigma < 0.05


def test_holes_stay_unknown_and_noise_is_survived(tmp_path, room, reading):
    rng = np.random.default_rng(1)
    noisy = room.depth * (1 + rng.normal(0, 0.01, room.depth.shape)).astype(np.float32)
    noisy[100:200, 250:400] = np.nan
    noisy[:30] = 0.0
    np.save(tmp_path / "noisy.npy", noisy)
    got = _estimate(tmp_path / "noisy.npy", room, reading)
    hole = np.s_[90:150, 210:310]
    assert np.isnan(got.depth[hole]).all() and (got.labels[hole] == Label.UNLABELED).all()
    known = np.isfinite(got.depth)
    assert np.isin(got.labels[known], (Label.FLOOR, Label.WALL, Label.CEILING, Label.OBSTACLE)).all()
    tilt = np.degrees(np.arccos(np.clip(got.T_world_camera[2, :3] @ room.T_world_camera[2, :3], -1, 1)))
    assert tilt < 1.0 and got.T_world_camera[2, 3] == pytest.approx(1.5, abs=0.03)
    assert any("unknown" in note for note in got.notes)


def test_same_file_same_bytes(tmp_path, room, reading):
    np.save(tmp_path / "d.npy", room.depth)
    first, second = (_estimate(tmp_path / "d.npy", room, reading) for _ in range(2))
    assert np.array_equal(first.depth, second.depth) and np.array_equal(first.T_world_camera, second.T_world_camera)


def test_a_file_without_floor_keeps_the_photos_camera(tmp_path, room, reading):
    np.save(tmp_path / "wall.npy", np.full((240, 320), 3.0, np.float32))
    got = _estimate(tmp_path / "wall.npy", room, reading)
    assert np.array_equal(got.T_world_camera, reading.T_world_camera) and any("No floor" in note for note in got.notes)
    assert got.scale_sigma == reading.scale_sigma


def test_resampling_is_exact_on_planes_and_keeps_edges_and_holes(room):
    camera = Camera.from_focal(240, 320, 240)
    floor = 1.5 / np.maximum(upright_rays(camera, room.T_world_camera).sink, 0.12)
    big = Camera.from_focal(720, 960, 720)
    want = 1.5 / np.maximum(upright_rays(big, room.T_world_camera).sink, 0.12)
    got = resampled_depth(floor.astype(np.float32), 960, 720)
    rows = np.s_[450:700, 10:-10]
    assert np.abs(got[rows] / want[rows] - 1).max() < 2e-3
    step = np.where(np.arange(64)[None] < 32, 1.0, 5.0).repeat(64, 0).astype(np.float32)
    step[20:30, 5:15] = np.nan
    for size in ((150, 150), (40, 40)):
        values = resampled_depth(step, *size)
        assert set(np.unique(values[np.isfinite(values)]).tolist()) == {1.0, 5.0}
        assert np.isnan(values).mean() == pytest.approx(100 / 4096, abs=0.006)


def _write(path, writer):
    writer(path)
    return path


BAD = {
    "text.npy": (lambda p: p.write_text("no"), "not readable"),
    "wrong.exr": (lambda p: p.write_bytes(b"x"), "OpenEXR"),
    "wrong.pfm": (lambda p: p.write_bytes(b"x"), "suffix"),
    "flat.npy": (lambda p: np.save(p, np.ones(100)), "shape"),
    "words.npy": (lambda p: np.save(p, np.full((40, 40), "a")), "type"),
    "pickled.npy": (lambda p: np.save(p, np.full((40, 40), None), allow_pickle=True), "not readable"),
    "two.npz": (lambda p: np.savez(p, a=np.ones((40, 40)), b=np.ones((40, 40))), "2 arrays"),
    "empty.npy": (lambda p: np.save(p, np.full((48, 64), np.nan)), "0.0 %"),
    "millimetres.npy": (lambda p: np.save(p, np.full((48, 64), 2500.0)), "metres"),
    "byte.png": (lambda p: cv2.imwrite(str(p), np.ones((48, 64), np.uint8)), "16-bit"),
    "broken.png": (lambda p: p.write_bytes(b"\x89PNG"), "16-bit"),
    "aspect.npy": (lambda p: np.save(p, np.full((64, 64), 2.0)), "shape of the upright photo"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_line_that_names_the_file(tmp_path, room, reading, name):
    writer, reason = BAD[name]
    with pytest.raises(InputError, match=reason) as caught:
        _estimate(_write(tmp_path / name, writer), room, reading)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_path_and_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="path"):
        DepthFile(DepthCfg())
    with pytest.raises(InputError, match="no such"):
        read_depth_file(tmp_path / "absent.npy")


@pytest.mark.parametrize(("name", "unit", "factor", "kind"), [
    ("depth.tiff", "auto", 1.0, np.float32), ("depth.tiff", "auto", 1000.0, np.uint16), ("depth.exr", "auto", 1.0, np.float32),
    ("depth.png", "cm", 100.0, np.uint16), ("depth.npy", "mm", 1000.0, np.float32), ("depth.npy", "auto", 1000.0, np.uint16),
])
def test_units_and_formats_say_the_same(tmp_path, room, name, unit, factor, kind):
    values = (np.rint(room.depth * factor) if np.issubdtype(kind, np.integer) else room.depth * factor).astype(kind)
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".exr":
        exr = pytest.importorskip("OpenEXR")
        exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, {"Z": values}).write(str(path))
    else:
        assert cv2.imwrite(str(path), values)
    got = read_depth_file(path, unit=unit)
    assert np.nanmax(np.abs(got - room.depth)) <= 0.51 / factor + 1e-5


def test_inverse_depth_and_range_are_converted(tmp_path, room, reading):
    np.save(tmp_path / "inverse.npy", 1 / room.depth)
    assert np.allclose(read_depth_file(tmp_path / "inverse.npy", kind="inverse"), room.depth, rtol=1e-5)
    np.save(tmp_path / "range.npy", room.depth * np.linalg.norm(room.camera.rays(), axis=-1))
    got = DepthFile(DepthCfg(path=str(tmp_path / "range.npy"), kind="range")).estimate(room.photo, reading)
    true = cv2.resize(room.depth, (512, 384), interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(got.depth - true) / true) < 0.003
    assert got.measured is not None and np.array_equal(got.measured, np.isfinite(got.depth))


def test_what_looks_normalised_is_refused_until_it_is_said(tmp_path, room):
    normalised = (1 / room.depth - (1 / room.depth).min()) / np.ptp(1 / room.depth)
    np.save(tmp_path / "x.npy", normalised.astype(np.float32))
    with pytest.raises(InputError, match="looks like normalised or inverse depth"):
        read_depth_file(tmp_path / "x.npy")
    assert np.isfinite(read_depth_file(tmp_path / "x.npy", kind="depth")).any()
    np.save(tmp_path / "ints.npy", np.full((20, 20), 3, np.uint16))
    with pytest.raises(InputError, match="expected floating-point numbers per metre"):
        read_depth_file(tmp_path / "ints.npy", kind="inverse")


@pytest.mark.parametrize(("level", "kept"), [((0, 1, 2), (1, 2)), ((10, 120, 255), (255,))])
def test_confidence_drops_pixels(tmp_path, room, level, kept):
    values = np.random.default_rng(0).choice(np.array(level, np.uint8), room.depth.shape)
    np.save(tmp_path / "depth.npy", room.depth)
    cv2.imwrite(str(tmp_path / "confidence.png"), values)
    cfg = DepthCfg(path=str(tmp_path / "depth.npy"), confidence=str(tmp_path / "confidence.png"))
    got = DepthFile(cfg)._read(room.photo)
    assert np.array_equal(np.isfinite(got), np.isin(values, kept) & np.isfinite(room.depth))
    cv2.imwrite(str(tmp_path / "confidence.png"), values[:-20])
    with pytest.raises(InputError, match=r"confidence: .*expected the depth file's size"):
        DepthFile(cfg).check(room.photo)
