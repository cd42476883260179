"""The layout prior: training resumes to the byte, numpy gives what torch gives, and what is taught is the scene's truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("warp")

from lyra_core.camera.se3 import from_yaw_pitch  # noqa: E402
from lyra_core.errors import ConfigError, InputError, WorldError  # noqa: E402
from lyra_core.photo import prior  # noqa: E402
from lyra_core.training.layout.augment import View, example, repainted  # noqa: E402
from lyra_core.training.layout.model import LayoutNet, layout_loss  # noqa: E402
from lyra_core.training.layout.train import WEIGHTS, LayoutCfg, LayoutTrainer, write_weights  # noqa: E402
from lyra_core.training.layout.views import load_views, read_views, save_views  # noqa: E402
from lyra_core.types import Camera, Label  # noqa: E402

TINY = LayoutCfg(steps=6, batch=2, views=6, size=(32, 24), save_every=3, threads=1, warmup=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def views(folder, monkeypatch_module):
    monkeypatch_module.setattr("lyra_core.training.layout.views.SCENES_PER_FILE", 2)
    return load_views(folder, 6, long_side=48)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_views_are_kept_and_read_back(folder, views, tmp_path):
    files = sorted(folder.iterdir())
    assert len(files) == 1 and len(views) == 6
    again = load_views(folder, 6, long_side=48)
    for a, b in zip(views, again, strict=True):
        assert np.array_equal(a.rgb, b.rgb) and np.array_equal(a.depth, b.depth, equal_nan=True)
    save_views(tmp_path / "cut.npz", views)
    with np.load(tmp_path / "cut.npz") as data:
        parts = {name: data[name] for name in data.files}
    np.savez(tmp_path / "cut.npz", **parts | {"labels": parts["labels"][:-7]})
    with pytest.raises(WorldError, match="different lengths"):
        read_views(tmp_path / "cut.npz")


def test_a_stopped_run_ends_with_the_same_bytes(views, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    LayoutTrainer(TINY, views, whole).run()
    first = LayoutTrainer(TINY, views, stopped)
    for _ in range(3):
        first.train_step()
    first._save([{"classes": 0.0, "depth": 0.0}])
    with pytest.raises(ConfigError, match="--resume"):
        LayoutTrainer(TINY, views, stopped)
    LayoutTrainer(TINY, views, stopped, resume=True).run()
    assert (whole / WEIGHTS).read_bytes() == (stopped / WEIGHTS).read_bytes()


def test_a_run_may_begin_with_other_weights(views, tmp_path):
    first = LayoutTrainer(TINY, views, tmp_path / "a")
    write_weights(tmp_path / "w.safetensors", dict(first.network.named_parameters()))
    other = LayoutTrainer(replace(TINY, seed=9), views, tmp_path / "b", start=tmp_path / "w.safetensors")
    for (name, p), q in zip(first.network.named_parameters(), other.network.parameters(), strict=True):
        assert torch.equal(p.half().float(), q), name


def test_it_learns_the_layout(views, tmp_path):
    """Eighty steps on six views: all losses fall well below what they were."""
    cfg = LayoutCfg(steps=80, batch=4, views=6, size=(96, 64), threads=1, warmup=5, learning_rate=1e-3)
    trainer = LayoutTrainer(cfg, views, tmp_path)
    losses = [trainer.train_step() for _ in range(80)]
    first, last = ({name: np.mean([x[name] for x in part]) for name in part[0]} for part in (losses[:4], losses[-8:]))
    assert last["classes"] < 0.85 * first["classes"] and last["edges"] < 0.8 * first["edges"]
    assert last["depth"] < first["depth"] - 0.1 and last["height"] < first["height"] - 0.5


def test_workers_change_nothing(views, tmp_path):
    one = LayoutTrainer(TINY, views, tmp_path / "a").run()
    other = LayoutTrainer(replace(TINY, workers=2), views, tmp_path / "b").run()
    assert one == other


@pytest.mark.parametrize("size", [(96, 160), (160, 122), (62, 34)])
def test_numpy_gives_what_torch_gives(size, tmp_path):
    torch.manual_seed(0)
    net = LayoutNet().eval()
    x = np.random.default_rng(0).standard_normal((5, *size)).astype(np.float32)
    with torch.no_grad():
        torch.nn.init.normal_(net.encoder.rays.weight, std=0.1)
        write_weights(tmp_path / "w.safetensors", dict(net.named_parameters()))
        loaded = prior.read_weights.__wrapped__(tmp_path / "w.safetensors")
        net.load_state_dict({name: torch.from_numpy(value) for name, value in loaded.items()})
        pixels, picture = (part[0].numpy() for part in net(torch.from_numpy(x)[None]))
    got, of_picture = prior.forward(loaded, x)
    assert got.shape == pixels.shape == (7, size[0] // 2, size[1] // 2)
    np.testing.assert_allclose(got, pixels, atol=1e-4 * pixels.std())
    np.testing.assert_allclose(of_picture, picture, atol=1e-4)


def floor_view(*, size=(96, 72), height=1.5, pitch=0.25):
    camera, T = Camera.from_focal(80, *size), from_yaw_pitch(np.array([0.0, 0.0, height]), 0.7, -pitch)
    rays = camera.rays().astype(float) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        depth = np.where(rays[..., 2] < -0.02, -height / rays[..., 2], np.nan)
    labels = np.where(np.isfinite(depth), Label.FLOOR, Label.SKY).astype(np.uint8)
    rgb = np.random.default_rng(0).integers(0, 255, (*depth.shape, 3), np.uint8)
    return View(rgb, depth, labels, np.where(np.isfinite(depth), 0, -1), camera.K, T[:3, :3], height, False)


def test_a_floors_depth_stands_in_the_inputs(monkeypatch):
    """Whatever the crop, mirror and scale: the ray's channel is camera height over depth where floor is seen."""
    monkeypatch.setattr("lyra_core.training.layout.augment._misread", lambda R, rng: R)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        got = example(floor_view(), rng, (48, 32))
        focal_error = 0.4
        sink = (got.inputs[3, ::2, ::2] + got.inputs[3, 1::2, 1::2]) / 2
        floor = (got.classes == 0) & (sink > 0.08)
        ratio = np.log(sink[floor]) + got.log_depth[floor]
        assert floor.any() and np.abs(np.median(ratio)) < focal_error
        assert (got.classes[~np.isfinite(got.log_depth)] == 4).all()


def test_repainting_keeps_what_is_where(views):
    view = views[0]
    for seed in range(5):
        other = repainted(view, np.random.default_rng(seed))
        assert other.shape == view.rgb.shape and other.dtype == np.uint8 and (other != view.rgb).mean() > 0.05


def test_unknown_pixels_teach_nothing():
    torch.manual_seed(0)
    out = torch.randn(1, 7, 4, 4, requires_grad=True)
    labels, depth = torch.full((1, 4, 4), -1), torch.full((1, 4, 4), torch.nan)
    labels[0, 0, 0], depth[0, 1, 1] = 2, 0.3
    losses = layout_loss(out, torch.zeros(1, 3), labels, depth, torch.zeros(1), torch.zeros(1))
    (losses["classes"] + losses["depth"] + losses["edges"]).backward()
    assert out.grad is not None
    touched = out.grad[0].abs().sum(0) > 0
    assert touched.sum() == 2 and touched[0, 0] and touched[1, 1]


def test_bad_weights_and_settings_are_refused(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{\"a\":")
    with pytest.raises(InputError, match=r"cut\.safetensors"):
        prior.read_weights(tmp_path / "cut.safetensors")
    with pytest.raises(ConfigError, match="layout: size"):
        LayoutCfg(size=(24, 32))
