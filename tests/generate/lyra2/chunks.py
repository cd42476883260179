"""A small chunk for the tests of what places and shares the network: one packing, fixed inputs, one velocity."""

from __future__ import annotations

import torch
from tiny import IMAGE_DIM, TEXT_DIM

from lyra_core.generate.lyra2.components import guided_velocity
from lyra_core.generate.lyra2.conditioning import ChunkInputs
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.samplers import chunk_noise

PACKING = "f1k1f1s1f2k2_g2"
LATENTS, NEW, HEIGHT, WIDTH = 6, 2, 4, 10
"""43 tokens, which no number of ranks divides."""
# One block of 24 channels is faster on one thread, and the same bits whatever else runs.
torch.set_num_threads(1)


def chunk(*, seed: int = 0) -> tuple[ChunkInputs, list[torch.Tensor], torch.Tensor]:
    """Return inputs of the packing, prompt and negative prompt, and image tokens."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw)

    size = (HEIGHT, WIDTH)
    inputs = ChunkInputs(
        normal(16, LATENTS - NEW, *size), normal(20, LATENTS, *size), normal(384, LATENTS, *size),
        torch.rand(256, LATENTS, *size, generator=draw),
    )
    return inputs, [normal(512, TEXT_DIM), normal(512, TEXT_DIM)], normal(257, IMAGE_DIM)


def noise(*, seed: int = 1) -> torch.Tensor:
    """Return start noise of the new latents."""
    return chunk_noise(seed, (16, NEW, HEIGHT, WIDTH))


@torch.no_grad()
def velocity_of(network: Lyra2Network, *, timestep: float = 700.0) -> torch.Tensor:
    """Return the guided velocity of the chunk."""
    inputs, texts, image = chunk()
    return guided_velocity(network, inputs, texts, image, guidance=5.0)(noise(), timestep)


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference over that of the expected."""
    return float((got - expected).norm() / expected.norm())
