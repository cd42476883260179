"""One photo in, a world that a robot can be trained in out.

>>> from lyra_core import build_world
>>> world = build_world("photo.jpg", "world")
>>> world.free_space.traversable(0.3)

The names in ``__all__`` are the public ones. Each is imported when it is first asked for (PEP 562), so that ``import lyra_core``
costs nothing and can live inside another program's Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lyra_core.config import WorldCfg, load_config
    from lyra_core.errors import LyraError
    from lyra_core.pipeline import build_world, extend_world, revert_world
    from lyra_core.types import (
        Camera,
        CollisionPart,
        Episode,
        Frame,
        FreeSpace,
        GaussianCloud,
        Label,
        Photo,
        Provenance,
        SurfaceMesh,
        Trajectory,
    )
    from lyra_core.world import World

__version__ = "0.1.0"
__all__ = [
    "Camera",
    "CollisionPart",
    "Episode",
    "Frame",
    "FreeSpace",
    "GaussianCloud",
    "Label",
    "LyraError",
    "Photo",
    "Provenance",
    "SurfaceMesh",
    "Trajectory",
    "World",
    "WorldCfg",
    "build_world",
    "extend_world",
    "load_config",
    "revert_world",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "pipeline": ("build_world", "extend_world", "revert_world"),
    "world": ("World",),
    "config": ("WorldCfg", "load_config"),
    "errors": ("LyraError",),
    "types": ("Camera", "Trajectory", "Photo", "Frame", "SurfaceMesh", "CollisionPart", "GaussianCloud", "FreeSpace", "Episode",
              "Label", "Provenance"),
}
"""Module -> the public names that it defines."""


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    import importlib

    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"lyra_core.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'lyra_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
