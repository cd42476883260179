"""The generator by itself: what a chunk depends on, what its state is for, and where the sky goes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tiny import patch_codec, tiny_components, tiny_vae  # noqa: E402

from lyra_core.config import GenerateCfg, Lyra2Cfg, WorldCfg, from_dict, with_preset  # noqa: E402
from lyra_core.errors import ConfigError, InputError  # noqa: E402
from lyra_core.generate.base import ChunkRequest  # noqa: E402
from lyra_core.generate.captions import caption_for_chunk, load_captions, template_prompt  # noqa: E402
from lyra_core.generate.lyra2.generator import GeneratorLyra2, sky_filled  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecWan  # noqa: E402
from lyra_core.types import Camera, DepthEstimate, Frame, Photo, Trajectory  # noqa: E402

torch.set_num_threads(1)
W, H = 32, 16
CAMERA = Camera.from_focal(24.0, W, H)
PACKING = "f1k1f1s1f2k2f1k1_g2"


def path(frames):
    T = np.tile(np.eye(4), (frames, 1, 1))
    T[:, 2, 3] = np.linspace(0, 0.5, frames)
    return Trajectory(T, np.tile(CAMERA.K, (frames, 1, 1)), W, H)


def generator(codec=None, *, packing=PACKING, **settings):
    cfg = GenerateCfg(generator="lyra2", lyra2=Lyra2Cfg(preset="custom", **{"steps": 2, **settings}))
    out = GeneratorLyra2(cfg=cfg, components=tiny_components(codec=codec or patch_codec(), packing=packing))
    photo = Photo(np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8), "0", "photo.png")
    depth = np.full((H, W), 3.0, np.float32)
    estimate = DepthEstimate(depth, np.zeros((H, W), np.uint8), CAMERA, path(1).T_world_camera[0], None, "flat", 0.0)
    out.prepare(photo, estimate, seed=0, indoor=True)
    return out


def request(k, frames, *, size=8, seed=None, prompt="", retrieved=()):
    whole = path(1 + 8 * size)
    first = 1 + k * size
    cameras = whole[first : first + size]
    return ChunkRequest(k, cameras, whole[:first], frames[k * size], retrieved, prompt, k if seed is None else seed)


def run(made, chunks, *, frames=None, states=None, start=0, size=8):
    """Generate chunks; return frames by id, with depth, and states."""
    frames = {0: made.first_frame(path(1))} if frames is None else frames
    states = {} if states is None else states
    for k in range(start, chunks):
        for i, frame in enumerate(made.generate(request(k, frames, size=size)), 1 + k * size):
            frames[i] = replace(frame, depth=np.full((H, W), 3.0, np.float32))
        states[k] = made.chunk_state()
    return frames, states


@pytest.mark.parametrize("codec", ["patch", "wan"])
def test_resumed_anywhere_it_makes_the_same_frames(codec):
    def make():
        return generator(CodecWan(tiny_vae()) if codec == "wan" else None)

    frames, states = run(make(), 3)
    assert {name: value.shape for name, value in states[0].items()} == {"sampled": (16, 2, 2, 4), "encoded": (16, 2, 2, 4)}
    for chunks in (1, 2):
        resumed = make()
        resumed.resume(chunks, states.__getitem__, frames.__getitem__)
        again, later = run(resumed, 3, frames={i: f for i, f in frames.items() if i <= 8 * chunks}, states={}, start=chunks)
        assert all(np.array_equal(again[i].rgb, frames[i].rgb) for i in frames)
        assert all(np.array_equal(later[2][name], states[2][name]) for name in ("sampled", "encoded"))


def test_resume_after_more_chunks_than_the_codec_remembers():
    """Beyond the codec's reach the states are rebuilt without the beginning of the video."""
    made = generator()
    frames, states = run(made, 4)
    resumed = generator()
    seen = []
    resumed.resume(4, lambda k: seen.append(k) or states[k], lambda i: frames[i])
    assert 0 not in seen, "the first chunk is out of reach"
    assert torch.equal(resumed._stream.latents, made._stream.latents)


@pytest.mark.parametrize("distilled", [False, True])
def test_what_a_chunk_depends_on(distilled):
    frames = {0: generator().first_frame(path(1))}

    def made(**changes):
        return generator(distilled=distilled, **changes.pop("settings", {})).generate(request(0, frames, **changes))[-1].rgb

    plain = made()
    assert np.array_equal(plain, made()), "the same seed gives the same frames, distilled or not"
    assert not np.array_equal(plain, made(seed=5))
    assert not np.array_equal(plain, made(prompt="A red room."))
    other = replace(frames[0], rgb=255 - frames[0].rgb)
    assert not np.array_equal(plain, made(retrieved=(other,)))
    assert distilled or not np.array_equal(plain, made(settings={"guidance": 1.0}))


def test_it_says_what_it_was_told():
    made = generator()
    frames = {0: made.first_frame(path(1))}
    made.generate(request(0, frames))
    assert made.said == template_prompt(indoor=True)
    made.generate(request(0, frames, prompt="A hall."))
    assert made.said == "A hall."


def test_frames_come_without_depth_and_know_what_the_photo_covers():
    made = generator()
    frames = {0: made.first_frame(path(1))}
    new = made.generate(request(0, frames))
    assert all(np.isnan(f.depth).all() for f in new) and isinstance(new[0], Frame)
    assert (new[0].provenance == 1).mean() > 0.9, "the camera has hardly moved: nearly all of it continues the photo"


def test_sky_is_far_but_not_a_hole():
    depth = np.full((10, 10), np.nan, np.float32)
    assert (sky_filled(depth) == 200).all()
    depth[5:] = np.linspace(1, 50, 50).reshape(5, 10)
    filled = sky_filled(depth)
    assert np.array_equal(filled[5:], depth[5:]) and (filled[:5] == filled[0, 0]).all() and 49 < filled[0, 0] <= 50


def test_presets_are_whole_or_refused():
    cfg = from_dict({"generate": {"generator": "lyra2"}})
    repo, paper = with_preset(cfg), with_preset(from_dict({"generate": {"lyra2": {"preset": "paper"}}}, base=cfg))
    assert (repo.generate.retrieval_views, repo.generate.point_subsampling, repo.generate.lyra2.steps) == (1, 4, 35)
    assert (paper.generate.retrieval_views, paper.generate.point_subsampling) == (5, 8)
    zoom = with_preset(from_dict({"generate": {"trajectory": "zoom_in_out"}}, base=cfg))
    assert zoom.generate.lyra2.steps == 50
    with pytest.raises(ConfigError, match="steps: got 20, but preset 'repo' has 35"):
        with_preset(from_dict({"generate": {"lyra2": {"steps": 20}}}, base=cfg))
    assert with_preset(WorldCfg()) == WorldCfg(), "other generators have no presets"


def test_captions_of_chunks(tmp_path):
    file = tmp_path / "captions.json"
    file.write_text('{"0": "a", "81": "b", "241": "c"}')
    captions = load_captions(file)
    assert [caption_for_chunk(captions, k) for k in range(5)] == ["a", "b", "b", "c", "c"]
    wrong = {'["a"]': "expected an object", '{"x": "a"}': "got key 'x'", '{"0": 3}': "0: got 3", "{": "not readable"}
    for text, match in wrong.items():
        file.write_text(text)
        with pytest.raises(InputError, match=match):
            load_captions(file)
