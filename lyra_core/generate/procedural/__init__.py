"""The default generator: one explicit world built from the photo without weights; every frame is a query of it."""

from __future__ import annotations

from lyra_core.config import ATLAS_SIZES
from lyra_core.errors import WorldError
from lyra_core.generate.base import ChunkRequest, ExplicitWorld
from lyra_core.generate.procedural.layout import build_layout
from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.query import WorldView
from lyra_core.io.images import resized
from lyra_core.types import DepthEstimate, Frame, Photo, Trajectory


class GeneratorProcedural:
    """Layout world: seen surfaces carry the photo, the rest continues or is invented from its materials."""

    name = "procedural"

    def __init__(self, *, quality: str = "standard") -> None:
        self._atlas_size = ATLAS_SIZES[quality]
        self._world: ExplicitWorld | None = None
        self._view: WorldView | None = None

    def prepare(self, photo: Photo, estimate: DepthEstimate, *, seed: int, indoor: bool) -> None:
        """Build the whole world from the photo and its depth."""
        rgb = resized(photo.rgb, estimate.camera.width, estimate.camera.height)
        self.restore(build_layout(PhotoSource(rgb, estimate), indoor=indoor, seed=seed, atlas_size=self._atlas_size))

    def restore(self, world: ExplicitWorld) -> None:
        """Take a world that was built before."""
        self._world, self._view = world, WorldView(world.mesh)

    def explicit_world(self) -> ExplicitWorld:
        """Return the whole world.

        Raises:
            WorldError: neither prepare nor restore was called.
        """
        if self._world is None:
            raise WorldError("generator 'procedural': no world yet; call prepare() first")
        return self._world

    def first_frame(self, trajectory: Trajectory) -> Frame:
        """Return the frame at the photo's own pose."""
        return self._render(trajectory, 0)

    def generate(self, request: ChunkRequest) -> list[Frame]:
        """Return one frame per camera; the retrieved frames are not needed, because the world itself remembers."""
        return [self._render(request.trajectory, i) for i in range(len(request.trajectory))]

    def _render(self, trajectory: Trajectory, i: int) -> Frame:
        if self._view is None:
            raise WorldError("generator 'procedural': no world yet; call prepare() first")
        return self._view.render(trajectory.camera(i), trajectory.T_world_camera[i])
