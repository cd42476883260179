"""The encoders of prompts (umT5) and of the newest frame (CLIP ViT-H), on transformers' models.

Both rest on the CPU and visit the device for a call. Numbers agree with Wan 2.1's own modules.
"""

from __future__ import annotations

import html
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.checkpoint import fill, without_weights
from lyra_core.generate.lyra2.tensors import Spec, TensorSource, View, ViewSource, open_tensors
from lyra_core.io.files import read_json

TEXT_LENGTH = 512
"""Tokens of a prompt, zeros after its end."""
IMAGE_TOKENS = 257
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP_HEAD_DIMS = {1280: 80}
"""Width of the picture encoder -> channels per attention head; of the published ViT-H/14."""
_TEXT_BLOCK = {
    "norm1": "layer.0.layer_norm", "norm2": "layer.1.layer_norm",
    **{f"attn.{x}": f"layer.0.SelfAttention.{x}" for x in "qkvo"},
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0", "ffn.fc1": "layer.1.DenseReluDense.wi_1", "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_IMAGE_BLOCK = {
    "norm1": "layer_norm1", "norm2": "layer_norm2", "attn.proj": "self_attn.out_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2",
}
_IMAGE_TOP = {
    "patch_embedding": "embeddings.patch_embedding", "pre_norm": "pre_layrnorm", "post_norm": "post_layernorm",
}


def published_text_encoder(source: TensorSource) -> ViewSource:
    """See a text encoder's checkpoint under transformers' names, whether in those or in Wan's; of a full umT5 its encoder."""
    views: dict[str, View] = {}
    for name in source.specs:
        module, _, tensor = name.rpartition(".")
        parts = module.split(".", 2)
        if module == "token_embedding":
            views[f"shared.{tensor}"] = View(name)
        elif module == "norm":
            views[f"encoder.final_layer_norm.{tensor}"] = View(name)
        elif parts[0] == "blocks" and len(parts) == 3:
            views[f"encoder.block.{parts[1]}.{_TEXT_BLOCK.get(parts[2], parts[2])}.{tensor}"] = View(name)
        elif name != "encoder.embed_tokens.weight" and not name.startswith(("decoder.", "lm_head.")):
            views[name] = View(name)
    return ViewSource(source, views)


def text_encoder_config(where: Path, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Deduce umT5's settings from the shapes of its tensors (transformers' names).

    Raises:
        InputError: a tensor it is deduced from is missing.
    """
    block = "encoder.block.0.layer."
    names = ["shared.weight", f"{block}0.SelfAttention.q.weight", f"{block}0.SelfAttention.relative_attention_bias.weight",
             f"{block}1.DenseReluDense.wi_0.weight"]
    missing = [name for name in names if name not in specs]
    if missing:
        raise InputError(f"{where}: got {len(specs)} tensors without {', '.join(missing)}, expected those of a umT5 encoder")
    (vocabulary, width), (inner, _), (buckets, heads), (hidden, _) = (specs[name].shape for name in names)
    return {
        "vocab_size": vocabulary, "d_model": width, "d_kv": inner // heads, "num_heads": heads, "d_ff": hidden,
        "relative_attention_num_buckets": buckets, "num_layers": _count(specs, "encoder.block."), "feed_forward_proj": "gated-gelu",
    }


def published_image_encoder(source: TensorSource) -> ViewSource:
    """See a picture encoder's checkpoint under transformers' names, whether in those or in Wan's (of which ``visual.*`` counts)."""
    views: dict[str, View] = {}
    wan = any(name.endswith("attn.to_qkv.weight") for name in source.specs)
    for name in source.specs:
        ours = name.removeprefix("vision_model.")
        if not wan:
            if not ours.startswith(("text_model.", "text_projection.", "visual_projection.", "logit_scale")):
                views[ours.removeprefix("vision_model.")] = View(name)
        elif not name.startswith(("textual.", "log_scale")):
            views.update(_image_views(name))
    views.pop("embeddings.position_ids", None)
    return ViewSource(source, views)


def _image_views(name: str) -> dict[str, View]:
    """Return what one of Wan's picture encoder's tensors becomes; the head that follows the last block is not used."""
    short = name.removeprefix("visual.")
    module, _, tensor = short.rpartition(".")
    parts = module.split(".", 2)
    if short == "head":
        return {}
    if short == "cls_embedding":
        return {"embeddings.class_embedding": View(name, lambda x: x.flatten())}
    if short == "pos_embedding":
        return {"embeddings.position_embedding.weight": View(name, lambda x: x[0])}
    if parts[0] != "transformer" or len(parts) != 3:
        return {f"{_IMAGE_TOP.get(module, module)}.{tensor}": View(name)}
    layer = f"encoder.layers.{parts[1]}"
    if parts[2] != "attn.to_qkv":
        return {f"{layer}.{_IMAGE_BLOCK.get(parts[2], parts[2])}.{tensor}": View(name)}
    return {f"{layer}.self_attn.{x}_proj.{tensor}": View(name, _third(i)) for i, x in enumerate("qkv")}


def _third(i: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.chunk(3)[i]


def image_encoder_config(where: Path, specs: Mapping[str, Spec], *, head_dim: int | None = None) -> dict[str, Any]:
    """Deduce the settings of a CLIP picture encoder from the shapes of its tensors (transformers' names).

    Raises:
        InputError: a tensor it is deduced from is missing, or the head size is not known.
    """
    names = ["embeddings.patch_embedding.weight", "embeddings.position_embedding.weight", "encoder.layers.0.mlp.fc1.weight"]
    missing = [name for name in names if name not in specs]
    if missing:
        raise InputError(f"{where}: got {len(specs)} tensors without {', '.join(missing)}, expected a CLIP picture encoder's")
    (width, _, patch, _), (positions, _), (hidden, _) = (specs[name].shape for name in names)
    head_dim = head_dim or CLIP_HEAD_DIMS.get(width)
    if head_dim is None or width % head_dim:
        raise InputError(f"{where}: width {width}: got head size {head_dim}, expected a divisor; it cannot be seen in the weights "
                         "and must stand in a config.json")
    return {
        "hidden_size": width, "intermediate_size": hidden, "num_attention_heads": width // head_dim,
        "patch_size": patch,
        "image_size": patch * round((positions - 1) ** 0.5), "num_hidden_layers": _count(specs, "encoder.layers."),
        "hidden_act": "gelu",
    }


def _count(specs: Mapping[str, Spec], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in specs if name.startswith(prefix))


def _config(path: Path, specs: Mapping[str, Spec], deduce: Callable[[Path, Mapping[str, Spec]], dict[str, Any]]) -> dict[str, Any]:
    """Return the settings beside the weights, else those of their shapes."""
    file = path / "config.json"
    if path.is_dir() and file.is_file():
        config = read_json(file)
        return config.get("vision_config", config)
    return deduce(path, specs)


def empty_text_encoder(path: Path, specs: Mapping[str, Spec]) -> UMT5EncoderModel:
    """Return a text encoder without weights, by its config.json or else by its tensors' shapes."""
    config = _config(path, specs, text_encoder_config)
    return without_weights(lambda: UMT5EncoderModel(UMT5Config(**config)))


def empty_image_encoder(path: Path, specs: Mapping[str, Spec]) -> CLIPVisionModel:
    """Return a picture encoder without weights, by its config.json or else by its tensors' shapes."""
    config = _config(path, specs, image_encoder_config)
    return without_weights(lambda: CLIPVisionModel(CLIPVisionConfig(**config)))


def load_text_encoder(path: Path, *, dtype: torch.dtype | None = None) -> UMT5EncoderModel:
    """Load umT5 from Wan's ``.pth`` or a transformers folder, onto the CPU.

    Raises:
        InputError: not readable, or any tensor missing, unexpected or of the wrong shape.
    """
    with published_text_encoder(open_tensors(path)) as source:
        model = empty_text_encoder(path, source.specs)
        fill(model, source, dtype=dtype)
    return model


def load_image_encoder(path: Path, *, dtype: torch.dtype | None = None) -> CLIPVisionModel:
    """Load CLIP's picture encoder from Wan's ``.pth`` or a transformers folder, onto the CPU.

    Raises:
        InputError: not readable, or any tensor missing, unexpected or of the wrong shape.
    """
    with published_image_encoder(open_tensors(path)) as source:
        model = empty_image_encoder(path, source.specs)
        # Before version 5, transformers called everything in this model vision_model.
        prefix = "vision_model." if any(name.startswith("vision_model.") for name in model.state_dict()) else ""
        fill(model, ViewSource(source, {prefix + name: View(name) for name in source.specs}), dtype=dtype)
    return model


@contextmanager
def visiting(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model on a device for a while, then on the CPU again with the device's memory given back."""
    model.to(device)
    try:
        yield
    finally:
        if device.type != "cpu":
            model.to("cpu")
            torch.cuda.empty_cache()


class TextEncoder:
    """Prompts to (512, c) float32 on the CPU; a prompt is encoded once."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: Any, *, device: torch.device) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, prompt: str) -> Tensor:
        """Return the embedded prompt (512, c), zeros after its last token."""
        text = cleaned(prompt)
        if text not in self._known:
            tokens = self.tokenizer(text, return_tensors="pt", padding="max_length", truncation=True, max_length=TEXT_LENGTH,
                                    add_special_tokens=True)
            mask = tokens["attention_mask"].to(self.device)
            with visiting(self.model, self.device):
                hidden = self.model(input_ids=tokens["input_ids"].to(self.device), attention_mask=mask).last_hidden_state[0]
                self._known[text] = (hidden.float() * mask[0, :, None]).cpu()
        return self._known[text]


def cleaned(text: str) -> str:
    """Return a prompt as Wan's tokenizer gets it: repaired (where ftfy is installed), without HTML entities and double spaces."""
    if importlib.util.find_spec("ftfy") is not None:
        import ftfy

        text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip()


class ImageEncoder:
    """Frames to the 257 tokens before CLIP's last block."""

    def __init__(self, model: CLIPVisionModel, *, device: torch.device) -> None:
        self.model, self.device = model, device

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Return tokens (257, c) float32 on the CPU of a frame (3, H, W) in [-1, 1]."""
        dtype = next(self.model.parameters()).dtype
        with visiting(self.model, self.device):
            pixels = clip_pixels(frame[None].to(self.device), int(self.model.config.image_size)).to(dtype)  # type: ignore[arg-type]
            hidden = self.model(pixel_values=pixels, output_hidden_states=True).hidden_states
            return hidden[-2][0].float().cpu()


def clip_pixels(frames: Tensor, size: int) -> Tensor:
    """Stretch frames (B, 3, H, W) in [-1, 1] to squares, bicubic without antialiasing, and normalise them as CLIP's were."""
    frames = F.interpolate(frames.float(), size=(size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(values, device=frames.device).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (frames * 0.5 + 0.5 - mean) / std


def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer from a local folder.

    Raises:
        InputError: there is none that can be read.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}: not readable as a tokenizer ({reason}), expected the files of google/umt5-xxl") from error


def padded_text(embedding: Tensor) -> Tensor:
    """Return an embedding (n, c) or (1, n, c) as (512, c) float32, zeros after its end.

    Raises:
        InputError: another shape.
    """
    value = embedding[0] if embedding.ndim == 3 and embedding.shape[0] == 1 else embedding
    if value.ndim != 2 or value.shape[0] > TEXT_LENGTH:
        raise InputError(f"negative prompt: got shape {tuple(embedding.shape)}, expected at most {TEXT_LENGTH} x channels")
    return F.pad(value.float(), (0, 0, 0, TEXT_LENGTH - value.shape[0]))
