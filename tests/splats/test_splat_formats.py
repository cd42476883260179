"""One door for all splat files: told by content, written by suffix; damaged ones give an InputError and nothing else."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from splat_clouds import assert_within, covariances, make_cloud, rows

from lyra_core.errors import InputError
from lyra_core.io.ply import read_vertex_ply, write_vertex_ply
from lyra_core.splats.formats import (
    SPLAT_SUFFIXES,
    WRITABLE_SUFFIXES,
    looks_like_splats,
    read_splat_file,
    read_splat_records,
    stated_up,
    write_splat_file,
)
from lyra_core.splats.packed_ply import morton_order
from lyra_core.splats.ply import write_splats
from lyra_core.splats.transform import flipped

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "splats"


def rewritten(path: Path, order: str, *, newline: str = "\n", extra: bool = False) -> None:
    """Turn our .ply into an ascii ('') or big-endian ('>') one, with a quality property, a comment and faces on demand."""
    table = read_vertex_ply(path)
    names = [name for name in table.dtype.names or () if name != "provenance"]
    form = {"": "ascii", ">": "binary_big_endian", "<": "binary_little_endian"}[order]
    lines = ["ply", f"format {form} 1.0", "comment made by a test", f"element vertex {len(table)}",
             *(f"property double {name}" for name in names), *(["property uchar quality"] if extra else []),
             *(["element face 1", "property list uchar int vertex_indices"] if extra else []), "end_header"]
    values = np.stack([table[name].astype(np.float64) for name in names], 1)
    fields = [(name, (order or "<") + "f8") for name in names] + ([("quality", "u1")] if extra else [])
    out = np.zeros(len(table), fields)
    for i, name in enumerate(names):
        out[name] = values[:, i]
    if order:
        body = out.tobytes() + (struct.pack(order + "B3i", 3, 0, 1, 2) if extra else b"")
    else:
        text = [" ".join(repr(float(v)) for v in row) + (" 7" if extra else "") for row in values]
        body = ("\n".join([*text, *(["3 0 1 2"] if extra else [])]) + "\n").encode()
    path.write_bytes((newline.join(lines) + newline).encode() + body)


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("order", ["", "<", ">"])
def test_ply_of_all_kinds(tmp_path, order, newline, extra):
    cloud = make_cloud(40)
    write_splats(tmp_path / "a.ply", cloud)
    rewritten(tmp_path / "a.ply", order, newline=newline, extra=extra)
    assert looks_like_splats(tmp_path / "a.ply")
    assert_within(cloud, read_splat_file(tmp_path / "a.ply"), opacities=2e-6)


def test_a_flat_gaussian_is_kept(tmp_path):
    """A logarithm of minus infinity is an exact plane; opacities of 0 and 1 have infinite logits."""
    write_splats(tmp_path / "a.ply", make_cloud(3, 0))
    table = read_vertex_ply(tmp_path / "a.ply").copy()
    table["scale_2"][0], table["opacity"][:2] = -np.inf, [np.inf, -np.inf]
    write_vertex_ply(tmp_path / "a.ply", {name: table[name] for name in table.dtype.names or ()})
    cloud = read_splat_file(tmp_path / "a.ply")
    assert 0 < cloud.scales[0, 2] < 1e-8 and cloud.opacities[:2].tolist() == [1, 0]


@pytest.mark.parametrize("suffix", WRITABLE_SUFFIXES)
def test_suffix_chooses_the_writer_and_content_the_reader(tmp_path, suffix):
    cloud, path = make_cloud(), tmp_path / f"a{suffix}"
    write_splat_file(path, cloud)
    assert looks_like_splats(path)
    again = read_splat_file(path)
    want = rows(cloud, morton_order(cloud.means)) if suffix == ".compressed.ply" else cloud
    assert_within(want, again, means=3e-3, degrees=0.25, log_scales=0.032, opacities=2e-3, dc=0.0131, band1=0.036, bands23=0.067)
    assert np.median(np.abs(covariances(want) - covariances(again))) < 0.02
    # A wrong name does not matter where the content tells.
    if suffix != ".spz":
        other = tmp_path / "b.ply"
        other.write_bytes(path.read_bytes())
        assert len(read_splat_file(other).means) == len(cloud.means)


def test_formats_agree_on_the_frame(tmp_path):
    cloud = make_cloud(30)
    for suffix in (".ply", ".spz"):
        write_splat_file(tmp_path / f"a{suffix}", cloud)
    write_splat_file(tmp_path / "a.glb", flipped(cloud, (-1, -1, 1)))
    plain, spz, glb = (read_splat_file(tmp_path / f"a{suffix}") for suffix in (".ply", ".spz", ".glb"))
    assert np.abs(plain.means - spz.means).max() < 2e-4 and np.abs(plain.means - glb.means * [-1, -1, 1]).max() < 1e-6
    assert stated_up(tmp_path / "a.ply") is None
    for name, up in (("a.glb", 1), ("a.spz", -1)):
        stated = stated_up(tmp_path / name)
        assert stated is not None and stated.tolist() == [0, up, 0]


def splat_records(n: int = 20) -> tuple[bytes, np.ndarray]:
    cloud = make_cloud(n, 0)
    quats = np.clip(np.rint(cloud.quats_wxyz * 128 + 128), 0, 255).astype(np.uint8)
    data = b"".join(struct.pack("<6f4B", *cloud.means[i], *cloud.scales[i], 255, 0, 51, 102) + quats[i].tobytes() for i in range(n))
    return data, quats


def test_splat_records(tmp_path):
    data, _ = splat_records()
    (tmp_path / "a.splat").write_bytes(data)
    cloud, want = read_splat_file(tmp_path / "a.splat"), make_cloud(20, 0)
    assert np.array_equal(cloud.means, want.means) and np.array_equal(cloud.scales, want.scales)
    assert np.allclose(0.5 + 0.28209479 * cloud.sh[:, 0], [1, 0, 0.2], atol=1e-6) and np.allclose(cloud.opacities, 0.4)
    assert np.abs((cloud.quats_wxyz * want.quats_wxyz).sum(1)).min() > np.cos(np.radians(1))


def test_what_is_not_splats(tmp_path):
    mesh = "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n0 0 0\n"
    (tmp_path / "mesh.ply").write_text(mesh)
    (tmp_path / "mesh.gltf").write_text(json.dumps({"asset": {"version": "2.0"}}))
    (tmp_path / "x.txt").write_text("hello")
    (tmp_path / "empty.ply").write_bytes(b"")
    (tmp_path / "folder.ply").mkdir()
    for name in ("mesh.ply", "mesh.gltf", "x.txt", "empty.ply", "folder.ply", "missing.spz"):
        assert not looks_like_splats(tmp_path / name), name
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_splat_file(tmp_path / name)
    for name in ("a.splat", "a.obj", "a.gltf", "a"):
        with pytest.raises(InputError, match="suffix"):
            write_splat_file(tmp_path / name, make_cloud(3))
    for suffix in WRITABLE_SUFFIXES:
        assert suffix in SPLAT_SUFFIXES
        with pytest.raises(InputError, match="no Gaussian"):
            write_splat_file(tmp_path / f"none{suffix}", rows(make_cloud(3), np.zeros(0, np.int64)))


def samples(folder: Path) -> dict[str, Path]:
    """Write one sound file of each kind."""
    from test_splat_khr_gltf import as_gltf

    cloud = make_cloud(300, 1)
    for suffix in WRITABLE_SUFFIXES:
        write_splat_file(folder / f"a{suffix}", cloud)
    for name, order in (("ascii.ply", ""), ("big.ply", ">")):
        write_splats(folder / name, cloud)
        rewritten(folder / name, order)
    (folder / "a.splat").write_bytes(splat_records()[0])
    as_gltf(folder)
    (folder / "v4.spz").write_bytes(b"NGSP" + struct.pack("<IIBBBBI12x", 4, 6, 0, 12, 0, 5, 32) + bytes(200))
    return {path.name: path for path in sorted(folder.iterdir()) if path.suffix != ".bin"}


KINDS = ("a.ply", "a.compressed.ply", "a.spz", "a.glb", "ascii.ply", "big.ply", "a.splat", "a.gltf", "v4.spz")
CUTS = (0, 1, 3, 11, 30, 0.1, 0.5, 0.9, -1)
FUZZ = [(kind, f"cut {cut}") for kind in KINDS for cut in CUTS] + [(kind, f"bytes {i}") for kind in KINDS for i in range(3)]
LIMIT = 300 << 20
"""Bytes that a damaged file of kilobytes may take."""


@pytest.mark.parametrize(("kind", "damage"), FUZZ)
def test_damaged_files_give_one_input_error(tmp_path, kind, damage):
    """108 cases: cut files are refused, flipped bytes may also still be read.

    Whole records of a .splat, and an ascii file without its last newline, are sound.
    """
    path = samples(tmp_path)[kind]
    data = path.read_bytes()
    what, value = damage.split()
    tracemalloc.start()
    try:
        if what == "cut":
            cut = float(value)
            path.write_bytes(data[:int(cut if cut in (0, -1) or cut >= 1 else cut * len(data))])
            if damage == "cut -1" and kind == "ascii.ply":
                assert len(read_splat_file(path).means) == 300
            elif kind == "a.splat" and path.stat().st_size % 32 == 0 and path.stat().st_size:
                assert len(read_splat_records(path).means) == path.stat().st_size // 32
            else:
                with pytest.raises(InputError, match=kind.replace(".", r"\.")):
                    read_splat_file(path)
        else:
            rng = np.random.default_rng(int(value))
            for reach in (64, 1500, len(data)):
                for _ in range(8):
                    bad = bytearray(data)
                    for at in rng.integers(0, min(reach, len(data)), 3):
                        bad[at] = rng.integers(0, 256)
                    path.write_bytes(bytes(bad))
                    looks_like_splats(path)
                    try:
                        cloud = read_splat_file(path)
                    except InputError as error:
                        assert kind in str(error)
                    else:
                        assert np.isfinite(cloud.means).all() and (cloud.scales > 0).all()
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not (DATA / "guitar.ply").is_file(), reason="evaluation data is not here")
def test_real_captures_are_told_apart():
    for name in ("guitar.ply", "guitar.compressed.ply", "khr_conformance_matrix.glb", "khr_extensible_fallback.gltf"):
        assert looks_like_splats(DATA / name), name
    assert len(read_splat_file(DATA / "guitar.compressed.ply").means) == 90854
