"""Floors and ceilings: horizontal planes whose texture is the photo where it saw them and a quilted tile elsewhere."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.photo_source import PhotoSource, smooth_extension
from lyra_core.generate.procedural.polygons import clip_to_rectangle, triangulate
from lyra_core.generate.procedural.quilt import flattened, quilt_tile
from lyra_core.types import Label, Provenance

CELL = 3.2
"""Side of a texture cell [m]; the tile's period is two cells."""
PATCH = 0.4
"""Faces of partly seen cells are split this fine, so that provenance follows what was seen [m]."""


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
        """World points (n, n, 3) at texel centres; rows run towards -y... row 0 is the highest y, columns along x."""
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
        points = self._grid(0.3, -self._reach, 2 * self._reach, texel)
        colours, known = self._source.sample(points, (self._label,))
        colours_smooth = cv2.GaussianBlur(colours, (0, 0), 2.0)
        sharp = known & (self._footprint(points) < 3.0 * texel)
        if sharp.sum() < 150:
            sharp = known
        if sharp.sum() < 60:
            return None
        # Spots unlike the rest (a rug's edge, an unnoticed object, a highlight) would repeat all over the tile.
        typical = np.median(colours_smooth[sharp], 0)
        odd = np.abs(colours_smooth - typical).max(-1)
        usual = (sharp & (odd <= max(12.0, 1.8 * float(np.median(odd[sharp]))))).astype(np.uint8)
        distance = cv2.distanceTransform(cv2.copyMakeBorder(usual, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_C, 3)[1:-1, 1:-1]
        row, column = divmod(int(np.argmax(np.round(distance, 2))), distance.shape[1])
        half = int(distance[row, column]) - 1
        if half < 5:
            return None
        rows, columns = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
        patch = colours[rows, columns]
        return flattened(patch, np.median(colours[usual > 0], 0), contrast=18.0)

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
        """Bake one cell. Returns (n, n, 3) uint8 and known (n, n) bool (seen in the photo)."""
        margin = 0.8
        points = self._grid(x0 - margin, y0 - margin, CELL + 2 * margin, texel)
        colours, known = self._source.sample_visible(points)
        tile = self.tile_colours(points)
        if known.any():
            base = smooth_extension(colours, known)
            far = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 3) * texel
            trust = np.clip(1.0 - far / margin, 0.0, 1.0)[..., None]
            tile = tile + (base - self._tile_mean) * trust
            # One texel more than is seen, so that interpolation at the rim of the seen part reads nothing of the seed's.
            tile = np.where(cv2.dilate(known.astype(np.uint8), np.ones((3, 3), np.uint8))[..., None] > 0, colours, tile)
        cut = round(margin / texel)
        n = round(CELL / texel)
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
    own: dict[tuple[int, int], tuple[int, np.ndarray, float]] = {}
    low = np.min([corners.min(0) for _, corners, _ in polygons[:1]], 0)
    high = np.max([corners.max(0) for _, corners, _ in polygons[:1]], 0)
    for i, j in texture.seen_cells():
        corner = np.array([i, j]) * CELL
        if (corner > high).any() or (corner + CELL < low).any():
            continue
        distance = float(np.hypot(*np.maximum(np.maximum(corner, -(corner + CELL)), 0.0)))
        texel = float(np.clip(texels[0] * max(distance, 1.0) / 2.0, texels[0], texels[1]))
        texel = CELL / round(CELL / texel)
        image, known = texture.cell_image(*corner, texel)
        if known.any():
            own[i, j] = (builder.add_chart(image), known, texel)
    for name, corners, provenance in polygons:
        part = builder.add_part(name)
        triangles = corners[triangulate(corners)]
        first, last = np.floor(corners.min(0) / CELL).astype(int), np.floor(corners.max(0) / CELL).astype(int)
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                cell = own.get((i, j))
                _add_cell(
                    builder,
                    triangles,
                    (i, j),
                    cell,
                    tile_chart,
                    texture,
                    part=part,
                    label=label,
                    height=height,
                    up=up,
                    provenance=provenance,
                )


def _add_cell(
    builder: MeshBuilder,
    triangles: np.ndarray,
    index: tuple[int, int],
    own: tuple[int, np.ndarray, float] | None,
    tile_chart: int,
    texture: PlaneTexture,
    *,
    part: int,
    label: Label,
    height: float,
    up: bool,
    provenance: Provenance,
) -> None:
    corner = np.array(index) * CELL
    patches = round(CELL / PATCH) if own else 1
    size = CELL / patches
    for a in range(patches):
        for b in range(patches):
            low = corner + np.array([a, b]) * size
            xy, faces = clip_to_rectangle(triangles, low, low + size)
            if not len(faces):
                continue
            if own:
                chart, known, texel = own
                local = (xy - corner) / texel
                texels = np.stack([local[:, 0], len(known) - local[:, 1]], 1)
                middle = np.clip(((low + size / 2 - corner) / texel).astype(int), 0, len(known) - 1)
                seen = known[len(known) - 1 - middle[1], middle[0]]
            else:
                n, half = len(texture.tile), len(texture.tile) // 2
                local = (xy - corner) / CELL * half + (np.array(index) % 2) * half
                chart, seen, texels = tile_chart, False, np.stack([local[:, 0], n - local[:, 1]], 1)
            vertices = np.concatenate([xy, np.full((len(xy), 1), height)], 1)
            builder.add(
                vertices,
                texels,
                faces if up else faces[:, ::-1],
                chart=chart,
                part=part,
                label=label,
                provenance=Provenance.SEEN if seen else provenance,
            )
