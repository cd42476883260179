"""Another look for the same geometry: light and paint drawn from a seed (domain randomisation, Tobin et al. 2017).

Light changes the whole picture, as another hour of the day would: exposure, white balance, tone curve, and a direction that
makes surfaces facing it brighter. Paint changes only surfaces of which the photo shows nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from lyra_core.types import Label, Provenance, SurfaceMesh

RIM = 3
"""Texels around a chart that repeat its border [px]."""
WHITE = 245.0
"""Painted surfaces stay below this [grey levels]."""
PAINTS: dict[Label, tuple[tuple[float, float], tuple[float, float]]] = {
    Label.FLOOR: ((0.0, 0.35), (0.25, 0.75)),
    Label.WALL: ((0.0, 0.3), (0.5, 0.88)),
    Label.CEILING: ((0.0, 0.1), (0.7, 0.92)),
    Label.OBSTACLE: ((0.1, 0.7), (0.3, 0.85)),
}
"""Saturation and value that the mean colour of each kind of surface is drawn from."""


def unseen_faces(mesh: SurfaceMesh) -> np.ndarray:
    """Return (F,) bool: faces that may be painted: invented ones, and continued ones in parts without any seen face.

    What continues a seen surface in the same part keeps its colour, or the photo's wall would be patched.
    """
    shown = np.zeros(int(mesh.face_part.max(initial=-1)) + 1, bool)
    shown[mesh.face_part[mesh.face_provenance == Provenance.SEEN]] = True
    continued = (mesh.face_provenance == Provenance.CONTINUED) & ~shown[mesh.face_part]
    return ((mesh.face_provenance == Provenance.INVENTED) | continued) & np.isin(mesh.face_label, [int(label) for label in PAINTS])


def repainted(mesh: SurfaceMesh, rng: np.random.Generator, *, strength: float) -> tuple[SurfaceMesh, dict[str, Any]]:
    """Give unseen floors, walls, ceilings and objects other colours; their texture stays, divided by its mean colour.

    The painted texels are copies below the old texture, because seen and unseen faces share charts. strength: 0..1, how far
    from the old colour to the drawn one.

    Returns:
        the mesh and the colours: {'paint': {label: [r, g, b]}}.
    """
    targets = {label: _colour(rng, *ranges) for label, ranges in PAINTS.items()}
    moved = unseen_faces(mesh)
    if not moved.any() or strength <= 0:
        return mesh, {"paint": {}}
    texels, height = texel_positions(mesh), mesh.texture.shape[0]
    corner_rows = texels[mesh.faces[moved]][..., 1]
    top = int(np.clip(np.floor(corner_rows.min()) - RIM, 0, height))
    bottom = int(np.clip(np.ceil(corner_rows.max()) + RIM, 0, height))
    strip = np.zeros((bottom - top, mesh.texture.shape[1], 3), np.uint8)
    painted: dict[str, list[int]] = {}
    shown = _drawn(mesh, np.flatnonzero(moved), mesh.face_label.astype(np.float32), fill=0.0)[top:bottom]
    for label, target in targets.items():
        used = shown == label
        if not used.any():
            continue
        wide = cv2.dilate(used.astype(np.uint8), np.ones((2 * RIM + 1, 2 * RIM + 1), np.uint8)) > 0
        mask = used | (wide & (shown == 0))
        colours, own = (mesh.texture[top:bottom][m].astype(np.float32) for m in (mask, used))
        mean = own.mean(0).clip(8.0)
        gain = (1 - strength) + strength * target / mean
        # Facades and leaves have lights and darks of their own; no more than a twentieth of them becomes white.
        gain *= min(1.0, WHITE / float((np.percentile(own, 95, axis=0) * gain).max()))
        strip[mask] = np.clip(np.rint(colours * gain), 0, 255).astype(np.uint8)
        painted[label.name.lower()] = np.rint(mean * gain).astype(int).tolist()
    return _moved(with_rows(mesh, strip), moved, height - top), {"paint": painted}


def _colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> np.ndarray:
    """Draw an sRGB colour (3,) float32 of any hue."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def texel_positions(mesh: SurfaceMesh) -> np.ndarray:
    """Return (V, 2) float64 positions in the texture [px, x right, y down]."""
    h, w = mesh.texture.shape[:2]
    return np.stack([mesh.uv[:, 0].astype(np.float64) * w, (1.0 - mesh.uv[:, 1].astype(np.float64)) * h], 1)


def with_rows(mesh: SurfaceMesh, rows: np.ndarray) -> SurfaceMesh:
    """Return the mesh with rows (h, w, 3) uint8 below its texture; what is there stays where it is."""
    height, extra = mesh.texture.shape[0], len(rows)
    uv = mesh.uv.astype(np.float64)
    uv[:, 1] = (uv[:, 1] * height + extra) / (height + extra)
    return replace(mesh, uv=uv.astype(np.float32), texture=np.concatenate([mesh.texture, rows]))


def _moved(mesh: SurfaceMesh, moved: np.ndarray, down: int) -> SurfaceMesh:
    """Let faces (F,) bool read the texture ``down`` texels further down; their vertices are split from those of other faces."""
    own, corner = np.unique(mesh.faces[moved], return_inverse=True)
    kept, other = np.unique(mesh.faces[~moved], return_inverse=True)
    faces = np.empty_like(mesh.faces)
    faces[~moved] = other.reshape(-1, 3)
    faces[moved] = corner.reshape(-1, 3) + len(kept)
    uv = np.concatenate([mesh.uv[kept], mesh.uv[own] - np.array([0.0, down / mesh.texture.shape[0]], np.float32)])
    return replace(mesh, vertices=np.concatenate([mesh.vertices[kept], mesh.vertices[own]]), faces=faces, uv=uv.astype(np.float32))


def relit(mesh: SurfaceMesh, rng: np.random.Generator, *, strength: float) -> tuple[SurfaceMesh, dict[str, Any]]:
    """Put the world in another light.

    Linear light is multiplied by 2^exposure and a gain per channel, raised to the power gamma, and by 1 + contrast (n . l) on
    surfaces with normal n, l being the direction to the light (see light_map). strength: 0..1.

    Returns:
        the mesh and what was drawn: exposure_ev, white_balance [r, b], gamma, light_azimuth_deg, light_elevation_deg, contrast.
    """
    draw = {
        "exposure_ev": float(rng.uniform(-0.7, 0.7)) * strength,
        "white_balance": (np.exp(rng.normal(0.0, 0.12, 2) * strength)).tolist(),
        "gamma": float(np.exp(rng.uniform(-0.2, 0.2) * strength)),
        "light_azimuth_deg": float(rng.uniform(0.0, 360.0)),
        "light_elevation_deg": float(rng.uniform(20.0, 70.0)),
        "contrast": float(rng.uniform(0.08, 0.3)) * strength,
    }
    if strength <= 0:
        return mesh, {}
    draw = {key: np.round(value, 4).tolist() for key, value in draw.items()}
    lit = mesh.texture.astype(np.float32) * light_map(mesh, draw)[..., None]
    lit = np.power(np.minimum(lit, 255.0) / 255.0, 2.2)
    gain = 2.0 ** draw["exposure_ev"] * np.array([draw["white_balance"][0], 1.0, draw["white_balance"][1]], np.float32)
    out = 255.0 * np.power(np.minimum(lit * gain, 1.0), draw["gamma"] / 2.2)
    return replace(mesh, texture=np.rint(out).astype(np.uint8)), draw


def light_map(mesh: SurfaceMesh, draw: dict[str, Any]) -> np.ndarray:
    """Return the factor of each texel, (h, w) float32; 1 where no surface but the sky reads it.

    One factor for each chart, or a wall's picture that is used on several walls would show patches: the mean over its seen
    faces by area, or over all where none is seen.
    """
    azimuth, elevation = np.radians(draw["light_azimuth_deg"]), np.radians(draw["light_elevation_deg"])
    light = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    faces = np.flatnonzero(mesh.face_label != Label.SKY)
    corners = mesh.vertices[mesh.faces[faces]].astype(np.float64)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1)
    used = _drawn(mesh, faces, np.ones(len(mesh.faces)), fill=0.0) > 0
    count, charts = cv2.connectedComponents(used.astype(np.uint8), connectivity=4)
    middle = np.floor(texel_positions(mesh)[mesh.faces[faces]].mean(1)).astype(int)
    chart = charts[np.clip(middle[:, 1], 0, used.shape[0] - 1), np.clip(middle[:, 0], 0, used.shape[1] - 1)]
    weight = area * np.where(mesh.face_provenance[faces] == Provenance.SEEN, 1.0, 1e-6)
    share = np.bincount(chart, normal @ light / np.maximum(area, 1e-12) * weight, count)
    factor = np.round(1.0 + draw["contrast"] * share / np.maximum(np.bincount(chart, weight, count), 1e-15), 4)
    factor[0] = 1.0
    # Sampling between texels reads the repeated border too.
    wide = cv2.dilate(charts.astype(np.float32), np.ones((2 * RIM - 1, 2 * RIM - 1), np.uint8)).astype(np.int64)
    return factor[np.where(charts > 0, charts, wide)].astype(np.float32)


def _drawn(mesh: SurfaceMesh, faces: np.ndarray, values: np.ndarray, *, fill: float) -> np.ndarray:
    """Write the value of each face (one of values (F,)) into the texels that it reads, (h, w) float32; ``fill`` elsewhere.

    Where faces share texels the seen one decides, then the larger: a door's jamb reads a strip of the wall's picture.
    """
    out = np.full(mesh.texture.shape[:2], fill, np.float32)
    corners = mesh.vertices[mesh.faces[faces]].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    # OpenCV has pixel centres at whole numbers; sixteenths of a texel.
    triangles = np.rint((texel_positions(mesh)[mesh.faces[faces]] - 0.5) * 16).astype(np.int32)
    for k in np.lexsort((np.round(area, 6), mesh.face_provenance[faces] == Provenance.SEEN)):
        cv2.fillConvexPoly(out, triangles[k], float(values[faces[k]]), shift=4)
        # One texel more: sampling between texels reads just beyond the edge.
        cv2.polylines(out, [triangles[k]], True, float(values[faces[k]]), thickness=2, shift=4)
    return out
