"""What is measured on a finished world. Every measure takes arrays, so that ``proofs.py`` can show on a known room that it bites.

Run alone: ``python -m tests.benchmarks.measures WORLD [--episodes 50] [--json FILE]`` prints the measures of one world.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

import lyra_tasks
from lyra_core.backends import resolve
from lyra_core.build_files import LAYOUT_FILES, PHOTO, load_estimate, load_layout
from lyra_core.camera.collision import keep_clear
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.trajectories import make_trajectory
from lyra_core.config import WorldCfg, from_dict
from lyra_core.generate.loop import generate_chunks
from lyra_core.io.images import read_image, resized
from lyra_core.io.meshes import merge_parts
from lyra_core.memory.cache import FrameCache
from lyra_core.navigation import free_space_stats
from lyra_core.rays import Hits, RayTracer, cast_camera, make_ray_tracer
from lyra_core.segments import frame_size
from lyra_core.types import Camera, CollisionPart, FreeSpace, Label, Provenance, SurfaceMesh
from lyra_core.usd.validate import nvidia_available, validate_stage
from lyra_core.world import World
from lyra_tasks.evaluate import evaluate_agent

RADIUS = 0.3
"""Robot [m]."""
SAME_PICTURE = 100.0
"""PSNR written for two equal pictures [dB]; the true one is infinite and no JSON number."""
EYE_HEIGHTS = (0.4, 1.5)
BAND = (0.1, 1.5)
"""Heights between which a sensor's depth and the colliders must agree [m]."""
SENSOR_RANGE = 10.0
"""Of PointNav's depth camera; further readings are clipped there [m]."""
DISAGREE = 0.1
"""Difference that makes a ray a ghost or an unseen wall [m]."""


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 arrays of one shape [dB]; NaN for none, SAME_PICTURE for equal ones."""
    if not a.size:
        return math.nan
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return SAME_PICTURE if mse == 0 else min(SAME_PICTURE, 10 * math.log10(255.0**2 / mse))


def free_poses(space: FreeSpace, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eyes (count, 3) [m] above traversable cells and yaws (count,) [rad], all drawn uniformly."""
    cells = np.argwhere(space.traversable(RADIUS))
    cells = cells[rng.integers(len(cells), size=count)]
    xy = space.origin + (cells[:, ::-1] + 0.5) * space.cell
    return np.column_stack([xy, rng.uniform(*EYE_HEIGHTS, count)]), rng.uniform(0, 2 * math.pi, count)


def ground_ray_hits(mesh: SurfaceMesh, eyes: np.ndarray, rng: np.random.Generator, *, rays: int = 500) -> dict[str, Any]:
    """Return the share [%] of rays below the horizon that meet a surface, and the eyes with most misses.

    Directions are uniform on the lower half of the sphere, all round. A face labelled SKY is no surface.
    """
    z, angle = -rng.uniform(0, 1, (len(eyes), rays)), rng.uniform(0, 2 * math.pi, (len(eyes), rays))
    r = np.sqrt(1 - z * z)
    directions = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1).reshape(-1, 3).astype(np.float32)
    hits = make_ray_tracer(mesh.vertices, mesh.faces).cast(np.repeat(eyes, rays, 0).astype(np.float32), directions)
    solid = ((hits.face >= 0) & (mesh.face_label[np.maximum(hits.face, 0)] != Label.SKY)).reshape(len(eyes), rays)
    worst = np.argsort(solid.mean(1))[:3]
    return {
        "hits_percent": 100 * float(solid.mean()),
        "worst_eyes": [{"eye": eyes[i].round(2).tolist(), "hits_percent": 100 * float(solid[i].mean())} for i in worst],
    }


def sensor_against_colliders(
    mesh: SurfaceMesh, parts: list[CollisionPart], eyes: np.ndarray, yaws: np.ndarray, *, pixels: int = 64
) -> dict[str, Any]:
    """Compare the z-depth of level 90-degree cameras on the visual mesh with that on the colliders.

    Counted: pixels whose visible surface lies within BAND and nearer than SENSOR_RANGE; both readings clipped to the range.

    Returns:
        p50_cm, p95_cm: percentiles of the absolute difference; ghost_percent: seen clearly before the collider (a robot
        drives into what it sees); unseen_percent: of pixels whose collider lies in the band, those that touch clearly before
        anything is seen; rays: number of pixels.
    """
    camera = Camera.from_focal(pixels / 2, pixels, pixels)
    seen, touched = make_ray_tracer(mesh.vertices, mesh.faces), make_ray_tracer(*merge_parts(parts))
    sky = mesh.face_label == Label.SKY
    gaps, in_band = [], []
    for eye, yaw in zip(eyes, yaws, strict=True):
        T = from_yaw_pitch(eye, float(yaw))
        slope = (camera.rays().reshape(-1, 3) @ T[:3, :3].T.astype(np.float32))[:, 2]
        visual, collider = _solid_depth(seen, camera, T, sky), _solid_depth(touched, camera, T, None)
        gaps.append(np.minimum(collider, SENSOR_RANGE) - np.minimum(visual, SENSOR_RANGE))
        in_band.append([_within_band(eye[2], slope, t) for t in (visual, collider)])
    gap, (visible, solid) = np.concatenate(gaps), np.concatenate(in_band, 1)
    if not visible.any():
        return {"p50_cm": math.nan, "p95_cm": math.nan, "ghost_percent": 0.0, "unseen_percent": 0.0, "rays": 0}
    size = np.abs(gap[visible]) * 100
    return {
        "p50_cm": float(np.percentile(size, 50)),
        "p95_cm": float(np.percentile(size, 95)),
        "ghost_percent": 100 * float((gap[visible] > DISAGREE).mean()),
        "unseen_percent": 100 * float((gap[solid] < -DISAGREE).mean()) if solid.any() else 0.0,
        "rays": int(visible.sum()),
    }


def _solid_depth(tracer: RayTracer, camera: Camera, T_world_camera: np.ndarray, sky: np.ndarray | None) -> np.ndarray:
    hits: Hits = cast_camera(tracer, camera, T_world_camera)
    nothing = hits.face < 0 if sky is None else (hits.face < 0) | sky[np.maximum(hits.face, 0)]
    return np.where(nothing, np.inf, hits.t)


def _within_band(eye_height: float, slope: np.ndarray, depth: np.ndarray) -> np.ndarray:
    reach = depth < SENSOR_RANGE
    height = eye_height + slope * np.where(reach, depth, 0.0)
    return reach & (height > BAND[0]) & (height < BAND[1])


def photo_view(world: World) -> dict[str, float]:
    """Return the PSNR of frame 0 against the photo on pixels it covers (surfaces labelled seen), their share, and that of all."""
    import cv2

    frame = read_image(world.folder / "frames/00000.png")
    label = cv2.imread(str(world.folder / "build/provenance/00000.png"), cv2.IMREAD_UNCHANGED)
    photo = resized(read_image(world.folder / PHOTO), frame.shape[1], frame.shape[0])
    covered = label == Provenance.SEEN
    return {
        "photo_psnr": psnr(frame[covered], photo[covered]),
        "covered_percent": 100 * float(covered.mean()),
        "whole_photo_psnr": psnr(frame, photo),
    }


def loop_closure(world: World) -> dict[str, Any]:
    """Walk the path 'loop' through the generator's real loop; return the PSNR of its last frame against its first [dB]."""
    cfg = _config(world)
    _, estimate = load_estimate(world.folder)
    camera = estimate.camera.resized(*frame_size(estimate.camera, cfg.quality))
    generator = resolve("generator", cfg.generate.generator)(quality=cfg.quality)
    layout = load_layout(world.folder)
    generator.restore(layout)
    path = make_trajectory("loop", camera, estimate.T_world_camera, 81)
    path, moved = keep_clear(path, make_ray_tracer(*merge_parts(layout.parts)))
    memory = resolve("memory", cfg.generate.memory)()
    (chunk,) = generate_chunks(generator, path, FrameCache(), memory, cfg=cfg.generate, seed=cfg.seed)
    return {
        "loop_psnr": psnr(chunk.frames[0].rgb, chunk.frames[-1].rgb),
        "loop_moved_poses": moved,
        "loop_gap_m": float(np.linalg.norm(path.T_world_camera[-1, :3, 3] - path.T_world_camera[0, :3, 3])),
        "loop_retrieved": list(chunk.retrieved),
    }


def _config(world: World) -> WorldCfg:
    return from_dict(world.manifest["recipe"]["config"], where=str(world.folder / "world.json"))


def oracle(world: World, episodes: int) -> dict[str, Any]:
    """Return success [%] and SPL of the oracle per environment id, over the world's first episodes."""
    out = {}
    for name, env_id in zip(("discrete", "continuous"), lyra_tasks.ENV_IDS, strict=True):
        # The oracle steers by the map; a small picture saves time and changes nothing.
        result = evaluate_agent(world, "oracle", episodes, env_id=env_id, image_size=8)
        out[name] = {
            "success_percent": 100 * result["success_rate"],
            "spl": result["spl"],
            "collisions": result["collisions"],
            "failures": result["failures"],
        }
    return out


def findings(world: World) -> dict[str, Any]:
    """Return what OpenUSD's and NVIDIA's validators say about the stage."""
    found = validate_stage(world.folder / "world.usda")
    return {"findings": len(found), "validators": "openusd+nvidia" if nvidia_available() else "openusd",
            "first_findings": [str(f) for f in found[:5]]}


def measure_world(folder: Path, *, episodes: int = 50, poses: int = 200, seed: int = 0) -> dict[str, Any]:
    """Return all measures of one world folder made with ``keep='all'``."""
    world = World(folder)
    space, rng = world.free_space, np.random.default_rng(seed)
    eyes, yaws = free_poses(space, rng, poses)
    explicit = all((folder / name).is_file() for name in LAYOUT_FILES)
    return {
        **{key: float(value) for key, value in free_space_stats(space, RADIUS).items()},
        "confidence": float(world.manifest["confidence"]["overall"]),
        "scene": world.manifest["scene_kind"],
        "scale_sigma": world.manifest["scale_sigma"],
        **findings(world),
        "oracle": oracle(world, episodes),
        **photo_view(world),
        **(loop_closure(world) if explicit else {"loop_psnr": math.nan}),
        **ground_ray_hits(world.mesh, eyes, rng),
        **sensor_against_colliders(world.mesh, world.collision_parts, eyes, yaws),
    }


def main() -> None:
    """Measure one world and print or write JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.measures", description=__doc__.splitlines()[0])
    parser.add_argument("world", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--poses", type=int, default=200)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    text = json.dumps(measure_world(args.world, episodes=args.episodes, poses=args.poses), indent=1)
    args.json.write_text(text, encoding="utf-8") if args.json else print(text)


if __name__ == "__main__":
    main()
