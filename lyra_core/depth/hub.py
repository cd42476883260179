"""Depth models of transformers: from a folder or the hub's cache, never from the network, and weights from .safetensors alone."""

from __future__ import annotations

from typing import Any

from lyra_core.errors import BackendUnavailable, InputError

EXTRA = "pip install 'lyra-worlds[lyra2]'"


def model_config(name: str, *, backend: str, model_type: str, licence: str) -> Any:
    """Return the configuration of a model; its weights are looked for, but not read.

    Args:
        name: folder or hub id.
        backend: depth provider that wants it.
        model_type: what transformers calls its kind.
        licence: of the published weights, named beside the command that fetches them.

    Raises:
        BackendUnavailable: a package or the files are missing.
        InputError: another kind of model, or pickled weights, which could run code.
    """
    try:
        import torch  # noqa: F401
        from transformers import AutoConfig
        from transformers.utils import cached_file
    except ImportError as error:
        raise BackendUnavailable(backend, reason=f"{error.name} is not installed", install=EXTRA) from error
    fetch = f"hf download {name} ({licence})"
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BackendUnavailable(backend, reason=f"model {name!r} is neither a folder nor in the hub's cache",
                                 install=fetch) from error
    if config.model_type != model_type:
        raise InputError(f"depth: model: {name}: got model type {config.model_type!r}, expected {model_type!r}")

    def has(*files: str) -> bool:
        return any(cached_file(name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False,
                               _raise_exceptions_for_connection_errors=False) for file in files)

    if not has("model.safetensors", "model.safetensors.index.json"):
        if has("pytorch_model.bin", "pytorch_model.bin.index.json"):
            raise InputError(f"depth: model: {name}: got pickled weights (pytorch_model.bin), expected model.safetensors")
        raise BackendUnavailable(backend, reason=f"model {name!r} has no model.safetensors", install=fetch)
    return config
