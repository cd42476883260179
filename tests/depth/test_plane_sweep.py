"""Plane-sweep stereo against exact depth: a textured corner, and pictures of the synthetic living room."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lyra_core.depth.plane_sweep import sweep_depths
from lyra_core.depth.sweep_volume import aggregated, lowest
from lyra_core.errors import InputError
from lyra_core.types import Camera, Frame, Provenance

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "imports"))
import capture_room as room

SEQUENCES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sequences"
BIG = Camera(room.CAMERA.K * [[2.5], [2.5], [1]], 160, 120)


@pytest.fixture(scope="module")
def corner() -> tuple[list[Frame], list[np.ndarray]]:
    """Six posed pictures without depth, and their exact depth."""
    views = [room.seen(T, BIG) for T in room.poses(6)]
    return [bare(rgb, BIG, T) for (rgb, _), T in zip(views, room.poses(6), strict=True)], [depth for _, depth in views]


def bare(rgb: np.ndarray, camera: Camera, T: np.ndarray) -> Frame:
    return Frame(rgb, np.full(rgb.shape[:2], np.nan, np.float32), camera, T, np.full(rgb.shape[:2], 255, np.uint8))


def compared(frames: list[Frame], truth: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the relative errors where there is depth, and the share of true depth that was found."""
    errors, found, there = [], 0, 0
    for frame, depth in zip(frames, truth, strict=True):
        known = np.isfinite(frame.depth) & np.isfinite(depth)
        errors.append((np.abs(frame.depth - depth) / depth)[known])
        found, there = found + int(known.sum()), there + int(np.isfinite(depth).sum())
    return np.concatenate(errors), found / there


def test_a_textured_corner_is_found(corner):
    frames, truth = corner
    out = sweep_depths(frames, planes=64)
    error, complete = compared(out, truth)
    print(f"corner: median {100 * np.median(error):.2f} %, 90th percentile {100 * np.percentile(error, 90):.2f} %, "
          f"complete {100 * complete:.0f} %")
    assert np.median(error) < 0.006 and np.percentile(error, 90) < 0.04 and complete > 0.7
    for frame in out:
        known = np.isfinite(frame.depth)
        assert (frame.provenance[known] == Provenance.SEEN).all() and (frame.provenance[~known] == 255).all()


def test_given_points_bound_the_depth(corner):
    frames, truth = corner
    points = np.concatenate([replace(f, depth=d).points()[::9, ::9].reshape(-1, 3) for f, d in zip(frames, truth, strict=True)])
    error, complete = compared(sweep_depths(frames, points=points, planes=64), truth)
    assert np.median(error) < 0.006 and complete > 0.7


def test_wrong_poses_give_little_depth(corner):
    """Break the input: with poses of other pictures, the views do not agree."""
    frames, truth = corner
    points = np.concatenate([replace(f, depth=d).points()[::9, ::9].reshape(-1, 3) for f, d in zip(frames, truth, strict=True)])
    order = (3, 5, 1, 4, 0, 2)
    wrong = [replace(frame, T_world_camera=frames[i].T_world_camera) for frame, i in zip(frames, order, strict=True)]
    _, complete = compared(sweep_depths(wrong, points=points, planes=48), truth)
    assert complete < 0.15


def test_a_blank_wall_stays_unknown(corner):
    frames, truth = corner
    points = np.concatenate([replace(f, depth=d).points()[::9, ::9].reshape(-1, 3) for f, d in zip(frames, truth, strict=True)])
    blank = [replace(frame, rgb=np.full_like(frame.rgb, 130)) for frame in frames]
    assert not any(np.isfinite(frame.depth).any() for frame in sweep_depths(blank, points=points, planes=16))


def test_refuses_what_cannot_be_swept(corner):
    frames, _ = corner
    with pytest.raises(InputError, match="at least 2"):
        sweep_depths(frames[:1])
    with pytest.raises(InputError, match="sparse points"):  # all at one place: nothing can be triangulated
        sweep_depths([replace(frame, T_world_camera=frames[0].T_world_camera) for frame in frames])
    with pytest.raises(InputError, match="sparse points"):
        sweep_depths(frames, points=np.full((20, 3), np.nan))
    with pytest.raises(InputError, match="planes"):
        sweep_depths(frames, planes=2)


def test_aggregation_fills_from_the_sides_and_jumps_at_edges():
    volume = np.full((9, 20, 12), 0.5, np.float32)
    volume[:, :5, 3] = 0.0
    volume[:, -5:, 8] = 0.0
    grey = np.where(np.arange(20) < 12, 20.0, 200.0)[None].repeat(9, 0).astype(np.float32)
    best, _ = lowest(aggregated(volume, grey), volume)
    # Between the two nothing matches; the jump from one to the other lies at the picture's edge, or one pixel off.
    assert (np.rint(best[:, :11]) == 3).all() and (np.rint(best[:, 12:]) == 8).all()


def test_a_parabola_between_planes():
    planes = np.arange(12)
    volume = (0.01 * (planes - 5.3) ** 2).astype(np.float32)[None, None]
    best, sure = lowest(volume, volume)
    assert abs(best[0, 0] - 5.3) < 1e-4 and sure[0, 0]
    assert not lowest(volume[..., ::-1][..., :7], volume[..., ::-1][..., :7])[1][0, 0]  # the minimum lies at the end: cut off


def test_the_living_room_within_two_percent():
    """Judged by a renderer's depth (ICL-NUIM living room): median error below 2 %, half of the pixels or more."""
    folder = SEQUENCES / "livingroom1_synthetic"
    if not folder.exists():
        pytest.skip("no evaluation data here")
    from lyra_core.imports.detect import load_source

    source = load_source(folder, max_frames=None, max_side=320)
    seen = [source.frames[i] for i in range(8, 20, 2)]
    start = time.monotonic()
    swept = sweep_depths([bare(f.rgb, f.camera, f.T_world_camera) for f in seen], planes=72)
    error, complete = compared(swept, [f.depth for f in seen])
    print(f"living room: median {100 * np.median(error):.2f} %, complete {100 * complete:.0f} %, {time.monotonic() - start:.1f} s")
    assert np.median(error) < 0.02 and complete > 0.5 and (error > 0.1).mean() < 0.06
