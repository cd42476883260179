"""Many worlds of one photo: the same seen part; other unseen parts, loose things, light and paint, each from the seed.

Variation 0 is the plain world. Variation k draws everything that it changes from (seed, k), so that any one of them can be made
again alone.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from lyra_core.build import MANIFEST
from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.config import WorldCfg
from lyra_core.errors import ConfigError, LyraError, WorldError
from lyra_core.generate.base import ExplicitWorld
from lyra_core.generate.procedural.appearance import relit, repainted
from lyra_core.generate.procedural.props import Prop, copies_of, draw_prop, with_props
from lyra_core.io.files import read_json, write_json
from lyra_core.jobs.progress import Progress, ProgressNull
from lyra_core.navigation import free_space, home_island, with_seen_floor
from lyra_core.navigation.files import RADII
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.types import Camera, FreeSpace, Provenance
from lyra_core.world import World

MOST = 1000
"""Variations of one photo."""
LISTING = "variations.json"
SHARED = ".shared"
"""Folder beside the variations that holds what they have in common until all are done."""
SHARED_STAGES = ("photo", "estimate")
"""Stages that know neither seed nor variation."""
STREAM = 29
"""Sets the variations' random streams apart from the other streams of a seed."""
TRIES = 20
"""Places looked at for each loose thing."""
START_CLEAR = 1.5
"""No loose thing stands nearer to where the photo was taken [m]."""
LOOK_SIDE = 320
"""Longest side of the picture in which a loose thing must not show [px]."""


def variation_folder(folder: Path, index: int) -> Path:
    """Return the world folder of one variation."""
    return folder / f"variation_{index:03d}"


def variation_cfg(cfg: WorldCfg, index: int) -> WorldCfg:
    """Return the settings of one variation; 0 is the plain world of the settings given."""
    if index == 0:
        return replace(cfg, variation=replace(cfg.variation, index=0))
    seed = int(np.random.SeedSequence([cfg.seed, STREAM, index]).generate_state(1)[0])
    return replace(cfg, seed=seed, variation=replace(cfg.variation, index=index))


def varied(
    world: ExplicitWorld, cfg: WorldCfg, *, camera: Camera, T_world_camera: np.ndarray
) -> tuple[ExplicitWorld, dict[str, Any]]:
    """Return the world with loose things, paint and light of its variation, and what was drawn.

    The geometry of what the photo shows stays, and nothing new shows in the photo's view.

    Args:
        world: the plain world of the variation's seed.
        cfg: settings; variation 0 changes nothing.
        camera, T_world_camera: of the photo.
    """
    wanted = cfg.variation
    if wanted.index == 0:
        return world, {}
    clutter_rng, paint_rng, light_rng = np.random.default_rng([cfg.seed, STREAM, wanted.index]).spawn(3)
    props = place_props(world, cfg, clutter_rng, camera=camera, T_world_camera=T_world_camera)
    mesh, paint = repainted(world.mesh, paint_rng, strength=wanted.paint)
    mesh, parts = with_props(mesh, world.parts, props)
    mesh, light = relit(mesh, light_rng, strength=wanted.lighting)
    things = [{"kind": prop.kind, "position": np.round(prop.solid[0].astype(np.float64).mean(0)[:2], 3).tolist()} for prop in props]
    return ExplicitWorld(mesh, parts, world.places), {"clutter": things, **paint, "lighting": light}


def place_props(
    world: ExplicitWorld, cfg: WorldCfg, rng: np.random.Generator, *, camera: Camera, T_world_camera: np.ndarray
) -> list[Prop]:
    """Stand loose things on floor that the photo does not show, where they leave every way open and hide nothing that it shows.

    A thing is taken for the disc round it. For each robot radius of the navigation files and the one configured, the cells of
    the home island that it leaves must still be one piece.
    """
    if cfg.variation.clutter == 0:
        return []
    wanted = int(rng.integers(1, cfg.variation.clutter + 1))
    space = with_seen_floor(free_space(world.parts, cfg=cfg.navigation), world.mesh)
    ways = {radius: home_island(space, radius) for radius in sorted({*RADII, cfg.navigation.robot_radius})}
    cells = np.argwhere(space.free & (space.provenance != Provenance.SEEN))
    view = _PhotoView(world, camera, T_world_camera)
    objects = copies_of(world.mesh, world.parts)
    centres = space.origin + (cells[:, ::-1] + 0.5) * space.cell
    room = space.clearance[cells[:, 0], cells[:, 1]].astype(np.float64)
    room[np.hypot(*centres.T) < START_CLEAR] = 0.0
    placed: list[Prop] = []
    for _ in range(TRIES * wanted):
        if len(placed) == wanted:
            break
        prop, yaw = draw_prop(rng, objects), float(rng.uniform(0.0, 2 * np.pi))
        fits = np.flatnonzero(room > prop.radius + 0.02)
        if not len(fits):
            continue
        # Of four places the one nearest to a wall: rooms are tidied up.
        some = fits[rng.integers(len(fits), size=4)]
        spot = centres[some[np.argmin(room[some])]]
        left = _ways_left(space, ways, spot, prop.radius)
        prop = prop.placed(np.append(spot, space.height_at(spot[None])[0]), yaw)
        if left is None or view.shows(prop):
            continue
        placed.append(prop)
        ways = left
        room = np.minimum(room, np.hypot(*(centres - spot).T) - prop.radius)
    return placed


def _ways_left(space: FreeSpace, ways: dict[float, np.ndarray], spot: np.ndarray, size: float) -> dict[float, np.ndarray] | None:
    """Return the home island (rows, cols) per robot radius beside a disc of radius ``size`` [m]; None if one falls apart."""
    left = {}
    for radius, way in ways.items():
        # One and a half cells: clearance is measured to the squares that the thing touches.
        reach = size + radius + 1.5 * space.cell
        low, high = (np.floor((spot - space.origin + sign * reach) / space.cell).astype(int) + 2 * sign for sign in (-1, 1))
        cols, rows = slice(max(0, low[0]), max(0, high[0] + 1)), slice(max(0, low[1]), max(0, high[1] + 1))
        x = space.origin[0] + (np.arange(way.shape[1])[cols] + 0.5) * space.cell - spot[0]
        y = space.origin[1] + (np.arange(way.shape[0])[rows] + 0.5) * space.cell - spot[1]
        distance = np.hypot(x[None, :], y[:, None])
        rest = way.copy()
        rest[rows, cols] &= distance > reach
        # Where what is left around the disc hangs together, everything does; else the way may still lead round the block.
        if (_pieces(rest[rows, cols]) > 1 and _pieces(rest) > 1) or (way.any() and not rest.any()):
            return None
        left[radius] = rest
    return left


def _pieces(grid: np.ndarray) -> int:
    return int(np.asarray(ndimage.label(grid, np.ones((3, 3), bool), output=np.zeros(grid.shape, np.int32))))


class _PhotoView:
    """What the photo's camera sees of the world, at a small size."""

    def __init__(self, world: ExplicitWorld, camera: Camera, T_world_camera: np.ndarray) -> None:
        scale = min(1.0, LOOK_SIDE / max(camera.width, camera.height))
        self._camera = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
        self._T = T_world_camera
        self._depth = cast_camera(make_ray_tracer(world.mesh.vertices, world.mesh.faces), self._camera, self._T).t

    def shows(self, prop: Prop) -> bool:
        """Tell whether a thing, 5 cm larger all round, would be in the picture."""
        vertices = prop.solid[0].astype(np.float64)
        middle = vertices.mean(0)
        offset = vertices - middle
        grown = middle + offset * (1.0 + 0.05 / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 0.05))
        hits = cast_camera(make_ray_tracer(grown.astype(np.float32), prop.solid[1]), self._camera, self._T)
        return bool((hits.t < self._depth).any())


def build_variations(
    photo_path: Path | str, folder: Path | str, count: int, cfg: WorldCfg | None = None, *, keep: str = "all",
    progress: Progress | None = None,
) -> list[World]:
    """Make ``count`` worlds of one photo in folder/variation_000, variation_001, ... and list them in variations.json.

    Called again, it goes on where it stopped: finished variations are only checked, the one that was interrupted resumes. The
    photo is read and its depth estimated once; the others take these files over (hard links where the disk allows them).

    Raises:
        ConfigError: a count outside 1 to 1000, or whatever build_world raises for its arguments.
        WorldError: the folder holds something else.
    """
    from lyra_core.pipeline import build_world

    folder, cfg, progress = Path(folder), cfg or WorldCfg(), progress or ProgressNull()
    if not 1 <= count <= MOST:
        raise ConfigError(f"variations: got {count}, expected 1 to {MOST}")
    _check_folder(folder)
    stages = 9 + max(1, (cfg.generate.frames - 1) // CHUNK_FRAMES)
    worlds: list[World] = []
    for index in range(count):
        target = variation_folder(folder, index)
        progress.stage(f"variation {index + 1} of {count}", stages)
        _take_shared(folder, target)
        try:
            world = build_world(photo_path, target, variation_cfg(cfg, index), keep=keep, progress=_Inner(progress, folder, target))
        except LyraError:
            if not worlds and not any(folder.glob("variation_*")):
                shutil.rmtree(folder / SHARED, ignore_errors=True)
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()
            raise
        # All stages of a world that was finished before are skipped at once.
        progress.update(stages, "done")
        worlds.append(world)
        _write_listing(folder, cfg, worlds, count)
    shutil.rmtree(folder / SHARED, ignore_errors=True)
    return worlds


def _check_folder(folder: Path) -> None:
    """Remove what a killed run left half-written, and refuse a folder with anything but variations."""
    if folder.exists() and not folder.is_dir():
        raise WorldError(f"{folder}: exists and is not a folder; choose an empty or new one")
    names = rf"(variation_\d{{3}}|{re.escape(LISTING)}|{re.escape(SHARED)})"
    own = re.compile(rf"(\.tmp-\d+-)?{names}")
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    foreign = [path.name for path in entries if not own.fullmatch(path.name)]
    if foreign:
        raise WorldError(f"{folder}: holds {foreign[0]!r}, which is no variation; choose an empty or new folder")
    for path in entries:
        if path.name.startswith(".tmp-"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_listing(folder: Path, cfg: WorldCfg, worlds: list[World], count: int) -> None:
    """Write variations.json: seeds, what was drawn, and which worlds are finished."""
    rows = []
    for index, world in enumerate(worlds):
        said = world.manifest.get("variation", {})
        rows.append({"index": index, "folder": world.folder.name, "seed": variation_cfg(cfg, index).seed,
                     "recipe_id": world.manifest["recipe_id"], "content_hash": world.manifest["content_hash"],
                     "differs_in": said.get("differs_in", []), "randomised": said.get("randomised", {})})
    photo = {key: worlds[0].manifest["photo"][key] for key in ("name", "sha256", "licence")}
    listing = {"schema": 1, "photo": photo, "seed": cfg.seed, "count": count, "finished": len(worlds), "variations": rows}
    write_json(folder / LISTING, listing)


class _Inner:
    """The progress of one world inside that of all: each stage is one step, and its name the message."""

    def __init__(self, outer: Progress, folder: Path, target: Path) -> None:
        self._outer, self._folder, self._target, self._name = outer, folder, target, ""

    def stage(self, name: str, total: int) -> None:
        """Begin a stage; when the first that differs begins, what the worlds share is put aside."""
        self._outer.update(1 if self._name else 0, name)
        self._name = name
        if name == "layout":
            _put_aside(self._folder, self._target)

    def update(self, n: int = 1, message: str = "") -> None:
        """Pass a message on, and hear whether to stop."""
        self._outer.update(0, message if message and message != "already done" else self._name)


def _put_aside(folder: Path, source: Path) -> None:
    """Keep the shared stages of a world for the others, unless these very files are kept already."""
    manifest, kept = read_json(source / MANIFEST), folder / SHARED / MANIFEST
    stages = {name: manifest["stages"][name] for name in SHARED_STAGES}
    if not kept.is_file() or read_json(kept)["stages"] != stages:
        shutil.rmtree(folder / SHARED, ignore_errors=True)
        _copy_stages(source, folder / SHARED, {key: manifest[key] for key in ("schema", "photo")} | {"stages": stages})


def _take_shared(folder: Path, target: Path) -> None:
    """Begin a new variation with the shared stages; the build checks their hashes before it trusts them."""
    if target.exists() or not (folder / SHARED / MANIFEST).is_file():
        return
    shared = read_json(folder / SHARED / MANIFEST)
    start = {key: shared[key] for key in ("schema", "photo", "stages")}
    _copy_stages(folder / SHARED, target, {**start, "photo": {"sha256": shared["photo"]["sha256"]}, "status": "building"})


def _copy_stages(source: Path, target: Path, manifest: dict[str, Any]) -> None:
    """Link or copy the files of a manifest's stages into a new folder, which appears as a whole."""
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    for record in manifest["stages"].values():
        for file in record["files"]:
            (temporary / file).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / file, temporary / file)
            except OSError:
                shutil.copy2(source / file, temporary / file)
    write_json(temporary / MANIFEST, manifest)
    os.replace(temporary, target)
