"""A Lyra 2 model small enough for tests: two layers, random weights, the published packing and the real code path."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from lyra_core.generate.lyra2.components import Components
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan, VideoCodec
from lyra_core.generate.lyra2.weights import save_models_folder

TEXT_DIM, IMAGE_DIM = 12, 10


def tiny_network(*, seed: int = 0, packing: str | None = None, channels: int = 16) -> Lyra2Network:
    """Return a network with head_dim 12, whose head is not zero, so that its output depends on everything."""
    torch.manual_seed(seed)
    more = {"packing": packing} if packing else {}
    network = Lyra2Network(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=2, text_dim=TEXT_DIM, image_dim=IMAGE_DIM, freq_dim=32,
        buffer_squeeze=4, in_channels=2 * channels + 4, out_channels=channels, **more,
    )
    return network.eval()


def tiny_vae(*, seed: int = 0) -> AutoencoderKLWan:
    """Return Wan's VAE with base width 3."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(base_dim=3).eval()


def tiny_components(*, codec: VideoCodec | None = None, packing: str | None = None, seed: int = 0) -> Components:
    """Return parts with random weights; prompts and pictures are embedded by fixed random numbers."""
    codec = codec or CodecWan(tiny_vae(seed=seed))

    def text(prompt: str | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, prompt or "")))
        return torch.randn(512, TEXT_DIM, generator=generator)

    def image(frame: torch.Tensor) -> torch.Tensor:
        return frame.mean() * torch.ones(257, IMAGE_DIM)

    network = tiny_network(seed=seed, packing=packing, channels=codec.channels)
    return Components(network, codec, text, text, image, torch.device("cpu"))


def patch_codec() -> CodecPatch:
    """Return a fixed codec with as many channels as Wan's VAE."""
    return CodecPatch(channels=16)


def tiny_models(folder: Path, *, seed: int = 0, channels: int = 16) -> Path:
    """Write a models folder of a tiny random network with the fixed codec, as one trained without VAE is stored."""
    return save_models_folder(folder, network=tiny_network(seed=seed, channels=channels), codec=CodecPatch(channels=channels))
