"""occupancy_map/: map.yaml and map.png as ROS map_server, Nav2 and MobilityGen read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lyra_core.io.files import write_bytes
from lyra_core.io.images import write_image
from lyra_core.navigation.freespace import NO_FLOOR
from lyra_core.types import FreeSpace

OCCUPIED, UNKNOWN, FREE = 0, 205, 254
"""Grey values; with negate 0 the occupancy is (255 - value) / 255, so 205 lies between the two thresholds."""
OCCUPIED_THRESH, FREE_THRESH = 0.65, 0.196


def save_occupancy_map(folder: Path, space: FreeSpace) -> None:
    """Write map.yaml and map.png into a folder.

    Free: the robot's height band is clear over a floor. Occupied: floor below, something in the band. Unknown: no
    floor. The picture's first row is the largest y; ``origin`` is the lower left corner of its lower left pixel [m].
    """
    value = np.full(space.free.shape, UNKNOWN, np.uint8)
    value[space.provenance != NO_FLOOR] = OCCUPIED
    value[space.free] = FREE
    write_image(folder / "map.png", np.ascontiguousarray(value[::-1]))
    x, y = (float(v) for v in space.origin)
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
