"""Analytic frames for the surface and splat tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import trimesh

from lyra_core.camera.se3 import look_at
from lyra_core.io.images import read_image, resized
from lyra_core.rays.base import cast_camera, make_ray_tracer
from lyra_core.types import Camera, Frame

LIVINGROOM = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sequences" / "livingroom1_synthetic"
ROOM = np.array([5.0, 4.0, 2.6])
BOX_LOW, BOX_HIGH = np.array([0.9, -0.6, 0.0]), np.array([1.6, 0.2, 0.8])


def checker(points: np.ndarray) -> np.ndarray:
    """Paint world points (..., 3) with smooth stripes."""
    return (127 + 100 * np.sin(points * [4.0, 5.0, 6.0])).astype(np.uint8)


def mesh_frame(mesh: trimesh.Trimesh, camera: Camera, T: np.ndarray, *, provenance: int = 0, tracer=None) -> Frame:
    tracer = tracer or make_ray_tracer(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))
    hits = cast_camera(tracer, camera, T)
    depth = np.where(np.isfinite(hits.t), hits.t, np.nan).reshape(camera.height, camera.width).astype(np.float32)
    known = np.isfinite(depth)
    frame = Frame(np.zeros((*depth.shape, 3), np.uint8), depth, camera, T, np.where(known, provenance, 255).astype(np.uint8))
    return Frame(np.where(known[..., None], checker(np.nan_to_num(frame.points())), 0).astype(np.uint8), depth, camera, T,
                 frame.provenance)


def sphere_frames(radius: float = 1.0) -> list[Frame]:
    """Look at a sphere around the origin from 14 sides; the depth is exact."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T / 3**0.5
    camera, out = Camera.from_focal(140.0, 160, 120), []
    for direction in np.concatenate([np.eye(3), -np.eye(3), corners]):
        T = look_at(3 * direction + [0.01, 0.02, 0.03], np.zeros(3))
        rays = camera.rays().astype(float) @ T[:3, :3].T
        a, b, c = (rays**2).sum(-1), rays @ T[:3, 3], T[:3, 3] @ T[:3, 3] - radius**2
        with np.errstate(invalid="ignore"):
            depth = ((-b - np.sqrt(b * b - a * c)) / a).astype(np.float32)
        known = np.isfinite(depth)
        out.append(Frame(np.full((*depth.shape, 3), 128, np.uint8), depth, camera, T, np.where(known, 0, 255).astype(np.uint8)))
    return out


def room_mesh() -> trimesh.Trimesh:
    """A room seen from inside (x, y centred, floor at 0) with one box on the floor; faces look into the room."""
    shell = trimesh.creation.box(ROOM)
    shell.apply_translation([0, 0, ROOM[2] / 2])
    shell.invert()
    box = trimesh.creation.box(BOX_HIGH - BOX_LOW)
    box.apply_translation((BOX_LOW + BOX_HIGH) / 2)
    return trimesh.util.concatenate([shell, box])


def box_distance(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the distance of points (N, 3) to the surface of an axis-aligned box."""
    q = np.abs(points - (low + high) / 2) - (high - low) / 2
    return np.abs(np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0))


def room_distance(points: np.ndarray) -> np.ndarray:
    """Return the distance of points (N, 3) to the surfaces of :func:`room_mesh`."""
    shell = box_distance(points, ROOM * [-0.5, -0.5, 0], ROOM * [0.5, 0.5, 1])
    return np.minimum(shell, box_distance(points, BOX_LOW, BOX_HIGH))


def room_frames(T_other_world: np.ndarray | None = None) -> list[Frame]:
    """Look round the room from three places; poses and depth in another world frame if given."""
    mesh, camera = room_mesh(), Camera.from_focal(95.0, 200, 140)
    T_other_world = np.eye(4) if T_other_world is None else T_other_world
    tracer = make_ray_tracer(np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32))
    out = []
    for eye in ([-1.5, -1.0, 1.4], [-0.5, 1.2, 1.4], [2.0, 1.0, 1.4], [2.0, -1.4, 1.4]):
        for yaw in np.arange(6) * np.pi / 3:
            pitch = -0.35 if int(yaw * 3 / np.pi + 0.5) % 2 else 0.15
            target = np.array(eye) + [np.cos(yaw), np.sin(yaw), np.tan(pitch)]
            T = look_at(np.array(eye), target)
            frame = mesh_frame(mesh, camera, T, tracer=tracer, provenance=0 if eye[0] < 0 else 2)
            out.append(Frame(frame.rgb, frame.depth, camera, T_other_world @ T, frame.provenance))
    return out


def livingroom(step: int, width: int, height: int) -> list[Frame]:
    """Read every step-th frame of the synthetic living room, nearest depth, area-averaged colours."""
    out = []
    for row in json.loads((LIVINGROOM / "cameras.json").read_text())["frames"][::step]:
        depth = cv2.imread(str(LIVINGROOM / row["depth"]), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        depth[depth == 0] = np.nan
        fx, fy, cx, cy = row["K"]
        h, w = depth.shape
        camera = Camera(np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]]), w, h).resized(width, height)
        rows, columns = ((np.arange(height) + 0.5) * h / height).astype(int), ((np.arange(width) + 0.5) * w / width).astype(int)
        depth = depth[rows][:, columns]
        out.append(Frame(resized(read_image(LIVINGROOM / row["rgb"]), width, height), depth, camera,
                         np.array(row["camera_to_world"], float), np.where(np.isfinite(depth), 0, 255).astype(np.uint8)))
    return out


def open_edges(faces: np.ndarray) -> int:
    _, count = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True)
    return int((count == 1).sum())
