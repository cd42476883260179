"""What makes the network fit: plans against measured bytes, 8-bit weights, waiting blocks, tiles; and the named approximations."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tiny import IMAGE_DIM, TEXT_DIM, tiny_components, tiny_network, tiny_vae  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.components import guided_velocity  # noqa: E402
from lyra_core.generate.lyra2.conditioning import ChunkInputs  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.offload import BlockOffload  # noqa: E402
from lyra_core.generate.lyra2.plans import GIB, activation_size, codec_size, network_sizes, place, plan_for  # noqa: E402
from lyra_core.generate.lyra2.quantize import LinearQuantized, quantize_, quantized  # noqa: E402
from lyra_core.generate.lyra2.samplers import chunk_noise, sample_unipc  # noqa: E402
from lyra_core.generate.lyra2.speed import FirstBlockCache, speed_names  # noqa: E402
from lyra_core.generate.lyra2.tiling import CodecTiled  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402

PACKING = "f1k1f1s1f2k2_g2"


def chunk(h=4, w=6, T=6, seed=0):
    torch.manual_seed(seed)
    history, condition = torch.randn(16, T - 2, h, w), torch.randn(20, T, h, w)
    inputs = ChunkInputs(history, condition, torch.randn(384, T, h, w), torch.rand(1280, T, h, w))
    return inputs, [torch.randn(512, TEXT_DIM), torch.randn(512, TEXT_DIM)], torch.randn(257, IMAGE_DIM)


@torch.no_grad()
def velocity_of(network, timestep=700.0):
    inputs, texts, image = chunk()
    return guided_velocity(network, inputs, texts, image, guidance=5.0)(chunk_noise(1, (16, 2, 4, 6)), timestep)


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_rounding_to_8_bit(scheme):
    torch.manual_seed(0)
    x = torch.randn(5, 400) * torch.tensor([[1e-3], [1.0], [50.0], [0.0], [7.0]])
    rounded, scale = quantized(x, scheme)
    error = (rounded.float() * scale - x).abs()
    # int8: half a step; e4m3: 3 bits of mantissa, so a sixteenth of the value, or half of the smallest step.
    limit = scale / 2 if scheme == "int8" else torch.maximum(x.abs() / 16, scale * 2**-10)
    assert rounded.element_size() == 1 and (error <= limit * 1.001 + 1e-12).all()


@pytest.mark.parametrize(("scheme", "limit"), [("int8", 0.01), ("fp8", 0.06)])
def test_quantised_network_stays_close(scheme, limit):
    network = tiny_network(packing=PACKING)
    exact = velocity_of(network)
    names = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    count = quantize_(network, scheme)
    assert count == 2 * 12, "per block: q, k, v, o twice, k and v of the picture, two of the feed-forward"
    changed = {name for name, module in network.named_modules() if isinstance(module, LinearQuantized)}
    assert changed <= names and all(".attn" in name or ".ffn" in name for name in changed)
    close = velocity_of(network)
    relative = float((close - exact).norm() / exact.norm())
    assert 0 < relative < limit, f"{scheme}: {relative:.4f}"
    twin = tiny_network(packing=PACKING, seed=5)
    quantize_(twin, scheme)
    twin.load_state_dict(network.state_dict(), strict=True)
    assert torch.equal(velocity_of(twin), close), "quantised weights are stored and loaded as they are"


@pytest.mark.parametrize("resident", [0, 1])
def test_waiting_blocks_give_the_same_bytes(resident):
    network = tiny_network(packing=PACKING)
    exact = velocity_of(network)
    offload = BlockOffload(network.blocks, "cpu", resident=resident)
    assert torch.equal(velocity_of(network), exact) and torch.equal(velocity_of(network), exact)
    waiting = {id(value) for entries in offload._waiting.values() for _, _, value in entries}
    assert waiting and all(value.device.type == "cpu" for entries in offload._waiting.values() for _, _, value in entries)
    offload.remove()
    assert torch.equal(velocity_of(network), exact)


def test_plan_for_every_card_fits_and_names_its_peak():
    for vram in (24, 48, 80):
        plan = plan_for(vram, {}, 480, 832)
        assert plan.peak <= vram and plan.weights == "bf16", "exact on every card"
        assert str(plan.resident) in plan.table() or plan.resident == plan.blocks
        assert "denoise" in plan.table() and f"{plan.peaks['denoise']:6.1f} GiB" in plan.table()
    assert plan_for(24, {}, 480, 832).resident < 40 == plan_for(48, {}, 480, 832).resident
    assert plan_for(32, {}, 480, 832, fp8=True).resident == 40, "8-bit weights stay on a 32 GB card"
    assert plan_for(24, {}, 480, 832, ranks=4).resident > plan_for(24, {}, 480, 832).resident
    with pytest.raises(ConfigError, match=r"got 7.4 GiB, expected at least 1\d"):
        plan_for(8, {}, 480, 832)
    with pytest.raises(ConfigError, match="got 'lots'"):
        plan_for("lots", {}, 480, 832)


@pytest.mark.parametrize(("height", "width"), [(480, 832), (240, 416)])
def test_plan_expects_what_torch_counts_at_full_width(height, width):
    """The published width and frame size, two blocks, as fake tensors: torch's memory tracker sees every allocation."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)
        try:
            network = Lyra2Network(num_layers=2)
        finally:
            torch.set_default_dtype(torch.float32)
        given = [torch.empty(1, channels, 45, height // 8, width // 8) for channels in (16, 20, 384, 1280)]
        text, image = torch.empty(1, 512, 4096), torch.empty(1, 257, 1280)
        tracker = MemTracker()
        tracker.track_external(network, *given, text, image)
        with tracker, torch.no_grad():
            network(given[0], given[1], torch.empty(1), text, image, network.prepare(given[2], given[3]))
    weights = sum(p.numel() * 2 for p in network.parameters())
    counted = max(device["Total"] for device in tracker.get_tracker_snapshot("peak").values()) - weights
    expected = activation_size({"num_layers": 2}, height, width)
    assert abs(expected / (counted / GIB) - 1) < 0.15, f"expected {expected:.2f}, counted {counted / GIB:.2f} GiB"


def test_plan_counts_weights_as_they_are():
    config = {"num_attention_heads": 4, "attention_head_dim": 32, "ffn_dim": 256, "num_layers": 3, "text_dim": 32, "image_dim": 32}
    network = Lyra2Network(**config).to(torch.bfloat16)
    total = sum(p.numel() * p.element_size() for p in network.parameters()) / GIB
    sizes = network_sizes(config, 2)
    assert abs(sizes["outside"] + 3 * sizes["block"] - total) < 1e-9


def test_plan_expects_the_codecs_states():
    """Bytes of the causal features of Wan's codec at its real width ratio, counted on a small one."""
    codec = CodecWan(tiny_vae())
    latents, encoder = codec.encode(torch.rand(1, 3, 9, 64, 96))
    _, decoder = codec.decode(latents)
    held = sum(x.numel() for x in (*encoder, *decoder) if isinstance(x, torch.Tensor)) * 2 / GIB
    expected = codec_size(64, 96, tile=None, base=3)["states"]
    assert abs(expected / held - 1) < 0.2, f"expected {expected:.2e}, held {held:.2e} GiB"


def test_place_puts_a_network_as_planned():
    network = tiny_network(packing=PACKING)
    exact = velocity_of(network)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2, "text_dim": 12, "image_dim": 10,
             "freq_dim": 32, "buffer_squeeze": 4, "packing": PACKING}
    plan = plan_for(80, sizes, 32, 48)
    assert plan.resident == plan.blocks == 2 and activation_size(sizes, 32, 48) < 1
    place(network, plan, "cpu")
    assert torch.equal(velocity_of(network), exact)


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
    tiled = CodecTiled(codec, tile=8, overlap=4)
    latents = torch.randn(1, 16, 3, 8, 14) * 0.3
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
    noise = chunk_noise(3, (16, 2, 4, 6))
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


def test_generator_parts_are_small():
    assert sum(p.numel() for p in tiny_components(packing=PACKING).network.parameters()) < 3e6
