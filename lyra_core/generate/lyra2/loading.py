"""From settings to the parts of the generator: check cheaply, then load."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.config import Lyra2Cfg
from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.generate.lyra2.checkpoint import load_network, load_vae
from lyra_core.generate.lyra2.components import Components
from lyra_core.generate.lyra2.encoders import (
    IMAGE_TOKENS,
    TEXT_LENGTH,
    ImageEncoder,
    TextEncoder,
    load_image_encoder,
    load_text_encoder,
    load_tokenizer,
    padded_text,
)
from lyra_core.generate.lyra2.lora import merge_loras, parse_loras
from lyra_core.generate.lyra2.plans import MemoryPlan, check_vram, place, placed_codec, plan_for
from lyra_core.generate.lyra2.speed import speed_names, weights_of
from lyra_core.generate.lyra2.tensors import SafetensorsSource
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan, VideoCodec
from lyra_core.generate.lyra2.weights import (
    MODULE_PARTS,
    NEGATIVE_FILE,
    NEGATIVE_KEY,
    TOKENIZER_COMMAND,
    ModelsFolder,
    default_folder,
    fetch_commands,
    lora_file,
    open_models,
    weights_identity,
)
from lyra_core.io.files import read_json

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where the parts live and in which precision they are read."""

    device: torch.device
    """Where they compute."""
    dtype: torch.dtype
    """Of network and encoders."""
    vae_dtype: torch.dtype
    encoder_device: torch.device
    """Where prompts and pictures are embedded; the encoders wait in main memory."""


def choose_placement(cfg: Lyra2Cfg) -> Placement:
    """Return where and in which precision the parts are read: bfloat16 on CUDA, float32 on the CPU.

    Raises:
        ConfigError: the device is unknown or not here.
    """
    device = choose_device(cfg.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Placement(device, dtype, dtype, device)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; 'auto' is CUDA where there is one.

    Raises:
        ConfigError: the name is unknown, or there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"lyra2: device: got {name!r}, expected 'auto', 'cuda', 'cuda:1' or 'cpu'") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= count):
        raise ConfigError(f"lyra2: device: got {name!r}, expected 'cpu' or one of the {count} CUDA devices that torch sees here")
    return device


def models_folder(cfg: Lyra2Cfg) -> Path:
    """Return the folder these settings read their weights from."""
    return Path(cfg.weights).expanduser() if cfg.weights else default_folder()


def wanted_loras(cfg: Lyra2Cfg, models: ModelsFolder) -> dict[str, float]:
    """Return the LoRAs that are merged, by name: the distilled one first, then those of the settings.

    Raises:
        ConfigError: the settings' list cannot be read, or names the distilled one again.
        BackendUnavailable: four steps are asked for and these weights have no distilled LoRA.
    """
    given = parse_loras(cfg.loras)
    if not cfg.distilled:
        return given
    if models.distilled is None:
        raise BackendUnavailable("lyra2", reason=f"distilled: {models.path} has no LoRA for four steps",
                                 install=fetch_commands(models.path))
    if models.distilled in given:
        raise ConfigError(f"lyra2: loras: got {models.distilled!r}, which distilled=true adds by itself; expected it once")
    return {models.distilled: 1.0, **given}


def weights_id(cfg: Lyra2Cfg) -> str:
    """Return a hash that stands for the weights in use, wherever they are; it reads models.json alone.

    Raises:
        BackendUnavailable, InputError, ConfigError: as ``check_parts``.
    """
    models = open_models(models_folder(cfg))
    return weights_identity(models.path, list(wanted_loras(cfg, models)))


def check_parts(cfg: Lyra2Cfg) -> None:
    """Require weights that can be read, without reading them: files, headers, LoRAs, device, captioner.

    Raises:
        BackendUnavailable: weights are missing; the commands that fetch them are named.
        InputError: files are damaged or missing.
        ConfigError: a setting cannot be used.
    """
    choose_placement(cfg)
    speed_names(cfg.speed)
    check_vram(cfg.vram)
    models = open_models(models_folder(cfg))
    for name in wanted_loras(cfg, models):
        with SafetensorsSource(lora_file(models.path, name)):
            pass
    if not models.has("network"):
        raise BackendUnavailable("lyra2", reason=f"{models.path} holds no network", install=fetch_commands(models.path))
    if models.codec == "wan" and not models.has("vae"):
        raise BackendUnavailable("lyra2", reason=f"{models.path} holds no VAE", install=fetch_commands(models.path))
    if models.has("text_encoder") and not models.has("tokenizer"):
        raise BackendUnavailable("lyra2", reason=f"{models.path} holds a text encoder without tokenizer",
                                 install=f"{TOKENIZER_COMMAND} && lyra-worlds models convert umt5-tokenizer -o {models.path}")
    for files in models.parts.values():
        missing = [file for file in files if not (models.path / file).is_file()]
        if missing:
            raise InputError(f"{models.path}: models.json names {', '.join(missing)}, which the folder lacks; convert again")
    for part in MODULE_PARTS:
        if models.has(part):
            with SafetensorsSource(models.path / part):
                pass
    if cfg.captioner:
        from lyra_core.generate.lyra2.captioner import check_captioner

        check_captioner(cfg.captioner)


def choose_plan(cfg: Lyra2Cfg, models: ModelsFolder, placement: Placement, height: int, width: int) -> MemoryPlan | None:
    """Return how the network is placed on a card for frames of this size [px]; None on the CPU, where it is held as it is.

    Raises:
        ConfigError: it does not fit.
    """
    if placement.device.type != "cuda":
        return None
    config = {key: value for key, value in read_json(models.path / "network" / "config.json").items() if not key.startswith("_")}
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    passes = 2 if ranks % 2 == 0 and not cfg.distilled and cfg.guidance != 1 else 1
    names = speed_names(cfg.speed)
    return plan_for(cfg.vram, config, height, width, weights=weights_of(names), cache="cache" in names, ranks=ranks // passes)


def load_parts(cfg: Lyra2Cfg, *, height: int = 480, width: int = 832) -> Components:
    """Load everything with weights: the network with its LoRAs merged, the codec, and the encoders on the CPU.

    On CUDA the memory plan for frames of this size [px] is printed first, and the network is placed by it.

    Raises:
        BackendUnavailable, InputError, ConfigError: as ``check_parts``, or tensors that do not match; all are listed.
    """
    check_parts(cfg)
    placement = choose_placement(cfg)
    models = open_models(models_folder(cfg))
    plan = choose_plan(cfg, models, placement, height, width)
    if plan is not None:
        print(plan.table(), file=sys.stderr, flush=True)
    where = placement.device if plan is None else torch.device("cpu")
    network = load_network(models.path / "network", dtype=placement.dtype, device=where).requires_grad_(False)
    merge_loras(network, [(lora_file(models.path, name), weight) for name, weight in wanted_loras(cfg, models).items()])
    if plan is not None:
        place(network, plan, placement.device, sage="sage" in speed_names(cfg.speed))
        if plan.encoders == "cpu":
            placement = replace(placement, encoder_device=torch.device("cpu"))
    encode_text = _text_encoder(models, placement)
    parts = Components(
        network=network, codec=_codec(models, placement, plan), encode_text=encode_text,
        negative_text=_negative_text(models, encode_text), encode_image=_image_encoder(models, placement), device=placement.device,
    )
    if torch.distributed.is_initialized() and torch.distributed.get_rank() == 0:
        from lyra_core.generate.lyra2.parallel import joined

        return joined(parts, cfg)
    return parts


def _codec(models: ModelsFolder, placement: Placement, plan: MemoryPlan | None) -> VideoCodec:
    if models.codec == "patch":
        return CodecPatch(channels=models.channels)
    codec = CodecWan(load_vae(models.path / "vae", dtype=placement.vae_dtype, device=placement.device))
    return codec if plan is None else placed_codec(codec, plan)


def _text_encoder(models: ModelsFolder, placement: Placement) -> Callable[[str], Tensor]:
    if not models.has("text_encoder"):
        _LOG.warning("%s has no text encoder: prompts are not seen", models.path)
        return lambda prompt: torch.zeros(TEXT_LENGTH, models.text_dim)
    tokenizer = load_tokenizer(models.path / "tokenizer")
    model = load_text_encoder(models.path / "text_encoder", dtype=placement.dtype)
    return TextEncoder(model, tokenizer, device=placement.encoder_device)


def _negative_text(models: ModelsFolder, encode_text: Callable[[str], Tensor]) -> Callable[[str | None], Tensor]:
    """Return what embeds the negative prompt: a text, or for None the published embedding, else the empty text."""
    stored: Tensor | None = None
    if models.has("negative_prompt"):
        with SafetensorsSource(models.path / NEGATIVE_FILE) as source:
            stored = padded_text(source.read(NEGATIVE_KEY))
    elif models.has("text_encoder"):
        _LOG.warning("%s has no negative prompt: the empty text takes its place", models.path)
    return lambda text: stored if text is None and stored is not None else encode_text(text or "")


def _image_encoder(models: ModelsFolder, placement: Placement) -> Callable[[Tensor], Tensor]:
    if not models.has("image_encoder"):
        _LOG.warning("%s has no image encoder: the newest frame is seen by its latents alone", models.path)
        return lambda frame: torch.zeros(IMAGE_TOKENS, models.image_dim)
    return ImageEncoder(load_image_encoder(models.path / "image_encoder", dtype=placement.dtype), device=placement.encoder_device)
