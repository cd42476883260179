"""Videos: same frames give the same bytes, sizes and errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lyra_core.errors import BackendUnavailable, InputError, WorldError
from lyra_core.io.video import read_video, write_video


def clip(count=20, height=48, width=64):
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        yield np.stack([(x * 3 + 4 * i) % 256, (y * 4 + i) % 256, np.full_like(x, 8 * i)], -1).astype(np.uint8)


def test_round_trip_and_same_bytes(tmp_path):
    assert write_video(tmp_path / "a.mp4", clip(), crf=4) == 20
    write_video(tmp_path / "b.mp4", clip(), crf=4)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    back = list(read_video(tmp_path / "a.mp4"))
    assert len(back) == 20 and back[0].shape == (48, 64, 3)
    mean = [abs(b.astype(float).mean((0, 1)) - a.mean((0, 1))).max() for a, b in zip(clip(), back, strict=True)]
    assert max(mean) < 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_odd_sizes_lose_one_row_and_column(tmp_path):
    write_video(tmp_path / "odd.mp4", clip(3, 33, 51))
    assert next(read_video(tmp_path / "odd.mp4")).shape == (32, 50, 3)


def test_a_failing_source_leaves_nothing(tmp_path):
    def broken():
        yield from clip(3)
        raise KeyError("no more")

    (tmp_path / "v.mp4").write_bytes(b"old")
    with pytest.raises(KeyError):
        write_video(tmp_path / "v.mp4", broken())
    assert (tmp_path / "v.mp4").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="got no frames"):
        write_video(tmp_path / "v.mp4", [])
    with pytest.raises(InputError, match=r"frame 1: got \(48, 60, 3\) uint8, expected \(48, 64, 3\)"):
        write_video(tmp_path / "v.mp4", [*clip(1), *clip(1, 48, 60)])
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with pytest.raises(WorldError, match=r"bad\.mp4: not readable as a video"):
        list(read_video(tmp_path / "bad.mp4"))
    with pytest.raises(WorldError, match="missing"):
        list(read_video(tmp_path / "none.mp4"))


def test_missing_ffmpeg_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(BackendUnavailable, match="pip install imageio-ffmpeg"):
        write_video(tmp_path / "v.mp4", clip())
