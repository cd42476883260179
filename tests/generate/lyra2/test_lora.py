"""LoRAs in every way they are stored, against the plain formula and diffusers' own key conversion."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from safetensors.torch import save_file  # noqa: E402
from tiny import tiny_network  # noqa: E402

from lyra_core.errors import ConfigError, InputError  # noqa: E402
from lyra_core.generate.lyra2.keys import to_published  # noqa: E402
from lyra_core.generate.lyra2.lora import lora_rank, merge_lora, merge_loras, parse_loras, to_flat  # noqa: E402
from lyra_core.generate.lyra2.tensors import open_tensors  # noqa: E402

TARGETS = ["blocks.0.attn1.to_q", "blocks.1.attn2.add_k_proj", "blocks.1.ffn.net.2", "blocks.0.cam_encoder",
           "blocks.1.buffer_encoder.1", "condition_embedder.time_proj", "proj_out", "condition_embedder.text_embedder.linear_1",
           "condition_embedder.image_embedder.ff.net.0.proj", "patch_embedding", "clean_patch_embeddings.3"]
"""Of each kind that the published loader knows."""
RANK = 3


def pairs(seed: int = 0, targets: list[str] = TARGETS) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return (down, up) per module, random."""
    torch.manual_seed(seed)
    network = tiny_network()
    shapes = {name: network.get_submodule(name).weight.shape for name in targets}
    return {name: (torch.randn(RANK, shape[1]), torch.randn(shape[0], RANK)) for name, shape in shapes.items()}


def stored(matrices, *, names: tuple[str, str] = ("lora_A", "lora_B"), prefix: str = "net.", alpha: float | None = None) -> dict:
    """Return the tensors of a LoRA file."""
    state = {}
    for name, (down, up) in matrices.items():
        module = f"lora_unet_{to_flat(name)}" if prefix == "lora_unet_" else prefix + to_published(name)
        state |= {f"{module}.{names[0]}.weight": down, f"{module}.{names[1]}.weight": up}
        if alpha is not None:
            state[f"{module}.alpha"] = torch.tensor(alpha)
    return state


def merged(tmp_path: Path, state: dict, weight: float = 1.0, *, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return how the weights of a network change by a LoRA."""
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "lora.safetensors")
    network = tiny_network().to(dtype)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    merge_lora(network, tmp_path / "lora.safetensors", weight)
    return {name: value - before[name] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("names", "prefix"), [
    (("lora_A", "lora_B"), "net."), (("lora_A", "lora_B"), ""), (("lora_A.default", "lora_B.default"), "diffusion_model."),
    (("lora_down", "lora_up"), "diffusion_model."), (("lora_down", "lora_up"), "lora_unet_"),
])
@pytest.mark.parametrize("alpha", [None, 6.0])
def test_every_storage_gives_alpha_over_rank_times_the_product(tmp_path: Path, names, prefix: str, alpha: float | None) -> None:
    matrices = pairs()
    changes = merged(tmp_path, stored(matrices, names=names, prefix=prefix, alpha=alpha), 0.4)
    assert set(changes) == {f"{name}.weight" for name in TARGETS}
    scale = 0.4 * (alpha or RANK) / RANK
    for name, (down, up) in matrices.items():
        assert torch.allclose(changes[f"{name}.weight"], scale * up @ down, atol=1e-5)


BLOCKS = [f"blocks.{i}.{name}" for i in (0, 1) for name in (
    "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
    "attn2.add_k_proj", "attn2.add_v_proj", "ffn.net.0.proj", "ffn.net.2")]


@pytest.mark.parametrize("prefix", ["diffusion_model.", "lora_unet_"])
def test_diffusers_conversion_agrees(tmp_path: Path, prefix: str) -> None:
    """diffusers converts the same file to its own names and scales; the products must be what we add."""
    from diffusers.loaders import lora_conversion_utils as theirs

    state = stored(pairs(2, BLOCKS), names=("lora_down", "lora_up"), prefix=prefix, alpha=1.5)
    kind = "musubi" if prefix == "lora_unet_" else "non_diffusers"
    convert = getattr(theirs, f"_convert_{kind}_wan_lora_to_diffusers")
    judged = convert({name: value.clone() for name, value in state.items()})
    changes = merged(tmp_path, state)
    assert len(changes) == len(BLOCKS)
    for name in BLOCKS:
        down, up = (judged[f"transformer.{name}.lora_{x}.weight"] for x in "AB")
        assert torch.allclose(changes[f"{name}.weight"], up @ down, atol=1e-5)


def test_biases_and_differences(tmp_path: Path) -> None:
    bias, large, small = torch.randn(24), torch.linspace(0, 1, 24), torch.linspace(0, 0.0159, 24)
    state = {"diffusion_model.blocks.0.self_attn.k.diff_b": bias, "diffusion_model.blocks.0.norm3.diff": large,
             "diffusion_model.blocks.1.norm3.diff": small}
    changes = merged(tmp_path, state, 2.0)
    assert set(changes) == {"blocks.0.attn1.to_k.bias", "blocks.0.norm2.weight"}
    assert torch.allclose(changes["blocks.0.attn1.to_k.bias"], 2 * bias, atol=1e-6)
    assert torch.allclose(changes["blocks.0.norm2.weight"], 2 * large, atol=1e-6)


def test_several_loras_are_added_once_in_float32(tmp_path: Path) -> None:
    """Two opposite LoRAs leave a bfloat16 network bit for bit; added one after the other they would not."""
    matrices = pairs(5)
    for name, sign in (("a", 1), ("b", -1)):
        save_file(stored({key: (down, sign * up) for key, (down, up) in matrices.items()}), tmp_path / f"{name}.safetensors")
    network = tiny_network().to(torch.bfloat16)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count = merge_loras(network, [(tmp_path / "a.safetensors", 0.7), (tmp_path / "b.safetensors", 0.7)])
    assert count == len(TARGETS)
    after = network.state_dict()
    assert all((after[name].float() - value.float()).abs().max() <= 1e-6 for name, value in before.items())
    merge_lora(network, tmp_path / "a.safetensors", 0.7)
    merge_lora(network, tmp_path / "b.safetensors", 0.7)
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_bfloat16_weights_are_rounded_once(tmp_path: Path) -> None:
    matrices = pairs(6)
    save_file(stored(matrices), tmp_path / "a.safetensors")
    network = tiny_network().to(torch.bfloat16)
    before = network.blocks[0].attn1.to_q.weight.float()
    merge_lora(network, tmp_path / "a.safetensors")
    down, up = matrices["blocks.0.attn1.to_q"]
    assert torch.equal(network.blocks[0].attn1.to_q.weight, (before + up @ down).to(torch.bfloat16))


def test_unknown_names_and_halves_are_listed_and_nothing_is_changed(tmp_path: Path) -> None:
    state = stored(pairs())
    state |= {"net.blocks.7.self_attn.q.lora_A.weight": torch.zeros(3, 24), "net.odd": torch.zeros(1)}
    save_file(state, tmp_path / "x.safetensors")
    network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"2 of 24 tensors.*net\.blocks\.7\.self_attn\.q\.lora_A\.weight, net\.odd"):
        merge_lora(network, tmp_path / "x.safetensors")
    state = stored(pairs())
    del state["net.blocks.0.self_attn.q.lora_B.weight"]
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"one half of a pair for blocks\.0\.attn1\.to_q"):
        merge_lora(network, tmp_path / "x.safetensors")
    state = stored(pairs()) | {"net.head.head.lora_A.weight": torch.zeros(2, 24)}
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"proj_out: got \[64, 3\] times \[2, 24\], expected \[64, 24\]"):
        merge_lora(network, tmp_path / "x.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_rank_is_the_files(tmp_path: Path) -> None:
    save_file(stored(pairs()), tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors") as source:
        assert lora_rank(source) == RANK


def test_lists_of_loras_are_parsed() -> None:
    assert parse_loras("realism_boost=0.4, detail_enhancer") == {"realism_boost": 0.4, "detail_enhancer": 1.0}
    assert parse_loras("") == {}
    for text in ("a=x", "a=1,a=2", "=1", "a=nan"):
        with pytest.raises(ConfigError, match="loras"):
            parse_loras(text)
