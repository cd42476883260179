"""Names of the backends behind each seam. Anyone may pass ``their.module:Class`` instead of a name."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from lyra_core.config import DepthCfg, GenerateCfg
from lyra_core.errors import BackendUnavailable, ConfigError

GENERATORS = {
    "procedural": "lyra_core.generate.procedural:GeneratorProcedural",
    "warp_fill": "lyra_core.generate.warp_fill:GeneratorWarpFill",
    "lyra2": "lyra_core.generate.lyra2.generator:GeneratorLyra2",
    "lyra2-server": "lyra_core.generate.lyra2_server.generator:GeneratorLyra2Server",
}
DEPTH_PROVIDERS = {
    "geometric": "lyra_core.depth.geometric:DepthGeometric",
    "file": "lyra_core.depth.file:DepthFile",
    "depth_anything": "lyra_core.depth.depth_anything:DepthAnything",
    "depth_anything_3": "lyra_core.depth.depth_anything_3:DepthAnything3",
    "depth_pro": "lyra_core.depth.depth_pro:DepthPro",
}
MEMORY_STRATEGIES = {
    "lyra2": "lyra_core.memory.lyra2:MemoryLyra2",
    "none": "lyra_core.memory.none:MemoryNone",
}
SURFACE_FUSIONS = {
    "blocks": "lyra_core.surface.blocks:FusionBlocks",
    "openvdb": "lyra_core.surface.openvdb:FusionOpenVdb",
}
RAY_TRACERS = {
    "embree": "lyra_core.rays.embree:RayTracerEmbree",
    "warp": "lyra_core.rays.warp:RayTracerWarp",
}
PHYSICS_ENGINES = {
    "newton": "lyra_core.physics.newton:PhysicsNewton",
    "physx": "lyra_core.physics.physx:PhysicsPhysx",
}
SEAMS = {
    "generator": GENERATORS,
    "depth": DEPTH_PROVIDERS,
    "memory": MEMORY_STRATEGIES,
    "fusion": SURFACE_FUSIONS,
    "rays": RAY_TRACERS,
    "physics": PHYSICS_ENGINES,
}


EXTRAS = {"lyra2": "lyra2"}
"""Backend -> extra that brings the packages its module is about."""


def resolve(seam: str, name: str) -> Any:
    """Return the class behind a backend name, or behind ``module:Class``.

    Raises:
        ConfigError: the name is unknown (the known ones are listed), or module:Class cannot be imported or called.
        BackendUnavailable: the packages it needs are not installed.
    """
    table = SEAMS[seam]
    if name not in table and ":" not in name:
        raise ConfigError(f"{seam}: got {name!r}, expected one of {', '.join(table)} or 'module:Class'")
    module, _, attribute = table.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        if name in EXTRAS and isinstance(error, ModuleNotFoundError):
            install = f"pip install 'lyra-worlds[{EXTRAS[name]}]'"
            raise BackendUnavailable(f"{seam} {name!r}", reason=f"{error.name} is not installed", install=install) from error
        if name in table:
            raise
        raise ConfigError(f"{seam}: {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"{seam}: got {name!r}, which is a {type(found).__name__}, expected a class")
    return found


def make_generator(cfg: GenerateCfg, *, quality: str) -> Any:
    """Return the generator of these settings; a class that takes ``cfg`` is given them.

    Raises:
        ConfigError, BackendUnavailable: its name is unknown, or it cannot run here.
    """
    found = resolve("generator", cfg.generator)
    given = {"cfg": cfg} if "cfg" in inspect.signature(found).parameters else {}
    return found(quality=quality, **given)


def make_frame_depth(cfg: DepthCfg) -> Any:
    """Return the provider of depth for generated frames (see depth.base.FrameDepthProvider).

    'auto' is the photo's provider if it can do frames, else Depth Anything.

    Raises:
        ConfigError, BackendUnavailable: it is unknown, cannot do frames, or cannot run here.
    """
    name = cfg.frames_provider
    if name == "auto":
        name = cfg.provider if hasattr(resolve("depth", cfg.provider), "estimate_frames") else "depth_anything"
    found = resolve("depth", name)
    if not hasattr(found, "estimate_frames"):
        raise ConfigError(f"depth: frames_provider: got {name!r}, which knows only the photo; expected depth_anything, "
                          "depth_anything_3 or a class with estimate_frames")
    return found(cfg)
