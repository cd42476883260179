"""Photo files: formats, EXIF, and one clear error per kind of bad file."""

from __future__ import annotations

import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lyra_core.errors import ConfigError, InputError
from lyra_core.photo.load import load_photo, parse_focal


def _picture(width: int = 120, height: int = 80) -> np.ndarray:
    v, u = np.mgrid[:height, :width]
    return np.stack([u * 255 // width, v * 255 // height, (u + v) % 256], -1).astype(np.uint8)


def _save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_formats_give_the_same_picture(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {"quality": 97, "subsampling": 0} if suffix == "jpg" else {}
    photo = load_photo(_save(tmp_path / f"a.{suffix}", Image.fromarray(_picture()), **options), licence="CC0")
    assert photo.rgb.shape == (80, 120, 3) and photo.rgb.dtype == np.uint8 and photo.licence == "CC0"
    assert np.abs(photo.rgb.astype(int) - _picture()).mean() < (3 if suffix == "jpg" else 1e-9)
    assert photo.focal_px is None and photo.focal_source == "none"


def test_modes_become_8_bit_rgb(tmp_path):
    grey = _picture()[..., 0]
    deep = (grey.astype(np.uint16) * 257)
    rgba = np.dstack([_picture(), np.zeros_like(grey)])
    for name, image, want in [
        ("grey.png", Image.fromarray(grey), np.repeat(grey[..., None], 3, 2)),
        ("deep.png", Image.fromarray(deep), np.repeat(grey[..., None], 3, 2)),
        ("deep.tiff", Image.fromarray(deep), np.repeat(grey[..., None], 3, 2)),
        ("palette.png", Image.fromarray(grey).convert("P"), np.repeat(grey[..., None], 3, 2)),
    ]:
        assert np.abs(load_photo(_save(tmp_path / name, image)).rgb.astype(int) - want).max() <= 1, name
    rgba[:, :60, 3] = 255
    half = load_photo(_save(tmp_path / "alpha.png", Image.fromarray(rgba))).rgb
    assert (half[:, 60:] == 255).all() and np.array_equal(half[:, :60], _picture()[:, :60])
    cmyk = load_photo(_save(tmp_path / "cmyk.jpg", Image.fromarray(_picture()).convert("CMYK"), quality=97)).rgb
    assert np.abs(cmyk.astype(int) - _picture()).mean() < 6


def test_16_bit_rgb_png_and_tiff(tmp_path):
    import cv2

    deep = _picture().astype(np.uint16) * 257
    for name in ("deep_rgb.png", "deep_rgb.tiff"):
        cv2.imwrite(str(tmp_path / name), deep[..., ::-1])
        assert np.abs(load_photo(tmp_path / name).rgb.astype(int) - _picture()).max() <= 1, name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path, orientation):
    turn = {1: [], 2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180], 4: [Image.Transpose.FLIP_TOP_BOTTOM],
            5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
            8: [Image.Transpose.ROTATE_270]}[orientation]
    stored = Image.fromarray(_picture())
    for step in turn:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[274] = orientation
    assert np.array_equal(load_photo(_save(tmp_path / "o.png", stored, exif=exif)).rgb, _picture())


def test_exif_focal_both_ways_and_user_wins(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[41989] = 28
    path = _save(tmp_path / "f35.jpg", Image.fromarray(_picture()), exif=exif)
    photo = load_photo(path)
    assert photo.focal_source == "exif"
    assert photo.focal_px == pytest.approx(28 / 43.2666 * math.hypot(120, 80))
    assert load_photo(path, focal="90px").focal_px == 90 and load_photo(path, focal="90px").focal_source == "user"

    plane = Image.Exif()
    plane.get_ifd(0x8769).update({37386: 5.0, 41486: 60.0, 41488: 4, 40962: 240, 40963: 160})
    assert load_photo(_save(tmp_path / "plane.jpg", Image.fromarray(_picture()), exif=plane)).focal_px == pytest.approx(150.0)
    for bad in (0, 60000):
        odd = Image.Exif()
        odd.get_ifd(0x8769)[41989] = bad
        assert load_photo(_save(tmp_path / "odd.jpg", Image.fromarray(_picture()), exif=odd)).focal_px is None
    wide = Image.fromarray(_picture(400, 100))
    assert load_photo(_save(tmp_path / "pano.jpg", wide, exif=exif)).focal_px is None


@pytest.mark.parametrize("text", ["28", "wide", "-5mm", "0px", "28 inch", "1e9px", ""])
def test_a_bad_focal_is_a_config_error(text):
    with pytest.raises(ConfigError, match="focal"):
        parse_focal(text, 640, 480)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


def _bytes(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


_NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (150, 200, 3)).astype(np.uint8))
BAD = {
    "text.jpg": (b"this is not a picture", "not an image"),
    "empty.png": (b"", "not an image"),
    "cut.jpg": (_bytes(_NOISE, "JPEG")[:9000], "truncated"),
    "cut.png": (_bytes(_NOISE, "PNG")[:9000], "truncated"),
    "tiny.png": (_bytes(Image.fromarray(_picture(1, 1)), "PNG"), "64 px"),
    "huge.png": (_png_header(30000, 30000), "megapixels"),
    "large.png": (_png_header(12000, 9000), "megapixels"),
    "black.png": (_bytes(Image.new("RGB", (100, 100)), "PNG"), "one colour"),
    "ribbon.png": (_bytes(Image.fromarray(_picture(900, 100)), "PNG"), "8:1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_line_that_names_the_file(tmp_path, name):
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        load_photo(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_photo(tmp_path / "absent.jpg")
    with pytest.raises(InputError, match="folder"):
        load_photo(tmp_path)
