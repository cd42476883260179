"""The renderer of ``render.py`` as Warp kernels, for CPU and CUDA: the same truth, many times faster.

Solids, patterns and light are those of ``intersect``, ``materials`` and ``lighting`` (see the kernels for the few differences), so
a picture looks like the reference's and its depth, labels and normals are the same to rounding. Same seed, same device: same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import BackendUnavailable, ConfigError
from lyra_core.scenes.materials import PATTERNS, linear, mean_albedo
from lyra_core.scenes.render import Effects, RenderedScene, _develop
from lyra_core.scenes.scene import Kind, Scene
from lyra_core.scenes.warp_render_effects import encode, through_lens
from lyra_core.types import Camera, Label

LAMPS = {"rect": 0, "sphere": 1, "sun": 2}


class WarpRenderer:
    """Renders scenes on one device; keeps what it uploaded of the last scene, and its buffers."""

    def __init__(self, device: str = "cpu") -> None:
        """Start Warp on 'cpu', 'cuda' or 'cuda:N'; kernels are compiled on first use and cached by Warp.

        Raises:
            BackendUnavailable: Warp is not installed, or this device is not there.
        """
        self._wp = _start(device)
        self.device = device
        self._scene: Scene | None = None
        self._uploaded: _Uploaded | None = None
        self._buffers: dict[str, Any] = {}

    def render(
        self,
        scene: Scene,
        camera: Camera,
        T_world_camera: np.ndarray,
        *,
        samples: int = 1,
        effects: Effects | None = None,
        share_light: bool = True,
    ) -> RenderedScene:
        """Render a picture with samples = 1, 4, 9, ... per pixel; effects may be ``PhotoEffects``. Truth is taken at pixel centres.

        With share_light, samples of a pixel have their own surface and pattern but share its light, which is about as smooth
        as light of their own and costs one pixel's rays; without, every sample is lit by itself as in ``render``.

        Raises:
            ConfigError: samples is no square number, or the scene has a pattern that the kernels lack.
        """
        k = round(samples**0.5)
        if k * k != samples or k < 1:
            raise ConfigError(f"samples: got {samples}, expected a square number: 1, 4, 9, ...")
        effects = effects or Effects()
        up = self._upload(scene)
        coarse = self._see(up, "coarse", camera, T_world_camera, coloured=k == 1)
        depth, labels, normals, solid = _truth(coarse, scene)
        picture = coarse
        if k > 1:
            picture = self._see(up, "fine", camera.resized(camera.width * k, camera.height * k), T_world_camera, coloured=True)
        if k > 1 and share_light:
            self._shade(up, coarse, effects)
            self._borrow(up, coarse, picture, k)
            self._shade(up, picture, effects, wanted_only=True)
        else:
            self._shade(up, picture, effects)
        light = self._glow(up, picture)
        rgb = encode(_develop(through_lens(light, k, effects), k, effects), effects)
        return RenderedScene(rgb, depth, labels, normals, solid, camera, T_world_camera)

    def truth(self, scene: Scene, camera: Camera, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return depth (H, W) float32 [m] (NaN = sky) and labels (H, W) uint8 without making a picture."""
        return _truth(self._see(self._upload(scene), "coarse", camera, T_world_camera, coloured=False), scene)[:2]

    def _upload(self, scene: Scene) -> _Uploaded:
        if self._uploaded is None or scene is not self._scene:
            self._uploaded, self._scene = _Uploaded(self._wp, scene, self.device), scene
        return self._uploaded

    def _buffer(self, name: str, count: int, dtype: Any) -> Any:
        """Return an array of this name, the same memory every time unless it must grow."""
        if name not in self._buffers or len(self._buffers[name]) < count:
            self._buffers[name] = self._wp.zeros(count, dtype=dtype, device=self.device)
        return self._buffers[name][:count]

    def _launch(self, kernel: Any, layer: _Layer, inputs: list) -> None:
        count = layer.camera.width * layer.camera.height
        self._wp.launch(kernel, dim=count, inputs=inputs, device=self.device, record_tape=False)

    def _see(self, up: _Uploaded, name: str, camera: Camera, T_world_camera: np.ndarray, *, coloured: bool) -> _Layer:
        from lyra_core.scenes._warp_render_kernels import Seen, see

        wp, count, seen = self._wp, camera.width * camera.height, Seen()
        seen.t = self._buffer(f"{name}_t", count, wp.float32)
        seen.solid, wanted = (self._buffer(f"{name}_{x}", count, wp.int32) for x in ("solid", "wanted"))
        seen.normal, seen.point, seen.albedo, light, sheen, own = (
            self._buffer(f"{name}_{x}", count, wp.vec3) for x in ("normal", "point", "albedo", "light", "sheen", "own")
        )
        layer = _Layer(camera, _view(camera, T_world_camera), seen, light, sheen, own, wanted)
        self._launch(see, layer, [up.solids, up.look, layer.view, int(coloured), seen])
        return layer

    def _shade(self, up: _Uploaded, layer: _Layer, effects: Effects, *, wanted_only: bool = False) -> None:
        """Fill the layer's light and sheen: all and filtered, or only where it is wanted."""
        from lyra_core.scenes._warp_render_kernels import shade

        if not wanted_only:
            layer.wanted.fill_(1)
        counts = effects.light_samples, effects.bounce_samples
        arrays = layer.view, layer.seen, layer.wanted, _seed(effects), *counts, layer.light, layer.sheen
        self._launch(shade, layer, [up.solids, up.look, up.lamps, up.air, *arrays])
        if not wanted_only:
            layer.light = self._smoothed(layer.light, layer, effects.filter_levels)
            layer.sheen = self._smoothed(layer.sheen, layer, min(2, effects.filter_levels) if up.shiny else 0)

    def _borrow(self, up: _Uploaded, coarse: _Layer, fine: _Layer, k: int) -> None:
        from lyra_core.scenes._warp_render_kernels import borrow

        given = coarse.seen, coarse.light, coarse.sheen, coarse.camera.width, coarse.camera.height, k
        self._launch(borrow, fine, [up.solids, *given, fine.seen, fine.light, fine.sheen, fine.wanted])

    def _glow(self, up: _Uploaded, layer: _Layer) -> np.ndarray:
        """Return the radiance (H, W, 3) float32 of a layer that is shaded."""
        from lyra_core.scenes._warp_render_kernels import glow

        self._launch(glow, layer, [up.solids, up.look, up.lamps, up.air, layer.view, layer.seen, layer.own])
        total = layer.seen.albedo.numpy() * layer.light.numpy() + layer.sheen.numpy() + layer.own.numpy()
        return total.reshape(layer.camera.height, layer.camera.width, 3)

    def _smoothed(self, light: Any, layer: _Layer, levels: int) -> Any:
        from lyra_core.scenes._warp_render_kernels import smooth

        for level in range(levels):
            spare = self._wp.empty_like(light)
            self._launch(smooth, layer, [light, layer.seen, layer.camera.width, layer.camera.height, 2**level, spare])
            light = spare
        return light


def render_fast(
    scene: Scene,
    camera: Camera,
    T_world_camera: np.ndarray,
    *,
    samples: int = 1,
    effects: Effects | None = None,
    share_light: bool = True,
    device: str = "cpu",
) -> RenderedScene:
    """Render one picture (see ``WarpRenderer.render``); for many, keep a WarpRenderer.

    Raises:
        BackendUnavailable, ConfigError: see WarpRenderer.
    """
    return WarpRenderer(device).render(scene, camera, T_world_camera, samples=samples, effects=effects, share_light=share_light)


@dataclass
class _Layer:
    """One picture in the making, its arrays on the device and a pixel each."""

    camera: Camera
    view: Any
    seen: Any
    light: Any
    sheen: Any
    own: Any
    wanted: Any


class _Uploaded:
    """A scene's arrays on a device, as the kernels take them."""

    def __init__(self, wp: Any, scene: Scene, device: str) -> None:
        from lyra_core.scenes import _warp_render_kernels as kernels

        def put(values: Any, dtype: Any) -> Any:
            width = () if dtype in (wp.float32, wp.int32) else (-1, 3, 3) if dtype is wp.mat33 else (-1, 3)
            array = np.ascontiguousarray(values, np.int32 if dtype is wp.int32 else np.float32)
            return wp.array(array.reshape(width) if width else array, dtype=dtype, device=device)

        low, high = _bounds(scene)
        # Kernels hold the tree's number only, so the tree must live as long as they are launched.
        self.bvh = wp.Bvh(put(low, wp.vec3), put(high, wp.vec3))
        self.solids = solids = kernels.Solids()
        solids.bvh = self.bvh.id
        solids.kind, solids.material, solids.casts = (put(x, wp.int32) for x in (scene.kind, scene.material, scene.casts))
        solids.R_local_world = put(scene.T_world_local[:, :3, :3].transpose(0, 2, 1), wp.mat33)
        solids.centre, solids.size = put(scene.T_world_local[:, :3, 3], wp.vec3), put(scene.size, wp.vec3)
        solids.extra = put(scene.extra, wp.float32)
        self.look, self.lamps, self.air = kernels.Look(), kernels.Lamps(), kernels.Air()
        self._put_materials(wp, scene, put)
        self._put_lights(wp, scene, put)

    def _put_materials(self, wp: Any, scene: Scene, put: Any) -> None:
        from lyra_core.scenes._warp_render_pattern_kernels import NAMES

        materials, look = scene.materials, self.look
        missing = sorted({m.pattern for m in materials} - set(NAMES))
        if missing:
            known = [name for name in PATTERNS if name in NAMES]
            raise ConfigError(f"pattern: got {', '.join(missing)}, which the Warp renderer lacks; expected {', '.join(known)}")
        look.code = put([NAMES.index(m.pattern) for m in materials], wp.int32)
        look.colour, look.second = put([m.colour for m in materials], wp.vec3), put([m.second for m in materials], wp.vec3)
        look.scale, look.gloss = put([m.scale for m in materials], wp.float32), put([m.gloss for m in materials], wp.float32)
        look.roughness = put([m.roughness for m in materials], wp.float32)
        look.own_frame = put([m.space == "local" for m in materials], wp.int32)
        look.mean = put([mean_albedo(m) for m in materials], wp.vec3)
        look.emission = put([m.emission * linear(np.array(m.colour)) for m in materials], wp.vec3)
        self.shiny = any(m.gloss > 0 for m in materials)

    def _put_lights(self, wp: Any, scene: Scene, put: Any) -> None:
        lamps, air, sky = self.lamps, self.air, scene.sky
        lamps.count = len(scene.lights)
        lamps.kind = put([LAMPS[x.kind] for x in scene.lights], wp.int32)
        lamps.radius = put([x.radius for x in scene.lights], wp.float32)
        for name in ("position", "colour", "edge_u", "edge_v"):
            setattr(lamps, name, put([getattr(x, name) for x in scene.lights], wp.vec3))
        for name in ("zenith", "horizon", "ground"):
            setattr(air, name, wp.vec3(*(float(x) for x in getattr(sky, name))))
        air.ambient = wp.vec3(*(float(x) for x in scene.ambient))
        air.strength, air.trees, air.lights = float(sky.strength), float(sky.trees), int(sky.lights)


def _bounds(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (P, 3) of boxes round the solids [m], a little larger for single precision."""
    R, centre, size = scene.T_world_local[:, :3, :3], scene.T_world_local[:, :3, 3], scene.size
    box = (np.abs(R) * size[:, None]).sum(2)
    ellipsoid = np.sqrt(((R * size[:, None]) ** 2).sum(2))
    axis = R[:, :, 2]
    cone = np.abs(axis) * size[:, 2:] + np.sqrt(np.maximum(1 - axis**2, 0)) * size[:, :2].max(1, keepdims=True)
    kind = scene.kind[:, None]
    half = np.where(kind == Kind.BOX, box, np.where(kind == Kind.ELLIPSOID, ellipsoid, cone))
    margin = 1e-4 + 1e-5 * (np.abs(centre) + half)
    return centre - half - margin, centre + half + margin


def _truth(layer: _Layer, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return copies of depth, labels, normals and solid, each (H, W, ...)."""
    size = layer.camera.height, layer.camera.width
    solid = layer.seen.solid.numpy().reshape(size).copy()
    hit = solid >= 0
    depth = np.where(hit, layer.seen.t.numpy().reshape(size), np.float32(np.nan))
    labels = np.where(hit, scene.label[solid], np.uint8(Label.SKY)).astype(np.uint8)
    return depth, labels, layer.seen.normal.numpy().reshape(*size, 3).copy(), solid


def _seed(effects: Effects) -> int:
    """Return the seed as the kernels take it, a 32-bit integer."""
    return (effects.seed * 7919 + 2**31) % 2**32 - 2**31


def _view(camera: Camera, T_world_camera: np.ndarray) -> Any:
    import warp as wp

    from lyra_core.scenes._warp_render_kernels import View

    K, view = camera.K, View()
    view.width, view.fx, view.fy, view.skew = camera.width, float(K[0, 0]), float(K[1, 1]), float(K[0, 1])
    view.cx, view.cy = float(K[0, 2]), float(K[1, 2])
    view.R_world_camera = wp.mat33(*T_world_camera[:3, :3].astype(float).ravel().tolist())
    view.origin = wp.vec3(*T_world_camera[:3, 3].astype(float).tolist())
    return view


def _start(device: str) -> Any:
    """Return warp, started quietly, after checking that the device is there."""
    name = "scene renderer 'warp'"
    wp = load_warp(name)
    wp.init()
    if device != "cpu" and not (device.startswith("cuda") and wp.is_cuda_available()):
        install = "an NVIDIA GPU and its driver, or device='cpu'"
        raise BackendUnavailable(name, reason=f"device {device!r} is not there", install=install)
    return wp
