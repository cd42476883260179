"""Depth Pro through transformers at tiny size: against the published formulas, and the library's own processor and pipeline.

The library's processor wants torchvision; where that cannot be imported the formulas alone judge.
"""

from __future__ import annotations

import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lyra_core.backends import resolve
from lyra_core.config import DepthCfg, PhotoCfg
from lyra_core.depth.depth_pro import DepthPro
from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.photo.load import load_photo
from lyra_core.photo.read import read_photo
from lyra_core.scenes.demo import DEMO_PHOTO
from lyra_core.types import Label, Photo

FIELD_OF_VIEW = 62.0
"""About what the tiny model answers [deg]."""


def tiny_folder(folder: Path, *, fov: float = FIELD_OF_VIEW, half: bool = False, use_fov_model: bool = True) -> str:
    """Write a tiny random Depth Pro as transformers stores one; its inverse depth is about 0.3 per metre."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    encoder = {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
               "patch_size": 4, "image_size": 16}
    config = transformers.DepthProConfig(
        patch_size=16, fusion_hidden_size=16, intermediate_hook_ids=[1, 0], intermediate_feature_dims=[8, 8],
        scaled_images_ratios=[0.25, 0.5, 1], scaled_images_overlap_ratios=[0.0, 0.5, 0.25], scaled_images_feature_dims=[12, 12, 8],
        merge_padding_value=1, use_fov_model=use_fov_model, num_fov_head_layers=1, image_model_config=dict(encoder),
        patch_model_config=dict(encoder), fov_model_config=dict(encoder),
    )
    model = transformers.DepthProForDepthEstimation(config).eval()
    with torch.no_grad():
        # A random last layer answers zero or thousands; what is put before the weights keeps it a place and a camera.
        model.head.layers[-2].weight *= 0.001
        model.head.layers[-2].bias.fill_(0.3)
        if use_fov_model:
            model.fov_model.head.layers[-1].weight *= 0.1
            model.fov_model.head.layers[-1].bias.fill_(fov)
    (model.half() if half else model).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "DepthProImageProcessor", "size": {"height": 64, "width": 64}, "do_resize": true, '
        '"do_rescale": true, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2}')
    return str(folder)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("depth_pro"))


@pytest.fixture(scope="module")
def torchvision():
    """Skip where transformers' processor of Depth Pro cannot run."""
    try:
        import torchvision.transforms.v2.functional as found
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision: {error}")
    return found


def photo_of(width: int, height: int, focal_px: float | None = None) -> Photo:
    rgb = np.ascontiguousarray(cv2.resize(load_photo(DEMO_PHOTO).rgb, (width, height), interpolation=cv2.INTER_AREA))
    return Photo(rgb, "0" * 64, "picture.jpg", focal_px, "none" if focal_px is None else "user")


@pytest.fixture(scope="module")
def reading():
    return read_photo(photo_of(640, 427), PhotoCfg(), size=160)


def provider_of(folder: str | Path) -> DepthPro:
    return resolve("depth", "depth_pro")(DepthCfg(provider="depth_pro", model=str(folder)))


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024)], ids=["landscape", "portrait"])
def test_equals_the_librarys_pipeline(torchvision, model_folder, size):
    from PIL import Image
    from transformers import pipeline

    photo = photo_of(*size)
    theirs = pipeline("depth-estimation", model=model_folder, device="cpu")
    depth, focal = provider_of(model_folder).predict(photo.rgb, *size, focal_px=None)
    want = theirs(Image.fromarray(photo.rgb))["predicted_depth"].numpy()
    assert depth.shape == want.shape == size[::-1] and depth.dtype == np.float32
    assert np.ptp(want) > 1e-3, "a constant answer would hide a picture turned or squeezed"
    np.testing.assert_allclose(depth, want, rtol=1e-5)
    assert focal == pytest.approx(size[0] / 2 / np.tan(np.deg2rad(FIELD_OF_VIEW) / 2), rel=0.1)


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024)], ids=["landscape", "portrait"])
def test_what_comes_before_and_after_the_model_is_as_published(model_folder, size):
    """Bochkovskii et al. 2025: the picture squeezed into a square from -1 to 1; f = W / (2 tan(fov / 2)); depth = f / (W C)."""
    import torch
    from transformers import DepthProForDepthEstimation

    photo, provider, (width, height) = photo_of(*size), provider_of(model_folder), (size[0] // 2, size[1] // 2)
    shown = cv2.resize(photo.rgb.astype(np.float32) / 127.5 - 1, (64, 64), interpolation=cv2.INTER_LINEAR)
    pixels = provider.pixels(photo.rgb)
    assert pixels.shape == (1, 3, 64, 64)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), shown, atol=1e-4)
    with torch.no_grad():
        seen = DepthProForDepthEstimation.from_pretrained(model_folder).eval()(pixels)
    own = width / 2 / np.tan(np.deg2rad(float(seen.field_of_view[0])) / 2)
    for given in (None, 123.0):
        inverse = seen.predicted_depth[0].numpy() * width / (given or own)
        depth, focal = provider.predict(photo.rgb, width, height, focal_px=given)
        assert focal == pytest.approx(given or own, rel=1e-5) and depth.shape == (height, width) and depth.dtype == np.float32
        want = 1 / np.clip(cv2.resize(inverse, (width, height), interpolation=cv2.INTER_LINEAR), 1e-4, 1e4)
        np.testing.assert_allclose(depth, want, rtol=1e-3)
        assert np.ptp(want) > 1e-3, "a constant answer would hide a picture turned or squeezed"


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024)], ids=["landscape", "portrait"])
def test_focal_length_and_pixels_equal_the_processors(torchvision, model_folder, size):
    """At the working size: the library's processor for that size."""
    import torch
    from transformers import DepthProForDepthEstimation, DepthProImageProcessor

    photo, (width, height) = photo_of(*size), (size[0] // 2, size[1] // 2)
    processor = DepthProImageProcessor.from_pretrained(model_folder)
    pixels = processor(images=photo.rgb, return_tensors="pt")
    np.testing.assert_allclose(pixels["pixel_values"].numpy(), provider_of(model_folder).pixels(photo.rgb).numpy(), atol=1e-5)
    with torch.no_grad():
        seen = DepthProForDepthEstimation.from_pretrained(model_folder).eval()(**pixels)
    want = processor.post_process_depth_estimation(seen, [(height, width)])[0]
    depth, focal = provider_of(model_folder).predict(photo.rgb, width, height, focal_px=None)
    np.testing.assert_allclose(depth, want["predicted_depth"].numpy(), rtol=1e-5)
    assert focal == pytest.approx(float(want["focal_length"]), rel=1e-5)


def test_a_known_focal_length_is_used_in_place_of_the_models(model_folder, reading):
    photo = photo_of(640, 427)
    provider, width = provider_of(model_folder), reading.camera.width
    provider.check(photo)
    own = provider.estimate(photo, reading)
    _, focal = provider.predict(photo.rgb, width, reading.camera.height, focal_px=None)
    assert own.camera.K[0, 0] == own.camera.K[1, 1] == pytest.approx(focal)
    assert abs(own.camera.K[0, 0] / reading.camera.K[0, 0] - 1) > 1e-3, "the reading's guess is not kept"
    assert any("depth model's own estimate" in note for note in own.notes)
    told = replace(photo, focal_px=2 * focal * 640 / width, focal_source="exif")
    reading = replace(reading, camera=told.camera(2 * focal, width, reading.camera.height))
    given = provider.estimate(told, reading)
    assert given.camera is reading.camera and not any("own estimate" in note for note in given.notes)
    both = np.isfinite(own.depth) & np.isfinite(given.depth)
    assert both.mean() > 0.3
    np.testing.assert_allclose(given.depth[both], 2 * own.depth[both], rtol=1e-3)


def test_estimate_is_measured_where_it_is_known(model_folder, reading):
    labels = reading.labels.copy()
    labels[:30] = Label.SKY
    reading = replace(reading, labels=labels)
    found = provider_of(model_folder).estimate(photo_of(640, 427), reading)
    assert found.source == "depth_pro" and found.depth.shape == found.labels.shape
    assert found.measured is not None and np.array_equal(found.measured, np.isfinite(found.depth)) and found.measured.any()
    sky = reading.labels == Label.SKY
    assert not np.isfinite(found.depth[sky]).any() and (found.labels[sky] == Label.SKY).all()
    assert any("Apple Machine Learning Research Model License" in note for note in found.notes)


def test_half_precision_weights_run_in_full(tmp_path):
    import torch
    from transformers import DepthProForDepthEstimation

    folder, photo = tiny_folder(tmp_path, half=True), photo_of(640, 427)
    assert DepthProForDepthEstimation.from_pretrained(folder).dtype == torch.float16, "as the library would run it"
    provider = provider_of(folder)
    with torch.no_grad():
        seen = DepthProForDepthEstimation.from_pretrained(folder).float().eval()(provider.pixels(photo.rgb))
    depth, focal = provider.predict(photo.rgb, 64, 64, focal_px=None)
    assert focal == pytest.approx(32 / np.tan(np.deg2rad(float(seen.field_of_view[0])) / 2), rel=1e-5)
    assert depth.shape == (64, 64) and np.isfinite(depth).all()
    np.testing.assert_allclose(np.median(depth), np.median(focal / 64 / seen.predicted_depth[0].numpy()), rtol=0.02)


def test_the_licence_is_said_once_before_loading(model_folder, caplog):
    provider, photo = provider_of(model_folder), photo_of(96, 64)
    with caplog.at_level(logging.WARNING, logger="lyra_core.depth.depth_pro"):
        provider.predict(photo.rgb, 96, 64, focal_px=80.0)
        provider.predict(photo.rgb, 96, 64, focal_px=80.0)
    said = [record.getMessage() for record in caplog.records if record.name == "lyra_core.depth.depth_pro"]
    assert len(said) == 1 and "apple-amlr" in said[0] and "research purposes only" in said[0] and "\n" not in said[0]


def test_a_model_that_cannot_tell_the_focal_length(tmp_path):
    blind = provider_of(tiny_folder(tmp_path / "blind", use_fov_model=False))
    with pytest.raises(InputError, match="without estimate of the focal length"):
        blind.check(photo_of(96, 64))
    told = photo_of(96, 64, 80.0)
    blind.check(told)
    assert np.isfinite(blind.predict(told.rgb, 96, 64, focal_px=80.0)[0]).all()
    nonsense = provider_of(tiny_folder(tmp_path / "nonsense", fov=-20.0))
    with pytest.raises(InputError, match=r"got a field of view of .* expected 3 to 150; say the focal length"):
        nonsense.predict(told.rgb, 96, 64, focal_px=None)


def test_missing_and_wrong_models_are_named(model_folder, tmp_path):
    photo = load_photo(DEMO_PHOTO)
    with pytest.raises(BackendUnavailable, match=r"hf download nobody/no-such-model \(Apple Machine Learning Research"):
        provider_of("nobody/no-such-model").check(photo)
    with pytest.raises(BackendUnavailable, match="neither a folder nor in the hub's cache"):
        provider_of(tmp_path / "nowhere").check(photo)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="got model type 'bert', expected 'depth_pro'"):
        provider_of(tmp_path).check(photo)


def test_pickled_weights_are_refused_before_they_are_read(model_folder, tmp_path):
    photo, folder = load_photo(DEMO_PHOTO), tmp_path / "pickled"
    shutil.copytree(model_folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackendUnavailable, match=r"has no model\.safetensors"):
        provider_of(folder).check(photo)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    for act in (lambda: provider_of(folder).check(photo), lambda: provider_of(folder).predict(photo.rgb, 96, 64, focal_px=80.0)):
        with pytest.raises(InputError, match=r"got pickled weights .* expected model\.safetensors"):
            act()


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_package_is_named(model_folder, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendUnavailable, match=rf"{package} is not installed.*lyra-worlds\[lyra2\]"):
        provider_of(model_folder).check(load_photo(DEMO_PHOTO))
