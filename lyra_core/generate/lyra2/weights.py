"""The folder that converted weights live in: where it is, what stands in it, and how it is written.

::

    models.json               codec, sizes, licence, and the SHA-256 of every file
    network/                  config.json, *.safetensors (at most 5 GB each), index, source.json
    vae/                      the same, for diffusers' AutoencoderKLWan; absent with the fixed codec
    text_encoder/ image_encoder/    the same, for transformers; absent in models trained without
    tokenizer/                the tokenizer's own files
    negative_prompt.safetensors
    lora/NAME.safetensors

A part is written beside its place and renamed when it is whole, and models.json is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.tensors import INDEX_SUFFIX, Spec, StateSource, TensorSource, shards, total_bytes, write_safetensors
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan
from lyra_core.io.files import atomic_path, read_json, sha256_file, write_json

MODELS_FILE = "models.json"
SOURCE_FILE = "source.json"
SCHEMA = 1
SHARD_BYTES = 5_000_000_000
DISTILLED_LORA = "dmd_distillation"
LICENCE = "NVIDIA Internal Scientific Research and Development License (research only)"
TOKENIZER_COMMAND = ("hf download google/umt5-xxl tokenizer.json tokenizer_config.json special_tokens_map.json spiece.model "
                     "--local-dir umt5-tokenizer")
MODULE_PARTS = ("network", "vae", "text_encoder", "image_encoder")
NEGATIVE_FILE = "negative_prompt.safetensors"
NEGATIVE_KEY = "t5_text_embeddings"
_STEMS = {"network": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
"""What diffusers and transformers ('model') call the files of a model."""
OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class ModelsFolder:
    """What models.json says."""

    path: Path
    codec: str
    """'wan' (vae/) or 'patch' (the fixed codec, without weights)."""
    channels: int
    """Latent channels."""
    text_dim: int
    image_dim: int
    distilled: str | None
    """Name of the LoRA that the four-step sampler needs; None: there is none."""
    source: str
    licence: str
    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    """Part -> file below the folder -> SHA-256."""

    def has(self, part: str) -> bool:
        """Tell whether a part is there."""
        return part in self.parts

    @property
    def loras(self) -> list[str]:
        """Names of the LoRAs that were converted, sorted."""
        return sorted(Path(file).stem for file in self.parts.get("lora", {}))


def models_root() -> Path:
    """Return where models are kept: $LYRA_WORLDS_MODELS, else the user's cache."""
    if given := os.environ.get("LYRA_WORLDS_MODELS"):
        return Path(given).expanduser()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library/Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "lyra-worlds"


def default_folder() -> Path:
    """Return the folder that is read when none is named: ``lyra2`` in the root, or the root itself if it holds models.json."""
    root = models_root()
    return root if (root / MODELS_FILE).is_file() else root / "lyra2"


def fetch_commands(folder: Path | None = None) -> str:
    """Return the commands that bring the published weights, and their licence.

    Args:
        folder: where they go; None is the place that is read when none is named.
    """
    target = f" -o {folder}" if folder and folder != default_folder() else ""
    weights = "hf download nvidia/Lyra-2.0 --include 'checkpoints/*' --local-dir Lyra-2.0"
    converting = f"lyra-worlds models convert Lyra-2.0/checkpoints --tokenizer umt5-tokenizer{target}"
    return f"{weights} && {TOKENIZER_COMMAND} && {converting} (weights: {LICENCE}); $LYRA_WORLDS_MODELS names another folder"


def open_models(folder: Path) -> ModelsFolder:
    """Read models.json.

    Raises:
        BackendUnavailable: there is none; the commands that fetch and convert the weights are named.
        InputError: it is not what this version writes.
    """
    file = folder / MODELS_FILE
    if not file.is_file():
        raise BackendUnavailable("lyra2", reason=f"no converted weights in {folder}", install=fetch_commands(folder))
    values = read_json(file)
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise InputError(f"{file}: got schema {values.get('schema') if isinstance(values, dict) else values!r}, expected {SCHEMA}")
    names = {"codec": str, "channels": int, "text_dim": int, "image_dim": int, "source": str, "licence": str, "parts": dict}
    faults = [f"{name}: {values.get(name)!r}" for name, kind in names.items() if not isinstance(values.get(name), kind)]
    if not faults:
        lists = values["parts"].values()
        if not all(isinstance(files, dict) and all(isinstance(sha, str) for sha in files.values()) for files in lists):
            faults.append("parts: not a table of files for each part")
        faults += [f"{name}: {values[name]}" for name in ("channels", "text_dim", "image_dim") if values[name] < 1]
    if faults or values["codec"] not in ("wan", "patch"):
        raise InputError(f"{file}: got {', '.join(faults) or values['codec']!r}, expected what lyra-worlds models convert writes")
    return ModelsFolder(folder, distilled=values.get("distilled"), **{name: values[name] for name in names})


def weights_identity(folder: Path, loras: list[str]) -> str:
    """Return a hash that stands for the values of the weights in use: network, codec, encoders, and the LoRAs named.

    Notes, licences and parts that are added beside them do not count.

    Args:
        loras: names of the LoRAs in use.
    """
    models = open_models(folder)
    used = {part: files for part, files in models.parts.items() if part not in ("lora", "tokenizer")}
    known = dict(models.parts.get("lora", {}))
    for name in sorted(loras):
        file = f"lora/{name}.safetensors"
        used[file] = {file: known.get(file) or sha256_file(lora_file(folder, name))}
    text = json.dumps([models.codec, models.channels, used], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lora_file(folder: Path, name: str) -> Path:
    """Return the file of a LoRA by its name.

    Raises:
        InputError: there is none; those that are there are listed.
    """
    path = folder / "lora" / f"{name}.safetensors"
    if Path(name).name != name or not path.is_file():
        known = sorted(file.stem for file in (folder / "lora").glob("*.safetensors"))
        raise InputError(f"LoRA {name!r}: no such file {path}, expected one of those there: {', '.join(known) or 'none'}")
    return path


def write_part(
    folder: Path, part: str, source: TensorSource, config: Mapping[str, Any], *, origin: str, licence: str,
    limit: int = SHARD_BYTES, on_bytes: OnBytes = lambda n: None,
) -> dict[str, str]:
    """Write a module's weights; return its files and their SHA-256.

    A part of the same source that is there already stays. One that was interrupted goes on after its last whole file.

    Args:
        source: its tensors under our names, checked.
        origin: where they come from, as source.json says it.
        limit: bytes per file.
    """
    final, partial = folder / part, folder / f".partial-{part}"
    plan = _plan(source, config, origin)
    if (final / SOURCE_FILE).is_file() and read_json(final / SOURCE_FILE)["plan"] == plan and source.files():
        on_bytes(total_bytes(source.specs.values()))
        return part_files(folder, part)
    state = _begun(partial, plan, resume=bool(source.files()))
    groups = shards(source.specs, limit)
    stem = _STEMS.get(part, "model")
    weight_map: dict[str, str] = {}
    for i, names in enumerate(groups):
        file = f"{stem}.safetensors" if len(groups) == 1 else f"{stem}-{i + 1:05d}-of-{len(groups):05d}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        specs = {name: source.specs[name] for name in names}
        if file in state["sha256"]:
            on_bytes(total_bytes(specs.values()))
            continue
        write_safetensors(partial / file, specs, source.read, on_bytes=on_bytes)
        state["sha256"][file] = sha256_file(partial / file)
        write_json(partial / SOURCE_FILE, state)
    if len(groups) > 1:
        index = {"metadata": {"total_size": total_bytes(source.specs.values())}, "weight_map": weight_map}
        write_json(partial / f"{stem}{INDEX_SUFFIX}", index)
    write_json(partial / "config.json", dict(config))
    write_json(partial / SOURCE_FILE, {**state, "source": origin, "licence": licence})
    if final.exists():
        shutil.rmtree(final)
    os.replace(partial, final)
    return part_files(folder, part)


def _plan(source: TensorSource, config: Mapping[str, Any], origin: str) -> str:
    """Return a hash of what is to be written, of which only unchanged work is taken up again."""
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in source.files()]
    specs = {name: [list(spec.shape), str(spec.dtype)] for name, spec in source.specs.items()}
    text = json.dumps([origin, stats, specs, dict(config)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _begun(partial: Path, plan: str, *, resume: bool) -> dict[str, Any]:
    """Return what an interrupted run left of this plan, or an empty start."""
    file = partial / SOURCE_FILE
    # Of modules in memory only names and shapes are in the plan, so what an earlier run left may be of other weights.
    if resume and file.is_file():
        state = read_json(file)
        if state.get("plan") == plan:
            # A file that was being written when the run was killed.
            for stray in partial.glob(".tmp-*"):
                stray.unlink()
            return {"plan": plan, "sha256": {name: sha for name, sha in state["sha256"].items() if (partial / name).is_file()}}
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    write_json(file, {"plan": plan, "sha256": {}})
    return {"plan": plan, "sha256": {}}


def part_files(folder: Path, part: str) -> dict[str, str]:
    """Return the files of a part that is in place, and their SHA-256."""
    known = read_json(folder / part / SOURCE_FILE).get("sha256", {}) if (folder / part / SOURCE_FILE).is_file() else {}
    shown = (file for file in (folder / part).iterdir() if file.is_file() and not file.name.startswith("."))
    files = sorted(file for file in shown if file.name != SOURCE_FILE)
    return {f"{part}/{file.name}": known.get(file.name) or sha256_file(file) for file in files}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write a few tensors as safetensors; return the file's SHA-256."""
    specs = {name: Spec(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    write_safetensors(path, specs, lambda name: tensors[name].detach().cpu())
    return sha256_file(path)


def copy_file(source: Path, target: Path) -> str:
    """Copy a file, under a temporary name that is renamed at the end; return its SHA-256."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return sha256_file(target)


def tokenizer_files(source: Path) -> list[Path]:
    """Return the files of a tokenizer.

    Raises:
        InputError: the source is no folder, or holds none.
    """
    found = sorted(source.iterdir()) if source.is_dir() else []
    files = [file for file in found if file.suffix in (".json", ".model", ".txt") and file.name != "config.json"]
    if not any(file.suffix == ".model" or file.name == "tokenizer.json" for file in files):
        raise InputError(f"{source}: got no tokenizer.json and no *.model, expected the tokenizer of google/umt5-xxl")
    return files


def copy_tokenizer(source: Path, folder: Path) -> dict[str, str]:
    """Copy a tokenizer's files into the models folder.

    Raises:
        InputError: the source holds none.
    """
    return {f"tokenizer/{file.name}": copy_file(file, folder / "tokenizer" / file.name) for file in tokenizer_files(source)}


def write_models_file(
    folder: Path, parts: Mapping[str, Mapping[str, str]], *, codec: str, channels: int, text_dim: int, image_dim: int,
    distilled: str | None, source: str, licence: str,
) -> None:
    """Write models.json, which makes a folder a models folder."""
    write_json(folder / MODELS_FILE, {
        "schema": SCHEMA, "codec": codec, "channels": channels, "text_dim": text_dim, "image_dim": image_dim,
        "distilled": distilled, "source": source, "licence": licence, "parts": {part: dict(files) for part, files in parts.items()},
    })


def save_models_folder(
    folder: Path, *, network: Lyra2Network, codec: CodecPatch | CodecWan | AutoencoderKLWan, text_encoder: nn.Module | None = None,
    image_encoder: nn.Module | None = None, tokenizer: Any = None, negative_prompt: Tensor | None = None,
    loras: Mapping[str, Mapping[str, Tensor]] | None = None, distilled: str | None = None, source: str = "trained here",
    licence: str = "as its training data and base", dtype: torch.dtype | None = None,
) -> Path:
    """Write modules in memory as a models folder, replacing what was there; return the folder.

    Args:
        codec: the fixed codec is named in models.json; a VAE is written.
        tokenizer: a transformers tokenizer, for the text encoder.
        negative_prompt: (n <= 512, c) embedding.
        loras: name -> tensors, as ``lora`` reads them.
        distilled: name of the LoRA that the four-step sampler needs.
        dtype: of floating point weights; None keeps theirs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Without it the folder counts as empty until everything in it belongs together.
    (folder / MODELS_FILE).unlink(missing_ok=True)
    vae = codec.vae if isinstance(codec, CodecWan) else codec
    modules: dict[str, Any] = {"network": network, "vae": None if isinstance(vae, CodecPatch) else vae,
                               "text_encoder": text_encoder, "image_encoder": image_encoder}
    parts: dict[str, dict[str, str]] = {}
    for part, module in modules.items():
        shutil.rmtree(folder / part, ignore_errors=True)
        if module is not None:
            state = StateSource(module, dtype=dtype)
            parts[part] = write_part(folder, part, state, config_of(module), origin=source, licence=licence)
    for rest in ("tokenizer", "lora"):
        shutil.rmtree(folder / rest, ignore_errors=True)
    (folder / NEGATIVE_FILE).unlink(missing_ok=True)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder / "tokenizer")
        parts["tokenizer"] = part_files(folder, "tokenizer")
    if negative_prompt is not None:
        parts["negative_prompt"] = {NEGATIVE_FILE: write_tensors(folder / NEGATIVE_FILE, {NEGATIVE_KEY: negative_prompt})}
    if loras:
        parts["lora"] = {f"lora/{name}.safetensors": write_tensors(folder / "lora" / f"{name}.safetensors", tensors)
                         for name, tensors in loras.items()}
    channels = vae.channels if isinstance(vae, CodecPatch) else int(vae.config.z_dim)
    write_models_file(
        folder, parts, codec="patch" if isinstance(vae, CodecPatch) else "wan", channels=channels, text_dim=network.config.text_dim,
        image_dim=network.config.image_dim, distilled=distilled, source=source, licence=licence,
    )
    return folder


def config_of(module: Any) -> dict[str, Any]:
    """Return the settings that stand beside a module's weights."""
    if isinstance(module, Lyra2Network | AutoencoderKLWan):
        kept = {key: value for key, value in module.config.items() if not key.startswith("_")}
        return {"_class_name": type(module).__name__, **kept}
    return json.loads(module.config.to_json_string(use_diff=False))
