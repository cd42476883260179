"""The command line: what it passes on, what it prints, and how it ends."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import types
from pathlib import Path

import pytest

from lyra_core import __version__, cli, demo, doctor
from lyra_core.config import WorldCfg, from_dict
from lyra_core.errors import BackendUnavailable, Cancelled, InputError


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Put a recording pipeline in the place of the real one; return what it is called with."""
    seen: list[tuple] = []
    fake = types.ModuleType("lyra_core.pipeline")

    def world(folder: Path) -> types.SimpleNamespace:
        return types.SimpleNamespace(folder=Path(folder))

    def build_world(photo_path, folder, cfg, *, keep, progress):
        progress.stage("photo", 2)
        progress.update(1, "half")
        seen.append((photo_path, folder, cfg, keep))
        return world(folder)

    fake.build_world = build_world
    fake.extend_world = lambda folder, *, trajectory, frames, progress: seen.append((folder, trajectory, frames)) or world(folder)
    fake.revert_world = lambda folder, *, chunk, progress: seen.append((folder, chunk)) or world(folder)
    monkeypatch.setitem(sys.modules, "lyra_core.pipeline", fake)
    return seen


def test_every_verb_exists_has_help_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(cli.SUMMARIES) == set(cli.VERBS)
    for verb, target in cli.VERBS.items():
        module, _, name = target.partition(":")
        function = getattr(importlib.import_module(module), name)
        documented = inspect.getdoc(function)
        for option in inspect.signature(function).parameters:
            assert f"{option}:" in documented, (verb, option)
        with pytest.raises(SystemExit) as end:
            cli.main([verb, "--help"])
        assert end.value.code == 0
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out and summary in out for verb, summary in cli.SUMMARIES.items())


def test_version_and_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert cli.main([]) == 2


def test_create_passes_nothing_but_what_was_given(calls: list, tmp_path: Path) -> None:
    assert cli.main(["create", "a.jpg", "-o", str(tmp_path / "w")]) == 0
    assert calls == [(Path("a.jpg"), tmp_path / "w", WorldCfg(), "all")]


def test_create_passes_every_option(calls: list) -> None:
    assert cli.main(["create", "a.jpg", "-o", "w", "--config", "draft", "--seed", "7", "--focal", "28mm", "--camera-height", "1.2",
                     "--scene", "outdoor", "--trajectory", "loop", "--frames", "161", "--generator", "warp_fill",
                     "--depth-file", "d.npy", "--prompt", "a hall", "--photo-licence", "CC0", "--keep", "training", "--quiet"]) == 0
    want = from_dict({
        "quality": "draft", "seed": 7, "photo": {"focal": "28mm", "camera_height": 1.2, "scene": "outdoor", "licence": "CC0"},
        "depth": {"provider": "file", "path": "d.npy"},
        "generate": {"generator": "warp_fill", "trajectory": "loop", "frames": 161, "prompt": "a hall"}})
    assert calls == [(Path("a.jpg"), Path("w"), want, "training")]


def test_options_go_over_the_file(calls: list, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nquality: full\nnavigation: {robot_radius: 0.2}\n")
    assert cli.main(["create", "a.jpg", "-o", "w", "--config", str(file), "--quality", "draft"]) == 0
    cfg = calls[0][2]
    assert (cfg.seed, cfg.quality, cfg.navigation.robot_radius) == (3, "draft", 0.2)


def test_extend_and_revert(calls: list) -> None:
    assert cli.main(["extend", "w", "--trajectory", "orbit", "--frames", "161", "--quiet"]) == 0
    assert cli.main(["revert", "w", "--chunk", "1", "--quiet"]) == 0
    assert calls == [(Path("w"), "orbit", 161), (Path("w"), 1)]


def test_json_is_one_object_per_line_and_nothing_else(calls: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["create", "a.jpg", "-o", "w", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"stage": "photo", "fraction": 0.5, "message": "half"} in lines and lines[-1] == {"event": "done", "world": "w"}


def test_quiet_prints_nothing(calls: list, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["create", "a.jpg", "-o", "w", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("arguments", "words"), [
    (["crate", "a.jpg"], ["'create'", "known: create"]),
    (["create", "a.jpg", "-o", "w", "--quiet", "--json"], ["--quiet and --json"]),
    (["create", "a.jpg", "-o", "w", "--config", "drafty"], ["'drafty'", "draft, full, standard"]),
    (["create", "a.jpg", "-o", "w", "--config", "absent.yaml"], ["absent.yaml"]),
    (["create", "a.jpg", "-o", "w", "--depth", "geometric", "--depth-file", "d.npy"], ["--depth-file", "geometric"]),
    (["episodes", "/"], ["not a world folder"]),
])
def test_errors_are_one_line_and_end_with_2(
    calls: list, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lyra-worlds ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert calls == []


@pytest.mark.parametrize(("error", "status", "words"), [
    (InputError("a.jpg: got 1x1 px,\n expected more"), 2, "a.jpg: got 1x1 px, expected more"),
    (BackendUnavailable("usd", reason="no pxr", install="pip install x"), 2, "pip install x"),
    (PermissionError(13, "Permission denied", "/w"), 2, "/w: Permission denied"),
    (ModuleNotFoundError("No module named 'pxr'", name="pxr"), 2, "pip install 'lyra-worlds[standalone]'"),
    (KeyboardInterrupt(), 130, "goes on from there"),
    (Cancelled("asked to"), 130, "goes on from there"),
])
def test_how_a_verb_ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int,
                         words: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["create"]) == status
    assert words in capsys.readouterr().err


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'lyra_core.gone'", name="lyra_core.gone")

    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["create"])


def test_doctor_tries_every_backend_and_every_failure_names_a_command() -> None:
    checks = doctor.run_checks()
    tried = {(check.area, check.name) for check in checks}
    assert tried >= {(seam, name) for seam, table in doctor.SEAMS.items() for name in table}
    assert all(check.works or (check.detail and check.install) for check in checks)


def test_doctor_finds_two_providers_of_pxr(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "pxr" / "Usd").mkdir(parents=True)
    (tmp_path / "empty" / "pxr").mkdir(parents=True)
    info = tmp_path / "one" / "usd_core-26.11.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: usd-core\nVersion: 26.11\n")
    (info / "RECORD").write_text("pxr/Usd/__init__.py,,\n")
    path = [str(tmp_path / name) for name in ("one", "two", "empty", "one")]
    assert doctor.pxr_providers(path) == ["usd-core", str(tmp_path / "two" / "pxr")]


def test_doctor_calls_a_tracer_that_misses_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        def __init__(self, *_: object) -> None: ...

        def cast(self, origins, directions):
            import numpy as np

            return types.SimpleNamespace(face=np.array([-1]), t=np.array([np.inf]))

    monkeypatch.setattr(doctor, "resolve", lambda seam, name: Blind)
    check = doctor.check_backend("rays", "embree")
    assert not check.works and "expected face 0" in check.detail


def test_demo_names_everything_that_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "NEEDS", {"numpy": "numpy", "no_such_a": "dist-a", "no_such_b": "dist-b"})
    assert demo.main([]) == 2
    err = capsys.readouterr().err
    assert "dist-a, dist-b" in err and "numpy" not in err and "make demo" in err


def test_demo_builds_plays_and_says_where_to_look(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda arguments: ran.append(arguments) or 0)
    monkeypatch.setattr(demo, "check_environment", lambda: None)
    assert demo.main(["a.jpg", "-o", "w"]) == 0
    assert [arguments[0] for arguments in ran] == ["create", "play"]
    out = capsys.readouterr().out
    assert all(str(Path("w") / name) in out for name in ("report.html", "play.mp4", "world.usda"))
    assert "lyra-worlds extend w" in out and "lyra-worlds create" in out
