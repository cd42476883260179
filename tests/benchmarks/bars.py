"""What the worlds of the evaluation photos must reach, and who reaches it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """One number that is judged."""

    name: str
    value: Callable[[Row], float]
    limit: float
    at_least: bool
    """True: a floor, else a ceiling."""
    by_median: bool = False
    """Judge the median of the photos; else the worst."""
    digits: int = 1


def _oracle(row: Row) -> float:
    return min(side["success_percent"] for side in row["oracle"].values())


BARS = (
    Bar("seconds without video", lambda r: r["no_video"], 15.0, at_least=False, by_median=True),
    Bar("peak memory [GB]", lambda r: r["peak_bytes"] / 1e9, 2.0, at_least=False, digits=2),
    Bar("validator findings", lambda r: r["findings"], 0, at_least=False, digits=0),
    Bar("oracle success, both ids [%]", _oracle, 98.0, at_least=True),
    Bar("rays below the horizon that hit [%]", lambda r: r["hits_percent"], 99.5, at_least=True, digits=2),
    Bar("sensor against collider, p95 [cm]", lambda r: r["p95_cm"], 5.0, at_least=False, digits=2),
    Bar("walkable, radius 0.3 m [m2]", lambda r: r["walkable_m2"], 60.0, at_least=True),
    Bar("photo's own view [dB]", lambda r: r["photo_psnr"], 25.0, at_least=True),
    Bar("loop closure [dB]", lambda r: r["loop_psnr"], 40.0, at_least=True),
)


@dataclass(frozen=True)
class Verdict:
    """A bar and what was found."""

    name: str
    middle: float
    worst: tuple[float, str]
    """Value and photo."""
    bar: str
    passed: bool
    digits: int


def verdicts(rows: list[Row]) -> list[Verdict]:
    """Judge rows. A photo without a world fails 'completed' and is left out of the numbers; NaN fails a bar."""
    done = [row for row in rows if "error" not in row]
    failed = [row["photo"] for row in rows if "error" in row]
    share = Verdict("completed", len(done), (len(failed), ", ".join(failed) or "-"), f"all {len(rows)}", not failed, 0)
    return [share, *(_verdict(bar, done) for bar in BARS if done)]


def _verdict(bar: Bar, rows: list[Row]) -> Verdict:
    values = [(float(bar.value(row)), str(row["photo"])) for row in rows]
    unknown = [pair for pair in values if math.isnan(pair[0])]
    worst = unknown[0] if unknown else (min if bar.at_least else max)(values, key=lambda pair: pair[0])
    middle = median(value for value, _ in values)
    judged = middle if bar.by_median else worst[0]
    passed = judged >= bar.limit if bar.at_least else judged <= bar.limit
    kind = "median" if bar.by_median else "worst"
    return Verdict(bar.name, middle, worst, f"{kind} {'>=' if bar.at_least else '<='} {bar.limit:g}", passed, bar.digits)
