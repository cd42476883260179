"""Convert published checkpoints into a models folder, and verify one. Every part is checked before the first byte is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lyra_core.errors import InputError, LyraError
from lyra_core.generate.lyra2.checkpoint import (
    empty_network,
    empty_vae,
    is_added,
    key_faults,
    network_config,
    published_network,
    published_vae,
    require_keys,
    specs_of,
    stored_config,
)
from lyra_core.generate.lyra2.encoders import (
    empty_image_encoder,
    empty_text_encoder,
    padded_text,
    published_image_encoder,
    published_text_encoder,
)
from lyra_core.generate.lyra2.tensors import Spec, TensorSource, ViewSource, open_tensors, read_state_dict, total_bytes
from lyra_core.generate.lyra2.weights import (
    DISTILLED_LORA,
    LICENCE,
    MODELS_FILE,
    NEGATIVE_FILE,
    NEGATIVE_KEY,
    SHARD_BYTES,
    ModelsFolder,
    config_of,
    copy_file,
    copy_tokenizer,
    open_models,
    part_files,
    tokenizer_files,
    write_models_file,
    write_part,
    write_tensors,
)
from lyra_core.io.files import sha256_file

PUBLISHED_PLACES = {
    "network": ("model/model", "model/model.pth", "model", "network"), "vae": ("vae/vae.pth", "vae", "Wan2.1_VAE.pth"),
    "text_encoder": ("text_encoder/encoder.pth", "text_encoder", "models_t5_umt5-xxl-enc-bf16.pth"),
    "image_encoder": ("image_encoder/model.pth", "image_encoder", "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"),
    "negative_prompt": ("text_encoder/negative_prompt.pt", NEGATIVE_FILE), "lora": ("lora",),
    "tokenizer": ("tokenizer", "google/umt5-xxl"),
}
"""Part -> where it stands in the folders that Lyra 2.0, diffusers or Wan 2.1 publish; the first that is there counts."""
LOSSY = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8)


class Steps(Protocol):
    """Hears how far a conversion is."""

    def stage(self, name: str, total: int) -> None:
        """Begin a part of ``total`` steps."""
        ...

    def update(self, n: int = 1, message: str = "") -> None:
        """Count n finished steps."""
        ...


@dataclass(frozen=True)
class CheckedPart:
    """A module's tensors under our names, and its settings; names and shapes are known to match."""

    part: str
    source: ViewSource
    config: dict[str, Any]


def find_parts(source: Path) -> dict[str, Path]:
    """Return which parts a source holds: those of a published folder, or the one that a single checkpoint is.

    Raises:
        InputError: there is nothing to convert.
    """
    if not source.exists():
        raise InputError(f"{source}: not found; expected a published checkpoints/ folder or one of its checkpoints")
    if source.is_dir():
        found: dict[str, Path] = {}
        for part, names in PUBLISHED_PLACES.items():
            paths = [source / name for name in names if _holds(part, source / name)]
            found |= {part: paths[0]} if paths else {}
        if found:
            return found
        if (source / "checkpoints").is_dir():
            return find_parts(source / "checkpoints")
        if (source / "tokenizer.json").is_file() or any(source.glob("*.model")):
            return {"tokenizer": source}
    with open_tensors(source) as opened:
        return {kind_of(source, opened.specs): source}


def _holds(part: str, path: Path) -> bool:
    """Tell whether a path can be this part: a file, or a folder with weights (or LoRAs, or a tokenizer) directly in it."""
    if path.is_file():
        return True
    if part == "tokenizer":
        return (path / "tokenizer.json").is_file() or any(path.glob("*.model"))
    if part == "negative_prompt" or not path.is_dir():
        return False
    return (path / ".metadata").is_file() or any(path.glob("*.safetensors"))


def kind_of(path: Path, specs: Mapping[str, Spec]) -> str:
    """Return which part a checkpoint is, by the names of its tensors.

    Raises:
        InputError: none is recognised.
    """
    names = {name.removeprefix("net.") for name in specs}
    marks = {
        "lora": lambda: any(".lora_" in name or name.startswith("lora_unet_") for name in names),
        "network": lambda: "patch_embedding.weight" in names and any(name.startswith("blocks.") for name in names),
        "vae": lambda: "decoder.conv_out.weight" in names or "decoder.head.2.weight" in names,
        "text_encoder": lambda: "token_embedding.weight" in names or "shared.weight" in names,
        "image_encoder": lambda: any(name.endswith(("visual.cls_embedding", "embeddings.class_embedding")) for name in names),
        "negative_prompt": lambda: NEGATIVE_KEY in names,
    }
    for part, fits in marks.items():
        if fits():
            return part
    raise InputError(f"{path}: got {len(specs)} tensors such as {', '.join(sorted(specs)[:3])}, expected a network, VAE, text or "
                     "image encoder, LoRA or negative prompt")


def open_part(part: str, path: Path, *, head_dim: int | None = None, packing: str | None = None) -> CheckedPart:
    """Open a module's checkpoint and hold its names and shapes against the module.

    Raises:
        InputError: not readable, or any tensor missing, unexpected or of the wrong shape.
    """
    source = open_tensors(path)
    try:
        return _checked(part, path, source, head_dim, packing)
    except BaseException:
        source.__exit__(None, None, None)
        raise


def _checked(part: str, path: Path, source: TensorSource, head_dim: int | None, packing: str | None) -> CheckedPart:
    seen, module = _seen_as(part, path, source, head_dim, packing)
    expected = _canonical(specs_of(module))
    if part == "network" and not any(is_added(name) for name in seen.specs):
        raise InputError(f"{path}: got Wan 2.1's own network, which has none of the tensors that Lyra 2.0 adds; expected a Lyra "
                         "2.0 checkpoint (training starts from Wan 2.1 without conversion)")
    require_keys(path, expected, seen.specs)
    return CheckedPart(part, seen, config_of(module))


def _seen_as(
    part: str, path: Path, source: TensorSource, head_dim: int | None, packing: str | None
) -> tuple[ViewSource, nn.Module]:
    """Return a checkpoint under our names, and the module without weights that it is for."""
    if part == "network":
        seen = published_network(source)
        config = stored_config(path) or network_config(path, seen.specs, head_dim=head_dim, packing=packing)
        return seen, empty_network(config)
    if part == "vae":
        seen = published_vae(source)
        return seen, empty_vae(path, seen.specs)
    if part == "text_encoder":
        seen = published_text_encoder(source)
        return seen, empty_text_encoder(path, seen.specs)
    seen = published_image_encoder(source)
    return seen, empty_image_encoder(path, seen.specs)


def _canonical(specs: Mapping[str, Spec]) -> dict[str, Spec]:
    """Drop the prefix that transformers before version 5 gives to a picture encoder's tensors."""
    return {name.removeprefix("vision_model."): spec for name, spec in specs.items()}


def convert(
    source: Path, folder: Path, *, steps: Steps, tokenizer: Path | None = None, head_dim: int | None = None,
    packing: str | None = None, licence: str | None = None, distilled: str = DISTILLED_LORA, limit: int = SHARD_BYTES,
) -> ModelsFolder:
    """Convert all parts of a source into a models folder, beside those that are there.

    Run again after it was stopped, it goes on after the last whole file.

    Args:
        source: a published ``checkpoints/`` folder, or one checkpoint.
        tokenizer: folder with the files of google/umt5-xxl.
        head_dim: channels per head of a network whose width is not a published one.
        packing: of a network with another history than the published one.
        licence: of the weights. None: that of the folder converted before, else the published weights'.
        distilled: name of the LoRA for four steps.
        limit: bytes per file.

    Raises:
        InputError: a part cannot be read or does not match; nothing has been written then.
    """
    found = find_parts(source) | ({"tokenizer": tokenizer} if tokenizer else {})
    before = open_models(folder) if (folder / MODELS_FILE).is_file() else None
    modules = ("network", "vae", "text_encoder", "image_encoder")
    origin = source.name or str(source)
    licence = licence or (before.licence if before else _licence_of(source))
    if head_dim is not None and head_dim < 1:
        raise InputError(f"head_dim: got {head_dim}, expected at least 1")
    with ExitStack() as stack:
        checked = [open_part(part, path, head_dim=head_dim, packing=packing) for part, path in found.items() if part in modules]
        for part in checked:
            stack.enter_context(part.source)
        small = _small_parts(found)
        folder.mkdir(parents=True, exist_ok=True)
        parts = dict(before.parts) if before else {}
        sizes = _sizes({part.part: part for part in checked}, before)
        for part in checked:
            steps.stage(part.part, total_bytes(part.source.specs.values()))
            parts[part.part] = write_part(folder, part.part, part.source, part.config, origin=origin, licence=licence, limit=limit,
                                          on_bytes=steps.update)
            # After each, so that the list is never that of another part than the one in place.
            _write_list(folder, parts, sizes, distilled, origin, licence)
        for part, write in small.items():
            steps.stage(part, 1)
            parts[part] = parts.get(part, {}) | write(folder) if part == "lora" else write(folder)
            _write_list(folder, parts, sizes, distilled, origin, licence)
            steps.update()
    return open_models(folder)


def _licence_of(source: Path) -> str:
    """Return the licence of a source that is a models folder itself, else the published weights'."""
    return open_models(source).licence if (source / MODELS_FILE).is_file() else LICENCE


def _write_list(
    folder: Path, parts: Mapping[str, Mapping[str, str]], sizes: Mapping[str, Any], distilled: str, origin: str, licence: str
) -> None:
    has_lora = f"lora/{distilled}.safetensors" in parts.get("lora", {})
    write_models_file(folder, parts, distilled=distilled if has_lora else None, source=origin, licence=licence, **sizes)


def _sizes(checked: Mapping[str, CheckedPart], before: ModelsFolder | None) -> dict[str, Any]:
    """Return what models.json says about sizes: of the network converted now, or of the one that was there."""
    sizes = {"codec": "wan", "channels": 16, "text_dim": 4096, "image_dim": 1280}
    if before:
        sizes = {name: getattr(before, name) for name in sizes}
    if "network" in checked:
        config = checked["network"].config
        sizes |= {"channels": config["out_channels"], "text_dim": config["text_dim"], "image_dim": config["image_dim"]}
    if "vae" in checked:
        sizes["codec"] = "wan"
    return sizes


def _small_parts(found: Mapping[str, Path]) -> dict[str, Callable[[Path], dict[str, str]]]:
    """Read the parts that are no modules, and return what writes each.

    Raises:
        InputError: one is damaged.
    """
    writers: dict[str, Callable[[Path], dict[str, str]]] = {}
    if "negative_prompt" in found:
        tensors = read_negative(found["negative_prompt"])
        writers["negative_prompt"] = lambda folder: {NEGATIVE_FILE: write_tensors(folder / NEGATIVE_FILE, tensors)}
    if "lora" in found:
        files = sorted(found["lora"].glob("*.safetensors")) if found["lora"].is_dir() else [found["lora"]]
        for file in files:
            with open_tensors(file):
                pass
        writers["lora"] = lambda folder: dict(_write_lora(file, folder) for file in files)
    if "tokenizer" in found:
        tokenizer_files(found["tokenizer"])
        writers["tokenizer"] = lambda folder: copy_tokenizer(found["tokenizer"], folder)
    return writers


def _write_lora(file: Path, folder: Path) -> tuple[str, str]:
    name = f"lora/{file.stem}.safetensors"
    if file.suffix == ".safetensors":
        return name, copy_file(file, folder / name)
    return name, write_tensors(folder / name, read_state_dict(file))


def read_negative(path: Path) -> dict[str, Tensor]:
    """Return the embedding of the published negative prompt as {key: (512, c)}; its type stays.

    Raises:
        InputError: the file holds no such embedding.
    """
    with open_tensors(path) as source:
        if NEGATIVE_KEY not in source.specs:
            raise InputError(f"{path}: got {', '.join(source.specs)}, expected {NEGATIVE_KEY}")
        value = source.read(NEGATIVE_KEY)
    return {NEGATIVE_KEY: padded_text(value).to(value.dtype)}


def verify(folder: Path, *, steps: Steps) -> list[str]:
    """Read a models folder whole and return every fault: files, keys, shapes, types, values that are not finite.

    Raises:
        BackendUnavailable, InputError: there is no models.json, or it cannot be read.
    """
    models = open_models(folder)
    faults: list[str] = []
    for part, files in models.parts.items():
        steps.stage(part, 2 * len(files))
        for name, sha in files.items():
            path = folder / name
            if not path.is_file():
                faults.append(f"{name}: missing")
            elif sha256_file(path) != sha:
                faults.append(f"{name}: its SHA-256 is not the one in models.json; the file was changed or is damaged")
            steps.update()
        try:
            faults += _part_faults(folder, part, files)
        except (LyraError, OSError) as error:
            faults.append(f"{part}: {' '.join(str(error).split())}")
        steps.update(len(files))
    if not models.has("network"):
        faults.append("network: missing")
    if models.codec == "wan" and not models.has("vae"):
        faults.append("vae: missing, and models.json names no fixed codec")
    return faults


def _part_faults(folder: Path, part: str, files: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the tensors of a part."""
    if part == "tokenizer":
        from lyra_core.generate.lyra2.encoders import load_tokenizer

        load_tokenizer(folder / part)
        return []
    if part in ("lora", "negative_prompt"):
        return [fault for name in files for fault in _file_faults(folder / name, name)]
    extra = sorted(set(part_files(folder, part)) - set(files))
    with open_tensors(folder / part) as source:
        seen, module = _seen_as(part, folder / part, source, None, None)
        faults = [f"{part}: {fault}" for fault in key_faults(_canonical(specs_of(module)), seen.specs)]
        return faults + [f"{name}: not in models.json" for name in extra] + _value_faults(part, source)


def _file_faults(path: Path, name: str) -> list[str]:
    with open_tensors(path) as source:
        return _value_faults(name, source)


def _value_faults(where: str, source: TensorSource) -> list[str]:
    """Return tensors of a type that no converted weights have, or with values that are not finite."""
    faults = []
    for name, spec in source.specs.items():
        if spec.dtype in LOSSY or not spec.dtype.is_floating_point:
            faults.append(f"{where}: {name}: got {spec.dtype}, expected float32, float16 or bfloat16")
            continue
        value = source.read(name)
        bad = value.numel() - int(torch.isfinite(value).sum())
        if bad:
            faults.append(f"{where}: {name}: {bad} of {value.numel()} values are not finite")
    return faults
