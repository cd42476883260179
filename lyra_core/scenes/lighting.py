"""Light on surfaces: lamps and sun with soft shadows, one bounce, a filter against noise. Shadows use the scene's triangles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lyra_core.rays import make_ray_tracer
from lyra_core.scenes.materials import linear, mean_albedo
from lyra_core.scenes.mesh import scene_mesh
from lyra_core.scenes.noise import fbm, hashed, value_noise
from lyra_core.scenes.scene import Kind, Light, Scene, Sky

LIFT = 0.003
"""Shadow rays start this far off the surface [m], plus the sagitta of round solids' triangles."""
BRIGHTEST = 3.0
"""Radiance that one bounced ray may bring at most."""
GOLDEN = (0.7548776662466927, 0.5698402909980532)
"""The R2 sequence (Roberts 2018): samples of a pixel spread evenly."""


@dataclass(frozen=True)
class Shaded:
    """Points to be lit."""

    points: np.ndarray
    """(n, 3) float32 [m], already lifted off the surface."""
    normals: np.ndarray
    """(n, 3) float32."""
    key: np.ndarray
    """(n,) integers that decide the random numbers."""


class Illumination:
    """Answers how much light arrives; built once per scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        vertices, faces, self.owner = scene_mesh(scene, solids=np.flatnonzero(scene.casts))
        self.tracer = make_ray_tracer(vertices, faces)
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        normal = np.cross(b - a, c - a)
        self.face_normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
        self.albedo = np.array([mean_albedo(m) for m in scene.materials], np.float32)
        self.emission = np.array([m.emission * linear(np.array(m.colour)) for m in scene.materials], np.float32)
        round_radius = np.where(scene.kind == Kind.BOX, scene.extra, scene.size.max(1))
        self.lift = (LIFT + 0.01 * round_radius).astype(np.float32)

    def direct(self, at: Shaded, count: int, *, salt: int = 0) -> np.ndarray:
        """Return (n, 3) outgoing radiance of a white surface lit by the lights, with count samples per light."""
        total = np.zeros((len(at.points), 3), np.float32)
        for index, light in enumerate(self.scene.lights):
            for i in range(count):
                u, v = _pair(at.key, i, salt + 17 * index)
                to, power = _sample_light(light, at.points, u, v)
                cosine = np.maximum((to * at.normals).sum(1), 0) / np.linalg.norm(to, axis=1)
                lit = np.flatnonzero(power * cosine > 1e-5)
                hits = self.tracer.cast(at.points[lit], to[lit])
                lit = lit[hits.t > 0.999]
                total[lit] += (power * cosine)[lit, None] * np.array(light.colour, np.float32) / np.float32(np.pi * count)
        return total

    def bounced(self, at: Shaded, count: int) -> np.ndarray:
        """Return (n, 3) radiance of a white surface lit by what surrounds it (cosine-weighted), with count samples."""
        total = np.zeros((len(at.points), 3), np.float32)
        for i in range(count):
            u, v = _pair(at.key, i, 991)
            r, phi = np.sqrt(u), 2 * np.pi * v
            t, s = _tangents(at.normals)
            z = np.sqrt(1 - u)
            direction = (r * np.cos(phi))[:, None] * t + (r * np.sin(phi))[:, None] * s + z[:, None] * at.normals
            total += self.incoming(at.points, direction.astype(np.float32), at.key, salt=31 * i) / count
        return total

    def incoming(self, points: np.ndarray, directions: np.ndarray, key: np.ndarray, *, salt: int) -> np.ndarray:
        """Return (n, 3) radiance that arrives along directions; sky only where it lights the scene."""
        scene = self.scene
        hits = self.tracer.cast(points, directions)
        out = np.zeros((len(points), 3), np.float32)
        miss = hits.face < 0
        if scene.sky.lights:
            out[miss] = sky_radiance(scene.sky, directions[miss])
        rows = np.flatnonzero(~miss)
        face = hits.face[rows]
        solid = self.owner[face]
        normals = self.face_normal[face]
        normals = np.where(((normals * directions[rows]).sum(1) > 0)[:, None], -normals, normals)
        where = points[rows] + directions[rows] * hits.t[rows, None] + normals * self.lift[solid, None]
        light = self.direct(Shaded(where.astype(np.float32), normals, key[rows]), 1, salt=salt + 400) + np.array(
            scene.ambient, np.float32
        )
        material = scene.material[solid]
        # A bounce beside a lamp would be a spark that no number of samples here can average out.
        out[rows] = np.minimum(self.albedo[material] * light + self.emission[material], BRIGHTEST)
        return out


def sky_radiance(sky: Sky, directions: np.ndarray) -> np.ndarray:
    """Return (n, 3) linear radiance of the sky and the far landscape."""
    d = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    up = np.clip(d[:, 2], 0, 1)[:, None] ** 0.6
    colour = np.array(sky.horizon) + (np.array(sky.zenith) - np.array(sky.horizon)) * up
    slope, azimuth = d[:, 2] / np.maximum(np.hypot(d[:, 0], d[:, 1]), 1e-6), np.arctan2(d[:, 1], d[:, 0])
    cloud = np.clip(1.6 * value_noise(azimuth * 3, slope * 9, 1) * value_noise(azimuth * 8, slope * 20, 2) - 0.15, 0, 1)[:, None]
    colour = colour + (1.0 - colour) * cloud * (slope > 0)[:, None] * 0.6
    crown = sky.trees * (0.45 + 0.4 * value_noise(azimuth * 9, azimuth * 0, 3) + 0.25 * value_noise(azimuth * 31, azimuth * 0, 4))
    dapple = 0.6 + 0.7 * fbm(azimuth * 22, slope * 30, 5)[:, None]
    trees = (slope < crown)[:, None] & (sky.trees > 0)
    colour = np.where(trees, np.array([0.11, 0.19, 0.07]) * dapple, colour)
    colour = np.where((slope < 0)[:, None], np.array(sky.ground) * (0.8 + 0.2 * dapple), colour)
    return (sky.strength * colour).astype(np.float32)


def smoothed(light: np.ndarray, normals: np.ndarray, points: np.ndarray, depth: np.ndarray, *, levels: int) -> np.ndarray:
    """Return light (H, W, 3) filtered along surfaces: the edge-avoiding a-trous wavelet (Dammertz et al. 2010).

    Neighbours count by how well they lie in the pixel's plane (normals, points: (H, W, 3); depth (H, W) sets the tolerance).
    """
    for level in range(levels):
        step = 2**level
        total, weight = light.copy(), np.ones(light.shape[:2], np.float32)
        for dy in (-step, 0, step):
            for dx in (-step, 0, step):
                if dx or dy:
                    here, there = _overlap(light.shape[0], dy), _overlap(light.shape[1], dx)
                    a, b = (here[0], there[0]), (here[1], there[1])
                    off_plane = np.abs(((points[b] - points[a]) * normals[a]).sum(-1))
                    same = np.maximum((normals[a] * normals[b]).sum(-1), 0) ** 24
                    near = np.linalg.norm(points[b] - points[a], axis=-1) < 0.12 * depth[a]
                    w = same * np.exp(-off_plane / (0.004 * depth[a] + 1e-6)) * near * (0.5 if dx and dy else 0.7)
                    total[a] += w[..., None] * light[b]
                    weight[a] += w
        light = total / weight[..., None]
    return light


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Return the rows that have a neighbour at this shift, and those neighbours."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))


def _pair(key: np.ndarray, i: int, salt: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two random numbers per point: a hash per point, spread over the samples."""
    u, v = ((hashed(key, salt, axis) + np.float32((i * GOLDEN[axis]) % 1)) % np.float32(1) for axis in (0, 1))
    return u, v


def _tangents(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors across n (Duff et al. 2017)."""
    sign = np.where(n[:, 2] >= 0, 1.0, -1.0)
    a = -1.0 / (sign + n[:, 2])
    b = n[:, 0] * n[:, 1] * a
    t = np.stack([1 + sign * n[:, 0] ** 2 * a, sign * b, -sign * n[:, 0]], -1)
    return t, np.stack([b, sign + n[:, 1] ** 2 * a, -n[:, 1]], -1)


def _sample_light(light: Light, points: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors to a random place of the light (n, 3) and the irradiance factor before the surface's cosine (n,)."""
    centre, eu, ev = (np.array(x, np.float32) for x in (light.position, light.edge_u, light.edge_v))
    if light.kind == "sun":
        t, s = _tangents(centre[None] / np.linalg.norm(centre))
        r, phi = light.radius * np.sqrt(u), 2 * np.pi * v
        to = centre / np.linalg.norm(centre) + (r * np.cos(phi))[:, None] * t + (r * np.sin(phi))[:, None] * s
        return (to * 500).astype(np.float32), np.ones(len(points), np.float32)
    if light.kind == "rect":
        to = centre + (u - 0.5)[:, None] * eu + (v - 0.5)[:, None] * ev - points
        area = np.cross(eu, ev)
        square = (to * to).sum(1)
        return to, np.maximum(-(to * area).sum(1), 0) / np.maximum(square * np.sqrt(square), 1e-6)
    z, phi = 2 * u - 1, 2 * np.pi * v
    r = np.sqrt(np.maximum(1 - z * z, 0))
    offset = light.radius * np.stack([r * np.cos(phi), r * np.sin(phi), z], -1)
    to = centre + offset - points
    return to.astype(np.float32), 1 / np.maximum((to * to).sum(1), 0.01)
