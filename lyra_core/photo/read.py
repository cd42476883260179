"""Read a photo: camera, sky, floor, obstacles and the kind of place."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from lyra_core.camera.backdrop import column_centres, down_limits, fit_backdrop, floor_edge
from lyra_core.camera.room_box import room_wall
from lyra_core.camera.upright import UprightRays, rotation_from_down, upright_rays
from lyra_core.config import PhotoCfg
from lyra_core.io.images import resized
from lyra_core.photo.camera import CameraPose, Horizon, as_if_centred, classify_segments, find_camera, with_horizon
from lyra_core.photo.clutter import lying_flat
from lyra_core.photo.floor import HORIZON_SINK, Floor, find_floor
from lyra_core.photo.fuse import fused_labels, with_said_floor
from lyra_core.photo.lines import MIN_SEGMENTS, Segments, detect_segments, draw_segments
from lyra_core.photo.obstacles import find_obstacles, stand_in_room
from lyra_core.photo.prior import Prior, read_prior
from lyra_core.photo.room import fit_room, level_view, sampled
from lyra_core.photo.rugs import find_rug
from lyra_core.photo.scene import scene_odds, straight_border
from lyra_core.photo.sky import Sky, find_sky
from lyra_core.photo.superpixels import compute_superpixels
from lyra_core.photo.tone import even_exposure, without_frame
from lyra_core.types import Camera, Label, Photo, PhotoReading

USUAL_HEIGHT, _AROUND = 1.5, 0.5
"""At which people hold a camera [m], and a wide sigma of its logarithm for all cameras: what is weighed against what is seen."""
_HEIGHT_SIGMA = {"user": 0.03, "usual": 0.2}
"""Relative error of a camera height that the user says, and of the usual one."""
_OF_LAPLACE, _LEAST_SIGMA = 1.3, 0.06
"""Sigma whose 68 and 95 % intervals come nearest to those of a Laplace distribution of scale 1; and the least that is said."""
_FOCAL_SIGMA = {"exif": 0.03, "user": 0.03, "none": 0.2}


def read_photo(photo: Photo, cfg: PhotoCfg, *, size: int) -> PhotoReading:
    """Return what one photo says about its camera and its regions.

    The world frame has gravity along -z, x along the horizontal projection of the optical axis, and its origin on the floor
    below the camera. The same photo and settings give the same bytes.

    Args:
        size: long side at which the photo is read [px]; a smaller photo is enlarged.
    """
    rgb = even_exposure(without_frame(working_picture(photo, size)))
    height, width = rgb.shape[:2]
    segments = detect_segments(rgb)
    pose, camera, centred = _find_camera(photo, segments, width, height, cfg)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = rotation_from_down(pose.down_camera())
    rays = upright_rays(camera, T_world_camera)

    regions = compute_superpixels(rgb)
    prior = read_prior(rgb, camera, T_world_camera) if cfg.prior == "auto" else None
    camera_height, height_sigma = _camera_height(cfg, prior)
    T_world_camera[2, 3] = camera_height
    sky = find_sky(regions, rays)
    upright, level = classify_segments(centred, pose, width, height)
    upright_edges, level_edges = (draw_segments(segments, chosen, width, height) for chosen in (upright, level))
    odds = scene_odds(regions, rays, sky, straight_border(sky.mask, level_edges)) if prior is None else prior.outdoors
    scene_kind = cfg.scene if cfg.scene != "auto" else "outdoor" if odds > 0 else "indoor"
    sky_mask = sky.mask if scene_kind == "outdoor" else np.zeros_like(sky.mask)
    floor = find_floor(regions, rays, sky_mask, upright_edges)
    if photo.floor_mask is not None:
        floor = replace(floor, mask=_said_floor(photo.floor_mask, rays, width, height), separation=1.0)
    right = column_centres(rays)
    edge = floor_edge(floor.mask, np.zeros_like(floor.mask), rays, right)
    wall = fit_backdrop(edge, pose.yaw, **down_limits(scene_kind, camera_height))
    view = level_view(rgb, camera, T_world_camera, right)
    fit = fit_room(view, edge, wall, pose.yaw, camera_height) if scene_kind == "indoor" else None
    room = fit.room if fit is not None and fit.accepted else None
    if room is None:
        obstacles = find_obstacles(regions, rays, floor.mask, sky_mask, wall, right, scene_kind=scene_kind,
                                   camera_height=camera_height)
    else:
        rug = find_rug(view, sampled(floor.mask, view, camera, T_world_camera), room, camera_height)
        on_rug = np.zeros_like(floor.mask) if rug is None else rug.contains(rays, camera_height)
        foot = np.interp(np.nan_to_num(rays.right), right, room_wall(room, right, camera_height))
        if photo.floor_mask is None:
            flat, standing = lying_flat(regions, rays, floor.mask, foot, upright_edges, level_edges, on_rug)
        else:
            in_front = np.where(np.isfinite(rays.down), rays.down > foot, rays.sink > 0)
            flat, standing = floor.mask, in_front & ~floor.mask
        floor = replace(floor, mask=flat)
        obstacles = stand_in_room(regions, rays, flat, standing, foot, camera_height)

    labels = np.full((height, width), Label.WALL, np.uint8)
    labels[floor.mask], labels[sky_mask], labels[obstacles] = Label.FLOOR, Label.SKY, Label.OBSTACLE
    if prior is not None:
        labels = fused_labels(labels, prior, regions, rays, outdoor=scene_kind == "outdoor", in_room=room is not None)
        if photo.floor_mask is not None:
            labels = with_said_floor(labels, floor.mask)
        floor = replace(floor, mask=labels == Label.FLOOR)
    confidence = _confidence(pose, floor, rays, camera_height)
    sigma = float(np.hypot(height_sigma, _FOCAL_SIGMA[photo.focal_source]))
    notes = _notes(photo, cfg, pose, floor, sky, len(segments.ends), scene_kind, odds)
    return PhotoReading(camera, T_world_camera, labels, scene_kind, segments.ends, confidence, sigma, notes, room,
                        None if prior is None else prior.depth)


def _camera_height(cfg: PhotoCfg, prior: Prior | None) -> tuple[float, float]:
    """Return the camera's height above the floor [m] and its relative error."""
    if cfg.camera_height is not None:
        return cfg.camera_height, _HEIGHT_SIGMA["user"]
    if prior is None:
        return USUAL_HEIGHT, _HEIGHT_SIGMA["usual"]
    seen, around = max(_OF_LAPLACE * prior.height_sigma, _LEAST_SIGMA) ** -2, _AROUND**-2
    log_height = (seen * np.log(prior.camera_height) + around * np.log(USUAL_HEIGHT)) / (seen + around)
    return float(np.exp(log_height)), float((seen + around) ** -0.5)


def _find_camera(photo: Photo, segments: Segments, width: int, height: int,
                 cfg: PhotoCfg) -> tuple[CameraPose, Camera, Segments]:
    """Return pose and camera of the picture, with the segments as a camera with a centred principal point would see them."""
    focal = None if photo.focal_px is None else photo.focal_px / max(photo.rgb.shape[:2])
    long_side = max(width, height)
    centred = segments if photo.intrinsics is None else as_if_centred(segments, photo.camera(0.0, width, height))
    pose = find_camera(centred, width, height, focal=focal)
    camera = photo.camera(pose.focal * long_side, width, height)
    if cfg.horizon is not None:
        pose = with_horizon(pose, Horizon.parse(cfg.horizon), centred, camera, focal=focal)
        camera = photo.camera(pose.focal * long_side, width, height)
    return pose, camera, centred


def _said_floor(mask: np.ndarray, rays: UprightRays, width: int, height: int) -> np.ndarray:
    """Return (height, width) bool: the user's floor, as far as it lies below the horizon."""
    shown = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    return (shown > 0) & (rays.sink > HORIZON_SINK)


def working_picture(photo: Photo, size: int) -> np.ndarray:
    """Return the photo (h, w, 3) uint8 with its long side resampled to ``size``."""
    height, width = photo.rgb.shape[:2]
    scale = size / max(height, width)
    return resized(photo.rgb, max(8, round(width * scale)), max(8, round(height * scale)))


def _confidence(pose: CameraPose, floor: Floor, rays: UprightRays, camera_height: float) -> dict[str, float]:
    """Return the numbers that say how far the layout can be trusted; overall is their geometric mean."""
    area = visible_floor_area(floor.mask, rays, camera_height)
    seen = float(np.clip(area / 12.0, 0.0, 1.0))
    overall = 0.9 * (max(pose.line_support, 0.02) * max(floor.separation, 0.02) * max(seen, 0.02)) ** (1 / 3)
    values = {"line_support": pose.line_support, "floor_separation": floor.separation, "visible_floor_m2": area, "overall": overall}
    return {name: round(float(value), 4) for name, value in values.items()}


def visible_floor_area(floor: np.ndarray, rays: UprightRays, camera_height: float, *, reach: float = 12.0) -> float:
    """Return the area [m2] of floor seen within ``reach`` metres ahead, counted in 0.2 m cells."""
    ahead = camera_height / np.where(floor & (rays.down > 0), rays.down, np.nan)
    near = np.isfinite(ahead) & (ahead < reach)
    grid = np.zeros((128, 256), np.uint8)
    row = np.clip(ahead[near] / 0.2, 0, 127).astype(int)
    col = np.clip(ahead[near] * rays.right[near] / 0.2 + 128, 0, 255).astype(int)
    grid[row, col] = 1
    return float(cv2.morphologyEx(grid, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).sum() * 0.04)


def _notes(photo: Photo, cfg: PhotoCfg, pose: CameraPose, floor: Floor, sky: Sky, segments: int, scene_kind: str,
           odds: float) -> tuple[str, ...]:
    notes = []
    if photo.focal_source == "none" and pose.from_lines:
        notes.append(f"The focal length ({pose.focal:.2f} of the long side) is estimated from lines; the file does not tell it.")
    if not pose.from_lines:
        notes.append(f"Only {segments} straight lines were found (at least {MIN_SEGMENTS} are needed): "
                     "the camera's tilt is a guess" + (" and so is its focal length." if photo.focal_source == "none" else "."))
    elif pose.line_support < 0.35:
        notes.append("Few lines agree on vertical and horizontal directions: the horizon may be off by several degrees.")
    if cfg.scene == "auto":
        sure = "clearly" if abs(odds) > 2 else "probably"
        seen = f"{100 * sky.share:.0f} % of the picture looks like sky"
        notes.append(f"The place is {sure} {scene_kind}: {seen}.")
    if not floor.mask.any():
        notes.append("No floor was found in the picture: the layout is prior only.")
    elif floor.separation < 0.4:
        notes.append("Floor and surroundings look alike: the border of the floor is uncertain.")
    return tuple(notes)
