"""One photo in, a world folder out. ``build_world`` is the main path; each stage reads the folder and writes into it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lyra_core import segments, stages
from lyra_core.backends import DEPTH_PROVIDERS, make_frame_depth, make_generator, resolve
from lyra_core.build import WorldBuild, package_versions
from lyra_core.camera.trajectories import CHUNK_FRAMES, check_frame_count
from lyra_core.config import WorldCfg, check_limits, from_dict, to_dict, with_preset
from lyra_core.errors import Cancelled, ConfigError, LyraError, ServerError, WorldError
from lyra_core.generate.captions import load_captions
from lyra_core.generate.loop import check_depth_stride
from lyra_core.io.files import sha256_file
from lyra_core.io.video import require_ffmpeg
from lyra_core.jobs.progress import Progress, ProgressNull
from lyra_core.photo.camera import Horizon
from lyra_core.photo.load import load_photo
from lyra_core.splats.feed_forward import check_feed_forward
from lyra_core.types import Photo
from lyra_core.usd._pxr import require_pxr
from lyra_core.world import World

WORKING_FOLDERS = ("frames", "depth", "build", "video.mp4")
"""What ``keep='training'`` drops."""
TRAINING_SPLATS = 100_000
"""Most Gaussians of a world kept for training: with file and stage 12 MB of the 20 that such a world may have."""
KEEPS = ("all", "training")


def build_world(
    photo_path: Path | str, folder: Path | str, cfg: WorldCfg | None = None, *, keep: str = "all", progress: Progress | None = None
) -> World:
    """Make a world of one photo. Called again on an unfinished folder, it goes on where it stopped.

    Afterwards the folder holds the world of exactly this photo and these settings, whatever it held of this photo before: other
    settings are replaced stage by stage, an extension is taken back. Where that world is already there and intact, nothing is
    written. Whatever can be checked is checked before the folder is touched; a first build that fails later leaves no folder.

    Args:
        photo_path: JPEG, PNG, WebP or TIFF.
        folder: of the world; made if missing.
        cfg: settings; the same photo, settings and seed give the same bytes.
        keep: 'all', or 'training' to drop frames, depth and video at the end and keep at most 100,000 Gaussians.

    Raises:
        InputError, ConfigError, WorldError: something given cannot be used; nothing half-written is left of what was there.
        BackendUnavailable: a backend cannot run here.
    """
    cfg = with_preset(cfg or WorldCfg())
    _check_settings(cfg, keep)
    if keep == "training":
        cfg = replace(cfg, splats=replace(cfg.splats, max_count=min(cfg.splats.max_count, TRAINING_SPLATS)))
    given = cfg.photo
    photo = load_photo(
        Path(photo_path), focal=given.focal, intrinsics=given.intrinsics, floor_mask=given.floor_mask, licence=given.licence
    )
    weights = check_backends(cfg, photo)
    segment = segments.check_segment(cfg.generate.trajectory, cfg.generate.frames)
    recipe = {
        "photo": photo.sha256,
        "config": _portable(cfg),
        "depth_file": _file_hash(cfg.depth.path),
        "depth_confidence": _file_hash(cfg.depth.confidence),
        "floor_mask": _file_hash(cfg.photo.floor_mask),
        "captions": load_captions(cfg.generate.captions) if cfg.generate.captions else {},
        "weights": weights,
        "segments": [segment],
        "versions": package_versions(),
    }
    build = WorldBuild.begin(Path(folder), photo_sha256=photo.sha256, recipe=recipe)
    progress = progress or ProgressNull()
    if build.is_complete(keep=keep, working_folders=WORKING_FOLDERS):
        return World(build.folder)
    segments.keep_trajectory_file(build, 0, segment, cfg.generate.trajectory)
    try:
        return _make(build, cfg, photo=photo, keep=keep, progress=progress)
    except (Cancelled, ServerError):
        raise
    except LyraError:
        if build.is_new:
            build.discard()
        raise


def extend_world(folder: Path | str, *, trajectory: str, frames: int, progress: Progress | None = None) -> World:
    """Walk on from the last camera of a world: ``frames`` = 1 + 80 k, the first of which is the last one already there.

    On an unfinished world, that one is finished first. If it is this very extension that was interrupted, finishing is all that
    is done: calling again after a crash never appends twice.

    Raises:
        WorldError: not a world, one whose frames were dropped (``--keep training``), or a build that stopped before it had
            stored the photo.
        InputError, ConfigError: the trajectory cannot be used; the world is left as it was.
    """
    check_frame_count(frames)
    build, cfg = _reopened(Path(folder))
    progress = progress or ProgressNull()
    segment = segments.check_segment(trajectory, frames)
    interrupted = build.manifest.get("extension")
    if build.manifest["status"] != "complete":
        if "photo" not in build.manifest["stages"]:
            raise WorldError(f"{folder}: stopped before the photo was stored; run create again with the photo")
        if interrupted == segment:
            segments.keep_trajectory_file(build, len(build.manifest["recipe"]["segments"]) - 1, segment, trajectory)
        world = _make(build, cfg, photo=None, keep="all", progress=progress)
        if interrupted == segment:
            return world
    _check_weights(build, cfg)
    walked = build.manifest["recipe"]["segments"]
    segments.keep_trajectory_file(build, len(walked), segment, trajectory)
    build.start({**build.manifest["recipe"], "segments": [*walked, segment]}, extension=segment)
    return _make(build, cfg, photo=None, keep="all", progress=progress)


def revert_world(folder: Path | str, *, chunk: int, progress: Progress | None = None) -> World:
    """Go back to the first ``chunk`` chunks of 80 frames; later frames are deleted, the world is made anew from what stays.

    Reverting an extension gives the bytes of the world before it. An interrupted call is repeated, or replaced by another.

    Raises:
        ConfigError: the world has fewer chunks.
    """
    build, cfg = _reopened(Path(folder))
    total = segments.frame_count(build) - 1
    if not 0 <= chunk * CHUNK_FRAMES <= total:
        raise ConfigError(f"chunk: got {chunk}, expected 0..{total // CHUNK_FRAMES}")
    _check_weights(build, cfg)
    kept = segments.cut_segments(build.manifest["recipe"]["segments"], 1 + chunk * CHUNK_FRAMES)
    build.start({**build.manifest["recipe"], "segments": kept})
    return _make(build, cfg, photo=None, keep="all", progress=progress or ProgressNull())


def _make(build: WorldBuild, cfg: WorldCfg, *, photo: Photo | None, keep: str, progress: Progress) -> World:
    """Run every stage that is not done. Read this to know what a world is made of.

    ``inputs`` are the settings that decide a stage, ``after`` the stages whose files it reads; a stage runs again when either
    or its ``version`` has changed. photo: None where the folder already holds it.
    """
    build.reopen()
    run = StageRunner(build, progress)
    context = stages.Context(build.folder, cfg, photo, build)
    settings = _portable(cfg)
    with single_threaded_blas():
        recipe = build.manifest["recipe"]
        depth_files = [recipe.get(name) for name in ("depth_file", "depth_confidence")]
        run(
            "photo",
            context.photo,
            version=1,
            inputs={"photo": build.manifest["photo"]["sha256"], "mask": recipe.get("floor_mask"), "settings": settings["photo"]},
        )
        run(
            "estimate",
            context.estimate,
            version=1,
            after=("photo",),
            inputs={"settings": [settings["photo"], settings["depth"], cfg.quality, *depth_files]},
        )
        run(
            "layout",
            context.layout,
            version=1,
            after=("photo", "estimate"),
            inputs={
                "generator": cfg.generate.generator,
                "seed": cfg.seed,
                "quality": cfg.quality,
                # Loose things stand where this robot still passes.
                **({"variation": [settings["variation"], settings["navigation"]]} if cfg.variation.index else {}),
            },
        )
        run(
            "trajectory",
            context.trajectory,
            version=1,
            after=("estimate", "layout"),
            inputs={
                "segments": build.manifest["recipe"]["segments"],
                "quality": cfg.quality,
                # A tour goes where this robot fits.
                "robot": {key: settings["navigation"][key] for key in stages.ROBOT_INPUTS},
            },
        )
        frame_stages = context.frames(run, settings)
        run(
            "lift",
            context.lift,
            version=1,
            after=("layout", "trajectory", *frame_stages),
            inputs={
                "surface": settings["surface"],
                "splats": settings["splats"],
                # The file counts by its content, so that other weights under the same name make new Gaussians.
                **({"weights": _file_hash(cfg.splats.weights)} if cfg.splats.method == "feed_forward" else {}),
            },
        )
        run(
            "navigation",
            context.navigation,
            version=2,
            after=("estimate", "lift"),
            inputs={"settings": settings["navigation"], "seed": cfg.seed},
        )
        run(
            "detail",
            lambda: stages.write_detail(build.folder, radius=cfg.navigation.robot_radius),
            version=1,
            after=("lift", "navigation"),
        )
        run("usd", context.usd, version=1, after=("lift", "photo"), inputs={"recipe": build.manifest["recipe_id"]})
        if keep == "all":
            run("video", context.video, version=1, after=frame_stages, inputs={"prompt": cfg.generate.prompt})
        context.describe()
        run(
            "report",
            context.report,
            version=1,
            after=("estimate", "lift", "navigation", "usd", *frame_stages),
            inputs={"statistics": build.manifest["statistics"]},
        )
    build.finish(keep=keep, working_folders=WORKING_FOLDERS)
    return World(build.folder)


class StageRunner:
    """Runs stages with a progress bar and keeps their seconds."""

    def __init__(self, build: WorldBuild, progress: Progress) -> None:
        self._build, self.progress = build, progress

    def __call__(
        self,
        name: str,
        work: Callable[[], list[str]],
        *,
        version: int,
        after: tuple[str, ...] = (),
        inputs: dict[str, Any] | None = None,
        steps: int = 1,
    ) -> bool:
        self.progress.stage(name, steps)
        start = time.perf_counter()
        ran = self._build.run(name, work, version=version, after=after, **(inputs or {}))
        if ran:
            self._build.timings[name] = time.perf_counter() - start
        self.progress.update(steps, "" if ran else "already done")
        return ran


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Sums over many threads round differently; one thread gives the same bytes on every core count."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


def _check_settings(cfg: WorldCfg, keep: str) -> None:
    """Refuse what needs neither the photo nor the folder to be refused."""
    check_limits(cfg)
    if cfg.photo.horizon is not None:
        Horizon.parse(cfg.photo.horizon)
    check_frame_count(cfg.generate.frames)
    if keep not in KEEPS:
        raise ConfigError(f"keep: got {keep!r}, expected one of {', '.join(KEEPS)}")
    require_pxr()
    if keep == "all":
        require_ffmpeg()


def check_backends(cfg: WorldCfg, photo: Photo) -> str | None:
    """Look up every backend and the depth file before anything is written; returns what identifies the generator's weights.

    Raises:
        ConfigError, InputError, BackendUnavailable: one of them cannot be used; it is named.
    """
    provider = resolve("depth", cfg.depth.provider)(cfg.depth)
    if hasattr(provider, "check"):
        provider.check(photo)
    elif cfg.depth.path is not None and cfg.depth.provider in DEPTH_PROVIDERS:
        raise ConfigError(f"depth: path: got {cfg.depth.path!r} for provider {cfg.depth.provider!r}, expected provider 'file'")
    generator = make_generator(cfg.generate, quality=cfg.quality)
    if hasattr(generator, "check"):
        generator.check(photo)
    if not getattr(generator, "makes_depth", True):
        check_depth_stride(cfg.depth.frame_stride, cfg.generate)
        make_frame_depth(cfg.depth).check(photo)
    resolve("memory", cfg.generate.memory)()
    resolve("fusion", cfg.surface.fusion)
    check_feed_forward(cfg.splats)
    if cfg.surface.route == "surfaces" and not stages.is_explicit(generator):
        raise ConfigError(f"surface: route: got 'surfaces', but generator {cfg.generate.generator!r} has none; expected 'fusion'")
    return getattr(generator, "weights_id", None)


def _check_weights(build: WorldBuild, cfg: WorldCfg) -> None:
    """Require the generator's weights before a finished world is opened again.

    Raises:
        WorldError, BackendUnavailable: they are others, or missing.
    """
    stages.check_same_weights(build, make_generator(cfg.generate, quality=cfg.quality))


def _portable(cfg: WorldCfg) -> dict[str, Any]:
    """Settings without paths of this machine: files are identified by their content."""
    values = to_dict(cfg)
    values["depth"].update(path=None, confidence=None)
    values["photo"]["floor_mask"] = None
    values["generate"]["captions"] = None
    values["generate"]["lyra2"].update(weights=None, device="auto")
    values["generate"]["trajectory"] = segments.trajectory_name(cfg.generate.trajectory)
    return values


def _file_hash(path: str | None) -> str | None:
    return sha256_file(Path(path)) if path and Path(path).is_file() else None


def _reopened(folder: Path) -> tuple[WorldBuild, WorldCfg]:
    build = WorldBuild.open(folder)
    if build.manifest.get("keep") == "training":
        raise WorldError(f"{folder}: its frames were dropped (--keep training); create it again with --keep all")
    if "recipe" not in build.manifest:
        raise WorldError(f"{folder}: {build.manifest.get('status')}; run create first")
    return build, from_dict(build.manifest["recipe"]["config"], where=f"{folder / 'world.json'}: recipe: config")
