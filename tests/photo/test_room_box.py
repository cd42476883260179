"""A rectangular room is recovered from its edges, behind furniture; rugs lie, boxes do not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lyra_core.camera.backdrop import COLUMNS, Edge, column_centres
from lyra_core.camera.room_box import box_walls, corner_column, facing, room_wall
from lyra_core.camera.se3 import from_yaw_pitch
from lyra_core.camera.upright import upright_pixels, upright_rays
from lyra_core.photo.room import fit_room, level_view
from lyra_core.photo.rugs import find_rug
from lyra_core.types import Camera, RoomBox

CAMERA = Camera.from_focal(480, 640, 480)
T_WORLD_CAMERA = from_yaw_pitch(np.array([0.0, 0.0, 1.5]), 0.0, np.deg2rad(-5))
RAYS = upright_rays(CAMERA, T_WORLD_CAMERA)
RIGHT = column_centres(RAYS)


def _picture(room: RoomBox, *, clutter: bool) -> np.ndarray:
    """Return a picture of the room: one grey per surface; with clutter, a dark block hides the walls' feet."""
    foot, wall = box_walls(room, np.nan_to_num(RAYS.right), 1.5)
    grey = np.array([190, 205, 175])[wall]
    grey[RAYS.down > foot] = 110
    grey[RAYS.down < -foot * (room.ceiling_height - 1.5) / 1.5] = 235
    if clutter:
        grey[(RAYS.down > 0.15) & (RAYS.down < 0.45) & (np.abs(RAYS.right) < 0.45)] = 60
    noise = np.random.default_rng(1).normal(0, 2, (*grey.shape, 3))
    return np.clip(grey[..., None] + noise, 0, 255).astype(np.uint8)


def _edge(down: np.ndarray | float) -> Edge:
    return Edge(RIGHT, np.broadcast_to(down, RIGHT.shape).astype(float), np.zeros(COLUMNS, bool))


def test_box_walls_are_where_rays_meet_the_planes():
    room = RoomBox(0.2, 5.0, 2.0, np.inf, 2.6)
    right = np.linspace(-0.8, 0.8, 50)
    down, wall = box_walls(room, right, 1.5)
    direction = np.stack([np.ones_like(right), -right], 1)
    normals = {0: (np.cos(0.2), np.sin(0.2), 5.0), 1: (-np.sin(0.2), np.cos(0.2), 2.0)}
    for d, k, ray in zip(down, wall, direction, strict=True):
        x, y, offset = normals[int(k)]
        assert 1.5 / d * (ray @ (x, y)) == pytest.approx(offset)
    corner = corner_column(0.2, np.array(5.0), np.array(2.0), left=True)
    face = facing(0.2, np.array([corner]))
    assert face[0, 0] / 5.0 == pytest.approx(face[1, 0] / 2.0)
    assert room_wall(RoomBox(0.0, 50.0, np.inf, 0.1, None), right, 1.5).min() == pytest.approx(0.1)


@pytest.mark.parametrize("room", [
    RoomBox(0.1, 5.5, 2.2, 2.6, 2.6), RoomBox(-0.08, 4.0, 2.3, 1.8, 2.45), RoomBox(0.0, 7.5, 3.0, 2.4, 3.0)])
def test_room_is_recovered_although_furniture_hides_the_feet_of_its_walls(room):
    contact = np.where(np.abs(RIGHT) < 0.45, 0.45, room_wall(room, RIGHT, 1.5))
    view = level_view(_picture(room, clutter=True), CAMERA, T_WORLD_CAMERA, RIGHT)
    fit = fit_room(view, _edge(contact), contact, room.yaw + 0.015, 1.5)
    assert fit.accepted
    found = fit.room
    assert found.front == pytest.approx(room.front, rel=0.06)
    assert found.ceiling_height == pytest.approx(room.ceiling_height, rel=0.05)
    assert found.left == pytest.approx(room.left, rel=0.1) and found.right == pytest.approx(room.right, rel=0.1)


def test_no_room_is_seen_in_noise_or_in_nothing():
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
    for picture in (noise, np.full((480, 640, 3), 128, np.uint8)):
        view = level_view(picture, CAMERA, T_WORLD_CAMERA, RIGHT)
        assert not fit_room(view, _edge(0.3), np.full(COLUMNS, 0.3), 0.0, 1.5).accepted
        assert not fit_room(view, _edge(np.nan), np.full(COLUMNS, 0.3), 0.0, 1.5).accepted


def test_rug_is_found_and_a_box_is_not():
    room = RoomBox(0.1, 5.5, 2.2, 2.6, 2.6)
    corners = np.array([(3.0, -1.0), (4.4, -1.0), (4.4, 0.9), (3.0, 0.9)])
    c, s = np.cos(room.yaw), np.sin(room.yaw)
    x, y = c * corners[:, 0] - s * corners[:, 1], s * corners[:, 0] + c * corners[:, 1]
    u, v = upright_pixels(CAMERA, T_WORLD_CAMERA, -y / x, 1.5 / x)
    picture = _picture(room, clutter=False)
    shape = np.zeros(picture.shape[:2], np.uint8)
    cv2.fillPoly(shape, [np.stack([u, v], 1).round().astype(np.int32)], 1)
    picture[shape > 0] = (150, 60, 50)
    view = level_view(picture, CAMERA, T_WORLD_CAMERA, RIGHT)
    columns, rows = np.meshgrid(view.right, view.down)
    uu, vv = upright_pixels(CAMERA, T_WORLD_CAMERA, columns, rows)
    inside = shape[np.clip(np.nan_to_num(vv), 0, 479).astype(int), np.clip(np.nan_to_num(uu), 0, 639).astype(int)] > 0
    floor = (rows > box_walls(room, columns, 1.5)[0]) & view.inside & ~inside
    rug = find_rug(view, floor, room, 1.5)
    assert (rug.near, rug.far, rug.right, rug.left) == pytest.approx((3.0, 4.4, -1.0, 0.9), abs=0.15)
    on_rug = rug.contains(RAYS, 1.5)
    assert (on_rug & (shape > 0)).sum() / (on_rug | (shape > 0)).sum() > 0.85
    bare = level_view(_picture(room, clutter=True), CAMERA, T_WORLD_CAMERA, RIGHT)
    assert find_rug(bare, (rows > 0.45) & bare.inside, room, 1.5) is None, "upright sides do not run along the floor"
