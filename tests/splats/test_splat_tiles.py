"""The fast renderer equals the readable one; depth, views, cleaning and fitting of whole clouds."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from surface_scenes import checker, room_distance, room_frames

from lyra_core.camera.se3 import look_at
from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.splats.clean import clean_splats, take
from lyra_core.splats.depth import render_depth, views_from_splats
from lyra_core.splats.from_frames import splats_from_frames
from lyra_core.splats.ply import read_splats
from lyra_core.splats.refine import fit_colors, refine_splats
from lyra_core.splats.render import render_splats
from lyra_core.splats.tiles import SplatTiles
from lyra_core.types import Camera, GaussianCloud

GUITAR = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "splats" / "guitar.ply"


def random_cloud(count: int, *, bands: int = 1, seed: int = 0) -> GaussianCloud:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    means = np.concatenate([rng.uniform(-3, 3, (count, 2)), rng.uniform(-1, 6, (count, 1))], 1)
    return GaussianCloud(means.astype(np.float32), (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
                         np.exp(rng.uniform(-8, -2, (count, 3))).astype(np.float32), rng.uniform(0, 1, count).astype(np.float32),
                         (0.5 * rng.normal(size=(count, bands, 3))).astype(np.float32), np.zeros(count, np.uint8))


@pytest.mark.parametrize(("count", "bands", "size"), [(1, 1, (31, 17)), (3000, 16, (101, 83)), (5000, 1, (64, 64)), (0, 1, (9, 9))])
def test_warp_equals_numpy(count, bands, size):
    cloud = random_cloud(count, bands=bands)
    T = look_at(np.array([0.3, -0.2, 0.4]), np.array([0.5, 0.2, 3.0]))
    camera = Camera.from_focal(70.0, *size)
    slow, fast = (render_splats(cloud, camera, T, background=(10, 200, 30), renderer=name) for name in ("numpy", "warp"))
    assert np.abs(slow[0].astype(int) - fast[0]).max() <= 2 and (slow[0] != fast[0]).mean() < 0.05
    assert np.abs(slow[1] - fast[1]).max() < 0.01


def test_another_renderer_is_refused():
    with pytest.raises(ConfigError, match="renderer"):
        render_splats(random_cloud(1), Camera.from_focal(70.0, 8, 8), np.eye(4), renderer="vulkan")


def test_three_hundred_thousand_take_less_than_two_seconds():
    cloud, camera = random_cloud(300_000), Camera.from_focal(350.0, 416, 240)
    cloud = replace(cloud, scales=np.minimum(cloud.scales, np.float32(0.02)))
    render_splats(cloud, camera, np.eye(4))
    start = time.process_time()
    render_splats(cloud, camera, np.eye(4))
    assert time.process_time() - start < 2


def test_too_many_pairs_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr("lyra_core.splats.tiles.MOST_PAIRS", 1000)
    with pytest.raises(InputError, match="huge"):
        SplatTiles(random_cloud(5000)).draw(np.zeros((5000, 3), np.float32), Camera.from_focal(200.0, 320, 240), np.eye(4))


def room_cloud() -> GaussianCloud:
    return splats_from_frames(room_frames(), max_count=10**6)


def test_depth_is_that_of_the_surfaces():
    cloud, frame = room_cloud(), room_frames()[3]
    depth, coverage = render_depth(cloud, frame.camera, frame.T_world_camera)
    known = np.isfinite(depth)
    error = np.abs(depth - frame.depth)[known] / frame.depth[known]
    assert known.mean() > 0.98 and np.median(error) < 0.003 and np.percentile(error, 95) < 0.03
    assert np.array_equal(known, coverage >= 0.5) and depth.dtype == np.float32
    away = np.eye(4)
    away[:3, 3] = [0, 0, 50]
    depth, coverage = render_depth(cloud, frame.camera, away)
    assert np.isnan(depth).all() and coverage.max() == 0


def test_floaters_are_left_out():
    cloud = room_cloud()
    n, rng = len(cloud.means), np.random.default_rng(0)
    bad = take(cloud, np.arange(60))
    means, scales, opacities = bad.means.copy(), bad.scales.copy(), bad.opacities.copy()
    opacities[:20] = 0.01
    scales[20:40] = 5.0
    means[40:59] = rng.uniform(20, 60, (19, 3))
    means[59] = np.nan
    worse = GaussianCloud(*(np.concatenate([getattr(cloud, name), part]) for name, part in (
        ("means", means), ("quats_wxyz", bad.quats_wxyz), ("scales", scales), ("opacities", opacities), ("sh", bad.sh),
        ("provenance", bad.provenance))))
    clean, note = clean_splats(worse)
    assert np.array_equal(clean.means, clean_splats(cloud)[0].means) and len(clean.means) > 0.999 * n
    assert "20 faint, 20 huge, 19 alone, 1 not finite" in note
    with pytest.raises(InputError, match="faint"):
        clean_splats(take(worse, np.arange(n, n + 20)))


def test_a_room_is_seen_from_inside_and_can_be_fused():
    frames = views_from_splats(room_cloud(), count=16, size=(96, 72))
    eyes = np.stack([f.T_world_camera[:3, 3] for f in frames])
    assert len(frames) == 16 and (np.abs(eyes[:, :2]) < [2.5, 2.0]).all() and (eyes[:, 2] > 0).all() and (eyes[:, 2] < 2.6).all()
    points = np.concatenate([f.points()[np.isfinite(f.depth)] for f in frames]).astype(float)
    assert len(points) > 0.9 * 16 * 96 * 72 and np.median(room_distance(points)) < 0.02
    assert set(np.unique(frames[0].provenance)) <= {0, 1, 2, 255}


@pytest.mark.skipif(not GUITAR.is_file(), reason="evaluation data is not here")
def test_a_guitar_is_seen_from_outside_and_fuses_to_what_was_rendered():
    from lyra_core.rays.base import cast_camera, make_ray_tracer
    from lyra_core.surface.blocks import FusionBlocks

    frames = views_from_splats(read_splats(GUITAR), count=20, size=(160, 120))
    assert all(0.02 < np.isfinite(f.depth).mean() < 0.9 for f in frames)
    fusion = FusionBlocks(0.03)
    fusion.integrate_all(frames)
    vertices, faces, _ = fusion.extract()
    tracer, gaps, covered = make_ray_tracer(vertices.astype(np.float32), faces.astype(np.int32)), [], []
    for f in frames[::4]:
        t = cast_camera(tracer, f.camera, f.T_world_camera).t.reshape(f.depth.shape)
        both = np.isfinite(f.depth) & np.isfinite(t)
        gaps.append(np.abs(t - f.depth)[both])
        covered.append(both.sum() / np.isfinite(f.depth).sum())
    assert np.median(np.concatenate(gaps)) < 0.06 and np.mean(covered) > 0.8


def test_bad_requests_for_views_are_refused():
    with pytest.raises(InputError, match="count"):
        views_from_splats(room_cloud(), count=0)
    flat = take(room_cloud(), np.flatnonzero(room_cloud().means[:, 2] < 0.01))
    with pytest.raises(InputError, match="free place"):
        views_from_splats(flat, count=4, kind="room")


def test_fitted_colours_show_the_frames_better():
    frames = [type(f)(checker(3 * f.points()), f.depth, f.camera, f.T_world_camera, f.provenance) for f in room_frames()[:16]]
    cloud = splats_from_frames(frames, max_count=10**6)
    fitted, report = fit_colors(cloud, frames, hold_out=0, rounds=3)
    assert report.kept and report.after > report.before + 0.5 and report.held_out == ()
    assert np.array_equal(fitted.means, cloud.means)
    wrong = [f if i % 8 == 4 else type(f)(255 - f.rgb, f.depth, f.camera, f.T_world_camera, f.provenance)
             for i, f in enumerate(frames)]
    same, report = fit_colors(cloud, wrong)
    assert same is cloud and not report.kept and report.held_out == (4, 12), "never worse where it was held back"
    with pytest.raises(InputError, match="frames"):
        fit_colors(cloud, [])


def test_descent_lowers_the_loss_on_the_cpu():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from lyra_core.splats._torch_refine import Descent, ssim

    frame = room_frames()[7]
    small = frame.camera.resized(40, 28)
    tiny = type(frame)(np.ascontiguousarray(frame.rgb[2::5, 2::5]), frame.depth[2::5, 2::5], small, frame.T_world_camera,
                       frame.provenance[2::5, 2::5])
    cloud = splats_from_frames([tiny], max_count=10**5, block=2)
    descent = Descent(cloud, [tiny], device=torch.device("cpu"), renderer="torch")
    losses = descent.run([0] * 30, size=1.0)
    assert losses[-1] < 0.8 * losses[0]
    refined, report = refine_splats(cloud, [tiny], steps=20, device="cpu")
    assert report.kept and report.after > report.before + 1 and len(refined.means) <= len(cloud.means)
    a, b = (torch.tensor(np.random.default_rng(k).uniform(size=(30, 30, 3))) for k in (0, 1))
    from skimage.metrics import structural_similarity

    want = structural_similarity(a.numpy(), b.numpy(), channel_axis=2, data_range=1, gaussian_weights=True, sigma=1.5,
                                 use_sample_covariance=False, full=True)[1][5:-5, 5:-5].mean()
    assert float(ssim(a, a)) == pytest.approx(1) and float(ssim(a, b)) == pytest.approx(want, abs=1e-6)


def test_refining_says_what_is_missing():
    torch = pytest.importorskip("torch")
    frame = room_frames()[0]
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="pip install gsplat"):
            refine_splats(random_cloud(10), [frame])
    with pytest.raises(ConfigError, match="device"):
        refine_splats(random_cloud(10), [frame], device="tpu")
