"""Numbers by formula and a tiny network of them, as the README of tests/assets/da3_golden says."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from surface_scenes import mesh_frame, room_mesh

from lyra_core.camera.se3 import look_at
from lyra_core.rays.base import make_ray_tracer
from lyra_core.splats._torch_backbone import DA3Size
from lyra_core.splats._torch_da3 import DA3
from lyra_core.types import Camera, Frame

GOLDEN = Path(__file__).parents[1] / "assets" / "da3_golden"
TINY = DA3Size(dim=32, depth=6, heads=2, out_layers=(1, 2, 3, 5), alternate_from=2, position_grid=4, features=16,
               channels=(8, 12, 16, 16))
SCALES = ("norm.weight", "norm1.weight", "norm2.weight", ".gamma")


def hashgen(seed: int, shape: Sequence[int], scale: float) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.uint64(seed << 32) + np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)).reshape(shape) * np.float32(scale)


def formula_weight(name: str, shape: Sequence[int]) -> torch.Tensor:
    seed = zlib.crc32(name.encode())
    if len(shape) == 1:
        return torch.from_numpy(hashgen(seed, shape, 0.25) + np.float32(name.endswith(SCALES)))
    scale = 1.0 if name.endswith(("_token", "pos_embed")) else np.float32(2.0 / np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(hashgen(seed, shape, scale))


def tiny_network() -> DA3:
    model = DA3(TINY)
    model.load_state_dict({name: formula_weight(name, tuple(t.shape)) for name, t in model.state_dict().items()})
    return model.eval()


def walk(count: int, *, width: int = 96, height: int = 64) -> list[Frame]:
    """Walk through the surface tests' room; colours, depths and poses are exact."""
    mesh, camera = room_mesh(), Camera.from_focal(0.6 * width, width, height)
    tracer = make_ray_tracer(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))
    eyes = [np.array([-1.8 + 0.05 * i, 0.3 * np.sin(0.2 * i), 1.4]) for i in range(count)]
    poses = [look_at(eye, eye + [2.0, 0.5, -0.4]) for eye in eyes]
    return [mesh_frame(mesh, camera, T, provenance=i % 3, tracer=tracer) for i, T in enumerate(poses)]
