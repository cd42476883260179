"""Maps for ROS: map_server and Nav2 read map.yaml, the keepout filter reads keepout.yaml."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.exports.base import ExportCfg, copyright_line
from lyra_core.io.files import write_bytes
from lyra_core.io.images import read_image
from lyra_core.navigation.freespace import NO_FLOOR
from lyra_core.navigation.occupancy import FREE, OCCUPIED, UNKNOWN, save_occupancy_map
from lyra_core.types import FreeSpace, Provenance
from lyra_core.world import World


def write_ros(world: World, folder: Path, name: str, cfg: ExportCfg) -> None:
    """Write map.pgm and keepout.pgm, each with its .yaml, and a README.

    The map is that of occupancy_map/: free, occupied, unknown. In the keepout mask everything that the photo does not show is
    occupied; a robot that trusts the photo alone stays out of it.
    """
    space = world.free_space
    save_occupancy_map(folder, space)
    write_pgm(folder / "map.pgm", read_image(folder / "map.png")[..., 0])
    text = (folder / "map.yaml").read_text()
    (folder / "map.png").unlink()
    for stem in ("map", "keepout"):
        write_bytes(folder / f"{stem}.yaml", text.replace("image: map.png", f"image: {stem}.pgm").encode())
    write_pgm(folder / "keepout.pgm", np.ascontiguousarray(keepout(space)[::-1]))
    write_bytes(folder / "README.txt", _readme(world, space).encode())


def keepout(space: FreeSpace) -> np.ndarray:
    """Return (rows, cols) uint8, row 0 = lowest y: occupied where the floor was not seen, unknown where there is none."""
    value = np.full(space.free.shape, OCCUPIED, np.uint8)
    value[space.provenance == int(Provenance.SEEN)] = FREE
    value[space.provenance == NO_FLOOR] = UNKNOWN
    return value


def write_pgm(path: Path, grey: np.ndarray) -> None:
    """Write (H, W) uint8 as a binary PGM (P5)."""
    head = f"P5\n{grey.shape[1]} {grey.shape[0]}\n255\n".encode()
    write_bytes(path, head + np.ascontiguousarray(grey, np.uint8).tobytes())


def _readme(world: World, space: FreeSpace) -> str:
    return f"""{copyright_line(world, ascii_only=False)}
Frame "map": x, y as in the world, metres; the grid's lower left corner is the origin in the .yaml. Cell {space.cell} m.
map.pgm      254 free, 0 occupied, 205 unknown; for a robot up to {space.robot_height} m high.
keepout.pgm  0 where the floor was not seen in the photo, 254 where it was, 205 where there is none.

Map:      ros2 run nav2_map_server map_server --ros-args -p yaml_filename:=map.yaml
Keepout:  a second map_server with topic_name filter_mask and yaml_filename keepout.yaml, a costmap_filter_info_server of type 0,
          and the plugin nav2_costmap_2d::KeepoutFilter in the global costmap.
"""
