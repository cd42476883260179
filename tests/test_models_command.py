"""lyra-worlds models: a published folder in, safetensors out, every fault printed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent / "generate/lyra2"))

from published import (  # noqa: E402
    published_state,
    save_distributed,
    save_tokenizer,
    tiny_image_encoder,
    tiny_text_encoder,
    wan_image_state,
    wan_text_state,
    wan_vae_state,
)
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny import tiny_network  # noqa: E402

from lyra_core import cli  # noqa: E402
from lyra_core.config import Lyra2Cfg  # noqa: E402
from lyra_core.errors import Cancelled  # noqa: E402
from lyra_core.generate.lyra2 import convert, encoders, weights  # noqa: E402
from lyra_core.generate.lyra2.loading import load_parts, weights_id  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch  # noqa: E402
from lyra_core.jobs.progress import ProgressNull  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def small_heads():
    """Tell the head size of the tiny picture encoder, which no shape tells."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(encoders.CLIP_HEAD_DIMS, 10, 5)
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoints/ folder as it is published, with tiny parts of type bfloat16."""
    root = tmp_path_factory.mktemp("published") / "checkpoints"
    for name in ("vae", "text_encoder", "image_encoder", "lora", "recon"):
        (root / name).mkdir(parents=True)
    save_distributed(published_state(tiny_network().to(torch.bfloat16)), root / "model/model")
    torch.save(wan_vae_state(), root / "vae/vae.pth")
    torch.save({name: value.to(torch.bfloat16) for name, value in wan_text_state(tiny_text_encoder()).items()},
               root / "text_encoder/encoder.pth")
    torch.save({"t5_text_embeddings": torch.ones(1, 512, 12, dtype=torch.bfloat16)}, root / "text_encoder/negative_prompt.pt")
    torch.save(wan_image_state(tiny_image_encoder()), root / "image_encoder/model.pth")
    save_file({"net.head.head.lora_A.weight": torch.ones(2, 24), "net.head.head.lora_B.weight": torch.ones(64, 2)},
              root / "lora/dmd_distillation.safetensors")
    (root / "recon/model.pt").write_bytes(b"not read")
    return root


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("umt5"))


def convert_quietly(source: Path, folder: Path, *more: str) -> int:
    """Run the command; return its exit status."""
    return cli.main(["models", "convert", str(source), "-o", str(folder), "--head-dim", "12", "--quiet", *more])


@pytest.fixture(scope="module")
def converted(published: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "models"
    assert convert_quietly(published, folder, "--tokenizer", str(tokenizer)) == 0
    return folder


@pytest.fixture
def copy(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copy"))


def test_a_published_folder_becomes_a_models_folder(converted: Path) -> None:
    assert sorted(path.name for path in converted.iterdir()) == [
        "image_encoder", "lora", "models.json", "negative_prompt.safetensors", "network", "text_encoder", "tokenizer", "vae"]
    listed = json.loads((converted / "models.json").read_text())
    assert listed["source"] == "checkpoints" and "research only" in listed["licence"] and listed["distilled"] == "dmd_distillation"
    assert (listed["codec"], listed["channels"], listed["text_dim"], listed["image_dim"]) == ("wan", 16, 12, 10)
    with safe_open(converted / "network/diffusion_pytorch_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}
    parts = load_parts(Lyra2Cfg(weights=str(converted), device="cpu", distilled=True))
    expected = tiny_network().to(torch.bfloat16).float().state_dict()
    got = parts.network.state_dict()
    assert all(torch.equal(got[name], expected[name] + 2 * (name == "proj_out.weight")) for name in expected)
    assert parts.negative_text(None).sum() == 512 * 12 and parts.encode_text("a chair").shape == (512, 12)


def test_verify_finds_nothing_in_what_convert_wrote(converted: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["models", "verify", str(converted), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_verify_knows_models_without_vae_and_encoders(tmp_path: Path) -> None:
    folder = weights.save_models_folder(tmp_path / "own", network=tiny_network(), codec=CodecPatch(channels=16))
    assert convert.verify(folder, steps=ProgressNull()) == []


def test_the_folder_around_checkpoints_will_do(published: Path) -> None:
    assert convert.find_parts(published.parent) == convert.find_parts(published)
    assert set(convert.find_parts(published)) == {"network", "vae", "text_encoder", "image_encoder", "negative_prompt", "lora"}


def test_verify_prints_every_fault(copy: Path, capsys: pytest.CaptureFixture) -> None:
    network = load_file(copy / "network/diffusion_pytorch_model.safetensors")
    network["blocks.0.attn1.to_q.bias"][3] = float("nan")
    network["proj_out.bias"] = network["proj_out.bias"][:4].clone()
    network["blocks.1.attn1.to_q.bias"] = network["blocks.1.attn1.to_q.bias"].to(torch.int8)
    del network["blocks.1.cam_encoder.weight"]
    network["more"] = torch.zeros(1)
    save_file(network, copy / "network/diffusion_pytorch_model.safetensors")
    (copy / "vae/config.json").unlink()
    assert cli.main(["models", "verify", str(copy), "--quiet"]) == 1
    lines = capsys.readouterr().out.splitlines()
    for text in ("network/diffusion_pytorch_model.safetensors: its SHA-256", "missing: 1 x blocks.*.cam_encoder.weight",
                 "unexpected: 1 x more [1]", "wrong shape: 1 x proj_out.bias got [4], expected [64]",
                 "blocks.1.attn1.to_q.bias: got torch.int8", "blocks.0.attn1.to_q.bias: 1 of 24 values are not finite",
                 "vae/config.json: missing"):
        assert sum(text in line for line in lines) == 1, text
    assert len(lines) == 7


def test_a_wrong_checkpoint_writes_nothing(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = Path(shutil.copytree(published, tmp_path / "checkpoints"))
    state = wan_vae_state()
    del state["conv1.weight"], state["decoder.head.0.gamma"]
    torch.save(state, source / "vae/vae.pth")
    assert convert_quietly(source, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "vae.pth" in said and "quant_conv.weight" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_stopped_conversion_goes_on_after_its_last_whole_file(published: Path, tmp_path: Path) -> None:
    class Stops(ProgressNull):
        """Stop in the middle of the network."""

        count = 0

        def update(self, n: int = 1, message: str = "") -> None:
            self.count += 1
            if self.count == 60:
                raise Cancelled("stop")

    source, folder, options = published / "model/model", tmp_path / "out", {"head_dim": 12, "limit": 100_000}
    with pytest.raises(Cancelled):
        convert.convert(source, folder, steps=Stops(), **options)
    assert [path.name for path in folder.iterdir()] == [".partial-network"]
    shards = {path: path.stat().st_mtime_ns for path in (folder / ".partial-network").glob("*.safetensors")}
    assert len(shards) == 2 and not any(path.name.startswith(".tmp") for path in shards)
    convert.convert(source, folder, steps=ProgressNull(), **options)
    assert sorted(path.name for path in folder.iterdir()) == ["models.json", "network"]
    assert all((folder / "network" / path.name).stat().st_mtime_ns == time for path, time in shards.items())
    whole = convert.convert(source, tmp_path / "whole", steps=ProgressNull(), **options)
    assert whole.parts == weights.open_models(folder).parts
    assert convert.verify(folder, steps=ProgressNull()) == ["vae: missing, and models.json names no fixed codec"]


def test_parts_are_added_one_by_one(published: Path, converted: Path, tokenizer: Path, tmp_path: Path) -> None:
    places = ["model/model", "vae/vae.pth", "text_encoder/encoder.pth", "text_encoder/negative_prompt.pt",
              "image_encoder/model.pth", "lora/dmd_distillation.safetensors"]
    for place in [*(published / place for place in places), tokenizer]:
        assert convert_quietly(place, tmp_path / "out") == 0
    assert weights.open_models(tmp_path / "out").parts == weights.open_models(converted).parts
    assert weights_id(Lyra2Cfg(weights=str(tmp_path / "out"), device="cpu", distilled=True))


def test_wan_itself_is_not_taken_for_lyra(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = {name: value for name, value in published_state(tiny_network()).items()
             if not any(part in name for part in ("clean_patch", "cam_encoder", "buffer_encoder"))}
    torch.save(state, tmp_path / "wan.pth")
    assert convert_quietly(tmp_path / "wan.pth", tmp_path / "out") == 2
    assert "Wan 2.1's own network" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_list_shows_parts_sizes_and_licence(converted: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(converted.parent))
    assert cli.main(["models", "list"]) == 0
    said = capsys.readouterr().out
    assert str(converted) in said and "dmd_distillation" in said and "research only" in said and "text_encoder" in said
    monkeypatch.setenv("LYRA_WORLDS_MODELS", str(tmp_path))
    assert cli.main(["models", "list"]) == 0
    assert "hf download nvidia/Lyra-2.0" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "text"), [
    (["convert"], "got no path"), (["convert", "nowhere"], "nowhere: not found"),
    (["verify", "nowhere"], "hf download nvidia/Lyra-2.0"),
])
def test_wrong_calls_say_what_is_wrong(arguments: list[str], text: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["models", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_too_little_space_is_said_before_writing(published: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))  # pyright: ignore
    assert cli.main(["models", "convert", str(published), "-o", str(tmp_path / "out"), "--head-dim", "12"]) == 2
    assert "free space" in capsys.readouterr().err and not (tmp_path / "out").exists()
