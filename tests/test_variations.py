"""Variations of one photo: the seen part stays, the rest changes with the seed, every way stays open, runs resume."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import trimesh

from lyra_core.config import from_dict
from lyra_core.errors import Cancelled, ConfigError, WorldError
from lyra_core.generate.base import ExplicitWorld
from lyra_core.generate.procedural.appearance import light_map, unseen_faces, with_rows
from lyra_core.generate.procedural.layout import build_layout
from lyra_core.generate.procedural.props import copies_of, draw_prop
from lyra_core.generate.procedural.query import WorldView
from lyra_core.jobs.progress import ProgressQueue
from lyra_core.navigation import free_space, home_island, islands, load_episodes
from lyra_core.types import Label, Provenance, SurfaceMesh
from lyra_core.usd.validate import validate_stage
from lyra_core.variations import build_variations, variation_cfg, variation_folder, varied
from lyra_core.world import World
from tests.e2e.e2e_worlds import assert_same_bytes, demo_picture, draft, file_hashes, jpeg, start_create
from tests.generate import photo_inputs

KINDS = ("indoor", pytest.param("outdoor", marks=pytest.mark.slow))
ARRAYS = ("vertices", "faces", "uv", "texture", "face_label", "face_provenance", "face_part")


def cell(kind: str) -> float:
    return 0.05 if kind == "indoor" else 0.1


@cache
def plain(kind: str) -> ExplicitWorld:
    return build_layout(photo_inputs.photo(indoor=kind == "indoor"), indoor=kind == "indoor", seed=7, atlas_size=512)


@cache
def changed(kind: str, index: int = 1, **options: float) -> tuple[ExplicitWorld, dict]:
    """The plain world of one seed with what variation ``index`` adds to it: only the look and the loose things differ."""
    cfg = from_dict({"seed": 7, "variation": {"index": index, **options}, "navigation": {"cell": cell(kind)}})
    e = photo_inputs.photo(indoor=kind == "indoor").estimate
    return varied(plain(kind), cfg, camera=e.camera, T_world_camera=e.T_world_camera)


def triangles(mesh: SurfaceMesh, rows: np.ndarray) -> np.ndarray:
    """Corners of faces (F, 3, 3) in their order."""
    return mesh.vertices[mesh.faces[rows]]


@pytest.mark.parametrize("kind", KINDS)
def test_geometry_stays_and_loose_things_come_last(kind):
    before, (after, drawn) = plain(kind), changed(kind)
    n = len(before.mesh.faces)
    np.testing.assert_array_equal(triangles(before.mesh, np.arange(n)), triangles(after.mesh, np.arange(n)))
    for name in ("face_label", "face_provenance", "face_part"):
        np.testing.assert_array_equal(getattr(before.mesh, name), getattr(after.mesh, name)[:n])
    added = after.parts[len(before.parts) :]
    assert 1 <= len(added) == len(drawn["clutter"]) <= 8
    assert after.mesh.part_names == (*before.mesh.part_names, *(p.name for p in added))
    assert (after.mesh.face_provenance[n:] == Provenance.INVENTED).all() and (after.mesh.face_label[n:] == Label.OBSTACLE).all()
    for part in added:
        body = trimesh.Trimesh(part.vertices, part.faces, process=False)
        assert body.is_watertight and body.is_winding_consistent and body.volume > 1e-3, part.name


@pytest.mark.parametrize("kind", KINDS)
def test_the_photos_view_keeps_its_depth_and_takes_another_light(kind):
    e = photo_inputs.photo(indoor=kind == "indoor").estimate
    a, b = (WorldView(w.mesh).render(e.camera, e.T_world_camera) for w in (plain(kind), changed(kind)[0]))
    np.testing.assert_array_equal(a.depth, b.depth)
    np.testing.assert_array_equal(a.provenance, b.provenance)
    assert np.abs(a.rgb.astype(float) - b.rgb).mean() > 2
    kept = WorldView(changed(kind, lighting=0.0)[0].mesh).render(e.camera, e.T_world_camera)
    seen = a.provenance == Provenance.SEEN
    assert np.abs(a.rgb[seen].astype(int) - kept.rgb[seen]).max() <= 1, "paint is only for what the photo does not show"


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_stays_open(kind):
    for index in (1, 2) if kind == "indoor" else (1,):
        after, drawn = changed(kind, index, lighting=0.0, paint=0.0)
        cfg = from_dict({"navigation": {"cell": cell(kind)}}).navigation
        before = free_space(plain(kind).parts, cfg=cfg)
        space = free_space(after.parts, cfg=cfg)
        assert space.free.sum() < before.free.sum() and len(drawn["clutter"]) >= 1
        for radius in (0.2, 0.3, 0.5):
            home, was = home_island(space, radius), home_island(before, radius)
            assert not (home & ~was).any()
            # What is lost lies round the things; the rest is still one piece.
            area = sum(np.pi * (np.hypot(*np.ptp(p.vertices[:, :2], axis=0)) / 2 + radius + 2 * cell(kind)) ** 2
                       for p in after.parts[len(plain(kind).parts) :])
            assert (was.sum() - home.sum()) * space.cell**2 <= area, (index, radius)
            assert home.sum() > 0.97 * (islands(space, radius) > 0).sum() - (islands(before, radius) > 0).sum() + was.sum()
        for thing in drawn["clutter"]:
            assert np.hypot(*thing["position"]) > 1.2, "not where the photo was taken"


def test_a_corridor_that_only_just_passes_stays_empty():
    # 1.2 m wide: any thing in it would stop a robot of 0.5 m.
    from lyra_core.variations import _ways_left
    from tests.tasks.worlds import floor, room_walls

    space = free_space([floor(-6, 6, -0.6, 0.6), *room_walls(-6, 6, -0.6, 0.6, 2.5)], cfg=from_dict({}).navigation)
    ways = {0.3: home_island(space, 0.3), 0.5: home_island(space, 0.5)}
    assert _ways_left(space, ways, np.array([3.0, 0.3]), 0.15) is None
    assert _ways_left(space, ways, np.array([5.9, 0.5]), 0.1) is not None, "the end of it leads nowhere"


def test_the_same_seed_gives_the_same_arrays_and_another_index_others():
    first = changed("indoor")[0]
    again = changed.__wrapped__("indoor")[0]
    for name in ARRAYS:
        assert getattr(first.mesh, name).tobytes() == getattr(again.mesh, name).tobytes(), name
    other, drawn = changed("indoor", 2)
    assert drawn != changed("indoor")[1] and not np.array_equal(other.mesh.texture[:512], first.mesh.texture[:512])


def test_switches_keep_what_they_name():
    world, drawn = changed("indoor", lighting=0.0, paint=0.0, clutter=0)
    assert drawn == {"clutter": [], "paint": {}, "lighting": {}}
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(world.mesh, name), getattr(plain("indoor").mesh, name))
    assert varied(plain("indoor"), from_dict({}), camera=None, T_world_camera=None)[0] is plain("indoor")  # type: ignore[arg-type]


def test_paint_reaches_all_unseen_floors_and_walls_and_keeps_the_seen_texture():
    before, (after, drawn) = plain("indoor"), changed("indoor", lighting=0.0, clutter=0)
    np.testing.assert_array_equal(after.mesh.texture[:512], before.mesh.texture)
    moved = unseen_faces(before.mesh)
    assert set(drawn["paint"]) == {"floor", "wall", "ceiling", "obstacle"} and 0.2 < moved.mean() < 1
    assert not moved[before.mesh.face_provenance == Provenance.SEEN].any()
    v = 1 - after.mesh.uv[after.mesh.faces].mean(1)[:, 1]
    assert ((v * after.mesh.texture.shape[0] > 512) == moved).all()
    for label, colour in (("floor", Label.FLOOR), ("wall", Label.WALL)):
        faces = np.flatnonzero(moved & (before.mesh.face_label == colour))
        uv = after.mesh.uv[after.mesh.faces[faces]].mean(1) * [after.mesh.texture.shape[1], -after.mesh.texture.shape[0]]
        texel = after.mesh.texture[(uv[:, 1] + after.mesh.texture.shape[0]).astype(int), uv[:, 0].astype(int)]
        assert np.abs(np.median(texel, 0) - drawn["paint"][label]).max() < 25


def test_light_is_one_factor_per_chart_and_the_sun_side_is_brighter():
    x = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    wall = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float32)
    square = np.array([[4, 4], [28, 4], [28, 28], [4, 28]], np.float64)
    uv = np.concatenate([square, square + [32, 0]]) / [64, 32]
    uv[:, 1] = 1 - uv[:, 1]
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]], np.int32)
    texture, kinds = np.full((32, 64, 3), 100, np.uint8), np.array([1, 1, 2, 2])
    mesh = SurfaceMesh(np.concatenate([x, wall]), faces, uv.astype(np.float32), texture, kinds.astype(np.uint8),
                       np.zeros(4, np.uint8), (kinds - 1).astype(np.int32), ("floor", "wall"))
    draw = {"light_azimuth_deg": 90.0, "light_elevation_deg": 30.0, "contrast": 0.2}
    out = light_map(mesh, draw)
    # n . l by hand: floor (0, 0, 1) gets sin 30, the wall looks to +y and gets cos 30.
    assert np.allclose(out[5:27, 5:27], 1 + 0.2 * 0.5, atol=1e-4)
    assert np.allclose(out[5:27, 37:59], 1 + 0.2 * np.sqrt(0.75), atol=1e-4)
    assert out[0, 0] == 1.0


def test_more_rows_leave_every_texel_where_it_was():
    mesh = plain("indoor").mesh
    more = with_rows(mesh, np.zeros((100, 512, 3), np.uint8))
    texel = (1 - more.uv[:, 1].astype(float)) * 612
    np.testing.assert_allclose(texel, (1 - mesh.uv[:, 1].astype(float)) * 512, atol=1e-3)


def test_props_are_drawn_in_all_kinds_and_are_closed():
    rng, objects = np.random.default_rng(0), copies_of(plain("indoor").mesh, plain("indoor").parts)
    assert objects, "the photo's two boxes can be copied"
    props = [draw_prop(rng, objects) for _ in range(40)]
    assert {p.kind for p in props} == {"box", "bin", "copy"}
    for prop in props:
        for vertices, faces in (prop.solid, (prop.vertices, prop.faces)):
            body = trimesh.Trimesh(vertices, faces, process=True)
            assert body.volume > 1e-3, prop.kind
        moved = prop.placed(np.array([3.0, -2.0, 0.5]), 1.0)
        assert np.hypot(*(moved.solid[0][:, :2] - [3, -2]).T).max() == pytest.approx(prop.radius, abs=1e-5)
        assert moved.solid[0][:, 2].max() == pytest.approx(prop.height + 0.5, abs=1e-5)


def test_each_variation_has_its_own_seed_and_the_first_is_plain():
    cfg = from_dict({"seed": 5})
    assert variation_cfg(cfg, 0) == cfg
    seeds = [variation_cfg(cfg, k).seed for k in range(200)]
    assert len(set(seeds)) == 200 and seeds == [variation_cfg(cfg, k).seed for k in range(200)]
    assert variation_cfg(from_dict({"seed": 6}), 1).seed not in seeds


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_impossible_counts_are_refused_before_anything_is_written(count, tmp_path):
    with pytest.raises(ConfigError, match="1 to 1000"):
        build_variations(tmp_path / "no.jpg", tmp_path / "out", count)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_and_a_missing_photo_leave_no_trace(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.txt").write_text("keep")
    with pytest.raises(WorldError, match=r"holiday\.txt"):
        build_variations(tmp_path / "no.jpg", tmp_path / "out", 2)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["holiday.txt"]
    with pytest.raises(Exception, match=r"no\.jpg"):
        build_variations(tmp_path / "no.jpg", tmp_path / "new", 2)
    assert not (tmp_path / "new").exists()


class Steps(ProgressQueue):
    """Notes (stage, message) and cancels at the first message that matches."""

    def __init__(self, *, stop_at: tuple[str, str] | None = None) -> None:
        self.seen: list[tuple[str, str]] = []
        self._stop_at = stop_at
        super().__init__(self._note)

    def _note(self, event) -> None:
        self.seen.append((event.stage, event.message))
        if self.seen[-1] == self._stop_at:
            raise Cancelled("stopped by the test")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "room.jpg"
    path.write_bytes(jpeg(demo_picture(240), quality=92))
    return path


CFG = {"navigation": {"episodes": 5, "cell": 0.1}}


@pytest.fixture(scope="module")
def made(photo, tmp_path_factory) -> Path:
    """Two small worlds, made with one stop in the middle of the second."""
    folder = tmp_path_factory.mktemp("made") / "out"
    with pytest.raises(Cancelled):
        build_variations(photo, folder, 2, draft(**CFG), progress=Steps(stop_at=("variation 2 of 2", "navigation")))
    assert json.loads((folder / "variations.json").read_text())["finished"] == 1
    steps = Steps()
    build_variations(photo, folder, 2, draft(**CFG), progress=steps)
    shown = {message for stage, message in steps.seen if stage == "variation 1 of 2"}
    assert not shown & {"layout", "lift"}, "finished ones are skipped"
    return folder


def test_whole_worlds_are_valid_connected_and_say_what_they_are(made):
    listing = json.loads((made / "variations.json").read_text())
    assert (listing["count"], listing["finished"], listing["seed"]) == (2, 2, 0)
    assert sorted(p.name for p in made.iterdir()) == [*(f"variation_00{k}" for k in range(2)), "variations.json"]
    photos, seen = set(), []
    for k, row in enumerate(listing["variations"]):
        folder = variation_folder(made, k)
        manifest = json.loads((folder / "world.json").read_text())
        assert manifest["status"] == "complete" and manifest["variation"]["index"] == row["index"] == k
        assert manifest["variation"]["randomised"] == row["randomised"] and manifest["variation"]["seed"] == row["seed"]
        assert manifest["recipe"]["config"]["variation"]["index"] == k
        photos.add(manifest["variation"]["photo_sha256"])
        assert [str(f) for f in validate_stage(folder / "world.usda", nvidia=False)] == []
        assert manifest["statistics"]["home_share"] > 0.97
        sigma = World(folder).scale_sigma
        assert 0 < sigma == manifest["scale_sigma"] < 2
        assert {e.info["scale_sigma"] for e in load_episodes(folder / "episodes.json.gz")} == {sigma}
        assert f"with 95 % between {np.exp(-1.96 * sigma):.2f} and" in (folder / "report.html").read_text()
        seen.append(manifest["stages"])
    assert photos == {listing["photo"]["sha256"]} and listing["variations"][0]["randomised"] == {}
    for name in ("photo", "estimate"):
        assert seen[0][name] == seen[1][name]
    assert len({stages["layout"]["key"] for stages in seen}) == 2
    estimate = [(variation_folder(made, k) / "build" / "estimate.npz").stat().st_ino for k in range(2)]
    assert len(set(estimate)) == 1, "the depth was not estimated again"


@pytest.mark.slow
def test_a_variation_alone_and_an_uninterrupted_run_give_the_same_bytes(made, photo, tmp_path):
    from lyra_core.pipeline import build_world

    build_world(photo, tmp_path / "alone", variation_cfg(draft(**CFG), 1))
    assert_same_bytes(file_hashes(variation_folder(made, 1)), file_hashes(tmp_path / "alone"))
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file() and path.name != "variations.json"}
    build_variations(photo, made, 2, draft(**CFG))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_kills_of_the_command_then_a_run_give_the_same_bytes(photo, tmp_path):
    options = ("--variations", "2", "--keep", "training", "--seed", "3")
    for seconds in (2.5, 4.0, 5.0, 6.0):
        process = start_create(photo, tmp_path / "killed", *options)
        time.sleep(seconds)
        process.kill()
        process.communicate()
    assert start_create(photo, tmp_path / "killed", *options).wait() == 0
    assert start_create(photo, tmp_path / "whole", *options).wait() == 0
    assert_same_bytes(file_hashes(tmp_path / "whole"), file_hashes(tmp_path / "killed"))
