"""Bookkeeping of a world folder in the making: stages with hashes in world.json, so that a build resumes and stays reproducible."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lyra_core import __version__
from lyra_core.errors import WorldError
from lyra_core.io.files import read_json, sha256_file, write_json

SCHEMA_VERSION = 1
MANIFEST = "world.json"
TIMINGS = "build_log.json"
"""Seconds per stage; kept apart so that all other files are the same bytes in every run."""
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "scikit-image", "embreex", "usd-core")
"""Packages whose version may change the bytes of a world."""


class WorldBuild:
    """A folder and its manifest. ``run`` skips a stage whose inputs and outputs are as recorded."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.timings: dict[str, float] = {}
        self._changed: set[str] = set()

    @classmethod
    def begin(cls, folder: Path, *, photo_sha256: str, recipe: dict[str, Any]) -> WorldBuild:
        """Open or make a folder for a photo.

        Raises:
            WorldError: the folder holds another photo's world, something else, or cannot be written.
        """
        path = folder / MANIFEST
        if path.is_file():
            build = cls.open(folder)
            found = build.manifest.get("photo", {}).get("sha256")
            if found != photo_sha256:
                raise WorldError(
                    f"{folder}: holds the world of another photo (sha256 {str(found)[:12]}..., "
                    f"this one {photo_sha256[:12]}...); choose another output folder"
                )
        else:
            if folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".tmp-") for p in folder.iterdir())):
                raise WorldError(f"{folder}: exists and is not a world folder; choose an empty or new one")
            build = cls(folder, {"schema": SCHEMA_VERSION, "photo": {"sha256": photo_sha256}, "stages": {}})
        try:
            folder.mkdir(parents=True, exist_ok=True)
            build.manifest.update(recipe=recipe, recipe_id=digest(recipe), status="building")
            build.save()
        except OSError as error:
            raise WorldError(f"{folder}: cannot be written: {error}") from error
        build.sweep()
        return build

    @classmethod
    def open(cls, folder: Path) -> WorldBuild:
        """Open an existing world folder.

        Raises:
            WorldError: world.json is missing, damaged, or of a newer schema.
        """
        if not (folder / MANIFEST).is_file():
            raise WorldError(f"{folder}: not a world folder ({MANIFEST} is missing)")
        manifest = read_json(folder / MANIFEST)
        if (
            not isinstance(manifest, dict)
            or manifest.get("schema") != SCHEMA_VERSION
            or not isinstance(manifest.get("stages"), dict)
        ):
            found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
            raise WorldError(f"{folder / MANIFEST}: schema: got {found!r}, expected {SCHEMA_VERSION} with a table of stages")
        return cls(folder, manifest)

    def sweep(self) -> None:
        """Remove temporary files that a killed run left."""
        for leftover in self.folder.rglob(".tmp-*"):
            leftover.unlink(missing_ok=True)

    def run(
        self, name: str, work: Callable[[], Iterable[str]], *, version: int, after: tuple[str, ...] = (), **inputs: Any
    ) -> bool:
        """Run a stage unless its recorded inputs and outputs still hold.

        Args:
            name: of the stage in the manifest.
            work: does it and returns the files it wrote, relative to the folder.
            version: of the stage's code; part of the hash.
            after: stages whose outputs it reads.
            inputs: whatever else decides the result (JSON values).

        Returns:
            True if it ran.
        """
        key = digest(
            {"stage": name, "version": version, "inputs": inputs, "after": {stage: self._outputs(stage) for stage in after}}
        )
        record = self.manifest["stages"].get(name)
        if record and record["key"] == key and self._intact(record["files"]):
            return False
        self.manifest["stages"].pop(name, None)
        files = sorted(work())
        self.manifest["stages"][name] = {"key": key, "files": {file: sha256_file(self.folder / file) for file in files}}
        self._changed.add(name)
        self.save()
        return True

    def drop(self, names: Iterable[str]) -> None:
        """Forget stages and delete their files."""
        for name in list(names):
            for file in self.manifest["stages"].pop(name)["files"]:
                (self.folder / file).unlink(missing_ok=True)
        self.save()

    def _outputs(self, stage: str) -> dict[str, str]:
        if stage not in self.manifest["stages"]:
            raise AssertionError(f"stage {stage!r} is read before it ran")
        return self.manifest["stages"][stage]["files"]

    def _intact(self, files: dict[str, str]) -> bool:
        return all((self.folder / file).is_file() and sha256_file(self.folder / file) == value for file, value in files.items())

    def finish(self, *, keep: str, working_folders: tuple[str, ...]) -> None:
        """Mark the world complete. keep 'training' deletes the working folders; the recorded hashes stay."""
        outputs = {
            file: value
            for record in self.manifest["stages"].values()
            for file, value in record["files"].items()
            if not file.startswith("build/")
        }
        self.manifest.update(status="complete", keep=keep, content_hash=digest(outputs))
        self.save()
        if keep == "training":
            for name in working_folders:
                target = self.folder / name
                shutil.rmtree(target, ignore_errors=True)
                target.unlink(missing_ok=True) if target.is_file() else None
        if self.timings:
            write_json(self.folder / TIMINGS, {name: round(value, 3) for name, value in self.timings.items()})

    def is_complete(self) -> bool:
        """True if the recipe of this manifest was finished and what it keeps is intact."""
        if self.manifest.get("status") != "complete":
            return False
        dropped = self.manifest.get("keep") == "training"
        files = {
            file: value
            for record in self.manifest["stages"].values()
            for file, value in record["files"].items()
            if not (dropped and not (self.folder / file).exists())
        }
        return self._intact(files)

    def save(self) -> None:
        """Write world.json."""
        write_json(self.folder / MANIFEST, self.manifest)


def digest(value: Any) -> str:
    """Return the SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Return the versions that may change a world's bytes; 'absent' where not installed."""
    out = {"lyra-worlds": __version__}
    for name in PACKAGES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "absent"
    return out
