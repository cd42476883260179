"""The network against the reference's numbers and against diffusers' own Wan network."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from golden import cases, hashed_input, network_of, recorded, tensor, weights_of  # noqa: E402
from tiny import tiny_network  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.keys import to_ours, to_published  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.packing import (  # noqa: E402
    Packing,
    camera_tokens,
    correspondence_tokens,
    rope_angles,
    segment_size,
)

TOLERANCE = 3e-5


@pytest.fixture(scope="module")
def data():
    return recorded("network_forward")


def inputs_of(data, case):
    h, w = data[f"{case}_velocity"].shape[2:]
    x = hashed_input(data, f"{case}_x", (16, 45, h, w), 2.0)
    y = hashed_input(data, f"{case}_y", (404, 45, h, w), 1.0)
    return x, y, hashed_input(data, f"{case}_buf", (1280, 45, h, w), 1.0)


def close(got, want, tolerance=TOLERANCE):
    torch.testing.assert_close(got, torch.from_numpy(want), atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", cases("network_forward", "velocity"))
def test_every_intermediate_is_the_references(data, case):
    network = network_of(data, case=case)
    x, y, buffer = inputs_of(data, case)
    text, image, timestep = tensor(data["text"]), tensor(data["image"]), torch.from_numpy(data[f"{case}_timestep"])
    packing, (h, w) = network.packing, x.shape[3:]
    assert [segment_size(s, h, w) for s in packing.segments] == data[f"{case}_segment_lengths"].tolist()
    seen = {}
    network.blocks[0].register_forward_hook(lambda module, given, out: seen.update(block=out))
    network.blocks[0].attn1.register_forward_hook(lambda module, given, out: seen.update(attention=out))
    with torch.no_grad():
        close(network.embed(torch.cat([x, y[:, :20]], 1))[0], data[f"{case}_packed_tokens"])
        angles = rope_angles(packing, h, w, network.config.attention_head_dim)
        close(angles, data[f"{case}_rope_angles"])
        close(angles.cos(), data[f"{case}_rope_cos"])
        close(camera_tokens(y[:, 20:], packing)[0, :, :64], data[f"{case}_cam_tokens_first64"])
        tokens, validity = correspondence_tokens(buffer, packing)
        close(tokens[0, :, :64], data[f"{case}_buffer_tokens_first64"])
        close(validity, data[f"{case}_buffer_validity"], 0)
        conditions = network.prepare(y[:, 20:], buffer)
        block = network.blocks[0]
        close(block.cam_encoder(conditions.camera)[0], data[f"{case}_block0_cam_bias"])
        close(block.buffer_encoder(conditions.correspondence)[0], data[f"{case}_block0_buffer_bias"])
        _, modulation, context = network.embed_context(timestep, text, image)
        close(modulation[0], data[f"{case}_time_modulation"])
        close(context[0], data[f"{case}_context"])
        velocity = network(x, y[:, :20], timestep, text, image, conditions)
        close(seen["attention"][0], data[f"{case}_block0_self_attn_out"])
        close(seen["block"][0], data[f"{case}_block0_out"])
        close(velocity[0], data[f"{case}_velocity"])
        again = network(x, y[:, :20], timestep, text, image, conditions)
    assert torch.equal(velocity, again), "projections kept after the first step change nothing"


@pytest.mark.parametrize("name", [
    "blocks.1.buffer_encoder.1.weight", "clean_patch_embeddings.3.weight", "text_embedding.0.weight", "blocks.0.cam_encoder.weight",
])
def test_a_perturbed_weight_fails(data, name):
    case = cases("network_forward", "velocity")[0]
    network = network_of(data, case=case)
    x, y, buffer = inputs_of(data, case)
    with torch.no_grad():
        dict(network.named_parameters())[to_ours(name)].mul_(1.05)
        timestep = torch.from_numpy(data[f"{case}_timestep"])
        conditions = network.prepare(y[:, 20:], buffer)
        velocity = network(x, y[:, :20], timestep, tensor(data["text"]), tensor(data["image"]), conditions)
    assert (velocity[0] - torch.from_numpy(data[f"{case}_velocity"])).abs().max() > 3 * TOLERANCE


@pytest.mark.parametrize("case", cases("base_forward", "velocity"))
def test_without_lyras_additions_it_is_wan(case):
    data = recorded("base_forward")
    x, y = tensor(data[f"{case}_x"]), tensor(data[f"{case}_y"])
    network = network_of(data, case=case, packing=f"g{x.shape[2]}")
    timestep, text, image = torch.from_numpy(data[f"{case}_timestep"]), tensor(data["text"]), tensor(data["image"])
    with torch.no_grad():
        velocity = network(x, y, timestep, text, image)
    close(velocity[0], data[f"{case}_velocity"])
    close(rope_angles(network.packing, *x.shape[3:], network.config.attention_head_dim), data[f"{case}_rope_angles"])
    peer = diffusers_wan(network, {to_ours(key): value for key, value in weights_of(data).items()})
    with torch.no_grad():
        theirs = peer(torch.cat([x, y], 1), timestep, text, image, return_dict=False)[0]
    torch.testing.assert_close(velocity, theirs, atol=TOLERANCE, rtol=0)


def diffusers_wan(network, weights):
    """Return diffusers' network with the same weights."""
    from diffusers import WanTransformer3DModel

    c = network.config
    peer = WanTransformer3DModel(
        num_attention_heads=c.num_attention_heads, attention_head_dim=c.attention_head_dim, in_channels=36, out_channels=16,
        text_dim=c.text_dim, freq_dim=c.freq_dim, ffn_dim=c.ffn_dim, num_layers=c.num_layers, image_dim=c.image_dim,
        added_kv_proj_dim=c.num_attention_heads * c.attention_head_dim,
    )
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"].reshape(-1, 36, 1, 2, 2)
    peer.load_state_dict(weights, strict=True)
    return peer.eval()


def test_names_go_there_and_back(data):
    for key in weights_of(data):
        assert to_published(to_ours(key)) == key
    assert to_ours("net.blocks.3.self_attn.attn_op._extra_state") is None and to_ours("net.accum_iteration") is None
    assert to_ours("net.blocks.3.unknown.weight") == "blocks.3.unknown.weight"


def test_published_size():
    """Parameters of the 14B model as its paper trail has them, without allocating one."""
    with torch.device("meta"):
        network = Lyra2Network()
    count = sum(p.numel() for p in network.parameters())
    assert abs(count / 1e9 - 17.03) < 0.01
    shapes = {to_published(key): tuple(p.shape) for key, p in network.named_parameters()}
    assert shapes["blocks.39.buffer_encoder.0.weight"] == (256, 20480) and shapes["clean_patch_embeddings.3.weight"] == (5120, 9216)
    assert [segment_size(s, 60, 104) for s in network.packing.segments] == [1560, 1560, 1560, 416, 390, 1560, 31200]


def test_batches_and_checkpointing_change_nothing():
    network = tiny_network(packing="f1k1f1s1f2k2_g2")
    torch.manual_seed(0)
    T = 6
    x, y, plucker = torch.randn(2, 16, T, 4, 6), torch.randn(2, 20, T, 4, 6), torch.randn(2, 384, T, 4, 6)
    buffer, text, image = torch.rand(2, 256, T, 4, 6), torch.randn(2, 512, 12), torch.randn(2, 257, 10)
    timestep = torch.tensor([100.0, 700.0])
    with torch.no_grad():
        both = network(x, y, timestep, text, image, network.prepare(plucker, buffer))
        for i in range(2):
            one = slice(i, i + 1)
            alone = network(x[one], y[one], timestep[one], text[one], image[one], network.prepare(plucker[one], buffer[one]))
            torch.testing.assert_close(both[one], alone, atol=1e-5, rtol=0)
    gradients = []
    for checkpointed in (False, True):
        network.zero_grad()
        network.enable_gradient_checkpointing() if checkpointed else network.disable_gradient_checkpointing()
        network(x, y, timestep, text, image, network.prepare(plucker, buffer, keep=False)).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(g.abs().sum() > 0 for g in gradients[0])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", ["", "f1k1", "f1k1_x20", "f0k1_g2", "f1k0_g2", "f1q1_g20", "f1k1_g0"])
def test_bad_packings_are_named(text):
    with pytest.raises(ConfigError, match="packing: got"):
        Packing.parse(text)
