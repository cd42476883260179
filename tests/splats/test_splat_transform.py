"""Turned Gaussians: colours by direction and covariances against brute force, and what is no similarity is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from splat_clouds import assert_within, covariances, make_cloud

from lyra_core.errors import InputError
from lyra_core.splats.render import splat_colors
from lyra_core.splats.transform import T_Z_UP_FROM_Y_UP, sh_basis, sh_rotations, transformed


def directions(count: int = 40) -> np.ndarray:
    d = np.random.default_rng(5).normal(size=(count, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def similarity(seed: int, scale: float) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = scale * Rotation.from_quat(np.random.default_rng(seed).normal(size=4)).as_matrix()
    T[:3, 3] = [4, -5, 6]
    return T


def test_basis_is_scipys_real_spherical_harmonics():
    pytest.importorskip("scipy", minversion="1.15")
    from scipy.special import sph_harm_y

    d = directions()
    theta, phi = np.arccos(d[:, 2]), np.arctan2(d[:, 1], d[:, 0])
    want = []
    for band in range(4):
        for m in range(-band, band + 1):
            value = sph_harm_y(band, abs(m), theta, phi)
            # With the Condon-Shortley phase that scipy's complex functions carry.
            want.append(value.real if m == 0 else math.sqrt(2) * (value.imag if m < 0 else value.real))
    assert np.abs(sh_basis(d, 3) - np.stack(want, 1)).max() < 1e-12


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_colours_by_direction_turn_along(degree, seed):
    cloud, T = make_cloud(10, degree), similarity(seed, 2.5)
    turned = transformed(cloud, T)
    d = directions()
    before = np.einsum("mk,nkc->mnc", sh_basis(d, degree), cloud.sh)
    after = np.einsum("mk,nkc->mnc", sh_basis(d @ (T[:3, :3] / 2.5).T, degree), turned.sh)
    assert np.abs(before - after).max() < 2e-6


def test_geometry_turns_along():
    cloud, T = make_cloud(50), similarity(7, 0.3)
    turned = transformed(cloud, T)
    A = T[:3, :3]
    assert np.abs(covariances(turned) - A @ covariances(cloud) @ A.T).max() < 1e-6
    assert np.abs(turned.means - (cloud.means @ A.T + T[:3, 3])).max() < 2e-6
    assert np.abs(np.linalg.norm(turned.quats_wxyz, axis=1) - 1).max() < 1e-6
    assert np.array_equal(turned.provenance, cloud.provenance)
    assert_within(cloud, transformed(turned, np.linalg.inv(T)), means=3e-6)


def test_the_renderer_sees_the_turned_cloud_from_the_turned_eye():
    cloud, T = make_cloud(50), similarity(3, 1.7)
    eye = np.array([3.0, 4, 5])
    there = T[:3, :3] @ eye + T[:3, 3]
    assert np.abs(splat_colors(cloud, eye) - splat_colors(transformed(cloud, T), there)).max() < 1e-5


def test_half_turns_and_the_identity():
    cloud = make_cloud(5)
    assert_within(cloud, transformed(cloud, np.eye(4)))
    for axis in np.eye(3):
        R = Rotation.from_rotvec(np.pi * axis).as_matrix()
        assert all(np.abs(D - np.diag(np.diag(D))).max() < 1e-12 for D in sh_rotations(R, 3))
    up = transformed(cloud, T_Z_UP_FROM_Y_UP).means
    assert np.abs(up - np.stack([cloud.means[:, 0], -cloud.means[:, 2], cloud.means[:, 1]], 1)).max() < 1e-6


@pytest.mark.parametrize("T", [np.diag([1, 1, 2.0, 1]), np.diag([-1, 1, 1.0, 1]), np.zeros((4, 4)), np.full((4, 4), np.nan),
                               np.eye(3), np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
                               np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1.0]]), np.diag([0, 0, 0, 1.0])])
def test_what_is_no_similarity_is_refused(T):
    with pytest.raises(InputError, match="transform"):
        transformed(make_cloud(3), T)


def test_too_many_coefficients_are_refused():
    with pytest.raises(InputError, match="sh"):
        transformed(replace(make_cloud(3), sh=np.zeros((3, 25, 3), np.float32)), np.eye(4))
