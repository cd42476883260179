"""Floors and ceilings: horizontal planes whose texture is the photo where it saw them and a quilted tile elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.photo_source import PhotoSource, smooth_extension
from lyra_core.generate.procedural.polygons import clip_to_rectangle, triangulate
from lyra_core.generate.procedural.quilt import flattened, quilt_tile, usual_square
from lyra_core.types import Label, Provenance

EXEMPLAR_REACH = 8.0
"""The patch to quilt is looked for in this half square in front of the camera [m]."""
CELL = 3.2
"""Side of a texture cell [m]; the tile's period is two cells."""
PATCH = 0.4
"""Faces of partly seen cells are split this fine, so that provenance follows what was seen [m]."""
ENOUGH_SHARP, ENOUGH_KNOWN = 150, 60
"""Texels of a plane below which blurred ones count too, and below which the photo says nothing of its texture."""
SMALLEST_PATCH = 5
"""Half side of the smallest exemplar [texel]."""
BLEND = 0.8
"""Width over which the tile takes on the colour of the seen part beside it [m]."""


class PlaneTexture:
    """Texture of one horizontal plane, a function of world position only."""

    def __init__(
        self,
        source: PhotoSource,
        *,
        height: float,
        label: Label,
        reach: float,
        texel: float,
        rng: np.random.Generator,
        fallback: np.ndarray,
    ) -> None:
        """Prepare the tile and the seen region.

        height: of the plane [m]; reach: half side of the photo-textured square in front of the camera [m];
        texel: of the tile [m]; fallback: (3,) colour where the photo shows nothing of this plane.
        """
        self._source, self._height, self._label = source, height, label
        self._reach, self._texel = reach, texel
        exemplar = self._exemplar(texel)
        side = round(2 * CELL / texel)
        if exemplar is None:
            exemplar = np.zeros((4, 4, 3), np.uint8) + np.clip(fallback, 0, 255).astype(np.uint8)
        self.tile = quilt_tile(exemplar, side, rng)
        self._tile_mean = self.tile.reshape(-1, 3).astype(np.float64).mean(0).astype(np.float32)

    def _grid(self, x0: float, y0: float, side: float, texel: float) -> np.ndarray:
        """World points (n, n, 3) at texel centres of a square with the lower corner (x0, y0); rows run towards -y, columns
        towards +x."""
        n = round(side / texel)
        x = x0 + (np.arange(n) + 0.5) * texel
        y = y0 + side - (np.arange(n) + 0.5) * texel
        points = np.empty((n, n, 3))
        points[..., 0], points[..., 1], points[..., 2] = x[None, :], y[:, None], self._height
        return points

    def _footprint(self, points: np.ndarray) -> np.ndarray:
        """Ground length that one photo pixel covers along the view, (h, w) [m]."""
        offset = points - self._source.position
        distance = np.linalg.norm(offset, axis=-1)
        drop = max(abs(float(self._source.position[2] - self._height)), 0.3)
        return distance**2 / drop / float(self._source.estimate.camera.K[1, 1])

    def _exemplar(self, texel: float) -> np.ndarray | None:
        """Largest fully seen, sharply seen square patch, (h, w, 3) uint8 at the tile's texel; None if there is none."""
        # Beyond some ten metres no floor is sharp enough to copy.
        reach = min(self._reach, EXEMPLAR_REACH)
        points = self._grid(0.3, -reach, 2 * reach, texel)
        colours, known = self._source.sample(points, (self._label,))
        sharp = known & (self._footprint(points) < 3.0 * texel)
        if sharp.sum() < ENOUGH_SHARP:
            sharp = known
        if sharp.sum() < ENOUGH_KNOWN:
            return None
        row, column, half, usual = usual_square(colours, sharp, spread=1.8)
        if half < SMALLEST_PATCH:
            return None
        patch = colours[row - half : row + half + 1, column - half : column + half + 1]
        return flattened(patch, np.median(colours[usual], 0), contrast=18.0)

    def tile_colours(self, points: np.ndarray) -> np.ndarray:
        """Look the tile up at world points (h, w, 3); float32 colours."""
        n = len(self.tile)
        column = np.floor(points[..., 0] / self._texel).astype(int) % n
        row = n - 1 - np.floor(points[..., 1] / self._texel).astype(int) % n
        return self.tile[row, column].astype(np.float32)

    def seen_cells(self) -> list[tuple[int, int]]:
        """Indices (column, row) of the cells that may show the photo: ``reach`` to both sides, twice that ahead."""
        n = int(np.ceil(self._reach / CELL))
        return [(i, j) for i in range(-1, 2 * n) for j in range(-n, n)]

    def cell_image(self, x0: float, y0: float, texel: float) -> tuple[np.ndarray, np.ndarray]:
        """Bake the cell with the lower corner (x0, y0) [m]. Returns (n, n, 3) uint8 and known (n, n) bool (seen in the photo)."""
        points = self._grid(x0 - BLEND, y0 - BLEND, CELL + 2 * BLEND, texel)
        colours, known = self._source.sample_visible(points)
        tile = self.tile_colours(points)
        if known.any():
            base = smooth_extension(colours, known)
            far = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 3) * texel
            trust = np.clip(1.0 - far / BLEND, 0.0, 1.0)[..., None]
            tile = tile + (base - self._tile_mean) * trust
            # One texel more than is seen, so that interpolation at the rim of the seen part reads nothing of the seed's.
            tile = np.where(cv2.dilate(known.astype(np.uint8), np.ones((3, 3), np.uint8))[..., None] > 0, colours, tile)
        cut, n = round(BLEND / texel), round(CELL / texel)
        window = (slice(cut, cut + n), slice(cut, cut + n))
        return np.clip(np.rint(tile[window]), 0, 255).astype(np.uint8), known[window]


def add_plane(
    builder: MeshBuilder,
    texture: PlaneTexture,
    polygons: list[tuple[str, np.ndarray, Provenance]],
    *,
    label: Label,
    height: float,
    texels: tuple[float, float],
    up: bool,
) -> None:
    """Add floor or ceiling polygons [(part name, (K, 2) corners, provenance where not seen)], the photo's place first.

    texels: finest and coarsest texel of photo-textured cells [m]; up: faces look up (floor) or down (ceiling).
    """
    tile_chart = builder.add_chart(texture.tile)
    seen_cells = _bake_seen_cells(builder, texture, polygons[0][1], texels)
    for name, corners, provenance in polygons:
        part = builder.add_part(name)
        triangles = corners[triangulate(corners)]
        first, last = np.floor(corners.min(0) / CELL).astype(int), np.floor(corners.max(0) / CELL).astype(int)
        for index in itertools.product(range(first[0], last[0] + 1), range(first[1], last[1] + 1)):
            own = seen_cells.get(index)
            pieces = _seen_pieces(triangles, index, own) if own else _tile_piece(triangles, index, len(texture.tile))
            for xy, faces, chart_texels, seen in pieces:
                builder.add(
                    np.insert(xy, 2, height, 1),
                    chart_texels,
                    faces if up else faces[:, ::-1],
                    chart=own.chart if own else tile_chart,
                    part=part,
                    label=label,
                    provenance=Provenance.SEEN if seen else provenance,
                )


@dataclass(frozen=True)
class _SeenCell:
    """A texture cell that shows the photo."""

    chart: int
    known: np.ndarray
    """(n, n) bool: seen in the photo; rows towards -y."""
    texel: float
    """[m]"""


_Piece = tuple[np.ndarray, np.ndarray, np.ndarray, bool]
"""Floor-plan points (P, 2) [m], faces (F, 3), texels (P, 2) in the chart, and whether the photo saw it."""


def _bake_seen_cells(
    builder: MeshBuilder, texture: PlaneTexture, place: np.ndarray, texels: tuple[float, float]
) -> dict[tuple[int, int], _SeenCell]:
    """Give each cell of the photo's place (K, 2) of which the photo shows something a chart; far ones get coarser texels."""
    out = {}
    low, high = place.min(0), place.max(0)
    for index in texture.seen_cells():
        corner = np.array(index) * CELL
        if (corner > high).any() or (corner + CELL < low).any():
            continue
        distance = float(np.hypot(*np.maximum(np.maximum(corner, -(corner + CELL)), 0.0)))
        texel = float(np.clip(texels[0] * max(distance, 1.0) / 2.0, texels[0], texels[1]))
        texel = CELL / round(CELL / texel)
        image, known = texture.cell_image(corner[0], corner[1], texel)
        if known.any():
            out[index] = _SeenCell(builder.add_chart(image), known, texel)
    return out


def _seen_pieces(triangles: np.ndarray, index: tuple[int, int], cell: _SeenCell) -> Iterator[_Piece]:
    """Cut a seen cell out of triangles (T, 3, 2), patch by patch; a patch is seen if its middle is."""
    corner, n = np.array(index) * CELL, len(cell.known)
    patches = round(CELL / PATCH)
    size = CELL / patches
    for patch in itertools.product(range(patches), repeat=2):
        low = corner + np.array(patch) * size
        xy, faces = clip_to_rectangle(triangles, low, low + size)
        if len(faces):
            local = (xy - corner) / cell.texel
            middle = np.clip(((low + size / 2 - corner) / cell.texel).astype(int), 0, n - 1)
            seen = bool(cell.known[n - 1 - middle[1], middle[0]])
            yield xy, faces, np.stack([local[:, 0], n - local[:, 1]], 1), seen


def _tile_piece(triangles: np.ndarray, index: tuple[int, int], n: int) -> Iterator[_Piece]:
    """Cut a cell that the photo does not show out of triangles (T, 3, 2); it takes its quarter of the n x n tile."""
    corner = np.array(index) * CELL
    xy, faces = clip_to_rectangle(triangles, corner, corner + CELL)
    if len(faces):
        local = (xy - corner) / CELL * (n // 2) + (np.array(index) % 2) * (n // 2)
        yield xy, faces, np.stack([local[:, 0], n - local[:, 1]], 1), False
