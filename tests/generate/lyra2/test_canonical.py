"""Correspondence channels and the main warp against numbers of the reference, and against drawing every frame."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lyra_core.camera.splat import splat_frames  # noqa: E402
from lyra_core.camera.warp import continuous_depth  # noqa: E402
from lyra_core.errors import InputError  # noqa: E402
from lyra_core.generate.lyra2.canonical import canonical_buffer, canonical_coordinates, folded, history_buffer, warp_main  # noqa: E402
from lyra_core.types import Camera, Trajectory  # noqa: E402

RECORDED = Path(os.environ.get("LYRA2_GOLDEN") or Path(__file__).resolve().parents[2] / "assets" / "lyra2_golden")
HALF = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def load(name: str) -> dict[str, np.ndarray]:
    """Return a recorded file with cameras as T_world_camera in float64."""
    data = dict(np.load(RECORDED / f"{name}.npz", allow_pickle=False))
    return data | {"T": np.linalg.inv(data["w2c"].astype(float)), "K": data["K"].astype(float)}


@pytest.fixture(scope="module")
def recorded():
    return load("canonical_coordinates")


@pytest.fixture(scope="module")
def assembled():
    return load("assembled_inputs")


def close(got, wanted) -> float:
    """Return the share of elements within the recordings' tolerance."""
    assert got.shape == wanted.shape
    return float((np.abs(np.asarray(got) - wanted) < 1e-3).mean())


def buffer_of(data, ids, known_ids, depths, targets, **options):
    """Return our buffer for retrieved ids given best LAST, as they are recorded."""
    best_first = ids[::-1].tolist()
    rows = [known_ids.tolist().index(frame_id) for frame_id in best_first]
    height, width = depths.shape[1:]
    return canonical_buffer(
        [torch.from_numpy(depths[row]) for row in rows], data["K"][best_first], data["T"][best_first], data["K"][targets],
        data["T"][targets], height=height, width=width, **options,
    )


def cases(name: str, ending: str) -> list[str]:
    with np.load(RECORDED / f"{name}.npz", allow_pickle=False) as data:
        return [key.removesuffix(ending) for key in data.files if key.endswith(ending)]


@pytest.mark.parametrize("case", cases("canonical_coordinates", "_buffer"))
def test_recorded_buffer(recorded, case):
    ids, wanted = recorded[f"{case}_ids"], recorded[f"{case}_buffer"]
    got = buffer_of(recorded, ids, recorded["frame_ids5"], recorded["frame_depths"], recorded["target_frames"])
    assert close(got, wanted) >= 0.999
    # The wrong order of slots, and a half pixel, would be noticed.
    swapped = buffer_of(recorded, ids[::-1], recorded["frame_ids5"], recorded["frame_depths"], recorded["target_frames"])
    shifted = buffer_of({**recorded, "K": recorded["K"] - HALF}, ids, recorded["frame_ids5"], recorded["frame_depths"],
                        recorded["target_frames"])
    assert close(shifted, wanted) < 0.98
    assert len(ids) < 2 or close(swapped, wanted) < 0.98


def test_recorded_range_and_first_slot(recorded):
    """Undo the normalisation with the recorded range: the depth of the best slot's first latent, and its coordinates."""
    slot, (low, high) = recorded["five_buffer"][:256, 0], recorded["five_depth_min_max"]
    whole = buffer_of(recorded, recorded["five_ids"], recorded["frame_ids5"], recorded["frame_depths"], recorded["target_frames"])
    got = whole[:256, 0]
    height, width = recorded["buffer_depth"].shape
    planes = torch.nn.functional.pixel_shuffle(got[None], 8)[0].numpy()
    assert planes.shape == (4, height, width) and slot.shape == got.shape
    assert close(planes[:3], recorded["slot0_warped_coords_frame3"]) >= 0.999
    assert close((planes[3] + 1) / 2 * (high - low) + low, recorded["slot0_warped_depth_frame3"]) >= 0.999
    # A joint range in which holes count as 0: the recorded hole has depth -1.
    assert low == 0 and (planes[3][recorded["slot0_warped_depth_frame3"] == 0] == -1).all()


def test_recorded_main_warp(recorded):
    frame, targets = int(recorded["buffer_frame"][0]), recorded["target_frames"]
    rgb, depth = torch.from_numpy(recorded["buffer_rgb"]), torch.from_numpy(recorded["buffer_depth"])
    got = warp_main(rgb, depth, recorded["K"][frame], recorded["T"][frame], recorded["K"][targets], recorded["T"][targets])
    assert close(got, recorded["warped_rgb"]) >= 0.999
    assert np.array_equal(got[0].numpy() == -1, recorded["warped_rgb"][0] == -1)
    assert abs((got[0] != -1).float().mean() - recorded["five_coverage"][0]) < 1e-3


@pytest.mark.parametrize("case", cases("assembled_inputs", "_buffer_new"))
def test_recorded_buffer_of_a_whole_chunk(assembled, case):
    """Eighty new frames in five batches of 16, cameras as the caller has them: float32 tensors."""
    data = {**assembled, "K": assembled["K"].astype(np.float32), "T": assembled["T"].astype(np.float32)}
    got = buffer_of(data, assembled[f"{case}_retrieved_ids"], assembled["cache_ids"], assembled["cache_depths"], slice(-80, None))
    assert close(got, assembled[f"{case}_buffer_new"]) >= 0.999


@pytest.mark.parametrize("case", cases("assembled_inputs", "_buffer_spatial"))
def test_recorded_buffer_of_the_retrieved_frames(assembled, case):
    wanted = assembled[f"{case}_buffer_spatial"]
    got = history_buffer(8 * wanted.shape[2], 8 * wanted.shape[3], slots=wanted.shape[1])
    assert close(got, wanted) == 1.0


def scene(seed: int, *, frames: int = 3, count: int = 80, backwards: bool = False):
    """Return depths, K, T of retrieved frames and T of targets that move by up to a metre along the view."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:48, :64]
    depths = [(4 + np.sin(x / 20 + k) + rng.uniform(0, 1) * y / 48).astype(np.float32) for k in range(frames)]
    sources, targets = np.tile(np.eye(4), (frames, 1, 1)), np.tile(np.eye(4), (count, 1, 1))
    sources[:, :3, 3] = rng.normal(size=(frames, 3)) * 0.1
    targets[:, :3, 3] = np.linspace(0, 1, count)[:, None] * [0.2 * rng.normal(), 0, -1.0 if backwards else 1.0]
    K = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])
    return depths, K, sources, targets


@pytest.mark.parametrize("backwards", [False, True])
def test_drawing_every_fourth_frame_equals_drawing_all(backwards):
    """The largest depth of a batch and the range of depths come from all frames, also when undrawn ones decide them."""
    depths, K, sources, targets = scene(1, backwards=backwards)
    tensors, Ks = [torch.from_numpy(d) for d in depths], np.tile(K, (80, 1, 1))
    got = canonical_buffer(tensors, [K] * 3, sources, Ks, targets, height=48, width=64)
    path = Trajectory(targets, Ks + HALF, 64, 48)
    coordinates = canonical_coordinates(48, 64, 5).flip(0).numpy()
    warped = [splat_frames(coordinates[i].transpose(1, 2, 0), depths[i], continuous_depth(depths[i]), Camera(K + HALF, 64, 48),
                           sources[i], path) for i in range(3)]
    depth = np.stack([np.nan_to_num(w.depth) for w in warped])
    low, high = depth.min(), depth.max()
    # Going ahead, the undrawn first frame sees farthest; the range of the drawn ones alone would be another.
    assert (depth[:, 3::4].max() < high) == (not backwards)
    planes = np.stack([np.where(w.covered[..., None], w.values, -1).transpose(0, 3, 1, 2) for w in warped])
    full = np.concatenate([planes, (2 * (depth - low) / (high - low) - 1)[:, :, None]], 2)[:, 3::4].swapaxes(1, 2)
    missing = np.full((2, 4, 20, 48, 64), -1.0, np.float32)
    missing[:, 3] = 1.0
    wanted = folded(torch.from_numpy(np.concatenate([full, missing]).astype(np.float32)))
    assert got.shape == (1280, 20, 6, 8)
    np.testing.assert_allclose(got.numpy(), wanted.numpy(), atol=2e-6)


def test_nothing_retrieved_is_all_padding():
    _, K, _, targets = scene(2)
    got = canonical_buffer([], [], [], np.tile(K, (80, 1, 1)), targets, height=48, width=64).reshape(5, 4, 64, 20, 6, 8)
    assert (got[:, :3] == -1).all() and (got[:, 3] == 1).all()


def test_a_frame_without_depth_keeps_its_slot():
    """A slot whose frame shows nothing is holes (depth -1), not padding (depth 1), and the next slot keeps its place."""
    depths, K, sources, targets = scene(3, frames=2)
    tensors = [torch.full((48, 64), float("nan")), torch.from_numpy(depths[1])]
    got = canonical_buffer(tensors, [K] * 2, sources, np.tile(K, (80, 1, 1)), targets, height=48, width=64).reshape(5, 4, -1)
    assert (got[0] == -1).all() and (got[2:, 3] == 1).all()
    assert set(got[1, 2].unique().tolist()) == {-1.0, 0.5}


def test_wrong_input_is_named():
    depths, K, sources, targets = scene(4, frames=2)
    tensors, Ks = [torch.from_numpy(d) for d in depths], np.tile(K, (80, 1, 1))
    with pytest.raises(InputError, match="depths: got 2 frames, expected at most 1"):
        canonical_buffer(tensors, [K] * 2, sources, Ks, targets, height=48, width=64, slots=1)
    with pytest.raises(InputError, match=r"depths: got shape \(48, 64\), expected \(40, 64\)"):
        canonical_buffer(tensors, [K] * 2, sources, Ks, targets, height=40, width=64)
    with pytest.raises(InputError, match="got 48 x 64 px and 79 targets, expected multiples of 8 and of 4"):
        canonical_buffer(tensors, [K] * 2, sources, Ks[1:], targets[1:], height=48, width=64)
