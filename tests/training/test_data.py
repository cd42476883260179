"""Clips from disk: Lyra 2.0's training layout, world folders; what is drawn from them; and what is said when something is wrong."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from clip_of_a_wall import WALL, wall_clip, walls  # noqa: E402

from lyra_core.build_files import save_frame  # noqa: E402
from lyra_core.camera.formats import save_trajectory  # noqa: E402
from lyra_core.errors import BackendUnavailable, InputError, WorldError  # noqa: E402
from lyra_core.generate.lyra2.packing import Packing  # noqa: E402
from lyra_core.io.video import write_video  # noqa: E402
from lyra_core.training import data  # noqa: E402
from lyra_core.training.clips import Fit, mirrored_indices  # noqa: E402
from lyra_core.training.sampling import Sampler, draw_mode  # noqa: E402
from lyra_core.training.settings import DataCfg, HistoryCfg  # noqa: E402
from lyra_core.types import Frame  # noqa: E402

PACKING = Packing.parse("f1k1f2s1f1k1_g1")
COUNT, WIDTH, HEIGHT = 12, 96, 64


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in the layout of the released training data, with depth as arrays."""
    folder, clip = tmp_path_factory.mktemp("dl3dv"), wall_clip(COUNT, width=WIDTH, height=HEIGHT)
    for name in ("rgb", "pose", "intrinsics", "depth", "captions"):
        (folder / name).mkdir()
    write_video(folder / "rgb" / "a.mp4", list(clip.read_rgb(range(COUNT))), crf=1)
    inds, K = np.arange(COUNT)[::-1], clip.trajectory.K
    np.savez(folder / "pose" / "a.npz", inds=inds, data=clip.trajectory.T_world_camera[::-1].astype(np.float32))
    four = np.stack([K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2]], 1)
    np.savez(folder / "intrinsics" / "a.npz", inds=inds, data=four.astype(np.float32))
    np.savez(folder / "depth" / "a.npz", inds=inds, data=clip.read_depth(range(COUNT)).astype(np.float16))
    (folder / "captions" / "a.json").write_text(json.dumps({"0": "a wall", "8": "more wall"}))
    return folder


def opened(folder: Path, frames: int = COUNT, width: int = 48, height: int = 32):
    return data.build_source(DataCfg(kind="dl3dv", path=str(folder), frames=frames, width=width, height=height))


def test_released_layout_is_read(made):
    source = opened(made)
    clip, truth = source.load(0), wall_clip(COUNT, width=48, height=32)
    assert len(source) == 1 and len(clip) == COUNT
    np.testing.assert_allclose(clip.trajectory.K, truth.trajectory.K, rtol=1e-6)
    np.testing.assert_allclose(clip.trajectory.T_world_camera, truth.trajectory.T_world_camera, atol=1e-6)
    assert clip.depth([0, 5]).shape == (2, 32, 48) and np.allclose(clip.depth([5]), WALL)
    off = np.abs(clip.read_rgb([0, 7, 3]).astype(float) - truth.read_rgb([0, 7, 3]))
    assert off.mean() < 6
    wrong = np.abs(clip.read_rgb([0]).astype(float) - truth.read_rgb([7]))
    assert wrong.mean() > 2 * off.mean()
    assert clip.captions[clip.caption_key(7)] == "a wall" and clip.captions[clip.caption_key(8)] == "more wall"


def test_short_videos_go_back_and_forth(made):
    assert mirrored_indices(4, 9) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    clip = opened(made, frames=20).load(0)
    assert len(clip) == 20
    np.testing.assert_array_equal(clip.read_rgb([13]), clip.read_rgb([9]))
    np.testing.assert_array_equal(clip.trajectory.T_world_camera[13], clip.trajectory.T_world_camera[9])


def test_resizing_covers_and_crops_the_middle():
    fit, grid = Fit(832, 480), np.zeros((540, 960), np.float32)
    assert fit.picture(grid).shape == (480, 832)
    K = fit.intrinsics(np.array([[500.0, 0, 480], [0, 500, 270], [0, 0, 1]]), 960, 540)
    np.testing.assert_allclose([K[0, 2], K[1, 2]], [416, 240], atol=1)
    assert K[0, 0] == pytest.approx(500 * 480 / 540, rel=1e-3)


@pytest.mark.parametrize(("path", "said"), [
    ("rgb/a.mp4", "no rgb/"), ("pose/a.npz", "pose/a.npz"), ("intrinsics/a.npz", "intrinsics/a.npz"),
    ("depth/a.npz", "neither a.npz nor a.zip"),
])
def test_missing_files_are_named(made, tmp_path, path, said):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / path).unlink()
    with pytest.raises(InputError, match=said):
        opened(tmp_path).load(0)


def test_what_does_not_fit_is_named(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    np.savez(tmp_path / "pose" / "a.npz", inds=np.arange(COUNT - 1), data=np.tile(np.eye(4), (COUNT - 1, 1, 1)))
    with pytest.raises(InputError, match=r"pose/a.npz: inds: lacks frame 11"):
        opened(tmp_path).load(0)
    np.savez(tmp_path / "pose" / "a.npz", inds=np.arange(COUNT), data=np.zeros((COUNT, 4, 4)))
    with pytest.raises(InputError, match=r"pose/a.npz: data: pose 0"):
        opened(tmp_path).load(0)
    (tmp_path / "all_filter.lst").write_text("a.mp4\nb\n")
    with pytest.raises(InputError, match=r"all_filter\.lst: names b"):
        opened(tmp_path)


def test_captions_in_a_pickle_are_refused(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "captions" / "a.json").unlink()
    old = tmp_path / "framepack-caption-qwen3-chunk-80-overlap-0"
    old.mkdir()
    (old / "a.pkl").write_bytes(b"not read")
    with pytest.raises(InputError, match="pickle, which can run any code"):
        opened(tmp_path).load(0)


def test_depth_of_exr_archives(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    (tmp_path / "depth" / "a.npz").unlink()
    exr = pytest.importorskip("OpenEXR")
    depth = np.random.default_rng(0).uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float16)
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with zipfile.ZipFile(tmp_path / "depth" / "a.zip", "w") as archive:
        for i, channel in ((0, "Z"), (1, "Y")):
            exr.File(header, {channel: depth}).write(str(tmp_path / "one.exr"))
            archive.write(tmp_path / "one.exr", f"{i:05d}.exr")
    clip = opened(tmp_path, width=WIDTH, height=HEIGHT).load(0)
    np.testing.assert_array_equal(clip.depth([0])[0], depth.astype(np.float32))
    with pytest.raises(InputError, match=r"00001.exr: got channels Y, expected Z"):
        clip.depth([1])
    with pytest.raises(InputError, match=r"a.zip: 00002.exr"):
        clip.depth([2])


def test_without_a_reader_of_exr_the_install_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(BackendUnavailable, match=r"lyra-worlds\[exr\]"):
        data.exr_depth(tmp_path / "a.zip", "00000.exr")


def test_world_folders_are_read(tmp_path):
    clip = wall_clip(6, width=48, height=32)
    for i in range(6):
        provenance = np.zeros((32, 48), np.uint8)
        camera, T = clip.trajectory.camera(i), clip.trajectory.T_world_camera[i]
        frame = Frame(clip.read_rgb([i])[0], clip.read_depth([i])[0], camera, T, provenance)
        save_frame(tmp_path / "world", i, frame)
    save_trajectory(tmp_path / "world" / "trajectory.npz", clip.trajectory)
    cfg = DataCfg(kind="worlds", path=str(tmp_path), frames=6, width=48, height=32)
    read = data.build_source(cfg).load(0)
    np.testing.assert_array_equal(read.read_rgb([0, 4]), clip.read_rgb([0, 4]))
    np.testing.assert_allclose(read.depth([3]), WALL, rtol=1e-3)
    torch.testing.assert_close(read.cameras().T_world_camera, clip.cameras().T_world_camera)
    shutil.rmtree(tmp_path / "world" / "frames")
    with pytest.raises(WorldError, match="--keep all"):
        data.build_source(cfg)


HISTORY = HistoryCfg(preset="custom", memory_stride=4, memory_gap=4, point_subsampling=2)


def test_modes_have_their_shares():
    repo = [draw_mode(HistoryCfg(), seed=3, step=i) for i in range(4000)]
    paper = [draw_mode(HistoryCfg(every=1, image_share=0.3, probability=0.7), seed=3, step=i) for i in range(4000)]
    assert all(mode == "plain" for mode in repo[1::2])
    for modes, shares in ((repo, (0.5, 0.35, 0.15)), (paper, (0.21, 0.49, 0.3))):
        for mode, share in zip(("plain", "self_augmented", "image"), shares, strict=True):
            assert modes.count(mode) / len(modes) == pytest.approx(share, abs=0.025)


def test_retrieved_frames_are_far_and_come_by_visibility(monkeypatch):
    sampler = Sampler(walls(1, 81, step=0.1), PACKING, HISTORY, seed=0)
    clip, counts = sampler.source.load(0), dict.fromkeys(range(81), 0)
    first = 41
    allowed = sampler.candidates(81, first)
    assert allowed == [i for i in range(4, 81, 4) if i < first - 4 or i > first + 3 + 4]
    weights = sampler._weights(clip, allowed, first + 3)
    monkeypatch.setattr(sampler, "_weights", lambda *arguments: weights)
    for seed in range(1000):
        ids = sampler.drawn(clip, allowed, first + 3, np.random.default_rng(seed))
        assert len(ids) <= 2 and len(set(ids)) == len(ids)
        for i in ids:
            counts[i] += 1
    # A picture shows 3.3 m of the wall, so frames more than 33 away show nothing of the target; they come once in a while.
    blind = [i for i in allowed if abs(i - first - 3) > 33]
    shares = [counts[i] / sum(counts.values()) for i in blind]
    assert blind == [4, 8, 80] and 0 < max(shares) < 0.03
    assert set(np.flatnonzero([counts[i] for i in range(81)])) <= set(allowed)


def test_some_or_all_retrieved_frames_are_dropped_at_times(monkeypatch):
    sampler = Sampler(walls(1, 81), PACKING, HISTORY, seed=0)
    clip, allowed = sampler.source.load(0), sampler.candidates(81, 41)
    monkeypatch.setattr(sampler, "_weights", lambda *arguments: np.ones(len(allowed)))
    lengths = [len(sampler.drawn(clip, allowed, 44, np.random.default_rng(seed))) for seed in range(4000)]
    assert lengths.count(0) / 4000 == pytest.approx(0.05, abs=0.015) and lengths.count(1) / 4000 == pytest.approx(0.05, abs=0.015)


def test_a_sample_depends_on_its_place_alone():
    first, second = (Sampler(walls(3, 41), PACKING, HISTORY, seed=5) for _ in range(2))
    for step, slot in ((0, 0), (1, 1), (4, 0)):
        a = first.sample(step, slot)
        second.sample(7, 3)
        b = second.sample(step, slot)
        assert (a.name, a.mode, a.seed, [c.ids for c in a.chunks]) == (b.name, b.mode, b.seed, [c.ids for c in b.chunks])
        torch.testing.assert_close(a.video, b.video)
    assert first.sample(0, 0).seed != first.sample(0, 1).seed


def test_captions_are_dropped_at_times():
    sampler = Sampler(walls(1, 17), PACKING, HISTORY, seed=0, pool=1)
    texts = [sampler.sample(1, slot).target.caption for slot in range(2000)]
    assert texts.count(None) / 2000 == pytest.approx(0.2, abs=0.03) and set(texts) == {None, "a painted wall"}


def test_a_clip_that_is_too_short_is_named():
    with pytest.raises(InputError, match=r"wall-0: got 5 frames, expected at least 9"):
        Sampler(walls(1, 5), PACKING, HISTORY, seed=0).sample(1, 0)
