"""Which pixels contradict the other frames: the depth of one bad frame must not make walls, nor take them away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from lyra_core.camera.se3 import inverse
from lyra_core.types import Frame

PARTNERS = 8
"""Frames that each frame is compared with."""
MARGIN = 0.06
"""Depths further apart than this share of the depth contradict each other."""
STRIDE = 4
"""Every n-th pixel is compared."""


def without_contradictions(frames: Sequence[Frame]) -> tuple[list[Frame], float]:
    """Drop the depth of pixels that more frames contradict than confirm.

    A point contradicts another frame if that one looks through it (it sees something behind), or if the point's own frame looked
    through what that one sees. Being hidden is no contradiction. A pixel is dropped if more frames contradict than confirm it and
    its neighbours, and a whole frame if that holds for most of it. Fewer than four frames are kept as they are.

    Returns:
        the frames, and the share of known pixels dropped.
    """
    if len(frames) < 4:
        return list(frames), 0.0
    partners = _partners(frames)
    against, beside = [np.zeros(_small(f).shape, np.int32) for f in frames], [np.zeros(_small(f).shape, np.int32) for f in frames]
    for i, others in enumerate(partners):
        for j in others:
            _compare(frames[i], frames[j], against[i], beside[i], against[j], beside[j])
            _compare(frames[j], frames[i], against[j], beside[j], against[i], beside[i])
    out, dropped, known = [], 0, 0
    for frame, no, yes in zip(frames, against, beside, strict=True):
        # Neighbours decide together: depth that is wrong is wrong over an area.
        area_no, area_yes = (cv2.blur(votes.astype(np.float32), (5, 5), borderType=cv2.BORDER_REPLICATE) for votes in (no, yes))
        small = (area_no >= 1) & (area_no > area_yes) if no.sum() <= yes.sum() else np.ones(no.shape, bool)
        bad = cv2.resize(small.astype(np.uint8), frame.depth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        have = np.isfinite(frame.depth)
        dropped, known = dropped + int((bad & have).sum()), known + int(have.sum())
        if (bad & have).any():
            depth, provenance = np.where(bad, np.nan, frame.depth), np.where(bad, 255, frame.provenance)
            frame = replace(frame, depth=depth.astype(np.float32), provenance=provenance.astype(np.uint8))
        out.append(frame)
    return out, dropped / max(known, 1)


def _small(frame: Frame) -> np.ndarray:
    return frame.depth[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def _partners(frames: Sequence[Frame]) -> list[np.ndarray]:
    """Choose for each frame those that look at the same place from elsewhere: near in where they look, spread over the rest."""
    middles = np.stack([_middle(frame) for frame in frames])
    out = []
    for i in range(len(frames)):
        order = np.argsort(np.linalg.norm(middles - middles[i], axis=1), kind="stable")
        order = order[order != i]
        half = order[:PARTNERS]
        rest = order[PARTNERS:]
        out.append(np.concatenate([half, rest[:: max(1, len(rest) // (PARTNERS // 2))][: PARTNERS // 2]]))
    return out


def _middle(frame: Frame) -> np.ndarray:
    depth = frame.depth[np.isfinite(frame.depth)]
    z = float(np.median(depth)) if len(depth) else 1.0
    return frame.T_world_camera[:3, 3] + z * frame.T_world_camera[:3, 2]


def _compare(a: Frame, b: Frame, a_no: np.ndarray, a_yes: np.ndarray, b_no: np.ndarray, b_yes: np.ndarray) -> None:
    """Project a's points into b, and count for both pictures' pixels who contradicts and who confirms them."""
    depth = _small(a)
    rows, columns = np.nonzero(np.isfinite(depth))
    z = depth[rows, columns].astype(np.float64)
    K = a.camera.K
    u, v = columns * STRIDE + STRIDE // 2 + 0.5, rows * STRIDE + STRIDE // 2 + 0.5
    local = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z], 1)
    T = inverse(b.T_world_camera) @ a.T_world_camera
    x, y, z = (local @ T[:3, :3].T + T[:3, 3]).T
    K = b.camera.K
    front = z > 0.05
    safe = np.where(front, z, 1)
    u, v = x / safe * K[0, 0] + K[0, 2], y / safe * K[1, 1] + K[1, 2]
    inside = np.flatnonzero(front & (u >= 0) & (v >= 0) & (u < b.camera.width) & (v < b.camera.height))
    line, column = v[inside].astype(int), u[inside].astype(int)
    with np.errstate(invalid="ignore"):
        gap = (b.depth[line, column] - z[inside]) / z[inside]
        behind, same = gap > MARGIN, np.abs(gap) <= MARGIN / 2
    # b looks through a's point: one of the two is wrong, and each gets a vote against it.
    np.add.at(a_no, (rows[inside[behind]], columns[inside[behind]]), 1)
    np.add.at(a_yes, (rows[inside[same]], columns[inside[same]]), 1)
    size = b_no.shape
    at = np.minimum(line // STRIDE, size[0] - 1), np.minimum(column // STRIDE, size[1] - 1)
    for votes, pick in ((b_no, behind), (b_yes, same)):
        hit = np.zeros(size, bool)
        hit[at[0][pick], at[1][pick]] = True
        votes += hit
