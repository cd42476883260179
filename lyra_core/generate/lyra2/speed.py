"""Named approximations that trade exactness for time. None is on unless asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.network import Conditions, Lyra2Network

NAMES = ("fp8", "cache", "skip_guidance")
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
        raise ConfigError(f"speed: got {', '.join(sorted(unknown))!r}, expected 'exact' or names of {', '.join(NAMES)} joined by '+'")
    return names


class FirstBlockCache:
    """Skip all blocks but the first while its output hardly changes between steps (after TeaCache, Liu et al. 2024, and ParaAttention).

    Each pass (prompt, negative prompt) is remembered on its own: ``label`` tells which one runs.
    """

    def __init__(self, network: Lyra2Network, *, threshold: float = CACHE_THRESHOLD) -> None:
        self._network, self.threshold = network, threshold
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
            if float((change - before).abs().mean() / before.abs().mean().clamp_min(1e-9)) < self.threshold:
                self.skipped += 1
                return first + rest
        out = first
        for block in blocks[1:]:
            out = block(out, context, modulation, rotary, conditions)
        self._memory[self.label] = (change, out - first)
        return out
