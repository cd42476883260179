"""Files between stages (folder build/) and frames: what a resumed build reads instead of computing again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import WorldError
from lyra_core.generate.base import ExplicitWorld
from lyra_core.io.files import read_json, read_npz, write_json, write_npz
from lyra_core.io.images import read_depth, read_image, write_depth, write_image
from lyra_core.io.meshes import load_collision_parts, load_surface_mesh, save_collision_parts, save_surface_mesh
from lyra_core.types import Camera, DepthEstimate, Frame, Photo, PhotoReading, Trajectory

FLOOR_MASK = "build/floor_mask.png"
PHOTO, READING, ESTIMATE, NOTES = "photo.png", "build/reading.npz", "build/estimate.npz", "build/notes.json"
DRAWN = "build/variation.json"
LAYOUT_FILES = ("build/layout.npz", "build/layout.glb", "build/places.npz")


def save_photo(folder: Path, photo: Photo) -> list[str]:
    """Write photo.png and its facts."""
    write_image(folder / PHOTO, photo.rgb)
    facts = {
        "name": photo.name,
        "sha256": photo.sha256,
        "focal_px": photo.focal_px,
        "focal_source": photo.focal_source,
        "licence": photo.licence,
        "intrinsics": None if photo.intrinsics is None else list(photo.intrinsics),
        "orientation": photo.orientation,
        "floor_mask": photo.floor_mask is not None,
    }
    write_json(folder / "build/photo.json", facts)
    if photo.floor_mask is None:
        return [PHOTO, "build/photo.json"]
    write_image(folder / FLOOR_MASK, photo.floor_mask.astype(np.uint8) * 255)
    return [PHOTO, "build/photo.json", FLOOR_MASK]


def load_photo_files(folder: Path) -> Photo:
    """Read what save_photo wrote."""
    facts = read_json(folder / "build/photo.json")
    intrinsics, masked = facts.pop("intrinsics", None), facts.pop("floor_mask", False)
    mask = read_image(folder / FLOOR_MASK)[..., 0] > 127 if masked else None
    return Photo(read_image(folder / PHOTO), **facts, intrinsics=tuple(intrinsics) if intrinsics else None, floor_mask=mask)


def save_estimate(folder: Path, reading: PhotoReading, estimate: DepthEstimate) -> list[str]:
    """Write reading and depth of the photo."""
    write_npz(
        folder / READING,
        **_camera_arrays(reading.camera),
        T_world_camera=reading.T_world_camera,
        labels=reading.labels,
        lines=reading.lines,
    )
    write_npz(
        folder / ESTIMATE,
        **_camera_arrays(estimate.camera),
        T_world_camera=estimate.T_world_camera,
        labels=estimate.labels,
        depth=estimate.depth,
        **({} if estimate.measured is None else {"measured": estimate.measured}),
    )
    write_json(
        folder / NOTES,
        {
            "reading": {
                "scene_kind": reading.scene_kind,
                "confidence": {k: float(v) for k, v in reading.confidence.items()},
                "scale_sigma": float(reading.scale_sigma),
                "notes": list(reading.notes),
            },
            "estimate": {
                "ceiling_height": None if estimate.ceiling_height is None else float(estimate.ceiling_height),
                "source": estimate.source,
                "scale_sigma": float(estimate.scale_sigma),
                "notes": list(estimate.notes),
            },
        },
    )
    return [READING, ESTIMATE, NOTES]


def load_estimate(folder: Path) -> tuple[PhotoReading, DepthEstimate]:
    """Read what save_estimate wrote."""
    notes, a, b = read_json(folder / NOTES), read_npz(folder / READING), read_npz(folder / ESTIMATE)
    said = notes["reading"]
    reading = PhotoReading(
        _camera(a),
        a["T_world_camera"],
        a["labels"],
        said["scene_kind"],
        a["lines"],
        said["confidence"],
        said["scale_sigma"],
        tuple(said["notes"]),
    )
    said = notes["estimate"]
    estimate = DepthEstimate(
        b["depth"],
        b["labels"],
        _camera(b),
        b["T_world_camera"],
        said["ceiling_height"],
        said["source"],
        said["scale_sigma"],
        tuple(said["notes"]),
        b.get("measured"),
    )
    return reading, estimate


def _camera_arrays(camera: Camera) -> dict[str, np.ndarray]:
    return {"K": camera.K, "size": np.array([camera.width, camera.height])}


def _camera(arrays: dict[str, np.ndarray]) -> Camera:
    return Camera(arrays["K"], int(arrays["size"][0]), int(arrays["size"][1]))


def save_layout(folder: Path, layout: ExplicitWorld, *, drawn: dict[str, Any] | None = None) -> list[str]:
    """Write an explicit world, and of a variation what was drawn for it."""
    mesh, parts, places = (folder / name for name in LAYOUT_FILES)
    save_surface_mesh(mesh, layout.mesh)
    save_collision_parts(parts, layout.parts)
    write_npz(places, places=layout.places)
    if drawn is None:
        return list(LAYOUT_FILES)
    write_json(folder / DRAWN, drawn)
    return [*LAYOUT_FILES, DRAWN]


def load_drawn(folder: Path) -> dict[str, Any]:
    """Read what was drawn for a variation; empty for a plain world."""
    return read_json(folder / DRAWN) if (folder / DRAWN).is_file() else {}


def load_layout(folder: Path) -> ExplicitWorld:
    """Read what save_layout wrote."""
    mesh, parts, places = (folder / name for name in LAYOUT_FILES)
    return ExplicitWorld(load_surface_mesh(mesh), load_collision_parts(parts), read_npz(places, "places")["places"])


def save_frame(folder: Path, frame_id: int, frame: Frame) -> list[str]:
    """Write one frame as three pictures."""
    names = frame_files(frame_id)
    write_image(folder / names[0], frame.rgb)
    write_depth(folder / names[1], frame.depth)
    write_image(folder / names[2], frame.provenance)
    return names


def frame_files(frame_id: int) -> list[str]:
    """Names of a frame's colour, depth and provenance pictures."""
    return [f"frames/{frame_id:05d}.png", f"depth/{frame_id:05d}.png", f"build/provenance/{frame_id:05d}.png"]


def load_frame(folder: Path, frame_id: int, trajectory: Trajectory) -> Frame:
    """Read one frame back, as the loop handed it out."""
    import cv2

    rgb, depth, provenance = (folder / name for name in frame_files(frame_id))
    labels = cv2.imread(str(provenance), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise WorldError(f"{provenance}: missing or not an image")
    return Frame(read_image(rgb), read_depth(depth), trajectory.camera(frame_id), trajectory.T_world_camera[frame_id], labels)
