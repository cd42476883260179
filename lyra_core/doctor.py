"""lyra-worlds doctor: what works on this machine, why the rest does not, and the command that brings it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lyra_core.backends import SEAMS, resolve
from lyra_core.cli import STANDALONE
from lyra_core.errors import BackendUnavailable, LyraError

INSTALLS: dict[str, str] = {
    "newton": "pip install 'lyra-worlds[newton]'", "mujoco": "pip install 'lyra-worlds[mujoco]'", "physx": "make env-physx",
    "warp": "pip install warp-lang", "embree": "pip install embreex",
}
"""Backend -> command, for backends that fail by an ImportError instead of naming one."""


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    area: str
    name: str
    works: bool
    detail: str
    """Version or place where it works; the reason where it does not."""
    install: str = ""
    """Exact command that brings it; empty where it works."""
    needed: bool = False
    """create cannot run without it."""


def doctor(*, as_json: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")] = False) -> int:
    """Show which backends work here, why not, and the exact command to install the rest.

    Returns 0 if a world can be made on this machine, else 1.

    Args:
        as_json: Print JSON instead of a table.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # Warp prints when it starts, which would spoil the JSON
        checks, devices = run_checks(), gpus()
    if as_json:
        print(json.dumps({"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}",
                          "gpus": devices, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _print_table(checks, devices)
    return 0 if can_create(checks) else 1


def run_checks() -> list[Check]:
    """Try every backend of every seam, and the parts that have no seam."""
    rows = [check_backend(seam, name) for seam, table in SEAMS.items() for name in table]
    parts: list[tuple[str, str, Callable[[], str], str, bool]] = [
        ("usd", "OpenUSD", _usd, STANDALONE, True),
        ("video", "ffmpeg", _ffmpeg, "pip install imageio-ffmpeg", True),
        ("splats", "feed_forward", _feed_forward, "pip install 'lyra-worlds[lyra2]'", False),
        ("environments", "gymnasium", _gymnasium, "pip install 'gymnasium>=1.2'", False),
        ("validators", "openusd", _usd_validation, STANDALONE, False),
        ("validators", "nvidia", _nvidia_validation, "pip install 'lyra-worlds[validate]'", False),
    ]
    return rows + [_try(area, name, probe, install, needed) for area, name, probe, install, needed in parts]


def can_create(checks: list[Check]) -> bool:
    """Tell whether every needed part works and each seam of the pipeline has a backend that does."""
    optional = {"physics"}
    seams = all(any(c.works for c in checks if c.area == seam) for seam in SEAMS if seam not in optional)
    return seams and all(check.works for check in checks if check.needed)


def check_backend(seam: str, name: str) -> Check:
    """Try one backend. A class with a static method ``probe()`` is asked; it raises BackendUnavailable or returns a detail."""

    def probe() -> str:
        backend = resolve(seam, name)
        if seam == "rays":
            _cast_one_ray(backend)
        elif seam == "physics":
            backend()
        elif hasattr(backend, "probe"):
            return backend.probe() or ""
        return _origin(backend)

    return _try(seam, name, probe, INSTALLS.get(name, STANDALONE), False)


def pxr_providers(path: list[str] | None = None) -> list[str]:
    """Return every package or folder on the search path that brings pxr. More than one keeps Kit from starting."""
    folders = [Path(entry or ".") for entry in (sys.path if path is None else path)]
    found = {str((folder / "pxr").resolve()): folder for folder in folders if (folder / "pxr" / "Usd").is_dir()}
    names: list[str] = []
    for folder in found.values():
        owners = [str(dist.metadata["Name"]) for dist in importlib.metadata.distributions(path=[str(folder)]) if _brings_pxr(dist)]
        names += sorted(set(owners)) or [str(folder / "pxr")]
    return names


def gpus() -> list[str]:
    """Name the CUDA devices that torch, or else Warp, sees."""
    if importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return [f"{torch.cuda.get_device_name(i)} (torch)" for i in range(torch.cuda.device_count())]
    if importlib.util.find_spec("warp"):
        import warp as wp

        wp.config.quiet = True
        return [f"{device.name} (warp)" for device in wp.get_cuda_devices()]
    return []


def _try(area: str, name: str, probe: Callable[[], str], install: str, needed: bool) -> Check:
    try:
        return Check(area, name, True, probe(), needed=needed)
    except BackendUnavailable as error:
        return Check(area, name, False, error.reason, error.install, needed)
    except (LyraError, ImportError, OSError, RuntimeError) as error:
        return Check(area, name, False, " ".join(str(error).split()) or type(error).__name__, install, needed)


def _origin(backend: Any) -> str:
    module = backend.__module__
    return "built in" if module.startswith("lyra_core.") else module


def _cast_one_ray(tracer: Any) -> None:
    import numpy as np

    vertices = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1]], np.float32)
    origin, direction = np.array([[0.2, 0.2, 0]], np.float32), np.array([[0, 0, 1]], np.float32)
    hits = tracer(vertices, np.array([[0, 1, 2]], np.int32)).cast(origin, direction)
    if hits.face[0] != 0 or abs(float(hits.t[0]) - 1) > 1e-5:
        raise RuntimeError(f"a ray at one triangle: got face {hits.face[0]} at {hits.t[0]}, expected face 0 at 1")


def _usd() -> str:
    providers = pxr_providers()
    if len(providers) > 1:
        raise RuntimeError(f"{len(providers)} packages bring pxr: {', '.join(providers)}; keep one, two keep Kit from starting")
    if importlib.util.find_spec("pxr") is None:
        raise RuntimeError("no pxr (OpenUSD) is installed; inside Isaac Sim, Kit brings it once it runs")
    from pxr import Usd

    _, year, month = Usd.GetVersion()
    return f"{year}.{month:02d} from {', '.join(providers) or 'Kit'}"


def _brings_pxr(dist: importlib.metadata.Distribution) -> bool:
    return any(str(file).startswith("pxr/Usd/__init__") for file in dist.files or ())


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return f"{imageio_ffmpeg.get_ffmpeg_version()} from imageio-ffmpeg {imageio_ffmpeg.__version__}"


def _feed_forward() -> str:
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"{' and '.join(missing)} not installed")
    return f"torch {importlib.metadata.version('torch')}, with the weights that splats: weights names"


def _gymnasium() -> str:
    return importlib.import_module("gymnasium").__version__


def _usd_validation() -> str:
    if importlib.util.find_spec("pxr") is None or importlib.util.find_spec("pxr.UsdValidation") is None:
        raise RuntimeError("this OpenUSD has no UsdValidation (25.2 and later do)")
    return "in OpenUSD"


def _nvidia_validation() -> str:
    if importlib.util.find_spec("usd_validation_nvidia") is None:
        raise RuntimeError("usd-validation-nvidia is not installed")
    return importlib.metadata.version("usd-validation-nvidia")


def _print_table(checks: list[Check], devices: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "backend", "here", "", "to install"):
        table.add_column(title, overflow="fold")
    area = ""
    for check in checks:
        here = "[green]yes[/green]" if check.works else "[red]no[/red]"
        table.add_row("" if check.area == area else check.area, check.name, here, escape(check.detail), escape(check.install))
        area = check.area
    console.print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; "
                  f"GPU: {escape(', '.join(devices)) or 'none seen (none is needed)'}", highlight=False)
    console.print(table)
    ready = can_create(checks)
    console.print("A world can be made here: lyra-worlds create PHOTO -o WORLD" if ready else
                  "[red]A world cannot be made here yet; install what is marked no.[/red]")
