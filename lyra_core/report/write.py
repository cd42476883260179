"""Join pictures, numbers and statements into report.html and preview.png."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.files import write_bytes
from lyra_core.report.page import page
from lyra_core.report.pictures import depth_picture, fit, photo_overlay, pick_views, put_text, view_caption
from lyra_core.report.topdown import area_m2, topdown_map
from lyra_core.types import DepthEstimate, Episode, Frame, FreeSpace, Photo, PhotoReading

PREVIEW_BOX = (520, 340)
"""Width, height of one picture in preview.png [px]."""
EPISODES_DRAWN = 12


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the report shows. No timings: they differ from run to run and are kept in build_log.json."""

    photo: Photo
    reading: PhotoReading
    estimate: DepthEstimate
    space: FreeSpace
    views: list[Frame]
    """Pictures of the world; six are shown."""
    episodes: list[Episode]
    numbers: dict[str, Any]
    """Names with unit suffix (walkable_m2) to numbers or text; a nested dict becomes a group of its own."""
    findings: list[str]
    """What the validators complained about; empty = nothing."""
    paths: Sequence[np.ndarray] = ()
    """(N, 2) or (N, 3) shortest paths of the first episodes [m], in their order."""


def write_report(folder: Path, inputs: ReportInputs) -> None:
    """Write report.html (self-contained) and preview.png into a world folder; the same inputs give the same bytes."""
    # Dots without their path would only clutter the map.
    episodes = inputs.episodes[: min(len(inputs.paths) or EPISODES_DRAWN, EPISODES_DRAWN)]
    views = pick_views(inputs.views)
    overlay = photo_overlay(inputs.photo.rgb, inputs.reading, inputs.estimate)
    depth = depth_picture(inputs.estimate.depth)
    topdown = topdown_map(inputs.space, inputs.estimate.camera, episodes=episodes, paths=inputs.paths[:EPISODES_DRAWN])
    html = page(
        inputs.photo, inputs.reading, inputs.estimate, areas=area_m2(inputs.space), numbers=inputs.numbers,
        findings=inputs.findings, overlay=_jpeg(overlay), depth=_jpeg(depth), topdown=_jpeg(topdown), with_paths=bool(inputs.paths),
        views=[(_jpeg(frame.rgb), view_caption(frame)) for frame in views],
    )
    write_bytes(folder / "report.html", html.encode())
    sheet = preview(overlay, depth, topdown, views, title=_title(inputs))
    write_bytes(folder / "preview.png", _encode(sheet, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 6]))


def preview(overlay: np.ndarray, depth: np.ndarray, topdown: np.ndarray, views: list[Frame], *, title: list[str]) -> np.ndarray:
    """Lay the pictures out as one contact sheet: photo, depth, map; below them the views. Returns (h, w, 3) uint8."""
    width, height = PREVIEW_BOX
    pictures = [overlay, depth, topdown, *(frame.rgb for frame in views)]
    captions = ["the photo, as read", "depth", "map", *(view_caption(frame) for frame in views)]
    gap, top, foot = 12, 28 + 30 * len(title), 28
    rows = -(-len(pictures) // 3)
    sheet = np.full((top + rows * (height + foot + gap), 3 * width + 4 * gap, 3), 24, np.uint8)
    for i, text in enumerate(title):
        put_text(sheet, text, (gap, 34 + 30 * i), size=0.75 if i == 0 else 0.55, weight=2 if i == 0 else 1)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(i, 3)
        v, u = top + row * (height + foot + gap), gap + column * (width + gap)
        sheet[v:v + height, u:u + width] = fit(picture, width, height)
        put_text(sheet, caption, (u, v + height + 20), size=0.48, colour=(200, 200, 205))
    return sheet


def _title(inputs: ReportInputs) -> list[str]:
    areas = area_m2(inputs.space)
    floor = ", ".join(f"{name} {value:.0f} m2" for name, value in areas.items())
    sure = inputs.reading.confidence.get("overall")
    confidence = "" if sure is None else f"; confidence {sure:.2f}"
    return [inputs.photo.name, f"free floor {sum(areas.values()):.0f} m2: {floor}{confidence}; "
            f"{len(inputs.findings)} validator findings"]


def _jpeg(rgb: np.ndarray) -> bytes:
    return _encode(rgb, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85])


def _encode(rgb: np.ndarray, suffix: str, options: list[int]) -> bytes:
    good, data = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR), options)
    if not good:
        raise InputError(f"report picture: got shape {rgb.shape} {rgb.dtype}, which cannot be written as {suffix}")
    return data.tobytes()
