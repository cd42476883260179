"""LAS 1.4, point data record format 7 (ASPRS LAS Specification 1.4-R15): classified points with colour and normals."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError
from lyra_core.exports.base import ExportCfg, about, copyright_line
from lyra_core.exports.points import surface_points
from lyra_core.io.files import write_bytes
from lyra_core.types import Label
from lyra_core.world import World

SCALE = 0.001
"""Size of one step of the stored integers [m]."""
MAX_SPAN = 2_000_000
"""What 32-bit steps reach [m]."""
CLASSES = {Label.UNLABELED: 1, Label.FLOOR: 2, Label.WALL: 6, Label.CEILING: 6, Label.OBSTACLE: 64, Label.SKY: 1, Label.DOOR: 65}
"""1 unclassified, 2 ground, 6 building are the standard's; 64 and up are free for the writer: 64 object, 65 door."""
_HEADER, _VLR, _WKT = 375, 54, 1 << 4
_RECORD = np.dtype([("x", "<i4"), ("y", "<i4"), ("z", "<i4"), ("intensity", "<u2"), ("returns", "u1"), ("flags", "u1"),
                    ("classification", "u1"), ("user_data", "u1"), ("scan_angle", "<i2"), ("point_source_id", "<u2"),
                    ("gps_time", "<f8"), ("red", "<u2"), ("green", "<u2"), ("blue", "<u2"),
                    ("NormalX", "<f4"), ("NormalY", "<f4"), ("NormalZ", "<f4")])


def write_las(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write the points, Z up, metres, in the world's own frame: the file states no place on Earth, because none is known.

    The class is of CLASSES; user data holds lyra's label number; the point source id is 1 + provenance (1 = seen in the photo,
    2 = continued, 3 = invented); normals are extra bytes.
    """
    points = surface_points(world, cfg)
    offset = np.floor(points.xyz.min(0))
    span = float(np.ptp(points.xyz, axis=0).max())
    if span > MAX_SPAN:
        raise InputError(f"{world.folder / 'mesh.npz'}: got {span:.0f} m across, expected at most {MAX_SPAN}")
    rows = np.zeros(len(points.xyz), _RECORD)
    steps = np.rint((points.xyz - offset) / SCALE).astype(np.int32)
    rows["x"], rows["y"], rows["z"] = steps.T
    rows["returns"] = 1 | 1 << 4
    table = np.zeros(256, np.uint8)
    table[[int(label) for label in CLASSES]] = list(CLASSES.values())
    rows["classification"], rows["user_data"] = table[points.label], points.label
    rows["point_source_id"] = points.provenance.astype(np.uint16) + 1
    rows["red"], rows["green"], rows["blue"] = points.rgb.T.astype(np.uint16) * 257
    rows["NormalX"], rows["NormalY"], rows["NormalZ"] = points.normal.T
    text = (f"{copyright_line(world)}. Metres, Z up, local frame. Classes 64 object, 65 door. "
            "Point source 1 seen, 2 continued, 3 invented.")
    records = _vlr("lyra-worlds", 1, "about", text.encode()) + _vlr("LASF_Spec", 4, "extra bytes", _extra_bytes(points.normal))
    head = _header(len(rows), steps, offset, len(records), about(world)["generator"])
    write_bytes(folder / name, head + records + rows.tobytes())


def _header(count: int, steps: np.ndarray, offset: np.ndarray, records: int, software: str) -> bytes:
    """Return the public header block, 375 bytes. Dates are zero, so that the same world gives the same bytes."""
    low, high = steps.min(0) * SCALE + offset, steps.max(0) * SCALE + offset
    bounds = [value for k in range(3) for value in (high[k], low[k])]
    head = struct.pack("<4sHH16sBB32s32sHHHIIBHI5I", b"LASF", 0, _WKT, b"", 1, 4, b"lyra-worlds", software.encode()[:31], 0, 0,
                       _HEADER, _HEADER + records, 2, 7, _RECORD.itemsize, 0, 0, 0, 0, 0, 0)
    head += struct.pack("<12d", SCALE, SCALE, SCALE, *offset, *bounds)
    return head + struct.pack("<QQIQ15Q", 0, 0, 0, count, count, *([0] * 14))


def _vlr(user: str, record: int, description: str, data: bytes) -> bytes:
    data = data[:65535]
    return struct.pack("<H16sHH32s", 0, user.encode(), record, len(data), description.encode()) + data


def _extra_bytes(normal: np.ndarray) -> bytes:
    """Describe three float32 values behind each record (192 bytes each; type 9)."""
    rows = []
    for i, axis in enumerate("XYZ"):
        low, high = float(normal[:, i].min()), float(normal[:, i].max())
        rows.append(struct.pack("<HBB32s4x24x6d48x32s", 0, 9, 0b110, f"Normal{axis}".encode(), low, 0, 0, high, 0, 0,
                                f"unit normal, {axis}".encode()))
    return b"".join(rows)
