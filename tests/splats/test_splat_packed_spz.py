"""Packed .ply and .spz: third parties' files read as the .ply they were made of, round trips stay within the stated errors."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from splat_clouds import assert_within, covariances, differences, make_cloud, rows
from splat_third_party import PACKED_PLY, SPZ

from lyra_core.errors import InputError
from lyra_core.io.ply import read_ply
from lyra_core.splats.packed_ply import morton_order, read_packed_ply, write_packed_ply
from lyra_core.splats.ply import read_splats
from lyra_core.splats.spz import decode_spz, read_spz, write_spz
from lyra_core.splats.transform import flipped

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "splats"
SPZ_BOUNDS = {"means": 2**-13 + 1e-6, "degrees": 0.25, "log_scales": 1 / 32 + 1e-5, "opacities": 1 / 510 + 1e-6, "dc": 0.0131,
              "band1": 0.0355, "bands23": 0.067}
PACKED_BOUNDS = {"degrees": 0.22, "opacities": 1 / 510 + 1e-6, "band1": 1 / 64 + 1e-5, "bands23": 1 / 64 + 1e-5}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("version", [2, 3])
def test_spz_round_trip(tmp_path, degree, version):
    cloud = make_cloud(degree=degree)
    write_spz(tmp_path / "a.spz", cloud, version=version)
    write_spz(tmp_path / "b.spz", cloud, version=version)
    assert (tmp_path / "a.spz").read_bytes() == (tmp_path / "b.spz").read_bytes()
    again = read_spz(tmp_path / "a.spz")
    assert_within(cloud, again, **SPZ_BOUNDS | ({"degrees": 12.0} if version == 2 else {}))
    assert version == 3 or np.median(np.abs(covariances(cloud) - covariances(again))) < 0.02


def test_spz_of_a_third_party_is_the_ply_it_was_made_of():
    assert_within(make_cloud(6), decode_spz("x.spz", SPZ), **SPZ_BOUNDS)


def test_spz_is_niantics_byte_for_byte(tmp_path):
    write_spz(tmp_path / "a.spz", make_cloud(6))
    assert gzip.decompress((tmp_path / "a.spz").read_bytes()) == gzip.decompress(SPZ)


def test_spz_axes_are_right_up_back(tmp_path):
    """A point one metre down and two in front (RDF) is at y = -1, z = -2 in the file."""
    cloud = make_cloud(1, 0)
    cloud.means[0] = [3, 1, 2]
    write_spz(tmp_path / "a.spz", cloud)
    body = gzip.decompress((tmp_path / "a.spz").read_bytes())
    fixed = [int.from_bytes(body[16 + 3 * i:19 + 3 * i], "little", signed=True) / 4096 for i in range(3)]
    assert fixed == [3, -1, -2]


def test_spz_beyond_two_kilometres_gives_up_fraction_bits(tmp_path):
    cloud = make_cloud(20, 0)
    cloud.means[0] = [50_000, -3, 1]
    write_spz(tmp_path / "a.spz", cloud)
    assert np.abs(read_spz(tmp_path / "a.spz").means - cloud.means).max() <= 2.0**-8 + 4e-3
    cloud.means[0] = [1e7, 0, 0]
    with pytest.raises(InputError, match="means"):
        write_spz(tmp_path / "a.spz", cloud)


def test_spz_version_1_has_half_floats(tmp_path):
    cloud = make_cloud(5, 0)
    write_spz(tmp_path / "a.spz", cloud, version=2)
    body = gzip.decompress((tmp_path / "a.spz").read_bytes())
    halves = (cloud.means * [1, -1, -1]).astype("<f2").tobytes()
    (tmp_path / "a.spz").write_bytes(gzip.compress(body[:4] + struct.pack("<I", 1) + body[8:16] + halves + body[16 + 45:]))
    assert np.abs(read_spz(tmp_path / "a.spz").means - cloud.means).max() < 2e-3


def test_spz_version_4_needs_zstandard_or_says_so(tmp_path):
    body = gzip.decompress(SPZ)
    cut = np.cumsum([16, 54, 6, 18, 18, 24, 6 * 45])
    parts = [body[a:b] for a, b in pairwise(cut.tolist())]
    try:
        import zstandard
    except ImportError:
        packed = parts
    else:
        packed = [zstandard.ZstdCompressor().compress(part) for part in parts]
    table = b"".join(struct.pack("<QQ", len(a), len(b)) for a, b in zip(packed, parts, strict=True))
    data = b"NGSP" + struct.pack("<IIBBBBI12x", 4, 6, 3, 12, 0, 6, 32) + table + b"".join(packed)
    if packed is parts:
        with pytest.raises(InputError, match=r"version 4.*zstandard"):
            decode_spz("x.spz", data)
    else:
        assert_within(decode_spz("x.spz", SPZ), decode_spz("x.spz", data))


def test_spz_degree_4_is_cut_to_3():
    body = gzip.decompress(SPZ)
    sh = np.frombuffer(body[-6 * 45:], np.uint8).reshape(6, 15, 3)
    longer = np.concatenate([sh, np.full((6, 9, 3), 7, np.uint8)], 1).tobytes()
    data = gzip.compress(body[:12] + b"\x04" + body[13:-6 * 45] + longer)
    assert_within(decode_spz("x", SPZ), decode_spz("x", data))


def test_spz_extensions_are_skipped_but_for_the_axes():
    body = bytearray(gzip.decompress(SPZ))
    body[14] = 2
    harmless, axes = struct.pack("<IIf", 0xADBE0002, 4, 1.0), struct.pack("<III", 0xADBE0003, 4, 6)
    assert_within(decode_spz("x", SPZ), decode_spz("x", gzip.compress(bytes(body) + harmless)))
    with pytest.raises(InputError, match="coordinate_system"):
        decode_spz("x", gzip.compress(bytes(body) + harmless + axes))


def test_spz_bomb_is_refused_before_it_unpacks():
    header = b"NGSP" + struct.pack("<IIBBBB", 3, 200_000_000, 3, 12, 0, 0)
    with pytest.raises(InputError, match="at most"):
        decode_spz("bomb.spz", gzip.compress(header + bytes(1 << 20)))
    # More data than the header promises: only what was promised is unpacked.
    small = b"NGSP" + struct.pack("<IIBBBB", 3, 10, 0, 12, 0, 0)
    with pytest.raises(InputError, match="or more"):
        decode_spz("bomb.spz", gzip.compress(small + bytes(1 << 27), 1))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_packed_round_trip(tmp_path, degree):
    cloud = make_cloud(1000, degree)
    write_packed_ply(tmp_path / "a.compressed.ply", cloud)
    again = read_packed_ply(tmp_path / "a.compressed.ply")
    cloud = rows(cloud, morton_order(cloud.means))
    chunk = read_ply(tmp_path / "a.compressed.ply", "chunk")["chunk"]
    spans = {axes: max(float((chunk[f"max_{a}"] - chunk[f"min_{a}"]).max()) for a in axes.split())
             for axes in ("x y z", "scale_x scale_y scale_z", "r g b")}
    assert_within(cloud, again, **PACKED_BOUNDS, means=spans["x y z"] / 2046, log_scales=spans["scale_x scale_y scale_z"] / 2046,
                  dc=spans["r g b"] / 510 / 0.2820948 + 1e-6)


def test_morton_order_makes_chunks_small():
    means = np.random.default_rng(0).uniform(-1, 1, (1 << 14, 3)).astype(np.float32)
    chunks = means[morton_order(means)].reshape(-1, 256, 3)
    assert np.median(np.ptp(chunks, axis=1)) < 0.7
    assert np.median(np.ptp(means.reshape(-1, 256, 3), axis=1)) > 1.9


def test_packed_of_a_third_party_is_the_ply_it_was_made_of(tmp_path):
    (tmp_path / "a.ply").write_bytes(PACKED_PLY)
    cloud, again = make_cloud(6), read_packed_ply(tmp_path / "a.ply")
    order = np.linalg.norm(cloud.means[:, None] - again.means, axis=2).argmin(0)
    assert sorted(order) == list(range(6))
    assert_within(rows(cloud, order), again, **PACKED_BOUNDS, means=2e-3, log_scales=4e-3, dc=4e-3)


def test_packed_one_gaussian_has_ranges_of_zero_and_is_exact(tmp_path):
    cloud = make_cloud(1, 0)
    write_packed_ply(tmp_path / "a.ply", cloud)
    assert_within(cloud, read_packed_ply(tmp_path / "a.ply"), degrees=0.22, opacities=1 / 510 + 1e-6)


def test_packed_without_colour_ranges(tmp_path):
    """Older writers leave them out; the bytes are then colours themselves."""
    table = read_ply(_written(tmp_path, PACKED_PLY), "chunk", "vertex")
    names = [name for name in table["chunk"].dtype.names or () if name[-2:] not in ("_r", "_g", "_b")]
    head = "\n".join(["ply", "format binary_little_endian 1.0", "element chunk 1", *(f"property float {name}" for name in names),
                      "element vertex 6", *(f"property uint {name}" for name in table["vertex"].dtype.names or ()), "end_header\n"])
    chunk = b"".join(table["chunk"][name].tobytes() for name in names)
    cloud = read_packed_ply(_written(tmp_path, head.encode() + chunk + table["vertex"].tobytes()))
    rgb = np.frombuffer(table["vertex"]["packed_color"].astype(">u4").tobytes(), np.uint8).reshape(6, 4)[:, :3] / 255
    assert np.abs(0.5 + 0.28209479 * cloud.sh[:, 0] - rgb).max() < 1e-6


@pytest.mark.parametrize("change", [("element chunk 1", "element chunk 2"), ("uint packed_scale", "float packed_scale"),
                                    ("float max_scale_z", "double max_scale_z"), ("float max_x", "float mux_x"),
                                    ("uchar f_rest_44", "uchar f_rest_99"), ("element sh 6", "element sh 5"),
                                    ("element vertex 6", "element vertex 600000000"),
                                    ("uchar f_rest_3", "list uchar uchar f_rest_3")])
def test_packed_files_that_lie(tmp_path, change):
    before, after = (text.encode() for text in change)
    assert before in PACKED_PLY
    with pytest.raises(InputError, match=r"a\.ply"):
        read_packed_ply(_written(tmp_path, PACKED_PLY.replace(before, after)))


@pytest.mark.parametrize("write", [write_spz, write_packed_ply])
def test_clouds_that_no_file_should_hold(tmp_path, write):
    empty = rows(make_cloud(), np.zeros(0, np.int64))
    bad = make_cloud()
    bad.means[7] = np.nan
    deep = replace(make_cloud(), sh=np.zeros((300, 25, 3), np.float32))
    for cloud, word in ((empty, "no Gaussian"), (bad, "means"), (deep, "sh")):
        with pytest.raises(InputError, match=word):
            write(tmp_path / "x.bin", cloud)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not (DATA / "guitar.ply").is_file(), reason="evaluation data is not here")
def test_real_capture(tmp_path):
    plain, packed = read_splats(DATA / "guitar.ply"), read_packed_ply(DATA / "guitar.compressed.ply")
    assert max(differences(plain, packed)[name] for name in ("means", "log_scales", "dc")) < 2e-6
    assert differences(plain, packed)["opacities"] < 0.00197
    write_spz(tmp_path / "guitar.spz", plain)
    again = read_spz(tmp_path / "guitar.spz")
    assert np.abs(again.means - plain.means).max() <= 2**-13 + 1e-6
    assert (tmp_path / "guitar.spz").stat().st_size < (DATA / "guitar.ply").stat().st_size / 3


def test_flips_are_turns():
    cloud = make_cloud(20)
    assert_within(flipped(flipped(cloud, (1, -1, -1)), (1, -1, -1)), cloud)
    with pytest.raises(InputError, match="signs"):
        flipped(cloud, (1, 1, -1))


def _written(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "a.ply").write_bytes(data)
    return tmp_path / "a.ply"
