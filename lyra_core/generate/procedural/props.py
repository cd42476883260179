"""Loose things that can stand on any floor: boxes, bins, and copies of the photo's own objects; and how they join a world."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lyra_core.generate.procedural.appearance import texel_positions, with_rows
from lyra_core.types import CollisionPart, Label, Provenance, SurfaceMesh

IMAGE = 64
"""Side of a prop's own picture [px]."""
GAP = 3
"""Texels of repeated border around it [px]."""
SIDES = 16
"""Of a round bin."""
LARGEST = 1.5
"""Extent of an object that is copied [m]."""
SUNK = 0.4
"""A lifted object's foot may lie so far below the floor, which hides it [m]."""


@dataclass(frozen=True)
class Prop:
    """A closed solid, standing at z = 0 round the origin, with the mesh that is drawn."""

    kind: str
    solid: tuple[np.ndarray, np.ndarray]
    """Vertices (V, 3) float32 [m] and outward faces (F, 3) int32."""
    vertices: np.ndarray
    """(N, 3) float32 of the drawn mesh [m]."""
    faces: np.ndarray
    """(M, 3) int32."""
    texels: np.ndarray
    """(N, 2) [px]: in the image, or for a copy in the world's texture."""
    image: np.ndarray | None
    """(IMAGE, IMAGE, 3) uint8; None = a copy, which has its picture already."""

    @property
    def radius(self) -> float:
        """Of the upright cylinder round the origin that holds it [m]."""
        return float(np.hypot(*self.solid[0][:, :2].T).max())

    @property
    def height(self) -> float:
        """[m]"""
        return float(self.solid[0][:, 2].max())

    def placed(self, position: np.ndarray, yaw: float) -> Prop:
        """Return it turned about z by yaw [rad] and moved to a position (3,) [m]."""
        c, s = np.cos(yaw), np.sin(yaw)
        R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        solid, drawn = ((v @ R.T + position).astype(np.float32) for v in (self.solid[0].astype(np.float64), self.vertices))
        return replace(self, solid=(solid, self.solid[1]), vertices=drawn)


def draw_prop(rng: np.random.Generator, objects: list[Prop]) -> Prop:
    """Draw a box, a round bin, or one of the photo's objects (see copies_of)."""
    kind = int(rng.integers(3 if objects else 2))
    colour, stripes = rng.uniform(40, 220, 3), int(rng.integers(1, 5))
    grain = rng.normal(0.0, 6.0, (IMAGE, IMAGE, 1))
    size = rng.uniform([0.25, 0.25, 0.2], [0.8, 0.6, 1.0])
    which = int(rng.integers(max(1, len(objects))))
    if kind == 2:
        return objects[which]
    band = np.where((np.arange(IMAGE) * stripes * 2 // IMAGE) % 2 == 0, 1.0, 0.82)
    image = np.clip(np.rint(colour * band[:, None, None] + grain), 0, 255).astype(np.uint8)
    return _box(size, image) if kind == 0 else _bin(0.5 * size[1], size[2], image)


def _box(size: np.ndarray, image: np.ndarray) -> Prop:
    """Make a box of a size (3,) [m]."""
    x, y = size[0] / 2, size[1] / 2
    ring = [(-x, -y), (x, -y), (x, y), (-x, y)]
    return _prism("box", np.array(ring), size[2], image, around=4)


def _bin(radius: float, height: float, image: np.ndarray) -> Prop:
    """Make an upright cylinder [m]."""
    angle = np.arange(SIDES) * 2 * np.pi / SIDES
    return _prism("bin", radius * np.stack([np.cos(angle), np.sin(angle)], 1), height, image, around=2)


def _prism(kind: str, ring: np.ndarray, height: float, image: np.ndarray, *, around: int) -> Prop:
    """Make a prism over a convex counter-clockwise ring (K, 2) [m]; the image goes ``around`` times round its side."""
    n = len(ring)
    i = np.arange(n)
    j = (i + 1) % n
    sides = np.concatenate([np.stack([i, j, j + n], 1), np.stack([i, j + n, i + n], 1)])
    fan = np.stack([np.zeros(n - 2, int), i[1:-1], i[2:]], 1)
    faces = np.concatenate([sides, fan + n, fan[:, ::-1]]).astype(np.int32)
    solid = np.concatenate([np.insert(ring, 2, 0.0, 1), np.insert(ring, 2, height, 1)]).astype(np.float32)
    # Every side has its own corners: the image runs forwards on one and backwards on the next, without a seam.
    drawn, texels, triangles = [], [], []
    for k in range(n):
        first, second = (abs((m * around / n) % 2 - 1) * IMAGE for m in (k, k + 1))
        drawn += [solid[k], solid[(k + 1) % n], solid[(k + 1) % n + n], solid[k + n]]
        texels += [(first, IMAGE), (second, IMAGE), (second, 0), (first, 0)]
        triangles += [(4 * k, 4 * k + 1, 4 * k + 2), (4 * k, 4 * k + 2, 4 * k + 3)]
    flat = (ring - ring.min(0)) / np.ptp(ring, axis=0) * IMAGE
    for z, fans in ((n, fan), (0, fan[:, ::-1])):
        triangles += [tuple(t) for t in fans + len(drawn)]
        drawn += list(solid[z : z + n])
        texels += [tuple(t) for t in flat]
    return Prop(kind, (solid, faces), np.array(drawn, np.float32), np.array(triangles, np.int32), np.array(texels), image)


def copies_of(mesh: SurfaceMesh, parts: list[CollisionPart]) -> list[Prop]:
    """Return the photo's objects that are small enough to stand elsewhere, moved to the origin."""
    texels, out = texel_positions(mesh), []
    for part in parts:
        if part.kind != "solid" or part.provenance != Provenance.SEEN or part.name not in mesh.part_names:
            continue
        middle = np.append((part.vertices.min(0) + part.vertices.max(0))[:2] / 2, 0.0).astype(np.float32)
        extent = np.ptp(part.vertices, axis=0)
        if extent[:2].max() > LARGEST or not 0.15 < part.vertices[:, 2].max() < 2.2 or abs(part.vertices[:, 2].min()) > SUNK:
            continue
        used, faces = np.unique(mesh.faces[mesh.face_part == mesh.part_names.index(part.name)], return_inverse=True)
        solid = (part.vertices - middle, part.faces)
        out.append(Prop("copy", solid, mesh.vertices[used] - middle, faces.reshape(-1, 3).astype(np.int32), texels[used], None))
    return out


def with_props(
    mesh: SurfaceMesh, parts: list[CollisionPart], props: list[Prop]
) -> tuple[SurfaceMesh, list[CollisionPart]]:
    """Return a world with placed props: invented obstacles clutter_0, clutter_1 ... with their own collider each."""
    if not props:
        return mesh, parts
    cell = IMAGE + 2 * GAP
    across = max(1, mesh.texture.shape[1] // cell)
    own = [i for i, prop in enumerate(props) if prop.image is not None]
    rows = np.zeros((-(-len(own) // across) * cell, mesh.texture.shape[1], 3), np.uint8)
    below = mesh.texture.shape[0]
    offset = {i: np.zeros(2) for i in range(len(props))}
    for slot, i in enumerate(own):
        y, x = (slot // across) * cell, (slot % across) * cell
        image = props[i].image
        assert image is not None
        rows[y : y + cell, x : x + cell] = np.pad(image, ((GAP, GAP), (GAP, GAP), (0, 0)), mode="edge")
        offset[i] = np.array([x + GAP, below + y + GAP])
    mesh = with_rows(mesh, rows)
    h, w = mesh.texture.shape[:2]
    texels = [prop.texels + offset[i] for i, prop in enumerate(props)]
    uv = [np.stack([t[:, 0] / w, 1.0 - t[:, 1] / h], 1).astype(np.float32) for t in texels]
    first = np.cumsum([len(mesh.vertices), *(len(prop.vertices) for prop in props[:-1])])
    count = [len(prop.faces) for prop in props]
    names = [f"clutter_{i}" for i in range(len(props))]
    number = np.repeat(len(mesh.part_names) + np.arange(len(props)), count).astype(mesh.face_part.dtype)
    mesh = replace(
        mesh,
        vertices=np.concatenate([mesh.vertices, *(prop.vertices for prop in props)]).astype(np.float32),
        faces=np.concatenate([mesh.faces, *(prop.faces + n for prop, n in zip(props, first, strict=True))]).astype(np.int32),
        uv=np.concatenate([mesh.uv, *uv]),
        face_label=np.concatenate([mesh.face_label, np.full(sum(count), Label.OBSTACLE, np.uint8)]),
        face_provenance=np.concatenate([mesh.face_provenance, np.full(sum(count), Provenance.INVENTED, np.uint8)]),
        face_part=np.concatenate([mesh.face_part, number]),
        part_names=(*mesh.part_names, *names),
    )
    solids = [CollisionPart(name, Label.OBSTACLE, "solid", *prop.solid, Provenance.INVENTED)
              for name, prop in zip(names, props, strict=True)]
    return mesh, [*parts, *solids]
