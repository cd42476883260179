"""A world is a folder; this is the door to it for readers (environments, tools, reports)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from lyra_core.errors import WorldError
from lyra_core.io.files import read_json
from lyra_core.types import CollisionPart, FreeSpace, SurfaceMesh


class World:
    """A finished world folder. Parts are read when first asked for."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if not (self.folder / "world.json").is_file():
            raise WorldError(f"{self.folder}: not a world folder (world.json is missing)")

    def __repr__(self) -> str:
        return f"World({str(self.folder)!r})"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """world.json."""
        return read_json(self.folder / "world.json")

    @property
    def scale_sigma(self) -> float:
        """Standard deviation of the metric scale (natural logarithm): with 68 % probability a length of 1 m here is between
        exp(-scale_sigma) and exp(scale_sigma) m at the real place; so for all distances of its episodes. NaN where world.json does
        not say."""
        return float(self.manifest.get("scale_sigma", float("nan")))

    @cached_property
    def mesh(self) -> SurfaceMesh:
        """The textured visual mesh (mesh.npz)."""
        from lyra_core.io.meshes import load_surface_mesh

        return load_surface_mesh(self.folder / "mesh.npz")

    @cached_property
    def collision_parts(self) -> list[CollisionPart]:
        """What a robot touches, by part (collision.glb)."""
        from lyra_core.io.meshes import load_collision_parts

        return load_collision_parts(self.folder / "collision.glb")

    @cached_property
    def free_space(self) -> FreeSpace:
        """The top-down grid (navigation.npz)."""
        from lyra_core.navigation.files import load_free_space

        return load_free_space(self.folder / "navigation.npz")
