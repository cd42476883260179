"""Run as a program by mesh_usd: read one stage under limits, write arrays or the error, whatever OpenUSD does then."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from lyra_core.errors import InputError, LyraError
from lyra_core.imports.mesh_parts import Reading, join
from lyra_core.imports.mesh_usd import pack

MEMORY = 8 << 30
"""Address space of the process [bytes], where the system can limit it; files add theirs."""


def main(path: str, folder: str, shown_as: str, out: str) -> None:
    """Read the stage at path and write ``out``; errors name the file as the caller did (shown_as)."""
    _limit(MEMORY + 8 * Path(path).stat().st_size)
    from lyra_core.imports.mesh_usd_stage import read_stage

    reading = Reading(Path(path), Path(folder), [])
    try:
        parts, facts = read_stage(reading)
        mesh = join(reading, parts)
        facts |= {"files": [str(file) for file in reading.files if file != reading.path], "notes": list(reading.notes)}
        arrays = pack(mesh, facts)
    except LyraError as error:
        arrays = _fault(str(error).replace(path, shown_as, 1))
    except MemoryError:
        arrays = _fault(f"{shown_as}: needs more memory than {MEMORY >> 30} GiB")
    temporary = Path(out).with_name("part.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    os.replace(temporary, out)
    # The destructors of a library that met a damaged file may hang or crash; nothing is left to do.
    os._exit(0)


def _fault(text: str) -> dict[str, np.ndarray]:
    return {"facts": np.frombuffer(json.dumps({"error": text}).encode(), np.uint8)}


def _limit(size: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ImportError, ValueError, OSError):
        return


if __name__ == "__main__":
    if len(sys.argv) != 5:
        raise InputError("usage: _mesh_usd_child PATH FOLDER SHOWN_AS OUT")
    main(*sys.argv[1:])
