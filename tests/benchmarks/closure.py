"""Loop closure and memory: does a walk that comes back find what it left?

``python -m tests.benchmarks.closure [--data DIR] [--quick]`` builds worlds whose camera walks a closed loop, and compares the last
frame with the first, the photo's view with the photo, and three ways to show the world at the first pose with frame 0: the mesh
that ships, the mesh fused from keyframes alone, and the Gaussians. Then it walks there-and-back tours of up to 1601 frames and
checks every retrieval against true visibility, ray by ray on the world's mesh. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lyra_core.backends import resolve
from lyra_core.build import WorldBuild
from lyra_core.camera.collision import keep_clear
from lyra_core.camera.formats import save_trajectory
from lyra_core.camera.se3 import inverse
from lyra_core.camera.trajectories import make_trajectory
from lyra_core.camera.warp import project
from lyra_core.config import ATLAS_SIZES, WORKING_SIZES, GenerateCfg, WorldCfg
from lyra_core.generate.base import ExplicitWorld
from lyra_core.generate.loop import CHUNK_FRAMES
from lyra_core.generate.procedural.query import WorldView
from lyra_core.io.images import decode_depth, encode_depth, resized
from lyra_core.io.meshes import merge_parts
from lyra_core.memory.cache import FrameCache, strided_camera
from lyra_core.memory.lyra2 import MemoryLyra2, greedy_coverage
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.pipeline import build_world
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.scenes.demo import DEMO_PHOTO
from lyra_core.segments import frame_size, tour_waypoints
from lyra_core.splats.ply import read_splats
from lyra_core.splats.render import render_splats
from lyra_core.stages import Context
from lyra_core.surface.lift import lift_frames
from lyra_core.types import DepthEstimate, Frame, Label, Provenance, SurfaceMesh, Trajectory
from tests.benchmarks.measures import psnr

PHOTOS = ("p01_living_room.jpg", "p15_corridor.jpg", "p09_london_street.jpg")
RADII = (0.8, -0.8, 0.5, -0.5, 0.35, -0.35, 0.25, -0.25)
"""Loops tried, until one meets nothing [m]."""
BARS = {"loop": 40.0, "photo": 25.0, "mesh": 28.0, "fused": 28.0}
"""[dB]"""
LENGTHS = (161, 481, 1601)
ROUND = 480
"""Longer paths walk there and back once per this many frames."""
RETRIEVED = 5
FINE = 2
"""Retrieved frames are checked on every second pixel; coverage by all frames on the retrieval's own grid of every eighth."""
SEEN_BEFORE = 0.5
"""A chunk counts as coming back if cached frames truly saw this share of its last view. Elsewhere nobody saw the place yet."""
TRUE_BAR = 95.0
"""Of the retrieved frames must truly have seen the place [%]. A late pick may add nothing but points behind a wall that no frame
saw, or the edge of a surface seen from its other side: the retrieval has one pixel in 8 x 8 and knows no normals.
"""
OCCLUSION = 0.1
"""A point this much behind the surface still counts as seen [m]: the tolerance of the retrieval itself."""


def explicit_world(path: Path, quality: str) -> tuple[DepthEstimate, ExplicitWorld]:
    """Build the explicit world of a photo without a folder."""
    photo = load_photo(path)
    reading = read_photo(photo, WorldCfg().photo, size=WORKING_SIZES[quality])
    estimate = resolve("depth", "geometric")(WorldCfg().depth).estimate(photo, reading)
    generator = resolve("generator", "procedural")(quality=quality)
    generator.prepare(photo, estimate, seed=0, indoor=reading.scene_kind == "indoor")
    return estimate, generator.explicit_world()


def free_loop(estimate: DepthEstimate, world: ExplicitWorld, quality: str) -> tuple[Trajectory, float]:
    """Return the widest loop of 81 frames that meets no collider, and its radius [m]."""
    camera = estimate.camera.resized(*frame_size(estimate.camera, quality))
    tracer = make_ray_tracer(*merge_parts(world.parts))
    for radius in RADII:
        path = make_trajectory("loop", camera, estimate.T_world_camera, 1 + CHUNK_FRAMES, radius=radius)
        if keep_clear(path, tracer)[1] == 0:
            return path, radius
    raise SystemExit(f"no loop of {min(map(abs, RADII))} m is free around the camera")


def loop_closure(path: Path, quality: str) -> dict[str, float]:
    """Build a world on a closed loop and compare what comes back.

    The three routes are compared with frame 0 where it has depth; the fused mesh, which leaves gaps where no keyframe looked or
    looked too flat, also on the pixels where it has a surface.
    """
    loop, radius = free_loop(*explicit_world(path, quality), quality)
    with tempfile.TemporaryDirectory() as folder:
        save_trajectory(Path(folder) / "loop.npz", loop)
        cfg = WorldCfg(quality=quality, generate=GenerateCfg(trajectory=str(Path(folder) / "loop.npz"), frames=len(loop)))
        world = build_world(path, Path(folder) / "world", cfg)
        context = Context(world.folder, cfg, None, WorldBuild.open(world.folder))
        first, last = context.frame(0), context.frame(len(loop) - 1)
        photo = resized(context.photo_file.rgb, first.camera.width, first.camera.height)
        fused = lift_frames(context.keyframes(), cfg=cfg.surface, atlas_side=ATLAS_SIZES[quality], align=False).mesh
        splats = read_splats(world.folder / "splats.ply")
        known, covered = np.isfinite(first.depth), first.provenance == Provenance.SEEN
        shipped = WorldView(world.mesh).render(first.camera, first.T_world_camera)
        lifted = WorldView(fused).render(first.camera, first.T_world_camera)
        drawn = render_splats(splats, first.camera, first.T_world_camera)[0]
    met = known & np.isfinite(lifted.depth)
    return {
        "radius": radius,
        "loop": psnr(first.rgb, last.rgb),
        "photo": psnr(first.rgb[covered], photo[covered]),
        "covered": 100 * float(covered.mean()),
        "mesh": psnr(shipped.rgb[known], first.rgb[known]),
        "fused": psnr(lifted.rgb[met], first.rgb[met]),
        "fused met": 100 * float(met.sum() / known.sum()),
        "fused all": psnr(lifted.rgb[known], first.rgb[known]),
        "splats": psnr(drawn[known], first.rgb[known]),
    }


@dataclass(frozen=True)
class Walk:
    """A there-and-back path through a world with what it keeps."""

    path: Trajectory
    solid: SurfaceMesh
    """Without the sky."""
    frames: dict[int, Frame]
    """Every 8th frame: what the loop would cache."""


def there_and_back(estimate: DepthEstimate, world: ExplicitWorld, frames: int, cfg: WorldCfg) -> Walk:
    """Walk the tour through all doors and back to the photo's place, once per ROUND frames, looking along the path."""
    camera = estimate.camera.resized(*frame_size(estimate.camera, "draft"))
    start = estimate.T_world_camera[:2, 3]
    out = tour_waypoints(world, start, cfg.navigation)
    once = np.concatenate([out, out[-2::-1]])
    waypoints = np.concatenate([once, *[once[1:]] * ((frames - 1) // ROUND - 1)]) if frames > ROUND else once
    path = make_trajectory("tour", camera, estimate.T_world_camera, frames, waypoints=waypoints)
    path, _ = keep_clear(path, make_ray_tracer(*merge_parts(world.parts)))
    view, stride = WorldView(world.mesh), cfg.generate.cache_stride
    kept = {i: _as_stored(view.render(path.camera(i), path.T_world_camera[i])) for i in range(0, frames, stride)}
    solid = replace(
        world.mesh,
        faces=world.mesh.faces[world.mesh.face_label != Label.SKY],
        **{name: getattr(world.mesh, name)[world.mesh.face_label != Label.SKY]
           for name in ("face_label", "face_provenance", "face_part")},
    )  # fmt: skip
    return Walk(path, solid, kept)


def _as_stored(frame: Frame) -> Frame:
    """Round depth as the loop does before a frame enters the cache."""
    return replace(frame, depth=decode_depth(encode_depth(frame.depth)))


def retrieval(walk: Walk, cfg: GenerateCfg) -> dict[str, float]:
    """Retrieve for every chunk as the loop does and compare with what the frames truly saw of the chunk's last view, where
    the walk comes back to a place.

    Only the frames that the loop caches are rendered; the generator's other frames play no part in retrieval.

    Returns:
        returns: chunks that come back to a place, the others are not scored;
        true: share [%] of the retrieved frames that truly saw some of the view; share [%] of the view that each saw (mean);
        coverage [%] of what any cached frame truly saw, by the retrieved ones with the newest; of_best: the same relative to
        the best choice by truth; random: for five random frames; seconds: the slowest retrieval; revisits: share [%] of the
        retrieved frames older than the chunk before.
    """
    tracer, memory, rng = make_ray_tracer(walk.solid.vertices, walk.solid.faces), MemoryLyra2(), np.random.default_rng(0)
    cache, chunks, added = FrameCache(point_subsampling=cfg.point_subsampling), (len(walk.path) - 1) // CHUNK_FRAMES, 0
    shares, coverage, best, random, seconds, old = [], [], [], [], [], []
    for index in range(1, chunks):
        while added <= index * CHUNK_FRAMES:
            cache.add(added, walk.frames[added])
            added += cfg.cache_stride
        target = walk.path[(index + 1) * CHUNK_FRAMES :][:1]
        start = time.perf_counter()
        chosen = memory.retrieve(cache, target, count=RETRIEVED)
        seconds.append(time.perf_counter() - start)
        truth = true_visibility(tracer, walk, cache.ids, target, cfg.point_subsampling)
        everything, newest = truth.any(0), truth[-1]
        if everything.mean() < SEEN_BEFORE:
            continue
        rows = [cache.ids.index(i) for i in chosen]
        shares += true_visibility(tracer, walk, chosen, target, FINE).mean(1).tolist()
        old += [i < (index - 1) * CHUNK_FRAMES for i in chosen]
        ideal = greedy_coverage(truth[:-1], newest, RETRIEVED)
        for values, choice in ((coverage, rows), (best, ideal), (random, rng.integers(len(truth), size=RETRIEVED).tolist())):
            values.append(float((truth[choice].any(0) | newest).sum() / everything.sum()))
    if not coverage:
        raise SystemExit("no chunk of this walk comes back to a place that was seen before; nothing to judge retrieval by")
    return {
        "chunks": chunks - 1,
        "returns": len(coverage),
        "cached": len(cache),
        "true": 100 * float(np.mean(np.array(shares) > 0)),
        "share": 100 * float(np.mean(shares)),
        "coverage": 100 * float(np.mean(coverage)),
        "of_best": 100 * float(np.mean(coverage) / np.mean(best)),
        "worst_of_best": 100 * float(np.min(np.array(coverage) / np.array(best))),
        "random": 100 * float(np.mean(random)),
        "revisits": 100 * float(np.mean(old)),
        "seconds": float(np.max(seconds)),
    }


def true_visibility(tracer, walk: Walk, ids: list[int], target: Trajectory, stride: int) -> np.ndarray:
    """Return (frames, pixels) bool: the surface in the target's pixel lies in the frame's view with nothing before it."""
    view = strided_camera(target.camera(0), stride)
    T = target.T_world_camera[0]
    depth = cast_camera(tracer, view, T).t
    known = np.isfinite(depth)
    local = view.rays().reshape(-1, 3) * np.where(known, depth, 1.0)[:, None]
    points = local @ T[:3, :3].T + T[:3, 3]
    out = np.zeros((len(ids), len(points)), bool)
    for row, frame_id in enumerate(ids):
        camera, pose = walk.path.camera(frame_id), walk.path.T_world_camera[frame_id]
        u, v, z = project(points, camera, inverse(pose))
        with np.errstate(invalid="ignore"):
            inside = np.flatnonzero(known & (z > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height))
        to_point = (points[inside] - pose[:3, 3]).astype(np.float32)
        t = tracer.cast(np.broadcast_to(pose[:3, 3].astype(np.float32), to_point.shape), to_point).t
        out[row, inside] = (1.0 - t) * np.linalg.norm(to_point, axis=1) < OCCLUSION
    return out


def print_closure(rows: dict[str, dict[str, float]]) -> bool:
    """Print the closure table; return whether all bars are kept."""
    columns = {"radius": ("radius m", 2), "loop": ("last=first", 1), "photo": ("photo view", 1), "covered": ("covered %", 1),
               "mesh": ("mesh", 1), "fused": ("fused", 1), "fused met": ("met %", 1), "fused all": ("fused all", 1),
               "splats": ("splats", 1)}  # fmt: skip
    print(f"{'photo':<20}{''.join(f'{head:>11}' for head, _ in columns.values())}")
    kept = True
    for name, r in rows.items():
        missed = [key for key, bar in BARS.items() if not r[key] >= bar]
        kept &= not missed
        cells = "".join(f"{r[key]:>11.{digits}f}" for key, (_, digits) in columns.items())
        print(f"{name:<20}{cells}{'  MISSED: ' + ', '.join(missed) if missed else ''}")
    print("PSNR [dB]; bars: " + ", ".join(f"{name} {bar:g}" for name, bar in BARS.items()) + ". Photo view: on seen pixels.")
    print("At the first pose against frame 0, where it has depth: the mesh that ships; the mesh fused from keyframes, where it has")
    print("a surface (met) and everywhere (all); the Gaussians.")
    return kept


def print_retrieval(rows: list[tuple[str, int, dict[str, float]]]) -> bool:
    """Print the retrieval table; return whether the bar is kept."""
    columns = ("chunks", "returns", "cached", "true", "share", "coverage", "of_best", "worst_of_best", "random", "revisits")
    print(f"{'photo':<22}{'frames':>7}{''.join(f'{c:>14}' for c in columns)}{'slowest ms':>12}")
    for name, frames, r in rows:
        cells = "".join(f"{r[c]:>14.1f}" if isinstance(r[c], float) else f"{r[c]:>14}" for c in columns)
        print(f"{name:<22}{frames:>7}{cells}{1000 * r['seconds']:>12.1f}{'' if r['true'] >= TRUE_BAR else '  MISSED: true'}")
    print(f"returns: chunks whose last view was seen before, {100 * SEEN_BEFORE:.0f} % or more of it; the rest is over these.")
    print(f"true [%]: retrieved frames that truly see some of the chunk's last view (bar {TRUE_BAR:g}); share [%]: of it, by each;")
    print(f"coverage [%]: of what any cached frame truly sees of it, by the {RETRIEVED} retrieved and newest; of_best: relative")
    print("to the best choice by truth (mean, worst); random: by five random frames; revisits: retrieved from older chunks")
    return all(r["true"] >= TRUE_BAR for _, _, r in rows)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.closure", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--quick", action="store_true", help="the demo picture only, draft quality, paths of 161 and 481 frames")
    args = parser.parse_args()
    paths = [DEMO_PHOTO, *([] if args.quick else [args.data / "photos" / name for name in PHOTOS])]
    paths = [path for path in paths if path.is_file()]
    kept = print_closure({path.stem: loop_closure(path, "draft" if args.quick else "standard") for path in paths})
    rows = []
    for path in paths:
        estimate, world = explicit_world(path, "draft")
        for frames in LENGTHS[:2] if args.quick else LENGTHS:
            rows.append((path.stem, frames, retrieval(there_and_back(estimate, world, frames, WorldCfg()), GenerateCfg())))
    kept &= print_retrieval(rows)
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
