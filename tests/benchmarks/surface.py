"""Surface fusion beside its peers: ``python -m tests.benchmarks.surface [--quick] [--only SCENE] [--out FILE.json]``.

Three scenes with exact depth: a synthetic living room (evaluation data), an analytic furnished room, and an analytic street of 90 m
and more; then the room again with sensor noise and one corrupt frame. Every method runs in a process of its own: seconds, and the
peak memory above that of the loaded frames. Open3D is a peer where ``make env-open3d`` was run, OpenVDB where its package is.

Accuracy: mean distance of the reconstruction (points spread evenly by area) from the truth. Completeness: mean distance of what the
cameras saw of the truth from the reconstruction. F-score at 2 and 5 cm: harmonic mean of the shares within.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lyra_core.camera.se3 import look_at
from lyra_core.io.images import read_image
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.scenes import furnished_room, street
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.surface.distance import closest_points, sample_surface
from lyra_core.types import Camera
from tests.benchmarks.tables import number, table

ROOT = Path(__file__).resolve().parents[2]
LIVINGROOM = ROOT / ".." / "shared" / "data" / "sequences" / "livingroom1_synthetic"
METHODS = ("ours", "ours_uniform", "openvdb", "open3d_vbg", "open3d_scalable")
VOXEL = 0.02
SAMPLES = 200_000
LIMIT = 0.5
"""Distances are cut here [m], so that one far piece does not decide the mean."""
FLOATER = 0.1
"""Reconstruction further from the truth than this floats [m]."""


@dataclass(frozen=True)
class Case:
    """Frames of one scene and its truth."""

    name: str
    depth: np.ndarray
    """(N, H, W) float32 [m], NaN = unknown."""
    rgb: np.ndarray
    camera: Camera
    T_world_camera: np.ndarray
    truth: tuple[np.ndarray, np.ndarray] | None
    """Triangles of the truth; None: the exact depth itself is all there is."""
    seen: np.ndarray
    """(M, 3) points of the truth that the cameras see."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer, smaller frames")
    parser.add_argument("--only", nargs="*", default=["livingroom", "room", "street", "noisy"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    for name in options.only:
        case = make_case(name, quick=options.quick)
        if case is None:
            print(f"{name}: evaluation data is not here")
            continue
        results[name] = run_case(case, options.methods)
        print(f"\n{name}: {len(case.depth)} frames of {case.camera.width}x{case.camera.height}, cells of {VOXEL} m\n")
        print(table(HEADER, [_row(method, result) for method, result in results[name].items()]))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))


HEADER = ("method", "accuracy mm", "completeness mm", "F 2 cm", "F 5 cm", "floaters %", "triangles", "open between levels",
          "seconds", "peak MB")


def _row(method: str, r: dict) -> list[str]:
    if "why" in r:
        return [f"{method}: {r['why']}", *["-"] * (len(HEADER) - 1)]
    return [method, number(1000 * r["accuracy"]), number(1000 * r["completeness"]), number(r["f2"], 4), number(r["f5"], 4),
            number(100 * r["floaters"], 3), str(r["triangles"]), str(r["open_between_levels"]), number(r["seconds"]),
            number(r["peak_mb"], 0)]


def run_case(case: Case, methods: list[str]) -> dict[str, dict]:
    """Run every method on a case and score it."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "frames.npz"
        np.savez(inputs, depth=case.depth, rgb=case.rgb, K=case.camera.K, T=case.T_world_camera)
        for method in methods:
            result = Path(folder) / f"{method}.npz"
            said = subprocess.run([*_interpreter(method), method, str(inputs), str(result), str(VOXEL)], cwd=ROOT,
                                  capture_output=True, text=True, timeout=3000)
            if said.returncode or not result.is_file():
                out[method] = {"why": (said.stderr.strip().splitlines() or ["no output"])[-1][:80]}
                continue
            with np.load(result) as data:
                out[method] = score(case, data["vertices"], data["faces"]) | json.loads(str(data["facts"]))
    return out


def _interpreter(method: str) -> list[str]:
    worker = str(Path(__file__).with_name("_surface_worker.py"))
    if method.startswith("open3d"):
        return [str(ROOT / ".venv-open3d" / "bin" / "python"), worker]
    return [sys.executable, worker]


def score(case: Case, vertices: np.ndarray, faces: np.ndarray) -> dict:
    """Compare a reconstruction with the truth."""
    if not len(faces):
        return {"accuracy": np.nan, "completeness": np.nan, "f2": 0.0, "f5": 0.0, "floaters": np.nan, "triangles": 0}
    points, _ = sample_surface(vertices, faces, SAMPLES, np.random.default_rng(0))
    if case.truth is None:
        from scipy.spatial import cKDTree

        off = cKDTree(case.seen).query(points, distance_upper_bound=LIMIT)[0]
    else:
        off = closest_points(*case.truth, points, limit=LIMIT).distance
    missing = closest_points(vertices, faces, case.seen[:: max(1, len(case.seen) // SAMPLES)], limit=LIMIT).distance
    off, missing = np.minimum(off, LIMIT), np.minimum(missing, LIMIT)
    f = {}
    for cm in (2, 5):
        precision, recall = float((off <= cm / 100).mean()), float((missing <= cm / 100).mean())
        f[f"f{cm}"] = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"accuracy": float(off.mean()), "completeness": float(missing.mean()), **f,
            "floaters": float((off > FLOATER).mean()), "triangles": len(faces)}


def make_case(name: str, *, quick: bool) -> Case | None:
    """Return a case by name; None = its data is missing."""
    if name == "livingroom":
        return _livingroom(3 if quick else 1) if LIVINGROOM.is_dir() else None
    if name == "street":
        return _analytic(name, street(np.random.default_rng(3)), _walk(12 if quick else 40), quick=quick)
    case = _analytic(name, furnished_room(np.random.default_rng(3)), _look_round(12 if quick else 36), quick=quick)
    return case if name == "room" else _noisy(case)


def _livingroom(step: int) -> Case:
    rows = json.loads((LIVINGROOM / "cameras.json").read_text())["frames"][::step]
    depth = np.stack([cv2.imread(str(LIVINGROOM / row["depth"]), cv2.IMREAD_UNCHANGED) for row in rows]).astype(np.float32) / 1000
    depth[depth == 0] = np.nan
    rgb = np.stack([read_image(LIVINGROOM / row["rgb"]) for row in rows])
    fx, fy, cx, cy = rows[0]["K"]
    camera = Camera(np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1.0]]), depth.shape[2], depth.shape[1])
    T = np.array([row["camera_to_world"] for row in rows], float)
    points = [(camera.rays() * d[..., None]).reshape(-1, 3) @ t[:3, :3].T + t[:3, 3] for d, t in zip(depth, T, strict=True)]
    cloud = np.concatenate([p[np.isfinite(p).all(1)] for p in points])
    # One point per 5 mm: the same density wherever several frames look.
    cloud = cloud[np.unique(np.floor(cloud / 0.005).astype(np.int64) @ [1 << 40, 1 << 20, 1], return_index=True)[1]]
    return Case("livingroom", depth, rgb, camera, T, None, cloud)


def _analytic(name: str, scene, poses: np.ndarray, *, quick: bool) -> Case:
    vertices, faces, _ = scene_mesh(scene)
    camera = Camera.from_focal(240.0, 320, 240) if quick else Camera.from_focal(480.0, 640, 480)
    tracer = make_ray_tracer(vertices, faces)
    depth = []
    for T in poses:
        t = cast_camera(tracer, camera, T).t.reshape(camera.height, camera.width)
        depth.append(np.where(np.isfinite(t) & (t < 100), t, np.nan).astype(np.float32))
    depth = np.stack(depth)
    shade = np.nan_to_num(20 + 200 / (1 + depth / 3)).astype(np.uint8)
    points, _ = sample_surface(vertices, faces, 3 * SAMPLES, np.random.default_rng(1))
    seen = np.zeros(len(points), bool)
    for d, T in zip(depth, poses, strict=True):
        seen |= _shown(points, d, camera, T)
    return Case(name, depth, np.repeat(shade[..., None], 3, 3), camera, poses, (vertices, faces), points[seen])


def _shown(points: np.ndarray, depth: np.ndarray, camera: Camera, T: np.ndarray) -> np.ndarray:
    """Return which points a picture shows well: away from its border, and not at a grazing angle or beside an edge."""
    local = (points - T[:3, 3]) @ T[:3, :3]
    z = np.where(local[:, 2] > 0.05, local[:, 2], 1)
    u, v = (local[:, i] / z * camera.K[i, i] + camera.K[i, 2] for i in (0, 1))
    ok = (local[:, 2] > 0.05) & (u > 4) & (v > 4) & (u < camera.width - 4) & (v < camera.height - 4)
    line, column = np.where(ok, v, 4).astype(int), np.where(ok, u, 4).astype(int)
    kernel = np.ones((5, 5), np.uint8)
    filled = np.nan_to_num(depth, nan=1e3)
    smooth = (cv2.dilate(filled, kernel) - cv2.erode(filled, kernel)) < 0.1 * filled
    return ok & smooth[line, column] & (np.abs(depth[line, column] - z) < 0.01 * z)


def _walk(count: int) -> np.ndarray:
    """Walk 24 m along the street, looking ahead, left and right in turn."""
    out = []
    for i in range(count):
        eye = np.array([24 * i / max(count - 1, 1), 0.3 * np.sin(i), 1.5])
        yaw = (0.0, 0.9, -0.9, 0.0)[i % 4]
        out.append(look_at(eye, eye + [np.cos(yaw), np.sin(yaw), -0.12]))
    return np.stack(out)


def _look_round(count: int) -> np.ndarray:
    out = []
    for i in range(count):
        a = 2 * np.pi * i / count
        eye = np.array([0.5 * np.cos(3 * a), 0.5 * np.sin(3 * a), 1.5])
        out.append(look_at(eye, eye + [np.cos(a), np.sin(a), (-0.5, 0.0, -0.25)[i % 3]]))
    return np.stack(out)


def _noisy(case: Case) -> Case:
    """Add a structured-light camera's noise (sigma 1.2 mm + 1.9 mm (z - 0.4)^2, Nguyen et al. 2012); one frame is 25 % too near."""
    rng = np.random.default_rng(5)
    z = case.depth
    sigma = 0.0012 + 0.0019 * (np.nan_to_num(z) - 0.4) ** 2
    depth = (z + sigma * rng.normal(size=z.shape)).astype(np.float32)
    middle = len(depth) // 2
    depth[middle] = z[middle] * 0.75
    return Case("noisy", depth, case.rgb, case.camera, case.T_world_camera, case.truth, case.seen)


if __name__ == "__main__":
    main()
