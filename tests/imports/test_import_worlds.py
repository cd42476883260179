"""lyra-worlds import from end to end: room scans against their labels, captures, splats, USD, and what cannot be used."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from lyra_core.cli import main
from lyra_core.config import from_dict
from lyra_core.errors import InputError
from lyra_core.imports.build import import_world
from lyra_core.imports.prepare import Given
from lyra_core.io.meshes import load_levels, merge_parts
from lyra_core.navigation import load_episodes
from lyra_core.surface.gravity import face_geometry
from lyra_core.types import Label, Provenance
from lyra_core.usd.validate import validate_stage
from lyra_core.world import World

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
DRAFT = from_dict({"quality": "draft", "surface": {"voxel": 0.05}})
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="evaluation data is not here")


def room(folder: Path) -> Path:
    """Write a room of 6 x 4 x 2.6 m with a table, y up, in centimetres, wound at random."""
    shell = trimesh.creation.box((6, 4, 2.6)).subdivide().subdivide()
    shell.invert()
    shell.apply_translation([0, 0, 1.3])
    table = trimesh.creation.box((1.2, 0.7, 0.73))
    table.apply_translation([1.4, 0.6, 0.365])
    mesh = trimesh.util.concatenate([shell, table])
    vertices = mesh.vertices[:, [1, 2, 0]] * 100 + [300, 40, -70]
    faces = np.asarray(mesh.faces).copy()
    flip = np.random.default_rng(0).random(len(faces)) < 0.5
    faces[flip] = faces[flip][:, ::-1]
    path = folder / "room.obj"
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in vertices] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("room")
    return import_world(room(folder), folder / "world", DRAFT)


def test_room_in_centimetres_with_y_up_becomes_an_upright_world_in_metres(made):
    assert made.manifest["scale"]["metres_per_unit"] == pytest.approx(0.01) and not made.manifest["scale"]["known"]
    size = np.ptp(made.mesh.vertices, axis=0)
    assert sorted(size[:2]) == pytest.approx([4, 6], abs=0.02) and size[2] == pytest.approx(2.6, abs=0.01)
    floor = made.mesh.face_label == Label.FLOOR
    normals, areas, centers = face_geometry(made.mesh.vertices, made.mesh.faces)
    assert areas[floor].sum() == pytest.approx(24 - 0.84, abs=1.0) and np.abs(centers[floor, 2]).max() < 1e-6
    assert (normals[floor, 2] > 0.99).all(), "wound towards the room"
    space = made.free_space
    assert space.free.sum() * space.cell**2 == pytest.approx(24 - 0.84, abs=2.0)
    assert (space.provenance[space.free] == Provenance.SEEN).all()


def test_world_has_all_that_a_photo_world_has(made):
    for name in ("world.usda", "mesh.glb", "collision.glb", "splats.ply", "report.html", "preview.png", "photo.png",
                 "mesh_levels.npz", "occupancy_map/map.yaml"):
        assert (made.folder / name).is_file(), name
    episodes = load_episodes(made.folder / "episodes.json.gz")
    assert len(episodes) == 50 and min(e.geodesic_distance for e in episodes) >= 1
    assert validate_stage(made.folder / "world.usda", nvidia=False) == []
    assert made.manifest["status"] == "complete" and "metres" not in made.manifest["scale"]["said_by"].lower().split("sizes say")[0]


def test_same_files_same_bytes_and_nothing_is_done_twice(made, tmp_path):
    again = import_world(made.folder.parent / "room.obj", tmp_path / "w", DRAFT)
    assert again.manifest["content_hash"] == made.manifest["content_hash"]
    before = (made.folder / "world.json").stat().st_mtime_ns
    import_world(made.folder.parent / "room.obj", made.folder, DRAFT)
    assert (made.folder / "world.json").stat().st_mtime_ns == before


def test_a_length_from_the_user_sets_the_scale(made, tmp_path):
    world = import_world(made.folder.parent / "room.obj", tmp_path / "w", DRAFT, given=Given(measured=2.6, true=3.9))
    assert np.ptp(world.mesh.vertices[:, 2]) == pytest.approx(3.9, abs=0.01)
    assert world.manifest["scale"]["known"] and world.scale_sigma == pytest.approx(0.02)
    given = Given(metres_per_unit=0.02, up=np.array([0.0, -1, 0]))
    unit = import_world(made.folder.parent / "room.obj", tmp_path / "u", DRAFT, given=given)
    assert np.ptp(unit.mesh.vertices[:, 2]) == pytest.approx(5.2, abs=0.01) and unit.manifest["scale"]["known"]


@needs_data
@pytest.mark.parametrize("name", ["office_small", "meeting_room", "living_room"])
def test_room_scans_stand_where_their_labels_say(name, tmp_path):
    world = import_world(DATA / "meshes" / f"{name}.ply", tmp_path / "w", DRAFT)
    labels = json.loads((DATA / "meshes" / f"{name}_labels.json").read_text())["entities"]
    T = np.array(json.loads((world.folder / "build/import.json").read_text())["T_world_source"])
    vertices, faces = merge_parts(world.collision_parts)
    normals, areas, centers = face_geometry(vertices, faces)
    gaps = []
    for entity in labels:
        place = T @ np.array(entity["to_world"])
        axis = place[:3, 1] / np.linalg.norm(place[:3, 1])
        if entity["label"] == "FLOOR":
            assert abs(place[2, 3]) < 0.01 and abs(axis[2]) > 0.9999
        if entity["label"] == "WALL_FACE":
            local = (centers - place[:3, 3]) @ np.linalg.inv(place[:3, :3]).T
            box = entity["bounded2D"]
            inside = np.abs(local[:, 1]) < 0.4
            for i, side, length in ((0, "x", "width"), (2, "y", "height")):
                inside &= (local[:, i] > box["offset"][side]) & (local[:, i] < box["offset"][side] + box["extent"][length])
            inside &= np.abs(normals @ axis) > 0.9
            gaps.append(abs(np.average(local[inside, 1], weights=areas[inside])))
    assert np.median(gaps) <= 0.05 and world.manifest["scale"]["metres_per_unit"] == 1.0


@needs_data
def test_posed_depth_pictures_become_a_world(tmp_path):
    world = import_world(DATA / "sequences" / "livingroom1_synthetic", tmp_path / "w", DRAFT, max_frames=14)
    assert world.manifest["scale"]["known"] and world.manifest["source"]["registration"]["frames_to_mesh_m"] < 0.02
    assert (world.folder / "trajectory.npz").is_file() and len(list((world.folder / "frames").glob("*.png"))) == 14
    assert Provenance.CONTINUED in world.mesh.face_provenance, "the floor between what was seen"
    for level in load_levels(world.folder / "mesh_levels.npz"):
        assert level.depth_error_median < 0.01


@needs_data
def test_splats_alone_become_a_world_and_fixtures_say_why_not(tmp_path):
    world = import_world(DATA / "splats" / "guitar.ply", tmp_path / "w", DRAFT)
    assert len(world.mesh.faces) > 2000 and "nowhere to go" in " ".join(world.manifest["notes"])
    with pytest.raises(InputError, match="SCALE"):
        import_world(DATA / "splats" / "khr_conformance_matrix.glb", tmp_path / "k", DRAFT)
    assert not (tmp_path / "k").exists()


@needs_data
def test_usd_without_a_floor_is_a_world_without_episodes(tmp_path):
    world = import_world(DATA / "usd" / "newton_physics" / "cartpole.usda", tmp_path / "w", DRAFT)
    assert not load_episodes(world.folder / "episodes.json.gz") and world.manifest["scale"]["known"]


def glb(path: Path, count: int) -> None:
    tree = json.dumps({"asset": {"version": "2.0"}, "accessors": [{"count": count}]}).encode()
    path.write_bytes(struct.pack("<4sIIII", b"glTF", 2, 20 + len(tree), len(tree), 0x4E4F534A) + tree)


def test_what_cannot_be_used_is_one_line_and_leaves_nothing(tmp_path, capsys, made):
    files = {"empty.ply": b"", "text.obj": b"hello\n", "cut.ply": b"ply\nformat ascii 1.0\nelement vertex 9\n",
             "noise.stl": b"\0" * 300, "nan.obj": b"v nan 0 0\nv 0 nan 0\nv 0 0 nan\nf 1 2 3\n",
             "one.obj": b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n",
             "a.spz": b"\x1f\x8b" + b"\0" * 40, "archive.zip": b"PK\x03\x04", "picture.jpg": b"\xff\xd8"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    glb(tmp_path / "lies.glb", 10**12)
    (tmp_path / "folder").mkdir()
    for path in [*(tmp_path / name for name in [*files, "lies.glb", "folder", "nothing"]), made.folder]:
        code = main(["import", str(path), "-o", str(tmp_path / "out"), "--quiet"])
        said = capsys.readouterr().err.strip()
        assert code == 2 and len(said.splitlines()) == 1 and said.startswith("lyra-worlds import: "), (path, said)
        assert not (tmp_path / "out").exists(), path


@pytest.mark.parametrize("options", [["--length", "3"], ["--length", "0=2"], ["--up", "north"], ["--unit", "m", "--scale", "2"],
                                     ["--scale", "-1"], ["--camera-height", "0"], ["--intrinsics", "1,2,3"]])
def test_options_are_checked_before_anything_is_read(options, tmp_path, capsys):
    assert main(["import", str(tmp_path / "x.ply"), "-o", str(tmp_path / "out"), *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_another_source_does_not_overwrite_a_world(made, tmp_path):
    world = tmp_path / "w"
    shutil.copytree(made.folder, world)
    trimesh.creation.box((5, 5, 3)).export(tmp_path / "box.stl")
    assert main(["import", str(tmp_path / "box.stl"), "-o", str(world), "--quiet"]) == 2
    assert json.loads((world / "world.json").read_text())["content_hash"] == made.manifest["content_hash"]
