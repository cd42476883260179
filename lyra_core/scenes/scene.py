"""Scenes of analytic solids: what they are made of and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import Label

Rgb = tuple[float, ...]
"""Three numbers."""
Point = Sequence[float] | np.ndarray
"""Three numbers [m]."""


class Kind(IntEnum):
    """Solids, each in its own local frame with the centre at the origin."""

    BOX = 0
    """size = half extents; extra = radius of rounded edges and corners."""
    ELLIPSOID = 1
    """size = radii."""
    CONE = 2
    """Truncated cone about z: size = (bottom radius, top radius, half height); equal radii make a cylinder."""


@dataclass(frozen=True)
class Material:
    """How a surface looks; colours are sRGB in [0, 1]."""

    pattern: str
    """Name in materials.PATTERNS."""
    colour: Rgb
    second: Rgb = (0.5, 0.5, 0.5)
    scale: float = 1.0
    """Size of the pattern's repeat [m]."""
    gloss: float = 0.0
    """Mirror reflectance at normal incidence (0.04 = lacquer)."""
    roughness: float = 0.2
    emission: float = 0.0
    """Own radiance in units of the colour."""
    space: str = "local"
    """'local': the pattern moves with the object; 'world': it runs on over neighbours."""


@dataclass(frozen=True)
class Light:
    """A lamp or the sun."""

    kind: str
    """'rect': position is the centre, edges span it, light leaves along edge_u x edge_v; 'sphere'; 'sun': position points to it."""
    position: Rgb
    colour: Rgb
    """Linear: radiance (rect), intensity (sphere), irradiance (sun)."""
    edge_u: Rgb = (0.0, 0.0, 0.0)
    edge_v: Rgb = (0.0, 0.0, 0.0)
    radius: float = 0.05
    """Sphere [m]; sun: tangent of the angular radius."""


@dataclass(frozen=True)
class Sky:
    """Radiance of rays that hit nothing (linear)."""

    zenith: Rgb = (0.35, 0.55, 0.95)
    horizon: Rgb = (0.85, 0.92, 1.0)
    ground: Rgb = (0.25, 0.27, 0.2)
    strength: float = 1.0
    """Brightness as seen."""
    lights: bool = True
    """Whether the sky lights surfaces; False where 'rect' lights in the windows do."""
    trees: float = 0.0
    """Height of a far tree line [tangent of elevation]; 0 = none."""


@dataclass(frozen=True)
class Scene:
    """Solids as arrays, with their materials, labels and lights. World frame: Z up, metres."""

    kind: np.ndarray
    """(P,) uint8 of Kind."""
    T_world_local: np.ndarray
    """(P, 4, 4) float64."""
    size: np.ndarray
    """(P, 3) float64 [m]; see Kind."""
    extra: np.ndarray
    """(P,) float64 [m]; see Kind."""
    material: np.ndarray
    """(P,) int32 index into materials."""
    label: np.ndarray
    """(P,) uint8 of Label."""
    casts: np.ndarray
    """(P,) bool: takes part in shadows; False for lamp shades."""
    materials: tuple[Material, ...]
    lights: tuple[Light, ...]
    sky: Sky
    ambient: Rgb = (0.0, 0.0, 0.0)
    """Radiance that stands for all further bounces."""
    walkable: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """x0, y0, x1, y1 of the place where a camera may stand [m]."""

    def __post_init__(self) -> None:
        n = len(self.kind)
        shapes = {"T_world_local": (n, 4, 4), "size": (n, 3), "extra": (n,), "material": (n,), "label": (n,), "casts": (n,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"Scene.{name}: got shape {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.kind)

    def radii(self) -> np.ndarray:
        """Return (P,) radii of the bounding spheres about the local origins [m]."""
        cone = np.hypot(np.maximum(self.size[:, 0], self.size[:, 1]), self.size[:, 2])
        by_kind = [np.linalg.norm(self.size, axis=1), self.size.max(1), cone]
        return np.choose(self.kind, by_kind)


def place(x: float, y: float, yaw: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Return T (4, 4): a frame standing at x, y, z [m], turned by yaw [rad] about +z."""
    T = np.eye(4)
    T[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    T[:3, 3] = x, y, z
    return T


def rotation(axis: str, angle: float) -> np.ndarray:
    """Return R (3, 3) about 'x', 'y' or 'z' by angle [rad]."""
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    R = np.eye(3)
    R[i, i] = R[j, j] = np.cos(angle)
    R[i, j], R[j, i] = -np.sin(angle), np.sin(angle)
    return R


@dataclass
class SceneBuilder:
    """Collects solids; every method takes the frame T_world_object they stand in."""

    rows: list[tuple] = field(default_factory=list)
    materials: dict[Material, int] = field(default_factory=dict)
    lights: list[Light] = field(default_factory=list)

    def box(
        self,
        T: np.ndarray,
        centre: Point,
        size: Point,
        material: Material,
        *,
        rounding: float = 0.0,
        turn: np.ndarray | None = None,
        label: Label = Label.OBSTACLE,
        casts: bool = True,
    ) -> None:
        """Add a box of full extents size [m], edges rounded by rounding [m]."""
        half = np.asarray(size, float) / 2
        self._add(Kind.BOX, T, centre, half, min(rounding, half.min()), material, turn, label, casts)

    def ellipsoid(
        self,
        T: np.ndarray,
        centre: Point,
        radii: Point,
        material: Material,
        *,
        turn: np.ndarray | None = None,
        label: Label = Label.OBSTACLE,
    ) -> None:
        """Add an ellipsoid."""
        self._add(Kind.ELLIPSOID, T, centre, radii, 0.0, material, turn, label, True)

    def cone(
        self,
        T: np.ndarray,
        foot: Point,
        radii: tuple[float, float],
        height: float,
        material: Material,
        *,
        turn: np.ndarray | None = None,
        label: Label = Label.OBSTACLE,
        casts: bool = True,
    ) -> None:
        """Add a truncated cone with bottom and top radius; foot is the centre of its bottom, turn acts about it."""
        R = np.eye(3) if turn is None else turn
        centre = np.asarray(foot, float) + R @ [0, 0, height / 2]
        self._add(Kind.CONE, T, centre, (*radii, height / 2), 0.0, material, turn, label, casts)

    def _add(self, kind, T, centre, size, extra, material, turn, label, casts) -> None:
        local = np.eye(4)
        local[:3, :3] = np.eye(3) if turn is None else turn
        local[:3, 3] = centre
        index = self.materials.setdefault(material, len(self.materials))
        self.rows.append((int(kind), T @ local, np.asarray(size, float), float(extra), index, int(label), casts))

    def build(self, *, sky: Sky, ambient: Rgb, walkable: tuple[float, float, float, float]) -> Scene:
        """Return the frozen scene."""
        kind, T, size, extra, material, label, casts = zip(*self.rows, strict=True)
        return Scene(
            np.array(kind, np.uint8),
            np.array(T),
            np.array(size),
            np.array(extra),
            np.array(material, np.int32),
            np.array(label, np.uint8),
            np.array(casts, bool),
            tuple(self.materials),
            tuple(self.lights),
            sky,
            ambient,
            walkable,
        )
