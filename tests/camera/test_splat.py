"""The fast forward warp against the readable one, recorded numbers, and its own order of additions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lyra_core.camera import splat
from lyra_core.camera.splat import splat_frames
from lyra_core.camera.warp import Warped, continuous_depth, forward_warp
from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.types import Camera, Trajectory

RECORDED = Path(os.environ.get("LYRA2_GOLDEN") or Path(__file__).resolve().parents[1] / "assets" / "lyra2_golden")
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
"""From pixel centres at integers to pixel centres at +0.5."""
CAMERA = Camera(np.array([[40.0, 0.6, 23.1], [0, 41.0, 15.2], [0, 0, 1]]), 48, 32)


def path(seed: int, count: int, *, width: int = 48, height: int = 32) -> Trajectory:
    """Return cameras that move and turn at random by up to about a metre and 20 degrees."""
    rng = np.random.default_rng(seed)
    poses = []
    for s in np.linspace(0, 1, count):
        a, b = s * rng.normal(size=2) * 0.2
        yaw = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        pitch = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = yaw @ pitch, s * rng.normal(size=3) * 0.4
        poses.append(T)
    K = np.tile(CAMERA.K, (count, 1, 1)) * rng.uniform(0.9, 1.1, (count, 1, 1))
    K[:, 2] = 0, 0, 1
    return Trajectory(np.stack(poses), K, width, height)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return values (H, W, 4), depth with holes, a mask and T_world_camera."""
    rng = np.random.default_rng(seed)
    depth = (rng.uniform(0.2, 6) + rng.uniform(0, 4, (32, 48))).astype(np.float32)
    depth[8:16, 10:30] = rng.uniform(0.3, 2)
    depth[rng.random((32, 48)) < 0.1] = rng.choice([np.nan, 0.0, -1.0, 3e4])
    T = np.eye(4)
    T[:3, 3] = rng.normal(size=3)
    return rng.normal(size=(32, 48, 4)).astype(np.float32) * 100, depth, rng.random((32, 48)) < 0.8, T


def readable(values, depth, mask, camera, T, targets, batch=16) -> Warped:
    parts = [forward_warp(values, depth, camera, T, targets[i : i + batch], mask=mask) for i in range(0, len(targets), batch)]
    return Warped(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("values", "depth", "covered")))


def same_bytes(a: Warped, b: Warped) -> bool:
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("values", "depth", "covered"))


def assert_close(fast: Warped, slow: Warped, scale: float) -> None:
    assert np.array_equal(fast.covered, slow.covered)
    assert np.abs(fast.values - slow.values).max(initial=0) <= 1e-6 * scale
    np.testing.assert_allclose(fast.depth, slow.depth, rtol=1e-6, equal_nan=True)


def test_recorded_numbers():
    data = dict(np.load(RECORDED / "forward_warp.npz", allow_pickle=False))
    # The reference puts unknown depth at its clamp of 10 km and splats it; ours would leave it out.
    depth = np.where(data["depth_raw"] == -9999, np.float32(1e4), data["depth_raw"])
    height, width = depth.shape
    camera, T = Camera(data["src_K"].astype(float) + HALF, width, height), np.linalg.inv(data["src_w2c"].astype(float))
    targets = Trajectory(np.linalg.inv(data["tgt_w2c"].astype(float)), data["tgt_K"].astype(float) + HALF, width, height)
    for mask, case in ((continuous_depth(depth), "clean"), (np.ones(depth.shape, bool), "raw")):
        out = splat_frames(data["image"].transpose(1, 2, 0), depth, mask, camera, T, targets)
        image = np.where(out.covered[..., None], np.clip(out.values, -1, 1), -1).transpose(0, 3, 1, 2)
        assert np.array_equal(out.covered, data[f"{case}_mask"][:, 0].astype(bool))
        assert (np.abs(image - data[f"{case}_image"]) < 1e-3).mean() >= 0.999
        assert (np.abs(np.nan_to_num(out.depth) - data[f"{case}_depth"]) < 1e-3).mean() >= 0.999


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_the_readable_version_in_batches(seed):
    values, depth, mask, T = scene(seed)
    targets = path(seed, 37, width=44, height=35)
    fast = splat_frames(values, depth, mask, CAMERA, T, targets)
    assert_close(fast, readable(values, depth, mask, CAMERA, T, targets), 400)
    assert 0.05 < fast.covered.mean() < 0.95
    # Another batch is another result: the largest depth is common to a batch.
    other = splat_frames(values, depth, mask, CAMERA, T, targets, batch=5)
    assert_close(other, readable(values, depth, mask, CAMERA, T, targets, batch=5), 400)
    assert np.abs(other.values - fast.values).max() > 1e-3


def test_masked_pixels_count_for_the_largest_depth_as_the_world_origin():
    """The world origin, 50 m before the targets, makes the weights of 2 and 3 m less different than they would be alone."""
    depth = np.where(np.arange(48) % 2, 2.0, 3.0)[None].repeat(32, 0).astype(np.float32)
    T = np.eye(4)
    T[2, 3] = -50.0
    targets = Trajectory(T[None], CAMERA.K[None], 48, 32)
    T_shifted = T.copy()
    T_shifted[0, 3] = 0.02
    mask = np.ones((32, 48), bool)
    mixed = []
    for mask[0, 0] in (True, False):
        args = depth[..., None], depth, mask.copy(), CAMERA, T_shifted, targets
        assert_close(splat_frames(*args), readable(*args), 3)
        mixed.append(splat_frames(*args).depth[0, 16, 10:40])
    assert np.abs(mixed[0] - mixed[1]).max() > 0.01


def test_order_of_additions_does_not_matter():
    """Bytes are the same on every run, and with the source pixels in any order, as parallel threads would take them."""
    values, depth, mask, T = scene(7)
    targets = path(7, 5)
    first = splat_frames(values, depth, mask, CAMERA, T, targets)
    assert all(same_bytes(first, splat_frames(values, depth, mask, CAMERA, T, targets)) for _ in range(3))
    wp, _ = splat.warp_and_kernels()
    order = np.random.default_rng(0).permutation(depth.size)
    with wp.ScopedDevice("cpu"):
        planes = np.where(mask[..., None], values, 0).reshape(-1, 4).T
        source = splat.lift(
            wp.array(planes[:, order], dtype=wp.float32), wp.array([np.abs(planes).max()], dtype=wp.float32),
            wp.array(depth.ravel(), dtype=wp.float32), wp.array(mask.ravel(), dtype=wp.bool), 48, CAMERA.K, T,
        )
        shuffled = replace(source, points=wp.array(source.points.numpy()[order], dtype=wp.vec3d),
                           kept=wp.array(source.kept.numpy()[order], dtype=wp.bool))
        area = 48 * 32
        out = wp.empty((5, 4, area), dtype=wp.float32), wp.empty((5, area), dtype=wp.float32), wp.empty((5, area), dtype=wp.bool)
        splat.draw(shuffled, splat.place_targets(targets.K, targets.T_world_camera, 48, 32, 16), range(5), *out)
        assert out[0].numpy().tobytes() == np.moveaxis(first.values, -1, 1).tobytes()
        assert out[1].numpy().tobytes() == first.depth.tobytes() and out[2].numpy().tobytes() == first.covered.tobytes()


def test_edge_cases():
    values, depth, _, T = scene(8)
    depth = np.nan_to_num(depth, nan=1.0, posinf=1.0).clip(0.5, 9)
    everything = np.ones(depth.shape, bool)
    ahead = Trajectory(T[None], CAMERA.K[None], 48, 32)
    behind, beside = T.copy(), T.copy()
    behind[:3, :3] = np.diag([-1.0, 1.0, -1.0])
    beside[0, 3] += 1000
    elsewhere = Trajectory(np.stack([behind, beside]), np.stack([CAMERA.K] * 2), 48, 32)
    for mask, targets in ((~everything, ahead), (everything, elsewhere)):
        out = splat_frames(values, depth, mask, CAMERA, T, targets)
        assert not out.covered.any() and not out.values.any() and np.isnan(out.depth).all()
    one = np.zeros(depth.shape, bool)
    one[5, 7] = True
    out = splat_frames(values, depth, one, CAMERA, T, ahead)
    assert np.argwhere(out.covered[0]).tolist() == [[5, 7]]
    np.testing.assert_allclose(out.values[0, 5, 7], values[5, 7], rtol=1e-6)
    np.testing.assert_allclose(out.depth[0, 5, 7], depth[5, 7], rtol=1e-6)
    nothing = splat_frames(np.zeros((32, 48, 1)), depth, everything, CAMERA, T, ahead[:0])
    assert nothing.values.shape == (0, 32, 48, 1) and nothing.depth.shape == (0, 32, 48)
    assert not splat_frames(np.zeros((32, 48, 1)), depth, everything, CAMERA, T, ahead).values.any()


def test_a_whole_picture_in_one_pixel_does_not_overflow():
    depth = np.full((32, 48), 2.0, np.float32)
    T = np.eye(4)
    T[2, 3] = -5000.0
    rng = np.random.default_rng(0)
    values = (rng.random((32, 48, 1)) + 1e6).astype(np.float32)
    args = values, depth, depth > 0, CAMERA, np.eye(4), Trajectory(T[None], CAMERA.K[None], 48, 32)
    out = splat_frames(*args)
    assert out.covered.sum() <= 4
    assert_close(out, readable(*args), 1e6)


def test_wrong_input_is_named(monkeypatch):
    values, depth, mask, T = scene(9)
    targets = path(9, 1)
    with pytest.raises(InputError, match=r"splat_frames: mask: got shape \(31, 48\), expected \(32, 48\)"):
        splat_frames(values, depth, mask[1:], CAMERA, T, targets)
    values[3, 4] = np.nan
    mask[3, 4] = False
    assert np.isfinite(splat_frames(values, depth, mask, CAMERA, T, targets).values).all()
    mask[3, 4] = True
    with pytest.raises(InputError, match="values: got NaN or infinity inside the mask"):
        splat_frames(values, depth, mask, CAMERA, T, targets)
    monkeypatch.setitem(__import__("sys").modules, "warp", None)
    with pytest.raises(BackendUnavailable, match="pip install warp-lang"):
        splat_frames(values, depth, ~mask, CAMERA, T, targets)


def test_torch_entry_gives_the_same_bytes():
    torch = pytest.importorskip("torch")
    from lyra_core.camera import _torch_splat

    values, depth, mask, T = scene(10)
    targets = path(10, 20)
    expected = splat_frames(values, depth, mask, CAMERA, T, targets)
    planes = torch.from_numpy(values).permute(2, 0, 1)
    args = planes, torch.from_numpy(depth), torch.from_numpy(mask), CAMERA.K, torch.from_numpy(T), torch.from_numpy(targets.K)
    got, z, covered = _torch_splat.splat_torch(*args, targets.T_world_camera)
    assert got.permute(0, 2, 3, 1).numpy().tobytes() == expected.values.tobytes()
    assert z.numpy().tobytes() == expected.depth.tobytes() and covered.numpy().tobytes() == expected.covered.tobytes()
    some, _, _ = _torch_splat.splat_torch(*args, targets.T_world_camera, rows=[3, 18])
    assert torch.equal(some, got[[3, 18]])
    with pytest.raises(InputError, match=r"got values \(4, 32, 48\), depth \(32, 48\), mask \(31, 48\)"):
        _torch_splat.splat_torch(planes, args[1], args[2][1:], *args[3:], targets.T_world_camera)


def test_torch_depth_masks_are_those_of_numpy():
    torch = pytest.importorskip("torch")
    from lyra_core.camera._torch_splat import continuous_depth as continuous_torch

    for seed in range(4):
        _, depth, _, _ = scene(seed)
        depth[16:] = 2 + 0.02 * np.arange(48) * np.arange(16)[:, None] / 16
        expected = continuous_depth(depth)
        assert np.array_equal(continuous_torch(torch.from_numpy(depth)).numpy(), expected) and 0.1 < expected.mean() < 0.9


def test_extent_over_all_targets_is_that_of_drawing_all():
    torch = pytest.importorskip("torch")
    from lyra_core.camera import _torch_splat as ts

    for seed in range(4):
        values, depth, mask, T = scene(seed)
        targets = path(seed, 24)
        depth = np.nan_to_num(depth, nan=0.0)
        all_depths = np.nan_to_num(splat_frames(values, depth, mask, CAMERA, T, targets).depth)
        planes, *rest = (torch.from_numpy(array) for array in (values.transpose(2, 0, 1), depth, mask))
        with ts.on_device_of(planes):
            source = ts.lift_torch(planes, *rest, CAMERA.K, T)
            cameras = splat.place_targets(targets.K, targets.T_world_camera, 48, 32, 16)
            largest, rows = splat.largest_depths(source, cameras), range(3, 24, 4)
            drawn = ts.draw_torch(source, cameras, rows, largest=largest)[1]
            found = ts.depth_extent(source, cameras, drawn, rows, largest=largest, known=(np.inf, 0.0))
        assert found == (all_depths.min(), all_depths.max())


def test_kernels_compile_for_cuda_without_fused_multiply_add(tmp_path):
    """A CUDA device rounds every step as a CPU does, seen in the code made for it; none is needed to make that."""
    wp, kernels = splat.warp_and_kernels()
    if not hasattr(wp, "compile_aot_module"):
        pytest.skip("this version of warp cannot compile without a device")
    try:
        wp.compile_aot_module(kernels, device=None, arch=80, module_dir=str(tmp_path), use_ptx=True)
    except RuntimeError as error:
        pytest.skip(f"warp cannot compile for CUDA here: {error}")
    (ptx,) = tmp_path.glob("*.ptx")
    code = ptx.read_text()
    assert "mul.rn.f64" in code and "fma.rn.f64" not in code
