"""Depth files: exact on a known room, and one clear error per kind of bad file."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

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
    assert any("sets the scale, and the camera's height above the floor: 1.50 m" in note for note in got.notes)


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
    """The camera's height and, as the plane is upright for no likely camera, its tilt; the scale is the file's all the same."""
    np.save(tmp_path / "slope.npy", np.full((240, 320), 3.0, np.float32))
    got = _estimate(tmp_path / "slope.npy", room, reading)
    np.testing.assert_allclose(got.T_world_camera, reading.T_world_camera, atol=1e-9)
    assert any("No floor" in note and "tilt is that read from the photo" in note for note in got.notes)
    assert got.scale_sigma < 0.05 and not (got.labels == Label.FLOOR).any()


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


def _cut(path, writer):
    writer(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def _header(shape):
    """Return the beginning of an array file that says it is larger than it is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(800)


def _bomb(path):
    """Write an archive of some kilobytes whose directory says that it unpacks to 900 MB."""
    np.savez_compressed(path, np.zeros((48, 64)))
    data, size = bytearray(path.read_bytes()), 900_000_000
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    path.write_bytes(bytes(data))


def _exr(path, channels):
    exr = pytest.importorskip("OpenEXR")
    values = np.random.default_rng(0).uniform(1, 4, (len(channels), 48, 64)).astype(np.float32)
    exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage},
             dict(zip(channels, values, strict=True))).write(str(path))


BAD = {
    "text.npy": (lambda p: p.write_text("no"), "not readable"),
    "wrong.exr": (lambda p: p.write_bytes(b"x"), "OpenEXR"),
    "wrong.pfm": (lambda p: p.write_bytes(b"x"), "suffix"),
    "flat.npy": (lambda p: np.save(p, np.ones(100)), "shape"),
    "words.npy": (lambda p: np.save(p, np.full((40, 40), "a")), "type"),
    "pickled.npy": (lambda p: np.save(p, np.full((40, 40), None), allow_pickle=True), "not readable"),
    "two.npz": (lambda p: np.savez(p, a=np.ones((40, 40)), b=np.ones((40, 40))), "2 arrays"),
    "empty.npy": (lambda p: np.save(p, np.full((48, 64), np.nan)), "0.0 %"),
    "centimetres.npy": (lambda p: np.save(p, np.full((48, 64), 250, np.int32)), "the unit may be another"),
    "millimetres.npy": (lambda p: np.save(p, np.full((48, 64), 2500.0)), "metres"),
    "byte.png": (lambda p: cv2.imwrite(str(p), np.ones((48, 64), np.uint8)), "16-bit"),
    "broken.png": (lambda p: p.write_bytes(b"\x89PNG"), "16-bit"),
    "aspect.npy": (lambda p: np.save(p, np.full((64, 64), 2.0)), "shape of the upright photo"),
    "lying.npy": (lambda p: np.save(p, np.full((64, 48), 2.0)), "lie on its side"),
    "one.npy": (lambda p: np.save(p, np.ones((1, 1))), r"shape \(1, 1\)"),
    "complex.npy": (lambda p: np.save(p, np.ones((48, 64), complex)), "complex128"),
    "bytes.npy": (lambda p: np.save(p, np.full((48, 64), 200, np.uint8)), "8-bit integers"),
    "rgb.tiff": (lambda p: cv2.imwrite(str(p), np.ones((48, 64, 3), np.float32)), "one-channel"),
    "huge.npy": (lambda p: p.write_bytes(_header((10**6, 10**6))), "not readable"),
    "bomb.npz": (_bomb, "megapixels"),
    "cut.npz": (lambda p: _cut(p, lambda p: np.savez_compressed(p, np.random.default_rng(0).random((48, 64)))), "not readable"),
    "cut.npy": (lambda p: _cut(p, lambda p: np.save(p, np.ones((48, 64)))), "not readable"),
    "cut.png": (lambda p: _cut(p, lambda p: cv2.imwrite(str(p), np.full((48, 64), 2000, np.uint16))), "16-bit"),
    "colour.exr": (lambda p: _exr(p, "RGB"), "channels"),
    "others.exr": (lambda p: _exr(p, "AB"), "channels A, B"),
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


def test_any_byte_order_and_width_is_read(tmp_path, room):
    """A TIFF of a big-endian machine, by hand; arrays of the other byte order, of 8 bytes, and in Fortran's order."""
    small = np.rint(room.depth[::10, ::10] * 1000)
    height, width = small.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 9 * 12 + 4), (277, 3, 1),
            (278, 3, height), (279, 4, small.size * 2)]
    entries = b"".join(struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
                       for tag, kind, value in tags)
    header = b"MM" + struct.pack(">HIH", 42, 8, len(tags))
    (tmp_path / "big.tiff").write_bytes(header + entries + bytes(4) + small.astype(">u2").tobytes())
    np.save(tmp_path / "big.npy", (small / 1000).astype(">f4"))
    np.save(tmp_path / "wide.npy", np.asfortranarray(small / 1000))
    np.savez(tmp_path / "long.npz", small.astype(np.int64))
    for name in ("big.tiff", "big.npy", "wide.npy", "long.npz"):
        np.testing.assert_allclose(read_depth_file(tmp_path / name), small / 1000, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(("values_per_metre", "kind", "height"), [(3.28084, np.float32, 4.9), (5000, np.uint16, 7.5)])
def test_a_wrong_unit_is_noticed_at_the_cameras_height(tmp_path, room, reading, values_per_metre, kind, height):
    """Feet taken for metres, and fifths of millimetres for whole ones: there are such places, but it is said."""
    np.save(tmp_path / "d.npy", (room.depth * values_per_metre).astype(kind))
    notes = " ".join(_estimate(tmp_path / "d.npy", room, reading).notes)
    assert f"The lowest level surface lies {height:.2g} m below it: if that is the floor, the depth has another unit" in notes


def test_what_16_bits_cannot_hold_is_unknown(tmp_path):
    values = np.full((48, 64), 2000, np.uint16)
    values[:10], values[10:12] = 65535, 0
    np.save(tmp_path / "far.npy", values)
    assert np.isnan(read_depth_file(tmp_path / "far.npy")[:12]).all() and (read_depth_file(tmp_path / "far.npy")[12:] == 2.0).all()


def test_inverse_depth_and_range_are_converted(tmp_path, room, reading):
    np.save(tmp_path / "inverse.npy", 1 / room.depth)
    assert np.allclose(read_depth_file(tmp_path / "inverse.npy", kind="inverse"), room.depth, rtol=1e-5)
    np.save(tmp_path / "range.npy", room.depth * np.linalg.norm(room.camera.rays(), axis=-1))
    got = DepthFile(DepthCfg(path=str(tmp_path / "range.npy"), kind="range")).estimate(room.photo, reading)
    true = cv2.resize(room.depth, (512, 384), interpolation=cv2.INTER_AREA)
    assert np.median(np.abs(got.depth - true) / true) < 0.003
    assert got.measured is not None and np.array_equal(got.measured, np.isfinite(got.depth))


@pytest.mark.parametrize(("level", "kept"), [((0, 1, 2), (1, 2)), ((10, 120, 255), (255,))])
def test_confidence_drops_pixels(tmp_path, room, level, kept):
    values = np.random.default_rng(0).choice(np.array(level, np.uint8), room.depth.shape)
    np.save(tmp_path / "depth.npy", room.depth)
    cv2.imwrite(str(tmp_path / "confidence.png"), values)
    cfg = DepthCfg(path=str(tmp_path / "depth.npy"), confidence=str(tmp_path / "confidence.png"))
    got, turned = DepthFile(cfg)._read(room.photo)
    assert np.array_equal(np.isfinite(got), np.isin(values, kept) & np.isfinite(room.depth)) and not turned
    cv2.imwrite(str(tmp_path / "confidence.png"), values[:-20])
    with pytest.raises(InputError, match=r"confidence: .*expected the depth file's size"):
        DepthFile(cfg).check(room.photo)
    cv2.imwrite(str(tmp_path / "confidence.png"), np.zeros_like(values))
    with pytest.raises(InputError, match=r"confidence\.png: got no number above 0"):
        DepthFile(cfg).check(room.photo)
    few = np.where(np.arange(values.size).reshape(values.shape) < 500, max(level), min(level)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "confidence.png"), few)
    with pytest.raises(InputError, match=r"confidence\.png: got enough of it and depth at 0\.2 % of the pixels"):
        DepthFile(cfg).check(room.photo)


@pytest.fixture(scope="module")
def phone(room):
    """A phone's LiDAR: 256x192 float32 metres, noise that is blurred, low confidence along edges, and nothing beyond 5 m."""
    rng = np.random.default_rng(3)
    depth = cv2.resize(room.depth, (256, 192), interpolation=cv2.INTER_NEAREST_EXACT)
    depth = depth * (1 + cv2.GaussianBlur(rng.normal(0, 1, depth.shape), (0, 0), 1.5) * 0.01)
    edges = cv2.dilate(depth, np.ones((3, 3))) > 1.06 * cv2.erode(depth, np.ones((3, 3)))
    depth[edges] *= rng.uniform(0.8, 1.2, edges.sum())
    depth[depth > 5] = 0
    return depth.astype(np.float32), np.where(edges, 0, np.where(depth > 3, 1, 2)).astype(np.uint8)


def test_a_phones_depth_with_confidence(tmp_path, room, reading, phone):
    depth, confidence = phone
    np.save(tmp_path / "depth.npy", depth)
    cv2.imwrite(str(tmp_path / "confidence.png"), confidence)
    cfg = DepthCfg(path=str(tmp_path / "depth.npy"), confidence=str(tmp_path / "confidence.png"))
    got = DepthFile(cfg).estimate(room.photo, reading)
    tilt = np.degrees(np.arccos(np.clip(got.T_world_camera[2, :3] @ room.T_world_camera[2, :3], -1, 1)))
    assert tilt < 0.4 and got.T_world_camera[2, 3] == pytest.approx(1.5, abs=0.02)
    true = cv2.resize(room.depth, (512, 384), interpolation=cv2.INTER_AREA)
    wrong = np.abs(got.depth / true - 1)
    assert np.nanmean(wrong) < 0.01
    labels = cv2.resize(room.labels, (512, 384), interpolation=cv2.INTER_NEAREST_EXACT)
    known = np.isfinite(got.depth)
    assert known.mean() > 0.6
    assert np.isin(got.labels[known & (labels == Label.OBSTACLE)], (Label.OBSTACLE, Label.WALL)).mean() > 0.95
    assert (got.labels[known & (labels == Label.FLOOR)] == Label.FLOOR).mean() > 0.95
    worse = np.abs(_estimate(tmp_path / "depth.npy", room, reading).depth / true - 1)
    assert (worse > 0.05).sum() > 5 * (wrong > 0.05).sum(), "what confidence drops is not mixed in"


@pytest.mark.parametrize("size", [(160, 120), (640, 480), (1024, 768)])
def test_range_is_converted_at_the_files_own_size(tmp_path, room, reading, size):
    """Distance along rays is no plane; at any size the result is that of the depth itself."""
    depth = cv2.resize(room.depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
    np.save(tmp_path / "depth.npy", depth)
    np.save(tmp_path / "range.npy", depth * np.linalg.norm(room.camera.resized(*size).rays(), axis=-1))
    want = _estimate(tmp_path / "depth.npy", room, reading)
    got = DepthFile(DepthCfg(path=str(tmp_path / "range.npy"), kind="range")).estimate(room.photo, reading)
    np.testing.assert_allclose(got.depth, want.depth, rtol=1e-4)
    assert np.array_equal(got.labels, want.labels)


def test_a_file_that_lies_as_the_sensor_saw_it_is_turned(tmp_path, room, reading):
    np.save(tmp_path / "upright.npy", room.depth)
    np.save(tmp_path / "lying.npy", np.rot90(room.depth))
    want = _estimate(tmp_path / "upright.npy", room, reading)
    turned = replace(room.photo, orientation=6)
    got = DepthFile(DepthCfg(path=str(tmp_path / "lying.npy"))).estimate(turned, reading)
    assert np.array_equal(got.depth, want.depth, equal_nan=True) and any("turned upright" in note for note in got.notes)
    with pytest.raises(InputError, match="lie on its side"):
        _estimate(tmp_path / "lying.npy", room, reading)


def test_the_users_floor_mask_wins(tmp_path, room, reading):
    np.save(tmp_path / "depth.npy", room.depth)
    mask = (room.labels == Label.FLOOR) & (np.arange(640) < 200)[None]
    got = DepthFile(DepthCfg(path=str(tmp_path / "depth.npy"))).estimate(replace(room.photo, floor_mask=mask), reading)
    shown = cv2.resize(mask.astype(np.uint8), (512, 384), interpolation=cv2.INTER_NEAREST) > 0
    assert (got.labels == Label.FLOOR)[shown].mean() > 0.97 and (got.labels == Label.FLOOR)[~shown].mean() < 0.003
    assert got.T_world_camera[2, 3] == pytest.approx(1.5, abs=0.01)
