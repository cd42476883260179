"""Pictures with depth that the photo reader has not seen: what a world built from the picture alone is measured against."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.files import sha256_file
from lyra_core.types import Camera, Photo
from tests.benchmarks.sequences import LIVINGROOM_SOURCES, read_rgb

NEAREST, FARTHEST = 0.2, 80.0
"""Depth outside is no measurement [m]."""
LIVINGROOM = "sequences/livingroom1_synthetic"
QUICK = {"real": 4, "scan": 3, "procedural": 12}
"""Cases per table with --quick."""


@dataclass(frozen=True)
class ExactPlace:
    """What is known of a rendered place beyond its depth."""

    up: np.ndarray
    """(3,) unit vector in camera axes."""
    height: float
    """Of the camera above the ground below it [m]."""
    floor: np.ndarray | None = None
    """(H, W) bool: the surface is floor; None = to be told from depth."""
    ground: np.ndarray | None = None
    """(cells ahead, cells to the left) float32 height of the ground in the cells of the top-down grid [m], NaN = none."""
    blocked: np.ndarray | None = None
    """(cells ahead, cells to the left) bool: something stands over a part of the cell, seen or not; True without floor."""


@dataclass(frozen=True)
class Case:
    """One photo, its true depth and what is known of its camera."""

    name: str
    table: str
    """'real', 'scan' or 'procedural'."""
    kind: str
    """Kind of place."""
    photo: Photo
    """Its focal length is set where the photo comes with it."""
    camera: Camera
    """True camera of the depth image."""
    depth: np.ndarray
    """(H, W) float32 z-depth [m], NaN = unknown or sky."""
    depth_file: Path
    """Depth as a user would give it."""
    place: ExactPlace | None = None
    """None = measured: the floor is to be found in the depth."""


def real_names(data: Path) -> list[str]:
    """Return the names of the real pictures that stand below a data folder; empty where there are none."""
    singles = sorted(path.name[:-8] for path in (data / "rgbd").glob("*_rgb.jpg"))
    frames = json.loads((data / LIVINGROOM / "cameras.json").read_text(encoding="utf-8"))["frames"] if (
        data / LIVINGROOM / "cameras.json").exists() else []
    return singles + [f"livingroom1_{frames[i]['rgb'][:5]}" for i in LIVINGROOM_SOURCES if i < len(frames)]


def real_case(data: Path, name: str) -> Case:
    """Read a real picture with its depth.

    Raises:
        InputError: the depth is not aligned with the picture or has another shape.
    """
    if name.startswith("livingroom1_"):
        stem = data / LIVINGROOM / name.split("_")[1]
        # This sequence counts pixel centres from 0.
        return _read_case(name, "living_room", stem, (525.0, 525.0, 320.0, 240.0))
    stem = data / "rgbd" / name
    meta = json.loads((stem.parent / f"{name}.json").read_text(encoding="utf-8"))
    if "not registered" in meta.get("note", "") or not meta.get("K"):
        raise InputError(f"{name}.json: got depth that is not aligned with the picture or no K, expected both")
    k = meta["K"]
    return _read_case(name, name.split("_", 1)[1], stem, (k["fx"], abs(k["fy"]), k["cx"], k["cy"]))


def _read_case(name: str, kind: str, stem: Path, K: tuple[float, float, float, float]) -> Case:
    rgb_file, depth_file = (stem.parent / f"{stem.name}{end}" for end in ("_rgb.jpg", "_depth.png"))
    rgb, millimetres = read_rgb(rgb_file), cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
    if millimetres is None or millimetres.dtype != np.uint16:
        raise InputError(f"{depth_file}: not a 16-bit depth picture")
    (h, w), (height, width) = rgb.shape[:2], millimetres.shape
    if abs(np.log(width / height * h / w)) > 0.01:
        raise InputError(f"{depth_file}: got {width}x{height} px, expected the shape of the picture, {w}x{h} px")
    fx, fy, cx, cy = K
    camera = Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), w, h).resized(width, height)
    photo = Photo(rgb, sha256_file(rgb_file), rgb_file.name, focal_px=float(np.sqrt(fx * fy)), focal_source="user")
    return Case(name, "real", kind, photo, camera, known_depth(millimetres / 1000.0), depth_file)


def known_depth(depth: np.ndarray) -> np.ndarray:
    """Return depth as float32, NaN where it is no measurement."""
    depth = np.asarray(depth, np.float64)
    return np.where((depth > NEAREST) & (depth < FARTHEST), depth, np.nan).astype(np.float32)
