"""Named approximations that trade exactness for time. None is on unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.network import Conditions, Lyra2Network

NAMES = ("fp8", "int8", "sage", "cache", "skip_guidance")
"""fp8: 8-bit products in the blocks' linear layers. int8: 8-bit weights alone, for less memory. sage: 8-bit attention, by
SageAttention 2. cache: blocks whose effect hardly changes between steps are not computed again. skip_guidance: no negative pass in
the last steps."""
SKIP_BELOW = 0.7
"""skip_guidance: share of the noise range, from clean upwards, without negative pass."""
CACHE_THRESHOLD = 0.08
"""cache: relative change of the first block's output up to which the other blocks' effect is taken from the step before."""


def speed_names(text: str) -> set[str]:
    """Return the approximations named in 'exact' or 'a+b'.

    Raises:
        ConfigError: an unknown name.
    """
    if text == "exact":
        return set()
    names = set(text.split("+"))
    if unknown := names - set(NAMES):
        got, known = ", ".join(sorted(unknown)), ", ".join(NAMES)
        raise ConfigError(f"speed: got {got!r}, expected 'exact' or names of {known} joined by '+'")
    if {"fp8", "int8"} <= names:
        raise ConfigError("speed: got both fp8 and int8, expected one of them: they are precisions of the same weights")
    return names


def weights_of(names: set[str]) -> Literal["bf16", "fp8", "int8"]:
    """Return the precision of the blocks' weights."""
    return "fp8" if "fp8" in names else "int8" if "int8" in names else "bf16"


class FirstBlockCache:
    """Skip all blocks but the first while its effect hardly changes between steps (after TeaCache, Liu et al. 2024; ParaAttention).

    Each pass (prompt, negative prompt) is remembered on its own: ``label`` tells which one runs.
    """

    def __init__(
        self, network: Lyra2Network, *, threshold: float = CACHE_THRESHOLD, total: Callable[[Tensor], Tensor] = lambda sums: sums
    ) -> None:
        """Take a network's blocks over.

        Args:
            threshold: relative change of the first block's effect up to which the others' is reused.
            total: adds sums (2,) up over the ranks that share the tokens, so that all of them skip together.
        """
        self._network, self.threshold, self._total = network, threshold, total
        self._run_all = network.run_blocks
        self._memory: dict[Any, tuple[Tensor, Tensor]] = {}
        self.label: Any = None
        self.skipped = 0
        network.run_blocks = self._run  # type: ignore[method-assign]

    def use(self, label: Any) -> None:
        """Say which pass runs next."""
        self.label = label

    def reset(self) -> None:
        """Forget everything: at the start of a chunk."""
        self._memory.clear()

    def remove(self) -> None:
        """Give the network its own blocks back."""
        self._network.run_blocks = self._run_all  # type: ignore[method-assign]

    def _run(
        self, tokens: Tensor, context: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor], conditions: Conditions | None
    ) -> Tensor:
        blocks = self._network.blocks
        first = blocks[0](tokens, context, modulation, rotary, conditions)
        change = first - tokens
        if self.label in self._memory:
            before, rest = self._memory[self.label]
            sums = [torch.linalg.vector_norm(x, 1, dtype=torch.float32) for x in (change - before, before)]
            difference, size = self._total(torch.stack(sums)).tolist()
            if difference < self.threshold * size:
                self.skipped += 1
                return first + rest
        out = first
        for block in blocks[1:]:
            out = block(out, context, modulation, rotary, conditions)
        self._memory[self.label] = (change, out - first)
        return out
