"""Reprojection and inpainting: a generator without a world, and the baseline that every other one must beat."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.camera.warp import clamped_depth, forward_warp, planar_depth
from lyra_core.errors import InputError
from lyra_core.generate.base import ChunkRequest
from lyra_core.types import Camera, DepthEstimate, Frame, Label, Photo, Provenance, Trajectory

SKY_DEPTH = 500.0
"""Where pixels without depth (the sky) are put for the warp [m]; they come back as unknown."""
SURFACE_TOLERANCE = 0.05
"""Sources within this relative depth of the nearest one show the same surface."""
TARGETS_AT_ONCE = 16
"""Cameras warped in one call."""


@dataclass(frozen=True)
class _Layer:
    """A source for the warp."""

    rgb: np.ndarray
    depth: np.ndarray
    """(H, W) float32 [m], no NaN where the pixel may be warped."""
    provenance: np.ndarray
    """(H, W) uint8: what the pixel is called once warped."""
    camera: Camera
    T_world_camera: np.ndarray


class GeneratorWarpFill:
    """Forward-warp the photo, the newest and the retrieved frames into each camera, and inpaint what none of them covers.

    A pixel is SEEN where the photo itself is warped to, CONTINUED where photo content arrives through another frame, and
    INVENTED where it was filled, also when a filled pixel is warped on: invention stays invention.
    """

    name = "warp_fill"

    def __init__(self, *, quality: str = "standard") -> None:
        """The quality has nothing to decide here: sizes come with the cameras."""
        self._photo: Photo | None = None
        self._estimate: DepthEstimate | None = None

    def prepare(self, photo: Photo, estimate: DepthEstimate, *, seed: int, indoor: bool) -> None:
        """Take the photo and its depth in. Seed and kind of place decide nothing: what is not seen is only inpainted."""
        self._photo, self._estimate = photo, estimate

    def first_frame(self, trajectory: Trajectory) -> Frame:
        """Return the photo's view: the photo resampled into trajectory[0]."""
        return self._compose(trajectory[:1], [self._photo_layer(trajectory.camera(0))])[0]

    def generate(self, request: ChunkRequest) -> list[Frame]:
        """Return one frame per camera of the request."""
        photo = self._photo_layer(request.trajectory.camera(0))
        layers = [photo]
        for frame in (request.newest, *request.retrieved):
            layer = _frame_layer(frame)
            # A view of nothing but the photo, and a frame that is both newest and retrieved, add nothing.
            invented = (frame.provenance == Provenance.INVENTED).any()
            pure = not invented and _same_view(frame.T_world_camera, photo.T_world_camera)
            if not pure and not any(_same_view(layer.T_world_camera, other.T_world_camera) for other in layers[1:]):
                layers.append(layer)
        frames: list[Frame] = []
        for first in range(0, len(request.trajectory), TARGETS_AT_ONCE):
            frames += self._compose(request.trajectory[first : first + TARGETS_AT_ONCE], layers)
        return frames

    def _photo_layer(self, target: Camera) -> _Layer:
        """Return the photo at about the angular resolution of the target. Depth the estimate lacks is filled, as CONTINUED."""
        if self._photo is None or self._estimate is None:
            raise InputError("generator 'warp_fill': prepare() was not called; expected a photo and its depth first")
        estimate = self._estimate
        scale = min(1.0, 1.25 * target.K[0, 0] / estimate.camera.K[0, 0])
        size = (max(2, round(estimate.camera.width * scale)), max(2, round(estimate.camera.height * scale)))
        camera = estimate.camera.resized(*size)
        rgb = cv2.resize(self._photo.rgb, size, interpolation=cv2.INTER_AREA)
        depth = cv2.resize(np.nan_to_num(estimate.depth), size, interpolation=cv2.INTER_NEAREST)
        sky = cv2.resize(estimate.labels, size, interpolation=cv2.INTER_NEAREST) == Label.SKY
        depth = np.where(sky, SKY_DEPTH, np.minimum(depth, 0.5 * SKY_DEPTH)).astype(np.float32)
        provenance = np.where(depth > 0, Provenance.SEEN, Provenance.CONTINUED).astype(np.uint8)
        return _Layer(rgb, fill_depth(depth, depth > 0), provenance, camera, estimate.T_world_camera)

    def _compose(self, cameras: Trajectory, layers: list[_Layer]) -> list[Frame]:
        """Merge the warps of all layers by depth, then fill; earlier layers win where several show the nearest surface."""
        count, height, width = len(cameras), cameras.height, cameras.width
        rgb = np.zeros((count, height, width, 3), np.float32)
        depth = np.full((count, height, width), np.inf, np.float32)
        provenance = np.full((count, height, width), 255, np.uint8)
        for layer in layers:
            labels = np.stack([layer.provenance == label for label in Provenance], -1)
            values = np.concatenate([layer.rgb, labels], -1, dtype=np.float32)
            mask = planar_depth(layer.depth)
            warped = forward_warp(values, layer.depth, layer.camera, layer.T_world_camera, cameras, mask=mask)
            wins = warped.covered & (np.nan_to_num(warped.depth, nan=np.inf) < depth * (1 - SURFACE_TOLERANCE))
            rgb[wins], depth[wins] = warped.values[wins][:, :3], warped.depth[wins]
            provenance[wins] = warped.values[wins][:, 3:].argmax(1)
        for i, T_world_camera in enumerate(cameras.T_world_camera):
            if _same_view(T_world_camera, layers[0].T_world_camera):
                rgb[i], depth[i], provenance[i] = _resampled(layers[0], cameras.camera(i), rgb[i], depth[i], provenance[i])
        return [_filled(rgb[i], depth[i], provenance[i], cameras.camera(i), cameras.T_world_camera[i]) for i in range(count)]


def fill_depth(depth: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill depth (H, W) [m] where ``known`` is False, smoothly in inverse depth; 5 m without any known pixel.

    Inverse depth is linear over the picture of a plane, so a hole in a floor or wall is closed nearly flat.
    """
    if not known.any():
        return np.full(depth.shape, 5.0, np.float32)
    inverse_depth = fill_smooth(np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0).astype(np.float32), known)
    return np.where(known, depth, 1.0 / np.maximum(inverse_depth, 1e-4)).astype(np.float32)


def fill_smooth(value: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill value (H, W) float32 where ``known`` is False by pull-push (Gortler et al. 1996, The Lumigraph, section 3.4).

    Halve the picture as weighted means until everything is known, then bring the coarse values back into the holes. At
    least one pixel must be known.
    """
    weight = known.astype(np.float32)
    levels = [(value, weight)]
    while not (weight > 0).all():
        size = (-(-value.shape[1] // 2), -(-value.shape[0] // 2))
        total = cv2.resize(value * weight, size, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
        value = total / np.maximum(weight, 1e-12)
        weight = np.where(weight > 1e-6, 1.0, 0.0).astype(np.float32)
        levels.append((value, weight))
    coarse = levels[-1][0]
    for value, weight in levels[-2::-1]:
        coarse = np.where(weight > 0, value, cv2.resize(coarse, value.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return coarse


def _same_view(T_world_a: np.ndarray, T_world_b: np.ndarray) -> bool:
    """Tell whether two cameras are one, but for the rounding of a file."""
    return bool(np.abs(T_world_a - T_world_b).max() < 1e-5)


def _frame_layer(frame: Frame) -> _Layer:
    """Return a made frame as a source: its photo content is only continued, and without depth it is sky."""
    provenance = np.where(frame.provenance == Provenance.SEEN, Provenance.CONTINUED, frame.provenance).astype(np.uint8)
    provenance[frame.provenance == 255] = Provenance.CONTINUED
    depth = np.where(np.isnan(frame.depth), np.float32(SKY_DEPTH), clamped_depth(frame.depth))
    return _Layer(frame.rgb, depth, provenance, frame.camera, frame.T_world_camera)


def _resampled(
    layer: _Layer, camera: Camera, rgb: np.ndarray, depth: np.ndarray, provenance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pictures of a camera at the layer's own pose: exact by resampling, as given outside the layer."""
    rays = camera.rays()
    u = (rays[..., 0] * layer.camera.K[0, 0] + layer.camera.K[0, 2] - 0.5).astype(np.float32)
    v = (rays[..., 1] * layer.camera.K[1, 1] + layer.camera.K[1, 2] - 0.5).astype(np.float32)
    inside = (u > -0.5) & (u < layer.camera.width - 0.5) & (v > -0.5) & (v < layer.camera.height - 0.5)
    sample = {"map1": u, "map2": v, "borderMode": cv2.BORDER_REPLICATE}
    colour = cv2.remap(layer.rgb, interpolation=cv2.INTER_LINEAR, **sample).astype(np.float32)
    z = cv2.remap(layer.depth, interpolation=cv2.INTER_NEAREST, **sample)
    label = cv2.remap(layer.provenance, interpolation=cv2.INTER_NEAREST, **sample)
    return np.where(inside[..., None], colour, rgb), np.where(inside, z, depth), np.where(inside, label, provenance)


def _filled(rgb: np.ndarray, depth: np.ndarray, provenance: np.ndarray, camera: Camera, T_world_camera: np.ndarray) -> Frame:
    """Close the holes of one frame; sky goes back to unknown depth."""
    holes = ~np.isfinite(depth)
    sky = ~holes & (depth > 0.5 * SKY_DEPTH)
    picture = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    if holes.any():
        picture = cv2.inpaint(picture, holes.astype(np.uint8), 3, cv2.INPAINT_TELEA)
        depth = fill_depth(depth, ~holes & ~sky)
        if sky.any():
            sky = fill_smooth(sky.astype(np.float32), ~holes) > 0.5
        provenance = np.where(holes, np.uint8(Provenance.INVENTED), provenance)
    depth = np.where(sky, np.nan, depth).astype(np.float32)
    return Frame(picture, depth, camera, T_world_camera, np.where(sky, 255, provenance).astype(np.uint8))
