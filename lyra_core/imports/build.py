"""Someone's files in, a world folder out: the same stages as for a photo, after one that reads and sets the files upright."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core import build_files
from lyra_core.build import WorldBuild, package_versions
from lyra_core.camera.formats import save_trajectory
from lyra_core.camera.se3 import from_yaw_pitch, look_at
from lyra_core.config import ATLAS_SIZES, WorldCfg, to_dict
from lyra_core.errors import Cancelled, LyraError, WorldError
from lyra_core.imports.base import Source
from lyra_core.imports.detect import load_source
from lyra_core.imports.prepare import Given, Prepared, prepare, view_of
from lyra_core.io.files import read_json, read_npz, sha256_file, write_json, write_npz
from lyra_core.io.images import read_image, write_image
from lyra_core.io.meshes import (
    load_collision_parts,
    load_surface_mesh,
    merge_parts,
    save_collision_parts,
    save_mesh_glb,
    save_surface_mesh,
)
from lyra_core.jobs.progress import Progress, ProgressNull
from lyra_core.navigation import (
    DiscSpace,
    GeodesicGraph,
    free_space,
    free_space_stats,
    load_episodes,
    load_free_space,
)
from lyra_core.pipeline import StageRunner, single_threaded_blas
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.report import ReportInputs, write_report
from lyra_core.splats.from_frames import splats_from_frames
from lyra_core.splats.from_mesh import splats_from_mesh
from lyra_core.splats.ply import read_splats, write_splats
from lyra_core.stages import detail_statistics, write_detail, write_navigation
from lyra_core.surface.health import check_mesh
from lyra_core.types import (
    Camera,
    CollisionPart,
    DepthEstimate,
    Frame,
    FreeSpace,
    GaussianCloud,
    Label,
    Photo,
    PhotoReading,
    SurfaceMesh,
    Trajectory,
)
from lyra_core.usd.stage import write_stage
from lyra_core.usd.validate import validate_stage
from lyra_core.world import World

SIDES = {"draft": 320, "standard": 640, "full": 1280}
"""Long side at which pictures are read [px]."""
FACTS = "build/import.json"
MESH_SPLATS = 200_000
NO_EPISODES = "A robot of this radius has nowhere to go here, so there are no episodes."


def import_world(
    path: Path | str, folder: Path | str, cfg: WorldCfg | None = None, *, given: Given | None = None, kind: str | None = None,
    licence: str = "unknown", max_frames: int = 120, intrinsics: tuple[float, ...] | None = None, progress: Progress | None = None,
) -> World:
    """Make a world of a scan, a capture, a mesh, splats or another generator's output. Called again, it goes on where it stopped.

    Args:
        path: a folder or file of any of ``detect.KINDS``.
        folder: of the world; made if missing.
        cfg: settings: quality, surface, splats and navigation count.
        given: what the user knows: unit, a length, the cameras' height, which way is up.
        kind: of the files, where it is not to be recognised.
        licence: of the files, carried into the world.
        max_frames: posed pictures used, chosen by motion and sharpness.
        intrinsics: fx fy cx cy [px] for captures that do not say their camera.

    Raises:
        InputError: the files cannot be used; no folder is left.
        WorldError: the folder holds something else.
        BackendUnavailable: an optional reader is missing.
    """
    cfg, given, progress = cfg or WorldCfg(), given or Given(), progress or ProgressNull()
    source = load_source(path, kind=kind, intrinsics=intrinsics, max_frames=max_frames, max_side=SIDES[cfg.quality])
    content = _content(source)
    settings = to_dict(cfg)
    recipe = {
        "source": {"kind": source.kind, "sha256": content, "files": len(source.files)},
        "given": _plain(asdict(given)),
        "config": {key: settings[key] for key in ("quality", "seed", "surface", "splats", "navigation")},
        "max_frames": max_frames,
        "licence": licence,
        "versions": package_versions(),
    }
    build = WorldBuild.begin(Path(folder), photo_sha256=content, recipe=recipe)
    if build.is_complete(keep="all", working_folders=()):
        return World(build.folder)
    try:
        return _make(build, source, cfg, given, licence if licence != "unknown" else source.licence, progress)
    except Cancelled:
        raise
    except LyraError:
        if build.is_new:
            build.discard()
        raise


def _make(build: WorldBuild, source: Source, cfg: WorldCfg, given: Given, licence: str, progress: Progress) -> World:
    """Run every stage that is not done."""
    build.reopen()
    run, folder = StageRunner(build, progress), build.folder
    recipe = build.manifest["recipe"]
    with single_threaded_blas():
        run("import", lambda: _import(folder, source, cfg, given, progress), version=1,
            inputs={key: recipe[key] for key in ("source", "given", "config", "max_frames")})
        run("navigation", lambda: _navigation(folder, cfg), version=1, after=("import",),
            inputs={"settings": recipe["config"]["navigation"], "seed": cfg.seed})
        run("detail", lambda: write_detail(folder, radius=cfg.navigation.robot_radius), version=1, after=("import", "navigation"))
        run("usd", lambda: _usd(folder, build, source, licence), version=1, after=("import",),
            inputs={"recipe": build.manifest["recipe_id"]})
        _describe(build, source, cfg, licence)
        run("report", lambda: _report(folder, build, source, licence), version=1, after=("import", "navigation", "usd"),
            inputs={"statistics": build.manifest["statistics"]})
    build.finish(keep="all", working_folders=())
    return World(folder)


def _content(source: Source) -> str:
    """Return a hash of all files by content, whatever their names and places."""
    hashes = sorted(sha256_file(file) for file in source.files if file.is_file())
    return hashlib.sha256("".join(hashes or [str(source.path)]).encode()).hexdigest()


def _import(folder: Path, source: Source, cfg: WorldCfg, given: Given, progress: Progress) -> list[str]:
    """Write everything that is read from the files, upright and in metres."""
    made = prepare(source, given=given, surface=cfg.surface, atlas_side=ATLAS_SIZES[cfg.quality],
                   say=lambda text: progress.update(0, text))
    progress.update(0, "splats")
    cloud = made.cloud if made.cloud is not None else _new_cloud(made, cfg)
    save_surface_mesh(folder / "mesh.npz", made.mesh)
    save_mesh_glb(folder / "mesh.glb", made.mesh)
    save_collision_parts(folder / "collision.glb", made.parts)
    write_splats(folder / "splats.ply", cloud)
    write_image(folder / "photo.png", made.reference.rgb)
    write_npz(folder / "build/reference.npz", depth=made.reference.depth, K=made.reference.camera.K,
              T_world_camera=made.reference.T_world_camera)
    files = ["mesh.npz", "mesh.glb", "collision.glb", "splats.ply", "photo.png", "build/reference.npz", FACTS]
    files += _write_frames(folder, made.frames)
    health = check_mesh(made.mesh.vertices, made.mesh.faces)
    write_json(folder / FACTS, {
        "kind": source.kind, "notes": list(made.notes), "scale": asdict(made.scale), "registration": made.registration,
        "T_world_source": made.T_world_source.tolist(), "facts": _plain(made.facts), "frames": len(made.frames),
        "health": health.to_dict(), "findings": health.findings(),
    })
    return files


def _write_frames(folder: Path, frames: Sequence[Frame]) -> list[str]:
    if not frames:
        return []
    sizes = {(frame.camera.width, frame.camera.height) for frame in frames}
    files = [name for i, frame in enumerate(frames) for name in build_files.save_frame(folder, i, frame)]
    if len(sizes) == 1:
        width, height = sizes.pop()
        path = Trajectory(np.stack([f.T_world_camera for f in frames]), np.stack([f.camera.K for f in frames]), width, height)
        save_trajectory(folder / "trajectory.npz", path)
        files.append("trajectory.npz")
    return files


def _new_cloud(made: Prepared, cfg: WorldCfg) -> GaussianCloud:
    if any(np.isfinite(frame.depth).any() for frame in made.frames):
        return splats_from_frames(made.frames, max_count=cfg.splats.max_count)
    return splats_from_mesh(made.mesh, count=min(MESH_SPLATS, cfg.splats.max_count))


def _navigation(folder: Path, cfg: WorldCfg) -> list[str]:
    parts = load_collision_parts(folder / "collision.glb")
    sigma = read_json(folder / FACTS)["scale"]["sigma"]
    try:
        space = free_space(parts, cfg=cfg.navigation)
    except WorldError:
        space = _nowhere(parts, cfg)
    graph = GeodesicGraph(DiscSpace(space, cfg.navigation.robot_radius))
    return write_navigation(folder, space, graph, cfg=cfg, scale_sigma=sigma, is_open=True, may_be_small=True)


def _nowhere(parts: list[CollisionPart], cfg: WorldCfg) -> FreeSpace:
    """Return the grid of a place without a floor: an object, or a piece of a room."""
    vertices, _ = merge_parts(parts)
    cell = max(cfg.navigation.cell, float(np.ptp(vertices[:, :2], axis=0).max()) / 1000)
    low = vertices[:, :2].min(0).astype(float)
    cols, rows = np.maximum(np.ceil(np.ptp(vertices[:, :2], axis=0) / cell).astype(int), 1)
    none = np.zeros((rows, cols), bool)
    return FreeSpace(low, cell, none, none.astype(np.float32), np.full(none.shape, 255, np.uint8), cfg.navigation.robot_height)


def _usd(folder: Path, build: WorldBuild, source: Source, licence: str) -> list[str]:
    facts = read_json(folder / FACTS)
    write_stage(
        folder, load_surface_mesh(folder / "mesh.npz"), load_collision_parts(folder / "collision.glb"),
        read_splats(folder / "splats.ply"),
        provenance={
            "source_kind": source.kind, "source_name": source.path.name, "source_sha256": build.manifest["photo"]["sha256"],
            "source_licence": licence, "scale_known": facts["scale"]["known"], "scale_said_by": facts["scale"]["said_by"],
            "recipe_id": build.manifest["recipe_id"],
        },
    )
    payloads = sorted(p.relative_to(folder).as_posix() for p in (folder / "payloads").rglob("*") if p.is_file())
    return ["world.usda", *payloads]


def _describe(build: WorldBuild, source: Source, cfg: WorldCfg, licence: str) -> None:
    folder, facts = build.folder, read_json(build.folder / FACTS)
    mesh, space = load_surface_mesh(folder / "mesh.npz"), load_free_space(folder / "navigation.npz")
    parts, episodes = load_collision_parts(folder / "collision.glb"), load_episodes(folder / "episodes.json.gz")
    numbers = {key: round(value, 3) for key, value in free_space_stats(space, cfg.navigation.robot_radius).items()}
    build.manifest["photo"].update(name=source.path.name, licence=licence)
    build.manifest.update(
        source={"kind": source.kind, "name": source.path.name, "licence": licence, "registration": facts["registration"]},
        licences={"source": licence, "code": "Apache-2.0"},
        confidence={},
        scene_kind="imported",
        scale=facts["scale"],
        levels_of_detail=detail_statistics(folder),
        scale_sigma=round(float(facts["scale"]["sigma"]), 4),
        notes=[facts["scale"]["said_by"], *facts["notes"], *facts["findings"], *([] if episodes else [NO_EPISODES])],
        statistics={
            **numbers, "triangles": len(mesh.faces), "collision_triangles": sum(len(p.faces) for p in parts),
            "colliders": len(parts), "splats": len(read_splats(folder / "splats.ply").means), "frames": facts["frames"],
        },
    )
    build.save()


def _report(folder: Path, build: WorldBuild, source: Source, licence: str) -> list[str]:
    """Draw the report: what stands for the photo is the reference picture, with the regions of the mesh behind it."""
    facts, stored = read_json(folder / FACTS), read_npz(folder / "build/reference.npz")
    mesh = load_surface_mesh(folder / "mesh.npz")
    rgb = read_image(folder / "photo.png")
    camera, T = Camera(stored["K"], rgb.shape[1], rgb.shape[0]), stored["T_world_camera"]
    tracer = make_ray_tracer(mesh.vertices, mesh.faces)
    face = cast_camera(tracer, camera, T).face.reshape(rgb.shape[:2])
    labels = np.where(face >= 0, mesh.face_label[np.maximum(face, 0)], Label.UNLABELED).astype(np.uint8)
    sigma, notes = float(facts["scale"]["sigma"]), tuple(build.manifest["notes"])
    reading = PhotoReading(camera, T, labels, "imported", np.zeros((0, 4), np.float32), {}, sigma, notes)
    estimate = DepthEstimate(stored["depth"], labels, camera, T, None, f"the {source.kind} files", sigma, notes)
    space, episodes = load_free_space(folder / "navigation.npz"), load_episodes(folder / "episodes.json.gz")
    write_report(folder, ReportInputs(
        photo=Photo(rgb, build.manifest["photo"]["sha256"], source.path.name, licence=licence), reading=reading, estimate=estimate,
        space=space, views=_views(mesh, tracer, T, camera), episodes=episodes,
        numbers={**build.manifest["statistics"], **({"registration": facts["registration"]} if facts["registration"] else {})},
        findings=[str(f) for f in validate_stage(folder / "world.usda", nvidia=False)],
    ))
    return ["report.html", "preview.png"]


def _views(mesh: SurfaceMesh, tracer: Any, T: np.ndarray, camera: Any) -> list[Frame]:
    """Six views of the mesh: the reference, three turns about it, and two from above."""
    eye = T[:3, 3]
    low, high = np.percentile(mesh.vertices, [2, 98], axis=0)
    middle, reach = (low + high) / 2, float(np.linalg.norm(high - low))
    poses = [T, *(from_yaw_pitch(eye, yaw, -0.15) for yaw in (np.pi / 2, np.pi, -np.pi / 2))]
    poses += [look_at(middle + reach * np.array([x, y, 0.9]), middle) for x, y in ((-0.6, -0.5), (0.6, 0.5))]
    small = camera.resized(520, max(1, round(520 * camera.height / camera.width)))
    return [view_of(mesh, small, pose, tracer) for pose in poses]


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, (np.bool_, bool)):
        return bool(value)
    return int(value) if isinstance(value, np.integer) else value if value is None or isinstance(value, (int, str)) else str(value)
