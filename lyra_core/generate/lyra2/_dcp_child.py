"""Print what a distributed checkpoint of torch holds as JSON. Run as a process: its index is a pickle.

A pickle can run code when it is read. This one may name only the classes that torch writes into such an index, and gets plain
records in their place, so that not even torch is imported; any other name ends the process before it is used.
"""

from __future__ import annotations

import json
import pathlib
import pickle
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

REFUSED = 3
"""Exit status for an index that names what it should not."""
UNREADABLE = 4
_METADATA, _FILES = "torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"
DTYPES = (
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int64", "int32", "int16", "int8", "uint8", "bool",
    "complex64", "complex128",
)


class Record:
    """Stands in for a class of the index: takes its attributes and does nothing with them."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state
        if isinstance(state, dict):
            self.__dict__.update(state)


class Index(Record):
    """Stands in for torch's Metadata."""


class TensorEntry(Record):
    """Stands in for TensorStorageMetadata: the entry of a tensor."""


class Place(Record):
    """Stands in for MetadataIndex: the key of a chunk, its tensor's name and its offsets."""

    fqn: str = ""
    offset: tuple[int, ...] | None = None

    def __hash__(self) -> int:
        return hash((self.fqn, self.offset))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and (self.fqn, self.offset) == (other.fqn, other.offset)


def _attribute(owner: Any, name: str) -> Any:
    """Stand in for getattr, by which some Python versions pickle enum members: of the index's one enum only."""
    if owner is not Record:
        raise pickle.UnpicklingError(f"names getattr of {owner!r}")
    return name


ALLOWED: dict[tuple[str, str], Any] = {
    **{(_METADATA, name): Record for name in ("BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "StorageMeta",
                                              "_MEM_FORMAT_ENCODING")},
    (_METADATA, "Metadata"): Index, (_METADATA, "TensorStorageMetadata"): TensorEntry, (_METADATA, "MetadataIndex"): Place,
    **{(_FILES, name): Record for name in ("_StorageInfo", "_StoragePrefix")},
    **{("torch", name): name for name in DTYPES},
    ("torch", "Size"): tuple,
    ("torch.serialization", "_get_layout"): str,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "dict"): dict, ("builtins", "list"): list, ("builtins", "set"): set,
    ("builtins", "getattr"): _attribute,
    **{(module, name): pathlib.PurePosixPath for module in ("pathlib", "pathlib._local")
       for name in ("PosixPath", "PurePosixPath")},
    **{(module, name): pathlib.PureWindowsPath for module in ("pathlib", "pathlib._local")
       for name in ("WindowsPath", "PureWindowsPath")},
}
"""(module, name) in the pickle -> what it gets."""


class MetadataUnpickler(pickle.Unpickler):
    """Knows the classes of a checkpoint's index and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for an allowed class.

        Raises:
            pickle.UnpicklingError: it is not allowed.
        """
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to what is stored elsewhere."""
        raise pickle.UnpicklingError("refers to an object outside itself")


def listing(path: Path) -> dict[str, Any]:
    """Return what an index says: tensors (shape, dtype, chunks with file, offset and length) and other entries' names."""
    with path.open("rb") as stream:
        index = MetadataUnpickler(stream).load()
    if not isinstance(index, Index):
        raise pickle.UnpicklingError(f"holds a {type(index).__name__}")
    held: Any = index
    tensors: dict[str, Any] = {}
    others: list[str] = []
    for name, entry in held.state_dict_metadata.items():
        if isinstance(entry, TensorEntry):
            fields: Any = entry
            chunks = [_chunk(held.storage_data, name, chunk) for chunk in fields.chunks]
            dtype = fields.properties.state[0]
            if dtype not in DTYPES:
                raise pickle.UnpicklingError(f"holds a tensor of type {dtype!r}")
            tensors[name] = {"shape": list(fields.size), "dtype": dtype, "chunks": chunks}
        else:
            others.append(name)
    return {"tensors": tensors, "others": others}


def _chunk(storage: dict[Any, Any], name: str, chunk: Any) -> dict[str, Any]:
    key = Place()
    key.fqn, key.offset = name, tuple(chunk.offsets)
    place = storage[key]
    return {
        "offsets": list(chunk.offsets), "sizes": list(chunk.sizes), "file": str(place.relative_path), "start": int(place.offset),
        "length": int(place.length), "transforms": [str(t) for t in getattr(place, "transform_descriptors", None) or ()],
    }


def main(path: Path) -> int:
    """Print the listing of an index; say on stderr why there is none."""
    try:
        json.dump(listing(path), sys.stdout)
    except pickle.UnpicklingError as error:
        print(error, file=sys.stderr)
        return UNREADABLE if "truncated" in str(error) else REFUSED
    except (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return UNREADABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
