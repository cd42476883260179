"""One texture atlas for the whole world: charts by plane, packed on shelves, and the mesh that refers to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from lyra_core.types import Label, Provenance, SurfaceMesh

PADDING = 3
"""Texels of repeated border around each chart, so that bilinear sampling never reads a neighbour [px]."""


@dataclass
class MeshBuilder:
    """Collects textured pieces; vertices carry texel positions in their chart until the atlas is packed."""

    charts: list[np.ndarray] = field(default_factory=list)
    part_names: list[str] = field(default_factory=list)
    _vertices: list[np.ndarray] = field(default_factory=list)
    _texels: list[np.ndarray] = field(default_factory=list)
    _vertex_chart: list[np.ndarray] = field(default_factory=list)
    _faces: list[np.ndarray] = field(default_factory=list)
    _face_data: list[np.ndarray] = field(default_factory=list)
    _count: int = 0

    def add_chart(self, image: np.ndarray) -> int:
        """Register a chart (h, w, 3) uint8 and return its number."""
        self.charts.append(np.ascontiguousarray(image))
        return len(self.charts) - 1

    def add_part(self, name: str) -> int:
        """Register a connected semantic part and return its number."""
        self.part_names.append(name)
        return len(self.part_names) - 1

    def add(
        self,
        vertices: np.ndarray,
        texels: np.ndarray,
        faces: np.ndarray,
        *,
        chart: int,
        part: int,
        label: Label,
        provenance: np.ndarray | Provenance,
    ) -> None:
        """Add faces (F, 3) over vertices (V, 3) with texel positions (V, 2) [px, x right, y down] in one chart.

        Faces are counter-clockwise seen from free space. provenance is one value or (F,).
        """
        if len(faces) == 0:
            return
        data = np.empty((len(faces), 3), np.int32)
        data[:, 0], data[:, 1], data[:, 2] = int(label), provenance, part
        self._vertices.append(np.asarray(vertices, np.float32))
        self._texels.append(np.asarray(texels, np.float32))
        self._vertex_chart.append(np.full(len(vertices), chart, np.int32))
        self._faces.append(np.asarray(faces, np.int32) + self._count)
        self._face_data.append(data)
        self._count += len(vertices)

    def build(self, *, atlas_size: int) -> SurfaceMesh:
        """Pack the charts into a square atlas and return the mesh. Charts shrink evenly if they do not fit."""
        texture, offsets, scale = pack_charts(self.charts, atlas_size)
        chart = np.concatenate(self._vertex_chart)
        texels = np.concatenate(self._texels) * scale[chart] + offsets[chart]
        uv = np.stack([texels[:, 0] / atlas_size, 1.0 - texels[:, 1] / atlas_size], 1)
        data = np.concatenate(self._face_data)
        return SurfaceMesh(
            np.concatenate(self._vertices),
            np.concatenate(self._faces),
            uv.astype(np.float32),
            texture,
            data[:, 0].astype(np.uint8),
            data[:, 1].astype(np.uint8),
            data[:, 2],
            tuple(self.part_names),
        )


def pack_charts(charts: list[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place charts on shelves in a size x size texture.

    Returns:
        texture (size, size, 3) uint8, offsets (C, 2) of each chart's first texel, scale (C, 2) texels per chart texel.
    """
    factor = min(1.0, 0.93 * size / np.sqrt(sum((c.shape[0] + 2 * PADDING) * (c.shape[1] + 2 * PADDING) for c in charts)))
    while (placed := _shelves(charts, size, factor)) is None:
        factor *= 0.93
    texture = np.zeros((size, size, 3), np.uint8)
    offsets, scale = np.zeros((len(charts), 2)), np.ones((len(charts), 2))
    for i, (chart, (x, y, w, h)) in enumerate(zip(charts, placed, strict=True)):
        image = chart if (h, w) == chart.shape[:2] else cv2.resize(chart, (w, h), interpolation=cv2.INTER_AREA)
        texture[y - PADDING : y + h + PADDING, x - PADDING : x + w + PADDING] = cv2.copyMakeBorder(
            image, PADDING, PADDING, PADDING, PADDING, cv2.BORDER_REPLICATE
        )
        offsets[i], scale[i] = (x, y), (w / chart.shape[1], h / chart.shape[0])
    return texture, offsets, scale


def _shelves(charts: list[np.ndarray], size: int, factor: float) -> list[tuple[int, int, int, int]] | None:
    sizes = [(max(1, round(c.shape[1] * factor)), max(1, round(c.shape[0] * factor))) for c in charts]
    placed: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)] * len(charts)
    x = y = shelf = 0
    for i in sorted(range(len(charts)), key=lambda i: (-sizes[i][1], -sizes[i][0], i)):
        w, h = sizes[i][0] + 2 * PADDING, sizes[i][1] + 2 * PADDING
        if x + w > size:
            x, y, shelf = 0, y + shelf, 0
        if w > size or y + h > size:
            return None
        placed[i] = (x + PADDING, y + PADDING, sizes[i][0], sizes[i][1])
        x, shelf = x + w, max(shelf, h)
    return placed
