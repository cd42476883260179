"""Where training starts and what it leaves behind: random numbers, Wan; a LoRA that the generator's loader reads, a network."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

from clip_of_a_wall import wall_clip  # noqa: E402
from test_trainer import PLAIN, tiny, trainer  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1] / "generate" / "lyra2"))
from golden import recorded, weights_of  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.checkpoint import load_network  # noqa: E402
from lyra_core.generate.lyra2.lora import merge_lora  # noqa: E402
from lyra_core.generate.lyra2.tensors import Spec, write_safetensors  # noqa: E402
from lyra_core.training.network import CodecPatchEven, OneTextProcessor, build_network  # noqa: E402
from lyra_core.training.rollout import Start, roll_out  # noqa: E402
from lyra_core.training.settings import NetworkCfg  # noqa: E402
from lyra_core.training.step import TrainingNetwork  # noqa: E402

TINY = {"packing": "f1k1f1s1f1k1_g1", "heads": 2, "head_dim": 12, "ffn_dim": 32, "layers": 2, "text_dim": 4, "image_dim": 3,
        "freq_dim": 32, "squeeze": 4, "codec": "patch", "codec_channels": 3, "encoders": "plain"}


def inputs_of(network, *, tokens: int = 1):
    """Return arguments of a forward; ``tokens`` equal text tokens."""
    g, config, packing = torch.Generator().manual_seed(0), network.config, network.packing

    def random(*shape):
        return torch.randn(1, *shape, generator=g)

    def grid(channels):
        return random(channels, packing.segments[-1].slice.stop, 4, 6)

    latents, condition = grid(config.out_channels), grid(config.in_channels - config.out_channels)
    text, image = random(1, config.text_dim).expand(-1, tokens, -1), random(16, config.image_dim)
    return latents, condition, torch.tensor([400.0]), text, image, grid(384), grid(256 * packing.spatial_slots)


def test_one_text_token_stands_for_512_equal_ones():
    network = build_network(NetworkCfg(**TINY), seed=0)
    torch.nn.init.normal_(network.proj_out.weight, std=0.2)
    assert isinstance(network.blocks[0].attn2.processor, OneTextProcessor)
    plain = build_network(NetworkCfg(**{**TINY, "encoders": "lyra2"}), seed=0)
    plain.load_state_dict(network.state_dict())
    one, many = (TrainingNetwork(n)(*inputs_of(n, tokens=t)) for n, t in ((network, 1), (plain, 512)))
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-4)


def test_a_random_start_predicts_nothing_and_follows_the_seed():
    one, same, other = (build_network(NetworkCfg(**TINY), seed=seed) for seed in (1, 1, 2))
    assert not TrainingNetwork(one)(*inputs_of(one)).any()
    assert torch.equal(one.patch_embedding.weight, same.patch_embedding.weight)
    assert not torch.equal(one.patch_embedding.weight, other.patch_embedding.weight)


def test_wan_is_where_training_starts(tmp_path: Path):
    weights = weights_of(recorded("base_forward"))
    specs = {name: Spec(tuple(value.shape), value.dtype) for name, value in weights.items()}
    write_safetensors(tmp_path / "wan.safetensors", specs, weights.__getitem__)
    cfg = NetworkCfg(weights=str(tmp_path / "wan.safetensors"), packing="f1k1f1s1f2k2f1k1_g2", head_dim=14)
    network = build_network(cfg, seed=0)
    torch.testing.assert_close(network.patch_embedding.weight, weights["patch_embedding.weight"])
    torch.testing.assert_close(network.clean_patch_embeddings[0].weight, network.patch_embedding.weight)
    assert network.packing.spatial_slots == 1 and network.dtype == torch.float32


def test_a_lora_is_trained_and_read_by_the_generators_loader(tmp_path: Path):
    pytest.importorskip("peft")
    cfg = tiny(tmp_path, network={"lora_rank": 3}, iterations=3)
    run = trainer(cfg)
    network = run.network.network
    torch.nn.init.normal_(network.proj_out.weight, std=0.1)
    assert all("lora_" in name for name in run.trained)
    run.run()
    trained = TrainingNetwork(network)(*inputs_of(network))
    fresh = build_network(replace(cfg.network, lora_rank=0), seed=cfg.seed)
    frozen = {name: value for name, value in network.state_dict().items() if "lora_" not in name}
    fresh.load_state_dict({name.replace(".base_layer", ""): value for name, value in frozen.items()})
    before = TrainingNetwork(fresh)(*inputs_of(fresh))
    assert merge_lora(fresh, tmp_path / "lora.safetensors") == 6 * cfg.network.layers
    merged = TrainingNetwork(fresh)(*inputs_of(fresh))
    torch.testing.assert_close(merged, trained, atol=1e-5, rtol=1e-4)
    assert (merged - before).abs().max() > 1e-4


def test_the_result_is_a_folder_that_loads(tmp_path: Path):
    run = trainer(tiny(tmp_path, iterations=2))
    run.run()
    loaded = load_network(tmp_path / "network")
    for name, value in run.network.network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)
    cfg = replace(run.cfg.network, weights=str(tmp_path / "network"))
    torch.testing.assert_close(build_network(cfg, seed=9).state_dict()["proj_out.weight"], loaded.proj_out.weight.detach())
    with pytest.raises(ConfigError, match="was trained with"):
        build_network(replace(cfg, packing="f1k1f1k1_g2"), seed=0)


@pytest.mark.parametrize(("changes", "said"), [
    ({"trainable": "attn1,nothing_like_it"}, "'nothing_like_it' is part of no"),
    ({"lora_rank": 2, "lora_targets": "to_nowhere"}, "match no layer"),
])
def test_names_that_match_nothing_are_named(changes, said):
    if "lora_rank" in changes:
        pytest.importorskip("peft")
    with pytest.raises(ConfigError, match=said):
        build_network(NetworkCfg(**{**TINY, **changes}), seed=0)


def test_even_codec_decodes_what_it_encodes():
    codec, video = CodecPatchEven(channels=768), torch.rand(1, 3, 9, 16, 16) * 2 - 1
    latents, _ = codec.encode(video)
    torch.testing.assert_close(codec.decode(latents)[0], video, atol=1e-4, rtol=0)


def test_a_rollout_goes_on_from_given_frames(tmp_path: Path):
    run, clip = trainer(tiny(tmp_path)), wall_clip(17)
    options = {"encode_text": run.parts.encode_text, "encode_image": run.parts.encode_image, "steps": 2, "memory_stride": 2,
               "point_subsampling": 2}
    (frames, retrieved), = roll_out(run.network, run.parts.codec, [Start(clip)], chunks=4, given=2, **options)
    truth = clip.rgb(range(17))
    assert frames.shape == truth.shape and len(retrieved) == 2 and PLAIN.memory_stride == 2
    torch.testing.assert_close(frames[:, :9], truth[:, :9])
    assert (frames[:, 9:] - truth[:, 9:]).abs().mean() > 0.05
    (off, none), = roll_out(run.network, run.parts.codec, [Start(clip)], chunks=4, retrieval=False, **options)
    assert none == [[]] * 4 and torch.equal(off[:, 0], truth[:, 0])
