"""Furnishing of the spaces nobody saw: copies of the photo's objects along the walls, or plain crates."""

from __future__ import annotations

import numpy as np

from lyra_core.generate.procedural.plan import Plan, Space
from lyra_core.generate.procedural.solids import Solid

KEEP_CLEAR = 1.3
"""Around openings and other copies [m]: two robots pass."""
NARROWEST = 3.2
"""Space in which a copy along each wall leaves a way between them [m]."""
AREA_PER_COPY = 12.0
"""Floor for each copy [m2]."""


def placements(plan: Plan, solids: list[Solid], rng: np.random.Generator) -> list[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """Choose the solid and the floor-plan transform (rotation (2, 2), translation (2,) [m]) of each copy.

    The floor stays passable: nothing within KEEP_CLEAR and its own half width of an opening or of another copy, and nothing
    in a space narrower than NARROWEST.
    """
    out: list[tuple[int, tuple[np.ndarray, np.ndarray]]] = []
    usable = [i for i, solid in enumerate(solids) if _is_movable(solid)]
    if not usable:
        return out
    for number, space in enumerate(plan.spaces[1:], start=1):
        extent = np.ptp(space.corners, axis=0)
        if extent.min() < NARROWEST:
            continue
        blocked = [opening.centre for opening in plan.openings if number in opening.spaces]
        wanted, placed = int(np.clip(extent.prod() / AREA_PER_COPY, 2, 10)), 0
        for _ in range(4 * wanted):
            if placed == wanted:
                break
            which = usable[int(rng.integers(len(usable)))]
            place = _against_wall(space, solids[which], rng, blocked)
            if place is not None:
                out.append((which, place[0]))
                blocked.append(place[1])
                placed += 1
    return out


def is_furnished(solids: list[Solid]) -> bool:
    """True if the photo shows an object worth copying."""
    return any(_is_movable(solid) for solid in solids)


def _is_movable(solid: Solid) -> bool:
    """Flat or sliver-like pieces are rarely whole objects; very large ones would block a room."""
    return 0.35 < solid.vertices[:, 2].max() < 2.4 and 0.25 < _width(solid) < 2.6


def _width(solid: Solid) -> float:
    """Extent along the front [m]."""
    return float(np.ptp((solid.vertices[:, :2] - solid.base) @ np.array([-solid.normal[1], solid.normal[0]])))


def _against_wall(
    space: Space, solid: Solid, rng: np.random.Generator, blocked: list[np.ndarray]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray] | None:
    """Return transform and place (2,) of a copy with its back to a random wall, or None where it does not fit."""
    start, end = space.edge(int(rng.integers(len(space.corners))))
    length = float(np.hypot(*(end - start)))
    direction = (end - start) / length
    inward = np.array([-direction[1], direction[0]])
    half = _width(solid) / 2 + 0.1
    if length < 2 * half + 0.4:
        return None
    spot = start + direction * float(rng.uniform(half + 0.2, length - half - 0.2))
    if any(np.hypot(*(spot - b)) < KEEP_CLEAR + half for b in blocked):
        return None
    angle = np.arctan2(inward[1], inward[0]) - np.arctan2(solid.normal[1], solid.normal[0])
    R = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    reach = ((solid.vertices[:, :2] - solid.base) @ R.T) @ inward
    target = spot + inward * (0.03 - float(reach.min()))
    return (R, target - R @ solid.base), target


def crate(rng: np.random.Generator) -> Solid:
    """Return a wooden box, for photos without any object to copy."""
    width, thickness, height = rng.uniform(0.6, 1.2), rng.uniform(0.4, 0.6), rng.uniform(0.6, 1.1)
    y, z = np.array([-1, 1, 1, -1]) * width / 2, np.array([0, 0, 1, 1]) * height
    front = np.stack([np.full(4, thickness / 2), y, z], 1)
    faces = np.array([
        [0, 1, 2], [0, 2, 3], [0, 4, 5], [0, 5, 1], [1, 5, 6], [1, 6, 2],
        [2, 6, 7], [2, 7, 3], [3, 7, 4], [3, 4, 0], [4, 6, 5], [4, 7, 6],
    ])  # fmt: skip
    image = _planks(rng)
    h, w = image.shape[:2]
    texels = np.array([[0, h], [w, h], [w, 0], [0, 0]], float)
    vertices = np.concatenate([front, front - [thickness, 0, 0]])
    return Solid(vertices, faces, np.concatenate([texels, texels]), image, 2, np.array([thickness / 2, 0.0]), np.array([1.0, 0.0]),
                 (vertices, faces))


def _planks(rng: np.random.Generator, *, size: int = 128, boards: int = 5) -> np.ndarray:
    """Texture of wooden boards, (size, size, 3) uint8: a tone per board, stretched noise as grain, dark gaps."""
    grain = np.repeat(rng.standard_normal((size, 8)), size // 8, 1)
    board = np.minimum(np.arange(size) * boards // size, boards - 1)
    tone = 1.0 + 0.08 * rng.standard_normal(boards)[board]
    gap = np.where(np.diff(board, prepend=0) > 0, 0.45, 1.0)
    shade = (tone * gap)[:, None] * (1.0 + 0.035 * grain)
    return np.clip(np.rint(np.array([168.0, 128.0, 84.0]) * shade[..., None]), 0, 255).astype(np.uint8)
