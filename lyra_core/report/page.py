"""The HTML of the report: one file, pictures inside, no scripts, readable in light and dark."""

from __future__ import annotations

import base64
import math
from html import escape
from pathlib import Path
from typing import Any

from lyra_core.report.pictures import HORIZON_COLOUR, LABEL_COLOURS, LINE_COLOUR
from lyra_core.report.topdown import BLOCKED_COLOUR, CAMERA_COLOUR, GOAL_COLOUR, PATH_COLOUR, PROVENANCE_COLOURS
from lyra_core.types import DepthEstimate, Photo, PhotoReading, Provenance

UNITS = {"_m2": "m²", "_m": "m", "_px": "px", "_deg": "°", "_mb": "MB", "_percent": "%", "_db": "dB"}
"""Unit suffixes of number names."""
MEANINGS = {Provenance.SEEN: "in the photo", Provenance.CONTINUED: "extends what the photo shows",
            Provenance.INVENTED: "made up from its materials and the seed"}
STYLE = Path(__file__).with_name("style.css")


def page(
    photo: Photo, reading: PhotoReading, estimate: DepthEstimate, *, areas: dict[str, float], numbers: dict[str, Any],
    findings: list[str], overlay: bytes, depth: bytes, topdown: bytes, with_paths: bool, views: list[tuple[bytes, str]],
) -> str:
    """Return the whole page.

    Args:
        photo, reading, estimate: what the world was built from.
        areas: free floor by provenance [m^2].
        numbers: see ReportInputs.
        findings: of the validators.
        overlay, depth, topdown: JPEG files.
        with_paths: the map shows shortest paths.
        views: JPEG files with captions.
    """
    style = STYLE.read_text(encoding="utf-8")
    body = [
        f"<h1>{escape(photo.name)}</h1>",
        f'<p class="soft">{escape(reading.scene_kind)} · photo licence: {escape(photo.licence)} · '
        f"photo <code>{escape(photo.sha256[:16])}</code></p>",
        _tiles(reading, estimate, areas, findings),
        f'<div class="two pair">{_photo(overlay, reading, estimate)}{_depth(depth, estimate)}</div>',
        f'<div class="two pair">{_map(topdown, areas, with_paths)}{_sure(reading, estimate)}</div>',
        _views(views),
        f'<div class="two pair">{_numbers(numbers)}{_findings(findings)}</div>',
    ]
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
            f'initial-scale=1"><title>{escape(photo.name)}: world report</title><style>\n{style}</style></head>\n'
            f"<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n")


def _tiles(reading: PhotoReading, estimate: DepthEstimate, areas: dict[str, float], findings: list[str]) -> str:
    overall = reading.confidence.get("overall", math.nan)
    rows = [
        (f"{sum(areas.values()):.0f} m²", "free floor in all"),
        (f"{areas['seen']:.0f} m²", "of it seen in the photo"),
        (f"{overall:.2f}" if math.isfinite(overall) else "unknown", f"confidence of the reading: {confidence_word(overall)}"),
        (f"±{100 * (math.exp(estimate.scale_sigma) - 1):.0f} %", "uncertainty of every length"),
        (str(len(findings)), "validator findings"),
    ]
    tiles = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(meaning)}</span></div>' for value, meaning in rows)
    return f'<div class="tiles">{tiles}</div>'


def confidence_word(overall: float) -> str:
    """Say a confidence in [0, 1] in a word; NaN = not stated."""
    if math.isnan(overall):
        return "not stated"
    return "good" if overall >= 0.7 else "fair" if overall >= 0.4 else "low"


def _photo(overlay: bytes, reading: PhotoReading, estimate: DepthEstimate) -> str:
    present = [label for label in LABEL_COLOURS if (estimate.labels == label).any()]
    legend = [(label.name.lower(), LABEL_COLOURS[label]) for label in present]
    legend += [("horizon", HORIZON_COLOUR), (f"{len(reading.lines)} lines the camera was read from", LINE_COLOUR)]
    image = _img(overlay, "The photo with regions, lines and horizon")
    return f"<section><h2>The photo, as read</h2>{image}{_legend(legend)}</section>"


def _depth(depth: bytes, estimate: DepthEstimate) -> str:
    known = 100 * float((estimate.depth > 0).mean())
    ceiling = "no ceiling in the world" if estimate.ceiling_height is None else f"ceiling at {estimate.ceiling_height:.2f} m"
    return (f"<section><h2>Depth</h2>{_img(depth, 'Depth in colours')}<p class=\"soft\" style=\"margin-top:10px\">Provider "
            f"{escape(estimate.source)}; known on {known:.0f} % of the photo, grey elsewhere; {ceiling}.</p></section>")


def _map(topdown: bytes, areas: dict[str, float], with_paths: bool) -> str:
    legend = [(f"{p.name.lower()}: {areas[p.name.lower()]:.1f} m², {MEANINGS[p]}", colour)
              for p, colour in PROVENANCE_COLOURS.items()]
    legend += [("blocked", BLOCKED_COLOUR), ("photo's camera", CAMERA_COLOUR), ("episode start", (255, 255, 255)),
               ("goal", GOAL_COLOUR), *([("shortest path", PATH_COLOUR)] if with_paths else [])]
    return f"<section><h2>Map</h2>{_img(topdown, 'Top-down map')}{_legend(legend)}</section>"


def _sure(reading: PhotoReading, estimate: DepthEstimate) -> str:
    """State what is guessed, and how sure each guess is."""
    factor, wide = math.exp(estimate.scale_sigma), math.exp(1.96 * estimate.scale_sigma)
    notes = dict.fromkeys([*reading.notes, *estimate.notes])
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes) or "<li>No guesses were noted.</li>"
    meters = "".join(_meter(name, value) for name, value in sorted(reading.confidence.items()))
    return (f"<section><h2>What is guessed, and how sure it is</h2><p>One photo does not show its own scale or what is out of the "
            f"picture. With 68 % probability one metre in this world is between {1 / factor:.2f} and {factor:.2f} m of the real "
            f"place, with 95 % between {1 / wide:.2f} and {wide:.2f} m. Blue and violet floor on the map was never seen: it is "
            f"plausible, not true.</p>"
            f"<ul>{lines}</ul><h3>How well the photo supports the reading</h3>{meters}</section>")


def _meter(name: str, value: float) -> str:
    label, unit = _label(name)
    if unit:
        return f'<div>{escape(label)}: <b>{_number(value)} {unit}</b></div><div style="height:8px"></div>'
    width = 100 * min(max(value, 0.0), 1.0)
    return f'<div>{escape(label)}: <b>{value:.2f}</b></div><div class="meter"><div style="width:{width:.0f}%"></div></div>'


def _views(views: list[tuple[bytes, str]]) -> str:
    figures = "".join(f"<figure>{_img(data, text)}<figcaption>{escape(text)}</figcaption></figure>" for data, text in views)
    return f'<section><h2>Views of the world</h2><div class="views">{figures}</div></section>'


def _numbers(numbers: dict[str, Any]) -> str:
    groups = {"": {k: v for k, v in numbers.items() if not isinstance(v, dict)}}
    groups |= {k: v for k, v in numbers.items() if isinstance(v, dict)}
    parts = []
    for title, rows in groups.items():
        cells = ""
        for name, value in rows.items():
            label, unit = _label(str(name))
            cells += f"<tr><td>{escape(label)}</td><td>{escape(_number(value))} {unit}</td></tr>"
        heading = f"<h3>{escape(_label(title)[0])}</h3>" if title else ""
        parts.append(f"{heading}<table>{cells}</table>" if cells else "")
    return f"<section><h2>Numbers</h2>{''.join(parts)}</section>"


def _findings(findings: list[str]) -> str:
    if not findings:
        return '<section><h2>Validators</h2><p class="good">Nothing found.</p></section>'
    lines = "".join(f"<li>{escape(text)}</li>" for text in findings)
    count = "1 finding" if len(findings) == 1 else f"{len(findings)} findings"
    return f'<section><h2>Validators</h2><p class="bad">{count}</p><ul>{lines}</ul></section>'


def _label(name: str) -> tuple[str, str]:
    """Split 'walkable_m2' into ('walkable', 'm²')."""
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            return name[: -len(suffix)].replace("_", " "), unit
    return name.replace("_", " "), ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _legend(rows: list[tuple[str, tuple[int, int, int]]]) -> str:
    items = "".join(f'<li><i style="background:rgb{colour}"></i>{escape(text)}</li>' for text, colour in rows)
    return f'<ul class="legend">{items}</ul>'


def _img(jpeg: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
