"""Pictures of a scene with exact depth, labels and normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.errors import ConfigError
from lyra_core.scenes.intersect import SceneHits, cast, near_solids, rotate
from lyra_core.scenes.lighting import Illumination, Shaded, sky_radiance, smoothed
from lyra_core.scenes.materials import albedo, encoded, surface_coordinates
from lyra_core.scenes.noise import hashed
from lyra_core.scenes.scene import Kind, Rgb, Scene
from lyra_core.types import Camera, Label

TILE = 64
"""Rays are cast in tiles of this side [px], each against the solids near its cone only."""


@dataclass(frozen=True)
class Effects:
    """How light becomes a picture."""

    light_samples: int = 1
    """Shadow rays per light and sample."""
    bounce_samples: int = 2
    """Rays for surrounding light per sample; 0 = only the ambient term."""
    filter_levels: int = 4
    """Levels of the noise filter; 0 = none."""
    exposure: float = 1.0
    metered: float = 0.0
    """Linear grey that the camera exposes the middle of the picture's tones for before exposure applies; 0 = no meter."""
    tint: Rgb = (1.0, 1.0, 1.0)
    """White balance: factors of linear red, green and blue."""
    vignette: float = 0.12
    """Darkening in the corners."""
    noise: float = 1.0
    """Standard deviation of the sensor's noise [1/255]."""
    seed: int = 0


PLAIN = Effects(vignette=0.0, noise=0.0)
"""No camera effects."""


@dataclass(frozen=True)
class RenderedScene:
    """One picture and its truth, taken at pixel centres."""

    rgb: np.ndarray
    """(H, W, 3) uint8 sRGB."""
    depth: np.ndarray
    """(H, W) float32 z-depth [m]; NaN = sky."""
    labels: np.ndarray
    """(H, W) uint8 of Label."""
    normals: np.ndarray
    """(H, W, 3) float32 outward unit normals in the world frame; 0 = sky."""
    solid: np.ndarray
    """(H, W) int32 index of the solid; -1 = sky."""
    camera: Camera
    T_world_camera: np.ndarray
    """(4, 4)."""


@dataclass
class _Buffers:
    """What the camera sees per sample, row by row."""

    t: np.ndarray
    solid: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray
    direction: np.ndarray


def render(
    scene: Scene, camera: Camera, T_world_camera: np.ndarray, *, samples: int = 1, effects: Effects | None = None
) -> RenderedScene:
    """Render a picture of the scene with samples = 1, 4, 9, ... per pixel. The truth does not depend on samples or effects.

    Raises:
        ConfigError: samples is no square number.
    """
    k = round(samples**0.5)
    if k * k != samples or k < 1:
        raise ConfigError(f"samples: got {samples}, expected a square number: 1, 4, 9, ...")
    effects = effects or Effects()
    truth = _look(scene, camera, T_world_camera)
    seen = truth if k == 1 else _look(scene, camera.resized(camera.width * k, camera.height * k), T_world_camera)
    light = _shade(scene, seen, T_world_camera[:3, 3].astype(np.float32), effects)
    rgb = _develop(light, k, effects)
    hit = truth.solid >= 0
    labels = np.where(hit, scene.label[truth.solid], np.uint8(Label.SKY)).astype(np.uint8)
    depth = np.where(hit, truth.t, np.nan).astype(np.float32)
    return RenderedScene(rgb, depth, labels, truth.normal, truth.solid, camera, T_world_camera)


def render_truth(scene: Scene, camera: Camera, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depth (H, W) float32 [m] (NaN = sky) and labels (H, W) uint8 without making a picture."""
    truth = _look(scene, camera, T_world_camera, coloured=False)
    hit = truth.solid >= 0
    labels = np.where(hit, scene.label[truth.solid], np.uint8(Label.SKY)).astype(np.uint8)
    return np.where(hit, truth.t, np.nan).astype(np.float32), labels


def _look(scene: Scene, camera: Camera, T_world_camera: np.ndarray, *, coloured: bool = True) -> _Buffers:
    h, w = camera.height, camera.width
    K, origin = camera.K, T_world_camera[:3, 3]
    out = _Buffers(np.zeros((h, w), np.float64), np.zeros((h, w), np.int32), *(np.zeros((h, w, 3), np.float32) for _ in range(3)))
    for top in range(0, h, TILE):
        for left in range(0, w, TILE):
            v, u = np.mgrid[top : min(top + TILE, h), left : min(left + TILE, w)].reshape(2, -1) + 0.5
            local = np.stack(
                [(u - K[0, 2] - K[0, 1] * (v - K[1, 2]) / K[1, 1]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(u)], -1
            )
            d = rotate(T_world_camera[:3, :3], local)
            hits = cast(scene, np.broadcast_to(origin, d.shape), d, solids=near_solids(scene, origin, d))
            at = slice(top, top + TILE), slice(left, left + TILE)
            size = out.t[at].shape
            out.t[at], out.solid[at] = hits.t.reshape(size), hits.solid.reshape(size)
            out.normal[at], out.direction[at] = hits.normal.reshape(*size, 3), d.reshape(*size, 3)
            if coloured:
                out.albedo[at] = _colours(scene, hits, origin + d * np.where(hits.solid >= 0, hits.t, 0)[:, None]).reshape(*size, 3)
    return out


def _colours(scene: Scene, hits: SceneHits, world: np.ndarray) -> np.ndarray:
    out = np.zeros((len(world), 3), np.float32)
    size = scene.size.copy()
    cone = scene.kind == Kind.CONE
    size[cone, :2] = scene.size[cone, :2].max(1, keepdims=True)
    index = np.where(hits.solid >= 0, scene.material[hits.solid], -1)
    for i in np.unique(index[index >= 0]):
        rows, material = index == i, scene.materials[i]
        own = material.space == "local"
        p, n = (hits.local, hits.normal_local) if own else (world, hits.normal)
        solid = hits.solid[rows]
        out[rows] = albedo(material, surface_coordinates(p[rows], n[rows], size[solid], solid))
    return out


def _shade(scene: Scene, seen: _Buffers, origin: np.ndarray, effects: Effects) -> np.ndarray:
    """Return (H, W, 3) float32 radiance."""
    size = seen.solid.shape
    direction = seen.direction.reshape(-1, 3)
    out = sky_radiance(scene.sky, direction)
    rows = np.flatnonzero(seen.solid.reshape(-1) >= 0)
    if not len(rows):
        return out.reshape(*size, 3)
    illumination, solid = Illumination(scene), seen.solid.reshape(-1)[rows]
    normals = seen.normal.reshape(-1, 3)[rows]
    surface = (origin + direction[rows] * seen.t.reshape(-1)[rows, None]).astype(np.float32)
    lifted = surface + normals * illumination.lift[solid, None]
    key = rows + effects.seed * 7919
    light, mirror = np.zeros((len(rows), 3), np.float32), np.zeros((len(rows), 3), np.float32)
    gloss = np.array([m.gloss for m in scene.materials], np.float32)[scene.material[solid]]
    for block in np.array_split(np.arange(len(rows)), max(1, len(rows) // 200_000)):
        at = Shaded(lifted[block], normals[block], key[block])
        light[block] = illumination.direct(at, effects.light_samples)
        light[block] += (
            illumination.bounced(at, effects.bounce_samples) if effects.bounce_samples else np.array(scene.ambient, np.float32)
        )
        shiny = np.flatnonzero(gloss[block] > 0) if effects.bounce_samples else np.zeros(0, int)
        mirror[block[shiny]] = _mirrored(scene, illumination, block[shiny], solid, lifted, normals, direction[rows], key, gloss)
    if effects.filter_levels:
        guides = (
            _image(normals, rows, size),
            _image(surface, rows, size),
            _image(seen.t.reshape(-1)[rows, None], rows, size)[..., 0],
        )
        light, mirror = (
            smoothed(_image(x, rows, size), *guides, levels=n).reshape(-1, 3)[rows]
            for x, n in ((light, effects.filter_levels), (mirror, min(2, effects.filter_levels)))
        )
    out[rows] = seen.albedo.reshape(-1, 3)[rows] * light + mirror + illumination.emission[scene.material[solid]]
    return out.reshape(*size, 3)


def _mirrored(scene, illumination, at, solid, points, normals, directions, key, gloss) -> np.ndarray:
    """Return (n, 3) radiance mirrored by glossy surfaces, with Schlick's Fresnel term and a lobe of the material's roughness."""
    if not len(at):
        return np.zeros((0, 3), np.float32)
    d = directions[at] / np.linalg.norm(directions[at], axis=1, keepdims=True)
    n = normals[at]
    cosine = np.clip(-(d * n).sum(1), 0, 1)
    rough = np.array([m.roughness for m in scene.materials], np.float32)[scene.material[solid[at]]]
    jitter = np.stack([hashed(key[at], 61, i) + hashed(key[at], 67, i) - 1 for i in range(3)], -1)
    out = d + 2 * cosine[:, None] * n + rough[:, None] * jitter
    out -= 2 * np.minimum((out * n).sum(1), 0)[:, None] * n
    fresnel = gloss[at] + (1 - gloss[at]) * (1 - cosine) ** 5 * (1 - rough) ** 2
    return fresnel[:, None] * illumination.incoming(points[at], out.astype(np.float32), key[at], salt=77)


def _image(values: np.ndarray, rows: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    out = np.zeros((size[0] * size[1], values.shape[1]), np.float32)
    out[rows] = values
    return out.reshape(*size, -1)


def _develop(light: np.ndarray, k: int, effects: Effects) -> np.ndarray:
    """Return (H, W, 3) uint8: vignette, exposure, film curve, box filter over k x k samples, sRGB, noise."""
    h, w = light.shape[0] // k, light.shape[1] // k
    light = light * np.array(effects.tint, np.float32)
    if effects.metered:
        grey = 0.2126 * light[..., 0] + 0.7152 * light[..., 1] + 0.0722 * light[..., 2]
        light *= np.float32(effects.metered / max(float(np.exp(np.log(grey + 1e-3).mean())), 1e-3))
    y, x = np.mgrid[: h * k, : w * k]
    off = ((x + 0.5) / (w * k) * 2 - 1) ** 2 + ((y + 0.5) / (h * k) * 2 - 1) ** 2
    light = light * (effects.exposure * (1 - effects.vignette * (off / 2) ** 1.5))[..., None].astype(np.float32)
    # Narkowicz's fit of the ACES film curve.
    film = np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1)
    film = film.reshape(h, k, w, k, 3).mean((1, 3))
    grain = np.random.default_rng(effects.seed).normal(0, effects.noise, film.shape) if effects.noise else 0.0
    return np.clip(np.rint(encoded(film) * 255 + grain), 0, 255).astype(np.uint8)
