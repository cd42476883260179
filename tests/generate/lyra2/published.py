"""Checkpoints as they are published, made from small modules with random weights: Wan's names, torch's folders, LoRAs."""

from __future__ import annotations

import io
import re
from pathlib import Path

import torch
from golden import recorded, weights_of
from torch.distributed import checkpoint
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from lyra_core.generate.lyra2.keys import to_published

NEGATIVE = "t5_text_embeddings"


def published_state(module: torch.nn.Module, *, prefix: str = "net.") -> dict[str, torch.Tensor]:
    """Return a network's state under the published names."""
    return {prefix + to_published(name): value for name, value in module.state_dict().items()}


def save_distributed(state: dict, folder: Path) -> Path:
    """Save a state as torch's distributed checkpoint, with what else stands in the published one."""
    rest = {"net.accum_iteration": torch.tensor(7), "net.blocks.0.self_attn.attn_op._extra_state": io.BytesIO(b"")}
    checkpoint.save(state | rest, checkpoint_id=folder, no_dist=True)
    return folder


def tiny_text_encoder(vocabulary: int = 300) -> UMT5EncoderModel:
    """Return umT5 with two layers and width 12."""
    torch.manual_seed(3)
    config = UMT5Config(vocab_size=vocabulary, d_model=12, d_kv=4, num_heads=3, d_ff=20, num_layers=2,
                        feed_forward_proj="gated-gelu")
    return UMT5EncoderModel(config).eval()


def tiny_image_encoder() -> CLIPVisionModel:
    """Return CLIP's picture encoder with three layers of width 10 and 257 tokens."""
    torch.manual_seed(4)
    config = CLIPVisionConfig(hidden_size=10, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=32,
                              patch_size=2, hidden_act="gelu")
    return CLIPVisionModel(config).eval()


def wan_text_state(model: UMT5EncoderModel) -> dict[str, torch.Tensor]:
    """Return umT5's state under Wan's names."""
    names = [
        (r"^shared\.", "token_embedding."), (r"^encoder\.final_layer_norm\.", "norm."),
        (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.", r"blocks.\1.pos_embedding.embedding."),
        (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"blocks.\1.attn."),
        (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"blocks.\1.norm1."),
        (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"blocks.\1.norm2."),
        (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
        (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
        (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
    ]
    return {_renamed(name, names): value for name, value in model.state_dict().items() if "embed_tokens" not in name}


def wan_image_state(model: CLIPVisionModel) -> dict[str, torch.Tensor]:
    """Return the picture encoder's state under Wan's names, beside a text half that nobody reads."""
    names = [
        (r"^embeddings\.patch_embedding\.", "patch_embedding."),
        (r"^pre_layrnorm\.", "pre_norm."), (r"^post_layernorm\.", "post_norm."),
        (r"^encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"transformer.\1.norm\2."),
        (r"^encoder\.layers\.(\d+)\.mlp\.fc1\.", r"transformer.\1.mlp.0."),
        (r"^encoder\.layers\.(\d+)\.mlp\.fc2\.", r"transformer.\1.mlp.2."),
        (r"^encoder\.layers\.(\d+)\.self_attn\.out_proj\.", r"transformer.\1.attn.proj."),
    ]
    state = {name.removeprefix("vision_model."): value for name, value in model.state_dict().items()}
    out = {"visual.cls_embedding": state.pop("embeddings.class_embedding").view(1, 1, -1),
           "visual.pos_embedding": state.pop("embeddings.position_embedding.weight")[None],
           "visual.head": torch.zeros(10, 8), "log_scale": torch.tensor(1.0), "textual.token_embedding.weight": torch.zeros(5, 4)}
    for name in [name for name in state if ".q_proj." in name]:
        parts = [state.pop(name.replace(".q_proj.", f".{x}_proj.")) for x in "qkv"]
        layer, tensor = name.split(".")[2], name.rpartition(".")[2]
        out[f"visual.transformer.{layer}.attn.to_qkv.{tensor}"] = torch.cat(parts)
    return out | {f"visual.{_renamed(name, names)}": value for name, value in state.items()}


def _renamed(name: str, names: list[tuple[str, str]]) -> str:
    for pattern, new in names:
        if re.match(pattern, name):
            return re.sub(pattern, new, name)
    raise AssertionError(name)


def wan_vae_state() -> dict[str, torch.Tensor]:
    """Return a small VAE's weights under Wan's names, as the reference implementation recorded them."""
    return weights_of(recorded("vae_streaming"))


def save_tokenizer(folder: Path) -> Path:
    """Save a unigram tokenizer of a few words as transformers does; it ends texts with </s>, as umT5's.

    Its pieces are listed, not trained: training orders them differently from run to run.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = ["a room with a red chair and a window", "a street with trees & cars", "the house of blue glass"]
    words = sorted({"\u2581" + word for text in texts for word in text.split()})
    letters = sorted({"\u2581", *"".join(texts).replace(" ", "")})
    scores = dict.fromkeys(["<pad>", "</s>", "<unk>"], 0.0) | dict.fromkeys(letters, -5.0) | dict.fromkeys(words, -2.0)
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder
