"""The data that flows between stages: frozen dataclasses of numpy arrays, shapes checked once.

Conventions. World: right-handed, Z up, metres; the floor below the photo's camera is the origin, x points where the
photo looks (horizontally), y to its left. Camera: OpenCV axes (x right, y down, z forward), pixel centres at +0.5.
``T_a_b`` maps points of b into a. ``depth`` is z-depth in metres, NaN = unknown (sky included).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np

from lyra_core.errors import InputError


class Provenance(IntEnum):
    """Where a surface comes from; the same numbers in frames, meshes, the USD primvar, maps and environments."""

    SEEN = 0
    """In the photo."""
    CONTINUED = 1
    """Extends a seen surface (for a video model: covered by the photo's warp)."""
    INVENTED = 2
    """Made up from the photo's materials and the seed."""


class Label(IntEnum):
    """Semantic classes of surfaces."""

    UNLABELED = 0
    FLOOR = 1
    WALL = 2
    CEILING = 3
    OBSTACLE = 4
    SKY = 5
    DOOR = 6


def _check(name: str, value: np.ndarray, shape: tuple[int | None, ...]) -> None:
    ok = value.ndim == len(shape) and all(want is None or got == want for got, want in zip(value.shape, shape, strict=True))
    if not ok:
        want = tuple("any" if n is None else n for n in shape)
        raise InputError(f"{name}: got shape {value.shape}, expected {want}")


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion."""

    K: np.ndarray
    """(3, 3) float64 intrinsics [px]."""
    width: int
    """[px]"""
    height: int
    """[px]"""

    def __post_init__(self) -> None:
        _check("Camera.K", self.K, (3, 3))
        if not (np.isfinite(self.K).all() and self.K[0, 0] > 0 and self.K[1, 1] > 0):
            raise InputError(f"Camera.K: got {self.K.tolist()}, expected finite values and positive focal lengths")

    @staticmethod
    def from_focal(focal_px: float, width: int, height: int) -> Camera:
        """Make a camera with square pixels and a centred principal point."""
        return Camera(np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]]), width, height)

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera of the same picture resampled to another size."""
        scale = np.array([[width / self.width], [height / self.height], [1.0]])
        return Camera(self.K * scale, width, height)

    def rays(self) -> np.ndarray:
        """Return (height, width, 3) float32 ray directions in the camera frame with z = 1, through pixel centres."""
        u = (np.arange(self.width) + 0.5 - self.K[0, 2]) / self.K[0, 0]
        v = (np.arange(self.height) + 0.5 - self.K[1, 2]) / self.K[1, 1]
        out = np.ones((self.height, self.width, 3), np.float32)
        out[..., 0], out[..., 1] = u[None, :], v[:, None]
        return out


@dataclass(frozen=True)
class Trajectory:
    """A camera path."""

    T_world_camera: np.ndarray
    """(N, 4, 4) float64 [m]."""
    K: np.ndarray
    """(N, 3, 3) float64 [px]."""
    width: int
    height: int

    def __post_init__(self) -> None:
        n = len(self.T_world_camera)
        _check("Trajectory.T_world_camera", self.T_world_camera, (n, 4, 4))
        _check("Trajectory.K", self.K, (n, 3, 3))
        if not (np.isfinite(self.T_world_camera).all() and np.isfinite(self.K).all()):
            raise InputError("Trajectory: got NaN or infinite numbers, expected finite poses and intrinsics")

    def __len__(self) -> int:
        return len(self.T_world_camera)

    def __getitem__(self, rows: slice) -> Trajectory:
        return replace(self, T_world_camera=self.T_world_camera[rows], K=self.K[rows])

    def camera(self, i: int) -> Camera:
        """Return the camera of frame i."""
        return Camera(self.K[i], self.width, self.height)


@dataclass(frozen=True)
class Photo:
    """An upright picture and what its file says about the camera."""

    rgb: np.ndarray
    """(H, W, 3) uint8 sRGB, upright."""
    sha256: str
    """Hash of the file's bytes."""
    name: str
    """File name without folder."""
    focal_px: float | None = None
    """Focal length from EXIF or the user [px of rgb]; None = unknown."""
    focal_source: str = "none"
    """'exif', 'user' or 'none'."""
    licence: str = "unknown"
    intrinsics: tuple[float, float, float, float] | None = None
    """fx, fy, cx, cy [px of rgb, its upper left corner = (0, 0)]; None = square pixels and a principal point in the middle."""
    orientation: int = 1
    """The file's EXIF orientation, already applied to rgb; 1 = as the sensor saw it."""
    floor_mask: np.ndarray | None = None
    """(H, W) bool, True where the user says floor is seen; None = not said."""

    def __post_init__(self) -> None:
        _check("Photo.rgb", self.rgb, (None, None, 3))
        if self.floor_mask is not None:
            _check("Photo.floor_mask", self.floor_mask, self.rgb.shape[:2])

    def camera(self, focal_px: float, width: int, height: int) -> Camera:
        """Return the camera of rgb resampled to width x height [px].

        Args:
            focal_px: focal length [px of that size], used where the intrinsics are not known.
        """
        if self.intrinsics is None:
            return Camera.from_focal(focal_px, width, height)
        fx, fy, cx, cy = self.intrinsics
        full = Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), self.rgb.shape[1], self.rgb.shape[0])
        return full.resized(width, height)


@dataclass(frozen=True)
class RoomBox:
    """A rectangular room around the camera, in the world frame."""

    yaw: float
    """Direction of the front wall's normal, left of world x, in [-45, 45] degrees [rad]."""
    front: float
    """Distance of the front wall from the camera [m]."""
    left: float
    """Distance of the left wall [m]; inf = not in view."""
    right: float
    """Distance of the right wall [m]; inf = not in view."""
    ceiling_height: float | None
    """Above the floor [m]; None = its edge is not in view."""


@dataclass(frozen=True)
class PhotoReading:
    """What one photo says about its camera and its regions."""

    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4) float64: gravity-aligned, translation (0, 0, camera height)."""
    labels: np.ndarray
    """(H, W) uint8 of Label at the camera's size."""
    scene_kind: str
    """'indoor' or 'outdoor'."""
    lines: np.ndarray
    """(M, 4) float32 line segments u0 v0 u1 v1 [px] that the camera was read from."""
    confidence: dict[str, float]
    """line_support, floor_separation, visible_floor_m2, overall: each in [0, 1] but the area."""
    scale_sigma: float
    """Relative standard deviation of the metric scale (log space)."""
    notes: tuple[str, ...] = ()
    """One plain sentence per guess, for the report."""
    room: RoomBox | None = None
    """The walls as a rectangular room, where the picture's edges clearly show one."""
    prior_depth: np.ndarray | None = None
    """(H, W) float32 z-depth over the camera's height, as the learned prior sees it; None = it was not asked."""


@dataclass(frozen=True)
class DepthEstimate:
    """Metric depth of the photo with cleaned labels."""

    depth: np.ndarray
    """(H, W) float32 z-depth [m]; NaN = unknown or sky."""
    labels: np.ndarray
    """(H, W) uint8 of Label."""
    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4): as read from the photo, or corrected by the depth."""
    ceiling_height: float | None
    """Above the floor [m]; None = no ceiling found (outdoor or out of the picture)."""
    source: str
    """Name of the provider."""
    scale_sigma: float
    notes: tuple[str, ...] = ()
    measured: np.ndarray | None = None
    """(H, W) bool, True where a sensor or a depth model gave the pixel its own depth, to be followed as it is; False where it is
    unknown. None = a layout estimated from the photo: depth belongs to planes and whole things, not to pixels."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        _check("DepthEstimate.depth", self.depth, size)
        _check("DepthEstimate.labels", self.labels, size)
        if self.measured is not None:
            _check("DepthEstimate.measured", self.measured, size)
            if self.measured.dtype != bool or np.isnan(self.depth[self.measured]).any():
                raise InputError("DepthEstimate.measured: got another type than bool or True where depth is NaN, "
                                 "expected bool and True only where depth is known")


@dataclass(frozen=True)
class Frame:
    """One picture of the world with depth and pose."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    depth: np.ndarray
    """(H, W) float32 z-depth [m], NaN = unknown."""
    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4) float64."""
    provenance: np.ndarray
    """(H, W) uint8 of Provenance; 255 where the depth is unknown."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        _check("Frame.rgb", self.rgb, (*size, 3))
        _check("Frame.depth", self.depth, size)
        _check("Frame.provenance", self.provenance, size)
        _check("Frame.T_world_camera", self.T_world_camera, (4, 4))

    def points(self) -> np.ndarray:
        """Return (H, W, 3) float32 world points; NaN where the depth is unknown."""
        T = self.T_world_camera
        local = self.camera.rays() * self.depth[..., None]
        return (local @ T[:3, :3].T.astype(np.float32) + T[:3, 3].astype(np.float32)).astype(np.float32)


@dataclass(frozen=True)
class SurfaceMesh:
    """Triangles with texture, labels and provenance. Faces are counter-clockwise seen from free space."""

    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    uv: np.ndarray
    """(V, 2) float32; (0, 0) = lower left of the texture (OpenGL, USD and Habitat convention). Vertices split at seams."""
    texture: np.ndarray
    """(h, w, 3) uint8 sRGB; row 0 is the top, v = 1."""
    face_label: np.ndarray
    """(F,) uint8 of Label."""
    face_provenance: np.ndarray
    """(F,) uint8 of Provenance."""
    face_part: np.ndarray
    """(F,) int32 index into part_names: connected semantic parts (one floor, one wall run, one obstacle ...)."""
    part_names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        f, v = len(self.faces), len(self.vertices)
        _check("SurfaceMesh.vertices", self.vertices, (v, 3))
        _check("SurfaceMesh.faces", self.faces, (f, 3))
        _check("SurfaceMesh.uv", self.uv, (v, 2))
        for name in ("face_label", "face_provenance", "face_part"):
            _check(f"SurfaceMesh.{name}", getattr(self, name), (f,))
        if f and (self.faces.min() < 0 or self.faces.max() >= v):
            raise InputError(f"SurfaceMesh.faces: got indices {self.faces.min()}..{self.faces.max()}, expected 0..{v - 1}")


@dataclass(frozen=True)
class DetailLevel:
    """A coarser copy of a SurfaceMesh for sensors, with colours at the vertices, and how far its depth is from the full mesh's."""

    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    vertex_rgb: np.ndarray
    """(V, 3) uint8 sRGB."""
    face_label: np.ndarray
    """(F,) uint8 of Label."""
    face_provenance: np.ndarray
    """(F,) uint8 of Provenance."""
    depth_error_median: float
    """Over the pixels of cameras in free space: |depth difference| to the full mesh [m]."""
    depth_error_p99: float
    """[m]"""

    def __post_init__(self) -> None:
        f, v = len(self.faces), len(self.vertices)
        for name, shape in (("vertices", (v, 3)), ("faces", (f, 3)), ("vertex_rgb", (v, 3)), ("face_label", (f,)),
                            ("face_provenance", (f,))):
            _check(f"DetailLevel.{name}", getattr(self, name), shape)


@dataclass(frozen=True)
class CollisionPart:
    """One piece of what a robot touches. Faces look towards free space."""

    name: str
    label: Label
    kind: str
    """'shell': open triangle surface (floor, walls, ceiling); 'solid': closed triangle surface (an object)."""
    vertices: np.ndarray
    """(V, 3) float32 [m]."""
    faces: np.ndarray
    """(F, 3) int32."""
    provenance: Provenance


@dataclass(frozen=True)
class GaussianCloud:
    """3D Gaussians in the world frame."""

    means: np.ndarray
    """(N, 3) float32 [m]."""
    quats_wxyz: np.ndarray
    """(N, 4) float32 unit quaternions."""
    scales: np.ndarray
    """(N, 3) float32 standard deviations [m], linear."""
    opacities: np.ndarray
    """(N,) float32 in [0, 1]."""
    sh: np.ndarray
    """(N, K, 3) float32 spherical-harmonic coefficients, K = (degree + 1)^2, DC first; rgb = 0.5 + 0.2820948 * DC."""
    provenance: np.ndarray
    """(N,) uint8 of Provenance."""

    def __post_init__(self) -> None:
        n = len(self.means)
        for name, shape in (("means", (n, 3)), ("quats_wxyz", (n, 4)), ("scales", (n, 3)), ("opacities", (n,)),
                            ("sh", (n, None, 3)), ("provenance", (n,))):
            _check(f"GaussianCloud.{name}", getattr(self, name), shape)


@dataclass(frozen=True)
class FreeSpace:
    """Where a disc-shaped robot can stand: a top-down grid. Row = y, column = x, both ascending."""

    origin: np.ndarray
    """(2,) float64 world x, y of the lower corner of cell (0, 0) [m]."""
    cell: float
    """Cell size [m]."""
    free: np.ndarray
    """(rows, cols) bool: floor below and nothing in the robot's height band (before the radius is applied)."""
    clearance: np.ndarray
    """(rows, cols) float32 distance of the cell centre to the nearest cell that is not free [m]."""
    provenance: np.ndarray
    """(rows, cols) uint8 of Provenance of the floor below; 255 = no floor."""
    robot_height: float
    """Height band checked [m]."""
    height: np.ndarray | None = None
    """(rows, cols) float32 height of the floor [m], NaN = no floor; None = level ground at 0."""
    traversability: np.ndarray | None = None
    """(rows, cols) float32: 1 = level ground, falling to 0 at the highest step or slope that the robot climbs; 0 where it cannot
    be. None = 1 on every free cell."""

    def __post_init__(self) -> None:
        for name in ("height", "traversability"):
            value = getattr(self, name)
            if value is not None:
                _check(f"FreeSpace.{name}", value, self.free.shape)

    @cached_property
    def is_level(self) -> bool:
        """True if all free cells lie at 0."""
        return self.height is None or not self.height[self.free].any()

    def height_at(self, points: np.ndarray) -> np.ndarray:
        """Return the height of the floor at points (N, 2) [m], (N,) float64: bilinear between the centres of free cells; where none
        of the four is free, that of the point's own cell (NaN = no floor). 0 in a level space."""
        if self.is_level or self.height is None:
            return np.zeros(len(points))
        place = (np.asarray(points, np.float64) - self.origin) / self.cell - 0.5
        first = np.floor(place)
        total, mass = np.zeros(len(points)), np.zeros(len(points))
        rows, cols = self.height.shape
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            offset = np.array([dj, di])
            weight = np.abs(1.0 - offset - (place - first)).prod(1)
            col, row = (first + offset).astype(np.int64).T
            value = self.height[np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)].astype(np.float64)
            known = self.free[np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)]
            total += np.where(known, weight * np.nan_to_num(value), 0.0)
            mass += np.where(known, weight, 0.0)
        own = np.clip(np.rint(place).astype(np.int64), 0, [cols - 1, rows - 1])
        return np.divide(total, mass, out=self.height[own[:, 1], own[:, 0]].astype(np.float64), where=mass > 1e-9)

    def traversable(self, radius: float) -> np.ndarray:
        """Return the cells where a disc of this radius [m] fits, (rows, cols) bool."""
        return self.free & (self.clearance >= radius)


@dataclass(frozen=True)
class Episode:
    """One navigation task; positions on the floor in the world frame (Z up)."""

    episode_id: str
    start: np.ndarray
    """(3,) [m]."""
    start_yaw: float
    """About +z from +x [rad]."""
    goal: np.ndarray
    """(3,) [m]."""
    geodesic_distance: float
    """For radius [m]."""
    radius: float
    """Robot radius the episode was sampled for [m]."""
    info: dict[str, Any] = field(default_factory=dict)
