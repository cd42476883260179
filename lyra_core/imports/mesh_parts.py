"""What the mesh readers share: limits, safe paths, pictures, and parts that are checked and joined into one mesh."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.imports.base import MeshSource
from lyra_core.io.polygons import triangulate_polygons

MAX_FILE_BYTES = 4 << 30
"""Size of one file that is read whole."""
MAX_FACES, MAX_VERTICES, MAX_INSTANCES = 20_000_000, 60_000_000, 100_000
"""After all instances are expanded: a few bytes can ask for any number of them."""
MAX_PIXELS = 1 << 26
"""Pixels of one texture (8192 x 8192)."""
MAX_TEXTURE_BYTES = 2 << 30
"""Bytes of all textures together, as uint8 RGB."""
BAD_SHARE = 0.01
"""Share of faces with indices out of range up to which they are dropped; more means that the file is damaged."""


@dataclass(frozen=True)
class Part:
    """Triangles of one piece of a file, checked: indices are in range."""

    vertices: np.ndarray
    """(V, 3) float64."""
    faces: np.ndarray
    """(F, 3) int64."""
    vertex_rgb: np.ndarray | None = None
    """(V, 3) uint8."""
    corner_uv: np.ndarray | None = None
    """(F, 3, 2) float32, (0, 0) = lower left."""
    face_texture: np.ndarray | None = None
    """(F,) int32; -1 = none."""
    face_rgb: np.ndarray | None = None
    """(F, 3) uint8."""


@dataclass
class Reading:
    """What is collected while one file is read."""

    path: Path
    folder: Path
    """Nothing outside of it is opened."""
    files: list[Path] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    """Sentence -> how often, in order of the first time."""
    textures: list[np.ndarray] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)
    """Texture by what names it."""
    counted: dict[str, int] = field(default_factory=dict)
    """Triangles, vertices and instances so far."""

    def note(self, sentence: str) -> None:
        """Keep a sentence once."""
        self.notes[sentence] = self.notes.get(sentence, 0) + 1

    def fail(self, what: str) -> InputError:
        """Return the error that names the file."""
        return InputError(f"{self.path}: {what}")

    def add(self, *, triangles: int = 0, vertices: int = 0, instances: int = 0) -> None:
        """Count what is about to be made.

        Raises:
            InputError: more than is read.
        """
        for name, more, most in (("triangles", triangles, MAX_FACES), ("vertices", vertices, MAX_VERTICES),
                                 ("instances", instances, MAX_INSTANCES)):
            self.counted[name] = self.counted.get(name, 0) + more
            if self.counted[name] > most:
                raise self.fail(f"{name}: got more than {most} with all instances expanded, expected fewer")

    def add_copy(self, parts: Sequence[Part]) -> None:
        """Count one more instance of parts."""
        self.add(instances=1, triangles=sum(len(p.faces) for p in parts), vertices=sum(len(p.vertices) for p in parts))

    def read(self, name: str, what: str) -> bytes:
        """Return the content of a file that this one names.

        Raises:
            InputError: it lies outside of the folder, is missing or too large.
        """
        path = self.inside(name, what)
        data = read_whole(path, f"{self.path}: {what} {shown(name)}")
        if path not in self.files:
            self.files.append(path)
        return data

    def inside(self, name: str, what: str) -> Path:
        """Return the path of a file that this one names, relative to it.

        Raises:
            InputError: a URL, an absolute path, or one that leaves the folder (links followed).
        """
        text = name.replace("\\", "/")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or text.startswith(("/", "~")) or "\0" in text:
            raise self.fail(f"{what}: got {shown(name)}, expected a path relative to the file, no URL and no absolute path")
        try:
            path, root = (self.path.parent / text).resolve(), self.folder.resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise self.fail(f"{what}: got {shown(name)}: {error}") from error
        if not path.is_relative_to(root):
            raise self.fail(f"{what}: got {shown(name)}, expected a path inside of {root}")
        return path

    def add_texture(self, key: object, data: bytes, name: str) -> int:
        """Decode a picture once and return its number; -1 with a note where it cannot be used."""
        if key not in self.known:
            used = sum(t.nbytes for t in self.textures)
            picture = decode_picture(data, MAX_TEXTURE_BYTES - used)
            if isinstance(picture, str):
                self.note(f"Texture {shown(name)} was dropped: {picture}.")
                self.known[key] = -1
            else:
                self.known[key] = len(self.textures)
                self.textures.append(picture)
        return self.known[key]

    def load_texture(self, name: str, what: str) -> int:
        """Read a picture beside the file and return its number; -1 with a note where it cannot be used."""
        key = ("file", name)
        if key not in self.known:
            try:
                data = self.read(name, what)
            except InputError as error:
                self.note(f"A texture was dropped: {str(error).removeprefix(f'{self.path}: ')}.")
                self.known[key] = -1
            else:
                self.add_texture(key, data, name)
        return self.known[key]


def shown(value: object) -> str:
    """Return a short printable form of what a file says."""
    text = repr(value)
    return text if len(text) <= 90 else text[:60] + "..." + text[-20:]


def read_whole(path: Path, where: str) -> bytes:
    """Read a regular file of bounded size.

    Raises:
        InputError: missing, not a file, empty or too large.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"{where}: got something that is not a file")
        if not 0 < size <= MAX_FILE_BYTES:
            raise InputError(f"{where}: got {size} bytes, expected 1..{MAX_FILE_BYTES}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: not readable: {error.strerror or error}") from error


def decode_picture(data: bytes, budget: int = MAX_TEXTURE_BYTES) -> np.ndarray | str:
    """Return (h, w, 3) uint8 sRGB, or the reason why not. The size is checked before a pixel is decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF", "GIF")) as image:
                width, height = image.size
                if not 0 < width * height <= MAX_PIXELS or 3 * width * height > budget:
                    return f"it has {width} x {height} pixels, more than are read"
                image.draft("RGB", image.size)
                if image.mode.startswith("I") or image.mode == "F":
                    wide = np.asarray(image, np.float64)
                    grey = np.clip(wide / (257.0 if wide.max() > 255 else 1.0), 0, 255).astype(np.uint8)
                    return np.repeat(grey[..., None], 3, -1)
                return np.array(image.convert("RGB"))
    except Exception as error:  # Pillow's decoders raise many types on damaged data; all mean the same here.
        return f"it is not a readable picture ({type(error).__name__})"


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """Return uint8 sRGB of linear values in 0..1 (IEC 61966-2-1); NaN becomes 0."""
    x = np.clip(np.nan_to_num(np.asarray(linear, np.float64)), 0, 1)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


def polygon_part(reading: Reading, where: str, vertices: np.ndarray, counts: np.ndarray, indices: np.ndarray, *,
                 corner_uv: np.ndarray | None = None, polygon_texture: np.ndarray | None = None,
                 polygon_rgb: np.ndarray | None = None, vertex_rgb: np.ndarray | None = None,
                 skip: np.ndarray | None = None) -> Part:
    """Return the triangles of polygons.

    vertices (V, 3), counts (P,) corners each, indices (counts.sum(),), corner_uv (counts.sum(), 2) or None, polygon_texture
    (P,) or None, polygon_rgb (P, 3) or None; skip (P,) bool polygons that are holes.

    Raises:
        InputError: counts do not fit the indices, or more than 1 % of the polygons point outside the vertices.
    """
    counts, indices = counts.astype(np.int64), indices.astype(np.int64)
    if (counts < 0).any() or counts.sum() != len(indices):
        raise reading.fail(f"{where}: got {len(indices)} indices, expected {counts.sum()} from the corners of {len(counts)} faces")
    owner = np.repeat(np.arange(len(counts)), counts)
    wrong = np.bincount(owner[(indices < 0) | (indices >= len(vertices))], minlength=len(counts)) > 0
    check_bad(reading, where, wrong, len(vertices))
    if skip is not None:
        wrong = wrong | skip
    short = (counts < 3) & ~wrong
    if short.any():
        reading.note(f"{short.sum()} faces of fewer than three corners were dropped.")
    keep = ~wrong & (counts >= 3)
    reading.add(triangles=int((counts[keep] - 2).sum()), vertices=len(vertices))
    rows = np.flatnonzero(keep[owner])
    with np.errstate(all="ignore"):
        corners, polygon, fanned = triangulate_polygons(vertices, counts[keep], indices[rows])
    if fanned:
        reading.note(f"{fanned} large polygons were cut as fans, which is right for convex ones only.")
    flat, polygon = rows[corners], np.flatnonzero(keep)[polygon]
    return Part(vertices, indices[flat], vertex_rgb, None if corner_uv is None else corner_uv[flat].astype(np.float32),
                None if polygon_texture is None else polygon_texture[polygon].astype(np.int32),
                None if polygon_rgb is None else polygon_rgb[polygon])


def check_bad(reading: Reading, where: str, wrong: np.ndarray, count: int) -> None:
    """Note faces (F,) bool with indices out of range of count vertices.

    Raises:
        InputError: they are more than 1 %.
    """
    if wrong.sum() > BAD_SHARE * len(wrong):
        raise reading.fail(f"{where}: got {wrong.sum()} of {len(wrong)} faces with indices out of range, expected 0..{count - 1}")
    if wrong.any():
        reading.note(f"{wrong.sum()} of {len(wrong)} faces pointed outside of the {count} vertices and were dropped.")


def triangle_part(reading: Reading, where: str, vertices: np.ndarray, faces: np.ndarray, **attributes: np.ndarray | None) -> Part:
    """Return a part of triangles (F, 3); attributes per face are cut where a face has indices out of range."""
    reading.add(triangles=len(faces), vertices=len(vertices))
    faces = faces.astype(np.int64)
    wrong = np.asarray(((faces < 0) | (faces >= len(vertices))).any(1))
    check_bad(reading, where, wrong, len(vertices))
    if wrong.any():
        cut = {k: v if v is None or k == "vertex_rgb" else v[~wrong] for k, v in attributes.items()}
        return Part(vertices, faces[~wrong], **cut)
    return Part(vertices, faces, **attributes)


def placed(part: Part, T: np.ndarray) -> Part:
    """Return the part moved by T (4, 4); a mirror image is wound the other way so that fronts stay fronts."""
    with np.errstate(all="ignore"):
        vertices = part.vertices @ T[:3, :3].T + T[:3, 3]
        mirrored = np.linalg.det(T[:3, :3]) < 0
    moved = replace(part, vertices=vertices)
    return turned(moved) if mirrored else moved


def turned(part: Part) -> Part:
    """Return the part with every face wound the other way."""
    uv = None if part.corner_uv is None else part.corner_uv[:, [0, 2, 1]]
    return replace(part, faces=part.faces[:, [0, 2, 1]], corner_uv=uv)


def join(reading: Reading, parts: Sequence[Part]) -> MeshSource:
    """Return one mesh; faces at vertices that are not finite are dropped with a note.

    Raises:
        InputError: no faces are left.
    """
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise reading.fail("got no faces, expected a mesh of triangles or polygons")
    start = np.cumsum([0, *(len(p.vertices) for p in parts)])
    vertices = np.concatenate([p.vertices for p in parts])
    faces = np.concatenate([p.faces + s for p, s in zip(parts, start[:-1], strict=True)])
    rgb = _filled([p.vertex_rgb for p in parts], [len(p.vertices) for p in parts], np.full(3, 255, np.uint8))
    sizes = [len(p.faces) for p in parts]
    uv = _filled([p.corner_uv for p in parts], sizes, np.zeros((3, 2), np.float32))
    texture = _filled([p.face_texture for p in parts], sizes, np.array(-1, np.int32))
    face_rgb = _filled([p.face_rgb for p in parts], sizes, np.full(3, 255, np.uint8))
    finite = np.asarray(np.isfinite(vertices).all(1))
    keep = finite[faces].all(1)
    if not keep.all():
        reading.note(f"{(~keep).sum()} faces at the {(~finite).sum()} vertices that are not finite were dropped.")
        if not keep.any():
            raise reading.fail("got no face with finite vertices, expected some")
    if uv is not None and not np.isfinite(uv).all():
        reading.note("Texture coordinates that are not finite were set to 0.")
        uv = np.nan_to_num(uv, posinf=0, neginf=0)
    if texture is None or (texture < 0).all() or uv is None:
        texture, textures = None, ()
    else:
        textures = tuple(reading.textures)
    cut = [None if a is None else a[keep] for a in (uv, texture, face_rgb)]
    return MeshSource(vertices, faces[keep], rgb, cut[0], cut[1], textures, cut[2])


def _filled(arrays: Sequence[np.ndarray | None], counts: Sequence[int], default: np.ndarray) -> np.ndarray | None:
    """Return the arrays in a row, the default where a part has none; None if no part has any."""
    if all(a is None for a in arrays):
        return None
    return np.concatenate([np.broadcast_to(default, (n, *default.shape)) if a is None else a
                           for a, n in zip(arrays, counts, strict=True)])
