"""A whole training step with self-augmented history against the reference's numbers, and what our shortcuts leave unchanged."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

sys.path.insert(0, str(Path(__file__).parents[1] / "generate" / "lyra2"))
from clip_of_a_wall import wall_clip  # noqa: E402
from golden import recorded, weights_of  # noqa: E402
from tiny import tiny_vae  # noqa: E402

from lyra_core.generate.lyra2.conditioning import Cameras, View, assemble, timeline_frames  # noqa: E402
from lyra_core.generate.lyra2.packing import Packing  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402
from lyra_core.training import step  # noqa: E402
from lyra_core.training.flow import TrainSchedule  # noqa: E402
from lyra_core.training.sampling import ChunkSample, Sample, torch_generator  # noqa: E402
from lyra_core.training.self_augmentation import decoded_end, encode_timeline, spoiling_level  # noqa: E402
from lyra_core.training.settings import HistoryCfg  # noqa: E402

PACKING = Packing.parse("f1k1f1s1f2k2f1k1_g2")


def analytic(latents, condition, timestep, *others):
    """Return the velocity that stood in for the network when the numbers were recorded."""
    new = latents[:, :, PACKING.history_length :]
    k = torch.arange(new.shape[1]).view(1, -1, 1, 1, 1)
    return torch.cos(1.3 * new + 0.7 * k) * (0.4 + 0.6 * timestep.view(-1, 1, 1, 1, 1) / 1000) + 0.25 * new


@pytest.fixture(scope="module")
def data():
    return recorded("self_augmentation")


@pytest.fixture(scope="module")
def parts():
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = weights_of(recorded("vae_streaming"))
    vae = AutoencoderKLWan(base_dim=weights["encoder.conv1.weight"].shape[0])
    vae.load_state_dict(convert_wan_vae_to_diffusers(weights), strict=True)
    return parts_of(CodecWan(vae.eval()))


def parts_of(codec, **changes):
    history = HistoryCfg(memory_noise_std=-1.0, **changes)
    return step.Parts(
        PACKING, codec, lambda text: torch.zeros(512, 4), lambda frame: frame.mean((1, 2))[None], TrainSchedule(), history,
        torch.device("cpu"),
    )


def sample_of(data) -> Sample:
    video, depth = torch.from_numpy(data["video"]), torch.from_numpy(data["depth"])
    T = torch.linalg.inv(torch.from_numpy(data["w2c"]).double()).float()
    none = (torch.zeros(0, 3, *depth.shape[1:]), torch.zeros(0, *depth.shape[1:]), None)
    chunks = tuple(ChunkSample(n, depth[8 * n], (), *none) for n in (1, 2))
    return Sample("recorded", "self_augmented", 0, video[:, :25], Cameras(torch.from_numpy(data["K"]), T), chunks, (0, 0, 1, 0))


@pytest.fixture(scope="module")
def seen(data, parts):
    """Run the step with the recorded draws; returns what the network saw in both stages, and the loss."""
    draws = iter([data["stageA_t_uniform01"], data["stageB_t_uniform01"]])
    noises = iter([data["stageA_noise"], data["stageB_noise"]])
    calls, backs = [], []

    def network(latents, condition, timestep, text, image, plucker, buffer):
        calls.append({"latents": latents, "condition": condition, "timestep": timestep, "image": image})
        return analytic(latents, condition, timestep)

    def written(video, decoded, *, end):
        backs.append(decoded)
        return real(video, decoded, end=end)

    real = step.written_back
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "logit_normal", lambda count, generator: torch.from_numpy(next(draws)))
        patch.setattr(step, "noise_for", lambda like, generators: torch.from_numpy(next(noises))[None])
        patch.setattr(step, "written_back", written)
        loss = step.losses(network, [sample_of(data)], parts)
    return {"A": calls[0], "B": calls[1], "decoded": backs[0], "loss": loss}


def close(got, wanted, atol=1e-4, share=1.0):
    got = np.asarray(got.detach())
    assert got.shape == wanted.shape
    right = (np.abs(got - wanted) <= atol).mean()
    assert right >= share, f"{100 * (1 - right):.2f} % of the elements are off by more than {atol}"


def test_schedule(data):
    schedule = TrainSchedule()
    np.testing.assert_allclose(schedule.timesteps, data["train_schedule_timesteps"], atol=2e-4)
    np.testing.assert_allclose(schedule.sigmas, data["train_schedule_sigmas"], atol=2e-7)
    np.testing.assert_allclose(schedule.weights, data["train_time_weights"], atol=2e-6)
    draw = torch.from_numpy(data["stageA_t_uniform01"])
    before = float(schedule.timesteps[schedule.index_of_draw(draw)])
    assert before == pytest.approx(float(data["stageA_t_before_scaling"][0]), abs=2e-4)
    assert spoiling_level(schedule, draw, max_timestep=500) == pytest.approx(float(data["stageA_sigma"][0]), abs=1e-7)


def test_the_network_is_asked_as_recorded(data, seen):
    close(seen["A"]["latents"][0], data["stageA_net_input"])
    assert float(seen["A"]["timestep"]) == float(data["stageA_net_timestep"][0])
    close(seen["B"]["latents"][0], data["stageB_net_input"])
    assert float(seen["B"]["timestep"]) == pytest.approx(float(data["stageB_net_timestep"][0]), abs=2e-4)


def test_the_spoilt_history_is_the_recorded_one(data, seen):
    close(seen["decoded"], data["stageA_decoded"][:, -24:])
    history = data["stageB_packed_latents"][:, : PACKING.history_length]
    close(seen["B"]["latents"][0, :, : PACKING.history_length], history)
    # The newest latent of the history is the last one of the spoilt chunk.
    np.testing.assert_array_equal(history[:, -1], data["stageB_degraded_chunk_latents"][:, -1])
    clean = data["stageA_timeline_latents"][:, -2:]
    assert np.abs(data["stageB_degraded_chunk_latents"] - clean).max() > 0.1


def test_conditions_and_image_are_the_recorded_ones(data, seen):
    close(seen["B"]["condition"][0, 4:], data["stageB_condition"], atol=1e-3, share=0.999)
    close(seen["B"]["image"][0, 0], data["stageB_last_history_frame"].mean((1, 2)))


def test_loss_is_the_recorded_one(data, seen):
    assert float(seen["loss"]) == pytest.approx(float(data["loss"][0]), abs=1e-4)


def sample_from_walls(*, number: int, ids: tuple[int, ...] = ()) -> tuple[Sample, ChunkSample]:
    clip = wall_clip(41)
    depth = torch.from_numpy(clip.depth([0])[0])
    pictures, depths = clip.rgb(ids).transpose(0, 1), torch.from_numpy(clip.depth(ids))
    chunks = tuple(ChunkSample(n, depth, ids, pictures, depths, None) for n in (number - 1, number))
    video = clip.rgb(range(1 + 8 * (number + 1)))
    return Sample("walls", "self_augmented", 0, video, clip.cameras(), chunks, (1, 2, 3)), chunks[-1]


@pytest.mark.parametrize("ids", [(), (3,)])
def test_training_assembles_what_inference_assembles(ids):
    codec = CodecPatch(channels=16)
    parts = parts_of(codec)
    sample, chunk = sample_from_walls(number=2, ids=ids)
    past = sample.video
    latents = encode_timeline(codec, PACKING, past[:, :17], newest=3).latents
    got = step.chunk_inputs(parts, sample, chunk, past, latents, torch_generator((0,)))
    cameras = sample.cameras

    def view(i: int) -> View:
        return View(past[:, i], chunk.newest_depth, cameras[[i]])

    wanted = assemble(
        PACKING, codec, first=view(0), newest=view(16), retrieved=[view(i) for i in ids], latents=latents,
        time_cameras=cameras[timeline_frames(PACKING, 16)], targets=cameras[slice(17, 25)],
    )
    for name in ("history", "condition", "plucker", "buffer"):
        torch.testing.assert_close(getattr(got, name), getattr(wanted, name))


@pytest.mark.parametrize("codec", [CodecPatch(channels=16), CodecWan(tiny_vae())], ids=["patch", "wan"])
def test_only_the_end_of_a_long_timeline_is_run(codec):
    """The cut run gives the latents and frames of the whole one, and the encoder goes on from it in the same way."""
    frames = 4 * (codec.receptive_latents + 8)
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(3, 1 + frames, 8, 8, generator=generator).clamp(-1, 1)
    cut = encode_timeline(codec, PACKING, video, newest=4)
    whole = encode_timeline(codec, PACKING, video, newest=10**6)
    assert whole.whole and not cut.whole and cut.latents.shape[1] == 5
    torch.testing.assert_close(cut.latents[:, 1:], whole.latents[:, -4:], atol=2e-5, rtol=0)
    torch.testing.assert_close(cut.latents[:, :1], whole.latents[:, :1], atol=2e-5, rtol=0)
    following = torch.randn(1, 3, 8, 8, 8, generator=generator)
    got, wanted = codec.encode(following, cut.encoder)[0], codec.encode(following, whole.encoder)[0]
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)
    every, _ = codec.decode(whole.latents[None])
    torch.testing.assert_close(decoded_end(codec, whole.latents, frames=12), every[0, :, -12:], atol=2e-5, rtol=0)


def test_the_network_sees_its_own_errors():
    """Self-augmentation changes the history, the newest frame, its warp and retrieved frames; 'chunk' leaves older frames alone."""
    codec = CodecPatch(channels=16)
    seen = {}

    def network(latents, condition, timestep, text, image, plucker, buffer):
        seen["latents"], seen["condition"], seen["image"] = latents[0], condition[0], image[0]
        return analytic(latents, condition, timestep)

    for write_back in ("history", "chunk"):
        parts = parts_of(codec, write_back=write_back)
        sample, chunk = sample_from_walls(number=3, ids=(5,))
        plain = Sample(sample.name, "plain", 0, sample.video, sample.cameras, (chunk,), sample.seed)
        step.losses(network, [plain], parts)
        clean = dict(seen)
        step.losses(network, [sample], parts)
        change = (seen["latents"] - clean["latents"]).abs()[:, : PACKING.history_length].mean((0, 2, 3))
        # Packed: first frame, retrieved frame 5, an older latent, the two of the spoilt chunk.
        assert change[0] == change[2] == 0 and (change[3:] > 0.01).all()
        assert (change[1] > 0.01) == (write_back == "history")
        assert (seen["condition"][4:, -2:] - clean["condition"][4:, -2:]).abs().mean() > 0.01
        assert (seen["image"] - clean["image"]).abs().mean() > 0


def test_corruptions_are_drawn_and_bounded():
    codec = CodecPatch(channels=16)
    sample, chunk = sample_from_walls(number=2, ids=(3,))
    latents = encode_timeline(codec, PACKING, sample.video[:, :17], newest=3).latents

    def inputs(seed: int = 0, **changes):
        parts = parts_of(codec)
        parts = replace(parts, history=replace(parts.history, **changes))
        return step.chunk_inputs(parts, sample, chunk, sample.video, latents, torch_generator((seed,)))

    clean, noisy, jittered = inputs(), inputs(memory_noise_std=2.0), inputs(ray_noise=1.0)
    spatial = PACKING.spatial_positions
    others = [i for i in range(7) if i not in spatial]
    assert not torch.equal(clean.condition[4:, spatial], noisy.condition[4:, spatial])
    assert torch.equal(noisy.history[:, spatial], noisy.condition[4:, spatial])
    assert torch.equal(clean.condition[:, others], noisy.condition[:, others])
    assert torch.equal(clean.condition, jittered.condition) and torch.equal(clean.buffer, jittered.buffer)
    turned = (clean.plucker - jittered.plucker).abs()
    assert 0 < turned.max() < 0.3
    levels = step._memory_noise(torch.zeros(16, 1000, 4, 4), HistoryCfg(), torch_generator((1,))).std((0, 2, 3)).log()
    assert abs(levels.mean() + 3) < 0.3 and abs(levels.std() - 2) < 0.2
