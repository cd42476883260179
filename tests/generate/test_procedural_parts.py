"""The pieces of the procedural generator: quilting, wall strips, polygons, the atlas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lyra_core.generate.procedural.atlas import PADDING, MeshBuilder, pack_charts
from lyra_core.generate.procedural.polygons import clip_to_rectangle, triangulate
from lyra_core.generate.procedural.quilt import quilt_tile
from lyra_core.generate.procedural.strips import StripSegment, WallStrip
from lyra_core.types import Label, Provenance


def exemplar(rng, *, size=56):
    """Smooth random texture with a slow shading across, which a tile must not show as a step."""
    import cv2

    noise = cv2.GaussianBlur(rng.normal(0, 60, (size, size, 1)).astype(np.float32), (0, 0), 2.0)[..., None]
    shade = np.linspace(-12, 12, size)[:, None, None]
    return np.clip(130 + noise + shade + np.zeros(3), 0, 255).astype(np.uint8)


def step_energy(tile, axis):
    """Mean squared difference of neighbouring rows (columns): of the seam, and of all pairs inside."""
    values = np.moveaxis(tile.astype(float), axis, 0)
    inside = ((values[1:] - values[:-1]) ** 2).mean((1, 2))
    return ((values[0] - values[-1]) ** 2).mean(), inside


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_quilted_tile_repeats_without_a_seam(seed, axis):
    rng = np.random.default_rng(seed)
    source = exemplar(rng)
    seam, inside = step_energy(quilt_tile(source, 128, rng), axis)
    assert seam <= inside.max()
    # The measure bites: the exemplar itself, repeated, has a seam beyond anything inside it.
    seam, inside = step_energy(source, axis)
    assert seam > inside.max()


def test_quilting_is_a_function_of_its_rng():
    tiles = [quilt_tile(exemplar(np.random.default_rng(0)), 96, np.random.default_rng(seed)) for seed in (4, 4, 5)]
    assert np.array_equal(tiles[0], tiles[1]) and not np.array_equal(tiles[0], tiles[2])


def test_tiny_exemplar_still_gives_a_periodic_tile():
    tile = quilt_tile(np.full((4, 4, 3), (200, 100, 50), np.uint8), 64, np.random.default_rng(0))
    assert tile.shape == (64, 64, 3)
    assert np.abs(tile.reshape(-1, 3).mean(0) - (200, 100, 50)).max() < 3


def strip(lengths, known):
    segments = []
    for length, share in zip(lengths, known, strict=True):
        mask = np.zeros((10, 10), bool)
        mask[:, : round(10 * share)] = True
        segments.append(StripSegment(np.zeros((10, 10, 3), np.uint8), mask, length, 2.5, np.full(2, 2.5), 50.0))
    return WallStrip(segments, list(range(len(segments))))


@pytest.mark.parametrize("seed", range(25))
def test_strip_pieces_cover_a_wall_without_gaps(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.15, 4.0, int(rng.integers(1, 6)))
    wall = strip(lengths, rng.uniform(0, 1, len(lengths)))
    t0, length = float(rng.uniform(0, 5 * wall.total)), float(rng.uniform(0.05, 30.0))
    pieces = wall.pieces(t0, length)
    assert pieces[0][0] == 0.0 and pieces[-1][1] == pytest.approx(length, abs=2e-6)
    for (_, end, *_), (start, *_) in itertools.pairwise(pieces):
        assert start == end
    for start, end, k, a, b in pieces:
        assert end > start
        assert -1e-9 <= min(a, b) and max(a, b) <= wall.segments[k].length + 1e-9
        # Texture is never stretched; only a sliver of a millimetre at a border may be.
        assert abs(abs(b - a) - (end - start)) <= 1e-3 + 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_strip_runs_back_and_forth_continuously(seed):
    rng = np.random.default_rng(seed)
    wall = strip(rng.uniform(0.3, 3.0, 4), np.ones(4))
    use = list(dict.fromkeys(piece[2] for piece in wall.pieces(0.0, wall.total)))
    start_of = dict(zip(use, np.cumsum([0.0, *(wall.segments[k].length for k in use)]), strict=False))
    pieces = wall.pieces(float(rng.uniform(0, 2 * wall.total)), 3.1 * wall.total)
    for (_, _, k, _, b), (_, _, following, a, _) in itertools.pairwise(pieces):
        assert start_of[k] + b == pytest.approx(start_of[following] + a, abs=2e-3)


def star(rng, corners=11):
    """Random simple polygon (K, 2), counter-clockwise."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(1.0, 6.0, corners)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def area(points, faces):
    a, b, c = (points[faces[:, i]] for i in range(3))
    return ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])) / 2


@pytest.mark.parametrize("seed", range(15))
def test_clipping_conserves_area_and_winding(seed):
    rng = np.random.default_rng(seed)
    polygon, cell = star(rng), float(rng.uniform(0.7, 3.2))
    x, y = polygon.T
    exact = 0.5 * float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
    triangles = polygon[triangulate(polygon)]
    assert (area(triangles.reshape(-1, 2), np.arange(3 * len(triangles)).reshape(-1, 3)) > 0).all()
    total = 0.0
    for i, j in itertools.product(range(-10, 10), repeat=2):
        low = np.array([i, j]) * cell
        points, faces = clip_to_rectangle(triangles, low, low + cell)
        if len(faces):
            pieces = area(points, faces)
            assert (pieces >= -1e-12).all()
            assert (points >= low - 1e-9).all() and (points <= low + cell + 1e-9).all()
            total += pieces.sum()
    assert total == pytest.approx(exact, rel=1e-9)


def test_clipping_outside_gives_nothing():
    points, faces = clip_to_rectangle(np.array([[[0.0, 0], [1, 0], [0, 1]]]), np.array([2.0, 2.0]), np.array([3.0, 3.0]))
    assert points.shape == (0, 2) and faces.shape == (0, 3)


def charts(rng, count, largest):
    """Charts of one colour each, so that a texel tells whose it is."""
    sizes = rng.integers(1, largest, (count, 2))
    return [np.full((*size, 3), (i % 250 + 1, i // 250 + 1, 7), np.uint8) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "largest", "shrinks"), [(40, 60, False), (200, 30, False), (30, 300, True), (3, 2000, True)])
def test_charts_do_not_overlap_and_shrink_when_too_big(seed, count, largest, shrinks):
    rng, size = np.random.default_rng(seed), 512
    images = charts(rng, count, largest)
    texture, offsets, scale = pack_charts(images, size)
    assert texture.shape == (size, size, 3)
    assert (scale < 1).any() == shrinks
    owner = np.zeros((size, size), int)
    for image, (x, y), (sx, sy) in zip(images, offsets.astype(int), scale, strict=True):
        h, w = round(image.shape[0] * sy), round(image.shape[1] * sx)
        # The padding belongs to the chart as well: bilinear sampling at its border reads only its own colour.
        rows, columns = slice(y - PADDING, y + h + PADDING), slice(x - PADDING, x + w + PADDING)
        assert y >= PADDING and x >= PADDING and y + h + PADDING <= size and x + w + PADDING <= size
        assert (texture[rows, columns] == image[0, 0]).all()
        owner[rows, columns] += 1
    assert owner.max() == 1


def test_charts_shrink_alike():
    images = charts(np.random.default_rng(0), 20, 400)
    _, _, scale = pack_charts(images, 512)
    big = np.array([min(image.shape[:2]) > 100 for image in images])
    assert np.ptp(scale[big]) < 0.02


def test_builder_maps_texels_to_the_charts_own_colour():
    builder = MeshBuilder()
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    for colour in (50, 150):
        chart = builder.add_chart(np.full((20, 30, 3), colour, np.uint8))
        builder.add(square, np.array([[0, 20], [30, 20], [30, 0], [0, 0]]), np.array([[0, 1, 2], [0, 2, 3]]), chart=chart,
                    part=builder.add_part(f"part_{colour}"), label=Label.FLOOR, provenance=Provenance.SEEN)  # fmt: skip
    mesh = builder.build(atlas_size=128)
    middle = mesh.uv[mesh.faces].mean(1)
    texel = np.stack([middle[:, 0] * 128, (1 - middle[:, 1]) * 128], 1).astype(int)
    assert mesh.texture[texel[:, 1], texel[:, 0], 0].tolist() == [50, 50, 150, 150]
    assert mesh.part_names == ("part_50", "part_150") and mesh.face_part.tolist() == [0, 0, 1, 1]
