"""Several GPUs, one world: rank 0 builds it, the other ranks only help with velocities.

``torchrun --nproc-per-node 2 -m lyra_core.ranks create photo.jpg -o world --generator lyra2`` runs the command line on rank 0; the
others load the same weights and wait for work. Two ways to share it, chosen by the number of ranks:

- guidance-parallel: with two ranks and guidance, one computes the prompt's pass and one the negative prompt's;
- sequence-parallel: tokens are split over the ranks of a pass; each block gathers keys and values, so any token count, any number
  of ranks and any attention kernel will do. (diffusers' context parallel is experimental, knows some of the kernels, and has no
  place for what our blocks are told of cameras and correspondences, which is split with the tokens.)

With an even number of ranks above two, both: each pass has half of them. Tensors travel by broadcast and all-gather; no objects do.
"""

# pyright: reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false
# To a type checker, what is registered in a torch module is a tensor or a module; here it is known which.

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lyra_core.config import Lyra2Cfg, from_dict
from lyra_core.generate.lyra2.components import Components, conditions_of
from lyra_core.generate.lyra2.conditioning import ChunkInputs
from lyra_core.generate.lyra2.loading import load_parts
from lyra_core.generate.lyra2.network import Conditions, Lyra2Network, SelfAttentionProcessor
from lyra_core.generate.lyra2.samplers import TRAIN_STEPS, Velocity, guided
from lyra_core.generate.lyra2.speed import SKIP_BELOW, FirstBlockCache, speed_names

HEADER = 128
"""int64 numbers that announce a message: its kind, then count, and dtype and shape of each tensor."""
STOP, CHUNK, STEP, SETTINGS = 0, 1, 2, 3
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64)


@dataclass(frozen=True)
class Team:
    """Which part of the work this rank does."""

    passes: int
    """1 or 2: passes (prompt, negative prompt) computed at the same time."""
    row: int
    """Which pass."""
    group: Any
    """Ranks that share this pass's tokens."""
    size: int
    position: int

    @staticmethod
    def make(*, guidance: bool) -> Team:
        """Split all ranks; every rank must call this at the same time."""
        world, rank = dist.get_world_size(), dist.get_rank()
        passes = 2 if guidance and world % 2 == 0 else 1
        size = world // passes
        groups = [dist.new_group(list(range(row * size, (row + 1) * size))) for row in range(passes)]
        row = rank // size
        return Team(passes, row, groups[row], size, rank % size)


class GatheredAttention(SelfAttentionProcessor):
    """Self attention of this rank's tokens to everybody's."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self.total = 0

    # Collectives stay outside of compiled code, and the token count out of its guards.
    @torch.compiler.disable
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return attention of the own queries to gathered keys and values."""
        both = gathered(torch.stack([key, value]), self._team, self.total, axis=2)
        return super().attend(query, both[0], both[1])


def share(total: int, team: Team) -> slice:
    """Return this rank's part of ``total`` tokens; the last ranks may have fewer."""
    part = math.ceil(total / team.size)
    return slice(min(total, team.position * part), min(total, (team.position + 1) * part))


def gathered(x: Tensor, team: Team, total: int, *, axis: int) -> Tensor:
    """Return the parts of all ranks of the pass along an axis, in order."""
    if team.size == 1:
        return x
    part = math.ceil(total / team.size)
    x = x.movedim(axis, 0).contiguous()
    if len(x) < part:
        x = torch.cat([x, x.new_zeros(part - len(x), *x.shape[1:])])
    # Only the end of the last parts is filling, so the joined parts are right up to the total.
    out = x.new_empty(part * team.size, *x.shape[1:])
    dist.all_gather_into_tensor(out, x, group=team.group)
    return out[:total].movedim(0, axis)


def split_blocks(network: Lyra2Network, team: Team) -> None:
    """Let the network run its blocks on this rank's tokens and gather the result; everything else stays as it is."""
    if team.size == 1:
        return
    processors = [GatheredAttention(team) for _ in network.blocks]
    for block, processor in zip(network.blocks, processors, strict=True):
        processor._attention_backend = block.attn1.processor._attention_backend
        block.attn1.set_processor(processor)
    run_all = network.run_blocks

    def run(tokens: Tensor, context: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor], conditions: Any) -> Tensor:
        total = tokens.shape[1]
        mine = share(total, team)
        for processor in processors:
            processor.total = total
        own = None if conditions is None else conditions.part(mine)
        out = run_all(tokens[:, mine], context, modulation, (rotary[0][:, mine], rotary[1][:, mine]), own)
        return gathered(out, team, total, axis=1)

    network.run_blocks = run  # type: ignore[method-assign]


def send(kind: int, tensors: Sequence[Tensor], device: torch.device) -> None:
    """Send a message from rank 0 to all."""
    header = torch.zeros(HEADER, dtype=torch.int64)
    numbers = [kind, len(tensors)]
    for tensor in tensors:
        numbers += [DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape]
    header[: len(numbers)] = torch.tensor(numbers)
    dist.broadcast(header.to(device), 0)
    for tensor in tensors:
        dist.broadcast(tensor.to(device).contiguous(), 0)


def receive(device: torch.device) -> tuple[int, list[Tensor]]:
    """Wait for a message of rank 0."""
    header = torch.zeros(HEADER, dtype=torch.int64, device=device)
    dist.broadcast(header, 0)
    numbers = iter(header.tolist())
    kind, count = next(numbers), next(numbers)
    tensors = []
    for _ in range(count):
        dtype, ndim = DTYPES[next(numbers)], next(numbers)
        tensor = torch.empty([next(numbers) for _ in range(ndim)], dtype=dtype, device=device)
        dist.broadcast(tensor, 0)
        tensors.append(tensor)
    return kind, tensors


class Worker:
    """One rank's share of velocities."""

    def __init__(self, network: Lyra2Network, device: torch.device, *, guidance: bool, names: Collection[str] = ()) -> None:
        """Join the team; every rank must do this at the same time.

        Args:
            guidance: there is a negative prompt.
            names: of approximations (see speed.py).
        """
        self.network, self.device = network, device
        self.team = Team.make(guidance=guidance)
        self.skip = SKIP_BELOW if "skip_guidance" in names else 0.0
        self.cache = FirstBlockCache(network, total=self._total) if "cache" in names else None
        split_blocks(network, self.team)
        self._chunk: list[Tensor] = []
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._conditions: Conditions | None = None

    def _total(self, sums: Tensor) -> Tensor:
        if self.team.size > 1:
            dist.all_reduce(sums, group=self.team.group)
        return sums

    def begin(self, tensors: list[Tensor]) -> None:
        """Take a chunk in: history, condition, Pluecker, correspondences, image, then the texts."""
        self._chunk = tensors
        if self.cache is not None:
            self.cache.reset()
        history, _, plucker, buffer = tensors[:4]
        self._conditions = conditions_of(self.network, ChunkInputs(history, tensors[1], plucker, buffer))
        self._rotary = self.network.rotary(*history.shape[2:])

    def step(self, state: Tensor, timestep: float) -> list[Tensor]:
        """Return the velocities of this step's passes; rank 0 gets all of them."""
        history, condition, _, _, image, *texts = self._chunk
        latents = torch.cat([history, state.to(history)], 1)[None]
        time = torch.tensor([timestep], device=self.device)
        numbers = range(1 if timestep < TRAIN_STEPS * self.skip else len(texts))
        made = []
        for number in numbers:
            if self.team.passes == 2 and number != self.team.row:
                continue
            if self.cache is not None:
                self.cache.use(number)
            text = texts[number][None]
            out = self.network(latents, condition[None], time, text, image[None], self._conditions, rotary=self._rotary)
            made.append(out[0].float())
        if self.team.passes == 1 or len(numbers) == 1:
            return made
        parts = [torch.empty_like(made[0]) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, made[0].contiguous())
        return [parts[0], parts[self.team.size]]

    def serve(self) -> None:
        """Work until rank 0 says stop."""
        while True:
            kind, tensors = receive(self.device)
            if kind == STOP:
                return
            if kind == CHUNK:
                self.begin(tensors)
            else:
                self.step(tensors[0], float(tensors[1]))


def shared_velocity(worker: Worker, inputs: ChunkInputs, texts: list[Tensor], image: Tensor, *, guidance: float) -> Velocity:
    """Return the velocity as ``components.guided_velocity`` does, computed by all ranks. Rank 0 calls this."""
    tensors = [inputs.history, inputs.condition, inputs.plucker, inputs.buffer, image, *texts]
    tensors = [tensor.float().to(worker.device) for tensor in tensors]
    send(CHUNK, tensors, worker.device)
    worker.begin(tensors)

    def velocity(state: Tensor, timestep: float) -> Tensor:
        send(STEP, [state.float(), torch.tensor(timestep, dtype=torch.float64)], worker.device)
        passes = worker.step(state.float(), timestep)
        return guided(passes[0], passes[1], guidance) if len(passes) == 2 else passes[0]

    return velocity


def joined(parts: Components, cfg: Lyra2Cfg) -> Components:
    """Return parts whose velocities all ranks compute. Rank 0 calls this with its weights loaded; the others load theirs then."""
    text = torch.tensor(list(json.dumps(dataclasses.asdict(cfg)).encode()), dtype=torch.int64)
    send(SETTINGS, [text], parts.device)
    worker = Worker(parts.network, parts.device, guidance=_has_guidance(cfg), names=speed_names(cfg.speed))
    return dataclasses.replace(parts, make_velocity=functools.partial(shared_velocity, worker))


def help_rank_0(device: torch.device) -> None:
    """Load what rank 0 loads, and serve until it is done."""
    kind, tensors = receive(device)
    if kind == STOP:
        return
    settings = from_dict({"generate": {"lyra2": json.loads(bytes(tensors[0].tolist()).decode())}}).generate.lyra2
    parts = load_parts(settings)
    Worker(parts.network, parts.device, guidance=_has_guidance(settings), names=speed_names(settings.speed)).serve()


def _has_guidance(cfg: Lyra2Cfg) -> bool:
    return not cfg.distilled and cfg.guidance != 1


def run(command: Callable[[], int]) -> int:
    """Run a command on rank 0 while the others help. Started by torchrun; see lyra_core.ranks."""
    cuda = torch.cuda.is_available()
    # Ranks read tens of gigabytes before they meet.
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(hours=2))
    device = torch.device("cuda", dist.get_rank() % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    try:
        if dist.get_rank():
            help_rank_0(device)
            return 0
        try:
            return command()
        finally:
            send(STOP, [], device)
    finally:
        dist.destroy_process_group()
