"""Small depth images at a photo's size: planes stay planes, the photo's edges decide, holes stay holes."""

from __future__ import annotations

import numpy as np
import pytest

from lyra_core.camera.upright import upright_rays
from lyra_core.depth.formats import resampled_depth
from lyra_core.depth.upsample import upsampled_depth
from lyra_core.types import Camera


def _step(width: int, height: int, edge: float) -> np.ndarray:
    """Return depth of 1.5 m left of an edge and 4 m right of it; the edge is a share of the width."""
    return np.where((np.arange(width) + 0.5)[None] / width < edge, 1.5, 4.0).repeat(height, 0).astype(np.float32)


def _picture(depth: np.ndarray) -> np.ndarray:
    rgb = np.where(depth[..., None] < 2, np.array([200, 60, 40]), np.array([60, 90, 190]))
    return np.clip(rgb + np.random.default_rng(0).normal(0, 6, rgb.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("edge", [0.42, 0.5, 0.545])
def test_edges_are_the_photos(edge):
    small, want = _step(32, 24, edge), _step(256, 192, edge)
    got = upsampled_depth(small, _picture(want))
    wrong = np.abs(got / want - 1) > 0.01
    assert wrong.sum() <= 192, "less than a column of the large picture"
    assert set(np.round(got.ravel(), 3).tolist()) == {1.5, 4.0}, "nothing floats between the two surfaces"
    if edge != 0.5:
        assert (np.abs(resampled_depth(small, 256, 192) / want - 1) > 0.01).sum() > 1.5 * 192, "the nearest value knows no better"


def test_planes_stay_planes():
    T = np.eye(4)
    T[:3, :3] = [[0, -0.17, 0.985], [-1, 0, 0], [0, -0.985, -0.17]]
    small, large = Camera.from_focal(48, 64, 48), Camera.from_focal(192, 256, 192)
    depth, want = (1.5 / np.maximum(upright_rays(camera, T).sink, 0.25) for camera in (small, large))
    grey = np.full((192, 256, 3), 128, np.uint8)
    got, rows = upsampled_depth(depth.astype(np.float32), grey), np.s_[130:192]
    assert np.abs(got[rows] / want[rows] - 1).max() < 1e-4


def test_holes_stay_unknown():
    small = _step(32, 24, 0.5)
    small[8:14, 4:10] = np.nan
    got = upsampled_depth(small, _picture(_step(256, 192, 0.5)))
    unknown = np.isnan(got)
    assert unknown[64:112, 32:80].mean() > 0.95 and unknown.mean() == pytest.approx(36 / 768, abs=0.004)
    assert np.isnan(upsampled_depth(np.full((24, 32), np.nan, np.float32), _picture(_step(256, 192, 0.5)))).all()
