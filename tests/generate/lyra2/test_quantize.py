"""8-bit weights: rounding, against torchao, in the network, stored and loaded."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import PACKING, relative, velocity_of  # noqa: E402
from tiny import tiny_network  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2 import quantize  # noqa: E402
from lyra_core.generate.lyra2.checkpoint import fill, without_weights  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.quantize import LinearQuantized, quantize_, quantized  # noqa: E402
from lyra_core.generate.lyra2.tensors import SafetensorsSource  # noqa: E402


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_rounding_to_8_bit(scheme, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(5, 400) * torch.tensor([[1e-3], [1.0], [50.0], [0.0], [7.0]])
    rounded, scale = quantized(x, scheme)
    error = (rounded.float() * scale - x).abs()
    # int8: half a step; e4m3: 3 bits of mantissa, so a sixteenth of the value, or half of the smallest step.
    limit = scale / 2 if scheme == "int8" else torch.maximum(x.abs() / 16, scale * 2**-10)
    assert rounded.element_size() == 1 and (error <= limit * 1.001 + 1e-12).all()
    monkeypatch.setattr(quantize, "ROWS", 2)
    parts = quantized(x.view(5, 4, 100), scheme)
    whole = quantize._rounded(x.view(5, 4, 100), scheme)
    assert all(torch.equal(a.float(), b.float()) and a.shape == b.shape for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_good_as_torchao(dtype):
    """In float32, fp8 is the same arithmetic. torchao's int8 steps are 0.4 % smaller, as it uses -128 as well."""
    pytest.importorskip("torchao")
    from torchao.float8.inference import Float8MMConfig
    from torchao.quantization import Int8WeightOnlyConfig, PerRow
    from torchao.quantization import quantize_ as torchao_quantize_
    from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor, QuantizeTensorToFloat8Kwargs

    torch.manual_seed(0)
    x = torch.randn(1, 40, 64, dtype=getattr(torch, dtype))
    plain = torch.nn.Linear(64, 96).to(x.dtype).requires_grad_(False)
    exact = plain.double()(x.double())
    plain.to(x.dtype)
    ours = {scheme: LinearQuantized(plain, scheme)(x) for scheme in ("int8", "fp8")}
    # Its settings for fp8 refuse a CPU, its tensor does not.
    weight = Float8Tensor.from_hp(plain.weight, granularity=PerRow(), mm_config=Float8MMConfig(use_fast_accum=True),
                                  act_quant_kwargs=QuantizeTensorToFloat8Kwargs(granularity=PerRow()))
    fp8 = torch.nn.functional.linear(x, weight, plain.bias)
    torchao_quantize_(plain, Int8WeightOnlyConfig())
    if dtype == "float32":
        assert relative(ours["fp8"], fp8) < 1e-6
    for scheme, theirs in (("fp8", fp8), ("int8", plain(x))):
        assert 0 < relative(ours[scheme].double(), exact) < 1.02 * relative(theirs.double(), exact), scheme


@pytest.mark.parametrize(("scheme", "limit"), [("int8", 0.01), ("fp8", 0.1)])
def test_network_stays_close(scheme, limit):
    network = tiny_network(packing=PACKING)
    exact = velocity_of(network)
    names = {name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    count = quantize_(network, scheme)
    assert count == 2 * 12, "per block: q, k, v, o twice, k and v of the picture, two of the feed-forward"
    changed = {name for name, module in network.named_modules() if isinstance(module, LinearQuantized)}
    assert changed <= names and all(".attn" in name or ".ffn" in name for name in changed)
    difference = relative(velocity_of(network), exact)
    assert 0 < difference < limit, f"{scheme}: {difference:.4f}"


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_stored_and_loaded_as_they_are(scheme, tmp_path):
    from safetensors.torch import save_file

    network = tiny_network(packing=PACKING)
    quantize_(network, scheme)
    save_file(network.state_dict(), tmp_path / "network.safetensors")
    twin = without_weights(lambda: Lyra2Network.from_config(network.config))
    quantize_(twin, scheme)
    with SafetensorsSource(tmp_path / "network.safetensors") as source:
        fill(twin, source)
    for name, value in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], value), name
    # Kernels round by memory alignment on some processors.
    torch.testing.assert_close(velocity_of(twin), velocity_of(network), rtol=0, atol=1e-5)


def test_unknown_scheme():
    with pytest.raises(ConfigError, match="weights: got 'int4', expected one of int8, fp8"):
        quantize_(tiny_network(packing=PACKING), "int4")
