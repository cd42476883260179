"""Fuse frames by one method, in a process of its own: METHOD FRAMES.npz RESULT.npz VOXEL. Open3D's needs neither our package."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def forget_peak() -> float:
    """Let the peak memory start anew, and return what is in use now [MB]."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_mb() -> float:
    """Return the peak since then, with that of child processes that have ended [MB]."""
    return _status("VmHWM") + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def open3d_vbg(depth, rgb, K, T, voxel):
    """Open3D's VoxelBlockGrid on the CPU."""
    import open3d as o3d
    import open3d.core as o3c

    device = o3c.Device("CPU:0")
    grid = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight", "color"), (o3c.float32, o3c.float32, o3c.float32),
                                         ((1), (1), (3)), voxel, 8, 50_000, device)
    intrinsic = o3c.Tensor(_at_centres(K), o3c.float64)
    for d, c, t in zip(depth, rgb, T, strict=True):
        picture = o3d.t.geometry.Image(o3c.Tensor(np.nan_to_num(d)))
        color = o3d.t.geometry.Image(o3c.Tensor(np.ascontiguousarray(c, np.float32) / 255))
        extrinsic = o3c.Tensor(np.linalg.inv(t), o3c.float64)
        blocks = grid.compute_unique_block_coordinates(picture, intrinsic, extrinsic, 1.0, 100.0, 4.0)
        grid.integrate(blocks, picture, color, intrinsic, extrinsic, 1.0, 100.0, 4.0)
    mesh = grid.extract_triangle_mesh(0.5).to_legacy()
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles), None


def open3d_scalable(depth, rgb, K, T, voxel):
    """Open3D's ScalableTSDFVolume."""
    import open3d as o3d

    volume = o3d.pipelines.integration.ScalableTSDFVolume(voxel, 4 * voxel, o3d.pipelines.integration.TSDFVolumeColorType.RGB8)
    h, w = depth[0].shape
    K = _at_centres(K)
    intrinsic = o3d.camera.PinholeCameraIntrinsic(w, h, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    for d, c, t in zip(depth, rgb, T, strict=True):
        picture = o3d.geometry.RGBDImage.create_from_color_and_depth(
            o3d.geometry.Image(np.ascontiguousarray(c)), o3d.geometry.Image(np.nan_to_num(d)), 1.0, 100.0, False)
        volume.integrate(picture, intrinsic, np.linalg.inv(t))
    mesh = volume.extract_triangle_mesh()
    return np.asarray(mesh.vertices), np.asarray(mesh.triangles), None


def _at_centres(K):
    """Open3D counts pixels from their centres."""
    K = K.copy()
    K[:2, 2] -= 0.5
    return K


def ours(depth, rgb, K, T, voxel, name="ours"):
    """Run our own fusion, as lift_frames runs it up to the surface."""
    from lyra_core.backends import resolve
    from lyra_core.surface.agreement import without_contradictions
    from lyra_core.surface.base import fuse
    from lyra_core.surface.topology import SMALLEST_PIECE, drop_small_pieces
    from lyra_core.types import Camera, Frame

    camera = Camera(K, depth.shape[2], depth.shape[1])
    frames = [Frame(c, d, camera, t, np.where(np.isfinite(d), 0, 255).astype(np.uint8))
              for d, c, t in zip(depth, rgb, T, strict=True)]
    frames, _ = without_contradictions(frames)
    backend = resolve("fusion", "openvdb" if name == "openvdb" else "blocks")
    fusion = backend(voxel) if name != "ours" else backend(voxel, eyes=T[:, :3, 3])
    fuse(fusion, frames)
    vertices, faces, _ = fusion.extract()
    faces, _ = drop_small_pieces(vertices, faces, min_area=SMALLEST_PIECE)
    return vertices, faces, fusion


def open_between_levels(fusion) -> int:
    """Count edges of the whole field's surface that are open although every sample around them is known.

    The field is closed off by calling unknown samples free: what is open then was opened by the change of levels.
    """
    from dataclasses import replace

    from lyra_core.surface.extract import extract_surface

    grid = fusion.grid()
    unknown = grid.weight <= 0
    vertices, faces, _ = extract_surface(replace(grid, weight=np.ones_like(grid.weight),
                                                 distance=np.where(unknown, np.float16(1), grid.distance)))
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    there, back = np.sort(edges @ [1 << 32, 1]), np.sort(edges @ [1, 1 << 32])
    alone = np.setdiff1d(there, back)
    # Edges at which a block is missing are the border of the field, not of a level.
    ends = np.stack([alone >> 32, alone & 0xFFFFFFFF], 1)
    middle = vertices[ends].mean(1)
    return int(_inside_field(grid, middle).sum())


def _inside_field(grid, points) -> np.ndarray:
    """Return which points have blocks on all sides within one and a half cells of theirs."""
    from lyra_core.surface.levels import SIDE, unpack

    keys = grid.levels.blocks_of(points) if len(points) else np.zeros(0, np.int64)
    if not len(keys):
        return np.zeros(0, bool)
    inside = np.ones(len(points), bool)
    for i, p in enumerate(points):
        level = int(unpack(grid.levels.blocks_of(p[None]))[0][0])
        cell = float(grid.levels.size(level)) / SIDE
        around = p + 1.5 * cell * (np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3))
        inside[i] = (grid.find(grid.levels.blocks_of(around)) >= 0).all()
    return inside


def main() -> None:
    """Run one method and store what it made."""
    method, inputs, result, voxel = sys.argv[1:5]
    with np.load(inputs) as data:
        frames = (data["depth"], data["rgb"], data["K"], data["T"])
    run = {"open3d_vbg": open3d_vbg, "open3d_scalable": open3d_scalable}.get(method)
    if run is None:
        import lyra_core.surface.lift  # noqa: F401  Loading is not what is measured.
        from lyra_core.camera.warp_package import load_warp

        load_warp("benchmark").init()

        def run(*given):
            return ours(*given, name=method)

        tiny = tuple(np.ascontiguousarray(a[:1, ::8, ::8]) for a in frames[:2])
        ours(*tiny, np.diag([0.125, 0.125, 1.0]) @ frames[2], frames[3][:1], 0.2, name=method)  # kernels are compiled once
    else:
        import open3d  # noqa: F401
    # Frames are what every method is given; so are its libraries.
    before, start = forget_peak(), time.perf_counter()
    vertices, faces, extra = run(*frames, float(voxel))
    seconds, peak = time.perf_counter() - start, peak_mb() - before
    facts = {"open_between_levels": open_between_levels(extra) if method == "ours" else "-", "seconds": seconds, "peak_mb": peak}
    np.savez(result, vertices=np.asarray(vertices, np.float32), faces=np.asarray(faces, np.int32), facts=json.dumps(facts))


if __name__ == "__main__":
    sys.path.insert(0, ".")
    main()
