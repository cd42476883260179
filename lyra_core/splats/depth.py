"""Depth pictures of a splat cloud, and frames as if a camera had been there: what a splat file alone can be fused from."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lyra_core.camera.se3 import look_at
from lyra_core.errors import InputError
from lyra_core.splats.clean import clean_splats
from lyra_core.splats.render import splat_colors
from lyra_core.splats.tiles import Layers, SplatTiles
from lyra_core.types import Camera, Frame, GaussianCloud, Provenance

COVERED = 0.5
"""Where less than this share of the light is stopped there is no depth."""
ONE_SURFACE = 0.02
"""Where mean and median depth differ by less than this share, light is stopped by one surface, and the mean is smoother."""
GRID = 40
"""Cells along the longest side of the search for free room."""
STANDS = 12
"""Places in free room that are tried, most room first."""
ENCLOSED = 0.6
"""Share of all directions that must be covered at a place inside a room."""
AS_MUCH = 0.85
"""Views from inside are taken if they show at least this share of the Gaussians that views from outside show."""
ROOM_FOV, OBJECT_FOV = np.deg2rad(80.0), np.deg2rad(45.0)
FILLED = 0.9
"""Share of the picture that an object fills."""
PROBE = 64
"""Side of the pictures that are only tried [px]."""


def render_depth(cloud: GaussianCloud, camera: Camera, T_world_camera: np.ndarray, *,
                 device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Render z-depth [m], NaN where less than half of the light is stopped, and coverage, both (H, W) float32.

    Depth is where half of the light is stopped; on one surface its mean, which does not step from Gaussian to Gaussian. A
    Gaussian's own depth is that of its densest point along the ray, so that slanted discs stand for their planes.

    Raises:
        BackendUnavailable: Warp is not installed.
    """
    layers = SplatTiles(cloud, device=device).draw(np.zeros((len(cloud.means), 3), np.float32), camera, T_world_camera)
    return _depth(layers), layers.coverage


def views_from_splats(cloud: GaussianCloud, *, count: int = 32, size: tuple[int, int] = (320, 240), kind: str = "auto",
                      device: str = "cpu") -> list[Frame]:
    """Place virtual cameras in or around a cloud of any axes and unit, and return what they see; floaters are left out first.

    Args:
        count: pictures.
        size: width and height [px].
        kind: 'room', from free places looking all round; 'object', from a sphere looking in; 'auto': both are tried, and inside
            is taken where its places are enclosed and it shows about as many of the Gaussians.

    Raises:
        InputError: nothing to see, count below 1, another kind, or 'room' without free places. BackendUnavailable: no Warp.
    """
    if count < 1 or min(size) < 8 or kind not in ("auto", "room", "object"):
        raise InputError(f"views: got count {count}, size {size}, kind {kind!r}; expected at least 1, 8 x 8, auto, room or object")
    cloud, _ = clean_splats(cloud)
    tiles = SplatTiles(cloud, device=device)
    around, inside = _around(cloud, count, size), None
    if kind != "object":
        stands = _stands(cloud, tiles)
        inside = _inside(stands, count, size) if len(stands) else None
    if kind == "room" and inside is None:
        raise InputError("views: found no free place that is enclosed by Gaussians, expected a room")
    if kind == "auto" and inside is not None:
        within, outside = (_shown(cloud, tiles, views) for views in (inside, around))
        inside = inside if within >= AS_MUCH * outside else None
    return [_frame(cloud, tiles, camera, T) for camera, T in (inside if inside is not None else around)]


def _depth(layers: Layers) -> np.ndarray:
    mean, median = layers.mean_depth, layers.median_depth
    depth = np.where(np.abs(mean - median) < ONE_SURFACE * median, mean, median)
    return np.where((layers.coverage >= COVERED) & (median > 0), depth, np.nan).astype(np.float32)


def _frame(cloud: GaussianCloud, tiles: SplatTiles, camera: Camera, T: np.ndarray) -> Frame:
    layers = tiles.draw(splat_colors(cloud, T[:3, 3]), camera, T)
    depth, whole = _depth(layers), np.maximum(layers.coverage, 1e-6)[..., None]
    rgb = np.clip(np.rint(255 * layers.rgb / whole), 0, 255) * (layers.coverage >= COVERED)[..., None]
    provenance = np.zeros(depth.shape)
    if cloud.provenance.any():
        values = np.repeat(cloud.provenance[:, None], 3, 1).astype(np.float32)
        provenance = np.rint((tiles.draw(values, camera, T).rgb / whole)[..., 0])
    provenance = np.where(np.isfinite(depth), np.clip(provenance, 0, int(max(Provenance))), 255)
    return Frame(rgb.astype(np.uint8), depth, camera, T, provenance.astype(np.uint8))


def _directions(count: int) -> np.ndarray:
    """Return unit vectors (count, 3) spread evenly over the sphere, on a Fibonacci spiral."""
    k = np.arange(count) + 0.5
    height, angle = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)


def _around(cloud: GaussianCloud, count: int, size: tuple[int, int]) -> list[tuple[Camera, np.ndarray]]:
    """Return cameras and poses on a sphere around the cloud, each zoomed so that the cloud fills its picture."""
    low, high = np.percentile(cloud.means, [1, 99], axis=0)
    middle = (low + high) / 2
    radius = float(np.percentile(np.linalg.norm(cloud.means - middle, axis=1), 99.5))
    distance = max(radius, 1e-6) / np.sin(OBJECT_FOV / 2)
    points = cloud.means[:: max(1, len(cloud.means) // 20_000)].astype(np.float64)
    out = []
    for direction in _directions(count):
        T = look_at(middle + distance * direction, middle)
        local = (points - T[:3, 3]) @ T[:3, :3]
        first, last = np.percentile(local[:, :2] / np.maximum(local[:, 2:], 1e-6), [0.5, 99.5], axis=0)
        focal = FILLED * float((np.array(size) / np.maximum(last - first, 1e-6)).min())
        center = np.array(size) / 2 - focal * (first + last) / 2
        out.append((Camera(np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1.0]]), *size), T))
    return out


def _inside(stands: np.ndarray, count: int, size: tuple[int, int]) -> list[tuple[Camera, np.ndarray]]:
    """Return cameras and poses that look all round from some places."""
    places = stands[: max(1, min(len(stands), count // 8))]
    camera = Camera.from_focal(min(size) / 2 / np.tan(ROOM_FOV / 2), *size)
    share = [len(part) for part in np.array_split(np.arange(count), len(places))]
    return [(camera, look_at(place, place + d)) for place, n in zip(places, share, strict=True) for d in _directions(n)]


def _stands(cloud: GaussianCloud, tiles: SplatTiles) -> np.ndarray:
    """Return free places (P, 3) from which most directions are covered: first that with most room, then far from each other."""
    low, high = np.percentile(cloud.means, [2, 98], axis=0)
    cell = float((high - low).max()) / GRID
    shape = np.maximum(np.ceil((high - low) / cell).astype(int), 1)
    at = np.floor((cloud.means - low) / cell).astype(int)
    at = at[((at >= 0) & (at < shape)).all(1)]
    full = np.zeros(shape, bool)
    full[tuple(at.T)] = True
    room = np.asarray(ndimage.distance_transform_edt(~np.pad(full, 1)))[1:-1, 1:-1, 1:-1]
    # Places with something on both sides along every axis are inside.
    for axis in range(3):
        before = np.maximum.accumulate(full, axis=axis)
        after = np.flip(np.maximum.accumulate(np.flip(full, axis), axis=axis), axis)
        room = np.where(before & after, room, 0)
    places, found = np.argwhere(room >= 2), []
    distance = np.full(len(places), np.inf)
    for _ in range(min(STANDS, len(places))):
        score = room[tuple(places.T)] * np.minimum(1, distance / (0.25 * GRID))
        best = int(np.argmax(score))
        distance = np.minimum(distance, np.linalg.norm(places - places[best], axis=1))
        stand = low + (places[best] + 0.5) * cell
        if _enclosed(tiles, stand) >= ENCLOSED:
            found.append(stand)
    return np.array(found).reshape(-1, 3)


def _enclosed(tiles: SplatTiles, place: np.ndarray) -> float:
    """Return the share of a cube of pictures around a place that is covered."""
    camera, black = Camera.from_focal(PROBE / 4, PROBE // 2, PROBE // 2), np.zeros((tiles.count, 3), np.float32)
    return float(np.mean([(tiles.draw(black, camera, look_at(place, place + d)).coverage >= COVERED).mean()
                          for d in np.concatenate([np.eye(3), -np.eye(3)])]))


def _shown(cloud: GaussianCloud, tiles: SplatTiles, views: list[tuple[Camera, np.ndarray]]) -> float:
    """Return the share of the Gaussians that some picture shows: that stop light on the way to it."""
    black = np.zeros((tiles.count, 3), np.float32)
    seen = np.zeros(tiles.count, bool)
    for large, T in views:
        camera = large.resized(PROBE * large.width // large.height, PROBE)
        _, weight = tiles.compare(black, np.zeros((camera.height, camera.width, 3), np.float32), camera, T)
        local_z = (cloud.means - T[:3, 3]) @ T[:3, 2]
        # Far ones are small in the picture: what counts is the share of their own area.
        area = np.pi * np.prod(np.sort(cloud.scales, 1)[:, 1:], 1) * (camera.K[0, 0] / np.maximum(local_z, 1e-6)) ** 2 + 1
        seen |= weight > 0.25 * cloud.opacities * np.minimum(area, 4)
    return float(seen.mean())
