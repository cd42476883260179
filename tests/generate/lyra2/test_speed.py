"""The named approximations, against doing without them and against diffusers; kernels that must change nothing but rounding."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import PACKING, chunk, noise, relative, velocity_of  # noqa: E402
from tiny import tiny_network  # noqa: E402

from lyra_core.errors import BackendUnavailable, ConfigError  # noqa: E402
from lyra_core.generate.lyra2 import tuning  # noqa: E402
from lyra_core.generate.lyra2.components import guided_velocity  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Block  # noqa: E402
from lyra_core.generate.lyra2.offload import BlockOffload  # noqa: E402
from lyra_core.generate.lyra2.quantize import quantize_  # noqa: E402
from lyra_core.generate.lyra2.samplers import sample_unipc  # noqa: E402
from lyra_core.generate.lyra2.speed import FirstBlockCache, speed_names, weights_of  # noqa: E402
from lyra_core.generate.lyra2.tuning import can_compile, compile_blocks, exact_attention, use_attention  # noqa: E402

STEPS = 12


@torch.no_grad()
def sampled(network, *, guidance=5.0, skip=0.0, on_pass=None):
    inputs, texts, image = chunk()
    texts = texts[: 1 if guidance == 1 else 2]
    velocity = guided_velocity(network, inputs, texts, image, guidance=guidance, skip=skip, on_pass=on_pass)
    return sample_unipc(velocity, noise(), steps=STEPS)


def test_names():
    assert speed_names("exact") == set() and speed_names("fp8+cache") == {"fp8", "cache"}
    assert [weights_of(speed_names(text)) for text in ("cache", "int8", "fp8+sage")] == ["bf16", "int8", "fp8"]
    with pytest.raises(ConfigError, match="speed: got 'warp', expected 'exact' or names of"):
        speed_names("cache+warp")
    with pytest.raises(ConfigError, match="both fp8 and int8"):
        speed_names("int8+fp8")


def test_skipped_guidance_changes_the_last_steps_alone():
    network = tiny_network(packing=PACKING)
    passes = []
    exact, skipped = sampled(network), sampled(network, skip=0.7, on_pass=passes.append)
    # Timesteps of the last three of twelve steps are below 700: 624, 499, 312.
    assert passes == [0, 1] * 9 + [0] * 3
    assert 0 < relative(skipped, exact) < 0.05


def test_cache_skips_as_diffusers_does():
    """Same decisions and same numbers as diffusers' first-block cache, whose state per pass is named by a context."""
    from diffusers import FirstBlockCacheConfig
    from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

    TransformerBlockRegistry.register(Lyra2Block, TransformerBlockMetadata(return_hidden_states_index=0))
    exact = sampled(tiny_network(packing=PACKING))
    ours = tiny_network(packing=PACKING)
    cache = FirstBlockCache(ours, threshold=0.05)
    got = sampled(ours, on_pass=cache.use)
    assert 0 < cache.skipped < 2 * (STEPS - 1)
    theirs = tiny_network(packing=PACKING)
    theirs.enable_cache(FirstBlockCacheConfig(threshold=0.05))
    plain = theirs.forward

    def in_context(*given, **named):
        with theirs.cache_context(str(number[0])):
            return plain(*given, **named)

    number = [0]
    theirs.forward = in_context
    reference = sampled(theirs, on_pass=lambda n: number.__setitem__(0, n))
    torch.testing.assert_close(got, reference, atol=1e-5, rtol=0)
    assert 0 < relative(got, exact) < 0.1


def test_cache_that_never_skips_changes_nothing():
    network = tiny_network(packing=PACKING)
    plain = sampled(network, guidance=1.0)
    cache = FirstBlockCache(network, threshold=0.0)
    assert torch.equal(sampled(network, guidance=1.0), plain) and cache.skipped == 0
    cache.threshold = 10.0
    cache.reset()
    assert not torch.equal(sampled(network, guidance=1.0), plain) and cache.skipped == STEPS - 1
    cache.remove()
    assert torch.equal(sampled(network, guidance=1.0), plain)


def test_attention_kernels(monkeypatch):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    network = tiny_network(packing=PACKING)
    before = _AttentionBackendRegistry.get_active_backend()[0]
    exact = velocity_of(network)
    assert exact_attention(torch.device("cpu")) == "native"
    use_attention(network, "native")
    assert torch.equal(velocity_of(network), exact)
    # Every attention obeys: torch's flash kernel on the CPU is another order of sums.
    monkeypatch.setitem(tuning.KERNELS, "native", "_native_math")
    use_attention(network, "native")
    assert {p._attention_backend.value for p in network.attn_processors.values()} == {"_native_math"}
    torch.testing.assert_close(velocity_of(network), exact, atol=1e-5, rtol=0)
    assert _AttentionBackendRegistry.get_active_backend()[0] == before, "other models of the process keep theirs"
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="sageattention"):
        use_attention(network, "sage")
    assert not can_compile(torch.device("cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [None, "int8", "fp8"])
def test_compiled_blocks_agree(scheme):
    """One compiled block serves all: nine blocks are more than torch traces anew before it gives up."""
    from torch._dynamo.utils import counters

    if not can_compile(torch.device("cpu")):
        pytest.skip("no C compiler")
    network = tiny_network(packing=PACKING)
    network.requires_grad_(False)
    network.blocks.extend([tiny_network(packing=PACKING, seed=n).requires_grad_(False).blocks[0] for n in range(7)])
    for number, block in enumerate(network.blocks):
        block.index = number
    if scheme:
        quantize_(network, scheme)
    exact = velocity_of(network)
    torch._dynamo.reset()
    counters.clear()
    compile_blocks(network)
    BlockOffload(network.blocks, "cpu", resident=3)
    # Rounding to 8 bit of nearly equal numbers may fall to either side.
    assert relative(velocity_of(network), exact) < (1e-5 if scheme is None else 2e-2)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs <= 2, f"{graphs} graphs for {len(network.blocks)} blocks"
    velocity_of(network, timestep=300.0)
    assert counters["stats"]["unique_graphs"] == graphs
