"""Build one world in a process of its own, so that its peak memory is its own.

Run: ``python -m tests.benchmarks.build_one PHOTO DIR --json FILE``.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

from lyra_core.config import WorldCfg, from_dict
from lyra_core.io.files import read_json
from lyra_core.jobs.progress import ProgressQueue
from lyra_core.pipeline import build_world


def main() -> None:
    """Build, then write seconds per stage, processor seconds (steadier on a busy machine) and the peak memory as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.build_one", description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quality", default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    cfg: WorldCfg = from_dict({"quality": args.quality, "seed": args.seed})
    stages: list[str] = []

    def tell(event) -> None:
        if event.stage not in stages:
            stages.append(event.stage)
            print(f"@stage {event.stage}", file=sys.stderr, flush=True)

    start = time.perf_counter()
    world = build_world(args.photo, args.folder, cfg, progress=ProgressQueue(tell))
    wall = time.perf_counter() - start
    # Linux hands a child the peak of the process that started it, so the two peaks must not be added; the encoder's own is small.
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    args.json.write_text(json.dumps({
        "seconds": read_json(world.folder / "build_log.json"),
        "wall": wall,
        "cpu": sum(u.ru_utime + u.ru_stime for u in used),
        "peak_bytes": 1024 * max(u.ru_maxrss for u in used),
        "megabytes_on_disk": sum(p.stat().st_size for p in world.folder.rglob("*") if p.is_file()) / 1e6,
    }), encoding="utf-8")


if __name__ == "__main__":
    main()
