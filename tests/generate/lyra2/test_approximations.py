"""Tiled codecs and the named approximations: what they change, and by how much."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import PACKING, chunk  # noqa: E402
from tiny import tiny_network, tiny_vae  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.components import guided_velocity  # noqa: E402
from lyra_core.generate.lyra2.samplers import chunk_noise, sample_unipc  # noqa: E402
from lyra_core.generate.lyra2.speed import FirstBlockCache, speed_names  # noqa: E402
from lyra_core.generate.lyra2.tiling import CodecTiled  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402


def test_tiles_are_the_plain_codec_for_one_that_looks_no_further():
    torch.manual_seed(0)
    video = torch.rand(1, 3, 13, 96, 128) * 2 - 1
    plain, tiled = CodecPatch(channels=48), CodecTiled(CodecPatch(channels=48), tile=6, overlap=2)
    first, state = tiled.encode(video[:, :, :5])
    more, _ = tiled.encode(video[:, :, 5:], state)
    torch.testing.assert_close(torch.cat([first, more], 2), plain.encode(video)[0], atol=1e-5, rtol=0)
    latents = torch.randn(1, 48, 3, 12, 16)
    torch.testing.assert_close(tiled.decode(latents)[0], plain.decode(latents)[0], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="got tile 4 and overlap 4"):
        CodecTiled(plain, tile=4, overlap=4)


def test_tiles_stream_and_stay_close_with_wans_codec():
    torch.manual_seed(0)
    codec = CodecWan(tiny_vae())
    tiled = CodecTiled(codec, tile=12, overlap=4)
    latents = torch.randn(1, 16, 3, 8, 20) * 0.3
    one, state = tiled.decode(latents[:, :, :2])
    two, _ = tiled.decode(latents[:, :, 2:], state)
    whole = codec.decode(latents)[0]
    got = torch.cat([one, two], 2)
    assert torch.equal(got, tiled.decode(latents)[0]), "chunks stream as without tiles"
    relative = float((got - whole).norm() / whole.norm())
    assert 0 < relative < 0.15, f"{relative:.3f}"


def test_cache_and_skipped_guidance_are_approximations_by_name():
    assert speed_names("exact") == set() and speed_names("fp8+cache") == {"fp8", "cache"}
    with pytest.raises(ConfigError, match="speed: got 'warp'"):
        speed_names("cache+warp")
    network = tiny_network(packing=PACKING)
    inputs, texts, image = chunk()
    noise = chunk_noise(3, (16, 2, 4, 10))
    with torch.no_grad():
        exact = sample_unipc(guided_velocity(network, inputs, texts, image, guidance=5.0), noise, steps=12)
        skipped = sample_unipc(guided_velocity(network, inputs, texts, image, guidance=5.0, skip=0.7), noise, steps=12)
        cache = FirstBlockCache(network, threshold=0.0)
        same = sample_unipc(guided_velocity(network, inputs, texts[:1], image, guidance=1.0), noise, steps=12)
        assert cache.skipped == 0
        cache.reset()
        cache.threshold = 0.5
        cached = sample_unipc(guided_velocity(network, inputs, texts[:1], image, guidance=1.0), noise, steps=12)
        cache.remove()
        plain = sample_unipc(guided_velocity(network, inputs, texts[:1], image, guidance=1.0), noise, steps=12)
    assert torch.equal(same, plain), "a cache that never skips changes nothing"
    assert cache.skipped > 0 and 0 < float((cached - plain).norm() / plain.norm()) < 0.5
    assert 0 < float((skipped - exact).norm() / exact.norm()) < 0.5
