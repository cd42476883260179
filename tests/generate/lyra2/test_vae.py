"""Streaming codecs against the reference's three chunks, and against one-shot coding."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from golden import recorded, tensor, weights_of  # noqa: E402
from tiny import tiny_vae  # noqa: E402

from lyra_core.errors import InputError  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan, encode_stills, frame_windows  # noqa: E402


@pytest.fixture(scope="module")
def data():
    return recorded("vae_streaming")


@pytest.fixture(scope="module")
def codec(data):
    from diffusers import AutoencoderKLWan
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    weights = weights_of(data)
    vae = AutoencoderKLWan(base_dim=weights["encoder.conv1.weight"].shape[0])
    vae.load_state_dict(convert_wan_vae_to_diffusers(weights), strict=True)
    return CodecWan(vae.eval())


def close(got, want):
    torch.testing.assert_close(got[0], torch.from_numpy(want), atol=3e-5, rtol=0)


def test_three_chunks_with_carried_state(data, codec):
    latents, encoder = codec.encode(tensor(data["first_frame"])[:, :, None].expand(-1, -1, data["prime_decoded"].shape[1], -1, -1))
    close(latents, data["prime_latents"])
    video, decoder = codec.decode(latents)
    close(video, data["prime_decoded"])
    all_latents, all_video = [latents], [video]
    for k in range(sum(key.endswith("_reencoded") for key in data)):
        given = tensor(data[f"chunk{k}_latents_in"])
        video, decoder = codec.decode(given, decoder)
        close(video, data[f"chunk{k}_decoded"])
        encoded, encoder = codec.encode(video, encoder)
        close(encoded, data[f"chunk{k}_reencoded"])
        all_latents.append(given)
        all_video.append(video)
    assert torch.equal(codec.decode(torch.cat(all_latents, 2))[0], torch.cat(all_video, 2)), "streaming is one-shot decoding"


def test_short_videos_and_stills(data, codec):
    video = tensor(data["short_video"])
    close(codec.encode(video)[0], data["short_latents"])
    close(encode_stills(codec, video[0, :, 2][None])[None], data["single_frame_latents"])


def test_states_are_values(codec, data):
    """A chunk made again from the state before it is the same, whatever was made from that state since."""
    latents = tensor(data["chunk0_latents_in"])
    _, state = codec.decode(tensor(data["prime_latents"]))
    first = codec.decode(latents, state)[0]
    codec.decode(latents.flip(2), state)
    assert torch.equal(codec.decode(latents, state)[0], first)


def test_nothing_older_than_the_receptive_field_is_left():
    """What lets a resumed run rebuild the states from the newest latents and frames alone."""
    codec = CodecWan(tiny_vae())
    torch.manual_seed(1)
    reach = codec.receptive_latents
    video = torch.rand(1, 3, 1 + 4 * (reach + 3), 16, 16) * 2 - 1
    latents = torch.randn(1, 16, reach + 3, 2, 2)
    states = []
    for start in (0, 3):
        encoder = codec.encode(video[:, :, 4 * start : 4 * start + 1])[1]
        encoder = codec.encode(video[:, :, 4 * start + 1 :], encoder)[1]
        states.append((*encoder, *codec.decode(latents[:, :, start:])[1]))
    assert len(states[0]) > 40 and all(torch.equal(a, b) for a, b in zip(*states, strict=True) if isinstance(a, torch.Tensor))


def test_patch_codec_is_invertible_and_orthonormal():
    torch.manual_seed(0)
    video = torch.rand(2, 3, 9, 16, 24) * 2 - 1
    codec = CodecPatch()
    latents, state = codec.encode(video[:, :, :5])
    more, _ = codec.encode(video[:, :, 5:], state)
    assert latents.shape == (2, 768, 2, 2, 3) and more.shape == (2, 768, 1, 2, 3)
    one_shot = codec.encode(video)[0]
    torch.testing.assert_close(torch.cat([latents, more], 2), one_shot, atol=1e-6, rtol=0)
    torch.testing.assert_close(codec.decode(one_shot)[0], video, atol=1e-5, rtol=0)
    few = CodecPatch(channels=16)
    low_pass = few.decode(few.encode(video)[0])[0]
    torch.testing.assert_close(few.decode(few.encode(low_pass)[0])[0][:, :, 1:], low_pass[:, :, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("frames", "start"), [(0, True), (2, True), (4, True), (5, False), (0, False)])
def test_frame_counts_are_checked(frames, start):
    with pytest.raises(InputError, match=f"got {frames} frames"):
        frame_windows(frames, start=start)
