"""The 3DGS .ply: an independent parse agrees, round trips are exact to float32, damaged files are refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from lyra_core.errors import InputError
from lyra_core.splats.ply import read_splats, write_splats
from lyra_core.types import GaussianCloud

GUITAR = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "splats" / "guitar.ply"


def make_cloud(n: int = 50, degree: int = 2) -> GaussianCloud:
    rng = np.random.default_rng(degree)
    quats = rng.normal(size=(n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    return GaussianCloud(rng.normal(size=(n, 3)).astype(np.float32), quats.astype(np.float32),
                         rng.uniform(1e-3, 2, (n, 3)).astype(np.float32), rng.uniform(0, 1, n).astype(np.float32),
                         rng.normal(size=(n, (degree + 1) ** 2, 3)).astype(np.float32), rng.integers(0, 3, n).astype(np.uint8))


def parse(path: Path) -> tuple[list[tuple[str, str]], list[tuple]]:
    """Read a PLY with struct alone."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(next(line.split()[2] for line in lines if line.startswith("element vertex")))
    fields = [(line.split()[2], line.split()[1]) for line in lines if line.startswith("property")]
    row = struct.Struct("<" + "".join({"float": "f", "uchar": "B"}[kind] for _, kind in fields))
    assert len(body) == count * row.size
    return fields, list(row.iter_unpack(body))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_layout_as_an_independent_reader_sees_it(tmp_path, degree):
    cloud = make_cloud(degree=degree)
    write_splats(tmp_path / "s.ply", cloud)
    fields, rows = parse(tmp_path / "s.ply")
    k = (degree + 1) ** 2 - 1
    assert [name for name, _ in fields] == [
        *"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(3 * k)), "opacity",
        "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "provenance"]
    table = {name: np.array([row[i] for row in rows]) for i, (name, _) in enumerate(fields)}
    assert np.allclose(1 / (1 + np.exp(-table["opacity"])), cloud.opacities, atol=2e-6)
    assert np.allclose(np.exp(table["scale_1"]), cloud.scales[:, 1], rtol=1e-6)
    assert np.array_equal(table["rot_0"].astype(np.float32), cloud.quats_wxyz[:, 0])
    for channel in range(3):
        for j in range(k):
            assert np.array_equal(table[f"f_rest_{channel * k + j}"].astype(np.float32), cloud.sh[:, 1 + j, channel])


@pytest.mark.parametrize("degree", [0, 3])
def test_round_trip_and_same_bytes(tmp_path, degree):
    cloud = make_cloud(degree=degree)
    write_splats(tmp_path / "a.ply", cloud)
    write_splats(tmp_path / "b.ply", cloud)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    again = read_splats(tmp_path / "a.ply")
    for name in ("means", "sh", "provenance"):
        assert np.array_equal(getattr(again, name), getattr(cloud, name)), name
    for name in ("quats_wxyz", "scales", "opacities"):
        assert np.allclose(getattr(again, name), getattr(cloud, name), rtol=2e-6, atol=2e-6), name


def test_opacities_of_zero_and_one_stay_finite(tmp_path):
    cloud = make_cloud(2)
    cloud.opacities[:] = [0, 1]
    write_splats(tmp_path / "s.ply", cloud)
    assert np.allclose(read_splats(tmp_path / "s.ply").opacities, [0, 1], atol=2e-6)


def damaged(data: bytes) -> dict[str, bytes]:
    return {
        "truncated": data[:-1],
        "too long": data + b"\0",
        "more vertices than bytes": data.replace(b"element vertex 50", b"element vertex 51"),
        "a billion vertices": data.replace(b"element vertex 50", b"element vertex 9999999999"),
        "negative": data.replace(b"element vertex 50", b"element vertex -5"),
        "no header end": data.replace(b"end_header", b"end_headed"),
        "ascii": data.replace(b"binary_little_endian", b"ascii"),
        "big endian": data.replace(b"binary_little_endian", b"binary_big_endian"),
        "unknown type": data.replace(b"property float x", b"property quad x"),
        "list": data.replace(b"property float x", b"property list uchar float x"),
        "twice": data.replace(b"property float nx", b"property float x"),
        "missing": data.replace(b"property float rot_3", b"property float rod_3"),
        "wrong degree": data.replace(b"property float f_rest_0\n", b"property float g_rest_0\n"),
        "face first": data.replace(b"element vertex 50", b"element face 50"),
        "not a ply": b"PK" + data,
        "empty": b"",
    }


@pytest.mark.parametrize("fault", list(damaged(b"")))
def test_lying_files_are_refused_by_name(tmp_path, fault):
    write_splats(tmp_path / "s.ply", make_cloud())
    data = damaged((tmp_path / "s.ply").read_bytes())[fault]
    (tmp_path / "s.ply").write_bytes(data)
    with pytest.raises(InputError, match=r"s\.ply"):
        read_splats(tmp_path / "s.ply")


def test_numbers_that_are_not_finite_are_refused_both_ways(tmp_path):
    cloud = make_cloud()
    write_splats(tmp_path / "s.ply", cloud)
    data = (tmp_path / "s.ply").read_bytes()
    head = data.index(b"end_header\n") + 11
    (tmp_path / "s.ply").write_bytes(data[:head] + struct.pack("<f", np.nan) + data[head + 4:])
    with pytest.raises(InputError, match="means"):
        read_splats(tmp_path / "s.ply")
    cloud.scales[3] = 0
    with pytest.raises(InputError, match="scales"):
        write_splats(tmp_path / "t.ply", cloud)
    assert not (tmp_path / "t.ply").exists()


@pytest.mark.skipif(not GUITAR.is_file(), reason="evaluation data is not here")
def test_real_capture_round_trip(tmp_path):
    cloud = read_splats(GUITAR)
    assert len(cloud.means) == 90854 and cloud.sh.shape == (90854, 1, 3)
    write_splats(tmp_path / "guitar.ply", cloud)
    again = read_splats(tmp_path / "guitar.ply")
    for name in ("means", "sh", "quats_wxyz", "scales", "opacities"):
        assert np.abs(getattr(again, name) - getattr(cloud, name)).max() < 3e-6, name
    from lyra_core.io.ply import read_vertex_ply

    raw, ours = read_vertex_ply(GUITAR), read_vertex_ply(tmp_path / "guitar.ply")
    assert np.abs(raw["scale_0"] - ours["scale_0"]).max() < 1e-5
    clear = np.abs(raw["opacity"]) < 8
    assert np.abs(raw["opacity"] - ours["opacity"])[clear].max() < 2e-3
