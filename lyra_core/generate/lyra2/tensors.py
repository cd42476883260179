"""Named tensors in files: what is in them is known before a tensor is read, and one tensor is in memory at a time.

Read: safetensors (a file, or a folder with or without an index), a ``.pth`` state dict (with ``weights_only``), a distributed
checkpoint of torch (``dcp.py``). Written: safetensors.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lyra_core.errors import InputError
from lyra_core.io.files import atomic_path, read_json

INDEX_SUFFIX = ".safetensors.index.json"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names of types in a safetensors header."""
Take = Callable[[Tensor], Tensor]
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Spec:
    """Shape and type of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class TensorSource(Protocol):
    """Tensors by name, read one at a time. A context manager: files are closed on exit."""

    @property
    def path(self) -> Path:
        """Where they are."""
        ...

    @property
    def specs(self) -> Mapping[str, Spec]:
        """Of every tensor, known without reading one."""
        ...

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU."""
        ...

    def files(self) -> list[Path]:
        """Return the files it reads."""
        ...

    def __enter__(self) -> TensorSource: ...

    def __exit__(self, *error: object) -> None: ...


@dataclass
class SafetensorsSource:
    """Tensors of one or several safetensors files."""

    path: Path
    specs: dict[str, Spec] = field(init=False, default_factory=dict)
    _where: dict[str, Any] = field(init=False, default_factory=dict)
    _files: list[Path] = field(init=False, default_factory=list)
    _stack: ExitStack = field(init=False, default_factory=ExitStack)

    def __post_init__(self) -> None:
        self._files = safetensors_files(self.path)
        try:
            for file in self._files:
                self._open(file)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, file: Path) -> None:
        try:
            handle = self._stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            for name in handle.keys():
                if name in self.specs:
                    raise InputError(f"{file}: holds {name}, which another file of {self.path} holds as well; expected it once")
                header = handle.get_slice(name)
                self.specs[name] = Spec(tuple(header.get_shape()), DTYPES[header.get_dtype()])
                self._where[name] = handle
        except (SafetensorError, OSError, KeyError) as error:
            raise InputError(f"{file}: not readable as safetensors: {error}") from error

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU."""
        return self._where[name].get_tensor(name)

    def files(self) -> list[Path]:
        """Return the files it reads."""
        return self._files

    def __enter__(self) -> SafetensorsSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


@dataclass
class PthSource:
    """Tensors of a state dict saved by torch.save, flat or below one of the usual keys."""

    path: Path
    specs: dict[str, Spec] = field(init=False)
    _tensors: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._tensors = read_state_dict(self.path)
        self.specs = {name: Spec(tuple(value.shape), value.dtype) for name, value in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU."""
        return self._tensors[name]

    def files(self) -> list[Path]:
        """Return the files it reads."""
        return [self.path]

    def __enter__(self) -> PthSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._tensors = {}


@dataclass(frozen=True)
class View:
    """Where a tensor comes from."""

    name: str
    """In the source."""
    take: Take | None = None
    """What is made of it (reshaped, sliced); None takes it whole."""


class ViewSource:
    """A source whose tensors have other names, and other shapes where a view says so."""

    def __init__(self, source: TensorSource, views: Mapping[str, View]) -> None:
        self.path, self._source, self._views = source.path, source, dict(views)
        self.specs = {name: _seen(source.specs[view.name], view.take) for name, view in self._views.items()}

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU."""
        view = self._views[name]
        value = self._source.read(view.name)
        return view.take(value).contiguous() if view.take else value

    def files(self) -> list[Path]:
        """Return the files it reads."""
        return self._source.files()

    def __enter__(self) -> ViewSource:
        return self

    def __exit__(self, *error: object) -> None:
        self._source.__exit__(*error)


class StateSource:
    """Tensors of a module in memory; of tied ones the first name counts."""

    def __init__(self, module: nn.Module, *, dtype: torch.dtype | None = None) -> None:
        self.path = Path(type(module).__name__)
        self._dtype = dtype
        self._tensors: dict[str, Tensor] = {}
        seen: set[int] = set()
        for name, value in module.state_dict(keep_vars=True).items():
            if id(value) not in seen:
                self._tensors[name] = value.detach()
                seen.add(id(value))
        self.specs = {name: Spec(tuple(value.shape), self._stored(value)) for name, value in self._tensors.items()}

    def _stored(self, value: Tensor) -> torch.dtype:
        return self._dtype if self._dtype and value.is_floating_point() else value.dtype

    def read(self, name: str) -> Tensor:
        """Return one tensor on the CPU."""
        value = self._tensors[name]
        return value.to("cpu", self._stored(value)).contiguous()

    def files(self) -> list[Path]:
        """Return no file: it reads memory."""
        return []

    def __enter__(self) -> StateSource:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _seen(spec: Spec, take: Take | None) -> Spec:
    if take is None:
        return spec
    value = take(torch.empty(spec.shape, dtype=spec.dtype, device="meta"))
    return Spec(tuple(value.shape), value.dtype)


def open_tensors(path: Path) -> TensorSource:
    """Open a safetensors file or folder, a ``.pth`` / ``.pt`` file, or the folder of a distributed checkpoint.

    Raises:
        InputError: there is nothing of this kind, or it is damaged, or it holds more than tensors.
    """
    from lyra_core.generate.lyra2.dcp import METADATA, DcpSource

    if not path.exists():
        raise InputError(f"{path}: not found; expected a checkpoint")
    if path.is_dir():
        return DcpSource(path) if (path / METADATA).is_file() else SafetensorsSource(path)
    if path.name == METADATA:
        return DcpSource(path.parent)
    if path.suffix == ".safetensors":
        return SafetensorsSource(path)
    if path.suffix in (".pth", ".pt", ".bin"):
        return PthSource(path)
    raise InputError(f"{path}: got a {path.suffix or 'nameless'} file, expected .safetensors, .pth or .pt, or the folder of a "
                     "checkpoint")


def safetensors_files(path: Path) -> list[Path]:
    """Return the files of a safetensors model: those its index names, or all of a folder without index, or the file itself.

    Raises:
        InputError: there are none, or some that the index names are missing.
    """
    if path.is_file():
        return [path]
    indices = sorted(path.glob(f"*{INDEX_SUFFIX}"))
    if len(indices) > 1:
        raise InputError(f"{path}: got {len(indices)} indices ({', '.join(p.name for p in indices)}), "
                         "expected one model in a folder")
    if not indices:
        files = sorted(file for file in path.glob("*.safetensors") if file.name[0] != ".")
        if not files:
            raise InputError(f"{path}: got no *.safetensors and no .metadata, expected the folder of a checkpoint")
        return files
    names = sorted({str(name) for name in read_json(indices[0])["weight_map"].values()})
    missing = [name for name in names if Path(name).name != name or not (path / name).is_file()]
    if missing:
        raise InputError(f"{path}: the index names {', '.join(missing)}, which the folder lacks; expected {len(names)} files")
    return [path / name for name in names]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict with ``weights_only``, mapped into memory where its format allows.

    Raises:
        InputError: it is damaged, holds more than tensors, or cannot be unpickled without running code.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError) as error:
        # Files from before torch 1.6 are no zip archives and cannot be mapped.
        if "mmap" not in str(error):
            raise InputError(f"{path}: not readable as a state dict: {_first_line(error)}") from error
        loaded = _load_without_map(path)
    except (UnpicklingError, OSError, EOFError, IndexError, KeyError) as error:
        raise InputError(f"{path}: refused, expected a file of tensors and nothing else: {_first_line(error)}") from error
    return _tensors_of(loaded, path)


def _load_without_map(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, UnpicklingError, OSError, EOFError, IndexError, KeyError) as error:
        raise InputError(f"{path}: refused, expected a file of tensors and nothing else: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, also where it stands below 'state_dict', 'module' or 'model'."""
    for key in ("state_dict", "module", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"{path}: got a {type(loaded).__name__} without tensors, expected a state dict")
    return {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}


def write_safetensors(
    path: Path, specs: Mapping[str, Spec], read: Callable[[str], Tensor], *, on_bytes: Callable[[int], None] = lambda n: None
) -> None:
    """Write one safetensors file, a tensor at a time, under a temporary name that is renamed at the end.

    Args:
        specs: what is written under which name.
        read: name -> tensor on the CPU, of that shape and type.
        on_bytes: told the size of each tensor after it was written.
    """
    # Wide types first, so that every tensor starts at a multiple of its item size.
    order = sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in order:
        spec = specs[name]
        stop = start + spec.nbytes
        header[name] = {"dtype": DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            tensor = read(name).contiguous()
            assert (tuple(tensor.shape), tensor.dtype) == (specs[name].shape, specs[name].dtype), name
            stream.write(tensor.flatten().view(torch.uint8).numpy().data if tensor.numel() else b"")
            on_bytes(specs[name].nbytes)


def shards(specs: Mapping[str, Spec], limit: int) -> list[list[str]]:
    """Split names into consecutive groups of at most ``limit`` bytes; a larger tensor has its own group."""
    groups: list[list[str]] = []
    size = 0
    for name, spec in specs.items():
        if not groups or size + spec.nbytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += spec.nbytes
    return groups


def total_bytes(specs: Iterable[Spec]) -> int:
    """Return the size of all values."""
    return sum(spec.nbytes for spec in specs)
