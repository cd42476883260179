"""The stages of the pipeline: each reads what it needs from the world folder, writes its files and returns their names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from lyra_core import build_files
from lyra_core.backends import make_frame_depth, make_generator, resolve
from lyra_core.build import WorldBuild
from lyra_core.camera.collision import keep_clear, relief
from lyra_core.camera.formats import load_trajectory, relative_to, save_trajectory
from lyra_core.camera.se3 import from_yaw_pitch, look_at
from lyra_core.camera.trajectories import CHUNK_FRAMES, make_trajectory
from lyra_core.config import ATLAS_SIZES, WORKING_SIZES, WorldCfg
from lyra_core.errors import InputError, WorldError
from lyra_core.generate.base import ExplicitGenerator, StatefulGenerator
from lyra_core.generate.captions import caption_for_chunk
from lyra_core.generate.loop import Chunk, FrameDepth, generate_chunks
from lyra_core.io.files import read_json, read_npz, write_json, write_npz
from lyra_core.io.images import resized
from lyra_core.io.meshes import (
    load_collision_parts,
    load_levels,
    load_surface_mesh,
    merge_parts,
    save_collision_parts,
    save_levels,
    save_mesh_glb,
    save_surface_mesh,
)
from lyra_core.io.video import write_video
from lyra_core.memory.cache import FrameCache
from lyra_core.navigation import (
    DiscSpace,
    GeodesicGraph,
    free_points,
    free_space,
    free_space_stats,
    load_episodes,
    load_free_space,
    sample_episodes,
    save_episodes,
    save_free_space,
    save_occupancy_map,
    with_seen_floor,
)
from lyra_core.photo.read import read_photo
from lyra_core.rays import make_ray_tracer
from lyra_core.report import ReportInputs, write_report
from lyra_core.segments import frame_size, joined, load_trajectory_copy, tour_waypoints, trajectory_copy
from lyra_core.splats.feed_forward import splats_feed_forward, weights_licence
from lyra_core.splats.from_frames import splats_from_frames
from lyra_core.splats.ply import read_splats, write_splats
from lyra_core.surface.detail import make_levels
from lyra_core.surface.lift import lift_frames
from lyra_core.types import Camera, CollisionPart, DepthEstimate, Episode, Frame, FreeSpace, Photo, PhotoReading, Trajectory
from lyra_core.usd.check import check_winding
from lyra_core.usd.stage import write_stage
from lyra_core.usd.validate import validate_stage
from lyra_core.variations import varied

KEYFRAME_STRIDE = 4
"""Every n-th frame is lifted."""
ROBOT_INPUTS = ("cell", "robot_radius", "robot_height", "step", "slope")
"""Settings of NavigationCfg that decide where the robot fits."""
EPISODE_STREAM = 17
"""Sets the episodes' random stream apart from the other streams of a seed."""
GENERATE_INPUTS = ("generator", "prompt", "memory", "retrieved_frames", "cache_stride", "point_subsampling", "retrieval_views",
                   "lyra2")
"""Settings of GenerateCfg that decide a chunk's frames; the camera path counts by its own numbers."""


class Context:
    """What the stages share: folder, settings, and arrays read once."""

    def __init__(self, folder: Path, cfg: WorldCfg, photo: Photo | None, build: WorldBuild) -> None:
        self.folder, self.cfg, self._photo, self._build = folder, cfg, photo, build

    def photo(self) -> list[str]:
        """Write the upright photo."""
        if self._photo is None:
            raise InputError(f"{self.folder}: photo.png is missing or damaged; run create with the photo again")
        return build_files.save_photo(self.folder, self._photo)

    @cached_property
    def photo_file(self) -> Photo:
        """The photo as stored."""
        return build_files.load_photo_files(self.folder)

    def estimate(self) -> list[str]:
        """Read the camera and the regions, then the depth."""
        reading = read_photo(self.photo_file, self.cfg.photo, size=WORKING_SIZES[self.cfg.quality])
        provider = resolve("depth", self.cfg.depth.provider)(self.cfg.depth)
        return build_files.save_estimate(self.folder, reading, provider.estimate(self.photo_file, reading))

    @cached_property
    def reading_and_estimate(self) -> tuple[PhotoReading, DepthEstimate]:
        """PhotoReading and DepthEstimate as stored."""
        return build_files.load_estimate(self.folder)

    def layout(self) -> list[str]:
        """Let an explicit generator build its world; others have none."""
        generator = self._new_generator()
        if not is_explicit(generator):
            return []
        self._prepare(generator)
        world, drawn = generator.explicit_world(), None
        if self.cfg.variation.index:
            estimate = self.reading_and_estimate[1]
            world, drawn = varied(world, self.cfg, camera=estimate.camera, T_world_camera=estimate.T_world_camera)
        return build_files.save_layout(self.folder, world, drawn=drawn)

    @cached_property
    def generator(self) -> Any:
        """The generator, ready to make frames."""
        generator = self._new_generator()
        if is_explicit(generator):
            generator.restore(build_files.load_layout(self.folder))
        else:
            self._prepare(generator)
        return generator

    def _new_generator(self) -> Any:
        generator = make_generator(self.cfg.generate, quality=self.cfg.quality)
        check_same_weights(self._build, generator)
        return generator

    def _prepare(self, generator: Any) -> None:
        reading, estimate = self.reading_and_estimate
        generator.prepare(self.photo_file, estimate, seed=self.cfg.seed, indoor=reading.scene_kind == "indoor")

    def trajectory(self) -> list[str]:
        """Make the camera path segment by segment and keep it out of the geometry."""
        estimate = self.reading_and_estimate[1]
        camera = estimate.camera.resized(*frame_size(estimate.camera, self.cfg.quality))
        T, path = estimate.T_world_camera, None
        explicit = is_explicit(self.generator)
        known = (
            merge_parts(self.generator.explicit_world().parts)
            if explicit
            else relief(estimate.depth, estimate.camera, estimate.T_world_camera)
        )
        tracer = make_ray_tracer(*known) if len(known[1]) else None
        for number, segment in enumerate(self._build.manifest["recipe"]["segments"]):
            piece = self._segment(number, segment, camera, T)
            if tracer is not None:
                piece, _ = keep_clear(piece, tracer)
            piece = piece[: segment["use"]]
            path = piece if path is None else joined(path, piece[1:])
            T = path.T_world_camera[-1]
        assert path is not None
        save_trajectory(self.folder / "trajectory.npz", path)
        segments = self._build.manifest["recipe"]["segments"]
        return ["trajectory.npz", *(trajectory_copy(i) for i, segment in enumerate(segments) if segment["sha256"])]

    def _segment(self, number: int, segment: dict[str, Any], camera: Camera, T: np.ndarray) -> Trajectory:
        name, frames = segment["trajectory"], segment["frames"]
        if segment["sha256"]:
            return relative_to(load_trajectory_copy(self.folder, number, segment, camera), T)
        if name == "tour":
            return make_trajectory(name, camera, T, frames, waypoints=self._tour(T))
        return make_trajectory(name, camera, T, frames)

    def _tour(self, T_world_camera: np.ndarray) -> np.ndarray:
        if not is_explicit(self.generator):
            return T_world_camera[:2, 3] + np.outer(np.linspace(0.25, 1.5, 6), T_world_camera[:2, 2])
        places, radius = self.generator.explicit_world().places[1:], self.cfg.navigation.robot_radius
        return tour_waypoints(*self.explicit_routes, places, T_world_camera[:2, 3], radius=radius)

    @cached_property
    def explicit_routes(self) -> tuple[FreeSpace, GeodesicGraph]:
        """Free space and shortest paths of the explicit world, which are there before any frame."""
        return self._routes(self.generator.explicit_world().parts)

    @cached_property
    def routes(self) -> tuple[FreeSpace, GeodesicGraph]:
        """Free space and shortest paths of the lifted colliders."""
        return self.explicit_routes if self.uses_surfaces else self._routes(load_collision_parts(self.folder / "collision.glb"))

    def _routes(self, parts: list[CollisionPart]) -> tuple[FreeSpace, GeodesicGraph]:
        space = free_space(parts, cfg=self.cfg.navigation)
        return space, GeodesicGraph(DiscSpace(space, self.cfg.navigation.robot_radius))

    @cached_property
    def path(self) -> Trajectory:
        """The camera path as stored."""
        estimate = self.reading_and_estimate[1]
        width, height = frame_size(estimate.camera, self.cfg.quality)
        return load_trajectory(self.folder / "trajectory.npz", width=width, height=height)

    def frames(self, run: Callable[..., bool], settings: dict[str, Any]) -> tuple[str, ...]:
        """Run one stage per chunk of the loop; the first stale chunk and all after it are made anew. Returns their names."""
        chunks = max(1, (len(self.path) - 1) // CHUNK_FRAMES)
        source: tuple[int, Iterator[Chunk]] | None = None
        names: list[str] = []
        if hasattr(self.generator, "on_wait"):
            # A wait of many minutes shows life, and ends when the job is stopped.
            self.generator.on_wait = lambda message: run.progress.update(0, message)
        for index in range(chunks):

            def work(index: int = index) -> list[str]:
                nonlocal source
                # A running loop only goes on to the next chunk; after a chunk that was still there it is begun anew.
                if source is None or source[0] != index:
                    source = (index, self._chunks_from(index))
                source = (index + 1, source[1])
                return self._write_chunk(next(source[1]))

            name = f"frames_{index}"
            run(
                name,
                work,
                version=1,
                after=("photo", "estimate", "layout", *names[-1:]),
                steps=CHUNK_FRAMES,
                inputs={
                    "generate": {key: settings["generate"][key] for key in GENERATE_INPUTS},
                    "seed": self.cfg.seed,
                    "cameras": self._camera_digest(index),
                    "weights": self._build.manifest["recipe"].get("weights"),
                    "depth": None if self.frame_depth is None else settings["depth"],
                    "caption": caption_for_chunk(self.captions, index) if self.captions else None,
                },
            )
            names.append(name)
        return tuple(names)

    def _camera_digest(self, index: int) -> str:
        """Hash of the chunk's cameras, to the micrometre, so that it survives a file round trip."""
        chunk = self.path[index * CHUNK_FRAMES : 1 + (index + 1) * CHUNK_FRAMES]
        numbers = np.concatenate([chunk.T_world_camera.ravel(), chunk.K.ravel(), [chunk.width, chunk.height]])
        # Adding 0 turns -0 into 0: equal numbers, other bytes.
        return hashlib.sha256((np.round(numbers, 6) + 0.0).tobytes()).hexdigest()

    def _chunks_from(self, index: int) -> Iterator[Chunk]:
        cfg = self.cfg.generate
        kept = list(range(0, index * CHUNK_FRAMES + 1, cfg.cache_stride)) if index else []
        cache = FrameCache.rebuild(((i, self.frame(i)) for i in kept), point_subsampling=cfg.point_subsampling)
        if index and is_stateful(self.generator):
            self.generator.resume(index, lambda chunk: read_npz(self.folder / state_file(chunk)), self.frame)
        return generate_chunks(
            self.generator,
            self.path,
            cache,
            resolve("memory", cfg.memory)(),
            cfg=cfg,
            seed=self.cfg.seed,
            depth_provider=self.frame_depth,
            depth_stride=self.cfg.depth.frame_stride,
            start_chunk=index,
            newest=self.frame(index * CHUNK_FRAMES) if index else None,
            captions=self.captions,
        )

    @cached_property
    def frame_depth(self) -> FrameDepth | None:
        """Depth for generators that make none."""
        if getattr(self.generator, "makes_depth", True):
            return None
        provider = make_frame_depth(self.cfg.depth)
        return lambda frames, history: provider.estimate_frames(frames, history=history)

    @property
    def captions(self) -> dict[int, str]:
        """Captions given at creation: frame id -> caption from there on."""
        return {int(frame): text for frame, text in self._build.manifest["recipe"].get("captions", {}).items()}

    def _write_chunk(self, chunk: Chunk) -> list[str]:
        files = [
            name
            for i, frame in zip(chunk.frame_ids, chunk.frames, strict=True)
            for name in build_files.save_frame(self.folder, i, frame)
        ]
        write_json(
            self.folder / f"build/chunk_{chunk.index:03d}.json",
            {"frames": list(chunk.frame_ids), "retrieved": list(chunk.retrieved), "prompt": chunk.prompt},
        )
        if is_stateful(self.generator) and (state := self.generator.chunk_state()):
            write_npz(self.folder / state_file(chunk.index), **state)
            files.append(state_file(chunk.index))
        return [*files, f"build/chunk_{chunk.index:03d}.json"]

    def frame(self, i: int) -> Frame:
        """Read frame i back."""
        return build_files.load_frame(self.folder, i, self.path)

    def keyframes(self) -> list[Frame]:
        """Frames that are lifted: every fourth and the last, as far as they have depth."""
        last = len(self.path) - 1
        stride = KEYFRAME_STRIDE if self.frame_depth is None else max(KEYFRAME_STRIDE, self.cfg.depth.frame_stride)
        return [self.frame(i) for i in sorted({*range(0, last + 1, stride), last})]

    @property
    def uses_surfaces(self) -> bool:
        """True if the generator's own surfaces are the world, False if its frames are fused."""
        return self.cfg.surface.route == "surfaces" or (self.cfg.surface.route == "auto" and is_explicit(self.generator))

    def lift(self) -> list[str]:
        """Make mesh, colliders and Gaussians."""
        frames = self.keyframes()
        if self.uses_surfaces:
            world = self.generator.explicit_world()
            mesh, parts, notes = world.mesh, world.parts, ()
        else:
            lifted = lift_frames(frames, cfg=self.cfg.surface, atlas_side=ATLAS_SIZES[self.cfg.quality], align=False)
            mesh, parts, notes = lifted.mesh, lifted.parts, lifted.notes
        if self.cfg.splats.method == "feed_forward":
            cloud = splats_feed_forward(frames, self.cfg.splats)
        else:
            cloud = splats_from_frames(frames, max_count=self.cfg.splats.max_count, first_block=1)
        save_surface_mesh(self.folder / "mesh.npz", mesh)
        save_mesh_glb(self.folder / "mesh.glb", mesh)
        save_collision_parts(self.folder / "collision.glb", parts)
        write_splats(self.folder / "splats.ply", cloud)
        write_json(self.folder / "build/lift.json", {"notes": list(notes), "splats": len(cloud.means)})
        return ["mesh.npz", "mesh.glb", "collision.glb", "splats.ply", "build/lift.json"]

    def navigation(self) -> list[str]:
        """Find the free space, sample episodes, write the occupancy map."""
        space, graph = self.routes
        return write_navigation(
            self.folder, space, graph, cfg=self.cfg, scale_sigma=self.reading_and_estimate[1].scale_sigma,
            is_open=not self.uses_surfaces,
        )

    def usd(self) -> list[str]:
        """Write the stage."""
        write_stage(
            self.folder,
            load_surface_mesh(self.folder / "mesh.npz"),
            load_collision_parts(self.folder / "collision.glb"),
            read_splats(self.folder / "splats.ply"),
            provenance=self._provenance(),
        )
        return [
            "world.usda",
            *sorted(str(p.relative_to(self.folder).as_posix()) for p in (self.folder / "payloads").rglob("*") if p.is_file()),
        ]

    def _provenance(self) -> dict[str, Any]:
        photo = self.photo_file
        return {
            "photo_name": photo.name,
            "photo_sha256": photo.sha256,
            "photo_licence": photo.licence,
            "seed": self.cfg.seed,
            "generator": self.cfg.generate.generator,
            "generator_licence": self.generator_licence,
            "camera_path": "trajectory.npz",
            "recipe_id": self._build.manifest["recipe_id"],
        }

    @property
    def generator_licence(self) -> str:
        """Licence of the generator's weights."""
        return str(getattr(self.generator, "licence", "Apache-2.0, no weights"))

    def video(self) -> list[str]:
        """Encode the frames, and write the prompt under each chunk's first frame, as Lyra's caption files have it."""
        write_video(self.folder / "video.mp4", (self.frame(i).rgb for i in range(len(self.path))))
        chunks = (len(self.path) - 1) // CHUNK_FRAMES
        said = [read_json(self.folder / f"build/chunk_{k:03d}.json")["prompt"] for k in range(chunks)]
        write_json(self.folder / "captions.json", {str(1 + k * CHUNK_FRAMES if k else 0): text for k, text in enumerate(said)})
        return ["video.mp4", "captions.json"]

    def describe(self) -> None:
        """Put statistics, confidence and licences into the manifest."""
        reading, estimate = self.reading_and_estimate
        mesh, space = load_surface_mesh(self.folder / "mesh.npz"), load_free_space(self.folder / "navigation.npz")
        parts = load_collision_parts(self.folder / "collision.glb")
        photo = self.photo_file
        numbers = {key: round(value, 3) for key, value in free_space_stats(space, self.cfg.navigation.robot_radius).items()}
        self._build.manifest.update(
            photo={"name": photo.name, "sha256": photo.sha256, "licence": photo.licence, "focal_source": photo.focal_source},
            licences={
                "photo": photo.licence,
                "generator": self.generator_licence,
                "code": "Apache-2.0",
                **({"splats": weights_licence(self.cfg.splats)} if self.cfg.splats.method == "feed_forward" else {}),
            },
            confidence={key: round(float(value), 4) for key, value in reading.confidence.items()},
            scene_kind=reading.scene_kind,
            scale_sigma=round(float(estimate.scale_sigma), 4),
            notes=[*reading.notes, *estimate.notes],
            variation=self._variation(),
            levels_of_detail=detail_statistics(self.folder),
            statistics={
                **numbers,
                "triangles": len(mesh.faces),
                "collision_triangles": sum(len(p.faces) for p in parts),
                "colliders": len(parts),
                "splats": len(read_splats(self.folder / "splats.ply").means),
                "frames": len(self.path),
            },
        )
        self._build.save()

    def _variation(self) -> dict[str, Any]:
        """Say which variation of its photo this world is, and what was drawn for it."""
        index = self.cfg.variation.index
        drawn = build_files.load_drawn(self.folder) if index else {}
        differs = ["unseen parts", *sorted(name for name, value in drawn.items() if value)] if index else []
        return {"index": index, "photo_sha256": self.photo_file.sha256, "seed": self.cfg.seed, "differs_in": differs,
                "randomised": drawn}

    def report(self) -> list[str]:
        """Draw the report for people."""
        reading, estimate = self.reading_and_estimate
        findings = [str(f) for f in validate_stage(self.folder / "world.usda", nvidia=False)]
        shown = resized(self.photo_file.rgb, estimate.camera.width, estimate.camera.height)
        space, episodes = load_free_space(self.folder / "navigation.npz"), load_episodes(self.folder / "episodes.json.gz")
        inputs = ReportInputs(
            photo=Photo(shown, self.photo_file.sha256, self.photo_file.name, licence=self.photo_file.licence),
            reading=reading,
            estimate=estimate,
            space=space,
            views=self._views(),
            episodes=episodes,
            paths=self._paths(episodes),
            numbers=self._build.manifest["statistics"],
            findings=findings,
        )
        write_report(self.folder, inputs)
        return ["report.html", "preview.png"]

    def _views(self) -> list[Frame]:
        """Six views: along the path, or of an explicit world the photo's own, three by quarter turns, two back from further on."""
        if not is_explicit(self.generator):
            return [self.frame(int(i)) for i in np.linspace(0, len(self.path) - 1, 6).round()]
        eye, places = self.path.T_world_camera[0, :3, 3], self.generator.explicit_world().places
        T = [self.path.T_world_camera[0], *(from_yaw_pitch(eye, yaw, -0.1) for yaw in (np.pi / 2, np.pi, -np.pi / 2))]
        T += [look_at(np.append(places[i], eye[2]), np.append(places[0], eye[2] - 0.3)) for i in (1, len(places) - 1)]
        views = replace(self.path, T_world_camera=np.stack(T), K=self.path.K[:1].repeat(len(T), 0))
        return [self.generator.first_frame(views[i : i + 1]) for i in range(len(views))]

    def _paths(self, episodes: list[Episode]) -> list[np.ndarray]:
        """Shortest paths of the first episodes, for the map."""
        graph = self.routes[1]
        return [graph.path(graph.field(episode.goal[:2]), episode.start[:2]) for episode in episodes[:6]]


def write_navigation(
    folder: Path, space: FreeSpace, graph: GeodesicGraph, *, cfg: WorldCfg, scale_sigma: float, is_open: bool,
    may_be_small: bool = False,
) -> list[str]:
    """Check the colliders of a world from its free space, and write grid, occupancy map and episodes; returns the files' names.

    Args:
        is_open: the surfaces may have holes.
        may_be_small: a place where the robot fits nowhere, or has nowhere to go, is a world without episodes, not an error.

    Raises:
        WorldError: a collider looks away from free space.
        InputError: no episode is possible.
    """
    radius = cfg.navigation.robot_radius
    space = with_seen_floor(space, load_surface_mesh(folder / "mesh.npz"))
    points = free_points(space, radius)
    if len(points) or not may_be_small:
        check_winding(load_collision_parts(folder / "collision.glb"), points, is_open=is_open)
    save_free_space(folder / "navigation.npz", space)
    save_occupancy_map(folder / "occupancy_map", space)
    rng = np.random.default_rng([cfg.seed, EPISODE_STREAM])
    info = {"scale_sigma": round(float(scale_sigma), 4)}
    try:
        episodes = sample_episodes(space, rng, count=cfg.navigation.episodes, radius=radius, graph=graph, info=info)
    except InputError:
        if not may_be_small:
            raise
        episodes = []
    save_episodes(folder / "episodes.json.gz", episodes)
    return ["navigation.npz", "occupancy_map/map.yaml", "occupancy_map/map.png", "episodes.json.gz"]


def write_detail(folder: Path, *, radius: float) -> list[str]:
    """Write the mesh's levels of detail, compared with it from free space; returns the file's name."""
    mesh, space = load_surface_mesh(folder / "mesh.npz"), load_free_space(folder / "navigation.npz")
    eyes = free_points(space, radius, height=0.8)
    save_levels(folder / "mesh_levels.npz", make_levels(mesh, eyes if len(eyes) else free_points(space, 0.0, height=0.8)))
    return ["mesh_levels.npz"]


def detail_statistics(folder: Path) -> list[dict[str, float]]:
    """Return what world.json says about the levels of detail, finest first."""
    return [{"triangles": len(level.faces), "depth_error_median_m": round(level.depth_error_median, 5),
             "depth_error_p99_m": round(level.depth_error_p99, 5)} for level in load_levels(folder / "mesh_levels.npz")]


def check_same_weights(build: WorldBuild, generator: Any) -> None:
    """Require the weights that a world was made with.

    Raises:
        WorldError: the generator has others.
    """
    wanted, found = build.manifest["recipe"].get("weights"), getattr(generator, "weights_id", None)
    if wanted != found:
        where = "$LYRA_WORLDS_MODELS names their folder"
        raise WorldError(f"{build.folder}: made with weights {wanted}, got {found}; expected the same ({where})")


def state_file(chunk: int) -> str:
    """Name of what a stateful generator keeps of a chunk."""
    return f"build/state_{chunk:03d}.npz"


def is_stateful(generator: Any) -> TypeGuard[StatefulGenerator]:
    """True if the generator remembers more than its frames."""
    return hasattr(generator, "resume")


def is_explicit(generator: Any) -> TypeGuard[ExplicitGenerator]:
    """True if the generator has one explicit world."""
    return hasattr(generator, "restore")
