"""Draw curves with error bars as a PNG: panels side by side, one legend each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = ((196, 78, 58), (48, 106, 178), (76, 146, 84), (128, 96, 160))
WIDTH, HEIGHT, MARGIN = 620, 420, 64
"""Of a panel [px]."""


@dataclass(frozen=True)
class Curve:
    """One line."""

    name: str
    x: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    """Half length of the error bars."""


def draw_curves(path: Path, panels: Sequence[tuple[str, str, Sequence[Curve]]]) -> None:
    """Write panels (title, name of the x axis, curves) side by side."""
    picture = Image.new("RGB", (WIDTH * len(panels), HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    for i, (title, axis, curves) in enumerate(panels):
        _panel(draw, i * WIDTH, title, axis, curves)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _panel(draw: ImageDraw.ImageDraw, left: int, title: str, axis: str, curves: Sequence[Curve]) -> None:
    font, small = ImageFont.load_default(17), ImageFont.load_default(14)
    x = np.concatenate([curve.x for curve in curves]).astype(float)
    low = min(float((curve.mean - curve.error).min()) for curve in curves)
    high = max(float((curve.mean + curve.error).max()) for curve in curves)
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + 3 * pad
    x0, x1, y0, y1 = left + MARGIN, left + WIDTH - 20, HEIGHT - 52, 40

    def at(px: float, py: float) -> tuple[float, float]:
        return x0 + (px - x.min()) / max(np.ptp(x), 1e-9) * (x1 - x0), y0 + (py - low) / (high - low) * (y1 - y0)

    draw.text((x0, 12), title, fill="black", font=font)
    draw.text(((x0 + x1) / 2, HEIGHT - 24), axis, fill="black", font=small, anchor="ma")
    for value in np.linspace(low, high, 6):
        y = at(x.min(), value)[1]
        draw.line([(x0, y), (x1, y)], fill=(225, 225, 225))
        draw.text((x0 - 8, y), f"{value:.3g}", fill="black", font=small, anchor="rm")
    for value in np.unique(x):
        draw.text((at(value, low)[0], y0 + 6), f"{value:g}", fill="black", font=small, anchor="ma")
    for i, curve in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        points = [at(px, py) for px, py in zip(curve.x, curve.mean, strict=True)]
        draw.line(points, fill=colour, width=3)
        for (px, _), mean, error in zip(points, curve.mean, curve.error, strict=True):
            top, bottom = at(x.min(), mean + error)[1], at(x.min(), mean - error)[1]
            draw.line([(px, top), (px, bottom)], fill=colour, width=2)
            for y in (top, bottom):
                draw.line([(px - 4, y), (px + 4, y)], fill=colour, width=2)
        y = y1 + 6 + 20 * i
        draw.line([(x1 - 210, y + 8), (x1 - 184, y + 8)], fill=colour, width=3)
        draw.text((x1 - 178, y), curve.name, fill="black", font=small)
