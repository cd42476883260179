"""What the photo's camera hits first in the built geometry: those surfaces, and only those, carry the photo's pixels."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.photo_source import PhotoSource
from lyra_core.generate.procedural.plan import Space
from lyra_core.generate.procedural.polygons import merged, triangulate
from lyra_core.generate.procedural.solids import Solid
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.types import Provenance


def with_first_hit(source: PhotoSource, place: Space, skylines: list[np.ndarray], solids: list[Solid]) -> PhotoSource:
    """Return the source with the first-hit depth of the photo's place: floor, ceiling, walls up to their skylines, solids.

    skylines: (n,) heights [m] per seen edge, in the edges' order.
    """
    flat = triangulate(place.corners)
    pieces = [(np.insert(place.corners, 2, 0.0, 1), flat)]
    if place.ceiling:
        pieces.append((np.insert(place.corners, 2, place.height, 1), flat))
    for edge, provenance in enumerate(place.edge_provenance):
        top = skylines[edge] if provenance == Provenance.SEEN and not place.ceiling else np.full(2, place.height)
        pieces.append(_wall(*place.edge(edge), top))
    flat_faces = sum(len(faces) for _, faces in pieces)
    pieces += [(solid.vertices, solid.faces) for solid in solids]
    hits = cast_camera(make_ray_tracer(*merged(pieces)), source.estimate.camera, source.estimate.T_world_camera)
    shape = source.rgb.shape[:2]
    return source.with_first_hit(hits.t.reshape(shape), standing=(hits.face >= flat_faces).reshape(shape))


def _wall(start: np.ndarray, end: np.ndarray, top: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Upright strip from start to end (2,) with its upper edge at heights (n,) [m]."""
    n = len(top)
    xy = start + np.linspace(0, 1, n)[:, None] * (end - start)
    vertices = np.concatenate([np.insert(xy, 2, 0.0, 1), np.concatenate([xy, top[:, None]], 1)])
    i = np.arange(n - 1)
    return vertices, np.concatenate([np.stack([i, i + 1, i + n], 1), np.stack([i + 1, i + n + 1, i + n], 1)])
