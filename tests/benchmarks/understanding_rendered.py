"""Rendered cases: procedural scenes with exact truth, and views of room scans for depth files. Pictures are kept in a cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from scipy import ndimage

import lyra_core.scenes
from lyra_core.camera.se3 import inverse
from lyra_core.io.files import read_npz, write_npz
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.rays.base import RayTracer
from lyra_core.scenes import RenderedScene, SceneCase, blocked, ground_height
from lyra_core.scenes.sampling import BENCHMARK_SEED, KINDS, sample_scene
from lyra_core.scenes.warp_render import render_fast
from lyra_core.types import Camera, Label, Photo
from tests.benchmarks.understanding_cases import Case, ExactPlace, known_depth
from tests.benchmarks.understanding_truth import CELL, SHAPE, cell_centres, cell_index, ground_axes

SCENES = 84
"""Procedural cases: the first of lyra_core.scenes.benchmark_cases."""
LONG_SIDE = 768
"""Of rendered pictures [px]."""
SCANS = ("living_room", "meeting_room", "office_small")
VIEWS = 4
"""Per scan."""
_STORED = 4
"""To be raised whenever what is kept in the cache changes."""
_SCAN_WIDTH, _SCAN_HEIGHT, _SCAN_FOCAL = 640, 480, 500.0
_KEEP_OFF, _SHOWN_FLOOR, _SEES, _DRAWS = 0.3, 0.12, 1.6, 1500
"""A scan's camera: distance from everything [m], share of the picture that is floor, median depth [m], and tries."""


def procedural_names() -> list[str]:
    """Return the names of the procedural cases, kinds in turn."""
    return [f"{KINDS[i % len(KINDS)]}-{BENCHMARK_SEED + i}" for i in range(SCENES)]


def scan_names(data: Path) -> list[str]:
    """Return the names of views of the scans that stand below a data folder."""
    return [f"{scan}-{view}" for view in range(VIEWS) for scan in SCANS if (data / "meshes" / f"{scan}.ply").exists()]


def procedural_case(name: str, cache: Path) -> Case:
    """Return a procedural case; its photo has a focal length where EXIF would tell it."""
    kind, seed = name.rsplit("-", 1)
    stem = cache / f"{name}-{_scenes_hash()}-{LONG_SIDE}"
    if not stem.with_suffix(".npz").exists():
        write_npz(stem.with_suffix(".npz"), **_render_scene(sample_scene(int(seed), kind)))
    x = read_npz(stem.with_suffix(".npz"), "rgb", "depth", "labels", "K", "up", "height", "ground", "blocked", "exif")
    photo = _photo(name, x["rgb"], float(x["K"][0, 0]) if x["exif"] else None, "exif")
    place = ExactPlace(x["up"], float(x["height"]), x["labels"] == Label.FLOOR, x["ground"], x["blocked"])
    camera = Camera(x["K"], x["rgb"].shape[1], x["rgb"].shape[0])
    return Case(name, "procedural", kind, photo, camera, known_depth(x["depth"]), _depth_file(stem, x["depth"]), place)


def scan_case(data: Path, name: str, cache: Path) -> Case:
    """Return a view of a room scan. Scans have no colour: the photo shows plain shading, its focal length is known."""
    scan, view = name.rsplit("-", 1)
    ply = data / "meshes" / f"{scan}.ply"
    stem = cache / f"{name}-{hashlib.sha256(ply.read_bytes() + str(_STORED).encode()).hexdigest()[:12]}"
    if not stem.with_suffix(".npz").exists():
        write_npz(stem.with_suffix(".npz"), **_render_scan(ply, int(view)))
    x = read_npz(stem.with_suffix(".npz"), "rgb", "depth", "up", "height")
    camera = Camera.from_focal(_SCAN_FOCAL, _SCAN_WIDTH, _SCAN_HEIGHT)
    photo = _photo(name, x["rgb"], _SCAN_FOCAL, "user")
    place = ExactPlace(x["up"], float(x["height"]))
    return Case(name, "scan", scan, photo, camera, known_depth(x["depth"]), _depth_file(stem, x["depth"]), place)


def _photo(name: str, rgb: np.ndarray, focal: float | None, source: str) -> Photo:
    digest = hashlib.sha256(rgb.tobytes()).hexdigest()
    return Photo(rgb, digest, name) if focal is None else Photo(rgb, digest, name, focal_px=focal, focal_source=source)


def _depth_file(stem: Path, depth: np.ndarray) -> Path:
    path = stem.with_suffix(".depth.npz")
    if not path.exists():
        write_npz(path, depth=depth)
    return path


def _scenes_hash() -> str:
    """Return a hash of the code that makes and renders scenes, so that no stale picture is scored."""
    folder = Path(lyra_core.scenes.__file__).parent
    digest = hashlib.sha256(str(_STORED).encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _render_scene(case: SceneCase) -> dict[str, np.ndarray]:
    scale = LONG_SIDE / max(case.camera.width, case.camera.height)
    case = case.resized(round(case.camera.width * scale), round(case.camera.height * scale))
    picture = render_fast(case.scene, case.camera, case.T_world_camera, effects=case.effects)
    T_scene_world = case.T_scene_world
    T_photo_world = inverse(T_scene_world) @ case.T_world_camera
    points = cell_centres().reshape(-1, 2) @ T_scene_world[:2, :2].T + T_scene_world[:2, 3]
    return {
        "rgb": picture.rgb, "depth": picture.depth, "labels": picture.labels, "K": case.camera.K,
        "up": T_photo_world[2, :3].copy(), "height": np.float64(T_photo_world[2, 3]), "exif": np.bool_(case.exif_focal),
        "ground": (ground_height(case.scene, points) - T_scene_world[2, 3]).reshape(SHAPE).astype(np.float32),
        "blocked": _blocked(case, picture, T_photo_world),
    }  # fmt: skip


def _blocked(case: SceneCase, picture: RenderedScene, T_photo_world: np.ndarray) -> np.ndarray:
    """Return SHAPE bool: something stands over a part of the cell, hidden or not; True also where no floor is seen about it."""
    rays = case.camera.rays().astype(np.float64) * picture.depth[..., None]
    cell, inside = cell_index(rays @ ground_axes(T_photo_world[2, :3]).T)
    walked = np.zeros(SHAPE[0] * SHAPE[1], bool)
    walked[cell[inside & (picture.labels == Label.FLOOR)]] = True
    out = ~ndimage.binary_dilation(walked.reshape(SHAPE), np.ones((3, 3)))
    offsets = np.array([(dx, dy) for dx in (-0.4, 0, 0.4) for dy in (-0.4, 0, 0.4)]) * CELL
    T = case.T_scene_world
    points = (cell_centres()[~out][:, None] + offsets).reshape(-1, 2) @ T[:2, :2].T + T[:2, 3]
    out[~out] = blocked(case.scene, points).reshape(-1, len(offsets)).any(-1)
    return out


def _render_scan(ply: Path, view: int) -> dict[str, np.ndarray]:
    """Render one seeded view: a camera 1.2 to 1.6 m high in free space that looks down at some floor."""
    import trimesh

    mesh = trimesh.load(ply, force="mesh", process=False)
    vertices = np.asarray(mesh.vertices, np.float64)[:, [0, 2, 1]] * [1, -1, 1]  # the files are Y up
    faces = np.asarray(mesh.faces, np.int32)
    tracer, rng = make_ray_tracer(vertices.astype(np.float32), faces), np.random.default_rng([view, len(faces)])
    floor = _floor_level(tracer, vertices)
    camera = Camera.from_focal(_SCAN_FOCAL, _SCAN_WIDTH, _SCAN_HEIGHT)
    T = _good_view(tracer, vertices, floor, rng)
    hits = cast_camera(tracer, camera, T)
    seen = hits.face >= 0
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    light = np.abs(normals[hits.face] @ (np.array([0.4, 0.3, 0.87]) / np.linalg.norm([0.4, 0.3, 0.87])))
    grey = np.where(seen, 60 + 170 * light, 0).astype(np.uint8).reshape(_SCAN_HEIGHT, _SCAN_WIDTH)
    depth = np.where(seen, hits.t, np.nan).astype(np.float32).reshape(grey.shape)
    return {"rgb": np.repeat(grey[..., None], 3, 2), "depth": depth, "up": T[2, :3].copy(), "height": np.float64(T[2, 3] - floor)}


def _floor_level(tracer: RayTracer, vertices: np.ndarray) -> float:
    """Return the most frequent height in the lower half of the scan [m]."""
    z = vertices[vertices[:, 2] < vertices[:, 2].mean(), 2]
    low, high = vertices[:, :2].min(0), vertices[:, :2].max(0)
    x, y = (a.ravel() for a in np.meshgrid(*(np.linspace(a, b, 60)[1:-1] for a, b in zip(low, high, strict=True))))
    origins = np.stack([x, y, np.full_like(x, (z.min() + vertices[:, 2].max()) / 2)], 1).astype(np.float32)
    down = tracer.cast(origins, np.tile(np.float32([0, 0, -1]), (len(x), 1)))
    height = (origins[:, 2] - down.t)[down.face >= 0]
    counts, edges = np.histogram(height, np.arange(height.min(), height.max() + 0.05, 0.02))
    near = np.abs(height - edges[counts.argmax()] - 0.01) < 0.03
    return float(np.median(height[near]))


def _good_view(tracer: RayTracer, vertices: np.ndarray, floor: float, rng: np.random.Generator) -> np.ndarray:
    """Return T_world_camera of the first drawn view that stands free over the floor, shows enough of it and sees far enough; the
    one that shows most floor, if none does."""
    small = Camera.from_focal(_SCAN_FOCAL, _SCAN_WIDTH, _SCAN_HEIGHT).resized(48, 36)
    low, high = vertices[:, :2].min(0), vertices[:, :2].max(0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ways = np.append(np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1), [[0, 0, -1]], 0).astype(np.float32)
    best, most = np.eye(4), -1.0
    for _ in range(_DRAWS):
        eye = np.array([*rng.uniform(low, high), floor + rng.uniform(1.2, 1.6)])
        T = _looking(eye, rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(8, 25)))
        around = tracer.cast(np.tile(eye.astype(np.float32), (len(ways), 1)), ways).t
        if around[:-1].min() < _KEEP_OFF or not np.isfinite(around).all() or abs(eye[2] - around[-1] - floor) > 0.06:
            continue
        z = cast_camera(tracer, small, T).t
        height = eye[2] + z * (small.rays().reshape(-1, 3) @ T[2, :3]) - floor
        share = float((np.abs(height) < 0.05).mean())
        if share > most:
            best, most = T, share
        if share > _SHOWN_FLOOR and np.median(z) > _SEES:
            return T
    return best


def _looking(eye: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Return T_world_camera (4, 4) of a camera without roll, looking down by pitch [rad]."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    T[:3, 3] = eye
    return T
