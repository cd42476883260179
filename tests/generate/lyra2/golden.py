"""Numbers recorded from the reference implementation; LYRA2_GOLDEN names another folder of such recordings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra_core.generate.lyra2.keys import to_ours
from lyra_core.generate.lyra2.network import Lyra2Network
from lyra_core.generate.lyra2.packing import PUBLISHED_PACKING

FOLDER = Path(os.environ.get("LYRA2_GOLDEN", Path(__file__).resolve().parents[2] / "assets/lyra2_golden"))


def recorded(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one recording, or skip the test."""
    path = FOLDER / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return dict(np.load(path, allow_pickle=False))


def cases(name: str, suffix: str) -> list[str]:
    """Return the prefixes of all arrays called ``PREFIX_suffix``."""
    path = FOLDER / f"{name}.npz"
    files = np.load(path, allow_pickle=False).files if path.is_file() else []
    return sorted(key.removesuffix(f"_{suffix}") for key in files if key.endswith(f"_{suffix}"))


def tensor(value: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor with a batch axis."""
    return torch.from_numpy(np.ascontiguousarray(value))[None]


def weights_of(data: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return recorded weights under their published names."""
    return {key.removeprefix("weights/"): torch.from_numpy(value) for key, value in data.items() if key.startswith("weights/")}


def network_of(data: dict[str, np.ndarray], *, case: str, packing: str = PUBLISHED_PACKING) -> Lyra2Network:
    """Return the network of a recording, its sizes read from the weights; those of plain Wan leave Lyra's own at random."""
    weights = weights_of(data)
    dim = weights["patch_embedding.weight"].shape[0]
    head_dim = 2 * data[f"{case}_rope_angles"].shape[1]
    squeeze = weights.get("blocks.0.buffer_encoder.1.weight", torch.zeros(1, 2)).shape[1]
    network = Lyra2Network(
        num_attention_heads=dim // head_dim, attention_head_dim=head_dim, ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0],
        num_layers=sum(key.endswith("self_attn.q.weight") for key in weights), text_dim=data["text"].shape[1],
        image_dim=data["image"].shape[1], freq_dim=weights["time_embedding.0.weight"].shape[1], buffer_squeeze=squeeze,
        packing=packing,
    )
    ours = {to_ours(key): value for key, value in weights.items()}
    missing = network.load_state_dict(ours, strict=False)
    assert not missing.unexpected_keys
    assert all("cam_encoder" in key or "buffer_encoder" in key for key in missing.missing_keys)
    assert packing != PUBLISHED_PACKING or not missing.missing_keys
    return network.eval()


def hashed(seed: int, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return the recording's integer generator's values; see ``hashgen`` in its README."""
    i = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) * np.uint64(2**32) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    values = (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)
    return values.reshape(shape) * np.float32(scale)


def hashed_input(data: dict[str, np.ndarray], name: str, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    """Return a generated input with a batch axis, its seed found by the recorded first values."""
    head = data[f"{name}_head"]
    # The README lists the seeds; another recording has others, so they are searched where those lie.
    for seed in range(11000, 12000):
        if np.array_equal(hashed(seed, (len(head),), scale), head):
            return tensor(hashed(seed, shape, scale))
    pytest.fail(f"{name}: no seed of 11000..11999 gives the recorded first values")
