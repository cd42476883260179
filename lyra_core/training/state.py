"""Checkpoints of a run: what every process holds, as safetensors, and a JSON that says how far it is. No pickles.

Random numbers need no saving: they are functions of the seed and the step (see ``sampling``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lyra_core.errors import ConfigError, WorldError
from lyra_core.generate.lyra2.tensors import SafetensorsSource, Spec, write_safetensors
from lyra_core.io.files import read_json, write_json
from lyra_core.training.settings import TrainCfg

STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers per weight."""


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor on the CPU, gathered from all processes; all must ask."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


class Average:
    """An exponential moving average of the trained weights, float32, sharded as they are. Decay 0 keeps none."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().float().clone() for name, p in parameters.items()} if decay else {}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Move towards the weights."""
        for name, value in self.values.items():
            local(value).lerp_(local(parameters[name]).float(), 1 - self.decay)


def identity(cfg: TrainCfg) -> str:
    """Hash what makes the steps of a run; its length, its folder and how often it is saved may change."""
    values = asdict(cfg)
    values["output"] = ""
    free = ["save_every", "keep", "minutes", "workers", "device", "threads", "micro_batch", "gradient_checkpointing"]
    # Only a falling learning rate depends on the number of steps.
    free += [] if cfg.optim.decay == "cosine" else ["iterations"]
    values["run"] = {key: value for key, value in values["run"].items() if key not in free}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Return the finished checkpoints of a run, oldest first."""
    return sorted(path.parent for path in folder.glob(f"checkpoints/*/{STATE}"))


def _file(folder: Path, rank: int, world: int) -> Path:
    return folder / f"rank-{rank:05d}-of-{world:05d}.safetensors"


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer, average: Average) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in trained(module).items():
        found[f"weight/{name}"] = local(parameter.detach())
        # A weight that never had a gradient has no moments.
        for moment, value in ((m, v) for m, v in optimizer.state.get(parameter, {}).items() if m in MOMENTS):
            found[f"{moment}/{name}"] = local(value)
        if name in average.values:
            found[f"average/{name}"] = local(average.values[name])
    return found


def save_part(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average, *, rank: int, world: int
) -> None:
    """Write what this process holds; the checkpoint counts once ``finish`` was called after all have written."""
    tensors = {name: value.contiguous().cpu() for name, value in _tensors(module, optimizer, average).items()}
    specs = {name: Spec(tuple(value.shape), value.dtype) for name, value in tensors.items()}
    write_safetensors(_file(folder, rank, world), specs, tensors.__getitem__)


def finish(folder: Path, cfg: TrainCfg, *, step: int, world: int, keep: int) -> None:
    """Declare a checkpoint complete and remove the oldest beyond ``keep``."""
    write_json(folder / STATE, {"step": step, "world": world, "identity": identity(cfg)})
    for old in checkpoints(folder.parents[1])[:-keep]:
        # Without its state it no longer counts, should the removal be interrupted.
        (old / STATE).unlink()
        shutil.rmtree(old)


@torch.no_grad()
def load_part(
    folder: Path, cfg: TrainCfg, module: nn.Module, optimizer: torch.optim.Optimizer, average: Average, *, rank: int, world: int
) -> int:
    """Take a checkpoint's weights and moments in; return its step.

    Raises:
        ConfigError: it belongs to other settings or another number of processes.
        WorldError, InputError: it is damaged.
    """
    state = read_json(folder / STATE)
    if state.get("identity") != identity(cfg):
        raise ConfigError(f"{folder}: belongs to a run with other settings; expected the same ones, or another --output")
    if state["world"] != world:
        raise ConfigError(f"{folder}: was written by {state['world']} processes, got {world}; expected the same number")
    with SafetensorsSource(_file(folder, rank, world)) as source:
        for name, parameter in trained(module).items():
            moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS if f"{moment}/{name}" in source.specs}
            places = {"weight": parameter, **moments, **({"average": average.values[name]} if name in average.values else {})}
            for kind, place in places.items():
                if f"{kind}/{name}" not in source.specs:
                    raise WorldError(f"{source.path}: lacks {kind}/{name}; expected a checkpoint of this network")
                local(place.detach()).copy_(source.read(f"{kind}/{name}"))
            if moments:
                optimizer.state[parameter] = {"step": torch.tensor(float(state["step"])), **moments}
    return int(state["step"])
