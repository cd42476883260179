"""From what was read to a world that is upright, in metres and in one frame: surface, splats and posed pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.config import SurfaceCfg
from lyra_core.errors import InputError
from lyra_core.imports.base import MeshSource, Source
from lyra_core.imports.paint import color_at, has_color
from lyra_core.imports.upright import (
    EYE_HEIGHT,
    EYE_SIGMA,
    STATED_SIGMA,
    TYPICAL_SIZE,
    UNKNOWN_SIGMA,
    Scale,
    find_upright,
)
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.rays.surface import barycentric, texels
from lyra_core.surface.floor_fill import continued_floor
from lyra_core.surface.gravity import FloorPlane, face_geometry
from lyra_core.surface.lift import FusedSurface, Lifted, finish_mesh, finish_surface, fused_surface
from lyra_core.surface.sanitize import sanitize
from lyra_core.surface.scale import plausible_scale
from lyra_core.surface.simplify import simplify
from lyra_core.surface.topology import SMALLEST_PIECE
from lyra_core.types import Camera, CollisionPart, Frame, GaussianCloud, SurfaceMesh

MOST_TRIANGLES = 200_000
SWEEP_SIDE = 320
"""Long side at which pictures without depth are swept [px]."""
SPLAT_VIEWS = 48
"""Virtual cameras from which splats alone become a surface."""
USUAL_UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048}


@dataclass(frozen=True)
class Given:
    """What the user says about a source, in place of what is found."""

    metres_per_unit: float | None = None
    measured: float | None = None
    """A length in the imported world [m] ..."""
    true: float | None = None
    """... and what it really is [m]."""
    camera_height: float | None = None
    """Of the cameras above the floor [m]."""
    up: np.ndarray | None = None
    """(3,) in the frame of the files."""


@dataclass(frozen=True)
class Prepared:
    """A world in metres, z up, floor at 0, the reference view at x = y = 0 looking along +x."""

    mesh: SurfaceMesh
    parts: list[CollisionPart]
    cloud: GaussianCloud | None
    frames: list[Frame]
    reference: Frame
    """The picture that stands for the source: one of the frames, or a view of the mesh."""
    scale: Scale
    T_world_source: np.ndarray
    """(4, 4) similarity from the files' frame and unit into the world."""
    registration: dict[str, float]
    """How well frames, splats and mesh agree; ``*_m`` are medians of absolute depth differences [m]."""
    notes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(source: Source, *, given: Given, surface: SurfaceCfg, atlas_side: int,
            say: Callable[[str], None] = lambda text: None) -> Prepared:
    """Make of a source what the stages after it need.

    Raises:
        InputError: nothing that gives a surface.
    """
    notes: list[str] = list(source.notes)
    guess = _rough_scale(source, given)
    say("reading pictures")
    frames = [_scaled(frame, guess) for frame in source.frames]
    frames = _with_depth(source, frames, guess, notes, say)
    say("surface")
    raw = _raw_surface(source, frames, guess, surface, notes, say)
    poses = np.stack([frame.T_world_camera for frame in frames]) if frames else None
    up = given.up if given.up is not None else source.up
    floor, faces = find_upright(raw.vertices, raw.faces, up=up, T_world_camera=poses, downwards=source.kind == "splats")
    scale = _scale(source, given, guess, raw.vertices, faces, floor, poses)
    factor = scale.metres_per_unit / guess
    T = _similarity(floor, factor)
    reference, T = _placed(T, frames, raw.vertices, faces, factor)
    frames = [_moved(frame, T, factor) for frame in frames]
    aligned = raw.vertices @ T[:3, :3].T + T[:3, 3]
    say("texture")
    lifted = _finished(source, raw, aligned, faces, frames, T, guess, floor, factor, surface, atlas_side)
    T_world_source = T @ np.diag([guess, guess, guess, 1.0])
    cloud = _cloud(source, T_world_source)
    tracer = make_ray_tracer(lifted.mesh.vertices, lifted.mesh.faces)
    if reference is None:
        reference = view_of(lifted.mesh, _standing_camera(), from_yaw_pitch(np.array([0, 0, EYE_HEIGHT]), 0.0), tracer)
    else:
        reference = frames[reference]
    say("registration")
    return Prepared(lifted.mesh, lifted.parts, cloud, frames, reference, scale, T_world_source,
                    _registration(tracer, frames, cloud), tuple(dict.fromkeys([*notes, *lifted.notes, *floor.notes])),
                    dict(source.facts))


def _rough_scale(source: Source, given: Given) -> float:
    """Return a first factor into metres, so that every threshold in metres means something; refined once the floor is known."""
    if given.metres_per_unit is not None:
        return given.metres_per_unit
    if source.metres_per_unit is not None:
        return source.metres_per_unit
    if source.points is not None and len(source.frames):
        points, eyes = source.points, np.stack([frame.T_world_camera[:3, 3] for frame in source.frames])
        reach = float(np.median(np.linalg.norm(points - eyes.mean(0), axis=1)))
    elif source.mesh is not None:
        used = source.mesh.vertices[np.unique(source.mesh.faces)]
        reach = _reach(used[np.isfinite(used).all(1)])
    elif source.cloud is not None:
        reach = _reach(source.cloud.means)
    else:
        depth = np.concatenate([frame.depth[::8, ::8].ravel() for frame in source.frames])
        depth = depth[np.isfinite(depth)]
        reach = float(np.median(depth)) if len(depth) else 0.0
        if reach == 0.0:
            eyes = np.stack([frame.T_world_camera[:3, 3] for frame in source.frames])
            reach = _reach(eyes)
    if not (np.isfinite(reach) and reach > 0):
        raise InputError(f"{source.path}: all of it lies in one point; expected geometry with an extent")
    return TYPICAL_SIZE / reach


def _reach(points: np.ndarray) -> float:
    if not len(points):
        return 0.0
    away = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return float(np.median(away)) or float(away.max())


def _scaled(frame: Frame, factor: float) -> Frame:
    T = frame.T_world_camera.copy()
    T[:3, 3] *= factor
    return replace(frame, depth=(frame.depth * factor).astype(np.float32), T_world_camera=T)


def _with_depth(source: Source, frames: list[Frame], guess: float, notes: list[str], say: Callable[[str], None]) -> list[Frame]:
    """Give frames depth where they have none: from the splats of the same source, else by stereo."""
    if not frames or np.mean([np.isfinite(frame.depth).any() for frame in frames]) > 0.5 or source.mesh is not None:
        return frames
    if source.cloud is not None:
        from lyra_core.splats.depth import render_depth
        from lyra_core.splats.transform import transformed

        cloud = transformed(source.cloud, np.diag([guess, guess, guess, 1.0]))
        notes.append("The pictures' depth is that of the splats.")
        say("depth of the splats")
        return [_seen(frame, render_depth(cloud, frame.camera, frame.T_world_camera)[0]) for frame in frames]
    from lyra_core.depth.plane_sweep import sweep_depths

    say("depth by plane sweep")
    notes.append("The pictures have no depth; it was measured between them by plane-sweep stereo, so plain surfaces are missing.")
    return sweep_depths(frames, points=None if source.points is None else source.points * guess, long_side=SWEEP_SIDE)


def _seen(frame: Frame, depth: np.ndarray) -> Frame:
    return replace(frame, depth=depth.astype(np.float32), provenance=np.where(np.isfinite(depth), 0, 255).astype(np.uint8))


def _raw_surface(source: Source, frames: list[Frame], guess: float, cfg: SurfaceCfg, notes: list[str],
                 say: Callable[[str], None]) -> FusedSurface:
    """Return triangles in the source's frame, about in metres."""
    if source.mesh is not None:
        vertices, faces, report = sanitize(source.mesh.vertices * guess, source.mesh.faces)
        if not len(faces):
            raise InputError(f"{source.path}: no triangle is left of {len(source.mesh.faces)}; expected a surface")
        if not report.clean:
            found = {name: count for name, count in vars(report).items() if count}
            notes.append(f"Cleaned the mesh: {', '.join(f'{count} {name}' for name, count in found.items())}.")
        if len(faces) > MOST_TRIANGLES:
            simple = simplify(vertices, faces, max_faces=MOST_TRIANGLES)
            notes.append(f"Simplified from {len(faces)} to {len(simple.faces)} triangles; 99.9 % of the surface moved by less than "
                         f"{1000 * simple.error:.1f} mm.")
            vertices, faces, _ = sanitize(simple.vertices, simple.faces)
        return FusedSurface(vertices, faces, np.zeros((0, 3), np.uint8), ())
    if not frames:
        from lyra_core.splats.depth import clean_splats, views_from_splats
        from lyra_core.splats.transform import transformed

        assert source.cloud is not None
        say("views of the splats")
        cloud, note = clean_splats(transformed(source.cloud, np.diag([guess, guess, guess, 1.0])))
        if note:
            notes.append(note)
        notes.append("There are neither pictures nor triangles; the surface is where the splats are opaque.")
        frames = views_from_splats(cloud, count=SPLAT_VIEWS, size=(320, 240))
    fused = fused_surface(frames, cfg=cfg, max_triangles=MOST_TRIANGLES, min_area=SMALLEST_PIECE)
    notes += fused.notes
    return replace(fused, notes=())


def _scale(source: Source, given: Given, guess: float, vertices: np.ndarray, faces: np.ndarray, floor: FloorPlane,
           poses: np.ndarray | None) -> Scale:
    """Decide on metres per unit: the user's word, the format's, heights that are usual, or the height of held cameras."""
    if given.metres_per_unit is not None:
        found = Scale(given.metres_per_unit, STATED_SIGMA, True, "The user gave the unit.")
    elif source.metres_per_unit is not None:
        found = Scale(source.metres_per_unit, STATED_SIGMA, True, f"{source.unit_stated_by}.")
    else:
        found = _guessed_scale(guess, vertices, faces, floor, poses)
    above = None if poses is None else float(np.median(poses[:, :3, 3] @ floor.up) - floor.height) / guess
    if given.camera_height is not None:
        if above is None or above <= 0:
            raise InputError("camera height: got one, but there are no cameras above a floor; expected a length or the unit")
        found = Scale(given.camera_height / above, 0.05, True, f"The user says that the cameras were {given.camera_height} m high.")
    if given.measured is not None and given.true is not None:
        found = Scale(found.metres_per_unit * given.true / given.measured, 0.02, True,
                      f"The user says that what measured {given.measured} m is {given.true} m.")
    return found


def _guessed_scale(guess: float, vertices: np.ndarray, faces: np.ndarray, floor: FloorPlane, poses: np.ndarray | None) -> Scale:
    T = floor.T_aligned_world()
    local = vertices @ T[:3, :3].T + T[:3, 3]
    if poses is None:
        # Without cameras the files are likely to be in a usual unit; sizes of rooms, doors and tables tell which.
        factor, sigma, reasons = plausible_scale(local / guess, faces)
        if np.isfinite(sigma) and sigma < UNKNOWN_SIGMA:
            name, usual = min(USUAL_UNITS.items(), key=lambda item: abs(np.log(factor / item[1])))
            if abs(np.log(factor / usual)) < 2 * sigma + 0.02:
                return Scale(usual, min(sigma, 0.1), False, f"The unit is not stated; sizes say {name}. " + " ".join(reasons))
            return Scale(factor, sigma, False, "The unit is not stated. " + " ".join(reasons))
        return Scale(factor, UNKNOWN_SIGMA, False, "The unit is not stated and nothing of known size was found.")
    factor, sigma, reasons = plausible_scale(local, faces, arbitrary=True)
    above = float(np.median(poses[:, :3, 3] @ floor.up) - floor.height)
    if floor.area > 0 and above > 0:
        by_eye = EYE_HEIGHT / above
        useful = np.isfinite(sigma) and sigma < UNKNOWN_SIGMA
        weight = np.array([1 / EYE_SIGMA**2, 1 / max(sigma, EYE_SIGMA) ** 2 if useful else 0.0])
        mean = float(weight @ np.log([by_eye, max(factor, 1e-9)]) / weight.sum())
        return Scale(guess * float(np.exp(mean)), float(weight.sum() ** -0.5), False,
                     f"The scale is unknown: the pictures do not show it. As if cameras were held {EYE_HEIGHT} m high. "
                     + " ".join(reasons if weight[1] else []))
    return Scale(guess, UNKNOWN_SIGMA, False, "The scale is unknown: neither a floor nor anything of known size was found.")


def _similarity(floor: FloorPlane, factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1.0]) @ floor.T_aligned_world()


def _placed(T: np.ndarray, frames: Sequence[Frame], vertices: np.ndarray, faces: np.ndarray,
            factor: float) -> tuple[int | None, np.ndarray]:
    """Return the frame that stands for the source and T with its camera at x = y = 0, looking along +x; None = no frames."""
    if frames:
        # The frame that sees most, nearest to level: the photo's place in a world made from one.
        up = T[2, :3] / factor
        known = [np.isfinite(frame.depth).mean() - abs(float(up @ frame.T_world_camera[:3, 2])) for frame in frames]
        best = int(np.argmax(np.round(known, 3)))
        pose = frames[best].T_world_camera
        place, ahead = T[:3, :3] @ pose[:3, 3] + T[:3, 3], T[:3, :3] @ pose[:3, 2]
    else:
        best, (place, ahead) = None, _standing_place(vertices @ T[:3, :3].T + T[:3, 3], faces)
    yaw = float(np.arctan2(ahead[1], ahead[0])) if np.linalg.norm(ahead[:2]) > 1e-9 else 0.0
    c, s = np.cos(-yaw), np.sin(-yaw)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    shift = np.eye(4)
    shift[:2, 3] = -place[:2]
    return best, turn @ shift @ T


def _standing_place(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the place on the floor with most room around it, and the direction along the walls nearest to the longest view."""
    tracer = make_ray_tracer(vertices.astype(np.float32), faces)
    low, high = np.percentile(vertices[:, :2], [1, 99], axis=0)
    x, y = (np.linspace(low[i], high[i], 17)[1:-1] for i in (0, 1))
    places = np.stack([*(a.ravel() for a in np.meshgrid(x, y)), np.full(len(x) * len(y), EYE_HEIGHT)], 1)
    below = tracer.cast(places.astype(np.float32), np.tile([0.0, 0, -1], (len(places), 1))).t
    angle = np.arange(36) * np.pi / 18
    ways = np.stack([np.cos(angle), np.sin(angle), np.zeros(36)], 1)
    around = tracer.cast(np.repeat(places, 36, 0).astype(np.float32), np.tile(ways, (len(places), 1))).t.reshape(-1, 36)
    around = np.minimum(np.nan_to_num(around, posinf=20.0, nan=20.0), 20.0)
    score = np.where(np.abs(below - EYE_HEIGHT) < 0.1, around.min(1), -1.0)
    best = int(np.argmax(np.round(score, 3)))
    if score[best] < 0:
        return np.array([*(low + high) / 2, 0.0]), np.array([1.0, 0, 0])
    # Along the walls, so that a room lies straight in the map: they have four directions.
    normals, areas, _ = face_geometry(vertices, faces)
    upright = areas * (np.abs(normals[:, 2]) < 0.2)
    turn = 4 * np.arctan2(normals[:, 1], normals[:, 0])
    wall = np.arctan2((upright * np.sin(turn)).sum(), (upright * np.cos(turn)).sum()) / 4
    longest = angle[int(np.argmax(np.round(around[best], 3)))]
    yaw = wall + np.round((longest - wall) / (np.pi / 2)) * np.pi / 2
    return places[best], np.array([np.cos(yaw), np.sin(yaw), 0])


def _moved(frame: Frame, T: np.ndarray, factor: float) -> Frame:
    """Apply a similarity to a frame."""
    pose = frame.T_world_camera.copy()
    pose[:3, :3] = (T[:3, :3] / factor) @ pose[:3, :3]
    pose[:3, 3] = T[:3, :3] @ frame.T_world_camera[:3, 3] + T[:3, 3]
    return replace(frame, depth=(frame.depth * factor).astype(np.float32), T_world_camera=pose)


def _finished(source: Source, raw: FusedSurface, aligned: np.ndarray, faces: np.ndarray, frames: list[Frame], T: np.ndarray,
              guess: float, floor: FloorPlane, factor: float, cfg: SurfaceCfg, atlas_side: int) -> Lifted:
    noise = floor.noise * factor
    level = FloorPlane(np.array([0.0, 0, 1]), 0.0, noise, floor.area * factor**2, ())
    if source.mesh is None and frames:
        surface = _with_floor(FusedSurface(aligned.astype(np.float32), faces, raw.colors, ()), frames, floor.area > 0, noise)
        return finish_surface(surface, frames, tolerance=cfg.voxel * factor, atlas_side=atlas_side, align=False, floor=level)
    if source.mesh is not None:
        mesh: MeshSource = source.mesh
        placed = (mesh.vertices * guess) @ T[:3, :3].T + T[:3, 3]
        side = atlas_side if mesh.textures else min(atlas_side, 1024)
        if not has_color(mesh):
            notes = ("The file has no colours; surfaces are tinted by what they are.",)
            return finish_mesh(aligned, faces, None, noise=noise, atlas_side=side, notes=notes)
        return finish_mesh(aligned, faces, lambda points: color_at(mesh, placed, points), noise=noise, atlas_side=side)
    colors = raw.colors

    def nearest(points: np.ndarray) -> np.ndarray:
        from scipy.spatial import cKDTree

        return colors[cKDTree(aligned).query(points)[1]]

    return finish_mesh(aligned, faces, nearest, noise=noise, tolerance=cfg.voxel, atlas_side=min(atlas_side, 2048))


def _with_floor(surface: FusedSurface, frames: list[Frame], seen: bool, noise: float) -> FusedSurface:
    """Add the floor between what was seen of it."""
    eyes = np.stack([frame.T_world_camera[:3, 3] for frame in frames])
    band = max(4 * noise, 0.02)
    vertices, faces = continued_floor(surface.vertices, surface.faces, eyes, band=band) if seen else (np.zeros((0, 3)), ())
    if not len(faces):
        return surface
    on_floor = surface.colors[np.abs(surface.vertices[:, 2]) < band]
    color = np.median(on_floor, axis=0) if len(on_floor) else np.full(3, 128)
    return FusedSurface(
        np.concatenate([surface.vertices, vertices]).astype(np.float32),
        np.concatenate([surface.faces, np.asarray(faces) + len(surface.vertices)]).astype(np.int32),
        np.concatenate([surface.colors, np.tile(color, (len(vertices), 1))]).astype(np.uint8),
        (*surface.notes, f"{len(faces) // 2 * 0.01:.1f} m2 of floor were continued between what was seen of it."),
        np.arange(len(surface.faces) + len(faces)) >= len(surface.faces))


def _cloud(source: Source, T_world_source: np.ndarray) -> GaussianCloud | None:
    if source.cloud is None:
        return None
    from lyra_core.splats.transform import transformed

    return transformed(source.cloud, T_world_source)


def _standing_camera() -> Camera:
    return Camera.from_focal(416.0, 832, 480)


def view_of(mesh: SurfaceMesh, camera: Camera, T_world_camera: np.ndarray, tracer: Any = None) -> Frame:
    """Render a textured mesh: nearest texel, no light."""
    tracer = tracer or make_ray_tracer(mesh.vertices, mesh.faces)
    hits = cast_camera(tracer, camera, T_world_camera)
    hit = hits.face >= 0
    face = hits.face[hit]
    rays = camera.rays().reshape(-1, 3)[hit]
    point = (rays * hits.t[hit, None]) @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    rgb, provenance = np.full((len(hit), 3), 24, np.uint8), np.full(len(hit), 255, np.uint8)
    rgb[hit] = texels(mesh, face, barycentric(mesh.vertices[mesh.faces[face]].astype(float), point))
    provenance[hit] = mesh.face_provenance[face]
    size = (camera.height, camera.width)
    depth = np.where(hit, hits.t, np.nan).astype(np.float32)
    return Frame(rgb.reshape(*size, 3), depth.reshape(size), camera, T_world_camera, provenance.reshape(size))


def _registration(tracer: Any, frames: list[Frame], cloud: GaussianCloud | None) -> dict[str, float]:
    """Compare the mesh with what the frames and the splats say, from the frames' cameras or from a few places."""
    out: dict[str, float] = {}
    some = frames[:: max(1, len(frames) // 8)][:8]
    errors = [np.abs(cast_camera(tracer, f.camera, f.T_world_camera).t.reshape(f.depth.shape) - f.depth) for f in some]
    gaps = np.concatenate([e[np.isfinite(e)] for e in errors]) if errors else np.zeros(0)
    if len(gaps):
        out["frames_to_mesh_m"] = float(np.median(gaps))
    if cloud is not None:
        from lyra_core.splats.depth import render_depth

        small = Camera.from_focal(120.0, 240, 180)
        views = [(f.camera.resized(240, max(1, round(240 * f.camera.height / f.camera.width))), f.T_world_camera) for f in some[:4]]
        views = views or [(small, from_yaw_pitch(np.array([0, 0, EYE_HEIGHT]), yaw)) for yaw in (0.0, 1.57, 3.14, 4.71)]
        gaps = []
        for camera, T in views:
            depth = render_depth(cloud, camera, T)[0]
            e = np.abs(cast_camera(tracer, camera, T).t.reshape(depth.shape) - depth)
            gaps.append(e[np.isfinite(e)])
        gaps = np.concatenate(gaps)
        if len(gaps):
            out["splats_to_mesh_m"] = float(np.median(gaps))
    return {name: round(value, 5) for name, value in out.items()}
