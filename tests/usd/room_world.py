"""A hand-made test world: a 6 x 5 x 2.6 m room with a door, two boxes, an atlas texture, and a small splat cloud."""

from __future__ import annotations

import numpy as np

from lyra_core.types import CollisionPart, GaussianCloud, Label, Provenance, SurfaceMesh

X0, X1, Y0, Y1, HEIGHT = -3.0, 3.0, -2.5, 2.5, 2.6
DOOR = (-0.5, 0.5, 2.0)
"""Door in the wall x = X1: y from, y to, height; 0.6 m deep behind it."""
BOXES = {"table": ((0.8, 0.6, 0.0), (1.8, 1.8, 0.75)), "chair": ((-1.6, -1.5, 0.0), (-1.0, -0.9, 0.9))}


def quad(a, b, c, d, cells: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return a grid of 2 cells^2 triangles over the parallelogram a b c d, counter-clockwise seen from its front."""
    a, b, d = (np.asarray(p, np.float64) for p in (a, b, d))
    s, t = np.meshgrid(np.linspace(0, 1, cells + 1), np.linspace(0, 1, cells + 1))
    vertices = a + s.reshape(-1, 1) * (b - a) + t.reshape(-1, 1) * (d - a)
    i = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1)
    n = cells + 1
    return vertices.astype(np.float32), np.concatenate([np.stack([i, i + 1, i + n + 1], 1), np.stack([i, i + n + 1, i + n], 1)])


def join(pieces) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0] + [len(v) for v, _ in pieces])[:-1]
    return (
        np.concatenate([v for v, _ in pieces]).astype(np.float32),
        np.concatenate([f + o for (_, f), o in zip(pieces, offsets, strict=True)]).astype(np.int32),
    )


def box(low, high) -> tuple[np.ndarray, np.ndarray]:
    (x0, y0, z0), (x1, y1, z1) = low, high
    return join(
        [
            quad((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)),
            quad((x0, y1, z0), (x1, y1, z0), (x1, y0, z0), (x0, y0, z0)),
            quad((x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)),
            quad((x1, y1, z0), (x0, y1, z0), (x0, y1, z1), (x1, y1, z1)),
            quad((x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)),
            quad((x0, y1, z0), (x0, y0, z0), (x0, y0, z1), (x0, y1, z1)),
        ]
    )


def walls() -> tuple[np.ndarray, np.ndarray]:
    h, (d0, d1, top) = HEIGHT, DOOR
    x2 = X1 + 0.6
    vertices, faces = join(
        [
            quad((X1, Y1, 0), (X0, Y1, 0), (X0, Y1, h), (X1, Y1, h), 4),
            quad((X0, Y0, 0), (X1, Y0, 0), (X1, Y0, h), (X0, Y0, h), 4),
            quad((X0, Y1, 0), (X0, Y0, 0), (X0, Y0, h), (X0, Y1, h), 4),
            quad((X1, Y0, 0), (X1, d0, 0), (X1, d0, h), (X1, Y0, h)),
            quad((X1, d1, 0), (X1, Y1, 0), (X1, Y1, h), (X1, d1, h)),
            quad((X1, d0, top), (X1, d1, top), (X1, d1, h), (X1, d0, h)),
            quad((X1, d0, 0), (x2, d0, 0), (x2, d0, top), (X1, d0, top)),
            quad((x2, d1, 0), (X1, d1, 0), (X1, d1, top), (x2, d1, top)),
            quad((X1, d1, top), (X1, d0, top), (x2, d0, top), (x2, d1, top)),
        ]
    )
    return vertices, np.ascontiguousarray(faces[:, ::-1])


def make_parts(*, obstacles: bool = True, floor_up: bool = True) -> list[CollisionPart]:
    x2, (d0, d1, top) = X1 + 0.6, DOOR
    floor = join(
        [quad((X0, Y0, 0), (X1, Y0, 0), (X1, Y1, 0), (X0, Y1, 0), 8), quad((X1, d0, 0), (x2, d0, 0), (x2, d1, 0), (X1, d1, 0))]
    )
    if not floor_up:
        floor = floor[0], np.ascontiguousarray(floor[1][:, ::-1])
    ceiling = quad((X0, Y1, HEIGHT), (X1, Y1, HEIGHT), (X1, Y0, HEIGHT), (X0, Y0, HEIGHT), 2)
    door = quad((x2, d0, 0), (x2, d0, top), (x2, d1, top), (x2, d1, 0))
    rows = [
        ("floor", Label.FLOOR, "shell", floor, Provenance.SEEN),
        ("walls", Label.WALL, "shell", walls(), Provenance.CONTINUED),
        ("ceiling", Label.CEILING, "shell", ceiling, Provenance.INVENTED),
        ("door", Label.DOOR, "shell", door, Provenance.INVENTED),
    ]
    if obstacles:
        rows += [(name, Label.OBSTACLE, "solid", box(*corners), Provenance.SEEN) for name, corners in BOXES.items()]
    return [CollisionPart(name, label, kind, v, f.astype(np.int32), seen) for name, label, kind, (v, f), seen in rows]


def make_mesh(*, side: int = 256) -> SurfaceMesh:
    """Texture every part by one cell of a 3 x 2 atlas: a checker board in the part's colour."""
    parts = make_parts()
    pieces, uv, labels, seen, owner = [], [], [], [], []
    for i, part in enumerate(parts):
        corners = part.vertices[part.faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        axis = np.abs(normal).argmax(1)
        flat = corners.reshape(-1, 3)
        plane = np.array([[1, 2], [0, 2], [0, 1]])[np.repeat(axis, 3)]
        local = (np.take_along_axis(flat, plane, 1) - [-3, -3]) / 7
        uv.append(((local * 0.9 + 0.05) + [i % 3, i // 3]) / [3, 2])
        pieces.append((flat, np.arange(len(flat)).reshape(-1, 3)))
        n = len(part.faces)
        labels.append(np.full(n, part.label)), seen.append(np.full(n, part.provenance)), owner.append(np.full(n, i))
    vertices, faces = join(pieces)
    return SurfaceMesh(
        vertices,
        faces,
        np.concatenate(uv).astype(np.float32),
        make_texture(side),
        np.concatenate(labels).astype(np.uint8),
        np.concatenate(seen).astype(np.uint8),
        np.concatenate(owner).astype(np.int32),
        tuple(p.name for p in parts),
    )


def make_texture(side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    colours = np.array([[150, 120, 90], [200, 200, 190], [240, 240, 240], [110, 70, 40], [60, 90, 160], [170, 60, 60]], np.float64)
    cell = columns * 3 // side + 3 * (1 - rows * 2 // side)
    check = 0.8 + 0.2 * ((rows // 8 + columns // 8) % 2)
    return (colours[cell] * check[..., None]).astype(np.uint8)


def make_cloud(count: int = 500, *, coefficients: int = 1) -> GaussianCloud:
    rng = np.random.default_rng(3)
    quats = rng.normal(size=(count, 4))
    return GaussianCloud(
        rng.uniform([X0, Y0, 0], [X1, Y1, HEIGHT], (count, 3)).astype(np.float32),
        (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.01, 0.05, (count, 3)).astype(np.float32),
        rng.uniform(0.1, 1, count).astype(np.float32),
        rng.normal(size=(count, coefficients, 3)).astype(np.float32),
        rng.integers(0, 3, count).astype(np.uint8),
    )


PROVENANCE = {
    "photo_sha256": "ab" * 32,
    "photo_name": "room.jpg",
    "photo_licence": "CC-BY-4.0",
    "generator": "procedural",
    "seed": 7,
    "trajectory": "trajectory.npz",
    "versions": {"lyra_worlds": "0.1.0"},
}
