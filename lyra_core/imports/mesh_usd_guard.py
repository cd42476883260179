"""Which layers a stage would open: all of them must lie in its folder, and this is known before it is composed."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lyra_core.errors import InputError
from lyra_core.imports.mesh_parts import MAX_FILE_BYTES, Reading, read_whole, shown

MAX_LAYERS = 10_000


def check_layers(reading: Reading) -> None:
    """Open every layer that the stage could reach, through variants too, and check where each lies.

    Layers that are missing or damaged are notes; they are listed in reading.files otherwise.

    Raises:
        InputError: the first layer is not readable, or a path leaves the folder, is a URL or an expression.
    """
    from pxr import Sdf, Tf

    stack, met = [str(reading.path)], set()
    while stack:
        name = stack.pop()
        if name in met:
            continue
        met.add(name)
        if len(met) > MAX_LAYERS:
            raise reading.fail(f"got more than {MAX_LAYERS} layers, expected fewer")
        try:
            layer = Sdf.Layer.FindOrOpen(name)
        except Tf.ErrorException as error:
            layer, why = None, first_line(error)
        else:
            why = "missing or not a layer"
        if layer is None:
            if len(met) == 1:
                raise reading.fail(f"OpenUSD cannot read it: {why}")
            reading.note(f"A layer was left out ({shown(short(reading, name))}): {why}.")
            continue
        file = Path(name.split("[")[0])
        if file not in reading.files:
            reading.files.append(file)
        for asset in dict.fromkeys([*layer.GetCompositionAssetDependencies(), *_clips(layer)]):
            if asset and (found := _placed(reading, layer, asset)) is not None:
                stack.append(found)


def first_line(error: Exception) -> str:
    """Return what OpenUSD says, without its own source lines and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if "Error in" in line), lines[0] if lines else type(error).__name__)
    text = re.sub(r"^.*?Error in '[^']*' at line \d+ in file \S+ : ", "", text).strip("' ")
    return text[:200]


def short(reading: Reading, name: str) -> str:
    """Return a path as seen from the folder."""
    return name.removeprefix(str(reading.folder.resolve()) + "/")


def _placed(reading: Reading, layer: Any, asset: str) -> str | None:
    """Return the absolute path of a layer that another one names, after checking it; None with a note if it is missing."""
    from pxr import Sdf

    if asset.startswith("`"):
        raise reading.fail(f"layer {shown(asset)}: expressions in asset paths are not read")
    text = Sdf.Layer.SplitIdentifier(asset)[0]
    check_name(reading, text)
    place = layer.ComputeAbsolutePath(text) or text
    return None if not inside(reading, place, f"layer {shown(asset)}") else place


def check_name(reading: Reading, text: str) -> None:
    """Refuse URLs, absolute paths, and members that leave their package.

    Raises:
        InputError: names the path.
    """
    text = text.replace("\\", "/")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or text.startswith(("/", "~")):
        raise reading.fail(f"layer {shown(text)}: expected a path relative to the file, no URL and no absolute path")
    members = [member for member in re.split(r"[\[\]]+", text)[1:] if member]
    if any(posixpath.normpath(member).startswith(("..", "/")) for member in members):
        raise reading.fail(f"layer {shown(text)}: expected a path inside of the package")


def inside(reading: Reading, place: str, what: str) -> bool:
    """Return whether a file is there.

    Raises:
        InputError: it lies outside of the folder.
    """
    try:
        path, root = (reading.folder / place.split("[", maxsplit=1)[0]).resolve(), reading.folder.resolve()
        if not path.is_relative_to(root):
            raise reading.fail(f"{what}: expected a path inside of {root}")
        if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            return True
    except (OSError, RuntimeError, ValueError) as error:
        raise reading.fail(f"{what}: {error}") from error
    reading.note(f"What the stage names is missing: {what}.")
    return False


def _clips(layer: Any) -> Iterator[str]:
    """Yield the layers that value clips name; a template stands for all the files it matches."""
    from pxr import Sdf

    names: list[str] = []

    def visit(path: Any) -> None:
        spec = layer.GetObjectAtPath(path)
        if isinstance(spec, Sdf.PrimSpec) and spec.HasInfo("clips"):
            for clip in dict(spec.GetInfo("clips")).values():
                for key, value in dict(clip).items():
                    if key in ("assetPaths", "manifestAssetPath", "templateAssetPath"):
                        names.extend(str(getattr(v, "path", v)) for v in (value if key == "assetPaths" else [value]))

    layer.Traverse(Sdf.Path.absoluteRootPath, visit)
    yield from names


def asset_bytes(reading: Reading, resolved: str) -> bytes:
    """Return a file of the stage, or a member of a package.

    Raises:
        InputError: outside of the folder, missing, or too large.
    """
    outer, _, member = resolved.partition("[")
    path = Path(outer).resolve()
    if not path.is_relative_to(reading.folder.resolve()):
        raise InputError("it lies outside of the folder")
    if not member:
        if path not in reading.files:
            reading.files.append(path)
        return read_whole(path, "picture")
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member.rstrip("]"))
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > path.stat().st_size:
                raise InputError("it is compressed or larger than its package")
            return archive.read(info)
    except (KeyError, zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise InputError(f"it is not in the package ({type(error).__name__})") from error
