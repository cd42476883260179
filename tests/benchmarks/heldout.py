"""Held-out views: does a world built from one frame look like the place from where that frame never stood?

``python -m tests.benchmarks.heldout [--data DIR] [--quick]`` builds worlds from single frames of real sequences, renders them at
other real frames 0.5 to 2 m away and compares with those. Every number stands beside plain reprojection of the same depth
(forward warp of the photo) and the warp_fill generator. There is no bar: the table is what later work must beat.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from lyra_core.backends import resolve
from lyra_core.camera.se3 import inverse
from lyra_core.camera.warp import clamped_depth, forward_warp, planar_depth
from lyra_core.config import WORKING_SIZES, DepthCfg, PhotoCfg
from lyra_core.generate.base import ChunkRequest
from lyra_core.io.images import resized
from lyra_core.photo.read import read_photo
from lyra_core.rays import make_ray_tracer
from lyra_core.types import Camera, DepthEstimate, Frame, Label, Photo, Provenance, Trajectory
from tests.benchmarks.measures import psnr
from tests.benchmarks.sequences import (
    CORRIDOR_AHEAD,
    CORRIDOR_REVISIT,
    DEFAULT_DATA,
    Sequence,
    View,
    camera_heights,
    corridor,
    livingroom,
    register,
    tum_office,
)

WIDTH = 416
"""Of the compared pictures [px]."""
NEAREST, FARTHEST = 0.5, 2.0
"""Distance of a held-out view from the source [m]."""
WIDEST_TURN = 45.0
"""Between the two viewing directions [degrees]."""
TARGETS = 3
"""Held-out views per source at most, spread over the distance."""
SMALLEST_AREA = 0.02
"""Share of the picture below which a view is not scored."""
SSIM_WINDOW = 7
SAME_SURFACE = 0.02
"""Relative difference of depths that still show one surface."""
QUICK_SOURCES = 2


@dataclass(frozen=True)
class Source:
    """A world built from one view, and the other ways to show the same photo and depth elsewhere."""

    view: View
    photo: Photo
    estimate: DepthEstimate
    generators: dict[str, object]

    def render(self, path: Trajectory) -> dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """Return per method, per camera: rgb (h, w, 3), depth (h, w) [m] and covered (h, w): carries the photo's content."""
        out = {"reprojection": self._reprojected(path)}
        for name, generator in self.generators.items():
            first = generator.first_frame(_photo_path(self.estimate, path))
            frames = generator.generate(ChunkRequest(0, path, path[:1], first, (), "", 0))
            out[name] = [(f.rgb, f.depth, f.provenance == Provenance.SEEN) for f in frames]
        return out

    def _reprojected(self, path: Trajectory) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        e = self.estimate
        depth = clamped_depth(e.depth)
        rgb = resized(self.photo.rgb, e.camera.width, e.camera.height)
        warped = forward_warp(rgb.astype(np.float32), depth, e.camera, e.T_world_camera, path, mask=planar_depth(depth))
        colours = np.clip(np.rint(warped.values), 0, 255).astype(np.uint8)
        return list(zip(colours, warped.depth, warped.covered, strict=True))

    def frame_at_source(self) -> Frame:
        """Render the world at the photo's pose and the photo's size."""
        height, width = self.photo.rgb.shape[:2]
        camera = self.estimate.camera.resized(width, height)
        return self.generators["world"].first_frame(Trajectory(self.estimate.T_world_camera[None], camera.K[None], width, height))


def _photo_path(estimate: DepthEstimate, path: Trajectory) -> Trajectory:
    return Trajectory(estimate.T_world_camera[None], path.K[:1], path.width, path.height)


def build_source(view: View, *, camera_height: float | None, depth_file: Path | None, quality: str) -> Source:
    """Read a view as ``create`` reads a photo, estimate or load its depth, and prepare the generators."""
    known = {} if view.focal_px is None else {"focal_px": view.focal_px, "focal_source": "user"}
    photo = Photo(view.rgb, hashlib.sha256(view.rgb.tobytes()).hexdigest(), view.name, **known)
    reading = read_photo(photo, PhotoCfg(camera_height=camera_height), size=WORKING_SIZES[quality])
    provider = "geometric" if depth_file is None else "file"
    cfg = DepthCfg(provider=provider, path=None if depth_file is None else str(depth_file))
    estimate = resolve("depth", provider)(cfg).estimate(photo, reading)
    generators = {"world": resolve("generator", "procedural")(quality=quality),
                  "warp_fill": resolve("generator", "warp_fill")(quality=quality)}  # fmt: skip
    for generator in generators.values():
        generator.prepare(photo, estimate, seed=0, indoor=reading.scene_kind == "indoor")
    return Source(view, photo, estimate, generators)


@dataclass(frozen=True)
class Target:
    """A held-out view with its camera in the source's world."""

    view: View
    T_world_camera: np.ndarray
    metres_per_unit: float
    """Of the sequence's poses and depth."""


def known_targets(sequence: Sequence, source: Source) -> list[Target]:
    """Choose held-out views by distance and direction; their poses are placed relative to the source's own."""
    scale = 1.0 if sequence.metric else _metres_per_unit(source)
    found = []
    for view in sequence.views:
        T = inverse(source.view.T_ref_camera) @ view.T_ref_camera
        T[:3, 3] *= scale
        distance, turn = float(np.linalg.norm(T[:3, 3])), np.degrees(np.arccos(np.clip(T[2, 2], -1, 1)))
        if NEAREST <= distance <= FARTHEST and turn <= WIDEST_TURN:
            found.append((distance, Target(view, source.estimate.T_world_camera @ T, scale)))
    return _spread(found)


def _spread(found: list[tuple[float, Target]]) -> list[Target]:
    found = sorted(found, key=lambda pair: (pair[0], pair[1].view.name))
    rows = np.unique(np.linspace(0, len(found) - 1, min(TARGETS, len(found))).round().astype(int)) if found else []
    return [found[i][1] for i in rows]


def _metres_per_unit(source: Source) -> float:
    """Median ratio of the estimated depth to the sequence's sparse depth in the source view."""
    true = source.view.depth
    estimated = cv2.resize(source.estimate.depth, true.shape[::-1], interpolation=cv2.INTER_NEAREST)
    both = np.isfinite(true) & np.isfinite(estimated)
    return float(np.median(estimated[both] / true[both]))


def registered_targets(sequence: Sequence, source: Source, ahead: tuple[int, ...]) -> list[Target]:
    """Register the frames after the source to its world and choose by distance and direction."""
    number, frame, found = sequence.views.index(source.view), source.frame_at_source(), []
    for step in ahead:
        if number + step >= len(sequence.views):
            continue
        view = sequence.views[number + step]
        answer = register(source.view.rgb, view.rgb, frame)
        if answer is None:
            continue
        T = inverse(source.estimate.T_world_camera) @ answer[0]
        distance, turn = float(np.linalg.norm(T[:3, 3])), np.degrees(np.arccos(np.clip(T[2, 2], -1, 1)))
        if NEAREST <= distance <= FARTHEST and turn <= WIDEST_TURN:
            found.append((distance, Target(view, answer[0], 1.0)))
    return _spread(found)


def masked_psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """PSNR [dB] of uint8 pictures (h, w, 3) on a mask (h, w); NaN where the mask is too small to say anything."""
    if mask.mean() < SMALLEST_AREA:
        return np.nan
    return psnr(a[mask], b[mask])


def masked_ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Mean SSIM over windows that lie in the mask."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((SSIM_WINDOW, SSIM_WINDOW), np.uint8)) > 0
    if inner.mean() < SMALLEST_AREA / 2:
        return np.nan
    _, values = structural_similarity(a, b, win_size=SSIM_WINDOW, channel_axis=2, full=True)
    return float(values.mean(-1)[inner].mean())


def depth_errors(depth: np.ndarray, true: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Mean relative error of depth (h, w) as it is, and after scaling to the true median; NaN without truth."""
    both = mask & np.isfinite(true) & np.isfinite(depth)
    if both.sum() < 20:
        return np.nan, np.nan
    d, t = depth[both], true[both]
    scaled = d * np.median(t) / np.median(d)
    return float(np.mean(np.abs(d - t) / t)), float(np.mean(np.abs(scaled - t) / t))


def truth_at(view: View, shape: tuple[int, int], unit: float) -> np.ndarray:
    """True depth (h, w) [m] at another size: one of the values that fall into each pixel, NaN without any."""
    out = np.full(shape, np.nan, np.float32)
    if view.depth is None:
        return out
    v, u = np.nonzero(np.isfinite(view.depth))
    scale = np.array(shape) / view.depth.shape
    out[((v + 0.5) * scale[0]).astype(int), ((u + 0.5) * scale[1]).astype(int)] = view.depth[v, u] * unit
    return out


def score(source: Source, targets: list[Target]) -> list[dict[str, dict[str, float]]]:
    """Return per target: method -> measures. ``common`` is the area that all methods of this source cover."""
    height = round(WIDTH * source.photo.rgb.shape[0] / source.photo.rgb.shape[1])
    camera = source.estimate.camera.resized(WIDTH, height)
    T = np.stack([t.T_world_camera for t in targets])
    rendered = source.render(Trajectory(T, camera.K[None].repeat(len(T), 0), WIDTH, height))
    still = resized(source.photo.rgb, WIDTH, height)
    out = []
    for i, target in enumerate(targets):
        real = resized(target.view.rgb, WIDTH, height)
        true = truth_at(target.view, (height, WIDTH), target.metres_per_unit)
        common = np.logical_and.reduce([pictures[i][2] for pictures in rendered.values()])
        shown = {name: pictures[i] for name, pictures in rendered.items()}
        shown["photo unmoved"] = (still, np.full(true.shape, np.nan), np.ones(true.shape, bool))
        out.append({name: _measures(rgb, depth, mask, real, true, common) for name, (rgb, depth, mask) in shown.items()})
    return out


def _measures(rgb: np.ndarray, depth: np.ndarray, mask: np.ndarray, real: np.ndarray, true: np.ndarray,
              common: np.ndarray) -> dict[str, float]:
    metric, scaled = depth_errors(depth, true, mask)
    return {
        "covered": 100 * float(mask.mean()),
        "PSNR": masked_psnr(rgb, real, mask),
        "SSIM": masked_ssim(rgb, real, mask),
        "PSNR common": masked_psnr(rgb, real, common),
        "SSIM common": masked_ssim(rgb, real, common),
        "PSNR whole": masked_psnr(rgb, real, np.ones_like(mask)),
        "AbsRel": metric,
        "AbsRel scaled": scaled,
    }


def stands_outside(source: Source, target: Target) -> bool:
    """Tell whether a real camera stands where the built world has no floor: outside its walls, whose backs it then sees."""
    mesh = source.generators["world"].explicit_world().mesh
    floor = mesh.faces[mesh.face_label == Label.FLOOR]
    eye = np.array([[*target.T_world_camera[:2, 3], 0.05]], np.float32)
    return bool(make_ray_tracer(mesh.vertices, floor).cast(eye, np.array([[0, 0, -1]], np.float32)).face[0] < 0)


def true_overlap(source: Source, target: Target) -> float:
    """Share [%] of a target's pixels that the source frame truly saw, from exact depth; NaN without dense depth."""
    a, b = source.view, target.view
    if a.depth_file is None:
        return np.nan
    camera = Camera.from_focal(a.focal_px, a.rgb.shape[1], a.rgb.shape[0])
    T = inverse(a.T_ref_camera) @ b.T_ref_camera
    points = (camera.rays() * b.depth[..., None]) @ T[:3, :3].T + T[:3, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        u, v = (points[..., i] / points[..., 2] * camera.K[i, i] + camera.K[i, 2] for i in (0, 1))
        inside = (points[..., 2] > 0) & (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    there = a.depth[v[inside].astype(int), u[inside].astype(int)]
    return 100 * float((np.abs(there / points[inside][:, 2] - 1) < SAME_SURFACE).sum() / inside.size)


def run_sequence(sequence: Sequence, *, quality: str, quick: bool, show: Path | None) -> None:
    """Score one sequence in every depth mode and print its rows."""
    sources = sequence.sources[:QUICK_SOURCES] if quick else sequence.sources
    modes: dict[str, Callable[[int], dict]] = {"geometric": lambda _: {"camera_height": None, "depth_file": None}}
    if sequence.metric:
        heights = camera_heights(sequence.views)
        modes["geometric, true h"] = lambda i: {"camera_height": heights[i], "depth_file": None}
        modes["depth file"] = lambda i: {"camera_height": None, "depth_file": sequence.views[i].depth_file}
        print(f"  true camera heights [m]: {', '.join(f'{heights[i]:.2f}' for i in sources)}")
    for mode, settings in modes.items():
        rows, overlaps, scales, used, outside = [], [], [], 0, 0
        for i in sources:
            source = build_source(sequence.views[i], quality=quality, **settings(i))
            targets = targets_of(sequence, source)
            if targets:
                used += 1
                rows += score(source, targets)
                overlaps += [true_overlap(source, t) for t in targets]
                outside += sum(stands_outside(source, t) for t in targets)
                scales.append(targets[0].metres_per_unit)
                if show is not None:
                    save_picture(show, f"{sequence.name}_{mode}_{i}".replace(" ", "").replace(",", "_"), source, targets[-1])
        note = "" if sequence.metric or sequence.views[0].T_ref_camera is None else f"; metres per unit {np.round(scales, 2)}"
        overlap = f"; truly seen before {np.nanmean(overlaps):.0f} %" if np.isfinite(overlaps).any() else ""
        print_rows(mode, rows, f"{used} of {len(sources)} sources, {len(rows)} views, {outside} from outside{overlap}{note}")


def targets_of(sequence: Sequence, source: Source) -> list[Target]:
    """Held-out views of a source: by their poses, else by registration in this round and the next."""
    if source.view.T_ref_camera is not None:
        return known_targets(sequence, source)
    return registered_targets(sequence, source, (*CORRIDOR_AHEAD, *CORRIDOR_REVISIT))


METHODS = ("world", "reprojection", "warp_fill", "photo unmoved")
COLUMNS = ("covered", "PSNR", "SSIM", "PSNR common", "SSIM common", "PSNR whole", "AbsRel", "AbsRel scaled")
FORMATS = (".1f", ".2f", ".3f", ".2f", ".3f", ".2f", ".3f", ".3f")


def print_rows(mode: str, rows: list[dict[str, dict[str, float]]], note: str) -> None:
    """Print means over the views, one line per method."""
    print(f"  {mode} ({note})")
    for method in METHODS if rows else ():
        cells = []
        for column, style in zip(COLUMNS, FORMATS, strict=True):
            values = np.array([row[method][column] for row in rows])
            cells.append(f"{format(float(np.nanmean(values)), style) if np.isfinite(values).any() else '-':>14}")
        print(f"    {method:<14}{''.join(cells)}")


def save_picture(folder: Path, name: str, source: Source, target: Target) -> None:
    """Write photo, real view, world, reprojection and warp_fill side by side."""
    height = round(WIDTH * source.photo.rgb.shape[0] / source.photo.rgb.shape[1])
    camera = source.estimate.camera.resized(WIDTH, height)
    shown = source.render(Trajectory(target.T_world_camera[None], camera.K[None], WIDTH, height))
    pictures = [resized(source.photo.rgb, WIDTH, height), resized(target.view.rgb, WIDTH, height)]
    pictures += [shown[method][0][0] for method in METHODS[:3]]
    labels = source.estimate.labels == Label.FLOOR
    tinted = resized(source.photo.rgb, source.estimate.camera.width, source.estimate.camera.height).copy()
    tinted[labels] = tinted[labels] // 2 + np.array([0, 110, 0], np.uint8)
    pictures.append(resized(tinted, WIDTH, height))
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), np.hstack(pictures)[..., ::-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.heldout", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that holds sequences/")
    parser.add_argument("--quick", action="store_true", help=f"draft quality, {QUICK_SOURCES} sources per sequence")
    parser.add_argument("--only", choices=("livingroom", "tum", "corridor"), default=None)
    parser.add_argument("--show", type=Path, default=None, help="folder for one comparison picture per source and mode")
    args = parser.parse_args()
    if not (args.data / "sequences").is_dir():
        raise SystemExit(f"{args.data}: no folder sequences/ there; give one with --data")
    print("Means over held-out views. covered [%]: pixels that carry the photo's content; PSNR [dB] and SSIM there, on the area")
    print("that world, reprojection and warp_fill cover alike (common), and on the whole picture; AbsRel of the depth where known.")
    print("'from outside': views whose real camera stands beyond the walls that the world was closed with.")
    print(f"{'':18}{''.join(f'{column:>14}' for column in COLUMNS)}")
    loaders = {"livingroom": livingroom, "tum": tum_office, "corridor": corridor}
    for name, load in loaders.items():
        if args.only in (None, name):
            start, sequence = time.perf_counter(), load(args.data)
            print(f"{sequence.name}: {sequence.note}")
            run_sequence(sequence, quality="draft" if args.quick else "standard", quick=args.quick, show=args.show)
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
