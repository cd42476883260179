"""Build a world of every photo of a folder, measure it, and judge it against the bars.

Run from the repository's root::

    python -m tests.benchmarks.photos PHOTOS                    # all photos, standard quality: about 20 minutes
    python -m tests.benchmarks.photos PHOTOS --quick            # three photos in draft quality: about 2 minutes
    python -m tests.benchmarks.photos PHOTOS --only p01,p08 --out worlds/bench --physics --json rows.json

Measures are proven first on a room with known numbers (proofs.py); all photos are then built, each in a process of its own, whose
peak memory is read, and measured in another. Seconds are those of build_log.json. Worlds are kept with ``--out``; ``--reuse``
measures those already there again without building them. Exit status 1: a bar was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.bars import verdicts
from tests.benchmarks.tables import number, table

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}
Work = Callable[[Path, Path, argparse.Namespace], dict[str, Any]]
QUICK = ("p01", "p08", "p15")
"""A room, a street, a corridor."""
STAGES = ("photo", "estimate", "layout", "trajectory", "frames", "lift", "navigation", "usd", "report", "video")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 0 if every bar is reached."""
    args = _arguments(argv)
    photos = _photos(args)
    _say("proving the measures ...")
    _child([sys.executable, "-m", "tests.benchmarks.proofs"], quiet=False)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        rows = [{"photo": photo.stem, "quality": args.quality} for photo in photos]
        for work in (_build, _measure, *([_physics] if args.physics else [])):
            for i, (photo, row) in enumerate(zip(photos, rows, strict=True), 1):
                if "error" not in row:
                    _attempt(work, photo, out, args, row, f"[{i}/{len(photos)}] {photo.stem}: {work.__name__[1:]}")
    judged = verdicts(rows)
    print(report(rows, args, load))
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "verdicts": [v.__dict__ for v in judged]}, indent=1), encoding="utf-8")
    physics_ok = all(row["physics"]["passed"] for row in rows if "physics" in row)
    return 0 if physics_ok and all(v.passed for v in judged) else 1


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.photos", description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of pictures")
    parser.add_argument("--quick", action="store_true", help="three photos, draft quality, fewer episodes and poses")
    parser.add_argument("--only", default="", help="comma-separated beginnings of file names")
    parser.add_argument("--quality", default=None, choices=("draft", "standard", "full"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="keep the worlds here")
    parser.add_argument("--reuse", action="store_true", help="measure worlds that are in --out already without building them")
    parser.add_argument("--physics", action="store_true", help="also drop, drive and follow in Newton and PhysX")
    parser.add_argument("--json", type=Path, default=None, help="write all numbers here")
    args = parser.parse_args(argv)
    if args.reuse and args.out is None:
        parser.error("--reuse: needs --out")
    args.quality = args.quality or ("draft" if args.quick else "standard")
    args.episodes, args.poses = (10, 50) if args.quick else (50, 200)
    return args


def _photos(args: argparse.Namespace) -> list[Path]:
    found = sorted(p for p in args.photos.glob("*") if p.suffix.lower() in SUFFIXES)
    wanted = tuple(args.only.split(",")) if args.only else QUICK if args.quick else ()
    chosen = [p for p in found if not wanted or p.name.startswith(wanted)]
    # Other folders than the evaluation photos have no p01: take the first three.
    chosen = chosen or (found[:3] if args.quick and not args.only else [])
    if not chosen:
        raise SystemExit(f"{args.photos}: got {len(found)} pictures, none of which begins with {', '.join(wanted) or 'anything'}")
    return chosen


def _attempt(work: Work, photo: Path, out: Path, args: argparse.Namespace, row: dict[str, Any], label: str) -> None:
    """Add what one step found to the row; an error becomes part of it."""
    start = time.perf_counter()
    try:
        row |= work(photo, out, args)
        _say(f"{label}: {time.perf_counter() - start:.0f} s")
    except subprocess.CalledProcessError as error:
        row["error"] = (error.stderr or "").strip().splitlines()[-1:] or [f"exit code {error.returncode}"]
        _say(f"{label}: FAILED: {error.stderr}")


def _build(photo: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return seconds, wall time and peak memory of the build."""
    folder, result = out / photo.stem, out / f"{photo.stem}.build.json"
    if not (args.reuse and result.is_file() and (folder / "world.json").is_file()):
        if folder.exists():
            raise SystemExit(f"{folder}: is there already; name another --out, or --reuse it")
        _child([sys.executable, "-m", "tests.benchmarks.build_one", str(photo), str(folder), "--quality", args.quality,
                "--seed", str(args.seed), "--json", str(result)])
    built = json.loads(result.read_text(encoding="utf-8"))
    seconds = {name: built["seconds"].get(name, 0.0) for name in STAGES}
    seconds["frames"] = sum(value for name, value in built["seconds"].items() if name.startswith("frames_"))
    total = sum(seconds.values())
    return {**built, "seconds": seconds, "total": total, "no_video": total - seconds["video"]}


def _measure(photo: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what measures.py says."""
    result = out / f"{photo.stem}.measures.json"
    _child([sys.executable, "-m", "tests.benchmarks.measures", str(out / photo.stem), "--episodes", str(args.episodes),
            "--poses", str(args.poses), "--json", str(result)])
    return json.loads(result.read_text(encoding="utf-8"))


def _physics(photo: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what physics_photos.py says, without its controls."""
    result = out / f"{photo.stem}.physics.json"
    _child([sys.executable, "-m", "tests.benchmarks.physics_photos", str(out / photo.stem), "--json", str(result),
            "--no-controls", *(["--quick"] if args.quick else [])], codes=(0, 1))
    return {"physics": json.loads(result.read_text(encoding="utf-8"))[0]}


def _child(command: list[str], *, quiet: bool = True, codes: tuple[int, ...] = (0,)) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tasks"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=Path.cwd(), env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    if done.returncode not in codes:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr[-3000:])
    if not quiet:
        _say(done.stdout.strip())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(rows: list[dict[str, Any]], args: argparse.Namespace, load: float) -> str:
    """Return the printed tables."""
    done = [row for row in rows if "error" not in row]
    head = (f"{len(rows)} photos, quality {args.quality}, seed {args.seed}, {os.cpu_count()} cores, load {load:.1f} at start and "
            f"{os.getloadavg()[0]:.1f} at the end (above the number of cores, seconds are too long: compare cpu s)")
    pieces = [head, _times(done), _places(done), _qualities(done)]
    if any("physics" in row for row in done):
        from tests.benchmarks.physics_photos import physics_table

        pieces.append(physics_table([row["physics"] for row in done if "physics" in row]))
    pieces += [f"{row['photo']}: FAILED: {' '.join(row['error'])}" for row in rows if "error" in row]
    return "\n\n".join([*pieces, _summary(rows)])


def _times(rows: list[dict[str, Any]]) -> str:
    header = ["photo", *[f"{name} s" for name in STAGES], "total s", "no video s", "wall s", "cpu s", "peak MB", "disk MB"]
    return table(header, [
        [row["photo"], *[number(row["seconds"][name], 2) for name in STAGES], number(row["total"]), number(row["no_video"]),
         number(row["wall"]), number(row.get("cpu")), number(row["peak_bytes"] / 1e6, 0), number(row["megabytes_on_disk"])]
        for row in rows
    ])


def _places(rows: list[dict[str, Any]]) -> str:
    header = ["photo", "scene", "confidence", "walkable m2", "seen", "continued", "invented", "islands", "findings", "oracle d %",
              "SPL", "oracle c %", "SPL"]
    return table(header, [
        [row["photo"], row["scene"], number(row["confidence"], 2), number(row["walkable_m2"]), number(row["seen_m2"]),
         number(row["continued_m2"]), number(row["invented_m2"]), number(row["islands"], 0), str(row["findings"]),
         *[text for side in row["oracle"].values() for text in (number(side["success_percent"]), number(side["spl"], 3))]]
        for row in rows
    ])


def _qualities(rows: list[dict[str, Any]]) -> str:
    header = ["photo", "photo dB", "covered %", "all pixels dB", "loop dB", "hits %", "p95 cm", "ghost %", "unseen %"]
    keys = (("photo_psnr", 1), ("covered_percent", 1), ("whole_photo_psnr", 1), ("loop_psnr", 1), ("hits_percent", 2),
            ("p95_cm", 2), ("ghost_percent", 2), ("unseen_percent", 2))
    return table(header, [[row["photo"], *[number(row[key], digits) for key, digits in keys]] for row in rows])


def _summary(rows: list[dict[str, Any]]) -> str:
    return table(["bar", "median", "worst", "photo", "wanted", "verdict"], [
        [v.name, number(v.middle, v.digits), number(v.worst[0], v.digits), v.worst[1], v.bar, "PASS" if v.passed else "FAIL"]
        for v in verdicts(rows)
    ])


if __name__ == "__main__":
    sys.exit(main())
