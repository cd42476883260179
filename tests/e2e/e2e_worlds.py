"""What the end-to-end tests share: a photo, quick settings, the bytes of a world folder, the command line as a process."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from PIL import Image

from lyra_core import pipeline
from lyra_core.config import WorldCfg, from_dict
from lyra_core.errors import Cancelled
from lyra_core.io.files import sha256_file
from lyra_core.jobs.progress import ProgressEvent, ProgressQueue
from lyra_core.world import World

ROOT = Path(__file__).parents[2]
DEMO_PHOTO = ROOT / "lyra_core" / "scenes" / "data" / "demo_room.jpg"
UNREPRODUCIBLE = "build_log.json"
STAGES = ("photo", "estimate", "layout", "trajectory", "frames_0", "lift", "navigation", "detail", "usd", "video", "report")
OPTIONS = ("--quality", "draft", "--quiet")
"""Of the command line; the same world as :func:`draft` without changes."""


def demo_picture(width: int = 480) -> Image.Image:
    """Return the bundled picture, smaller."""
    with Image.open(DEMO_PHOTO) as image:
        return image.convert("RGB").resize((width, round(width * image.height / image.width)))


def draft(**changes: object) -> WorldCfg:
    """Return quick settings."""
    return from_dict({"quality": "draft", **changes})


class Watcher(ProgressQueue):
    """Notes which stages ran and which were skipped; ``stop_at`` cancels when the k-th stage begins, from 0."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self._begun, self._stop_at = 0, stop_at
        super().__init__(self._note)

    def stage(self, name: str, total: int) -> None:
        if self._begun == self._stop_at:
            raise Cancelled(f"stopped before {name}")
        self._begun += 1
        super().stage(name, total)

    def _note(self, event: ProgressEvent) -> None:
        if event.fraction == 1.0:
            (self.skipped if event.message == "already done" else self.ran).append(event.stage)


def build(photo: Path, folder: Path, cfg: WorldCfg | None = None, *, keep: str = "all") -> tuple[World, Watcher]:
    """Build and return the world with what happened."""
    watcher = Watcher()
    return pipeline.build_world(photo, folder, cfg or draft(), keep=keep, progress=watcher), watcher


def file_hashes(folder: Path) -> dict[str, str]:
    """Return relative path -> SHA-256 of all files but the timings."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != UNREPRODUCIBLE)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def assert_same_bytes(a: dict[str, str], b: dict[str, str]) -> None:
    """Compare two file_hashes; names what differs."""
    assert sorted(set(a) ^ set(b)) == []
    changed = [name for name in a if a[name] != b[name]]
    assert not changed, f"{len(changed)} files differ: {', '.join(changed[:10])}"


def plain_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of every file; of .npz and .gz what is packed inside."""
    out: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                out |= {f"{path}:{name}": archive.read(name) for name in archive.namelist()}
        elif path.is_file():
            data = path.read_bytes()
            out[str(path)] = gzip.decompress(data) if path.suffix == ".gz" else data
    return out


def environment(**changes: str) -> dict[str, str]:
    """Return the environment for a child process that finds the packages of this checkout."""
    places = [str(ROOT), str(ROOT / "tasks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **changes}


def start_create(photo: Path, folder: Path, *options: str, **env: str) -> subprocess.Popen[bytes]:
    """Start ``lyra-worlds create`` as a process."""
    command = [sys.executable, "-m", "lyra_core.cli", "create", str(photo), "-o", str(folder), *OPTIONS, *options]
    return subprocess.Popen(command, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run_code(code: str, *arguments: str, timeout: float = 300, prefix: tuple[str, ...] = (),
             **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process."""
    command = [*prefix, sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=timeout)


def jpeg(image: Image.Image, **options: object) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()
