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
STAGE_FOLDERS = ("frames", "depth", "build", "payloads", "occupancy_map")
"""Folders that hold files of stages and nothing else; the top level may also hold what users put there."""


class WorldBuild:
    """A folder and its manifest. ``run`` skips a stage whose inputs and outputs are as recorded."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.timings: dict[str, float] = {}
        """Seconds of the stages that ran."""
        self._used: set[str] = set()
        self.is_new = False
        """True if the folder was empty or missing."""
        self._made: list[Path] = []

    @classmethod
    def begin(cls, folder: Path, *, photo_sha256: str, recipe: dict[str, Any]) -> WorldBuild:
        """Open or make a folder for a photo. Nothing is written where the folder already holds what the recipe makes.

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
            build.is_new = True
        build._made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if build.manifest.get("recipe") != recipe:
                build.start(recipe)
        except OSError as error:
            raise WorldError(f"{folder}: cannot be written: {error.strerror or error}") from error
        return build

    def start(self, recipe: dict[str, Any], *, extension: dict[str, Any] | None = None) -> None:
        """Take a new recipe. ``extension`` is the segment that it adds to a world; asked for again, it is only finished."""
        self.manifest.update(recipe=recipe, recipe_id=digest(recipe), extension=extension)
        self.reopen()

    def reopen(self) -> None:
        """Mark the world as unfinished, before its files are touched."""
        self.manifest.pop("keep", None)
        self.manifest["status"] = "building"
        self.save()
        self.sweep()

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
        self._used.add(name)
        key = digest(
            {"stage": name, "version": version, "inputs": inputs, "after": {stage: self._outputs(stage) for stage in after}}
        )
        record = self.manifest["stages"].get(name)
        if record and record["key"] == key and self._intact(record["files"]):
            return False
        self.manifest["stages"].pop(name, None)
        files = sorted(work())
        self.manifest["stages"][name] = {"key": key, "files": {file: sha256_file(self.folder / file) for file in files}}
        self.save()
        return True

    def prune(self) -> None:
        """Forget the stages that did not run for this recipe, and delete files that no stage owns: a longer path's frames, an
        earlier route's parts. So a folder's history leaves no trace in it."""
        stages = self.manifest["stages"]
        stale = {file for name in set(stages) - self._used for file in stages.pop(name)["files"]}
        owned = {file for record in stages.values() for file in record["files"]}
        for name in STAGE_FOLDERS:
            stale |= {p.relative_to(self.folder).as_posix() for p in (self.folder / name).rglob("*") if p.is_file()}
        for file in sorted(stale - owned):
            (self.folder / file).unlink(missing_ok=True)

    def _outputs(self, stage: str) -> dict[str, str]:
        if stage not in self.manifest["stages"]:
            raise AssertionError(f"stage {stage!r} is read before it ran")
        return self.manifest["stages"][stage]["files"]

    def _intact(self, files: dict[str, str]) -> bool:
        return all((self.folder / file).is_file() and sha256_file(self.folder / file) == value for file, value in files.items())

    def finish(self, *, keep: str, working_folders: tuple[str, ...]) -> None:
        """Mark the world complete. keep 'training' deletes the working folders; the recorded hashes stay."""
        self.prune()
        outputs = {
            file: value
            for record in self.manifest["stages"].values()
            for file, value in record["files"].items()
            if not file.startswith("build/")
        }
        # Deleted first: a run killed in between finds the world unfinished and makes again what is missing.
        if keep == "training":
            for name in working_folders:
                target = self.folder / name
                target.unlink(missing_ok=True) if target.is_file() else shutil.rmtree(target, ignore_errors=True)
        self.manifest.pop("extension", None)
        self.manifest.update(status="complete", keep=keep, content_hash=digest(outputs))
        self.save()
        self._write_timings()

    def _write_timings(self) -> None:
        path = self.folder / TIMINGS
        before = read_json(path) if path.is_file() else {}
        seconds = {**before, **{name: round(value, 3) for name, value in self.timings.items()}}
        write_json(path, {name: seconds[name] for name in self.manifest["stages"] if name in seconds})

    def is_complete(self, *, keep: str, working_folders: tuple[str, ...]) -> bool:
        """True if the recipe of this manifest was finished with the same ``keep``, and what that keeps is intact."""
        if self.manifest.get("status") != "complete" or self.manifest.get("keep") != keep:
            return False
        dropped = working_folders if keep == "training" else ()
        files = {
            file: value
            for record in self.manifest["stages"].values()
            for file, value in record["files"].items()
            if file.partition("/")[0] not in dropped
        }
        return self._intact(files)

    def discard(self) -> None:
        """Delete what this build wrote into a folder that was empty or missing, and the folders it made."""
        assert self.is_new
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self._made:
            if any(path.iterdir()):
                break
            path.rmdir()

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
