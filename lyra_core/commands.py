"""The verbs of the command line that core owns. The functions' arguments are the options; tyro reads them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from lyra_core.config import Quality, WorldCfg, from_dict, load_config
from lyra_core.errors import ConfigError, InputError
from lyra_core.world import World

if TYPE_CHECKING:
    from lyra_core.jobs.progress import ProgressEvent

_DEFAULTS = WorldCfg()


def _arg(metavar: str, default: object) -> Any:
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


Folder = Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="DIR")]
Quiet = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Config = Annotated[str | None, _arg("FILE|NAME", "standard")]
Seed = Annotated[int | None, _arg("INT", _DEFAULTS.seed)]
Size = Annotated[Quality | None, _arg("{draft,standard,full}", _DEFAULTS.quality)]
Focal = Annotated[str | None, _arg("28mm|900px", "EXIF, else estimated")]
Intrinsics = Annotated[str | None, _arg("FX,FY,CX,CY", "none")]
FloorMask = Annotated[str | None, _arg("PNG", "none")]
Horizon = Annotated[str | None, _arg("ROW[,ROLL]", "estimated")]
Height = Annotated[float | None, _arg("METRES", "estimated")]
Scene = Annotated[Literal["auto", "indoor", "outdoor"] | None, _arg("{auto,indoor,outdoor}", _DEFAULTS.photo.scene)]
PriorUse = Annotated[Literal["auto", "off"] | None, _arg("{auto,off}", _DEFAULTS.photo.prior)]
CameraPath = Annotated[str | None, _arg("PRESET|FILE", _DEFAULTS.generate.trajectory)]
Frames = Annotated[int | None, _arg("INT", _DEFAULTS.generate.frames)]
Generator = Annotated[str | None, _arg("NAME|CLASS", _DEFAULTS.generate.generator)]
Server = Annotated[str | None, _arg("URL", "none")]
Depth = Annotated[str | None, _arg("NAME|CLASS", _DEFAULTS.depth.provider)]
DepthFile = Annotated[str | None, _arg("FILE", "none")]
DepthUnit = Annotated[Literal["auto", "m", "cm", "mm"] | None, _arg("{auto,m,cm,mm}", _DEFAULTS.depth.unit)]
DepthKind = Annotated[Literal["auto", "depth", "inverse", "range"] | None, _arg("{auto,depth,inverse,range}", _DEFAULTS.depth.kind)]
DepthConfidence = Annotated[str | None, _arg("FILE", "none")]
DepthModel = Annotated[str | None, _arg("ID|DIR", "the provider's")]
Prompt = Annotated[str | None, _arg("TEXT", "none")]
Preset = Annotated[Literal["repo", "paper", "custom"] | None, _arg("{repo,paper,custom}", _DEFAULTS.generate.lyra2.preset)]
Weights = Annotated[str | None, _arg("DIR", "$LYRA_WORLDS_MODELS, else the user's cache")]
Distilled = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Vram = Annotated[str | None, _arg("auto|24|48|80", _DEFAULTS.generate.lyra2.vram)]
Captions = Annotated[str | None, _arg("FILE", "none")]
FrameDepth = Annotated[str | None, _arg("NAME|CLASS", _DEFAULTS.depth.frames_provider)]
Licence = Annotated[str | None, _arg("TEXT", _DEFAULTS.photo.licence)]
Variations = Annotated[int | None, _arg("N", "one plain world")]
KeepAppearance = Annotated[bool, tyro.conf.FlagCreatePairsOff]
AsJson = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")]


def create(
    photo: Positional[Path], *, output: Folder, config: Config = None, seed: Seed = None, quality: Size = None,
    focal: Focal = None, intrinsics: Intrinsics = None, camera_height: Height = None, horizon: Horizon = None,
    floor_mask: FloorMask = None, scene: Scene = None, prior: PriorUse = None, trajectory: CameraPath = None, frames: Frames = None,
    generator: Generator = None, server: Server = None, depth: Depth = None, depth_file: DepthFile = None,
    depth_unit: DepthUnit = None, depth_kind: DepthKind = None, depth_confidence: DepthConfidence = None,
    depth_model: DepthModel = None, frame_depth: FrameDepth = None, prompt: Prompt = None, captions: Captions = None,
    preset: Preset = None, weights: Weights = None, distilled: Distilled = False, vram: Vram = None, photo_licence: Licence = None,
    variations: Variations = None, keep_appearance: KeepAppearance = False,
    keep: Literal["all", "training"] = "all", quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Make a world folder from one photo. Run again after a crash or Ctrl-C, it goes on where it stopped.

    Args:
        photo: JPEG, PNG, WebP or TIFF.
        output: The world's folder; made if missing.
        config: YAML file with what differs from the defaults, or draft, standard, full.
        seed: Decides what the photo does not show.
        quality: Sizes of frames, textures and meshes.
        focal: Focal length: 35 mm equivalent, or pixels of the photo.
        intrinsics: Focal lengths and principal point in pixels of the upright photo, in place of --focal.
        camera_height: Height of the camera above the floor [m]; sets the metric scale.
        horizon: Where the horizon crosses the picture's middle column, as a share of its height from the top, such as 0.42; then,
            if known, by how many degrees it rises to the right, such as 0.42,-2.
        floor_mask: Picture in the photo's shape, white where floor is seen.
        scene: Kind of place.
        prior: The learned prior of floor, walls and things; off: lines, colours and edges alone.
        trajectory: Camera path: walk_forward, look_around, orbit, zoom_in_out, loop, tour, or a Lyra .npz file.
        frames: Number of frames, 1 + 80 k.
        generator: Generator's name or module:Class.
        server: http://HOST:PORT of a running official Lyra 2.0 server, for generator lyra2-server.
        depth: Depth provider: geometric, file, depth_anything, depth_anything_3, depth_pro, or module:Class.
        depth_file: Depth of the photo from a file: .npy, .npz, .exr, .tiff or 16-bit .png.
        depth_unit: Unit of the depth file; auto: integers are millimetres, floating-point numbers metres.
        depth_kind: Distance along the optical axis, one over it (per metre), or distance along each ray.
        depth_confidence: Confidence of the depth file's pixels (8-bit .png or .npy); the lowest level is dropped.
        depth_model: Model of the network depth providers: hub id or folder.
        frame_depth: Depth of generated frames, for generators that make none: depth_anything, depth_anything_3, or module:Class.
        prompt: Caption for text-conditioned generators.
        captions: Lyra's captions.json: one caption per chunk of 80 frames, in place of the prompt.
        preset: Generator lyra2: the released code's settings or the paper's, where they differ.
        weights: Generator lyra2: folder of converted weights (lyra-worlds models convert).
        distilled: Generator lyra2: four steps without guidance, about 15 times as fast.
        vram: Generator lyra2: memory to plan for [GB].
        photo_licence: Licence of the photo, carried into the world.
        variations: Make so many worlds of the photo in DIR/variation_000, ...: the same seen part; other unseen parts, loose
            things, light and paint. Number 0 is the plain world.
        keep_appearance: Variations keep the photo's light and colours.
        keep: all, or training: without frames, depth and video.
        quiet: Print nothing but errors.
        as_json: Progress as one JSON object per line.
    """
    if depth_file is not None and depth not in (None, "file"):
        raise ConfigError(f"--depth-file: got provider {depth!r} beside it, expected --depth file or none")
    given = {
        "seed": seed, "quality": quality,
        "photo": {
            "focal": focal, "intrinsics": intrinsics, "camera_height": camera_height, "horizon": horizon, "floor_mask": floor_mask,
            "scene": scene, "prior": prior, "licence": photo_licence,
        },
        "depth": {
            "provider": "file" if depth_file else depth, "path": depth_file, "unit": depth_unit, "kind": depth_kind,
            "confidence": depth_confidence, "model": depth_model, "frames_provider": frame_depth,
        },
        "generate": {
            "generator": generator, "server": server, "trajectory": trajectory, "frames": frames, "prompt": prompt,
            "captions": captions,
            "lyra2": {"preset": preset, "weights": weights, "distilled": distilled or None, "vram": vram},
        },
    }
    cfg = settings(config, given)
    if cfg.generate.generator == "lyra2" and quality is None and config is None:
        cfg = replace(cfg, quality="full")  # the size the model was trained at
    if server is not None and cfg.generate.generator != "lyra2-server":
        raise ConfigError(f"--server: got generator {cfg.generate.generator!r} beside it, expected --generator lyra2-server")
    if keep_appearance:
        cfg = replace(cfg, variation=replace(cfg.variation, paint=0.0, lighting=0.0))
    given = {"photo_path": photo, "folder": output, "cfg": cfg, "keep": keep}
    if variations is not None:
        worlds = run_job("lyra_core.variations:build_variations", {**given, "count": variations}, quiet, as_json)
        _say_listing(output, worlds, quiet, as_json)
        return
    say_where(run_job("lyra_core.pipeline:build_world", given, quiet, as_json), quiet, as_json)


def extend(
    world: Positional[Path], *, trajectory: str = "tour", frames: int = 81, quiet: Quiet = False, as_json: AsJson = False,
) -> None:
    """Add frames along another camera path to a finished world.

    Args:
        world: World folder.
        trajectory: Camera path: walk_forward, look_around, orbit, zoom_in_out, loop, tour, or a Lyra .npz file.
        frames: Number of frames along the path, 1 + 80 k; the first is where the camera is now.
        quiet: Print nothing but errors.
        as_json: Progress as one JSON object per line.
    """
    given = {"folder": world, "trajectory": trajectory, "frames": frames}
    say_where(run_job("lyra_core.pipeline:extend_world", given, quiet, as_json), quiet, as_json)


def revert(world: Positional[Path], *, chunk: int, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Go back to the first chunks of frames; later frames are deleted and the world is made anew from what stays.

    Args:
        world: World folder.
        chunk: Number of chunks of 80 frames that stay; 0 keeps the photo's own frame.
        quiet: Print nothing but errors.
        as_json: Progress as one JSON object per line.
    """
    say_where(run_job("lyra_core.pipeline:revert_world", {"folder": world, "chunk": chunk}, quiet, as_json), quiet, as_json)


def episodes(
    world: Positional[Path], *, radius: float = 0.3, min_distance: float = 1.0, max_distance: float = 30.0, count: int = 50,
    seed: int = 0, output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None,
) -> None:
    """Sample point-goal episodes by Habitat's rules and write them as Habitat's json.gz.

    Args:
        world: World folder.
        radius: Robot radius [m].
        min_distance: Shortest geodesic distance [m].
        max_distance: Longest geodesic distance [m].
        count: Number of episodes.
        seed: Decides which.
        output: File to write; default episodes_custom.json.gz in the world, whose own episodes.json.gz stays.
    """
    import numpy as np

    from lyra_core.navigation import sample_episodes, save_episodes

    path = output or world / "episodes_custom.json.gz"
    opened = World(world)
    info = {key: opened.manifest[key] for key in ("scale_sigma",) if key in opened.manifest}
    found = sample_episodes(opened.free_space, np.random.default_rng(seed), count=count, radius=radius,
                            min_distance=min_distance, max_distance=max_distance, info=info)
    save_episodes(path, found)
    lengths = [episode.geodesic_distance for episode in found]
    spread = f", {min(lengths):.1f} to {max(lengths):.1f} m long" if lengths else ""
    print(f"{path}: {len(found)} episodes for radius {radius} m{spread}")


def settings(config: str | None, given: dict[str, Any]) -> WorldCfg:
    """Return the settings of a configuration with what the command line gives on top; None there = not given."""
    return from_dict(_without_none(given), base=_config(config), where="command line")


def _config(config: str | None) -> WorldCfg:
    """Read a YAML file, or a packaged configuration by name; None gives the defaults."""
    if config is None:
        return WorldCfg()
    if config.endswith((".yaml", ".yml")) or Path(config).is_file():
        return load_config(Path(config))
    spec = importlib.util.find_spec("lyra_configs")
    # A checkout that was not installed has the package under its folder's name.
    folder = (Path(spec.origin).parent if spec and spec.origin else Path(__file__).parents[1] / "configs") / "worlds"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if config not in known:
        raise ConfigError(f"--config: got {config!r}, expected a .yaml file or one of {', '.join(known)}")
    return load_config(folder / f"{config}.yaml")


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    pairs = ((key, _without_none(value) if isinstance(value, dict) else value) for key, value in values.items())
    return {key: value for key, value in pairs if value is not None and value != {}}


def run_job(target: str, given: dict[str, Any], quiet: bool, as_json: bool) -> Any:
    """Run a pipeline function as a job, show its progress, and stop it at its next step on Ctrl-C."""
    from lyra_core.jobs.runner import submit

    with _shown(quiet, as_json) as show:
        job = submit(target, given, on_event=show)
        try:
            while not job.wait(0.2):
                pass
        except KeyboardInterrupt:
            job.cancel()
            job.wait()
            raise
        return job.result()


@contextmanager
def _shown(quiet: bool, as_json: bool) -> Iterator[Callable[[ProgressEvent], None]]:
    """Yield what draws events: bars on stderr, JSON lines on stdout, or nothing."""
    if quiet and as_json:
        raise InputError("--quiet and --json: got both, expected one of them")
    from lyra_core.jobs.progress import ProgressJson, ProgressRich

    if quiet:
        yield lambda event: None
    elif as_json:
        yield ProgressJson().show
    else:
        with ProgressRich() as bars:
            yield bars.show


def _say_listing(folder: Path, worlds: list[World], quiet: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "done", "worlds": [str(world.folder) for world in worlds]}))
    elif not quiet:
        print(f"{len(worlds)} worlds: {folder}\n  what differs   {folder / 'variations.json'}"
              f"\n  look           {worlds[-1].folder / 'report.html'}")
    sys.stdout.flush()


def say_where(world: World, quiet: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "done", "world": str(world.folder)}))
    elif not quiet:
        print(f"World: {world.folder}\n  look   {world.folder / 'report.html'}\n  load   {world.folder / 'world.usda'}"
              f"\n  next   lyra-worlds play {world.folder}")
    sys.stdout.flush()
