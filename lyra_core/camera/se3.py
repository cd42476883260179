"""Rigid transforms as 4x4 matrices."""

from __future__ import annotations

import numpy as np


def inverse(T_a_b: np.ndarray) -> np.ndarray:
    """Return T_b_a of rigid transforms (..., 4, 4)."""
    out = np.zeros_like(T_a_b)
    R = np.swapaxes(T_a_b[..., :3, :3], -1, -2)
    out[..., :3, :3] = R
    out[..., :3, 3] = -(R @ T_a_b[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def look_at(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return T_world_camera (4, 4) of an upright OpenCV camera at position that looks at target (world Z up)."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    norm = np.linalg.norm(right)
    right = right / norm if norm > 1e-9 else np.array([0.0, -1.0, 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    T[:3, 3] = position
    return T


def from_yaw_pitch(position: np.ndarray, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Return T_world_camera of an upright camera: yaw [rad] about +z from +x, pitch [rad] upwards."""
    direction = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    return look_at(np.asarray(position, float), np.asarray(position, float) + direction)
