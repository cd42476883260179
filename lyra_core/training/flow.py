"""Flow matching as Lyra 2.0 trains it: schedule, draw of timesteps, weights, noising, loss (Lipman et al. 2023; Esser et al. 2024).

A noisy state is ``(1 - sigma) * clean + sigma * noise`` and the network predicts ``noise - clean``. Only new latents are noised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import ConfigError
from lyra_core.generate.lyra2.samplers import TRAIN_STEPS, shifted

Weighting = Literal["bell", "uniform"]


@dataclass(frozen=True)
class TrainSchedule:
    """The noise levels that training draws from."""

    shift: float = 5.0
    """Moves levels towards noise."""
    weighting: Weighting = "bell"
    """'bell': medium levels count most (the original calls it reweighting); 'uniform': all the same."""

    def __post_init__(self) -> None:
        if not self.shift > 0:
            raise ConfigError(f"shift: got {self.shift}, expected more than 0")
        if self.weighting not in ("bell", "uniform"):
            raise ConfigError(f"weighting: got {self.weighting!r}, expected 'bell' or 'uniform'")

    @cached_property
    def sigmas(self) -> Tensor:
        """(1000,) float32, from 1 downwards."""
        return torch.from_numpy(shifted(np.linspace(1.0, 1.0 / TRAIN_STEPS, TRAIN_STEPS), self.shift).astype(np.float32))

    @cached_property
    def timesteps(self) -> Tensor:
        """(1000,) float32 in (0, 1000]: what the network is told."""
        return self.sigmas * TRAIN_STEPS

    @cached_property
    def weights(self) -> Tensor:
        """(1000,) float32 loss weights with mean 1."""
        if self.weighting == "uniform":
            return torch.ones(TRAIN_STEPS)
        bell = torch.exp(-2 * ((self.timesteps - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)
        bell = bell - bell.min()
        return bell * (TRAIN_STEPS / bell.sum())

    def index_of_draw(self, draw: Tensor) -> Tensor:
        """Return the schedule's index of draws in (0, 1)."""
        return (draw * TRAIN_STEPS).long().clamp(0, TRAIN_STEPS - 1)

    def nearest_index(self, timestep: float) -> int:
        """Return the index whose timestep is nearest."""
        return int((self.timesteps - timestep).abs().argmin())


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    """Draw (count,) float32 in (0, 1): the logistic function of standard normal numbers."""
    return torch.sigmoid(torch.randn(count, generator=generator))


def noised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the state between clean latents and noise (B, C, T, h, w) at levels sigma (B,)."""
    level = sigma.to(clean).view(-1, *[1] * (clean.dim() - 1))
    return clean * (1 - level) + noise * level


def flow_loss(velocity: Tensor, clean: Tensor, noise: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of each sample (B,): weighted mean squared error of the velocity of the new latents (B, C, T, h, w)."""
    squared = (velocity.float() - (noise - clean).float()) ** 2
    return weight.to(squared) * squared.flatten(1).mean(1)
