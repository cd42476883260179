"""From a models folder to the generator's parts; what is missing is said before anything is loaded."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from published import save_tokenizer, tiny_image_encoder, tiny_text_encoder  # noqa: E402
from tiny import TEXT_DIM, patch_codec, tiny_network, tiny_vae  # noqa: E402

from lyra_core.config import Lyra2Cfg  # noqa: E402
from lyra_core.errors import BackendUnavailable, ConfigError, InputError, LyraError  # noqa: E402
from lyra_core.generate.lyra2 import weights  # noqa: E402
from lyra_core.generate.lyra2.loading import check_parts, load_parts, weights_id  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402
from lyra_core.generate.lyra2.weights import default_folder, save_models_folder  # noqa: E402

NEGATIVE = torch.randn(40, TEXT_DIM, generator=torch.Generator().manual_seed(1))


def lora(value: float) -> dict[str, torch.Tensor]:
    """Return a LoRA that adds ``value`` to every weight of one query projection."""
    return {"net.blocks.0.self_attn.q.lora_A.weight": torch.ones(1, 24),
            "net.blocks.0.self_attn.q.lora_B.weight": torch.full((24, 1), value)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    return save_models_folder(
        tmp_path_factory.mktemp("models") / "whole", network=tiny_network(), codec=tiny_vae(), text_encoder=tiny_text_encoder(),
        image_encoder=tiny_image_encoder(), tokenizer=tokenizer, negative_prompt=NEGATIVE,
        loras={"dmd_distillation": lora(1.0), "realism_boost": lora(10.0)}, distilled="dmd_distillation",
    )


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def cfg(path: Path, **values) -> Lyra2Cfg:
    return Lyra2Cfg(weights=str(path), device="cpu", **values)


def test_parts_come_back_as_they_were_saved(folder: Path) -> None:
    parts = load_parts(cfg(folder))
    network = tiny_network().state_dict()
    assert all(torch.equal(value, network[name]) for name, value in parts.network.state_dict().items())
    assert isinstance(parts.codec, CodecWan)
    video = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    assert torch.equal(parts.codec.encode(video)[0], CodecWan(tiny_vae()).encode(video)[0])
    assert parts.encode_text("a red chair").shape == (512, TEXT_DIM) and parts.encode_image(video[0, :, 0]).shape == (257, 10)
    assert torch.equal(parts.negative_text(None)[:40], NEGATIVE) and not parts.negative_text(None)[40:].any()
    assert torch.equal(parts.negative_text("a red chair"), parts.encode_text("a red chair"))
    assert parts.device == torch.device("cpu") and not any(p.requires_grad for p in parts.network.parameters())


def test_loras_are_merged_by_name_and_weight(folder: Path) -> None:
    plain = tiny_network().blocks[0].attn1.to_q.weight
    for values, added in (({"distilled": True}, 1.0), ({"loras": "realism_boost=0.4"}, 4.0),
                          ({"distilled": True, "loras": "realism_boost=-1"}, -9.0)):
        weight = load_parts(cfg(folder, **values)).network.blocks[0].attn1.to_q.weight
        assert torch.allclose(weight - plain, torch.full_like(plain, added), atol=1e-5)


def test_a_small_model_without_vae_and_encoders_is_written_fast_and_loads(tmp_path: Path, caplog) -> None:
    network = tiny_network()
    start = time.perf_counter()
    path = save_models_folder(tmp_path / "own", network=network, codec=patch_codec())
    assert time.perf_counter() - start < 1
    parts = load_parts(cfg(path))
    assert parts.codec == CodecPatch(channels=16)
    assert not parts.encode_text("x").any() and parts.negative_text(None).shape == (512, TEXT_DIM)
    assert parts.encode_image(torch.zeros(3, 16, 16)).shape == (257, 10)
    assert [record.message for record in caplog.records] == [
        f"{path} has no text encoder: prompts are not seen",
        f"{path} has no image encoder: the newest frame is seen by its latents alone"]


def test_a_model_trained_with_one_retrieved_frame_loads(tmp_path: Path) -> None:
    network = tiny_network(packing="f1k1f1s1f2k2_g2")
    for block in network.blocks:
        block.buffer_encoder[0] = torch.nn.Linear(1280 // 5 * 4 * 4, 4, bias=False)
    path = save_models_folder(tmp_path / "own", network=network, codec=patch_codec())
    loaded = load_parts(cfg(path)).network
    assert loaded.packing == network.packing
    assert torch.equal(loaded.blocks[1].buffer_encoder[0].weight, network.blocks[1].buffer_encoder[0].weight)


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    path = save_models_folder(tmp_path / "own", network=tiny_network(), codec=tiny_vae(), negative_prompt=NEGATIVE,
                              loras={"a": lora(1)})
    first = weights_id(cfg(path))
    save_models_folder(path, network=tiny_network(seed=1), codec=patch_codec())
    assert sorted(file.name for file in path.iterdir()) == ["models.json", "network"]
    assert weights_id(cfg(path)) != first
    assert torch.equal(load_parts(cfg(path)).network.proj_out.weight, tiny_network(seed=1).proj_out.weight)


def test_the_identity_is_of_the_values_not_of_the_place(folder: Path, copy: Path) -> None:
    assert weights_id(cfg(folder)) == weights_id(cfg(copy))
    shutil.copy(copy / "lora/realism_boost.safetensors", copy / "lora/own.safetensors")
    assert weights_id(cfg(copy)) == weights_id(cfg(folder)), "what is beside the weights in use does not count"
    assert weights_id(cfg(copy, loras="realism_boost")) == weights_id(cfg(folder, loras="realism_boost")) != weights_id(cfg(copy))
    assert weights_id(cfg(copy, loras="own")) != weights_id(cfg(copy))
    values = json.loads((copy / "models.json").read_text())
    values["licence"] = "another"
    (copy / "models.json").write_text(json.dumps(values))
    assert weights_id(cfg(copy)) == weights_id(cfg(folder))
    values["parts"]["network"]["network/config.json"] = "0" * 64
    (copy / "models.json").write_text(json.dumps(values))
    assert weights_id(cfg(copy)) != weights_id(cfg(folder))


def test_missing_weights_name_the_commands_and_the_licence_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(tmp_path))
    with pytest.raises(BackendUnavailable) as caught:
        check_parts(Lyra2Cfg(device="cpu"))
    text = str(caught.value)
    assert str(tmp_path / "lyra2") in text and "\n" not in text
    for part in ("hf download nvidia/Lyra-2.0", "lyra-worlds models convert", "research only"):
        assert text.count(part) == 1
    assert not any(tmp_path.iterdir())


def test_folders_are_found_where_models_are_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(folder))
    assert default_folder() == folder
    check_parts(Lyra2Cfg(device="cpu"))
    monkeypatch.delenv("LYRA_WORLDS_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert default_folder() == tmp_path / "lyra-worlds/lyra2"


@pytest.mark.parametrize(("values", "error", "text"), [
    ({"loras": "nothing"}, InputError, "LoRA 'nothing'.*dmd_distillation, realism_boost"),
    ({"loras": "realism_boost=much"}, ConfigError, "got weight 'much'"),
    ({"distilled": True, "loras": "dmd_distillation"}, ConfigError, "adds by itself"),
    ({"captioner": "nobody/nothing"}, BackendUnavailable, "captioner"),
    ({"loras": "../network/diffusion_pytorch_model"}, InputError, "no such file"),
])
def test_settings_that_cannot_be_used_are_named(folder: Path, values: dict, error: type[LyraError], text: str) -> None:
    with pytest.raises(error, match=text):
        check_parts(cfg(folder, **values))


def test_devices_that_are_not_here_are_named(folder: Path) -> None:
    for device in ("cuda:99", "abacus", "meta"):
        with pytest.raises(ConfigError, match=f"device: got '{device}'"):
            check_parts(Lyra2Cfg(weights=str(folder), device=device))


@pytest.mark.parametrize(("damage", "error", "text"), [
    (lambda p: (p / "network/diffusion_pytorch_model.safetensors").unlink(), InputError, "diffusion_pytorch_model.safetensors"),
    (lambda p: (p / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"nothing"), InputError, "not readable as safetensors"),
    (lambda p: (p / "lora/dmd_distillation.safetensors").unlink(), InputError, "dmd_distillation"),
    (lambda p: (p / "models.json").write_text('{"schema": 99}'), InputError, "got schema 99, expected 1"),
    (lambda p: (p / "models.json").write_text("{"), LyraError, "not readable as JSON"),
])
def test_damage_is_named_before_anything_is_loaded(copy: Path, damage, error: type[LyraError], text: str) -> None:
    damage(copy)
    with pytest.raises(error, match=text):
        check_parts(cfg(copy, distilled=True))


def edited(path: Path, change) -> None:
    values = json.loads((path / "models.json").read_text())
    change(values)
    (path / "models.json").write_text(json.dumps(values))


@pytest.mark.parametrize("part", ["network", "vae", "tokenizer"])
def test_needed_parts_name_what_brings_them(copy: Path, part: str) -> None:
    edited(copy, lambda values: values["parts"].pop(part))
    with pytest.raises(BackendUnavailable, match="hf download"):
        check_parts(cfg(copy))


def test_four_steps_need_their_lora(copy: Path) -> None:
    edited(copy, lambda values: values.update(distilled=None))
    check_parts(cfg(copy))
    with pytest.raises(BackendUnavailable, match="no LoRA for four steps"):
        check_parts(cfg(copy, distilled=True))


def test_an_interrupted_part_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that died leaves shards of the same names; the next save, of other weights, must not keep them."""
    monkeypatch.setattr(weights, "SHARD_BYTES", 10**12)
    path = tmp_path / "own"
    save_models_folder(path, network=tiny_network(), codec=patch_codec())
    (path / "network").rename(path / ".partial-network")
    save_models_folder(path, network=tiny_network(seed=2), codec=patch_codec())
    assert torch.equal(load_parts(cfg(path)).network.proj_out.weight, tiny_network(seed=2).proj_out.weight)
