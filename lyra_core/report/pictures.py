"""Pictures of the report: the photo with what was read from it, the depth in colours, the views."""

from __future__ import annotations

import cv2
import numpy as np

from lyra_core.types import Camera, DepthEstimate, Frame, Label, PhotoReading, Provenance

LABEL_COLOURS: dict[Label, tuple[int, int, int]] = {
    Label.FLOOR: (38, 166, 91), Label.OBSTACLE: (240, 120, 32), Label.SKY: (86, 160, 235), Label.CEILING: (150, 120, 200),
    Label.DOOR: (220, 60, 120),
}
"""sRGB tints of the overlay; walls stay as they are."""
HORIZON_COLOUR, LINE_COLOUR = (255, 214, 10), (0, 214, 255)
UNKNOWN_GREY = 72
INK = (245, 245, 245)


def photo_overlay(rgb: np.ndarray, reading: PhotoReading, estimate: DepthEstimate, *, width: int = 960) -> np.ndarray:
    """Draw regions, line segments and the horizon on the photo.

    Args:
        rgb: (H, W, 3) uint8 photo of any size.
        reading: lines [px of reading.camera].
        estimate: labels and the camera that the world was built with.
        width: of the result [px]; a portrait photo gets this height instead.

    Returns:
        (h, w, 3) uint8.
    """
    camera = _at_width(estimate.camera, width)
    size = (camera.width, camera.height)
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    labels = cv2.resize(estimate.labels, size, interpolation=cv2.INTER_NEAREST)
    for label, colour in LABEL_COLOURS.items():
        region = labels == label
        picture[region] = 0.62 * picture[region] + 0.38 * np.array(colour, np.float32)
    out = np.rint(picture).astype(np.uint8)
    for label in (Label.FLOOR, Label.OBSTACLE):
        contours, _ = cv2.findContours((labels == label).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, LABEL_COLOURS[label], 2, cv2.LINE_AA)
    scale = np.array([camera.width / reading.camera.width, camera.height / reading.camera.height] * 2)
    for u0, v0, u1, v1 in np.rint(reading.lines * scale).astype(int):
        cv2.line(out, (int(u0), int(v0)), (int(u1), int(v1)), LINE_COLOUR, 1, cv2.LINE_AA)
    ends = horizon_ends(camera, estimate.T_world_camera)
    if ends is not None:
        (u0, v0), (u1, v1) = ends
        cv2.line(out, (round(u0), round(v0)), (round(u1), round(v1)), (0, 0, 0), 5, cv2.LINE_AA)
        cv2.line(out, (round(u0), round(v0)), (round(u1), round(v1)), HORIZON_COLOUR, 3, cv2.LINE_AA)
    return out


def horizon_ends(camera: Camera, T_world_camera: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return where the horizon meets the left and right edge [px], or None if the camera looks straight up or down.

    A pixel p is on the horizon where its ray is level: r3 . K^-1 p = 0, r3 the third row of R_world_camera
    (Hartley and Zisserman, Multiple View Geometry, 2004, section 8.6).
    """
    a, b, c = np.linalg.solve(camera.K.T, T_world_camera[2, :3])
    if abs(b) * camera.height < 1e-9:
        return None
    ends = [(float(u), float(-(a * u + c) / b)) for u in (0.0, camera.width)]
    limit = 20.0 * camera.height
    return (ends[0], ends[1]) if all(abs(v) < limit for _, v in ends) else None


def depth_picture(depth: np.ndarray, *, width: int = 960) -> np.ndarray:
    """Colour (H, W) z-depth [m] by inverse depth, near = red; unknown = grey; with a scale in metres below."""
    known = np.isfinite(depth) & (depth > 0)
    inverse = np.where(known, 1.0 / np.where(known, depth, 1.0), 0.0)
    far, near = np.percentile(inverse[known], [1, 99]) if known.any() else (0.1, 1.0)
    near = max(near, far * 1.01)
    height, columns = depth.shape
    scale = width / max(height, columns)
    size = (round(columns * scale), round(height * scale))
    levels = np.clip((inverse - far) / (near - far) * 255, 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    colours[~known] = UNKNOWN_GREY
    picture = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
    return np.concatenate([picture, _depth_scale(size[0], 1 / near, 1 / far)], axis=0)


def _depth_scale(width: int, near_m: float, far_m: float) -> np.ndarray:
    """Return a (54, width, 3) colour bar with ticks, linear in inverse depth like the picture above it."""
    bar = np.full((54, width, 3), 24, np.uint8)
    levels = np.linspace(255, 0, width).astype(np.uint8)[None]
    bar[:18] = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    for k in range(7):
        share = k / 6
        metres = 1 / ((1 - share) / near_m + share / far_m)
        text = f"{metres:.1f} m" if metres < 100 else f"{metres:.0f} m"
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
        u = int(np.clip(share * width - text_width / 2, 4, max(width - text_width - 4, 4)))
        put_text(bar, text, (u, 42), size=0.6)
    return bar


def pick_views(views: list[Frame], count: int = 6) -> list[Frame]:
    """Return up to ``count`` frames, spread evenly over the list, the first and last included."""
    if len(views) <= count:
        return list(views)
    return [views[round(i)] for i in np.linspace(0, len(views) - 1, count)]


def view_caption(frame: Frame) -> str:
    """Say what share of a view was seen in the photo, continued and invented."""
    counts = np.array([(frame.provenance == p).sum() for p in Provenance], float)
    if counts.sum() == 0:
        return "no surface in view"
    shares = 100 * counts / counts.sum()
    return ", ".join(f"{share:.0f} % {p.name.lower()}" for p, share in zip(Provenance, shares, strict=True) if share >= 0.5)


def fit(picture: np.ndarray, width: int, height: int, *, background: tuple[int, int, int] = (24, 24, 27)) -> np.ndarray:
    """Scale a picture into a (height, width) box, centred on the background."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    out = np.empty((height, width, 3), np.uint8)
    out[:] = background
    row, column = (height - size[1]) // 2, (width - size[0]) // 2
    out[row:row + size[1], column:column + size[0]] = small
    return out


def put_text(picture: np.ndarray, text: str, at: tuple[int, int], *, size: float = 0.5, colour: tuple[int, int, int] = INK,
             weight: int = 1) -> None:
    """Write ASCII text with its lower left corner at (u, v) [px]; others become '?', as the vector font has no more."""
    clean = text.encode("ascii", "replace").decode()
    cv2.putText(picture, clean, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, weight, cv2.LINE_AA)


def _at_width(camera: Camera, long_side: int) -> Camera:
    scale = long_side / max(camera.width, camera.height)
    return camera.resized(round(camera.width * scale), round(camera.height * scale))
