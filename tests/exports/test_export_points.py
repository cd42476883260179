"""Point clouds: even, on the surface, coloured and classified; LAS also byte by byte against its specification."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from lyra_core.exports import ExportCfg, export_world
from lyra_core.exports.points import even_samples, surface_points
from lyra_core.types import Label
from lyra_core.world import World


def test_even_samples_give_each_triangle_its_share() -> None:
    area = np.array([1.0, 0.25, 0.0, 2.0])
    face, weight = even_samples(area, 100, np.random.default_rng(0))
    assert len(face) == 325 and np.abs(np.bincount(face, minlength=4) - 100 * area).max() <= 1
    assert np.allclose(weight.sum(1), 1) and weight.min() >= 0


def test_points_are_spread_more_evenly_than_chance(export_source: World) -> None:
    points = surface_points(export_source, ExportCfg(up="z", points_per_m2=200))
    floor = points.xyz[(points.label == Label.FLOOR) & (points.xyz[:, 0] < 4)]
    count = np.histogram2d(floor[:, 0], floor[:, 1], bins=[12, 12], range=[[-2, 4], [-3, 3]])[0]
    mean = 200 * 36 / 144
    assert abs(count.mean() - mean) < 0.5 and count.var() < 0.5 * mean, "Poisson's variance is the mean"


def test_points_ply(export_source: World, tmp_path: Path) -> None:
    path = export_world(export_source, tmp_path / "p.ply", format="points", points_per_m2=50)[0]
    cloud = trimesh.load(path)
    mesh = trimesh.Trimesh(export_source.mesh.vertices, export_source.mesh.faces, process=False)
    assert len(cloud.vertices) == round(mesh.area * 50)
    some = cloud.vertices[::20]
    assert trimesh.proximity.closest_point_naive(mesh, some)[1].max() < 1e-4
    low = cloud.colors[cloud.vertices[:, 2] < 1e-6][:, :3].astype(int)
    assert np.median(np.abs(low - (150, 120, 90)).max(1)) <= 24
    again = export_world(export_source, tmp_path / "q.ply", format="points", points_per_m2=50)[0]
    other = export_world(export_source, tmp_path / "r.ply", format="points", points_per_m2=50, seed=1)[0]
    assert path.read_bytes() == again.read_bytes() != other.read_bytes()


@pytest.fixture(scope="module")
def las(export_source: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_world(export_source, tmp_path_factory.mktemp("las") / "w.las", points_per_m2=50)[0]


def test_las_header_by_the_specification(las: Path) -> None:
    data = las.read_bytes()
    assert data[:4] == b"LASF" and tuple(data[24:26]) == (1, 4)
    header, start, records = struct.unpack_from("<HII", data, 94)
    kind, length, legacy = struct.unpack_from("<BHI", data, 104)
    assert (header, records, kind, length, legacy) == (375, 2, 7, 48, 0)
    count, first_returns = struct.unpack_from("<QQ", data, 247)
    assert count == first_returns and start + 48 * count == len(data)
    scale, offset, bounds = (struct.unpack_from(f"<{n}d", data, at) for n, at in ((3, 131), (3, 155), (6, 179)))
    raw = np.ndarray((count, 3), "<i4", data, start, (48, 4))
    xyz = raw * np.array(scale) + offset
    assert scale == (0.001,) * 3
    assert np.allclose(np.array(bounds).reshape(3, 2)[:, ::-1].T, [xyz.min(0), xyz.max(0)], atol=1e-9)
    assert np.allclose([xyz.min(0), xyz.max(0)], [[-2, -3, 0], [10, 3, 2.5]], atol=0.1)
    assert b"LASF_Projection" not in data[:start], "no place on Earth is claimed"


def test_las_through_laspy(las: Path) -> None:
    laspy = pytest.importorskip("laspy")
    cloud = laspy.read(las)
    assert str(cloud.header.version) == "1.4" and cloud.point_format.id == 7 and cloud.header.parse_crs() is None
    classes, label = np.asarray(cloud.classification), np.asarray(cloud.user_data)
    assert set(classes[label == Label.FLOOR]) == {2} and set(classes[label == Label.WALL]) == {6}
    assert set(classes[label == Label.OBSTACLE]) == {64}
    floor = classes == 2
    assert np.abs(cloud.xyz[floor, 2]).max() < 1e-3 and np.allclose(np.asarray(cloud.NormalZ)[floor], 1)
    rgb = np.stack([cloud.red, cloud.green, cloud.blue], 1)[floor] // 257
    assert np.abs(rgb.astype(int) - (150, 120, 90)).max() <= 24
    assert set(np.asarray(cloud.point_source_id)[floor & (cloud.x < 3.9)]) == {1}
    assert set(np.asarray(cloud.point_source_id)[floor & (cloud.x > 4.2)]) == {3}
