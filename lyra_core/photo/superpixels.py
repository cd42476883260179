"""Superpixels with mean features, kernel densities over them, and binary labelling by minimum cut."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, dijkstra, maximum_flow
from skimage.segmentation import slic

COUNT = 1200
_CAPACITY_SCALE = 2000.0


@dataclass(frozen=True)
class Superpixels:
    """A partition of the picture into small regions that follow edges."""

    index: np.ndarray
    """(H, W) int32 region of each pixel."""
    area: np.ndarray
    """(N,) float64 [px]."""
    features: np.ndarray
    """(N, 4) float64 mean L, a, b (8-bit OpenCV Lab) and texture (local standard deviation of L)."""
    center: np.ndarray
    """(N, 2) float64 mean u, v in units of the long side, from the picture's centre."""
    edges: np.ndarray
    """(E, 2) int64 neighbouring regions, first < second."""
    affinity: np.ndarray
    """(E,) float64 in [0, 1]: alike and with a long common border = 1."""
    step: np.ndarray
    """(E,) float64 cost of walking from one to the other across colour edges."""

    def __len__(self) -> int:
        return len(self.area)

    def mean_of(self, image: np.ndarray) -> np.ndarray:
        """Return (N,) region means of (H, W) values; NaN pixels do not count, regions of NaN only are 0."""
        flat, index = image.reshape(-1).astype(np.float64), self.index.reshape(-1)
        finite = np.isfinite(flat)
        count = np.bincount(index[finite], minlength=len(self))
        return np.bincount(index[finite], flat[finite], len(self)) / np.maximum(count, 1)

    def touching(self, mask: np.ndarray) -> np.ndarray:
        """Return (N,) bool: regions with a pixel in the (H, W) mask."""
        return np.bincount(self.index[mask], minlength=len(self)) > 0


def compute_superpixels(rgb: np.ndarray, *, count: int = COUNT) -> Superpixels:
    """Partition (H, W, 3) uint8 (SLIC: Achanta et al., 2012)."""
    smooth = cv2.GaussianBlur(rgb, (0, 0), 0.8)
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB)
    index = slic(lab.astype(np.float32), n_segments=count, compactness=0.06, max_num_iter=6, sigma=0, convert2lab=False,
                 start_label=0, channel_axis=-1).astype(np.int32)
    height, width = index.shape
    if index.max() == 0:  # pure noise: no region hangs together, so SLIC merges all into one
        index = _squares(height, width, count)
    area = np.bincount(index.ravel()).astype(np.float64)
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32)
    spread = cv2.GaussianBlur(light * light, (0, 0), 2.5) - cv2.GaussianBlur(light, (0, 0), 2.5) ** 2
    channels = [*np.moveaxis(lab, -1, 0), np.sqrt(np.maximum(spread, 0))]
    features = np.stack([np.bincount(index.ravel(), c.ravel().astype(np.float64)) for c in channels], 1) / area[:, None]
    v, u = np.mgrid[:height, :width] + 0.5
    offsets = (u - width / 2, v - height / 2)
    center = np.stack([np.bincount(index.ravel(), x.ravel()) / area for x in offsets], 1) / max(width, height)
    edges, border, contour = _borders(index, len(area), _gradient(lab))
    difference = (features[edges[:, 0]] - features[edges[:, 1]]) / (16.0, 7.0, 7.0, 9.0)
    affinity = np.exp(-0.5 * (difference**2).sum(1) - contour / 14.0) * np.minimum(border / np.sqrt(area.mean()), 1.0)
    usual = np.percentile(contour, 35)  # the texture of the place itself is no obstacle to walking
    step = 0.06 + np.maximum(contour - usual, 0.0) / 8.0 + 0.25 * np.maximum(np.sqrt((difference**2).sum(1)) - 0.3, 0.0)
    return Superpixels(index, area, features, center, edges, affinity, step)


def _squares(height: int, width: int, count: int) -> np.ndarray:
    """Return (H, W) int32 indices of about ``count`` squares."""
    side = max(1, round((height * width / count) ** 0.5))
    columns = -(-width // side)
    return (np.arange(height)[:, None] // side * columns + np.arange(width) // side).astype(np.int32)


def _gradient(lab: np.ndarray) -> np.ndarray:
    """Return (H, W) float32: strength of the colour edge at each pixel."""
    smooth = cv2.GaussianBlur(lab, (0, 0), 1.0).astype(np.float32)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.25)
    return np.sqrt((across * across + down * down).sum(-1))


def _borders(index: np.ndarray, n: int, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return neighbouring pairs (E, 2), the length of their common border [px] and its mean colour gradient, both (E,)."""
    pairs = np.concatenate([np.stack([index[:, :-1].ravel(), index[:, 1:].ravel()], 1),
                            np.stack([index[:-1].ravel(), index[1:].ravel()], 1)]).astype(np.int64)
    strength = np.concatenate([np.maximum(gradient[:, :-1], gradient[:, 1:]).ravel(),
                               np.maximum(gradient[:-1], gradient[1:]).ravel()]).astype(np.float64)
    apart = pairs[:, 0] != pairs[:, 1]
    pairs = np.sort(pairs[apart], axis=1)
    code, inverse, border = np.unique(pairs[:, 0] * n + pairs[:, 1], return_inverse=True, return_counts=True)
    contour = np.bincount(inverse, strength[apart]) / border
    return np.stack([code // n, code % n], 1), border.astype(np.float64), contour


def density(points: np.ndarray, weight: np.ndarray, at: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Return the weighted Gaussian kernel density (N,) of points (M, D) at (N, D), normalised to a sum of weights of 1."""
    out = np.zeros(len(at))
    used = np.flatnonzero(weight > 1e-3 * weight.max(initial=0.0))
    if len(used) == 0:
        return out
    scaled, scaled_at = points[used] / bandwidth, at / bandwidth
    squared = np.zeros((len(at), len(used)))
    for k in range(points.shape[1]):
        squared += (scaled_at[:, k, None] - scaled[None, :, k]) ** 2
    return (np.exp(-0.5 * squared) * weight[used]).sum(1) / weight[used].sum()


def log_ratio(points: np.ndarray, positive: np.ndarray, negative: np.ndarray, bandwidth: np.ndarray, *, limit: float,
              novelty: float = 2e-4) -> np.ndarray:
    """Return (N,) log density ratio of two weightings of the same points (N, D), clipped to +-limit.

    Each point's own kernel is left out, so that a wrong seed does not defend itself.

    Args:
        novelty: density of the negative class everywhere: what is unlike both classes counts as negative when this is high.
    """
    both = []
    for weight, least in ((positive, 2e-4), (negative, novelty)):
        own = weight / max(float(weight.sum()), 1e-12)
        both.append(np.maximum(density(points, weight, points, bandwidth) - own, 0.0) + least)
    return np.clip(np.log(both[0] / both[1]), -limit, limit)


def geodesic_distance(regions: Superpixels, sources: np.ndarray) -> np.ndarray:
    """Return (N,) cheapest way across colour edges from the (N,) bool sources; inf without sources."""
    if not sources.any():
        return np.full(len(regions), np.inf)
    n = len(regions)
    graph = coo_matrix((regions.step, (regions.edges[:, 0], regions.edges[:, 1])), shape=(n, n)).tocsr()
    return dijkstra(graph, directed=False, indices=np.flatnonzero(sources), min_only=True)


def minimum_cut(log_odds: np.ndarray, regions: Superpixels, *, smoothness: float) -> np.ndarray:
    """Return (N,) bool labels that minimise  sum of costs + smoothness * affinity over cut edges  (exact).

    Args:
        log_odds: (N,) evidence for True.
        smoothness: cost of separating two equal neighbours.
    """
    n = len(log_odds)
    unary = np.rint(np.abs(log_odds) * _CAPACITY_SCALE).astype(np.int64)
    positive = log_odds > 0
    nodes = np.arange(n)
    rows = np.concatenate([np.full(positive.sum(), n), nodes[~positive], regions.edges[:, 0], regions.edges[:, 1]])
    cols = np.concatenate([nodes[positive], np.full((~positive).sum(), n + 1), regions.edges[:, 1], regions.edges[:, 0]])
    pair = np.rint(regions.affinity * smoothness * _CAPACITY_SCALE).astype(np.int64)
    capacity = np.concatenate([unary[positive], unary[~positive], pair, pair]).astype(np.int32)
    graph = coo_matrix((capacity, (rows, cols)), shape=(n + 2, n + 2)).tocsr()
    residual = (graph - maximum_flow(graph, n, n + 1).flow).tocsr()
    residual.data = np.maximum(residual.data, 0)
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, n, return_predecessors=False)
    out = np.zeros(n + 2, bool)
    out[reached] = True
    return out[:n]
