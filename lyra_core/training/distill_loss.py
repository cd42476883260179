"""The maths of distribution-matching distillation to few steps, for flow matching (Yin et al. 2024, DMD2, arXiv 2405.14867).

A student that jumps to clean samples is moved against the gradient of the divergence between what it makes and what the teacher
would: at every noise level the difference of two denoisers, the teacher and a critic that is trained on the student's samples.
Everything here is a function of velocities; what has weights is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lyra_core.generate.lyra2.samplers import TRAIN_STEPS, shifted

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(state (B, ...), timesteps (B,) in 0..1000) -> velocity (noise - clean) of the same shape."""
LOWEST, HIGHEST = 0.02, 0.98
"""Noise levels, before the shift, at which student and teacher are compared."""


def levels(like: Tensor, sigma: Tensor) -> Tensor:
    """Return sigma (B,) with as many axes as ``like`` (B, ...)."""
    return sigma.to(like).view(-1, *[1] * (like.dim() - 1))


def clean_of(velocity: Velocity, state: Tensor, sigma: Tensor) -> Tensor:
    """Return the clean samples that a velocity predicts from states (B, ...) at noise levels sigma (B,)."""
    return state - levels(state, sigma) * velocity(state, sigma * TRAIN_STEPS)


def renoised(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return (1 - sigma) * clean + sigma * noise."""
    level = levels(clean, sigma)
    return (1 - level) * clean + level * noise


def simulated(student: Velocity, noise: Tensor, fresh: Sequence[Tensor], schedule: Sequence[float], last: int) -> Tensor:
    """Return the student's clean samples (B, ...) after steps 0..last of its own sampler; only the last step has a gradient.

    Training on states that the student itself reaches is what closes the gap to its use (DMD2, section 4.5).

    Args:
        noise: (B, ...) start.
        fresh: noise of the steps after the first, at least ``last`` of them.
        schedule: noise levels of the sampler, from 1 downwards.
    """
    state, batch = noise, len(noise)
    with torch.no_grad():
        for step in range(last):
            clean = clean_of(student, state, noise.new_full((batch,), schedule[step]))
            state = renoised(clean, fresh[step], noise.new_full((batch,), schedule[step + 1]))
    return clean_of(student, state, noise.new_full((batch,), schedule[last]))


def comparison_sigma(uniform: Tensor, *, shift: float) -> Tensor:
    """Return noise levels (B,) for draws in [0, 1)."""
    return torch.as_tensor(shifted((LOWEST + (HIGHEST - LOWEST) * uniform).numpy(), shift), dtype=torch.float32)


@torch.no_grad()
def matching_gradient(clean: Tensor, noise: Tensor, sigma: Tensor, teacher: Velocity, critic: Velocity) -> Tensor:
    """Return the direction (B, ...) in which the student's samples differ from the teacher's, per sample of unit scale.

    It is the critic's prediction less the teacher's from the same noised samples, over the mean distance of the teacher's
    prediction to the sample (DMD, equation 8).
    """
    state = renoised(clean, noise, sigma)
    real, fake = clean_of(teacher, state, sigma), clean_of(critic, state, sigma)
    scale = (clean - real).abs().flatten(1).mean(1).clamp_min(1e-6)
    return torch.nan_to_num((fake - real) / levels(clean, scale))


def matching_loss(clean: Tensor, gradient: Tensor) -> Tensor:
    """Return a loss whose derivative by ``clean`` (B, ...) is ``gradient`` over the number of values."""
    return 0.5 * (clean - (clean - gradient).detach()).square().mean()


def critic_loss(critic: Velocity, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the flow-matching loss of the critic on the student's samples (B, ...), which get no gradient."""
    clean = clean.detach()
    return (critic(renoised(clean, noise, sigma), sigma * TRAIN_STEPS) - (noise - clean)).square().mean()
