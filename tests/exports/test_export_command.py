"""Choice of the format, refusals, all or nothing, the same bytes, and the verb's own words."""

from __future__ import annotations

from pathlib import Path

import export_worlds
import pytest
import tyro

from lyra_core.errors import InputError, WorldError
from lyra_core.export_command import export
from lyra_core.exports import FORMATS, export_world
from lyra_core.world import World


@pytest.mark.parametrize(("name", "given", "says"), [
    ("w.fbx", {}, "glb, obj, ply"), ("w", {}, "mjcf"), ("w.glb", {"format": "fbx"}, "glb, obj, ply"),
    ("w.obj", {"format": "glb"}, r"\.glb"), ("w.xml", {"format": "mjcf"}, "a folder"), ("w.glb", {"up": "z"}, "expected y"),
    ("w.las", {"points_per_m2": 1e9}, "points_per_m2"), ("w.glb", {"level": "3"}, "full"), ("w.obj", {"level": "0"}, "full"),
    ("w.glb", {"max_texture": 0}, "max_texture"), ("w.glb", {"collider_names": "x"}, "ucx"),
])
def test_what_cannot_be_is_refused_in_one_line(export_source: World, tmp_path: Path, name: str, given: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        export_world(export_source, tmp_path / name, **given)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(export_source: World, tmp_path: Path) -> None:
    (tmp_path / "w.png").write_text("mine")
    with pytest.raises(InputError, match=r"w\.png"):
        export_world(export_source, tmp_path / "w.obj")
    assert [path.name for path in tmp_path.iterdir()] == ["w.png"] and (tmp_path / "w.png").read_text() == "mine"
    export_world(export_source, tmp_path / "w.obj", overwrite=True)
    with pytest.raises(InputError, match="overwrite"):
        export_world(export_source, tmp_path / "w.obj")


def test_a_folder_of_other_things_stays(export_source: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="home"):
            export_world(export_source, home, format="ros", overwrite=overwrite)
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]
    export_world(export_source, tmp_path / "map", format="ros")
    (tmp_path / "map/map.pgm").write_text("old")
    export_world(export_source, tmp_path / "map", format="ros", overwrite=True)
    assert (tmp_path / "map/map.pgm").read_bytes().startswith(b"P5") and len(list(tmp_path.iterdir())) == 2


def test_the_world_itself_is_safe(tmp_path: Path) -> None:
    folder = export_worlds.build(tmp_path / "world", frames=False)
    with pytest.raises(InputError, match="part of the world"):
        export_world(folder, folder / "mesh.glb" if (folder / "mesh.glb").exists() else folder / "splats.ply", overwrite=True)
    with pytest.raises(InputError, match="part of the world"):
        export_world(folder, folder, format="ros", overwrite=True)
    with pytest.raises(WorldError, match="not a world"):
        export_world(tmp_path, tmp_path / "x.glb")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    folder = export_worlds.build(tmp_path / "world", frames=False)
    (folder / "mesh.npz").write_bytes((folder / "mesh.npz").read_bytes()[:500])
    for name, form in (("a.glb", None), ("b", "mjcf"), ("c.las", None), ("d.usdz", None)):
        with pytest.raises(WorldError, match=r"mesh\.npz"):
            export_world(folder, tmp_path / "out" / name, format=form)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_the_same_world_gives_the_same_bytes(export_source: World, tmp_path: Path, name: str) -> None:
    suffix = FORMATS[name].suffixes[0] if FORMATS[name].suffixes else ""
    a, b = (export_world(World(export_source.folder), tmp_path / place / f"w{suffix}", format=name) for place in ("a", "b"))
    assert [path.name for path in a] == [path.name for path in b]
    assert all(x.read_bytes() == y.read_bytes() for x, y in zip(a, b, strict=True))


def test_the_verb_says_how_to_open_it(export_source: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tyro.cli(export, args=[str(export_source.folder), "-o", str(tmp_path / "w.glb"), "--max-texture", "64"])
    out = capsys.readouterr().out
    assert out.startswith(f"Wrote {tmp_path / 'w.glb'}: ") and "Blender" in out and "Unreal: drag w.glb" in out
    tyro.cli(export, args=[str(export_source.folder), "-o", str(tmp_path / "m"), "--format", "mjcf"])
    assert f"--mjcf={tmp_path / 'm'}/scene.xml" in capsys.readouterr().out
    tyro.cli(export, args=[str(export_source.folder), "-o", str(tmp_path / "w.stl"), "--quiet"])
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        tyro.cli(export, args=["--help"])
    assert "--points-per-m2" in capsys.readouterr().out
