"""The sky: a far dome whose colours are the photo's sky where it shows one. It is drawn, never measured: its depth is unknown."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.generate.procedural.atlas import MeshBuilder
from lyra_core.generate.procedural.photo_source import PhotoSource, smooth_extension
from lyra_core.generate.procedural.walls import grid_faces
from lyra_core.types import Label, Provenance

RADIUS = 180.0
"""Of the dome [m]."""


def sky_image(source: PhotoSource, *, width: int = 768) -> np.ndarray:
    """Bake the sky, (width // 3, width, 3) uint8: columns are azimuth 180..-180 degrees, rows elevation 90..-10 degrees.

    What the photo shows repeats mirrored around the compass and fades into a smooth extension; without any sky in the photo
    it is a plain blue gradient.
    """
    height = width // 3
    azimuth = np.pi - (np.arange(width) + 0.5) / width * 2 * np.pi
    elevation = np.deg2rad(90.0 - (np.arange(height) + 0.5) / height * 100.0)
    points = np.empty((height, width, 3))
    points[..., 0] = np.cos(elevation)[:, None] * np.cos(azimuth)
    points[..., 1] = np.cos(elevation)[:, None] * np.sin(azimuth)
    points[..., 2] = np.sin(elevation)[:, None]
    colours, known = source.sample(source.position + points * 1e4, (Label.SKY,))
    known &= elevation[:, None] > 0.02
    if known.any():
        # A roof or a bird taken for sky would come back all around the compass as a dark cloud.
        light = colours.mean(-1)
        known &= light > 0.55 * float(np.median(light[known]))
    known = np.asarray(cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8))).astype(bool)
    if not known.any():
        top, horizon = np.array([110.0, 150.0, 205.0]), np.array([205.0, 215.0, 225.0])
        blend = np.clip(np.sin(np.maximum(elevation, 0)), 0, 1)[:, None, None]
        return np.broadcast_to(np.rint(horizon + (top - horizon) * blend), (height, width, 3)).astype(np.uint8)
    # Clouds repeat mirrored around the compass; only what remains unknown is a smooth gradient.
    rows, columns = np.asarray(known.any(1)), np.flatnonzero(known.any(0))
    first, last = columns[0], columns[-1]
    period = max(2, last - first)
    index = np.arange(width) - first
    folded = first + np.abs((index + period) % (2 * period) - period)
    folded = np.clip(folded, 0, width - 1)
    colours = np.where(known[..., None], colours, colours[:, folded])
    known = np.logical_or(known, known[:, folded] & rows[:, None])
    base = smooth_extension(np.concatenate([colours] * 3, 1), np.concatenate([known] * 3, 1))[:, width : 2 * width]
    inner = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, 3)
    weight = np.clip(inner / 6.0, 0, 1)[..., None]
    return np.clip(np.rint(base * (1 - weight) + colours * weight), 0, 255).astype(np.uint8)


def add_sky(builder: MeshBuilder, image: np.ndarray, centre: np.ndarray) -> None:
    """Add the dome around a floor-plan point (2,); faces look inwards."""
    rings, sectors = 10, 48
    elevation = np.deg2rad(np.linspace(90.0, -10.0, rings + 1))
    azimuth = np.linspace(np.pi, -np.pi, sectors + 1)
    vertices = np.empty((rings + 1, sectors + 1, 3))
    vertices[..., 0] = centre[0] + RADIUS * np.cos(elevation)[:, None] * np.cos(azimuth)
    vertices[..., 1] = centre[1] + RADIUS * np.cos(elevation)[:, None] * np.sin(azimuth)
    vertices[..., 2] = RADIUS * np.sin(elevation)[:, None]
    h, w = image.shape[:2]
    texels = np.empty((rings + 1, sectors + 1, 2))
    texels[..., 0] = np.linspace(0, w, sectors + 1)
    texels[..., 1] = np.linspace(0, h, rings + 1)[:, None]
    # At the zenith all vertices of the first row coincide, and half of its faces have no area.
    empty = slice(rings * sectors, (rings + 1) * sectors)
    faces = np.delete(grid_faces(rings, sectors), empty, 0)
    builder.add(
        vertices.reshape(-1, 3),
        texels.reshape(-1, 2),
        faces,
        chart=builder.add_chart(image),
        part=builder.add_part("sky"),
        label=Label.SKY,
        provenance=Provenance.CONTINUED,
    )
