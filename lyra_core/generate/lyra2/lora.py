"""LoRAs (Hu et al. 2021) merged into the network: W + weight * alpha / rank * B A, in float32.

Read are the ways in which adapters of Wan 2.1 are stored: ``lora_A`` / ``lora_B`` (peft, diffusers), ``lora_down`` / ``lora_up``,
the musubi tuner's ``lora_unet_blocks_0_self_attn_q``, with ``.alpha``, a bias ``.diff_b`` and a full difference ``.diff``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from lyra_core.errors import ConfigError, InputError
from lyra_core.generate.lyra2.keys import to_ours
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.tensors import TensorSource, open_tensors

_LOG = logging.getLogger(__name__)
DIFF_THRESHOLD = 0.016
"""A full difference whose values span less is left out, as the published loader does: it is what extraction leaves in norms."""
_PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.", "net.")
_ROLES = (
    (re.compile(r"\.(?:lora_A|lora_down)(?:\.[A-Za-z_]\w*)?\.weight$"), "down"),
    (re.compile(r"\.(?:lora_B|lora_up)(?:\.[A-Za-z_]\w*)?\.weight$"), "up"),
    (re.compile(r"\.lora_B(?:\.[A-Za-z_]\w*)?\.bias$|\.diff_b$"), "bias"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"\.diff$"), "diff"),
)


@dataclass(frozen=True)
class LoraTarget:
    """What one module gets: names of tensors in the file by role (down, up, alpha, bias, diff)."""

    names: dict[str, str] = field(default_factory=dict)


def parse_loras(text: str) -> dict[str, float]:
    """Parse 'name=weight,...'; a name alone has weight 1.

    Raises:
        ConfigError: not of this form, or a name twice.
    """
    found: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = entry.partition("=")
        name = name.strip()
        try:
            value = float(weight or "1")
        except ValueError:
            raise ConfigError(f"loras: {entry!r}: got weight {weight!r}, expected a number") from None
        if not name or name in found or not -100 < value < 100:
            raise ConfigError(f"loras: got {text!r}, expected 'name=weight,...' with each name once and finite weights")
        found[name] = value
    return found


def lora_targets(source: TensorSource, network: Lyra2Network) -> dict[str, LoraTarget]:
    """Return for each module of the network (our names) what a LoRA file holds for it.

    Raises:
        InputError: names that no module has, or halves of a pair; all are listed.
    """
    modules = {name for name, module in network.named_modules() if hasattr(module, "weight")}
    flat = {to_flat(name): name for name in modules}
    found: dict[str, LoraTarget] = {}
    unknown: list[str] = []
    for name in source.specs:
        role, module = _role(name, modules, flat)
        if role is None or module is None:
            unknown.append(name)
        else:
            found.setdefault(module, LoraTarget()).names[role] = name
    if unknown:
        raise InputError(f"{source.path}: got {len(unknown)} of {len(source.specs)} tensors that fit no module of the network, "
                         f"expected none: {', '.join(unknown)}")
    halves = [module for module, target in found.items() if ("down" in target.names) != ("up" in target.names)]
    if halves:
        raise InputError(f"{source.path}: got one half of a pair for {', '.join(halves)}, expected down and up")
    return found


def to_flat(module: str) -> str:
    """Return the musubi tuner's name of one of our modules: published name with underscores."""
    from lyra_core.generate.lyra2.keys import to_published

    return to_published(module).replace(".", "_")


def _role(name: str, modules: set[str], flat: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return a tensor's role and its module of the network, None where there is no such one."""
    for pattern, role in _ROLES:
        if match := pattern.search(name):
            module = name[: match.start()]
            if module.startswith("lora_unet_"):
                return role, flat.get(module.removeprefix("lora_unet_"))
            for prefix in _PREFIXES:
                module = module.removeprefix(prefix)
            ours = to_ours(module)
            return role, ours if ours in modules else None
    return None, None


@torch.no_grad()
def merge_lora(network: Lyra2Network, path: Path, weight: float = 1.0) -> int:
    """Add a LoRA to the network's weights; return the number of modules changed.

    Ranks and targets are the file's. Sums are taken in float32 on the weights' device and rounded once.

    Raises:
        InputError: unknown names or shapes that do not fit; nothing is changed then.
    """
    return merge_loras(network, [(path, weight)])


@torch.no_grad()
def merge_loras(network: Lyra2Network, loras: list[tuple[Path, float]]) -> int:
    """Add several LoRAs with their weights: all of a module's differences in float32, then rounded once.

    Raises:
        InputError: unknown names or shapes that do not fit; nothing is changed then.
    """
    opened = [(open_tensors(path), weight) for path, weight in loras]
    targets = [(source, weight, lora_targets(source, network)) for source, weight in opened]
    for source, _, found in targets:
        _check_shapes(source, found, network)
    changed = sorted({module for _, _, found in targets for module in found})
    for name in changed:
        module = network.get_submodule(name)
        differences = [(source, weight, found[name]) for source, weight, found in targets if name in found]
        _add(module, differences)
    for source, _ in opened:
        source.__exit__(None, None, None)
    return len(changed)


def _add(module: torch.nn.Module, differences: list[tuple[TensorSource, float, LoraTarget]]) -> None:
    """Add the differences to one module's weight and bias."""
    for attribute, difference in (("weight", weight_difference), ("bias", bias_difference)):
        parameter: Tensor | None = getattr(module, attribute, None)
        if parameter is None:
            continue
        total = parameter.float()
        found = [(value, weight) for source, weight, target in differences
                 if (value := difference(source, target, parameter.device)) is not None]
        for value, weight in found:
            total = total + weight * value
        if found:
            parameter.copy_(total)


def weight_difference(source: TensorSource, target: LoraTarget, device: torch.device) -> Tensor | None:
    """Return alpha / rank * B A plus a full difference, float32; None where there is neither."""
    names, total = target.names, None
    if "down" in names:
        down, up = (source.read(names[role]).to(device).float().flatten(1) for role in ("down", "up"))
        rank = down.shape[0]
        alpha = float(source.read(names["alpha"])) if "alpha" in names else float(rank)
        total = (alpha / rank) * (up @ down)
    if "diff" in names:
        diff = source.read(names["diff"]).to(device).float()
        if float(diff.abs().max() - diff.abs().min()) < DIFF_THRESHOLD:
            _LOG.info("%s: %s left out: its values span less than %g", source.path, names["diff"], DIFF_THRESHOLD)
        else:
            diff = diff.flatten(1) if diff.ndim > 2 else diff
            total = diff if total is None else total + diff
    return total


def bias_difference(source: TensorSource, target: LoraTarget, device: torch.device) -> Tensor | None:
    """Return what is added to the bias, float32; None where there is nothing."""
    return source.read(target.names["bias"]).to(device).float() if "bias" in target.names else None


def _check_shapes(source: TensorSource, found: Mapping[str, LoraTarget], network: Lyra2Network) -> None:
    faults: list[str] = []
    for name, target in found.items():
        module = network.get_submodule(name)
        shapes = {role: source.specs[key].shape for role, key in target.names.items()}
        weight, bias = (getattr(module, part, None) for part in ("weight", "bias"))
        if "down" in shapes:
            down, up = shapes["down"], shapes["up"]
            product = (up[0], torch.Size(down[1:]).numel())
            if up[1] != down[0] or weight is None or product != tuple(weight.shape):
                faults.append(f"{name}: got {list(up)} times {list(down)}, expected {_shape(weight)}")
        if "diff" in shapes and torch.Size(shapes["diff"]).numel() != (weight.numel() if weight is not None else 0):
            faults.append(f"{name}: got a difference {list(shapes['diff'])}, expected {_shape(weight)}")
        if "bias" in shapes and shapes["bias"] != (tuple(bias.shape) if bias is not None else ()):
            faults.append(f"{name}: got a bias {list(shapes['bias'])}, expected {_shape(bias)}")
    if faults:
        raise InputError(f"{source.path}: does not fit the network: {'; '.join(faults)}")


def _shape(value: Tensor | None) -> str:
    return "none" if value is None else str(list(value.shape))


def lora_rank(source: TensorSource) -> int:
    """Return the rank of a LoRA file: that of its first down matrix; 0 if it has none."""
    for name, spec in source.specs.items():
        if _ROLES[0][0].search(name):
            return spec.shape[0]
    return 0
