"""Names of the backends behind each seam. Anyone may pass ``their.module:Class`` instead of a name."""

from __future__ import annotations

import importlib
from typing import Any

from lyra_core.errors import ConfigError

GENERATORS = {
    "procedural": "lyra_core.generate.procedural:GeneratorProcedural",
    "warp_fill": "lyra_core.generate.warp_fill:GeneratorWarpFill",
}
DEPTH_PROVIDERS = {
    "geometric": "lyra_core.depth.geometric:DepthGeometric",
    "file": "lyra_core.depth.file:DepthFile",
}
MEMORY_STRATEGIES = {
    "lyra2": "lyra_core.memory.lyra2:MemoryLyra2",
    "none": "lyra_core.memory.none:MemoryNone",
}
SURFACE_FUSIONS = {
    "blocks": "lyra_core.surface.blocks:FusionBlocks",
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


def resolve(seam: str, name: str) -> Any:
    """Return the class behind a backend name, or behind ``module:Class``.

    Raises:
        ConfigError: the name is unknown (the known ones are listed), or module:Class cannot be imported or called.
    """
    table = SEAMS[seam]
    if name not in table and ":" not in name:
        raise ConfigError(f"{seam}: got {name!r}, expected one of {', '.join(table)} or 'module:Class'")
    module, _, attribute = table.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        if name in table:
            raise
        raise ConfigError(f"{seam}: {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"{seam}: got {name!r}, which is a {type(found).__name__}, expected a class")
    return found
