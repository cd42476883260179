"""Rays and the complete input of a chunk against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from golden import cases, recorded, weights_of  # noqa: E402

from lyra_core.errors import InputError  # noqa: E402
from lyra_core.generate.lyra2.conditioning import Cameras, View, assemble, plucker_rays, timeline_frames, unshuffled  # noqa: E402
from lyra_core.generate.lyra2.packing import PUBLISHED_PACKING, Packing  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402


def cameras_of(K, w2c):
    T = torch.linalg.inv(torch.from_numpy(w2c).double()).float()
    return Cameras(torch.from_numpy(K).float(), T)


def test_rays():
    data = recorded("plucker")
    K = np.zeros((len(data["K_vec"]), 3, 3))
    K[:, 0, 0], K[:, 1, 1], K[:, 0, 2], K[:, 1, 2] = data["K_vec"].T
    K[:, 2, 2] = 1
    cameras, reference = cameras_of(K, data["w2c"]), int(data["reference_frame"][0])
    height, width = data["channels6"].shape[2:]
    rays = plucker_rays(cameras, cameras[[reference]], height, width)
    np.testing.assert_allclose(rays, data["channels6"], atol=3e-5)
    np.testing.assert_allclose(unshuffled(rays), data["unshuffled384"], atol=3e-5)


@pytest.fixture(scope="module")
def codec():
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = weights_of(recorded("vae_streaming"))
    vae = AutoencoderKLWan(base_dim=weights["encoder.conv1.weight"].shape[0])
    vae.load_state_dict(convert_wan_vae_to_diffusers(weights), strict=True)
    return CodecWan(vae.eval())


@pytest.mark.parametrize("case", cases("assembled_inputs", "retrieved_ids"))
def test_everything_the_network_is_given(codec, case):
    data, packing = recorded("assembled_inputs"), Packing.parse(PUBLISHED_PACKING)
    cameras, video = cameras_of(data["K"], data["w2c"]), torch.from_numpy(data["history_video"])
    depths = {int(i): torch.from_numpy(depth) for i, depth in zip(data["cache_ids"], data["cache_depths"], strict=True)}
    newest = video.shape[1] - 1

    def view(i, depth):
        return View(video[:, i], depth, cameras[[i]])

    inputs = assemble(
        packing, codec, first=view(0, depths[0]), newest=view(newest, torch.from_numpy(data["buffer_depth"])),
        retrieved=[view(i, depths[i]) for i in data[f"{case}_retrieved_ids"][::-1].tolist()],
        latents=torch.from_numpy(data["history_latents"]), time_cameras=cameras[timeline_frames(packing, newest)],
        targets=cameras[slice(newest + 1, None)],
    )
    assert (inputs.condition[:4] == 1).all()
    got = {
        "latents_history": inputs.history, "condition": inputs.condition[4:], "plucker": inputs.plucker,
        "buffer_spatial": inputs.buffer[:, packing.spatial_positions], "buffer_new": inputs.buffer[:, packing.history_length :],
    }
    for name, value in got.items():
        if f"{case}_{name}" in data:
            wrong = np.abs(value.numpy() - data[f"{case}_{name}"]) > 1e-3
            assert wrong.mean() <= 1e-3, f"{name}: {100 * wrong.mean():.3f} % of the elements differ"


def test_timeline_in_front_of_frame_0_repeats_it():
    packing = Packing.parse(PUBLISHED_PACKING)
    assert timeline_frames(packing, 0) == [0] * 20
    assert timeline_frames(packing, 160) == [0, *range(88, 161, 4)]


def test_too_many_frames_are_named():
    packing, cameras = Packing.parse("f1k1f1s1f1k1_g1"), cameras_of(np.eye(3)[None], np.eye(4)[None])
    view = View(torch.zeros(3, 16, 16), torch.ones(16, 16), cameras)
    with pytest.raises(InputError, match="got 2 retrieved frames and 1 targets"):
        assemble(packing, CodecPatch(channels=16), first=view, newest=view, retrieved=[view, view],
                 latents=torch.zeros(16, 3, 2, 2), time_cameras=cameras, targets=cameras)
