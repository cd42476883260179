"""Memory plans against what torch counts, and placing a network by one."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import PACKING, relative, velocity_of  # noqa: E402
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan  # noqa: E402
from tiny import tiny_network, tiny_vae  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.distributed._tools.mem_tracker import MemTracker  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.plans import (  # noqa: E402
    GIB,
    MemoryPlan,
    codec_size,
    network_sizes,
    place,
    placed_codec,
    plan_for,
    state_values,
    work_sizes,
)
from lyra_core.generate.lyra2.quantize import quantize_  # noqa: E402
from lyra_core.generate.lyra2.tiling import CodecParked, CodecTiled  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecWan  # noqa: E402

SMALL = {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2, "text_dim": 12, "image_dim": 10,
         "freq_dim": 32, "buffer_squeeze": 4, "packing": PACKING}


def counted(run, *given) -> float:
    """Return the peak of what ``run`` allocates beside modules and tensors given to it, by torch's memory tracker [GiB]."""
    tracker = MemTracker()
    tracker.track_external(*given)
    before = sum(device["Total"] for device in tracker.get_tracker_snapshot().values())
    with tracker, torch.no_grad():
        run()
    return (max(device["Total"] for device in tracker.get_tracker_snapshot("peak").values()) - before) / GIB


def inputs_of(height: int, width: int, latents: int, *, text: int, image: int, slots: int = 5) -> list[torch.Tensor]:
    sizes = [(1, channels, latents, height // 8, width // 8) for channels in (16, 20, 384, 256 * slots)]
    return [*(torch.zeros(size) for size in sizes), torch.zeros(1, 512, text), torch.zeros(1, 257, image)]


@pytest.mark.parametrize(("height", "width"), [(480, 832), (240, 416)])
def test_pass_at_full_width(height, width):
    """The published width and frame size, two blocks, as fake tensors: torch sees every allocation, and none is made."""
    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)
        try:
            network = Lyra2Network(num_layers=2)
        finally:
            torch.set_default_dtype(torch.float32)
        given = inputs_of(height, width, 45, text=4096, image=1280)
        peak = counted(
            lambda: network(given[0], given[1], torch.zeros(1), *given[4:], network.prepare(given[2], given[3])), network, *given
        )
    work = work_sizes({"num_layers": 2}, height, width)
    expected = work["conditions"] + work["pass"]
    assert abs(expected / peak - 1) < 0.05, f"expected {expected:.2f}, counted {peak:.2f} GiB"


def test_pass_at_tiny_size():
    """Real tensors in float32, small enough for any machine."""
    config = {"num_attention_heads": 4, "attention_head_dim": 32, "ffn_dim": 256, "num_layers": 2, "text_dim": 16, "image_dim": 16,
              "packing": PACKING}
    network = Lyra2Network(**config).eval()
    given = inputs_of(128, 192, 6, text=16, image=16, slots=1)
    peak = counted(
        lambda: network(given[0], given[1], torch.zeros(1), *given[4:], network.prepare(given[2], given[3])), network, *given
    )
    work = work_sizes(config, 128, 192, bytes_per_value=4)
    expected = max(work["prepare"], work["conditions"] + work["pass"])
    assert abs(expected / peak - 1) < 0.15, f"expected {expected:.4f}, counted {peak:.4f} GiB"


@pytest.mark.parametrize("scheme", [None, "int8", "fp8"])
def test_weights_are_counted_as_they_are(scheme):
    config = {"num_attention_heads": 4, "attention_head_dim": 32, "ffn_dim": 256, "num_layers": 3, "text_dim": 32, "image_dim": 32}
    network = Lyra2Network(**config).to(torch.bfloat16)
    if scheme:
        quantize_(network, scheme)
    total = sum(value.numel() * value.element_size() for value in network.state_dict().values()) / GIB
    sizes = network_sizes(config, 1 if scheme else 2)
    assert abs(sizes["outside"] + 3 * sizes["block"] - total) < 1e-9
    # 17.03 billion parameters (Lyra 2.0).
    assert abs((network_sizes({}, 2)["outside"] + 40 * network_sizes({}, 2)["block"]) * GIB / 2 / 17.03e9 - 1) < 1e-3


def test_codec_states_are_counted_exactly():
    codec = CodecWan(tiny_vae())
    latents, encoder = codec.encode(torch.rand(1, 3, 9, 32, 48))
    _, decoder = codec.decode(latents)
    held = [sum(x.numel() for x in state if isinstance(x, torch.Tensor)) / (32 * 48) for state in (encoder, decoder)]
    assert held == pytest.approx(state_values(3))


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_codec_step_at_full_size(part):
    """In bfloat16, with Wan's own widths, as fake tensors."""
    with FakeTensorMode():
        torch.set_default_dtype(torch.bfloat16)
        try:
            codec = CodecWan(AutoencoderKLWan().eval())
        finally:
            torch.set_default_dtype(torch.float32)
        given = torch.zeros(1, 3, 9, 480, 832) if part == "encoder" else torch.zeros(1, 16, 3, 60, 104)
        call = codec.encode if part == "encoder" else codec.decode
        first, rest = (given[:, :, :5], given[:, :, 5:]) if part == "encoder" else (given[:, :, :2], given[:, :, 2:])
        with torch.no_grad():
            _, state = call(first)
        peak = counted(lambda: call(rest, state), codec.vae, given, *(x for x in state if isinstance(x, torch.Tensor)))
    size = codec_size(480, 832)
    expected = size[part] + size[f"{part} work"]
    assert 0.95 < expected / peak < 1.2, f"expected {expected:.2f}, counted {peak:.2f} GiB"


@pytest.mark.parametrize("vram", [24, 48, 80])
def test_every_card_stays_exact_and_says_so_before_loading(vram):
    plan = plan_for(vram, {}, 480, 832)
    assert plan.peak <= 0.92 * vram and plan.weights == "bf16" and plan.encoders == "gpu" and plan.tile is None and not plan.parked
    table = plan.table()
    assert {"denoise", "decode"} <= set(plan.peaks)
    assert all(f"{stage:<10} {peak:6.1f} GiB" in table for stage, peak in plan.peaks.items())
    assert ("all on the card" in table) == (plan.resident == 40) == (vram == 80)
    # One block more would not fit.
    assert plan.resident == 40 or plan.peak + network_sizes({}, 2)["block"] > plan.budget


def test_smaller_cards_give_up_one_thing_after_the_other():
    assert plan_for(18, {}, 480, 832).parked and plan_for(18, {}, 480, 832).weights == "bf16"
    assert plan_for(16, {}, 480, 832).encoders == "cpu"
    assert plan_for(24, {}, 480, 832, weights="fp8").resident > plan_for(24, {}, 480, 832).resident
    assert plan_for(24, {}, 480, 832, cache=True).peaks["denoise"] > plan_for(24, {}, 480, 832).peaks["denoise"]
    assert plan_for(16, {}, 480, 832, ranks=4).resident > plan_for(16, {}, 480, 832).resident
    assert plan_for(24, {}, 480, 832, weights="int8").host < plan_for(24, {}, 480, 832).host
    with pytest.raises(ConfigError, match=r"vram: got 7\.4 GiB to use, expected at least 1\d\.\d for 832x480 px with bf16 weights"):
        plan_for(8, {}, 480, 832)
    with pytest.raises(ConfigError, match="got 'lots'"):
        plan_for("lots", {}, 480, 832)


@pytest.mark.parametrize(("weights", "resident", "limit"), [("bf16", 2, 0), ("bf16", 0, 0), ("int8", 1, 0.01), ("fp8", 0, 0.1)])
def test_place_puts_a_network_as_planned(weights, resident, limit):
    network = tiny_network(packing=PACKING)
    exact = velocity_of(network)
    place(network, MemoryPlan(1.0, weights, resident, 2, None, False, "cpu"), "cpu")
    difference = relative(velocity_of(network), exact)
    assert difference == 0 if limit == 0 else 0 < difference < limit


def test_codec_is_placed_as_planned():
    codec = CodecWan(tiny_vae())
    plan = MemoryPlan(1.0, "bf16", 2, 2, 6, True, "cpu")
    tiled = placed_codec(codec, plan)
    # Each tile's state waits by itself.
    assert isinstance(tiled, CodecTiled) and isinstance(tiled.codec, CodecParked) and tiled.codec.codec is codec
    assert placed_codec(codec, plan_for(80, SMALL, 32, 48)) is codec
