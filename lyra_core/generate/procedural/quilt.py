"""Image quilting (Efros and Freeman 2001) of a periodic texture tile from an exemplar."""

from __future__ import annotations

import cv2
import numpy as np

SHORTEST = 12
"""Side of the smallest exemplar that is quilted [texel]."""
ODD_LEAST = 12.0
"""A difference from the usual colour below this is never odd [grey levels]."""


def usual_square(colours: np.ndarray, allowed: np.ndarray, *, spread: float) -> tuple[int, int, int, np.ndarray]:
    """Find the largest square of an image (h, w, 3) float32 that lies in ``allowed`` (h, w) and shows nothing odd.

    Odd is what differs from the median colour by more than ``spread`` times the median difference: a rug's edge, an unnoticed
    object or a highlight would repeat all over a tile.

    Returns:
        row, column and half side of the square, its side being 2 half + 1 (half < 0: there is none), and what is usual (h, w) bool.
    """
    if not allowed.any():
        return 0, 0, -1, allowed
    calm = cv2.GaussianBlur(colours, (0, 0), 2.0)
    odd = np.abs(calm - np.median(calm[allowed], 0)).max(-1)
    usual = allowed & (odd <= max(ODD_LEAST, spread * float(np.median(odd[allowed]))))
    padded = cv2.copyMakeBorder(usual.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    distance = np.round(cv2.distanceTransform(padded, cv2.DIST_C, 3)[1:-1, 1:-1], 2)
    row, column = divmod(int(np.argmax(distance)), distance.shape[1])
    return row, column, int(distance[row, column]) - 1, usual


def quilt_tile(exemplar: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Make a tile (size, size, 3) uint8 that repeats without seams, in both directions.

    Blocks are taken from the exemplar (h, w, 3) so that their overlap with what is already laid fits (sum of squared
    differences by template matching), one of the five best by ``rng``, and blended along feathered overlaps. An exemplar
    with a side below SHORTEST is too small to take blocks from and gives faint noise about its mean colour.
    """
    short = min(exemplar.shape[:2])
    if short < SHORTEST:
        flat = exemplar.reshape(-1, 3).astype(np.float32)
        noise = rng.standard_normal((size, size, 1)).astype(np.float32) * flat.std(0).clip(1, 6)
        return np.clip(flat.mean(0) + cv2.GaussianBlur(noise, (0, 0), 1.0), 0, 255).astype(np.uint8)
    block = int(np.clip(short * 0.45, 8, 72))
    overlap = max(3, block // 3)
    step = block - overlap
    count = max(2, int(np.ceil(size / step)))
    canvas = np.zeros((size, size, 3), np.float32)
    known = np.zeros((size, size), np.float32)
    source = exemplar.astype(np.float32)
    starts = np.round(np.arange(count) * size / count).astype(int)
    for y0 in starts:
        for x0 in starts:
            rows, cols = np.arange(y0, y0 + block) % size, np.arange(x0, x0 + block) % size
            patch = _best_patch(source, canvas[np.ix_(rows, cols)], known[np.ix_(rows, cols)], rng)
            _lay(canvas, known, patch, rows, cols, overlap)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def flattened(patch: np.ndarray, colour: np.ndarray, *, contrast: float, coarsest: float | None = None) -> np.ndarray:
    """Return an exemplar (h, w, 3) uint8 without shading: fine detail of ``patch`` on one colour (3,).

    Detail coarser than ``coarsest`` [px], by default an eighth of the patch, would show as a repeated pattern and goes. The
    standard deviation of the rest is limited to ``contrast`` [grey levels]; small patches, which are rarely pure material,
    keep less of it.
    """
    short = min(patch.shape[:2])
    detail = patch - cv2.GaussianBlur(patch, (0, 0), coarsest or max(2.0, short / 8), borderType=cv2.BORDER_REFLECT)
    allowed = contrast * float(np.clip((short - 8) / 56, 0.15, 1.0))
    detail *= min(1.0, allowed / max(float(detail.std()), 1e-3))
    return np.clip(np.rint(colour + np.clip(detail, -3 * allowed, 3 * allowed)), 0, 255).astype(np.uint8)


def _best_patch(source: np.ndarray, target: np.ndarray, known: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a block (n, n, 3) of the source that fits what is known of the target (n, n, 3)."""
    n = len(target)
    height, width = source.shape[0] - n + 1, source.shape[1] - n + 1
    if known.max() <= 0:
        y, x = int(rng.integers(height)), int(rng.integers(width))
        return source[y : y + n, x : x + n]
    mask = np.repeat((known > 0).astype(np.float32)[..., None], 3, 2)
    cost = cv2.matchTemplate(source, target, cv2.TM_SQDIFF, mask=mask)
    # Rounded costs: the FFT inside template matching may differ in the last bits between machines.
    order = np.argsort(np.round(cost.ravel() / max(float(cost.max()), 1e-6), 4), kind="stable")[:5]
    y, x = divmod(int(order[int(rng.integers(len(order)))]), cost.shape[1])
    return source[y : y + n, x : x + n]


def _lay(canvas: np.ndarray, known: np.ndarray, patch: np.ndarray, rows: np.ndarray, cols: np.ndarray, overlap: int) -> None:
    """Blend a block into the canvas in place; its weight rises over the overlap where something lies already."""
    ramp = np.minimum(1.0, (np.arange(len(rows)) + 1.0) / overlap)
    ramp = np.minimum(ramp, ramp[::-1])
    old = canvas[np.ix_(rows, cols)]
    weight = (ramp[:, None] * ramp[None, :]).astype(np.float32)
    weight = np.where(known[np.ix_(rows, cols)] > 0, weight, 1.0)[..., None]
    canvas[np.ix_(rows, cols)] = old * (1 - weight) + patch * weight
    known[np.ix_(rows, cols)] = 1.0
