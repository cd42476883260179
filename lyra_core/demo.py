"""python -m lyra_core.demo [PHOTO] [-o DIR]: a world of the bundled picture, or of yours, and a robot that walks in it."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lyra_core.errors import BackendUnavailable, LyraError

PICTURE = Path(__file__).parent / "scenes" / "data" / "demo_room.jpg"
"""Rendered by lyra_core.scenes; ours, so it carries the package's licence."""
NEEDS = {"numpy": "numpy", "scipy": "scipy", "cv2": "opencv-python-headless", "skimage": "scikit-image", "trimesh": "trimesh",
         "gymnasium": "gymnasium", "PIL": "pillow", "imageio_ffmpeg": "imageio-ffmpeg", "mapbox_earcut": "mapbox_earcut",
         "threadpoolctl": "threadpoolctl", "tyro": "tyro", "rich": "rich", "yaml": "pyyaml", "pxr": "usd-core",
         "lyra_tasks": "lyra-worlds"}
"""Module -> the distribution that brings it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Build, play, and say where to look. Returns the exit status, as the lyra-worlds command does."""
    parser = argparse.ArgumentParser(prog="python -m lyra_core.demo", description="One photo in, a walkable world out.")
    parser.add_argument("photo", nargs="?", type=Path, default=PICTURE, help="a photo of your own; default: the bundled picture")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: worlds/NAME_OF_THE_PHOTO")
    parser.add_argument("--quality", choices=("draft", "standard", "full"), default="standard")
    options = parser.parse_args(argv)
    try:
        check_environment()
        _run(options.photo, options.output or Path("worlds") / options.photo.stem, options.quality)
    except KeyboardInterrupt:
        print("\nStopped. What is finished is on disk; the same command goes on from there.", file=sys.stderr)
        return 130
    except (LyraError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    return 0


def check_environment() -> None:
    """Look at Python and the packages before anything starts.

    Raises:
        BackendUnavailable: Python is too old or packages are missing; names all of them.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - the demo also runs from a checkout, which pip has not vetted
        raise BackendUnavailable("the demo", reason=f"this is Python {sys.version.split()[0]}", install="Python 3.11 or newer")
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        reason = f"missing {', '.join(missing)}"
        raise BackendUnavailable("the demo", reason=reason, install="pip install 'lyra-worlds[standalone]', or make demo")


def _run(photo: Path, folder: Path, quality: str) -> None:
    from lyra_core import cli

    start = time.perf_counter()
    licence = ["--photo-licence", "Apache-2.0"] if photo == PICTURE else []
    create = ["create", str(photo), "--output", str(folder), "--quality", quality, "--frames", "161", *licence]
    for arguments in (create, ["play", str(folder)]):
        print(f"$ lyra-worlds {' '.join(arguments)}", flush=True)
        status = cli.main(arguments)
        if status == cli.EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if status != cli.EXIT_OK:
            raise LyraError(f"lyra-worlds {arguments[0]} ended with status {status}; see above")
    print(f"""
Done in {time.perf_counter() - start:.0f} s. Look at:
  {folder / "report.html"}    what was read from the photo, the map, the numbers
  {folder / "play.mp4"}       the robot on its longest episode
  {folder / "world.usda"}     open it in usdview, Blender or Isaac Sim
Next:
  lyra-worlds extend {folder} --trajectory tour
  lyra-worlds create YOUR_PHOTO.jpg -o worlds/mine""")


if __name__ == "__main__":
    sys.exit(main())
