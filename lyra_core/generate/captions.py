"""Captions of chunks: Lyra's captions.json, and the words used where nobody gave any."""

from __future__ import annotations

import json
from pathlib import Path

from lyra_core.camera.trajectories import CHUNK_FRAMES
from lyra_core.errors import InputError

TEMPLATES = {
    True: "A smooth, continuous walkthrough of an indoor space, filmed by a steadily moving camera at eye level. Walls, floor, "
    "furniture and windows keep their shape, material and colour from every viewpoint, and rooms that come into view continue "
    "the same style and the same soft, natural light. The scene is static: no people, no animals and nothing that moves. "
    "Photorealistic, sharp, evenly exposed, without cuts, text or overlays.",
    False: "A smooth, continuous walkthrough of an outdoor place, filmed by a steadily moving camera at eye level. Buildings, "
    "ground, plants and sky keep their shape, material and colour from every viewpoint, and streets and squares that come into "
    "view continue the same style, season and daylight. The scene is static: no people, no traffic and nothing that moves. "
    "Photorealistic, sharp, evenly exposed, without cuts, text or overlays.",
}
"""Indoor or not -> a caption of the length that the model was trained with."""


def template_prompt(*, indoor: bool) -> str:
    """Return the caption of a chunk that has none."""
    return TEMPLATES[indoor]


def caption_for_chunk(captions: dict[int, str], index: int) -> str:
    """Return the caption of a chunk: the last one that starts at or before its first new frame, 80 * index + 1."""
    keys = [frame for frame in captions if frame <= CHUNK_FRAMES * index + 1]
    return captions[max(keys)] if keys else captions[min(captions)]


def load_captions(path: Path | str) -> dict[int, str]:
    """Read captions.json: an object of frame number -> text, as Lyra writes it ("0", "81", "161", ...).

    Raises:
        InputError: not readable, not such an object, or empty; the entry is named.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: got {type(values).__name__} {str(values)[:40]!r}, expected an object of frame number -> caption")
    for key, text in values.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise InputError(f"{path}: got key {key!r}, expected a frame number as in '0' or '81'")
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}: {key}: got {text!r}, expected a caption")
    return {int(key): text for key, text in values.items()}
