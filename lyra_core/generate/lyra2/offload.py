"""Blocks that wait in main memory: the next one is copied while the present one computes.

A full-size block computes 55 TFLOP per pass and weighs 0.8 GB in bfloat16: its copy over PCIe is done long before its turn.
diffusers' group offloading does this too, for all blocks or none; here some may stay, what the card holds is fixed from the
start, and main memory is pinned to the byte (torch's own pinned tensors are rounded up to powers of two: 34 GB would take 50).
"""

from __future__ import annotations

import functools
import logging
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lyra_core.errors import ConfigError

_LOG = logging.getLogger(__name__)
ALIGNMENT = 256
"""Of tensors within a buffer [B]."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor of a block lies in its buffer."""

    module: str
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    """[B]"""

    @property
    def stop(self) -> int:
        """[B]"""
        return self.start + torch.Size(self.shape).numel() * self.dtype.itemsize

    def view(self, buffer: Tensor) -> Tensor:
        """Return the tensor in a buffer of bytes."""
        return buffer[self.start : self.stop].view(self.dtype).view(self.shape)


def layout_of(block: nn.Module) -> tuple[_Place, ...]:
    """Return where each parameter and buffer of a block lies if all of them share one buffer."""
    places, start = [], 0
    for path, module in block.named_modules():
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            places.append(_Place(path, name, value.dtype, tuple(value.shape), start))
            start = -(-places[-1].stop // ALIGNMENT) * ALIGNMENT
    return tuple(places)


class BlockOffload:
    """Keeps some blocks of a network in main memory and brings each onto the device one block ahead of its turn.

    The waiting blocks' tensors are views of a few buffers on the device (slots), for good: only what is in a slot changes. For
    inference; weights must not be changed or read from outside until ``remove``.
    """

    def __init__(self, blocks: nn.ModuleList, device: torch.device | str, *, resident: int, slots: int = 2) -> None:
        """Take over blocks from number ``resident`` on; those before it, and everything outside blocks, are the caller's.

        Args:
            blocks: run in order, over and over.
            device: where they compute.
            slots: blocks on the device beside the resident ones; with one, nothing is copied ahead.

        Raises:
            ConfigError: blocks that differ in the shape or type of a tensor.
        """
        self.device = torch.device(device)
        self._blocks, self._numbers = blocks, list(range(resident, len(blocks)))
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._layout = layout_of(blocks[resident]) if self._numbers else ()
        size = self._layout[-1].stop if self._layout else 0
        count = min(slots, len(self._numbers))
        self._slots = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(count)]
        self._inside: list[int | None] = [None] * count
        self._copied: list[torch.cuda.Event | None] = [None] * count
        self._used: list[torch.cuda.Event | None] = [None] * count
        self._waiting = {number: self._taken(number, size) for number in self._numbers}
        if self._stream is not None:
            weakref.finalize(self, _unregister, list(self._waiting.values())).atexit = False
        self._handles = []
        for number in self._numbers:
            before = functools.partial(lambda n, module, given: self._before(n), number)
            self._handles.append(blocks[number].register_forward_pre_hook(before))
            self._handles.append(blocks[number].register_forward_hook(lambda module, given, out, n=number: self._after(n)))

    @property
    def waiting_bytes(self) -> int:
        """Main memory taken [B]."""
        return sum(buffer.numel() for buffer in self._waiting.values())

    @property
    def device_bytes(self) -> int:
        """Memory taken on the device [B]; it does not change."""
        return sum(slot.numel() for slot in self._slots)

    def remove(self) -> None:
        """Leave the blocks in main memory, without hooks."""
        for handle in self._handles:
            handle.remove()
        for number, buffer in self._waiting.items():
            self._point(number, buffer)

    def _taken(self, number: int, size: int) -> Tensor:
        """Move a block's values into a pinned buffer and make its tensors views of its slot."""
        block = self._blocks[number]
        if layout_of(block) != self._layout:
            raise ConfigError(f"offload: block {number}: got tensors of other shapes or types than block {self._numbers[0]}'s")
        buffer = torch.empty(size, dtype=torch.uint8)
        for place in self._layout:
            place.view(buffer).copy_(getattr(block.get_submodule(place.module), place.name).detach())
        self._point(number, self._slots[self._slot(number)])
        if self._stream is not None:
            _register(buffer)
        return buffer

    def _point(self, number: int, buffer: Tensor) -> None:
        for place in self._layout:
            module = self._blocks[number].get_submodule(place.module)
            if place.name in module._parameters:
                module._parameters[place.name] = nn.Parameter(place.view(buffer), requires_grad=False)
            else:
                module._buffers[place.name] = place.view(buffer)

    def _slot(self, number: int) -> int:
        return (number - self._numbers[0]) % len(self._slots)

    def _following(self, number: int) -> int:
        return self._numbers[(number + 1 - self._numbers[0]) % len(self._numbers)]

    def _before(self, number: int) -> None:
        """Have this block on the device, and start copying the one that follows."""
        slot = self._slot(number)
        self._fetch(number)
        copied = self._copied[slot]
        if copied is not None:
            torch.cuda.current_stream(self.device).wait_event(copied)
        following = self._following(number)
        if self._slot(following) != slot:
            self._fetch(following)

    def _after(self, number: int) -> None:
        """Allow this block's slot to be overwritten once its kernels have run."""
        slot = self._slot(number)
        if self._stream is not None:
            self._used[slot] = torch.cuda.current_stream(self.device).record_event()  # type: ignore[call-overload]
        following = self._following(number)
        if self._slot(following) == slot:
            self._fetch(following)

    def _fetch(self, number: int) -> None:
        """Copy a block into its slot, behind whatever still reads that."""
        slot = self._slot(number)
        if self._inside[slot] == number:
            return
        self._inside[slot] = number
        used = self._used[slot]
        with self._copying():
            if self._stream is not None and used is not None:
                self._stream.wait_event(used)
            self._slots[slot].copy_(self._waiting[number], non_blocking=True)
            if self._stream is not None:
                self._copied[slot] = self._stream.record_event()  # type: ignore[call-overload]

    def _copying(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _register(buffer: Tensor) -> None:
    """Pin a buffer's memory where it is, so that its copy runs beside the kernels."""
    runtime = torch.cuda.cudart()
    code = runtime.cudaHostRegister(buffer.data_ptr(), buffer.numel(), 0)
    if code != runtime.cudaError.success:
        _LOG.warning("offload: %.1f GB of main memory could not be pinned (%s): copies will not overlap with work",
                     buffer.numel() / 1e9, code)


def _unregister(buffers: list[Tensor]) -> None:
    for buffer in buffers:
        torch.cuda.cudart().cudaHostUnregister(buffer.data_ptr())
