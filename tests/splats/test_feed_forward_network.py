"""The network: every recorded number of the published code is met, at its peculiar places too; weights load strictly."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from feed_forward_tiny import GOLDEN, TINY, hashgen, tiny_network  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from lyra_core.config import SplatCfg  # noqa: E402
from lyra_core.errors import InputError  # noqa: E402
from lyra_core.splats._torch_backbone import DA3Size, quats_xyzw  # noqa: E402
from lyra_core.splats._torch_da3 import (  # noqa: E402
    DA3,
    key_report,
    load_da3,
    match_keys,
    normalised_cameras,
    read_weights,
    save_da3,
    unit_per_metre,
)
from lyra_core.splats._torch_decode import decode_gaussians, rotations_xyzw  # noqa: E402
from lyra_core.splats.feed_forward import LICENCE, weights_licence  # noqa: E402

H, W = 56, 84


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "da3.npz") as data:
        return dict(data)


def inputs(golden) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    K, T = (torch.from_numpy(golden[name]) for name in ("K", "T_world_camera"))
    return torch.from_numpy(hashgen(1, (4, 3, H, W), 2.0)), K.float(), T


def close(got: torch.Tensor, want: np.ndarray) -> bool:
    assert got.shape == want.shape
    return np.allclose(got.detach().numpy(), want, rtol=2e-5, atol=2e-5)


def as_recorded(raw: torch.Tensor) -> torch.Tensor:
    return torch.cat([raw[:, :37], raw[:, 37:].sigmoid()], 1)


@torch.no_grad()
def test_recorded_numbers_are_met(golden):
    model, (images, K, T) = tiny_network(), inputs(golden)
    assert close(model.cam_enc(normalised_cameras(T), K, (H, W)), golden["tokens"])
    levels = model.features(images, K, T)
    for i, level in enumerate(levels):
        assert close(level[:, ::3], golden[f"level_{i}"])
    assert np.allclose(model.depth(levels, (H, W))[:, ::5, ::7], golden["depth"], rtol=5e-5)
    assert close(as_recorded(model.raw_gaussians(levels, images, 1))[..., ::9, ::11], golden["raw_1"])
    raw = model.raw_gaussians(levels, images, 2)
    assert close(as_recorded(raw)[..., ::5, ::7], golden["raw_2"])
    half = K.clone()
    half[:, :2] /= 2
    found = decode_gaussians(raw, torch.from_numpy(2 + hashgen(5, (4, H // 2, W // 2), 1.0)), half, T.float(), 1.7)
    for name, value in (("means", found.means), ("quats", found.quats_wxyz), ("scales", found.scales),
                        ("opacities", found.opacities), ("dc", found.dc)):
        assert close(value[:, ::3, ::5], golden[name]), name


@torch.no_grad()
def test_square_pictures_take_the_learned_positions_as_they_are(golden):
    model, (images, K, _) = tiny_network(), inputs(golden)
    picture = images[:1, :, :, 14:70].contiguous()
    levels = model.features(picture, K[:1], torch.eye(4)[None])
    assert close(as_recorded(model.raw_gaussians(levels, picture, 2))[..., ::4, ::4], golden["square_raw_2"])


@pytest.mark.parametrize("name", [
    "cam_enc.pose_branch.fc1.weight", "backbone.pretrained.blocks.4.attn.q_norm.weight",
    "backbone.pretrained.blocks.5.mlp.w12.weight", "gs_head.images_merger.0.weight",
    "gs_head.scratch.refinenet4.resConfUnit2.conv2.bias", "gs_head.resize_layers.3.weight",
])
@torch.no_grad()
def test_one_changed_weight_is_noticed(golden, name):
    model, (images, K, T) = tiny_network(), inputs(golden)
    model.state_dict()[name].flatten()[0] += 0.05
    raw = model.raw_gaussians(model.features(images, K, T), images, 2)
    assert not close(as_recorded(raw)[..., ::5, ::7], golden["raw_2"])


def test_groups_of_views_give_what_all_give_together():
    model, images = tiny_network(), torch.from_numpy(hashgen(3, (11, 3, 28, 42), 2.0))
    levels = [torch.from_numpy(hashgen(60 + i, (11, 6, 64), 1.0)) for i in range(4)]
    with torch.no_grad():
        assert torch.allclose(model.raw_gaussians(levels, images, 2), model.gs_head(levels, images, 2), atol=1e-5)


def test_every_published_name_is_needed_or_known():
    shapes = json.loads(gzip.decompress((GOLDEN / "published_keys.json.gz").read_bytes()))
    with torch.device("meta"):
        model = DA3(DA3Size())
        tensors = {f"model.{name}": torch.empty(shape) for name, shape in shapes.items()}
    report, _ = match_keys(tensors, model)
    assert report.ok and (report.loaded, report.unused) == (867, 516)
    single = {name.replace("da3.", "", 1): t for name, t in ((n.removeprefix("model."), t) for n, t in tensors.items())
              if name.startswith("da3.")}
    assert match_keys(single, model)[0].ok


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"module": s, "step": torch.tensor(3)}, lambda s: {"model": s}])
def test_published_layouts_load(tmp_path: Path, wrap):
    model = tiny_network()
    save_da3(tmp_path / "a.safetensors", model, licence="CC0")
    again = load_da3(tmp_path / "a.safetensors")
    assert again.size == TINY and all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    assert weights_licence(SplatCfg(weights=str(tmp_path / "a.safetensors"))) == "CC0" and weights_licence(SplatCfg()) == LICENCE
    state = {f"model.da3.{name}": t for name, t in model.state_dict().items()}
    torch.save(wrap({**state, "model.da3_metric.head.norm.weight": torch.ones(1), "ema.x": torch.ones(1)}), tmp_path / "b.pt")
    report, renamed = match_keys(read_weights(tmp_path / "b.pt")[0], model)
    assert report.ok and report.unused == 2
    assert all(torch.equal(t, renamed[name]) for name, t in model.state_dict().items())
    with pytest.raises(InputError, match=r"misshapen.* more"):  # a .pt file holds the giant
        load_da3(tmp_path / "b.pt")
    assert len(key_report(tmp_path / "b.pt").missing) > 500


def test_missing_and_unexpected_names_are_all_listed(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save_da3(tmp_path / "a.safetensors", tiny_network(), licence="CC0")
    said = {"lyra_worlds": json.dumps({"size": asdict(TINY), "licence": "CC0"})}
    tensors = load_file(tmp_path / "a.safetensors")
    gone = ["model.da3.gs_head.projects.0.bias", "model.da3.cam_enc.token_norm.bias"]
    for name in gone:
        tensors.pop(name)
    tensors["model.da3.gs_head.extra"] = torch.ones(2)
    save_file(tensors, tmp_path / "b.safetensors", metadata=said)
    with pytest.raises(InputError) as error:
        load_da3(tmp_path / "b.safetensors")
    assert all(name in str(error.value) for name in [*gone, "model.da3.gs_head.extra"])
    assert "2 missing" in str(error.value) and "1 unexpected" in str(error.value)


def test_other_pickles_are_refused(tmp_path: Path):
    torch.save({"model": {"model.da3.x": Path("/tmp")}}, tmp_path / "evil.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 not much")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10" * 30)
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("evil.pt", "cut.pt", "cut.safetensors", "list.pt", "absent.pt"):
        with pytest.raises(InputError, match=name):
            load_da3(tmp_path / name)


def test_unit_is_the_median_ratio_where_depth_is_known():
    depth = torch.from_numpy(2 + hashgen(9, (2, 8, 8), 1.0))
    predicted = depth * 3.7
    predicted[0, 0] = 100
    depth[1, 2] = torch.nan
    assert float(unit_per_metre(predicted, depth)) == pytest.approx(3.7)
    with pytest.raises(InputError, match="2 frames have no pixel"):
        unit_per_metre(predicted, torch.full_like(depth, torch.nan))


def test_rotations_agree_with_scipy():
    R = Rotation.random(500, random_state=0)
    want = R.as_quat()
    got = quats_xyzw(torch.from_numpy(R.as_matrix()))
    assert np.abs(np.abs((got.numpy() * want).sum(1)) - 1).max() < 1e-12 and bool((got[:, 3] >= 0).all())
    assert np.abs(rotations_xyzw(torch.from_numpy(want)).numpy() - R.as_matrix()).max() < 1e-12
