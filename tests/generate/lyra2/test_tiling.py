"""Tiles and parked states: the plain codec where it looks no further than a tile, close to it with Wan's."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from chunks import relative  # noqa: E402
from tiny import tiny_vae  # noqa: E402

from lyra_core.errors import ConfigError  # noqa: E402
from lyra_core.generate.lyra2.tiling import CodecParked, CodecTiled, blend, moved, tile_sides  # noqa: E402
from lyra_core.generate.lyra2.vae import CodecPatch, CodecWan  # noqa: E402


@pytest.mark.parametrize("size", [1, 7, 32, 33, 60, 104, 199])
@pytest.mark.parametrize(("tile", "overlap"), [(32, 8), (9, 3), (5, 0), (2, 0)])
def test_tiles_cover_a_side_evenly(size, tile, overlap):
    sides = tile_sides(size, tile, overlap)
    lengths = [end - begin for begin, end in sides]
    assert sides[0][0] == 0 and sides[-1][1] == size and max(lengths) <= tile and max(lengths) - min(lengths) <= 1
    assert all(before[1] - after[0] == overlap for before, after in pairwise(sides))
    total = torch.zeros(8 * size)
    for side in sides:
        total[8 * side[0] : 8 * side[1]] += blend(sides, side, 8)
    torch.testing.assert_close(total, torch.ones(8 * size))


def test_plain_codec_for_one_that_looks_no_further():
    torch.manual_seed(0)
    video = torch.rand(1, 3, 13, 96, 128) * 2 - 1
    plain, tiled = CodecPatch(channels=48), CodecTiled(CodecPatch(channels=48), tile=6, overlap=2)
    first, state = tiled.encode(video[:, :, :5])
    more, _ = tiled.encode(video[:, :, 5:], state)
    torch.testing.assert_close(torch.cat([first, more], 2), plain.encode(video)[0], atol=1e-5, rtol=0)
    latents = torch.randn(1, 48, 3, 12, 16)
    torch.testing.assert_close(tiled.decode(latents)[0], plain.decode(latents)[0], atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="got tile 6 and overlap 4"):
        CodecTiled(plain, tile=6, overlap=4)


def test_wans_codec_streams_and_stays_close():
    """With its attention left out, tiles are the plain codec beyond the reach of its convolutions; with it, they are near."""
    torch.manual_seed(0)
    vae = tiny_vae()
    codec = CodecWan(vae)
    tiled = CodecTiled(codec, tile=24, overlap=5)
    latents = torch.randn(1, 16, 2, 2, 43) * 0.3
    one, state = tiled.decode(latents[:, :, :1])
    two, _ = tiled.decode(latents[:, :, 1:], state)
    got, whole = torch.cat([one, two], 2), codec.decode(latents)[0]
    torch.testing.assert_close(got, tiled.decode(latents)[0], atol=0, rtol=0)
    assert 0 < relative(got, whole) < 0.15
    for part in (vae.encoder, vae.decoder):
        part.mid_block.attentions[0] = torch.nn.Identity()
    got, whole = tiled.decode(latents)[0], codec.decode(latents)[0]
    # Tiles are latents 0..24 and 19..43; the convolutions see 17 latents far.
    difference = (got - whole).abs().amax((0, 1, 2, 3)).view(-1, 8).amax(1)
    # On some processors torch's kernels round by how memory is aligned.
    assert max(difference[:6].max(), difference[-6:].max()) < 3e-5 < difference[19:24].max()


def test_parked_states_change_nothing():
    codec = CodecWan(tiny_vae())
    parked = CodecParked(codec)
    torch.manual_seed(0)
    latents = torch.randn(1, 16, 3, 2, 3)
    first, state = parked.decode(latents[:, :, :2])
    rest, _ = parked.decode(latents[:, :, 2:], state)
    # Kernels round by memory alignment on some processors.
    torch.testing.assert_close(torch.cat([first, rest], 2), codec.decode(latents)[0], rtol=0, atol=1e-5)
    video = torch.rand(1, 3, 9, 16, 24)
    begun, state = parked.encode(video[:, :, :5])
    ended = parked.encode(video[:, :, 5:], state)[0]
    torch.testing.assert_close(torch.cat([begun, ended], 2), codec.encode(video)[0], rtol=0, atol=1e-5)
    assert parked.channels == codec.channels and parked.receptive_latents == codec.receptive_latents
    away = moved(state, torch.device("meta"))
    assert all(x.is_meta for x in away if isinstance(x, torch.Tensor)) and len(away) == len(state)
