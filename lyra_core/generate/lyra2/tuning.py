"""Kernels that compute the same faster: which attention kernel, and compiled blocks. Neither is an approximation; 'sage' is, and is
asked for by name (see speed.py).

Half of a full-size pass is attention over 38,246 tokens, so the kernel matters more than anything else: from compute capability 9.0
on, cuDNN's is the fastest in torch, and torch does not choose it by itself.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
from typing import Literal

import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from lyra_core.errors import BackendUnavailable
from lyra_core.generate.lyra2.network import Lyra2Network

_LOG = logging.getLogger(__name__)
Attention = Literal["native", "cudnn", "sage"]
KERNELS = {"native": "native", "cudnn": "_native_cudnn", "sage": "sage"}
"""Our names -> diffusers'. 'native': torch's own choice; 'sage': SageAttention 2, 8-bit products."""
SAGE_INSTALL = "pip install 'sageattention>=2.1.1' --no-build-isolation (built from source, needs the CUDA compiler)"


def exact_attention(device: torch.device) -> Attention:
    """Return the fastest attention on a device that rounds as bfloat16 does."""
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0):
        return "cudnn"
    return "native"


def use_attention(network: Lyra2Network, name: Attention) -> None:
    """Let every attention of the network run on one kernel.

    diffusers' own ``set_attention_backend`` does this as well, but for every model of the process.

    Raises:
        BackendUnavailable: SageAttention is asked for and not installed.
    """
    if name == "sage" and importlib.util.find_spec("sageattention") is None:
        raise BackendUnavailable("SageAttention", reason="the package sageattention is missing", install=SAGE_INSTALL)
    for processor in network.attn_processors.values():
        processor._attention_backend = AttentionBackendName(KERNELS[name])  # type: ignore[union-attr]


def compile_blocks(network: Lyra2Network) -> None:
    """Compile the block once for all of them: norms, modulation, rotation and rounding to 8 bit become few kernels.

    Only ``forward`` is compiled, so that hooks (blocks that wait in main memory) stay outside. The first two passes take a minute.
    Results differ from uncompiled ones by rounding.
    """
    for block in network.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)


def can_compile(device: torch.device) -> bool:
    """Tell whether torch can compile for a device here: it needs Triton and a C compiler."""
    compiler = any(shutil.which(name) for name in ("cc", "gcc", "clang"))
    return compiler and (device.type == "cpu" or importlib.util.find_spec("triton") is not None)


def tune(network: Lyra2Network, device: torch.device, *, sage: bool = False) -> None:
    """Choose kernels for a placed network. On the CPU, where compiling takes longer than it saves, nothing is compiled."""
    use_attention(network, "sage" if sage else exact_attention(device))
    if device.type != "cuda":
        return
    if can_compile(device):
        compile_blocks(network)
    else:
        _LOG.warning("the network's blocks run uncompiled, which is slower: Triton or a C compiler is missing")
