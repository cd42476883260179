"""Read a distributed checkpoint of torch (``.metadata`` and ``*.distcp``) without a process group and without its pickle.

The index is read by a child process (``_dcp_child.py``) that knows only the index's own classes; tensors are read here, one at
a time, with ``weights_only``.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyra_core.errors import InputError
from lyra_core.generate.lyra2.tensors import DTYPE_NAMES, Spec

METADATA = ".metadata"
_CHILD_TIMEOUT = 600.0
"""Seconds; the index of the 14B network is read in two."""


@dataclass
class DcpSource:
    """Tensors of a distributed checkpoint."""

    path: Path
    specs: dict[str, Spec] = field(init=False)
    others: list[str] = field(init=False)
    """Names of entries that are no tensors; never read."""
    _chunks: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        listing = read_listing(self.path)
        self.others = listing["others"]
        self.specs = {name: self._spec(name, entry) for name, entry in listing["tensors"].items()}
        self._chunks = {name: entry["chunks"] for name, entry in listing["tensors"].items()}
        missing = [file.name for file in self.files() if not file.is_file()]
        if missing:
            raise InputError(f"{self.path}: the index names {', '.join(missing)}, which the folder lacks; was it fetched whole?")

    def _spec(self, name: str, entry: dict[str, Any]) -> Spec:
        spec = Spec(tuple(entry["shape"]), getattr(torch, entry["dtype"]))
        faults = [chunk["file"] for chunk in entry["chunks"] if Path(chunk["file"]).name != chunk["file"]]
        if faults or spec.dtype not in DTYPE_NAMES or any(chunk["transforms"] for chunk in entry["chunks"]):
            raise InputError(f"{self.path / METADATA}: {name}: got {faults or entry['dtype']} with transforms "
                             f"{[c['transforms'] for c in entry['chunks']]}, expected plain tensors in files of this folder")
        covered = sum(torch.Size(chunk["sizes"]).numel() for chunk in entry["chunks"])
        if covered != torch.Size(spec.shape).numel():
            raise InputError(f"{self.path / METADATA}: {name}: its chunks hold {covered} values, expected shape {spec.shape}")
        return spec

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU, put together from its chunks.

        Raises:
            InputError: a chunk is damaged.
        """
        spec = self.specs[name]
        out = torch.empty(spec.shape, dtype=spec.dtype)
        for chunk in self._chunks[name]:
            target = out[tuple(slice(o, o + s) for o, s in zip(chunk["offsets"], chunk["sizes"], strict=True))]
            value = self._read_chunk(name, chunk)
            if not isinstance(value, Tensor) or (value.shape, value.dtype) != (target.shape, spec.dtype):
                raise InputError(f"{self.path / chunk['file']}: {name}: expected {spec.dtype} of shape {tuple(target.shape)}")
            target.copy_(value)
        return out

    def _read_chunk(self, name: str, chunk: dict[str, Any]) -> Any:
        file = self.path / chunk["file"]
        with file.open("rb") as stream:
            stream.seek(chunk["start"])
            data = stream.read(chunk["length"])
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            # torch raises whatever its archive reader or unpickler stumbles over.
            raise InputError(f"{file}: {name}: not readable as a tensor: {error}") from error

    def files(self) -> list[Path]:
        """Return the files it reads."""
        names = sorted({chunk["file"] for chunks in self._chunks.values() for chunk in chunks})
        return [self.path / METADATA, *(self.path / name for name in names)]

    def __enter__(self) -> DcpSource:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def read_listing(folder: Path) -> dict[str, Any]:
    """Return what a checkpoint's index says, read by a child process.

    Raises:
        InputError: the index is damaged, or names what no index of a checkpoint names.
    """
    from lyra_core.generate.lyra2._dcp_child import REFUSED

    path = folder / METADATA
    command = [sys.executable, "-m", "lyra_core.generate.lyra2._dcp_child", str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: its reader was stopped after {_CHILD_TIMEOUT:.0f} s") from error
    if done.returncode == 0:
        return json.loads(done.stdout)
    said = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    if done.returncode == REFUSED:
        raise InputError(f"{path}: refused: it {said}, expected only the classes of a checkpoint's index; do not trust this file")
    raise InputError(f"{path}: not readable as the index of a distributed checkpoint: {said}")
