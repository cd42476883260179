"""Cameras with lens distortion, and pictures made straight: the models of COLMAP, OpenCV and nerfstudio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from lyra_core.errors import InputError
from lyra_core.types import Camera

MAX_SIDE = 1 << 15
"""Longest side of a picture [px]."""
_WIDEST = 0.4
"""Smallest focal length of the straight picture over the lens's: fisheye pictures are cut where a pinhole would stretch them."""
Distortion = Callable[[np.ndarray, np.ndarray, tuple[float, ...]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Lens:
    """A camera as a file describes it. Pixel centres at +0.5, as in COLMAP and nerfstudio."""

    model: str
    """'pinhole', 'opencv' (k1 k2 p1 p2 k3 k4 k5 k6), 'fisheye' (k1 k2 k3 k4), 'fov' (omega) or 'thin_prism_fisheye'
    (k1 k2 p1 p2 k3 k4 sx1 sy1)."""
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        numbers = np.array([self.fx, self.fy, self.cx, self.cy, *self.coefficients], float)
        if self.model not in _MODELS or len(self.coefficients) > _MODELS[self.model][0]:
            raise InputError(f"camera: got model {self.model!r} with {len(self.coefficients)} coefficients, expected one of "
                             f"{', '.join(_MODELS)}")
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise InputError(f"camera: got a picture of {self.width}x{self.height} px, expected 1 to {MAX_SIDE} px")
        if not np.isfinite(numbers).all() or min(self.fx, self.fy) <= 0 or np.abs(numbers).max() > 1e6:
            raise InputError(f"camera: got fx fy cx cy and coefficients {numbers.tolist()}, expected finite numbers and positive "
                             "focal lengths")

    @property
    def straight(self) -> bool:
        """True if it is a pinhole."""
        return not any(self.coefficients) and self.model in ("pinhole", "opencv")

    @property
    def K(self) -> np.ndarray:
        """(3, 3) float64 [px]."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def resized(self, width: int, height: int) -> Lens:
        """Return the lens of the same picture resampled to another size."""
        x, y = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * x, fy=self.fy * y, cx=self.cx * x, cy=self.cy * y)

    def projected(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels u, v of rays x, y (at z = 1)."""
        x, y = _MODELS[self.model][1](x, y, self._padded())
        return x * self.fx + self.cx, y * self.fy + self.cy

    def camera(self) -> Camera:
        """Return the pinhole of the straightened picture: same size and principal point, no blank border.

        Raises:
            InputError: no pinhole's rays all fall into the picture: the coefficients make no sense.
        """
        scale = 1.0 if self.straight else _focal_scale(self)
        K = self.K
        K[0, 0], K[1, 1] = K[0, 0] * scale, K[1, 1] * scale
        return Camera(K, self.width, self.height)

    def straightened(self, picture: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Return a picture (height, width[, C]) as ``camera`` sees it: bilinear, or nearest with NaN outside, as depth needs it."""
        if self.straight:
            return picture
        u, v = _maps(self)
        if nearest:
            return cv2.remap(picture, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,) * 4)
        return cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def _padded(self) -> tuple[float, ...]:
        return (*self.coefficients, *[0.0] * (_MODELS[self.model][0] - len(self.coefficients)))


def _pinhole(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    return x, y


def _opencv(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bend rays by OpenCV's rational model (Brown 1966)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def _fisheye(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bend rays by the equidistant model with an odd polynomial of the angle (Kannala & Brandt 2006)."""
    k1, k2, k3, k4 = k
    r = np.hypot(x, y)
    angle = np.arctan(r)
    a2 = angle * angle
    bent = angle * (1 + a2 * (k1 + a2 * (k2 + a2 * (k3 + a2 * k4))))
    scale = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)
    return x * scale, y * scale


def _fov(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bend rays by the field-of-view model (Devernay & Faugeras 2001)."""
    omega = k[0]
    if abs(omega) < 1e-6:
        return x, y
    r = np.hypot(x, y)
    scale = np.where(r > 1e-9, np.arctan(2 * r * np.tan(omega / 2)) / np.maximum(r * omega, 1e-12), 2 * np.tan(omega / 2) / omega)
    return x * scale, y * scale


def _thin_prism_fisheye(x: np.ndarray, y: np.ndarray, k: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Bend rays by the equidistant model, then by radial, tangential and thin-prism terms (ETH3D's cameras)."""
    k1, k2, p1, p2, k3, k4, sx1, sy1 = k
    x, y = _fisheye(x, y, (0.0, 0.0, 0.0, 0.0))
    r2 = x * x + y * y
    radial = r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return (x + x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + sx1 * r2,
            y + y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y) + sy1 * r2)


_MODELS: dict[str, tuple[int, Distortion]] = {
    "pinhole": (0, _pinhole), "opencv": (8, _opencv), "fisheye": (4, _fisheye), "fov": (1, _fov),
    "thin_prism_fisheye": (8, _thin_prism_fisheye),
}
"""Name -> number of coefficients, and what they do to rays."""


@lru_cache(maxsize=64)
def _focal_scale(lens: Lens) -> float:
    """Return the smallest factor of the focal lengths at which the whole straight picture lies in the lens's, within 0.1 %."""
    low, high = _WIDEST, 1.0
    if _covers(lens, low):
        return low
    while not _covers(lens, high):
        low, high = high, high * 1.5
        if high > 10:
            raise InputError(f"camera: got {lens.model} distortion {list(lens.coefficients)}, expected coefficients that bend rays "
                             "into the picture")
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if _covers(lens, middle) else (middle, high)
    return high


def _covers(lens: Lens, scale: float) -> bool:
    """Say whether the border of the straight picture lies inside, and the bent radius grows all the way to it."""
    u, v = np.linspace(0, lens.width, 65), np.linspace(0, lens.height, 65)
    border = np.concatenate([np.stack([u, 0 * u], 1), np.stack([u, 0 * u + lens.height], 1),
                             np.stack([0 * v, v], 1), np.stack([0 * v + lens.width, v], 1)])
    steps = np.linspace(0, 1, 33)[:, None]
    x, y = steps * (border[:, 0] - lens.cx) / (lens.fx * scale), steps * (border[:, 1] - lens.cy) / (lens.fy * scale)
    with np.errstate(all="ignore"):
        bent_u, bent_v = lens.projected(x, y)
        radius = np.hypot((bent_u - lens.cx) / lens.fx, (bent_v - lens.cy) / lens.fy)
        inside = (bent_u[-1] >= 0) & (bent_v[-1] >= 0) & (bent_u[-1] <= lens.width) & (bent_v[-1] <= lens.height)
        return bool(inside.all() and (np.diff(radius, axis=0) > -1e-9).all())


@lru_cache(maxsize=2)
def _maps(lens: Lens) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of the straight picture comes from, two (h, w) float32 that count from pixel centres."""
    camera = lens.camera()
    x = (np.arange(lens.width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(lens.height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    u, v = lens.projected(*np.meshgrid(x, y))
    return (u - 0.5).astype(np.float32), (v - 0.5).astype(np.float32)
