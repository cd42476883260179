"""Configuration: overlays, errors that name the key, and the packaged files."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import lyra_core.config as config
from lyra_core.config import WorldCfg, from_dict, load_config, to_dict
from lyra_core.errors import ConfigError

PACKAGED = sorted((Path(__file__).resolve().parents[1] / "configs/worlds").glob("*.yaml"))


def test_an_empty_overlay_changes_nothing() -> None:
    assert from_dict({}) == WorldCfg()


def test_a_round_trip_through_json_gives_the_same() -> None:
    cfg = from_dict({"seed": 5, "quality": "full", "photo": {"focal": "28mm"}, "surface": {"voxel": 0.1}})
    assert from_dict(json.loads(json.dumps(to_dict(cfg)))) == cfg


def test_an_overlay_changes_what_it_names_and_keeps_the_base() -> None:
    base = from_dict({"seed": 5, "photo": {"camera_height": 1.1}})
    cfg = from_dict({"photo": {"licence": "CC0"}}, base=base)
    assert cfg == dataclasses.replace(base, photo=dataclasses.replace(base.photo, licence="CC0"))
    assert base.photo.licence == "unknown"


@pytest.mark.parametrize(("values", "words"), [
    ({"sed": 1}, ["'sed'", "nearest is 'seed'"]),
    ({"photo": {"camera_hight": 1.0}}, ["photo", "'camera_hight'", "nearest is 'camera_height'"]),
    ({"quality": "best"}, ["quality", "'best'", "draft, standard, full"]),
    ({"seed": "one"}, ["seed", "'one'", "int"]),
    ({"seed": True}, ["seed", "True", "int"]),
    ({"seed": 1.5}, ["seed", "1.5", "int"]),
    ({"photo": 3}, ["photo", "3", "mapping"]),
    ({"photo": {"camera_height": "high"}}, ["camera_height", "'high'", "float"]),
    ({"depth": {"path": 3}}, ["path", "3", "str"]),
])
def test_an_error_names_key_value_and_what_was_expected(values: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        from_dict(values, where="mine.yaml")
    assert all(word in str(error.value) for word in ["mine.yaml", *words]), str(error.value)


def test_a_whole_number_is_a_length() -> None:
    height = from_dict({"photo": {"camera_height": 2}}).photo.camera_height
    assert height == 2.0 and isinstance(height, float)


def test_none_is_a_value_where_the_field_has_it() -> None:
    assert from_dict({"photo": {"focal": None}}, base=from_dict({"photo": {"focal": "28mm"}})).photo.focal is None


@pytest.mark.parametrize("path", PACKAGED, ids=lambda path: path.stem)
def test_packaged_files_load_and_are_named_after_their_quality(path: Path) -> None:
    assert load_config(path) == from_dict({"quality": path.stem})


def test_there_is_one_packaged_file_per_quality() -> None:
    assert {path.stem for path in PACKAGED} == set(config.FRAME_SIZES) == set(config.WORKING_SIZES) == set(config.ATLAS_SIZES)


@pytest.mark.parametrize(("text", "words"), [
    ("seed: [1", "not readable as YAML"), ("- 1\n- 2", "expected a mapping"), ("seed: 1\nsped: 2", "nearest is 'seed'")])
def test_a_bad_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        load_config(path)
    assert str(path) in str(error.value)


def test_a_missing_file_and_bytes_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ConfigError, match=r"bytes\.yaml"):
        load_config(tmp_path / "bytes.yaml")


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing differs\n")
    assert load_config(tmp_path / "empty.yaml") == WorldCfg()


def test_every_option_is_documented() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8").splitlines()
    for cls in (config.PhotoCfg, config.DepthCfg, config.GenerateCfg, config.SurfaceCfg, config.SplatCfg, config.NavigationCfg):
        for field in dataclasses.fields(cls):
            rows = [i for i, row in enumerate(source) if row.startswith(f"    {field.name}: ")]
            assert rows and all(source[i + 1].startswith('    """') for i in rows), f"{cls.__name__}.{field.name}"
