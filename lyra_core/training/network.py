"""The network to train and the frozen parts around it: from random numbers, Wan 2.1 or Lyra 2.0; whole, in part, or by a LoRA."""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false, reportOptionalCall=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor, nn

from lyra_core.errors import BackendUnavailable, ConfigError
from lyra_core.generate.lyra2.checkpoint import is_added, load_network, load_vae, load_wan_base
from lyra_core.generate.lyra2.encoders import ImageEncoder, TextEncoder, load_image_encoder, load_text_encoder, load_tokenizer
from lyra_core.generate.lyra2.keys import to_published
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.tensors import Spec, open_tensors, write_safetensors
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan, State, VideoCodec
from lyra_core.generate.lyra2.weights import default_folder, open_models
from lyra_core.training.settings import NetworkCfg

ADAPTER = "default"
"""peft's name of the one LoRA that is trained."""
GRID = 4
"""The plain encoder's copy of the newest frame has GRID x GRID tokens."""


def build_network(cfg: NetworkCfg, *, seed: int) -> Lyra2Network:
    """Make the network and say what of it is trained.

    Raises:
        InputError: weights that cannot be read or do not fit.
        ConfigError: ``trainable`` or ``lora_targets`` match nothing.
        BackendUnavailable: a LoRA is asked for and peft is missing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _started(cfg, seed)
        if cfg.lora_rank:
            _add_lora(network, cfg)
    if cfg.trainable and not cfg.lora_rank:
        _freeze(network, cfg.trainable)
    if cfg.encoders == "plain":
        for block in network.blocks:
            block.attn2.set_processor(OneTextProcessor())
            # One key has all the weight, so what makes it is never used.
            block.attn2.to_k.requires_grad_(False)
            block.attn2.norm_k.requires_grad_(False)
    return network


def _started(cfg: NetworkCfg, seed: int) -> Lyra2Network:
    if cfg.weights is None:
        network = Lyra2Network(
            num_attention_heads=cfg.heads, attention_head_dim=cfg.head_dim, ffn_dim=cfg.ffn_dim, num_layers=cfg.layers,
            text_dim=cfg.text_dim, image_dim=cfg.image_dim, freq_dim=cfg.freq_dim, buffer_squeeze=cfg.squeeze,
            in_channels=2 * cfg.codec_channels + 4, out_channels=cfg.codec_channels, packing=cfg.packing,
        )
        # As Wan starts: nothing is predicted until something was learnt.
        nn.init.zeros_(network.proj_out.weight)
        nn.init.zeros_(network.proj_out.bias)
        return network
    path = Path(cfg.weights)
    with open_tensors(path) as source:
        is_lyra = any(is_added(name.removeprefix("net.")) for name in source.specs)
    options = {"head_dim": cfg.head_dim, "packing": cfg.packing}
    network = (
        load_network(path, **options) if is_lyra
        else load_wan_base(path, **options, generator=torch.Generator().manual_seed(seed))
    )
    if network.packing.text != cfg.packing:
        stored = network.packing.text
        raise ConfigError(f"network: packing: got {cfg.packing!r}, but {path} was trained with {stored!r}; expected that")
    # A network that is trained whole keeps float32 weights; under a LoRA the frozen ones stay as they are stored.
    return network if cfg.lora_rank else network.float()


class OneTextProcessor:
    """Cross attention to image tokens and one text token, which stands for 512 equal ones: their mean is the token itself."""

    def __call__(
        self, attn: WanAttention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None = None,
        rotary_emb: Tensor | None = None,
    ) -> Tensor:
        """Return (B, n, D). encoder_hidden_states: (B, image tokens + 1, D)."""
        image, text = encoder_hidden_states[:, :-1], encoder_hidden_states[:, -1:]
        query, key, value = attn.norm_q(attn.to_q(hidden_states)), attn.norm_added_k(attn.add_k_proj(image)), attn.add_v_proj(image)
        heads = [x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)]
        seen = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        return attn.to_out[0](seen + attn.to_v(text))


def _freeze(network: Lyra2Network, trainable: str) -> None:
    parts = [part.strip() for part in trainable.split(",") if part.strip()]
    names = [name for name, _ in network.named_parameters()]
    unused = [part for part in parts if not any(part in name for name in names)]
    if unused:
        raise ConfigError(f"network: trainable: {unused[0]!r} is part of no parameter's name, expected parts as in {names[-1]!r}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))


def _add_lora(network: Lyra2Network, cfg: NetworkCfg) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise BackendUnavailable("LoRA training", reason=str(error), install="pip install 'lyra-worlds[lyra2]'") from error
    targets = lora_layers(network, cfg.lora_targets)
    network.requires_grad_(False)
    network.add_adapter(LoraConfig(r=cfg.lora_rank, lora_alpha=cfg.lora_rank, target_modules=targets), adapter_name=ADAPTER)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def lora_layers(network: nn.Module, targets: str) -> list[str]:
    """Return the blocks' linear layers whose names end as one of the comma-separated targets.

    Raises:
        ConfigError: none does.
    """
    endings = tuple(target.strip() for target in targets.split(",") if target.strip())
    modules = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    found = [name for name in modules if name.startswith("blocks.") and name.endswith(endings)]
    if not found:
        raise ConfigError(f"network: lora_targets: {targets!r} match no layer, expected endings as in {modules[-2]!r}")
    return found


def save_lora(path: Path, parameters: dict[str, Tensor], *, adapter: str = ADAPTER) -> None:
    """Write trained LoRA tensors (peft's names of ours) under the published names, as ``lyra2/lora.py`` and others read them."""
    tensors = {}
    for name, value in parameters.items():
        module, _, side = name.removesuffix(f".{adapter}.weight").rpartition(".")
        tensors[f"diffusion_model.{to_published(module + '.weight').removesuffix('.weight')}.{side}.weight"] = value.contiguous()
    write_safetensors(path, {name: Spec(tuple(t.shape), t.dtype) for name, t in tensors.items()}, tensors.__getitem__)


def build_codec(cfg: NetworkCfg, device: torch.device) -> VideoCodec:
    """Make the codec.

    Raises:
        BackendUnavailable, InputError: the VAE is missing or damaged.
    """
    if cfg.codec == "patch":
        return CodecPatchEven(channels=cfg.codec_channels)
    folder = Path(cfg.vae) if cfg.vae else open_models(default_folder()).path / "vae"
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return CodecWan(load_vae(folder, dtype=dtype, device=device).requires_grad_(False).eval())


class CodecPatchEven(CodecPatch):
    """The fixed codec with channels of about unit variance, as a VAE's latents are normalised: else noise drowns the fine ones.

    The scales are fixed numbers, read once from pictures of procedural rooms: by colour axis, and a quarter for what is not mean.
    """

    def _basis(self, like: Tensor) -> Tensor:
        return _basis(self.channels, like.device).to(like)

    def encode(self, video: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return latents (B, channels, T, h, w) of frames (B, 3, F, H, W) and the state."""
        latents, state = super().encode(video, state)
        return latents / _scales(self.channels, latents.device), state

    def decode(self, latents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Return frames (B, 3, F, H, W) and the state."""
        return super().decode(latents * _scales(self.channels, latents.device), state)


@functools.lru_cache(maxsize=8)
def _basis(channels: int, device: torch.device) -> Tensor:
    return CodecPatch._basis(CodecPatch(channels=channels), torch.zeros(1, device=device))


@functools.lru_cache(maxsize=8)
def _scales(channels: int, device: torch.device) -> Tensor:
    colour = torch.tensor([1.7, 0.5, 0.2]).repeat(-(-channels // 3))[:channels]
    colour[3:] *= 0.25
    return colour.view(1, -1, 1, 1, 1).to(device)


def build_encoders(cfg: NetworkCfg, device: torch.device) -> tuple[Callable[[str], Tensor], Callable[[Tensor], Tensor]]:
    """Make the encoders of captions and of the newest frame.

    Raises:
        BackendUnavailable, InputError: their weights are missing or damaged.
    """
    if cfg.encoders == "plain":
        empty = torch.zeros(1, cfg.text_dim)
        return lambda caption: empty, lambda frame: plain_image(frame, cfg.image_dim)
    models = open_models(default_folder()).path
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    text = TextEncoder(load_text_encoder(models / "text_encoder", dtype=dtype), load_tokenizer(models / "tokenizer"), device=device)
    image = ImageEncoder(load_image_encoder(models / "image_encoder", dtype=dtype), device=device)
    # Captions come back again and again; the text encoder is by far the slowest of the frozen parts.
    return functools.lru_cache(maxsize=256)(text), image


def plain_image(frame: Tensor, channels: int) -> Tensor:
    """Return the mean colours (16, channels) of a grid of a frame (3, H, W), filled up with zeros."""
    cells = F.adaptive_avg_pool2d(frame.float(), (GRID, GRID)).flatten(1).T
    return F.pad(cells[:, :channels], (0, max(0, channels - 3)))
