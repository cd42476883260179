"""lyra-worlds models: list, convert and verify the weights of the Lyra 2.0 generator."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from lyra_core.errors import BackendUnavailable, InputError, LyraError

Quiet = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Source = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PATH]", help_behavior_hint="")]
Output = Annotated[Path | None, tyro.conf.arg(
    aliases=["-o"], metavar="DIR", help_behavior_hint="(default: where generator lyra2 looks)")]
Tokenizer = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: one inside PATH)")]
HeadDim = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: 128 for the published widths)")]
Packing = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: the published one)")]
Licence = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(default: that of the published weights)")]
EXTRA = "pip install 'lyra-worlds[lyra2]'"


def models(
    action: Positional[Literal["list", "convert", "verify"]], path: Source = None, /, *, output: Output = None,
    tokenizer: Tokenizer = None, head_dim: HeadDim = None, packing: Packing = None, licence: Licence = None, quiet: Quiet = False,
) -> int:
    """List, convert or verify weights of the Lyra 2.0 generator.

    list shows the models that are here. convert PATH -o DIR makes safetensors of a published checkpoints/ folder, or of one
    checkpoint in it (a torch DCP folder, .pth or .safetensors), and lists every missing or unexpected tensor instead of guessing;
    run again after Ctrl-C, it goes on. verify DIR reads everything and prints every fault.

    Args:
        action: list, convert or verify.
        path: convert: what to convert. verify: the models folder. list: nothing.
        output: Folder to write; parts that are there already stay.
        tokenizer: Folder with the files of google/umt5-xxl.
        head_dim: Channels per attention head of a network whose width is not a published one.
        packing: History packing of a network trained with another one.
        licence: Licence of the weights, carried into the worlds made with them.
        quiet: Print nothing but faults.

    Returns 0, or 1 if verify found faults.
    """
    _require_extra()
    if action == "list":
        return _list(path)
    if action == "verify":
        return _verify(path, quiet)
    if path is None:
        raise InputError("models convert: got no path, expected a published checkpoints/ folder or one of its checkpoints")
    options = {"tokenizer": tokenizer, "head_dim": head_dim, "packing": packing}
    return _convert(path, output, options | ({"licence": licence} if licence else {}), quiet)


def _require_extra() -> None:
    try:
        import lyra_core.generate.lyra2.convert  # noqa: F401
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "lyra_core":
            raise
        raise BackendUnavailable("lyra2", reason=f"{error.name} is not installed", install=EXTRA) from error


def _list(path: Path | None) -> int:
    """Print the models folders below a root, or how to fetch the published weights."""
    from lyra_core.generate.lyra2.weights import MODELS_FILE, fetch_commands, models_root, open_models

    root = path or models_root()
    folders = [file.parent for pattern in (MODELS_FILE, f"*/{MODELS_FILE}") for file in sorted(root.glob(pattern))]
    for folder in folders:
        try:
            print(describe(open_models(folder)))
        except LyraError as error:
            print(f"{folder}: {error}")
    if not folders:
        print(f"{root}: no models here. To get the published ones: {fetch_commands()}")
    return 0


def describe(found: Any) -> str:
    """Return a models folder in a few lines: parts with their sizes, LoRAs, licence."""
    rows = [f"{found.path}  (from {found.source}; {found.licence})"]
    for part, files in found.parts.items():
        size = sum((found.path / name).stat().st_size for name in files if (found.path / name).is_file())
        names = f"  {', '.join(found.loras)}" if part == "lora" else ""
        rows.append(f"  {part:<16} {size / 1e9:8.2f} GB in {len(files)} files{names}")
    if found.codec == "patch":
        rows.append(f"  fixed codec with {found.channels} channels in place of a VAE")
    return "\n".join(rows)


def _convert(source: Path, output: Path | None, options: dict[str, Any], quiet: bool) -> int:
    from lyra_core.generate.lyra2.convert import convert, find_parts
    from lyra_core.generate.lyra2.weights import default_folder

    folder = output or default_folder()
    _require_room(folder, sum(_bytes(path) for path in find_parts(source).values()))
    with _steps(quiet) as steps:
        found = convert(source, folder, steps=steps, **options)
    if not quiet:
        print(describe(found))
        missing = [part for part in ("network", "vae", "text_encoder", "image_encoder", "tokenizer") if not found.has(part)]
        if missing and found.codec == "wan":
            print(f"  not here yet: {', '.join(missing)}")
    return 0


def _require_room(folder: Path, needed: int) -> None:
    """Require disk space for what will be written; what an earlier run has written counts as there.

    Raises:
        InputError: there is too little.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free + sum(_bytes(part) for part in folder.glob("*") if part.is_dir())
    if free < needed:
        raise InputError(f"{folder}: got {free / 1e9:.1f} GB of free space, expected {needed / 1e9:.1f} GB for the weights")


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.iterdir() if file.is_file())


def _verify(path: Path | None, quiet: bool) -> int:
    from lyra_core.generate.lyra2.convert import verify
    from lyra_core.generate.lyra2.weights import default_folder

    folder = path or default_folder()
    with _steps(quiet) as steps:
        faults = verify(folder, steps=steps)
    for fault in faults:
        print(fault)
    if not quiet:
        print(f"{folder}: {f'{len(faults)} faults' if faults else 'whole: every file, tensor, shape and value is as it should be'}")
    return 1 if faults else 0


@contextmanager
def _steps(quiet: bool) -> Iterator[Any]:
    """Yield what draws a bar per part on stderr, or nothing."""
    from lyra_core.jobs.progress import ProgressNull, ProgressRich

    if quiet:
        yield ProgressNull()
        return
    with ProgressRich() as bars:
        yield bars
