"""Move Gaussians by a similarity: positions, orientations, sizes and the spherical harmonics of their colours.

Colour in direction d (from the camera to the Gaussian) is 0.5 + sum of coefficient times basis(d), with the basis of Kerbl
et al. (2023), which KHR_gaussian_splatting states too. A cloud turned by R must show in direction R d what it showed in d.
"""

from __future__ import annotations

import numpy as np

from lyra_core.errors import InputError
from lyra_core.io.gaussians import check_degree
from lyra_core.types import GaussianCloud

SIMILARITY_TOLERANCE = 1e-4
"""Largest entry of (A / scale) (A / scale)^T - I that still counts as a rotation with one scale."""
T_Z_UP_FROM_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""Maps glTF's frame (Y up) into one with Z up: (x, y, z) -> (x, -z, y). Its inverse is its transpose."""


def sh_basis(directions: np.ndarray, degree: int) -> np.ndarray:
    """Return (M, (degree + 1)^2) float64 basis values of (M, 3) unit directions; degree is 0 to 3."""
    x, y, z = np.asarray(directions, np.float64).T
    xx, yy, zz = x * x, y * y, z * z
    bands = [
        [np.full_like(x, 0.28209479177387814)],
        [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x],
        [1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy),
         -1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy)],
        [-0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z, -0.4570457994644658 * y * (4 * zz - xx - yy),
         0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy), -0.4570457994644658 * x * (4 * zz - xx - yy),
         1.445305721320277 * z * (xx - yy), -0.5900435899266435 * x * (xx - 3 * yy)],
    ]
    return np.stack([values for band in bands[:degree + 1] for values in band], 1)


def sh_rotations(R: np.ndarray, degree: int) -> list[np.ndarray]:
    """Return D_l, (2l + 1, 2l + 1) float64, for l = 0..degree: what turns the coefficients of each band along with R (3, 3).

    A band is closed under rotation, so basis(R d) D c = basis(d) c holds for all d once it holds for enough of them: 64
    directions on a Fibonacci sphere, solved by least squares, give D to rounding.
    """
    k = np.arange(64) + 0.5
    height, angle = 1 - 2 * k / 64, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    directions = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], 1)
    before, after = sh_basis(directions, degree), sh_basis(directions @ np.asarray(R, np.float64).T, degree)
    bands = [slice(band**2, (band + 1) ** 2) for band in range(degree + 1)]
    return [np.linalg.lstsq(after[:, band], before[:, band], rcond=None)[0] for band in bands]


def transformed(cloud: GaussianCloud, T: np.ndarray) -> GaussianCloud:
    """Return the cloud mapped by a similarity T (4, 4): rotation, one positive scale, translation.

    Raises:
        InputError: T is not finite, mirrors, shears, has several scales or a last row other than 0 0 0 1; more than 16
            coefficients.
    """
    R, scale, shift = split_similarity(T)
    degree = check_degree("GaussianCloud", cloud)
    means = (cloud.means.astype(np.float64) @ (scale * R).T + shift).astype(np.float32)
    sh = cloud.sh
    if degree and not np.array_equal(R, np.eye(3)):
        sh = sh.copy()
        for band, D in enumerate(sh_rotations(R, degree)[1:], 1):
            rows = slice(band**2, (band + 1) ** 2)
            sh[:, rows] = np.matmul(D.astype(np.float32), cloud.sh[:, rows])
    quats = _multiplied(_quat_wxyz(R), cloud.quats_wxyz.astype(np.float64)).astype(np.float32)
    return GaussianCloud(means, quats, (cloud.scales * scale).astype(np.float32), cloud.opacities, sh, cloud.provenance)


def flipped(cloud: GaussianCloud, signs: tuple[int, int, int]) -> GaussianCloud:
    """Return the cloud with two axes reversed, such as (1, -1, -1): half a turn about the third; exact in float32."""
    degree = check_degree("GaussianCloud", cloud)
    axis = np.array(signs, np.float32)
    if sorted(signs) != [-1, -1, 1]:
        raise InputError(f"signs: got {signs}, expected two of the axes reversed")
    turned = [np.sign(np.rint(np.diag(D))) for D in sh_rotations(np.diag(axis), degree)]
    quats = cloud.quats_wxyz * np.array([1, *signs], np.float32)
    sh = cloud.sh * np.concatenate(turned).astype(np.float32)[:, None]
    return GaussianCloud(cloud.means * axis, quats, cloud.scales, cloud.opacities, sh, cloud.provenance)


def split_similarity(T: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Return rotation (3, 3), scale and translation (3,) of a similarity.

    Raises:
        InputError: T is none.
    """
    T = np.asarray(T, np.float64)
    if T.shape != (4, 4) or not np.isfinite(T).all() or not np.allclose(T[3], [0, 0, 0, 1], atol=1e-9):
        raise InputError(f"transform: got {T.tolist()}, expected a finite (4, 4) matrix with the last row 0 0 0 1")
    A = T[:3, :3]
    determinant = np.linalg.det(A)
    scale = np.cbrt(determinant)
    if not (1e-12 < scale < 1e12):
        raise InputError(f"transform: got determinant {determinant:g}, expected a positive one: mirrored and flattened Gaussians "
                         "have no meaning")
    if np.abs(A @ A.T / scale**2 - np.eye(3)).max() > SIMILARITY_TOLERANCE:
        sizes = ", ".join(f"{value:g}" for value in np.linalg.svd(A, compute_uv=False))
        raise InputError(f"transform: got scales {sizes}, expected one scale in all directions")
    # The nearest rotation, so that a matrix stored in float32 does not grow the Gaussians.
    U, _, V = np.linalg.svd(A)
    return U @ V, float(scale), T[:3, 3]


def _quat_wxyz(R: np.ndarray) -> np.ndarray:
    """Return the unit quaternion of a rotation (Bar-Itzhack 2000): the top eigenvector of a symmetric 4x4 matrix, no cases."""
    (a, b, c), (d, e, f), (g, h, i) = R
    K = np.array([[a + e + i, h - f, c - g, d - b], [h - f, a - e - i, b + d, c + g],
                  [c - g, b + d, e - a - i, f + h], [d - b, c + g, f + h, i - a - e]]) / 3
    return np.linalg.eigh(K)[1][:, -1]


def _multiplied(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return the Hamilton product of p (4,) with q (N, 4), both w first."""
    w, x, y, z = p
    return q @ np.array([[w, x, y, z], [-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])
