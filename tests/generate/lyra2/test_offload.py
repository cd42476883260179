"""Blocks that wait in main memory: the same bytes, copied ahead, in less of the device's memory."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import PACKING, velocity_of  # noqa: E402
from tiny import IMAGE_DIM, TEXT_DIM, tiny_network  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.network import Lyra2Network  # noqa: E402
from lyra_core.generate.lyra2.offload import ALIGNMENT, BlockOffload, layout_of  # noqa: E402
from lyra_core.generate.lyra2.quantize import quantize_  # noqa: E402


def deep_network(layers: int = 5) -> Lyra2Network:
    torch.manual_seed(0)
    return Lyra2Network(
        num_attention_heads=2, attention_head_dim=12, ffn_dim=32, num_layers=layers, text_dim=TEXT_DIM, image_dim=IMAGE_DIM,
        freq_dim=32, buffer_squeeze=4, packing=PACKING,
    ).eval()


@pytest.mark.parametrize("scheme", [None, "int8", "fp8"])
@pytest.mark.parametrize(("resident", "slots"), [(0, 2), (2, 2), (0, 1), (4, 2), (5, 2)])
def test_same_bytes(scheme, resident, slots):
    """Also when an odd number of blocks waits, and the last one and the first share a slot."""
    network = deep_network()
    if scheme:
        quantize_(network, scheme)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    exact = velocity_of(network)
    offload = BlockOffload(network.blocks, "cpu", resident=resident, slots=slots)
    assert torch.equal(velocity_of(network), exact) and torch.equal(velocity_of(network), exact)
    offload.remove()
    assert all(torch.equal(value.float(), weights[name].float()) for name, value in network.state_dict().items())
    assert torch.equal(velocity_of(network), exact)


def test_agrees_with_diffusers_group_offloading():
    ours, theirs = tiny_network(packing=PACKING), tiny_network(packing=PACKING)
    BlockOffload(ours.blocks, "cpu", resident=0)
    theirs.enable_group_offload(onload_device=torch.device("cpu"), offload_device=torch.device("cpu"), num_blocks_per_group=1)
    assert torch.equal(velocity_of(ours), velocity_of(theirs))


def test_the_next_block_is_copied_before_this_one_runs():
    network = deep_network()
    offload = BlockOffload(network.blocks, "cpu", resident=1)
    seen = []
    for number, block in enumerate(network.blocks):
        block.register_forward_pre_hook(lambda module, given, n=number: seen.append((n, sorted(offload._inside, key=str))))
    velocity_of(network)
    assert seen[1:4] == [(1, [1, 2]), (2, [2, 3]), (3, [3, 4])]
    # Both passes: the first waiting block is fetched again behind the last one, before the next pass needs it.
    assert [numbers for n, numbers in seen if n == 0][1] == [1, 4]


def test_memory_is_two_blocks_on_the_device_and_all_of_them_outside():
    network = deep_network()
    block = sum(value.numel() * value.element_size() for value in network.blocks[0].state_dict().values())
    padding = ALIGNMENT * len(layout_of(network.blocks[0]))
    offload = BlockOffload(network.blocks, "cpu", resident=1)
    assert 2 * block <= offload.device_bytes <= 2 * (block + padding)
    assert 4 * block <= offload.waiting_bytes <= 4 * (block + padding)
    held = {value.untyped_storage().data_ptr() for b in network.blocks[1:] for value in b.state_dict().values()}
    assert held == {slot.data_ptr() for slot in offload._slots}, "nothing but the slots is left of the blocks' own memory"


def test_blocks_that_differ_are_refused():
    network = deep_network(2)
    network.blocks[1].ffn.net[2] = torch.nn.Linear(32, 24, bias=False)
    with pytest.raises(ConfigError, match="offload: block 1: got tensors of other shapes or types than block 0's"):
        BlockOffload(network.blocks, "cpu", resident=0)
