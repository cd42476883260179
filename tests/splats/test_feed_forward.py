"""Feed-forward Gaussians of frames: chunks, what is kept of them, where each Gaussian lies, and errors before any work."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from feed_forward_tiny import tiny_network, walk  # noqa: E402

from lyra_core.camera.se3 import inverse, look_at  # noqa: E402
from lyra_core.config import SplatCfg, from_dict  # noqa: E402
from lyra_core.errors import BackendUnavailable, ConfigError, InputError  # noqa: E402
from lyra_core.pipeline import build_world  # noqa: E402
from lyra_core.splats._torch_da3 import save_da3  # noqa: E402
from lyra_core.splats._torch_infer import nearest_multiple, on_grid, owned, views_of_frames  # noqa: E402
from lyra_core.splats.feed_forward import BORDER, check_feed_forward, chunks_of, splats_feed_forward, thinned  # noqa: E402
from lyra_core.splats.render import render_splats  # noqa: E402
from lyra_core.types import Camera, Frame  # noqa: E402

DEMO = Path(__file__).parents[2] / "lyra_core" / "scenes" / "data" / "demo_room.jpg"
SIDE = 84
"""The walk's frames are 84 x 56: no resampling, so that every number can be told."""


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network whose head says the same everywhere: no offsets, 2 channels to tell, opacity 0.95."""
    model = tiny_network()
    last = model.gs_head.scratch.output_conv2[2]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()
        last.bias[2:5] = -3.0
        last.bias[8], last.bias[9], last.bias[37] = 1.0, 0.7, 3.0
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    save_da3(path, model, licence="CC0")
    return str(path)


@pytest.mark.parametrize(("count", "chunk", "overlap"), [
    (1, 128, 10), (128, 128, 10), (129, 128, 10), (400, 128, 10), (9, 3, 2), (9, 4, 0),
])
def test_chunks_keep_every_frame_once(count, chunk, overlap):
    chunks = chunks_of(count, chunk, overlap)
    assert np.concatenate([np.arange(c.kept, c.stop) for c in chunks]).tolist() == list(range(count))
    assert all(c.stop - c.start <= chunk for c in chunks) and chunks[0].start == chunks[0].kept == 0
    assert all(b.start == a.stop - overlap and b.kept == a.stop for a, b in pairwise(chunks))


def cfg(weights: str | None, **changes) -> SplatCfg:
    return SplatCfg(method="feed_forward", weights=weights, **changes)


def test_each_gaussian_comes_from_its_pixel(plain_weights):
    frame = walk(1, width=SIDE, height=56)[0]
    hole = frame.depth.copy()
    hole[20:30, 30:50] = np.nan
    frame = replace(frame, depth=hole)
    cloud = splats_feed_forward([frame], cfg(plain_weights))
    rows, columns = (np.arange(int(BORDER * n), n - int(BORDER * n)) for n in (28, 42))
    z = frame.depth[::2, ::2][np.ix_(rows, columns)]
    known = np.isfinite(z)
    assert len(cloud.means) == known.sum() < known.size
    local = cloud.means.astype(float) @ inverse(frame.T_world_camera)[:3, :3].T + inverse(frame.T_world_camera)[:3, 3]
    half = frame.camera.resized(42, 28)
    pixel = local[:, :2] / local[:, 2:] * half.K[[0, 1], [0, 1]] + half.K[:2, 2]
    x, y = np.meshgrid(columns + 0.5, rows + 0.5)
    assert np.abs(pixel - np.stack([x[known], y[known]], 1)).max() < 1e-3
    assert np.abs(np.linalg.norm(local, axis=1) - z[known]).max() < 1e-4, "depth counts along the ray"
    size = (1e-5 + 30 / (1 + np.exp(3))) * 0.1 * 2 / half.K[0, 0] * z[known]
    assert np.allclose(cloud.scales, size[:, None], rtol=1e-4) and np.allclose(cloud.opacities, 1 / (1 + np.exp(-3)))
    assert np.allclose(cloud.sh[:, 0], [0.7, 0, 0]) and cloud.sh.shape[1] == 1
    assert np.allclose(np.linalg.norm(cloud.quats_wxyz, axis=1), 1, atol=1e-5)


def test_chunks_share_frames_but_not_gaussians(plain_weights):
    frames = walk(7, width=SIDE, height=56)
    inner = np.prod([n - 2 * int(BORDER * n) for n in (28, 42)])
    together = splats_feed_forward(frames, cfg(plain_weights))
    assert len(together.means) == 7 * inner
    apart = splats_feed_forward(frames, cfg(plain_weights, chunk=4, overlap=1))
    assert len(apart.means) <= 7 * inner
    assert np.bincount(together.provenance).tolist() == [3 * inner, 2 * inner, 2 * inner], "frame i has provenance i % 3"
    few = splats_feed_forward(frames, cfg(plain_weights, max_count=1000))
    assert 900 < len(few.means) <= 1000
    full = splats_feed_forward(frames[:2], cfg(plain_weights, downsample=1))
    assert len(full.means) == 2 * np.prod([n - 2 * int(BORDER * n) for n in (56, 84)])


def facing(x: float, towards: float) -> Frame:
    camera, T = Camera.from_focal(20.0, 40, 40), look_at(np.array([x, 0, 0.0]), np.array([towards, 0, 0.0]))
    return Frame(np.zeros((40, 40, 3), np.uint8), np.ones((40, 40), np.float32), camera, T, np.zeros((40, 40), np.uint8))


def test_a_point_belongs_to_the_nearest_chunk_that_sees_it():
    chunks = [[facing(0, 9)], [facing(10, 9), facing(12, 9)], [facing(3, -9)]]
    points = np.array([[1.0, 0, 0], [4.7, 0, 0], [5.3, 0, 0], [5.6, 0, 0], [8, 0, 0], [-3, 0, 0], [5, 0, 90]], np.float32)
    cpu = torch.device("cpu")
    keep = [owned(points, own, chunks, 1.0, cpu).tolist() for own in range(3)]
    # The third looks the other way from x = 3: it sees only x < 3. No one sees the last point: whoever made it keeps it.
    assert keep[0] == [True, True, True, False, False, False, True]
    assert keep[1] == [False, True, True, True, True, False, True]
    # x = 1 is 1 m from the first camera and 2 m from the third: one metre is no longer within the tolerance.
    assert keep[2] == [False, False, False, False, False, True, True]
    assert owned(points, 0, chunks[:1], 1.0, cpu).all() and len(owned(points[:0], 0, chunks, 1.0, cpu)) == 0


def test_thinning_keeps_the_picture_covered(plain_weights):
    frame = walk(1, width=SIDE, height=56)[0]
    cloud = splats_feed_forward([frame], cfg(plain_weights))
    fewer = thinned(cloud, len(cloud.means) // 8)
    assert len(fewer.means) <= len(cloud.means) // 8 and thinned(cloud, len(cloud.means)) is cloud
    assert all(np.array_equal(getattr(fewer, n), getattr(thinned(cloud, len(cloud.means) // 8), n)) for n in ("means", "scales"))
    grown = np.float32(np.sqrt(len(cloud.means) / len(fewer.means)))
    clouds = (cloud, fewer, replace(fewer, scales=fewer.scales / grown))
    covered = [render_splats(c, frame.camera, frame.T_world_camera)[1][6:-6, 6:-6].mean() for c in clouds]
    assert covered[1] > 0.65 * covered[0] and covered[2] < 0.3 * covered[0], covered


def test_frames_are_resampled_without_mixing_depths():
    assert [nearest_multiple(n) for n in (3, 14, 20, 21, 480, 832)] == [14, 14, 14, 28, 476, 826]
    frame = walk(1, width=96, height=64)[0]
    views = views_of_frames([frame])
    assert views.images.shape == (1, 3, 70, 98) and np.allclose(views.K[0], frame.camera.resized(98, 70).K)
    assert set(np.unique(views.depth)) <= set(np.unique(frame.depth)), "depths are picked, not averaged"
    assert on_grid(views.depth, (35, 49)).shape == (1, 35, 49)
    colors = views.images[0].permute(1, 2, 0).numpy() * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    assert np.abs(colors.mean((0, 1)) - frame.rgb.mean((0, 1)) / 255).max() < 0.01


def test_what_cannot_work_is_said_before_anything_is_made(tmp_path: Path):
    check_feed_forward(SplatCfg(overlap=500))
    with pytest.raises(BackendUnavailable, match=r"internal research only.*hf download nvidia/Lyra-2[.]0"):
        check_feed_forward(cfg(None))
    with pytest.raises(InputError, match=r"absent[.]pt is not a file"):
        check_feed_forward(cfg(str(tmp_path / "absent.pt")))
    with pytest.raises(ConfigError, match="overlap: got 10, expected less than chunk"):
        check_feed_forward(cfg(None, chunk=10))
    with pytest.raises(ConfigError, match="downsample: got 3, expected 1 to 2"):
        from_dict({"splats": {"downsample": 3}})
    with pytest.raises(BackendUnavailable, match="hf download"):
        build_world(DEMO, tmp_path / "world", from_dict({"quality": "draft", "splats": {"method": "feed_forward"}}))
    assert not (tmp_path / "world").exists()


def test_frames_without_depth_are_an_error(plain_weights):
    frame = walk(1, width=SIDE, height=56)[0]
    with pytest.raises(InputError, match="no pixel of known depth"):
        splats_feed_forward([replace(frame, depth=np.full_like(frame.depth, np.nan))], cfg(plain_weights))


@pytest.mark.slow
def test_a_world_is_made_with_predicted_gaussians(tmp_path: Path, plain_weights):
    settings = {"quality": "draft", "splats": {"method": "feed_forward", "weights": plain_weights, "max_count": 20_000}}
    world = build_world(DEMO, tmp_path / "world", from_dict(settings))
    assert world.manifest["licences"]["splats"] == "CC0" and 15_000 < world.manifest["statistics"]["splats"] <= 20_000
