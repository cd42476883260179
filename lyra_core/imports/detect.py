"""Recognises what a folder or file is and reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lyra_core.errors import InputError
from lyra_core.imports import colmap, lyra2, marble, nerfstudio, phone, seven_scenes, tum
from lyra_core.imports.base import Source
from lyra_core.imports.reading import read_text

MESHES = (".glb", ".gltf", ".obj", ".stl", ".off", ".usd", ".usda", ".usdc", ".usdz", ".ply")
SPLATS = (".spz", ".splat")
ARCHIVES = (".zip", ".r3d", ".tar", ".gz", ".tgz", ".7z", ".rar")

KINDS: dict[str, str] = {
    "marble": "splats (.spz, .ply) with a .glb or Marble's metadata",
    "lyra2": "trajectory.npz with an .mp4, or reconstructed_scene.ply",
    "stray": "rgb.mp4, odometry.csv, camera_matrix.csv",
    "polycam": "keyframes/ with cameras/ and images/",
    "record3d": "metadata(.json) with poses, rgb/ or rgbd/",
    "nerfstudio": "transforms.json",
    "colmap": "cameras and images (.bin or .txt), here or in sparse/0/",
    "tum": "rgb.txt with groundtruth.txt or another trajectory",
    "7scenes": "frame-000000.pose.txt ..., here or in seq-01/ ...",
    "posed": "cameras.json with frames",
    "splats": "Gaussians in .ply, .glb, " + ", ".join(SPLATS),
    "mesh": ", ".join(MESHES),
}
"""Every kind and what it is known by, in the order in which they are looked for."""


def detect_kind(path: Path) -> str | None:
    """Return the kind of a folder or file, or None."""
    if path.is_file():
        return _kind_of_file(path)
    checks: dict[str, Callable[[Path], bool]] = {
        "lyra2": lyra2.is_lyra2,
        "stray": phone.is_stray,
        "polycam": lambda p: (p / "keyframes").is_dir() or (p.name == "keyframes" and (p / "cameras").is_dir()),
        "record3d": phone.is_record3d,
        "nerfstudio": lambda p: any((p / name).is_file() for name in nerfstudio.FILES),
        "colmap": lambda p: colmap.find_model(p) is not None,
        "tum": lambda p: (p / "rgb.txt").is_file(),
        "7scenes": lambda p: bool(seven_scenes.sequences(p)),
        "posed": lambda p: (p / "cameras.json").is_file(),
        "marble": marble.is_marble,
    }
    found = next((kind for kind, check in checks.items() if check(path)), None)
    if found is not None:
        return found
    single = _single_file(path)
    return _kind_of_file(single) if single is not None else None


def load_source(path: Path | str, *, kind: str | None = None, intrinsics: tuple[float, ...] | None = None,
                max_frames: int | None = 120, max_side: int | None = None) -> Source:
    """Read a capture, a generator's output, a mesh or splats.

    Args:
        kind: one of KINDS; None = recognised by the files.
        intrinsics: fx fy cx cy [px], for captures that do not say their camera.
        max_frames: posed pictures to keep, chosen by motion and sharpness; None = all.
        max_side: pictures are scaled down to this long side [px]; None = as they are.

    Raises:
        InputError: nothing here, nothing known, an archive, a world of lyra-worlds, or a damaged file.
        BackendUnavailable: an optional reader is not installed.
    """
    path = Path(path)
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_file() and path.suffix.lower() in ARCHIVES:
        raise InputError(f"{path}: got an archive, expected a folder: unpack it first")
    if path.is_dir() and (path / "world.json").is_file() and '"recipe_id"' in read_text(path / "world.json"):
        raise InputError(f"{path}: got a world of lyra-worlds (world.json), expected somebody else's files")
    kind = kind or detect_kind(path)
    if kind is None:
        raise InputError(f"{path}: not recognised. Looked for {'; '.join(f'{name}: {what}' for name, what in KINDS.items())}")
    return _readers(path, intrinsics, max_frames, max_side)[kind]()


def _readers(path: Path, intrinsics: tuple[float, ...] | None, max_frames: int | None,
             max_side: int | None) -> dict[str, Callable[[], Source]]:
    def load_splats() -> Source:
        from lyra_core.splats.formats import read_splat_file

        file = path if path.is_file() else _single_file(path) or path
        return Source("splats", path, (file,), cloud=read_splat_file(file))

    def load_mesh() -> Source:
        from lyra_core.imports.mesh import load_mesh as load

        return load(path if path.is_file() else _single_file(path) or path)

    size = {"max_frames": max_frames, "max_side": max_side}
    return {
        "marble": lambda: marble.load_marble(path),
        "lyra2": lambda: lyra2.load_lyra2(path, **size),
        "stray": lambda: phone.load_stray(path, **size),
        "polycam": lambda: phone.load_polycam(path, **size),
        "record3d": lambda: phone.load_record3d(path, **size),
        "nerfstudio": lambda: nerfstudio.load_nerfstudio(path, **size),
        "colmap": lambda: colmap.load_colmap(path, **size),
        "tum": lambda: tum.load_tum(path, intrinsics=intrinsics, **size),
        "7scenes": lambda: seven_scenes.load_seven_scenes(path, intrinsics=intrinsics, **size),
        "posed": lambda: phone.load_posed(path, **size),
        "splats": load_splats,
        "mesh": load_mesh,
    }


def _kind_of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in (".ply", ".glb", ".gltf"):
        from lyra_core.splats.formats import looks_like_splats

        return "splats" if looks_like_splats(path) else "mesh"
    if suffix == ".json":
        return "nerfstudio" if path.name in nerfstudio.FILES else "posed" if path.name == "cameras.json" else None
    return "splats" if suffix in SPLATS else "mesh" if suffix in MESHES else None


def _single_file(path: Path) -> Path | None:
    """Return the only mesh or splat file of a folder."""
    found = [p for p in path.iterdir() if p.is_file() and p.suffix.lower() in (*MESHES, *SPLATS)]
    return found[0] if len(found) == 1 else None
