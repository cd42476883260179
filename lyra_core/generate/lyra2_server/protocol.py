"""Messages of the official Lyra 2.0 inference server, and our poses and pictures in its terms.

A message is JSON: ``{"type": NAME, "fields": {...}}``. Arrays travel as dtype, shape and base64 of their bytes, bytes as base64,
enumerations by name and value, each marked by the key ``__lyra2_type__``. Only the type that is
expected is read, and of it only the fields named here: nothing that a server sends is ever executed.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.errors import InputError, ServerError
from lyra_core.io.images import resized
from lyra_core.types import DepthEstimate, Label, Photo, Trajectory

MEDIA_TYPE = "application/vnd.lyra2.api+json"
FRAMES_PER_SECOND = 16.0
"""The model's own rate."""
SKY_DISTANCE = 200.0
"""Depth sent for the sky [m]: as far as the server's own depth model puts it, so that it is warped too."""
MARK = "__lyra2_type__"
NUMBERS = "biuf"
"""Kinds of numpy types that are read: booleans, integers, floats."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """What every message about views carries. The world is whatever the client calls so, here the photo's camera frame."""

    request_id: str
    cameras_to_world: np.ndarray
    """(n, 3, 4) OpenCV cameras [m]."""
    focal_lengths: np.ndarray
    """(n, 2) horizontal and vertical [px of resolutions]."""
    principal_points: np.ndarray
    """(n, 2) as a fraction of width and height."""
    resolutions: np.ndarray
    """(n, 2) width, height [px]."""
    frame_count_without_padding: int | None = None

    def __post_init__(self) -> None:
        n = len(self.cameras_to_world)
        for name, shape in (("cameras_to_world", (n, 3, 4)), ("focal_lengths", (n, 2)), ("principal_points", (n, 2)),
                            ("resolutions", (n, 2))):
            require_shape(self, name, shape)


@dataclass(frozen=True, kw_only=True)
class SeedingRequest(Cameras):
    """The picture that a session starts from."""

    images: np.ndarray
    """(1, h, w, 3) float32 in [0, 1]."""
    depths: np.ndarray
    """(1, h, w) float32 z-depth [m]; 0 = unknown."""
    masks: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class SeedingResult(Cameras):
    """The camera and depth that the server took."""

    depths: np.ndarray | None = None
    """(1, h, w)."""
    masks: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceRequest(Cameras):
    """The cameras of one chunk."""

    timestamps: np.ndarray
    """(n,) [s]."""
    framerate: float = FRAMES_PER_SECOND
    return_depths: bool = False
    video_encoding_quality: int = 8
    show_cache_renderings: bool = False
    region_hint: str = ""
    """What newly seen places should hold; the server's captioner works it into its caption."""


@dataclass(frozen=True, kw_only=True)
class CompressedInferenceResult(Cameras):
    """A finished chunk; of the fields on the wire, those that are used here."""

    images_compressed: list[bytes]
    """One H.264 file."""
    images_format: str
    """'mp4'."""
    runtime_ms: float
    predicted_depths: np.ndarray | None = None
    """(k, h, w) z-depth of the frames of predicted_depth_indices, usually the last one."""
    predicted_depth_indices: np.ndarray | None = None
    updated_last_camera_c2w: np.ndarray | None = None
    """(4, 4): where the server thinks the last frame's camera is; after the first chunk only, unless switched off there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predicted_depths is not None:
            require_shape(self, "predicted_depths", (len(self.predicted_depths), *self.resolutions[0, ::-1].tolist()))
        if self.updated_last_camera_c2w is not None:
            require_shape(self, "updated_last_camera_c2w", (4, 4))


@dataclass(frozen=True, kw_only=True)
class RevertResult:
    """Whether the last generation was taken back."""

    success: bool
    message: str


M = TypeVar("M")


def require_shape(message: Any, name: str, shape: tuple[int, ...]) -> None:
    """Require a field to be an array of this shape with finite numbers, but for depth."""
    value = getattr(message, name)
    kind = type(message).__name__
    if not isinstance(value, np.ndarray) or value.shape != shape:
        got = f"shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ServerError(f"{kind}: {name}: got {got}, expected an array of shape {shape}")
    if "depth" not in name and not np.isfinite(value).all():
        raise ServerError(f"{kind}: {name}: got NaN or infinite numbers")


def encode(message: Any) -> bytes:
    """Return a message as the server reads it."""
    values = {f.name: _encoded(getattr(message, f.name)) for f in dataclasses.fields(message)}
    return json.dumps({"type": type(message).__name__, "fields": values}, separators=(",", ":"), allow_nan=False).encode()


def decode(data: bytes, kind: type[M]) -> M:
    """Read a message of the expected kind. Fields of newer servers are ignored without being decoded.

    Raises:
        ServerError: not such a message, a field is missing or of the wrong type, or an array is damaged.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{kind.__name__}: not readable as JSON: {error}") from error
    found = message.get("type") if isinstance(message, dict) else None
    fields = message.get("fields") if isinstance(message, dict) else None
    if found != kind.__name__ or not isinstance(fields, dict):
        raise ServerError(f"message: got type {found!r}, expected {kind.__name__!r} with fields")
    known = {f.name: f for f in dataclasses.fields(cast(Any, kind))}
    missing = [name for name, f in known.items() if f.default is dataclasses.MISSING and name not in fields]
    if missing:
        raise ServerError(f"{kind.__name__}: missing {', '.join(missing)}")
    values = {name: _decoded(fields[name], f"{kind.__name__}: {name}") for name in known if name in fields}
    for name, value in values.items():
        _check_type(value, str(known[name].type), f"{kind.__name__}: {name}")
    return kind(**values)


def _check_type(value: Any, annotation: str, where: str) -> None:
    kinds = {"np.ndarray": np.ndarray, "str": str, "int": int, "float": (float, int), "bool": bool, "None": type(None),
             "list[bytes]": list}  # fmt: skip
    if not any(isinstance(value, kinds[name]) for name in annotation.split(" | ")):
        raise ServerError(f"{where}: got {type(value).__name__}, expected {annotation}")
    if annotation == "list[bytes]" and not all(isinstance(item, bytes) for item in value):
        raise ServerError(f"{where}: expected a list of bytes")


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {MARK: "ndarray", "dtype": value.dtype.str, "shape": list(value.shape), "value": data}
    return value


def _decoded(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_decoded(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    kind, data = value.get(MARK), value.get("value")
    if kind == "enum" and isinstance(data, str):
        return data
    if kind not in ("ndarray", "bytes") or not isinstance(data, str):
        raise ServerError(f"{where}: got an object marked {kind!r}, expected 'ndarray', 'bytes' or 'enum'")
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServerError(f"{where}: not readable as base64: {error}") from error
    return raw if kind == "bytes" else _array(raw, value.get("dtype"), value.get("shape"), where)


def _array(raw: bytes, dtype: Any, shape: Any, where: str) -> np.ndarray:
    try:
        kind = np.dtype(dtype) if isinstance(dtype, str) else None
    except TypeError:
        kind = None
    if kind is None or kind.kind not in NUMBERS:
        raise ServerError(f"{where}: dtype: got {dtype!r}, expected booleans, integers or floats")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ServerError(f"{where}: shape: got {shape!r}, expected a list of sizes")
    if math.prod(shape) * kind.itemsize != len(raw):
        raise ServerError(f"{where}: got {len(raw)} bytes, expected {math.prod(shape) * kind.itemsize} for {kind} {shape}")
    return np.frombuffer(raw, kind).reshape(shape)


def cameras_for_server(trajectory: Trajectory, T_world_seed: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Return cameras as message fields: the world becomes the seed camera's frame (metres stay), pictures get size (width, height).

    Width and height are scaled on their own, as the server does it with a picture of another shape; the intrinsics say so.
    """
    if np.any(trajectory.K[:, [0, 1], [1, 0]]):
        raise InputError("trajectory: intrinsics: got skew, which the Lyra 2.0 server cannot take; expected none")
    n = len(trajectory)
    scale = np.array(size) / (trajectory.width, trajectory.height)
    return {
        "cameras_to_world": (inverse(T_world_seed) @ trajectory.T_world_camera)[:, :3],
        "focal_lengths": trajectory.K[:, [0, 1], [0, 1]] * scale,
        "principal_points": trajectory.K[:, :2, 2] / (trajectory.width, trajectory.height),
        "resolutions": np.tile(np.array(size, np.int32), (n, 1)),
    }


def chunk_message(
    request_id: str, first: int, cameras: Trajectory, prompt: str, T_world_seed: np.ndarray, size: tuple[int, int]
) -> InferenceRequest:
    """Return the request for a chunk whose first frame has the id ``first``."""
    times = (first + np.arange(len(cameras))) / FRAMES_PER_SECOND
    fields = cameras_for_server(cameras, T_world_seed, size)
    return InferenceRequest(request_id=request_id, timestamps=times, region_hint=prompt, **fields)


def same_cameras(a: Cameras, b: Cameras) -> bool:
    """True if two messages are about the same cameras, but for the last pose, which the server may have corrected."""
    if len(a.cameras_to_world) != len(b.cameras_to_world):
        return False
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("cameras_to_world", "focal_lengths", "principal_points")]
    pairs[0] = (pairs[0][0][:-1], pairs[0][1][:-1])
    return all(np.allclose(x, y, rtol=1e-6, atol=1e-6) for x, y in pairs)


def pose_from_server(c2w: np.ndarray, T_world_seed: np.ndarray) -> np.ndarray:
    """Return T_world_camera (4, 4) of a server's camera (3, 4) or (4, 4)."""
    T_seed_camera = np.vstack([c2w[:3], [0.0, 0.0, 0.0, 1.0]])
    return T_world_seed @ T_seed_camera


def seed_message(
    request_id: str, photo: Photo, estimate: DepthEstimate, camera: Trajectory, size: tuple[int, int]
) -> SeedingRequest:
    """Return the photo with its depth at the server's size; camera: frame 0.

    Our depth is sent along, so that the server's world has our metres and our focal length, not its own guess of both.
    """
    width, height = size
    depth = cv2.resize(estimate.depth, size, interpolation=cv2.INTER_NEAREST)
    labels = cv2.resize(estimate.labels, size, interpolation=cv2.INTER_NEAREST)
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        raise InputError("depth: got none for the whole photo; the Lyra 2.0 server needs it")
    depth = np.where(known, depth, np.where(labels == Label.SKY, SKY_DISTANCE, 0.0)).astype(np.float32)
    return SeedingRequest(
        request_id=request_id,
        images=resized(photo.rgb, width, height)[None].astype(np.float32) / 255,
        depths=depth[None],
        **cameras_for_server(camera, camera.T_world_camera[0], size),
    )
