"""The explicit world of analytic photos: looks like the photo, has no holes, agrees with its colliders, keeps what was seen."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace

import numpy as np
import photo_inputs
import pytest
import trimesh

from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.config import NavigationCfg
from lyra_core.errors import WorldError
from lyra_core.generate.procedural import GeneratorProcedural
from lyra_core.generate.procedural.layout import build_layout
from lyra_core.generate.procedural.query import WorldView
from lyra_core.io.meshes import merge_parts
from lyra_core.navigation import free_space, home_island
from lyra_core.rays import cast_camera, make_ray_tracer
from lyra_core.types import Camera, Label, Provenance, Trajectory
from lyra_core.usd.check import check_winding

ATLAS = 1024
RADIUS = 0.3
KINDS = ("indoor", "outdoor")
ARRAYS = ("vertices", "faces", "uv", "texture", "face_label", "face_provenance", "face_part")


@cache
def built(kind, seed=0, mirror=False):
    source = photo_inputs.photo(indoor=kind == "indoor")
    source = photo_inputs.mirrored(source) if mirror else source
    world = build_layout(source, indoor=kind == "indoor", seed=seed, atlas_size=ATLAS)
    e = source.estimate
    frame = WorldView(world.mesh).render(e.camera, e.T_world_camera)
    return SimpleNamespace(source=source, world=world, mesh=world.mesh, frame=frame, indoor=kind == "indoor")


@cache
def grid(kind, seed=0):
    return free_space(built(kind, seed).world.parts, cfg=NavigationCfg(cell=0.05 if kind == "indoor" else 0.1))


def free_points(kind, count, *, seed=0, low=0.3, high=1.5):
    """Random points (count, 3) above cells that the robot can reach."""
    space, rng = grid(kind, seed), np.random.default_rng(3)
    cells = np.argwhere(home_island(space, RADIUS))
    cells = cells[rng.integers(len(cells), size=count)]
    xy = space.origin + (cells[:, ::-1] + 0.5) * space.cell
    return np.column_stack([xy, rng.uniform(low, high, count)])


def psnr(a, b):
    return 10 * np.log10(255.0**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("kind", KINDS)
def test_photo_view_is_reproduced(kind):
    w = built(kind)
    seen = w.frame.provenance == Provenance.SEEN
    solid = w.source.estimate.labels != Label.SKY
    assert seen[solid].mean() > 0.9
    assert psnr(w.frame.rgb[seen], w.source.rgb[seen]) >= 25
    # The bar means something: the same picture three pixels beside itself stays below it.
    assert psnr(np.roll(w.frame.rgb, 3, 1)[seen], w.source.rgb[seen]) < 25


@pytest.mark.parametrize("kind", KINDS)
def test_photo_view_has_the_photos_depth(kind):
    w = built(kind)
    true, got = w.source.estimate.depth, w.frame.depth
    near = np.isfinite(true) & (true < 20)
    assert np.isfinite(got[near]).mean() > 0.995
    error = np.abs(got[near] / true[near] - 1)
    assert np.nanmedian(error) < 0.01 and np.nanpercentile(error, 90) < 0.1


def test_sky_is_drawn_but_not_measured():
    w = built("outdoor")
    sky = w.source.estimate.labels == Label.SKY
    assert np.isnan(w.frame.depth[sky]).mean() > 0.95
    assert psnr(w.frame.rgb[sky], w.source.rgb[sky]) >= 25


@pytest.mark.parametrize("kind", KINDS)
def test_no_hole_below_the_horizon(kind):
    mesh, eyes, rng = built(kind).mesh, free_points(kind, 200), np.random.default_rng(1)
    z, angle = -rng.uniform(0, 1, (200, 100)), rng.uniform(0, 2 * np.pi, (200, 100))
    r = np.sqrt(1 - z * z)
    directions = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1).reshape(-1, 3).astype(np.float32)
    hits = make_ray_tracer(mesh.vertices, mesh.faces).cast(np.repeat(eyes, 100, 0).astype(np.float32), directions)
    solid = (hits.face >= 0) & (mesh.face_label[np.maximum(hits.face, 0)] != Label.SKY)
    assert solid.mean() >= 0.995
    # What was hit looks at the eye: floors up, walls and ceilings inwards, objects outwards.
    corners = mesh.vertices[mesh.faces[hits.face[solid]]].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normal * directions[solid]).sum(1) > 0).mean() < 0.002


@pytest.mark.parametrize("kind", KINDS)
def test_floors_face_up_and_ceilings_down(kind):
    mesh = built(kind).mesh
    corners = mesh.vertices[mesh.faces].astype(float)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normal[mesh.face_label == Label.FLOOR, 2] > 0).all()
    assert (normal[mesh.face_label == Label.CEILING, 2] < 0).all()
    assert (mesh.face_label == Label.CEILING).any() == (kind == "indoor")
    floor = mesh.vertices[np.unique(mesh.faces[mesh.face_label == Label.FLOOR])]
    assert np.abs(floor[:, 2]).max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_colliders_face_free_space(kind):
    parts, points = built(kind).world.parts, free_points(kind, 150, low=0.4, high=0.6)
    check_winding(parts, points)
    inverted = [p if p.label != Label.FLOOR else type(p)(p.name, p.label, p.kind, p.vertices, p.faces[:, ::-1], p.provenance)
                for p in parts]  # fmt: skip
    with pytest.raises(WorldError, match="floor"):
        check_winding(inverted, points)


@pytest.mark.parametrize("kind", KINDS)
def test_colliders_agree_with_what_is_seen(kind):
    w, camera = built(kind), Camera.from_focal(24, 48, 48)
    keep = w.mesh.face_label != Label.SKY
    seen, touched = make_ray_tracer(w.mesh.vertices, w.mesh.faces[keep]), make_ray_tracer(*merge_parts(w.world.parts))
    gaps, rng = [], np.random.default_rng(2)
    for eye in free_points(kind, 60):
        T = from_yaw_pitch(eye, float(rng.uniform(0, 2 * np.pi)))
        a, b = cast_camera(seen, camera, T).t, cast_camera(touched, camera, T).t
        height = eye[2] + (camera.rays().reshape(-1, 3) @ T[:3, :3].T)[:, 2] * np.where(np.isfinite(a), a, 0)
        band = (a < 10) & (height > 0.1) & (height < 1.5)
        gaps.append(np.abs(np.minimum(a, 10) - np.minimum(b, 10))[band])
    assert np.percentile(np.concatenate(gaps), 95) <= 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_texture_coordinates_lie_in_the_atlas(kind):
    mesh = built(kind).mesh
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    assert mesh.texture.shape == (ATLAS, ATLAS, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_solids_are_closed(kind):
    solids = [p for p in built(kind).world.parts if p.kind == "solid"]
    assert any(p.provenance == Provenance.SEEN for p in solids) and any(p.provenance == Provenance.INVENTED for p in solids)
    for part in solids:
        body = trimesh.Trimesh(part.vertices, part.faces, process=False)
        assert body.is_watertight and body.is_winding_consistent and body.volume > 1e-3, part.name
    names = {p.name for p in solids}
    assert names == {name for name in built(kind).mesh.part_names if name.startswith(("object", "copy"))}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_space_can_be_reached(kind, seed):
    space, places = grid(kind, seed), built(kind, seed).world.places
    island = home_island(space, RADIUS)
    cells = space.origin + (np.argwhere(island)[:, ::-1] + 0.5) * space.cell
    assert len(places) >= 3
    for place in places:
        # Copies of objects stand along the walls; the middle of a space is never far from a place to stand.
        assert np.hypot(*(cells - place).T).min() < 0.5
    assert island.sum() * space.cell**2 >= 60
    unreached = space.traversable(RADIUS) & ~island
    assert unreached.sum() <= 0.02 * island.sum()


def test_outdoor_world_has_a_walk_of_90_m():
    space = grid("outdoor")
    free = np.pad(space.traversable(RADIUS).astype(int), ((0, 0), (1, 1)))
    edges = np.diff(free, axis=1)
    lengths = [np.flatnonzero(row == -1) - np.flatnonzero(row == 1) for row in edges]
    assert max(int(row.max()) for row in lengths if len(row)) * space.cell >= 90


def corner_positions(mesh, rows):
    """Corners of faces as a set of tuples in millimetres: independent of the order of faces and vertices."""
    return {tuple(map(tuple, np.round(triangle * 1000).astype(int))) for triangle in mesh.vertices[mesh.faces[rows]].astype(float)}


def patch_areas(mesh, rows):
    """Area [m2] of horizontal faces per patch of 0.4 m: the same surface may be cut into other triangles."""
    corners = mesh.vertices[mesh.faces[rows]][..., :2].astype(float)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area, patch = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2, np.floor(corners.mean(1) / 0.4).astype(int)
    patches, index = np.unique(patch, axis=0, return_inverse=True)
    sums = np.bincount(index.ravel(), area)
    return dict(zip(map(tuple, patches[sums > 1e-6].tolist()), sums[sums > 1e-6].round(4).tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_changes_only_what_is_unseen(kind):
    a, b = built(kind), built(kind, 1)
    for label in (Label.FLOOR, Label.WALL, Label.CEILING, Label.OBSTACLE):
        describe = patch_areas if label in (Label.FLOOR, Label.CEILING) else corner_positions
        rows = [(w.mesh.face_provenance == Provenance.SEEN) & (w.mesh.face_label == label) for w in (a, b)]
        seen = [describe(w.mesh, r) for w, r in zip((a, b), rows, strict=True)]
        assert seen[0] == pytest.approx(seen[1], abs=1e-3) if describe is patch_areas else seen[0] == seen[1]
        assert bool(seen[0]) == (label != Label.CEILING or kind == "indoor")
    invented = [corner_positions(w.mesh, w.mesh.face_provenance == Provenance.INVENTED) for w in (a, b)]
    assert len(invented[0] & invented[1]) < 0.1 * len(invented[0])
    # The photo's view is the same picture; only the packing of the atlas may move a texel.
    seen = a.frame.provenance == Provenance.SEEN
    assert np.array_equal(seen, b.frame.provenance == Provenance.SEEN)
    np.testing.assert_allclose(a.frame.depth[seen], b.frame.depth[seen], rtol=1e-5)
    assert np.abs(a.frame.rgb[seen].astype(int) - b.frame.rgb[seen]).mean() < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_the_same_bytes(kind):
    again = build_layout(photo_inputs.photo(indoor=kind == "indoor"), indoor=kind == "indoor", seed=0, atlas_size=ATLAS)
    first = built(kind).world
    for name in ARRAYS:
        assert getattr(first.mesh, name).tobytes() == getattr(again.mesh, name).tobytes(), name
    assert first.mesh.part_names == again.mesh.part_names and first.places.tobytes() == again.places.tobytes()
    assert [p.name for p in first.parts] == [p.name for p in again.parts]
    for p, q in zip(first.parts, again.parts, strict=True):
        assert p.vertices.tobytes() == q.vertices.tobytes() and p.faces.tobytes() == q.faces.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_photo_gives_the_mirrored_layout(kind):
    a, b = built(kind).frame, built(kind, mirror=True).frame
    depth, flipped = a.depth, b.depth[:, ::-1]
    both = np.isfinite(depth) & np.isfinite(flipped)
    assert (np.isfinite(depth) == np.isfinite(flipped)).mean() > 0.99
    assert np.mean(np.abs(depth[both] - flipped[both]) / depth[both]) < 0.05
    assert psnr(a.rgb, b.rgb[:, ::-1]) > 25


def test_views_depend_on_the_world_not_on_the_way_there():
    w = built("indoor")
    T = np.stack([from_yaw_pitch(p, 1.0) for p in free_points("indoor", 3)])
    camera = Camera.from_focal(40, 64, 48)
    generator = GeneratorProcedural(quality="draft")
    generator.restore(w.world)
    path = Trajectory(T, camera.K[None].repeat(3, 0), 64, 48)
    alone = [generator.first_frame(path[i : i + 1]) for i in (2, 0, 1)]
    for frame, i in zip(alone, (2, 0, 1), strict=True):
        same = generator.first_frame(path[i : i + 1])
        assert np.array_equal(frame.rgb, same.rgb) and np.array_equal(frame.depth, same.depth, equal_nan=True)
        assert np.isfinite(frame.depth).all()


def test_no_world_before_prepare():
    with pytest.raises(WorldError, match="prepare"):
        GeneratorProcedural(quality="draft").explicit_world()
