"""Captions by a vision-language model, run with a tiny random one of transformers' own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from published import save_tokenizer  # noqa: E402

from lyra_core.errors import BackendUnavailable  # noqa: E402
from lyra_core.generate.lyra2 import captioner  # noqa: E402
from lyra_core.generate.lyra2.captioner import Captioner, check_captioner  # noqa: E402

TEMPLATE = ("{% for message in messages %}{% for part in message.content %}{% if part.type == 'image' %}<image>{% else %}"
            "{{ part.text }}{% endif %}{% endfor %}{% endfor %}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llava with two layers, written as transformers writes it."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    path = tmp_path_factory.mktemp("vlm")
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(path / "tokenizer"))
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(image_processor=pictures, tokenizer=tokenizer, patch_size=8,
                               vision_feature_select_strategy="default", num_additional_image_tokens=1,
                               chat_template=TEMPLATE, image_token="<image>")
    processor.save_pretrained(path)
    # Seed 0 gives a model that ends its sentence before the picture counts.
    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
                                       image_size=16, patch_size=8),
        text_config=LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=1024, eos_token_id=1,
                                bos_token_id=None, pad_token_id=0),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            # As transformers starts it, a model this small says the same of every picture.
            parameter.data = torch.randn_like(parameter) * (6 if "projector" in name else 1)
    model.save_pretrained(path)
    return path


def test_captions_depend_on_the_frame_and_on_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner, "NEW_TOKENS", 8)
    check_captioner(str(folder))
    writer = Captioner(str(folder), device=torch.device("cpu"))
    frames = [np.random.default_rng(seed).integers(0, 256, (30, 52, 3), np.uint8) for seed in range(8)]
    captions = [writer.caption(frame) for frame in frames]
    torch.manual_seed(99)
    assert [writer.caption(frame) for frame in frames] == captions
    assert all(isinstance(text, str) and text == " ".join(text.split()) for text in captions)
    assert len(set(captions)) > 1 and not any(captioner.INSTRUCTION[:20] in text for text in captions)


def test_a_model_that_is_not_here_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="hf download nobody/nothing") as caught:
        check_captioner("nobody/nothing")
    assert "neither a folder nor in the hub's cache" in caught.value.reason


def test_a_model_that_writes_no_text_about_pictures_is_refused(tmp_path: Path) -> None:
    from transformers import UMT5Config

    UMT5Config().save_pretrained(tmp_path)
    with pytest.raises(BackendUnavailable, match="of type 'umt5'"):
        check_captioner(str(tmp_path))
