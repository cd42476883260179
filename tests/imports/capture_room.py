"""A small furnished corner with exact depth, and captures of it written in everybody's layout."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from lyra_core.camera.exchange import OPENGL
from lyra_core.camera.se3 import inverse, look_at
from lyra_core.types import Camera

W, H = 64, 48
CAMERA = Camera(np.array([[60.0, 0, 31], [0, 62.0, 25], [0, 0, 1]]), W, H)
PLANES = (((0.0, 0, 1), 0.0), ((-1.0, 0, 0), -3.0), ((0.0, -1, 0), -2.0), ((0.6, 0.0, 0.8), 1.25))
"""Normal n and offset d of n . x = d: floor, two walls, a slanted board (bounded to |y| < 0.6)."""
NAN_BORDER = 5
"""Columns at the left of the depth pictures that are unknown."""


def poses(count: int = 4) -> np.ndarray:
    """Return T_world_camera (count, 4, 4), z up, looking into the corner from a short arc."""
    steps = np.linspace(-0.4, 0.4, count)
    return np.stack([look_at(np.array([-0.5 + 0.2 * s, -1.2 + s, 1.4 + 0.2 * s**2]), np.array([2.0, 0.4, 0.6])) for s in steps])


def seen(T: np.ndarray, camera: Camera = CAMERA) -> tuple[np.ndarray, np.ndarray]:
    """Return picture (H, W, 3) uint8 and exact z-depth (H, W) float32 of the corner."""
    rays = camera.rays().astype(np.float64) @ T[:3, :3].T
    depth, at = np.full(rays.shape[:2], np.inf), np.zeros(rays.shape)
    for number, (n, d) in enumerate(PLANES):
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (d - T[:3, 3] @ n) / (rays @ n)
        point = T[:3, 3] + rays * z[..., None]
        hit = (z > 0.05) & (z < depth) & ((np.abs(point[..., 1]) < 0.6) & (point[..., 2] > 0.2) if number == 3 else True)
        depth, at = np.where(hit, z, depth), np.where(hit[..., None], point, at)
    return _texture(at), depth.astype(np.float32)


def _texture(points: np.ndarray) -> np.ndarray:
    """Return smooth colours (H, W, 3) uint8 that change at several scales."""
    x, y, z = np.moveaxis(points, -1, 0)
    waves = [np.sin(9 * x + 2 * y) + np.sin(13 * y - 5 * z) + np.sin(11 * z + 4 * x + 1) + np.sin(31 * x - 7 * z)
             + np.sin(29 * y + 23 * z), np.sin(7 * y + 3 * z) + np.sin(17 * x), np.cos(8 * z - 4 * x) + np.sin(19 * y)]
    return np.stack([127 + 22 * wave for wave in waves], -1).clip(0, 255).astype(np.uint8)


def stored(depth: np.ndarray, unit: float, none: float = 0) -> np.ndarray:
    """Return depth as uint16 of a unit, unknown along the left border."""
    out = np.rint(depth / unit).astype(np.uint16)
    out[:, :NAN_BORDER] = none
    return out


def put(path: Path, picture: np.ndarray) -> None:
    """Write a picture (RGB or one channel)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)


def put_text(path: Path, text: str) -> None:
    """Write text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_colmap(folder: Path, *, binary: bool = False, model: str = "PINHOLE") -> None:
    """Write images/ and sparse/0 with points seen exactly where they project."""
    T_all = poses()
    points = np.concatenate([_world(T, seen(T)[1])[::7, ::9].reshape(-1, 3) for T in T_all])
    for i, T in enumerate(T_all):
        put(folder / f"images/{i}.png", seen(T)[0])
    pixels = [_pixels(T, points) for T in T_all]
    (_write_colmap_bin if binary else _write_colmap_txt)(folder / "sparse/0", T_all, points, pixels, model)


def _world(T: np.ndarray, depth: np.ndarray) -> np.ndarray:
    return (CAMERA.rays().astype(float) * depth[..., None]) @ T[:3, :3].T + T[:3, 3]


def _pixels(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    local = (points - T[:3, 3]) @ T[:3, :3]
    return local[:, :2] / local[:, 2:] * [CAMERA.K[0, 0], CAMERA.K[1, 1]] + CAMERA.K[:2, 2]


def _write_colmap_txt(folder: Path, T_all: np.ndarray, points: np.ndarray, pixels: list[np.ndarray], model: str) -> None:
    put_text(folder / "cameras.txt", f"# cameras\n1 {model} {W} {H} 60 62 31 25\n")
    lines = ["# images"]
    for i, T in enumerate(inverse(T_all)):
        q = np.roll(Rotation.from_matrix(T[:3, :3]).as_quat(), 1)
        lines += [" ".join(map(repr, map(float, [*q, *T[:3, 3]]))), " ".join(f"{u} {v} {k}" for k, (u, v) in enumerate(pixels[i]))]
        lines[-2] = f"{i + 1} {lines[-2]} 1 {i}.png"
    put_text(folder / "images.txt", "\n".join(lines) + "\n")
    put_text(folder / "points3D.txt", "".join(f"{k} {x} {y} {z} 1 2 3 0.0 1 0 2 0\n" for k, (x, y, z) in enumerate(points)))


def _write_colmap_bin(folder: Path, T_all: np.ndarray, points: np.ndarray, pixels: list[np.ndarray], model: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 1, 1, W, H, 60, 62, 31, 25))
    data = struct.pack("<Q", len(T_all))
    for i, T in enumerate(inverse(T_all)):
        q = np.roll(Rotation.from_matrix(T[:3, :3]).as_quat(), 1)
        data += struct.pack("<I7dI", i + 1, *q, *T[:3, 3], 1) + f"{i}.png".encode() + b"\0" + struct.pack("<Q", len(points))
        data += b"".join(struct.pack("<ddQ", u, v, k) for k, (u, v) in enumerate(pixels[i]))
    (folder / "images.bin").write_bytes(data)
    body = b"".join(struct.pack("<Q3d3BdQ4I", k, *p, 1, 2, 3, 0.0, 2, 1, 0, 2, 0) for k, p in enumerate(points))
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", len(points)) + body)


def write_nerfstudio(folder: Path) -> None:
    """Write transforms.json with depth and a PLY of points, moved by an applied_transform."""
    applied = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    frames = []
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        put(folder / f"images/{i}.png", rgb)
        put(folder / f"depth/{i}.png", stored(depth, 1e-3))
        frames.append({"file_path": f"./images/{i}.png", "depth_file_path": f"depth/{i}.png",
                       "transform_matrix": (applied @ T @ OPENGL).tolist()})
    points = (applied[:3, :3] @ [[1.0], [2], [3]])[:, 0]
    put_text(folder / "sparse.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
             f"property float z\nend_header\n{points[0]} {points[1]} {points[2]}\n")
    put_text(folder / "transforms.json", json.dumps({
        "camera_model": "OPENCV", "fl_x": 60.0, "fl_y": 62.0, "cx": 31.0, "cy": 25.0, "w": W, "h": H, "k1": 0.0,
        "ply_file_path": "sparse.ply", "applied_transform": applied[:3].tolist(), "frames": frames}))


def write_tum(folder: Path) -> None:
    """Write rgb.txt, depth.txt, groundtruth.txt and a calibration; pixel centres at 0 in it."""
    rgb_lines, depth_lines, pose_lines = ["# rgb"], ["# depth"], ["# poses"]
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        put(folder / f"rgb/{i}.png", rgb)
        put(folder / f"depth/{i}.png", stored(depth, 1 / 5000))
        rgb_lines.append(f"{100 + i}.000 rgb/{i}.png")
        depth_lines.append(f"{100 + i}.010 depth/{i}.png")
        q = Rotation.from_matrix(T[:3, :3]).as_quat()
        for shift in (-0.5, 0.004):
            place = T[:3, 3] + (shift < 0) * 7.0
            pose_lines.append(f"{100 + i + shift} " + " ".join(map(repr, map(float, [*place, *q]))))
    put_text(folder / "rgb.txt", "\n".join(rgb_lines) + "\n900.0 rgb/0.png\n")
    put_text(folder / "depth.txt", "\n".join(depth_lines) + "\n")
    put_text(folder / "groundtruth.txt", "\n".join(pose_lines) + "\n")
    put_text(folder / "calibration.txt", "60 62 30.5 24.5\n")


def write_7scenes(folder: Path) -> None:
    """Write two sequences of two frames."""
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        base = folder / f"seq-{1 + i // 2:02d}" / f"frame-{i % 2:06d}"
        put(base.with_suffix(".color.png"), rgb)
        put(base.with_suffix(".depth.png"), stored(depth, 1e-3, 65535))
        put_text(base.with_suffix(".pose.txt"), "\n".join("\t".join(map(repr, map(float, row))) for row in T) + "\n")


Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Maps the corner's z-up world into ARKit's, +Y up."""


def write_polycam(folder: Path) -> None:
    """Write keyframes/ with corrected cameras, small depth and confidence whose first row is low."""
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        name, base = f"{1000 + i}", folder / "keyframes"
        put(base / f"corrected_images/{name}.png", rgb)
        put(base / f"depth/{name}.png", stored(depth, 1e-3)[::2, ::2])
        sure = np.full((H // 2, W // 2), 255, np.uint8)
        sure[0], sure[1] = 0, 127
        put(base / f"confidence/{name}.png", sure)
        G = Y_UP @ T @ OPENGL
        put_text(base / f"corrected_cameras/{name}.json", json.dumps(
            {"fx": 60.0, "fy": 62.0, "cx": 31.0, "cy": 25.0, "width": W, "height": H, "blur_score": 100.0,
             **{f"t_{r}{c}": G[r, c] for r in range(3) for c in range(4)}}))


def write_record3d(folder: Path) -> None:
    """Write metadata.json, rgb/ and depth/ as .png."""
    rows = []
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        put(folder / f"rgb/{i}.png", rgb)
        put(folder / f"depth/{i}.png", stored(depth, 1e-3))
        G = Y_UP @ T @ OPENGL
        rows.append([*Rotation.from_matrix(G[:3, :3]).as_quat().tolist(), *G[:3, 3].tolist()])
    put_text(folder / "metadata.json", json.dumps({"w": W, "h": H, "K": [60.0, 0, 0, 0, 62.0, 0, 31.0, 25.0, 1], "poses": rows}))


def write_stray(folder: Path) -> None:
    """Write rgb.mp4, odometry.csv with OpenCV axes in ARKit's world, depth/ and confidence/."""
    from lyra_core.io.video import write_video

    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, T in enumerate(poses()):
        G = Y_UP @ T
        q = Rotation.from_matrix(G[:3, :3]).as_quat()
        lines.append(f"{i / 60}, {i:06d}, " + ", ".join(map(repr, map(float, [*G[:3, 3], *q]))))
        put(folder / f"depth/{i:06d}.png", stored(seen(T)[1], 1e-3))
        put(folder / f"confidence/{i:06d}.png", np.full((H, W), 2, np.uint8))
    write_video(folder / "rgb.mp4", (seen(T)[0] for T in poses()), crf=8)
    put_text(folder / "odometry.csv", "\n".join(lines) + "\n")
    put_text(folder / "camera_matrix.csv", "60.0, 0.0, 31.0\n0.0, 62.0, 25.0\n0.0, 0.0, 1.0\n")


def write_posed(folder: Path) -> None:
    """Write cameras.json beside pictures and depth; pixel centres at 0."""
    frames = []
    for i, T in enumerate(poses()):
        rgb, depth = seen(T)
        put(folder / f"{i}_rgb.png", rgb)
        put(folder / f"{i}_depth.png", stored(depth, 1e-3))
        frames.append({"rgb": f"{i}_rgb.png", "depth": f"{i}_depth.png", "K": [60.0, 62.0, 30.5, 24.5], "width": W, "height": H,
                       "camera_to_world": T.tolist()})
    put_text(folder / "cameras.json", json.dumps({"frames": frames, "up": [0, 0, 2.0]}))


def write_lyra2(folder: Path) -> None:
    """Write video.mp4 and a longer trajectory.npz."""
    from lyra_core.camera.formats import save_trajectory
    from lyra_core.io.video import write_video
    from lyra_core.types import Trajectory

    T = poses(6)
    write_video(folder / "video.mp4", (seen(t)[0] for t in T[:4]), crf=8)
    K = CAMERA.K * [[2.0], [2.0], [1.0]]
    save_trajectory(folder / "trajectory.npz", Trajectory(T, np.repeat(K[None], 6, 0), 2 * W, 2 * H))


WRITERS: dict[str, Callable[[Path], None]] = {
    "colmap": write_colmap, "nerfstudio": write_nerfstudio, "tum": write_tum, "7scenes": write_7scenes, "polycam": write_polycam,
    "record3d": write_record3d, "stray": write_stray, "posed": write_posed, "lyra2": write_lyra2,
}
