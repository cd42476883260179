"""Gaussians from posed depth frames: how well do they show the place from poses that were left out?

``python -m tests.benchmarks.splats [--data DIR] [--quick]`` takes the synthetic living room (43 frames, published pose estimates),
leaves out every 5th frame, makes Gaussians of the others and renders them at the poses left out. *Plain*: one Gaussian per
pixel of every frame. *Merged*: ``splats_from_frames``. *Fitted*: merged, then colours fitted to the frames. PSNR and SSIM are
over the whole picture, black where nothing is drawn; *covered* counts only pixels at least half covered, so that the difference
of the two is what holes cost. Exits with 1 unless merged is 1 dB better than plain with less than a third of its Gaussians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from lyra_core.io.images import resized
from lyra_core.splats.from_frames import SH_C0, SPREAD, splats_from_frames
from lyra_core.splats.refine import fit_colors
from lyra_core.splats.render import render_splats
from lyra_core.types import Camera, Frame, GaussianCloud
from tests.benchmarks.measures import psnr
from tests.benchmarks.sequences import DEFAULT_DATA, View, livingroom
from tests.benchmarks.tables import number, table

LEFT_OUT = 5
"""Every so many frames one is left out."""
SIZES = {True: (208, 156), False: (416, 312)}
SAME_SURFACE = 0.02
"""Relative difference of depths that still show one surface."""
BETTER = 1.0
"""[dB]"""
FEWER = 1 / 3
MOST = 10**8


def read_frames(data: Path, width: int, height: int) -> list[Frame]:
    """Return the living room's frames at this size: area-averaged colours."""
    out = []
    for view in livingroom(data).views:
        out.append(_frame(view, width, height))
    return out


def _frame(view: View, width: int, height: int) -> Frame:
    assert view.depth is not None and view.T_ref_camera is not None and view.focal_px is not None
    h, w = view.depth.shape
    camera = Camera.from_focal(view.focal_px, w, h).resized(width, height)
    # Inverse depth is affine on planes. The nearest pixel alone would be up to half a pixel off: steps on slanted floors.
    inverse = np.nan_to_num(1 / view.depth)
    near, between = (cv2.resize(inverse, (width, height), interpolation=how) for how in (cv2.INTER_NEAREST, cv2.INTER_LINEAR))
    inverse = np.where(np.abs(between - near) < SAME_SURFACE * near, between, near)
    depth = np.where(inverse > 0, 1 / np.maximum(inverse, 1e-6), np.nan).astype(np.float32)
    provenance = np.where(np.isfinite(depth), 0, 255).astype(np.uint8)
    return Frame(resized(view.rgb, width, height), depth, camera, view.T_ref_camera, provenance)


def plain(frames: Sequence[Frame]) -> GaussianCloud:
    """Put one round Gaussian on every pixel of every frame."""
    means, scales, rgb = [], [], []
    for frame in frames:
        known = np.isfinite(frame.depth)
        means.append(frame.points()[known])
        scales.append(np.repeat((SPREAD / frame.camera.K[0, 0] * frame.depth[known])[:, None], 3, 1))
        rgb.append(frame.rgb[known])
    n = sum(map(len, means))
    sh = ((np.concatenate(rgb) / 255.0 - 0.5) / SH_C0).astype(np.float32)[:, None]
    quats = np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1))
    return GaussianCloud(np.concatenate(means), quats, np.concatenate(scales).astype(np.float32), np.full(n, 0.95, np.float32), sh,
                         np.zeros(n, np.uint8))


def merged(frames: Sequence[Frame]) -> GaussianCloud:
    """Make merged Gaussians, one per pixel where no other frame says the same."""
    return splats_from_frames(frames, max_count=MOST, block=1)


def fitted(frames: Sequence[Frame]) -> GaussianCloud:
    """Fit the merged Gaussians' colours to the frames."""
    return fit_colors(merged(frames), frames)[0]


def sparse(frames: Sequence[Frame]) -> GaussianCloud:
    """Make what a world holds: one Gaussian per 2 x 2 pixels but for the first frame."""
    return splats_from_frames(frames, max_count=MOST, first_block=1)


METHODS: dict[str, Callable[[Sequence[Frame]], GaussianCloud]] = {"plain": plain, "merged, 2 x 2 pixels": sparse, "merged": merged,
                                                                  "merged and fitted": fitted}


def score(cloud: GaussianCloud, frames: Sequence[Frame]) -> dict[str, float]:
    """Return mean PSNR [dB] and SSIM over frames, PSNR where covered, and the share [%] covered."""
    rows = []
    for frame in frames:
        rgb, coverage = render_splats(cloud, frame.camera, frame.T_world_camera)
        where = coverage >= 0.5
        ssim = structural_similarity(rgb, frame.rgb, channel_axis=2, data_range=255)
        rows.append((psnr(rgb, frame.rgb), psnr(rgb[where], frame.rgb[where]), ssim, 100 * where.mean()))
    return dict(zip(("psnr", "covered_psnr", "ssim", "covered"), np.mean(rows, 0).tolist(), strict=True))


def main() -> int:
    """Print the table; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--quick", action="store_true", help="pictures of 208 x 156")
    args = parser.parse_args()
    frames = read_frames(args.data, *SIZES[args.quick])
    held = frames[LEFT_OUT // 2 :: LEFT_OUT]
    given = [frame for i, frame in enumerate(frames) if i % LEFT_OUT != LEFT_OUT // 2]
    merged(given[:2])  # compiles the kernels
    rows, scores, counts = [], {}, {}
    for name, method in METHODS.items():
        start = time.process_time()
        cloud = method(given)
        seconds = time.process_time() - start
        s = scores[name] = score(cloud, held)
        counts[name] = len(cloud.means)
        rows.append([name, str(len(cloud.means)), number(seconds), number(s["psnr"], 2), number(s["covered_psnr"], 2),
                     number(s["ssim"], 4), number(s["covered"], 2)])
    print(table(["Gaussians", "count", "CPU s", "PSNR dB", "covered PSNR", "SSIM", "covered %"], rows))
    size = "{} x {}".format(*SIZES[args.quick])
    print(f"{len(given)} frames of {size} given, {len(held)} left out and compared. Depth is exact, poses are estimates.")
    ok = scores["merged"]["psnr"] >= scores["plain"]["psnr"] + BETTER and counts["merged"] < FEWER * counts["plain"]
    print(f"Bar: merged at least {BETTER:g} dB better than plain with less than {FEWER:.0%} of its Gaussians: "
          f"{'kept' if ok else 'MISSED'}.")
    return 0 if ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
