"""Captures of a corner with known depth, written in everybody's layout and read back."""

from __future__ import annotations

import json
from pathlib import Path

import capture_room as room
import cv2
import numpy as np
import pytest

from lyra_core.camera.formats import relative_to
from lyra_core.errors import BackendUnavailable, InputError
from lyra_core.imports import colmap
from lyra_core.imports.captures import LazyFrames, select_keyframes
from lyra_core.imports.detect import detect_kind, load_source
from lyra_core.imports.lens import Lens
from lyra_core.types import Provenance, Trajectory

SEQUENCES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "sequences"
ARKIT = ("polycam", "record3d", "stray")


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of capture, written once; none may be changed."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in room.WRITERS}
    for kind, write in room.WRITERS.items():
        write(folders[kind])
    return folders


@pytest.mark.parametrize("kind", list(room.WRITERS))
def test_reads_what_was_written(captures, kind):
    assert detect_kind(captures[kind]) == kind
    source = load_source(captures[kind])
    T = room.poses()
    want = room.Y_UP @ T if kind in ARKIT else T
    if kind == "lyra2":
        K = np.repeat(room.CAMERA.K[None], 4, 0)
        want = relative_to(Trajectory(room.poses(6)[:4], K, room.W, room.H), np.eye(4)).T_world_camera
        T = room.poses(6)[:4]
    assert source.kind == kind and len(source.frames) == 4
    focal = 585 * room.W / 640
    K = np.array([[focal, 0, room.W / 2], [0, focal, room.H / 2], [0, 0, 1]]) if kind == "7scenes" else room.CAMERA.K
    for frame, pose, truth in zip(source.frames, want, T, strict=True):
        rgb, depth = room.seen(truth)
        assert np.abs(frame.T_world_camera - pose).max() < 1e-6
        assert np.abs(frame.camera.K - K).max() < 1e-9
        # Video loses some colour; all else is stored without loss.
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < (12 if kind in ("stray", "lyra2") else 1e-9)
        _check_depth(frame, depth, kind)
    assert set(source.files) and all(file.is_file() for file in source.files)


def _check_depth(frame, depth, kind):
    known = np.isfinite(frame.depth)
    assert np.array_equal(known, frame.provenance == Provenance.SEEN) and (frame.provenance[~known] == 255).all()
    if kind in ("colmap", "lyra2"):
        assert not known.any()
        return
    assert not known[:, :4].any() and known[3:, 8:].mean() > 0.9
    if kind == "polycam":  # half size: nearest numbers, and the first row of low confidence is gone
        assert not known[:2].any() and known[2:4, 8:].all()
        error = np.abs(frame.depth[::2, ::2] - depth[::2, ::2])
        assert np.nanmax(error) < 1e-3
        return
    assert np.nanmax(np.abs(frame.depth - depth)) < 1e-3


def test_units_and_up_are_those_of_the_format(captures):
    found = {kind: load_source(folder) for kind, folder in captures.items()}
    metric = {kind for kind, source in found.items() if source.metres_per_unit == 1.0 and source.unit_stated_by}
    assert metric == {"nerfstudio", "tum", "7scenes", "polycam", "record3d", "stray", "posed"}
    for kind in ARKIT:
        assert np.array_equal(found[kind].up, [0, 1, 0])
    assert np.array_equal(found["posed"].up, [0, 0, 1]) and found["colmap"].up is None


def test_points_lie_in_the_frame_of_the_poses(captures):
    assert np.allclose(load_source(captures["nerfstudio"]).points, [[1, 2, 3]])
    source = load_source(captures["colmap"])
    assert source.facts["mean_reprojection_error_px"] < 1e-5 and source.facts["observations"] == 4 * len(source.points)


def test_colmap_binary_is_the_same_as_text(captures, tmp_path):
    room.write_colmap(tmp_path, binary=True)
    text, binary = (colmap.read_model(folder / "sparse/0") for folder in (captures["colmap"], tmp_path))
    assert text.lenses == binary.lenses and text.names == binary.names
    assert np.abs(text.T_world_camera - binary.T_world_camera).max() < 1e-12
    assert np.abs(text.points - binary.points).max() < 1e-12
    for a, b in zip(text.pixels, binary.pixels, strict=True):
        assert np.abs(a - b).max() < 1e-9


def test_colmaps_own_error_of_a_real_model():
    folder = SEQUENCES / "tum_fr3_office"
    if not folder.exists():
        pytest.skip("no evaluation data here")
    model = colmap.read_model(folder / "sparse/0")
    facts = colmap.reprojection(model)
    seen_by = np.bincount(np.searchsorted(model.point_ids, np.concatenate([p[p >= 0] for p in model.pixel_points])))
    assert seen_by.sum() == facts["observations"] and len(seen_by) == len(model.points)
    # COLMAP states each point's mean error; weighted by how often it is seen they give the mean over all observations.
    assert abs((model.point_errors * seen_by).sum() / seen_by.sum() - facts["mean_reprojection_error_px"]) < 1e-6
    source = load_source(folder, max_frames=None)
    assert len(source.frames) == 17 and len(source.points) == 2128


def test_a_dense_map_of_colmap_is_read(captures, tmp_path):
    room.write_colmap(tmp_path)
    maps = tmp_path / "stereo" / "depth_maps"
    maps.mkdir(parents=True)
    depth = room.seen(room.poses()[1])[1]
    (maps / "1.png.geometric.bin").write_bytes(b"%d&%d&1&" % (room.W, room.H) + depth.astype("<f4").tobytes())
    frames = load_source(tmp_path).frames
    assert np.array_equal(frames[1].depth, depth) and np.isnan(frames[0].depth).all()


def test_instant_ngp_and_blender_angles(tmp_path):
    T = room.poses()[:2]
    for i in range(2):
        room.put(tmp_path / f"train/r_{i}.png", room.seen(T[i])[0])
    angle = 2 * np.arctan(room.W / 2 / 60)
    frames = [{"file_path": f"./train/r_{i}", "transform_matrix": (t @ room.OPENGL).tolist()} for i, t in enumerate(T)]
    room.put_text(tmp_path / "transforms_train.json", json.dumps({"camera_angle_x": angle, "frames": frames}))
    camera = load_source(tmp_path).frames[1].camera
    assert np.allclose(camera.K, [[60, 0, room.W / 2], [0, 60, room.H / 2], [0, 0, 1]])


@pytest.mark.parametrize("model", ["opencv", "fisheye"])
def test_distortion_is_taken_out_as_opencv_does_it(model):
    bends = (-0.28, 0.07, 1e-3, -5e-4, 0.01) if model == "opencv" else (-0.05, 0.01, -2e-3, 1e-3)
    lens = Lens(model, 320, 240, 200.0, 205.0, 158.0, 121.0, bends)
    camera = lens.camera()
    # OpenCV counts pixels from their centres.
    K, K_new = lens.K, camera.K.copy()
    for k in (K, K_new):
        k[:2, 2] -= 0.5
    init = cv2.initUndistortRectifyMap if model == "opencv" else cv2.fisheye.initUndistortRectifyMap
    u, v = init(K, np.array(bends), np.eye(3), K_new, (320, 240), cv2.CV_32FC1)
    grid = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    want = cv2.remap(grid, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(lens.straightened(grid).astype(int) - want).max() <= 2
    # No blank: every pixel comes from inside of the picture, and a little more view would not.
    assert u.min() > -0.6 and v.min() > -0.6 and u.max() < 319.6 and v.max() < 239.6
    assert min(u.min(), v.min(), 319 - u.max(), 239 - v.max()) < 3


def test_depth_is_straightened_with_its_picture():
    lens = Lens("opencv", 64, 48, 60.0, 62.0, 31.0, 25.0, (-0.2, 0.05))
    depth = np.arange(64 * 48, dtype=np.float32).reshape(48, 64) + 1
    depth[:, :8] = np.nan
    out = lens.straightened(depth, nearest=True)
    assert np.isin(out[np.isfinite(out)], depth).all() and np.isnan(out[:, :4]).all() and np.isfinite(out[:, 20:]).all()


@pytest.mark.parametrize("name", [m[0] for m in colmap.MODELS])
def test_every_colmap_model_bends_near_rays_little(name, tmp_path):
    keys = next(m[1] for m in colmap.MODELS if m[0] == name).split()
    known = {"f": 300.0, "fx": 300.0, "fy": 300.0, "cx": 160.0, "cy": 120.0}
    said = [known.get(key, 0.01 if name != "FOV" else 0.9) for key in keys]
    room.put_text(tmp_path / "cameras.txt", f"1 {name} 320 240 {' '.join(map(str, said))}\n")
    lens = colmap._cameras_txt(tmp_path / "cameras.txt")[1]
    u, v = lens.projected(np.array([0.0, 0.01]), np.array([0.0, 0.0]))
    scale = 2 * np.tan(0.45) / 0.9 if name == "FOV" else 1.0
    assert np.allclose([u[0], v[0]], [160, 120]) and abs(u[1] - 160 - 3 * scale) < 0.02
    camera = lens.camera()
    assert 0.3 < camera.K[0, 0] / 300 < 3


def test_frames_are_lazy_scaled_and_sliced(captures):
    frames = load_source(captures["posed"], max_side=32).frames
    assert isinstance(frames, LazyFrames) and not frames._recent
    frame = frames[-1]
    assert frame.rgb.shape == (24, 32, 3) and np.allclose(frame.camera.K[0], room.CAMERA.K[0] / 2)
    assert np.array_equal(frames.camera(3).K, frame.camera.K) and frames[3] is frame
    assert len(frames[1:3]) == 2 and np.array_equal(frames[1:3][0].depth, frames[1].depth, equal_nan=True)
    points = frame.points()[np.isfinite(frame.depth)]
    off = np.min([np.abs(points @ n - d) for n, d in room.PLANES], axis=0)
    assert np.median(off) < 0.03  # nearest depth at half the size moves by half a pixel
    with pytest.raises(IndexError):
        frames[4]


def test_keyframes_cover_the_motion_and_prefer_sharp_pictures(tmp_path):
    room.write_posed(tmp_path)
    records = [load_source(tmp_path).frames.records[i] for i in (0, 0, 0, 0, 0, 1, 2, 3)]
    kept = select_keyframes(records, 4, metric=True)
    assert [record.name for record in kept] == ["0_rgb.png", "1_rgb.png", "2_rgb.png", "3_rgb.png"]
    rgb = room.seen(room.poses()[1])[0]
    room.put(tmp_path / "blurred_rgb.png", cv2.GaussianBlur(rgb, (9, 9), 3))
    data = json.loads((tmp_path / "cameras.json").read_text())
    data["frames"].insert(1, {**data["frames"][1], "rgb": "blurred_rgb.png"})
    room.put_text(tmp_path / "cameras.json", json.dumps(data))
    assert "blurred_rgb.png" not in [record.name for record in load_source(tmp_path, max_frames=3).frames.records]


def test_videos_are_read_backwards_too(captures):
    frames = LazyFrames(load_source(captures["stray"]).frames.records, keep=1)
    backwards = [frames[i].rgb for i in (3, 1, 0)]
    assert np.array_equal(backwards[0], frames[3].rgb) and not np.array_equal(backwards[0], backwards[1])


def test_lzfse_depth_names_what_reads_it(captures, tmp_path):
    room.write_record3d(tmp_path)
    (tmp_path / "rgb").rename(tmp_path / "rgbd")
    for i in range(4):
        (tmp_path / f"depth/{i}.png").unlink()
        (tmp_path / f"rgbd/{i}.depth").write_bytes(b"bvx2" + bytes(100))
    data = json.loads((tmp_path / "metadata.json").read_text())
    room.put_text(tmp_path / "metadata.json", json.dumps({**data, "dw": 8, "dh": 6}))
    with pytest.raises((BackendUnavailable, InputError), match="LZFSE"):
        load_source(tmp_path).frames[0]


def test_intrinsics_by_hand_and_by_the_freiburg_number(tmp_path):
    folder = tmp_path / "rgbd_dataset_freiburg1_desk"
    room.write_tum(folder)
    (folder / "calibration.txt").unlink()
    lens = load_source(folder).frames.records[0].lens
    # The calibration is that of 640x480 px, the pictures here are a tenth of it.
    assert np.allclose((lens.fx, lens.cx, lens.coefficients[0]), (51.73, 31.91, 0.2624))
    assert load_source(folder, intrinsics=(60, 62, 31, 25)).frames[0].camera.K[0, 0] == 60


def test_record3d_depth_as_exr(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    room.write_record3d(tmp_path)
    for i, T in enumerate(room.poses()):
        (tmp_path / f"depth/{i}.png").unlink()
        depth = room.seen(T)[1][::2, ::2].copy()
        depth[0] = np.nan
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"R": depth}).write(str(tmp_path / f"depth/{i}.exr"))
    frame = load_source(tmp_path).frames[2]
    want = room.seen(room.poses()[2])[1]
    assert np.isnan(frame.depth[:2]).all() and np.array_equal(frame.depth[2::2, ::2], want[2::2, ::2])
