"""Published checkpoints: read without running code, and matched tensor by tensor."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from published import published_state, save_distributed, wan_vae_state  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny import tiny_network, tiny_vae  # noqa: E402

from lyra_core.errors import InputError  # noqa: E402
from lyra_core.generate.lyra2 import checkpoint  # noqa: E402
from lyra_core.generate.lyra2.checkpoint import load_network, load_vae, load_wan_base  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.tensors import open_tensors, shards  # noqa: E402
from lyra_core.generate.lyra2.weights import config_of, write_part  # noqa: E402


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def save_state(state: dict, path: Path) -> Path:
    """Save a state in the format of the path's ending; a path without is a distributed checkpoint."""
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    elif path.suffix:
        torch.save(state, path)
    else:
        save_distributed(state, path)
    return path


@pytest.mark.parametrize("name", ["model", "model.pth", "model.safetensors"])
@pytest.mark.parametrize("prefix", ["net.", ""])
def test_every_format_gives_the_same_network(tmp_path: Path, name: str, prefix: str) -> None:
    network = tiny_network()
    path = save_state(published_state(network, prefix=prefix), tmp_path / name)
    assert_same(load_network(path, head_dim=12), network)


def test_bfloat16_is_kept_bit_for_bit(tmp_path: Path) -> None:
    network = tiny_network().to(torch.bfloat16)
    loaded = load_network(save_state(published_state(network), tmp_path / "model"), head_dim=12)
    assert_same(loaded, network)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.bfloat16}


def test_adapters_base_layers_are_the_layers(tmp_path: Path) -> None:
    network = tiny_network()
    state = {name.replace("self_attn.q.", "self_attn.q.base_layer."): value for name, value in published_state(network).items()}
    assert any("base_layer" in name for name in state)
    assert_same(load_network(save_state(state, tmp_path / "model.pth"), head_dim=12), network)


def test_every_fault_is_listed_and_nothing_else(tmp_path: Path) -> None:
    state = published_state(tiny_network())
    for i in (0, 1):
        del state[f"net.blocks.{i}.cam_encoder.weight"]
    state["net.blocks.0.extra.weight"] = torch.zeros(2)
    state["net.head.head.bias"] = torch.zeros(5)
    with pytest.raises(InputError) as caught:
        load_network(save_state(state, tmp_path / "model.pth"), head_dim=12)
    text = str(caught.value)
    assert "missing: 2 x blocks.*.cam_encoder.weight [24, 1536] (blocks.0.cam_encoder.weight, blocks.1.cam_encoder.weight)" in text
    assert "unexpected: 1 x blocks.*.extra.weight [2]" in text
    assert "wrong shape: 1 x proj_out.bias got [5], expected [64]" in text
    assert len(re.findall("missing:|unexpected:|wrong shape:", text)) == 3


def test_head_size_of_unknown_widths_is_asked_for(tmp_path: Path) -> None:
    path = save_state(published_state(tiny_network()), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"head size None.*--head-dim"):
        load_network(path)


class Planted:
    """Leaves a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_an_index_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    folder = save_state(published_state(tiny_network()), tmp_path / "model")
    (folder / ".metadata").write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(InputError, match=r"refused: it names (posix|nt)\.mkdir.*do not trust"):
        open_tensors(folder)
    assert not (tmp_path / "ran").exists()


def test_a_pth_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "more": Planted(tmp_path / "ran")}, tmp_path / "model.pth")
    with pytest.raises(InputError, match="refused, expected a file of tensors"):
        open_tensors(tmp_path / "model.pth")
    assert not (tmp_path / "ran").exists()


def test_a_tensor_chunk_that_runs_code_is_refused_unrun(tmp_path: Path) -> None:
    folder = save_state({"net.a": torch.zeros(3000)}, tmp_path / "model")
    with open_tensors(folder) as source:
        chunk = source._chunks["net.a"][0]  # pyright: ignore
        file = folder / chunk["file"]
        data = bytearray(file.read_bytes())
        planted = pickle.dumps(Planted(tmp_path / "ran"))
        data[chunk["start"] : chunk["start"] + len(planted)] = planted
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"net\.a: not readable as a tensor"):
            source.read("net.a")
    assert not (tmp_path / "ran").exists()


def test_tensors_split_over_ranks_are_put_together(tmp_path: Path) -> None:
    """The index is built from torch's own classes, as several ranks write it."""
    from torch.distributed.checkpoint import filesystem, metadata

    value = torch.randn(5, 4)
    pieces = {"__0_0.distcp": (0, value[:3]), "__1_0.distcp": (3, value[3:])}
    chunks, places = [], {}
    for file, (start, piece) in pieces.items():
        torch.save(piece.clone(), tmp_path / file)
        offsets = torch.Size([start, 0])
        chunks.append(metadata.ChunkStorageMetadata(offsets, piece.size()))
        places[metadata.MetadataIndex("net.a", offsets)] = filesystem._StorageInfo(file, 0, (tmp_path / file).stat().st_size)
    entry = metadata.TensorStorageMetadata(metadata.TensorProperties(dtype=torch.float32), value.size(), chunks)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata.Metadata({"net.a": entry}, None, places)))
    with open_tensors(tmp_path) as source:
        assert torch.equal(source.read("net.a"), value)


@pytest.mark.parametrize("name", ["model", "model.pth", "model.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    path = save_state(published_state(tiny_network()), tmp_path / name)
    victim = path / ".metadata" if path.is_dir() else path
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(InputError, match=re.escape(str(victim))):
        open_tensors(path)


def test_a_folder_that_was_not_fetched_whole_is_named(tmp_path: Path) -> None:
    folder = save_state(published_state(tiny_network()), tmp_path / "model")
    next(folder.glob("*.distcp")).unlink()
    with pytest.raises(InputError, match=r"the index names .*\.distcp, which the folder lacks"):
        open_tensors(folder)


def test_sharded_folders_are_read_by_us_and_by_diffusers(tmp_path: Path) -> None:
    network = tiny_network()
    source = checkpoint.StateSource(network)
    write_part(tmp_path, "network", source, config_of(network), origin="test", licence="none", limit=300_000)
    files = sorted((tmp_path / "network").glob("*.safetensors"))
    assert len(files) > 3 and all(sum(v.nbytes for v in load_file(f).values()) <= 300_000 or len(load_file(f)) == 1 for f in files)
    assert_same(load_network(tmp_path / "network"), network)
    assert_same(Lyra2Network.from_pretrained(tmp_path / "network"), network)
    files[1].unlink()
    with pytest.raises(InputError, match=f"the index names {files[1].name}, which the folder lacks"):
        open_tensors(tmp_path / "network")


def test_shards_are_full_but_not_over() -> None:
    specs = checkpoint.specs_of(tiny_network())
    groups = shards(specs, 200_000)
    sizes = [sum(specs[name].nbytes for name in group) for group in groups]
    assert [name for group in groups for name in group] == list(specs)
    assert all(size <= 200_000 or len(group) == 1 for size, group in zip(sizes, groups, strict=True))


def wan_model(packing: str = "g2"):
    """Return diffusers' own Wan 2.1 image-to-video network, with random weights everywhere."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(1)
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16, text_dim=12,
        freq_dim=32, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", image_dim=10,
        added_kv_proj_dim=24,
    ).eval()
    return model


@pytest.mark.parametrize("naming", ["diffusers", "wan"])
def test_training_starts_from_wan_as_it_was_published(tmp_path: Path, naming: str) -> None:
    """diffusers' Wan network judges: with the packing g2 and without conditions ours gives its output."""
    model = wan_model()
    state = model.state_dict()
    if naming == "wan":
        state = {checkpoint_name(name): value for name, value in state.items()}
        assert "blocks.0.self_attn.q.weight" in state and state["patch_embedding.weight"].ndim == 5
    path = save_state(state, tmp_path / "wan.safetensors")
    network = load_wan_base(path, head_dim=12, packing="g2")
    latents, text, image = torch.randn(1, 36, 2, 4, 6), torch.randn(1, 512, 12), torch.randn(1, 257, 10)
    time = torch.tensor([500.0])
    with torch.no_grad():
        expected = model(latents, time, text, image, return_dict=False)[0]
        got = network(latents[:, :16], latents[:, 16:], time, text, image)
    assert torch.allclose(got, expected, atol=3e-5)
    assert expected.std() > 0.01


def checkpoint_name(name: str) -> str:
    from lyra_core.generate.lyra2.keys import to_published

    return to_published(name)


def test_history_embeddings_start_as_averages(tmp_path: Path) -> None:
    """A larger patch of equal small patches embeds as the small one does: that is what tiling and dividing is for."""
    model = wan_model()
    network = load_wan_base(save_state(model.state_dict(), tmp_path / "wan.pth"), head_dim=12)
    patch = torch.randn(36, 1, 2, 2)
    small = network.patch_embedding(patch.flatten())
    for layer, segment in zip(network.clean_patch_embeddings, network.packing.history, strict=True):
        assert torch.allclose(layer(patch.repeat(1, *segment.kernel).flatten()), small, atol=1e-5)
    random = torch.randn(36, 4, 8, 8)
    blocks = random.unfold(2, 2, 2).unfold(3, 2, 2).flatten(1, 3)
    mean = torch.stack([network.patch_embedding(b.flatten()) for b in blocks.unbind(1)]).mean(0)
    assert torch.allclose(network.clean_patch_embeddings[3](random.flatten()), mean, atol=1e-5)


def test_new_encoders_start_small_and_repeatable(tmp_path: Path) -> None:
    path = save_state(wan_model().state_dict(), tmp_path / "wan.pth")
    networks = [load_wan_base(path, head_dim=12, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert_same(*networks)
    std = 24**-0.5
    for block in networks[0].blocks:
        weight, rays = block.buffer_encoder[0].weight.detach(), block.cam_encoder.weight.detach()
        assert float(weight.abs().max()) <= 3 * std
        assert float(weight.std()) == pytest.approx(std, rel=0.05) and float(rays.std()) == pytest.approx(std, rel=0.05)
    assert all(parameter.requires_grad for parameter in networks[0].parameters())


def test_wan_weights_fill_a_network_that_is_being_trained(tmp_path: Path) -> None:
    path = save_state(wan_model().state_dict(), tmp_path / "wan.pth")
    network = tiny_network().to(torch.bfloat16)
    parameter = network.blocks[1].attn1.to_q.weight
    with open_tensors(path) as source:
        checkpoint.initialise_from_wan(network, source)
    assert network.blocks[1].attn1.to_q.weight is parameter and parameter.dtype == torch.bfloat16
    assert torch.equal(parameter, wan_model().blocks[1].attn1.to_q.weight.to(torch.bfloat16))


def test_vae_of_wan_and_of_diffusers(tmp_path: Path) -> None:
    state = wan_vae_state()
    vae = load_vae(save_state(state, tmp_path / "vae.pth"))
    assert len(state) == len(vae.state_dict()) == 194
    assert {tuple(v.shape) for v in state.values()} == {tuple(v.shape) for v in vae.state_dict().values()}
    tiny = tiny_vae()
    tiny.save_pretrained(tmp_path / "folder")
    assert_same(load_vae(tmp_path / "folder"), tiny)
    del state["decoder.upsamples.7.time_conv.bias"]
    with pytest.raises(InputError, match=re.escape("missing: 1 x decoder.up_blocks.*.upsamplers.*.time_conv.bias")):
        load_vae(save_state(state, tmp_path / "vae.pth"))


def test_full_size_network_has_the_published_shapes() -> None:
    network = checkpoint.empty_network({})
    specs = checkpoint.specs_of(network)
    published = {name: tuple(value.shape) for name, value in published_state(network, prefix="").items()}
    assert sum(torch.Size(shape).numel() for shape in published.values()) == pytest.approx(17.03e9, rel=1e-3)
    assert published["patch_embedding.weight"] == (5120, 144)
    assert [published[f"clean_patch_embeddings.{i}.weight"][1] for i in range(6)] == [144, 576, 144, 9216, 1152, 144]
    assert published["blocks.39.cam_encoder.weight"] == (5120, 1536)
    assert published["blocks.39.buffer_encoder.0.weight"] == (256, 20480)
    assert published["blocks.39.buffer_encoder.1.weight"] == (5120, 256)
    assert published["blocks.0.modulation"] == (1, 6, 5120) and published["head.modulation"] == (1, 2, 5120)
    assert published["img_emb.proj.1.weight"] == (1280, 1280) and published["blocks.0.cross_attn.k_img.weight"] == (5120, 5120)
    config = checkpoint.network_config(Path("x"), specs)
    assert config == {key: value for key, value in network.config.items() if key in config}
    assert checkpoint.specs_of(checkpoint.empty_network(config)) == specs


def test_full_size_vae_has_the_published_shapes() -> None:
    from diffusers import AutoencoderKLWan

    vae = checkpoint.empty_vae(Path("x"), checkpoint.specs_of(checkpoint.without_weights(AutoencoderKLWan)))
    specs = checkpoint.specs_of(vae)
    assert len(specs) == 194 and specs["decoder.conv_in.weight"].shape == (384, 16, 3, 3, 3)
    assert list(vae.config.dim_mult) == [1, 2, 4, 4] and list(vae.config.temperal_downsample) == [False, True, True]
