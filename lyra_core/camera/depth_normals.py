"""Normals, viewing angle and edges of a depth picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lyra_core.types import Camera

EDGE = 0.04
"""A pixel lies on a depth edge where inverse depth departs from its neighbours' plane by this share."""


@dataclass(frozen=True)
class DepthNormals:
    """What the neighbourhood of each pixel says about its surface, in the camera frame."""

    normals: np.ndarray
    """(H, W, 3) float32 unit normals towards the camera; NaN where the depth is unknown or has no neighbour."""
    cosine: np.ndarray
    """(H, W) float32 cosine between normal and the direction to the camera, in (0, 1]; 0 where unknown."""
    edge: np.ndarray
    """(H, W) bool: beside a depth discontinuity or unknown depth."""


def depth_normals(depth: np.ndarray, camera: Camera, *, blur: int = 3) -> DepthNormals:
    """Compute normals of a z-depth picture (H, W) [m].

    A plane n . X = 1 seen by a pinhole obeys 1 / z = n . (x, y, 1): inverse depth is affine in the picture, so its
    gradient gives the plane exactly at any slope. Of the two one-sided differences the smaller one is taken, which
    does not look across a depth edge.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        w = (1.0 / depth).astype(np.float32)
    rays = camera.rays()
    du, bend_u = _slope(w, 1)
    dv, bend_v = _slope(w, 0)
    plane = np.empty((*depth.shape, 3), np.float32)
    plane[..., 0], plane[..., 1] = camera.K[0, 0] * du, camera.K[1, 1] * dv
    plane[..., 2] = w - plane[..., 0] * rays[..., 0] - plane[..., 1] * rays[..., 1]
    with np.errstate(invalid="ignore"):
        edge = ~((bend_u <= EDGE * w) & (bend_v <= EDGE * w))
        plane /= -np.linalg.norm(plane, axis=-1, keepdims=True)
    plane = _blurred(plane, ~edge, blur)
    with np.errstate(invalid="ignore"):
        cosine = -(plane * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
        cosine = np.where(cosine > 0, cosine, 0).astype(np.float32)
    return DepthNormals(plane, cosine, edge)


def _slope(w: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smaller one-sided difference along an axis and |second difference|; NaN only where neither side is known."""
    step = np.diff(w, axis=axis)
    gap = np.full_like(np.take(w, [0], axis), np.nan)
    before, after = np.concatenate([gap, step], axis), np.concatenate([step, gap], axis)
    use_before = (np.abs(before) <= np.abs(after)) | np.isnan(after)
    slope, bend = np.where(use_before, before, after), np.abs(after - before)
    border = np.zeros(w.shape, bool)
    np.moveaxis(border, axis, 0)[[0, -1]] = True  # the picture's border is no depth edge
    bend[border] = np.where(np.isnan(slope[border]), np.nan, 0)
    return slope, bend


def _blurred(normals: np.ndarray, good: np.ndarray, size: int) -> np.ndarray:
    """Average unit normals over a box, leaving out edge pixels; edge pixels keep their own."""
    known = good & np.isfinite(normals).all(-1)
    total = cv2.blur(np.where(known[..., None], normals, 0), (size, size), borderType=cv2.BORDER_REPLICATE)
    out = np.where(known[..., None], total, normals)
    with np.errstate(invalid="ignore", divide="ignore"):
        return out / np.linalg.norm(out, axis=-1, keepdims=True)
