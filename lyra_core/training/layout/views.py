"""Views of the seeded scenes to learn from: as many as wanted, a function of the seed, rendered once and kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.jobs.progress import Progress
from lyra_core.scenes import KINDS, sample_views
from lyra_core.scenes.warp_render import WarpRenderer
from lyra_core.scenes.warp_render_effects import photographed
from lyra_core.training.layout.augment import View

LONG_SIDE = 208
"""Of a view [px]."""
PER_SCENE, SCENES_PER_FILE = 5, 20
KIND_WEIGHTS = (4, 3, 2, 1, 1, 1)
"""How often each of KINDS is drawn: robots live indoors."""
FIRST_SEED = 5_000_000
"""Of the scenes; those of benchmarks are far below."""
_PARTS = ("rgb", "depth", "labels", "solid")


def load_views(folder: Path, count: int, *, seed: int = 0, device: str = "cpu", long_side: int = LONG_SIDE,
               progress: Progress | None = None) -> list[View]:
    """Return the first ``count`` views of a seed; those that the folder lacks are rendered and kept there.

    Raises:
        WorldError: a kept file is of other views or cut off.
    """
    views: list[View] = []
    number = 0
    if progress is not None:
        progress.stage("views", count)
    while len(views) < count:
        path = folder / f"views_{seed}_{long_side}_{number:05d}.npz"
        if not path.exists():
            scenes = range(number * SCENES_PER_FILE, (number + 1) * SCENES_PER_FILE)
            save_views(path, list(render_views(scenes, seed=seed, device=device, long_side=long_side)))
        found = read_views(path)
        views += found
        number += 1
        if progress is not None:
            progress.update(len(found))
    return views[:count]


def render_views(scenes: range, *, seed: int, device: str = "cpu", long_side: int = LONG_SIDE) -> Iterator[View]:
    """Render PER_SCENE views of each scene, as random cameras would take them."""
    renderer = WarpRenderer(device)
    kinds = [kind for kind, weight in zip(KINDS, KIND_WEIGHTS, strict=True) for _ in range(weight)]
    for number in scenes:
        rng = np.random.default_rng([seed, FIRST_SEED + number, 77])
        kind = kinds[int(rng.integers(len(kinds)))]
        for case in sample_views(FIRST_SEED + number, kind, PER_SCENE, rng):
            scale = long_side / max(case.camera.width, case.camera.height)
            case = case.resized(round(case.camera.width * scale), round(case.camera.height * scale))
            effects = replace(photographed(case.effects, rng, width=long_side), bounce_samples=3, filter_levels=3)
            seen = renderer.render(case.scene, case.camera, case.T_world_camera, effects=effects)
            R = case.T_world_camera[:3, :3]
            yield View(seen.rgb, seen.depth, seen.labels, seen.solid, case.camera.K, R, case.camera_height)


def save_views(path: Path, views: list[View]) -> None:
    """Write views of any shapes to one .npz file."""
    kinds = {"rgb": np.uint8, "depth": np.float16, "labels": np.uint8, "solid": np.int16}
    flat = {name: np.concatenate([getattr(view, name).ravel() for view in views]).astype(kinds[name]) for name in _PARTS}
    write_npz(path, shape=np.array([view.labels.shape for view in views]), K=np.array([view.K for view in views]),
              R_world_camera=np.array([view.R_world_camera for view in views]),
              camera_height=np.array([view.camera_height for view in views]), **flat)


def read_views(path: Path) -> list[View]:
    """Read what save_views wrote.

    Raises:
        WorldError: the file's parts do not fit together.
    """
    data = read_npz(path, "shape", "K", "R_world_camera", "camera_height", *_PARTS)
    ends = np.concatenate([[0], np.cumsum(data["shape"].prod(1))])
    if len(data["rgb"]) != 3 * ends[-1] or any(len(data[name]) != ends[-1] for name in _PARTS[1:]):
        raise WorldError(f"{path}: got parts of different lengths, expected {ends[-1]} pixels; delete it to render it again")
    out = []
    for i, (h, w) in enumerate(data["shape"]):
        a, b = ends[i], ends[i + 1]
        depth, labels, solid = (data[name][a:b].reshape(h, w) for name in _PARTS[1:])
        out.append(View(data["rgb"][3 * a : 3 * b].reshape(h, w, 3), depth, labels, solid, data["K"][i], data["R_world_camera"][i],
                        float(data["camera_height"][i])))
    return out
