"""Blocks that wait in main memory: the next one is copied while the present one computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class BlockOffload:
    """Keeps some blocks of a network off the device and brings each in one block ahead of its turn.

    Weights are read only. On CUDA the waiting copies are pinned and a stream of its own copies them; elsewhere the same steps run
    without overlap.
    """

    def __init__(self, blocks: nn.ModuleList, device: torch.device | str, *, resident: int) -> None:
        """Take over blocks from number ``resident`` on; those before it, and everything outside blocks, are the caller's.

        Args:
            blocks: run in order, over and over.
            device: where they compute.
        """
        self.device = torch.device(device)
        self._cuda = self.device.type == "cuda"
        self._stream = torch.cuda.Stream(self.device) if self._cuda else None
        self._waiting: dict[int, list[tuple[Any, str, Tensor]]] = {}
        self._ready: dict[int, Any] = {}
        self._numbers = list(range(resident, len(blocks)))
        self._handles = []
        for number in self._numbers:
            block = blocks[number]
            self._waiting[number] = [(module, name, self._pinned(value)) for module, name, value in _tensors(block)]
            self._put_back(number)
            self._handles.append(block.register_forward_pre_hook(lambda module, given, n=number: self._before(n)))
            self._handles.append(block.register_forward_hook(lambda module, given, out, n=number: self._put_back(n)))

    def remove(self) -> None:
        """Leave the blocks in main memory, without hooks."""
        for handle in self._handles:
            handle.remove()

    def _pinned(self, value: Tensor) -> Tensor:
        value = value.detach().to("cpu")
        return value.pin_memory() if self._cuda else value

    def _before(self, number: int) -> None:
        """Have this block on the device, and start copying the one that follows."""
        if number not in self._ready:
            self._fetch(number)
        event = self._ready[number]
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)
        following = self._numbers[(self._numbers.index(number) + 1) % len(self._numbers)]
        if following not in self._ready:
            self._fetch(following)

    def _fetch(self, number: int) -> None:
        with torch.cuda.stream(self._stream) if self._cuda else nullcontext():
            for module, name, value in self._waiting[number]:
                copy = value.to(self.device, non_blocking=True) if self._cuda else value.clone().to(self.device)
                _set(module, name, copy)
            event = torch.cuda.Event() if self._cuda else None
            if event is not None:
                event.record()
        self._ready[number] = event

    def _put_back(self, number: int) -> None:
        for module, name, value in self._waiting[number]:
            if self._cuda and number in self._ready:
                # The allocator must not hand this memory on before the block's kernels have run.
                _get(module, name).record_stream(torch.cuda.current_stream(self.device))
            _set(module, name, value)
        self._ready.pop(number, None)


def _tensors(block: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    for module in block.modules():
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            yield module, name, value


def _get(module: nn.Module, name: str) -> Tensor:
    value = getattr(module, name)
    return value.data if isinstance(value, nn.Parameter) else value


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    if name in module._parameters:
        module._parameters[name].data = value  # type: ignore[union-attr]
    else:
        module._buffers[name] = value
