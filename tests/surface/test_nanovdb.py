"""NanoVDB files: written sparse, read by Warp and by NanoVDB's own tool, sampled as numpy does."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from surface_scenes import sphere_frames

from lyra_core.camera.warp_package import load_warp
from lyra_core.errors import InputError
from lyra_core.surface.base import fuse
from lyra_core.surface.blocks import FusionBlocks
from lyra_core.surface.nanovdb import SparseVoxels, known_voxels, read_nvdb, sample_nvdb, write_nvdb


def write(path, voxels: SparseVoxels) -> None:
    write_nvdb(path, voxels.ijk, voxels.values, voxels.voxel, voxels.origin, background=voxels.background)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A fused sphere of radius 1 m in a file, and its voxels."""
    fusion = FusionBlocks(0.1)
    fuse(fusion, sphere_frames())
    path, voxels = tmp_path_factory.mktemp("nvdb") / "sphere.nvdb", known_voxels(fusion.grid())
    write(path, voxels)
    return path, voxels


def test_voxels_return_exactly(stored):
    path, voxels = stored
    again = read_nvdb(path)
    a, b = np.lexsort(voxels.ijk.T), np.lexsort(again.ijk.T)
    assert (voxels.ijk[a] == again.ijk[b]).all() and (voxels.values[a] == again.values[b]).all()
    assert again.voxel == 0.1 and again.background == 0.25 and (again.origin == 0.05).all()


def test_warp_reads_what_was_written(stored):
    path, voxels = stored
    wp = load_warp("test")
    with path.open("rb") as stream:
        volume = wp.Volume.load_from_nvdb(stream, device="cpu")
    info, tiles = volume.get_grid_info(), volume.get_tiles().numpy()
    assert info.type_str == "float" and info.name == "surface" and np.allclose(info.translation, 0.05)
    assert {tuple(t) for t in tiles // 8} == {tuple(b) for b in voxels.ijk // 8}, "the leaves of the band and no others"


def test_samples_are_trilinear(stored):
    """Against scipy's interpolation of the dense array, and against the sphere."""
    path, voxels = stored
    assert np.abs(sample_nvdb(path, voxels.points()) - voxels.values).max() < 1e-6
    dense, low = np.full((40, 40, 40), voxels.background, np.float32), np.full(3, -20)
    dense[tuple((voxels.ijk - low).T)] = voxels.values
    points = np.random.default_rng(0).uniform(-1.6, 1.6, (5000, 3))
    truth = map_coordinates(dense, ((points - voxels.origin) / voxels.voxel - low).T, order=1, mode="nearest")
    assert np.abs(sample_nvdb(path, points) - truth).max() < 1e-5
    shell = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert np.median(np.abs(sample_nvdb(path, 1.03 * shell) - 0.03)) < 0.01, "metres from the sphere, outside positive"


def test_far_apart_voxels_stay_sparse(tmp_path):
    ijk = np.array([[0, 0, 0], [-1, -1, -1], [1_000_000, -2_000_000, 3_000_000]])
    write_nvdb(tmp_path / "far.nvdb", ijk, np.array([0.1, -0.2, 0.3]), 0.05, np.zeros(3))
    assert (tmp_path / "far.nvdb").stat().st_size < 2_000_000
    again = read_nvdb(tmp_path / "far.nvdb")
    assert {tuple(i): v for i, v in zip(again.ijk.tolist(), again.values.tolist(), strict=True)} == {
        tuple(i): np.float32(v) for i, v in zip(ijk.tolist(), (0.1, -0.2, 0.3), strict=True)}
    assert sample_nvdb(tmp_path / "far.nvdb", ijk * 0.05)[:2] == pytest.approx([0.1, -0.2], abs=1e-6)


def test_two_levels_fill_the_finest_cells(tmp_path):
    fusion = FusionBlocks(0.05, eyes=np.array([[2.9, 0.0, 0.0]]), near=2.0)
    fuse(fusion, sphere_frames())
    write(tmp_path / "a.nvdb", known_voxels(fusion.grid()))
    far = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.98, 0.0]])
    assert np.abs(sample_nvdb(tmp_path / "a.nvdb", far)).max() < 0.06


def test_zip_as_warp_writes_it(stored, tmp_path):
    wp = load_warp("test")
    with stored[0].open("rb") as stream:
        wp.Volume.load_from_nvdb(stream, device="cpu").save_to_nvdb(str(tmp_path / "zip.nvdb"), codec="zip")
    assert (tmp_path / "zip.nvdb").stat().st_size < stored[0].stat().st_size / 5
    assert len(read_nvdb(tmp_path / "zip.nvdb").ijk) == len(stored[1].ijk)
    points = stored[1].points()
    assert (sample_nvdb(tmp_path / "zip.nvdb", points) == sample_nvdb(stored[0], points)).all()


@pytest.mark.skipif(shutil.which("nanovdb_validate") is None, reason="no nanovdb_validate (apt-get install libnanovdb-tools)")
def test_nanovdb_validates_it(stored):
    out = subprocess.run(["nanovdb_validate", "-v", str(stored[0])], capture_output=True, text=True, timeout=30, check=False)
    assert 'Grid named "surface": passed' in out.stdout


def test_damaged_files_are_one_error(stored, tmp_path):
    data, bad = stored[0].read_bytes(), tmp_path / "bad.nvdb"
    tree = 16 + 176 + len("surface") + 1 + 672
    contents = [b"", data[:100], data[: len(data) // 2], data[:-1], b"NanoVDB0" + b"\xff" * 4000, data + b"\0", b"x" * 5000]
    contents += [data[:at] + b"\xff" * 8 + data[at + 8:] for at in (8, 16, 152, tree - 640, tree - 36, tree, tree + 32, tree - 288)]
    for content in contents:
        bad.write_bytes(content)
        for read in (read_nvdb, lambda path: sample_nvdb(path, np.zeros((1, 3)))):
            with pytest.raises(InputError, match=r"bad\.nvdb"):
                read(bad)
    with pytest.raises(InputError, match="no such file"):
        sample_nvdb(tmp_path / "none.nvdb", np.zeros((1, 3)))


def test_random_damage_never_crashes(stored, tmp_path):
    """Offsets that lead elsewhere are seen by Warp's reader; values may differ."""
    rng, data, bad = np.random.default_rng(0), np.fromfile(stored[0], np.uint8), tmp_path / "bad.nvdb"
    hot, refused = np.flatnonzero(data), 0
    for turn in range(60):
        broken = data.copy()
        broken[rng.choice(hot[:400] if turn % 2 else hot, 4)] ^= rng.integers(1, 256, 4).astype(np.uint8)
        bad.write_bytes(broken.tobytes())
        for read in (read_nvdb, lambda path: sample_nvdb(path, rng.uniform(-1.5, 1.5, (100, 3)))):
            try:
                read(bad)
            except InputError:
                refused += 1
    assert 10 < refused < 110, "some are seen, some are values alone"


def test_bad_voxels_are_one_error(tmp_path):
    path, one = tmp_path / "x.nvdb", np.array([[1, 2, 3]])
    for ijk, values, voxel, origin, why in (
        (one, [0.1, 0.2], 0.1, np.zeros(3), r"\(N, 3\)"), (one, [np.nan], 0.1, np.zeros(3), "finite"),
        (one, [0.1], 0.0, np.zeros(3), "positive"), (one, [0.1], 0.1, np.zeros(2), "origin"),
        (one * 2**31, [0.1], 0.1, np.zeros(3), "within"), (one[:0], [], 0.1, np.zeros(3), "0 voxels"),
        (np.repeat(one, 2, axis=0), [0.1, 0.2], 0.1, np.zeros(3), "twice"), (one + 0.5, [0.1], 0.1, np.zeros(3), "whole"),
    ):
        with pytest.raises(InputError, match=rf"x\.nvdb: .*{why}"):
            write_nvdb(path, ijk, np.array(values), voxel, origin)
    with pytest.raises(InputError, match="no known cell"):
        known_voxels(FusionBlocks(0.1).grid())
    assert not path.exists()
