"""Load published weights strictly: every tensor is known before one is read, and one is in memory at a time.

A checkpoint is seen through a ``ViewSource``, which gives its tensors our names and shapes; it must match the module exactly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.keys import to_ours
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.packing import PATCH, PUBLISHED_PACKING, Packing
from lyra_core.generate.lyra2.tensors import Spec, StateSource, TensorSource, View, ViewSource, open_tensors
from lyra_core.io.files import read_json

HEAD_DIMS = {5120: 128, 1536: 128}
"""Width of the network -> channels per attention head, for the widths that Wan 2.1 was published in."""
SHOWN = 3
"""Names listed per group of faulty tensors."""


def specs_of(module: nn.Module) -> dict[str, Spec]:
    """Return what a module's state holds, tied tensors once."""
    return StateSource(module).specs


def key_faults(expected: Mapping[str, Spec], got: Mapping[str, Spec]) -> list[str]:
    """List how tensors differ from those expected: missing, unexpected, wrong shape; alike names together."""
    missing = [name for name in expected if name not in got]
    unexpected = [name for name in got if name not in expected]
    wrong = [name for name in expected if name in got and expected[name].shape != got[name].shape]
    faults = [f"missing: {text}" for text in _groups(missing, lambda name: str(list(expected[name].shape)))]
    faults += [f"unexpected: {text}" for text in _groups(unexpected, lambda name: str(list(got[name].shape)))]
    return faults + [f"wrong shape: {text}" for text in _groups(
        wrong, lambda name: f"got {list(got[name].shape)}, expected {list(expected[name].shape)}")]


def _groups(names: Iterable[str], describe: Callable[[str], str]) -> list[str]:
    """Sum up names that differ in their numbers alone."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        groups.setdefault((re.sub(r"\d+", "*", name), describe(name)), []).append(name)
    return [
        f"{len(found)} x {pattern} {shape}" + (f" ({', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''})"
                                               if found != [pattern] else "")
        for (pattern, shape), found in groups.items()
    ]


def require_keys(where: Path, expected: Mapping[str, Spec], got: Mapping[str, Spec]) -> None:
    """Require the same names and shapes.

    Raises:
        InputError: lists everything that differs.
    """
    faults = key_faults(expected, got)
    if faults:
        raise InputError(f"{where}: got {len(got)} tensors that do not match the {len(expected)} expected: {'; '.join(faults)}")


def fill(
    module: nn.Module, source: TensorSource, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu",
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """Give a module on the meta device its weights, tensor by tensor; they are frozen.

    Args:
        dtype: of the weights; None keeps the source's.
        on_bytes: told the size of each tensor in the source after it was read.

    Raises:
        InputError: names or shapes differ from the module's; all of them are listed, nothing was read.
    """
    expected = specs_of(module)
    require_keys(source.path, expected, source.specs)
    tied = _tied(module)
    for name in expected:
        value = source.read(name)
        value = value.to(device, dtype if value.is_floating_point() else None)
        parameter = nn.Parameter(value, requires_grad=False)
        for alias in tied[name]:
            place(module, alias, parameter)
        on_bytes(source.specs[name].nbytes)
    # What is left are constant buffers, which are in no checkpoint.
    module.to(device)


def _tied(module: nn.Module) -> dict[str, list[str]]:
    """Return for the first name of each tensor all its names."""
    names: dict[int, list[str]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        names.setdefault(id(value), []).append(name)
    return {aliases[0]: aliases for aliases in names.values()}


def place(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a tensor where a parameter or buffer of that name is; a parameter given for several names ties them."""
    owner_name, _, attribute = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if attribute in owner._buffers:
        owner._buffers[attribute] = value.detach()
    else:
        owner._parameters[attribute] = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)


def without_weights(build: Callable[[], nn.Module]) -> Any:
    """Build a module whose parameters are on the meta device; its constant buffers are real."""
    with init_empty_weights(include_buffers=False):
        module: Any = build().eval()
    # What transformers ties is two parameters after that.
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    return module


def published_network(source: TensorSource) -> ViewSource:
    """See a network's checkpoint under our names, whether published by Lyra 2.0, by Wan 2.1, by diffusers or by us.

    Raises:
        InputError: two tensors would get the same name.
    """
    views: dict[str, View] = {}
    for name, spec in source.specs.items():
        # peft leaves base_layer in the names of modules that have adapters.
        ours = to_ours(name.replace(".base_layer.", "."))
        if ours is None:
            continue
        if ours in views:
            raise InputError(f"{source.path}: got {views[ours].name} and {name} for {ours}, expected one of them")
        conv = ours == "patch_embedding.weight" and len(spec.shape) == 5
        views[ours] = View(name, _flat if conv else None)
    return ViewSource(source, views)


def _flat(weight: Tensor) -> Tensor:
    """Make a linear layer's weight (D, c t h w) of a patch convolution's (D, c, t, h, w)."""
    return weight.flatten(1)


def network_config(
    where: Path, specs: Mapping[str, Spec], *, head_dim: int | None = None, packing: str | None = None
) -> dict[str, Any]:
    """Deduce a network's settings from the shapes of its tensors (our names).

    Args:
        head_dim: channels per attention head, which no shape tells; None is known for the published widths.
        packing: None is the published one.

    Raises:
        InputError: a tensor it is deduced from is missing, or the head size is not known.
    """
    def shape(name: str) -> tuple[int, ...]:
        if name not in specs:
            raise InputError(f"{where}: got {len(specs)} tensors without {name}, expected those of a Wan 2.1 or Lyra 2.0 network")
        return specs[name].shape

    dim = shape("patch_embedding.weight")[0]
    head_dim = head_dim or HEAD_DIMS.get(dim)
    if head_dim is None or dim % head_dim:
        raise InputError(f"{where}: width {dim}: got head size {head_dim}, expected a divisor; it cannot be seen in the weights "
                         "and must be given (--head-dim)")
    squeeze = "blocks.0.buffer_encoder.0.weight"
    return {
        "num_attention_heads": dim // head_dim, "attention_head_dim": head_dim,
        "ffn_dim": shape("blocks.0.ffn.net.0.proj.weight")[0],
        "num_layers": 1 + max(int(name.split(".")[1]) for name in specs if name.startswith("blocks.")),
        "text_dim": shape("condition_embedder.text_embedder.linear_1.weight")[1],
        "image_dim": shape("condition_embedder.image_embedder.norm1.weight")[0],
        "freq_dim": shape("condition_embedder.time_embedder.linear_1.weight")[1],
        # Plain Wan has none; the published size is then what Lyra adds.
        "buffer_squeeze": shape(squeeze)[0] if squeeze in specs else 256,
        "in_channels": shape("patch_embedding.weight")[1] // PATCH**2, "out_channels": shape("proj_out.weight")[0] // PATCH**2,
        "packing": packing or PUBLISHED_PACKING,
    }


def empty_network(config: Mapping[str, Any]) -> Lyra2Network:
    """Return a network without weights.

    Raises:
        InputError: the settings make none.
    """
    try:
        return without_weights(lambda: Lyra2Network(**config))
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(f"network: config.json: these settings make no network: {str(error).splitlines()[0]}") from error


def load_network(
    path: Path, *, head_dim: int | None = None, packing: str | None = None, dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu", on_bytes: Callable[[int], None] = lambda n: None,
) -> Lyra2Network:
    """Load a Lyra 2.0 network from a published checkpoint or a converted folder.

    Raises:
        InputError: not readable, or any tensor missing, unexpected or of the wrong shape.
    """
    with published_network(open_tensors(path)) as source:
        network = empty_network(stored_config(path) or network_config(path, source.specs, head_dim=head_dim, packing=packing))
        fill(network, source, dtype=dtype, device=device, on_bytes=on_bytes)
    return network.requires_grad_(True)


def stored_config(path: Path) -> dict[str, Any] | None:
    """Return the settings beside converted weights, without the names that start with an underscore; None where there are none."""
    if not (path.is_dir() and (path / "config.json").is_file()):
        return None
    config = read_json(path / "config.json")
    if not isinstance(config, dict):
        raise InputError(f"{path / 'config.json'}: got {type(config).__name__}, expected a table of settings")
    if config.get("_class_name", "Lyra2Network") != "Lyra2Network":
        return None
    return {key: value for key, value in config.items() if not key.startswith("_")}


def is_added(name: str) -> bool:
    """Tell whether Lyra 2.0 adds this tensor to Wan 2.1."""
    return name.startswith("clean_patch_embeddings.") or ".cam_encoder." in name or ".buffer_encoder." in name


@torch.no_grad()
def initialise_from_wan(network: Lyra2Network, source: TensorSource, *, generator: torch.Generator | None = None) -> None:
    """Start a network from Wan 2.1's image-to-video weights, as Lyra 2.0's training does.

    Each history segment's patch embedding is Wan's, tiled over its larger patch and divided by the number of tiles, so that a
    patch of equal parts embeds as each part does. The encoders of rays and correspondences are normal with standard deviation
    D^-1/2, cut at three of them.

    Args:
        network: with weights or on the meta device; it keeps its type and place if it has weights.
        source: Wan's tensors, in Wan's or diffusers' naming.
        generator: of the random numbers.

    Raises:
        InputError: a tensor is missing, unexpected, or of the wrong shape.
    """
    wan = published_network(source)
    expected = specs_of(network)
    require_keys(source.path, {name: spec for name, spec in expected.items() if not is_added(name)}, wan.specs)
    parameters = dict(network.named_parameters())

    def put(name: str, value: Tensor) -> None:
        if parameters[name].is_meta:
            place(network, name, value)
        else:
            parameters[name].copy_(value)

    for name in wan.specs:
        put(name, wan.read(name))
    weight, bias = wan.read("patch_embedding.weight"), wan.read("patch_embedding.bias")
    for i, segment in enumerate(network.packing.history):
        put(f"clean_patch_embeddings.{i}.weight", tiled_patch(weight, segment.kernel))
        put(f"clean_patch_embeddings.{i}.bias", bias.clone())
    std = weight.shape[0] ** -0.5
    for name, spec in expected.items():
        if is_added(name) and not name.startswith("clean_patch_embeddings."):
            value = torch.empty(spec.shape)
            nn.init.trunc_normal_(value, std=std, a=-3 * std, b=3 * std, generator=generator)
            put(name, value.to(weight.dtype))


def tiled_patch(weight: Tensor, kernel: tuple[int, int, int]) -> Tensor:
    """Return the weight (D, c kt 2kh 2kw) of a patch that is larger by ``kernel``, from (D, c 2 2): tiled and divided.

    Each latent pixel of the larger patch gets the weight of its place modulo the small patch's size.
    """
    small = weight.unflatten(1, (-1, 1, PATCH, PATCH))
    large = small.repeat(1, 1, *kernel)
    return large.flatten(1) / (kernel[0] * kernel[1] * kernel[2])


def load_wan_base(
    path: Path, *, head_dim: int | None = None, packing: str = PUBLISHED_PACKING, generator: torch.Generator | None = None
) -> Lyra2Network:
    """Make a Lyra 2.0 network of Wan 2.1's image-to-video checkpoint, to train it. The type is the checkpoint's.

    Raises:
        InputError: not readable, or not such a checkpoint.
    """
    Packing.parse(packing)
    with open_tensors(path) as source:
        config = network_config(path, published_network(source).specs, head_dim=head_dim, packing=packing)
        network = empty_network(config)
        initialise_from_wan(network, source, generator=generator)
    return network.train().requires_grad_(True)


def published_vae(source: TensorSource) -> ViewSource:
    """See a VAE's checkpoint under diffusers' names, whether in those or in Wan's."""
    if not any(name.startswith("encoder.downsamples.") for name in source.specs):
        return ViewSource(source, {name: View(name) for name in source.specs})
    # diffusers' conversion only moves values, so names may travel in their place.
    renamed = convert_wan_vae_to_diffusers({name: name for name in source.specs})
    return ViewSource(source, {new: View(old) for new, old in renamed.items()})


def vae_config(where: Path, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Deduce a VAE's settings from the shapes of its tensors (diffusers' names).

    Raises:
        InputError: it has not the published layout, four levels of two blocks and 16 latent channels, whose statistics are known.
    """
    levels = [f"encoder.down_blocks.{3 * i}.conv2.weight" for i in range(4)]
    needed = ["encoder.conv_in.weight", "decoder.conv_out.weight", "quant_conv.weight", *levels]
    missing = [name for name in needed if name not in specs]
    if missing:
        raise InputError(f"{where}: got {len(specs)} tensors without {', '.join(missing)}, expected those of Wan 2.1's VAE")
    base, channels = specs["encoder.conv_in.weight"].shape[0], specs["quant_conv.weight"].shape[0] // 2
    if channels != 16:
        raise InputError(f"{where}: got {channels} latent channels without statistics, expected 16 or a config.json beside them")
    return {
        "base_dim": base, "z_dim": channels, "num_res_blocks": 2, "dim_mult": [specs[name].shape[0] // base for name in levels],
        "temperal_downsample": [f"encoder.down_blocks.{3 * i + 2}.time_conv.weight" in specs for i in range(3)],
    }


def load_vae(path: Path, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> AutoencoderKLWan:
    """Load Wan 2.1's VAE from its ``.pth`` file, a diffusers folder or a converted one.

    Raises:
        InputError: not readable, or any tensor missing, unexpected or of the wrong shape.
    """
    with published_vae(open_tensors(path)) as source:
        vae = empty_vae(path, source.specs)
        fill(vae, source, dtype=dtype, device=device)
    return vae


def empty_vae(path: Path, specs: Mapping[str, Spec]) -> AutoencoderKLWan:
    """Return a VAE without weights, by its config.json or else by its tensors' shapes."""
    file = path / "config.json"
    if path.is_dir() and file.is_file():
        config = read_json(file)
        return without_weights(lambda: AutoencoderKLWan.from_config(config))  # type: ignore[return-value]
    config = vae_config(path, specs)
    return without_weights(lambda: AutoencoderKLWan(**config))
