"""Photos that are no postcard: every one becomes a world that a robot can walk in, and carries nothing private."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from e2e_worlds import build, demo_picture, draft, file_hashes, jpeg, plain_bytes
from PIL import Image

from lyra_core.io.files import read_npz
from lyra_core.navigation import free_space_stats, load_episodes
from lyra_core.types import Label
from lyra_core.world import World

WALKABLE_M2 = 60.0
PRIVATE = (b"SERIAL-77810", b"MAKER-XYZ", b"HOME-STREET", b"Photographer Name")


def _alpha() -> Image.Image:
    image = demo_picture().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))))
    return image


def _deep() -> Image.Image:
    return Image.fromarray(np.asarray(demo_picture().convert("L")).astype(np.uint16) * 257)


def _noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


def _gradient(axis: int) -> Image.Image:
    ramp = np.linspace(0, 255, 400).astype(np.uint8)
    grey = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None], (400, 400))
    return Image.fromarray(np.repeat(grey[..., None], 3, axis=2))


def _plain(colour: tuple[int, int, int]) -> Image.Image:
    noise = np.random.default_rng(0).integers(-8, 9, (300, 400, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


PHOTOS: dict[str, Callable[[], Image.Image]] = {
    "grey": lambda: demo_picture().convert("L"),
    "alpha": _alpha,
    "cmyk": lambda: demo_picture().convert("CMYK"),
    "16 bit": _deep,
    "palette": lambda: demo_picture().quantize(32),
    "panorama": lambda: demo_picture(960).crop((0, 200, 960, 440)),
    "portrait": lambda: demo_picture(640).crop((250, 0, 392, 426)),
    "noise": _noise,
    "nearly black": lambda: demo_picture().point(lambda value: value // 24),
    "gradient down": lambda: _gradient(0),
    "gradient across": lambda: _gradient(1),
    "upside down": lambda: demo_picture().rotate(180),
    "nothing but sky": lambda: _plain((120, 170, 240)),
    "nothing but floor": lambda: _plain((110, 90, 70)),
    "smallest": lambda: demo_picture(96).resize((64, 64)),
}
QUICK = ("noise",)


def assert_sound(world: World) -> None:
    """Require floor to walk on, finite numbers, colliders, episodes, and a floor that looks up."""
    stats = free_space_stats(world.free_space, 0.3)
    assert stats["walkable_m2"] >= WALKABLE_M2, stats
    for path in sorted(world.folder.rglob("*.npz")):
        for name, array in read_npz(path).items():
            unknown = (path.name, name) == ("estimate.npz", "depth")
            assert array.dtype.kind != "f" or unknown or np.isfinite(array).all(), (path.name, name)
    for part in world.collision_parts:
        assert np.isfinite(part.vertices).all()
        if part.label == Label.FLOOR:
            a, b, c = (part.vertices[part.faces[:, i]] for i in range(3))
            assert (np.cross(b - a, c - a)[:, 2] >= 0).all(), part.name
    json.dumps(world.manifest, allow_nan=False)
    assert len(load_episodes(world.folder / "episodes.json.gz")) == 50


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PHOTOS])
def test_odd_photo(name: str, tmp_path: Path) -> None:
    image = PHOTOS[name]()
    path = tmp_path / ("photo.jpg" if image.mode == "CMYK" else "photo.png")
    image.save(path)
    assert_sound(build(path, tmp_path / "world")[0])


def test_a_turned_photo_is_upright_and_nothing_private_is_kept(
    photo: Path, finished_hashes: dict[str, str], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x013B] = 6, "MAKER-XYZ", "Photographer Name"
    exif.get_ifd(0x8769)[0xA431] = "SERIAL-77810"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[0x1C] = "N", (48.0, 51.0, 29.0), b"HOME-STREET"
    turned = demo_picture().rotate(90, expand=True)
    (tmp_path / "turned.jpg").write_bytes(jpeg(turned, exif=exif, quality=92))
    assert all(mark in (tmp_path / "turned.jpg").read_bytes() for mark in PRIVATE)
    world, _ = build(tmp_path / "turned.jpg", tmp_path / "world")
    with Image.open(world.folder / "photo.png") as stored:
        assert stored.size == demo_picture().size and not dict(stored.getexif())
        upright = np.asarray(stored.convert("RGB")).astype(int)
    assert np.abs(upright - np.asarray(demo_picture()).astype(int)).mean() < 6
    for name, data in plain_bytes(world.folder).items():
        assert not [mark for mark in (*PRIVATE, b"GPSInfo", b"Exif\0") if mark in data], name
    assert set(file_hashes(world.folder)) == set(finished_hashes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's <b>a\"pic\".jpg", "\u5bb6 \u00e9t\u00e9 \U0001f3e0.jpg", "a\nb\\c.jpg", "{x}@y@.jpg"])
def test_names_and_licences_with_any_signs(name: str, photo: Path, tmp_path: Path) -> None:
    from lyra_core.usd.validate import validate_stage

    (tmp_path / name).write_bytes(photo.read_bytes())
    licence, prompt = "CC-BY 4.0 </script><img src=x> \"J\u00f6rg\"\n'", "\"\"\"quoted\"\"\" \\ @"
    cfg = draft(photo={"licence": licence}, generate={"prompt": prompt})
    world, _ = build(tmp_path / name, tmp_path / "world", cfg)
    assert world.manifest["photo"]["name"] == name
    assert not validate_stage(world.folder / "world.usda", nvidia=False)
    assert "<img src=x>" not in (world.folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"photo": {"camera_height": 0.1}}, {"photo": {"camera_height": 5.0}},
        {"photo": {"camera_height": 20.0}}, {"photo": {"focal": "300mm"}},
        {"photo": {"scene": "outdoor", "camera_height": 20.0}}, {"photo": {"focal": "9mm"}},
        {"navigation": {"robot_radius": 1.0}}, {"navigation": {"cell": 0.1, "robot_height": 0.1, "step": 0.5}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_at_their_limits(changes: dict[str, object], photo: Path, tmp_path: Path) -> None:
    world, _ = build(photo, tmp_path / "world", draft(**changes))
    assert world.manifest["status"] == "complete"
    assert world.free_space.free.any()
