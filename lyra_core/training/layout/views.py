"""Views of the seeded scenes to learn from: as many as wanted, a function of the seed, rendered once and kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.io.files import read_npz, write_npz
from lyra_core.jobs.progress import Progress
from lyra_core.scenes import KINDS, sample_views
from lyra_core.scenes.warp_render import WarpRenderer
from lyra_core.scenes.warp_render_effects import photographed
from lyra_core.training.layout.augment import View

LONG_SIDE = 288
"""Of a view [px]."""
PER_SCENE, SCENES_PER_FILE = 5, 10
KIND_WEIGHTS = (4, 3, 2, 1, 1, 1)
"""How often each of KINDS is drawn: robots live indoors."""
OUTDOORS = ("street", "courtyard")
FIRST_SEED = 5_000_000
"""Of the scenes; those of benchmarks are far below."""
_PARTS = ("rgb", "depth", "labels", "solid")


def load_views(folder: Path, count: int, *, seed: int = 0, device: str = "cpu", long_side: int = LONG_SIDE, processes: int = 1,
               progress: Progress | None = None) -> list[View]:
    """Return the first ``count`` views of a seed; those that the folder lacks are rendered and kept there.

    Args:
        processes: that render; one file of views is made by one of them.

    Raises:
        WorldError: a kept file is of other views or cut off.
    """
    per_file = SCENES_PER_FILE * PER_SCENE
    made = [_File(folder, number, seed, device, long_side) for number in range(-(-count // per_file))]
    if progress is not None:
        progress.stage("views", len(made) * per_file)
    # Started afresh: a forked process cannot use CUDA.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) if processes > 1 else nullcontext() as pool:
        for _ in map(_ensure, made) if pool is None else pool.map(_ensure, made):
            if progress is not None:
                progress.update(per_file)
    return [view for file in made for view in read_views(file.path)][:count]


@dataclass(frozen=True)
class _File:
    """A file of views, and what they are of."""

    folder: Path
    number: int
    seed: int
    device: str
    long_side: int

    @property
    def path(self) -> Path:
        return self.folder / f"views_{self.seed}_{self.long_side}_{self.number:05d}.npz"


def _ensure(file: _File) -> None:
    """Render a file's views if it is missing."""
    if not file.path.exists():
        scenes = range(file.number * SCENES_PER_FILE, (file.number + 1) * SCENES_PER_FILE)
        save_views(file.path, list(render_views(scenes, seed=file.seed, device=file.device, long_side=file.long_side)))


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
            yield View(seen.rgb, seen.depth, seen.labels, seen.solid, case.camera.K, R, case.camera_height, kind in OUTDOORS)


def save_views(path: Path, views: list[View]) -> None:
    """Write views of any shapes to one .npz file."""
    kinds = {"rgb": np.uint8, "depth": np.float16, "labels": np.uint8, "solid": np.int16}
    flat = {name: np.concatenate([getattr(view, name).ravel() for view in views]).astype(kinds[name]) for name in _PARTS}
    write_npz(path, shape=np.array([view.labels.shape for view in views]), K=np.array([view.K for view in views]),
              R_world_camera=np.array([view.R_world_camera for view in views]),
              camera_height=np.array([view.camera_height for view in views]), outdoors=np.array([view.outdoors for view in views]),
              **flat)


def read_views(path: Path) -> list[View]:
    """Read what save_views wrote.

    Raises:
        WorldError: the file's parts do not fit together.
    """
    data = read_npz(path, "shape", "K", "R_world_camera", "camera_height", "outdoors", *_PARTS)
    ends = np.concatenate([[0], np.cumsum(data["shape"].prod(1))])
    if len(data["rgb"]) != 3 * ends[-1] or any(len(data[name]) != ends[-1] for name in _PARTS[1:]):
        raise WorldError(f"{path}: got parts of different lengths, expected {ends[-1]} pixels; delete it to render it again")
    out = []
    for i, (h, w) in enumerate(data["shape"]):
        a, b = ends[i], ends[i + 1]
        depth, labels, solid = (data[name][a:b].reshape(h, w) for name in _PARTS[1:])
        out.append(View(data["rgb"][3 * a : 3 * b].reshape(h, w, 3), depth, labels, solid, data["K"][i], data["R_world_camera"][i],
                        float(data["camera_height"][i]), bool(data["outdoors"][i])))
    return out
