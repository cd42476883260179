"""Depth Anything through transformers at tiny size, its alignment on an exactly known scene, and the other version's process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scene_depth import DepthFromScene, depth_at

from lyra_core.backends import make_frame_depth
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.depth_anything import DepthAnything
from lyra_core.depth.depth_anything_3 import ENVIRONMENT, DepthAnything3
from lyra_core.errors import BackendUnavailable, ConfigError, InputError
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.scenes.demo import DEMO_PHOTO
from lyra_core.types import Camera, Frame

CAMERA = Camera.from_focal(60.0, 96, 64)


def frames_of(count, *, with_depth):
    """Return frames of the demo scene on a curve; the first looks as the demo picture does."""
    out = []
    for i in range(count):
        T = from_yaw_pitch(np.array([0.1 * i, 0.05 * i, 1.5]), 0.04 * i, -0.15)
        depth = depth_at(CAMERA, T) if with_depth else np.full((64, 96), np.nan, np.float32)
        out.append(Frame(np.full((64, 96, 3), i, np.uint8), depth, CAMERA, T, np.zeros((64, 96), np.uint8)))
    return out


class Distorted(DepthAnything):
    """A model whose output is the scene's depth, distorted per frame as monocular models do."""

    def __init__(self, frames, *, metric, factors):
        super().__init__(DepthCfg())
        self._truth = {int(f.rgb[0, 0, 0]): depth_at(f.camera, f.T_world_camera) for f in frames}
        self._metric, self._factors = metric, factors

    @property
    def is_metric(self):
        return self._metric

    def predict(self, rgb):
        i = int(rgb[0, 0, 0])
        rng = np.random.default_rng(i)
        depth = np.nan_to_num(self._truth[i], nan=50.0) * rng.lognormal(0, 0.02, (64, 96))
        return depth * self._factors[i] if self._metric else (1 / depth - 0.03) / self._factors[i]


@pytest.mark.parametrize("metric", [True, False])
def test_frames_come_into_the_scale_of_earlier_ones(metric):
    known, new = frames_of(1, with_depth=True), frames_of(9, with_depth=False)[1:]
    provider = Distorted(new, metric=metric, factors=1.5 + 0.05 * np.arange(10))
    depths = provider.estimate_frames(new, history=known)
    errors = [np.nanmedian(np.abs(d / depth_at(f.camera, f.T_world_camera) - 1)) for d, f in zip(depths, new, strict=True)]
    assert max(errors) < 0.06 and np.median(errors) < 0.04, errors
    alone = provider.estimate_frames(new, history=[])
    if metric:
        assert abs(np.nanmedian(alone[0] / depth_at(new[0].camera, new[0].T_world_camera)) - 1.55) < 0.1, "stays as predicted"
    assert all(np.isfinite(d).mean() > 0.5 for d in alone)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """Write a tiny random Depth Anything as transformers stores one."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folders = {}
    for kind in ("metric", "relative"):
        torch.manual_seed(0)
        backbone = transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=70, patch_size=14,
            out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
        )
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone, patch_size=14, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16],
            fusion_hidden_size=8, head_hidden_size=8, depth_estimation_type=kind, max_depth=20,
        )
        folder = tmp_path_factory.mktemp(kind)
        transformers.DepthAnythingForDepthEstimation(config).save_pretrained(folder)
        size = {"height": 70, "width": 70}
        transformers.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)
        folders[kind] = str(folder)
    return folders


@pytest.mark.parametrize("kind", ["metric", "relative"])
def test_real_model_code_at_tiny_size(model_folder, kind):
    provider = DepthAnything(DepthCfg(provider="depth_anything", model=model_folder[kind]))
    photo = load_photo(DEMO_PHOTO)
    provider.check(photo)
    assert provider.is_metric == (kind == "metric")
    frames = frames_of(3, with_depth=False)[1:]
    depths = provider.estimate_frames(frames, history=frames_of(1, with_depth=True))
    assert all(d.shape == (64, 96) and d.dtype == np.float32 for d in depths)
    again = DepthAnything(DepthCfg(model=model_folder[kind])).estimate_frames(frames, history=frames_of(1, with_depth=True))
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(depths, again, strict=True))
    if kind == "metric":
        reading = read_photo(photo, PhotoCfg(), size=256)
        estimate = provider.estimate(photo, reading)
        assert estimate.source == "depth_anything" and estimate.depth.shape == estimate.labels.shape
        assert any("Small models Apache-2.0; Base and Large CC-BY-NC-4.0" in note for note in estimate.notes)
        assert make_frame_depth(DepthCfg(provider="depth_anything", model=model_folder[kind])).is_metric


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("kind", ["metric", "relative"])
def test_equals_the_librarys_pipeline(model_folder, tmp_path, kind, size):
    """What comes before and after the model, on a picture of a photo's size.

    The pipeline enlarges its answer with bicubic weights, which overshoot at depth edges, and the provider with bilinear ones: the
    pipeline's answer at the model's size is enlarged by OpenCV.
    """
    import torch
    from PIL import Image
    from transformers import DepthAnythingForDepthEstimation, pipeline

    model = DepthAnythingForDepthEstimation.from_pretrained(model_folder[kind])
    with torch.no_grad():
        # Small random weights answer the same everywhere; larger ones see the picture, and the last keep the answer in range.
        for name, weight in model.named_parameters():
            weight *= 20.0 if name.startswith(("neck", "head")) and weight.ndim == 4 else 1.0
        model.head.conv3.weight *= 1e-5
    model.save_pretrained(tmp_path)
    shutil.copy(Path(model_folder[kind]) / "preprocessor_config.json", tmp_path)
    rgb = cv2.resize(load_photo(DEMO_PHOTO).rgb, size, interpolation=cv2.INTER_AREA)
    theirs = pipeline("depth-estimation", model=str(tmp_path), device="cpu")
    raw = theirs.forward(theirs.preprocess(Image.fromarray(rgb)))["predicted_depth"][0].numpy()
    got = DepthAnything(DepthCfg(model=str(tmp_path))).predict(rgb)
    assert got.shape == size[::-1]
    assert raw.std() > 0.02 * np.abs(raw).mean() > 0, "a constant answer would hide a picture turned or squeezed"
    np.testing.assert_allclose(got, cv2.resize(raw, size, interpolation=cv2.INTER_LINEAR), rtol=1e-4, atol=1e-4 * raw.std())


def test_missing_and_wrong_models_are_named(model_folder, tmp_path):
    pytest.importorskip("transformers")
    photo = load_photo(DEMO_PHOTO)
    with pytest.raises(BackendUnavailable, match="hf download nobody/no-such-model"):
        DepthAnything(DepthCfg(model="nobody/no-such-model")).check(photo)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="got model type 'bert'"):
        DepthAnything(DepthCfg(model=str(tmp_path))).check(photo)
    pickled = tmp_path / "pickled"
    shutil.copytree(model_folder["metric"], pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"got pickled weights .* expected model\.safetensors"):
        DepthAnything(DepthCfg(model=str(pickled))).check(photo)
    with pytest.raises(ConfigError, match="frames_provider: got 'geometric', which knows only the photo"):
        make_frame_depth(DepthCfg(frames_provider="geometric"))


def test_the_photos_provider_does_frames_where_it_can():
    provider = make_frame_depth(DepthCfg(provider=f"{DepthFromScene.__module__}:DepthFromScene"))
    assert isinstance(provider, DepthFromScene)


def test_version_3_names_its_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "python"))
    with pytest.raises(BackendUnavailable, match="make env-depth-anything-3"):
        DepthAnything3(DepthCfg())


def test_version_3_speaks_to_its_process():
    """Real package, random weights: depth of every view comes back in the known path's scale."""
    try:
        provider = DepthAnything3(DepthCfg(model="da3-small"))
    except BackendUnavailable as error:
        pytest.skip(f"{error} (or {ENVIRONMENT}={os.environ.get(ENVIRONMENT)})")
    new = frames_of(12, with_depth=False)[1:]
    depths = provider.estimate_frames(new, history=frames_of(1, with_depth=True))
    assert len(depths) == 11 and all(d.shape == (64, 96) for d in depths)
