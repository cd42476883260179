"""Depth Anything 3 as far as Gaussians need it: features of posed views, relative depth, Gaussian parameters; and its weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lyra_core.errors import InputError
from lyra_core.io.files import atomic_path
from lyra_core.splats._torch_backbone import Backbone, CameraEncoder, DA3Size
from lyra_core.splats._torch_heads import DepthHead, GaussianHead
from lyra_core.splats.feed_forward import METADATA_KEY

PREFIXES = ("model.da3.", "da3.", "model.", "")
"""What stands before the main branch's names: in the nested and in the single models, with and without the wrapper's 'model.'."""
UNUSED = ("da3_metric.", "cam_dec.")
"""Branches of the published files that known cameras and depths make superfluous."""
RAYS = "_aux."
"""Part of the names of the ray half of the depth head."""
LISTED = 30
"""Names of a kind that an error message holds."""
VIEWS_AT_ONCE = 8
"""Heads see the views in groups of this many; the result is the same, the memory is not."""
MIN_UNIT = 0.1
"""Cameras closer to the first than this [m] do not make the unit smaller."""


class DA3(nn.Module):
    """The network without its camera decoder, ray head and metric branch."""

    def __init__(self, size: DA3Size) -> None:
        super().__init__()
        self.size = size
        self.backbone = Backbone(size)
        self.cam_enc = CameraEncoder(size)
        self.head = DepthHead(size)
        self.gs_head = GaussianHead(size)

    def features(self, images: Tensor, K: Tensor, T_world_camera: Tensor) -> list[Tensor]:
        """Return four levels of features (V, patches, 2 dim) of views with known cameras.

        On CUDA the backbone runs in bfloat16, as the published model does; cameras stay in float32.

        Args:
            images: (V, 3, H, W), normalised as for ImageNet.
            K: (V, 3, 3) of pictures of that size [px].
            T_world_camera: (V, 4, 4) [m].
        """
        tokens = self.cam_enc(normalised_cameras(T_world_camera), K, images.shape[-2:])
        with torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
            levels = self.backbone(images, tokens)
        return [level.float() for level in levels]

    def depth(self, levels: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """Return (V, H, W) depth in the network's unit."""
        parts = zip(*(level.split(VIEWS_AT_ONCE) for level in levels), strict=True)
        return torch.cat([self.head(part, shape) for part in parts])

    def raw_gaussians(self, levels: Sequence[Tensor], images: Tensor, downsample: int) -> Tensor:
        """Return (V, 38, H // downsample, W // downsample); see decode_gaussians."""
        parts = zip(images.split(VIEWS_AT_ONCE), *(level.split(VIEWS_AT_ONCE) for level in levels), strict=True)
        return torch.cat([self.gs_head(part[1:], part[0], downsample) for part in parts])


def normalised_cameras(T_world_camera: Tensor) -> Tensor:
    """Return (V, 4, 4) cameras relative to the first, their median distance from it as unit: what the camera encoder was shown."""
    T = torch.linalg.inv(T_world_camera[:1].double()) @ T_world_camera.double()
    unit = T[:, :3, 3].norm(dim=1).median().clamp(min=MIN_UNIT)
    T = T.clone()
    T[:, :3, 3] /= unit
    return T.float()


def unit_per_metre(predicted: Tensor, depth: Tensor) -> Tensor:
    """Return the network's unit of length per metre: the median ratio of predicted (V, H, W) to known depth, NaN = unknown.

    The published pipeline takes this scale from camera paths; a known depth measures it directly, also without parallax.

    Raises:
        InputError: no pixel has known depth.
    """
    ratio = (predicted / depth)[torch.isfinite(depth)]
    if not len(ratio):
        raise InputError(f"feed-forward Gaussians: {len(depth)} frames have no pixel of known depth")
    return ratio.median()


@dataclass(frozen=True)
class KeyReport:
    """How the names of a file meet the network's."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]
    """'name: got shape, expected shape'."""
    loaded: int
    unused: int
    """Known parts of the published model that are not needed here."""

    @property
    def ok(self) -> bool:
        """True if every tensor is there, with its shape, and nothing else."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        lists = {"missing": self.missing, "unexpected": self.unexpected, "misshapen": self.misshapen}
        return "; ".join(f"{len(names)} {what}: {_listed(names)}" for what, names in lists.items() if names) or "all fit"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def load_da3(path: Path | str) -> DA3:
    """Load a network, in float32 on the CPU: the published recon/model.pt, a .safetensors of Depth Anything 3, or save_da3's file.

    Raises:
        InputError: not readable, or names or shapes are not the network's; missing and unexpected ones are listed (of each
            kind the first 30; ``key_report`` has them all).
    """
    tensors, size = read_weights(Path(path))
    with torch.device("meta"):
        model = DA3(size)
    report, renamed = match_keys(tensors, model)
    if not report.ok:
        raise InputError(f"{path}: not the weights of this network ({report.loaded} tensors fit): {report}")
    model.load_state_dict({name: tensor.float() for name, tensor in renamed.items()}, strict=True, assign=True)
    return model.eval()


def key_report(path: Path | str) -> KeyReport:
    """Compare a file's names and shapes with the network's; every missing, unexpected and misshapen one is in the report."""
    tensors, size = read_weights(Path(path))
    with torch.device("meta"):
        return match_keys(tensors, DA3(size))[0]


def match_keys(tensors: dict[str, Tensor], model: DA3) -> tuple[KeyReport, dict[str, Tensor]]:
    """Compare names and shapes; return the report and the tensors under the network's names."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    prefix = max(PREFIXES, key=lambda p: sum(p + name in tensors for name in expected))
    renamed, unexpected, unused = {}, [], 0
    for key, tensor in tensors.items():
        if key.startswith(prefix) and (name := key.removeprefix(prefix)) in expected:
            renamed[name] = tensor
        elif _is_unused(key, prefix):
            unused += 1
        else:
            unexpected.append(key)
    got = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
    wrong = [f"{prefix}{name}: got {got[name]}, expected {expected[name]}" for name in got if got[name] != expected[name]]
    missing = [prefix + name for name in expected if name not in renamed]
    return KeyReport(tuple(missing), tuple(unexpected), tuple(wrong), len(renamed) - len(wrong), unused), renamed


def _is_unused(key: str, prefix: str) -> bool:
    """True for known other parts of the published model, and for what a trainer's file holds beside the model."""
    wrapper = "model." if prefix.startswith("model.") else ""
    if not key.startswith(wrapper):
        return True
    name = key.removeprefix(prefix)
    return key.removeprefix(wrapper).startswith(UNUSED) or name.startswith(UNUSED) or (name.startswith("head.") and RAYS in name)


def read_weights(path: Path) -> tuple[dict[str, Tensor], DA3Size]:
    """Read named tensors and the network's sizes. Of .pt files only tensors are read, never other pickled objects.

    Raises:
        InputError: missing, damaged, or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: not readable as weights (.pt with tensors alone, or .safetensors): {said}") from error
    for name in ("module", "model"):
        if isinstance(values, dict) and isinstance(values.get(name), dict):
            values = values[name]
            break
    tensors = {key: value for key, value in values.items() if isinstance(value, Tensor)} if isinstance(values, dict) else {}
    if not tensors:
        got = type(values).__name__
        raise InputError(f"{path}: got {got} without tensors, expected a state dict, alone or under 'module' or 'model'")
    return tensors, DA3Size()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], DA3Size]:
    """Read tensors and sizes; files without the sizes in their metadata are the giant model."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            written = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(f"{path}: not readable as .safetensors: {error}") from error
    if written is None:
        return tensors, DA3Size()
    values: dict[str, Any] = json.loads(written)["size"]
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return tensors, DA3Size(**{**values, **lists})


def save_da3(path: Path, model: DA3, *, licence: str) -> None:
    """Write the network as .safetensors under the nested model's names, sizes and licence as metadata; load_da3 reads it."""
    from safetensors.torch import save_file

    tensors = {PREFIXES[0] + name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    said = json.dumps({"size": asdict(model.size), "licence": licence}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: said})
