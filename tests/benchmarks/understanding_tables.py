"""Tables of scores: methods side by side, kinds of places, scale intervals, confidence, and the bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tests.benchmarks.tables import number, table
from tests.benchmarks.understanding_measures import WORST

Row = dict[str, float | str]
Rows = dict[str, Row]
"""Scores by name of the case."""
OURS, SHUFFLED = "this version", "another photo's world"
COLUMNS = (
    ("ln_f", "|ln f|", 3), ("normal", "normal °", 2), ("floor_iou", "floor IoU", 3), ("recall", "recall", 3), ("false", "false", 3),
    ("crash", "crash", 3), ("timid", "timid", 3), ("absrel_ms", "AbsRel ms", 3), ("delta1_ms", "d1 ms", 3), ("absrel", "AbsRel", 3),
    ("delta1", "d1", 3), ("ln_scale", "|ln s|", 3), ("miss", "unknown", 3),
)  # fmt: skip
POOLED = (("unseen", "free/blocked %"), ("needless", "blocked/free %"))
"""Free in the world but blocked in truth, and the reverse: share of all paths of all cases."""
COMPARED = ("normal", "floor_iou", "recall", "false", "absrel", "delta1", "absrel_ms", "delta1_ms")
UNSURE = 0.4
"""Confidence below which the report calls a reading unsure."""
WRONG_NORMAL, WRONG_IOU, WRONG_CRASH = 5.0, 0.5, 0.3
COVERAGES = np.arange(0.1, 1.01, 0.1)


def values(rows: Rows, key: str) -> np.ndarray:
    """Return the finite values of a measure over cases."""
    found = np.array([float(row.get(key, np.nan)) for row in rows.values()])
    return found[np.isfinite(found)]


def middle(rows: Rows, key: str) -> float:
    """Return the median; NaN where no case tells."""
    found = values(rows, key)
    return float(np.median(found)) if len(found) else float("nan")


def bad_end(rows: Rows, key: str) -> float:
    """Return the 90th percentile, or the 10th where more is better."""
    found = values(rows, key)
    return float(np.percentile(found, 10 if WORST[key] == 0 else 90)) if len(found) else float("nan")


def pooled(rows: Rows, key: str) -> float:
    """Return the share of all paths of all cases; NaN without paths."""
    paths = values(rows, "paths").sum()
    return float(values(rows, key).sum() / paths) if paths else float("nan")


def better(rows: Rows, others: Iterable[Rows], end: str = "_ms") -> float:
    """Return the share of cases whose AbsRel and delta1 both beat those of all others; depth is what every case has."""
    others = list(others)
    error, close = f"absrel{end}", f"delta1{end}"
    wins = [all(_number(row, error) < _number(o[name], error) and _number(row, close) > _number(o[name], close) for o in others)
            for name, row in rows.items()]
    return float(np.mean(wins)) if wins else float("nan")


def methods_table(methods: dict[str, Rows]) -> str:
    """Return medians of every method, the bad end of ours, and how many cases tell."""
    header = ["median", *[title for _, title, _ in COLUMNS], *[title for _, title in POOLED]]
    lines = [_line(name, rows, middle) for name, rows in methods.items()]
    ours = methods[OURS]
    counts = [OURS + ", cases", *[str(len(values(ours, key))) for key, _, _ in COLUMNS],
              *[f"{values(ours, 'paths').sum():.0f} paths" for _ in POOLED]]
    return table(header, [*lines, _line(OURS + ", p90", ours, bad_end), counts])


def kinds_table(rows: Rows) -> str:
    """Return our medians per kind of place."""
    kinds = dict.fromkeys(str(row["kind"]) for row in rows.values())
    header = ["kind (cases)", *[title for _, title, _ in COLUMNS], *[title for _, title in POOLED]]
    parts = {kind: {name: row for name, row in rows.items() if row["kind"] == kind} for kind in kinds}
    return table(header, [_line(f"{kind} ({len(part)})", part, middle) for kind, part in parts.items()])


def cases_table(rows: Rows) -> str:
    """Return one line per case."""
    header = ["case", *[title for _, title, _ in COLUMNS], "sure", "s"]
    own = (("confidence", "sure", 2), ("seconds", "s", 1))
    return table(header, [[name, *[number(_number(row, key), digits) for key, _, digits in (*COLUMNS, *own)]]
                          for name, row in rows.items()])


def _number(row: Row, key: str) -> float:
    return float(row.get(key, np.nan))


def _line(name: str, rows: Rows, of: Callable[[Rows, str], float]) -> list[str]:
    shares = [number(100 * pooled(rows, key), 1) if of is middle else "" for key, _ in POOLED]
    return [name, *[number(of(rows, key), digits) for key, _, digits in COLUMNS], *shares]


def scale_table(rows: Rows) -> str:
    """Return how often the true scale lies in the stated intervals, and how wide these are."""
    both = [(float(row["signed_ln_scale"]), float(row["scale_sigma"])) for row in rows.values()
            if np.isfinite(_number(row, "signed_ln_scale")) and np.isfinite(_number(row, "scale_sigma"))]
    if not both:
        return "No case tells the true scale."
    error, sigma = np.array(both).T
    lines = []
    for share, times in ((68, 1.0), (95, 1.96)):
        inside = float((np.abs(error) <= times * sigma).mean())
        width = 100 * (np.exp(times * np.median(sigma)) - 1)
        lines.append([f"{share} %", f"{100 * inside:.0f} %", f"+-{width:.0f} %", str(len(error))])
    return table(["stated interval", "holds the truth", "median half width", "cases"], lines)


def is_wrong(row: Row) -> bool | None:
    """Return whether a world misleads: tilted floor, wrong floor, or paths through things. None = the case does not tell."""
    normal, iou, crash = (_number(row, key) for key in ("normal", "floor_iou", "crash"))
    if not any(np.isfinite(value) for value in (normal, iou, crash)):
        return None
    return bool(normal > WRONG_NORMAL or iou < WRONG_IOU or crash > WRONG_CRASH)


@dataclass(frozen=True)
class Calibration:
    """What the stated confidence is worth."""

    risk: np.ndarray
    """(n,) share of wrong worlds among the 1..n surest."""
    aurc: float
    """Mean of risk (Geifman, Uziel and El-Yaniv 2019); an uninformed confidence gives the share of wrong worlds."""
    best_aurc: float
    """If all right worlds came first."""
    unsure: float
    """Share below UNSURE."""
    silent: tuple[str, ...]
    """Wrong worlds that are not called unsure."""


def calibrate(rows: Rows) -> Calibration | None:
    """Return the risk-coverage curve; ties count as the mean of their orders. None: no case tells."""
    told = [(name, _number(row, "confidence"), wrong) for name, row in rows.items()
            if (wrong := is_wrong(row)) is not None and np.isfinite(_number(row, "confidence"))]
    if not told:
        return None
    confidence, wrong = np.array([c for _, c, _ in told]), np.array([float(w) for _, _, w in told])
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], wrong[order]
    for level in np.unique(confidence):
        wrong[confidence == level] = wrong[confidence == level].mean()
    count = np.arange(1, len(wrong) + 1)
    bad = round(wrong.sum())
    ideal = np.maximum(count - (len(wrong) - bad), 0) / count
    silent = tuple(name for name, sure, w in told if w and sure >= UNSURE)
    risk = np.cumsum(wrong) / count
    return Calibration(risk, float(risk.mean()), float(ideal.mean()), float((confidence < UNSURE).mean()), silent)


def calibration_table(rows: Rows) -> str:
    """Return the curve at ten coverages and what it adds up to."""
    c = calibrate(rows)
    if c is None:
        return "No case tells whether its world is wrong."
    at = [max(1, round(share * len(c.risk))) for share in COVERAGES]
    header = ["surest", *[f"{100 * share:.0f} %" for share in COVERAGES]]
    line = table(header, [["wrong %", *[f"{100 * c.risk[i - 1]:.0f}" for i in at]]])
    return (f"{line}\narea under the curve {c.aurc:.3f} (uninformed {c.risk[-1]:.3f}, best {c.best_aurc:.3f}); "
            f"{100 * c.unsure:.0f} % called unsure (confidence below {UNSURE:g}); "
            f"wrong among the others: {len(c.silent)}{': ' + ', '.join(c.silent) if c.silent else ''}")


def shuffled_table(rows: Rows, shuffled: Rows) -> str:
    """Return whether the world of another photo scores worse on every measure."""
    lines = []
    for key in (*COMPARED, *[key for key, _ in POOLED]):
        of = pooled if key in dict(POOLED) else middle
        mine, other = of(rows, key), of(shuffled, key)
        up = WORST.get(key) == 0
        told = np.isfinite(mine) and np.isfinite(other)
        verdict = "-" if not told else "yes" if (mine > other) == up and mine != other else "NO"
        lines.append([key, number(mine, 3), number(other, 3), verdict])
    return table(["measure", "own photo", "another photo", "own is better"], lines)


@dataclass(frozen=True)
class Bar:
    """A number that must be reached."""

    name: str
    value: Callable[[dict[str, Rows]], float]
    limit: float
    at_least: bool


def _of(key: str, of: Callable[[Rows, str], float] = middle, *, focal: str | None = None) -> Callable[[dict[str, Rows]], float]:
    def value(methods: dict[str, Rows]) -> float:
        rows = methods[OURS]
        return of(rows if focal is None else {n: r for n, r in rows.items() if r["focal_source"] == focal}, key)

    return value


def _beats(methods: dict[str, Rows]) -> float:
    return better(methods[OURS], [methods[name] for name in ("constant", "floor + far plane")])


def _unsure(methods: dict[str, Rows]) -> float:
    c = calibrate(methods[OURS])
    return c.unsure if c is not None else float("nan")


def _silent(methods: dict[str, Rows]) -> float:
    c = calibrate(methods[OURS])
    return float(len(c.silent)) if c is not None else float("nan")


_CONFIDENCE = (
    Bar("share called unsure", _unsure, 0.30, at_least=False),
    Bar("wrong among the others", _silent, 0, at_least=False),
)
_FILE = (
    Bar("floor normal, median [deg]", _of("normal"), 1.0, at_least=False),
    Bar("obstacle recall, median", _of("recall"), 0.9, at_least=True),
    Bar("metric AbsRel, median", _of("absrel"), 0.03, at_least=False),
)
BARS: dict[tuple[str, str], tuple[Bar, ...]] = {
    ("procedural", "photo"): (
        Bar("|ln f| without EXIF, median", _of("ln_f", focal="none"), 0.15, at_least=False),
        Bar("|ln f| with EXIF, median", _of("ln_f", focal="exif"), 0.02, at_least=False),
        Bar("floor normal, median [deg]", _of("normal"), 1.5, at_least=False),
        Bar("floor normal, p90 [deg]", _of("normal", bad_end), 5.0, at_least=False),
        Bar("floor IoU, median", _of("floor_iou"), 0.80, at_least=True),
        Bar("obstacle recall, median", _of("recall"), 0.6, at_least=True),
        Bar("false obstacles, median", _of("false"), 0.10, at_least=False),
        *_CONFIDENCE,
    ),
    ("real", "photo"): (
        Bar("floor normal, median [deg]", _of("normal"), 3.0, at_least=False),
        Bar("floor IoU, median", _of("floor_iou"), 0.70, at_least=True),
        Bar("obstacle recall, median", _of("recall"), 0.6, at_least=True),
        Bar("false obstacles, median", _of("false"), 0.15, at_least=False),
        Bar("paths free here, blocked there", _of("unseen", pooled), 0.10, at_least=False),
        Bar("paths blocked here, free there", _of("needless", pooled), 0.20, at_least=False),
        Bar("AbsRel, median scaled", _of("absrel_ms"), 0.20, at_least=False),
        Bar("delta1, median scaled", _of("delta1_ms"), 0.70, at_least=True),
        Bar("better than both baselines", _beats, 0.80, at_least=True),
        *_CONFIDENCE,
    ),
    ("procedural", "file"): _FILE, ("real", "file"): _FILE, ("scan", "file"): _FILE,
}  # fmt: skip
"""By table and by whether depth comes from a photo or a file."""


def bars_table(name: str, mode: str, methods: dict[str, Rows]) -> str:
    """Return PASS or MISS per bar; a number that no case tells is a MISS."""
    lines = []
    for bar in BARS.get((name, "file" if mode == "file" else "photo"), ()):
        got = bar.value(methods)
        good = got >= bar.limit if bar.at_least else got <= bar.limit
        lines.append([bar.name, number(got, 3), f"{'>=' if bar.at_least else '<='} {bar.limit:g}", "PASS" if good else "MISS"])
    return table(["bar", "got", "wanted", "verdict"], lines)
