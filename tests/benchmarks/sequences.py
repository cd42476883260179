"""Real frame sequences with known, estimated or no camera poses, and the registration of frames to a built world.

Every view is brought to a centred principal point and square pixels, which is what the photo reader assumes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.types import Camera, Frame, Provenance
from tests.benchmarks.floor_plane import fit_floor

DEFAULT_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MIN_INLIERS = 30
"""Of the matches between two frames, for a registration that counts."""
MAX_REPROJECTION = 4.0
"""Of an inlier [px]."""
MATCH_RATIO = 0.75
"""Best over second-best descriptor distance (Lowe 2004)."""


@dataclass(frozen=True)
class View:
    """One real frame."""

    name: str
    rgb: np.ndarray
    """(H, W, 3) uint8."""
    focal_px: float | None
    """None = unknown."""
    T_ref_camera: np.ndarray | None = None
    """(4, 4) in the sequence's own frame and unit; None = unknown."""
    depth: np.ndarray | None = None
    """(H, W) true z-depth in the sequence's unit, NaN where unknown (most pixels, if it comes from sparse points)."""
    depth_file: Path | None = None
    """Dense metric depth."""


@dataclass(frozen=True)
class Sequence:
    """Frames of one place."""

    name: str
    views: tuple[View, ...]
    sources: tuple[int, ...]
    """Views of which worlds are built."""
    metric: bool
    """The unit of poses and depth is the metre."""
    note: str
    """How poses and scale come about."""


def rectified(picture: np.ndarray, K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resample a picture (H, W, ...) to square pixels and a centred principal point.

    K: (3, 3), pixel centres at +0.5. Returns the largest such picture (h, w, ...) and (3, 3) its intrinsics.
    """
    height, width = picture.shape[:2]
    (fx, _, cx), (_, fy, cy) = K[:2]
    w, h = 2 * int(min(cx, width - cx)), 2 * int(min(cy, height - cy) * fx / fy)
    camera = Camera.from_focal(fx, w, h)
    rays = camera.rays()
    u, v = (rays[..., 0] * fx + cx - 0.5).astype(np.float32), (rays[..., 1] * fy + cy - 0.5).astype(np.float32)
    return cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), camera.K


def read_rgb(path: Path) -> np.ndarray:
    """Read (H, W, 3) uint8 RGB."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(path)
    return np.ascontiguousarray(picture[..., ::-1])


LIVINGROOM_SOURCES = (0, 6, 20, 24, 34, 38)
TUM_SOURCES = (0, 2, 3, 4, 6, 8)
CORRIDOR_SOURCES = (0, 1, 8, 11, 27, 28, 37, 40)
CORRIDOR_AHEAD, CORRIDOR_REVISIT = range(1, 5), range(38, 42)
"""Frames after the source, in the same round and in the next one, that registration is tried with."""


def livingroom(data: Path) -> Sequence:
    """Load the synthetic living room: exact poses and depth in metres. Its K counts pixel centres from 0."""
    folder = data / "sequences/livingroom1_synthetic"
    views = []
    for frame in json.loads((folder / "cameras.json").read_text(encoding="utf-8"))["frames"]:
        fx, fy, cx, cy = frame["K"]
        K = np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1.0]])
        rgb, K = rectified(read_rgb(folder / frame["rgb"]), K)
        millimetres = cv2.imread(str(folder / frame["depth"]), cv2.IMREAD_UNCHANGED)
        depth = np.where(millimetres > 0, millimetres / 1000.0, np.nan).astype(np.float32)
        T = np.array(frame["camera_to_world"])
        views.append(View(frame["rgb"], rgb, float(K[0, 0]), T, depth, folder / frame["depth"]))
    return Sequence("livingroom1_synthetic", tuple(views), LIVINGROOM_SOURCES, True, "exact poses and depth, metres")


def tum_office(data: Path) -> Sequence:
    """Load TUM fr3 office with COLMAP's poses; depth holds the sparse points that COLMAP matched in each frame."""
    folder = data / "sequences/tum_fr3_office"
    points = _rows(folder / "sparse/0/points3D.txt", step=1)
    position = {int(row[0]): np.array(row[1:4], float) for row in points}
    tracks = _rows(folder / "sparse/0/images.txt", step=2, offset=1)
    names = [row[9] for row in _rows(folder / "sparse/0/images.txt", step=2)]
    seen = {name: [position[int(i)] for i in row[2::3] if int(i) >= 0] for name, row in zip(names, tracks, strict=True)}
    views = []
    for frame in json.loads((folder / "cameras.json").read_text(encoding="utf-8"))["frames"]:
        fx, fy, cx, cy = frame["params"]
        T = np.array(frame["camera_to_world"])
        rgb, K = rectified(read_rgb(folder / frame["rgb"]), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))
        depth = _sparse_depth(np.array(seen[Path(frame["rgb"]).name]), K, T, rgb.shape[:2])
        views.append(View(Path(frame["rgb"]).name, rgb, float(K[0, 0]), T, depth))
    note = "COLMAP poses; one scale per source: median of estimated depth over COLMAP's depth at its sparse points"
    return Sequence("tum_fr3_office", tuple(views), TUM_SOURCES, False, note)


def _rows(path: Path, *, step: int, offset: int = 0) -> list[list[str]]:
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return lines[offset::step]


def _sparse_depth(points: np.ndarray, K: np.ndarray, T_ref_camera: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    out = np.full(shape, np.nan, np.float32)
    T = inverse(T_ref_camera)
    local = points @ T[:3, :3].T + T[:3, 3]
    local = local[local[:, 2] > 0]
    u, v = (np.floor(local[:, i] / local[:, 2] * K[i, i] + K[i, 2]).astype(int) for i in (0, 1))
    inside = (u >= 0) & (u < shape[1]) & (v >= 0) & (v < shape[0])
    out[v[inside], u[inside]] = local[inside, 2]
    return out


def corridor(data: Path) -> Sequence:
    """Load the corridor: pictures only."""
    folder = data / "sequences/corridor_two_loops"
    views = tuple(View(path.name, read_rgb(path), None) for path in sorted(folder.glob("*.jpg")))
    note = "no poses: frames are registered to each built world by SIFT + PnP on its depth, which favours whatever is built"
    return Sequence("corridor_two_loops", views, CORRIDOR_SOURCES, False, note)


def camera_heights(views: tuple[View, ...]) -> list[float]:
    """Return each view's true height above the floor [m], from one floor plane through the dense depth of all views."""
    clouds = []
    for view in views:
        assert view.depth is not None and view.T_ref_camera is not None and view.focal_px is not None
        camera = Camera.from_focal(view.focal_px, view.rgb.shape[1], view.rgb.shape[0])
        points = (camera.rays() * view.depth[..., None])[::8, ::8].reshape(-1, 3)
        points = points[np.isfinite(points).all(1)]
        clouds.append(points @ view.T_ref_camera[:3, :3].T + view.T_ref_camera[:3, 3])
    plane = fit_floor(np.concatenate(clouds), np.array([0.0, 1.0, 0.0]), np.random.default_rng(0))
    if plane is None:
        raise ValueError("no floor in the depth of these views")
    down, distance = plane
    return [float(distance - down @ view.T_ref_camera[:3, 3]) for view in views]


def register(source_rgb: np.ndarray, target_rgb: np.ndarray, frame: Frame) -> tuple[np.ndarray, int] | None:
    """Find the camera of a target picture in a built world; None if too few matches agree.

    Matches between source and target pictures (SIFT, mutual ratio test) get their world points from ``frame``, the built world
    rendered at the source's pose at the pictures' size, where it is labelled seen; the pose is solved by PnP with RANSAC.

    Returns:
        T_world_camera (4, 4) and the number of inliers.
    """
    sift = cv2.SIFT_create(4000)
    grey = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) for rgb in (source_rgb, target_rgb)]
    (points_a, words_a), (points_b, words_b) = (sift.detectAndCompute(picture, None) for picture in grey)
    if words_a is None or words_b is None or len(words_b) < 2:
        return None
    pairs = cv2.BFMatcher().knnMatch(words_a, words_b, k=2)
    good = [a for a, b in pairs if a.distance < MATCH_RATIO * b.distance]
    if len(good) < MIN_INLIERS:
        return None
    at = np.array([points_a[m.queryIdx].pt for m in good]).round().astype(int)
    pixels = np.array([points_b[m.trainIdx].pt for m in good]) + 0.5
    world = frame.points()[at[:, 1], at[:, 0]].astype(np.float64)
    usable = np.isfinite(world).all(1) & (frame.provenance[at[:, 1], at[:, 0]] == Provenance.SEEN)
    if usable.sum() < MIN_INLIERS:
        return None
    cv2.setRNGSeed(0)
    K = frame.camera.K
    ok, rotation, translation, inliers = cv2.solvePnPRansac(
        world[usable], pixels[usable], K, None, iterationsCount=3000, reprojectionError=MAX_REPROJECTION, confidence=0.9999
    )
    if not ok or inliers is None or len(inliers) < MIN_INLIERS:
        return None
    rows = inliers[:, 0]
    rotation, translation = cv2.solvePnPRefineLM(world[usable][rows], pixels[usable][rows], K, None, rotation, translation)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = cv2.Rodrigues(rotation)[0], translation[:, 0]
    return inverse(T), len(rows)
