"""Value noise on hashed lattices: the same numbers on every machine."""

from __future__ import annotations

import numpy as np


def hashed(*integers: np.ndarray | int) -> np.ndarray:
    """Return uniform numbers in [0, 1) from broadcast integers (a chain of the lowbias32 hash)."""
    h = np.uint32(0x9E3779B9)
    with np.errstate(over="ignore"):
        for value in integers:
            h = (np.asarray(value).astype(np.int64).astype(np.uint32) + h) * np.uint32(0x9E3779B1)
            h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
            h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
            h = h ^ (h >> np.uint32(16))
    return np.asarray(h >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def value_noise(x: np.ndarray, y: np.ndarray, seed: np.ndarray | int = 0) -> np.ndarray:
    """Return smooth noise in [0, 1) with one lattice cell per unit."""
    ix, iy = np.floor(x), np.floor(y)
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    a, b, c, d = (hashed(ix + i, iy + j, seed) for i, j in ((0, 0), (1, 0), (0, 1), (1, 1)))
    return a + (b - a) * fx + (c - a) * fy + (a - b - c + d) * fx * fy


def fbm(x: np.ndarray, y: np.ndarray, seed: np.ndarray | int = 0, *, octaves: int = 4) -> np.ndarray:
    """Return fractal noise in [0, 1): octaves of half the size and half the strength."""
    total, weight = np.zeros(np.broadcast(x, y).shape), 0.0
    for i in range(octaves):
        total = total + value_noise(x * 2**i, y * 2**i, seed + i * 101) / 2**i
        weight += 1 / 2**i
    return total / weight
