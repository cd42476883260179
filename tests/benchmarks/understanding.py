"""What does the photo say about the place? Worlds built from single pictures, measured against depth their makers have not seen.

``python -m tests.benchmarks.understanding [--data DIR] [--quick] [--mode geometric|file|...]`` builds a light world per case (no
frames) and prints one table for procedural scenes with exact truth and one for real pictures with depth, beside simple
baselines, the recorded scores of the first version and the world of another photo. docs/understanding.md defines every number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lyra_core.errors import LyraError
from lyra_core.io.files import write_bytes
from tests.benchmarks.sequences import DEFAULT_DATA
from tests.benchmarks.understanding_cases import QUICK, Case, real_case, real_names
from tests.benchmarks.understanding_measures import score
from tests.benchmarks.understanding_rendered import procedural_case, procedural_names, scan_case, scan_names
from tests.benchmarks.understanding_tables import (
    OURS,
    SHUFFLED,
    Row,
    Rows,
    bars_table,
    better,
    calibration_table,
    cases_table,
    kinds_table,
    methods_table,
    scale_table,
    shuffled_table,
)
from tests.benchmarks.understanding_truth import find_truth
from tests.benchmarks.understanding_worlds import World, baselines, build_world

REFERENCE = Path(__file__).parent / "reference" / "understanding_baseline.json"
TITLES = {"procedural": "Procedural scenes, exact truth", "real": "Real pictures with depth", "scan": "Views of room scans"}
SAME_DEPTH = 0.01
"""Relative difference of a picture's median true depth below which recorded scores are of the same picture."""
WORKING_SIZE = 768
"""Long side at which photos are read [px]: that of quality 'standard'."""


@dataclass(frozen=True)
class Job:
    """A case to be loaded and scored."""

    table: str
    name: str
    data: Path
    cache: Path
    mode: str
    size: int

    def load(self) -> Case:
        """Read or render the case."""
        if self.table == "real":
            return real_case(self.data, self.name)
        if self.table == "scan":
            return scan_case(self.data, self.name, self.cache)
        return procedural_case(self.name, self.cache)


def build(job: Job) -> tuple[World | None, str]:
    """Return the world of a job's photo, or None and why there is none."""
    try:
        return build_world(job.load(), job.mode, size=job.size), ""
    except (LyraError, ArithmeticError, LookupError, ValueError) as error:
        return None, f"{type(error).__name__}: {error}"


def judge(task: tuple[Job, World | None, World | None]) -> dict[str, Row]:
    """Score the own world, that of another photo and the baselines on a job's case."""
    job, own, other = task
    case = job.load()
    truth = find_truth(case)
    common: Row = {"kind": case.kind, "focal_source": case.photo.focal_source, "true_depth": float(np.nanmedian(case.depth))}
    out: dict[str, Row] = {name: {**common, **score(truth, world)} for name, world in baselines(truth).items()}
    out[SHUFFLED] = {**common, **score(truth, other)}
    out[OURS] = {**common, **score(truth, own), **(own.stated if own is not None else {})}
    return out


def run(jobs: Sequence[Job], workers: int) -> dict[str, Rows]:
    """Build and score all jobs of one table; returns scores by method and case. Prints a line per world."""
    worlds = []
    for job, (world, why) in zip(jobs, _mapped(build, jobs, workers), strict=True):
        said = why if world is None else f"{world.stated['seconds']:.1f} s, confidence {world.stated['confidence']:.2f}"
        print(f"  {job.name}: {said}", flush=True)
        worlds.append(world)
    shift = max(1, len(jobs) // 2)
    tasks = [(job, worlds[i], worlds[(i + shift) % len(jobs)]) for i, job in enumerate(jobs)]
    rows = list(_mapped(judge, tasks, workers))
    return {method: {job.name: row[method] for job, row in zip(jobs, rows, strict=True)} for method in rows[0]}


def _mapped(work: Callable, items: Iterable, workers: int) -> Iterator:
    if workers == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(work, items)


def make_jobs(table: str, args: argparse.Namespace) -> list[Job]:
    """Return the jobs of a table; --quick takes few of them, spread over kinds."""
    names = {"real": lambda: real_names(args.data), "scan": lambda: scan_names(args.data), "procedural": procedural_names}[table]()
    if args.quick:
        names = names[:QUICK[table]] if table != "real" else names[::max(1, len(names) // QUICK[table])]
    if args.match:
        names = [name for name in names if args.match in name]
    return [Job(table, name, args.data, args.cache, args.mode, args.size) for name in names]


def load_reference(path: Path, mode: str, table: str) -> tuple[str, Rows]:
    """Return the label and the recorded rows of a table; no rows where none were recorded."""
    if not path.exists():
        return "", {}
    stored = json.loads(path.read_text(encoding="utf-8"))
    part = stored["tables"].get(f"{mode}/{table}", {"columns": [], "rows": {}})
    rows = {name: {k: (np.nan if v is None else v) for k, v in zip(part["columns"], row, strict=True)}
            for name, row in part["rows"].items()}
    return stored["label"], rows


def save_reference(path: Path, label: str, mode: str, results: dict[str, dict[str, Rows]]) -> None:
    """Write our rows, one line per case; tables already in the file stay unless they are measured again."""
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"tables": {}}
    stored["label"] = label
    for table, methods in results.items():
        rows = methods[OURS]
        columns = sorted({key for row in rows.values() for key in row} - {"seconds"})
        stored["tables"][f"{mode}/{table}"] = {"columns": columns, "rows": {
            name: [_plain(row.get(key)) for key in columns] for name, row in rows.items()}}
    write_bytes(path, _one_row_per_line(stored).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    return round(float(value), 4) if np.isfinite(value) else None


def _one_row_per_line(stored: dict[str, Any]) -> str:
    tables = []
    for name, part in stored["tables"].items():
        rows = ",\n".join(f"   {json.dumps(case)}: {json.dumps(row)}" for case, row in part["rows"].items())
        tables.append(f'  {json.dumps(name)}: {{\n  "columns": {json.dumps(part["columns"])},\n  "rows": {{\n{rows}\n  }}}}')
    return f'{{\n "label": {json.dumps(stored["label"])},\n "tables": {{\n' + ",\n".join(tables) + "\n }\n}\n"


def with_reference(methods: dict[str, Rows], label: str, recorded: Rows) -> dict[str, Rows]:
    """Return methods with the recorded one before ours, where every case was recorded with the same true depth."""
    cases = methods[OURS]
    if any(name not in recorded for name in cases):
        return methods
    other = [n for n, row in cases.items() if abs(float(recorded[n]["true_depth"]) / float(row["true_depth"]) - 1) > SAME_DEPTH]
    if other:
        print(f"{label}: left out, {len(other)} of its {len(cases)} pictures show something else, as {other[0]}")
        return methods
    head = {name: rows for name, rows in methods.items() if name != OURS}
    return {**head, label: {name: recorded[name] for name in cases}, OURS: cases}


def show(table: str, mode: str, methods: dict[str, Rows], *, cases: bool) -> None:
    """Print all tables of one set of cases."""
    ours = methods[OURS]
    print(f"\n## {TITLES[table]} ({len(ours)} cases, depth from {mode})\n")
    print(methods_table(methods), "\n\n" + kinds_table(ours), sep="")
    if cases:
        print("\n" + cases_table(ours))
    both = [methods["constant"], methods["floor + far plane"]]
    print(f"\nbetter than both baselines on {100 * better(ours, both):.0f} % of the pictures "
          f"(median-scaled AbsRel and delta1 both; metric: {100 * better(ours, both, ''):.0f} %)")
    print("\n" + bars_table(table, mode, methods))
    print("\nStated scale\n\n" + scale_table(ours))
    print("\nStated confidence (wrong: floor normal > 5 deg, floor IoU < 0.5, or more than 30 % of blocked paths look free)\n\n"
          + calibration_table(ours))
    print("\nDoes the photo matter?\n\n" + shuffled_table(ours, methods[SHUFFLED]))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder with rgbd, sequences and meshes")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "lyra-worlds-understanding",
                        help="folder for rendered pictures")
    parser.add_argument("--mode", default="geometric", help="depth provider; 'file' gives the true depth as a file")
    parser.add_argument("--only", choices=("procedural", "real", "scan"), help="one table")
    parser.add_argument("--match", default="", help="only cases whose name holds this")
    parser.add_argument("--quick", action="store_true", help="few cases")
    parser.add_argument("--cases", action="store_true", help="print every case")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--size", type=int, default=WORKING_SIZE, help="long side at which photos are read [px]")
    parser.add_argument("--out", type=Path, help="write all scores as JSON")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="recorded scores to print beside")
    parser.add_argument("--save-reference", type=Path, help="record our scores here")
    parser.add_argument("--label", default="first version", help="name of the recorded scores")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Rows]] = {}
    for table in [args.only] if args.only else ["procedural", "real", *(["scan"] if args.mode == "file" else [])]:
        jobs = make_jobs(table, args)
        if not jobs:
            print(f"{TITLES[table]}: no cases below {args.data}")
            continue
        print(f"{TITLES[table]}: {len(jobs)} cases", flush=True)
        results[table] = run(jobs, args.jobs)
    if args.save_reference:
        save_reference(args.save_reference, args.label, args.mode, results)
    for table, methods in results.items():
        show(table, args.mode, with_reference(methods, *load_reference(args.reference, args.mode, table)), cases=args.cases)
    if args.out:
        plain = {t: {m: {n: {k: _plain(v) for k, v in row.items()} for n, row in rows.items()} for m, rows in methods.items()}
                 for t, methods in results.items()}
        write_bytes(args.out, (json.dumps(plain, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
