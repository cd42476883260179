"""Gaussians predicted by a network from posed frames: the Gaussian head of Depth Anything 3, chunk by chunk.

Camera path and depth are the world's own. The published pipeline estimates both anew from the video, which is where its jitter
comes from; here the network adds appearance, shape, opacity and small offsets to geometry that is already known.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.config import SplatCfg
from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.types import Frame, GaussianCloud

BORDER = 8 / 256
"""Share of the picture left out on each side, where predictions are poor."""
TOLERANCE = 1.0
"""A point second nearest to its own chunk stays if it is at most this much further [m]."""
INVISIBLE = 1 / 255
"""Gaussians of lower opacity are never drawn."""
FETCH = 'hf download nvidia/Lyra-2.0 --include "checkpoints/recon/*" --local-dir .'
LICENCE = "NVIDIA's licence of Lyra-2.0: internal research only, no redistribution"
METADATA_KEY = "lyra_worlds"
"""Metadata of .safetensors files written here: JSON of 'size' and 'licence'. One key, since their order is not fixed."""
TORCH = "pip install 'lyra-worlds[lyra2]'"


@dataclass(frozen=True)
class Chunk:
    """A run of frames that the network sees at once."""

    start: int
    stop: int
    kept: int
    """Frames before this one belong to the chunk before."""


def chunks_of(count: int, chunk: int, overlap: int) -> list[Chunk]:
    """Cut ``count`` frames into chunks that share ``overlap`` frames with the one before; shared frames stay with that one."""
    out = [Chunk(0, min(chunk, count), 0)]
    while out[-1].stop < count:
        start = out[-1].stop - overlap
        out.append(Chunk(start, min(start + chunk, count), start + overlap))
    return out


def check_feed_forward(cfg: SplatCfg) -> None:
    """Refuse settings that cannot work here, before anything is made.

    Raises:
        BackendUnavailable: no torch, or no weights; how to get them and their licence are named.
        ConfigError: chunk and overlap do not fit. InputError: the weights' file does not exist.
    """
    if cfg.method != "feed_forward":
        return
    if not cfg.overlap < cfg.chunk:
        raise ConfigError(f"splats: overlap: got {cfg.overlap}, expected less than chunk ({cfg.chunk})")
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("safetensors") is None:
        raise BackendUnavailable("splats method 'feed_forward'", reason="torch or safetensors is not installed", install=TORCH)
    if cfg.weights is None:
        raise BackendUnavailable(
            "splats method 'feed_forward'",
            reason=f"splats: weights names no file ({LICENCE})",
            install=f"{FETCH}, then splats: weights: checkpoints/recon/model.pt",
        )
    if not Path(cfg.weights).is_file():
        raise InputError(f"splats: weights: {cfg.weights} is not a file; {FETCH} fetches checkpoints/recon/model.pt ({LICENCE})")


def weights_licence(cfg: SplatCfg) -> str:
    """Return the licence that a fine-tuned network's file names, else that of the published weights."""
    path = Path(cfg.weights or "")
    if path.suffix != ".safetensors" or not path.is_file():
        return LICENCE
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        metadata = json.loads(stream.read(length)).get("__metadata__", {})
    return str(json.loads(metadata[METADATA_KEY])["licence"]) if METADATA_KEY in metadata else LICENCE


def splats_feed_forward(frames: Sequence[Frame], cfg: SplatCfg) -> GaussianCloud:
    """Predict Gaussians of degree 0 from posed depth frames of one size, on CUDA where it is there.

    Each chunk's Gaussians stay where its own cameras are (about) the nearest that see them. More than cfg.max_count are thinned
    evenly, see ``thinned``. Provenance is that of the pixel a Gaussian comes from.

    Raises:
        BackendUnavailable, ConfigError, InputError: as check_feed_forward; or the weights do not fit; or no pixel has depth.
    """
    check_feed_forward(cfg)
    import torch

    from lyra_core.splats._torch_da3 import load_da3
    from lyra_core.splats._torch_infer import chunk_arrays, owned

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_da3(Path(cfg.weights or "")).to(device)
    chunks = chunks_of(len(frames), cfg.chunk, cfg.overlap)
    mine = [frames[c.kept : c.stop] for c in chunks]
    parts: list[dict[str, np.ndarray]] = []
    for i, c in enumerate(chunks):
        found = chunk_arrays(model, frames[c.start : c.stop], c.kept - c.start, cfg.downsample, BORDER)
        stays = (found["opacities"] >= INVISIBLE) & owned(found["means"], i, mine, TOLERANCE, device)
        parts.append({name: value[stays] for name, value in found.items()})
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not len(arrays["means"]):
        raise InputError(f"splats: method 'feed_forward' left no Gaussian of {len(frames)} frames; are these weights trained?")
    cloud = GaussianCloud(arrays["means"], arrays["quats_wxyz"], arrays["scales"], arrays["opacities"], arrays["dc"][:, None],
                          arrays["provenance"])
    return thinned(cloud, cfg.max_count)


def thinned(cloud: GaussianCloud, max_count: int) -> GaussianCloud:
    """Return at most max_count Gaussians: one at random out of each run of equal length, grown so that they cover as much.

    Runs follow the order of frames and pixels, so that thinning is even over the picture, and no region is cut off. On a draft room
    (129,024 to 60,000 and 20,000) held-out views keep 22.5 and 21.9 dB of 23.4; keeping the largest opacity times area gave 17.1
    and 9.1 dB. The choice is the same in every run.
    """
    count = len(cloud.means)
    if count <= max_count:
        return cloud
    jitter = np.random.default_rng(0).uniform(size=max_count)
    rows = np.unique(((np.arange(max_count) + jitter) * (count / max_count)).astype(np.int64).clip(max=count - 1))
    grown = cloud.scales[rows] * np.float32(np.sqrt(count / len(rows)))
    return GaussianCloud(cloud.means[rows], cloud.quats_wxyz[rows], grown, cloud.opacities[rows], cloud.sh[rows],
                         cloud.provenance[rows])
