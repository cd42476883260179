"""occupancy_map/: map.yaml and map.png as ROS map_server, Nav2 and MobilityGen read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from lyra_core.io.files import write_bytes
from lyra_core.io.images import write_image
from lyra_core.navigation.freespace import NO_FLOOR
from lyra_core.types import FreeSpace

OCCUPIED, UNKNOWN, FREE = 0, 205, 254
"""Grey values; with negate 0 the occupancy is (255 - value) / 255, so 205 lies between the two thresholds."""
OCCUPIED_THRESH, FREE_THRESH = 0.65, 0.196


def save_occupancy_map(folder: Path, space: FreeSpace) -> None:
    """Write map.yaml and map.png into a folder.

    Free: the robot's height band is clear over a floor. Occupied: floor below and something in the band, or the rim of the
    floor. Unknown: everything else without a floor. A wall may stand exactly between two cells, and planners may cross what is
    unknown (Nav2's allow_unknown), so every free cell has only free and occupied neighbours. The picture's first row is the
    largest y; ``origin`` is the lower left corner of its lower left pixel [m].
    """
    value = np.full(space.free.shape, UNKNOWN, np.uint8)
    value[(space.provenance != NO_FLOOR) | ndimage.binary_dilation(space.free, np.ones((3, 3), bool))] = OCCUPIED
    value[space.free] = FREE
    write_image(folder / "map.png", np.ascontiguousarray(value[::-1]))
    x, y = (round(float(v), 9) for v in space.origin)
    text = (
        "image: map.png\n"
        "mode: trinary\n"
        f"resolution: {float(space.cell)!r}\n"
        f"origin: [{x!r}, {y!r}, 0.0]\n"
        "negate: 0\n"
        f"occupied_thresh: {OCCUPIED_THRESH}\n"
        f"free_thresh: {FREE_THRESH}\n"
    )
    write_bytes(folder / "map.yaml", text.encode())
