"""Settings: one dataclass per stage. The field docstrings are the command line's help."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lyra_core.errors import ConfigError

Quality = Literal["draft", "standard", "full"]
FRAME_SIZES: dict[str, tuple[int, int]] = {"draft": (208, 120), "standard": (416, 240), "full": (832, 480)}
"""Width, height of frames [px]; portrait photos swap them."""
WORKING_SIZES: dict[str, int] = {"draft": 512, "standard": 768, "full": 1280}
"""Long side at which the photo is read [px]."""
ATLAS_SIZES: dict[str, int] = {"draft": 1024, "standard": 2048, "full": 4096}
"""Texture atlas side [px]."""


@dataclass(frozen=True, kw_only=True)
class PhotoCfg:
    """Reading the photo."""

    focal: str | None = None
    """Focal length: '28mm' (35 mm equivalent) or '900px' of the photo. None: EXIF, else estimated."""
    intrinsics: str | None = None
    """'fx,fy,cx,cy' [px of the upright photo, its upper left corner = (0, 0)], in place of the focal length."""
    floor_mask: str | None = None
    """Picture in the photo's shape, white where floor is seen; in place of the floor found."""
    horizon: str | None = None
    """'ROW' or 'ROW,ROLL': where the horizon crosses the picture's middle column, as a share of its height from the top (it may
    lie outside), and by how many degrees it rises to the right (estimated when not given)."""
    camera_height: float | None = None
    """Height of the camera above the floor [m]; sets the metric scale. None: by the sizes of what the learned prior sees; 1.5
    without it."""
    scene: Literal["auto", "indoor", "outdoor"] = "auto"
    """Kind of place."""
    prior: Literal["auto", "off"] = "auto"
    """The learned prior of floor, walls, things and their depth; 'off': lines, colours and edges alone."""
    licence: str = "unknown"
    """Licence of the photo, carried into the world."""


@dataclass(frozen=True, kw_only=True)
class DepthCfg:
    """Depth of the photo."""

    provider: str = "geometric"
    """'geometric', 'file', 'depth_anything', 'depth_anything_3', 'depth_pro', or 'module:Class'."""
    path: str | None = None
    """Depth file for provider 'file': .npy, .npz, .exr, .tiff or 16-bit .png of the upright photo at any size; NaN, 0 = unknown."""
    unit: Literal["auto", "m", "cm", "mm"] = "auto"
    """Unit of the depth file; 'auto': integers are millimetres, floating-point numbers metres."""
    kind: Literal["auto", "depth", "inverse", "range"] = "auto"
    """What the depth file holds: distance along the optical axis ('depth'), one over it ('inverse', per metre), or distance along
    each ray ('range'); 'auto': depth, and a file that looks inverse or stretched for viewing is refused."""
    confidence: str | None = None
    """Confidence of the depth file's pixels: 8-bit .png or .npy of its size. Levels 0, 1, 2 of phones: 0 is dropped; else less
    than half of the highest is dropped."""
    frames_provider: str = "auto"
    """Depth of generated frames: 'depth_anything', 'depth_anything_3', 'module:Class'; 'auto': the photo's if it can."""
    frame_stride: int = 4
    """Every n-th generated frame gets depth; divides 80 and the cache's stride."""
    model: str | None = None
    """Model of the network providers: hub id or folder. None: metric Depth Anything V2 Small, V3's nested giant or Depth Pro."""


@dataclass(frozen=True, kw_only=True)
class Lyra2Cfg:
    """The Lyra 2.0 video model; read by generator 'lyra2' alone."""

    preset: Literal["repo", "paper", "custom"] = "repo"
    """Where the released code and the paper differ: 'repo' or 'paper' as a whole; 'custom' takes every value as configured."""
    weights: str | None = None
    """Folder of converted weights. None: $LYRA_WORLDS_MODELS, else the user's cache."""
    distilled: bool = False
    """Four steps without guidance, through the distillation LoRA."""
    steps: int = 35
    """Denoising steps of the full model."""
    shift: float = 5.0
    """Shift of the noise schedule."""
    guidance: float = 5.0
    """Weight of the prompt against the negative prompt; 1 = no negative pass."""
    loras: str = ""
    """LoRAs beside the distilled one, as 'name=weight,...'."""
    negative_prompt: str | None = None
    """None: the embedding published with the weights."""
    captioner: str | None = None
    """Vision-language model (hub id or folder) that captions each chunk's newest frame where no prompt is given."""
    vram: str = "auto"
    """Memory plan: 'auto', '24', '48' or '80' [GB]."""
    device: str = "auto"
    """'auto', 'cuda', 'cuda:1', 'cpu'."""
    speed: str = "exact"
    """'exact', or approximations by name, joined by '+': 'fp8', 'int8', 'sage', 'cache', 'skip_guidance'."""


@dataclass(frozen=True, kw_only=True)
class GenerateCfg:
    """Frames along a camera path."""

    generator: str = "procedural"
    """'procedural' (one explicit world), 'warp_fill' (reprojection and inpainting, the baseline), 'lyra2' (video model),
    'lyra2-server' (the official server), or 'module:Class'."""
    trajectory: str = "tour"
    """Preset name or a Lyra .npz file."""
    frames: int = 81
    """Number of frames, 1 + 80 k."""
    prompt: str = ""
    """Caption for text-conditioned generators; empty: their own default."""
    captions: str | None = None
    """captions.json: one caption per chunk, in place of the prompt."""
    memory: str = "lyra2"
    """Retrieval strategy: 'lyra2', 'none', or 'module:Class'."""
    retrieved_frames: int = 5
    """Frames retrieved from the cache per chunk."""
    retrieval_views: int = 1
    """Views of a chunk that frames are retrieved for: its last frame, or so many, evenly spaced up to the last."""
    cache_stride: int = 8
    """Every n-th frame enters the cache."""
    point_subsampling: int = 8
    """Cached point clouds keep one pixel in n x n."""
    lyra2: Lyra2Cfg = field(default_factory=Lyra2Cfg)
    """Settings of generator 'lyra2'."""
    server: str | None = None
    """http://HOST:PORT of a running official Lyra 2.0 server, for generator 'lyra2-server'."""
    server_timeout: float = 3600.0
    """Longest wait for one chunk of that server [s]."""


@dataclass(frozen=True, kw_only=True)
class SurfaceCfg:
    """Lift to a mesh."""

    route: Literal["auto", "surfaces", "fusion"] = "auto"
    """'surfaces': the generator's own surfaces; 'fusion': frames alone; 'auto': surfaces where the generator has them."""
    fusion: str = "blocks"
    """TSDF of the route 'fusion': 'blocks' or 'module:Class'."""
    voxel: float = 0.02
    """Cell size of the route 'fusion' near the camera path [m]; it doubles with distance, from 4 m on."""


@dataclass(frozen=True, kw_only=True)
class SplatCfg:
    """Lift to Gaussians."""

    max_count: int = 500_000
    """Upper bound of Gaussians."""
    method: Literal["depth", "feed_forward"] = "depth"
    """'depth': one flat Gaussian per newly seen block of pixels; 'feed_forward': predicted by a network, which needs weights."""
    weights: str | None = None
    """File of the network: the published recon/model.pt, a .safetensors of Depth Anything 3 (giant), or a fine-tuned one."""
    chunk: int = 128
    """Frames that the network sees at once."""
    overlap: int = 10
    """Frames that a chunk shares with the one before; their Gaussians are that one's."""
    downsample: int = 2
    """One Gaussian per n x n pixels."""


@dataclass(frozen=True, kw_only=True)
class NavigationCfg:
    """Free space and episodes."""

    cell: float = 0.05
    """Grid cell [m]."""
    robot_radius: float = 0.3
    """Default robot radius [m]."""
    robot_height: float = 1.5
    """Height band that must be free [m]."""
    step: float = 0.1
    """Highest step that the base climbs [m]."""
    slope: float = 15.0
    """Steepest slope that the base climbs [degrees]; a wheelchair ramp of 1:12 has 4.8."""
    episodes: int = 50
    """Episodes written with the world."""


@dataclass(frozen=True, kw_only=True)
class VariationCfg:
    """One of several worlds of a photo; for generators with one explicit world (others vary by their seed alone)."""

    index: int = 0
    """0 = the plain world, in which nothing below is used."""
    clutter: int = 8
    """Most loose things that stand on unseen floor, where they leave every way open."""
    paint: float = 1.0
    """How far the colours of unseen floors, walls, ceilings and objects go from the photo's to drawn ones; 0 = kept."""
    lighting: float = 1.0
    """Strength of drawn exposure, white balance, tone curve and direction of light; 0 = the photo's light."""


@dataclass(frozen=True, kw_only=True)
class WorldCfg:
    """Everything that decides a world; its hash is part of the recipe id."""

    quality: Quality = "standard"
    """Sizes of frames, textures and meshes."""
    seed: int = 0
    """Decides what the photo does not show."""
    photo: PhotoCfg = field(default_factory=PhotoCfg)
    depth: DepthCfg = field(default_factory=DepthCfg)
    generate: GenerateCfg = field(default_factory=GenerateCfg)
    surface: SurfaceCfg = field(default_factory=SurfaceCfg)
    splats: SplatCfg = field(default_factory=SplatCfg)
    navigation: NavigationCfg = field(default_factory=NavigationCfg)
    variation: VariationCfg = field(default_factory=VariationCfg)


PRESETS: dict[str, dict[str, Any]] = {
    "repo": {"generate": {"retrieval_views": 1, "point_subsampling": 4, "lyra2": {"steps": 35}}},
    "paper": {"generate": {"retrieval_views": 5, "point_subsampling": 8, "lyra2": {"steps": 35}}},
}
"""What the released code and the paper of Lyra 2.0 do differently at inference (training: configs/train)."""
ZOOM_STEPS = 50
"""Denoising steps of the preset 'repo' for the camera path ``zoom_in_out``, whose released script has its own default."""

LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "camera_height": (0.1, 20.0),
    "retrieved_frames": (0, 64),
    "retrieval_views": (1, 80),
    "frame_stride": (1, 80),
    "cache_stride": (1, 80),
    "point_subsampling": (1, 32),
    "voxel": (0.01, 1.0),
    "max_count": (1, 50_000_000),
    "chunk": (1, 1024),
    "overlap": (0, 1023),
    "downsample": (1, 2),
    "cell": (0.01, 0.5),
    "robot_radius": (0.05, 2.0),
    "robot_height": (0.1, 5.0),
    "step": (0.0, 0.5),
    "slope": (0.0, 44.0),
    "steps": (1, 1000),
    "shift": (0.1, 100.0),
    "guidance": (0.0, 100.0),
    "server_timeout": (1.0, 86400.0),
    "episodes": (0, 100_000),
    "index": (0, 999),
    "clutter": (0, 100),
    "paint": (0.0, 1.0),
    "lighting": (0.0, 1.0),
}
"""Field -> lowest and highest value, in the field's unit."""


def check_limits(cfg: Any, where: str = "config") -> None:
    """Require numbers within LIMITS.

    Raises:
        ConfigError: a value outside (or NaN); the field, the value and the limits are named.
    """
    for f in dataclasses.fields(cfg):
        value = getattr(cfg, f.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, f"{where}: {f.name}")
        elif f.name in LIMITS and value is not None and not LIMITS[f.name][0] <= value <= LIMITS[f.name][1]:
            low, high = LIMITS[f.name]
            raise ConfigError(f"{where}: {f.name}: got {value}, expected {low} to {high}")


def to_dict(cfg: Any) -> dict[str, Any]:
    """Return a plain nested dict of a Cfg."""
    return dataclasses.asdict(cfg)


def from_dict(values: dict[str, Any], *, base: WorldCfg | None = None, where: str = "config") -> WorldCfg:
    """Overlay nested values on a configuration.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), or a value of the wrong type or outside its limits.
    """
    cfg = _overlay(base or WorldCfg(), values, where)
    check_limits(cfg, where)
    return cfg


def with_preset(cfg: WorldCfg) -> WorldCfg:
    """Return the settings with the preset of generator 'lyra2' filled in; of other generators unchanged.

    Raises:
        ConfigError: a value was chosen that is neither the default nor the preset's. Presets are never mixed silently.
    """
    name = cfg.generate.lyra2.preset
    if cfg.generate.generator != "lyra2" or name == "custom":
        return cfg
    values = {"generate": dict(PRESETS[name]["generate"])}
    if name == "repo" and cfg.generate.trajectory == "zoom_in_out":
        values["generate"]["lyra2"] = {"steps": ZOOM_STEPS}
    filled = _overlay(cfg, values, f"preset {name!r}")
    for key in ("retrieval_views", "point_subsampling"):
        _check_mixed(name, key, getattr(cfg.generate, key), getattr(filled.generate, key), getattr(GenerateCfg(), key))
    _check_mixed(name, "steps", cfg.generate.lyra2.steps, filled.generate.lyra2.steps, Lyra2Cfg().steps)
    return filled


def _check_mixed(preset: str, key: str, got: Any, wanted: Any, default: Any) -> None:
    if got not in (wanted, default):
        raise ConfigError(f"generate: {key}: got {got}, but preset {preset!r} has {wanted}; expected that, or preset 'custom'")


def load_config(path: Path | str, *, base: WorldCfg | None = None) -> WorldCfg:
    """Read a YAML file that holds only what differs from the defaults.

    Raises:
        ConfigError: not readable, or a key or value that cannot be used.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got {type(values).__name__}, expected a mapping of keys")
    return from_dict(values, base=base, where=str(path))


def _overlay(cfg: Any, values: dict[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cfg)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.0)
            raise ConfigError(f"{where}: unknown key {key!r}; nearest is {near[0]!r}; known: {', '.join(fields)}")
        old = getattr(cfg, key)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: {key}: got {value!r}, expected a mapping")
            changes[key] = _overlay(old, value, f"{where}: {key}")
        else:
            changes[key] = _checked(cfg, key, value, f"{where}: {key}")
    return dataclasses.replace(cfg, **changes)


def _checked(cfg: Any, key: str, value: Any, where: str) -> Any:
    import typing

    hint = typing.get_type_hints(type(cfg))[key]
    options = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in options:
            raise ConfigError(f"{where}: got {value!r}, expected one of {', '.join(map(str, options))}")
        return value
    kinds = tuple(options) or (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigError(f"{where}: got {value!r}, expected {' or '.join(k.__name__ for k in kinds)}")
    return value
