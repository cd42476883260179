"""The benchmark's measures find what is planted, and its bars fail what they must."""

from __future__ import annotations

import math

from tests.benchmarks.bars import BARS, verdicts
from tests.benchmarks.proofs import prove_measures
from tests.benchmarks.tables import number, table

GOOD = {
    "photo": "a", "quality": "standard", "no_video": 9.0, "peak_bytes": 5e8, "findings": 0, "walkable_m2": 80.0,
    "hits_percent": 100.0, "p95_cm": 1.0, "photo_psnr": 30.0, "loop_psnr": 50.0,
    "oracle": {"discrete": {"success_percent": 100.0}, "continuous": {"success_percent": 100.0}},
}
BAD = {"no_video": 16.0, "peak_bytes": 3e9, "findings": 1, "walkable_m2": 59.0, "hits_percent": 99.0, "p95_cm": 6.0,
       "photo_psnr": 24.0, "loop_psnr": math.nan, "oracle": {"discrete": {"success_percent": 100.0},
                                                            "continuous": {"success_percent": 96.0}}}


def test_measures_are_proven() -> None:
    assert len(prove_measures()) == 5


def test_every_bar_bites() -> None:
    assert all(row.passed for row in verdicts([GOOD]))
    assert [row.name for row in verdicts([{**GOOD, **BAD}]) if row.passed] == ["completed"]
    failed = {"photo": "b", "error": "stopped"}
    assert [row.name for row in verdicts([GOOD, failed]) if not row.passed] == ["completed"]
    assert len(verdicts([GOOD])) == len(BARS) + 1


def test_the_median_judges_time_and_the_worst_all_else() -> None:
    slow = {**GOOD, "photo": "s", "no_video": 99.0, "hits_percent": 99.0}
    rows = {row.name: row for row in verdicts([GOOD, GOOD, slow])}
    assert rows["seconds without video"].passed and not rows["rays below the horizon that hit [%]"].passed
    assert rows["seconds without video"].worst == (99.0, "s")


def test_tables_are_aligned() -> None:
    lines = table(["name", "x"], [["a", number(1.25, 2)], ["long name", number(math.nan)]]).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[-1] == "| long name |    - |"
