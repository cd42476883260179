"""The report: pictures whose pixels are known, a page that is well formed, and the same bytes twice."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import report_made_up as made_up

from lyra_core.report import ReportInputs, write_report
from lyra_core.report.page import confidence_word
from lyra_core.report.pictures import (
    HORIZON_COLOUR,
    LABEL_COLOURS,
    UNKNOWN_GREY,
    depth_picture,
    horizon_ends,
    photo_overlay,
    pick_views,
    view_caption,
)
from lyra_core.report.topdown import BLOCKED_COLOUR, NO_FLOOR_COLOUR, PROVENANCE_COLOURS, area_m2, topdown_map
from lyra_core.types import Camera, Label, Provenance

VOID = {"meta", "img", "link", "br"}


class Tags(HTMLParser):
    """Checks that tags nest; collects images and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    return made_up.inputs()


@pytest.fixture(scope="module")
def folder(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    write_report(path, inputs)
    return path


def parsed(path: Path) -> Tags:
    tags = Tags()
    tags.feed((path / "report.html").read_text(encoding="utf-8"))
    tags.close()
    return tags


def test_the_page_nests_and_needs_no_other_file(folder: Path) -> None:
    tags = parsed(folder)
    assert tags.open == []
    assert len(tags.sources) == 3 + 6 and all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    for source in tags.sources:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None and picture.min() >= 0 and picture.std() > 5
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "http" not in re.sub(r"base64,[^\"]+", "", html) and "prefers-color-scheme: dark" in html


def test_the_page_states_guesses_numbers_and_areas(folder: Path, inputs: ReportInputs) -> None:
    text = " ".join(parsed(folder).words)
    for note in (*inputs.reading.notes, *inputs.estimate.notes):
        assert note in text
    areas = area_m2(inputs.space)
    assert all(f"{name}: {value:.1f} m²" in text for name, value in areas.items())
    assert "12,034" in text and "74.25 m²" in text and "2,048 px" in text and "True" in text
    assert "between 0.86 and 1.16 m" in text  # exp(-0.15), exp(0.15)
    assert "confidence of the reading: fair" in text and "Nothing found." in text and "CC0-1.0" in text


def test_the_same_inputs_give_the_same_bytes(folder: Path, inputs: ReportInputs, tmp_path: Path) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    write_report(tmp_path, made_up.inputs())
    cv2.setNumThreads(threads)
    for name in ("report.html", "preview.png"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    write_report(tmp_path, replace(inputs, numbers={"triangles": 1}))
    assert (tmp_path / "report.html").read_bytes() != (folder / "report.html").read_bytes()


def test_findings_and_text_from_outside_are_shown_as_text(tmp_path: Path) -> None:
    bad = made_up.inputs(findings=("UsdGeom: <script>alert(1)</script> & more",))
    bad = replace(bad, photo=replace(bad.photo, name="<img src=x onerror=y>.jpg", licence='"><u>'))
    write_report(tmp_path, bad)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in html and "<img src=x" not in html and '"><u>' not in html
    text = " ".join(parsed(tmp_path).words)
    assert "UsdGeom: <script>alert(1)</script> & more" in text and "1 finding " in text + " " and "Nothing found" not in text


def test_preview_shows_all_pictures(folder: Path) -> None:
    sheet = cv2.imread(str(folder / "preview.png"))
    assert sheet.shape[1] == 3 * 520 + 4 * 12
    height, gap, top = 340, 12 + 28, 28 + 60
    for row in range(3):
        for column in range(3):
            box = sheet[top + row * (height + gap):, 12 + column * 532:][:height, :520]
            assert box.std() > 15, (row, column)


@pytest.mark.parametrize("pitch", [-0.2, 0.0, 0.1, 0.3])
def test_horizon_is_where_level_rays_go(pitch: float) -> None:
    camera = Camera.from_focal(256.0, 320, 200)
    (u0, v0), (u1, v1) = horizon_ends(camera, made_up.pitched(pitch))
    assert (u0, u1) == (0.0, 320.0) and v0 == pytest.approx(v1)
    assert v0 == pytest.approx(100 - 256 * np.tan(pitch))


def test_horizon_of_a_rolled_camera_is_tilted_and_of_one_that_looks_down_is_none() -> None:
    camera, roll = Camera.from_focal(256.0, 320, 200), 0.1
    c, s = np.cos(roll), np.sin(roll)
    T = made_up.pitched(0.0)
    T[:3, :3] = T[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    (_, v0), (_, v1) = horizon_ends(camera, T)
    assert (v1 - v0) / 320 == pytest.approx(-np.tan(roll))
    assert horizon_ends(camera, made_up.pitched(np.pi / 2)) is None


def test_overlay_tints_floor_and_obstacle_and_draws_the_horizon(inputs: ReportInputs) -> None:
    camera = inputs.estimate.camera
    out = photo_overlay(inputs.photo.rgb, inputs.reading, inputs.estimate, width=camera.width).astype(int)
    row = round(camera.height / 2 - camera.K[0, 0] * np.tan(0.1))
    assert (out[row, 5:-5] == HORIZON_COLOUR).all(axis=1).mean() > 0.95
    for label in (Label.FLOOR, Label.OBSTACLE):
        inside = cv2.erode((inputs.estimate.labels == label).astype(np.uint8), np.ones((9, 9))) > 0
        inside[:, : camera.width // 2 - 10] &= label == Label.OBSTACLE  # the two drawn lines cross the floor
        tint = 0.62 * inputs.photo.rgb + 0.38 * np.array(LABEL_COLOURS[label])
        assert np.median(abs(out - tint)[inside]) <= 1
    wall = cv2.erode((inputs.estimate.labels == Label.WALL).astype(np.uint8), np.ones((9, 9))) > 0
    wall[row - 6:row + 7] = False
    wall[camera.height // 2 - 3:] = False
    assert (out[wall] == inputs.photo.rgb[wall]).all()


@pytest.mark.parametrize(("width", "height"), [(200, 320), (640, 90)])
def test_portrait_and_panorama(tmp_path: Path, width: int, height: int) -> None:
    write_report(tmp_path, made_up.inputs(width=width, height=height))
    assert (tmp_path / "preview.png").stat().st_size > 10_000


def test_depth_colours_near_red_far_blue_unknown_grey() -> None:
    depth = np.full((60, 90), np.nan, np.float32)
    depth[:, :30], depth[:, 30:60] = 1.0, 10.0
    out = depth_picture(depth, width=90)[:60].astype(int)
    assert (out[:, 60:] == UNKNOWN_GREY).all()
    assert (out[:, 5:25, 0] > out[:, 5:25, 2]).all() and (out[:, 35:55, 2] > out[:, 35:55, 0]).all()


@pytest.mark.parametrize("depth", [np.full((20, 30), np.nan, np.float32), np.full((20, 30), 2.0, np.float32)])
def test_depth_without_contrast_is_drawn(depth: np.ndarray) -> None:
    assert depth_picture(depth, width=300).shape[1] == 300


def test_map_has_x_to_the_right_and_y_up() -> None:
    space = made_up.grid()
    out = topdown_map(space, Camera.from_focal(256.0, 320, 200), size=960)
    scale = 960 / 12.0  # 12 m wide

    def at(x: float, y: float) -> tuple[int, ...]:
        return tuple(out[round((4.0 - y) * scale), round((x + 1.0) * scale)])

    assert at(3.3, -2) == PROVENANCE_COLOURS[Provenance.SEEN] and at(5, 1) == PROVENANCE_COLOURS[Provenance.CONTINUED]
    assert at(9, 1) == PROVENANCE_COLOURS[Provenance.INVENTED]
    assert at(3.5, 0.9) == BLOCKED_COLOUR and at(10.0, -3.5) == NO_FLOOR_COLOUR


def test_map_marks_camera_starts_goals_and_paths(inputs: ReportInputs) -> None:
    camera = inputs.estimate.camera
    plain, full = (topdown_map(inputs.space, camera, episodes=episodes, paths=paths).astype(int)
                   for episodes, paths in (([], []), (inputs.episodes, inputs.paths)))
    changed = np.argwhere((plain != full).any(axis=2))
    scale = 80.0
    for x, y in ((0.5, -1.0), (4.0, -1.2), (8.0, 2.0), (6.0, 0.4)):
        assert np.linalg.norm(changed - [(4 - y) * scale, (x + 1) * scale], axis=1).min() < 6
    outside = np.linalg.norm(changed - [(4 - 3.5) * scale, 1.0 * scale], axis=1).min()
    assert outside > 100


def test_areas_are_counted_by_provenance() -> None:
    areas = area_m2(made_up.grid())
    free = made_up.grid()
    assert sum(areas.values()) == pytest.approx(free.free.sum() * 0.01)
    assert areas["seen"] == pytest.approx((76 * 48 - 10 * 10) * 0.01)


def test_six_views_first_and_last_included(inputs: ReportInputs) -> None:
    chosen = pick_views(inputs.views)
    assert len(chosen) == 6 and chosen[0] is inputs.views[0] and chosen[-1] is inputs.views[-1]
    assert pick_views(inputs.views[:3]) == inputs.views[:3]


def test_caption_counts_the_pixels(inputs: ReportInputs) -> None:
    assert view_caption(inputs.views[4]) == "38 % seen, 38 % continued, 25 % invented"
    unknown = replace(inputs.views[0], provenance=np.full_like(inputs.views[0].provenance, 255))
    assert view_caption(unknown) == "no surface in view"


def test_confidence_in_a_word() -> None:
    assert [confidence_word(value) for value in (0.9, 0.5, 0.1, float("nan"))] == ["good", "fair", "low", "not stated"]
