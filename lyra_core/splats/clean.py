"""Take the floaters out of a cloud: Gaussians that stand for no surface."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from lyra_core.errors import InputError
from lyra_core.types import GaussianCloud

FAINT = 0.05
"""Opacity below which a Gaussian is not worth drawing."""
HUGE = 0.15
"""Largest standard deviation over the size of the scene's middle 90 percent; sky shells and fog are larger."""
NEIGHBOURS = 8
ALONE = 12.0
"""A Gaussian whose neighbours are this many times further away than its own reach and than is usual has none."""
WIDEST = 0.02
"""Distance to the neighbours over the size of the scene that is never far."""


def clean_splats(cloud: GaussianCloud) -> tuple[GaussianCloud, str]:
    """Drop Gaussians that are faint, huge, or alone.

    Returns:
        the rest, and one sentence on what went.

    Raises:
        InputError: nothing would be left.
    """
    total = len(cloud.means)
    numbers = np.concatenate([cloud.means, cloud.scales, cloud.quats_wxyz, cloud.opacities[:, None]], 1)
    finite = np.isfinite(numbers).all(1) & np.isfinite(cloud.sh).reshape(total, -1).all(1)
    faint = finite & (cloud.opacities < FAINT)
    rows = np.flatnonzero(finite & ~faint)
    if not len(rows):
        raise InputError(f"splats: all {total} Gaussians are fainter than {FAINT} or not finite, expected some to see")
    size = scene_size(cloud.means[rows])
    huge = cloud.scales[rows].max(1) > HUGE * size
    alone = np.zeros(len(rows), bool)
    kept = np.flatnonzero(~huge)
    if len(kept) > NEIGHBOURS:
        means = cloud.means[rows[kept]].astype(np.float64)
        distance = cKDTree(means).query(means, NEIGHBOURS + 1, workers=2)[0][:, -1]
        reach = np.maximum(cloud.scales[rows[kept]].max(1), np.median(distance))
        alone[kept] = (distance > ALONE * reach) & (distance > WIDEST * size)
    left = rows[~huge & ~alone]
    if not len(left):
        raise InputError(f"splats: got {total} Gaussians that are all huge or alone, expected surfaces")
    note = (f"Of {total} Gaussians {total - len(left)} were left out as floaters: {faint.sum()} faint, {huge.sum()} huge, "
            f"{alone.sum()} alone, {(~finite).sum()} not finite.")
    return take(cloud, left), note


def take(cloud: GaussianCloud, rows: np.ndarray) -> GaussianCloud:
    """Return some of the Gaussians."""
    names = ("means", "quats_wxyz", "scales", "opacities", "sh", "provenance")
    return GaussianCloud(*(getattr(cloud, name)[rows] for name in names))


def scene_size(points: np.ndarray) -> float:
    """Return the diagonal of the box of the middle 90 percent of points (N, 3) along each axis."""
    low, high = np.percentile(points, [5, 95], axis=0)
    return float(max(np.linalg.norm(high - low), 1e-9))
