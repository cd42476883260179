"""What the generator is made of: network, codec and encoders, and the velocity that joins them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lyra_core.generate.lyra2.conditioning import ChunkInputs
from lyra_core.generate.lyra2.network import Conditions, Lyra2Network
from lyra_core.generate.lyra2.packing import Packing
from lyra_core.generate.lyra2.samplers import Velocity, guided
from lyra_core.generate.lyra2.vae import VideoCodec


@dataclass(frozen=True)
class Components:
    """Everything with weights."""

    network: Lyra2Network
    codec: VideoCodec
    encode_text: Callable[[str], Tensor]
    """Prompt -> (512, c)."""
    negative_text: Callable[[str | None], Tensor]
    """Negative prompt -> (512, c); None gives the published one."""
    encode_image: Callable[[Tensor], Tensor]
    """Frame (3, H, W) in [-1, 1] -> (257, c)."""
    device: torch.device
    make_velocity: Callable[..., Velocity] | None = None
    """In place of ``guided_velocity``, where several ranks share the work (see parallel.py)."""

    @property
    def packing(self) -> Packing:
        """How the network packs its history."""
        return self.network.packing


def conditions_of(network: Lyra2Network, inputs: ChunkInputs) -> Conditions:
    """Return what the network's blocks need of a chunk's cameras and correspondences."""
    return network.prepare(inputs.plucker[None], inputs.buffer[None])


def guided_velocity(
    network: Lyra2Network, inputs: ChunkInputs, texts: list[Tensor], image: Tensor, *, guidance: float, skip: float = 0.0,
    on_pass: Callable[[int], None] | None = None,
) -> Velocity:
    """Return the velocity of a chunk's new latents as a function of their state.

    Args:
        texts: embedded prompt (512, c), and the negative prompt where there is guidance.
        image: (257, c) tokens of the newest frame.
        skip: share of the noise range, from clean upwards, where the negative pass is left out (Kynkaanniemi et al. 2024).
        on_pass: called before each pass with its number.
    """
    device = inputs.history.device
    conditions = conditions_of(network, inputs)
    rotary = network.rotary(*inputs.history.shape[2:])
    condition, image = inputs.condition[None], image[None].to(device)
    embedded = [text[None].to(device) for text in texts]

    def velocity(state: Tensor, timestep: float) -> Tensor:
        latents = torch.cat([inputs.history, state.to(inputs.history)], 1)[None]
        time = torch.tensor([timestep], device=device)
        active = embedded[:1] if timestep < 1000 * skip else embedded
        passes = []
        for number, text in enumerate(active):
            if on_pass is not None:
                on_pass(number)
            passes.append(network(latents, condition, time, text, image, conditions, rotary=rotary)[0].float())
        return guided(passes[0], passes[1], guidance) if len(passes) == 2 else passes[0]

    return velocity
