"""Run the validators that other people trust: OpenUSD's own, and NVIDIA's where they are installed."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lyra_core.errors import BackendUnavailable, WorldError
from lyra_core.usd._pxr import require_pxr

SPLAT_REQUIREMENT = "com.nvidia.usd.VG.035"
"""NVIDIA's check of Gaussian splats; it runs only when asked for by name."""


@dataclass(frozen=True)
class Finding:
    """One complaint of a validator, warnings included."""

    validator: str
    """'openusd' or 'nvidia'."""
    rule: str
    severity: str
    message: str
    location: str
    """Prim or file the validator points at; may be empty."""


def validate_stage(path: Path | str, *, nvidia: bool | None = None) -> list[Finding]:
    """Return what OpenUSD's native validators and NVIDIA's (None: where installed) find; an empty list is a clean stage.

    Raises:
        WorldError: the stage does not open.
        BackendUnavailable: OpenUSD is missing, or NVIDIA's validators are asked for and missing.
    """
    require_pxr()
    path = Path(path)
    findings = _native(path)
    if nvidia is None:
        nvidia = nvidia_available()
    return findings + (_nvidia(path) if nvidia else [])


def nvidia_available() -> bool:
    """Tell whether usd-validation-nvidia is installed in this environment."""
    return importlib.util.find_spec("usd_validation_nvidia") is not None


def native_available() -> bool:
    """Tell whether this OpenUSD brings UsdValidation (25.2 and later)."""
    return importlib.util.find_spec("pxr.UsdValidation") is not None


def _native(path: Path) -> list[Finding]:
    from pxr import Tf, Usd

    try:
        stage = Usd.Stage.Open(str(path))
    except Tf.ErrorException as error:
        raise WorldError(f"{path}: does not open as a USD stage: {error}") from error
    if not native_available():
        return []
    from pxr import UsdValidation

    context = UsdValidation.ValidationContext(UsdValidation.ValidationRegistry().GetOrLoadAllValidators())
    return [Finding("openusd", str(error.GetIdentifier()), str(error.GetType()).rsplit(".", 1)[-1].lower(), error.GetMessage(),
                    ", ".join(_site(site) for site in error.GetSites())) for error in context.Validate(stage)]


def _site(site: object) -> str:
    prim = site.GetPrim()  # type: ignore[attr-defined]
    return str(prim.GetPath()) if prim else "stage"


def _nvidia(path: Path) -> list[Finding]:
    if not nvidia_available():
        raise BackendUnavailable("NVIDIA's USD validators", reason="usd-validation-nvidia is not installed",
                                 install="pip install 'lyra-worlds[validate]'")
    findings = _run_nvidia(path)
    splats = path.parent / "payloads" / "splats.usdc"
    for target in (path, splats) if splats.is_file() else (path,):
        findings += _run_nvidia(target, "--no-init-rules", "--requirement", SPLAT_REQUIREMENT)
    return findings


def _run_nvidia(path: Path, *options: str) -> list[Finding]:
    """Run NVIDIA's command in its own process: a crash of a checker is then a finding, not ours."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "findings.csv"
        command = [sys.executable, "-c", "from usd_validation_nvidia import cli_main; raise SystemExit(cli_main())"]
        done = subprocess.run([*command, *options, "--csv-output", str(table), str(path)], capture_output=True, text=True,
                              timeout=600, check=False)
        rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.is_file() else []
    if done.returncode and not rows:
        raise WorldError(f"{path}: NVIDIA's validator stopped with code {done.returncode}: {done.stderr.strip()[-300:]}")
    # The command visits every variant and repeats itself.
    found = [Finding("nvidia", row["Rule"], row["Severity"].lower(), row["Message"], row["Location"]) for row in rows]
    return list(dict.fromkeys(found))
