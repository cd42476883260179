"""Flow matching: schedules, the UniPC solver with guidance, and the four-step distilled sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lyra_core.errors import ConfigError

TRAIN_STEPS = 1000
"""Timesteps run from 0 to this; sigma = timestep / 1000."""
DISTILLED_STEPS = 4
DISTILLED_SHIFT = 5.0

Velocity = Callable[[Tensor, float], Tensor]
"""(state (C, T, h, w), timestep) -> velocity (noise - clean) of the same shape."""


def shifted(sigma: np.ndarray, shift: float) -> np.ndarray:
    """Move sigmas in [0, 1] towards noise: shift * s / (1 + (shift - 1) * s) (Esser et al. 2024, equation 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_schedule(steps: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return sigmas (steps + 1,) float32, the last 0, and integer timesteps (steps,), truncated as the network sees them.

    Raises:
        ConfigError: no steps.
    """
    if steps < 1:
        raise ConfigError(f"steps: got {steps}, expected at least 1")
    sigmas = shifted(np.linspace(1 - 1 / TRAIN_STEPS, 0, steps + 1)[:-1], shift)
    return np.append(sigmas, 0).astype(np.float32), (sigmas * TRAIN_STEPS).astype(np.int64)


def distilled_schedule() -> np.ndarray:
    """Return the four sigmas of the distilled sampler: 1, 0.9375, 0.8333, 0.625."""
    train = shifted(np.linspace(1.0, 0.0, TRAIN_STEPS + 1)[:-1], DISTILLED_SHIFT)
    return train[:: TRAIN_STEPS // DISTILLED_STEPS]


def chunk_noise(seed: int, shape: Sequence[int]) -> Tensor:
    """Return start noise float32 as the reference draws it, so that the same seed starts from the same numbers."""
    return torch.from_numpy(np.random.RandomState(seed % 2**32).standard_normal(tuple(shape)).astype(np.float32))


def guided(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Return the velocity extrapolated away from the negative prompt (Ho & Salimans 2022)."""
    return negative + scale * (positive - negative)


def sample_unipc(
    velocity: Velocity, noise: Tensor, *, steps: int = 35, shift: float = 5.0, on_step: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Integrate from noise (C, T, h, w) to clean latents with UniPC (Zhao et al. 2023): order 2, B2(h), with its corrector.

    The solver is diffusers'. Its own flow schedule differs from the reference in the third digit, so ours takes its place.

    Args:
        on_step: called after each step with its number and the state.
    """
    from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

    sigmas, timesteps = flow_schedule(steps, shift)
    solver = UniPCMultistepScheduler(
        num_train_timesteps=TRAIN_STEPS, solver_order=2, solver_type="bh2", prediction_type="flow_prediction", use_flow_sigmas=True,
        flow_shift=shift, final_sigmas_type="zero", lower_order_final=True,
    )
    solver.set_timesteps(steps, device=noise.device)
    solver.sigmas = torch.from_numpy(sigmas)
    solver.timesteps = torch.from_numpy(timesteps).to(noise.device)
    state = noise
    for i, timestep in enumerate(solver.timesteps):
        state = solver.step(velocity(state, float(timestep)), timestep, state, return_dict=False)[0]
        if on_step is not None:
            on_step(i, state)
    return state


def sample_distilled(
    velocity: Velocity, noise: Tensor, fresh: Sequence[Tensor], *, on_step: Callable[[int, Tensor], None] | None = None
) -> Tensor:
    """Return clean latents in four steps: predict them, put fresh noise of the next level on them, and again (Yin et al. 2024).

    Args:
        fresh: three tensors of standard normal noise, shaped like ``noise``.
        on_step: called after each step with its number and the predicted clean latents.
    """
    sigmas = distilled_schedule()
    if len(fresh) != len(sigmas) - 1:
        raise ConfigError(f"fresh: got {len(fresh)} noise tensors, expected {len(sigmas) - 1}")
    state = clean = noise
    for i, sigma in enumerate(sigmas):
        clean = state.double() - float(sigma) * velocity(state, float(sigma) * TRAIN_STEPS).double()
        if on_step is not None:
            on_step(i, clean.float())
        if i < len(fresh):
            following = float(sigmas[i + 1])
            state = ((1 - following) * clean + following * fresh[i].double()).float()
    return clean.float()
