"""Encoders of prompts and frames: from Wan's files and transformers' folders to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from published import save_tokenizer, tiny_image_encoder, tiny_text_encoder, wan_image_state, wan_text_state  # noqa: E402
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel  # noqa: E402

from lyra_core.errors import InputError  # noqa: E402
from lyra_core.generate.lyra2 import checkpoint, encoders  # noqa: E402
from lyra_core.generate.lyra2.encoders import (  # noqa: E402
    ImageEncoder,
    TextEncoder,
    cleaned,
    clip_pixels,
    load_image_encoder,
    load_text_encoder,
    load_tokenizer,
    padded_text,
)

CPU = torch.device("cpu")


def tokens(model: UMT5EncoderModel) -> torch.Tensor:
    ids = torch.arange(6).view(1, 6) + 3
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state


def picture_tokens(model: CLIPVisionModel, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]


def test_text_encoder_of_wan_and_of_transformers(tmp_path: Path) -> None:
    model = tiny_text_encoder()
    torch.save(wan_text_state(model), tmp_path / "encoder.pth")
    model.save_pretrained(tmp_path / "folder")
    for path in (tmp_path / "encoder.pth", tmp_path / "folder"):
        loaded = load_text_encoder(path)
        assert torch.equal(tokens(loaded), tokens(model))
        assert loaded.encoder.embed_tokens.weight is loaded.shared.weight


def test_image_encoder_of_wan_and_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(encoders.CLIP_HEAD_DIMS, 10, 5)
    model = tiny_image_encoder()
    torch.save(wan_image_state(model), tmp_path / "model.pth")
    model.save_pretrained(tmp_path / "folder")
    pixels = torch.randn(1, 3, 32, 32)
    for path in (tmp_path / "model.pth", tmp_path / "folder"):
        assert torch.equal(picture_tokens(load_image_encoder(path), pixels), picture_tokens(model, pixels))


@pytest.mark.parametrize(("load", "state", "missing"), [
    (load_text_encoder, lambda: wan_text_state(tiny_text_encoder()), "blocks.1.pos_embedding.embedding.weight"),
    (load_image_encoder, lambda: wan_image_state(tiny_image_encoder()), "visual.transformer.2.attn.to_qkv.bias"),
])
def test_missing_tensors_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load, state, missing: str) -> None:
    monkeypatch.setitem(encoders.CLIP_HEAD_DIMS, 10, 5)
    weights = state()
    del weights[missing]
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"missing: .*(relative_attention_bias|q_proj\.bias)"):
        load(tmp_path / "x.pth")


def test_full_size_encoders_have_the_published_shapes() -> None:
    text = checkpoint.without_weights(lambda: UMT5EncoderModel(UMT5Config(
        vocab_size=256384, d_model=4096, d_kv=64, num_heads=64, d_ff=10240, num_layers=24, feed_forward_proj="gated-gelu")))
    specs = checkpoint.specs_of(text)
    assert sum(torch.Size(spec.shape).numel() for spec in specs.values()) == pytest.approx(5.68e9, rel=1e-3)
    assert len(wan_text_state(text)) == len(specs) == 2 + 24 * 10
    config = encoders.text_encoder_config(Path("x"), specs)
    assert all(getattr(text.config, key) == value for key, value in config.items() if key != "feed_forward_proj")
    image = checkpoint.without_weights(lambda: CLIPVisionModel(CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14, hidden_act="gelu")))
    specs = {name.removeprefix("vision_model."): spec for name, spec in checkpoint.specs_of(image).items()}
    config = encoders.image_encoder_config(Path("x"), specs)
    assert all(getattr(image.config, key) == value for key, value in config.items())
    assert specs["embeddings.position_embedding.weight"].shape == (encoders.IMAGE_TOKENS, 1280)


@pytest.fixture(scope="module")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    folder = save_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return TextEncoder(tiny_text_encoder(), load_tokenizer(folder), device=CPU)


def test_prompts_are_zero_after_their_end(text_encoder: TextEncoder) -> None:
    prompt = "a room with a red chair"
    embedded = text_encoder(prompt)
    ids = text_encoder.tokenizer(prompt)["input_ids"]
    assert embedded.shape == (512, 12) and ids[-1] == text_encoder.tokenizer.eos_token_id
    with torch.no_grad():
        alone = text_encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    assert torch.allclose(embedded[: len(ids)], alone, atol=1e-6)
    assert alone.abs().min(dim=1).values.max() > 0 and not embedded[len(ids) :].any()


def test_long_prompts_are_cut_at_512_tokens(text_encoder: TextEncoder) -> None:
    embedded = text_encoder("a red chair and a window " * 400)
    assert embedded.shape == (512, 12) and embedded.abs().sum(1).min() > 0


def test_a_prompt_is_encoded_once(text_encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = text_encoder("a street  with trees &amp;amp; cars ")
    monkeypatch.setattr(text_encoder, "model", None)
    assert text_encoder("a street with trees & cars") is first
    assert cleaned(" a\n b&lt;c ") == "a b<c"


def test_frames_are_stretched_without_antialiasing_and_normalised() -> None:
    """OpenCV's bicubic, with the same kernel (a = -0.75) and no antialiasing, judges the stretching."""
    cv2 = pytest.importorskip("cv2")
    frame = torch.rand(3, 60, 104) * 2 - 1
    got = clip_pixels(frame[None], 32)[0]
    stretched = cv2.resize(frame.permute(1, 2, 0).numpy(), (32, 32), interpolation=cv2.INTER_CUBIC)
    expected = (stretched / 2 + 0.5 - np.array(encoders.CLIP_MEAN)) / np.array(encoders.CLIP_STD)
    assert np.abs(got.permute(1, 2, 0).numpy() - expected).max() < 1e-4


def test_the_last_block_is_not_run_and_the_frame_stays(text_encoder: TextEncoder) -> None:
    model = tiny_image_encoder()
    frame = torch.rand(3, 20, 30) * 2 - 1
    before = frame.clone()
    seen = ImageEncoder(model, device=CPU)(frame)
    assert seen.shape == (257, 10) and torch.equal(frame, before)
    for name, parameter in model.named_parameters():
        if "layers.2." in name or "post_layernorm" in name:
            parameter.data += 1
    assert torch.equal(ImageEncoder(model, device=CPU)(frame), seen)
    assert torch.allclose(seen[None], picture_tokens(model, clip_pixels(frame[None], 32)))


def test_negative_embeddings_are_padded_or_refused() -> None:
    value = torch.randn(1, 30, 12, dtype=torch.bfloat16)
    padded = padded_text(value)
    assert padded.shape == (512, 12) and torch.equal(padded[:30], value[0].float()) and not padded[30:].any()
    with pytest.raises(InputError, match="got shape"):
        padded_text(torch.randn(2, 30, 12))


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        load_tokenizer(tmp_path)
