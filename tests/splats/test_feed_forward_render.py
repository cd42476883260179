"""The differentiable renderer: the preview renderer's pictures, gsplat's numbers, gradients that finite differences confirm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from feed_forward_tiny import GOLDEN, hashgen, walk  # noqa: E402

from lyra_core.errors import BackendUnavailable, ConfigError  # noqa: E402
from lyra_core.splats._torch_render import _project, pick_renderer, render  # noqa: E402
from lyra_core.splats.from_frames import SH_C0, splats_from_frames  # noqa: E402
from lyra_core.splats.render import render_splats  # noqa: E402


def recorded_gaussians() -> dict[str, torch.Tensor]:
    means = hashgen(40, (40, 3), 1.0) * np.float32([1.6, 1.2, 1.0]) + np.float32([0, 0, 3])
    values = {"means": means, "quats_wxyz": hashgen(41, (40, 4), 1.0),
              "scales": np.exp(hashgen(42, (40, 3), 1.0) - np.float32(2.5)),
              "opacities": hashgen(43, (40,), 0.45) + np.float32(0.5), "rgb": hashgen(44, (40, 3), 0.5) + np.float32(0.5)}
    out = {name: torch.from_numpy(value) for name, value in values.items()}
    out["quats_wxyz"] = torch.nn.functional.normalize(out["quats_wxyz"], dim=1)
    return out


def recorded_camera() -> tuple[dict[str, np.ndarray], torch.Tensor, torch.Tensor]:
    with np.load(GOLDEN / "da3.npz") as data:
        golden = {name: data[name] for name in data.files if name.startswith("gsplat")}
    return golden, torch.from_numpy(golden["gsplat_K"]), torch.from_numpy(golden["gsplat_T_world_camera"])


def test_projection_and_picture_agree_with_gsplat():
    (golden, K, T), g = recorded_camera(), recorded_gaussians()
    center, cov, z, rows = _project(g["means"], g["quats_wxyz"], g["scales"], K, torch.linalg.inv(T), 64, 48)
    assert bool((z[1:] >= z[:-1]).all())
    det = cov[:, 0] * cov[:, 2] - cov[:, 1] ** 2
    conic = torch.stack([cov[:, 2] / det, -cov[:, 1] / det, cov[:, 0] / det], 1)
    # Beyond 15 % outside the picture gsplat bends the local projection; those Gaussians are not compared.
    near = ((center > -5) & (center < torch.tensor([73, 55]))).all(1).numpy()
    assert near.sum() >= 35
    for got, name in ((center, "centers"), (conic, "conics"), (z, "depths")):
        assert np.allclose(got.numpy()[near], golden[f"gsplat_{name}"][rows.numpy()][near], rtol=1e-5, atol=1e-5), name
    shown = render(**g, K=K, T_world_camera=T, width=64, height=48)
    off = np.abs(torch.cat([shown.rgb, shown.coverage[..., None]], 2)[::2, ::2].numpy() - golden["gsplat_image"])
    assert off.max() < 2e-5


def test_pictures_agree_with_the_preview_renderer():
    frame = walk(1)[0]
    cloud = splats_from_frames([frame], max_count=10**6)
    # Apart in depth: a flat wall's Gaussians would be sorted by rounding.
    cloud = replace(cloud, means=cloud.means + hashgen(51, cloud.means.shape, 1e-3))
    K, T = torch.from_numpy(frame.camera.K), torch.from_numpy(frame.T_world_camera)
    rgb = (0.5 + SH_C0 * torch.from_numpy(cloud.sh[:, 0])).clamp(min=0).double()
    arrays = (torch.from_numpy(a).double() for a in (cloud.means, cloud.quats_wxyz, cloud.scales, cloud.opacities))
    shown = render(*arrays, rgb, K=K, T_world_camera=T, width=96, height=64)
    picture, coverage = render_splats(cloud, frame.camera, frame.T_world_camera)
    assert np.abs(shown.rgb.numpy() * 255 - picture).max() < 0.501, "rounding to bytes"
    assert np.abs(shown.coverage.numpy() - coverage).max() < 1e-5
    depth = shown.depth.numpy()
    off = np.abs(depth - frame.depth) / frame.depth
    assert np.median(off) < 0.03 and np.quantile(off, 0.9) < 0.05, "Gaussians of a slanted floor overlap in depth"


def test_gradients_agree_with_finite_differences():
    _, K, T = recorded_camera()
    g = {name: value[:12].double().requires_grad_() for name, value in recorded_gaussians().items()}
    weight = torch.from_numpy(hashgen(50, (12, 16, 5), 1.0)).double()
    K = (K * torch.tensor([[0.25], [0.25], [1.0]])).double()

    def score(*values: torch.Tensor) -> torch.Tensor:
        shown = render(*values, K=K, T_world_camera=T.double(), width=16, height=12)
        coverage, depth = shown.coverage[..., None], shown.depth[..., None]
        return (torch.cat([shown.rgb, coverage, coverage * depth], 2) * weight).sum()

    values = [g[name] for name in ("means", "quats_wxyz", "scales", "opacities", "rgb")]
    score(*values).backward()
    rng, step = np.random.default_rng(0), 1e-5
    for value in values:
        direction = torch.from_numpy(rng.normal(size=tuple(value.shape)))
        with torch.no_grad():
            up, down = ([v + s * direction if v is value else v for v in values] for s in (step, -step))
            numeric = (score(*up) - score(*down)) / (2 * step)
        assert float(numeric) == pytest.approx(float((value.grad * direction).sum()), rel=1e-3, abs=1e-6)


def test_nothing_in_view_is_black():
    g, (_, K, T) = recorded_gaussians(), recorded_camera()
    g["means"] -= torch.tensor([0, 0, 50.0])
    shown = render(**g, K=K, T_world_camera=T, width=64, height=48)
    assert not shown.rgb.any() and not shown.coverage.any() and not shown.depth.any()


def test_renderer_is_picked_by_what_is_there():
    cpu = torch.device("cpu")
    assert pick_renderer("auto", cpu) == pick_renderer("torch", cpu) == "torch"
    with pytest.raises(BackendUnavailable, match="pip install gsplat"):
        pick_renderer("gsplat", cpu)
    with pytest.raises(ConfigError, match="expected 'auto'"):
        pick_renderer("fast", cpu)
