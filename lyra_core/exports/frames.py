"""The world's pictures, depths and camera path as a nerfstudio or COLMAP data set."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lyra_core.camera.exchange import save_colmap, save_nerfstudio
from lyra_core.camera.formats import load_trajectory
from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.io.files import read_json, write_bytes, write_json
from lyra_core.io.images import encode_image, read_depth, read_image
from lyra_core.io.ply import write_vertex_ply
from lyra_core.types import Trajectory
from lyra_core.world import World

DEPTH_UNIT = 0.001
"""Of the 16-bit depth pictures [m]; 0 = unknown, as is what lies beyond 65.5 m."""
POINTS = 100_000
"""Of the sparse cloud, at most."""


@dataclass(frozen=True)
class Kept:
    """The frames that go out."""

    rows: np.ndarray
    """(N,) numbers of the frames in the world."""
    trajectory: Trajectory
    """Of those frames, at their size."""


@dataclass(frozen=True)
class SparsePoints:
    """Surface points, each seen in one pixel of one frame."""

    xyz: np.ndarray
    """(M, 3) float64 [m], world frame."""
    rgb: np.ndarray
    """(M, 3) uint8."""
    frame: np.ndarray
    """(M,) index into Kept.rows, ascending."""
    pixel: np.ndarray
    """(M, 2) float64 u, v [px], pixel centres at +0.5."""


def write_nerfstudio(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write transforms.json, images/, depth/ (16-bit PNG of millimetres) and sparse_pc.ply.

    Raises:
        InputError: the world keeps no frames.
    """
    kept = kept_frames(world, cfg)
    names = _copy_images(world, folder / "images", kept)
    for row in kept.rows:
        depth = np.nan_to_num(read_depth(world.folder / f"depth/{row:05d}.png") / DEPTH_UNIT)
        steps = np.where(depth < 65535.5, np.rint(depth), 0).astype(np.uint16)
        write_bytes(folder / f"depth/{row:05d}.png", encode_image(steps, ".png"))
    points = sparse_points(world, kept, cfg)
    values = [*points.xyz.astype(np.float32).T, *points.rgb.T]
    columns: dict[str, np.ndarray] = dict(zip(("x", "y", "z", "red", "green", "blue"), values, strict=True))
    write_vertex_ply(folder / "sparse_pc.ply", columns, comments=(about(world)["generator"], copyright_line(world)))
    path = folder / "transforms.json"
    save_nerfstudio(path, kept.trajectory, [f"images/{file}" for file in names])
    tree = read_json(path)
    for frame, row in zip(tree["frames"], kept.rows, strict=True):
        frame["depth_file_path"] = f"depth/{row:05d}.png"
    write_json(path, tree | {"depth_unit_scale_factor": DEPTH_UNIT, "ply_file_path": "sparse_pc.ply"})


def write_colmap(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write images/ and sparse/0 with cameras.txt, images.txt and points3D.txt; each point has the pixel it comes from as track.

    Raises:
        InputError: the world keeps no frames.
    """
    kept = kept_frames(world, cfg)
    names = _copy_images(world, folder / "images", kept)
    model = folder / "sparse/0"
    save_colmap(model, kept.trajectory, names)
    points = sparse_points(world, kept, cfg)
    first = np.searchsorted(points.frame, np.arange(len(names) + 1))
    lines = (model / "images.txt").read_text().splitlines()
    for i in range(len(names)):
        rows = range(first[i], first[i + 1])
        lines[2 * i + 1] = " ".join(f"{points.pixel[k, 0]:.1f} {points.pixel[k, 1]:.1f} {k + 1}" for k in rows)
    write_bytes(model / "images.txt", ("\n".join(lines) + "\n").encode())
    tracks = [f"{k + 1} {x:.6f} {y:.6f} {z:.6f} {r} {g} {b} 0 {i + 1} {k - first[i]}" for k, ((x, y, z), (r, g, b), i) in
              enumerate(zip(points.xyz.tolist(), points.rgb.tolist(), points.frame.tolist(), strict=True))]
    write_bytes(model / "points3D.txt", ("\n".join(tracks) + "\n").encode())


def kept_frames(world: World, cfg: ExportCfg) -> Kept:
    """Return the frames that the folder holds.

    Raises:
        InputError: there are none, or fewer than poses.
    """
    pictures = sorted((world.folder / "frames").glob("*.png"))
    if not pictures or not (world.folder / "trajectory.npz").is_file():
        raise InputError(f"{world.folder}: the world keeps no frames (it was made with --keep training, or from a mesh), "
                         "expected frames/, depth/ and trajectory.npz; make it with --keep all")
    height, width = read_image(pictures[0]).shape[:2]
    trajectory = load_trajectory(world.folder / "trajectory.npz", width=width, height=height)
    rows = np.arange(0, len(trajectory), cfg.frame_stride)
    missing = [file for row in rows for file in (f"frames/{row:05d}.png", f"depth/{row:05d}.png")
               if not (world.folder / file).is_file()]
    if missing:
        raise InputError(f"{world.folder / missing[0]}: missing; trajectory.npz has {len(trajectory)} poses, expected a picture "
                         "and a depth for each")
    return Kept(rows, trajectory[slice(None, None, cfg.frame_stride)])


def sparse_points(world: World, kept: Kept, cfg: ExportCfg) -> SparsePoints:
    """Draw pixels with a depth, the same number from each frame, and lift them into the world."""
    rng = np.random.default_rng(cfg.seed)
    share = max(1, POINTS // len(kept.rows))
    found = []
    for i, row in enumerate(kept.rows):
        depth, rgb = read_depth(world.folder / f"depth/{row:05d}.png"), read_image(world.folder / f"frames/{row:05d}.png")
        size = (kept.trajectory.height, kept.trajectory.width)
        if depth.shape != size or rgb.shape[:2] != size:
            raise InputError(f"{world.folder}: frame {row:05d}: got a picture of {rgb.shape[:2]} and depth of {depth.shape}, "
                             f"expected {size}")
        known = np.flatnonzero(np.isfinite(depth))
        at = np.sort(rng.choice(known, min(share, len(known)), replace=False))
        v, u = np.divmod(at, depth.shape[1])
        camera, T = kept.trajectory.camera(i), kept.trajectory.T_world_camera[i]
        local = camera.rays()[v, u].astype(np.float64) * depth[v, u, None]
        found.append((local @ T[:3, :3].T + T[:3, 3], rgb[v, u], np.full(len(at), i), np.stack([u, v], 1) + 0.5))
    return SparsePoints(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _copy_images(world: World, folder: Path, kept: Kept) -> list[str]:
    folder.mkdir(parents=True)
    names = [f"{row:05d}.png" for row in kept.rows]
    for file in names:
        shutil.copyfile(world.folder / "frames" / file, folder / file)
    return names
